"""pyrate-limiter: a RedisBucket per key, handed out by a BucketFactory, which also has them leak."""

from __future__ import annotations

import asyncio

from pyrate_limiter import AbstractBucket, BucketFactory, Limiter, Rate, RateItem, RedisBucket
from redis.asyncio import Redis

from bench.peers import Peer, pool_of


class Buckets(BucketFactory):
    """One bucket per key, all known beforehand."""

    def __init__(self) -> None:
        """Begin with none."""
        self.buckets: dict[str, RedisBucket] = {}

    async def add(self, key: str, rates: list[Rate], redis: Redis) -> None:
        """Make a bucket, and have what has left its window removed now and then."""
        bucket = await RedisBucket.init(rates, redis, key)
        self.schedule_leak(bucket)
        self.buckets[key] = bucket

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        """Stamp a call."""
        return RateItem(name, next(iter(self.buckets.values())).now(), weight=weight)

    def get(self, item: RateItem) -> AbstractBucket:
        """Find a call's bucket."""
        return self.buckets[item.name]


class Pyrate(Peer):
    """Its log, exact but by the clients' clocks."""

    calls = ("check", "acquire")
    many_limits = True
    pattern = "bucket:{name}:*"

    async def setup(self) -> None:
        """Make a bucket per key."""
        self._redis = Redis.from_pool(pool_of(self.url, self.connections))
        self._buckets = Buckets()
        rates = {
            name: [Rate(amount, period * 1000) for amount, period in limits] for name, limits in self.policy.items()
        }
        for name, by in self.keys:
            await self._buckets.add(f"bucket:{name}:{by}", rates[name], self._redis)
        self._limiter = Limiter(self._buckets)

    async def check(self, name: str, by: str) -> bool:
        """Try without waiting."""
        return await self._limiter.try_acquire_async(f"bucket:{name}:{by}", blocking=False)

    async def acquire(self, name: str, by: str) -> None:
        """Wait."""
        await self._limiter.try_acquire_async(f"bucket:{name}:{by}")

    async def close(self) -> None:
        """Stop the leaks and disconnect."""
        leaks = self._buckets._leaker.aio_leak_task
        self._limiter.close()
        # Its own close leaves this at work.
        leaks.cancel()
        await asyncio.wait([leaks])
        await self._redis.aclose()
