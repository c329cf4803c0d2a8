"""What tests share beside their fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import redis.asyncio

from bench.windows import rows_of
from ratelimit_async._connection import embedded_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ratelimit_async import RateLimiter


async def eventually(predicate: Callable[[], Any], bound: float = 10.0) -> Any:
    """Poll until something is true; at the bound, fail."""
    loop = asyncio.get_running_loop()
    end = loop.time() + bound
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert loop.time() < end, f"not within {bound} s: {inspect.getsource(predicate).strip()}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def stopwatch() -> AsyncIterator[Callable[[], float]]:
    """Give the seconds so far, but for those in which this machine let the event loop stand still."""
    loop = asyncio.get_running_loop()
    begun, stood, tick = loop.time(), 0.0, 0.01

    async def watch() -> None:
        nonlocal stood
        while True:
            before = loop.time()
            await asyncio.sleep(tick)
            stood += loop.time() - before - tick

    watching = asyncio.create_task(watch())
    try:
        yield lambda: loop.time() - begun - stood
    finally:
        watching.cancel()


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """Look at the server behind a URL with a client of the test's own."""
    if url.startswith("memory://"):
        from fakeredis import FakeAsyncRedis

        server = embedded_server(url.removeprefix("memory://"))
        client: redis.asyncio.Redis = FakeAsyncRedis(server=server, decode_responses=True)
    else:
        client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    async with client:
        yield client


# Hits and checks ask for the one key `c` whether somebody waits, is granted or has paused theirs.
UNSEEN = """
local unseen = {}
for _, key in ipairs(redis.call('KEYS', '*}:*')) do
  local base, part = string.match(key, '^(.*}:)([lpq]%d*)$')
  if part and redis.call('PTTL', base .. 'c') < redis.call('PTTL', key) then
    unseen[#unseen + 1] = key
  end
end
return unseen
"""


async def unseen(client: redis.asyncio.Redis) -> list[str]:
    """Keys in which somebody waits, is granted or has paused, whom a check would overtake, now or later."""
    found: list[str] = await client.eval(UNSEEN, 0)
    return found


async def leftovers(url: str) -> dict[str, list[str]]:
    """What Redis still holds: keys that would stay for ever, and keys in which somebody waits, seen or not."""
    for_ever, waiting = [], []
    async with client_of(url) as client:
        overtaken = await unseen(client)
        async for key in client.scan_iter():
            if await client.pttl(key) == -1:
                for_ever.append(key)
            if key.rpartition("}:")[2][0] in "qrl":
                waiting.append(key)
    return {"for ever": for_ever, "waiting": waiting, "unseen": overtaken}


CLEAN: dict[str, list[str]] = {"for ever": [], "waiting": [], "unseen": []}


async def number(n: int) -> int:
    return n


async def is_paused(limiter: RateLimiter, name: str) -> bool:
    return (await limiter.status(name)).paused


async def depth_is(limiter: RateLimiter, name: str, n: int) -> bool:
    return (await limiter.status(name)).queue.depth == n


async def rows_at(client: redis.asyncio.Redis, key: str) -> list[tuple[int, int]]:
    """Read a sliding window: each bucket's end, us, and what was ever charged up to it."""
    window: bytes | None = await client.execute_command("GET", key, NEVER_DECODE=True)
    return rows_of(window) if window else []
