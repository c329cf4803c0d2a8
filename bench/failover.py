"""Failover: the primary is killed again and again under load, and what became of the requests is counted."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ratelimit_async import DurabilityUnknown, RateLimitConfig, RateLimiter, RedisUnavailable, UnknownRequest
from tests.helpers import eventually
from tests.topologies import slot_of

if TYPE_CHECKING:
    from ratelimit_async._options import Durability
    from tests.servers import RedisServer

# Of each subject: granted in any period, seconds.
AMOUNT, PERIOD = 20, 0.5
SUBJECTS = tuple("abcdef")
# Seconds within which a request that has its turn must have run, and a killed primary's successor must serve.
BOUND = 30.0


class Setup(Protocol):
    """A Sentinel or Cluster setup."""

    @property
    def url(self) -> str: ...
    def kill_primary(self, slot: int, /) -> RedisServer: ...
    def wait_back(self, server: RedisServer, /) -> None: ...


class FailoverResult(NamedTuple):
    """What a run counted; times in seconds."""

    experiment: str
    kills: int
    requests: int
    hits: int
    # Requests that ended with RedisUnavailable, and hits: whether those were charged is not known.
    refused: int
    unknown: int
    lost: int
    duplicated: int
    over_admitted: int
    worst_recovery: float
    # Durable tasks: submissions that were acknowledged, and those that were not and were repeated.
    acknowledged: int
    unacknowledged: int
    lost_tasks: int
    tasks_run_again: int


class Load:
    """Callers of two limiters that wait, run and come back, and others that hit."""

    def __init__(self, limiters: list[RateLimiter]) -> None:
        self.limiters = limiters
        self.granted: dict[str, list[float]] = {by: [] for by in SUBJECTS}
        self.last: dict[str, float] = dict.fromkeys(SUBJECTS, 0.0)
        self.runs: dict[int, int] = {}
        self.hits = 0
        self.refused = 0
        self.unknown = 0
        self.stopping = False
        # How often each durable task ran, and the public ids of those whose submission was acknowledged.
        self.task_runs: dict[int, int] = {}
        self.acknowledged: dict[int, str] = {}
        self.unacknowledged = 0
        self._numbers = itertools.count()
        self._tasks = [limiter.task("note")(self._note) for limiter in limiters]

    async def _note(self, number: int) -> None:
        self.task_runs[number] = self.task_runs.get(number, 0) + 1

    async def wait_again(self, limiter: RateLimiter, by: str) -> None:
        while not self.stopping:
            number = next(self._numbers)
            self.runs[number] = 0
            try:
                async with limiter.acquire("queue", by=by, timeout=None) as grant:
                    self.runs[number] += 1
                    self.granted[by].append(grant.granted_at)
                    self.last[by] = time.monotonic()
            except RedisUnavailable:
                del self.runs[number]
                self.refused += 1
                await asyncio.sleep(0.01)

    async def hit_again(self, limiter: RateLimiter, by: str) -> None:
        while not self.stopping:
            self.hits += 1
            try:
                await limiter.hit("checks", by=by)
            except RedisUnavailable:
                self.unknown += 1
            await asyncio.sleep(0.01)

    async def submit_again(self, limiter: RateLimiter, by: str, durability: Durability) -> None:
        task = self._tasks[self.limiters.index(limiter)]
        while not self.stopping:
            number = next(self._numbers)
            while not self.stopping:
                try:
                    ticket = await limiter.submit(
                        "tasks", task, number, by=by, id=str(number), durability=durability, priority=number % 3
                    )
                except (DurabilityUnknown, RedisUnavailable):
                    # The same id again, as one would, until it is acknowledged.
                    self.unacknowledged += 1
                    await asyncio.sleep(0.01)
                else:
                    self.acknowledged[number] = ticket.id
                    break
            await asyncio.sleep(0.05)

    async def lost_tasks(self) -> int:
        """Wait for the ends of all tasks that were acknowledged; how many have none and never ran."""
        lost = 0
        for number, request_id in self.acknowledged.items():
            try:
                async with asyncio.timeout(BOUND):
                    await self.limiters[0].result(request_id)
            except UnknownRequest:
                # Its end may have been lost with what a failover forgot; that it ran is what counts.
                lost += number not in self.task_runs
        return lost

    async def recovered(self, by: str, since: float) -> float:
        """Wait until a subject is served after a moment; how long that took."""
        await eventually(lambda: self.last[by] > since, BOUND)
        return self.last[by] - since


def over_admitted(moments: list[float]) -> int:
    """Count the grants that had as many as allowed before them within a period."""
    moments = sorted(moments)
    pairs = zip(moments, moments[AMOUNT:], strict=False)
    # Redis counts in microseconds, and a period is over when it is exactly over.
    return sum(later - earlier < PERIOD - 2e-6 for earlier, later in pairs)


async def run_failover(
    setup: Setup, experiment: str, kills: int, *, callers: int = 4, durability: Durability = "primary"
) -> FailoverResult:
    """Kill the primary of the first subject so many times, each time after the setup is whole again."""
    # What Redis does not decide is to be seen.
    limits = {name: RateLimitConfig((AMOUNT, PERIOD), on_outage="raise") for name in ("queue", "checks")}
    limits["tasks"] = RateLimitConfig("1000/second", on_outage="raise")
    worst = 0.0
    async with (
        RateLimiter(setup.url, limits=limits, command_timeout=4, hooks=[]) as one,
        RateLimiter(setup.url, limits=limits, command_timeout=4, hooks=[]) as other,
    ):
        load = Load([one, other])
        tasks = [
            asyncio.create_task(work(limiter, by))
            for limiter in load.limiters
            for by in SUBJECTS
            for work in [load.wait_again] * callers + [load.hit_again]
        ]
        tasks += [asyncio.create_task(load.submit_again(one, by, durability)) for by in SUBJECTS]
        await asyncio.sleep(1)
        for _ in range(kills):
            slot = slot_of("rl", "queue", SUBJECTS[0])
            killed = await asyncio.to_thread(setup.kill_primary, slot)
            since = time.monotonic()
            times = await asyncio.gather(*(load.recovered(by, since) for by in SUBJECTS))
            worst = max(worst, *times)
            # Not in a thread: servers die with the thread that started them.
            killed.start()
            await asyncio.to_thread(setup.wait_back, killed)
        load.stopping = True
        _, stuck = await asyncio.wait(tasks, timeout=BOUND)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        for task in tasks:
            if task not in stuck:
                task.result()
        lost_tasks = await load.lost_tasks()
    runs = list(load.runs.values())
    return FailoverResult(
        experiment,
        kills,
        len(runs) + load.refused,
        load.hits,
        load.refused,
        load.unknown,
        lost=runs.count(0),
        duplicated=sum(count > 1 for count in runs),
        over_admitted=sum(map(over_admitted, load.granted.values())),
        worst_recovery=worst,
        acknowledged=len(load.acknowledged),
        unacknowledged=load.unacknowledged,
        lost_tasks=lost_tasks,
        tasks_run_again=sum(count - 1 for count in load.task_runs.values()),
    )


def report_failover(result: FailoverResult) -> None:
    """Print a line of the table."""
    print(
        f"  {result.experiment} ({result.kills} kills): {result.requests} requests, {result.hits} hits, "
        f"{result.refused} requests refused, {result.unknown} hits unknown, {result.lost} lost, "
        f"{result.duplicated} duplicated, {result.over_admitted} over-admitted, "
        f"worst recovery {result.worst_recovery:.2f} s; durable tasks: {result.acknowledged} acknowledged, "
        f"{result.unacknowledged} submissions repeated, {result.lost_tasks} lost, {result.tasks_run_again} run again"
    )
