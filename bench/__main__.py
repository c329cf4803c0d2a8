"""`python -m bench [scenario ...]`: measures against a redis-server of its own.

Beside other libraries, by default all of these: closed, open, contended, memory. `--quick`: a short look;
`--json FILE`: all repetitions; `--plots DIRECTORY`: as SVG; `--read FILE`: what `--json` wrote, without measuring.
By itself: waiting, paused, latency, checks, estimates, strictness, upstream, failover, scale.
"""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.checks import run_checks
from bench.comparison import WORKLOADS, Results, compare
from bench.estimates import run_estimates
from bench.failover import report_failover, run_failover
from bench.latency import report_distant, report_latency, run_latency
from bench.peers import PEERS
from bench.plots import write_plots
from bench.scale import report_scale
from bench.strictness import report_strictness
from bench.tables import table
from bench.upstream import report_upstream
from bench.waiting import report, run_waiting
from tests.servers import RedisServer
from tests.topologies import ClusterSetup, SentinelSetup

BESIDE = tuple(WORKLOADS)
ALONE = ("waiting", "paused", "latency", "checks", "estimates", "strictness", "upstream", "failover", "scale")
SCENARIOS = (*BESIDE, *ALONE)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(SCENARIOS)}; by default the first four"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, once")
    parser.add_argument("--repetitions", type=int, help="of each peer at each workload, interleaved (10; quick: 1)")
    parser.add_argument("--peers", default=";".join(PEERS), help=f"separated by semicolons ({'; '.join(PEERS)})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repetition, as soon as it is done")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw throughput, CPU, open loop as SVG")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, show what --json wrote")
    parser.add_argument("--kills", type=int, default=10, help="how often failover kills the primary (10)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long waiting, paused, latency and upstream last (10)"
    )
    arguments = parser.parse_args()
    asked = arguments.scenarios or BESIDE
    unknown = sorted(set(asked) - set(SCENARIOS))
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    if not arguments.seconds > 2:
        parser.error("--seconds must be more than 2")
    peers = [peer.strip() for peer in arguments.peers.split(";")]
    strange = sorted(set(peers) - set(PEERS))
    if strange:
        parser.error(f"no peer {strange[0]!r}; there are {'; '.join(PEERS)}")
    repetitions = arguments.repetitions or (1 if arguments.quick else 10)
    if repetitions < 1:
        parser.error("--repetitions must be at least 1")
    beside = [scenario for scenario in asked if scenario in BESIDE]
    if arguments.read:
        show(msgspec.json.decode(arguments.read.read_bytes(), type=Results), arguments.plots)
    elif beside:
        command = shlex.join(("python", "-m", "bench", *_measuring(sys.argv[1:])))
        runs = compare(beside, quick=arguments.quick, repetitions=repetitions, peers=peers, command=command)
        for results in runs:
            if arguments.json:
                arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
        show(results, arguments.plots)
    if not arguments.read:
        run_alone([scenario for scenario in asked if scenario in ALONE], arguments.seconds, arguments.kills)


def _measuring(arguments: Sequence[str]) -> Iterator[str]:
    """Give what of a command line bears on the figures: not where they are written."""
    words = iter(arguments)
    for word in words:
        if word in ("--json", "--plots"):
            next(words)
        elif not word.startswith(("--json=", "--plots=")):
            yield word


def show(results: Results, plots: Path | None) -> None:
    """Print the tables, and draw."""
    print(table(results))
    if plots:
        for path in write_plots(results, plots):
            print(f"wrote {path}")


def run_alone(asked: list[str], seconds: float, kills: int) -> None:
    """Run scenarios of this library by itself."""
    if not asked:
        return
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
            report_distant(server, seconds)
        if "checks" in asked:
            print("hit, sliding window, one process, closed loop:")
            asyncio.run(run_checks(server.url))
        if "estimates" in asked:
            print("a backlog and probes on 8 keys, mixed priorities and costs, one process:")
            asyncio.run(run_estimates(server.url))
        if "strictness" in asked:
            print("4 processes x 50 callers toward an upstream, 100/second:")
            report_strictness(server.url)
        if "upstream" in asked:
            print("4 processes x 25 callers through httpx toward an nginx, limit_req 100r/s burst=99 nodelay:")
            report_upstream(server.url, seconds)
    if "scale" in asked:
        report_scale()
    if "failover" in asked:
        print("2 limiters x 24 waiters and 6 callers of hit, 6 keys, the primary is killed again and again:")
        for experiment, make in (("sentinel", SentinelSetup), ("cluster", ClusterSetup)):
            for durability in ("replicated", "primary"):
                with make() as setup:
                    run = run_failover(setup, f"{experiment}, {durability}", kills, durability=durability)
                    report_failover(asyncio.run(run))


if __name__ == "__main__":
    main()
