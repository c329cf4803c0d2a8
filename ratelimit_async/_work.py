"""A process for durable tasks: finds a limiter, runs its tasks until it is told to stop."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import sys
from pathlib import Path

from ratelimit_async._errors import ConfigurationError
from ratelimit_async._limiter import RateLimiter

__all__ = ["load_limiter", "run_worker"]

# The second one of either stops at once.
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def load_limiter(place: str) -> RateLimiter:
    """Import a limiter from `module:name`; modules of the current directory are found."""
    module_name, colon, path = place.partition(":")
    if not module_name or not colon or not path:
        raise ConfigurationError("limiter", place, "must be module:name, e.g. app.limits:limiter")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # One that the module itself misses is its own affair, and shows where.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError("limiter", place, f"there is no module {error.name!r}") from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigurationError("limiter", place, f"has no {name!r}") from None
    if not isinstance(found, RateLimiter):
        raise ConfigurationError("limiter", found, "is no RateLimiter")
    return found


async def run_worker(limiter: RateLimiter) -> int:
    """Run a limiter's tasks until a signal; gives the process' exit code."""
    if not limiter.runs_tasks:
        raise ConfigurationError("limiter", limiter, "runs no tasks: none is registered, or processor is False")
    # Does nothing where the limiter's module has set up logging.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    log = logging.getLogger("ratelimit_async")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        log.info("%s: finishing what runs", number.name)
        stop.set()
        for one in _SIGNALS:
            loop.remove_signal_handler(one)

    async with limiter:
        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal, number)
        log.info("%r runs the tasks %s", limiter, ", ".join(limiter.tasks))
        await stop.wait()
    log.info("stopped")
    return 0
