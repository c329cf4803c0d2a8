"""All that a limiter does, once: for tests of what it needs from Redis and leaves there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from ratelimit_async import (
    DurabilityUnknown,
    Limit,
    QueueConfig,
    QueueFull,
    RateLimitConfig,
    RedisUnavailable,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
    RetryAfter,
    TaskFailed,
)
from tests.helpers import depth_is, eventually, number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ratelimit_async import RateLimiter

LIMITS = {
    "sliding": "4 per 0.2 seconds",
    "fixed": "4 per 0.2 seconds fixed_window",
    "counter": "4 per 0.2 seconds sliding_counter",
    "bucket": "20/second burst 4",
    "slots": "2 concurrent; 1000/minute",
    "sliding finish": Limit(4, 0.2, count_from="finish"),
    "bucket finish": Limit.per_second(20, burst=4, count_from="finish"),
    "units": "1000/minute; 1000 tokens/minute",
    "reject": RateLimitConfig("1/minute", QueueConfig(max_size=1)),
    "oldest": RateLimitConfig("1/minute", QueueConfig(max_size=1, overflow="drop_oldest")),
    "lowest": RateLimitConfig("1/minute", QueueConfig(max_size=1, overflow="drop_lowest")),
    "aging": RateLimitConfig("4 per 0.2 seconds", QueueConfig(max_wait_before_promotion=0.02)),
    "cached": RateLimitConfig("1/minute", denial_cache=True),
    "shadow": RateLimitConfig("1/minute", enforce=False),
    "levels": RateLimitConfig("100/second", QueueConfig(priorities=3)),
}
ALGORITHMS = ("sliding", "fixed", "counter", "bucket", "slots", "sliding finish", "bucket finish", "aging")


async def nothing() -> None:
    """Look at nothing."""


async def drive(make: Callable[..., RateLimiter], look: Callable[[], Awaitable[object]] = nothing) -> None:
    """Do everything; `make(**settings)` gives a limiter of LIMITS; `look` looks at Redis meanwhile."""
    async with make() as limiter, make() as other, make(processor=False) as waiter:
        await asyncio.gather(*(_in_turn(limiter, other, name) for name in ALGORITHMS))
        await look()
        # Nobody drives this key yet, so whoever hears of it will.
        assert await asyncio.gather(*(waiter.request("fixed", number, n, by="driven") for n in range(9))) == [*range(9)]
        await _now_or_not_at_all(limiter)
        await _settle(limiter)
        await _while_paused(limiter, other, look)
        await _overflow(limiter, look)
        await _push_back(limiter)
        await _change(limiter, other, look)
        await _look_around(limiter)
        await _tasks(limiter, waiter, look)
        assert (await other.health()).ok


async def _now_or_not_at_all(limiter: RateLimiter) -> None:
    for name in ("sliding", "fixed", "counter", "bucket", "cached", "shadow"):
        for _ in range(6):
            await limiter.check(name, by="now")
            await limiter.hit(name, by="now")
    # A window that has slid on.
    await asyncio.sleep(0.05)
    for _ in range(8):
        await limiter.hit("sliding", by="slides")
        await asyncio.sleep(0.06)


async def _in_turn(limiter: RateLimiter, other: RateLimiter, name: str) -> None:
    calls = [limiter.request(name, number, n, priority=n % 3) for n in range(9)]
    calls += [other.request(name, number, n, priority=n % 3) for n in range(9)]
    assert await asyncio.gather(*calls) == [*range(9), *range(9)]
    ticket = await limiter.submit(name, number, 7)
    assert await ticket == 7


async def _settle(limiter: RateLimiter) -> None:
    for name in ("sliding", "fixed", "counter", "bucket", "slots", "sliding finish", "bucket finish"):
        async with limiter.acquire(name, by="settles", cost=2) as grant:
            await limiter.status(name, by="settles")
            await grant.settle(1)
            await grant.settle(3)
            await grant.refund()
    async with limiter.acquire("units", cost={"tokens": 900}) as grant:
        await grant.settle({"tokens": 100})
    await limiter.sync_from_headers("units", {"x-ratelimit-remaining-tokens": "70", "x-ratelimit-reset-tokens": "6s"})


async def _while_paused(limiter: RateLimiter, other: RateLimiter, look: Callable[[], Awaitable[object]]) -> None:
    for by in (None, "waits"):
        await limiter.pause("units", by=by)
        tickets = [
            await one.submit("units", number, n, by=by, cost={"tokens": n}, priority=n % 3)
            for n, one in enumerate((limiter, other, limiter, other, limiter))
        ]
        with pytest.raises(RequestTimeout):
            await limiter.acquire("units", by=by, timeout=0.01)
        waiting = [one.id async for one in limiter.waiting("units", by=by)]
        assert {ticket.id for ticket in tickets} <= set(waiting)
        await look()
        await other.cancel(tickets[0].id)
        with pytest.raises(RequestCancelled):
            await tickets[0]
        tickets[1].cancel()
        await eventually(lambda by=by: _depth(limiter, "units", by, 3))
        await limiter.resume("units", by=by)
        await asyncio.gather(*tickets[2:])
    await limiter.pause_for("units", 60, by="fresh")
    await look()
    assert (await limiter.check("units", by="fresh")).reason == "paused"
    await limiter.resume("units", by="fresh")
    await limiter.pause_for("units", 0.05)
    await limiter.pause_for("units", 0.05, by="waits")
    await limiter.request("units", number, 1, by="waits")


async def _depth(limiter: RateLimiter, name: str, by: str | None, n: int) -> bool:
    return (await limiter.status(name, by=by)).queue.depth == n


async def _tasks(limiter: RateLimiter, waiter: RateLimiter, look: Callable[[], Awaitable[object]]) -> None:
    async def run(n: int) -> int:
        if n < 0:
            raise ValueError(n)
        return n

    async def looked() -> None:
        await look()

    # The one submits, the other runs; a third task is nobody's.
    for one in (limiter, waiter):
        one.task("run", max_attempts=1)(run)
        # Long enough to be seen while it is delayed.
        one.task("again", max_attempts=2, backoff=2.0)(run)
    waiter.task("nobody's")(run)
    limiter.task("look")(looked)
    tasks, theirs = limiter._registry._tasks, waiter._registry._tasks
    requests = (waiter.request("slots", theirs["run"], n, by="tasks") for n in range(9))
    assert await asyncio.gather(*requests) == [*range(9)]
    # While it runs.
    await limiter.request("levels", tasks["look"])
    assert await limiter.request("bucket finish", tasks["run"], 3, by="tasks", timeout=30) == 3
    again = await waiter.submit("levels", theirs["again"], -1)
    dead = await waiter.submit("levels", theirs["run"], -2)
    parked = await waiter.submit("levels", theirs["nobody's"], 1)
    for ticket in (dead, again):
        with pytest.raises(TaskFailed):
            await ticket
        await look()
    await limiter.requeue(dead.id)
    with pytest.raises(TaskFailed):
        await limiter.result(dead.id)
    assert {letter.id async for letter in limiter.dead_letters("levels")} == {dead.id, again.id}
    await limiter.delete(dead.id)
    waiting = asyncio.create_task(waiter.result(parked.id))
    await eventually(lambda: waiter._session.task_tickets._awaited)  # type: ignore[union-attr]
    await waiter._session.task_tickets.sync()  # type: ignore[union-attr]
    await limiter.cancel(parked.id)
    with pytest.raises(RequestCancelled):
        await waiting
    await limiter.pause("levels", by="paused")
    waits = await limiter.submit("levels", tasks["run"], 1, by="paused")
    await look()
    waits.cancel()
    with pytest.raises(RequestCancelled):
        await waits
    await limiter.resume("levels", by="paused")
    # Nobody replicates here.
    with contextlib.suppress(DurabilityUnknown, RedisUnavailable):
        await limiter.submit("levels", tasks["run"], 1, durability="replicated")
    await limiter.status("levels")


async def _overflow(limiter: RateLimiter, look: Callable[[], Awaitable[object]]) -> None:
    for name, error in (("reject", QueueFull), ("oldest", RequestDropped), ("lowest", RequestDropped)):
        await limiter.hit(name)
        first = await limiter.submit(name, number, 1, priority="low")
        with pytest.raises(error):
            second = await limiter.submit(name, number, 2, priority="high")
            await first
        await look()
        first.cancel()
        if error is RequestDropped:
            second.cancel()
        await eventually(lambda name=name: depth_is(limiter, name, 0))


async def _push_back(limiter: RateLimiter) -> None:
    pushed = [RetryAfter(0.02)]

    async def call() -> int:
        if pushed:
            raise pushed.pop()
        await asyncio.sleep(0.02)
        return 1

    await limiter.pause("slots", by="pushed")
    calls: list[asyncio.Task[int]] = []
    for _ in range(6):
        calls.append(asyncio.create_task(limiter.request("slots", call, by="pushed")))
        # Those that arrive in one script call have arrived at the same time.
        await eventually(lambda: _depth(limiter, "slots", "pushed", len(calls)))
    await limiter.resume("slots", by="pushed")
    assert await asyncio.gather(*calls) == [1] * 6


async def _change(limiter: RateLimiter, other: RateLimiter, look: Callable[[], Awaitable[object]]) -> None:
    await limiter.pause("levels")
    tickets = [await one.submit("levels", number, n, priority=n % 3) for n, one in enumerate((limiter, other) * 3)]
    async with limiter.acquire("slots", by="changes"):
        await limiter.configure({"levels": RateLimitConfig("50/second", QueueConfig(priorities=1))})
        await limiter.configure({"slots": "3 concurrent; 900/minute"})
        await limiter.configure({"sliding": "5 per 0.4 seconds"})
        await limiter.configure({"sliding": "5 per 0.3 seconds"}, by="vip")
        await look()
    await limiter.resume("levels")
    await asyncio.gather(*tickets)
    await limiter.configure({"levels": None, "slots": None, "sliding": None})


async def _look_around(limiter: RateLimiter) -> None:
    await limiter.hit("units", by="seen")
    assert "seen" in {key.by async for key in limiter.keys("units")}
    async with limiter.acquire("slots"), limiter.acquire("slots"):
        assert not (await limiter.check("slots")).allowed
        for name in LIMITS:
            await limiter.status(name, total=True)
    for name in LIMITS:
        await limiter.reset(name)
    with contextlib.suppress(RequestTimeout):
        await limiter.request("fixed", number, 1, timeout=0)
    assert (await limiter.health()).ok
