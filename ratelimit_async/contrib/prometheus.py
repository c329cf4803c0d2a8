"""Metrics for Prometheus: a hook that counts events, and a collector that looks at queues when it is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ratelimit_async import ConfigurationError, RateLimiter, RateLimitError
from ratelimit_async.contrib._measures import BUCKETS, MEASURES, Measures

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise ImportError('prometheus_client is missing: pip install "ratelimit-async[prometheus]"') from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ratelimit_async import Event, Status
    from ratelimit_async.contrib._measures import Measure

    App = Callable[[Any, Any, Any], Awaitable[None]]

__all__ = ["PrometheusHook", "StatusCollector"]


class PrometheusHook:
    """Counts what happens: `RateLimiter(hooks=[log_event, PrometheusHook()])`.

    One serves all limiters of a process. No label is made of a subject (`by`); names, limits and tasks beyond a bound
    are counted as "other".
    """

    def __init__(self, *, names: Iterable[str] | None = None, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics.

        Args:
            names: Names to tell apart; all others are "other". None: the first hundred that are used.
            registry: Where.

        Raises:
            ConfigurationError: If `names` is one text.
            ValueError: If the registry has them already.
        """
        self._measures = Measures(names)
        self._metrics = {measure.name: _metric(measure, registry) for measure in MEASURES}
        # prometheus_client takes longer to find what belongs to labels than to count.
        self._records: dict[tuple[str, tuple[str, ...]], Callable[[float], None]] = {}

    def __call__(self, event: Event) -> None:
        """Count an event."""
        for measure, labels, value in self._measures.read(event):
            place = measure.name, labels
            record = self._records.get(place)
            if record is None:
                record = self._records[place] = _record(self._metrics[measure.name], labels)
            record(value)


def _metric(measure: Measure, registry: CollectorRegistry) -> Counter | Histogram | Gauge:
    name, text, labels = measure.name.replace(".", "_"), measure.text, measure.labels
    if measure.kind == "counter":
        return Counter(name, text, labels, registry=registry)
    if measure.kind == "histogram":
        return Histogram(f"{name}_seconds", text, labels, registry=registry, buckets=BUCKETS)
    # Of several processes' breakers: how many are open.
    return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")


def _record(metric: Counter | Histogram | Gauge, labels: tuple[str, ...]) -> Callable[[float], None]:
    if isinstance(metric, Counter):
        return metric.labels(*labels).inc
    return metric.labels(*labels).observe if isinstance(metric, Histogram) else metric.labels(*labels).set


class StatusCollector(Collector):
    """Tells how full limits and how long queues are, of names without their subjects, as Redis said when last asked."""

    def __init__(self, limiter: RateLimiter, names: Iterable[str], *, registry: CollectorRegistry = REGISTRY) -> None:
        """Register, with nothing to tell yet.

        Args:
            limiter: Whose.
            names: Which names: each is one call of Redis whenever it is asked.
            registry: Where.

        Raises:
            ConfigurationError: If `names` is one text.
            ValueError: If the registry has such a collector already.
        """
        if isinstance(names, str):
            raise ConfigurationError("names", names, "must be several names, such as ['openai']")
        self._limiter = limiter
        self._names = tuple(names)
        self._found: list[Status] = []
        registry.register(self)

    async def refresh(self) -> None:
        """Ask Redis; what it does not answer for is not told of."""
        asked = (self._limiter.status(name) for name in self._names)
        found = await asyncio.gather(*asked, return_exceptions=True)
        for status in found:
            if isinstance(status, BaseException) and not isinstance(status, RateLimitError):
                raise status
        self._found = [status for status in found if not isinstance(status, BaseException)]

    def refreshed(self, app: App) -> App:
        """Have an ASGI application that serves metrics ask Redis first.

        Args:
            app: One of prometheus_client's `make_asgi_app`.

        Returns:
            An ASGI application.
        """

        async def refreshed(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await self.refresh()
            await app(scope, receive, send)

        return refreshed

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Tell."""
        used = _family("limit_used", "Units of the limit that are used.", "limit")
        size = _family("limit_size", "Units that the limit has.", "limit")
        depth = _family("queue_depth", "Requests that wait.")
        oldest = _family("queue_oldest_seconds", "Seconds for which the oldest has waited.")
        tasks = _family("tasks", "Durable tasks beside those in the queue.", "state")
        paused = _family("paused", "Whether it is paused.")
        for status in self._found:
            for one in status.limits:
                used.add_metric((status.name, str(one.limit)), one.used)
                size.add_metric((status.name, str(one.limit)), one.limit.most)
            depth.add_metric((status.name,), status.queue.depth)
            oldest.add_metric((status.name,), status.queue.oldest_wait)
            paused.add_metric((status.name,), status.paused)
            for state in ("running", "delayed", "parked", "dead"):
                tasks.add_metric((status.name, state), getattr(status.tasks, state))
        return used, size, depth, oldest, tasks, paused


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ratelimit_{name}", text, labels=("name", *labels))
