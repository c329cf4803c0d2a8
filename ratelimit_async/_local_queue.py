"""Requests that arrive while Redis is away: they run, fail or wait here, as their configuration says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ratelimit_async._errors import QueueFull, RateLimitError, RedisUnavailable, RequestTimeout
from ratelimit_async._events import Expired, Queued, Rejected
from ratelimit_async._scripts import Charged, allow_in_shadow

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key
    from ratelimit_async._outage import Outage
    from ratelimit_async._values import Decision
    from ratelimit_async._waiter import Waiter

__all__ = ["LocalQueue"]


class LocalQueue:
    """First in, first out by key, whatever their priority, until the local share or Redis lets them go."""

    def __init__(
        self,
        outage: Outage,
        admit: Callable[[Waiter, Charged], None],
        refuse: Callable[[Waiter, RateLimitError], None],
        emit: Emit,
    ) -> None:
        """Tell who may run and who may not."""
        self._outage = outage
        self._admit = admit
        self._refuse = refuse
        self._emit = emit
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        # Why Redis is away.
        self._error = RedisUnavailable("", "")

    def arrive(self, waiter: Waiter, error: RedisUnavailable) -> None:
        """Decide on a request that Redis did not."""
        key, config = waiter.key, waiter.key.config
        self._error = error
        if config.on_outage == "raise":
            self._refuse(waiter, error)
        elif config.on_outage == "deny" and config.enforce:
            problem = f"{error.problem}; {key.name!r} denies its requests meanwhile (on_outage)"
            self._refuse(waiter, RedisUnavailable(error.address, problem, outage=error.outage))
        elif key in self._outage.queues:
            self._join(waiter, None)
        else:
            decision = self._outage.take(key, waiter.costs, error, seq=waiter.seq)
            if decision.allowed or not config.enforce:
                self._admit(waiter, Charged(0, allow_in_shadow(decision)))
            else:
                self._join(waiter, decision)

    def discard(self, waiter: Waiter) -> None:
        """Take out one that has ended."""
        key = waiter.key
        queue = self._outage.queues.get(key)
        if queue is None or queue.pop(waiter.seq, None) is None:
            return
        if queue:
            # The next may want less.
            self._look_in(key, 0)
        else:
            del self._outage.queues[key]
            self._stop_timer(key)

    def release(self, key: Key, seq: int) -> None:
        """Give back what a call that ended held of the local share."""
        self._outage.release(key, seq)
        if key in self._outage.queues:
            self._look_in(key, 0)

    def give_up(self) -> list[Waiter]:
        """Give all who wait here, in their order: Redis is back."""
        waiters = [waiter for queue in self._outage.queues.values() for waiter in queue.values()]
        self._outage.queues.clear()
        for key in list(self._timers):
            self._stop_timer(key)
        return waiters

    def _join(self, waiter: Waiter, decision: Decision | None) -> None:
        key, name, by = waiter.key, waiter.key.name, waiter.key.by
        queue = self._outage.queues.get(key, {})
        wait = None if decision is None else decision.retry_after
        if waiter.timeout == 0 or (waiter.fail_fast and waiter.timeout and wait and wait > waiter.timeout):
            self._emit(Expired(name=name, by=by, id=waiter.id, timeout=waiter.asked or 0.0))
            self._refuse(waiter, RequestTimeout(name, waiter.asked, wait))
            return
        if len(queue) >= key.config.queue.max_size:
            self._emit(Rejected(name=name, by=by, max_size=key.config.queue.max_size))
            self._refuse(waiter, QueueFull(name, key.config.queue.max_size))
            return
        waiter.state = "local"
        self._outage.queues[key] = queue
        queue[waiter.seq] = waiter
        if waiter.place(len(queue)):
            self._emit(Queued(name=name, by=by, id=waiter.id, position=waiter.position))
        if len(queue) == 1:
            self._look_in(key, wait)

    def _look_in(self, key: Key, seconds: float | None) -> None:
        """Look in so many seconds; None: when a call ends, or Redis is back."""
        self._stop_timer(key)
        if seconds is not None:
            self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._look, key)

    def _stop_timer(self, key: Key) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    def _look(self, key: Key) -> None:
        queue = self._outage.queues.get(key, {})
        while queue:
            waiter = next(iter(queue.values()))
            decision = self._outage.take(key, waiter.costs, self._error, seq=waiter.seq)
            if not decision.allowed:
                self._look_in(key, decision.retry_after)
                return
            self._admit(waiter, Charged(0, decision))
