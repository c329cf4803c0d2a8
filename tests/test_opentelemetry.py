"""Metrics and spans for OpenTelemetry; what follows requests never breaks them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ratelimit_async import (
    ConfigurationError,
    QueueConfig,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RequestTimeout,
    Retry,
    TaskFailed,
    Traced,
)
from ratelimit_async.contrib._measures import MEASURES
from ratelimit_async.contrib.opentelemetry import OpenTelemetryHook, OpenTelemetryTracing
from tests.helpers import eventually, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan


class Spans:
    """What was traced, and what follows requests."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.tracing = OpenTelemetryTracing(tracer_provider=provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> dict[str, Any]:
        (span,) = self.named(name)
        return dict(span.attributes or {})


@pytest.fixture
def spans() -> Iterator[Spans]:
    found = Spans()
    yield found
    found.exporter.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [m for resource in data.resource_metrics for scope in resource.scope_metrics for m in scope.metrics]
    return {metric.name: list(metric.data.data_points) for metric in metrics}


async def test_what_happens_is_measured(url: str) -> None:
    reader = InMemoryMetricReader()
    hook = OpenTelemetryHook(meter_provider=MeterProvider([reader]))
    async with RateLimiter(url, limits={"a": "2 per 0.5 seconds"}, hooks=[hook]) as limiter:
        decisions = await asyncio.gather(*(limiter.hit("a", by="secret") for _ in range(3)))
        assert [decision.allowed for decision in decisions] == [True, True, False]
        assert await asyncio.gather(*(limiter.request("a", number, n) for n in range(3))) == [0, 1, 2]
    found = points(reader)
    assert set(found) <= {measure.name for measure in MEASURES}
    counted = {tuple(dict(point.attributes).values()): point.value for point in found["ratelimit.decisions"]}
    assert counted == {("a", "allowed", "ok", "redis"): 5, ("a", "denied", "limit", "redis"): 1}
    (wait,) = found["ratelimit.wait"]
    assert dict(wait.attributes) == {"ratelimit.name": "a"}
    assert wait.count == 3
    assert wait.bucket_counts[0] == 2
    assert 0.0 < wait.sum < 10
    assert all("secret" not in map(str, point.attributes.values()) for several in found.values() for point in several)


async def test_a_request_is_a_span_in_which_its_function_runs(url: str, spans: Spans) -> None:
    inner: list[trace.SpanContext] = []

    async def call() -> None:
        inner.append(trace.get_current_span().get_span_context())

    async with RateLimiter(url, limits={"a": "1 per 0.1 seconds"}, tracing=spans.tracing, hooks=[]) as limiter:
        with spans.tracer.start_as_current_span("outer") as outer:
            for _ in range(2):
                await limiter.request("a", call, cost=1, priority="high")
    first, second = spans.named("ratelimit request")
    assert first.parent == outer.get_span_context()
    assert [span.context for span in (first, second)] == inner
    attributes = dict(second.attributes or {})
    assert attributes["ratelimit.name"] == "a"
    assert attributes["ratelimit.cost.requests"] == 1
    assert attributes["ratelimit.priority"] == 0
    assert attributes["ratelimit.outcome"] == "finished"
    assert isinstance(attributes["ratelimit.waited"], float)
    assert "ratelimit.turns" not in attributes


async def test_a_grant_is_a_span_until_its_block_ends(url: str, spans: Spans) -> None:
    async with RateLimiter(url, limits={"a": "10/hour"}, tracing=spans.tracing, hooks=[]) as limiter:
        async with limiter.acquire("a", cost=2) as grant:
            assert spans.named("ratelimit acquire") == []
            current = trace.get_current_span()
            await grant.settle({"requests": 1})
        (span,) = spans.named("ratelimit acquire")
        assert current.get_span_context() == span.context
        with pytest.raises(ZeroDivisionError):
            async with limiter.acquire("a"):
                raise ZeroDivisionError
        failed = spans.named("ratelimit acquire")[1]
        assert dict(failed.attributes or {})["error.type"] == "ZeroDivisionError"
        assert failed.status.status_code is trace.StatusCode.ERROR
        assert [event.name for event in failed.events] == ["exception"]


async def test_what_was_submitted_belongs_to_its_submission(url: str, spans: Spans) -> None:
    async with RateLimiter(url, limits={"a": "10/hour"}, tracing=spans.tracing, hooks=[]) as limiter:
        assert await (await limiter.submit("a", number, 7)) == 7
        await eventually(lambda: spans.named("ratelimit request"))
    (submitted,), (ran,) = spans.named("ratelimit submit"), spans.named("ratelimit request")
    assert ran.parent == submitted.context
    assert submitted.kind is trace.SpanKind.PRODUCER
    assert dict(submitted.attributes or {})["ratelimit.outcome"] == "submitted"


async def test_the_trace_goes_with_a_durable_task_to_the_process_that_runs_it(url: str, spans: Spans) -> None:
    elsewhere = Spans()
    inner: list[trace.SpanContext] = []

    async def work(n: int) -> int:
        inner.append(trace.get_current_span().get_span_context())
        if len(inner) == 1:
            raise Retry(0.01)
        return 2 * n

    limits = {"a": "100/hour"}
    async with (
        RateLimiter(url, limits=limits, tracing=spans.tracing, hooks=[], processor=False) as submitter,
        RateLimiter(url, limits=limits, tracing=elsewhere.tracing, hooks=[]) as worker,
    ):
        worker.task("work")(work)
        task = submitter.task("work")(work)
        with spans.tracer.start_as_current_span("outer") as outer:
            assert await submitter.request("a", task, 21) == 42
        await eventually(lambda: len(elsewhere.named("ratelimit task")) == 2)
    (asked,) = spans.named("ratelimit request")
    assert asked.parent == outer.get_span_context()
    attempts = elsewhere.named("ratelimit task")
    assert [span.context for span in attempts] == inner
    assert asked.context is not None
    for span in attempts:
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (asked.context.trace_id, asked.context.span_id)
        assert span.kind is trace.SpanKind.CONSUMER
    told = [dict(span.attributes or {}) for span in attempts]
    assert [one["ratelimit.attempt"] for one in told] == [1, 2]
    assert [one["ratelimit.outcome"] for one in told] == ["retried", "finished"]
    assert {one["ratelimit.task"] for one in told} == {"work"}
    assert attempts[0].status.status_code is not trace.StatusCode.ERROR


async def test_how_a_request_ended_without_a_grant_is_told(url: str, spans: Spans) -> None:
    limits = {"a": RateLimitConfig("1/hour", queue=QueueConfig(max_size=1))}
    async with RateLimiter(url, limits=limits, tracing=spans.tracing, hooks=[]) as limiter:
        await limiter.acquire("a")
        with pytest.raises(RequestTimeout):
            await limiter.request("a", number, 1, timeout=0.05)
        waiting = await limiter.submit("a", number, 1)
        with pytest.raises(QueueFull):
            await limiter.request("a", number, 2)
        waiting.cancel()
        await eventually(lambda: len(spans.named("ratelimit request")) == 3)
    told = [dict(span.attributes or {}) for span in spans.named("ratelimit request")]
    assert [one["ratelimit.outcome"] for one in told] == ["expired", "rejected", "cancelled"]
    assert all("ratelimit.waited" not in one for one in told)


async def test_what_a_function_raises_is_a_failure_whatever_it_is_called(url: str, spans: Spans) -> None:
    async def fail() -> None:
        raise TimeoutError("the upstream's")

    async with RateLimiter(url, limits={"a": "10/hour"}, tracing=spans.tracing, hooks=[]) as limiter:
        with pytest.raises(TimeoutError, match="upstream"):
            await limiter.request("a", fail)

        @limiter.task("bad", max_attempts=1)
        async def bad() -> None:
            raise ZeroDivisionError

        with pytest.raises(TaskFailed):
            await limiter.request("a", bad)
    assert [dict(span.attributes or {})["ratelimit.outcome"] for span in spans.named("ratelimit request")] == [
        "failed",
        "failed",
    ]
    assert spans.one("ratelimit task")["error.type"] == "ZeroDivisionError"


class Broken:
    """Follows badly."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.called: list[str] = []

    def fail(self, step: str) -> None:
        self.called.append(step)
        if step == self.step:
            raise RuntimeError(step)

    @contextlib.contextmanager
    def managed(self) -> Iterator[None]:
        self.fail("enter")
        try:
            yield
        finally:
            self.fail("exit")

    def follow(self, _: Traced) -> contextlib.AbstractContextManager[None]:
        self.fail("follow")
        return self.managed()

    def carrier(self) -> dict[str, str]:
        self.fail("carrier")
        return {"traceparent": "x"} if self.step != "huge" else {"huge": "x" * 100_000}


@pytest.mark.parametrize("step", ["follow", "enter", "exit", "carrier", "huge"])
async def test_tracing_that_fails_breaks_no_request(url: str, step: str) -> None:
    tracing = Broken(step)
    async with RateLimiter(url, limits={"a": "100/hour"}, tracing=tracing, hooks=[]) as limiter:

        @limiter.task("twice")
        async def twice(n: int) -> int:
            return 2 * n

        assert await limiter.request("a", number, 1) == 1
        async with limiter.acquire("a"):
            pass
        assert await (await limiter.submit("a", number, 2)) == 2
        assert await limiter.request("a", twice, 3) == 6
        with pytest.raises(ZeroDivisionError):
            async with limiter.acquire("a"):
                raise ZeroDivisionError
        assert (await limiter.status("a")).limits[0].used == 5
    assert step == "huge" or step in tracing.called


async def test_what_carries_a_trace_is_read_by_who_has_no_tracing(url: str, spans: Spans) -> None:
    async def fail(text: str) -> None:
        raise ValueError(text)

    limits = {"a": "100/hour"}
    async with (
        RateLimiter(url, limits=limits, tracing=spans.tracing, hooks=[], processor=False) as submitter,
        RateLimiter(url, limits=limits, hooks=[]) as worker,
    ):
        worker.task("work")(fail)
        with spans.tracer.start_as_current_span("outer"), pytest.raises(TaskFailed):
            await submitter.request("a", submitter.task("work", max_attempts=1)(fail), "é" * 100)
        (letter,) = [one async for one in worker.dead_letters("a")]
        assert letter.arguments == (["é" * 100], {})


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tracing"):
        RateLimiter("memory://", tracing=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="names"):
        OpenTelemetryHook(names="openai")


async def test_cancelling_a_caller_ends_its_span(url: str, spans: Spans) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}, tracing=spans.tracing, hooks=[]) as limiter:
        await limiter.acquire("a")
        waiting = asyncio.create_task(limiter.request("a", number, 1))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert spans.one("ratelimit request")["ratelimit.outcome"] == "cancelled"
    assert spans.one("ratelimit request")["error.type"] == "CancelledError"
