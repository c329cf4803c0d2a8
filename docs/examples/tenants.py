"""Limits from a file, with configurations of single customers, and one changed while everything runs."""

import asyncio
import os
from pathlib import Path

from ratelimit_async import RateLimiter, RequestTimeout

limiter = RateLimiter.from_file(
    Path(__file__).with_name("tenants.toml"), url=os.environ.get("REDIS_URL", "redis://localhost:6379/0")
)


async def exports(customer: str) -> int:
    """Export until the customer has used up what it may."""
    done = 0
    while True:
        try:
            async with limiter.acquire("export", by=customer, timeout=0):
                done += 1
        except RequestTimeout:
            return done


async def main() -> None:
    async with limiter:
        for customer in ("acme", "trial-7", "somebody"):
            print(customer, await exports(customer))
        await limiter.configure({"export": "5/hour; 1 concurrent"}, by="trial-7")
        print("trial-7, with 5 an hour:", await exports("trial-7"), "more")
        # this name's limits count running calls, so `reset` gives back what is counted, not what runs
        for customer in ("acme", "trial-7", "somebody"):
            await limiter.reset("export", by=customer)
        await limiter.configure({"export": None}, by="trial-7")


asyncio.run(main())
