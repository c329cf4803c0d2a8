"""The limits' definitions in plain Python, in whole microseconds: what the scripts must decide."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimit_async import Limit


class Charge:
    """What one call was charged: when, when it ended (None: it runs), until when its lease lasts, and its costs."""

    def __init__(self, at: int, lease: int, costs: dict[str, int]) -> None:
        self.at = at
        self.lease = lease
        self.ended: int | None = None
        self.costs = costs
        # When each part of it was charged, of which unit, how much.
        self.parts = [(at, unit, cost) for unit, cost in costs.items()]

    def runs(self, now: int) -> bool:
        return self.ended is None and self.lease > now


class Answer(NamedTuple):
    """A decision: index of the limit, and times in us."""

    allowed: bool
    limit: int
    remaining: int
    retry: int
    reset: int


class Model:
    """One key."""

    def __init__(self, limits: tuple[Limit, ...], lease: int) -> None:
        self.limits = limits
        self.lease = lease
        self.charges: list[Charge] = []
        self.buckets = {i: Bucket(limit) for i, limit in enumerate(limits) if limit.algorithm == "token_bucket"}

    def take(self, now: int, costs: Mapping[str, int], *, runs: bool = False) -> Charge:
        """Charge; one that does not run counts from now on, whatever its limits count from."""
        charge = Charge(now, now + self.lease, dict(costs))
        if not runs:
            charge.ended = now
        self.charges.append(charge)
        for i, bucket in self.buckets.items():
            bucket.charge(now, costs.get(self.limits[i].unit, 0))
        return charge

    def settle(self, now: int, charge: Charge, costs: dict[str, int]) -> None:
        """More counts from now on; less is taken off what was charged last. A sign of life, too."""
        if costs != charge.costs:
            charge.lease = now + self.lease
        for unit, cost in costs.items():
            more = cost - charge.costs[unit]
            buckets = [bucket for i, bucket in self.buckets.items() if self.limits[i].unit == unit]
            if more > 0:
                charge.parts.append((now, unit, more))
                for bucket in buckets:
                    bucket.charge(now, more)
            for n, (at, of, part) in reversed(list(enumerate(charge.parts))):
                less = min(part, -more) if of == unit and more < 0 else 0
                charge.parts[n] = (at, of, part - less)
                more += less
                for bucket in buckets:
                    bucket.give_back(now, at, less)
        charge.costs = costs

    def answer(self, now: int, costs: Mapping[str, int]) -> Answer:
        """Decide as the definitions say."""
        waits = [self.wait(i, now, costs.get(limit.unit, 0)) for i, limit in enumerate(self.limits)]
        retry = max(waits)
        if retry:
            binds = waits.index(retry)
        else:
            shares = [Fraction(limit.most - self.used_whole(i, now), limit.most) for i, limit in enumerate(self.limits)]
            binds = shares.index(min(shares))
        limit = self.limits[binds]
        remaining = max(limit.most - self.used_whole(binds, now), 0)
        reset = first(lambda wait: self.used(binds, now + wait) <= 0, self.horizon)
        return Answer(not retry, binds, remaining, retry, reset)

    def wait(self, i: int, now: int, cost: int) -> int:
        limit = self.limits[i]
        return cost and first(lambda wait: self.used(i, now + wait) + cost <= limit.most, self.horizon)

    @property
    def horizon(self) -> int:
        longest = max(limit.period_us for limit in self.limits)
        drains = (bucket.empty_in() for bucket in self.buckets.values())
        return self.lease + 3 * longest + max(drains, default=0) + 10

    def used_whole(self, i: int, now: int) -> int:
        return math.ceil(self.used(i, now))

    def used(self, i: int, now: int) -> Fraction | int:
        limit = self.limits[i]
        if limit.algorithm == "token_bucket":
            return self.buckets[i].level(now)
        if limit.algorithm == "concurrent":
            return sum(charge.costs[limit.unit] for charge in self.charges if charge.runs(now))
        if limit.algorithm == "sliding_counter":
            return self.estimated(i, now)
        total = 0
        for charge in self.charges:
            if limit.count_from == "finish":
                end = charge.ended if charge.ended is not None else charge.lease
                if charge.runs(now) or self.counts(limit, end, now):
                    total += charge.costs[limit.unit]
            else:
                total += sum(
                    cost for at, unit, cost in charge.parts if unit == limit.unit and self.counts(limit, at, now)
                )
        return total

    @staticmethod
    def counts(limit: Limit, at: int, now: int) -> bool:
        period = limit.period_us
        if limit.algorithm == "fixed_window":
            return at // period == now // period
        width = math.ceil(period / 800)
        return (at // width + 1) * width + period > now

    def estimated(self, i: int, now: int) -> int:
        limit = self.limits[i]
        period = limit.period_us
        counts = {now // period: 0, now // period - 1: 0}
        for charge in self.charges:
            for at, unit, cost in charge.parts:
                if unit == limit.unit and at // period in counts:
                    counts[at // period] += cost
        rest = Fraction(period - now % period, period)
        return counts[now // period] + math.ceil(counts[now // period - 1] * rest)


class Bucket:
    """A token bucket's level: what was charged and has not drained."""

    def __init__(self, limit: Limit) -> None:
        self.rate = Fraction(limit.amount, limit.period_us)
        self.at = 0
        self.amount = Fraction(0)
        self.since = 0

    def level(self, now: int) -> Fraction:
        return max(self.amount - (now - self.at) * self.rate, Fraction(0))

    def charge(self, now: int, cost: int) -> None:
        if not cost:
            return
        if not self.level(now):
            self.since = now
        self.amount, self.at = self.level(now) + cost, now

    def give_back(self, now: int, stamp: int, cost: int) -> None:
        if cost and self.level(now) and stamp >= self.since:
            self.amount, self.at = max(self.level(now) - cost, Fraction(0)), now

    def empty_in(self) -> int:
        return math.ceil(self.amount / self.rate)


def first(holds: Callable[[int], bool], most: int) -> int:
    """Find the first time at which something holds that then goes on to hold."""
    low, high = 0, most
    assert holds(high), "not within the horizon"
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
