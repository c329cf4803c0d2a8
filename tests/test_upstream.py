"""Calls toward an upstream: settled, pushed back, retried, counted from their finish, held while they run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import (
    ConfigurationError,
    Event,
    Limit,
    QueueConfig,
    RateLimitConfig,
    RateLimiter,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
    RetryAfter,
)
from ratelimit_async._demo import most_in_any_window
from ratelimit_async._events import Paused, Retried, Settled
from tests.helpers import CLEAN, depth_is, eventually, leftovers, number
from tests.servers import die_with_parent

if TYPE_CHECKING:
    from tests.servers import RedisServer


async def used(limiter: RateLimiter, name: str) -> list[int]:
    return [limit.used for limit in (await limiter.status(name)).limits]


# ---- settling ----


async def test_settle_takes_the_true_cost_from_the_result(url: str) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute"}, hooks=[seen.append]) as limiter:
        result = await limiter.request("a", number, 40, cost={"tokens": 90}, settle=lambda n: {"tokens": n})
        assert result == 40
        await eventually(lambda: _used_is(limiter, "a", [1, 40]))
        ticket = await limiter.submit("a", number, 7, settle=lambda n: {"tokens": n})
        assert await ticket == 7
        await eventually(lambda: _used_is(limiter, "a", [2, 47]))
        assert [event.cost["tokens"] for event in seen if isinstance(event, Settled)] == [40, 7]


async def _used_is(limiter: RateLimiter, name: str, expected: list[int]) -> bool:
    return await used(limiter, name) == expected


async def test_a_wrong_settle_function_is_told_and_the_reservation_stays(url: str) -> None:
    async with RateLimiter(url, limits={"a": "9/minute; 5 concurrent"}, lease=60.0) as limiter:
        with pytest.raises(ConfigurationError, match=r"cost\['tokens'\]"):
            await limiter.request("a", number, 1, settle=lambda n: {"tokens": n})
        await eventually(lambda: _used_is(limiter, "a", [1, 0]))
        assert await limiter.request("a", number, 1, settle=lambda _: None) == 1
        await eventually(lambda: _used_is(limiter, "a", [2, 0]))


async def test_debt_delays_what_follows_and_a_settlement_wakes_who_waits(url: str) -> None:
    async with RateLimiter(url, limits={"a": "10 tokens/minute"}) as limiter:
        grant = await limiter.acquire("a", cost={"tokens": 5})
        await grant.settle({"tokens": 25})
        decision = await limiter.hit("a", cost={"tokens": 1})
        assert (decision.allowed, decision.remaining) == (False, 0)
        ticket = await limiter.submit("a", number, 1, cost={"tokens": 10})
        await grant.settle({"tokens": 0})
        assert await ticket == 1


# ---- push-back and retries ----


async def test_a_pushed_back_request_pauses_its_key_and_goes_to_the_front(url: str) -> None:
    ran: list[str] = []
    seen: list[Event] = []

    async def call(mark: str) -> str:
        ran.append(mark)
        if ran.count("first") == 1 and mark == "first":
            # Somebody comes meanwhile.
            tickets.append(await limiter.submit("a", call, "second"))
            raise RetryAfter(0.05)
        return mark

    tickets: list[Any] = []
    async with RateLimiter(url, limits={"a": "9/minute; 1 concurrent"}, hooks=[seen.append]) as limiter:
        assert await limiter.request("a", call, "first") == "first"
        assert await tickets[0] == "second"
    assert ran == ["first", "first", "second"]
    assert [event.seconds for event in seen if isinstance(event, Paused)] == [0.05]
    assert [event.retry for event in seen if isinstance(event, Retried)] == [1]
    await eventually(lambda: _is_clean(url))


async def _is_clean(url: str) -> bool:
    return await leftovers(url) == CLEAN


async def test_one_that_waited_and_is_pushed_back_goes_before_all_that_came_after_it(url: str) -> None:
    ran: list[str] = []

    async def call(mark: str) -> None:
        ran.append(mark)
        if ran == ["a"]:
            raise RetryAfter(0.01)

    async with RateLimiter(url, limits={"a": "9/minute; 1 concurrent"}) as limiter:
        await limiter.pause("a")
        tickets = [await limiter.submit("a", call, mark, backoff=timedelta(seconds=1)) for mark in "abc"]
        await limiter.resume("a")
        await asyncio.gather(*tickets)
    assert ran == ["a", "a", "b", "c"]


async def _is_paused(limiter: RateLimiter) -> bool:
    return (await limiter.check("a", by="x")).reason == "paused"


async def test_a_push_back_stops_grants_in_every_process_until_its_end(url: str) -> None:
    async def push_back() -> None:
        raise RetryAfter(30)

    async with RateLimiter(url, default="9/minute") as one, RateLimiter(url, default="9/minute") as two:
        with pytest.raises(RetryAfter):
            await one.request("a", push_back, by="x", max_retries=0)
        # Sent before the end of the call, without waiting for Redis.
        await eventually(lambda: _is_paused(two))
        decision = await two.hit("a", by="x")
        assert (decision.allowed, decision.reason) == (False, "paused")
        assert decision.retry_after is not None
        assert 20 < decision.retry_after <= 30
        assert (await two.hit("a", by="y")).allowed
        # No time at all changes nothing.
        with pytest.raises(RetryAfter):
            async with one.acquire("a", by="y"):
                await one.pause_for("a", 30, by="y")
                raise RetryAfter(0)
        assert (await two.hit("a", by="y")).reason == "paused"
        await two.resume("a", by="x")
        assert (await one.hit("a", by="x")).allowed
        with pytest.raises(RetryAfter):
            async with one.acquire("a", by="z"):
                raise RetryAfter(1e300)
        await eventually(lambda: _paused(two, "z"))


async def _paused(limiter: RateLimiter, by: str) -> bool:
    return (await limiter.hit("a", by=by)).reason == "paused"


async def test_a_result_may_say_that_it_is_to_be_retried(url: str) -> None:
    answers = [429, 429, 200]

    async def call() -> int:
        return answers.pop(0)

    def told(status: int) -> RetryAfter | None:
        return RetryAfter(0.01) if status == 429 else None

    async with RateLimiter(url, limits={"a": "9/minute"}) as limiter:
        assert await limiter.request("a", call, on_result=told) == 200
        answers += [429, 429]
        assert await limiter.request("a", call, on_result=told, max_retries=1) == 429
        with pytest.raises(ConfigurationError, match="on_result: must return a RetryAfter or None"):
            await limiter.request("a", number, 1, on_result=lambda n: n)  # type: ignore[arg-type, return-value]
        assert await used(limiter, "a") == [6]


async def test_each_retry_is_admitted_anew_under_the_same_id(url: str) -> None:
    failures = [KeyError("one"), ValueError("two")]
    seen: list[Event] = []

    async def call() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    async with RateLimiter(url, limits={"a": "9/minute"}, hooks=[seen.append]) as limiter:
        ticket = await limiter.submit("a", call, retry_on=(KeyError, ValueError), backoff=0.001)
        assert await ticket == "done"
        assert await used(limiter, "a") == [3]
        assert [(e.id, e.retry) for e in seen if isinstance(e, Retried)] == [(ticket.id, 1), (ticket.id, 2)]
        failures[:] = [KeyError("one")] * 3
        with pytest.raises(KeyError):
            await limiter.request("a", call, retry_on=KeyError, max_retries=2, backoff=0)
        failures[:] = [ValueError("one")]
        with pytest.raises(ValueError, match="one"):
            await limiter.request("a", call, retry_on=KeyError)


async def test_the_timeout_bounds_the_waits_of_all_attempts(url: str) -> None:
    async def fail() -> None:
        raise KeyError

    async with RateLimiter(url, limits={"a": "1/minute"}) as limiter:
        with pytest.raises(RequestTimeout, match=r"within 0\.1 s"):
            await limiter.request("a", fail, retry_on=KeyError, backoff=timedelta(0), timeout=0.1)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"settle": 5}, "settle"),
        ({"on_result": "x"}, "on_result"),
        ({"retry_on": "KeyError"}, "retry_on"),
        ({"retry_on": (KeyError, asyncio.CancelledError)}, "retry_on"),
        ({"max_retries": -1}, "max_retries"),
        ({"backoff": -1}, "backoff"),
        ({"fail_fast": 1}, "fail_fast"),
    ],
)
async def test_a_wrong_option_of_a_call_is_named(options: dict[str, Any], field: str) -> None:
    async with RateLimiter("memory://") as limiter:
        with pytest.raises(ConfigurationError) as caught:
            await limiter.request("a", number, 1, **options)
        assert caught.value.field == field


async def test_what_is_for_calls_is_refused_around_them(url: str) -> None:
    async with RateLimiter(url) as limiter:
        with pytest.raises(ConfigurationError, match="max_retries: is for request and submit"):
            await limiter.acquire("a", max_retries=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", True])
def test_a_push_back_of_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="seconds: must be seconds"):
        RetryAfter(seconds)


async def test_headers_lower_what_is_left_and_pause(url: str) -> None:
    limits = {"a": ["100/minute", "1000 tokens/minute", "5000/day fixed_window", "3 concurrent"]}
    async with RateLimiter(url, limits=limits) as limiter:
        headers = {"x-ratelimit-remaining-tokens": "40", "x-ratelimit-limit-tokens": "1000", "Retry-After": "0"}
        told = await limiter.sync_from_headers("a", headers)
        assert (told.limits[0].unit, told.limits[0].remaining) == ("tokens", 40)
        assert await used(limiter, "a") == [0, 960, 0, 0]
        await limiter.sync_from_headers("a", {"RateLimit": '"day";r=7', "RateLimit-Policy": '"day";q=5000;w=86400'})
        assert await used(limiter, "a") == [0, 960, 4993, 0]
        # More than we think is left: ours holds.
        await limiter.sync_from_headers("a", {"x-ratelimit-remaining-tokens": "900"})
        await limiter.sync_from_headers("a", {"x-ratelimit-remaining-images": "0", "x-ratelimit-limit": "rubbish"})
        assert await used(limiter, "a") == [0, 960, 4993, 0]
        await limiter.sync_from_headers("a", {"retry-after": "20"})
        decision = await limiter.check("a")
        assert (decision.allowed, decision.reason) == (False, "paused")
        with pytest.raises(ConfigurationError, match="headers"):
            await limiter.sync_from_headers("a", 5)


async def test_what_headers_took_comes_back_at_the_upstreams_reset(url: str) -> None:
    async with RateLimiter(url, limits={"a": "10/minute"}) as limiter:
        await limiter.sync_from_headers("a", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "0.2"})
        decision = await limiter.hit("a")
        assert not decision.allowed
        assert decision.retry_after is not None
        assert decision.retry_after <= 0.2 + 0.075
        await eventually(lambda: _allowed(limiter, "a"))


async def _allowed(limiter: RateLimiter, name: str) -> bool:
    return (await limiter.check(name)).allowed


# ---- what runs ----


async def test_never_more_than_so_many_run_at_once(url: str) -> None:
    running = most = 0

    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1

    async with (
        RateLimiter(url, limits={"a": "3 concurrent"}) as one,
        RateLimiter(url, limits={"a": "3 concurrent"}) as two,
    ):
        await asyncio.gather(*(limiter.request("a", call) for limiter in (one, two) for _ in range(15)))
        assert most == 3
        await eventually(lambda: _used_is(one, "a", [0]))


async def test_calls_that_fail_or_are_cancelled_give_their_slot_back(url: str) -> None:
    async def fail() -> None:
        raise KeyError

    async with RateLimiter(url, limits={"a": "1 concurrent; 9/minute"}) as limiter:
        with pytest.raises(KeyError):
            await limiter.request("a", fail)
        task = asyncio.create_task(limiter.request("a", asyncio.sleep, 60))
        await eventually(lambda: _used_is(limiter, "a", [1, 2]))
        waiting = asyncio.create_task(limiter.request("a", number, 5))
        await eventually(lambda: depth_is(limiter, "a", 1))
        task.cancel()
        assert await waiting == 5
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_slots_are_weighed_and_an_awaited_grant_is_released(url: str) -> None:
    async with RateLimiter(url, limits={"a": "8 gpus concurrent"}) as limiter:
        first = await limiter.acquire("a", cost={"gpus": 6})
        with pytest.raises(RequestTimeout):
            await limiter.acquire("a", cost={"gpus": 3}, timeout=0)
        waiting = asyncio.create_task(limiter.request("a", number, 1, cost={"gpus": 4}))
        await eventually(lambda: depth_is(limiter, "a", 1))
        await first.settle({"gpus": 4})
        assert await waiting == 1
        await eventually(lambda: _used_is(limiter, "a", [4]))
        await first.release()
        await first.release()
        assert await used(limiter, "a") == [0]


async def test_leases_are_renewed_while_a_call_runs_and_lapse_with_a_grant_that_nobody_holds(url: str) -> None:
    async with RateLimiter(url, limits={"a": "2 concurrent"}, lease=0.3) as limiter:
        kept = await limiter.acquire("a")
        await limiter.acquire("a")
        gc.collect()
        await eventually(lambda: _used_is(limiter, "a", [1]))
        # Another whole lease goes by, seen by one that begins later.
        other = await limiter.acquire("a")
        del other
        gc.collect()
        await eventually(lambda: _used_is(limiter, "a", [1]))
        await kept.release()
        # On a machine that stands still for a lease, `other` may still hold its slot.
        await eventually(lambda: _used_is(limiter, "a", [0]))


HOLDER = """
import asyncio, sys
from ratelimit_async import RateLimiter

async def main():
    async with RateLimiter(sys.argv[1], limits={"a": "1 concurrent"}, lease=0.5) as limiter:
        async with limiter.acquire("a"):
            print("holds", flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.real_redis
async def test_the_slot_of_a_killed_process_goes_to_who_waits(redis_server: RedisServer, redis_url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, redis_url],
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads before exec
    )
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"holds\n"
    async with RateLimiter(redis_url, limits={"a": "1 concurrent"}, lease=0.5) as limiter:
        waiting = asyncio.create_task(limiter.request("a", number, 1))
        await eventually(lambda: depth_is(limiter, "a", 1))
        # It is renewed for as long as it runs: longer than one lease.
        decision = await limiter.check("a")
        assert decision.retry_after is not None
        process.kill()
        process.wait()
        process.stdout.close()
        assert await waiting == 1


async def test_a_slot_is_there_again_after_flushall_took_its_lease(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "1 concurrent"}, lease=0.3) as limiter, limiter.acquire("a"):
        own_server.call("FLUSHALL")
        await eventually(lambda: _used_is(limiter, "a", [1]))


async def test_a_hit_on_a_concurrent_limit_is_refused(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/second; 2 concurrent"}) as limiter:
        with pytest.raises(ConfigurationError, match="has a concurrent limit"):
            await limiter.hit("a")
        assert (await limiter.check("a")).allowed


# ---- an upstream that counts arrivals ----


async def arrivals(url: str, limit: Limit, delays: list[tuple[float, float]], rounds: int) -> list[float]:
    """Let calls take so long to arrive and to come back; when each arrived."""
    arrived: list[float] = []

    async def call(there: float, back: float) -> None:
        await asyncio.sleep(there)
        arrived.append(time.monotonic())
        await asyncio.sleep(back)

    async with RateLimiter(url, limits={"a": limit}) as limiter:
        await asyncio.gather(*(limiter.request("a", call, *delays[n % len(delays)]) for n in range(rounds)))
    return arrived


async def test_counted_from_the_finish_an_upstream_never_sees_more(url: str) -> None:
    # The slow first five arrive when the fast next five do, unless these wait for them.
    delays = [(0.18, 0.02)] * 5 + [(0.0, 0.0)] * 5 + [(0.05, 0.01), (0.0, 0.1), (0.12, 0.0)]
    strict = await arrivals(url, Limit(5, 0.2, count_from="finish"), delays, 26)
    assert most_in_any_window(strict, 0.2) <= 5
    loose = await arrivals(url, Limit(5, 0.2), delays, 10)
    assert most_in_any_window(loose, 0.2) > 5


async def test_a_hit_counts_at_once_whatever_a_limit_counts_from(url: str) -> None:
    async with RateLimiter(url, limits={"a": "2/minute from finish"}) as limiter:
        assert (await limiter.hit("a")).allowed
        async with limiter.acquire("a"):
            assert not (await limiter.hit("a")).allowed
        assert await used(limiter, "a") == [2]
        grant = await limiter.acquire("a", timeout=0, cost=0)
        await grant.release()
        await grant.settle(2)
        assert await used(limiter, "a") == [4]
        await grant.refund()
        assert await used(limiter, "a") == [2]


async def test_what_is_charged_after_the_finish_is_given_back_where_it_was_charged(url: str) -> None:
    async with RateLimiter(url, limits={"a": "100/minute from finish"}) as limiter:
        grant = await limiter.acquire("a")
        await grant.settle(20)
        await grant.release()
        for later in (40, 60):
            # Longer than a bucket of the window.
            await asyncio.sleep(0.1)
            await grant.settle(later)
        assert await used(limiter, "a") == [60]
        await grant.settle(30)
        assert await used(limiter, "a") == [30]
        await grant.refund()
        assert await used(limiter, "a") == [0]


async def test_a_guard_lengthens_the_window(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1 per 0.05 seconds guard 60"}) as limiter:
        await limiter.hit("a")
        decision = await limiter.hit("a")
        assert decision.retry_after is not None
        assert 50 < decision.retry_after <= 60.2


# ---- who waits ----


async def test_the_newest_of_the_lowest_priority_makes_place_for_a_better_one(url: str) -> None:
    queue = QueueConfig(max_size=3, overflow="drop_lowest")
    async with RateLimiter(url, limits={"a": RateLimitConfig("1/minute", queue)}) as limiter:
        await limiter.hit("a")
        old, new, normal = [await limiter.submit("a", number, 1, priority=level) for level in ("low", "low", "normal")]
        high = await limiter.submit("a", number, 1, priority="high")
        with pytest.raises(RequestDropped, match="overflow"):
            await new
        with pytest.raises(Exception, match="is full"):
            await limiter.submit("a", number, 1, priority="low")
        assert [ticket.done for ticket in (old, normal, high)] == [False] * 3


async def test_one_that_waits_long_is_lifted_and_does_not_starve(url: str) -> None:
    queue = QueueConfig(max_wait_before_promotion=0.05)
    async with RateLimiter(url, limits={"a": RateLimitConfig("1/minute", queue)}) as limiter:
        await limiter.hit("a")
        low = await limiter.submit("a", number, 1, priority="low")
        await eventually(lambda: _levels_are(limiter, (1, 0, 0)))
        high = await limiter.submit("a", number, 2, priority="high")
        await limiter.reset("a")
        assert await low == 1
        assert not high.done
        # One that was lifted is found again by who takes it back.
        later = await limiter.submit("a", number, 3, priority="low")
        await eventually(lambda: _levels_are(limiter, (2, 0, 0)))
        assert later.cancel()
        await eventually(lambda: _levels_are(limiter, (1, 0, 0)))
        await limiter.cancel(high.id)
        with pytest.raises(RequestCancelled):
            await high


async def _levels_are(limiter: RateLimiter, levels: tuple[int, ...]) -> bool:
    return (await limiter.status("a")).queue.depth_by_priority == levels


async def test_what_cannot_be_served_in_time_is_refused_at_once(url: str) -> None:
    limits = {"a": RateLimitConfig("100/minute; 10 tokens/minute", QueueConfig(fail_fast=True))}
    async with RateLimiter(url, limits=limits) as limiter:
        await limiter.acquire("a", cost={"tokens": 10})
        big = await limiter.submit("a", number, 1, cost={"tokens": 10}, priority="high", timeout=3600)
        with pytest.raises(RequestTimeout, match="would wait about") as caught:
            await limiter.request("a", number, 2, cost={"tokens": 5}, timeout=90)
        assert caught.value.estimate == pytest.approx(120, abs=30)
        assert await depth_is(limiter, "a", 1)
        # One with a better chance may wait.
        slow = await limiter.submit("a", number, 3, cost={"tokens": 5}, timeout=90, fail_fast=False)
        assert 90 < slow.estimated_wait < 150
        assert big.estimated_wait <= 66
        big.cancel()
        slow.cancel()


async def test_a_slot_that_is_given_back_is_not_held_again_by_a_renewal_under_way(url: str) -> None:
    async with RateLimiter(url, limits={"one": "1 concurrent"}) as limiter:
        session = limiter._session
        assert session is not None
        async with limiter.acquire("one"):
            renewal = asyncio.create_task(session.requests.holds.renew())
            await asyncio.sleep(0)
        await renewal
        assert await used(limiter, "one") == [0]
