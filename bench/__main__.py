"""`python -m bench [scenario ...] [--seconds N]`: measures against a redis-server of its own.

Scenarios: waiting, paused, latency, checks, estimates, strictness; by default all.
"""

import argparse
import asyncio

from bench.checks import run_checks
from bench.estimates import run_estimates
from bench.latency import report_latency, run_latency
from bench.strictness import report_strictness
from bench.waiting import report, run_waiting
from tests.servers import RedisServer

SCENARIOS = ("waiting", "paused", "latency", "checks", "estimates", "strictness")


def main() -> None:
    """Run what is asked for, by default all."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(SCENARIOS)}; by default all")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long waiting, paused and latency last (10)")
    arguments = parser.parse_args()
    asked = arguments.scenarios or SCENARIOS
    unknown = sorted(set(asked) - set(SCENARIOS))
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    seconds = arguments.seconds
    if not seconds > 2:
        parser.error("--seconds must be more than 2")
    with RedisServer() as server:
        if "waiting" in asked:
            print("4 processes x 50 waiters, 100/second, waiters come back at once:")
            report(run_waiting(server.url, seconds=seconds))
        if "paused" in asked:
            print("4 processes x 50 waiters, 100/second, 0.5 s between acquires:")
            report(run_waiting(server.url, seconds=seconds, pause=0.5))
        if "latency" in asked:
            print("1 per 50 ms, 2 limiters x 5 waiters, one process:")
            report_latency(asyncio.run(run_latency(server.url, seconds=seconds)))
        if "checks" in asked:
            print("hit, sliding window, one process, closed loop:")
            asyncio.run(run_checks(server.url))
        if "estimates" in asked:
            print("a backlog and probes on 8 keys, mixed priorities and costs, one process:")
            asyncio.run(run_estimates(server.url))
        if "strictness" in asked:
            print("4 processes x 50 callers toward an upstream, 100/second:")
            report_strictness(server.url)


main()
