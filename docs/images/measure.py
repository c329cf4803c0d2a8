"""Runs the library on its embedded server and writes down what happened, for draw.py.

python docs/images/measure.py
"""

import asyncio
import json
import math
import time
from pathlib import Path
from typing import Any

from ratelimit_async import Limit, RateLimiter

ALGORITHMS = {
    "sliding_window": Limit(10, 1.0),
    "fixed_window": Limit(10, 1.0, "fixed_window"),
    "sliding_counter": Limit(10, 1.0, "sliding_counter"),
    "token_bucket": Limit(10, 1.0, "token_bucket"),
}
# Seconds of a clock's second at which 25 calls a second begin and end.
LOADS = [(0.5, 2.5), (3.9, 4.3)]
REQUESTS = ["low", "low", "normal", "normal", "low", "high", "normal", "high", "low", "normal", "high", "low"]

Hits = list[tuple[float, bool]]


async def hits_of(limiter: RateLimiter, name: str, start: float) -> Hits:
    """Call as the loads say; gives when each call was made, and whether it passed."""
    hits: Hits = []
    for begin, end in LOADS:
        for i in range(round((end - begin) * 25)):
            await asyncio.sleep(max(start + begin + i / 25 - time.time(), 0))
            at = time.time() - start
            hits.append((at, (await limiter.hit(name)).allowed))
    return hits


async def measure_algorithms() -> dict[str, Hits]:
    """Run all of them at the same time, from a whole second on, where fixed windows begin."""
    async with RateLimiter("memory://algorithms", limits=ALGORITHMS) as limiter:
        start = math.ceil(time.time() + 0.2)
        found = await asyncio.gather(*(hits_of(limiter, name, start) for name in ALGORITHMS))
    return dict(zip(ALGORITHMS, found, strict=True))


async def measure_queue() -> list[dict[str, Any]]:
    """Let requests of three priorities come in 50 ms steps, where 5 pass in a second."""
    rows: list[dict[str, Any]] = []
    async with RateLimiter("memory://queue", limits={"api": "2 per 0.4 seconds"}) as limiter:
        start = time.monotonic()

        async def one(priority: str, row: dict[str, Any]) -> None:
            async with limiter.acquire("api", priority=priority):
                row["granted"] = time.monotonic() - start

        async with asyncio.TaskGroup() as group:
            for i, priority in enumerate(REQUESTS):
                await asyncio.sleep(max(start + i * 0.05 - time.monotonic(), 0))
                rows.append({"priority": priority, "came": time.monotonic() - start})
                group.create_task(one(priority, rows[-1]))
    return rows


async def measure_concurrent() -> list[tuple[float, float, float]]:
    """Let nine calls of different lengths come at once, of which three may run."""
    rows: list[tuple[float, float, float]] = []
    async with RateLimiter("memory://concurrent", limits={"gpu": "3 concurrent"}) as limiter:
        start = time.monotonic()

        async def one(took: float) -> None:
            came = time.monotonic() - start
            async with limiter.acquire("gpu"):
                began = time.monotonic() - start
                await asyncio.sleep(took)
                rows.append((came, began, time.monotonic() - start))

        await asyncio.gather(*(one(took) for took in (0.5, 0.2, 0.3, 0.4, 0.2, 0.5, 0.3, 0.2, 0.3)))
    return sorted(rows, key=lambda row: row[1])


async def main() -> None:
    """Measure all, to the millisecond."""
    algorithms, queue, concurrent = await asyncio.gather(measure_algorithms(), measure_queue(), measure_concurrent())
    runs = {"algorithms": algorithms, "queue": queue, "concurrent": concurrent}
    rounded = json.loads(json.dumps(runs), parse_float=lambda text: round(float(text), 3))
    Path(__file__).with_name("runs.json").write_text(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
