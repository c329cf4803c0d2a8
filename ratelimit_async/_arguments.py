"""What the command line takes."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["parser"]

_EPILOG = """\
Which limiter: --app names the application's own, with its limits, server and prefix; otherwise --url and
--config, or the variables that RateLimiter.from_env reads (RATELIMIT_URL, RATELIMIT_CONFIG,
RATELIMIT_LIMITS__NAME). Limits stand in the configuration, not in Redis: of a name whose configuration is not
given here only what Redis holds can be told.

Exit codes: 0 done; 1 it failed, or what was asked after is not well; 2 the command line cannot be used;
130 interrupted; 141 whoever read the output has gone.
"""


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="ratelimit-async",
        description="Distributed rate limiting and queueing over Redis.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, key: str = "") -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_limiter(found)
        if key:
            found.add_argument("name", metavar="NAME", help="whose limits", nargs="?" if key == "?" else None)
            found.add_argument("--by", metavar="SUBJECT", help="one subject of the name")
        return found

    status = command("status", "show limits, queue, driver and tasks: of a key, or in short of all names", key="?")
    status.add_argument("--total", action="store_true", help="all keys of the name together")
    top = command("top", "watch keys, rates, queues and drivers; live on a terminal")
    top.add_argument("--interval", type=_number(0.1, 3600), default=2.0, metavar="SECONDS", help="default: 2")
    top.add_argument(
        "--keys", type=_whole(1, 500), default=20, help="most keys of a look without live view; default: 20"
    )
    top.add_argument("--once", action="store_true", help="look twice, an interval apart, and show what changed")
    top.add_argument("--plain", action="store_true", help="lines in place of the live view")
    waiting = command("waiting", "list who waits, the next to go first", key="1")
    waiting.add_argument("--limit", type=_whole(1, 1_000_000), metavar="N", help="the first N only")
    reset = command("reset", "forget what a key's limits have counted, but not what runs", key="1")
    _add_yes(reset)
    pause = command("pause", "stop granting in every process; hits are denied, requests wait", key="1")
    pause.add_argument(
        "--for", dest="seconds", type=_number(0.001, 30 * 86_400), metavar="SECONDS", help="and then go on"
    )
    command("resume", "end a pause", key="1")
    configure = command("configure", "change what a name allows, in every process, now and later", key="1")
    configure.add_argument("spec", metavar="SPEC", nargs="?", help="such as '500/minute; 20 concurrent', or JSON")
    configure.add_argument("--as-built", action="store_true", help="back to what each process was built with")
    dead = command("dead", "list, show, requeue or delete durable tasks that failed for good", key="1")
    dead.add_argument("action", nargs="?", default="list", choices=("list", "show", "requeue", "delete"))
    dead.add_argument("ids", metavar="ID", nargs="*", help="which, as list tells it")
    dead.add_argument("--all", action="store_true", help="requeue or delete all of them")
    _add_yes(dead)
    health = command("health", "tell whether Redis answers, by the exit code too; for probes")
    health.add_argument("--timeout", type=_number(0.05, 600), default=3.0, metavar="SECONDS", help="default: 3")
    bench = command("bench", "measure hits a second and their latency from here, on keys of its own")
    bench.add_argument("--seconds", type=_number(0.1, 600), default=2.0, help="for each concurrency; default: 2")
    bench.add_argument(
        "--concurrency",
        type=_whole(1, 10_000),
        nargs="+",
        default=[1, 16, 128],
        help="calls at a time; default: 1 16 128",
    )
    bench.add_argument(
        "--limits", default="1000000000/minute", metavar="SPEC", help="what is checked; default: 1000000000/minute"
    )
    bench.add_argument("--keys", type=_whole(1, 10_000), default=1, metavar="N", help="spread over so many subjects")
    _add_demo_and_worker(commands.add_parser)
    return whole


def _add_demo_and_worker(add: Callable[..., argparse.ArgumentParser]) -> None:
    demo = add("demo", help="several workers share one quota, to look at")
    demo.add_argument("--url", default="memory://demo", help="a Redis; default: the embedded server")
    demo.add_argument("--processes", type=_whole(1, 64), default=1, help="real processes (needs --url)")
    demo.add_argument("--seconds", type=_number(0.5, 3600), default=18.0, help="how long new calls come")
    demo.add_argument("--plain", action="store_true", help="a line per second in place of the live view")
    worker = add("worker", help="run the durable tasks of a limiter until SIGTERM or SIGINT")
    worker.add_argument("limiter", metavar="module:limiter", help="where the RateLimiter is, e.g. app.limits:limiter")


def _add_limiter(command: argparse.ArgumentParser) -> None:
    which = command.add_argument_group("which limiter")
    which.add_argument("--app", metavar="MODULE:LIMITER", help="the application's, e.g. app.limits:limiter")
    which.add_argument("--url", help="a Redis, Sentinel or Cluster; default: $RATELIMIT_URL, or this machine's Redis")
    which.add_argument("--config", metavar="FILE", help="a TOML file; default: $RATELIMIT_CONFIG")
    which.add_argument("--prefix", help="what all keys begin with; default: the configuration's, or rl")
    command.add_argument("--json", action="store_true", help="JSON in place of text")


def _add_yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", "-y", action="store_true", help="do not ask")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}, not {number}")
        return number

    return whole


def _number(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if math.isnan(value) or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least:g} to {most:g}, not {text}")
        return value

    return number
