"""Cancellation storms: callers with deadlines around the time that a check takes, beside some that have time.

The storm-free share of the callers that have time is what they get per second when the others, as many and as busy,
have time too. A storm is harmless where they get that, or more, beside callers that are cancelled all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
from typing import NamedTuple

import anyio
import anyio.lowlevel

from ratelimit_async import RateLimiter
from tests.servers import RedisServer

WORKERS, BYSTANDERS = 60, 20
# Seconds.
SHORTEST, LONGEST, AMPLE = 0.0005, 0.03, 30.0
# Of fewer cancels nothing can be learnt: where most checks come in time, a storm goes on until it has had them.
FEWEST_CANCELS = 50
LIMITS = {"storm": "1000000000/minute", "calm": "1000000000/minute", "turns": "50 per 0.05 seconds; 1000000/hour"}
# Ways to be cancelled.
WAYS = ("timeout", "move_on", "cancel")


class Storm(NamedTuple):
    """What a storm counted; `calm` are the checks per second of the callers that have time."""

    calm: float
    stormy: float
    cancels: int
    swallowed: int
    connections: int


class Counts:
    """What stormy callers saw."""

    def __init__(self) -> None:
        self.done = 0
        self.cancels = 0
        self.swallowed = 0


async def _within_timeout(limiter: RateLimiter, deadline: float, counts: Counts) -> None:
    try:
        async with asyncio.timeout(deadline) as scope:
            await limiter.hit("storm")
            counts.done += 1
    except TimeoutError:
        counts.cancels += 1
    else:
        # asyncio has cancelled the task by the time that a scope has expired: it must have come through.
        counts.swallowed += scope.expired()


async def _within_move_on(limiter: RateLimiter, deadline: float, counts: Counts) -> None:
    with anyio.move_on_after(deadline) as scope:
        await limiter.hit("storm")
        counts.done += 1
        # anyio delivers again and again to whoever goes on: here at the latest.
        await anyio.lowlevel.checkpoint_if_cancelled()
    counts.cancels += scope.cancelled_caught
    counts.swallowed += scope.cancel_called and not scope.cancelled_caught


async def _until_cancelled(limiter: RateLimiter, deadline: float, counts: Counts) -> None:
    task = asyncio.create_task(limiter.hit("storm"))
    delivered = False

    def cancel() -> None:
        nonlocal delivered
        delivered = task.cancel()

    timer = asyncio.get_running_loop().call_later(deadline, cancel)
    await asyncio.wait([task])
    timer.cancel()
    counts.cancels += task.cancelled()
    counts.done += not task.cancelled()
    counts.swallowed += delivered and not task.cancelled()


_CALLS = {"timeout": _within_timeout, "move_on": _within_move_on, "cancel": _until_cancelled}


async def run_storm(server: RedisServer, way: str, seconds: float, *, stormy: bool) -> Storm:
    """Check as fast as answers come; `stormy`: with deadlines that are short, otherwise all have time."""
    counts, calm = Counts(), 0
    loop = asyncio.get_running_loop()
    async with RateLimiter(server.url, limits=LIMITS, hooks=[]) as limiter:
        begun = loop.time()
        end = begun + seconds

        def lasts() -> bool:
            return loop.time() < end or (stormy and counts.cancels < FEWEST_CANCELS)

        async def storm() -> None:
            while lasts():
                deadline = random.uniform(SHORTEST, LONGEST) if stormy else AMPLE
                await _CALLS[way](limiter, deadline, counts)

        async def stay_calm() -> None:
            nonlocal calm
            # A machine that stands still meanwhile only makes it longer.
            while lasts() or not calm:
                async with asyncio.timeout(AMPLE):
                    await limiter.hit("calm")
                calm += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(storm())
            for _ in range(BYSTANDERS):
                group.create_task(stay_calm())
        # The one that counts is among them.
        connections = len(server.call("CLIENT", "LIST").splitlines()) - 1
        lasted = loop.time() - begun
    return Storm(calm / lasted, counts.done / lasted, counts.cancels, counts.swallowed, connections)


async def compare(server: RedisServer, way: str, *, seconds: float, repetitions: int) -> tuple[float, list[Storm]]:
    """Measure calm and storm in turn: the median share of the storm-free rate that callers with time get; storms."""
    shares: list[float] = []
    storms: list[Storm] = []
    for repetition in range(repetitions):
        pair: dict[bool, Storm] = {}
        # In turn also who is first: what a machine does by the way falls on both.
        for stormy in (False, True) if repetition % 2 else (True, False):
            pair[stormy] = await run_storm(server, way, seconds, stormy=stormy)
        shares.append(pair[True].calm / pair[False].calm)
        storms.append(pair[True])
    return statistics.median(shares), storms


async def storm_of_turns(server: RedisServer, seconds: float, *, stormy: bool = True) -> tuple[int, int, int]:
    """Wait for turns, with short deadlines: turns that ran, turns that were cancelled, and charges at the end."""
    server.call("FLUSHALL")
    ran = cancelled = 0
    loop = asyncio.get_running_loop()
    async with RateLimiter(server.url, limits=LIMITS, hooks=[]) as limiter:
        end = loop.time() + seconds

        async def storm() -> None:
            nonlocal ran, cancelled
            while loop.time() < end or not ran or (stormy and not cancelled):
                try:
                    deadline = random.uniform(SHORTEST, LONGEST) if stormy else AMPLE
                    async with asyncio.timeout(deadline), limiter.acquire("turns"):
                        ran += 1
                except TimeoutError:
                    cancelled += 1

        await asyncio.gather(*(storm() for _ in range(WORKERS)))
        charged = -1
        # Withdrawals and refunds are on their way; nothing new is.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AMPLE):
                while charged != ran:
                    await asyncio.sleep(0.01)
                    charged = (await limiter.status("turns")).limits[1].used
    return ran, cancelled, charged


def main() -> None:
    """Print the storms of every way to be cancelled."""
    parser = argparse.ArgumentParser(prog="python -m bench.storms")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each storm lasts (10)")
    parser.add_argument("--repetitions", type=int, default=3, help="pairs of calm and storm (3)")
    arguments = parser.parse_args()
    print(f"{WORKERS} callers with {SHORTEST * 1e3:g}-{LONGEST * 1e3:g} ms and {BYSTANDERS} with time;", sys.version)
    print("  cancelled by   share of the storm-free rate   checks/s, calm + storm   cancels   swallowed   connections")
    with RedisServer() as server:
        for way in WAYS:
            share, storms = asyncio.run(
                compare(server, way, seconds=arguments.seconds, repetitions=arguments.repetitions)
            )
            rate = statistics.median(storm.calm + storm.stormy for storm in storms)
            cancels, swallowed = sum(storm.cancels for storm in storms), sum(storm.swallowed for storm in storms)
            most = max(storm.connections for storm in storms)
            print(f"  {way:12}   {share:28.2f}   {rate:22.0f}   {cancels:7}   {swallowed:9}   {most:11}", flush=True)
        calm, _, _ = asyncio.run(storm_of_turns(server, arguments.seconds, stormy=False))
        ran, cancelled, charged = asyncio.run(storm_of_turns(server, arguments.seconds))
        print(f"  turns in a queue: {ran} ran of {calm} without a storm, {cancelled} cancelled, {charged} are charged")


if __name__ == "__main__":
    main()
