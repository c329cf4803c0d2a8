"""Whether calls kept within limits, told from their times alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from ratelimit_async._config import decode_seconds
from ratelimit_async._errors import ConfigurationError
from ratelimit_async._limits import Limit, decode_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["assert_within_limit"]

When: TypeAlias = float | datetime
Costs: TypeAlias = int | Mapping[str, int]


class _Call(NamedTuple):
    at: float
    cost: int


def assert_within_limit(calls: Iterable[When | tuple[When, Costs]], limit: object, *, slack: float = 0.0) -> None:
    """Fail if calls came faster than a limit allows, in whatever window.

    Args:
        calls: When each was made, in any order: seconds of whatever clock, or `datetime`s; or pairs of that and its
            cost: a number of the limit's unit, or numbers by unit.
        limit: A limit as RateLimiter takes them, or several: `"100/second"`. Times are then as the algorithm counts: in
            any window, for `fixed_window` in those aligned to UTC, for `token_bucket` by rate and burst.
        slack: Seconds by which the times may be off, as those of callers that woke up late are.

    Raises:
        AssertionError: If there were too many; it shows the window and the number.
        ConfigurationError: If an argument cannot be used, or a limit is one that times cannot tell of: `concurrent`, or
            the estimate `sliding_counter`.
    """
    limits = decode_limits(limit, "limit")
    slack = decode_seconds("slack", slack)
    given = list(_read(calls))
    for one in limits:
        if one.algorithm in ("concurrent", "sliding_counter"):
            problem = "cannot be told from the times of calls; say a sliding_window, fixed_window or token_bucket"
            raise ConfigurationError("limit", str(one), problem)
        charged = sorted(_Call(at, _cost_of(cost, one.unit)) for at, cost in given)
        check = {"fixed_window": _check_fixed, "token_bucket": _check_bucket}.get(one.algorithm, _check_sliding)
        check([call for call in charged if call.cost], one, slack)


def _read(calls: object) -> Iterator[tuple[float, Costs | None]]:
    if isinstance(calls, (str, bytes, Mapping)) or not hasattr(calls, "__iter__"):
        raise ConfigurationError("calls", _plain(calls), "must be times of calls, or pairs of a time and a cost")
    for i, call in enumerate(cast("Iterable[object]", calls)):
        if isinstance(call, Sequence) and not isinstance(call, (str, bytes)):
            pair = cast("Sequence[object]", call)
            if len(pair) != 2:
                raise ConfigurationError(f"calls[{i}]", pair, "must be a time, or a pair of a time and a cost")
            yield _seconds(pair[0], f"calls[{i}][0]"), _costs(pair[1], f"calls[{i}][1]")
        else:
            yield _seconds(call, f"calls[{i}]"), None


def _plain(value: Any) -> object:
    """Forget what a checker made of a value that turned out to be nonsense."""
    return value


def _seconds(when: object, field: str) -> float:
    value = when.timestamp() if isinstance(when, datetime) else when
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigurationError(field, when, "must be seconds or a datetime")
    return float(value)


def _costs(cost: object, field: str) -> Costs:
    numbers = list(cast("Mapping[str, object]", cost).values()) if isinstance(cost, Mapping) else [cost]
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
        raise ConfigurationError(field, _plain(cost), "must be a whole number, 0 or more, or such numbers by unit")
    return cast("Costs", cost)


def _cost_of(cost: Costs | None, unit: str) -> int:
    """Say what a call cost of a unit: unless said one request, as everywhere."""
    if isinstance(cost, Mapping):
        return cost.get(unit, int(unit == "requests"))
    return 1 if cost is None else cost


def _check_sliding(calls: list[_Call], limit: Limit, slack: float) -> None:
    first = total = 0
    for last, call in enumerate(calls):
        total += call.cost
        # A window that begins with a call does not hold one that comes exactly a period later.
        while call.at - calls[first].at >= limit.period - slack - _rounding(call.at):
            total -= calls[first].cost
            first += 1
            if first > last:
                break
        if total > limit.amount:
            _fail(calls[first : last + 1], limit, limit.amount)


def _check_fixed(calls: list[_Call], limit: Limit, slack: float) -> None:
    counted: dict[int, list[_Call]] = {}
    for call in calls:
        # One that is late for its window by no more than the slack was counted in it.
        before, after = (math.floor((call.at + late) / limit.period) for late in (-slack, slack))
        windows = [counted.setdefault(window, []) for window in dict.fromkeys((before, after))]
        least = min(windows, key=lambda window: sum(call.cost for call in window))
        least.append(call)
        if sum(call.cost for call in least) > limit.amount:
            _fail(least, limit, limit.amount)


def _check_bucket(calls: list[_Call], limit: Limit, slack: float) -> None:
    rate = limit.amount / limit.period
    level, begun = 0.0, 0
    for last, call in enumerate(calls):
        if last:
            level = max(level - (call.at - calls[last - 1].at) * rate, 0.0)
        if not level:
            begun = last
        level += call.cost
        if level > limit.most + (slack + _rounding(call.at)) * rate:
            since = call.at - calls[begun].at
            _fail(calls[begun : last + 1], limit, limit.most + math.floor(since * rate))


def _rounding(at: float) -> float:
    """Say how much a difference of such times may be off for being written as floats."""
    return 4 * math.ulp(at)


def _fail(calls: list[_Call], limit: Limit, allowed: int) -> None:
    total = sum(call.cost for call in calls)
    first, last = calls[0].at, calls[-1].at
    raise AssertionError(
        f"{total} {limit.unit} of {len(calls)} calls within {last - first:.6f} s, from {first!r} to {last!r}: "
        f"{str(limit)!r} allows {allowed}"
    )
