"""Checks go on where their replies are read: with what every future promises its task."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ratelimit_async import Decision

LIMITS = {"a": "1000/minute"}


@pytest.fixture(params=["tasks of C", "tasks of Python", "eager tasks"])
def new_task(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]:
    if request.param == "tasks of C":
        return asyncio.create_task
    if request.param == "tasks of Python":
        kind: Any = vars(asyncio.tasks)["_PyTask"]
        return lambda coroutine: kind(coroutine, loop=asyncio.get_running_loop())
    if sys.version_info < (3, 12):
        return asyncio.create_task
    return lambda coroutine: asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)


async def test_every_kind_of_task_gets_its_own_decision(url: str, new_task: Callable[..., asyncio.Task[Any]]) -> None:
    async with RateLimiter(url, limits=LIMITS) as limiter:
        tasks = [new_task(limiter.hit("a")) for _ in range(100)]
        decisions: list[Decision] = [await task for task in tasks]
        assert [one.remaining for one in decisions] == list(range(999, 899, -1))


async def test_a_cancelled_caller_hears_why_and_the_others_their_decisions(
    url: str, new_task: Callable[..., asyncio.Task[Any]]
) -> None:
    async with RateLimiter(url, limits=LIMITS) as limiter:
        for turns in range(3):
            tasks = [new_task(limiter.hit("a", by=str(turns))) for _ in range(9)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel("enough")
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(end) for end in ends[::2]] == [asyncio.CancelledError] * 5
            assert {str(end) for end in ends[::2]} <= {"enough", ""}
            assert all(end.allowed for end in ends[1::2])


async def test_a_caller_that_goes_on_may_cancel_one_that_has_not_yet(url: str) -> None:
    async with RateLimiter(url, limits=LIMITS) as limiter:
        tasks: list[asyncio.Task[Any]] = []

        async def call(number: int) -> int:
            decision = await limiter.hit("a")
            if number == 2:
                tasks[3].cancel()
                tasks[1].cancel()
            return decision.remaining

        tasks += [asyncio.create_task(call(number)) for number in range(6)]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(ends[3], asyncio.CancelledError)
        assert [ends[0], ends[1], ends[2], ends[4], ends[5]] == [999, 998, 997, 995, 994]


async def test_a_caller_goes_on_in_its_own_context_as_its_own_task(url: str) -> None:
    who: ContextVar[int] = ContextVar("who")

    async def call(number: int) -> tuple[int, asyncio.Task[Any] | None]:
        who.set(number)
        await limiter.hit("a")
        return who.get(), asyncio.current_task()

    async with RateLimiter(url, limits=LIMITS) as limiter:
        tasks = [asyncio.create_task(call(number)) for number in range(40)]
        assert await asyncio.gather(*tasks) == list(enumerate(tasks))
        assert asyncio.current_task() is not None


async def test_a_caller_that_fails_as_it_goes_on_fails_alone(url: str) -> None:
    async def call(number: int) -> int:
        decision = await limiter.hit("a")
        return decision.remaining // (number % 2)

    async with RateLimiter(url, limits=LIMITS) as limiter:
        ends = await asyncio.gather(*map(call, range(40)), return_exceptions=True)
        assert [type(end) for end in ends] == [ZeroDivisionError, int] * 20
        assert (await limiter.hit("a")).remaining == 959


def test_a_caller_that_ends_the_loop_takes_no_reply_from_the_others(url: str) -> None:
    loop = asyncio.new_event_loop()

    async def call(limiter: RateLimiter, number: int) -> int:
        decision = await limiter.hit("a")
        if number == 3:
            raise SystemExit(number)
        return decision.remaining

    try:
        limiter = RateLimiter(url, limits=LIMITS)
        loop.run_until_complete(limiter.__aenter__())
        tasks = [loop.create_task(call(limiter, number)) for number in range(10)]
        with pytest.raises(SystemExit):
            loop.run_until_complete(asyncio.wait(tasks))
        ends = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10))
        assert [end for end in ends if not isinstance(end, SystemExit)] == [*range(999, 996, -1), *range(995, 989, -1)]
        assert loop.run_until_complete(limiter.hit("a")).remaining == 989
        loop.run_until_complete(limiter.__aexit__(None, None, None))
    finally:
        loop.close()


async def test_a_lone_check_has_the_loop_make_no_handle(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RateLimiter(redis_url, limits=LIMITS) as limiter:
        await limiter.hit("a")
        loop, made = asyncio.get_running_loop(), list[object]()
        call_soon = loop.call_soon

        def count(callback: Callable[..., object], *arguments: Any, **how: Any) -> asyncio.Handle:
            made.append(callback)
            return call_soon(callback, *arguments, **how)

        monkeypatch.setattr(loop, "call_soon", count)
        for _ in range(100):
            await limiter.hit("a")
        # Others live on the loop, too: the listener, the timer.
        assert len(made) < 50
