"""What happens to what while Redis is gone, hangs or is not ready."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError, BusyLoadingError, MaxConnectionsError

from ratelimit_async import (
    ConfigurationError,
    Event,
    QueueConfig,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RedisUnavailable,
    RequestTimeout,
)
from ratelimit_async._connection import Server, is_outage
from ratelimit_async._events import (
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    Connected,
    Denied,
    Disconnected,
    Restarted,
)
from ratelimit_async._limits import Limit
from ratelimit_async._outage import Share
from tests.helpers import CLEAN, client_of, depth_is, eventually, leftovers, number, stopwatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.servers import RedisServer

real_redis = pytest.mark.real_redis
POLICIES = ("local", "allow", "deny", "raise")
LIMITS = {policy: RateLimitConfig("10/minute", on_outage=policy) for policy in POLICIES}


async def breaker_is(limiter: RateLimiter, *states: str) -> bool:
    return (await limiter.health()).breaker in states


async def is_ok(limiter: RateLimiter) -> bool:
    return (await limiter.health()).ok


async def processes_are(limiter: RateLimiter, n: int) -> bool:
    return (await limiter.health()).processes == n


@contextlib.asynccontextmanager
async def broken(server: RedisServer, *limiters: RateLimiter) -> AsyncIterator[None]:
    """Redis is gone, and the limiters know."""
    server.kill()
    try:
        for limiter in limiters:
            await eventually(lambda one=limiter: breaker_is(one, "open", "half-open"))
        yield
    finally:
        server.start()


# ---- configuration ----


@pytest.mark.parametrize("wrong", ["closed", "", None, True, 1])
def test_a_policy_that_does_not_exist_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RateLimiter(limits={"a": {"limits": "5/s", "on_outage": wrong}})
    assert (caught.value.field, caught.value.value) == ("limits['a'].on_outage", wrong)


async def test_a_policy_is_given_in_any_form_and_per_subject(own_server: RedisServer, tmp_path: Any) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(
        '[limits.a]\nlimits = "5/minute"\non_outage = "deny"\nby = {vip = {limits = "9/s", on_outage = "allow"}}'
    )
    environ = {
        "RATELIMIT_URL": own_server.url,
        "RATELIMIT_CONFIG": str(file),
        "RATELIMIT_LIMITS__B__LIMITS": "5/minute",
        "RATELIMIT_LIMITS__B__ON_OUTAGE": "raise",
    }
    async with RateLimiter.from_env(environ) as limiter:
        await limiter.configure({"c": {"limits": "1/minute", "on_outage": "deny"}})
        async with broken(own_server, limiter):
            denied = await limiter.hit("a")
            assert (denied.allowed, denied.reason, denied.source) == (False, "outage", "outage")
            assert (await limiter.hit("a", by="vip")).allowed
            with pytest.raises(RedisUnavailable):
                await limiter.hit("b")
            assert (await limiter.hit("c")).reason == "outage"
            assert (await limiter.hit("nobody configured this")).source == "local"


# ---- hit and check ----


@real_redis
async def test_each_policy_answers_a_hit_in_its_own_way(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, hooks=[seen.append]) as limiter:
        async with broken(own_server, limiter):
            for ask in (limiter.check, limiter.hit):
                allowed, denied, local = await ask("allow"), await ask("deny"), await ask("local")
                assert (allowed.allowed, allowed.reason, allowed.source) == (True, "ok", "outage")
                assert (denied.allowed, denied.reason, denied.source) == (False, "outage", "outage")
                assert denied.retry_after is None
                assert (local.allowed, local.reason, local.source) == (True, "ok", "local")
                with pytest.raises(RedisUnavailable, match="breaker") as caught:
                    await ask("raise")
                assert caught.value.outage
            assert [(event.name, event.source) for event in seen if isinstance(event, Denied)] == [("deny", "outage")]
        await eventually(lambda: is_ok(limiter))
        for policy in POLICIES:
            assert (await limiter.hit(policy)).source == "redis"


@real_redis
async def test_a_hit_whose_reply_was_lost_is_decided_by_the_policy_and_not_sent_again(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS, command_timeout=0.5) as limiter:
        own_server.suspend()
        asked = [asyncio.create_task(limiter.hit(policy)) for policy in POLICIES]
        *decisions, error = await asyncio.gather(*asked, return_exceptions=True)
        assert [one.source for one in decisions] == ["local", "outage", "outage"]
        assert isinstance(error, RedisUnavailable)
        own_server.resume()
        await eventually(lambda: is_ok(limiter))
        for policy in POLICIES:
            # Redis had them all in its socket, and charged each at most once.
            assert (await limiter.status(policy)).limits[0].used <= 1


@real_redis
async def test_local_shares_the_limit_among_the_processes_last_seen(own_server: RedisServer) -> None:
    limits = {"a": "10/hour", "b": "9 tokens/hour; 4/hour", "few": "2/hour"}
    async with contextlib.AsyncExitStack() as stack:
        limiters = [await stack.enter_async_context(RateLimiter(own_server.url, limits=limits)) for _ in range(3)]
        await eventually(lambda: processes_are(limiters[0], 3))
        await eventually(lambda: processes_are(limiters[1], 3))
        async with broken(own_server, *limiters):
            each = [[(await one.hit("a")).allowed for _ in range(12)].count(True) for one in limiters]
            assert each == [3, 3, 3]
            for one in limiters:
                decision = await one.hit("a")
                assert (decision.reason, decision.source, decision.remaining) == ("limit", "local", 0)
                assert decision.retry_after is not None
                assert 0 < decision.retry_after <= 3600 / 10 * 3
                assert decision.reset_after <= 3600
            # All limits, each with its own cost, or none: 3 tokens and 1 request are what each has of b.
            costs: list[dict[str, int]] = [{"tokens": 4}, {"tokens": 2}, {"tokens": 1}]
            assert [(await limiters[0].hit("b", cost=cost)).allowed for cost in costs] == [False, True, False]
            # A limit of fewer than there are processes: one each.
            few = [[(await one.hit("few")).allowed for _ in range(3)].count(True) for one in limiters]
            assert few == [1, 1, 1]


@real_redis
async def test_processes_are_counted_as_they_come_and_leave(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, lease=0.3) as one:
        assert (await one.health()).processes == 1
        async with RateLimiter(own_server.url, lease=0.3):
            await eventually(lambda: processes_are(one, 2))
        await eventually(lambda: processes_are(one, 1))
        async with RateLimiter(own_server.url, prefix="other"):
            assert (await one.health()).processes == 1
    assert (await one.health()).processes == 0
    assert (await leftovers(own_server.url)) == CLEAN


async def test_processes_are_counted_on_the_embedded_server_too(url: str) -> None:
    async with RateLimiter(url) as one, RateLimiter(url) as other:
        assert (await other.health()).processes == 2
        await eventually(lambda: processes_are(one, 2))
        assert (await one.health()).breaker == "closed"


@real_redis
async def test_a_number_of_processes_is_not_believed_before_all_had_the_time_to_show_themselves(
    own_server: RedisServer,
) -> None:
    async with RateLimiter(own_server.url, lease=1.0) as one, RateLimiter(own_server.url, lease=1.0):
        await eventually(lambda: processes_are(one, 2))
        async with broken(own_server, one):
            pass
        await eventually(lambda: is_ok(one))
        # Redis has forgotten both; whoever came first has not made itself the only one.
        assert (await one.health()).processes == 2


@real_redis
async def test_what_was_taken_locally_is_forgotten_when_redis_is_back(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS) as limiter:
        for _ in range(2):
            async with broken(own_server, limiter):
                assert [(await limiter.hit("local")).allowed for _ in range(11)] == [True] * 10 + [False]
            await eventually(lambda: is_ok(limiter))
            assert (await limiter.status("local")).limits[0].used == 0


@real_redis
async def test_many_subjects_do_not_fill_the_memory(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS) as limiter, broken(own_server, limiter):
        for n in range(10_050):
            await limiter.hit("local", by=n)
        assert limiter._session is not None
        assert len(limiter._session.requests.outage._shares) == 10_000


@real_redis
async def test_shadow_mode_denies_nothing_in_an_outage_either(own_server: RedisServer) -> None:
    limits = {
        policy: RateLimitConfig("1/hour", enforce=False, on_outage=policy) for policy in ("local", "deny", "allow")
    }
    async with RateLimiter(own_server.url, limits=limits) as limiter, broken(own_server, limiter):
        for name in limits:
            assert await limiter.request(name, number, 1) == 1
            assert (await limiter.hit(name)).allowed
        assert (await limiter.hit("local")).shadow
        assert (await limiter.hit("deny")).reason == "outage"


@real_redis
async def test_a_name_that_is_paused_stays_paused(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS) as limiter:
        await limiter.pause("local")
        async with broken(own_server, limiter):
            decision = await limiter.hit("local")
            assert (decision.reason, decision.source, decision.retry_after) == ("paused", "local", None)


# ---- the share ----

ANY_LIMIT = st.builds(
    lambda amount, period, burst: (
        Limit(amount, period, algorithm="token_bucket", burst=burst) if burst else Limit(amount, period)
    ),
    st.integers(1, 50),
    st.sampled_from([0.5, 1.0, 10.0, 60.0]),
    st.none() | st.integers(1, 80),
)


@given(ANY_LIMIT, st.integers(1, 20), st.lists(st.tuples(st.floats(0, 5), st.integers(0, 4)), max_size=60))
def test_all_shares_together_stay_within_the_limit_but_for_the_one_that_each_may_begin_with(
    limit: Limit, processes: int, asks: list[tuple[float, int]]
) -> None:
    now, taken = 0.0, 0
    share = Share(limit, processes, now)
    for pause, cost in asks:
        now += pause
        share.refresh(now, 0)
        if share.wait_for(cost) == 0:
            share.level -= cost
            taken += cost
        elif share.wait_for(cost) < 1e6:
            later = now + share.wait_for(cost)
            again = Share(limit, processes, later)
            again.level, again._at = share.level, now
            again.refresh(later + 1e-6, 0)
            assert again.wait_for(cost) == 0, "what it says is when it passes"
    burst, rate = limit.most, limit.amount / limit.period
    assert taken * processes <= max(burst, processes) + rate * now + 1e-6 * (1 + taken)


@given(ANY_LIMIT, st.integers(1, 200))
def test_something_always_passes_sooner_or_later(limit: Limit, processes: int) -> None:
    share = Share(limit, processes, 0.0)
    share.level = 0.0
    wait = share.wait_for(1)
    share.refresh(wait + 1e-6, 0)
    assert share.wait_for(1) == 0
    assert wait <= processes * limit.period / limit.amount + 1e-6


# ---- requests ----


@real_redis
async def test_each_policy_treats_a_new_request_in_its_own_way(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS) as limiter, broken(own_server, limiter):
        for policy in ("allow", "local"):
            assert await limiter.request(policy, number, 1) == 1
            async with limiter.acquire(policy) as grant:
                assert grant.decision.source == ("local" if policy == "local" else "outage")
                await grant.settle(2)
            await grant.refund()
            assert await (await limiter.submit(policy, number, 2)) == 2
        for policy, text in (("deny", "denies its requests meanwhile"), ("raise", "breaker")):
            for call in (
                lambda policy=policy: limiter.request(policy, number, 1),
                lambda policy=policy: limiter.acquire(policy),
                lambda policy=policy: limiter.submit(policy, number, 1),
            ):
                with pytest.raises(RedisUnavailable, match=text):
                    await call()


@real_redis
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_durable_task_is_refused_whatever_the_policy_says(own_server: RedisServer, policy: str) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS) as limiter:
        double = limiter.task(policy)(_double)
        assert await limiter.request(policy, double, 2) == 4
        async with broken(own_server, limiter):
            with pytest.raises(RedisUnavailable, match="breaker"):
                await limiter.request(policy, double, 3)
            with pytest.raises(RedisUnavailable, match="breaker"):
                await limiter.submit(policy, double, 3)
        await eventually(lambda: is_ok(limiter))
        assert await limiter.request(policy, double, 4) == 8


async def _double(n: int) -> int:
    return 2 * n


@real_redis
async def test_requests_wait_for_the_local_share_in_their_order(own_server: RedisServer) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    limits = {"a": "2 per 0.2 seconds"}
    async with RateLimiter(own_server.url, limits=limits) as limiter, broken(own_server, limiter):
        began = time.monotonic()
        tickets = [await limiter.submit("a", call, n) for n in range(6)]
        assert [ticket.position for ticket in tickets] == [0, 0, 1, 2, 3, 4]
        assert (await limiter.hit("a")).reason == "queue"
        await asyncio.gather(*tickets)
        assert ran == list(range(6))
        assert time.monotonic() - began >= 0.39


@real_redis
async def test_who_waits_for_the_local_share_goes_to_redis_when_it_is_back(own_server: RedisServer) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    async with RateLimiter(own_server.url, limits={"a": "2/hour"}) as limiter:
        async with broken(own_server, limiter):
            tickets = [await limiter.submit("a", call, n) for n in range(5)]
            await eventually(lambda: ran == [0, 1])
        # Redis has counted nothing yet.
        await asyncio.gather(*tickets[2:4])
        assert ran == [0, 1, 2, 3]
        await eventually(lambda: is_ok(limiter))
        assert (await limiter.status("a")).queue.depth == 1
        assert tickets[4].cancel()
        await eventually(lambda: depth_is(limiter, "a", 0))


@real_redis
async def test_a_local_wait_keeps_its_bounds(own_server: RedisServer) -> None:
    limits = {"a": RateLimitConfig("1/hour", QueueConfig(max_size=2))}
    async with RateLimiter(own_server.url, limits=limits) as limiter, broken(own_server, limiter):
        await limiter.request("a", number, 0)
        with pytest.raises(RequestTimeout):
            await limiter.request("a", number, 0, timeout=0)
        with pytest.raises(RequestTimeout) as caught:
            await limiter.request("a", number, 0, timeout=5, fail_fast=True)
        assert caught.value.estimate is not None
        with pytest.raises(RequestTimeout):
            await limiter.request("a", number, 0, timeout=0.05)
        waiting = [await limiter.submit("a", number, n) for n in range(2)]
        with pytest.raises(QueueFull):
            await limiter.request("a", number, 2)
        waiting[0].cancel()
        cancelled = asyncio.create_task(limiter.request("a", number, 2))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        last = await limiter.submit("a", number, 3)
        assert last.position == 2
    assert limiter._session is None
    for ticket in (*waiting, last):
        assert ticket.done


@real_redis
async def test_slots_are_shared_and_given_back_within_the_process(own_server: RedisServer) -> None:
    limits = {"a": "4 concurrent"}
    async with RateLimiter(own_server.url, limits=limits) as one, RateLimiter(own_server.url, limits=limits) as other:
        await eventually(lambda: processes_are(one, 2))
        held = await one.acquire("a")
        async with broken(own_server, one, other):
            # Of its two slots one is held by a call that Redis granted.
            async with one.acquire("a"):
                with pytest.raises(RequestTimeout):
                    await one.acquire("a", timeout=0.05)
                waiting = asyncio.create_task(one.request("a", number, 7))
                await asyncio.sleep(0.05)
                assert not waiting.done()
            assert await waiting == 7
            forgotten = await one.acquire("a")
            with pytest.raises(RequestTimeout):
                await one.acquire("a", timeout=0)
            # Nobody holds this one any more.
            del forgotten
            await one.acquire("a", timeout=0)
            with contextlib.suppress(RedisUnavailable):
                await held.release()
            await one.acquire("a", timeout=0)


@real_redis
async def test_requests_that_wait_keep_their_places_through_an_outage_longer_than_their_lease(
    own_server: RedisServer,
) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    limits = {"a": RateLimitConfig("5 per 2 seconds", on_outage="deny")}
    async with RateLimiter(own_server.url, limits=limits, lease=0.5, command_timeout=0.6) as limiter:
        for _ in range(5):
            await limiter.hit("a")
        tickets = [await limiter.submit("a", call, n, priority=n % 2) for n in range(8)]
        hopeless = await limiter.submit("a", call, 99, timeout=1.0)
        gone = await limiter.submit("a", call, 98)
        own_server.suspend()
        await eventually(lambda: breaker_is(limiter, "open", "half-open"))
        gone.cancel()
        with pytest.raises(RequestTimeout):
            await hopeless
        await asyncio.sleep(2)
        assert ran == []
        own_server.resume()
        await asyncio.gather(*tickets)
        assert ran == [0, 2, 4, 6, 1, 3, 5, 7]
        await eventually(lambda: depth_is(limiter, "a", 0))


@real_redis
async def test_those_who_waited_before_the_outage_go_before_those_who_came_in_it(own_server: RedisServer) -> None:
    ran: list[str] = []

    async def call(who: str) -> None:
        ran.append(who)

    async with RateLimiter(own_server.url, limits={"a": "3/hour"}) as limiter:
        await limiter.hit("a", cost=3)
        before = [await limiter.submit("a", call, who) for who in "abc"]
        async with broken(own_server, limiter):
            within = [await limiter.submit("a", call, who) for who in "DEFGH"]
            await asyncio.gather(*within[:3])
        # Redis has lost its queue and its counts.
        await asyncio.gather(*before)
        assert ran == ["D", "E", "F", "a", "b", "c"]
        # Sent once those before them are back.
        await eventually(lambda: depth_is(limiter, "a", 2))
        waiting = [one.id async for one in limiter.waiting("a")]
        assert waiting == [ticket.id for ticket in within[3:]]


@real_redis
async def test_an_upstreams_wish_to_be_left_alone_holds_locally(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "100/s"}) as limiter, broken(own_server, limiter):
        grant = await limiter.acquire("a")
        grant.push_back(60)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        decision = await limiter.hit("a")
        assert decision.reason == "paused"
        assert decision.retry_after is not None
        assert 50 < decision.retry_after <= 60


# ---- the breaker ----


@real_redis
async def test_the_breaker_opens_probes_and_closes_and_says_so(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, hooks=[seen.append]) as limiter:
        assert (await limiter.health()).breaker == "closed"
        async with broken(own_server, limiter):
            await eventually(lambda: any(isinstance(event, BreakerHalfOpened) for event in seen))
            health = await limiter.health()
            assert (health.ok, health.redis) == (False, False)
            with pytest.raises(RedisUnavailable):
                await limiter.status("local")
        await eventually(lambda: is_ok(limiter))
        assert (await limiter.health()).breaker == "closed"
    changes = [event for event in seen if isinstance(event, (BreakerOpened, BreakerHalfOpened, BreakerClosed))]
    kinds = [type(event) for event in changes]
    probes = len(kinds) // 2
    assert kinds == [BreakerOpened, BreakerHalfOpened] * probes + [BreakerClosed]
    assert [event.probes for event in changes if isinstance(event, BreakerOpened)] == list(range(probes))
    assert isinstance(changes[-1], BreakerClosed)
    assert changes[-1].after > 0


@real_redis
async def test_attempts_that_fail_for_the_same_reason_are_told_of_once(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits={"a": "5/second"}, hooks=[seen.append]):
        own_server.kill()
        await eventually(lambda: any(isinstance(event, BreakerOpened) for event in seen))
        told = [event.error for event in seen if isinstance(event, Disconnected) and event.what == "commands"]
        assert told
        assert len(set(told)) == len(told)
        own_server.restart()
        await eventually(lambda: [event.what for event in seen if isinstance(event, Connected)].count("commands") == 2)


@real_redis
@pytest.mark.parametrize("silent", [False, True], ids=["commands", "nobody calls"])
async def test_a_hung_redis_is_noticed_within_two_seconds_by_commands_and_by_the_listener(
    own_server: RedisServer, silent: bool
) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, hooks=[seen.append]) as limiter:
        own_server.suspend()
        async with stopwatch() as passed:
            if not silent:
                assert (await limiter.hit("local")).source == "local"
                assert passed() < 2
            kinds = {"replies"} if silent else {"replies", "commands"}
            await eventually(lambda: kinds <= {event.what for event in seen if isinstance(event, Disconnected)})
            assert passed() < 2
        own_server.resume()
        await eventually(lambda: is_ok(limiter))
        assert (await limiter.hit("local")).source == "redis"


@real_redis
async def test_short_breaks_are_not_noticed_by_callers(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits={"a": "100/s"}, hooks=[seen.append]) as limiter:
        for n in range(10):
            kind = ("normal", "pubsub")[n % 2]
            own_server.call("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await asyncio.sleep(0.02)
            assert (await limiter.hit("a")).source == "redis"
        seen.clear()
        own_server.kill()
        await eventually(lambda: any(isinstance(event, Disconnected) and event.what == "commands" for event in seen))
        asked = [asyncio.create_task(ask("a")) for ask in (limiter.hit, limiter.check)]
        await asyncio.sleep(0.05)
        own_server.start()
        assert [one.source for one in await asyncio.gather(*asked)] == ["redis", "redis"]
    assert not any(isinstance(event, BreakerOpened) for event in seen)


@real_redis
async def test_decisions_while_open_are_fast_and_do_not_touch_redis(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS, command_timeout=0.6) as limiter:
        own_server.suspend()
        await limiter.hit("local")
        times: list[float] = []
        for n in range(1000):
            began = time.perf_counter()
            await limiter.hit(POLICIES[n % 3])
            times.append(time.perf_counter() - began)
        assert statistics.median(times) < 0.001
        own_server.resume()
        await eventually(lambda: is_ok(limiter))
        status = await limiter.status("allow")
        assert status.limits[0].used == 0


@real_redis
async def test_what_runs_in_the_background_does_not_spin_in_an_outage(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, hooks=[seen.append], lease=0.5) as limiter:
        for _ in range(10):
            await limiter.hit("raise")
        waiting = [await limiter.submit("raise", number, n) for n in range(20)]
        async with broken(own_server, limiter):
            seen.clear()
            await asyncio.sleep(2)
            assert len(seen) < 20
            for ticket in waiting:
                ticket.cancel()
            await asyncio.sleep(0.1)
            seen.clear()
            await asyncio.sleep(1)
            assert len(seen) < 10


@real_redis
async def test_leaving_while_redis_is_gone_is_quick_and_leaves_no_task(own_server: RedisServer) -> None:
    before = asyncio.all_tasks()
    async with stopwatch() as passed:
        async with RateLimiter(own_server.url, limits=LIMITS) as limiter:
            own_server.kill()
            await eventually(lambda: breaker_is(limiter, "open", "half-open"))
            waiting = [await limiter.submit("local", number, n) for n in range(12)]
            began = passed()
        assert passed() - began < 2
    assert all(ticket.done for ticket in waiting)
    await eventually(lambda: asyncio.all_tasks() <= before)


@real_redis
async def test_no_connection_stays_behind_after_an_outage(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS, command_timeout=0.6) as limiter:
        own_server.suspend()
        await limiter.hit("local")
        await asyncio.sleep(1)
        own_server.resume()
        await eventually(lambda: is_ok(limiter))

        async def two_connections() -> bool:
            async with client_of(own_server.url) as client:
                listening = await client.client_list("pubsub")
                # This client and that of the test's server object are not the limiter's.
                calling = [one["cmd"] for one in await client.client_list("normal")]
            return len(listening) == 1 and len(calling) == 3 and calling.count("evalsha") == 1

        await eventually(two_connections)


# ---- what is an outage, and what is not ----


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (ConnectionRefusedError("refused"), True),
        (TimeoutError(), True),
        (EOFError(), True),
        ("LOADING Redis is loading the dataset in memory", True),
        ("READONLY You can't write against a read only replica. script: x", True),
        ("@user_script: 12: -READONLY You can't write against a read only replica.", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("MASTERDOWN Link with MASTER is down", True),
        ("OOM command not allowed when used memory > 'maxmemory'", False),
        ("NOPERM this user has no permissions", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("ERR a user's text may say READONLY", False),
        (AuthenticationError("invalid password"), False),
        (MaxConnectionsError("of a pool"), False),
        (BusyLoadingError("Redis is loading the dataset in memory"), True),
        (ValueError("ours"), False),
    ],
    ids=str,
)
def test_only_a_redis_that_is_gone_or_not_ready_is_an_outage(error: Exception | str, outage: bool) -> None:
    assert is_outage(error) is outage
    assert Server("x", lambda: None, 1).failure(error).outage is outage  # type: ignore[arg-type, return-value]


@real_redis
async def test_a_wrong_password_is_no_outage(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, command_timeout=1.0, hooks=[seen.append]) as limiter:
        own_server.call("CONFIG", "SET", "requirepass", "new")
        own_server.client.execute_command("AUTH", "new")
        own_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(1.5)
        asked = (limiter.hit(policy) for policy in POLICIES)
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(error, RedisUnavailable)
            assert not error.outage
        own_server.call("CONFIG", "SET", "requirepass", "")
        await eventually(lambda: is_ok(limiter))
    assert not any(isinstance(event, BreakerOpened) for event in seen)


@real_redis
async def test_a_full_memory_and_a_type_that_is_wrong_are_no_outage(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, hooks=[seen.append]) as limiter:
        await limiter.hit("local")
        async with client_of(own_server.url) as client:
            (state,) = [key async for key in client.scan_iter("*:sw:*")]
            await client.delete(state)
            await client.set(state, "x")
        with pytest.raises(RedisUnavailable, match="WRONGTYPE"):
            await limiter.hit("local")
        own_server.call("CONFIG", "SET", "maxmemory", "1")
        for policy in POLICIES:
            with pytest.raises(RedisUnavailable, match="OOM") as caught:
                await limiter.hit(policy, by="new")
            assert not caught.value.outage
        own_server.call("CONFIG", "SET", "maxmemory", "0")
        await asyncio.sleep(0.7)
        assert (await limiter.health()).breaker == "closed"
    assert not any(isinstance(event, (BreakerOpened, Disconnected)) for event in seen)


@real_redis
async def test_a_redis_that_became_a_replica_opens_the_breaker_until_it_is_none(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, hooks=[seen.append]) as limiter:
        own_server.call("REPLICAOF", "127.0.0.1", "1")
        own_server.call("CONFIG", "SET", "replica-serve-stale-data", "yes")
        # It is asked again until that is known to be no short change of roles.
        assert (await limiter.hit("deny")).source == "outage"
        await eventually(lambda: any(isinstance(event, BreakerHalfOpened) for event in seen))
        for _ in range(50):
            assert (await limiter.hit("deny")).source == "outage"
        with pytest.raises(RedisUnavailable, match="read only"):
            await limiter.hit("raise")
        own_server.call("REPLICAOF", "NO", "ONE")
        await eventually(lambda: breaker_is(limiter, "closed"))
        assert (await limiter.hit("deny")).source == "redis"


class Loading:
    """A server that speaks enough of Redis to say that it is still loading."""

    def __init__(self) -> None:
        self.connections = 0
        self.commands = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].upper())
                self.commands += 1
                known = words[0] in (b"SELECT", b"CLIENT", b"AUTH")
                writer.write(b"+OK\r\n" if known else b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()


@real_redis
async def test_a_redis_that_still_loads_is_an_outage_and_is_not_touched_but_by_probes(own_server: RedisServer) -> None:
    loading = Loading()
    async with RateLimiter(own_server.url, limits=LIMITS) as limiter:
        own_server.kill()
        async with await asyncio.start_server(loading.serve, "127.0.0.1", own_server.port):
            await eventually(lambda: breaker_is(limiter, "open", "half-open"))
            connections, commands = loading.connections, loading.commands
            began = time.monotonic()
            for n in range(1000):
                await limiter.hit(POLICIES[n % 3])
            with pytest.raises(RedisUnavailable, match="loading"):
                await limiter.hit("raise")
            # One probe at a time, one or two a second.
            assert loading.connections - connections <= 2 * (time.monotonic() - began) + 2
            assert loading.commands - commands <= 100
        own_server.start()
        await eventually(lambda: is_ok(limiter))
        assert (await limiter.hit("local")).source == "redis"


@real_redis
async def test_a_process_that_was_held_up_itself_does_not_take_redis_for_hung(own_server: RedisServer) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits=LIMITS, command_timeout=0.5, hooks=[seen.append]) as limiter:
        for _ in range(3):
            asked = asyncio.create_task(limiter.hit("allow"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(1.2)  # noqa: ASYNC251 - this is the experiment
            assert (await asked).source == "redis"
    assert not any(isinstance(event, BreakerOpened) for event in seen)


@real_redis
@pytest.mark.slow
async def test_redis_hangs_for_ten_seconds_under_load(own_server: RedisServer) -> None:
    seen: list[Event] = []
    limits = {"hits": "100/s", "turns": RateLimitConfig("20 per 0.2 seconds", on_outage="deny")}
    worst: list[float] = []
    sources: set[str] = set()

    async def hit(limiter: RateLimiter, until: Callable[[], bool]) -> None:
        while not until():
            began = passed()
            sources.add((await limiter.hit("hits")).source)
            worst.append(passed() - began)
            await asyncio.sleep(0.01)

    async with (
        stopwatch() as passed,
        RateLimiter(own_server.url, limits=limits, hooks=[seen.append]) as limiter,
    ):
        done = False
        hitting = [asyncio.create_task(hit(limiter, lambda: done)) for _ in range(10)]
        await limiter.pause("turns")
        tickets = [await limiter.submit("turns", number, n) for n in range(100)]
        await asyncio.sleep(0.2)
        own_server.suspend()
        await asyncio.sleep(10)
        own_server.resume()
        began = passed()
        await eventually(lambda: is_ok(limiter))
        recovered = passed() - began
        await limiter.resume("turns")
        assert await asyncio.gather(*tickets) == list(range(100))
        done = True
        await asyncio.gather(*hitting)
    assert sources == {"redis", "local"}
    assert max(worst) < 2.5
    assert recovered < 5
    assert len([event for event in seen if isinstance(event, Restarted)]) < 10


@real_redis
async def test_what_redis_did_after_its_reply_was_given_up_is_taken_back(own_server: RedisServer) -> None:
    limits = {"a": RateLimitConfig("1/hour", on_outage="allow"), "b": "1/hour"}
    async with RateLimiter(own_server.url, limits=limits, command_timeout=0.6) as limiter:
        await limiter.hit("a")
        await limiter.hit("b")
        own_server.suspend()
        # These are in Redis' socket, and join its queues when it goes on.
        allowed = asyncio.create_task(limiter.request("a", number, 1))
        first, second = [asyncio.create_task(limiter.submit("b", number, n)) for n in range(2)]
        assert await allowed == 1
        assert await (await first) == 0
        assert (await second).position == 1
        own_server.resume()
        await eventually(lambda: is_ok(limiter))
        await eventually(lambda: depth_is(limiter, "a", 0))
        await eventually(lambda: depth_is(limiter, "b", 1))
        (await second).cancel()
        await eventually(lambda: depth_is(limiter, "b", 0))


@real_redis
async def test_whatever_comes_and_goes_during_outages_leaves_nothing_behind(own_server: RedisServer) -> None:
    rng = random.Random(7)
    limits = {
        "fast": "30 per 0.2 seconds",
        "slots": "6 concurrent",
        "both": "20 per 0.2 seconds; 3 concurrent",
        "open": RateLimitConfig("5 per 0.2 seconds", on_outage="allow"),
    }
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(rng.uniform(0, 0.03))

    async def caller(limiter: RateLimiter) -> str:
        name = rng.choice(list(limits))
        try:
            async with asyncio.timeout(rng.choice([None, None, rng.uniform(0, 0.5)])):
                if rng.random() < 0.5:
                    await limiter.request(name, call, timeout=rng.choice([None, rng.uniform(0, 2)]))
                else:
                    async with limiter.acquire(name, priority=rng.randrange(3)):
                        await call()
        except (TimeoutError, RedisUnavailable) as error:
            return type(error).__name__
        return "ran"

    options: dict[str, Any] = {"limits": limits, "lease": 0.5, "command_timeout": 0.6, "poll_interval": 0.1}
    async with RateLimiter(own_server.url, **options) as one, RateLimiter(own_server.url, **options) as other:
        callers = []
        for turn in range(4):
            callers += [asyncio.create_task(caller(rng.choice([one, other]))) for _ in range(60)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(own_server.suspend if turn % 2 else own_server.kill)
            for _ in range(10):
                callers += [asyncio.create_task(caller(rng.choice([one, other]))) for _ in range(6)]
                await asyncio.sleep(0.12)
            await asyncio.to_thread(own_server.resume if turn % 2 else own_server.start)
        ends = await asyncio.wait_for(asyncio.gather(*callers), 30)
        assert set(ends) <= {"ran", "TimeoutError", "RequestTimeout"}
        assert ends.count("ran") <= calls
        assert ends.count("ran") > len(ends) / 2
        for limiter in (one, other):
            assert limiter._session is not None
            requests = limiter._session.requests
            await eventually(lambda limiter=limiter: is_ok(limiter))
            assert not requests._waiters
            assert not requests._waiting
            assert not requests.outage.queues
            assert not requests.outage._running
            assert not requests.local._timers
            await eventually(lambda requests=requests: not requests._untold)
        for name in limits:

            async def drained(name: str = name) -> bool:
                status = await one.status(name)
                held = [limit.used for limit in status.limits if limit.limit.algorithm == "concurrent"]
                return not status.queue.depth and not any(held)

            await eventually(drained)
    assert (await leftovers(own_server.url)) == CLEAN
