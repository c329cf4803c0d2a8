"""OpenTelemetry: a hook that measures events, and spans for requests whose context travels with durable tasks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ratelimit_async import (
    QueueFull,
    RateLimitError,
    RedisUnavailable,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
    Retry,
    RetryAfter,
)
from ratelimit_async.contrib._measures import BUCKETS, MEASURES, Measures

try:
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.context import Context
except ModuleNotFoundError as error:
    raise ImportError('opentelemetry is missing: pip install "ratelimit-async[otel]"') from error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from opentelemetry.util.types import AttributeValue

    from ratelimit_async import Event, Traced
    from ratelimit_async.contrib._measures import Measure

    Record = Callable[[float, Mapping[str, AttributeValue]], None]

__all__ = ["OpenTelemetryHook", "OpenTelemetryTracing"]

_SCOPE = "ratelimit_async"
_KINDS = {"submit": trace.SpanKind.PRODUCER, "task": trace.SpanKind.CONSUMER}
# What became of a request that was not granted, in the order in which they are looked for.
_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (RequestTimeout, "expired"),
    (QueueFull, "rejected"),
    (RequestDropped, "dropped"),
    (RequestCancelled, "cancelled"),
    (asyncio.CancelledError, "cancelled"),
    (RedisUnavailable, "unavailable"),
    (RateLimitError, "failed"),
)


class OpenTelemetryHook:
    """Measures what happens: `RateLimiter(hooks=[log_event, OpenTelemetryHook()])`.

    No attribute is made of a subject (`by`); names, limits and tasks beyond a bound are counted as "other".
    """

    def __init__(
        self, *, names: Iterable[str] | None = None, meter_provider: metrics.MeterProvider | None = None
    ) -> None:
        """Create the instruments.

        Args:
            names: Names to tell apart; all others are "other". None: the first hundred that are used.
            meter_provider: By default the global one.

        Raises:
            ConfigurationError: If `names` is one text.
        """
        self._measures = Measures(names)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._records = {measure.name: (_instrument(meter, measure), _attributes(measure)) for measure in MEASURES}

    def __call__(self, event: Event) -> None:
        """Measure an event."""
        for measure, labels, value in self._measures.read(event):
            record, names = self._records[measure.name]
            record(value, dict(zip(names, labels, strict=True)))


def _instrument(meter: metrics.Meter, measure: Measure) -> Record:
    if measure.kind == "counter":
        return meter.create_counter(measure.name, description=measure.text).add
    if measure.kind == "histogram":
        histogram = meter.create_histogram(
            measure.name, unit="s", description=measure.text, explicit_bucket_boundaries_advisory=BUCKETS
        )
        return histogram.record
    return meter.create_gauge(measure.name, description=measure.text).set


def _attributes(measure: Measure) -> tuple[str, ...]:
    return tuple("server.address" if label == "address" else f"ratelimit.{label}" for label in measure.labels)


class OpenTelemetryTracing:
    """Follows requests and durable tasks: `RateLimiter(tracing=OpenTelemetryTracing())`.

    A span per request, in which its function runs: `ratelimit request`, or `ratelimit acquire` until the block ends.
    `ratelimit submit` ends when the place is known; what runs then belongs to it, be it in another process:
    `ratelimit task` for each attempt at a durable task.
    """

    def __init__(self, *, tracer_provider: trace.TracerProvider | None = None) -> None:
        """Take a provider; by default the global one."""
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)

    @contextlib.contextmanager
    def follow(self, traced: Traced) -> Generator[None, None, None]:
        """Follow a request, or an attempt at a task, with a span."""
        attributes: dict[str, AttributeValue] = {"ratelimit.name": traced.name}
        attributes |= {f"ratelimit.cost.{unit}": cost for unit, cost in traced.cost.items()}
        if traced.priority is not None:
            attributes["ratelimit.priority"] = traced.priority
        if traced.task:
            attributes["ratelimit.task"] = traced.task
        context = None
        if traced.op == "task":
            attributes["ratelimit.attempt"] = traced.attempt
            # Not whatever was current where the worker was started.
            context = propagate.extract(traced.carrier, Context())
        with self._tracer.start_as_current_span(
            f"ratelimit {traced.op}",
            context,
            _KINDS.get(traced.op, trace.SpanKind.INTERNAL),
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as raised:
                outcome = _outcome(traced, raised)
                span.set_attribute("ratelimit.outcome", outcome)
                span.set_attribute("error.type", type(raised).__qualname__)
                if outcome not in {"cancelled", "retried"}:
                    span.record_exception(raised)
                    span.set_status(trace.StatusCode.ERROR)
                raise
            else:
                span.set_attribute("ratelimit.outcome", "submitted" if traced.op == "submit" else "finished")
            finally:
                if traced.waited is not None:
                    span.set_attribute("ratelimit.waited", traced.waited)
                if traced.turns > 1:
                    span.set_attribute("ratelimit.turns", traced.turns)

    def carrier(self) -> dict[str, str]:
        """Give the current context as it travels with a durable task."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier


def _outcome(traced: Traced, error: BaseException) -> str:
    if traced.op == "task" and isinstance(error, (Retry, RetryAfter)):
        return "retried"
    if traced.turns and not isinstance(error, asyncio.CancelledError):
        # What its function raised.
        return "failed"
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), "failed")
