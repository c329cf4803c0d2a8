"""Keeps a coroutine running: when it crashes it is started again, later each time, and says so."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from ratelimit_async._events import Restarted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ratelimit_async._events import Emit

_FIRST, _LONGEST, _HEALTHY = 0.05, 5.0, 10.0


async def supervise(what: str, run: Callable[[], Awaitable[None]], emit: Emit) -> None:
    """Run for ever; a crash costs a pause that doubles until the coroutine has held for a while."""
    loop = asyncio.get_running_loop()
    pause = _FIRST
    while True:
        started = loop.time()
        try:
            await run()
            error: Exception = RuntimeError("ended by itself")
        except Exception as raised:  # noqa: BLE001 - whatever it is, the service must go on
            error = raised
        if loop.time() - started > _HEALTHY:
            pause = _FIRST
        wait = pause * random.uniform(0.5, 1.0)
        emit(Restarted(what=what, error=repr(error), after=wait))
        await asyncio.sleep(wait)
        pause = min(pause * 2, _LONGEST)
