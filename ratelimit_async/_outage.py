"""What is decided while Redis is away: by the configuration, or by this process' share of the limits.

The share is one plain token bucket per limit: the only implementation of a limit that is not a script.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from typing import TYPE_CHECKING, Any

from ratelimit_async._values import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimit_async._errors import RedisUnavailable
    from ratelimit_async._keys import Key
    from ratelimit_async._limits import Limit
    from ratelimit_async._values import Decider, Reason
    from ratelimit_async._waiter import Waiter

    # What calls that run, granted by Redis, hold of a key, by unit.
    Held = Callable[[Key], Mapping[str, int]]

__all__ = ["Outage"]

# Keys may come from users: those used last are remembered.
_MOST_KEYS = 10_000
# Levels are sums of floats.
_ROUNDING = 1e-9


class Share:
    """A process' share of a limit: a token bucket, or slots, which come back only when calls end."""

    __slots__ = ("_at", "capacity", "level", "limit", "rate")

    def __init__(self, limit: Limit, processes: int, now: float) -> None:
        """Begin full."""
        self.limit = limit
        concurrent = limit.algorithm == "concurrent"
        # At least one, or nothing might ever pass; the rate is never rounded.
        self.capacity = max(limit.most // processes if concurrent else limit.most / processes, 1)
        self.rate = 0.0 if concurrent else limit.amount / (limit.period_us / 1e6) / processes
        self.level = float(self.capacity)
        self._at = now

    def refresh(self, now: float, held: int) -> None:
        """Bring the level up to date; `held`: slots in use."""
        if self.rate:
            self.level = min(self.level + (now - self._at) * self.rate, self.capacity)
            self._at = now
        else:
            self.level = self.capacity - held

    def wait_for(self, cost: int) -> float:
        """Seconds until a cost fits; infinite where it never does, or not until a call ends."""
        missing = cost - self.level
        if not cost or missing <= _ROUNDING:
            return 0.0
        return missing / self.rate if self.rate and cost <= self.capacity + _ROUNDING else math.inf

    @property
    def reset_after(self) -> float:
        """Seconds until it is full."""
        return (self.capacity - self.level) / self.rate if self.rate else 0.0


class Outage:
    """Decides in place of Redis."""

    def __init__(self, processes: Callable[[], int], held: Held) -> None:
        """Share with so many `processes`, this one included; `held`: what is in use already."""
        # Who waits here, by key, in the order of arrival.
        self.queues: dict[Key, dict[int, Waiter]] = {}
        self._processes = processes
        self._held = held
        self._shares: dict[str, list[Share]] = {}
        self._paused: dict[str, float] = {}
        self._running: dict[str, dict[int, Mapping[str, int]]] = {}

    def hit(self, key: Key, costs: Mapping[str, int], error: RedisUnavailable, *, charges: bool = True) -> Decision:
        """Decide on what never waits as its configuration says, or raise the error that Redis gave."""
        if key in self.queues:
            decision = self.take(key, costs, error, charges=False)
            return _made("queue", decision.limit, decision.remaining, None, decision.reset_after)
        return self.take(key, costs, error, charges=charges)

    def take(
        self, key: Key, costs: Mapping[str, int], error: RedisUnavailable, *, seq: int = 0, charges: bool = True
    ) -> Decision:
        """Decide as the configuration says, or raise the error; `seq`: of the request that holds slots."""
        policy = key.config.on_outage
        if policy == "raise" or not error.outage:
            raise error
        if policy != "local":
            reason: Reason = "ok" if policy == "allow" else "outage"
            return _made(reason, key.config.limits[0], 0, None, 0.0, "outage")
        return self._take_share(key, costs, seq, charges=charges)

    def pause(self, key: Key, seconds: float) -> None:
        """Let nothing pass for a time, as an upstream asked that Redis cannot tell the others of."""
        _bound(self._paused)
        self._paused[key.label] = max(_now() + seconds, self._paused.get(key.label, 0.0))

    def own(self, grant: object, key: Key, seq: int) -> None:
        """Give back what a grant holds when nobody holds the grant any more."""
        if seq in self._running.get(key.label, ()):
            weakref.finalize(grant, self.release, key, seq).atexit = False

    def release(self, key: Key, seq: int) -> None:
        """Give back the slots of a call that ended; a second time does nothing."""
        running = self._running.get(key.label)
        if running is not None and running.pop(seq, None) is not None and not running:
            del self._running[key.label]

    def forget(self) -> None:
        """Leave all to Redis again; what still runs still holds its slots, for the next outage."""
        self._shares.clear()
        self._paused.clear()

    def _take_share(self, key: Key, costs: Mapping[str, int], seq: int, *, charges: bool) -> Decision:
        now = _now()
        shares = self._shares_of(key, now)
        waits = [(share.wait_for(costs.get(share.limit.unit, 0)), share) for share in shares]
        longest, binds = max(waits, key=lambda one: one[0])
        pause = self._pause_of(key, now)
        if pause:
            retry = max(longest, pause)
            return _made("paused", binds.limit, int(max(binds.level, 0)), retry, binds.reset_after)
        if longest:
            return _made("limit", binds.limit, int(max(binds.level, 0)), longest, binds.reset_after)
        if charges:
            for share in shares:
                share.level -= costs.get(share.limit.unit, 0)
            if any(not share.rate for share in shares):
                self._running.setdefault(key.label, {})[seq] = costs
        binds = min(shares, key=lambda share: share.level / share.capacity)
        return _made("ok", binds.limit, int(binds.level + _ROUNDING), 0.0, binds.reset_after)

    def _shares_of(self, key: Key, now: float) -> list[Share]:
        shares = self._shares.pop(key.label, None)
        if shares is None or [share.limit for share in shares] != list(key.config.limits):
            _bound(self._shares)
            shares = [Share(limit, self._processes(), now) for limit in key.config.limits]
        # Put back at the end: what was used longest ago is forgotten first.
        self._shares[key.label] = shares
        held: dict[str, int] = {}
        if any(not share.rate for share in shares):
            for costs in (self._held(key), *self._running.get(key.label, {}).values()):
                for unit, cost in costs.items():
                    held[unit] = held.get(unit, 0) + cost
        for share in shares:
            share.refresh(now, held.get(share.limit.unit, 0))
        return shares

    def _pause_of(self, key: Key, now: float) -> float:
        """Seconds that a pause still lasts; one of its name is known by Redis' clock, which this one is close to."""
        until = key.paused_until
        if until < 0:
            return math.inf
        return max(until / 1e6 - time.time(), self._paused.get(key.label, 0.0) - now, 0.0)


def _made(
    reason: Reason, limit: Limit, remaining: int, retry: float | None, reset: float, source: Decider = "local"
) -> Decision:
    allowed = reason == "ok"
    if allowed:
        retry = 0.0
    elif retry is not None and math.isinf(retry):
        retry = None
    return Decision(
        allowed=allowed,
        reason=reason,
        limit=limit,
        remaining=remaining,
        retry_after=retry,
        reset_after=reset,
        source=source,
    )


def _bound(table: dict[str, Any]) -> None:
    if len(table) >= _MOST_KEYS:
        del table[next(iter(table))]


def _now() -> float:
    return asyncio.get_running_loop().time()
