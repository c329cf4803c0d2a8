"""An upstream that enforces its own limit, called over HTTP by several processes: what it rejects and serves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import NamedTuple

import httpx
import redis

from bench.measure import appointment, repeat, run_workers
from ratelimit_async import RateLimiter
from ratelimit_async.contrib.httpx import RateLimitTransport
from tests.servers import Nginx

RATE, BURST = 100, 99
LIMITS = ("100/second", "100/second from finish", "100/second burst 99", "100/second burst 99 from finish")


class Way(httpx.AsyncHTTPTransport):
    """A network on which either leg takes up to `delay` seconds, at a time the same for everybody."""

    def __init__(self, delay: float) -> None:
        super().__init__()
        self._delay = delay

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._leg("there")
        response = await super().handle_async_request(request)
        await self._leg("back")
        return response

    async def _leg(self, which: str) -> None:
        # A way is busy for half a second, or free.
        now = random.Random(f"{which} {int(time.time() * 2)}")
        await asyncio.sleep(now.uniform(0, self._delay))


class UpstreamResult(NamedTuple):
    """What nginx logged; `share`: of what its limit would have let pass from the first request to the last."""

    served: int
    rejected: int
    share: float


async def _worker(url: str, upstream: str, limits: str, callers: int, delay: float, seconds: float) -> None:
    """Call again and again until the end; a response that is rejected is not tried again."""
    async with RateLimiter(url, limits={"bench": limits}, hooks=[]) as limiter:
        transport = RateLimitTransport(limiter, "bench", transport=Way(delay), timeout=None, max_retries=0)
        async with httpx.AsyncClient(transport=transport) as client:
            await repeat(lambda: client.get(upstream), callers, await appointment(), seconds)


def run_upstream(
    url: str, limits: str, *, delay: float, processes: int = 4, callers: int = 25, seconds: float = 5.0
) -> UpstreamResult:
    """Call a new nginx under these limits, over a network of which either leg takes up to `delay` seconds."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    with Nginx(RATE, BURST) as nginx:
        run_workers("bench.upstream", processes, seconds, url, nginx.url, limits, callers, delay, seconds)
        logged = nginx.requests()
    served = sorted(at for at, status in logged if status == 200)
    rejected = sum(status == 429 for _, status in logged)
    could = BURST + 1 + RATE * (served[-1] - served[0] if served else 0.0)
    return UpstreamResult(len(served), rejected, len(served) / could)


def main(arguments: list[str]) -> None:
    """Be one worker process."""
    url, upstream, limits, callers, delay, seconds = arguments
    asyncio.run(_worker(url, upstream, limits, int(callers), float(delay), float(seconds)))


def report_upstream(url: str, seconds: float) -> None:
    """Run and print every configuration."""
    for delay in (0.0, 0.3):
        print(f"  either leg 0-{delay * 1000:g} ms")
        for limits in LIMITS:
            result = run_upstream(url, limits, delay=delay, seconds=seconds)
            rate = f"{result.served:5} served, {100 * result.share:5.1f} % of its rate"
            print(f"    {limits:33} {rate}, {result.rejected:3} rejected")
