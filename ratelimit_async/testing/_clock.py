"""Time that moves when a test says so: that of an event loop, and that of the embedded server."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from ratelimit_async._config import decode_seconds
from ratelimit_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["Clock"]

# A window keeps a hit for up to an 800th of its period too long, and its queue is looked at a little later.
_LATE = 1.002
# Turns of the loop in which everything that can run has run; somebody may poll in each of them for ever.
_MOST_TURNS = 10_000


class _LoopTime:
    """An event loop's clock, ahead of what it was."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._clock() + self.ahead


class _ServerTime:
    """Stands for the module `time` in fakeredis; never set back, or what a server holds would outlive its time."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


_server_time = _ServerTime()


class Clock:
    """Advances the time of the running event loop and of the process' embedded servers; else time goes on as ever."""

    async def advance(self, seconds: float | timedelta) -> None:
        """Let time pass: whoever is due on the way is woken at its time, in order, before this returns.

        Everything that waits in this event loop sees the time: queues, timeouts, retries of tasks, and your own
        `asyncio.sleep`. It moves by two thousandths more than asked, for which a window may keep what it counts.

        Args:
            seconds: How far, or a `timedelta`; 0 lets run what can run now.

        Raises:
            ConfigurationError: If it is not seconds, or the event loop is none of asyncio's own, such as uvloop.
        """
        wanted = decode_seconds("seconds", seconds)
        loop = asyncio.get_running_loop()
        clock = _clock_of(loop)
        _take_over_fakeredis()
        # What begins to wait now begins before time is counted.
        await _settle(loop)
        end = loop.time() + wanted * _LATE
        while (due := _next_timer(loop)) <= end:
            _jump(clock, due - loop.time())
            await _settle(loop)
        _jump(clock, end - loop.time())
        await _settle(loop)


def _clock_of(loop: asyncio.AbstractEventLoop) -> _LoopTime:
    """Give a loop's clock, put before its own the first time."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        problem = "a clock is for the event loops of asyncio itself: test on one of those"
        raise ConfigurationError("event loop", loop, problem)
    found = vars(loop).get("time")
    if not isinstance(found, _LoopTime):
        found = _LoopTime(loop.time)
        setattr(loop, "time", found)  # noqa: B010 - a checker knows a method there
    return found


def _take_over_fakeredis() -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "fakeredis" and vars(module).get("time") is time:
            setattr(module, "time", _server_time)  # noqa: B010 - the same


def _jump(clock: _LoopTime, seconds: float) -> None:
    if seconds > 0:
        clock.ahead += seconds
        _server_time.ahead += seconds


def _next_timer(loop: asyncio.AbstractEventLoop) -> float:
    """Say when the next timer is due, by the loop's clock."""
    timers = cast("list[asyncio.TimerHandle]", vars(loop)["_scheduled"])
    return min((timer.when() for timer in timers if not timer.cancelled()), default=float("inf"))


async def _settle(loop: asyncio.AbstractEventLoop) -> None:
    """Let run all that can, until nothing does for two turns: in the second one the sockets were looked at."""
    ready = vars(loop)["_ready"]
    quiet = 0
    for _ in range(_MOST_TURNS):
        await asyncio.sleep(0)
        quiet = 0 if ready or _next_timer(loop) <= loop.time() else quiet + 1
        if quiet == 2:
            return
