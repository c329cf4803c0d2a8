"""Limits, and reading them from what people write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from ratelimit_async._errors import ConfigurationError, shown

__all__ = ["Algorithm", "Limit", "decode_limits", "parse_limits"]

Algorithm: TypeAlias = Literal["sliding_window", "fixed_window"]

MOST = 2**40
_ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
_LATER = ("token_bucket", "sliding_counter", "concurrent")
_LONGEST_PERIOD = 3660 * 86_400
_MOST_LIMITS = 8
_UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PERIODS = {
    "ms": 0.001,
    "millisecond": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "d": 86_400.0,
    "day": 86_400.0,
    "w": 604_800.0,
    "week": 604_800.0,
}
_PERIODS.update({f"{word}s": seconds for word, seconds in _PERIODS.items() if len(word) > 1 and word != "ms"})
_TEXT = re.compile(
    # Digits as int() and float() take them, and no more of them than they take; `per` can be a unit, before another.
    r"""(?P<amount>[0-9](?:_?[0-9]){0,18}) (?:\s+(?P<unit>(?!per\b(?!\s*/|\s+per\b))[a-z]\w*))?
        \s* (?:/|\bper\b) \s*
        (?:(?P<count>[0-9](?:_?[0-9]){0,18}(?:\.[0-9]+)?)\s*)? (?P<period>[a-z]+)
        (?:\s+(?P<algorithm>[a-z]\w*))?""",
    re.VERBOSE,
)
_LATER_TEXT = re.compile(r"\bburst\b|\bconcurrent\b|" + "|".join(_LATER))


class Limit(msgspec.Struct, frozen=True):
    """An amount per period.

    Args:
        amount: How much passes per period, in `unit`s.
        period: Seconds, or a `timedelta`.
        algorithm: `"sliding_window"`: never more than the amount in any window of that length. `"fixed_window"`: per
            window aligned to the clock (UTC).
        unit: What is counted; `"requests"` unless a cost names others.

    Raises:
        ConfigurationError: If a field cannot be used.
    """

    amount: int
    period: float
    algorithm: Algorithm = "sliding_window"
    unit: str = "requests"

    def __post_init__(self) -> None:
        """Check every field."""
        _check_limit(self)

    @classmethod
    def per_second(cls, amount: int, *, algorithm: Algorithm = "sliding_window", unit: str = "requests") -> Limit:
        """Allow an amount per second."""
        return cls(amount, 1.0, algorithm, unit)

    @classmethod
    def per_minute(cls, amount: int, *, algorithm: Algorithm = "sliding_window", unit: str = "requests") -> Limit:
        """Allow an amount per minute."""
        return cls(amount, 60.0, algorithm, unit)

    @classmethod
    def per_hour(cls, amount: int, *, algorithm: Algorithm = "sliding_window", unit: str = "requests") -> Limit:
        """Allow an amount per hour."""
        return cls(amount, 3600.0, algorithm, unit)

    @classmethod
    def per_day(cls, amount: int, *, algorithm: Algorithm = "sliding_window", unit: str = "requests") -> Limit:
        """Allow an amount per day."""
        return cls(amount, 86_400.0, algorithm, unit)

    @property
    def period_us(self) -> int:
        """The period in microseconds, as the scripts count."""
        return round(self.period * 1e6)

    def __str__(self) -> str:
        """Write it as it can be read again."""
        unit = "" if self.unit == "requests" else f" {self.unit}"
        for word in ("second", "minute", "hour", "day"):
            if self.period == _PERIODS[word]:
                text = f"{self.amount}{unit}/{word}"
                break
        else:
            text = f"{self.amount}{unit} per {self.period_us / 1e6:.6f}".rstrip("0").rstrip(".")
            text += " seconds"
        return text if self.algorithm == "sliding_window" else f"{text} {self.algorithm}"


def _check_limit(limit: Limit) -> None:
    amount: object = limit.amount
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= MOST:
        raise ConfigurationError("amount", amount, f"must be a whole number from 1 to {MOST}")
    period: object = limit.period
    if isinstance(period, timedelta):
        period = period.total_seconds()
    if isinstance(period, bool) or not isinstance(period, (int, float)) or not 0.001 <= period <= _LONGEST_PERIOD:
        problem = f"must be seconds from 0.001 to {_LONGEST_PERIOD}"
        raise ConfigurationError("period", limit.period, problem)
    # What counts is whole microseconds; keeping no more makes equal limits equal.
    msgspec.structs.force_setattr(limit, "period", round(float(period), 6))
    algorithm: object = limit.algorithm
    if algorithm in _LATER:
        raise ConfigurationError("algorithm", algorithm, "is not available in this version")
    if algorithm not in _ALGORITHMS:
        raise ConfigurationError("algorithm", algorithm, f"must be one of {', '.join(_ALGORITHMS)}")
    unit: object = limit.unit
    if not isinstance(unit, str) or not _UNIT.fullmatch(unit):
        problem = "must be a word of at most 32 small letters, digits and _, such as 'tokens'"
        raise ConfigurationError("unit", unit, problem)


def parse_limits(text: str, field: str) -> tuple[Limit, ...]:
    """Read `"500/minute"`, `"30000 tokens/minute"`, `"100 per 30 seconds"`, several joined by `;`."""
    return tuple(_parse_limit(piece, text, field) for piece in text.split(";"))


def _parse_limit(piece: str, text: str, field: str) -> Limit:
    piece = piece.strip().lower()
    match = _TEXT.fullmatch(piece)
    if match is None:
        if _LATER_TEXT.search(piece):
            raise ConfigurationError(field, text, "is not available in this version")
        raise ConfigurationError(field, text, "cannot be read as a limit such as '500/minute'")
    word = match["period"]
    period = _PERIODS.get(word)
    if period is None:
        problem = f"has no period that is known: {word!r}; use second, minute, hour, day or week"
        raise ConfigurationError(field, text, problem)
    if match["count"] is not None:
        period *= float(match["count"])
    algorithm = cast("Algorithm", match["algorithm"] or "sliding_window")
    return _made(field, text, int(match["amount"]), period, algorithm, match["unit"] or "requests")


def _made(field: str, value: object, *parts: Any) -> Limit:
    try:
        return Limit(*parts)
    except ConfigurationError as error:
        got = f"{error.field} {error.problem}, not {shown(error.value)}"
        raise ConfigurationError(f"{field}.{error.field}", value, got) from None


def decode_limits(spec: object, field: str) -> tuple[Limit, ...]:
    """Read limits from a text, a tuple, a mapping, a Limit, or a list of these."""
    limits = tuple(_decode(spec, field))
    if not limits:
        raise ConfigurationError(field, spec, "holds no limit")
    if len(limits) > _MOST_LIMITS:
        raise ConfigurationError(field, spec, f"holds more than {_MOST_LIMITS} limits")
    seen: set[tuple[str, str, float]] = set()
    for limit in limits:
        same = (limit.algorithm, limit.unit, limit.period)
        if same in seen:
            raise ConfigurationError(field, str(limit), "limits the same unit and period twice")
        seen.add(same)
    return limits


def _decode(spec: object, field: str) -> list[Limit]:
    if isinstance(spec, Limit):
        return [spec]
    if isinstance(spec, str):
        return list(parse_limits(spec, field))
    if isinstance(spec, Mapping):
        return [_from_mapping(cast("Mapping[object, object]", spec), field)]
    if isinstance(spec, Sequence) and not isinstance(spec, (bytes, bytearray)):
        items = cast("Sequence[object]", spec)
        if isinstance(items, tuple) and len(items) == 2 and not isinstance(items[0], _SPECS):
            return [_made(field, items, *items)]
        return [limit for i, item in enumerate(items) for limit in _decode(item, f"{field}[{i}]")]
    problem = "must be a text such as '500/minute', (amount, seconds), a mapping, a Limit, or a list of them"
    raise ConfigurationError(field, spec, problem)


_SPECS = (str, Limit, Mapping, list, tuple)


def _from_mapping(spec: Mapping[object, object], field: str) -> Limit:
    for key in spec:
        if key not in Limit.__struct_fields__:
            known = ", ".join(Limit.__struct_fields__)
            raise ConfigurationError(f"{field}.{key}", spec[key], f"is not one of {known}")
    for key in ("amount", "period"):
        if key not in spec:
            raise ConfigurationError(f"{field}.{key}", dict(spec), "is missing")
    parts = [spec["amount"], spec["period"]]
    parts += [spec.get("algorithm", "sliding_window"), spec.get("unit", "requests")]
    return _made(field, dict(spec), *parts)
