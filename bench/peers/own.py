"""ratelimit_async: `hit`, `acquire`, and durable tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.peers import Peer
from ratelimit_async import Limit, QueueConfig, RateLimitConfig, RateLimiter

if TYPE_CHECKING:
    from ratelimit_async._limits import Algorithm


class Own(Peer):
    """The sliding window, all settings as they come."""

    calls = ("check", "acquire", "submit", "task", "waiters")
    many_limits = True
    algorithm: ClassVar[Algorithm] = "sliding_window"
    options: ClassVar[dict[str, bool]] = {}

    async def setup(self) -> None:
        """Enter a limiter."""
        limits = {
            name: RateLimitConfig(
                [Limit(amount, period, self.algorithm) for amount, period in limits],
                queue=QueueConfig(max_size=1_000_000, timeout=None),
                **self.options,
            )
            for name, limits in self.policy.items()
        }
        self.limiter = RateLimiter(self.url, limits=limits)
        self._echo = self.limiter.task("echo")(_echo)
        await self.limiter.__aenter__()

    async def check(self, name: str, by: str) -> bool:
        """Hit."""
        return (await self.limiter.hit(name, by=by)).allowed

    async def acquire(self, name: str, by: str) -> None:
        """Wait for the turn."""
        async with self.limiter.acquire(name, by=by):
            pass

    async def submit(self, name: str, by: str, payload: str) -> None:
        """Submit a durable task."""
        await self.limiter.submit(name, self._echo, payload, by=by)

    async def task(self, name: str, by: str, payload: str) -> None:
        """Request a durable task."""
        assert await self.limiter.request(name, self._echo, payload, by=by) == payload

    async def counted(self, name: str) -> int:
        """Read what Redis counted and what waits there."""
        status = await self.limiter.status(name, total=True)
        return status.limits[0].used + status.queue.depth

    async def close(self) -> None:
        """Leave the limiter."""
        await self.limiter.__aexit__(None, None, None)


class OwnFixed(Own):
    """The fixed window."""

    calls = ("check",)
    algorithm = "fixed_window"
    aligned = True


class OwnKeepingDenials(Own):
    """With `denial_cache`: a denial is answered here until it is over."""

    for_denials = True
    options: ClassVar[dict[str, bool]] = {"denial_cache": True}


async def _echo(payload: str) -> str:
    return payload
