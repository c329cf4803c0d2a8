"""The crash table: what becomes of a request, its capacity and its caller, whatever breaks and when."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import experiments
from bench.fleet import Fleet
from ratelimit_async import Event, QueueConfig, RateLimitConfig, RateLimiter, RedisUnavailable, RequestTimeout
from ratelimit_async._events import Disconnected
from ratelimit_async._lua import ALL
from tests.helpers import client_of, depth_is, eventually, is_paused, leftovers, number
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from tests.servers import RedisServer

pytestmark = pytest.mark.real_redis
SHORT = {"lease": 0.6, "poll_interval": 0.2}
MANY = "10000/hour"


async def used(limiter: RateLimiter, name: str) -> int:
    return (await limiter.status(name)).limits[0].used


async def used_is(limiter: RateLimiter, name: str, amount: int) -> bool:
    return await used(limiter, name) == amount


# ---- under load: nothing lost, nothing run twice, never more than the amount in any window ----

# Seconds within which somebody must be granted something again: the leases of who is gone, twice, and a slow machine.
RECOVERY = 2 * (SHORT["lease"] + 2 * SHORT["poll_interval"]) + 2


@pytest.mark.parametrize(
    ("experiment", "kind"),
    [
        (experiments.pubsub_killed, "submit"),
        (experiments.pubsub_killed, "acquire"),
        (experiments.commands_killed, "acquire"),
        (experiments.commands_killed, "request"),
        (experiments.scripts_flushed, "acquire"),
        (experiments.replies_swallowed, "acquire"),
        (experiments.replies_swallowed, "submit"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_nothing_is_lost_doubled_or_charged_twice_while_connections_and_scripts_go(
    experiment: Callable[..., Coroutine[Any, Any, experiments.Outcome]], kind: str
) -> None:
    outcome = await experiment(requests=120, kind=kind)
    assert outcome.faults > 0
    assert outcome.requests == 120
    assert (outcome.lost, outcome.duplicated, outcome.over_admitted, outcome.overcharged) == (0, 0, 0, 0)
    assert outcome.recovery < RECOVERY


@pytest.mark.parametrize(
    ("experiment", "rounds"),
    [
        (experiments.blackholed, 1),
        (experiments.redis_killed, 2),
        (experiments.drivers_killed, 3),
        (experiments.waiters_killed, 3),
        (experiments.processes_stopped, 1),
        pytest.param(experiments.redis_stopped, 1, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_nothing_is_lost_doubled_or_over_admitted_when_processes_or_redis_go(
    experiment: Callable[..., Coroutine[Any, Any, experiments.Outcome]], rounds: int
) -> None:
    outcome = await experiment(rounds=rounds)
    assert outcome.requests > experiments.AMOUNT
    assert (outcome.lost, outcome.duplicated, outcome.over_admitted) == (0, 0, 0)
    assert outcome.recovery < RECOVERY


async def test_a_flush_forgets_what_is_counted_but_no_request_of_any_process() -> None:
    outcome = await experiments.flushed(rounds=2)
    assert outcome.requests > experiments.AMOUNT
    assert (outcome.lost, outcome.duplicated) == (0, 0)
    # What was counted in the window that the flush fell into is gone with it.
    assert outcome.over_admitted <= experiments.AMOUNT
    assert outcome.recovery < RECOVERY


# ---- a reply is lost after its script was executed ----


@pytest.fixture
async def proxy(own_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(own_server.port) as proxy:
        yield proxy


async def test_a_request_whose_admission_was_not_heard_is_charged_once(proxy: Proxy) -> None:
    async with RateLimiter(proxy.url, limits={"a": MANY}) as limiter:
        proxy.swallow(ALL["admit"].sha)
        assert await asyncio.gather(*(limiter.request("a", number, n) for n in range(5))) == list(range(5))
        assert proxy.swallowed == 1
        assert await used(limiter, "a") == 5


async def test_a_request_that_comes_again_is_charged_again_though_its_first_turn_is_remembered(proxy: Proxy) -> None:
    calls = 0

    async def fail_once() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        return calls

    def second(data: bytes, _: int) -> bool:
        return calls == 1 and ALL["admit"].sha.encode() in data

    async with RateLimiter(proxy.url, limits={"a": MANY}) as limiter:
        proxy.swallow(second)
        assert await limiter.request("a", fail_once, retry_on=ValueError, backoff=0.01) == 2
        assert proxy.swallowed == 1
        assert await used(limiter, "a") == 2


async def test_a_hit_whose_reply_was_lost_is_not_sent_again(proxy: Proxy) -> None:
    async with RateLimiter(proxy.url, limits={"a": RateLimitConfig(MANY, on_outage="raise")}) as limiter:
        proxy.swallow(ALL["quick"].sha)
        with pytest.raises(RedisUnavailable, match="connection lost before the reply"):
            await limiter.hit("a")
        assert await used(limiter, "a") == 1


@pytest.mark.parametrize("script", ["admit", "grant", "claim", "renew", "sync"])
@pytest.mark.parametrize("limit", [MANY, "3 concurrent"])
async def test_waiting_requests_whose_replies_were_lost_run_once_and_are_charged_once(
    own_server: RedisServer, proxy: Proxy, script: str, limit: str
) -> None:
    runs: list[int] = []

    async def call(n: int) -> None:
        runs.append(n)

    limits = {"a": [limit, "10000/day"]}
    async with (
        RateLimiter(own_server.url, limits=limits) as other,
        RateLimiter(proxy.url, limits=limits, **SHORT) as limiter,
    ):
        await other.pause("a")
        await eventually(lambda: is_paused(limiter, "a"))
        if script == "admit":
            proxy.swallow(ALL[script].sha)
        elif script == "sync":
            # Otherwise each is asked for in one turn of many.
            limiter._live().requests._rounds.rounds = 1
        tickets = [await limiter.submit("a", call, n) for n in range(5)]
        if script != "admit":
            proxy.swallow(ALL[script].sha)
        if script in ("admit", "renew", "sync"):
            await eventually(lambda: proxy.swallowed == 1)
        await other.resume("a")
        await asyncio.gather(*tickets)
        assert proxy.swallowed == 1
        assert runs == list(range(5))
        limited = (await other.status("a")).limits
        assert limited[1].used == 5
        if "concurrent" in limit:
            await eventually(lambda: used_is(other, "a", 0))


async def test_grants_that_nobody_was_told_of_run_by_priority(own_server: RedisServer, proxy: Proxy) -> None:
    runs: list[int] = []

    async def call(n: int) -> None:
        runs.append(n)

    async with (
        RateLimiter(own_server.url, limits={"a": MANY}) as other,
        RateLimiter(proxy.url, processor=False) as limiter,
    ):
        await other.pause("a")
        await eventually(lambda: is_paused(limiter, "a"))
        tickets = [await limiter.submit("a", call, n, priority=n % 2) for n in range(8)]
        proxy.refuse = True
        proxy.cut()
        await other.resume("a")
        await eventually(lambda: used_is(other, "a", 8))
        proxy.refuse = False
        await asyncio.gather(*tickets)
        assert runs == [0, 2, 4, 6, 1, 3, 5, 7]


async def test_a_withdrawal_whose_reply_was_lost_is_none_the_less_one(own_server: RedisServer, proxy: Proxy) -> None:
    async with RateLimiter(proxy.url, limits={"a": MANY}) as limiter, RateLimiter(own_server.url) as other:
        await other.pause("a")
        await eventually(lambda: is_paused(limiter, "a"))
        tickets = [await limiter.submit("a", number, n) for n in range(3)]
        proxy.swallow(ALL["withdraw"].sha)
        tickets[1].cancel()
        await eventually(lambda: proxy.swallowed == 1)
        await other.resume("a")
        assert await asyncio.gather(tickets[0], tickets[2]) == [0, 2]
        assert await used(limiter, "a") == 2


def lose_from(proxy: Proxy, script: str) -> None:
    """Let Redis execute a script, and be out of reach before it is heard."""

    def lose(data: bytes, _: int) -> bool:
        proxy.refuse = proxy.refuse or ALL[script].sha.encode() in data
        return proxy.refuse

    proxy.swallow(lose)


@pytest.mark.parametrize("limit", [MANY, "3 concurrent"])
async def test_what_redis_charged_is_given_back_where_an_outage_kept_it_from_being_told(
    own_server: RedisServer, proxy: Proxy, limit: str
) -> None:
    limits = {"a": [limit, "10000/day"]}

    async def charged(amount: int) -> bool:
        return (await other.status("a")).limits[1].used == amount

    async with (
        RateLimiter(own_server.url, limits=limits) as other,
        RateLimiter(proxy.url, limits=limits, **SHORT) as limiter,
    ):
        lose_from(proxy, "admit")
        # It runs by the share of its process.
        assert await limiter.request("a", number, 7) == 7
        assert await charged(1)
        proxy.refuse = False
        await eventually(lambda: charged(0))
        # Those before keep their charges, and what is requested from now on is charged as always.
        assert await limiter.request("a", number, 8) == 8
        assert await charged(1)


async def test_a_grant_that_was_taken_over_and_cancelled_in_an_outage_is_given_back(
    own_server: RedisServer, proxy: Proxy
) -> None:
    async with (
        RateLimiter(own_server.url, limits={"a": MANY}) as other,
        RateLimiter(proxy.url, limits={"a": MANY}, processor=False) as limiter,
    ):
        await other.pause("a")
        await eventually(lambda: is_paused(limiter, "a"))
        tickets = [await limiter.submit("a", number, n) for n in range(2)]
        lose_from(proxy, "claim")
        await other.resume("a")
        await eventually(lambda: _is_cut_off(limiter))
        tickets[0].cancel()
        proxy.refuse = False
        assert await tickets[1] == 1
        await eventually(lambda: used_is(other, "a", 1))


async def test_the_end_of_a_call_whose_reply_was_lost_frees_its_place_once(proxy: Proxy) -> None:
    async with RateLimiter(proxy.url, limits={"a": "2 concurrent"}) as limiter:
        async with limiter.acquire("a"):
            async with limiter.acquire("a"):
                proxy.swallow(ALL["adjust"].sha)
            await eventually(lambda: proxy.swallowed == 1)
            await eventually(lambda: used_is(limiter, "a", 1))
        await eventually(lambda: used_is(limiter, "a", 0))


async def test_a_settlement_whose_reply_was_lost_is_told_and_not_made_twice(proxy: Proxy) -> None:
    async with RateLimiter(proxy.url, limits={"a": "10000 tokens/hour"}) as limiter:
        grant = await limiter.acquire("a", cost={"tokens": 100})
        proxy.swallow(ALL["adjust"].sha)
        with pytest.raises(RedisUnavailable):
            await grant.settle({"tokens": 40})
        assert await used(limiter, "a") == 40


async def test_a_renewal_whose_reply_was_lost_keeps_the_place_of_what_runs(proxy: Proxy) -> None:
    async with RateLimiter(proxy.url, limits={"a": "2 concurrent"}, **SHORT) as limiter, limiter.acquire("a"):
        proxy.swallow(ALL["hold"].sha)
        await eventually(lambda: proxy.swallowed == 1)
        for _ in range(10):
            await asyncio.sleep(SHORT["lease"] / 6)
            assert await used(limiter, "a") == 1


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"+what\r\n", "an answer that nobody asked for: b'what'"),
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
        (b"what?\r\n", 'Protocol error, got "w" as reply type byte'),
    ],
)
async def test_a_server_that_talks_out_of_turn_is_left_and_nothing_of_it_is_taken_for_an_answer(
    proxy: Proxy, said: bytes, problem: str
) -> None:
    ends: list[str] = []

    def hook(event: Event) -> None:
        if isinstance(event, Disconnected) and event.what == "commands":
            ends.append(event.error)

    async with RateLimiter(proxy.url, limits={"a": MANY}, hooks=[hook]) as limiter:
        assert (await limiter.hit("a")).remaining == 9999
        for link in set(proxy.links):
            link.client.write(said)
        await eventually(lambda: ends)
        assert problem in ends[0]
        assert (await limiter.hit("a")).remaining == 9998


async def test_what_was_taken_lately_is_remembered_within_bounds(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "1000000/hour"}) as limiter, client_of(own_server.url) as redis:
        for _ in range(40):
            await asyncio.gather(*(limiter.request("a", number, n) for n in range(100)))
        (key,) = [key async for key in redis.scan_iter(match="*}:a*")]
        lines = (await redis.get(key)).splitlines()
        assert await redis.strlen(key) <= 32768 + 32 * 40
        assert len(lines) > 500
        # Only whole lines, and the last ones.
        assert all(line.count(" ") == 1 and len(line.split()[1]) == 16 for line in lines)
        assert lines[-1].split()[0] == "4000"
        assert 0 < await redis.pttl(key) <= 20_000


# ---- callers are cancelled at random awaits ----


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), holds=st.booleans())
async def test_what_cancelled_callers_took_and_did_not_use_is_given_back(
    redis_url: str, seed: int, holds: bool
) -> None:
    rng = random.Random(seed)
    name = f"n{seed}{holds}"
    queue = QueueConfig(priorities=2)
    limits = {name: RateLimitConfig(["5 per 0.02 seconds", MANY, *(["4 concurrent"] if holds else [])], queue)}
    before = asyncio.all_tasks()
    began = cancelled = 0

    async def call() -> None:
        nonlocal began
        began += 1
        await asyncio.sleep(rng.uniform(0, 0.01))

    async def one(limiter: RateLimiter, how: int) -> None:
        nonlocal began
        priority, timeout = rng.randint(0, 1), rng.choice([None, 0.02])
        if how == 0:
            async with limiter.acquire(name, priority=priority, timeout=timeout):
                await call()
        elif how == 1:
            await limiter.request(name, call, priority=priority, timeout=timeout)
        else:
            ticket = await limiter.submit(name, call, priority=priority, timeout=timeout)
            try:
                await ticket
            finally:
                ticket.cancel()

    async with RateLimiter(redis_url, limits=limits, hooks=[]) as limiter:
        tasks = [asyncio.create_task(one(limiter, rng.randint(0, 2))) for _ in range(40)]
        for task in tasks:
            if rng.random() < 0.7:
                asyncio.get_running_loop().call_later(rng.choice([0, 0.001, 0.01, rng.uniform(0, 0.1)]), task.cancel)
                cancelled += 1
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert end is None or isinstance(end, (asyncio.CancelledError, RequestTimeout)), end
        await eventually(lambda: depth_is(limiter, name, 0))

        async def as_the_model() -> bool:
            limited = (await limiter.status(name)).limits
            return limited[1].used == began and all(one.used == 0 for one in limited[2:])

        await eventually(as_the_model)
    assert asyncio.all_tasks() == before
    assert (await leftovers(redis_url))["waiting"] == []


# ---- a process is killed, or stopped, at a known moment ----


@contextlib.asynccontextmanager
async def waiting_process(server: RedisServer, limit: str, **how: Any) -> AsyncIterator[tuple[RateLimiter, Fleet]]:
    """Give a limiter of this process, and another process that waits for one turn while the key is paused."""
    async with (
        RateLimiter(server.url, limits={"a": limit}, **SHORT) as limiter,
        Fleet(server.url, {"a": limit}, callers=1, turns=1, processor=False, **SHORT, **how) as fleet,
    ):
        await limiter.pause("a")
        await fleet.add()
        await eventually(lambda: depth_is(limiter, "a", 1))
        yield limiter, fleet


async def _granted(server: RedisServer) -> bool:
    return bool(server.call("HLEN", "{rl:a:}:r"))


async def test_a_grant_whose_process_was_killed_before_claiming_costs_nothing(own_server: RedisServer) -> None:
    async with waiting_process(own_server, "1 per hour") as (limiter, fleet):
        (worker,) = fleet.workers
        worker.signal(signal.SIGSTOP)
        await limiter.resume("a")
        await eventually(lambda: _granted(own_server))
        assert await used(limiter, "a") == 1
        await fleet.kill(worker)
        # The only one of this hour.
        assert await limiter.request("a", number, 7, timeout=5) == 7
        assert not fleet.journal.runs


async def test_a_process_killed_while_it_runs_keeps_its_charge_and_frees_its_place(own_server: RedisServer) -> None:
    limit = "3/hour; 1 concurrent"
    async with waiting_process(own_server, limit, seconds=60) as (limiter, fleet):
        (worker,) = fleet.workers
        await limiter.resume("a")
        await eventually(lambda: bool(fleet.journal.runs))
        await fleet.kill(worker)
        assert await limiter.request("a", number, 7, timeout=5) == 7
        assert await used(limiter, "a") == 2


async def test_a_grant_claimed_after_its_lease_is_refused_and_its_place_is_found_again(own_server: RedisServer) -> None:
    async with waiting_process(own_server, "1 per 2 seconds") as (limiter, fleet):
        (worker,) = fleet.workers
        worker.signal(signal.SIGSTOP)
        await limiter.resume("a")
        await eventually(lambda: _granted(own_server))
        # It passes in the place of the one that is stopped for longer than its lease.
        async with limiter.acquire("a", timeout=5) as grant:
            pass
        worker.signal(signal.SIGCONT)
        await worker.gone()
        assert worker.told == (1, 1)
        assert list(fleet.journal.runs.values()) == [1]
        assert fleet.journal.stamps[0] >= grant.granted_at + 2


async def test_those_who_wait_in_several_processes_come_back_in_order_of_arrival(own_server: RedisServer) -> None:
    order: list[tuple[int, int]] = []

    async def call(priority: int, n: int) -> None:
        order.append((priority, n))

    config = RateLimitConfig("1 per 0.01 seconds", QueueConfig(priorities=2))
    async with contextlib.AsyncExitStack() as stack:
        three = [
            await stack.enter_async_context(RateLimiter(own_server.url, limits={"a": config}, **SHORT))
            for _ in range(3)
        ]
        await three[0].pause("a")
        for limiter in three:
            await eventually(lambda one=limiter: is_paused(one, "a"))
        tickets = [await three[n % 3].submit("a", call, n % 2, n, priority=n % 2, timeout=None) for n in range(24)]
        own_server.call("FLUSHALL")
        # Paused anew before anybody can have come back: the order of coming back is not that of arrival.
        await three[0].pause("a")
        await eventually(lambda: depth_is(three[0], "a", 24))
        assert not order
        await three[0].resume("a")
        await asyncio.gather(*tickets)
    assert order == sorted(order)


# ---- Redis refuses ----


async def test_at_its_memory_limit_redis_refuses_newcomers_while_places_are_kept_and_given_up(
    own_server: RedisServer,
) -> None:
    limits = {"a": MANY, "held": "2 concurrent"}
    async with RateLimiter(own_server.url, limits=limits, **SHORT) as limiter:
        await limiter.pause("a")
        tickets = [await limiter.submit("a", number, n, timeout=None) for n in range(4)]
        async with limiter.acquire("held"):
            own_server.call("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(RedisUnavailable, match="OOM"):
                await limiter.request("other", number, 1)
            # For longer than leases last.
            await asyncio.sleep(2 * SHORT["lease"])
            assert await used(limiter, "held") == 1
            tickets[1].cancel()
            await eventually(lambda: depth_is(limiter, "a", 3))
        await eventually(lambda: used_is(limiter, "held", 0))
        # Who waits is granted all the same.
        await limiter.resume("a")
        assert await asyncio.gather(tickets[0], *tickets[2:]) == [0, 2, 3]
        assert await used(limiter, "a") == 3
        own_server.call("CONFIG", "SET", "maxmemory", "0")
        assert await limiter.request("other", number, 1) == 1


async def test_what_is_settled_or_refunded_at_the_memory_limit_is_given_back(own_server: RedisServer) -> None:
    limits = {"a": "100 tokens/hour", "b": "100 tokens/hour token_bucket", "c": "100 tokens/day fixed_window"}
    async with RateLimiter(own_server.url, limits=limits) as limiter:
        grants = [await limiter.acquire(name, cost={"tokens": 50}) for name in limits]
        own_server.call("CONFIG", "SET", "maxmemory", "1")
        for grant in grants:
            await grant.settle({"tokens": 10})
        assert [await used(limiter, name) for name in limits] == [10, 10, 10]
        for grant in grants:
            await grant.refund()
        assert [await used(limiter, name) for name in limits] == [0, 0, 0]
        with pytest.raises(RedisUnavailable, match="OOM"):
            await limiter.hit("other")


async def test_scripts_that_may_not_be_loaded_again_are_an_error_with_a_name(own_server: RedisServer) -> None:
    # Nothing else is sent meanwhile: it is the only script that is missing.
    async with RateLimiter(own_server.url, limits={"a": MANY}, lease=180, poll_interval=60) as limiter:
        own_server.call("SCRIPT", "FLUSH")
        own_server.call("ACL", "SETUSER", "default", "-script|load")
        with pytest.raises(RedisUnavailable, match="script"):
            await asyncio.wait_for(limiter.hit("a"), 30)
        own_server.call("ACL", "SETUSER", "default", "+script|load")
        assert (await limiter.hit("a")).remaining == 9999


async def test_no_more_connections_is_an_outage_with_a_name_and_an_end(own_server: RedisServer) -> None:
    limits = {"a": RateLimitConfig(MANY, on_outage="raise")}
    async with RateLimiter(own_server.url, limits=limits, command_timeout=0.4, connect_timeout=0.4) as limiter:
        await limiter.hit("a")
        own_server.call("CONFIG", "SET", "maxclients", "1")
        with pytest.raises(RedisUnavailable):
            async with RateLimiter(own_server.url):
                pass
        # Connections that are open go on.
        assert (await limiter.hit("a")).allowed
        own_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(RedisUnavailable):
            await limiter.request("a", number, 1)
        own_server.call("CONFIG", "SET", "maxclients", "10000")
        await eventually(lambda: _works(limiter))
        assert await limiter.request("a", number, 2) == 2


async def _is_cut_off(limiter: RateLimiter) -> bool:
    return (await limiter.health()).breaker == "open"


async def _works(limiter: RateLimiter) -> bool:
    return (await limiter.health()).ok


async def test_a_limiter_takes_two_connections_however_many_callers_it_has(own_server: RedisServer) -> None:
    count = len(own_server.call("CLIENT", "LIST").splitlines())
    async with RateLimiter(own_server.url, limits={"a": MANY}) as limiter:
        await asyncio.gather(*(limiter.hit("a") for _ in range(500)))
        assert len(own_server.call("CLIENT", "LIST").splitlines()) == count + 2
    await eventually(lambda: len(own_server.call("CLIENT", "LIST").splitlines()) == count)


# ---- a lease that lapsed, and was taken up again before anybody noticed ----


async def test_a_newcomer_after_a_flush_does_not_hide_those_that_were_forgotten(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "1 per 0.01 seconds"}, **SHORT) as limiter:
        await limiter.pause("a")
        tickets = [await limiter.submit("a", number, n, timeout=None) for n in range(3)]
        own_server.call("FLUSHALL")
        await limiter.pause("a")
        tickets += [await limiter.submit("a", number, n, timeout=None) for n in range(3, 5)]
        await limiter.resume("a")
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tickets) == list(range(5))


async def test_a_renewal_whose_reply_was_lost_does_not_hide_those_that_were_forgotten(
    own_server: RedisServer, proxy: Proxy
) -> None:
    limits = {"a": "1 per 0.01 seconds"}
    async with RateLimiter(proxy.url, limits=limits, **SHORT) as limiter, RateLimiter(own_server.url) as other:
        await limiter.pause("a")
        tickets = [await limiter.submit("a", number, n, timeout=None) for n in range(3)]
        proxy.swallow(ALL["sync"].sha)
        own_server.call("FLUSHALL")
        await eventually(lambda: proxy.swallowed == 1)
        await other.resume("a")
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tickets) == list(range(3))


async def test_a_process_that_stood_still_finds_its_places_again_though_it_comes_with_a_newcomer(
    own_server: RedisServer,
) -> None:
    # It drives nothing, so that what it does first after it stood still is to ask for one more turn.
    async with (
        RateLimiter(own_server.url, limits={"a": "1 per 0.01 seconds"}, processor=False, **SHORT) as limiter,
        Fleet(own_server.url, {"a": "1 per 0.01 seconds"}, callers=1, turns=1, seconds=60, **SHORT) as fleet,
    ):
        await limiter.pause("a")
        tickets = [await limiter.submit("a", number, n, timeout=None) for n in range(3)]
        await fleet.add()
        # The whole event loop: nothing renews a lease, while the other process clears the queue of who is gone.
        end = time.monotonic() + 10
        while own_server.call("LLEN", "{rl:a:}:q1") != 1:
            time.sleep(0.01)  # noqa: ASYNC251
            assert time.monotonic() < end
        tickets.append(await limiter.submit("a", number, 3, timeout=None))
        await limiter.resume("a")
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tickets) == list(range(4))
