"""The names of Redis keys and channels, and of requests; nobody else spells one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from ratelimit_async._config import RateLimitConfig

__all__ = ["Key", "KeyNames", "parse_request_id"]

_SHORT = {"sliding_window": "sw", "fixed_window": "fw"}
_MOST_KEYS = 10_000


class Key:
    """A limit key: one name and subject, its configuration, and all that its scripts are told."""

    __slots__ = ("_paused", "by", "config", "driver", "fields", "header", "label", "name", "redis", "slack")

    def __init__(
        self, prefix: str, name: str, by: str | None, config: RateLimitConfig, paused: AbstractSet[str]
    ) -> None:
        """Spell the key's names once; scripts get them ready-made."""
        self.name = name
        self.by = by
        self.config = config
        self.label = _label(name, by)
        self.fields = (_escape(name), self.label)
        self._paused = paused
        base = f"{{{_escape(prefix)}:{self.label}}}:"
        self.driver = f"{base}d".encode()
        queues = [f"{base}q{level}" for level in range(config.queue.priorities)]
        names = [f"{base}d", f"{base}c", f"{base}r", f"{base}l", *queues]
        same: dict[str, list[int]] = {}
        for limit in config.parsed:
            same.setdefault(f"{_SHORT[limit.algorithm]}:{limit.unit}", []).append(limit.period_us)
        header: list[bytes | str | int] = []
        for limit in config.parsed:
            kind = f"{_SHORT[limit.algorithm]}:{limit.unit}"
            # Neither amount nor period is in the name, so that what is counted outlives a change of either.
            names.append(f"{base}{kind}:{sorted(same[kind]).index(limit.period_us)}")
            header += [limit.algorithm, limit.unit, limit.amount, limit.period_us]
        self.redis = tuple(name.encode() for name in names)
        self.header = tuple(header)
        # Meeting several expiring buckets in one script call may put off a grant by so long, and no longer.
        self.slack = min(4_000, min(limit.period_us for limit in config.parsed) // 250)

    @property
    def paused(self) -> bool:
        """Whether grants stand still, by name or for this very key."""
        return bool(self._paused) and not self._paused.isdisjoint(self.fields)

    def arguments(self) -> list[bytes | str | int]:
        """Give a group's arguments up to its entries."""
        queue = self.config.queue
        limits = len(self.header) // 4
        paused = int(self.paused)
        return [queue.priorities, queue.max_size, queue.overflow, paused, limits, *self.header]


class KeyNames:
    """Makes and keeps the keys of one prefix."""

    def __init__(self, prefix: str) -> None:
        """Start with no keys and nothing paused."""
        self.prefix = prefix
        self.paused: set[str] = set()
        self._keys: dict[tuple[str, str | None], Key] = {}
        self.channels = f"{_escape(prefix)}:reply:"
        self.control = f"{{{_escape(prefix)}}}:control"

    def key(self, name: str, by: str | None, config: RateLimitConfig) -> Key:
        """Give the key of a name and subject."""
        key = self._keys.get((name, by))
        if key is None or key.config is not config:
            if len(self._keys) >= _MOST_KEYS:
                del self._keys[next(iter(self._keys))]
            key = self._keys[name, by] = Key(self.prefix, name, by, config, self.paused)
        return key

    def pause_field(self, name: str, by: str | None) -> str:
        """Spell what a pause of a name, or of one subject of it, is recorded under."""
        return _escape(name) if by is None else _label(name, by)

    def parse_driver(self, driver: str) -> tuple[str, str | None] | None:
        """Read name and subject back from a driver key's name."""
        start, end = f"{{{_escape(self.prefix)}:", "}:d"
        if not (driver.startswith(start) and driver.endswith(end)):
            return None
        name, _, by = driver[len(start) : -len(end)].partition(":")
        return _plain(name), _plain(by) or None


def parse_request_id(request_id: str) -> tuple[str, str | None, str] | None:
    """Read name, subject and the queue's own id from a request's public id."""
    parts = request_id.split(":")
    if len(parts) != 3 or not parts[0] or "." not in parts[2] or " " in parts[2]:
        return None
    return _plain(parts[0]), _plain(parts[1]) or None, parts[2]


def encode_costs(costs: Mapping[str, int]) -> str:
    """Write costs as the scripts read them."""
    if len(costs) == 1 and "requests" in costs:
        return str(costs["requests"])
    return ",".join(f"{unit}={cost}" for unit, cost in costs.items()) or "-"


def _label(name: str, by: str | None) -> str:
    return f"{_escape(name)}:{_escape(by or '')}"


def _escape(text: str) -> str:
    """Percent-encode so that nothing can forge a separator, a hash tag or another key."""
    return quote(text, safe="", errors="surrogatepass")


def _plain(text: str) -> str:
    return unquote(text, errors="surrogatepass")
