"""Runs the peers side by side: a client process per peer and repetition, interleaved, against one Redis."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from bench.contended import contention
from bench.measure import run_workers
from bench.peers import can, missing, versions
from bench.workloads import (
    Job,
    Measured,
    Row,
    closed_workloads,
    memory_workloads,
    open_workloads,
    wait_workloads,
)
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.workloads import Workload

WORKLOADS = {
    "closed": closed_workloads,
    "open": open_workloads,
    "contended": wait_workloads,
    "memory": memory_workloads,
}
# Seconds that a run lasts, by its kind; and in a short bench.
SECONDS = {"closed": 1.5, "open": 2.0, "wait": 5.0, "memory": 0.0}
QUICK_SECONDS = {"closed": 0.2, "open": 0.3, "wait": 1.0, "memory": 0.0}


class Results(msgspec.Struct, kw_only=True):
    """All that a bench found, and where."""

    command: str
    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    repetitions: int
    seconds: dict[str, float]
    rows: list[Row]


class Bench:
    """Runs workloads on a Redis of its own, which has a core for itself where there are two."""

    def __init__(self, server: RedisServer, seconds: dict[str, float]) -> None:
        """Give the server its core and the clients the others."""
        self._server = server
        self._seconds = seconds
        cores = sorted(os.sched_getaffinity(0))
        self._cores = tuple(cores[1:])
        if self._cores:
            os.sched_setaffinity(int(server.client.info("server")["process_id"]), cores[:1])

    @property
    def placing(self) -> str:
        """Say who runs where."""
        return "Redis and clients on different cores" if self._cores else "Redis and clients on the same core"

    def run(self, peer: str, workload: Workload, repetition: int) -> Row:
        """Measure once, on an empty Redis."""
        self._server.call("FLUSHALL")
        self._server.call("CONFIG", "RESETSTAT")
        job = Job(
            peer=peer,
            url=self._server.url,
            workload=workload,
            seconds=self._seconds[workload.kind],
            cores=self._cores,
        )
        row = Row(workload=workload, peer=peer, repetition=repetition)
        try:
            start, several = _run_clients(job)
        except RuntimeError as error:
            row.problem = str(error)
            return row
        row.measured = _joined(job, start, several)
        if row.measured.allowed != row.measured.counted:
            row.problem = f"{row.measured.allowed} were allowed, but {row.measured.counted} counted in Redis"
        return row


def _run_clients(job: Job) -> tuple[float, list[Measured]]:
    """Run a job in as many processes as it says, all from one time on; gives that, too."""
    words = msgspec.json.encode(job).decode()
    start, told = run_workers("bench.client", job.workload.processes, job.seconds, words)
    return start, [msgspec.json.decode(printed, type=Measured) for printed in told]


def _joined(job: Job, start: float, several: list[Measured]) -> Measured:
    if job.workload.kind != "wait":
        return several[0]
    joined = several[0]
    joined.contention = contention(job.workload, job.seconds, start, several)
    joined.grants = []
    return joined


def compare(
    scenarios: Sequence[str], *, quick: bool, repetitions: int, peers: Sequence[str], command: str
) -> Iterator[Results]:
    """Run scenarios on all peers that are here; those that are not are among the rows, too.

    Gives all that there is after each repetition: a long run may be stopped.
    """
    seconds = QUICK_SECONDS if quick else SECONDS
    absent = {peer: missing(peer) for peer in peers}
    with RedisServer() as server:
        bench = Bench(server, seconds)
        results = Results(
            command=command,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            machine={
                "python": platform.python_version(),
                "redis": str(server.client.info("server")["redis_version"]),
                "cores": str(len(os.sched_getaffinity(0))),
                "placing": bench.placing,
                "system": f"{platform.system()} {platform.machine()}",
            },
            versions=versions(),
            repetitions=0,
            seconds=seconds,
            rows=[],
        )
        works = [workload for scenario in scenarios for workload in WORKLOADS[scenario](quick=quick)]
        for repetition in range(repetitions):
            for workload in works:
                # Once forth, once back: none is always the one after a hungry one.
                for peer in peers if repetition % 2 == 0 else reversed(peers):
                    if absent[peer]:
                        row = Row(workload=workload, peer=peer, repetition=repetition, problem=absent[peer])
                        results.rows.append(row)
                    elif can(peer, workload):
                        results.rows.append(bench.run(peer, workload, repetition))
                print(f"  {repetition + 1}/{repetitions} {workload.label}", file=sys.stderr, flush=True)
            results.repetitions += 1
            yield results
