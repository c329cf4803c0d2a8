"""Decisions and other values that calls answer with."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from ratelimit_async._errors import RateLimitExceeded
from ratelimit_async._limits import Limit

__all__ = [
    "DeadLetter",
    "Decision",
    "Health",
    "KeyInfo",
    "LimitStatus",
    "ProcessorStatus",
    "QueueStatus",
    "Reason",
    "Status",
    "TaskStatus",
    "WaitingRequest",
    "spell_arguments",
]

Reason: TypeAlias = Literal["ok", "limit", "queue", "paused", "outage"]
BreakerState: TypeAlias = Literal["closed", "open", "half-open"]
Decider: TypeAlias = Literal["redis", "denied_cache", "local", "outage"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a check.

    Args:
        allowed: Whether the call may go ahead.
        reason: `"ok"`; `"limit"`: a limit is used up; `"queue"`: others wait for this key; `"paused"`;
            `"outage"`: Redis is away and the configuration denies all then.
        limit: The limit that binds: the one that denies for longest, or, when allowed, the one nearest to its end.
        remaining: What is left of that limit, in its unit.
        retry_after: Seconds until the same call can pass, if nobody else comes; 0 when allowed, None when not known.
            Where running calls are in the way: until their leases end, if nobody renews them; one that ends frees it
            earlier.
        reset_after: Seconds until that limit is unused again, by the same measure.
        source: Who decided: `"redis"`; `"denied_cache"`: this process, which was denied before; in an outage `"local"`:
            this process, by its share of the limits, which the numbers here are of; or `"outage"`: nobody, by
            configuration, and `remaining` is 0 because it is not known.
        shadow: True where the call was only allowed because its configuration does not enforce; `reason` says why it
            would not have been.
    """

    allowed: bool
    reason: Reason
    limit: Limit
    remaining: int
    retry_after: float | None
    reset_after: float
    source: Decider = "redis"
    shadow: bool = False

    def raise_if_denied(self) -> None:
        """Turn a denial into an exception.

        Raises:
            RateLimitExceeded: If the decision is a denial; it carries this decision.
        """
        if not self.allowed:
            raise RateLimitExceeded(self)


class LimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One limit now: used and remaining in its unit; `reset_after`, seconds until it is unused again."""

    limit: Limit
    used: int
    remaining: int
    reset_after: float


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A key's queue now; waits in seconds, `estimated_wait` for one more request of normal priority and cost 1."""

    depth: int
    depth_by_priority: tuple[int, ...]
    oldest_wait: float
    estimated_wait: float


class ProcessorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Who grants: `active`, whether any process drives this key now; the rest is this process' own processor.

    `last_run` is seconds since it last looked at any queue, None if it never did; `runs` and `grants` count all keys.
    """

    active: bool
    last_run: float | None
    runs: int
    grants: int


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A key's durable tasks now, beside those in its queue.

    `running`; `delayed`: to be tried again; `parked`: no worker has them; `dead`: among the dead letters; `workers`:
    processes that run tasks of this key.
    """

    running: int
    delayed: int
    parked: int
    dead: int
    workers: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A key's limits, queue and processor now, or those of all `keys` of a name together.

    `resumes_in`: seconds until a pause ends by itself; None where it does not, or there is none.
    """

    name: str
    by: str | None
    keys: int
    paused: bool
    resumes_in: float | None
    limits: tuple[LimitStatus, ...]
    queue: QueueStatus
    processor: ProcessorStatus
    tasks: TaskStatus


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A limit key of which Redis holds something."""

    name: str
    by: str | None


class WaitingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request in the queue: its place, 1 for the next; its age in seconds; its level, 0 for the first to go."""

    id: str
    position: int
    age: float
    priority: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A durable task that failed for good: its error as text, and when it died, in seconds since the epoch.

    `arguments` are the positional ones and the keywords as plain data; None where they cannot be read.
    """

    id: str
    task: str
    error: str
    attempts: int
    died_at: float
    arguments: tuple[list[Any], dict[str, Any]] | None


def spell_arguments(letter: DeadLetter) -> str | None:
    """Write a dead letter's arguments as its call would; None where they cannot be read."""
    if letter.arguments is None:
        return None
    positional, keywords = letter.arguments
    return ", ".join([*map(repr, positional), *(f"{name}={value!r}" for name, value in keywords.items())])


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a limiter is.

    Args:
        ok: Redis answers and every part of the limiter runs.
        redis: Whether Redis answered.
        latency: Seconds that the answer took, None without one.
        address: The Redis in question.
        replies: Whether the reply channel is subscribed.
        processor: Whether the processor runs; None where it is switched off.
        keys: Limit keys, each a name and subject, that this process has in use or used lately.
        breaker: `"closed"`: calls go to Redis; `"open"`: they are answered without it; `"half-open"`: one probe looks
            whether it is back.
        processes: Limiters of this prefix that were last seen alive, this one included.
        scripts: The scripts' SHA1 digests by name.
        error: What went wrong, "" if nothing.
    """

    ok: bool
    redis: bool
    latency: float | None
    address: str
    replies: bool
    processor: bool | None
    keys: int
    breaker: BreakerState
    processes: int
    scripts: dict[str, str]
    error: str
