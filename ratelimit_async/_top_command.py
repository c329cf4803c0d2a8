"""`top`: draws, or writes a line per key and look."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from ratelimit_async._errors import RateLimitError
from ratelimit_async._output import clean, note, say, say_json, seconds
from ratelimit_async._top import watching

if TYPE_CHECKING:
    import argparse

    from ratelimit_async._onlooker import Onlooker
    from ratelimit_async._top import KeyFigures, Look, Watch

__all__ = ["top"]


async def top(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Look until stopped; with `once`, two looks, so that there are rates, of which the second is shown."""
    task = asyncio.current_task()
    assert task is not None
    # However it is told to end, the terminal gets its screen back.
    with contextlib.suppress(NotImplementedError, RuntimeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with watching(limiter) as watch:
            if options.once:
                await watch.look(options.keys)
                await asyncio.sleep(options.interval)
                _write(await watch.look(options.keys), options)
            else:
                await _go_on(watch, options)
    except asyncio.CancelledError:
        return 130 if options.once else 0
    return 0


async def _go_on(watch: Watch, options: argparse.Namespace) -> None:
    if not options.plain and not options.json and sys.stdout.isatty():
        try:
            from ratelimit_async._top_view import show
        except ImportError:
            note("note: for a live view: pip install 'ratelimit-async[cli]'")
        else:
            return await show(watch, options.interval)
    while True:
        try:
            _write(await watch.look(options.keys), options)
        except RateLimitError as error:
            _write_problem(error, options)
        sys.stdout.flush()
        await asyncio.sleep(options.interval)


def _write(look: Look, options: argparse.Namespace) -> None:
    if options.json:
        say_json(msgspec.to_builtins(look) | {"error": None})
        return
    clock = time.strftime("%H:%M:%S", time.localtime(look.at)) if look.at else time.strftime("%H:%M:%S")
    say(
        f"{clock} {look.address} processes {look.processes} keys {look.found} watched {look.watched} "
        f"charged {look.rate:.1f}/s waiting {look.waiting} drivers {len(look.drivers)}"
    )
    for key in look.keys:
        say(f"  {_line(key)}")


def _write_problem(error: RateLimitError, options: argparse.Namespace) -> None:
    if options.json:
        say_json({"at": time.time(), "error": str(error)})
    else:
        say(f"{time.strftime('%H:%M:%S')} Redis does not answer: {clean(str(error))}")


def _line(key: KeyFigures) -> str:
    name = clean(key.name if key.by is None else f"{key.name}:{key.by}")
    parts = [name]
    for limit in key.limits:
        used = "?" if limit.used is None else f"{limit.used}/{limit.most}"
        rate = "-" if limit.rate is None else f"{limit.rate:.1f}"
        parts.append(f"[{limit.limit or f'{limit.unit} {limit.algorithm}, not known here'}: {used} {rate}/s]")
    if key.waiting:
        depths = "+".join(map(str, key.waiting_by_priority))
        parts.append(f"waiting {depths} oldest {seconds(key.oldest_wait)} p99 {seconds(key.p99_wait)}")
    if key.running:
        parts.append(f"running {key.running}")
    if key.tasks_running:
        parts.append(f"tasks {key.tasks_running}")
    if key.driver:
        parts.append(f"driver {clean(key.driver)}")
    if key.paused:
        parts.append("paused")
    return " ".join(parts)
