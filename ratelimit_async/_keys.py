"""Limit keys, and the names of their Redis keys and of what all processes share; nobody else spells one."""

from __future__ import annotations

import copy
import math
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from ratelimit_async._errors import ConfigurationError
from ratelimit_async._events import ManyKeys
from ratelimit_async._spelling import escape_word, parse_label, spell_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ratelimit_async._config import RateLimitConfig
    from ratelimit_async._events import Emit
    from ratelimit_async._values import Decision

__all__ = ["Denial", "Key", "KeyNames", "PackedKey", "Reconfigured"]

_MOST_KEYS = 10_000
Denial = tuple[float, "Mapping[str, int]", "Decision"]
# How many names: sign and states; and sign, states, header, and this with a single usual hit, as they travel: once
# something has sent them.
PackedKey = tuple[int, bytes, bytes, bytes, bytes]


class Key:
    """A limit key: one name and subject, its configuration, and all that its scripts are told.

    There is one of each at a time, however many hold it: a change of its configuration reaches all of them. Most are of
    subjects that come once and are only checked: what no check needs is spelled when something asks for it.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_client",
        "_durable",
        "_redis",
        "busy",
        "by",
        "config",
        "denial",
        "epoch",
        "form",
        "label",
        "name",
        "packed",
        "pauses",
        "slot",
    )

    def __init__(
        self, start: str, name: str, by: str | None, config: RateLimitConfig, pauses: Mapping[str, int], client: str
    ) -> None:
        """Have Redis keys whose names begin with `start`."""
        self.name = name
        self.by = by
        self.label = spell_label(name, by)
        # Of all names, shared by all keys.
        self.pauses = pauses
        # How often something came that may make a denial void.
        self.epoch = 0
        # Of a cluster's 16,384; worked out where there is one.
        self.slot = -1
        self._base = f"{start}{self.label}}}:"
        self._durable: tuple[bytes, ...] | None = None
        self.enter(client, config)

    def enter(self, client: str, config: RateLimitConfig) -> None:
        """Be used by a client from now on."""
        self._client = client
        self.configure(config)

    def configure(self, config: RateLimitConfig) -> None:
        """Be configured from now on."""
        self.config = config
        self.form = config.form
        # For how many checks more somebody is taken to wait. What runs is counted by one script only.
        self.busy: float = math.inf if config.holds else 0
        self._redis: tuple[bytes, ...] | None = None
        # As quick.lua is told of it, once something has been sent.
        self.packed: PackedKey | None = None
        self.forget_denial()

    def forget_denial(self) -> None:
        """Ask Redis again: what was counted has changed."""
        # What was denied last, and until when: (loop's time, costs, decision).
        self.denial: Denial | None = None
        self.epoch += 1

    @property
    def redis(self) -> tuple[bytes, ...]:
        """The names of the Redis keys that most scripts get; the driver's is the first."""
        if self._redis is None:
            self._redis = self._named(*"dcrhw", f"a:{self._client}", *"lp", *self.form.queues, *self.form.states)
        return self._redis

    @property
    def durable(self) -> tuple[bytes, ...]:
        """Those that the scripts get besides that know of tasks."""
        if self._durable is None:
            self._durable = self._named(*"tkxyuze")
        return self._durable

    @property
    def driver(self) -> bytes:
        """Which of them says who grants; the key's name in this process, too."""
        return self.redis[0]

    @property
    def sign(self) -> bytes:
        """Which of them is there where somebody waits, is granted or has paused it."""
        return self._named("c")[0]

    @property
    def states(self) -> tuple[bytes, ...]:
        """Those of what is counted."""
        return self._named(*self.form.states)

    def _named(self, *parts: str) -> tuple[bytes, ...]:
        base = self._base
        return tuple([f"{base}{part}".encode() for part in parts])

    @property
    def paused_until(self) -> int:
        """Until when its name is paused, us by Redis' clock; -1 without end, 0 not."""
        return self.pauses.get(self.label.partition(":")[0], 0) if self.pauses else 0

    def arguments(self) -> tuple[bytes, int]:
        """Give a group's arguments up to its entries."""
        return self.form.header, self.paused_until


class Reconfigured(NamedTuple):
    """A key whose configuration has changed, and a copy of it as it was."""

    key: Key
    before: Key


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
        self._recent: OrderedDict[tuple[str, str | None], Key] = OrderedDict()
        self._alive: WeakValueDictionary[tuple[str, str | None], Key] = WeakValueDictionary()
        word = escape_word(prefix)
        self._start = f"{{{word}:"
        self.channels = f"{word}:reply:"
        # What all processes share: what is paused and configured, and who is alive.
        self.control = f"{{{word}}}:control", f"{{{word}}}:processes"
        self.index = f"{{{word}}}:tasks"

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
        pair = name, by
        key = self._alive.get(pair)
        if key is None:
            key = self._alive[pair] = Key(self._start, name, by, self._find(name, by), self.pauses, self._client)
        if len(self._recent) >= _MOST_KEYS:
            self._tell_of_many()
            self._recent.popitem(last=False)
        self._recent[pair] = key
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
        label, end, _ = redis_key.removeprefix(self._start).partition("}:")
        if not redis_key.startswith(self._start) or not end:
            return None
        try:
            return parse_label(label)
        except UnicodeDecodeError:
            return None

    def pattern(self, prefix: str, *, whole: bool) -> str:
        """Give the glob of all Redis keys of a name, or of all names that start with a text."""
        return f"{self._start}{escape_word(prefix)}{':' if whole else ''}*"

    def surveyed(self, name: str, by: str | None, levels: int, counters: Iterable[str]) -> list[bytes]:
        """Spell what survey.lua looks at, whatever the key's configuration."""
        base = f"{self._start}{spell_label(name, by)}}}:"
        parts = (*"dphxyuzk", *(f"q{level}" for level in range(levels)), *counters)
        return [f"{base}{part}".encode() for part in parts]

    @staticmethod
    def pause_field(name: str) -> str:
        """Spell what a pause of a name is recorded under."""
        return escape_word(name)

    @staticmethod
    def change_field(name: str, by: str | None) -> str:
        """Spell what a change of a name's or key's configuration is recorded under."""
        return spell_label(name, by)
