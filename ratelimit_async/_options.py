"""What a single request may say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypedDict

import msgspec

from ratelimit_async._config import Cost, Priority, check_switch, decode_name, decode_seconds
from ratelimit_async._errors import ConfigurationError, RetryAfter

__all__ = [
    "UNSET",
    "AcquireArguments",
    "Durability",
    "LimitedArguments",
    "RequestArguments",
    "RequestOptions",
    "Unset",
    "check_durability",
]

Durability: TypeAlias = Literal["primary", "replicated"]


class Unset(Enum):
    """The type of UNSET: something that was not given, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


def _check_function(field: str, value: object) -> None:
    if not callable(value):
        raise ConfigurationError(field, value, "must be a function of the result, or None")


def _check_errors(field: str, value: type[Exception] | tuple[type[Exception], ...]) -> None:
    types: tuple[object, ...] = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(one, type) and issubclass(one, Exception) for one in types):
        raise ConfigurationError(field, value, "must be an exception's type, or a tuple of them")


def check_durability(value: object) -> None:
    """Refuse what is no durability."""
    if value not in ("primary", "replicated"):
        raise ConfigurationError("durability", value, "must be 'primary' or 'replicated'")


class RequestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may say about itself, as one value; `timeout` and `fail_fast` UNSET mean the queue's.

    Those from `settle` on are for calls that the limiter itself makes: `request` and `submit`; of them, `id` and
    `durability` are for durable tasks, the others for functions.
    """

    by: str | int | None = None
    cost: Cost = 1
    priority: Priority = "normal"
    timeout: float | timedelta | Unset | None = UNSET
    fail_fast: bool | Unset = UNSET
    settle: Callable[[Any], Cost | None] | None = None
    on_result: Callable[[Any], RetryAfter | None] | None = None
    retry_on: type[Exception] | tuple[type[Exception], ...] = ()
    max_retries: int = 3
    backoff: float | timedelta = 0.5
    id: str | None = None
    durability: Durability | Unset = UNSET

    @property
    def first_backoff(self) -> float:
        """Seconds before the first retry."""
        return decode_seconds("backoff", self.backoff)

    def __post_init__(self) -> None:
        """Check what no other place checks."""
        if not isinstance(self.fail_fast, Unset):
            check_switch("fail_fast", self.fail_fast)
        # Every request makes one of these, and most leave nearly all at its default.
        if self.settle is not None:
            _check_function("settle", self.settle)
        if self.on_result is not None:
            _check_function("on_result", self.on_result)
        if self.retry_on or not isinstance(self.retry_on, tuple):
            _check_errors("retry_on", self.retry_on)
        retries: object = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigurationError("max_retries", retries, "must be a whole number, 0 or more")
        decode_seconds("backoff", self.backoff)
        if self.id is not None:
            decode_name(self.id, "id")
        if not isinstance(self.durability, Unset):
            check_durability(self.durability)


class WaitArguments(TypedDict, total=False):
    """How a request waits, as keywords for type checkers."""

    priority: Priority
    timeout: float | timedelta | None
    fail_fast: bool


class AcquireArguments(WaitArguments, total=False):
    """What `acquire` takes as keywords, for type checkers; a test holds it against RequestOptions."""

    by: str | int | None
    cost: Cost


class LimitedArguments(WaitArguments, total=False):
    """The same for `limited`, beside `by` and `cost`, which it takes as functions too."""

    settle: Callable[[Any], Cost | None] | None
    on_result: Callable[[Any], RetryAfter | None] | None
    retry_on: type[Exception] | tuple[type[Exception], ...]
    max_retries: int
    backoff: float | timedelta


class RequestArguments(AcquireArguments, LimitedArguments, total=False):
    """The same for `request` and `submit`."""

    id: str | None
    durability: Durability
