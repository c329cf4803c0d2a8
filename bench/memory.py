"""Memory: what counted requests, waiting callers and durable tasks take, in Redis and in the client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.closed_loop import PAYLOAD
from bench.meter import peak_memory
from bench.workloads import Measured

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.meter import Meter
    from bench.peers import Peer
    from bench.workloads import Job

AT_ONCE = 32
# Seconds.
PATIENCE = 30.0


async def run_memory(job: Job, peer: Peer, meter: Meter) -> Measured:
    """Do so many, then weigh each of the keys."""
    workload = job.workload
    subjects = [str(number % workload.keys) for number in range(workload.requests)]
    name = "open" if workload.call == "check" else "shut"
    already = await peer.counted(name)
    waiting: list[asyncio.Task[None]] = []
    in_client = 0
    if workload.call == "check":
        await in_groups(lambda by: peer.check(name, by), subjects)
    elif workload.call == "submit":
        await in_groups(lambda by: peer.submit(name, by, PAYLOAD), subjects)
    else:
        # The first half also takes, once, what it takes to send so many at a time: what each more takes is what counts.
        for half in (subjects[: len(subjects) // 2], subjects[len(subjects) // 2 :]):
            before = _resident()
            waiting += [asyncio.create_task(peer.acquire(name, by)) for by in half]
            await _until_counted(peer, name, already + len(waiting))
            in_client = _resident() - before
    counted = await peer.counted(name) - already
    in_redis, for_ever = 0, 0
    for key in meter.redis.scan_iter(count=1000):
        in_redis += meter.redis.memory_usage(key, samples=0) or 0
        for_ever += meter.redis.ttl(key) == -1
    for task in waiting:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*waiting, return_exceptions=True)
    return Measured(
        allowed=len(subjects),
        counted=counted,
        bytes_in_redis=in_redis / len(subjects),
        bytes_in_client=2 * in_client / len(waiting) if waiting else 0.0,
        for_ever=for_ever,
        memory=peak_memory(),
    )


async def in_groups(call: Callable[[str], Awaitable[object]], subjects: list[str]) -> None:
    """Make calls, some at once."""
    for first in range(0, len(subjects), AT_ONCE):
        await asyncio.gather(*(call(by) for by in subjects[first : first + AT_ONCE]))


async def _until_counted(peer: Peer, name: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await peer.counted(name) < count:
            await asyncio.sleep(0.05)


def _resident() -> int:
    """Give this process' memory, bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
