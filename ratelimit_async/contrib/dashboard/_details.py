"""Who waits for a key, and its dead letters: read only for keys that are open in a page, once for all who look."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ratelimit_async import RateLimitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ratelimit_async import DeadLetter, RateLimiter, Status, WaitingRequest
    from ratelimit_async.contrib.dashboard._names import Pair

__all__ = ["Detail", "Details"]

T = TypeVar("T")

MOST_WAITING = 50
MOST_LETTERS = 100
_MOST_KEPT = 64
# Dead letters are large and change seldom: seconds for which they count as unchanged, where their number is.
_LETTERS_KEPT = 10.0


class Detail(NamedTuple):
    """The first who wait, and the oldest dead letters."""

    waiting: list[WaitingRequest]
    letters: list[DeadLetter]


class _Entry:
    def __init__(self) -> None:
        self.task: asyncio.Task[Detail] | None = None
        self.read = -1e9
        self.letters: list[DeadLetter] = []
        self.letters_read = -1e9
        self.dead = 0


class Details:
    """Keeps what was read of a key for an interval."""

    def __init__(self, limiter: RateLimiter, interval: float) -> None:
        """Have read nothing; interval in seconds."""
        self._limiter = limiter
        self._interval = interval
        self._entries: OrderedDict[Pair, _Entry] = OrderedDict()

    async def of(self, pair: Pair, status: Status) -> Detail:
        """Read a key's, or give what was read within the interval."""
        now = asyncio.get_running_loop().time()
        entry = self._entries.get(pair)
        if entry is None or (entry.task is not None and entry.task.get_loop() is not asyncio.get_running_loop()):
            entry = self._entries[pair] = _Entry()
            while len(self._entries) > _MOST_KEPT:
                self._entries.popitem(last=False)
        self._entries.move_to_end(pair)
        if entry.task is None or (entry.task.done() and now - entry.read >= self._interval):
            entry.task = asyncio.create_task(self._read(pair, status, entry, now))
            entry.read = now
        return await asyncio.shield(entry.task)

    def forget(self, pair: Pair) -> None:
        """Read a key's anew: somebody has changed it."""
        self._entries.pop(pair, None)

    async def _read(self, pair: Pair, status: Status, entry: _Entry, now: float) -> Detail:
        name, by = pair
        waiting: list[WaitingRequest] = []
        try:
            if status.queue.depth:
                waiting = await _first(self._limiter.waiting(name, by=by), MOST_WAITING)
            dead = status.tasks.dead
            if dead != entry.dead or now - entry.letters_read >= _LETTERS_KEPT:
                entry.letters = await _first(self._limiter.dead_letters(name, by=by), MOST_LETTERS) if dead else []
                entry.dead, entry.letters_read = dead, now
        except RateLimitError:
            # The page says that Redis is away; what was read last stays.
            pass
        return Detail(waiting, entry.letters)


async def _first(items: AsyncIterator[T], most: int) -> list[T]:
    found: list[T] = []
    async for item in items:
        found.append(item)
        if len(found) >= most:
            break
    return found
