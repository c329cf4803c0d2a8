"""Waiting: several real processes, each with many coroutines that wait for one key again and again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import NamedTuple

import redis

from bench.measure import appointment, machine_time, repeat, run_workers
from ratelimit_async import Event, RateLimiter
from ratelimit_async._demo import most_in_any_window
from ratelimit_async._events import Queued

PERIOD = 1.0


class WaitingResult(NamedTuple):
    """What a run measured; wake-ups in seconds after capacity existed."""

    seconds: float
    grants: int
    ideal: int
    most_in_any_window: int
    out_of_order: int
    script_calls_per_grant: float
    wake_ups: list[float]
    # Of the time for which the machine's cores had work: while its host held them, nothing ran.
    stolen: float


async def _worker(url: str, waiters: int, rate: int, seconds: float, pause: float) -> None:
    """Wait again and again until the end; print one JSON line: [queued at, granted at, running at] per grant."""
    rows: list[tuple[float, float, float]] = []
    queued: dict[str, float] = {}

    def hook(event: Event) -> None:
        if isinstance(event, Queued):
            queued[event.id] = time.time()

    async with RateLimiter(url, limits={"bench": (rate, PERIOD)}, hooks=[hook]) as limiter:

        async def wait() -> None:
            grant = await limiter.acquire("bench", timeout=None)
            now = time.time()
            rows.append((queued.get(grant.id, grant.granted_at), grant.granted_at, now))
            if pause:
                await asyncio.sleep(pause)

        await repeat(wait, waiters, await appointment(), seconds)
    print(json.dumps(rows), flush=True)


def run_waiting(
    url: str, *, processes: int = 4, waiters: int = 50, rate: int = 100, seconds: float = 10.0, pause: float = 0.0
) -> WaitingResult:
    """Run the scenario against a Redis of its own, whose statistics are reset.

    The ideal for a sliding window that starts empty: `rate` at once, and again at the end of every whole period.
    """
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
        client.config_resetstat()
        before = machine_time()
        start, told = run_workers("bench.waiting", processes, seconds, url, waiters, rate, seconds, pause)
        rows = [row for printed in told for row in json.loads(printed)]
        stats = client.info("commandstats")
        worked, held = (now - then for now, then in zip(machine_time(), before, strict=True))
    end = start + seconds
    rows = sorted(tuple(row) for row in rows if row[1] <= end)
    stamps = sorted(row[1] for row in rows)
    return WaitingResult(
        seconds=seconds,
        grants=len(rows),
        ideal=rate * int(seconds / PERIOD),
        most_in_any_window=most_in_any_window(stamps, PERIOD - 5e-7),
        out_of_order=out_of_order(rows),
        script_calls_per_grant=stats["cmdstat_evalsha"]["calls"] / max(len(rows), 1),
        wake_ups=sorted(row[2] - max(stamp_free(stamps, row[1], rate), row[0]) for row in rows if row[1] > start + 1),
        stolen=held / (worked + held) if held else 0.0,
    )


def stamp_free(stamps: list[float], granted_at: float, rate: int) -> float:
    """Say when the capacity that a grant took came to exist: when the charge `rate` grants earlier left the window."""
    index = stamps.index(granted_at)
    bucket = PERIOD / 800
    before = stamps[index - rate] if index >= rate else 0.0
    return (before // bucket + 1) * bucket + PERIOD if before else 0.0


def out_of_order(rows: list[tuple[float, float, float]]) -> int:
    """Count grants of waiters that somebody overtook who had joined the queue more than 50 ms after them.

    Each process notes the time at which it hears of its place, so closer arrivals cannot be told apart.
    """
    overtaken, latest = 0, 0.0
    for queued, granted, _ in sorted(rows, key=lambda row: (row[1], row[0])):
        if queued < latest - 0.05 and queued < granted:
            overtaken += 1
        latest = max(latest, queued)
    return overtaken


def main(arguments: list[str]) -> None:
    """Be one worker process."""
    url, waiters, rate, seconds, pause = arguments
    asyncio.run(_worker(url, int(waiters), int(rate), float(seconds), float(pause)))


def report(result: WaitingResult) -> None:
    """Print it."""
    share = 100 * result.grants / result.ideal
    print(f"  grants                 {result.grants} of {result.ideal} ({share:.1f} %) in {result.seconds:g} s")
    print(f"  most in any window     {result.most_in_any_window}")
    print(f"  out of order           {result.out_of_order}")
    print(f"  script calls per grant {result.script_calls_per_grant:.2f}")
    wakes = result.wake_ups
    if wakes:
        p50, p99 = wakes[len(wakes) // 2], wakes[int(len(wakes) * 0.99)]
        print(f"  wake-up p50 / p99      {p50 * 1000:.1f} / {p99 * 1000:.1f} ms (capacity exists -> caller runs)")
    print(f"  held up by the host    {100 * result.stolen:.0f} % of the time for which the machine had work")
