"""What breaks: connections, scripts, processes, Redis itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ratelimit_async import RateLimiter, RedisUnavailable
from tests.helpers import eventually, is_paused, number
from tests.servers import die_with_parent

if TYPE_CHECKING:
    from tests.servers import RedisServer

pytestmark = pytest.mark.real_redis
LIMITS = {"a": "20 per 0.2 seconds", "full": "1/minute", "slow": "1 per 3 seconds"}
RAISING = {"limits": "100/minute", "on_outage": "raise"}


async def test_an_idle_connection_that_was_killed_is_not_noticed_by_callers(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS) as limiter:
        for _ in range(5):
            own_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.1)
            assert (await limiter.hit("a")).allowed


async def test_waiting_requests_come_back_after_flushall_in_their_order(own_server: RedisServer) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    async with RateLimiter(own_server.url, limits=LIMITS, lease=0.5) as limiter:
        await limiter.pause("a")
        tickets = [await limiter.submit("a", call, n) for n in range(20)]
        own_server.call("FLUSHALL")
        await asyncio.gather(*tickets)
        assert ran == list(range(20))


async def test_requests_wait_through_a_restart_of_redis(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=LIMITS, lease=0.5) as limiter:
        await limiter.hit("slow")
        tickets = [await limiter.submit("slow", number, n) for n in range(2)]
        own_server.restart()
        assert await asyncio.gather(*tickets) == [0, 1]


async def test_a_redis_that_is_gone_is_named_and_found_again(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, default=RAISING, command_timeout=0.3, connect_timeout=0.3) as limiter:
        own_server.kill()
        with pytest.raises(RedisUnavailable, match=str(own_server.port)):
            await limiter.hit("a")
        assert not (await limiter.health()).ok
        own_server.start()
        await eventually(lambda: _works(limiter))


async def test_a_redis_that_hangs_is_noticed(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, default=RAISING, command_timeout=0.3, connect_timeout=0.3) as limiter:
        own_server.suspend()
        with pytest.raises(RedisUnavailable):
            await limiter.hit("a")
        await eventually(lambda: _not_subscribed(limiter))
        own_server.resume()
        await eventually(lambda: _works(limiter))


async def _works(limiter: RateLimiter) -> bool:
    return (await limiter.health()).ok


async def _not_subscribed(limiter: RateLimiter) -> bool:
    return not (await limiter.health()).replies


WAITER = """
import asyncio, sys
from ratelimit_async import RateLimiter
async def main():
    async with RateLimiter(sys.argv[1], limits={"full": "3 per 3 seconds"}, lease=0.5, poll_interval=0.2) as limiter:
        if sys.argv[2] == "pause":
            await limiter.pause("full")
        tickets = [await limiter.submit("full", asyncio.sleep, 0) for _ in range(3)]
        print("waiting", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""


async def test_waiters_of_a_killed_process_are_dropped_without_charge(own_server: RedisServer) -> None:
    limits = {"full": "3 per 3 seconds"}
    async with RateLimiter(own_server.url, limits=limits, lease=0.5, poll_interval=0.2) as limiter:
        process = subprocess.Popen(
            [sys.executable, "-c", WAITER, own_server.url, "pause"],
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"waiting\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        await limiter.resume("full")
        # Three of its own pass at once only if the dead ones cost nothing.
        results = await asyncio.gather(*(limiter.request("full", number, n) for n in range(3)))
        assert results == [0, 1, 2]
        status = await limiter.status("full")
        assert status.queue.depth == 0


async def test_grants_that_nobody_claims_go_to_the_next(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"full": "1 per 30 seconds"}
    async with (
        RateLimiter(own_server.url, limits=limits, lease=0.4, poll_interval=0.1) as limiter,
        RateLimiter(own_server.url, limits=limits, lease=0.4, poll_interval=0.1) as deaf,
    ):
        await limiter.pause("full")
        await eventually(lambda: is_paused(deaf, "full"))
        session = deaf._session
        assert session is not None
        lost = await deaf.submit("full", number, 0)
        monkeypatch.setattr(session.requests, "on_ids", lambda _seqs: None)
        monkeypatch.setattr(session.requests, "renew", _renew_nothing)
        next_one = await limiter.submit("full", number, 1)
        await limiter.resume("full")
        assert await next_one == 1
        assert not lost.done


async def _renew_nothing() -> None:
    await asyncio.sleep(0)


async def test_an_error_of_redis_reaches_the_caller_as_one_of_ours(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url) as limiter:
        await limiter.hit("a")
        own_server.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(RedisUnavailable, match="OOM"):
            await limiter.hit("b")
        own_server.call("CONFIG", "SET", "maxmemory", "0")
        assert (await limiter.hit("b")).allowed
