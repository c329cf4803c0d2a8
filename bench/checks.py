"""Checks: `hit` in a closed loop beside raw redis-py, one EVALSHA of the same script per check over its pool."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

import redis.asyncio

from ratelimit_async import RateLimiter
from ratelimit_async._lua import ALL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT = (1_000_000_000_000, 60)


async def _rate(call: Callable[[], Awaitable[object]], callers: int, seconds: float, counts: list[int]) -> float:
    done = 0
    end = time.perf_counter() + seconds

    async def loop() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(callers)))
    counts.append(done)
    return done / (time.perf_counter() - started)


async def run_checks(url: str, *, repetitions: int = 5, seconds: float = 1.0) -> None:
    """Print medians and ratios, both sides interleaved in one run."""
    pool = redis.asyncio.ConnectionPool.from_url(url, max_connections=256, protocol=2)
    async with redis.asyncio.Redis.from_pool(pool) as raw, RateLimiter(url, limits={"bench": LIMIT}) as limiter:
        await limiter.hit("bench")
        key = limiter._key_of("bench", None)
        sha = ALL["quick"].sha
        keys = (key.sign, *key.states)
        arguments = (1, key.form.brief, 1, "hit -")

        async def ours() -> None:
            assert (await limiter.hit("bench")).allowed

        async def theirs() -> None:
            await raw.evalsha(sha, len(keys), *keys, *arguments)

        print("  callers   raw redis-py/s   ratelimit_async/s   ratio")
        for callers in (1, 16, 64, 256):
            await limiter.reset("bench")
            counts: list[int] = []
            figures: dict[str, list[float]] = {"raw": [], "ours": []}
            for _ in range(repetitions):
                figures["raw"].append(await _rate(theirs, callers, seconds, counts))
                figures["ours"].append(await _rate(ours, callers, seconds, counts))
            used = (await limiter.status("bench")).limits[0].used
            if used != sum(counts):
                message = f"{sum(counts)} checks were made, but {used} counted"
                raise RuntimeError(message)
            a, b = (statistics.median(figures[side]) for side in ("raw", "ours"))
            print(f"  {callers:7}   {a:14.0f}   {b:17.0f}   {b / a:5.2f}")
