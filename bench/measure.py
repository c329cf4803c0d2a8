"""What a block of work costs, in Redis' time and memory and in the client's.

Redis' time is that of its script calls (`INFO commandstats`), so what other processes of the machine do matters little;
the client's is that of its process (`getrusage`).
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ratelimit_async._lua import ALL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.servers import RedisServer

READY = "ready\n"
# Seconds after which workers that should have ended are given up; and those after which all have heard of the start.
PATIENCE, WORD_TRAVELS = 120.0, 0.1
NAMES = {script.sha: script.name for script in ALL.values()}


class Cost(NamedTuple):
    """What a block took, seconds: of this process, of the server, of its script calls; how many those were; in all."""

    client: float
    server: float
    scripts: float
    calls: int
    wall: float


class Meter:
    """Looks at the clocks of a server and of this process."""

    def __init__(self, server: RedisServer) -> None:
        """Look at one server."""
        self._server = server
        self.cost = Cost(0, 0, 0, 0, 0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure a block."""
        self._server.call("CONFIG", "RESETSTAT")
        server, cpu, wall = self._cpu(), _cpu(), time.perf_counter()
        yield
        server, cpu, wall = self._cpu() - server, _cpu() - cpu, time.perf_counter() - wall
        stats: Any = self._server.client.info("commandstats")
        scripts = stats.get("cmdstat_evalsha", {"usec": 0, "calls": 0})
        self.cost = Cost(cpu, server, scripts["usec"] / 1e6, scripts["calls"], wall)

    def _cpu(self) -> float:
        cpu: Any = self._server.client.info("cpu")
        return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def machine_time() -> tuple[float, float]:
    """Give the seconds that all cores have worked so far, and those for which they had work and the host held them."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0, 0.0
    user, nice, system, _, _, hard, soft, steal, *_ = map(
        int, stat.read_text(encoding="ascii").split("\n")[0].split()[1:]
    )
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + hard + soft) / ticks, steal / ticks


# What Redis' tables of keys and of lifetimes take besides, for each key: a slot in both, and an entry in the second.
_TABLES = 40


def memory_of(server: RedisServer) -> int:
    """Give the bytes that Redis uses for all keys, by its own word."""
    pipe = server.client.pipeline(transaction=False)
    for key in server.client.scan_iter(count=1000):
        pipe.memory_usage(key, samples=0)
    return sum(size + _TABLES for size in pipe.execute() if size)


async def closed_loop(call: Callable[[], Awaitable[object]], callers: int, total: int) -> None:
    """Make so many calls, by so many callers that wait for each of theirs."""
    left = total

    async def loop() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    await asyncio.gather(*(loop() for _ in range(callers)))


async def appointment() -> float:
    """Say that this process is ready, and wait until all of them begin; gives the time of the wall clock."""
    print(READY, end="", flush=True)
    start = float(await asyncio.to_thread(sys.stdin.readline))
    await asyncio.sleep(max(start - time.time(), 0))
    return start


async def repeat(call: Callable[[], Awaitable[object]], callers: int, start: float, seconds: float) -> None:
    """Let so many callers make a call again and again, for so long from a time of the wall clock on."""

    async def loop() -> None:
        while True:
            await call()

    tasks = [asyncio.create_task(loop()) for _ in range(callers)]
    await asyncio.sleep(max(start + seconds - time.time(), 0))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        # One that failed before the end was not cancelled any more.
        if not task.cancelled():
            task.result()


def run_workers(module: str, processes: int, seconds: float, *arguments: object) -> tuple[float, list[str]]:
    """Run `main` of a module of the bench in so many processes, which begin together once all are ready.

    Gives when that was, and what each printed; those that take much longer than `seconds` are given up.
    """
    code = f"import sys; from {module} import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    patience = seconds + PATIENCE
    watch = threading.Timer(patience, lambda: [worker.kill() for worker in workers])
    watch.start()
    try:
        ready = [worker.stdout is not None and worker.stdout.readline() == READY for worker in workers]
        start = time.time() + WORD_TRAVELS
        if all(ready):
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(f"{start}\n")
                worker.stdin.flush()
        told = [worker.communicate() for worker in workers]
    finally:
        watch.cancel()
        for worker in workers:
            worker.kill()
            worker.wait()
    # Those that did not get ready first: the others fail because of them.
    for _, worker, (_, error) in sorted(zip(ready, workers, told, strict=True), key=lambda one: one[0]):
        if worker.returncode:
            lines = error.strip().splitlines() or [f"ended with {worker.returncode}, after {patience:g} s at most"]
            raise RuntimeError(lines[-1])
    return start, [printed for printed, _ in told]


class Calls(NamedTuple):
    """Durations of one script's calls, ms, sorted."""

    name: str
    times: list[float]

    def at(self, share: float) -> float:
        """Give a percentile."""
        return self.times[min(int(len(self.times) * share), len(self.times) - 1)]


@contextmanager
def slow_log(server: RedisServer, found: list[Calls]) -> Iterator[None]:
    """Note how long every script call of a block takes."""
    server.call("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 10_000_000)
    server.call("SLOWLOG", "RESET")
    try:
        yield
    finally:
        server.call("CONFIG", "SET", "slowlog-log-slower-than", -1)
        entries: Any = server.client.slowlog_get(10_000_000)
        times: dict[str, list[float]] = {}
        for entry in entries:
            words = entry["command"].split(b" ", 2)
            if words[0] == b"EVALSHA":
                times.setdefault(NAMES.get(words[1].decode(), "other"), []).append(entry["duration"] / 1000)
        server.call("SLOWLOG", "RESET")
        found += [Calls(name, sorted(values)) for name, values in sorted(times.items())]
