"""redis-py without a library: one EVALSHA of a hand-written sliding window per check, over its pool."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import redis.asyncio

from bench.peers import Peer, pool_of

SCRIPT = Path(__file__).with_name("sliding_log.lua").read_text(encoding="utf-8")


class HandWritten(Peer):
    """What the script is told."""

    many_limits = True
    pattern = "log:{name}:*"

    async def setup(self) -> None:
        """Write each name's limits once, and start to number the hits."""
        self.limits = {
            name: [str(number) for amount, period in limits for number in (amount, period * 1_000_000)]
            for name, limits in self.policy.items()
        }
        self._numbers = itertools.count()
        self._process = os.getpid()

    def arguments(self, name: str) -> list[str]:
        """Give ARGV of one check."""
        now = str(time.time_ns() // 1000)
        return [now, f"{self._process}:{next(self._numbers)}", *self.limits[name]]


class RedisPy(HandWritten):
    """Over redis-py's pool, as large as there are callers."""

    async def setup(self) -> None:
        """Load the script."""
        await super().setup()
        self._redis = redis.asyncio.Redis.from_pool(pool_of(self.url, self.connections))
        self._sha = await self._redis.script_load(SCRIPT)

    async def check(self, name: str, by: str) -> bool:
        """Send one EVALSHA."""
        reply = await self._redis.evalsha(self._sha, 1, f"log:{name}:{by}", *self.arguments(name))
        return bool(reply)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()
