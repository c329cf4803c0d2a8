"""The names of Redis keys and channels, and of requests; nobody else spells one."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

from ratelimit_async._errors import ConfigurationError
from ratelimit_async._events import ManyKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ratelimit_async._config import RateLimitConfig
    from ratelimit_async._events import Emit
    from ratelimit_async._limits import Limit
    from ratelimit_async._values import Decision

__all__ = [
    "KINDS",
    "Denial",
    "Key",
    "KeyNames",
    "PackedKey",
    "Reconfigured",
    "encode_costs",
    "escape_word",
    "parse_label",
    "parse_request_id",
    "plain_word",
    "spell_label",
    "task_id",
]

KINDS = {
    "sliding_window": "sw",
    "fixed_window": "fw",
    "sliding_counter": "sc",
    "token_bucket": "tb",
    "concurrent": "cc",
}
_MOST_KEYS = 10_000
Denial = tuple[float, "Mapping[str, int]", "Decision"]
# How many names: sign and states; and sign, states, header, and this with a single usual hit, as they travel: once
# something has sent them.
PackedKey = tuple[int, bytes, bytes, bytes, bytes]


class Key:
    """A limit key: one name and subject, its configuration, and all that its scripts are told.

    There is one of each at a time, however many hold it: a change of its configuration reaches all of them.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_client",
        "brief",
        "busy",
        "by",
        "config",
        "denial",
        "driver",
        "durable",
        "epoch",
        "field",
        "header",
        "label",
        "limits",
        "name",
        "packed",
        "pauses",
        "redis",
        "sign",
        "slack",
        "slot",
        "states",
    )

    def __init__(
        self, prefix: str, name: str, by: str | None, config: RateLimitConfig, pauses: Mapping[str, int], client: str
    ) -> None:
        """Spell the key's names once; scripts get them ready-made."""
        self.name = name
        self.by = by
        self.label = spell_label(name, by)
        self.field = _escape(name)
        # Of all names, shared by all keys.
        self.pauses = pauses
        # How often something came that may make a denial void.
        self.epoch = 0
        # Of a cluster's 16,384; worked out where there is one.
        self.slot = -1
        self._base = f"{{{_escape(prefix)}:{self.label}}}:"
        self.driver = f"{self._base}d".encode()
        # What the scripts that know of tasks get besides.
        self.durable = tuple(f"{self._base}{part}".encode() for part in "tkxyuze")
        self.enter(client, config)

    def enter(self, client: str, config: RateLimitConfig) -> None:
        """Be used by a client from now on."""
        self._client = client
        self.configure(config)

    def configure(self, config: RateLimitConfig) -> None:
        """Be configured from now on."""
        base, queue = self._base, config.queue
        self.config = config
        self.limits = len(config.limits)
        # For how many checks more somebody is taken to wait. What runs is counted by one script only.
        self.busy: float = math.inf if config.holds else 0
        self.forget_denial()
        states: list[str] = []
        promote = int((queue.max_wait_before_promotion or 0) * 1e6)
        header: list[str | int] = [queue.priorities, queue.max_size, queue.overflow, promote, int(config.denial_cache)]
        for limit, slot in zip(config.limits, config.slots, strict=True):
            kind = KINDS[limit.algorithm]
            if kind != "cc":
                # Neither amount nor period is in the name, so that what is counted outlives a change of either.
                states.append(f"{base}{kind}:{limit.unit}:{slot}")
            header += [kind + ("+" if limit.count_from == "finish" else ""), limit.unit, *_numbers(limit)]
        # What is there where somebody waits, is granted or has paused it; and what is counted.
        self.sign = f"{base}c".encode()
        self.states = tuple(name.encode() for name in states)
        queues = (f"q{level}" for level in range(queue.priorities))
        others = (f"{base}{part}".encode() for part in (*"dcrhw", f"a:{self._client}", *"lp", *queues))
        self.redis = (*others, *self.states)
        self.header = " ".join(map(str, header)).encode()
        # What quick.lua is told, which has nothing to do with queues, nor with what runs.
        match header[5:]:
            case ["sw", "requests", amount, period, 0]:
                brief = [amount, period]
            case limits:
                brief = [len(states)] if config.holds else limits
        self.brief = " ".join(map(str, brief)).encode()
        self.packed: PackedKey | None = None
        # Meeting several expiring buckets in one script call may put off a grant by so long, and no longer.
        self.slack = min([4_000, *(_gap(limit) // 250 for limit in config.limits if limit.period)])

    def forget_denial(self) -> None:
        """Ask Redis again: what was counted has changed."""
        # What was denied last, and until when: (loop's time, costs, decision).
        self.denial: Denial | None = None
        self.epoch += 1

    @property
    def paused_until(self) -> int:
        """Until when its name is paused, us by Redis' clock; -1 without end, 0 not."""
        return self.pauses.get(self.field, 0)

    def arguments(self) -> tuple[bytes, int]:
        """Give a group's arguments up to its entries."""
        return self.header, self.paused_until


class Reconfigured(NamedTuple):
    """A key whose configuration has changed, and a copy of it as it was."""

    key: Key
    before: Key


def _gap(limit: Limit) -> int:
    """Give the us after which capacity comes back: a token bucket's comes back one by one."""
    return limit.period_us // limit.amount if limit.algorithm == "token_bucket" else limit.period_us


def _numbers(limit: Limit) -> tuple[int, int, int]:
    """Give amount, period and drain as the scripts count them."""
    if limit.algorithm == "token_bucket":
        drain, scale = limit.rate
        return limit.most, scale, drain
    return limit.amount, limit.period_us, 0


class KeyNames:
    """Makes and keeps the keys of one prefix."""

    def __init__(self, prefix: str, find: Callable[[str, str | None], RateLimitConfig], emit: Emit) -> None:
        """Start with no keys and nothing paused; `find` gives the configuration of a name and subject."""
        self.prefix = prefix
        self._client = ""
        # Until when names are paused, us by Redis' clock; -1 without end.
        self.pauses: dict[str, int] = {}
        self._find = find
        self._emit = emit
        self._told_of_many = False
        self._recent: dict[tuple[str, str | None], Key] = {}
        self._alive: WeakValueDictionary[tuple[str, str | None], Key] = WeakValueDictionary()
        self.channels = f"{_escape(prefix)}:reply:"
        # What all processes share: what is paused and configured, and who is alive.
        self.control = f"{{{_escape(prefix)}}}:control", f"{{{_escape(prefix)}}}:processes"
        self.index = f"{{{_escape(prefix)}}}:tasks"

    def enter(self, client: str) -> None:
        """Be used by a client from now on: some of what a key's scripts keep is its own."""
        self._client = client
        for key in list(self._alive.values()):
            key.enter(client, key.config)

    def recent(self, name: object, by: object) -> Key | None:
        """Give a key that was asked for lately, by what need not have been checked."""
        try:
            return self._recent.get((name, by))  # type: ignore[arg-type]
        except TypeError:
            return None

    def key(self, name: str, by: str | None) -> Key:
        """Give the key of a name and subject."""
        found = self._recent.get((name, by))
        return found or self._make(name, by)

    def _make(self, name: str, by: str | None) -> Key:
        key = self._alive.get((name, by))
        if key is None:
            key = self._alive[name, by] = Key(self.prefix, name, by, self._find(name, by), self.pauses, self._client)
        if len(self._recent) >= _MOST_KEYS:
            self._tell_of_many()
            del self._recent[next(iter(self._recent))]
        self._recent[name, by] = key
        return key

    @property
    def known(self) -> int:
        """How many keys there are in this process."""
        return len(self._alive)

    def _tell_of_many(self) -> None:
        """Say once, and whose they are: as a rule, somebody makes up subjects."""
        if self._told_of_many:
            return
        self._told_of_many = True
        (name, subjects), *_ = Counter(name for name, _ in self._recent).most_common(1)
        self._emit(ManyKeys(keys=len(self._recent), name=name, subjects=subjects))

    def reconfigure(self) -> list[Reconfigured]:
        """Find every key's configuration again; gives the keys whose has changed."""
        changed: list[Reconfigured] = []
        for key in list(self._alive.values()):
            try:
                config = self._find(key.name, key.by)
            except ConfigurationError:
                # Nobody configures it any more: whoever waits keeps what held, newcomers are refused.
                self._recent.pop((key.name, key.by), None)
                self._alive.pop((key.name, key.by), None)
                continue
            if config is not key.config:
                before = copy.copy(key)
                key.configure(config)
                changed.append(Reconfigured(key, before))
        return changed

    def forget_denials(self) -> None:
        """Ask Redis again about every key: something may have been missed."""
        for key in list(self._alive.values()):
            key.forget_denial()

    def parse_driver(self, driver: str) -> tuple[str, str | None] | None:
        """Read name and subject back from a driver key's name."""
        return self.parse(driver) if driver.endswith("}:d") else None

    def parse(self, redis_key: str) -> tuple[str, str | None] | None:
        """Read name and subject back from the name of any Redis key."""
        start = f"{{{_escape(self.prefix)}:"
        label, end, _ = redis_key.removeprefix(start).partition("}:")
        if not redis_key.startswith(start) or not end:
            return None
        try:
            return parse_label(label)
        except UnicodeDecodeError:
            return None

    def pattern(self, prefix: str, *, whole: bool) -> str:
        """Give the glob of all Redis keys of a name, or of all names that start with a text."""
        return f"{{{_escape(self.prefix)}:{_escape(prefix)}{':' if whole else ''}*"

    def surveyed(self, name: str, by: str | None, levels: int, counters: Iterable[str]) -> list[bytes]:
        """Spell what survey.lua looks at, whatever the key's configuration."""
        base = f"{{{_escape(self.prefix)}:{spell_label(name, by)}}}:"
        parts = (*"dphxyuzk", *(f"q{level}" for level in range(levels)), *counters)
        return [f"{base}{part}".encode() for part in parts]

    @staticmethod
    def pause_field(name: str) -> str:
        """Spell what a pause of a name is recorded under."""
        return _escape(name)

    @staticmethod
    def change_field(name: str, by: str | None) -> str:
        """Spell what a change of a name's or key's configuration is recorded under."""
        return spell_label(name, by)


def spell_label(name: str, by: str | None) -> str:
    """Write a name and subject as one word of plain ASCII, whatever they hold."""
    return f"{_escape(name)}:{_escape(by or '')}"


def parse_label(label: str) -> tuple[str, str | None]:
    """Read name and subject back; raises UnicodeDecodeError where they are none of ours."""
    name, _, by = label.partition(":")
    return _plain(name), _plain(by) or None


def task_id(label: str, own: str) -> str:
    """Spell the public id of a durable task."""
    return f"{label}:*.{own}"


def escape_word(text: str) -> str:
    """Write any text as one word of plain ASCII, as the scripts keep it."""
    return _escape(text)


def plain_word(word: str) -> str:
    """Read it back."""
    return _plain(word)


def parse_request_id(request_id: str) -> tuple[str, str | None, str] | None:
    """Read name, subject and the queue's own id from a request's public id; that of a task begins with '*.'."""
    label, _, own = request_id.rpartition(":")
    if label.count(":") != 1 or label.startswith(":") or "." not in own or " " in own:
        return None
    try:
        return *parse_label(label), own
    except UnicodeDecodeError:
        return None


def encode_costs(costs: Mapping[str, int], usual: Mapping[str, int]) -> str:
    """Write costs as the scripts read them: what differs from the usual."""
    if costs is usual:
        return "-"
    return ",".join(f"{unit}={cost}" for unit, cost in costs.items() if cost != usual.get(unit)) or "-"


def _escape(text: str) -> str:
    """Percent-encode so that nothing can forge a separator, a hash tag or another key."""
    return quote(text, safe="", errors="surrogatepass")


def _plain(text: str) -> str:
    return unquote(text, errors="surrogatepass")
