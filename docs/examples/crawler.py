"""Polite crawling: two pages a second and one at a time from each host, whatever the number of hosts and processes."""

import asyncio
import os
import time

from ratelimit_async import RateLimiter

limiter = RateLimiter(
    os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
    limits={"pages": {"limits": ["2/second", "1 concurrent"], "by": {"slow.example": "1/second; 1 concurrent"}}},
)
HOSTS = ["a.example", "b.example", "slow.example"]
STARTED = time.monotonic()


async def fetch(host: str, page: int) -> None:
    print(f"{time.monotonic() - STARTED:4.1f} s  {host} page {page}")
    await asyncio.sleep(0.05)  # in place of the network


async def main() -> None:
    async with limiter, asyncio.TaskGroup() as group:
        for page in range(4):
            for host in HOSTS:
                group.create_task(limiter.request("pages", fetch, host, page, by=host, timeout=60))


asyncio.run(main())
