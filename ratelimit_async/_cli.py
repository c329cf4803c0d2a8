"""The command line: `ratelimit-async COMMAND`, also `python -m ratelimit_async COMMAND`."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ratelimit_async import _commands
from ratelimit_async._arguments import parser
from ratelimit_async._bench import bench
from ratelimit_async._demo import Plan, run_demo
from ratelimit_async._errors import RateLimitError
from ratelimit_async._onlooker import onlooker_of
from ratelimit_async._output import confirm, fail, key_text, note
from ratelimit_async._top_command import top
from ratelimit_async._work import load_limiter, run_worker

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimit_async._onlooker import Onlooker

_COMMANDS: dict[str, Callable[[Onlooker, argparse.Namespace], Awaitable[int]]] = {
    "bench": bench,
    "configure": _commands.configure,
    "dead": _commands.dead,
    "health": _commands.health,
    "pause": _commands.pause,
    "reset": _commands.reset,
    "resume": _commands.resume,
    "status": _commands.status,
    "top": top,
    "waiting": _commands.waiting,
}
_INTERRUPTED, _BROKEN_PIPE = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the process' exit code."""
    options = parser().parse_args(argv)
    _prepare_streams()
    try:
        code = _run(options)
        sys.stdout.flush()
    except RateLimitError as error:
        return fail(error)
    except BrokenPipeError:
        # Whoever read this has had enough. Nothing is left to be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _prepare_streams() -> None:
    """Escape what the terminal's encoding has no letters for; a stream that is closed takes all and gives nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for good
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(options: argparse.Namespace) -> int:
    if options.command == "worker":
        return asyncio.run(run_worker(load_limiter(options.limiter)))
    if options.command == "demo":
        return _demo(options)
    limiter = onlooker_of(options)
    if limiter.embedded and options.command != "bench":
        note("note: memory:// is in one process; this one sees nothing of others")
    question = _question(options)
    if question and not confirm(question, yes=options.yes):
        return 1
    return asyncio.run(_awaited(_COMMANDS[options.command](limiter, options)))


async def _awaited(command: Awaitable[int]) -> int:
    return await command


def _question(options: argparse.Namespace) -> str:
    """Ask before what cannot be taken back; '' where nothing has to be asked."""
    if options.command == "reset":
        return f"forget what {key_text(options)} has counted?"
    if options.command == "dead" and options.action == "delete":
        return f"delete {'all' if options.all else len(options.ids)} dead letters of {key_text(options)}?"
    return ""


def _demo(options: argparse.Namespace) -> int:
    if options.processes > 1 and options.url.startswith("memory://"):
        note("--processes needs --url of a real Redis: memory:// is in one process")
        return 2
    plan = Plan(options.url, options.processes, options.seconds, options.plain or not sys.stdout.isatty())
    return asyncio.run(run_demo(plan))
