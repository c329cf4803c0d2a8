"""Reading what an upstream tells of its rate limits in response headers, without I/O or a clock."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from ratelimit_async._errors import ConfigurationError
from ratelimit_async._limits import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Upstream", "UpstreamLimit", "read_headers"]

_LONGEST = 2_592_000.0
_WORDS = ("limit", "remaining", "reset")
_POLICIES = ("ratelimit-policy", "x-ratelimit-policy", "ratelimit-limit", "x-ratelimit-limit")
_PERIODS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": _LONGEST}
# Mistral says "req"; what the IETF calls "concurrent-requests" is "concurrent" here.
_UNITS = {"": "requests", "req": "requests", "request": "requests", "concurrent_requests": "concurrent"}
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,3})?", re.IGNORECASE)
# Go's durations, in small letters; its "µs" is "âµs" where UTF-8 was read as latin-1.
_PART = r"([0-9]+(?:\.[0-9]*)?)(d|h|ms|m|s|ns|â?[uµ]s)"
_DURATION = re.compile(f"-?(?:{_PART})+")
_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "ns": 1e-9}
# A comma parts the members of a list, unless it is quoted or belongs to an HTTP date; a semicolon parts a member's
# parameters. An open quote lasts to the end, so that no nonsense is looked at twice.
_QUOTED = r'"(?:[^"\\]|\\.?)*+"?'
_MEMBERS = re.compile(rf'(?is)(?:{_QUOTED}|[^",]|,(?=\s*[0-9]{{1,2}}[ -][a-z]{{3}}[ -][0-9]))+')
_PARAMETERS = re.compile(rf'(?s)(?:{_QUOTED}|[^";])+')

_Parameters: TypeAlias = dict[str, str]


class UpstreamLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as an upstream told it.

    Args:
        unit: What is counted, in small letters: `"requests"`, `"tokens"`, `"input_tokens"`.
        remaining: What is left of it, never below 0.
        limit: Its amount, None where not told.
        reset_after: Seconds until it is fresh again, never below 0, None where not told.
        period: Its window in seconds, None where not told.
    """

    unit: str
    remaining: int
    limit: int | None
    reset_after: float | None
    period: float | None


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream told: `retry_after`, seconds to stay away, None where not told; `limits`, what remains."""

    retry_after: float | None
    limits: tuple[UpstreamLimit, ...]


def read_headers(headers: object, now: float) -> Upstream:
    """Read what a response's headers tell of its upstream's limits.

    Understood are `Retry-After`, `X-RateLimit-*` and its relatives, `<vendor>-ratelimit-*`, and the IETF's `RateLimit`
    with `RateLimit-Policy` in all its drafts. What cannot be read is passed over; seconds end at 30 days.

    Args:
        headers: A mapping, or pairs, of names and values as text or bytes.
        now: Seconds since the epoch, from which dates are measured.

    Returns:
        What was told; of limits of the same unit and period the one with less remaining.

    Raises:
        ConfigurationError: If `headers` is nothing of that kind.
    """
    fields = _fields(headers)
    strictest: dict[tuple[str, float | None], UpstreamLimit] = {}
    for limit in _limits(fields, now):
        same = (limit.unit, limit.period)
        strictest[same] = min(strictest.get(same, limit), limit, key=lambda x: (x.remaining, -(x.reset_after or 0.0)))
    return Upstream(retry_after=_retry_after(fields, now), limits=tuple(strictest.values()))


def _fields(headers: object) -> dict[str, str]:
    """Join repeated fields, under small letters and one spelling of `ratelimit`."""
    items = getattr(headers, "items", None)
    told = defaultdict[str, list[str]](list)
    try:
        for name, value in map(_pair, cast("Iterable[object]", items() if callable(items) else _no_text(headers))):
            told[name.strip().lower().replace("rate-limit", "ratelimit")].append(value)
    except (TypeError, ValueError) as error:
        problem = "must be a mapping or pairs of names and values"
        raise ConfigurationError("headers", headers, problem) from error
    return {name: ", ".join(values) for name, values in told.items()}


def _pair(pair: object) -> tuple[str, str]:
    name, value = cast("Iterable[object]", _no_text(pair))
    return _text(name), _text(value)


def _no_text(value: object) -> object:
    if isinstance(value, (str, bytes)):  # it can be iterated, but is no pair and holds none
        raise TypeError
    return value


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise TypeError


def _retry_after(fields: dict[str, str], now: float) -> float | None:
    in_ms = [_number(text) for text, _ in _members(fields.get("retry-after-ms", ""))]
    told = [_capped(number / 1000) for number in in_ms if number is not None]
    if not told:
        read = [_seconds(text, now) for text, _ in _members(fields.get("retry-after", ""))]
        told = [seconds for seconds in read if seconds is not None]
    return max(told, default=None)  # to come back too early is what it warns of


def _limits(fields: dict[str, str], now: float) -> Iterator[UpstreamLimit]:
    policies: dict[str, _Parameters] = {}
    for field in _POLICIES:
        for name, parameters in _members(fields.get(field, "")):
            policy = {"q": name, **parameters}  # up to draft 7 the quota stands where the name does later
            if parameters and _number(policy["q"]) is not None:
                policies.setdefault(name, policy)
    one_field = defaultdict[str, list[str]](list)
    for name, parameters in _members(fields.get("ratelimit", "")):
        word, _, value = name.partition("=")
        one_field[word].append(value)
        policy = policies.get(name, {}) | parameters
        unit, period = _unit(policy.get("qu", "")), _period(policy.get("w", ""))
        yield from _limit(unit, period, parameters.get("r", ""), policy.get("q", ""), parameters.get("t", ""), now)
    # Draft 7 wrote the three fields of the drafts before as one.
    in_one = {f"ratelimit-{word}": ", ".join(one_field[word]) for word in _WORDS if word in one_field}
    yield from _plain_limits(in_one | fields, policies, now)


def _plain_limits(fields: dict[str, str], policies: dict[str, _Parameters], now: float) -> Iterator[UpstreamLimit]:
    """Read limits of which each part has its own field, or its place in a list in this field."""
    periods: dict[float | None, float | None] = {}
    for policy in policies.values():
        if _unit(policy.get("qu", "")) == "requests":
            periods.setdefault(_number(policy["q"]), _period(policy.get("w", "")))
    told = defaultdict[tuple[str, str, float | None], dict[str, list[str]]](dict)
    for name, value in fields.items():
        prefix, _, rest = name.partition("ratelimit-")
        words = rest.split("-")
        word = words.pop(0 if words[0] in _WORDS else -1)
        if word in _WORDS and prefix[-1:] in {"", "-"}:
            period = _PERIODS.get(words[-1]) if words else None
            unit = _unit("-".join(words[:-1] if period else words))
            told[prefix, unit, period][word] = [text for text, _ in _members(value)]
    for (_, unit, period), parts in told.items():
        for i, remaining in enumerate(parts.get("remaining", ())):
            amount, reset = _at(parts.get("limit", ()), i), _at(parts.get("reset", ()), i)
            by_policy = periods.get(_number(amount)) if unit == "requests" else None
            yield from _limit(unit, period or by_policy, remaining, amount, reset, now)


def _at(values: Sequence[str], i: int) -> str:
    """Take this place of a list, or the first, which then stands for all."""
    return values[i] if i < len(values) else values[0] if values else ""


def _limit(
    unit: str, period: float | None, remaining: str, limit: str, reset: str, now: float
) -> Iterator[UpstreamLimit]:
    left, amount = _number(remaining), _number(limit)
    if amount is not None and amount < 0:
        amount = None
        if left is not None and left < 0:  # Azure's way to say that nothing is limited
            return
    if left is not None:
        whole = None if amount is None else _whole(amount)
        reset_after = _seconds(reset, now)
        yield UpstreamLimit(unit=unit, remaining=_whole(left), limit=whole, reset_after=reset_after, period=period)


def _members(text: str) -> Iterator[tuple[str, _Parameters]]:
    """Read a list as structured fields write it; a plain value is a list of one member without parameters."""
    for member in _MEMBERS.findall(text):
        name, *rest = _PARAMETERS.findall(member) or [""]
        pairs = [parameter.partition("=") for parameter in rest]
        yield _bare(name), {key.strip().lower(): _bare(value) for key, _, value in pairs}


def _bare(text: str) -> str:
    return text.strip().strip('"').strip()


def _unit(text: str) -> str:
    unit = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return _UNITS.get(unit, unit)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _whole(number: float) -> int:
    return int(min(max(0.0, number), MOST))


def _capped(seconds: float) -> float:
    return min(max(0.0, seconds), _LONGEST)


def _period(text: str) -> float | None:
    return _capped(_number(text) or 0.0) or None


def _seconds(text: str, now: float) -> float | None:
    """Read seconds, a time since the epoch in seconds or milliseconds, a duration as Go writes it, or a date."""
    number = _number(text)
    if number is not None:
        since_epoch = number / 1000 if number > 1e12 else number
        return _capped(since_epoch - now if number > 1e9 else number)
    if _DURATION.fullmatch(text.lower()):
        parts: list[tuple[str, str]] = re.findall(_PART, text.lower())
        seconds = sum(float(count) * _SECONDS.get(unit, 1e-6) for count, unit in parts)
        return 0.0 if text.startswith("-") else _capped(seconds)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(Exception):  # they fail in many ways on nonsense
            date = read(text.upper().replace("GMT+", "+").replace("GMT-", "-"))  # JavaScript's offsets
            return _capped((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    return None
