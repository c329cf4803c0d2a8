"""Experiments that break things under load and count: the tests run them short, `python -m bench.faults` long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.fleet import KINDS, PATIENCE, Fleet, Journal, Worker, register_task
from ratelimit_async import QueueConfig, RateLimitConfig, RateLimiter
from ratelimit_async._demo import most_in_any_window
from ratelimit_async._events import Allowed, Granted
from tests import worker_app
from tests.proxy import Proxy
from tests.servers import RedisServer, die_with_parent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ratelimit_async import Event, Hook, Ticket

AMOUNT, PERIOD = 20, 0.2
# The second limit never binds: it counts all charges.
LIMITS = {"load": f"{AMOUNT} per {PERIOD} seconds; 1000000/hour"}
# All that an experiment requests may wait at once.
ROOMY = {name: RateLimitConfig(limit, QueueConfig(max_size=1_000_000)) for name, limit in LIMITS.items()}
# Short leases: what is taken back is taken back soon.
SHORT = {"lease": 0.6, "poll_interval": 0.2}


class Outcome(NamedTuple):
    """What an experiment counted; `recovery` is the worst of it, seconds, and `faults` how often something broke."""

    requests: int
    faults: int
    lost: int
    duplicated: int
    over_admitted: int
    recovery: float
    # Charges beyond what ran, where that can be counted, and fewer than ran if negative.
    overcharged: int = 0

    @classmethod
    def of(
        cls, journal: Journal, *, faults: int, recovery: float, lost: int | None = None, charged: int | None = None
    ) -> Outcome:
        """Read a journal; `lost` where that is counted elsewhere."""
        return cls(
            requests=max(len(journal.submitted), len(journal.runs)),
            faults=faults,
            lost=journal.lost if lost is None else lost,
            duplicated=journal.duplicated,
            # Stamps are floats of whole microseconds: half of one decides nothing.
            over_admitted=max(most_in_any_window(journal.stamps, PERIOD - 5e-7) - AMOUNT, 0),
            recovery=recovery,
            overcharged=0 if charged is None else charged - sum(journal.runs.values()),
        )


class Shares:
    """Counts what processes granted of their shares of the limits, which Redis was not there to charge."""

    def __init__(self) -> None:
        """Start with nothing; a hook."""
        self.granted = 0

    def __call__(self, event: Event) -> None:
        self.granted += isinstance(event, Allowed | Granted) and event.decision.source == "local"


class Breaker:
    """Breaks something again and again, and counts how often."""

    def __init__(self, act: Callable[[], object], shortest: float, longest: float) -> None:
        """Act on a thread, at random intervals, seconds."""
        self.count = 0
        self._act = act
        self._range = shortest, longest

    async def run(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(*self._range))
            await asyncio.to_thread(self._act)
            self.count += 1


@contextlib.asynccontextmanager
async def breaking(act: Callable[[], object], shortest: float, longest: float) -> AsyncIterator[Breaker]:
    breaker = Breaker(act, shortest, longest)
    task = asyncio.create_task(breaker.run())
    try:
        yield breaker
    finally:
        task.cancel()
        await asyncio.wait([task])
        # One that could not break anything has shown nothing.
        if not task.cancelled():
            task.result()


@contextlib.asynccontextmanager
async def limiters(url: str, count: int, *hooks: Hook, **settings: float) -> AsyncIterator[list[RateLimiter]]:
    async with contextlib.AsyncExitStack() as stack:
        those = [RateLimiter(url, limits=ROOMY, hooks=hooks, **{**SHORT, **settings}) for _ in range(count)]  # type: ignore[arg-type]
        for limiter in those:
            register_task(limiter)
            await stack.enter_async_context(limiter)
        yield those


async def load(
    those: list[RateLimiter],
    requests: int,
    kind: str,
    journal: Journal,
    *,
    at_once: bool = False,
    stops: float = 0.0,
) -> None:
    """Request so many turns, twice as fast as they are granted or all at once; wait for their ends.

    `stops`: seconds for which nothing can be granted.
    """
    takes = requests * PERIOD / AMOUNT

    async def arrive(n: int, delay: float) -> None:
        await asyncio.sleep(delay)
        await journal.follow(n, KINDS[kind](those[n % len(those)], "load", n, journal.run))

    tasks = [asyncio.create_task(arrive(n, 0.0 if at_once else random.uniform(0, takes / 2))) for n in range(requests)]
    # Those without an end after this are the lost ones.
    await asyncio.wait(tasks, timeout=PATIENCE + takes + stops)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _charged(url: str, shares: Shares, journal: Journal) -> int:
    """Count what was charged, in Redis and by shares, once what was charged twice in an outage is given back."""
    async with RateLimiter(url, limits=ROOMY, hooks=[], processor=False) as onlooker:
        end = time.monotonic() + PATIENCE
        while True:
            charged = (await onlooker.status("load")).limits[1].used + shares.granted
            if charged <= sum(journal.runs.values()) or time.monotonic() > end:
                return charged
            await asyncio.sleep(0.05)


async def _killing(requests: int, kind: str, shortest: float, longest: float, *command: str) -> Outcome:
    journal, shares = Journal(), Shares()
    with RedisServer() as server:
        async with limiters(server.url, 2, shares) as those:
            async with breaking(lambda: server.call(*command), shortest, longest) as breaker:
                await load(those, requests, kind, journal)
            charged = await _charged(server.url, shares, journal)
    return Outcome.of(journal, faults=breaker.count, recovery=journal.gap(), charged=charged)


async def pubsub_killed(requests: int = 200, kind: str = "acquire") -> Outcome:
    """CLIENT KILL TYPE pubsub every 10-50 ms."""
    return await _killing(requests, kind, 0.01, 0.05, "CLIENT", "KILL", "TYPE", "pubsub")


async def commands_killed(requests: int = 200, kind: str = "acquire") -> Outcome:
    """CLIENT KILL TYPE normal every 10-50 ms."""
    return await _killing(requests, kind, 0.01, 0.05, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def scripts_flushed(requests: int = 200, kind: str = "acquire") -> Outcome:
    """SCRIPT FLUSH every 100 ms."""
    return await _killing(requests, kind, 0.1, 0.1, "SCRIPT", "FLUSH")


async def replies_swallowed(requests: int = 200, kind: str = "acquire", share: float = 0.3) -> Outcome:
    """Replies of a share of all script calls dropped after execution, at random; what runs is charged once."""
    journal, shares = Journal(), Shares()
    with RedisServer() as server:
        async with Proxy(server.port) as proxy, limiters(proxy.url, 2, shares) as those:
            proxy.swallow(lambda data, _: b"EVALSHA" in data and random.random() < share, times=1_000_000)
            await load(those, requests, kind, journal)
            proxy.stop_swallowing()
            charged = await _charged(server.url, shares, journal)
    return Outcome.of(journal, faults=proxy.swallowed, recovery=journal.gap(), charged=charged)


async def blackholed(rounds: int = 3, kind: str = "acquire", seconds: float = 1.0) -> Outcome:
    """Nothing passes between limiter and Redis for a while, connections open; recovery: from its end to a grant."""
    return await _hung(rounds, kind, seconds, through_proxy=True)


async def redis_stopped(rounds: int = 1, kind: str = "acquire", seconds: float = 10.0) -> Outcome:
    """Redis SIGSTOPped for 10 s; who waits keeps its place. Recovery: from its going on to a grant."""
    return await _hung(rounds, kind, seconds, through_proxy=False)


async def _hung(rounds: int, kind: str, seconds: float, *, through_proxy: bool) -> Outcome:
    journal, worst = Journal(), 0.0
    with RedisServer() as server:
        async with Proxy(server.port) as proxy, limiters(proxy.url, 2, command_timeout=1.0) as those:
            # Enough that somebody waits until the last round is over. All of them wait before the first: who comes
            # while Redis does not answer is refused, and that is another promise.
            requests = int((rounds + 1) * AMOUNT / PERIOD)
            loading = asyncio.create_task(
                load(those, requests, kind, journal, at_once=True, stops=rounds * (seconds + 2))
            )
            for _ in range(rounds):
                await asyncio.sleep(0.5)
                if through_proxy:
                    proxy.blackhole()
                else:
                    server.suspend()
                await asyncio.sleep(seconds)
                if through_proxy:
                    proxy.flow()
                else:
                    server.resume()
                worst = max(worst, await _next_run(journal, time.time()))
            await loading
    return Outcome.of(journal, faults=rounds, recovery=worst)


async def _next_run(journal: Journal, since: float) -> float:
    """Wait for the first run since a moment, seconds since the epoch; the seconds between them."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while not (later := [at for at in journal.times if at > since]):
                journal.ran.clear()
                await journal.ran.wait()
            return min(later) - since
    return PATIENCE


async def redis_killed(rounds: int = 2, kind: str = "acquire") -> Outcome:
    """Redis killed and restarted on its append-only file; recovery: from its being there again to a grant."""
    journal, worst = Journal(), 0.0
    with RedisServer("--appendfsync", "always", appendonly=True) as server:
        async with limiters(server.url, 2) as those:
            loading = asyncio.create_task(load(those, int((rounds + 1) * AMOUNT / PERIOD), kind, journal))
            for _ in range(rounds):
                await asyncio.sleep(random.uniform(0.3, 0.6))
                await asyncio.to_thread(server.restart)
                worst = max(worst, await _next_run(journal, time.time()))
            await loading
    return Outcome.of(journal, faults=rounds, recovery=worst)


async def drivers_killed(rounds: int = 5, kind: str = "acquire") -> Outcome:
    """The process that grants SIGKILLed under load, again and again; recovery: until another one grants."""
    return await _processes_killed(rounds, kind, drivers_only=True)


async def waiters_killed(rounds: int = 5, kind: str = "acquire") -> Outcome:
    """Any process SIGKILLed under load, again and again; recovery: until others are granted something."""
    return await _processes_killed(rounds, kind, drivers_only=False)


async def _processes_killed(rounds: int, kind: str, *, drivers_only: bool) -> Outcome:
    worst = 0.0
    with RedisServer() as server:
        async with Fleet(server.url, LIMITS, kind=kind, pause=2 * PERIOD, **SHORT) as fleet:
            await asyncio.gather(*(fleet.add() for _ in range(3)))
            for _ in range(rounds):
                # Another process is there before one goes, and the load with it.
                await fleet.add()
                await asyncio.sleep(random.uniform(0.05, 0.3))
                victim = random.choice(fleet.workers)
                if drivers_only:
                    victim = await _driver(server, fleet)
                at = await fleet.kill(victim)
                worst = max(worst, await _next_run(fleet.journal, at))
            lost = await fleet.finish()
            return Outcome.of(fleet.journal, faults=rounds, recovery=worst, lost=lost)


async def _driver(server: RedisServer, fleet: Fleet) -> Worker:
    """Wait for one that lives to drive the key: the lease of one that was killed outlives it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            driver = server.call("GET", "{rl:load:}:d")
            for worker in fleet.workers:
                if driver and worker.client == driver:
                    return worker
            await asyncio.sleep(0.005)


async def processes_stopped(rounds: int = 3, kind: str = "acquire") -> Outcome:
    """A process SIGSTOPped for longer than its lease, and back; recovery: until others are granted something."""
    worst = 0.0
    with RedisServer() as server:
        async with Fleet(server.url, LIMITS, kind=kind, pause=2 * PERIOD, **SHORT) as fleet:
            await asyncio.gather(*(fleet.add() for _ in range(3)))
            for _ in range(rounds):
                await asyncio.sleep(random.uniform(0.05, 0.2))
                victim = random.choice(fleet.workers)
                victim.signal(signal.SIGSTOP)
                at = time.time()
                worst = max(worst, await _next_run(fleet.journal, at))
                await asyncio.sleep(2 * SHORT["lease"])
                victim.signal(signal.SIGCONT)
            lost = await fleet.finish()
            return Outcome.of(fleet.journal, faults=rounds, recovery=worst, lost=lost)


async def flushed(rounds: int = 3, kind: str = "acquire") -> Outcome:
    """FLUSHALL under the live waiters of several processes; recovery: until somebody is granted something."""
    worst = 0.0
    with RedisServer() as server:
        async with Fleet(server.url, LIMITS, kind=kind, pause=2 * PERIOD, **SHORT) as fleet:
            await asyncio.gather(*(fleet.add() for _ in range(3)))
            for _ in range(rounds):
                await asyncio.sleep(random.uniform(0.3, 0.5))
                server.call("FLUSHALL")
                at = time.time()
                worst = max(worst, await _next_run(fleet.journal, at))
            lost = await fleet.finish()
            return Outcome.of(fleet.journal, faults=rounds, recovery=worst, lost=lost)


async def workers_killed(rounds: int = 5) -> Outcome:
    """The process that runs durable tasks SIGKILLed again and again; run twice is allowed, lost is not."""
    requests, gaps = rounds * 20, [0.0]
    with RedisServer() as server:
        limiter = RateLimiter(server.url, limits={"a": "1000/second"}, hooks=[], processor=False)
        slow = limiter.task("slow", max_attempts=1000)(worker_app.slow.fn)
        ended: list[float] = []

        async def end(ticket: Ticket[str]) -> None:
            await ticket
            ended.append(time.monotonic())

        async with limiter:
            tickets = [await limiter.submit("a", slow, 0.02) for _ in range(requests)]
            ends = [asyncio.create_task(end(ticket)) for ticket in tickets]
            for round_ in range(rounds + 1):
                async with worker_process(server.url) as process:
                    if round_ < rounds:
                        await _runs_something(server, process, ends)
                        process.kill()
                    else:
                        await asyncio.wait(ends, timeout=PATIENCE)
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        gaps += [after - before for before, after in itertools.pairwise(ended)]
        runs = sum(1 for line in server.call("LRANGE", "noted", 0, -1) if line.startswith("begun"))
    return Outcome(requests, rounds, requests - len(ended), runs - requests, 0, max(gaps))


async def _runs_something(
    server: RedisServer, process: asyncio.subprocess.Process, ends: list[asyncio.Task[None]]
) -> None:
    """Wait until a worker has begun a task, or all have ended."""
    before = server.call("LLEN", "noted")
    assert process.returncode is None
    async with asyncio.timeout(PATIENCE):
        while server.call("LLEN", "noted") == before and not all(map(asyncio.Task.done, ends)):
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def worker_process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `ratelimit-async worker` on the tests' application."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ratelimit_async", "worker", "tests.worker_app:limiter"),
        env={**os.environ, "TEST_URL": url, "TEST_LEASE": str(SHORT["lease"]), "TEST_SLOTS": "5"},
        cwd=Path(__file__).parent.parent,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
