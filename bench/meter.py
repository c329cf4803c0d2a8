"""What a client process measures besides its calls: CPU on both sides, script calls, memory."""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import redis

from bench.workloads import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

MICROSECONDS = 1e6
# How the libraries here call scripts.
SCRIPT_COMMANDS = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")


class Reading(NamedTuple):
    """Both sides' counters at one time: seconds of CPU, of scripts, and script calls."""

    at: float
    client: float
    server: float
    script: float
    scripts: int


class Meter:
    """Reads counters before and after a measured stretch, in which it does nothing."""

    def __init__(self, url: str) -> None:
        """Look at the server through a connection of its own."""
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    def read(self) -> Reading:
        """Read all counters."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = self.redis.info("cpu")
        commands = self.redis.info("commandstats")
        scripts = [commands[name] for name in SCRIPT_COMMANDS if name in commands]
        return Reading(
            at=time.perf_counter(),
            client=usage.ru_utime + usage.ru_stime,
            server=cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            script=sum(one["usec"] for one in scripts) / MICROSECONDS,
            scripts=sum(one["calls"] for one in scripts),
        )

    def report(self, before: Reading, latencies: Sequence[float]) -> Measured:
        """Say what was done since, in as many calls as there are latencies (seconds)."""
        after = self.read()
        calls = max(len(latencies), 1)
        p50, p99 = percentiles(latencies)
        return Measured(
            rate=len(latencies) / (after.at - before.at),
            p50=p50,
            p99=p99,
            client=(after.client - before.client) / calls * MICROSECONDS,
            server=(after.server - before.server) / calls * MICROSECONDS,
            script=(after.script - before.script) / calls * MICROSECONDS,
            scripts=(after.scripts - before.scripts) / calls,
            memory=peak_memory(),
        )

    def close(self) -> None:
        """Disconnect."""
        self.redis.close()


def peak_memory() -> float:
    """Give this process' most memory, MiB; what getrusage calls so includes the parent's before the start."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def percentiles(latencies: Sequence[float]) -> tuple[float, float]:
    """Give p50 and p99 of seconds, in ms."""
    if len(latencies) < 2:
        return (latencies[0] * 1000,) * 2 if latencies else (0.0, 0.0)
    cuts = statistics.quantiles(latencies, n=100)
    return cuts[49] * 1000, cuts[98] * 1000
