"""`python -m bench.faults [experiment ...] [--rounds N] [--kind KIND]`: break things for long, and count."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import time
from typing import TYPE_CHECKING

from bench import experiments
from bench.fleet import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from bench.experiments import Outcome

# Of those that count requests, a round is so many.
REQUESTS_PER_ROUND = 100
EXPERIMENTS: dict[str, Callable[..., Coroutine[Any, Any, Outcome]]] = {
    function.__name__: function
    for function in (
        experiments.pubsub_killed,
        experiments.commands_killed,
        experiments.scripts_flushed,
        experiments.replies_swallowed,
        experiments.blackholed,
        experiments.redis_stopped,
        experiments.redis_killed,
        experiments.drivers_killed,
        experiments.waiters_killed,
        experiments.processes_stopped,
        experiments.flushed,
        experiments.workers_killed,
    )
}


def main() -> None:
    """Run what is asked for, by default all."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults")
    parser.add_argument(
        "experiments", nargs="*", metavar="experiment", help=f"of {', '.join(EXPERIMENTS)}; by default all"
    )
    parser.add_argument("--rounds", type=int, default=20, help="how often something breaks, or hundreds of requests")
    parser.add_argument("--kind", choices=KINDS, default="acquire", help="how turns are requested (acquire)")
    arguments = parser.parse_args()
    asked = arguments.experiments or list(EXPERIMENTS)
    unknown = sorted(set(asked) - set(EXPERIMENTS))
    if unknown:
        parser.error(f"no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    for name in asked:
        print(f"{name}: {inspect.getdoc(EXPERIMENTS[name])}")
    print("                                               dupli-   over-      over-     worst re-")
    print("  experiment           requests  faults  lost  cated    admitted   charged   covery, s   took, s")
    for name in asked:
        function = EXPERIMENTS[name]
        counted = "requests" if "requests" in inspect.signature(function).parameters else "rounds"
        many = arguments.rounds * (REQUESTS_PER_ROUND if counted == "requests" else 1)
        started = time.monotonic()
        kind = {"kind": arguments.kind} if "kind" in inspect.signature(function).parameters else {}
        outcome = asyncio.run(function(**{counted: many}, **kind))
        print(
            f"  {name:20} {outcome.requests:8}  {outcome.faults:6}  {outcome.lost:4}  {outcome.duplicated:6}   "
            f"{outcome.over_admitted:8}   {outcome.overcharged:7}   {outcome.recovery:9.2f}   "
            f"{time.monotonic() - started:7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
