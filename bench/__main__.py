"""`python -m bench [scenario ...] [--seconds N]`: measures against a redis-server of its own.

Scenarios: waiting, paused, latency, checks, estimates, strictness, failover, scale; by default all but the last two.
"""

import argparse
import asyncio

from bench.checks import run_checks
from bench.estimates import run_estimates
from bench.failover import report_failover, run_failover
from bench.latency import report_latency, run_latency
from bench.scale import report_scale
from bench.strictness import report_strictness
from bench.waiting import report, run_waiting
from tests.servers import RedisServer
from tests.topologies import ClusterSetup, SentinelSetup

USUAL = ("waiting", "paused", "latency", "checks", "estimates", "strictness")
SCENARIOS = (*USUAL, "failover", "scale")


def main() -> None:
    """Run what is asked for, by default all."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="scenario",
        help=f"of {', '.join(SCENARIOS)}; by default all but failover and scale",
    )
    parser.add_argument("--kills", type=int, default=10, help="how often failover kills the primary (10)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long waiting, paused and latency last (10)")
    arguments = parser.parse_args()
    asked = arguments.scenarios or USUAL
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
    if "scale" in asked:
        report_scale()
    if "failover" in asked:
        print("2 limiters x 24 waiters and 6 callers of hit, 6 keys, the primary is killed again and again:")
        for experiment, make in (("sentinel", SentinelSetup), ("cluster", ClusterSetup)):
            for durability in ("replicated", "primary"):
                with make() as setup:
                    run = run_failover(setup, f"{experiment}, {durability}", arguments.kills, durability=durability)
                    report_failover(asyncio.run(run))


main()
