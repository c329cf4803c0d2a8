"""`python -m bench [waiting] [paused] [checks]`: measures against a redis-server of its own."""

import asyncio
import sys

from bench.checks import run_checks
from bench.waiting import report, run_waiting
from tests.servers import RedisServer


def main() -> None:
    """Run what is asked for, by default all."""
    asked = sys.argv[1:] or ["waiting", "paused", "checks"]
    with RedisServer() as server:
        if "waiting" in asked:
            print("4 processes x 50 waiters, 100/second, waiters come back at once:")
            report(run_waiting(server.url))
        if "paused" in asked:
            print("4 processes x 50 waiters, 100/second, 0.5 s between acquires:")
            report(run_waiting(server.url, pause=0.5))
        if "checks" in asked:
            print("hit, sliding window, one process, closed loop:")
            asyncio.run(run_checks(server.url))


main()
