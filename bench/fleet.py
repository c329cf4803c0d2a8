"""Processes that wait for their turns and tell each grant at once, so that even one that is killed has told it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from ratelimit_async import RateLimiter
from tests.servers import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ratelimit_async import Task

    # What is called at its turn: with its number, and when it was charged, seconds since the epoch, if that is told.
    Run = Callable[[int, float | None], Awaitable[None]]
    # Requests the n-th turn of a name.
    Kind = Callable[[RateLimiter, str, int, Run], Awaitable[object]]

# Seconds that anything here may take before it counts as lost.
PATIENCE = 30.0


async def by_acquire(limiter: RateLimiter, name: str, n: int, run: Run) -> None:
    """Request a turn around code of one's own."""
    async with limiter.acquire(name, timeout=None) as grant:
        # What a process grants by its share, in an outage, is not bounded by any window of Redis.
        await run(n, grant.granted_at if grant.decision.source == "redis" else None)


async def by_request(limiter: RateLimiter, name: str, n: int, run: Run) -> None:
    """Request a call; when it was charged is not told to it."""
    await limiter.request(name, _call, n, run, timeout=None)


async def by_submit(limiter: RateLimiter, name: str, n: int, run: Run) -> None:
    """Submit a call, and wait for it."""
    await (await limiter.submit(name, _call, n, run, timeout=None))


async def _call(n: int, run: Run) -> None:
    await run(n, None)


async def by_task(limiter: RateLimiter, name: str, n: int, run: Run) -> None:
    """Request a durable task; it is run by any limiter of this process that `register_task` was called with."""
    _RUNS[n] = run
    try:
        await limiter.request(name, _TASKS[limiter], n)
    finally:
        del _RUNS[n]


_RUNS: dict[int, Run] = {}
_TASKS: WeakKeyDictionary[RateLimiter, Task[[int], Coroutine[Any, Any, None]]] = WeakKeyDictionary()


def register_task(limiter: RateLimiter) -> None:
    """Let a limiter take part in `by_task`."""

    @limiter.task("run", max_attempts=1000)
    async def run(n: int) -> None:
        await _RUNS[n](n, None)

    _TASKS[limiter] = run


KINDS: dict[str, Kind] = {"acquire": by_acquire, "request": by_request, "submit": by_submit, "task": by_task}


class Journal:
    """What was requested, what ran and when, and how it ended."""

    def __init__(self) -> None:
        """Start empty."""
        self.runs: Counter[object] = Counter()
        # When each was charged, where that is known, and when each ran; seconds since the epoch.
        self.stamps: list[float] = []
        self.times: list[float] = []
        self.ran = asyncio.Event()
        self.submitted: set[object] = set()
        self.ended: Counter[object] = Counter()
        self.errors: Counter[str] = Counter()

    def note(self, n: object, stamp: float | None, at: float) -> None:
        """Something ran."""
        self.runs[n] += 1
        self.times.append(at)
        self.ran.set()
        if stamp is not None:
            self.stamps.append(stamp)

    async def run(self, n: int, stamp: float | None) -> None:
        """Be what runs at a turn of this process."""
        self.note(n, stamp, time.time())

    async def follow(self, n: object, request: Awaitable[object]) -> None:
        """Await a request and note its end."""
        self.submitted.add(n)
        try:
            await request
        except Exception as error:
            self.errors[type(error).__name__] += 1
        self.ended[n] += 1

    @property
    def lost(self) -> int:
        """Requests without an end, and those that ended in an error or without having run."""
        return sum(1 for n in self.submitted if not self.ended[n] or not self.runs[n])

    @property
    def duplicated(self) -> int:
        """Runs beyond the first."""
        return sum(count - 1 for count in self.runs.values() if count > 1)

    def gap(self) -> float:
        """Seconds: the longest time between two runs."""
        times = sorted(self.times)
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


class Worker:
    """One process of a fleet, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process, number: int, journal: Journal) -> None:
        """Read what it tells."""
        self.client = ""
        self.pid = process.pid
        self.process = process
        self.number = number
        # What it told at its end: how many it requested, and how many of them ended.
        self.told: tuple[int, int] | None = None
        self.runs = 0
        self.ready = asyncio.Event()
        self._journal = journal
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            kind, *rest = line.decode().split()
            if kind == "ready":
                self.client = rest[0]
                self.ready.set()
            elif kind == "ran":
                self.runs += 1
                stamp = None if rest[1] == "None" else float(rest[1])
                self._journal.note((self.number, int(rest[0])), stamp, float(rest[2]))
            elif kind == "end":
                self.told = int(rest[0]), int(rest[1])

    def signal(self, which: int) -> None:
        """Send it a signal."""
        self.process.send_signal(which)

    async def gone(self) -> None:
        """Wait until it has ended and all that it told is read."""
        await self.process.wait()
        await self._reading


class Fleet:
    """Worker processes around one limit, and the journal of all of them."""

    def __init__(self, url: str, limits: dict[str, str], **how: Any) -> None:
        """Describe them; `how` as in `work`."""
        self.journal = Journal()
        self.workers: list[Worker] = []
        self._arguments = {"url": url, "limits": limits, **how}
        self._all: list[Worker] = []

    async def __aenter__(self) -> Self:
        """Start none yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill whoever is left."""
        for worker in self._all:
            if worker.process.returncode is None:
                worker.signal(signal.SIGKILL)
            await worker.gone()

    async def add(self, **how: Any) -> Worker:
        """Start one more, and wait until it has requested its turns."""
        code = "import sys; from bench.fleet import main; main(sys.argv[1])"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            json.dumps({**self._arguments, **how}),
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        worker = Worker(process, len(self._all), self.journal)
        self._all.append(worker)
        self.workers.append(worker)
        async with asyncio.timeout(PATIENCE):
            await worker.ready.wait()
        return worker

    async def kill(self, worker: Worker) -> float:
        """Kill one as nothing can foresee; when that was, seconds since the epoch."""
        self.workers.remove(worker)
        worker.signal(signal.SIGKILL)
        at = time.time()
        await worker.gone()
        return at

    async def finish(self) -> int:
        """Let everybody end what they have requested; how many requests of theirs had no end or did not run."""
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        lost = 0
        for worker in self.workers:
            try:
                async with asyncio.timeout(PATIENCE):
                    await worker.gone()
            except TimeoutError:
                worker.signal(signal.SIGKILL)
                await worker.gone()
            submitted, ended = worker.told or (1, 0)
            lost += max(submitted - ended, submitted - worker.runs, 0)
        return lost


async def work(
    url: str,
    limits: dict[str, str],
    *,
    callers: int = 10,
    turns: int = 0,
    kind: str = "acquire",
    seconds: float = 0.0,
    pause: float = 0.0,
    **settings: Any,
) -> None:
    """Be a worker: each caller requests turns until SIGTERM, or so many in all.

    `seconds` each one runs, and up to `pause` seconds pass before a caller comes again.

    Tells, line by line: 'ready client', 'ran n stamp time' for each run, 'end submitted ended'.
    """
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    submitted = ended = 0
    (name,) = limits

    def tell(*words: object) -> None:
        # Not print: nothing may stay in a buffer of a process that is killed.
        os.write(1, (" ".join(map(str, words)) + "\n").encode())

    async def run(n: int, stamp: float | None) -> None:
        tell("ran", n, stamp, time.time())
        await asyncio.sleep(seconds)

    async def call_again(limiter: RateLimiter) -> None:
        nonlocal submitted, ended
        while not stopped.is_set() and (not turns or submitted < turns):
            n, submitted = submitted, submitted + 1
            await KINDS[kind](limiter, name, n, run)
            ended += 1
            await asyncio.sleep(random.uniform(0, pause))

    async with RateLimiter(url, limits=limits, hooks=[], **settings) as limiter:
        assert limiter._session is not None
        tasks = [asyncio.create_task(call_again(limiter)) for _ in range(callers)]
        # Their requests are on their way before it says so.
        await limiter.status(name)
        tell("ready", limiter._session.client)
        await asyncio.gather(*tasks)
        tell("end", submitted, ended)


def main(arguments: str) -> None:
    """Be one worker process."""
    asyncio.run(work(**json.loads(arguments)))
