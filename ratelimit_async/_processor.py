"""The processor: grants the waiting requests of the keys that this process drives, each when it becomes possible."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

from ratelimit_async._errors import RedisUnavailable
from ratelimit_async._events import Failed

if TYPE_CHECKING:
    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key
    from ratelimit_async._scripts import Scripts

__all__ = ["Processor"]


class Processor:
    """Sleeps until the next grant is possible or somebody wakes it, then grants."""

    def __init__(self, scripts: Scripts, batch_size: int, poll_interval: float, emit: Emit) -> None:
        """Drive nothing yet; poll_interval in seconds."""
        self.runs = 0
        self.grants = 0
        self.last_run: float | None = None
        self.alive = False
        self._scripts = scripts
        self._batch_size = batch_size
        self._emit = emit
        self._poll_interval = poll_interval
        self._due: dict[bytes, tuple[float, Key]] = {}
        self._heap: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        # Keys whose grants are under way: they are due again once Redis has said when.
        self._granting: list[Key] = []
        self._wake = asyncio.Event()

    def schedule(self, key: Key, seconds: float) -> None:
        """Look at a key's queue in so many seconds, or earlier if that was said before."""
        due = asyncio.get_running_loop().time() + min(seconds, self._poll_interval)
        known = self._due.get(key.driver)
        if known is None or due < known[0]:
            self._due[key.driver] = due, key
            heapq.heappush(self._heap, (due, next(self._order), key.driver))
            self._wake.set()

    async def run(self) -> None:
        """Serve for ever."""
        loop = asyncio.get_running_loop()
        self.alive = True
        # After a crash, at what it was about, too.
        self.look_at_all()
        try:
            while True:
                keys = self._take_due(loop.time())
                if keys:
                    await self._grant(keys)
                else:
                    await self._sleep()
        finally:
            self.alive = False

    def look_at_all(self) -> None:
        """Look now at every queue that this process may be driving."""
        for key in self._driven():
            self.schedule(key, 0)

    async def resign(self) -> None:
        """Give up every key that this process may be driving."""
        keys = self._driven()
        self._due.clear()
        self._heap.clear()
        await asyncio.gather(*(self._scripts.resign(key) for key in keys))

    def _driven(self) -> list[Key]:
        return list(dict.fromkeys((*self._granting, *(key for _, key in self._due.values()))))

    async def _sleep(self) -> None:
        self._wake.clear()
        # A timeout around the wait would take a turn of the loop more, by which those who wait are late.
        timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._wake.set) if self._heap else None
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _take_due(self, now: float) -> list[Key]:
        keys: list[Key] = []
        while self._heap and self._heap[0][0] <= now:
            due, _, driver = heapq.heappop(self._heap)
            known = self._due.get(driver)
            # An earlier time was said since: this one is void.
            if known is not None and known[0] == due:
                del self._due[driver]
                keys.append(known[1])
        return keys

    async def _grant(self, keys: list[Key]) -> None:
        self.runs += 1
        self._granting = keys
        self.last_run = asyncio.get_running_loop().time()
        sent = [self._scripts.grant(key, self._batch_size) for key in keys]
        replies = await asyncio.gather(*sent, return_exceptions=True)
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, BaseException):
                self.schedule(key, self._poll_interval)
            else:
                self.grants += self._scripts.granted(reply) or 0
        failures = [reply for reply in replies if isinstance(reply, BaseException)]
        for failure in failures:
            if not isinstance(failure, RedisUnavailable):
                raise failure
        if failures:
            # Those who wait would otherwise never learn why; of many keys, one is enough.
            self._emit(Failed(what="grants", error=str(failures[0])))
        self._granting = []
