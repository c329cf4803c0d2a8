"""Configurations of names, and what a single request may say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias, TypedDict, cast

import msgspec

from ratelimit_async._errors import ConfigurationError, CostExceedsLimit
from ratelimit_async._limits import MOST, Limit, decode_limits

__all__ = [
    "UNSET",
    "Cost",
    "Priority",
    "QueueConfig",
    "RateLimitConfig",
    "RequestArguments",
    "RequestOptions",
    "Unset",
    "decode_config",
    "decode_configs",
    "decode_cost",
    "decode_name",
    "decode_priority",
    "decode_subject",
    "decode_timeout",
]

Cost: TypeAlias = int | Mapping[str, int]
Priority: TypeAlias = int | str

_LONGEST_NAME = 256
_MOST_SUBJECT = 10 ** (_LONGEST_NAME - 1)
_MOST_WAITING = 1_000_000
_MOST_LEVELS = 16


class Unset(Enum):
    """The type of UNSET: something that was not given, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How requests of a name wait.

    Args:
        max_size: Most requests that wait for one key.
        overflow: What happens to one more: `"reject"`: QueueFull; `"drop_oldest"`: the oldest of the worst priority
            that is not better than the newcomer's goes.
        priorities: Levels; 0 goes first, the last is `priorities - 1`.
        timeout: Seconds that a request waits at most if it does not say otherwise; None: without bound.

    Raises:
        ConfigurationError: If a field cannot be used.
    """

    max_size: int = 1000
    overflow: Literal["reject", "drop_oldest"] = "reject"
    priorities: int = 3
    timeout: float | None = 300.0

    def __post_init__(self) -> None:
        """Check every field."""
        _check_count("queue.max_size", self.max_size, _MOST_WAITING)
        _check_count("queue.priorities", self.priorities, _MOST_LEVELS)
        if self.overflow not in ("reject", "drop_oldest"):
            raise ConfigurationError("queue.overflow", self.overflow, "must be 'reject' or 'drop_oldest'")
        timeout = decode_timeout(self.timeout, "queue.timeout")
        if timeout == 0:
            raise ConfigurationError("queue.timeout", self.timeout, "must be more than 0 seconds, or None")
        msgspec.structs.force_setattr(self, "timeout", timeout)


class RateLimitConfig(msgspec.Struct, frozen=True, eq=False, dict=True):
    """What a name allows, and how its requests wait.

    Args:
        limits: A text, tuple, mapping, `Limit`, or a list of them; kept as a tuple of `Limit`s.
        queue: A `QueueConfig`, or a mapping of its fields.

    Raises:
        ConfigurationError: If a field cannot be used.
    """

    # Whatever decode_limits reads may be given; what is kept are Limits.
    limits: Any
    queue: QueueConfig = msgspec.field(default_factory=QueueConfig)

    @property
    def parsed(self) -> tuple[Limit, ...]:
        """The limits, by their type."""
        return cast("tuple[Limit, ...]", self.limits)

    @cached_property
    def units(self) -> frozenset[str]:
        """What the limits count."""
        return frozenset(limit.unit for limit in self.parsed)

    @cached_property
    def one_request(self) -> dict[str, int]:
        """The cost of a request that names none; shared, so not to be changed."""
        return {"requests": 1} if "requests" in self.units else {}

    def __post_init__(self) -> None:
        """Decode what was given."""
        msgspec.structs.force_setattr(self, "limits", decode_limits(self.limits, "limits"))
        queue: object = self.queue
        if isinstance(queue, Mapping):
            fields = cast("Mapping[str, Any]", queue)
            for key in fields:
                if key not in QueueConfig.__struct_fields__:
                    known = ", ".join(QueueConfig.__struct_fields__)
                    raise ConfigurationError(f"queue.{key}", fields[key], f"is not one of {known}")
            msgspec.structs.force_setattr(self, "queue", QueueConfig(**fields))
        elif not isinstance(queue, QueueConfig):
            raise ConfigurationError("queue", queue, "must be a QueueConfig or a mapping of its fields")


class RequestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may say about itself, as one value; `timeout` UNSET means the queue's."""

    by: str | int | None = None
    cost: Cost = 1
    priority: Priority = "normal"
    timeout: float | timedelta | Unset | None = UNSET


class RequestArguments(TypedDict, total=False):
    """The same as keywords, for type checkers; a test holds them against RequestOptions."""

    by: str | int | None
    cost: Cost
    priority: Priority
    timeout: float | timedelta | None


def _check_count(field: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise ConfigurationError(field, value, f"must be a whole number from 1 to {most}")


def decode_configs(limits: object, default: object) -> tuple[dict[str, RateLimitConfig], RateLimitConfig | None]:
    """Read the configurations of all names, and that of the others."""
    if limits is None:
        limits = {}
    if not isinstance(limits, Mapping):
        raise ConfigurationError("limits", limits, "must be a mapping from names to what they allow")
    specs = cast("Mapping[object, object]", limits)
    configs = {decode_name(name, "limits"): decode_config(spec, f"limits[{name!r}]") for name, spec in specs.items()}
    return configs, None if default is None else decode_config(default, "default")


def decode_config(spec: object, field: str) -> RateLimitConfig:
    """Read one configuration, in whatever form."""
    if isinstance(spec, RateLimitConfig):
        return spec
    fields: dict[str, Any] = {"limits": spec}
    if isinstance(spec, Mapping) and ("limits" in spec or "queue" in spec):
        fields = dict(cast("Mapping[str, Any]", spec))
        for key in fields:
            if key not in RateLimitConfig.__struct_fields__:
                raise ConfigurationError(f"{field}.{key}", fields[key], "is not one of limits, queue")
        if "limits" not in fields:
            raise ConfigurationError(f"{field}.limits", fields, "is missing")
    try:
        return RateLimitConfig(**fields)
    except ConfigurationError as error:
        inner = error.field
        if "limits" not in fields or fields["limits"] is spec:
            inner = inner.removeprefix("limits").lstrip(".")
        joint = "" if not inner or inner.startswith("[") else "."
        raise ConfigurationError(f"{field}{joint}{inner}", error.value, error.problem) from None


def decode_cost(cost: object, config: RateLimitConfig, *, limited: bool = True) -> dict[str, int]:
    """Read a cost into numbers by unit, of the units that are limited; a request costs 1 request unless said."""
    # Nearly every call; a settled cost is handed to hooks, which must not meet the shared one.
    if limited and type(cost) is int and cost == 1:
        return config.one_request
    given: dict[str, object] = {"requests": 1}
    if isinstance(cost, Mapping):
        given.update(cast("Mapping[str, object]", cost))
    else:
        given["requests"] = cost
    limits = config.parsed
    units = config.units
    costs: dict[str, int] = {}
    for unit, number in given.items():
        field = f"cost[{unit!r}]" if isinstance(cost, Mapping) else "cost"
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST:
            raise ConfigurationError(field, number, f"must be a whole number from 0 to {MOST}")
        if unit in units:
            costs[unit] = number
        elif unit != "requests":
            known = ", ".join(sorted(units))
            raise ConfigurationError(field, number, f"no limit of this name counts it; they count {known}")
    if limited:
        for limit in limits:
            if costs.get(limit.unit, 0) > limit.amount:
                raise CostExceedsLimit(costs[limit.unit], limit.unit, str(limit))
    return costs


def decode_priority(priority: object, levels: int) -> int:
    """Read a priority into its level, 0 first."""
    names = {"high": 0, "normal": levels // 2, "low": levels - 1}
    if isinstance(priority, str) and priority in names:
        return names[priority]
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority < levels:
        problem = f"must be from 0 (first) to {levels - 1} (last), or 'high', 'normal', 'low'"
        raise ConfigurationError("priority", priority, problem)
    return priority


def decode_timeout(timeout: object, field: str = "timeout") -> float | None:
    """Read a timeout into seconds; None is no bound."""
    if isinstance(timeout, timedelta):
        timeout = timeout.total_seconds()
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout <= MOST:
        raise ConfigurationError(field, timeout, "must be seconds, 0 or more, a timedelta, or None")
    return float(timeout)


def decode_name(name: object, field: str = "name") -> str:
    """Check a name: any text will do, if it is there and not endless."""
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigurationError(field, name, f"must be a text of 1 to {_LONGEST_NAME} characters")
    return name


def decode_subject(by: object) -> str | None:
    """Check a subject: None, a number, or any text that is there and not endless."""
    if by is None:
        return None
    if isinstance(by, int) and not isinstance(by, bool) and abs(by) < _MOST_SUBJECT:
        return str(by)
    if not isinstance(by, str) or not 0 < len(by) <= _LONGEST_NAME:
        problem = f"must be None, a number, or a text of 1 to {_LONGEST_NAME} characters"
        raise ConfigurationError("by", by, problem)
    return by
