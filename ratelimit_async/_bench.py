"""The built-in measurement: hits a second and their latency, from this process, on keys of its own."""

from __future__ import annotations

import asyncio
import math
import secrets
import sys
from typing import TYPE_CHECKING

import msgspec

from ratelimit_async._output import say, say_json, table

if TYPE_CHECKING:
    import argparse

    from ratelimit_async._limiter import RateLimiter
    from ratelimit_async._onlooker import Onlooker

__all__ = ["Measured", "bench", "percentile"]

NAME = "bench"


class Measured(msgspec.Struct, frozen=True):
    """One run: so many calls at a time, each after the one before; latencies in milliseconds."""

    concurrency: int
    seconds: float
    hits: int
    hits_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    not_by_redis: int


async def bench(onlooker: Onlooker, options: argparse.Namespace) -> int:
    """Measure each concurrency in turn; nothing of it is left in Redis."""
    limiter = onlooker.stranger(f"bench-{secrets.token_hex(4)}", {NAME: options.limits})
    subjects: list[str | None] = [None]
    if options.keys > 1:
        subjects = [str(n) for n in range(options.keys)]
    runs: list[Measured] = []
    async with limiter:
        try:
            for concurrency in options.concurrency:
                if not options.json:
                    sys.stderr.write(f"{options.seconds:g} s with {concurrency} at a time ...\n")
                runs.append(await _measure(limiter, subjects, concurrency, options.seconds))
        finally:
            for by in subjects:
                await limiter.reset(NAME, by=by)
    if options.json:
        say_json({"address": onlooker.address, "limits": options.limits, "keys": options.keys, "runs": runs})
        return 0
    say(f"hit() on {options.limits!r}, {options.keys} key{'s' if options.keys > 1 else ''}, at {onlooker.address}")
    rows: list[tuple[str, ...]] = [("AT A TIME", "HITS/S", "P50 MS", "P95 MS", "P99 MS", "WORST MS")]
    for run in runs:
        latencies = (run.p50_ms, run.p95_ms, run.p99_ms, run.worst_ms)
        rows.append((str(run.concurrency), f"{run.hits_per_second:,.0f}", *(f"{one:.2f}" for one in latencies)))
    table(rows, right=range(6))
    if lost := sum(run.not_by_redis for run in runs):
        say(f"{lost} hits were decided without Redis, which did not answer in time: these figures are worth nothing")
        return 1
    return 0


async def _measure(limiter: RateLimiter, subjects: list[str | None], concurrency: int, seconds: float) -> Measured:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    lost = 0
    await asyncio.gather(*(limiter.hit(NAME, by=subjects[i % len(subjects)]) for i in range(concurrency)))
    started = loop.time()
    end = started + seconds

    async def call(by: str | None) -> None:
        nonlocal lost
        now = loop.time()
        while now < end:
            decision = await limiter.hit(NAME, by=by)
            lost += decision.source != "redis"
            before, now = now, loop.time()
            latencies.append(now - before)

    async with asyncio.TaskGroup() as group:
        for i in range(concurrency):
            group.create_task(call(subjects[i % len(subjects)]))
    took = loop.time() - started
    latencies.sort()
    return Measured(
        concurrency=concurrency,
        seconds=took,
        hits=len(latencies),
        hits_per_second=len(latencies) / took,
        p50_ms=percentile(latencies, 0.5) * 1000,
        p95_ms=percentile(latencies, 0.95) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
        worst_ms=latencies[-1] * 1000,
        not_by_redis=lost,
    )


def percentile(ordered: list[float], share: float) -> float:
    """Give the smallest value that so large a share does not exceed."""
    return ordered[max(math.ceil(len(ordered) * share), 1) - 1]
