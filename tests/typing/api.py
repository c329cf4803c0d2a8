"""A user's code, which must type-check strictly."""

from typing import assert_type

import httpx
import httpx2
from redis.credentials import UsernamePasswordCredentialProvider

from ratelimit_async import (
    Decision,
    Grant,
    KeyInfo,
    Limit,
    QueueConfig,
    RateLimitConfig,
    RateLimiter,
    RetryAfter,
    Status,
    Ticket,
    Upstream,
)
from ratelimit_async.contrib import httpx2 as limited_httpx2
from ratelimit_async.contrib.httpx import RateLimitTransport, host_of

limiter = RateLimiter(
    "memory://",
    limits={
        "a": ["5/minute", Limit.per_second(3, burst=7), (5, 60), Limit(5, 1.0, count_from="finish", guard=0.1)],
        "b": RateLimitConfig(limits=[Limit(10, 1.0)], queue=QueueConfig(max_size=500, overflow="drop_oldest")),
    },
    default=None,
    poll_interval=0.5,
    credential_provider=UsernamePasswordCredentialProvider("me", "password"),
)


async def call(prompt: str, n: int) -> float:
    return len(prompt) / n


def plain(n: int) -> str:
    return str(n)


@limiter.task("durable", max_attempts=3, settle=lambda n: {"tokens": int(n)})
async def durable(prompt: str, n: int) -> float:
    return len(prompt) / n


@limiter.task("plain")
def durable_plain(n: int) -> str:
    return str(n)


async def main() -> None:
    async with limiter as entered:
        assert_type(entered, RateLimiter)
        assert_type(await limiter.request("a", call, "x", 3, cost={"tokens": 9}, priority="high"), float)
        assert_type(await limiter.request("a", plain, 3, timeout=None), str)
        assert_type(await limiter.submit("a", call, "x", 3), Ticket[float])
        assert_type(await (await limiter.submit("a", call, "x", 3)), float)
        assert_type(await limiter.hit("a", by=7), Decision)
        assert_type(await limiter.acquire("a", fail_fast=True), Grant)
        assert_type(
            await limiter.request(
                "a", call, "x", 3, settle=lambda n: {"tokens": int(n)}, retry_on=OSError, backoff=1.0
            ),
            float,
        )
        assert_type(await limiter.request("a", plain, 3, on_result=lambda text: RetryAfter(1) if text else None), str)
        assert_type(await limiter.request("a", durable, "x", 3), float)
        assert_type(await limiter.request("a", durable_plain, 3), str)
        assert_type(await limiter.submit("a", durable, "x", 3, id="x", durability="replicated"), Ticket[float])
        assert_type(durable_plain(3), str)
        assert_type([letter.attempts async for letter in limiter.dead_letters("a")], list[int])
        await limiter.configure({"a": ["5/minute", Limit.concurrent(3)], "b": None})
        await limiter.pause_for("a", 5, by="x")
        assert_type(await limiter.sync_from_headers("a", {"retry-after": "5"}), Upstream)
        assert_type([key async for key in limiter.keys("a")], list[KeyInfo])
        assert_type([one.position async for one in limiter.waiting("a")], list[int])
        assert_type(await limiter.status("a", total=True), Status)
        async with limiter.acquire("a", priority=0) as grant:
            assert_type(grant, Grant)
            await grant.settle({"tokens": 3})


def used(response: httpx.Response) -> dict[str, int] | None:
    return None if response.is_error else {"tokens": len(response.text)}


transport = RateLimitTransport(
    limiter, "a", by=host_of, cost=lambda request: {"tokens": len(request.content)}, settle=used, timeout=None
)
client = httpx.AsyncClient(transport=transport, mounts={"https://": RateLimitTransport(limiter)})
client2 = httpx2.AsyncClient(
    transport=limited_httpx2.RateLimitTransport(
        limiter,
        lambda request: request.url.host,
        priority="high",
        rejected=lambda response: response.status_code == 503,
    )
)
