"""Looks at keys for all who watch: once for all of them, only while somebody does, and never at too many at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from ratelimit_async import RateLimitError
from ratelimit_async.contrib.dashboard._directory import Directory
from ratelimit_async.contrib.dashboard._series import Series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit_async import Health, RateLimiter
    from ratelimit_async.contrib.dashboard._names import Pair

__all__ = ["Sampler"]

# Seconds after the last question for which it goes on, and for which what was seen is kept.
_LINGER = 30.0
WINDOW = 600.0
_SPANS = (60.0, 120.0, 300.0)
# Keys that are read in turns, that are read in one go, and of which the history is kept.
_MOST_SWEPT = 1_000
_MOST_READ = 250
_MOST_SERIES = 1_500
_BATCH = 50
# Of the time, looking for keys takes at most one part in so many.
_SCAN_REST = 20


class Sampler:
    """Reads a limiter's keys at an interval: those that are shown each time, the others in turns."""

    def __init__(self, limiter: RateLimiter, interval: float) -> None:
        """Rest until somebody watches; interval in seconds."""
        self.interval = interval
        self.directory = Directory(limiter)
        self.series: OrderedDict[Pair, Series] = OrderedDict()
        self.health: Health | None = None
        # Since when it looks without a rest, and since when Redis is away, by the loop's time.
        self.since = 0.0
        self.away_since: float | None = None
        self._limiter = limiter
        self._until = 0.0
        self._shown: dict[Pair, float] = {}
        self._place = 0
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def watch(self) -> None:
        """Say that somebody watches; comes back when there is something to see."""
        loop = asyncio.get_running_loop()
        ended, self._until = self._until, loop.time() + _LINGER
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._ready = asyncio.Event()
            # What was seen before a short rest is kept.
            if loop.time() - ended > WINDOW or not self.series:
                self.since = loop.time()
            self._task = loop.create_task(self._run(), name="ratelimit_async dashboard")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._ready.wait()

    async def show(self, pairs: Iterable[Pair]) -> None:
        """Say that somebody sees these: they are read each time from now on, and at once where they never were."""
        now = asyncio.get_running_loop().time()
        new: list[Pair] = []
        for pair in pairs:
            self._shown.pop(pair, None)
            self._shown[pair] = now
            if pair not in self.series:
                new.append(pair)
        await self.read(new)

    async def read(self, pairs: Iterable[Pair]) -> None:
        """Look at these now."""
        left = list(pairs)
        for start in range(0, len(left), _BATCH):
            await asyncio.gather(*map(self._read, left[start : start + _BATCH]))

    def span(self, now: float) -> float:
        """Give the seconds that plots show: as many as there is something to see of, in round numbers."""
        return next((span for span in _SPANS if span >= now - self.since), WINDOW)

    def stop(self) -> None:
        """End at once."""
        if self._task is not None:
            self._task.cancel()

    async def _read(self, pair: Pair) -> None:
        name, by = pair
        loop = asyncio.get_running_loop()
        try:
            status = await self._limiter.status(name, by=by)
        except RateLimitError as error:
            self._series_of(pair).fail(loop.time(), str(error))
        else:
            self._series_of(pair).add(loop.time(), status)

    def _series_of(self, pair: Pair) -> Series:
        series = self.series.get(pair)
        if series is None:
            series = self.series[pair] = Series(int(WINDOW / self.interval) + 1)
        self.series.move_to_end(pair)
        while len(self.series) > _MOST_SERIES:
            self.series.popitem(last=False)
        return series

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        found = asyncio.Event()
        finding = loop.create_task(self._find(found), name="ratelimit_async dashboard keys")
        try:
            with contextlib.suppress(TimeoutError):
                # So that the page does not begin empty.
                async with asyncio.timeout(1.0):
                    await found.wait()
            while loop.time() < self._until:
                started = loop.time()
                await self._look(started)
                self._ready.set()
                # However long that took, others have their turn.
                await asyncio.sleep(max(started + self.interval - loop.time(), self.interval / 2))
        finally:
            finding.cancel()
            self._ready.set()

    async def _look(self, now: float) -> None:
        self.health = await self._limiter.health()
        if not self.health.redis:
            self.away_since = self.away_since or now
            return
        self.away_since = None
        # Who shows a key asks for it again within an interval or so.
        self._shown = {pair: at for pair, at in self._shown.items() if now - at < 3 * self.interval + 5}
        shown = list(self._shown)[-_MOST_READ:]
        await self.read(shown)
        swept = [pair for pair in self.directory.some(_MOST_SWEPT) if pair not in self._shown]
        room = min(len(swept), _MOST_READ - len(shown))
        if room > 0:
            self._place %= len(swept)
            await self.read((swept + swept)[self._place : self._place + room])
            self._place += room

    async def _find(self, found: asyncio.Event) -> None:
        """Look for keys again and again, with rests in proportion to what it takes."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            with contextlib.suppress(RateLimitError):
                await self.directory.scan()
            found.set()
            await asyncio.sleep(max(self.interval, _SCAN_REST * (loop.time() - started)))
