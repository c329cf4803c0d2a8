"""Durable tasks end exactly one way, each as its attempts say."""

from __future__ import annotations

import asyncio
import itertools
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_async import RateLimiter, RequestCancelled, Retry, TaskFailed
from tests.helpers import CLEAN, client_of, eventually, leftovers, unseen

Step = Literal["ok", "fail", "later", "fatal"]
names = (f"t{n}" for n in itertools.count())
STEPS: st.SearchStrategy[Step] = st.sampled_from(["ok", "fail", "later", "fatal"])


def expected(steps: list[Step], most: int) -> tuple[str, int]:
    """Say how a task ends that goes through these steps, the last again and again, and how often it runs."""
    for attempt in range(1, most + 1):
        step = steps[min(attempt, len(steps)) - 1]
        if step == "ok":
            return "done", attempt
        if step == "fatal":
            return "dead", attempt
    return "dead", most


@given(
    tasks=st.lists(
        st.tuples(st.lists(STEPS, min_size=1, max_size=4), st.integers(0, 2), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    cancelled=st.sets(st.integers(0, 11)),
    slots=st.integers(1, 4),
)
async def test_every_task_ends_exactly_one_way(
    url: str, tasks: list[tuple[list[Step], int, int, bool]], cancelled: set[int], slots: int
) -> None:
    name = next(names)
    runs: dict[int, int] = dict.fromkeys(range(len(tasks)), 0)
    limiters = [RateLimiter(url, limits={name: "6 per 0.02 seconds; 3 concurrent"}, task_slots=slots) for _ in range(2)]

    async def attempt(n: int) -> int:
        runs[n] += 1
        steps = tasks[n][0]
        step = steps[min(runs[n], len(steps)) - 1]
        assert await unseen(client) == []
        if step == "later":
            raise Retry(0.001)
        if step == "fail":
            raise ValueError(n)
        if step == "fatal":
            raise KeyError(n)
        return n

    async with limiters[0] as one, limiters[1] as two, client_of(url) as client:
        by_most = [
            {
                most: limiter.task(f"m{most}", max_attempts=most, backoff=0.001, retry_on=ValueError)(attempt)
                for most in (1, 2, 3)
            }
            for limiter in limiters
        ]
        await one.pause(name)
        tickets = [
            await limiters[first].submit(name, by_most[first][most], n, priority=level, cost=1 + n % 3)
            for n, (_, level, most, first) in enumerate(tasks)
        ]
        gone = {n for n in cancelled if n < len(tasks)}
        for n in gone:
            await two.cancel(tickets[n].id)
        assert await unseen(client) == []
        await one.resume(name)
        ends = await asyncio.gather(*tickets, return_exceptions=True)
        for n, end in enumerate(ends):
            how, often = expected(tasks[n][0], tasks[n][2])
            if n in gone:
                assert isinstance(end, RequestCancelled)
                assert runs[n] == 0
            elif how == "done":
                assert (end, runs[n]) == (n, often)
            else:
                assert isinstance(end, TaskFailed)
                assert (end.attempts, runs[n]) == (often, often)
        dead = {letter.id async for letter in two.dead_letters(name)}
        assert dead == {tickets[n].id for n, end in enumerate(ends) if isinstance(end, TaskFailed)}
        # All slots are back, and nothing waits any more.
        await eventually(lambda: _idle(one, name))
    assert await leftovers(url) == CLEAN
    async with client_of(url) as client:
        label = f"{{rl:{name}:}}"
        assert [await client.exists(f"{label}:{part}") for part in "xyu"] == [0, 0, 0]


async def _idle(limiter: RateLimiter, name: str) -> bool:
    status = await limiter.status(name)
    return status.limits[1].used == 0 and status.queue.depth == 0
