"""Contended: processes full of waiters for one key; what came of it is told by those who waited."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.workloads import Contention
from ratelimit_async._demo import most_in_any_window

if TYPE_CHECKING:
    from bench.meter import Meter
    from bench.peers import Peer
    from bench.workloads import Job, Measured, Workload


async def run_contended(job: Job, peer: Peer, meter: Meter) -> Measured:
    """Wait again and again until the end."""
    workload = job.workload
    grants: list[tuple[int, float, float]] = []
    asks: dict[int, float] = {}

    async def wait_again(which: int) -> None:
        while True:
            asks[which] = time.time()
            await peer.acquire("open", "0")
            grants.append((which, asks[which], time.time()))
            if workload.pause:
                await asyncio.sleep(workload.pause)
            else:
                # Not all of them give way by themselves when they need not wait.
                await asyncio.sleep(0)

    before = meter.read()
    tasks = [asyncio.create_task(wait_again(which)) for which in range(workload.callers)]
    done, running = await asyncio.wait(tasks, timeout=job.seconds, return_when=asyncio.FIRST_EXCEPTION)
    end = time.time()
    measured = meter.report(before, [granted - asked for _, asked, granted in grants])
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for task in done:
        task.result()
    # Who still waits has waited so long already.
    measured.grants = grants + [(which, asked, 0.0) for which, asked in asks.items() if end - asked > 0]
    return measured


def contention(workload: Workload, seconds: float, start: float, processes: list[Measured]) -> Contention:
    """Add up the processes of one run."""
    rows = [(process, *row) for process, one in enumerate(processes) for row in one.grants]
    end = start + seconds
    granted = sorted(at for _, _, _, at in rows if 0 < at <= end)
    waits = [(at or end) - asked for _, _, asked, at in rows if asked <= end]
    served = {(process, which) for process, which, _, at in rows if 0 < at <= end}
    count = max(len(granted), 1)
    return Contention(
        grants=len(granted),
        ideal=workload.rate * int(seconds),
        most=most_in_any_window(granted, 1.0),
        # Each process saw the calls of all: the one that saw the most saw the whole.
        scripts=max(one.scripts * sum(at > 0 for _, _, at in one.grants) for one in processes) / count,
        longest=max(waits, default=0.0),
        never=workload.processes * workload.callers - len(served),
        client=sum(one.client * sum(at > 0 for _, _, at in one.grants) for one in processes) / count,
    )
