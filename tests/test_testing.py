"""What users test their own code with: an embedded server, a clock, a switch, and whether calls kept within limits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ratelimit_async
from ratelimit_async import ConfigurationError, RateLimiter, RequestTimeout
from ratelimit_async.testing import Clock, assert_within_limit, on_memory, unlimited
from ratelimit_async.testing._clock import _server_time
from tests.helpers import number

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nobody listens there.
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def time_as_it_was() -> Iterator[None]:
    """Other tests' servers have the time of day."""
    yield
    _server_time.ahead = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ---- the clock ----


async def test_who_waits_is_woken_when_the_clock_is_advanced(clock: Clock) -> None:
    done: list[int] = []

    async def call(n: int) -> None:
        done.append(n)

    with on_memory(RateLimiter(NOWHERE, limits={"llm": "2/minute"}, hooks=[])) as limiter:
        async with limiter, asyncio.TaskGroup() as group:
            for n in range(5):
                group.create_task(limiter.request("llm", call, n))
            await clock.advance(0)
            assert done == [0, 1]
            await clock.advance(59)
            assert done == [0, 1]
            await clock.advance(timedelta(seconds=1))
            assert done == [0, 1, 2, 3]
            await clock.advance(60)
            assert done == [0, 1, 2, 3, 4]


async def test_what_was_counted_leaves_as_the_clock_says(clock: Clock) -> None:
    limits = {"a": "1/hour", "b": "1/day fixed_window", "c": "1/minute burst 2"}
    with on_memory(RateLimiter(NOWHERE, limits=limits, hooks=[])) as limiter:
        async with limiter:
            for name, seconds in (("a", 3600), ("b", 86_400), ("c", 60)):
                while (decision := await limiter.hit(name)).allowed:
                    pass
                assert decision.retry_after is not None
                assert decision.retry_after <= seconds * 1.002
                await clock.advance(seconds)
                assert (await limiter.hit(name)).allowed
                assert not (await limiter.hit(name)).allowed


async def test_timeouts_and_sleeps_end_as_the_clock_says(clock: Clock) -> None:
    with on_memory(RateLimiter(NOWHERE, limits={"a": "1/day"}, hooks=[])) as limiter:
        async with limiter:
            await limiter.hit("a")
            waiting = asyncio.create_task(limiter.request("a", number, 1, timeout=30))
            sleeping = asyncio.create_task(asyncio.sleep(29, "woken"))
            await clock.advance(29)
            assert sleeping.result() == "woken"
            assert not waiting.done()
            await clock.advance(1.1)
            with pytest.raises(RequestTimeout):
                waiting.result()


async def test_nobody_counts_as_gone_however_far_the_clock_is_advanced(clock: Clock) -> None:
    with on_memory(RateLimiter(NOWHERE, limits={"a": "1 concurrent"}, hooks=[])) as limiter:
        async with limiter:
            async with limiter.acquire("a"):
                waiting = asyncio.create_task(limiter.request("a", number, 1, timeout=None))
                for _ in range(4):
                    await clock.advance(timedelta(days=3))
                assert not waiting.done()
                assert (await limiter.status("a")).queue.depth == 1
            await clock.advance(0)
            assert waiting.result() == 1


async def test_durable_tasks_are_tried_again_as_the_clock_says(clock: Clock) -> None:
    tried: list[int] = []
    limiter = RateLimiter(NOWHERE, limits={"mail": "10/day"}, hooks=[])

    @limiter.task("send", max_attempts=3, backoff=600)
    async def send() -> str:
        tried.append(1)
        if len(tried) < 3:
            raise ConnectionError
        return "sent"

    with on_memory(limiter):
        async with limiter:
            ticket = await limiter.submit("mail", send)
            await clock.advance(0)
            assert len(tried) == 1
            await clock.advance(timedelta(hours=2))
            assert len(tried) == 3
            assert await ticket == "sent"


async def test_a_clock_takes_seconds_and_loops_of_asyncio(clock: Clock) -> None:
    for nonsense in (-1, "soon", None, float("nan"), True):
        with pytest.raises(ConfigurationError, match="seconds"):
            await clock.advance(nonsense)  # type: ignore[arg-type]


# ---- where it runs ----


async def test_a_limiter_of_an_app_runs_in_memory_for_a_while(redis_url: str) -> None:
    limiter = RateLimiter(redis_url, limits={"a": "5/hour"}, hooks=[])
    for _ in range(2):
        with on_memory(limiter) as same:
            assert same is limiter
            async with limiter:
                assert (await limiter.hit("a", cost=4)).remaining == 1
    async with limiter:
        assert (await limiter.hit("a")).remaining == 4
        with pytest.raises(ConfigurationError, match="entered already"), on_memory(limiter):
            pass


async def test_one_that_is_still_entered_when_the_block_ends_is_told_of() -> None:
    limiter = RateLimiter(NOWHERE, limits={"a": "5/hour"}, hooks=[])
    with pytest.raises(ConfigurationError, match="entered still"), on_memory(limiter):
        await limiter.__aenter__()
    await limiter.__aexit__(None, None, None)


async def test_everything_passes_where_nothing_is_limited() -> None:
    limits: dict[str, Any] = {
        "a": ["1/day", "1 concurrent", "5 tokens/day"],
        "b": "1/hour burst 1",
        "c": "1/day fixed_window",
    }
    limiter = RateLimiter(NOWHERE, limits=limits, hooks=[])
    with unlimited(limiter):
        async with limiter:
            for name in ("b", "c"):
                assert all([(await limiter.hit(name)).allowed for _ in range(20)])
            calls = [limiter.request("a", number, n, cost={"tokens": 5}) for n in range(20)]
            assert await asyncio.gather(*calls) == [*range(20)]
            async with limiter.acquire("a", cost={"tokens": 5}), limiter.acquire("a"):
                pass
            assert (await limiter.check("b", cost=100)).allowed
    with on_memory(limiter):
        async with limiter:
            assert [(await limiter.hit("c")).allowed for _ in range(2)] == [True, False]


# ---- whether calls kept within limits ----


def test_calls_within_a_limit_pass() -> None:
    assert_within_limit([], "1/second")
    assert_within_limit([0.0, 1.0, 2.0], "1/second")
    assert_within_limit([3.0, 0.1, 0.2], "2/second")
    assert_within_limit(iter([0.0, 0.999]), "1/second", slack=0.01)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert_within_limit([start + timedelta(seconds=n) for n in range(5)], ["1/second", "60/minute"])
    assert_within_limit([(0.0, 5), (1.0, 5)], "5/second")
    assert_within_limit([(0.0, {"tokens": 5}), (0.1, {"tokens": 5})], "10 tokens/second; 2/second")
    assert_within_limit([0.0, 0.0, 0.5, 1.0], "2/second burst 2")
    assert_within_limit([59.9, 60.0], "1/minute fixed_window")


@pytest.mark.parametrize(
    ("calls", "limit", "told"),
    [
        ([5.0, 5.1, 5.9], "2/second", "3 requests of 3 calls within 0.900000 s, from 5.0 to 5.9: '2/second' allows 2"),
        ([(0.0, 3), (0.5, 3)], "5/second", "6 requests of 2 calls within 0.5"),
        ([(0.0, {"tokens": 30})], "10 tokens/second", "30 tokens of 1 calls"),
        ([0.0, 0.0, 0.1], "2/second burst 2", "allows 2"),
        ([60.0, 61.0], "1/minute fixed_window", "2 requests of 2 calls within 1.0"),
    ],
)
def test_calls_beyond_a_limit_are_shown(calls: list[Any], limit: str, told: str) -> None:
    with pytest.raises(AssertionError) as failed:
        assert_within_limit(calls, limit)
    assert told in str(failed.value)


@pytest.mark.parametrize(
    ("calls", "limit", "field"),
    [
        (3, "1/second", "calls"),
        ("12", "1/second", "calls"),
        ({1.0: 2}, "1/second", "calls"),
        (["x"], "1/second", r"calls\[0\]"),
        ([1.0, (1.0, 2, 3)], "1/second", r"calls\[1\]"),
        ([(1.0, -1)], "1/second", r"calls\[0\]\[1\]"),
        ([(float("inf"), 1)], "1/second", r"calls\[0\]\[0\]"),
        ([1.0], "2 concurrent", "limit"),
        ([1.0], "2/day sliding_counter", "limit"),
        ([1.0], "often", "limit"),
    ],
)
def test_what_cannot_be_asserted_is_refused(calls: Any, limit: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        assert_within_limit(calls, limit)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), max_size=12), st.integers(1, 6), st.integers(1, 10))
def test_it_fails_where_some_window_holds_too_much(calls: list[tuple[int, int]], amount: int, period: int) -> None:
    most = max((sum(cost for at, cost in calls if first <= at < first + period) for first, _ in calls), default=0)
    times = [(float(at), cost) for at, cost in calls]
    if most <= amount:
        assert_within_limit(times, (amount, period))
    else:
        with pytest.raises(AssertionError, match="allows"):
            assert_within_limit(times, (amount, period))


# ---- the plugin ----

CONFTEST = """
import pytest

pytest_plugins = ["ratelimit_async.testing.plugin"]


@pytest.fixture
def limiter_limits():
    return {"llm": "2/minute"}
"""
BACKEND = """

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
USERS_TESTS = """
import asyncio

import pytest

from ratelimit_async import RateLimiter
from ratelimit_async.testing import assert_within_limit

ASYNC


async def test_the_third_call_waits_a_minute(limiter, clock):
    loop, times = asyncio.get_running_loop(), []

    async def call():
        times.append(loop.time())

    begun = loop.time()
    calls = [asyncio.create_task(limiter.request("llm", call)) for _ in range(3)]
    await clock.advance(60)
    assert [call.done() for call in calls] == [True] * 3
    # The first may have run some time after it was charged.
    assert times[2] - begun >= 60
    assert_within_limit(times, "2/minute", slack=times[0] - begun)


async def test_each_test_has_a_limiter_of_its_own(limiter):
    assert (await limiter.hit("llm")).remaining == 1


def test_who_is_not_async_enters_it_itself(limiter):
    async def main():
        async with limiter:
            return (await limiter.hit("llm")).remaining

    assert isinstance(limiter, RateLimiter)
    assert asyncio.run(main()) == 1
"""


# How tests are run, what their project has, and the marks of its async tests.
RUNNERS = {
    "anyio": (["-p", "no:asyncio"], BACKEND, "pytestmark = pytest.mark.anyio"),
    "asyncio, strict": (["-p", "no:anyio"], "", "pytestmark = pytest.mark.asyncio"),
    "asyncio, auto": (["-p", "no:anyio", "-o", "asyncio_mode=auto"], "", ""),
    "asyncio beside anyio": (["-o", "asyncio_mode=auto"], "", ""),
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_plugin_gives_its_fixtures_to_a_project_of_a_user(tmp_path: Path, runner: str) -> None:
    options, more, mark = RUNNERS[runner]
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "conftest.py").write_text(CONFTEST + more)
    (tmp_path / "test_users.py").write_text(USERS_TESTS.replace("ASYNC", mark))
    quiet = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", *quiet, *options, str(tmp_path)]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    environ["PYTHONPATH"] = str(Path(ratelimit_async.__file__).parent.parent)
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ, check=False)
    assert "3 passed" in run.stdout, run.stdout + run.stderr
