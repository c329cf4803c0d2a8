"""Limiters on the embedded server, whatever they were built for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ratelimit_async._lifecycle import elsewhere
from ratelimit_async._limits import MOST

if TYPE_CHECKING:
    from collections.abc import Generator

    from ratelimit_async import RateLimitConfig, RateLimiter

__all__ = ["on_memory", "unlimited"]

L = TypeVar("L", bound="RateLimiter")
# Seconds. What is in one process dies as one and loses no message: a clock that is advanced need not stop for either.
_DAY = 86_400.0


@contextlib.contextmanager
def on_memory(limiter: L) -> Generator[L]:
    """Have a limiter run on an embedded server of its own, in place of its Redis, for as long as a block lasts.

    Nobody enters it by that: `async with limiter` does, or the app's lifespan. Its limits stay what they are, its
    leases last a day.

    Args:
        limiter: One that is not entered, such as an app's at module level.

    Returns:
        The limiter, until the block ends.

    Raises:
        ConfigurationError: If it is entered already, or still when the block ends, or the extra `embedded` is missing.
    """
    with elsewhere(limiter, "memory://", lease=_DAY, poll_interval=_DAY):
        yield limiter


@contextlib.contextmanager
def unlimited(limiter: L) -> Generator[L]:
    """Have a limiter let everything pass: calls run at once, decisions are allowed; it needs no Redis.

    It runs as with `on_memory`, with limits that nobody reaches.

    Args:
        limiter: One that is not entered, such as an app's at module level.

    Returns:
        The limiter, until the block ends.

    Raises:
        ConfigurationError: If it is entered already, or still when the block ends, or the extra `embedded` is missing.
    """
    with elsewhere(limiter, "memory://", adapt=_raised, lease=_DAY, poll_interval=_DAY):
        yield limiter


def _raised(config: RateLimitConfig) -> RateLimitConfig:
    limits = [
        msgspec.structs.replace(limit, amount=MOST, burst=limit.burst and MOST, guard=0.0) for limit in config.limits
    ]
    # What is not enforced is not even paused.
    return msgspec.structs.replace(config, limits=limits, enforce=False)
