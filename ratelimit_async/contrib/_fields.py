"""What an answer tells of limits: the fields of draft-ietf-httpapi-ratelimit-headers-11, and what others read."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit_async import Decision, Limit, RateLimitConfig

__all__ = ["Told", "policy_of", "seconds_of", "write_fields"]

# The draft's own name for it.
_UNITS = {"concurrent": "concurrent-requests"}
_MOST = 999_999_999_999_999  # of an integer in structured fields


class Told(NamedTuple):
    """A decision, and whose limits it is of."""

    name: str
    config: RateLimitConfig
    decision: Decision

    @property
    def left(self) -> tuple[bool, float]:
        """How much is left of the limit that binds, as a part of it; a denial is less than anything."""
        return self.decision.allowed, self.decision.remaining / self.decision.limit.most


def write_fields(told: Sequence[Told], *, legacy: bool) -> Iterator[tuple[bytes, bytes]]:
    """Write all policies, and how the limit stands of which the least is left.

    Args:
        told: The decisions of one request, at least one.
        legacy: Whether X-RateLimit-* are written too.

    Returns:
        Names and values, as ASGI wants them.
    """
    # By name, once each: one may have been asked for several subjects.
    policies = {one.name: _policies(one.name, one.config) for one in told}
    yield b"ratelimit-policy", ", ".join(policies.values()).encode()
    least = min(told, key=lambda one: one.left)
    decision = least.decision
    # Nobody knows what is left where nobody was asked.
    if decision.source == "outage":
        return
    binds = decision.limit
    remaining = min(decision.remaining, _MOST) if decision.allowed or decision.reason == "limit" else 0
    after = decision.reset_after if decision.allowed else decision.retry_after
    # What runs ends when it ends: a concurrency has no window.
    until = "" if after is None or (decision.allowed and not binds.period) else f";t={seconds_of(after)}"
    yield b"ratelimit", f"{_text(policy_of(least.name, least.config, binds))};r={remaining}{until}".encode()
    if legacy:
        yield b"x-ratelimit-limit", b"%d" % binds.most
        yield b"x-ratelimit-remaining", b"%d" % remaining
        if after is not None:
            yield b"x-ratelimit-reset", b"%d" % seconds_of(after)


def seconds_of(seconds: float) -> int:
    """Give whole seconds, never too few of them."""
    return min(math.ceil(seconds), _MOST)


def policy_of(name: str, config: RateLimitConfig, limit: Limit) -> str:
    """Name one limit of a name: the first as the name, the others by their place."""
    place = config.limits.index(limit) + 1 if limit in config.limits else 1
    return name if place == 1 else f"{name}-{place}"


@lru_cache(maxsize=1024)
def _policies(name: str, config: RateLimitConfig) -> str:
    return ", ".join(_policy(policy_of(name, config, limit), limit) for limit in config.limits)


def _policy(policy: str, limit: Limit) -> str:
    unit = "" if limit.unit == "requests" else f";qu={_text(_UNITS.get(limit.unit, limit.unit))}"
    # Whole seconds only; a longer window promises less.
    window = f";w={math.ceil(limit.period)}" if limit.period else ""
    return f"{_text(policy)};q={limit.amount}{unit}{window}"


def _text(text: str) -> str:
    """Write a string as structured fields do; they know no other characters than ASCII's."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
