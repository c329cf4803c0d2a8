"""A user's code, which must type-check strictly."""

from typing import assert_type

from ratelimit_async import Decision, Grant, Limit, QueueConfig, RateLimitConfig, RateLimiter, Ticket

limiter = RateLimiter(
    "memory://",
    limits={
        "a": ["5/minute", Limit.per_second(3), (5, 60)],
        "b": RateLimitConfig(limits=[Limit(10, 1.0)], queue=QueueConfig(max_size=500, overflow="drop_oldest")),
    },
    default=None,
    poll_interval=0.5,
)


async def call(prompt: str, n: int) -> float:
    return len(prompt) / n


def plain(n: int) -> str:
    return str(n)


async def main() -> None:
    async with limiter as entered:
        assert_type(entered, RateLimiter)
        assert_type(await limiter.request("a", call, "x", 3, cost={"tokens": 9}, priority="high"), float)
        assert_type(await limiter.request("a", plain, 3, timeout=None), str)
        assert_type(await limiter.submit("a", call, "x", 3), Ticket[float])
        assert_type(await (await limiter.submit("a", call, "x", 3)), float)
        assert_type(await limiter.hit("a", by=7), Decision)
        assert_type(await limiter.acquire("a"), Grant)
        async with limiter.acquire("a", priority=0) as grant:
            assert_type(grant, Grant)
            await grant.settle({"tokens": 3})
