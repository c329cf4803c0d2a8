"""Strictness: what an upstream sees that counts arrivals, while calls travel to it for random times."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from typing import NamedTuple

import redis

from bench.measure import appointment, repeat, run_workers
from ratelimit_async import RateLimiter
from ratelimit_async._demo import most_in_any_window

AMOUNT, PERIOD = 100, 1.0
LIMITS = ("100/second", "100/second guard 0.01", "100/second guard 0.05", "100/second from finish")


class StrictnessResult(NamedTuple):
    """What a run measured; `rate` is grants per second after the first ones, beside the ideal."""

    grants: int
    rate: float
    granted: int
    started: int
    arrived: int


async def _worker(url: str, limits: str, callers: int, delay: float, seconds: float, *, together: bool) -> None:
    """Call the upstream again and again until the end; print one JSON line: granted at, started at, arrived at."""
    granted: list[float] = []
    started: list[float] = []
    arrived: list[float] = []

    start = 0.0

    def leg(which: str) -> float:
        # Ways that are busy at one time are so for everybody; they are drawn anew twice a second.
        rng = random.Random(f"{which} {int((time.time() - start) * 2)}") if together else random
        return rng.uniform(0, delay)

    async with RateLimiter(url, limits={"bench": limits}, hooks=[]) as limiter:

        async def call() -> None:
            async with limiter.acquire("bench", timeout=None) as grant:
                started.append(time.time())
                granted.append(grant.granted_at)
                await asyncio.sleep(leg("there"))
                arrived.append(time.time())
                await asyncio.sleep(leg("back"))

        start = await appointment()
        await repeat(call, callers, start, seconds)
    print(json.dumps([granted, started, arrived]), flush=True)


def run_strictness(
    url: str,
    limits: str,
    *,
    delay: float,
    together: bool = False,
    processes: int = 4,
    callers: int = 50,
    seconds: float = 5.0,
) -> StrictnessResult:
    """Run one configuration against an empty Redis; each leg takes up to `delay` seconds, by chance or `together`.

    The upstream's clock is this machine's, as Redis' is.
    """
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    arguments = (url, limits, callers, delay, seconds, int(together))
    _, printed = run_workers("bench.strictness", processes, seconds, *arguments)
    told = [json.loads(one) for one in printed]
    granted, started, arrived = ([stamp for one in told for stamp in one[i]] for i in range(3))
    return StrictnessResult(
        grants=len(granted),
        rate=steady_rate(sorted(granted)),
        granted=most_in_any_window(granted, PERIOD - 5e-7),
        started=most_in_any_window(started, PERIOD),
        arrived=most_in_any_window(arrived, PERIOD),
    )


def steady_rate(stamps: list[float]) -> float:
    """Say how many per second pass, from the time in which each capacity is used again.

    A plain count over a few periods depends on whether the last burst fell into them.
    """
    cycles = [after - before for before, after in zip(stamps, stamps[AMOUNT:], strict=False)]
    return AMOUNT * len(cycles) / sum(cycles)


def main(arguments: list[str]) -> None:
    """Be one worker process."""
    url, limits, callers, delay, seconds, together = arguments
    asyncio.run(_worker(url, limits, int(callers), float(delay), float(seconds), together=bool(int(together))))


def report_strictness(url: str) -> None:
    """Run and print every configuration, for short ways, long ones, and long ones that are slow for all at a time."""
    print("                                                    most in any 1 s: grants  starts  arrivals")
    for delay, together in ((0.02, False), (0.3, False), (0.3, True)):
        print(
            f"  either leg 0-{delay * 1000:g} ms, " + ("the same for all at a time" if together else "each by chance")
        )
        for limits in LIMITS:
            result = run_strictness(url, limits, delay=delay, together=together)
            share = 100 * result.rate * PERIOD / AMOUNT
            most = f"{result.granted:6}  {result.started:6}  {result.arrived:8}"
            print(f"    {limits:22} {result.grants:4} grants, {share:5.1f} % of ideal             {most}")
