# pyright: reportUnnecessaryTypeIgnoreComment=true
"""A user's decorated functions, which must type-check strictly; each mistake here must be one for both checkers."""

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, assert_type

from ratelimit_async import Limit, QueueConfig, RateLimitConfig, RateLimiter, RequestOptions, Retry, RetryAfter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

limiter = RateLimiter("memory://", limits={"a": "5/minute; 100 tokens/minute"})


def user_of(user: str, n: int = 1) -> str:
    return user


def cost_of(user: str, n: int = 1) -> dict[str, int]:
    return {"tokens": n}


def wrong(user: str, n: int = 1) -> float:
    return n / 2


async def late(user: str, n: int = 1) -> str:
    return user


@limiter.limited("a", by=user_of, cost=cost_of, priority="high", timeout=timedelta(seconds=5))
async def ask(user: str, n: int = 1) -> float:
    return len(user) / n


@limiter.limited("a", by="me", cost={"tokens": 3}, options=RequestOptions(retry_on=OSError), max_retries=2)
def plain(n: int, *, word: str) -> str:
    return word * n


@limiter.limited("a", settle=lambda _: {"tokens": 1}, on_result=lambda _: RetryAfter(timedelta(seconds=1)))
async def nothing() -> None: ...


def multiply(n: int, *, word: str) -> str:
    return word * n


class Client:
    def subject(self, n: int) -> int:
        return n

    @limiter.limited("a", by=subject)
    async def ask(self, n: int) -> str:
        return str(n)

    @limiter.limited("a")
    def plain(self, n: int) -> str:
        return str(n)

    @classmethod
    @limiter.limited("a")
    async def above(cls, n: int) -> str:
        return str(n)

    @limiter.limited("a")
    @classmethod
    async def below(cls, n: int) -> str:
        return str(n)

    @staticmethod
    @limiter.limited("a")
    def static(n: int) -> str:
        return str(n)


class Child(Client):
    async def ask(self, n: int) -> str:
        return await super().ask(n)


class Echo:
    async def __call__(self, n: int) -> str:
        return str(n)


async def main() -> None:
    assert_type(await ask("ann"), float)
    assert_type(await ask(user="ann", n=2), float)
    assert_type(await plain(3, word="x"), str)
    assert_type(await nothing(), None)
    client = Client()
    assert_type(await client.ask(3), str)
    assert_type(await Child().ask(n=3), str)
    assert_type(await client.plain(3), str)
    assert_type(await Client.above(3), str)
    assert_type(await client.below(3), str)
    assert_type(await Client.static(3), str)
    assert_type(await limiter.limited("a")(Echo())(3), str)
    assert_type(await limiter.limited("a")(partial(multiply, word="x"))(3), str)
    fits: Callable[[str], Coroutine[Any, Any, float]] = ask
    assert_type(await fits("ann"), float)

    await ask(3)  # type: ignore[arg-type]
    await ask()  # type: ignore[call-arg]
    await plain(3, "x")  # type: ignore[call-arg]
    await client.ask("x")  # type: ignore[arg-type]
    plain(3, word="x").upper()  # type: ignore[attr-defined]


def mistakes() -> None:
    limiter.limited("a", by=wrong)  # type: ignore[arg-type]
    limiter.limited("a", by=late)  # type: ignore[arg-type]
    limiter.limited("a", by=1.5)  # type: ignore[arg-type]
    limiter.limited("a", cost=wrong)  # type: ignore[arg-type]
    limiter.limited("a", cost=user_of)  # type: ignore[arg-type]
    limiter.limited("a", prority=1)  # type: ignore[call-arg]
    limiter.limited("a", id="x")  # type: ignore[call-arg]
    limiter.limited("a", "b")  # type: ignore[call-arg]
    limiter.limited(ask)  # type: ignore[arg-type]
    limiter.limited()  # type: ignore[call-arg]


def durations() -> None:
    minute = timedelta(minutes=1)
    assert_type(Limit(5, minute, guard=minute).period, float)
    Limit.per_second(5, guard=minute)
    Limit(5, "1m")  # type: ignore[arg-type]
    assert_type(QueueConfig(timeout=minute, max_wait_before_promotion=minute).timeout, float | None)
    QueueConfig(timeout="1m")  # type: ignore[arg-type]
    QueueConfig(100)  # type: ignore[call-arg]
    config = RateLimitConfig([Limit(5, minute), "9/hour"], {"timeout": minute}, by={"vip": "9/minute", "x": (5, 60)})
    assert_type(config.queue, QueueConfig)
    assert_type(config.limits, tuple[Limit, ...])
    assert_type(config.by, dict[str, RateLimitConfig])
    RateLimitConfig("9/minute", queue=5)  # type: ignore[arg-type]
    RateLimitConfig("9/minute", by={7: "9/minute"}, queue=QueueConfig())
    RateLimitConfig("9/minute", on_outage="alow")  # type: ignore[arg-type]
    RateLimiter(poll_interval=minute, lease=minute, command_timeout=minute, shutdown_timeout=minute, task_grace=minute)
    RateLimiter(lease="5")  # type: ignore[arg-type]
    RateLimiter(poll=5)  # type: ignore[call-arg]
    assert_type(Retry(after=minute).after, float)
    assert_type(RetryAfter(minute).seconds, float)
    RequestOptions(timeout=minute, backoff=minute)
    limiter.task("x", backoff=minute, run_timeout=minute, result_ttl=minute)
    limiter.acquire("a", timeout=minute)


async def pause() -> None:
    await limiter.pause_for("a", timedelta(minutes=1))
