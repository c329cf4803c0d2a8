"""Configurations of names, and what a single request may say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import msgspec

from ratelimit_async._errors import ConfigurationError, CostExceedsLimit, read_seconds
from ratelimit_async._limits import MOST, Limit, decode_limits
from ratelimit_async._spelling import Form

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = [
    "Cost",
    "Priority",
    "QueueConfig",
    "RateLimitConfig",
    "assign_slots",
    "check_cost",
    "check_count",
    "check_switch",
    "decode_config",
    "decode_cost",
    "decode_mapping",
    "decode_name",
    "decode_priority",
    "decode_seconds",
    "decode_subject",
    "decode_timeout",
]

Cost: TypeAlias = int | Mapping[str, int]
Priority: TypeAlias = int | str
Overflow: TypeAlias = Literal["reject", "drop_oldest", "drop_lowest"]
OnOutage: TypeAlias = Literal["local", "allow", "deny", "raise"]

_LONGEST_NAME = 256
_MOST_SUBJECT = 10 ** (_LONGEST_NAME - 1)
_MOST_WAITING = 1_000_000
_MOST_LEVELS = 16
_OVERFLOWS: tuple[str, ...] = get_args(Overflow)
_ON_OUTAGE: tuple[str, ...] = get_args(OnOutage)


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How requests of a name wait.

    Args:
        max_size: Most requests that wait for one key.
        overflow: What happens to one more: `"reject"`: QueueFull; `"drop_oldest"`: the oldest of the worst priority
            that is not better than the newcomer's goes; `"drop_lowest"`: the newest of the worst priority that is worse
            than the newcomer's goes. The caller that goes gets RequestDropped; if there is none, QueueFull.
        priorities: Levels; 0 goes first, the last is `priorities - 1`.
        timeout: Seconds, or a `timedelta`, that a request waits at most if it does not say otherwise; None: without
            bound.
        fail_fast: Whether a request that cannot be served before its timeout is refused at once, if it does not say
            otherwise.
        max_wait_before_promotion: Seconds, or a `timedelta`, after which a waiter is lifted to the next better level,
            and again after as long in that one; None: never.

    Raises:
        ConfigurationError: If a field cannot be used.
    """

    max_size: int = 1000
    overflow: Overflow = "reject"
    priorities: int = 3
    timeout: float | None = 300.0
    fail_fast: bool = False
    max_wait_before_promotion: float | None = None

    if TYPE_CHECKING:
        # What may be given is more than what is kept; a test holds the one against the other.
        def __init__(
            self,
            *,
            max_size: int = 1000,
            overflow: Overflow = "reject",
            priorities: int = 3,
            timeout: float | timedelta | None = 300.0,
            fail_fast: bool = False,
            max_wait_before_promotion: float | timedelta | None = None,
        ) -> None:
            """Check every field."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_count("queue.max_size", self.max_size, _MOST_WAITING)
        check_count("queue.priorities", self.priorities, _MOST_LEVELS)
        if self.overflow not in _OVERFLOWS:
            raise ConfigurationError("queue.overflow", self.overflow, f"must be one of {', '.join(_OVERFLOWS)}")
        check_switch("queue.fail_fast", self.fail_fast)
        for field in ("timeout", "max_wait_before_promotion"):
            given = getattr(self, field)
            seconds = decode_timeout(given, f"queue.{field}")
            if seconds == 0:
                raise ConfigurationError(f"queue.{field}", given, "must be more than 0 seconds, or None")
            msgspec.structs.force_setattr(self, field, seconds)


class RateLimitConfig(msgspec.Struct, frozen=True, dict=True):
    """What a name allows, and how its requests wait; equal to one that means the same, however that was written.

    Args:
        limits: A text, tuple, mapping, `Limit`, or a list of them; kept as a tuple of `Limit`s.
        queue: A `QueueConfig`, or a mapping of its fields.
        enforce: False: shadow mode: limits are counted and what they would deny is told, but nothing is denied.
        denial_cache: Whether a process that was denied answers the same itself, until it may pass or hears of a change.
        by: Configurations for single subjects of the name, or for patterns of them such as `"trial-*"`.
        on_outage: Who decides while Redis is gone or hangs: `"local"`: each process, by its share of the limits;
            `"allow"` and `"deny"`: nobody, all calls pass or none; `"raise"`: they raise RedisUnavailable.

    Raises:
        ConfigurationError: If a field cannot be used.
    """

    limits: tuple[Limit, ...]
    queue: QueueConfig = msgspec.field(default_factory=QueueConfig)
    enforce: bool = True
    denial_cache: bool = False
    by: dict[str, RateLimitConfig] = msgspec.field(default_factory=dict[str, "RateLimitConfig"])
    on_outage: OnOutage = "local"

    if TYPE_CHECKING:
        # What may be given is more than what is kept; a test holds the one against the other.
        def __init__(
            self,
            limits: object,
            queue: QueueConfig | Mapping[str, Any] = QueueConfig(),  # noqa: B008
            enforce: bool = True,
            denial_cache: bool = False,
            by: Mapping[str, object] | Mapping[int, object] = {},
            on_outage: OnOutage = "local",
        ) -> None:
            """Decode what is given."""

    def __hash__(self) -> int:
        """Go by all but the subjects, which are a mapping."""
        return hash((self.limits, self.queue, self.enforce, self.denial_cache, self.on_outage))

    @cached_property
    def usual(self) -> dict[str, int]:
        """By unit, the cost of a request that names none; shared, so not to be changed."""
        slots = {limit.unit for limit in self.limits if limit.algorithm == "concurrent"} | {"requests"}
        return {limit.unit: int(limit.unit in slots) for limit in self.limits}

    @cached_property
    def most(self) -> dict[str, int]:
        """By unit, the highest cost that all limits may ever allow."""
        return {unit: min(limit.most for limit in self.limits if limit.unit == unit) for unit in self.usual}

    @cached_property
    def holds(self) -> bool:
        """Whether any limit counts calls while they run."""
        return any(limit.holds for limit in self.limits)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Which of the counters of its algorithm and unit each limit goes on with; configure() may set others."""
        return assign_slots(self.limits, (), ())

    @cached_property
    def form(self) -> Form:
        """What the scripts are told of it."""
        return Form(self)

    def __post_init__(self) -> None:
        """Decode what was given."""
        msgspec.structs.force_setattr(self, "limits", decode_limits(self.limits, "limits"))
        check_switch("enforce", self.enforce)
        check_switch("denial_cache", self.denial_cache)
        if self.on_outage not in _ON_OUTAGE:
            raise ConfigurationError("on_outage", self.on_outage, f"must be one of {', '.join(_ON_OUTAGE)}")
        if not isinstance(self.queue, QueueConfig):
            fields = _fields_of(self.queue, QueueConfig, "queue", "a QueueConfig or a mapping of its fields")
            msgspec.structs.force_setattr(self, "queue", QueueConfig(**fields))
        by: object = self.by
        if not isinstance(by, Mapping):
            raise ConfigurationError("by", by, "must be a mapping from subjects to what they are allowed")
        subjects: dict[str, RateLimitConfig] = {}
        for subject, spec in cast("Mapping[object, object]", by).items():
            # Looked at before it is read: it may hold itself.
            if inner := _subjects_of(spec):
                raise ConfigurationError(f"by[{subject!r}].by", inner, "a subject has no subjects")
            config = decode_config(spec, f"by[{subject!r}]")
            subjects[cast("str", decode_subject(subject))] = config
        msgspec.structs.force_setattr(self, "by", subjects)

    def plain(self) -> dict[str, Any]:
        """Write it in texts, numbers, lists and mappings."""
        plain: dict[str, Any] = {"limits": [str(limit) for limit in self.limits]}
        plain["queue"] = msgspec.structs.asdict(self.queue)
        plain |= {"enforce": self.enforce, "denial_cache": self.denial_cache, "on_outage": self.on_outage}
        plain["by"] = {subject: config.plain() for subject, config in self.by.items()}
        return plain


def assign_slots(limits: tuple[Limit, ...], before: tuple[Limit, ...], slots: tuple[int, ...]) -> tuple[int, ...]:
    """Let each limit go on with the counters of the one it replaces: that of the same period, else of its kind."""
    assigned: dict[Limit, int] = {}
    old = list(zip(before, slots, strict=True))
    # Longest first: a shorter limit is the one that is usually added, and must not take over a longer one's counters.
    order = sorted(limits, key=lambda limit: -limit.period)
    for same_period in (True, False):
        for limit in order:
            kind = (limit.algorithm, limit.unit)
            fit = [
                (one, slot)
                for one, slot in old
                if (one.algorithm, one.unit) == kind and (one.period == limit.period or not same_period)
            ]
            if fit and limit not in assigned:
                assigned[limit] = fit[0][1]
                old.remove(fit[0])
    for limit in order:
        taken = {slot for one, slot in assigned.items() if (one.algorithm, one.unit) == (limit.algorithm, limit.unit)}
        if limit not in assigned:
            assigned[limit] = next(slot for slot in range(len(limits) + len(slots) + 1) if slot not in taken)
    return tuple(assigned[limit] for limit in limits)


def _subjects_of(spec: object) -> object:
    if isinstance(spec, RateLimitConfig):
        return spec.by
    return cast("Mapping[str, object]", spec).get("by") if isinstance(spec, Mapping) else None


def _fields_of(spec: object, of: type[msgspec.Struct], field: str, what: str) -> dict[str, Any]:
    """Read a mapping of a struct's fields."""
    if not isinstance(spec, Mapping):
        raise ConfigurationError(field, spec, f"must be {what}")
    fields = dict(cast("Mapping[str, Any]", spec))
    for key, value in fields.items():
        if key not in of.__struct_fields__:
            known = ", ".join(of.__struct_fields__)
            raise ConfigurationError(f"{field}.{key}", value, f"is not one of {known}")
    return fields


def check_count(field: str, value: object, most: int) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise ConfigurationError(field, value, f"must be a whole number from 1 to {most}")


def decode_mapping(limits: object) -> Mapping[object, object]:
    """Check that limits come by name."""
    if not isinstance(limits, Mapping):
        raise ConfigurationError("limits", limits, "must be a mapping from names to what they allow")
    return cast("Mapping[object, object]", limits)


def decode_config(spec: object, field: str) -> RateLimitConfig:
    """Read one configuration, in whatever form."""
    if isinstance(spec, RateLimitConfig):
        return spec
    fields: dict[str, Any] = {"limits": spec}
    if isinstance(spec, Mapping) and not spec.keys().isdisjoint(RateLimitConfig.__struct_fields__):
        fields = _fields_of(cast("object", spec), RateLimitConfig, field, "")
        if "limits" not in fields:
            raise ConfigurationError(f"{field}.limits", fields, "is missing")
    try:
        return RateLimitConfig(**fields)
    except ConfigurationError as error:
        inner = error.field
        if fields["limits"] is spec:
            inner = inner.removeprefix("limits").lstrip(".")
        joint = "" if not inner or inner.startswith("[") else "."
        raise ConfigurationError(f"{field}{joint}{inner}", error.value, error.problem) from None


def decode_cost(cost: object, config: RateLimitConfig, *, limited: bool = True) -> dict[str, int]:
    """Read a cost into numbers by unit, of the units that are limited; a request costs 1 request unless said."""
    # Nearly every call; a settled cost is handed to hooks, which must not meet the shared one.
    if limited and type(cost) is int and cost == 1:
        return config.usual
    # A dict is told at once, a Mapping is not.
    by_unit = isinstance(cost, (dict, Mapping))
    given = cast("Mapping[str, object]", cost if by_unit else {"requests": cost})
    costs = config.usual.copy()
    for unit, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST:
            raise ConfigurationError(_cost_field(unit, by_unit), number, f"must be a whole number from 0 to {MOST}")
        if unit in costs:
            costs[unit] = number
        elif unit != "requests" or (not by_unit and number != 1):
            problem = f"no limit of this name counts it; they count {', '.join(sorted(costs))}"
            raise ConfigurationError(_cost_field(unit, by_unit), number, problem)
    if limited:
        check_cost(costs, config)
    return costs


def _cost_field(unit: str, by_unit: bool) -> str:
    return f"cost[{unit!r}]" if by_unit else "cost"


def check_cost(costs: Mapping[str, int], config: RateLimitConfig) -> None:
    """Refuse what no limit could ever allow."""
    for unit, most in config.most.items():
        if costs.get(unit, 0) > most:
            limit = next(limit for limit in config.limits if costs.get(limit.unit, 0) > limit.most)
            raise CostExceedsLimit(costs[limit.unit], limit.unit, str(limit))


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
    return None if timeout is None else decode_seconds(field, timeout, ", or None")


def decode_seconds(field: str, given: object, otherwise: str = "") -> float:
    """Read seconds."""
    seconds = read_seconds(given, 0, MOST)
    if seconds is None:
        raise ConfigurationError(field, given, f"must be seconds, 0 or more, or a timedelta{otherwise}")
    return seconds


def check_switch(field: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigurationError(field, value, "must be True or False")


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
