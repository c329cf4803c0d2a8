"""What a single request may say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypedDict

import msgspec

from ratelimit_async._config import Cost, Priority, check_switch, decode_name, decode_seconds
from ratelimit_async._errors import ConfigurationError, RetryAfter

__all__ = ["UNSET", "AcquireArguments", "Durability", "RequestArguments", "RequestOptions", "Unset", "check_durability"]

Durability: TypeAlias = Literal["primary", "replicated"]


class Unset(Enum):
    """The type of UNSET: something that was not given, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


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
        for field in ("settle", "on_result"):
            if not (getattr(self, field) is None or callable(getattr(self, field))):
                raise ConfigurationError(field, getattr(self, field), "must be a function of the result, or None")
        types: tuple[object, ...] = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        if not all(isinstance(one, type) and issubclass(one, Exception) for one in types):
            raise ConfigurationError("retry_on", self.retry_on, "must be an exception's type, or a tuple of them")
        retries: object = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigurationError("max_retries", retries, "must be a whole number, 0 or more")
        decode_seconds("backoff", self.backoff)
        if self.id is not None:
            decode_name(self.id, "id")
        if not isinstance(self.durability, Unset):
            check_durability(self.durability)


class AcquireArguments(TypedDict, total=False):
    """What `acquire` takes as keywords, for type checkers; a test holds it against RequestOptions."""

    by: str | int | None
    cost: Cost
    priority: Priority
    timeout: float | timedelta | None
    fail_fast: bool


class RequestArguments(AcquireArguments, total=False):
    """The same for `request` and `submit`."""

    settle: Callable[[Any], Cost | None] | None
    on_result: Callable[[Any], RetryAfter | None] | None
    retry_on: type[Exception] | tuple[type[Exception], ...]
    max_retries: int
    backoff: float | timedelta
    id: str | None
    durability: Durability
