"""Latency: from the moment capacity exists to the moment the caller runs, one grant at a time."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from ratelimit_async import RateLimiter
from tests.proxy import Proxy

if TYPE_CHECKING:
    from tests.servers import RedisServer

PERIOD_US = 50_000
# Seconds, one way.
DELAYS = (0.0005, 0.002, 0.005, 0.01)
BUCKET_US = math.ceil(PERIOD_US / 800)


class LatencyResult(NamedTuple):
    """Sorted seconds: capacity exists -> Redis charges it -> the caller runs; `whole` is both."""

    charged: list[float]
    told: list[float]
    whole: list[float]


def capacity_exists(previous: int) -> int:
    """Say when the charge of `previous`, us by Redis' clock, leaves the window: its bucket's end, and a period."""
    return (previous // BUCKET_US + 1) * BUCKET_US + PERIOD_US


async def run_latency(url: str, *, seconds: float = 10.0, limiters: int = 2, waiters: int = 5) -> LatencyResult:
    """Let several limiters of this process wait for "1 per 50 ms", so that somebody always waits.

    Every grant but the first takes the capacity of the one before it, whose instant is therefore known. Redis' clock
    is this machine's, so that `time.time()` can be compared with it. Only one of the limiters drives the key; those who
    wait at the others hear by pub/sub, as other processes do.
    """
    rows: list[tuple[int, float]] = []

    async def wait_again(limiter: RateLimiter) -> None:
        while True:
            grant = await limiter.acquire("latency", timeout=None)
            now = time.time()
            rows.append((round(grant.granted_at * 1e6), now))

    async def side() -> None:
        async with RateLimiter(url, limits={"latency": (1, PERIOD_US / 1e6)}, hooks=[]) as limiter:
            tasks = [asyncio.create_task(wait_again(limiter)) for _ in range(waiters)]
            done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()

    await asyncio.gather(*(side() for _ in range(limiters)))
    rows.sort()
    charged, told, whole = [], [], []
    for (previous, _), (granted, ran) in itertools.pairwise(rows):
        free = capacity_exists(previous)
        charged.append((granted - free) / 1e6)
        told.append(ran - granted / 1e6)
        whole.append(ran - free / 1e6)
    return LatencyResult(sorted(charged), sorted(told), sorted(whole))


async def run_distant(server: RedisServer, delay: float, *, seconds: float = 10.0) -> LatencyResult:
    """Measure the same with everything `delay` seconds late on the way to Redis, and on the way back."""
    async with Proxy(server.port) as proxy:
        proxy.delay = delay
        return await run_latency(proxy.url, seconds=seconds)


def report_distant(server: RedisServer, seconds: float) -> None:
    """Print it, from near to far."""
    print("  Redis so far away, ms, one way    of the ideal grants    capacity exists -> caller runs, p50 / p99")
    for delay in DELAYS:
        whole = asyncio.run(run_distant(server, delay, seconds=seconds)).whole
        share = len(whole) / (seconds * 1e6 / PERIOD_US)
        p50, p99 = whole[len(whole) // 2], whole[int(len(whole) * 0.99)]
        print(f"  {delay * 1e3:31g}    {share:19.0%}    {p50 * 1e3:31.1f} / {p99 * 1e3:.1f}", flush=True)


def report_latency(result: LatencyResult) -> None:
    """Print it."""
    print(f"  grants {len(result.whole)}                                p50       p99       max, ms")
    parts = {
        "capacity exists -> Redis charges": result.charged,
        "Redis charges -> caller runs": result.told,
        "capacity exists -> caller runs": result.whole,
    }
    for name, values in parts.items():
        if values:
            figures = (values[len(values) // 2], values[int(len(values) * 0.99)], values[-1])
            print(f"  {name:34}" + "".join(f"{figure * 1000:10.2f}" for figure in figures))
