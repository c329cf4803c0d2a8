"""Closed loop: so many callers, each of which calls again as soon as it is answered."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from bench.meter import Meter
    from bench.peers import Peer
    from bench.workloads import Job, Measured, Workload

    Call = Callable[[str, str], Awaitable[bool]]

SEED = 5
DRAWN = 20_011
# 100 bytes, what a task may be told.
PAYLOAD = "x" * 100
WARM_UP = 0.2


def draw_keys(workload: Workload) -> Iterator[tuple[str, str]]:
    """Give a name and subject for each call, for ever: random ones, drawn beforehand."""
    rng = random.Random(SEED)
    return itertools.cycle(
        [
            ("shut" if rng.random() < workload.denied else "open", str(rng.randrange(workload.keys)))
            for _ in range(max(DRAWN, 2 * workload.keys))
        ]
    )


def call_of(peer: Peer, kind: str) -> Call:
    """Give what a caller does; it says whether it was allowed."""
    if kind in ("check", "endpoint"):
        return peer.check

    async def call(name: str, by: str) -> bool:
        if kind == "acquire":
            await peer.acquire(name, by)
        elif kind == "submit":
            # To keys that are used up: it stays where it is put.
            await peer.submit("shut", by, PAYLOAD)
        else:
            await peer.task(name, by, PAYLOAD)
        return name == "open"

    return call


async def run_closed(job: Job, peer: Peer, meter: Meter) -> Measured:
    """Warm up, then measure."""
    workload = job.workload
    keys, call = draw_keys(workload), call_of(peer, workload.call)
    allowed = await _run(call, keys, workload.callers, job.seconds * WARM_UP, array("d"))
    latencies = array("d")
    before = meter.read()
    allowed += await _run(call, keys, workload.callers, job.seconds, latencies)
    measured = meter.report(before, latencies)
    measured.allowed = allowed
    return measured


async def _run(
    call: Call, keys: Iterator[tuple[str, str]], callers: int, seconds: float, latencies: array[float]
) -> int:
    """Call for so long, and append how long each call took; says how many were allowed."""
    clock = time.perf_counter
    end = clock() + seconds

    async def caller() -> int:
        allowed = 0
        while (begun := clock()) < end:
            name, by = next(keys)
            answer = await call(name, by)
            latencies.append(clock() - begun)
            allowed += answer
            if answer != (name == "open"):
                message = f"{name} {by} answered {answer}"
                raise RuntimeError(message)
        return allowed

    return sum(await asyncio.gather(*(caller() for _ in range(callers))))
