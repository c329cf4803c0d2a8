"""The figures of `top`: what changes from one look at Redis to the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from ratelimit_async._status import ALGORITHMS, trimmed
from ratelimit_async._survey import counters_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ratelimit_async._onlooker import Onlooker
    from ratelimit_async._survey import Counter, Holding
    from ratelimit_async._values import Status

__all__ = ["HISTORY", "KeyFigures", "LimitFigures", "Look", "Watch", "watching"]

# Looks that the plot of a limit remembers.
HISTORY = 60
# Keys that every look goes through; of more, those in which nothing moves give way to those found since.
MOST_WATCHED = 500
# Steps of the scan for keys that go with one look: each is well below a millisecond.
_STEPS = 20
_Pair = tuple[str, "str | None"]


class LimitFigures(msgspec.Struct, frozen=True):
    """One limit; `used`, `most` and `limit` are None where they are not known here, `rate` where it cannot be told.

    `rate`: units a second that were charged since the look before, or at least that.
    """

    limit: str | None
    algorithm: str
    unit: str
    used: int | None
    most: int | None
    rate: float | None


class KeyFigures(msgspec.Struct, frozen=True):
    """One key; waits in seconds. `p99_wait`: 99 % of those who wait now have waited less; not of those granted."""

    name: str
    by: str | None
    known: bool
    rate: float | None
    limits: tuple[LimitFigures, ...]
    waiting: int
    waiting_by_priority: list[int]
    oldest_wait: float
    p99_wait: float
    running: int
    tasks_running: int
    driver: str | None
    paused: bool


class Look(msgspec.Struct, frozen=True):
    """One look: `at` in seconds since the epoch by Redis' clock, `took` in seconds; sums are of all watched keys.

    `rate`: requests a second; `drivers`: by client, how many of the keys it drives.
    """

    at: float
    address: str
    prefix: str
    took: float
    processes: int
    found: int
    watched: int
    rate: float
    waiting: int
    drivers: dict[str, int]
    keys: tuple[KeyFigures, ...]


class Watch:
    """Looks again and again."""

    def __init__(self, limiter: Onlooker) -> None:
        """Know nothing yet."""
        self.histories: dict[tuple[str, str | None, int], deque[float]] = {}
        self._limiter = limiter
        self._counters: dict[_Pair, set[Counter]] = {}
        self._before: dict[_Pair, Holding] = {}
        # By key, looks since anything moved.
        self._idle: dict[_Pair, int] = {}
        self._scan: AsyncGenerator[dict[_Pair, set[Counter]]] | None = None
        self._seen: set[_Pair] = set()
        self._found = 0
        self._whole = False

    async def close(self) -> None:
        """End a scan that is under way."""
        if self._scan is not None:
            await self._scan.aclose()

    async def look(self, most: int) -> Look:
        """Look at all watched keys, and closely at the `most` busiest; the first look also finds the keys."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._discover()
        pairs = list(self._idle)
        holdings = await asyncio.gather(*(self._limiter.holding(*pair, self._counters[pair]) for pair in pairs))
        now = dict(zip(pairs, holdings, strict=True))
        rates = {pair: self._rates(pair, holding) for pair, holding in now.items()}
        busy = {pair: _headline(rates[pair]) or 0.0 for pair in pairs}
        for pair in pairs:
            moved = busy[pair] or now[pair].waiting or now[pair].running or now[pair].tasks.running
            self._idle[pair] = 0 if moved else self._idle[pair] + 1
        pairs.sort(key=lambda pair: (-busy[pair], -now[pair].waiting, -now[pair].running, pair[0], pair[1] or ""))
        shown = pairs[:most]
        statuses = await asyncio.gather(*(self._status(pair) for pair in shown))
        keys = [
            self._figures(pair, now[pair], rates[pair], status) for pair, status in zip(shown, statuses, strict=True)
        ]
        self._before = now
        drivers: dict[str, int] = {}
        for holding in holdings:
            if holding.driver:
                drivers[holding.driver] = drivers.get(holding.driver, 0) + 1
        return Look(
            at=holdings[0].now if holdings else 0.0,
            address=self._limiter.address,
            prefix=self._limiter.prefix,
            took=loop.time() - started,
            processes=self._limiter.processes,
            found=max(self._found, len(self._seen)),
            watched=len(pairs),
            rate=sum(_headline(rates[pair], "requests") or 0.0 for pair in pairs),
            waiting=sum(holding.waiting for holding in holdings),
            drivers=drivers,
            keys=tuple(keys),
        )

    async def _status(self, pair: _Pair) -> Status | None:
        if self._limiter.config_of(*pair) is None:
            return None
        return await self._limiter.status(pair[0], by=pair[1])

    async def _discover(self) -> None:
        """Go on looking for keys: to the end at first, then some steps at a time."""
        steps = 0
        while not self._whole or steps < _STEPS:
            if self._scan is None:
                self._scan = self._limiter.found()
            try:
                step = await anext(self._scan)
            except StopAsyncIteration:
                for pair in self._idle.keys() - self._seen:
                    self._forget(pair)
                self._found = len(self._seen)
                self._seen = set[_Pair]()
                self._scan, self._whole = None, True
                return
            except BaseException:
                self._scan = None
                raise
            self._take(step)
            steps += 1

    def _take(self, step: dict[_Pair, set[Counter]]) -> None:
        self._seen.update(step)
        for pair, counters in step.items():
            if pair not in self._idle and len(self._idle) >= MOST_WATCHED:
                idlest = max(self._idle, key=lambda one: self._idle[one])
                if self._idle[idlest] < 3:
                    continue
                self._forget(idlest)
            self._idle.setdefault(pair, 0)
            self._counters.setdefault(pair, set()).update(counters)

    def _forget(self, pair: _Pair) -> None:
        del self._idle[pair], self._counters[pair]
        for known in [known for known in self.histories if known[:2] == pair]:
            del self.histories[known]

    def _rates(self, pair: _Pair, now: Holding) -> dict[Counter, float | None]:
        """Tell by counter how much a second was charged since the look before."""
        before = self._before.get(pair)
        if before is None:
            return dict.fromkeys(now.counters)
        return {
            counter: found.rate(counter, before.counters.get(counter), before.now, now.now)
            for counter, found in now.counters.items()
        }

    def _figures(
        self, pair: _Pair, holding: Holding, rates: dict[Counter, float | None], status: Status | None
    ) -> KeyFigures:
        limits: list[LimitFigures] = []
        config = self._limiter.config_of(*pair)
        if status is None or config is None:
            limits = [
                LimitFigures(None, ALGORITHMS[one.kind], one.unit, None, None, rate) for one, rate in rates.items()
            ]
        else:
            for i, (one, counter) in enumerate(zip(status.limits, counters_of(config), strict=False)):
                rate = None if counter is None else rates.get(counter)
                limit = one.limit
                limits.append(LimitFigures(str(limit), limit.algorithm, limit.unit, one.used, limit.most, rate))
                history = self.histories.setdefault((*pair, i), deque(maxlen=HISTORY))
                history.append(one.used / limit.most)
        return KeyFigures(
            name=pair[0],
            by=pair[1],
            known=config is not None,
            rate=_headline(rates),
            limits=tuple(limits),
            waiting=holding.waiting,
            waiting_by_priority=trimmed(holding.depths) if config is None else holding.depths,
            oldest_wait=holding.oldest,
            p99_wait=holding.slowest,
            running=holding.running,
            tasks_running=holding.tasks.running,
            driver=holding.driver or None,
            paused=holding.paused != 0,
        )


def _headline(rates: dict[Counter, float | None], unit: str = "") -> float | None:
    """Choose the rate that stands for a key: that of requests, where they are counted, or of one unit only."""
    told = [
        (one.unit == "requests", rate) for one, rate in rates.items() if rate is not None and unit in ("", one.unit)
    ]
    return max(told)[1] if told else None


@contextlib.asynccontextmanager
async def watching(limiter: Onlooker) -> AsyncGenerator[Watch]:
    """Look while the block runs."""
    watch = Watch(limiter)
    async with limiter:
        try:
            yield watch
        finally:
            await watch.close()
