"""The command line's limiter: looks, and tells others what to do; grants nothing, runs nothing, does not count."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

import msgspec

from ratelimit_async._config import QueueConfig, RateLimitConfig
from ratelimit_async._errors import ConfigurationError, RateLimitError
from ratelimit_async._events import Events
from ratelimit_async._keys import KeyNames
from ratelimit_async._limiter import RateLimiter
from ratelimit_async._limits import Limit
from ratelimit_async._loading import load_environment
from ratelimit_async._spelling import plain_word
from ratelimit_async._survey import LEVELS, Counter, Holding, counter_of, counters_of, survey
from ratelimit_async._work import load_limiter

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator
    from typing import Self

__all__ = ["Onlooker", "onlooker_of"]

# Stands for a configuration that is not known here: a queue of as many levels as there can be, and a limit of a unit
# that nobody counts, so that a script which opens it touches no counter.
_STAND_IN = RateLimitConfig(
    limits=Limit(1, 1.0, algorithm="fixed_window", unit="unknown_to_this_process"), queue=QueueConfig(priorities=LEVELS)
)


class Onlooker(RateLimiter):
    """A limiter for operators; where it does not know a name's configuration, it says so and touches no counter."""

    _counts = False

    @classmethod
    def over(cls, limiter: RateLimiter) -> Self:
        """Look through an application's limiter, whose configuration and server these are."""
        self = cls.__new__(cls)
        vars(self).update(vars(limiter))
        self.only_look()
        self._events = Events(())
        self._names = KeyNames(self._settings.prefix, self._find, self._events.emit)
        return self

    def stranger(self, prefix: str, limits: dict[str, object]) -> RateLimiter:
        """Make a limiter for the same server that has nothing else in common with this one."""
        limiter = RateLimiter(limits=limits, default=None, prefix=prefix, processor=False, hooks=())
        vars(limiter)["_source"] = self._source
        return limiter

    @property
    def address(self) -> str:
        """The Redis in question, without its password."""
        return self._source.address

    @property
    def embedded(self) -> bool:
        """Whether that is a server within this process."""
        return self._source.embedded

    @property
    def prefix(self) -> str:
        """What all keys begin with."""
        return self._settings.prefix

    @property
    def processes(self) -> int:
        """How many processes of this prefix were last seen alive; this one does not count."""
        return self._live().control.alive

    @property
    def configured(self) -> list[str]:
        """The names and patterns that are configured."""
        return self._catalog.configured

    @property
    def paused(self) -> list[str]:
        """The names that are paused."""
        return [plain_word(field) for field in self._names.pauses]

    def config_of(self, name: str, by: str | None = None) -> RateLimitConfig | None:
        """Give what holds for a key; None where that is not known here."""
        config = self._key_of(name, by).config
        return None if config is _STAND_IN else config

    def require(self, name: str, by: str | None = None) -> None:
        """Refuse what cannot be done without knowing the limits."""
        if self.config_of(name, by) is None:
            raise ConfigurationError(
                "name", name, "has no configuration here: give --app, --config, or RATELIMIT_LIMITS__..."
            )

    async def holding(self, name: str, by: str | None = None, found: set[Counter] | None = None) -> Holding:
        """Look at what Redis holds of a key; `found`: counters to look at where the configuration is not known."""
        session, config = self._live(), self.config_of(name, by)
        counters, levels = sorted(found or (), key=lambda one: one.part), LEVELS
        if config is not None:
            counters = [counter for counter in counters_of(config) if counter is not None]
            levels = config.queue.priorities
        holding = await survey(session.executor, self._names, name, by, counters, levels)
        until = self._names.pauses.get(self._names.pause_field(name), 0)
        if until < 0 or holding.paused < 0:
            return msgspec.structs.replace(holding, paused=-1.0)
        return msgspec.structs.replace(holding, paused=max(holding.paused, until / 1e6 - holding.now))

    async def found(
        self, name: str = "", *, whole: bool = False
    ) -> AsyncGenerator[dict[tuple[str, str | None], set[Counter]]]:
        """Look through Redis' keys a step at a time: the keys of each step, and their counters."""
        async for redis_keys in self._live().scripts.scan(self._names.pattern(name, whole=whole)):
            step: dict[tuple[str, str | None], set[Counter]] = {}
            for redis_key in redis_keys:
                pair = self._names.parse(redis_key)
                if pair is not None:
                    counter = counter_of(redis_key)
                    step.setdefault(pair, set()).update({counter} if counter else ())
            yield step

    async def counters(self, name: str, by: str | None) -> set[Counter]:
        """Look for what Redis counts of a key."""
        counters = set[Counter]()
        async for step in self.found(name, whole=True):
            counters |= step.get((name, by), set())
        return counters

    def _find(self, name: str, by: str | None) -> RateLimitConfig:
        try:
            return super()._find(name, by)
        except ConfigurationError:
            return _STAND_IN


def onlooker_of(options: argparse.Namespace) -> Onlooker:
    """Make the limiter that a command line asks for."""
    if options.app is not None:
        for field in ("url", "config", "prefix"):
            if getattr(options, field) is not None:
                raise ConfigurationError(field, "***", "is the application's own where --app is given")
        return Onlooker.over(_load(options.app))
    environ = dict(os.environ)
    if options.config is not None:
        environ = {name: text for name, text in environ.items() if name.upper() != "RATELIMIT_CONFIG"}
        environ["RATELIMIT_CONFIG"] = options.config
    arguments: dict[str, Any] = load_environment(environ)
    # What nobody has written down is not known: it must not be counted by.
    arguments.setdefault("default", None)
    arguments |= {field: value for field in ("url", "prefix") if (value := getattr(options, field)) is not None}
    arguments |= {"processor": False, "hooks": ()}
    return Onlooker(**arguments)


def _load(place: str) -> RateLimiter:
    """Import an application; what goes wrong in there is told in a line."""
    try:
        return load_limiter(place)
    except RateLimitError:
        raise
    except Exception as error:  # noqa: BLE001 - an application may do anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"importing it raised {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        raise ConfigurationError("app", place, problem) from None
