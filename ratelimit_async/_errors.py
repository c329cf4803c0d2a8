"""All errors; a leaf. *Not yet* (RateLimitExceeded, RequestTimeout) and *never* (CostExceedsLimit) differ."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratelimit_async._values import Decision

__all__ = [
    "ConfigurationError",
    "CostExceedsLimit",
    "DurabilityUnknown",
    "NotStarted",
    "QueueFull",
    "RateLimitError",
    "RateLimitExceeded",
    "RedisUnavailable",
    "RequestCancelled",
    "RequestDropped",
    "RequestTimeout",
    "Retry",
    "RetryAfter",
    "TaskFailed",
    "UnknownRequest",
    "WrongEventLoop",
]

_LONGEST = 100


def shown(value: object) -> str:
    """Write a value into an error's text, shortened."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an int of 5,000 digits has no repr; that must not hide what is wrong with it
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def read_seconds(given: object, least: float, most: float) -> float | None:
    """Read seconds or a timedelta; None: it is neither, or out of bounds."""
    value = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        return None
    return float(value)


def _decode_seconds(field: str, given: object) -> float:
    seconds = read_seconds(given, 0, sys.float_info.max)
    if seconds is None:
        raise ConfigurationError(field, given, "must be seconds, 0 or more, or a timedelta")
    return seconds


class RateLimitError(Exception):
    """The root of all errors of this library; its arguments are its attributes, so it pickles."""


class ConfigurationError(RateLimitError, ValueError):
    """Something given cannot be used; names the field and the value."""

    def __init__(self, field: str, value: object, problem: str) -> None:
        """Keep all three."""
        super().__init__(field, value, problem)
        self.field = field
        self.value = value
        self.problem = problem

    def __str__(self) -> str:
        """Name field, problem and value."""
        return f"{self.field}: {self.problem} (got {shown(self.value)})"


class RateLimitExceeded(RateLimitError):
    """A check was denied; `decision` says why and until when."""

    def __init__(self, decision: Decision) -> None:
        """Keep the decision."""
        super().__init__(decision)
        self.decision = decision

    def __str__(self) -> str:
        """Say when it can pass."""
        retry = self.decision.retry_after
        when = "" if retry is None else f"; retry after {retry:.3f} s"
        return f"rate limit {str(self.decision.limit)!r} denied this call ({self.decision.reason}){when}"


class RequestTimeout(RateLimitError, TimeoutError):
    """A request was not granted in time, or would not be; it has not run and costs nothing."""

    # As an OSError it would take its first arguments for these, and others believe them.
    errno: int | None = None
    strerror: str | None = None

    def __init__(self, name: str, timeout: float | None, estimate: float | None = None) -> None:
        """Keep whose it was, its timeout, s, and, where it was refused at once, the wait that was estimated, s."""
        super().__init__(name, timeout, estimate)
        self.name = name
        self.timeout = timeout
        self.estimate = estimate

    def __str__(self) -> str:
        """Say how long it waited, or would have."""
        if self.estimate is None:
            return f"request for {self.name!r} was not granted within {self.timeout} s"
        wait = f"would wait about {self.estimate:.3f} s, more than its timeout of {self.timeout} s"
        return f"request for {self.name!r} {wait}"


class RetryAfter(RateLimitError):
    """For the functions of requests to raise: the upstream wants to be left alone for so many seconds.

    The key is paused for as long, in every process, and the request goes back to the front of its priority, up to
    `max_retries` times; then this error passes through.

    Args:
        seconds: How long, from now on; or a `timedelta`.

    Raises:
        ConfigurationError: If that is no time.
    """

    def __init__(self, seconds: float | timedelta) -> None:
        """Keep the seconds."""
        self.seconds = _decode_seconds("seconds", seconds)
        super().__init__(self.seconds)

    def __str__(self) -> str:
        """Say how long."""
        return f"the upstream asked to retry after {self.seconds} s"


class Retry(RateLimitError):
    """For durable tasks to raise: try this one again, at the front of its priority; it counts as an attempt.

    Args:
        after: Seconds until then, or a `timedelta`.

    Raises:
        ConfigurationError: If that is no time.
    """

    def __init__(self, after: float | timedelta = 0.0) -> None:
        """Keep the seconds."""
        self.after = _decode_seconds("after", after)
        super().__init__(self.after)

    def __str__(self) -> str:
        """Say when."""
        return f"to be tried again after {self.after} s"


class TaskFailed(RateLimitError):
    """A durable task failed for good; it is among the dead letters of its name."""

    def __init__(self, id: str, attempts: int, error: str) -> None:
        """Keep which, how often it was tried, and what it raised last, as text."""
        super().__init__(id, attempts, error)
        self.id = id
        self.attempts = attempts
        self.error = error

    def __str__(self) -> str:
        """Say what it raised."""
        return f"task {self.id!r} failed after {self.attempts} attempts: {self.error}"


class DurabilityUnknown(RateLimitError):
    """The primary took the task, but too few replicas confirmed it in time: submit it again with the same id."""

    def __init__(self, id: str, replicas: int, wanted: int) -> None:
        """Keep which, how many confirmed it and how many were asked for."""
        super().__init__(id, replicas, wanted)
        self.id = id
        self.replicas = replicas
        self.wanted = wanted

    def __str__(self) -> str:
        """Say how many confirmed it."""
        confirmed = f"{self.replicas} of {self.wanted} replicas have confirmed it"
        return f"task {self.id!r}: {confirmed}; submit it again with this id"


class CostExceedsLimit(RateLimitError):
    """A cost that a limit can never allow, however long one waits."""

    def __init__(self, cost: int, unit: str, limit: str) -> None:
        """Keep the cost, its unit and the limit."""
        super().__init__(cost, unit, limit)
        self.cost = cost
        self.unit = unit
        self.limit = limit

    def __str__(self) -> str:
        """Name the limit."""
        return f"a cost of {self.cost} {self.unit} can never pass the limit {self.limit!r}"


class QueueFull(RateLimitError):
    """The queue holds as many as it may."""

    def __init__(self, name: str, max_size: int) -> None:
        """Keep whose queue it is and its bound."""
        super().__init__(name, max_size)
        self.name = name
        self.max_size = max_size

    def __str__(self) -> str:
        """Name the queue."""
        return f"the queue of {self.name!r} is full ({self.max_size} requests wait)"


class RequestDropped(RateLimitError):
    """A waiting request had to go, for the reason given."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        """Give the reason."""
        return f"the request was dropped: {self.reason}"


class RequestCancelled(RateLimitError):
    """A waiting request was cancelled by somebody else than its caller."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        """Give the reason."""
        return f"the request was cancelled: {self.reason}"


class UnknownRequest(RateLimitError, LookupError):
    """No request of this id waits."""

    def __init__(self, id: object) -> None:
        """Keep the id."""
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        """Name it."""
        return f"no request {self.id!r} waits here"


class RedisUnavailable(RateLimitError, ConnectionError):
    """Redis cannot be reached, does not answer, or refuses.

    `outage` tells which: True where it is gone, hangs or is not ready, so that `on_outage` applies; False where it
    answers and refuses, such as a wrong password or a memory limit that is reached.
    """

    # As in RequestTimeout.
    errno: int | None = None
    strerror: str | None = None

    def __init__(self, address: str, problem: str, *, outage: bool = False) -> None:
        """Keep which Redis, what is wrong and of which kind it is."""
        super().__init__(address, problem)
        self.address = address
        self.problem = problem
        self.outage = outage

    def copy(self) -> RedisUnavailable:
        """Give one more, for another caller: an exception gathers the frames that it passes through."""
        return RedisUnavailable(self.address, self.problem, outage=self.outage)

    def __str__(self) -> str:
        """Name the address."""
        return f"Redis at {self.address}: {self.problem}"


class NotStarted(RateLimitError, RuntimeError):
    """The limiter was used before it was entered or after it was left."""

    def __str__(self) -> str:
        """Say what to do."""
        return "the limiter is not running: use it inside `async with limiter:`"


class WrongEventLoop(RateLimitError, RuntimeError):
    """The limiter was used from another event loop than the one it was entered in."""

    def __str__(self) -> str:
        """Say what to do."""
        return "the limiter belongs to another event loop: enter it in the loop that uses it"
