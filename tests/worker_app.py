"""An application with durable tasks, for worker processes of tests: what they do is noted in Redis."""

from __future__ import annotations

import asyncio
import os

import redis

from ratelimit_async import RateLimiter

URL = os.environ.get("TEST_URL", "memory://")
LEASE = float(os.environ.get("TEST_LEASE", "1.0"))
limiter = RateLimiter(
    URL,
    limits={"a": "1000/second", "one": "1 concurrent"},
    lease=LEASE,
    poll_interval=0.2,
    shutdown_timeout=5.0,
    task_slots=int(os.environ.get("TEST_SLOTS", "100")),
    processor=os.environ.get("TEST_PROCESSOR", "1") == "1",
)
empty = RateLimiter(URL)
nothing = 7


def note(text: str) -> int:
    """Append to a list in Redis; gives how long it is."""
    with redis.Redis.from_url(URL) as client:
        return int(client.rpush("noted", text))


@limiter.task("quick")
async def quick(n: int) -> int:
    note(f"quick {n} {os.getpid()}")
    return n * 2


@limiter.task("slow", max_attempts=3)
async def slow(seconds: float) -> str:
    note(f"begun {os.getpid()}")
    await asyncio.sleep(seconds)
    note(f"ended {os.getpid()}")
    return str(os.getpid())


@limiter.task("deadly", max_attempts=2)
async def deadly() -> None:
    note("deadly")
    os.kill(os.getpid(), 9)


@limiter.task("first")
async def first() -> str:
    """Stop the process that runs it first, for longer than its lease; those after it just end."""
    if note(f"first {os.getpid()}") == 1:
        os.kill(os.getpid(), 19)
        note(f"back {os.getpid()}")
    return str(os.getpid())
