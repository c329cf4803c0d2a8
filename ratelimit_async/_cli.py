"""The command line: `ratelimit-async demo` and `ratelimit-async worker module:limiter`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from ratelimit_async._demo import Plan, run_demo
from ratelimit_async._errors import RateLimitError
from ratelimit_async._work import load_limiter, run_worker

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the process' exit code."""
    options = _parser().parse_args(argv)
    try:
        if options.command == "worker":
            return asyncio.run(run_worker(load_limiter(options.limiter)))
        return _demo(options)
    except RateLimitError as error:
        print(f"ratelimit-async: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _demo(options: argparse.Namespace) -> int:
    if options.processes > 1 and options.url.startswith("memory://"):
        print(
            "ratelimit-async: --processes needs --url of a real Redis: memory:// is in one process",
            file=sys.stderr,
        )
        return 2
    plan = Plan(options.url, options.processes, options.seconds, options.plain or not sys.stdout.isatty())
    return asyncio.run(run_demo(plan))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ratelimit-async", description="Distributed rate limiting and queueing over Redis."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="several workers share one quota, to look at")
    demo.add_argument("--url", default="memory://demo", help="a Redis; default: the embedded server")
    demo.add_argument("--processes", type=_whole, default=1, help="real processes (needs --url)")
    demo.add_argument("--seconds", type=_seconds, default=18.0, help="how long new calls come")
    demo.add_argument("--plain", action="store_true", help="a line per second in place of the live view")
    worker = commands.add_parser("worker", help="run the durable tasks of a limiter until SIGTERM or SIGINT")
    worker.add_argument("limiter", metavar="module:limiter", help="where the RateLimiter is, e.g. app.limits:limiter")
    return parser


def _whole(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError(f"must be from 1 to 64, not {number}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.5 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"must be from 0.5 to 3600, not {number}")
    return number
