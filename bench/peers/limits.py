"""limits: its asyncio strategies on redis-py, which it is as fast on as on its default, coredis."""

from __future__ import annotations

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, RateLimiter

from bench.peers import Peer, pool_of


class Moving(Peer):
    """Its exact window, one script call per check."""

    pattern = "LIMITS:*/{name}/*"
    strategy: type[RateLimiter] = MovingWindowRateLimiter

    async def setup(self) -> None:
        """Make a storage, a strategy, and an item per name."""
        self._pool = pool_of(self.url, self.connections)
        storage = RedisStorage(f"async+{self.url}", implementation="redispy", connection_pool=self._pool)
        self._limiter = self.strategy(storage)
        self._items = {name: RateLimitItemPerSecond(*limits[0]) for name, limits in self.policy.items()}

    async def check(self, name: str, by: str) -> bool:
        """Hit."""
        return await self._limiter.hit(self._items[name], name, by)

    async def close(self) -> None:
        """Disconnect."""
        await self._pool.aclose()


class Fixed(Moving):
    """Its counter per window."""

    strategy = FixedWindowRateLimiter
