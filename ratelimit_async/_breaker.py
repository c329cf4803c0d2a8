"""The circuit breaker of one Redis: counts failures to reach it, and says whether calls are refused meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ratelimit_async._events import BreakerClosed, BreakerHalfOpened, BreakerOpened

if TYPE_CHECKING:
    from ratelimit_async._errors import RedisUnavailable
    from ratelimit_async._events import Emit
    from ratelimit_async._values import BreakerState

__all__ = ["Breaker"]

# A killed connection or a quick restart is over before both are reached, and callers wait for it; what lasts longer is
# an outage, and half a second is as long as a caller should be kept waiting for its decision.
_FAILURES, _SECONDS = 3, 0.5


class Breaker:
    """Closed: calls go to Redis. Open: they are refused at once. Half-open: one probe looks whether Redis is back."""

    def __init__(self, address: str, emit: Emit) -> None:
        """Begin closed."""
        self.state: BreakerState = "closed"
        # Set while connections may be made: other parts leave it to the probe to find Redis again.
        self.passing = asyncio.Event()
        self.passing.set()
        self._address = address
        self._emit = emit
        self._failures = 0
        self._since = 0.0
        self._probes = 0
        self._refused = False

    @property
    def counting(self) -> bool:
        """Whether failures are being counted, and have not opened it yet."""
        return self.state == "closed" and self._failures > 0

    @property
    def doubted(self) -> bool:
        """Whether Redis accepted connections and then refused calls; a connection alone proves nothing then."""
        return self._refused

    def probe(self) -> None:
        """Somebody tries to connect."""
        if self.state == "open":
            self.state = "half-open"
            self._emit(BreakerHalfOpened(address=self._address))

    def failed(self, error: RedisUnavailable, *, hung: bool, refused: bool) -> None:
        """Count a failure: of a `hung` server once is enough; `refused`: it answers, but serves nobody."""
        if not error.outage:
            # It answers: what it says is for the callers.
            self.answered()
            return
        now = asyncio.get_running_loop().time()
        self._refused = refused
        self._failures += 1
        if self._failures == 1:
            self._since = now
        elif self.state == "half-open":
            self._probes += 1
        lasting = self._failures >= _FAILURES and now - self._since >= _SECONDS
        if self.state != "closed" or hung or lasting:
            self.state = "open"
            self.passing.clear()
            self._emit(BreakerOpened(address=self._address, error=error.problem, probes=self._probes))

    def connected(self) -> None:
        """Take a connection for an answer, unless calls were refused on the one before."""
        self.passing.set()
        if not self._refused:
            self.answered()

    def answered(self) -> None:
        """Close: Redis serves again."""
        lasted = asyncio.get_running_loop().time() - self._since
        was, self.state = self.state, "closed"
        self._failures = self._probes = 0
        self._refused = False
        self.passing.set()
        if was != "closed":
            self._emit(BreakerClosed(address=self._address, after=lasted))
