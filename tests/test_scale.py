"""What many wait for stays cheap: bounds that are no durations; `python -m bench scale` has those."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from bench import scale
from bench.windows import rows_of, window_of
from ratelimit_async import QueueConfig, RateLimitConfig, RateLimiter
from tests.helpers import client_of, depth_is, eventually, number, rows_at

if TYPE_CHECKING:
    import redis.asyncio

    from tests.servers import RedisServer

N = 1000
MB = 1_000_000
LONG = RateLimitConfig("1/day", QueueConfig(max_size=10_000))


def calls_of(server: RedisServer, command: str = "evalsha") -> int:
    stats: Any = server.client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


# ---- memory ----


@pytest.mark.real_redis
async def test_what_is_counted_takes_little_however_much_it_is(own_server: RedisServer) -> None:
    for algorithm in scale.ALGORITHMS:
        for hits in (10_000, 1_000_000):
            assert await scale.memory_counted(own_server, hits, algorithm) < 0.125 * MB
    for algorithm in scale.ALGORITHMS:
        assert await scale.memory_keys(own_server, N, algorithm) < 200 * N


@pytest.mark.real_redis
async def test_ten_thousand_that_wait_take_less_than_half_a_megabyte_of_redis(own_server: RedisServer) -> None:
    redis, _ = await scale.memory_waiting(own_server, N, 1)
    assert redis < 0.5 * MB * N / 10_000
    redis, _ = await scale.memory_waiting(own_server, N, N // 10)
    assert redis < 1.1 * MB * N / 10_000


@pytest.mark.real_redis
async def test_a_task_that_waits_takes_less_than_thrice_its_arguments(own_server: RedisServer) -> None:
    assert await scale.memory_tasks(own_server, N) < 3 * MB * N / 10_000


@pytest.mark.real_redis
# Where branches are covered, the tracer adds some 600 bytes to every coroutine; the bench measures without.
@pytest.mark.parametrize(("submit", "most"), [(False, 3500), (True, 3500)])
async def test_who_waits_takes_little_of_its_process(own_server: RedisServer, submit: bool, most: int) -> None:
    _, client = await scale.memory_waiting(own_server, N, 1, submit=submit)
    assert client < most * N


# ---- script calls ----


@pytest.mark.real_redis
async def test_script_calls_per_grant_do_not_grow_with_those_who_wait(own_server: RedisServer) -> None:
    few = await scale.grants(own_server, 100, 10, "1 per 0.05 seconds")
    many = await scale.grants(own_server, 2000, 200, "1 per 0.05 seconds")
    assert few.calls < 1.0 * 100
    assert many.calls < 1.0 * 2000
    hot = await scale.grants(own_server, 2000, 1, "200 per 0.05 seconds")
    assert hot.calls < 0.2 * 2000


@pytest.mark.real_redis
async def test_checks_of_a_crowd_travel_in_larger_batches_each_bounded(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "1000/day"}, hooks=[]) as limiter:
        for subjects in (640, 4):
            await asyncio.gather(*(limiter.check("a", by=f"{subjects} {by}") for by in range(subjects)))
            own_server.call("CONFIG", "RESETSTAT")
            decisions = await asyncio.gather(*(limiter.hit("a", by=f"{subjects} {n % subjects}") for n in range(640)))
            # Nine of 64 and two of 32; the processor may look meanwhile.
            assert 10 <= calls_of(own_server) <= 14
            assert sorted(1000 - decision.remaining for decision in decisions) == sorted(
                n // subjects + 1 for n in range(640)
            )
            # Who fills no two batches is not kept from going in two at once.
            own_server.call("CONFIG", "RESETSTAT")
            await asyncio.gather(*(limiter.check("a", by=by) for by in range(64)))
            assert 2 <= calls_of(own_server) <= 4


@pytest.mark.real_redis
async def test_who_waits_on_many_keys_renews_its_leases_by_few_calls(own_server: RedisServer) -> None:
    async with scale.waiting(own_server, 640, 640, lease=600) as (limiter, _):
        live = limiter._live()
        # Of the turns in which each is asked for, too: in none of these.
        live.requests._rounds.rounds = 1_000_000
        own_server.call("CONFIG", "RESETSTAT")
        await live.requests.renew()
        # Of 64 keys each; the processor may renew its own once meanwhile.
        assert 10 <= calls_of(own_server) <= 10 + 11
        assert calls_of(own_server, "hmget") == 0
        await live.requests.sync(scan=False)
        assert calls_of(own_server, "hmget") == 640


@pytest.mark.real_redis
async def test_who_drives_many_keys_looks_at_some_and_keeps_its_leases_on_all(own_server: RedisServer) -> None:
    limits = {"a": LONG}
    async with RateLimiter(own_server.url, limits=limits, hooks=[], poll_interval=0.2) as limiter:
        subjects = range(600)
        await asyncio.gather(*(limiter.hit("a", by=by) for by in subjects))
        tickets = await asyncio.gather(*(limiter.submit("a", number, by, by=by, timeout=None) for by in subjects))
        own_server.call("CONFIG", "RESETSTAT")
        drivers = [limiter._key_of("a", by).driver for by in subjects]
        loop = asyncio.get_running_loop()
        begun, held = loop.time(), list[int]()
        while loop.time() < begun + 2:
            held.append(int(own_server.call("EXISTS", *drivers)))
            await asyncio.sleep(0.05)
        # Each look writes who drives the key: ten of each, if it were looked at as often as its lease is renewed.
        looks = calls_of(own_server, "set")
        assert 100 < looks < 600 * 4
        # A machine that stands still for longer than a lease lets some of them go, for a moment.
        assert sorted(held)[len(held) // 4] == 600
        for ticket in tickets:
            ticket.cancel()


async def test_a_queue_that_is_paused_without_end_is_not_looked_at_for_it(url: str) -> None:
    async with RateLimiter(url, limits={"a": LONG}, hooks=[]) as limiter:
        await limiter.pause("a")
        ticket = await limiter.submit("a", number, 5)
        session, key = limiter._live(), limiter._key_of("a", None)
        told: list[float] = []
        for executor in (session.executor, *session.executor.nodes()):
            executor.on_next = lambda _key, seconds: told.append(seconds)
        await session.scripts.grant(key, 50)
        assert told
        assert min(told) > 30
        for executor in (session.executor, *session.executor.nodes()):
            executor.on_next = session.processor.schedule
        await limiter.resume("a")
        assert await ticket == 5


async def test_a_lease_that_is_gone_is_taken_again_and_what_was_not_told_is_found(url: str) -> None:
    limits = {"a": "2/day"}
    async with RateLimiter(url, limits=limits, hooks=[], lease=600, poll_interval=600) as limiter:
        requests, processor = limiter._live().requests, limiter._live().processor
        requests._rounds.rounds = 1_000_000
        await limiter.hit("a", cost=2)
        ticket = await limiter.submit("a", number, 7)
        key = limiter._key_of("a", None)
        driver, clients, records = key.redis[:3]
        async with client_of(url) as client:

            async def lease() -> float:
                return float(await client.zscore(clients, limiter._live().client) or 0)

            before = await lease()
            await requests.renew()
            assert await lease() > before
            # Nobody drives it: whoever waits does from then on.
            await client.delete(driver)
            await requests.renew()
            assert await client.exists(driver) == 1
            # Its lease lapsed: it is asked whether its requests still stand, and they are put back.
            await client.zrem(clients, limiter._live().client)
            await client.delete("{rl:a:}:q0", "{rl:a:}:q1", "{rl:a:}:q2")
            await requests.renew()
            await eventually(lambda: depth_is(limiter, "a", 1))
            assert await lease() >= before
            # Nobody heard of the grant.
            on_ids, requests.on_ids = requests.on_ids, lambda _seqs: None
            await limiter.reset("a")
            processor.schedule(key, 0)
            await eventually(lambda: client.exists(records))
            requests.on_ids = on_ids
            await requests.renew()
            assert await ticket == 7


@pytest.mark.real_redis
async def test_a_worker_of_many_keys_renews_its_leases_by_few_calls(own_server: RedisServer) -> None:
    limiter = RateLimiter(own_server.url, limits={"a": LONG}, hooks=[], lease=600, poll_interval=600)
    work = limiter.task("work")(_work)
    async with limiter:
        subjects = range(320)
        await asyncio.gather(*(limiter.hit("a", by=by) for by in subjects))
        tickets = await asyncio.gather(*(limiter.submit("a", work, by, by=by) for by in subjects))
        worker = limiter._live().worker
        await eventually(lambda: len(worker._keys) == 320)
        await worker.tick()
        worker._rounds.rounds = 1_000_000
        own_server.call("CONFIG", "RESETSTAT")
        await worker.tick()
        assert 5 <= calls_of(own_server) <= 8
        assert calls_of(own_server, "zcard") == 0
        for ticket in tickets:
            ticket.cancel()


async def test_a_worker_that_was_forgotten_or_has_room_again_says_more_than_that_it_lives(url: str) -> None:
    limiter = RateLimiter(url, limits={"a": "1/day"}, hooks=[], lease=600, poll_interval=600, task_slots=1)
    work = limiter.task("work")(_work)
    async with limiter, client_of(url) as client:
        await limiter.hit("a")
        ticket = await limiter.submit("a", work, 3)
        session = limiter._live()
        worker, me = session.worker, session.client
        key = limiter._key_of("a", None)
        workers = key.durable[1].decode()
        await eventually(lambda: client.hexists(workers, me))
        await worker.tick()
        worker._rounds.rounds = 1_000_000

        async def said() -> list[str]:
            return str(await client.hget(workers, me)).split(" ")

        before = await said()
        await worker.tick()
        lease, *rest = await said()
        assert int(lease) > int(before[0])
        assert rest == before[1:] == ["1", "work"]
        await client.hdel(workers, me)
        await worker.tick()
        assert (await said())[1:] == rest
        # Without room nothing is granted to it, until it says otherwise.
        await client.hset(workers, me, f"{lease} 0 work")
        await limiter.reset("a")
        await asyncio.gather(session.scripts.grant(key, 50))
        await worker.tick()
        assert await ticket == 3


async def _work(number: int) -> int:
    return number


async def test_leases_are_renewed_before_a_flood_that_came_earlier(url: str) -> None:
    limits = {"a": LONG, "b": "1000000/day"}
    async with RateLimiter(url, limits=limits, hooks=[], lease=600, poll_interval=600) as limiter:
        await limiter.hit("a")
        ticket = await limiter.submit("a", number, 1)
        limiter._live().requests._rounds.rounds = 1_000_000
        flood = [asyncio.ensure_future(limiter.hit("b", by=by)) for by in range(3000)]
        await asyncio.sleep(0)
        await limiter._live().requests.renew()
        assert not all(hit.done() for hit in flood)
        await asyncio.gather(*flood)
        ticket.cancel()


@pytest.mark.real_redis
async def test_looking_through_a_long_queue_takes_a_call_per_page(own_server: RedisServer) -> None:
    # With a lease so long, the timer asks nothing meanwhile.
    async with scale.waiting(own_server, 2500, 1, lease=600) as (limiter, _):
        own_server.call("CONFIG", "RESETSTAT")
        await limiter._live().requests.sync(scan=True)
        # 125 ids an entry, four entries a call; 1,000 in a page, three pages, two empty levels; the processor may look.
        assert calls_of(own_server) <= 5 + 5 + 1
        assert await scale.depth(limiter, 1) == 2500


async def test_all_of_a_long_queue_go_back_to_their_places_when_redis_forgets_them(url: str) -> None:
    async with RateLimiter(url, limits={"a": LONG}, hooks=[]) as limiter, client_of(url) as client:
        await limiter.hit("a")
        tickets = [await limiter.submit("a", number, n, priority=n % 3) for n in range(450)]
        before = await _entries(client)
        # Some in the middle, and a whole level.
        for level in (0, 2):
            for text in random.sample(before[level], 20):
                await client.lrem(f"{{rl:a:}}:q{level}", 1, text)
        await client.delete("{rl:a:}:q1")
        assert await depth_is(limiter, "a", 260)
        await limiter._live().requests.sync(scan=True)
        await eventually(lambda: depth_is(limiter, "a", 450))
        assert await _entries(client) == before
        for ticket in tickets:
            ticket.cancel()


async def _entries(client: redis.asyncio.Redis) -> list[list[str]]:
    return [await client.lrange(f"{{rl:a:}}:q{level}", 0, -1) for level in range(3)]


async def test_one_call_grants_no_more_than_a_batch_and_somebody_of_every_key(url: str) -> None:
    limits = {"a": "1000/day"}
    async with RateLimiter(url, limits=limits, hooks=[], poll_interval=30) as limiter, client_of(url) as client:
        keys = [limiter._key_of("a", by) for by in range(4)]
        for by in range(4):
            await limiter.pause_for("a", 60, by=by)
        tickets = [await limiter.submit("a", number, n, by=by) for by in range(4) for n in range(60)]
        # As if all the pauses ended at once.
        await client.delete(*(name.decode() for key in keys for name in key.redis if name.endswith(b"}:p")))
        # After calls that had company, the first of these waits for the others.
        await asyncio.gather(*(limiter.check("a", by=by) for by in range(4)))
        scripts = limiter._live().scripts
        granted = await asyncio.gather(*(scripts.grant(key, 50) for key in keys))
        assert sorted(scripts.granted(reply) or 0 for reply in granted) == [1, 1, 1, 50]
        # The rest is granted at once, a batch after the other.
        assert await asyncio.gather(*tickets) == [*range(60)] * 4


async def test_a_grant_behind_many_whose_process_is_gone_takes_several_calls(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1000/day"}, hooks=[], poll_interval=30) as limiter:
        async with client_of(url) as client:
            await client.zadd("{rl:a:}:c", {"gone": 1, "*": math.inf})
            await client.rpush("{rl:a:}:q0", *(f"gone {n} 1 0 -" for n in range(900)))
        # Not in one, and not at the pace of a timer.
        async with asyncio.timeout(10):
            grant = await limiter.acquire("a", priority=0)
        assert grant.decision.remaining == 999
        assert limiter._live().processor.runs >= 3
        assert await depth_is(limiter, "a", 0)


# ---- what is given back ----


async def test_what_many_calls_give_back_at_once_is_taken_off_where_each_was_charged(url: str) -> None:
    period, width = 10_000_000, 12_500
    async with RateLimiter(url, limits={"a": "1000000 tokens per 10 seconds"}, hooks=[]) as limiter:
        grants = []
        for n in range(40):
            grants.append(await limiter.acquire("a", cost={"tokens": 100 + n}))
            await asyncio.sleep(random.uniform(0, 0.02))
        true = [random.choice([0, 0, 1, 50, 100 + n, 100 + n]) for n in range(40)]
        if random.random() < 0.5:
            # The newest buckets are emptied.
            true[-5:] = [0] * 5
        await asyncio.gather(*(grant.settle({"tokens": cost}) for grant, cost in zip(grants, true, strict=True)))
        assert (await limiter.status("a")).limits[0].used == sum(true)
        buckets: dict[int, int] = {}
        for grant, cost in zip(grants, true, strict=True):
            end = (round(grant.granted_at * 1e6) // width + 1) * width
            buckets[end] = buckets.get(end, 0) + cost
        async with client_of(url) as client:
            (state,) = [key async for key in client.scan_iter() if ":sw:" in key]
            rows = await rows_at(client, state)
        counted, before = {}, 0
        for end, total in rows:
            counted[end], before = total - before, total
        assert {end: cost for end, cost in counted.items() if cost} == {e: c for e, c in buckets.items() if c}
        assert math.ceil(period / 800) == width


async def test_a_window_whose_buckets_expired_together_counts_what_is_left(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1000000 per 60 seconds"}, hooks=[]) as limiter:
        await limiter.hit("a")
        state = limiter._key_of("a", None).redis[-1].decode()
        async with client_of(url) as client:
            ((newest, _),) = await rows_at(client, state)
            for expired in (*range(1, 12), 63, 64, 65, 200, 700):
                for alive in (1, 2, 7):
                    old = [newest - 70_000_000 - 60_000 * n for n in range(expired)]
                    new = [newest - 60_000 * n for n in range(alive)]
                    ends = sorted(old + new)
                    await client.set(state, window_of((end, n + 1) for n, end in enumerate(ends)))
                    decision = await limiter.hit("a")
                    assert 1_000_000 - decision.remaining == alive + 1
                    # They go many at once; of these, the newest stays, to count from.
                    rows = await rows_at(client, state)
                    begins = rows[-1][0] > newest
                    cut = begins and expired > 16 and 4 * expired > expired + alive
                    assert len(rows) == (1 if cut else expired) + alive + begins


@pytest.mark.real_redis
@pytest.mark.parametrize("waits", [False, True])
async def test_a_check_reads_few_buckets_of_a_full_window_as_they_expire(own_server: RedisServer, waits: bool) -> None:
    # Of which a bucket is so long that none ends meanwhile.
    month = 30 * 86_400
    async with RateLimiter(own_server.url, limits={"a": f"1000000 per {month} seconds"}, hooks=[]) as limiter:
        key = limiter._key_of("a", None)
        # Whom `admit` decides about reads no more.
        key.busy = math.inf if waits else 0
        scale.seed(own_server, key.redis[-1].decode(), 800, month, expired=2 / 800)
        before = calls_of(own_server, "getrange")
        decision = await limiter.hit("a")
        assert 1_000_000 - decision.remaining == 800 - 2 + 1
        assert calls_of(own_server, "getrange") - before <= 2
        # They go many at once.
        rows = rows_of(own_server.client.execute_command("GET", key.redis[-1], NEVER_DECODE=True))
        assert len(rows) == 800 + 1


@pytest.mark.real_redis
@pytest.mark.parametrize("limits", ["5/minute", ["5/minute", "9/hour"]])
async def test_one_command_asks_whether_somebody_waits_for_any_of_many_keys(
    own_server: RedisServer, limits: str | list[str]
) -> None:
    async with RateLimiter(own_server.url, limits={"a": limits}, hooks=[]) as limiter:
        # After calls that had company, the first of these waits for the others.
        await asyncio.gather(*(limiter.check("a", by=str(n)) for n in range(2)))
        before = calls_of(own_server, "exists")
        decisions = await asyncio.gather(*(limiter.hit("a", by=str(n)) for n in range(10)))
        assert [decision.remaining for decision in decisions] == [4] * 10
        assert calls_of(own_server, "exists") - before == 1


@pytest.mark.parametrize("way", ["alone", "beside another", "acquired", "given back"])
async def test_a_window_that_goes_on_for_ever_counts_each_unit(url: str, way: str) -> None:
    limits = ["1000000 per 60 seconds", *(["1000000/hour"] if way == "beside another" else [])]
    async with RateLimiter(url, limits={"a": limits}, hooks=[]) as limiter, client_of(url) as client:
        await limiter.hit("a")
        key = limiter._key_of("a", None)
        state = key.states[0].decode()
        ((newest, _),) = await rows_at(client, state)
        # From there on doubles lose units.
        base = 2**53 - 10
        rows = [(newest - 61_000_000, base), (newest - 1_000_000, base + 3), (newest, base + 5)]
        await client.set(state, window_of(rows))
        if way in ("acquired", "given back"):
            grants = [await limiter.acquire("a") for _ in range(20 if way == "given back" else 5)]
            await asyncio.gather(*(grant.refund() for grant in grants[5:]))
        else:
            for _ in range(5):
                await limiter.hit("a")
        assert (await limiter.status("a")).limits[0].used == 5 + 5
        assert (await rows_at(client, state))[-1][1] == 5 + 5


@pytest.mark.real_redis
async def test_a_full_window_takes_less_than_a_twentieth_of_a_megabyte(redis_url: str) -> None:
    async with RateLimiter(redis_url, limits={"a": "1000000/day"}, hooks=[]) as limiter, client_of(redis_url) as client:
        await limiter.hit("a")
        state = limiter._key_of("a", None).redis[-1].decode()
        ((newest, _),) = await rows_at(client, state)
        width = math.ceil(86_400_000_000 / 800)
        # One of its buckets is in use; of the others as many have expired as may stay.
        await client.set(state, window_of((newest - n * width, 1_000_000 - 12 * n) for n in reversed(range(800 + 265))))
        await limiter.hit("a")
        assert len(await rows_at(client, state)) == 800 + 265
        assert await client.memory_usage(state, samples=0) < 35_000
