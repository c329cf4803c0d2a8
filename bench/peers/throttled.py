"""throttled-py: its asyncio limiter on its Redis store."""

from __future__ import annotations

from datetime import timedelta

from throttled.asyncio import RateLimiterType, RedisStore, Throttled, rate_limiter

from bench.peers import WIDE, Peer

# It takes no "without bound".
FOREVER = 3600.0


class Sliding(Peer):
    """Its sliding window: an estimate from two counters, and the nearest that it has to an exact one."""

    calls = ("check", "acquire")
    aligned = True
    pattern = "*:{name}/*"
    using = RateLimiterType.SLIDING_WINDOW

    async def setup(self) -> None:
        """Make a store, and a limiter per name."""
        options: dict[str, object] = {"CONNECTION_POOL_KWARGS": {"max_connections": self.connections}}
        if not self.connections:
            options["CONNECTION_POOL_CLASS"] = "redis.asyncio.BlockingConnectionPool"
            options["CONNECTION_POOL_KWARGS"] = {"max_connections": WIDE, "timeout": None}
        self._store = RedisStore(server=self.url, options=options)
        self._limiters = {
            name: Throttled(
                using=self.using.value,
                quota=rate_limiter.per_duration(timedelta(seconds=limits[0][1]), limits[0][0]),
                store=self._store,
            )
            for name, limits in self.policy.items()
        }

    async def check(self, name: str, by: str) -> bool:
        """Limit without waiting."""
        return not (await self._limiters[name].limit(f"{name}/{by}")).limited

    async def acquire(self, name: str, by: str) -> None:
        """Limit, waiting."""
        while (await self._limiters[name].limit(f"{name}/{by}", timeout=FOREVER)).limited:
            pass

    async def close(self) -> None:
        """Disconnect."""
        await self._store._backend.get_client().connection_pool.aclose()


class Fixed(Sliding):
    """Its counter per window."""

    calls = ("check",)
    using = RateLimiterType.FIXED_WINDOW
