"""The promises, as properties."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_async import (
    QueueConfig,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
)
from ratelimit_async._demo import most_in_any_window
from tests.helpers import CLEAN, client_of, depth_is, eventually, is_paused, leftovers, unseen

names = (f"n{n}" for n in itertools.count())


@given(
    amount=st.integers(1, 6),
    period=st.sampled_from([0.05, 0.1, 0.2]),
    arrivals=st.lists(
        st.tuples(st.floats(0, 0.04), st.integers(1, 3), st.sampled_from([0, 0.02, None])),
        min_size=1,
        max_size=15,
    ),
)
async def test_never_more_than_the_amount_in_any_window(
    url: str, amount: int, period: float, arrivals: list[tuple[float, int, float | None]]
) -> None:
    stamps: list[float] = []

    async def arrive(limiter: RateLimiter, name: str, cost: int, timeout: float | None) -> None:
        with contextlib.suppress(RequestTimeout):
            async with limiter.acquire(name, cost=cost, timeout=timeout) as grant:
                stamps.extend([grant.granted_at] * cost)

    name = next(names)
    async with RateLimiter(url, limits={name: (amount, period)}) as limiter, asyncio.TaskGroup() as group:
        for pause, cost, timeout in arrivals:
            group.create_task(arrive(limiter, name, min(cost, amount), timeout))
            await asyncio.sleep(pause)
    # Stamps are floats of whole microseconds: half of one decides nothing.
    assert most_in_any_window(stamps, period - 5e-7) <= amount


@given(
    waiting=st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=15),
    cancelled=st.sets(st.integers(0, 14)),
)
async def test_nobody_overtakes(url: str, waiting: list[tuple[bool, int, int]], cancelled: set[int]) -> None:
    limits = {(name := next(names)): "4 per 0.02 seconds"}
    stamps: dict[int, float] = {}

    async def take(limiter: RateLimiter, n: int, level: int, cost: int) -> None:
        grant = await limiter.acquire(name, priority=level, cost=cost)
        stamps[n] = grant.granted_at

    async with RateLimiter(url, limits=limits) as one, RateLimiter(url, limits=limits) as two:
        await one.pause(name)
        await eventually(lambda: is_paused(two, name))
        tasks: list[asyncio.Task[None]] = []
        for n, (first, level, cost) in enumerate(waiting):
            tasks.append(asyncio.create_task(take(one if first else two, n, level, cost)))
            await eventually(lambda: depth_is(one, name, len(tasks)))
        gone = {n for n in cancelled if n < len(tasks)}
        for n in gone:
            tasks[n].cancel()
        await eventually(lambda: depth_is(one, name, len(tasks) - len(gone)))
        await one.resume(name)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await one.status(name)).queue.depth == 0
    order = sorted((level, n) for n, (_, level, _) in enumerate(waiting) if n not in gone)
    granted = [stamps[n] for _, n in order]
    assert granted == sorted(granted)
    assert stamps.keys() == {n for _, n in order}


class Raised(Exception):
    """What a function raises."""


@given(
    requests=st.lists(
        st.tuples(
            st.floats(0, 0.02),
            st.sampled_from(["return", "raise"]),
            st.sampled_from([None, 0, 0.01, 0.05]),
            st.sampled_from([None, None, 0, 0.005, 0.03]),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=20,
    ),
    overflow=st.sampled_from(["reject", "drop_oldest"]),
    size=st.integers(1, 8),
)
async def test_every_request_ends_in_exactly_one_way_and_leaves_nothing(
    url: str,
    requests: list[tuple[float, str, float | None, float | None, int]],
    overflow: str,
    size: int,
) -> None:
    name = next(names)
    config = RateLimitConfig("2 per 0.02 seconds", QueueConfig(max_size=size, overflow=overflow))  # type: ignore[arg-type]
    ends: Counter[int] = Counter()
    runs: Counter[int] = Counter()
    ran_and_ended: dict[int, str] = {}

    async def call(n: int, how: str) -> int:
        runs[n] += 1
        await asyncio.sleep(0)
        if how == "raise":
            raise Raised
        return n

    async def one(limiter: RateLimiter, n: int, how: str, timeout: float | None, level: int) -> None:
        try:
            await limiter.request(name, call, n, how, priority=level, timeout=timeout)
            ran_and_ended[n] = "returned"
        except (QueueFull, RequestCancelled, RequestDropped, RequestTimeout, Raised) as error:
            ran_and_ended[n] = type(error).__name__
        except asyncio.CancelledError:
            ran_and_ended[n] = "cancelled"
        ends[n] += 1

    async with RateLimiter(url, limits={name: config}) as limiter, client_of(url) as client:
        tasks: list[asyncio.Task[None]] = []
        for n, (pause, how, timeout, cancel_after, level) in enumerate(requests):
            task = asyncio.create_task(one(limiter, n, how, timeout, level))
            await asyncio.sleep(0)
            if cancel_after is not None:
                asyncio.get_running_loop().call_later(cancel_after, task.cancel)
            tasks.append(task)
            await asyncio.sleep(pause)
            assert await unseen(client) == []
        await asyncio.wait(tasks)
        await eventually(lambda: depth_is(limiter, name, 0))
    assert set(ends.values()) == {1}
    assert len(ends) == len(requests)
    for n, end in ran_and_ended.items():
        expected = {"returned": {1}, "Raised": {1}, "cancelled": {0, 1}}.get(end, {0})
        assert runs[n] in expected, (n, end)
    assert await leftovers(url) == CLEAN
