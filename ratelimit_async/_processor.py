"""The processor: grants the waiting requests of the keys that this process drives, each when it becomes possible."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from functools import partial
from typing import TYPE_CHECKING

from ratelimit_async._errors import RedisUnavailable
from ratelimit_async._events import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key
    from ratelimit_async._scripts import Scripts

__all__ = ["Processor"]

# Looks a second at queues of which nothing was heard: each takes Redis about 0.1 ms.
_LOOKS = 200


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
        self._phase = random.random() * poll_interval
        # When to look at a queue and, by then or earlier, at least renew the lease on its key.
        self._due: dict[bytes, tuple[float, float, Key]] = {}
        self._heap: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        # Keys whose grants are under way: they are due again once Redis has said when.
        self._granting: list[Key] = []
        self._wake = asyncio.Event()

    def schedule(self, key: Key, seconds: float) -> None:
        """Look at a key's queue in so many seconds, or earlier if that was said before."""
        now = asyncio.get_running_loop().time()
        # One that drives many looks at each less often than it has to renew its leases.
        longest = max(self._poll_interval, len(self._due) / _LOOKS)
        look = now + seconds if seconds < longest else self._together(now + longest)
        known = self._due.get(key.driver)
        if known is None or look < known[1]:
            self._plan(key, now, look)
            self._wake.set()

    def _plan(self, key: Key, now: float, look: float) -> None:
        due = min(look, self._together(now + self._poll_interval))
        self._due[key.driver] = due, look, key
        heapq.heappush(self._heap, (due, next(self._order), key.driver))

    def _together(self, when: float) -> float:
        """Choose a time for what nobody waits for, not after that: of many keys the same, and not of all processes."""
        step = self._poll_interval / 4
        return when - (when - self._phase) % step

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
        return list(dict.fromkeys((*self._granting, *(key for _, _, key in self._due.values()))))

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
        """Give the keys whose queues are to be looked at; on others whose time has come the leases are renewed."""
        keys: list[Key] = []
        kept: list[Key] = []
        while self._heap and self._heap[0][0] <= now:
            due, _, driver = heapq.heappop(self._heap)
            known = self._due.get(driver)
            # An earlier time was said since: this one is void.
            if known is None or known[0] != due:
                continue
            _, look, key = known
            if look <= now:
                del self._due[driver]
                keys.append(key)
            else:
                self._plan(key, now, look)
                kept.append(key)
        if kept:
            for some, sent in self._scripts.renew(kept, drives=True):
                sent.add_done_callback(partial(self._on_renewed, some))
        return keys

    def _on_renewed(self, keys: Sequence[Key], sent: asyncio.Future[list[int]]) -> None:
        # Whatever kept it from being answered: the next renewal, or look, finds out.
        if sent.cancelled() or sent.exception() is not None:
            return
        for key, renewed in zip(keys, sent.result(), strict=True):
            if not renewed:
                self.schedule(key, 0)

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
