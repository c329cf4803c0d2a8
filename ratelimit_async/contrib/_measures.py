"""What is measured, under which names and labels: one table for every sink, and how events are read into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ratelimit_async import ConfigurationError
from ratelimit_async._events import (
    Allowed,
    BreakerClosed,
    BreakerOpened,
    Cancelled,
    Connected,
    Dead,
    Denied,
    Disconnected,
    Dropped,
    Expired,
    Failed,
    Finished,
    Granted,
    Lost,
    ManyKeys,
    Misconfigured,
    Paused,
    Queued,
    Refunded,
    Rejected,
    Released,
    Restarted,
    Retried,
    Started,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ratelimit_async import Decision, Event

    Read = Callable[["Measures", Any], "Iterable[Sample]"]

__all__ = ["BUCKETS", "MEASURES", "Measure", "Measures", "Sample"]

# Seconds; the first counts those that did not wait at all.
BUCKETS = (0.0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Of label values that nobody listed: names, and pairs of a name and a limit or task of it.
_MOST_NAMES, _MOST_PAIRS = 100, 500
OTHER = "other"


class Measure(NamedTuple):
    """A metric; times are in seconds."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...]
    text: str


class Sample(NamedTuple):
    """What an event adds to a counter, a histogram is given, or a gauge is set to."""

    measure: Measure
    labels: tuple[str, ...]
    value: float = 1


_DECIDED = ("name", "outcome", "reason", "source")
DECISIONS = Measure("ratelimit.decisions", "counter", _DECIDED, "Answers to hits, and grants to requests.")
REQUESTS = Measure("ratelimit.requests", "counter", ("name", "outcome"), "What became of requests and durable tasks.")
QUEUED = Measure("ratelimit.queued", "counter", ("name",), "Requests and durable tasks that joined a queue.")
WAIT = Measure("ratelimit.wait", "histogram", ("name",), "Seconds until the grant, 0 without a wait.")
HELD = Measure("ratelimit.held", "histogram", ("name",), "Seconds for which a grant was held.")
REFUNDS = Measure("ratelimit.refunds", "counter", ("name",), "Charges that were given back.")
NEAR = Measure("ratelimit.near_limit", "counter", ("name", "limit"), "Decisions by a limit used to 80 % or more.")
RETRIES = Measure("ratelimit.retries", "counter", ("name",), "Calls and durable tasks that are requested again.")
PAUSES = Measure("ratelimit.pauses", "counter", ("name",), "Pauses, also those that an upstream asked for.")
UNAVAILABLE = Measure("ratelimit.unavailable", "counter", ("name",), "Calls that failed for want of Redis.")
TASKS = Measure("ratelimit.task.events", "counter", ("name", "task", "event"), "What became of durable tasks here.")
DURATION = Measure("ratelimit.task.duration", "histogram", ("name", "task"), "Seconds that the last attempt took.")
BREAKER = Measure("ratelimit.breaker.open", "gauge", ("address",), "1 while decisions are made without this Redis.")
LOST = Measure("ratelimit.connections.lost", "counter", ("connection",), "Connections that broke or were not made.")
TROUBLE = Measure("ratelimit.trouble", "counter", ("event",), "Parts that failed or restarted, and bad settings.")
MEASURES = (
    *(DECISIONS, REQUESTS, QUEUED, WAIT, HELD, REFUNDS, NEAR, RETRIES, PAUSES, UNAVAILABLE, TASKS, DURATION),
    *(BREAKER, LOST, TROUBLE),
)


class Bound:
    """Lets so many values through; all that come after them are "other"."""

    def __init__(self, values: Iterable[str] = (), most: int = 0) -> None:
        """Begin with some."""
        self._known: set[object] = set(values)
        self._most = most

    def has(self, value: object) -> bool:
        """Whether a value goes through."""
        if value in self._known:
            return True
        if len(self._known) >= self._most:
            return False
        self._known.add(value)
        return True


class Measures:
    """Reads events; what it remembers of label values is bounded."""

    def __init__(self, names: Iterable[str] | None) -> None:
        """Take the names to tell apart; None: the first hundred."""
        if isinstance(names, str):
            raise ConfigurationError("names", names, "must be several names, such as ['openai']")
        self._names = Bound(most=_MOST_NAMES) if names is None else Bound(names)
        self._pairs = Bound(most=_MOST_PAIRS)
        self._addresses = Bound(most=_MOST_NAMES)

    def read(self, event: Event) -> Iterable[Sample]:
        """Give what an event means; nothing for most of them."""
        read = _READS.get(type(event))
        return () if read is None else read(self, event)

    def name(self, name: str) -> str:
        """Give a name, or what stands for all that are too many."""
        return name if self._names.has(name) else OTHER

    def pair(self, name: str, kind: str, value: str) -> str:
        """The same for what a name has several of."""
        return value if self._pairs.has((name, kind, value)) else OTHER

    def address(self, address: str) -> str:
        """The same for servers."""
        return address if self._addresses.has(address) else OTHER

    def decided(self, name: str, outcome: str, decision: Decision) -> list[Sample]:
        """Read a decision."""
        samples = [Sample(DECISIONS, (name, outcome, decision.reason, decision.source))]
        # In an outage it is not known how much of a limit is used.
        if decision.source in {"redis", "denied_cache"} and decision.remaining * 5 <= decision.limit.most:
            samples.append(Sample(NEAR, (name, self.pair(name, "limit", str(decision.limit)))))
        return samples


def _allowed(measures: Measures, event: Allowed) -> Iterable[Sample]:
    name = measures.name(event.name)
    samples = measures.decided(name, "allowed", event.decision)
    if event.id is not None:
        samples += _granted_after(name, 0.0)
    return samples


def _denied(measures: Measures, event: Denied) -> Iterable[Sample]:
    name = measures.name(event.name)
    samples = measures.decided(name, "shadowed" if event.shadow else "denied", event.decision)
    if event.id is not None:
        samples += _granted_after(name, 0.0)
    return samples


def _granted(measures: Measures, event: Granted) -> Iterable[Sample]:
    name = measures.name(event.name)
    return [*measures.decided(name, "allowed", event.decision), *_granted_after(name, event.waited)]


def _granted_after(name: str, seconds: float) -> tuple[Sample, Sample]:
    return Sample(REQUESTS, (name, "granted")), Sample(WAIT, (name,), seconds)


def _started(measures: Measures, event: Started) -> Iterable[Sample]:
    samples = [_task_event(measures, event, "started")]
    # Later attempts have waited before.
    if event.attempt == 1:
        samples += _granted_after(measures.name(event.name), event.waited)
    return samples


def _finished(measures: Measures, event: Finished) -> Iterable[Sample]:
    ended = _task_event(measures, event, "finished")
    return ended, Sample(DURATION, ended.labels[:2], event.took)


def _retried(measures: Measures, event: Retried) -> Iterable[Sample]:
    samples = [Sample(RETRIES, (measures.name(event.name),))]
    return [*samples, _task_event(measures, event, "retried")] if event.task else samples


def _task_event(measures: Measures, event: Started | Finished | Retried | Dead | Lost, what: str) -> Sample:
    name = measures.name(event.name)
    return Sample(TASKS, (name, measures.pair(name, "task", event.task), what))


def _held(measures: Measures, event: Released) -> Iterable[Sample]:
    return (Sample(HELD, (measures.name(event.name),), event.held),)


def _breaker(measures: Measures, event: BreakerOpened | BreakerClosed) -> Iterable[Sample]:
    return (Sample(BREAKER, (measures.address(event.address),), isinstance(event, BreakerOpened)),)


def _connected(measures: Measures, event: Connected) -> Iterable[Sample]:
    # A limiter that is entered anew begins with its breaker closed.
    address = measures.address(event.address)
    return (Sample(BREAKER, (address,), 0),) if event.what == "commands" else ()


def _disconnected(_: Measures, event: Disconnected) -> Iterable[Sample]:
    return (Sample(LOST, (event.what,)),)


def _trouble(_: Measures, event: Event) -> Iterable[Sample]:
    return (Sample(TROUBLE, (type(event).__name__.lower(),)),)


def _counts(measure: Measure, *labels: str) -> Read:
    return lambda measures, event: (Sample(measure, (measures.name(event.name), *labels)),)


def _counts_task(what: str) -> Read:
    return lambda measures, event: (_task_event(measures, event, what),)


_READS: dict[type[Event], Read] = {
    Allowed: _allowed,
    Denied: _denied,
    Granted: _granted,
    Queued: _counts(QUEUED),
    Expired: _counts(REQUESTS, "expired"),
    Rejected: _counts(REQUESTS, "rejected"),
    Dropped: _counts(REQUESTS, "dropped"),
    Cancelled: _counts(REQUESTS, "cancelled"),
    Released: _held,
    Refunded: _counts(REFUNDS),
    Retried: _retried,
    Paused: _counts(PAUSES),
    Unavailable: _counts(UNAVAILABLE),
    Started: _started,
    Finished: _finished,
    Dead: _counts_task("dead"),
    Lost: _counts_task("lost"),
    BreakerOpened: _breaker,
    BreakerClosed: _breaker,
    Connected: _connected,
    Disconnected: _disconnected,
    Failed: _trouble,
    Restarted: _trouble,
    Misconfigured: _trouble,
    ManyKeys: _trouble,
}
