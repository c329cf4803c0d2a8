"""One client process: does a Job, which is given as JSON, and prints what it Measured, as JSON."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import msgspec

from bench.closed_loop import run_closed
from bench.contended import run_contended
from bench.measure import appointment
from bench.memory import AT_ONCE, in_groups, run_memory
from bench.meter import Meter
from bench.open_loop import run_open
from bench.peers import load
from bench.workloads import PERIOD, Job

if TYPE_CHECKING:
    from bench.workloads import Measured

KINDS = {"closed": run_closed, "open": run_open, "wait": run_contended, "memory": run_memory}
# Seconds that using up keys and reading the count may take.
SETTING_UP = 5.0


async def work(job: Job) -> Measured:
    """Set the peer up, measure, and look into Redis afterwards."""
    workload = job.workload
    denies = workload.denied > 0 or workload.kind == "memory" or workload.call == "submit"
    names = ["open", "shut"] if denies else ["open"]
    keys = [(name, str(by)) for name in names for by in range(workload.keys)]
    connections = {"closed": max(workload.callers, AT_ONCE), "memory": AT_ONCE}.get(workload.kind, 0)
    peer = load(job.peer)(job.url, workload.policy, keys, connections)
    meter = Meter(job.url)
    await peer.setup()
    try:
        left = PERIOD - time.time() % PERIOD
        if peer.aligned and workload.kind != "wait" and left < job.seconds * 1.5 + SETTING_UP:
            await asyncio.sleep(left)
        if denies:
            subjects = [str(by) for by in range(workload.keys)]
            await in_groups(lambda by: peer.check("shut", by), subjects)
        already = await peer.counted("shut") if workload.call == "submit" else 0
        await appointment()
        measured = await KINDS[workload.kind](job, peer, meter)
        if workload.kind in ("closed", "open"):
            name = "shut" if workload.call == "submit" else "open"
            measured.counted = await peer.counted(name) - already
    finally:
        await peer.close()
        meter.close()
    return measured


def main(arguments: list[str]) -> None:
    """Be one client."""
    job = msgspec.json.decode(arguments[0], type=Job)
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    if job.workload.loop == "uvloop":
        import uvloop

        measured = uvloop.run(work(job))
    else:
        measured = asyncio.run(work(job))
    print(msgspec.json.encode(measured).decode(), flush=True)
