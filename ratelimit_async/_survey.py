"""Looking at what Redis holds of a key whose configuration need not be known; changes nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ratelimit_async._lua import ALL
from ratelimit_async._spelling import KINDS
from ratelimit_async._values import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit_async._config import RateLimitConfig
    from ratelimit_async._deployment import Caller
    from ratelimit_async._keys import KeyNames

__all__ = ["LEVELS", "Counter", "Found", "Holding", "counter_of", "counters_of", "survey"]

# As many as a queue can have.
LEVELS = 16
_COUNTER = re.compile(r"(sw|fw|sc|tb):([a-z][a-z0-9_]*):(\d+)")


class Counter(msgspec.Struct, frozen=True):
    """Where a limit is counted.

    `drain`: what a token bucket loses, in parts per us; `period` of its windows, us: 0 where they are not known.
    """

    kind: str
    unit: str
    slot: int
    drain: int = 0
    period: int = 0

    @property
    def part(self) -> str:
        """The end of its Redis key's name."""
        return f"{self.kind}:{self.unit}:{self.slot}"


class Found(msgspec.Struct, frozen=True):
    """What a counter shows: units `charged`, -1 where that cannot be told, from `first`, us, on.

    `base` of them were charged by then; `before`: units of the window before, where windows follow each other, each of
    so long a `period`, us.
    """

    charged: int
    first: int
    base: int
    before: int
    period: int

    def rate(self, counter: Counter, earlier: Found | None, then: float, now: float) -> float | None:
        """Tell how much a second was charged since an earlier look, or at least; None where it cannot be told.

        Times in seconds. Of a sliding window that is shorter than that, it is the rate of the window.
        """
        if earlier is None or self.charged < 0 or earlier.charged < 0 or now <= then:
            return None
        period = self.period or counter.period
        if period and now - then >= period / 1e6:
            if self.period:
                return None
            expired = self.base if self.first + period <= now * 1e6 else 0
            return (self.charged - expired) / (period / 1e6)
        charged = self._since(counter, earlier, then)
        return None if charged is None else charged / (now - then)

    def _since(self, counter: Counter, earlier: Found, then: float) -> int | None:
        if self.first in (earlier.first, 0) or self.first <= then * 1e6:
            return max(self.charged - earlier.charged, 0)
        if counter.kind == "sw" and not counter.period and self.base >= earlier.charged:
            # It went on, or it began anew: that depends on the period.
            return None
        # It began anew meanwhile, and what was counted before has been moved aside, or is gone.
        return self.charged + max(self.before - earlier.charged, 0)


class Holding(msgspec.Struct, frozen=True):
    """What Redis holds of a key: times in seconds, `now` by its clock.

    `driver` is the client that drives its queue, "" for nobody; `paused` is how long it stays so, -1 without end,
    0 not; `running` counts calls that hold a slot; `slowest`: what 99 % of those who wait have waited less than.
    """

    now: float
    driver: str
    paused: float
    running: int
    tasks: TaskStatus
    depths: list[int]
    oldest: float
    slowest: float
    counters: dict[Counter, Found]

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(self.depths)


def counters_of(config: RateLimitConfig) -> list[Counter | None]:
    """Tell where each limit is counted; None for what only counts calls that run."""
    counters: list[Counter | None] = []
    for limit, slot in zip(config.limits, config.slots, strict=True):
        drain = limit.rate[0] if limit.algorithm == "token_bucket" else 0
        counter = Counter(KINDS[limit.algorithm], limit.unit, slot, drain, 0 if drain else limit.period_us)
        counters.append(None if limit.algorithm == "concurrent" else counter)
    return counters


def counter_of(redis_key: str) -> Counter | None:
    """Read a counter from the name of its Redis key; None where it is none."""
    match = _COUNTER.fullmatch(redis_key.rpartition("}:")[2])
    return Counter(match[1], match[2], int(match[3])) if match else None


async def survey(
    executor: Caller, names: KeyNames, name: str, by: str | None, counters: Iterable[Counter], levels: int = LEVELS
) -> Holding:
    """Look at a key."""
    counters = list(counters)
    keys = names.surveyed(name, by, levels, [counter.part for counter in counters])
    arguments = [argument for counter in counters for argument in (counter.kind, counter.drain)]
    reply: list[Any] = await executor.call(ALL["survey"], None, (len(keys), *keys, levels, *arguments))
    now, driver, paused, running, tasks, depths, oldest, slowest, states = reply
    return Holding(
        now=now / 1e6,
        driver=driver.decode(),
        paused=paused / 1e6 if paused > 0 else paused,
        running=running,
        tasks=TaskStatus(**dict(zip(TaskStatus.__struct_fields__, tasks, strict=True))),
        depths=depths,
        oldest=oldest / 1e6,
        slowest=slowest / 1e6,
        counters=dict(zip(counters, (Found(*state) for state in states), strict=True)),
    )
