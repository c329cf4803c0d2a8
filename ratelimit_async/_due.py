"""When it is time for what was granted ahead of its time."""

from __future__ import annotations

import asyncio
import time

__all__ = ["due", "left"]

# us; nothing is granted further ahead. Where Redis' clock was set back since, nobody waits for that.
_LONGEST_LEAD = 65_000


def due(stamp: int, now: int) -> float:
    """Say when it is time for a grant of then, us by Redis' clock, which was told just now; for `left`."""
    return _time() + min(stamp - now, _LONGEST_LEAD) / 1e6


def left(until: float) -> float:
    """Say how many seconds are left."""
    return until - _time()


def _time() -> float:
    """Tell the time; uvloop's own stands still within a turn, and its timers come up to a millisecond early."""
    loop = asyncio.get_running_loop()
    return loop.time() if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic()
