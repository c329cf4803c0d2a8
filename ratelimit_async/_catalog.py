"""Which configuration holds for a name and subject: what was given when the limiter was built, and what came since."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import msgspec

from ratelimit_async._config import RateLimitConfig, assign_slots, decode_config, decode_mapping, decode_name
from ratelimit_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Catalog", "Found", "pattern_regex"]

T = TypeVar("T")
# A configuration that came at run time, by its name and subject (None: the name's own).
Changes = dict[tuple[str, str | None], RateLimitConfig]


class Found(NamedTuple):
    """A configuration, and whether it is the default, which nobody chose for this name."""

    config: RateLimitConfig
    default: bool = False


class _Choice(Generic[T]):
    """Finds what belongs to a text, or else to the pattern that matches it with the most characters of its own."""

    def __init__(self, choices: Mapping[str, T]) -> None:
        """Sort the patterns once: subjects may be many, and new ones keep coming."""
        self._exact = choices
        patterns = sorted(
            filter(_is_pattern, choices), key=lambda one: (-len(one.replace("*", "").replace("?", "")), one)
        )
        self._patterns = [(re.compile(pattern_regex(one), re.DOTALL).fullmatch, choices[one]) for one in patterns]

    def best(self, text: str) -> T | None:
        """Give it, or None."""
        exact = self._exact.get(text)
        if exact is not None or not self._patterns:
            return exact
        return next((choice for matches, choice in self._patterns if matches(text)), None)


class Catalog:
    """Finds configurations: a key's before its name's, exact names before patterns, and all before the default."""

    def __init__(self, limits: object, default: object) -> None:
        """Read what RateLimiter was given."""
        specs = decode_mapping({} if limits is None else limits)
        self._given = {
            decode_name(name, "limits"): decode_config(spec, f"limits[{name!r}]") for name, spec in specs.items()
        }
        self._default = None if default is None else decode_config(default, "default")
        self._keys: Changes = {}
        self._take(self._given)

    def find(self, name: str, by: str | None) -> Found:
        """Give what holds for a name and subject, or raise ConfigurationError."""
        if (own := self._keys.get((name, by))) is not None and by is not None:
            return Found(own)
        named = self._choice.best(name)
        if named is None:
            if self._default is None:
                known = ", ".join(map(repr, self.configured)) or "none"
                raise ConfigurationError("name", name, f"has no configuration; those that have: {known}")
            return Found(self._default, default=True)
        config, subjects = named
        return Found((subjects.best(by) if by is not None else None) or config)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are configured, patterns left out."""
        return tuple(sorted(name for name in self._names if not _is_pattern(name)))

    @property
    def configured(self) -> list[str]:
        """The names and patterns that are configured."""
        return sorted(self._names)

    def change(self, changes: Changes) -> None:
        """Take over all that is configured at run time."""
        names = {name: config for (name, by), config in changes.items() if by is None}
        self._take(self._given | names)
        self._keys = {key: config for key, config in changes.items() if key[1] is not None}

    def _take(self, names: dict[str, RateLimitConfig]) -> None:
        self._names = names
        self._choice = _Choice({name: (config, _Choice(config.by)) for name, config in names.items()})

    def encode(self, spec: object, name: str, by: str | None) -> str:
        """Write a configuration for a name or key that goes on with the present one's counters; '' for None."""
        for field, text in (("by", by), ("limits", name)) if by is not None else ():
            if text is not None and _is_pattern(text):
                raise ConfigurationError(field, text, "one key has an exact name and subject, no pattern")
        if spec is None:
            return ""
        config = decode_config(spec, f"limits[{name!r}]")
        if config.by and by is not None:
            raise ConfigurationError(f"limits[{name!r}].by", config.by, "a subject has no subjects")
        before = self._present(name, by)
        slots = assign_slots(config.limits, before.limits, before.slots) if before else config.slots
        subjects: dict[str, tuple[int, ...]] = {}
        for subject, one in config.by.items():
            was = self._present(name, subject)
            subjects[subject] = assign_slots(one.limits, was.limits, was.slots) if was else one.slots
        # The standard library's, since a subject may hold what is no UTF-8.
        return json.dumps([json.dumps(config.plain()), slots, subjects])

    @staticmethod
    def body(text: str) -> str:
        """Give the configuration alone of what `encode` wrote."""
        return _split(text)[0]

    def _present(self, name: str, by: str | None) -> RateLimitConfig | None:
        try:
            return self.find(name, by).config
        except ConfigurationError:
            return None


def decode_change(text: str, name: str) -> RateLimitConfig:
    """Read what `Catalog.encode` wrote."""
    body, slots, subjects = _split(text)
    config = decode_config(json.loads(body), f"limits[{name!r}]")
    _go_on(config, slots)
    for subject, one in config.by.items():
        _go_on(one, subjects.get(subject, one.slots))
    return config


def _go_on(config: RateLimitConfig, slots: tuple[int, ...]) -> None:
    """Say which counters a configuration goes on with, where its cached property would choose."""
    if len(slots) != len(config.limits):
        raise ConfigurationError("slots", slots, "must be one for each limit")
    vars(config)["slots"] = slots


def _split(text: str) -> tuple[str, tuple[int, ...], dict[str, tuple[int, ...]]]:
    return msgspec.convert(json.loads(text), type=tuple[str, tuple[int, ...], dict[str, tuple[int, ...]]])


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def pattern_regex(pattern: str) -> str:
    """Write a pattern, in which `*` is anything and `?` one character, as a regular expression."""
    return "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
