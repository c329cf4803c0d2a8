"""Beginning and end: loops, errors, shutdown, supervision."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest
import redis.asyncio

from ratelimit_async import (
    ConfigurationError,
    Event,
    NotStarted,
    RateLimiter,
    RedisUnavailable,
    RequestCancelled,
    WrongEventLoop,
)
from ratelimit_async._events import Restarted
from ratelimit_async._lua import ALL
from ratelimit_async._processor import Processor
from ratelimit_async._scripts import Scripts
from tests.helpers import CLEAN, client_of, eventually, leftovers, number


async def test_use_before_and_after_is_refused(url: str) -> None:
    limiter = RateLimiter(url)
    for _ in range(2):
        with pytest.raises(NotStarted, match="async with limiter"):
            await limiter.hit("a")
        with pytest.raises(NotStarted):
            await limiter.acquire("a")
        assert not (await limiter.health()).ok
        async with limiter:
            assert (await limiter.hit("a")).allowed
            assert (await limiter.health()).ok
            with pytest.raises(ConfigurationError, match="is entered already"):
                await limiter.__aenter__()


async def test_use_from_another_event_loop_is_refused(url: str) -> None:
    async with RateLimiter(url) as limiter:
        errors: list[BaseException] = []

        def other() -> None:
            try:
                asyncio.run(limiter.hit("a"))
            except WrongEventLoop as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "another event loop" in str(errors[0])
        assert (await limiter.hit("a")).allowed


def test_a_limiter_at_module_level_serves_one_loop_after_another() -> None:
    limiter = RateLimiter("memory://", default="2/minute")

    async def use() -> bool:
        async with limiter:
            return (await limiter.hit("a")).allowed

    assert [asyncio.run(use()) for _ in range(2)] == [True, True]


async def test_entering_and_leaving_may_happen_in_different_tasks(url: str) -> None:
    limiter = RateLimiter(url)
    await asyncio.create_task(limiter.__aenter__())
    assert (await limiter.hit("a")).allowed
    await asyncio.create_task(limiter.__aexit__(None, None, None))
    with pytest.raises(NotStarted):
        await limiter.hit("a")


async def test_leaving_twice_does_nothing(url: str) -> None:
    async with RateLimiter(url) as limiter:
        pass
    assert await limiter.__aexit__(None, None, None) is None


async def test_a_redis_that_is_not_there_is_named_within_the_connect_timeout() -> None:
    with pytest.raises(RedisUnavailable, match=r"Redis at 127\.0\.0\.1:1:"):
        async with RateLimiter("redis://127.0.0.1:1/0", connect_timeout=1):
            pass


async def test_a_server_that_never_answers_is_named_too() -> None:
    server = await asyncio.start_server(_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(RedisUnavailable, match=f":{port}"):
        async with RateLimiter(f"redis://127.0.0.1:{port}/0", connect_timeout=0.2, command_timeout=0.2):
            pass
    server.close()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass
    writer.close()


async def test_a_client_of_ones_own_is_used_and_stays_open(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        async with RateLimiter(client=client, limits={"a": "1 per 0.1 seconds"}) as limiter:
            assert await asyncio.gather(*(limiter.request("a", number, n) for n in range(3))) == [0, 1, 2]
        assert await client.ping()


async def test_leaving_cancels_who_waits_and_lets_finish_who_runs(url: str) -> None:
    finished: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0.1)
        finished.append(1)

    async with RateLimiter(url, limits={"a": "2/minute"}) as limiter:
        running = asyncio.create_task(limiter.request("a", work))
        ticket = await limiter.submit("a", work)
        waiting = asyncio.create_task(limiter.request("a", work))
        queued = await limiter.submit("a", work)
        await asyncio.sleep(0.01)
    for ended in (waiting, queued):
        with pytest.raises(RequestCancelled, match="shutdown"):
            await ended
    await running
    await ticket
    assert finished == [1, 1]
    assert await leftovers(url) == CLEAN


async def test_leaving_does_not_wait_longer_than_the_shutdown_timeout(url: str) -> None:
    async with RateLimiter(url, limits={"a": "2/minute"}, shutdown_timeout=0.05) as limiter:
        ticket = await limiter.submit("a", asyncio.sleep, 3600)
    with pytest.raises(asyncio.CancelledError):
        await ticket


@pytest.mark.parametrize("part", ["processor", "listener", "executor"])
async def test_a_part_that_crashes_is_restarted_and_says_so(
    url: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, limits={"a": "1 per 0.1 seconds"}, hooks=[seen.append]) as limiter:
        assert await limiter.request("a", number, 1) == 1
        session: Any = limiter._session
        crashes = [RuntimeError("boom")]
        owner, method = {
            "processor": (session.processor, "_take_due"),
            "listener": (session.listener, "_dispatch"),
            "executor": (session.executor, "_deliver"),
        }[part]
        real = getattr(owner, method)

        def crash(*arguments: Any) -> Any:
            if crashes:
                raise crashes.pop()
            return real(*arguments)

        monkeypatch.setattr(owner, method, crash)
        assert await asyncio.gather(*(limiter.request("a", number, n) for n in range(3))) == [0, 1, 2]
        assert [event.what for event in seen if isinstance(event, Restarted)] == [part]
        assert await limiter.request("a", number, 9) == 9
        await eventually(lambda: session.processor_alive and session.replies_alive)


async def test_a_call_that_cannot_be_sent_ends_and_takes_nobody_along(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1000/minute"}) as limiter:
        crash = limiter._live().executor.call(ALL["quick"], limiter._key_of("a", None), (object(),))  # type: ignore[arg-type]
        waits = asyncio.create_task(limiter.request("a", number, 1))
        with pytest.raises(Exception, match="must be str, int, float or bytes"):
            await crash
        assert await waits == 1
        assert (await limiter.hit("a")).allowed


async def test_two_limiters_share_one_process_and_one_quota(url: str) -> None:
    limits = {"a": "3/minute"}
    async with RateLimiter(url, limits=limits) as one, RateLimiter(url, limits=limits) as two:
        assert [(await limiter.hit("a")).allowed for limiter in (one, two, one, two)] == [True] * 3 + [False]


async def test_prefixes_keep_limiters_apart(url: str) -> None:
    async with RateLimiter(url, default="1/minute", prefix="p:{1}") as one:
        async with RateLimiter(url, default="1/minute") as two:
            assert (await one.hit("a")).allowed
            assert (await two.hit("a")).allowed
        async with client_of(url) as client:
            assert len([key async for key in client.scan_iter("*:sw:*")]) == 2


async def test_memory_without_a_name_is_private() -> None:
    async with (
        RateLimiter("memory://", default="1/minute") as one,
        RateLimiter("memory://", default="1/minute") as two,
    ):
        assert (await one.hit("a")).allowed
        assert (await two.hit("a")).allowed


async def test_a_ticket_whose_function_fails_says_so_even_if_nobody_awaits_it(url: str) -> None:
    seen: list[str] = []
    async with RateLimiter(url, hooks=[lambda event: seen.append(type(event).__name__)]) as limiter:

        async def fail() -> None:
            raise ValueError("mine")

        await limiter.submit("a", fail)
        assert await eventually(lambda: "Failed" in seen)


async def test_a_claim_whose_reply_was_lost_costs_a_moment_and_never_the_request(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RateLimiter(url, limits={"a": "1 per 0.7 seconds"}, lease=0.3) as limiter:
        session: Any = limiter._session
        real = session.scripts.claim
        lost: list[asyncio.Future[Any]] = []

        def claim(key: Any, seqs: list[int]) -> asyncio.Future[Any]:
            if lost:
                return real(key, seqs)
            # Executed, its reply lost, sent again: the record is gone by then.
            lost.append(real(key, seqs))
            return real(key, seqs)

        monkeypatch.setattr(session.scripts, "claim", claim)
        await limiter.hit("a")
        assert await limiter.request("a", number, 7, timeout=10) == 7
        assert len(lost) == 1


async def test_a_look_while_a_grant_is_under_way_is_not_missed() -> None:
    limiter = RateLimiter("memory://", limits={"a": "1/hour"})
    key = limiter._key_of("a", None)
    asked = 0

    class Granting:
        granted = staticmethod(Scripts.granted)

        async def grant(self, *_: object) -> list[Any]:
            nonlocal asked
            asked += 1
            if asked == 1:
                # What it was sent with is out of date.
                processor.look_at_all()
            # When there is more to grant, Redis says with its reply.
            processor.schedule(key, 600)
            return [b"P", 0]

    processor = Processor(cast("Scripts", Granting()), 100, 600, lambda _: None)
    processor.schedule(key, 0)
    running = asyncio.create_task(processor.run())
    await eventually(lambda: asked == 2)
    running.cancel()
