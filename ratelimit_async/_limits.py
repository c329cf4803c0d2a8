"""Limits, and reading them from what people write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import gcd
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, cast, get_args

import msgspec

from ratelimit_async._errors import ConfigurationError, read_seconds, shown

__all__ = ["Algorithm", "CountFrom", "Limit", "LimitOptions", "decode_limits", "parse_limits"]

Algorithm: TypeAlias = Literal["sliding_window", "fixed_window", "sliding_counter", "token_bucket", "concurrent"]
CountFrom: TypeAlias = Literal["start", "finish"]

MOST = 2**40
_ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
_LONGEST_PERIOD = 3660 * 86_400
_MOST_LIMITS = 8
# Of lists within lists.
_DEEPEST = 8
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
# Digits as int() and float() take them, and no more of them than they take.
_WHOLE = r"[0-9](?:_?[0-9]){0,18}"
_REAL = rf"{_WHOLE}(?:\.[0-9]{{1,18}})?"
_TEXT = re.compile(
    # `per` can be a unit, before another.
    rf"""(?P<amount>{_WHOLE}) (?:\s+(?P<unit>(?!per\b(?!\s*/|\s+per\b))[a-z]\w*))?
        \s* (?:/|\bper\b) \s*
        (?:(?P<count>{_REAL})\s*)? (?P<period>[a-z]+)
        (?P<options>(?:\s.*)?)""",
    re.VERBOSE | re.DOTALL,
)
_OPTION = re.compile(
    rf"\s+(?:burst\s+(?P<burst>{_WHOLE})|guard\s+(?P<guard>{_REAL})|(?P<finish>from\s+finish)|(?P<word>[a-z]\w*))"
)
_CONCURRENT = re.compile(rf"(?P<amount>{_WHOLE})(?:\s+(?P<unit>[a-z]\w*))?\s+concurrent")


class LimitOptions(TypedDict, total=False):
    """The fields of a Limit beside its amount and period, for type checkers; a test holds them against Limit."""

    algorithm: Algorithm
    unit: str
    burst: int | None
    count_from: CountFrom
    guard: float | timedelta


class Limit(msgspec.Struct, frozen=True):
    """An amount per period, or a concurrency.

    Args:
        amount: How much passes per period, or at once, in `unit`s.
        period: Seconds, or a `timedelta`; 0 for `"concurrent"`.
        algorithm: `"sliding_window"`: never more than the amount in any window of that length. `"fixed_window"`: per
            window aligned to the clock (UTC). `"sliding_counter"`: a sliding window estimated from two counters.
            `"token_bucket"`: a steady rate, and a burst after a rest. `"concurrent"`: so many at once.
        unit: What is counted; by default `"requests"`, or `"concurrent"` for that algorithm. What a cost may name.
        burst: For `"token_bucket"`: how much passes at once after a rest; by default the amount.
        count_from: `"start"`: a call counts from its grant; `"finish"`: it counts while it runs, and for a period after
            it has ended, so that an upstream which counts arrivals never sees more than the amount.
        guard: Seconds, or a `timedelta`, by which the period is counted longer, against callers that wake up late.

    Raises:
        ConfigurationError: If a field cannot be used.
    """

    amount: int
    period: float = 0.0
    algorithm: Algorithm = "sliding_window"
    unit: str = ""
    burst: int | None = None
    count_from: CountFrom = "start"
    guard: float = 0.0

    if TYPE_CHECKING:
        # What may be given is more than what is kept; a test holds the one against the other.
        def __init__(
            self,
            amount: int,
            period: float | timedelta = 0.0,
            algorithm: Algorithm = "sliding_window",
            unit: str = "",
            burst: int | None = None,
            count_from: CountFrom = "start",
            guard: float | timedelta = 0.0,
        ) -> None:
            """Check every field."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check_limit(self)

    @classmethod
    def per_second(cls, amount: int, **options: Unpack[LimitOptions]) -> Limit:
        """Allow an amount per second; `options` are the other fields, of which `burst` makes it a token bucket."""
        return cls(amount, 1.0, **_implied(options))

    @classmethod
    def per_minute(cls, amount: int, **options: Unpack[LimitOptions]) -> Limit:
        """Allow an amount per minute; `options` are the other fields, of which `burst` makes it a token bucket."""
        return cls(amount, 60.0, **_implied(options))

    @classmethod
    def per_hour(cls, amount: int, **options: Unpack[LimitOptions]) -> Limit:
        """Allow an amount per hour; `options` are the other fields, of which `burst` makes it a token bucket."""
        return cls(amount, 3600.0, **_implied(options))

    @classmethod
    def per_day(cls, amount: int, **options: Unpack[LimitOptions]) -> Limit:
        """Allow an amount per day; `options` are the other fields, of which `burst` makes it a token bucket."""
        return cls(amount, 86_400.0, **_implied(options))

    @classmethod
    def concurrent(cls, amount: int, *, unit: str = "") -> Limit:
        """Allow an amount at once."""
        return cls(amount, 0.0, "concurrent", unit)

    @property
    def period_us(self) -> int:
        """The period that is counted, with its guard, in microseconds, as the scripts count."""
        return round((self.period + self.guard) * 1e6)

    @property
    def holds(self) -> bool:
        """Whether it counts calls while they run."""
        return self.algorithm == "concurrent" or self.count_from == "finish"

    @property
    def most(self) -> int:
        """What can pass at once, after a rest; a larger cost never passes."""
        return self.amount if self.burst is None else self.burst

    @property
    def rate(self) -> tuple[int, int]:
        """Amount and microseconds of the period, in lowest terms, so that a token bucket counts in whole parts."""
        divisor = gcd(self.amount, self.period_us)
        return self.amount // divisor, self.period_us // divisor

    def __str__(self) -> str:
        """Write it as it can be read again."""
        if self.algorithm == "concurrent":
            return f"{self.amount} concurrent" if self.unit == "concurrent" else f"{self.amount} {self.unit} concurrent"
        text = f"{self.amount}" if self.unit == "requests" else f"{self.amount} {self.unit}"
        for word in ("second", "minute", "hour", "day"):
            if self.period == _PERIODS[word]:
                text += f"/{word}"
                break
        else:
            text += f" per {_decimal(self.period)} seconds"
        if self.algorithm == "token_bucket" and self.burst != self.amount:
            text += f" burst {self.burst}"
        elif self.algorithm != "sliding_window":
            text += f" {self.algorithm}"
        if self.count_from == "finish":
            text += " from finish"
        return f"{text} guard {_decimal(self.guard)}" if self.guard else text


def _decimal(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _check_limit(limit: Limit) -> None:
    _check_amount("amount", limit.amount)
    algorithm: object = limit.algorithm
    if algorithm not in _ALGORITHMS:
        raise ConfigurationError("algorithm", algorithm, f"must be one of {', '.join(_ALGORITHMS)}")
    concurrent = algorithm == "concurrent"
    if not concurrent:
        _keep_seconds(limit, "period", 0.001)
    elif isinstance(limit.period, bool) or limit.period not in (0, timedelta()):
        raise ConfigurationError("period", limit.period, "must be 0 for 'concurrent', which has none")
    else:
        msgspec.structs.force_setattr(limit, "period", 0.0)
    _keep_seconds(limit, "guard", 0.0)
    if limit.guard and algorithm in ("concurrent", "fixed_window"):
        raise ConfigurationError("guard", limit.guard, f"cannot lengthen {algorithm!r}")
    count_from: object = limit.count_from
    if count_from not in ("start", "finish"):
        raise ConfigurationError("count_from", count_from, "must be 'start' or 'finish'")
    if concurrent and count_from != "start":
        raise ConfigurationError("count_from", count_from, "'concurrent' counts a call while it runs")
    if algorithm == "token_bucket":
        msgspec.structs.force_setattr(limit, "burst", limit.amount if limit.burst is None else limit.burst)
        _check_amount("burst", limit.burst)
    elif limit.burst is not None:
        raise ConfigurationError("burst", limit.burst, "is for 'token_bucket' only")
    unit: object = limit.unit or ("concurrent" if concurrent else "requests")
    if not isinstance(unit, str) or not _UNIT.fullmatch(unit):
        problem = "must be a word of at most 32 small letters, digits and _, such as 'tokens'"
        raise ConfigurationError("unit", unit, problem)
    msgspec.structs.force_setattr(limit, "unit", unit)


def _check_amount(field: str, amount: object) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= MOST:
        raise ConfigurationError(field, amount, f"must be a whole number from 1 to {MOST}")


def _keep_seconds(limit: Limit, field: str, least: float) -> None:
    given: object = getattr(limit, field)
    seconds = read_seconds(given, least, _LONGEST_PERIOD)
    if seconds is None:
        raise ConfigurationError(field, given, f"must be seconds from {least:g} to {_LONGEST_PERIOD}, or a timedelta")
    # What counts is whole microseconds; keeping no more makes equal limits equal.
    msgspec.structs.force_setattr(limit, field, round(seconds, 6))


def parse_limits(text: str, field: str) -> tuple[Limit, ...]:
    """Read `"500/minute"`, `"30000 tokens/minute"`, `"10/second burst 20"`, `"20 concurrent"`, joined by `;`."""
    return tuple(_parse_limit(piece, text, field) for piece in text.split(";"))


def _parse_limit(piece: str, text: str, field: str) -> Limit:
    piece = piece.strip().lower()
    if match := _CONCURRENT.fullmatch(piece):
        spec = {"amount": int(match["amount"]), "algorithm": "concurrent", "unit": match["unit"] or ""}
        return _made(field, text, spec)
    match = _TEXT.fullmatch(piece)
    if match is None:
        raise ConfigurationError(field, text, "cannot be read as a limit such as '500/minute' or '20 concurrent'")
    word = match["period"]
    period = _PERIODS.get(word)
    if period is None:
        problem = f"has no period that is known: {word!r}; use second, minute, hour, day or week"
        raise ConfigurationError(field, text, problem)
    if match["count"] is not None:
        period *= float(match["count"])
    spec = {"amount": int(match["amount"]), "period": period, "unit": match["unit"] or ""}
    return _made(field, text, spec | _parse_options(match["options"], text, field))


def _parse_options(options: str, text: str, field: str) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    end = 0
    while options[end:].strip():
        match = _OPTION.match(options, end)
        if match is None:
            problem = (
                f"has an option that cannot be read: {options[end:].strip()!r}; use an algorithm's name, burst N, "
            )
            raise ConfigurationError(field, text, f"{problem}guard SECONDS, from finish")
        end = match.end()
        found = {
            "burst": match["burst"] and int(match["burst"]),
            "guard": match["guard"] and float(match["guard"]),
            "count_from": match["finish"] and "finish",
            "algorithm": match["word"],
        }
        ((name, value),) = [(name, value) for name, value in found.items() if value is not None]
        if name in spec:
            raise ConfigurationError(field, text, f"gives {name} twice")
        spec[name] = value
    return _implied(spec)


def _implied(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Make what has a burst a token bucket, if it does not say what it is."""
    return {"algorithm": "token_bucket", **spec} if spec.get("burst") is not None else dict(spec)


def _made(field: str, value: object, spec: Mapping[str, Any]) -> Limit:
    try:
        return Limit(**spec)
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


def _decode(spec: object, field: str, depth: int = 0) -> list[Limit]:
    if isinstance(spec, Limit):
        return [spec]
    if isinstance(spec, str):
        return list(parse_limits(spec, field))
    if isinstance(spec, Mapping):
        return [_from_mapping(cast("Mapping[str, Any]", spec), field)]
    if isinstance(spec, Sequence) and not isinstance(spec, (bytes, bytearray)):
        items = cast("Sequence[object]", spec)
        if isinstance(items, tuple) and len(items) == 2 and not isinstance(items[0], _SPECS):
            return [_made(field, items, {"amount": items[0], "period": items[1]})]
        if depth == _DEEPEST:
            raise ConfigurationError(field, items, f"is a list within {depth} lists, or within itself")
        return [limit for i, item in enumerate(items) for limit in _decode(item, f"{field}[{i}]", depth + 1)]
    problem = "must be a text such as '500/minute', (amount, seconds), a mapping, a Limit, or a list of them"
    raise ConfigurationError(field, spec, problem)


_SPECS = (str, Limit, Mapping, list, tuple)


def _from_mapping(spec: Mapping[str, Any], field: str) -> Limit:
    for key in spec:
        if key not in Limit.__struct_fields__:
            known = ", ".join(Limit.__struct_fields__)
            raise ConfigurationError(f"{field}.{key}", spec[key], f"is not one of {known}")
    fields = _implied(spec)
    for key in ("amount", "period"):
        if key not in fields and (key, fields.get("algorithm")) != ("period", "concurrent"):
            raise ConfigurationError(f"{field}.{key}", fields, "is missing")
    return _made(field, fields, fields)
