"""Open loop: checks arrive when they do, answered or not, as users' requests; latency is from the scheduled arrival."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from typing import TYPE_CHECKING

from bench.closed_loop import SEED, WARM_UP, draw_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.meter import Meter
    from bench.peers import Peer
    from bench.workloads import Job, Measured

# So many without an answer: the client does not keep up, and need not be buried further.
MOST_UNANSWERED = 10_000
# It keeps up if it answers nearly all that arrives while it arrives, but for a few that just came.
KEEPS_UP, JUST_CAME = 0.97, 20


async def run_open(job: Job, peer: Peer, meter: Meter) -> Measured:
    """Let checks arrive for a while, then measure."""
    rng = random.Random(SEED)
    keys = draw_keys(job.workload)
    arrivals = Arrivals(peer, keys, job.workload.rate, rng)
    await arrivals.run(job.seconds * WARM_UP)
    arrivals.latencies = array("d")
    before = meter.read()
    seconds, answered = await arrivals.run(job.seconds)
    measured = meter.report(before, arrivals.latencies)
    # Over the time in which checks arrived; what piled up took longer, and tells how many it can answer.
    if not arrivals.saturated:
        measured.rate = answered / seconds
    measured.saturated = arrivals.saturated
    measured.allowed = arrivals.allowed
    return measured


class Arrivals:
    """Poisson arrivals of checks at one peer."""

    def __init__(self, peer: Peer, keys: Iterator[tuple[str, str]], rate: int, rng: random.Random) -> None:
        """Arrive at so many per second."""
        self.latencies = array("d")
        self.allowed = 0
        self.saturated = False
        self._peer = peer
        self._keys = keys
        self._rate = rate
        self._rng = rng
        self._tasks = set[asyncio.Task[None]]()

    async def run(self, seconds: float) -> tuple[float, int]:
        """Arrive for so long, and wait for all answers; says how long it was, and how many were answered by then."""
        clock, draw = time.perf_counter, self._rng.expovariate
        before = len(self.latencies)
        begun = clock()
        end = begun + seconds
        due = begun + draw(self._rate)
        arrived = 0
        while (now := clock()) < end and len(self._tasks) < MOST_UNANSWERED:
            while due <= now:
                task = asyncio.create_task(self._check(due, *next(self._keys)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                due += draw(self._rate)
                arrived += 1
            # Timers of event loops are too coarse for this: the loop turns all the time.
            await asyncio.sleep(0)
        lasted, answered = clock() - begun, len(self.latencies) - before
        self.saturated = answered + JUST_CAME < KEEPS_UP * arrived
        await asyncio.gather(*self._tasks)
        return lasted, answered

    async def _check(self, due: float, name: str, by: str) -> None:
        allowed = await self._peer.check(name, by)
        self.latencies.append(time.perf_counter() - due)
        # Not in one line with the await: what it was before would be added to.
        self.allowed += allowed
