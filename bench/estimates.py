"""Estimates: what a ticket says it will wait, and what `fail_fast` refuses by it, beside what comes to pass."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, NamedTuple

from ratelimit_async import RateLimiter, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimit_async._config import Cost

SEED = 3
LEVELS = ("high", "normal", "low")


class Configuration(NamedTuple):
    """Limits and a load for them: costs are drawn, calls last seconds between two bounds."""

    label: str
    limits: str
    cost: Callable[[random.Random], Cost]
    seconds: tuple[float, float] = (0.0, 0.0)
    backlog: int = 32
    probes: int = 16
    spread: float = 0.7
    warm: int = 0


class Arrival(NamedTuple):
    """One request of a load: `at` seconds after the load's start; its call lasts `seconds`."""

    at: float
    priority: str
    cost: Cost
    seconds: float


class Outcome(NamedTuple):
    """What became of a probe; `waited` is until its function ran, also where it was asked for again after a refusal.

    `waits`: it had to take a place in the queue, or was refused one.
    """

    estimate: float
    waited: float | None
    waits: bool = True
    timeout: float | None = None
    refused: bool = False

    @property
    def wrong(self) -> bool:
        """Whether it was refused and could have been served in time, or accepted and was not."""
        in_time = self.waited is not None and self.timeout is not None and self.waited <= self.timeout
        return self.refused == in_time


def _small(rng: random.Random) -> Cost:
    return rng.randint(1, 3)


def _tokens(rng: random.Random) -> Cost:
    return {"tokens": rng.randint(1, 30)}


def _large(rng: random.Random) -> Cost:
    return rng.choice((1, 1, 1, 10, 20))


def _by_turns(rng: random.Random) -> Cost:
    return {"tokens": rng.choice((1, 1, 1, 150))}


def _slots(rng: random.Random) -> Cost:
    return {"concurrent": rng.choice((1, 1, 1, 2))}


def _one(_: random.Random) -> Cost:
    return 1


CALLS = (0.05, 0.25)
CONFIGURATIONS = (
    Configuration("sliding window", "30/second", _small),
    Configuration("the same, costs of 1", "15/second", _one),
    Configuration("the same, large costs", "30/second", _large, backlog=8, probes=6),
    Configuration("fixed window", "30/second fixed_window", _small),
    Configuration("token bucket", "30/second burst 10", _small),
    Configuration("sliding counter", "30/second sliding_counter", _small),
    Configuration("two limits", "20/second; 300 tokens/second", _tokens),
    Configuration("two limits by turns", "20/second; 300 tokens/second", _by_turns, backlog=16, probes=8),
    Configuration("concurrent, first use", "5 concurrent", _slots, CALLS),
    Configuration("concurrent, warm", "5 concurrent", _slots, CALLS, warm=20),
    Configuration("concurrent and window", "5 concurrent; 30/second", _small, CALLS, warm=20),
    Configuration("from finish, first use", "20/second from finish", _one, CALLS),
    Configuration("from finish, warm", "20/second from finish", _one, CALLS, warm=20),
    Configuration("fixed from finish", "20/second fixed_window from finish", _one, CALLS, warm=20),
    Configuration("bucket from finish", "20/second burst 5 from finish", _one, CALLS, warm=20),
)
# Played at the same time: few enough that they do not disturb each other.
TOGETHER = 3


def _loads(configuration: Configuration, rng: random.Random) -> tuple[list[Arrival], list[Arrival]]:
    """Draw a backlog, and probes of which none is overtaken by a later one: the better priorities come first."""

    def arrivals(times: list[float], priorities: list[str]) -> list[Arrival]:
        drawn = zip(times, priorities, strict=True)
        return [Arrival(at, level, configuration.cost(rng), rng.uniform(*configuration.seconds)) for at, level in drawn]

    backlog = arrivals([0.0] * configuration.backlog, rng.choices(LEVELS, k=configuration.backlog))
    times = sorted(rng.uniform(0, configuration.spread) for _ in range(configuration.probes))
    levels = sorted(rng.choices(LEVELS, k=configuration.probes), key=LEVELS.index)
    return backlog, arrivals(times, levels)


class Load:
    """A backlog and probes for one subject of a name; with timeouts, the probes ask for `fail_fast`."""

    def __init__(self, limiter: RateLimiter, configuration: Configuration, by: str, rng: random.Random) -> None:
        self._limiter = limiter
        self._name = configuration.label
        self._by = by
        self._warm = configuration.warm
        self._phase = rng.uniform(0, 1)
        self.backlog, self.probes = _loads(configuration, rng)

    async def run(self, timeouts: Iterator[float] | None = None) -> list[Outcome]:
        """Play it; the outcomes are those of the probes."""
        await asyncio.sleep(self._phase)
        if self._warm:
            first = self.backlog[: self._warm]
            await asyncio.gather(
                *(self._limiter.request(self._name, asyncio.sleep, one.seconds, by=self._by) for one in first)
            )
        begun = time.perf_counter()
        calls = [await self._submit(one) for one in self.backlog]
        probes = []
        for one in self.probes:
            await asyncio.sleep(max(begun + one.at - time.perf_counter(), 0))
            probes.append(await self._submit(one, next(timeouts) if timeouts else None))
        await asyncio.gather(*calls)
        return list(await asyncio.gather(*probes))

    async def _submit(self, one: Arrival, timeout: float | None = None) -> asyncio.Task[Outcome]:
        """Take its place, after a refusal without a timeout: that tells how long it would have waited."""
        asked = time.perf_counter()
        waited: list[float] = []
        refused = False

        async def call() -> None:
            waited.append(time.perf_counter() - asked)
            await asyncio.sleep(one.seconds)

        how = {"by": self._by, "cost": one.cost, "priority": one.priority}
        try:
            ticket = await self._limiter.submit(self._name, call, timeout=timeout, fail_fast=timeout is not None, **how)
        except RequestTimeout:
            refused = True
            ticket = await self._limiter.submit(self._name, call, timeout=None, **how)

        async def outcome() -> Outcome:
            with contextlib.suppress(RequestTimeout):
                await ticket
            wait = waited[0] if waited else None
            return Outcome(ticket.estimated_wait, wait, refused or ticket.position > 0, timeout, refused)

        return asyncio.create_task(outcome())


async def run_estimates(url: str, *, keys: int = 8) -> None:
    """Play each configuration's load on several keys at once, then again with `fail_fast` and timeouts; print both."""
    print(
        f"  seed {SEED}; wait in s, errors in ms and % of the wait, bias: mean of estimate - wait; then fail_fast with"
    )
    print("  timeouts of 0.5 to 1.5 times the wait of the first run: how many refused and accepted, how many wrongly")
    print(f"{'probes':>33}  wait   error p50   p90   max   bias  %: p50   p90   refused wrong   accepted wrong")
    limits = {one.label: {"limits": one.limits} for one in CONFIGURATIONS}
    async with RateLimiter(url, limits=limits, hooks=[]) as limiter:
        for i in range(0, len(CONFIGURATIONS), TOGETHER):
            some = CONFIGURATIONS[i : i + TOGETHER]
            runs = await asyncio.gather(*(_play(limiter, configuration, keys) for configuration in some))
            for configuration, (plain, fast) in zip(some, runs, strict=True):
                _report(configuration.label, plain, fast)


async def _play(limiter: RateLimiter, configuration: Configuration, keys: int) -> tuple[list[Outcome], list[Outcome]]:
    seeds = [f"{SEED} {configuration.label} {key}" for key in range(keys)]

    def loads(run: str) -> list[Load]:
        return [Load(limiter, configuration, f"{run} {key}", random.Random(seed)) for key, seed in enumerate(seeds)]

    plain = await asyncio.gather(*(load.run() for load in loads("plain")))
    rng = random.Random(f"{SEED} timeouts")
    # Never 0, which would not ask for a place.
    timeouts = [[max(rng.uniform(0.5, 1.5) * (one.waited or 0), 0.001) for one in outcomes] for outcomes in plain]
    again = zip(loads("fast"), timeouts, strict=True)
    fast = await asyncio.gather(*(load.run(iter(drawn)) for load, drawn in again))
    return [one for outcomes in plain for one in outcomes], [one for outcomes in fast for one in outcomes]


def _at(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def _report(label: str, plain: list[Outcome], fast: list[Outcome]) -> None:
    # One that is served at once has nothing to be estimated.
    pairs = [(one.estimate, one.waited) for one in plain if one.waited is not None and one.waits]
    errors = [abs(estimate - waited) * 1000 for estimate, waited in pairs]
    shares = [100 * abs(estimate - waited) / waited for estimate, waited in pairs]
    bias = 1000 * sum(estimate - waited for estimate, waited in pairs) / len(pairs)
    mean = sum(waited for _, waited in pairs) / len(pairs)
    refused = [one.wrong for one in fast if one.refused]
    accepted = [one.wrong for one in fast if one.waits and not one.refused]
    print(
        f"  {label:24} {len(pairs):6} {mean:5.2f}"
        f"      {_at(errors, 0.5):6.0f} {_at(errors, 0.9):5.0f} {max(errors):5.0f} {bias:+6.0f}"
        f"  {_at(shares, 0.5):6.1f} {_at(shares, 0.9):5.1f}"
        f"   {len(refused):7} {sum(refused):5}   {len(accepted):8} {sum(accepted):5}"
    )
