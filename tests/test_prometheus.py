"""Metrics for Prometheus: what happens is counted under bounded labels, and can be scraped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, make_asgi_app, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_async import (
    ConfigurationError,
    QueueConfig,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RequestCancelled,
    RequestTimeout,
    TaskFailed,
    log_event,
)
from ratelimit_async.contrib._measures import MEASURES
from ratelimit_async.contrib.prometheus import PrometheusHook, StatusCollector
from tests.helpers import depth_is, eventually, number
from tests.servers import free_port

if TYPE_CHECKING:
    from tests.servers import RedisServer

DOCS = Path(__file__).parent.parent / "docs"


class Scraped:
    """A registry, and what it tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def value(self, metric: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"ratelimit_{metric}", labels)

    def labels(self, name: str) -> set[tuple[str, ...]]:
        found = [sample for family in self.registry.collect() for sample in family.samples]
        return {tuple(one.labels.values()) for one in found if one.name == f"ratelimit_{name}"}


def limiter_of(url: str, scraped: Scraped, limits: dict[str, Any], **settings: Any) -> RateLimiter:
    return RateLimiter(url, limits=limits, hooks=[PrometheusHook(registry=scraped.registry)], **settings)


async def test_checks_are_counted_by_what_was_decided(url: str) -> None:
    seen = Scraped()
    shadow = RateLimitConfig("1/hour", enforce=False)
    async with limiter_of(url, seen, {"a": "10/hour", "quiet": shadow}) as limiter:
        for _ in range(12):
            await limiter.hit("a", by="somebody")
        await limiter.check("a", by="somebody")
        for _ in range(3):
            await limiter.hit("quiet")
        decided = {"source": "redis"}
        assert seen.value("decisions_total", name="a", outcome="allowed", reason="ok", **decided) == 10
        assert seen.value("decisions_total", name="a", outcome="denied", reason="limit", **decided) == 2
        assert seen.value("decisions_total", name="quiet", outcome="allowed", reason="ok", **decided) == 1
        assert seen.value("decisions_total", name="quiet", outcome="shadowed", reason="limit", **decided) == 2
        # From the eighth on, 80 % were used; the two that were denied found all of it used.
        assert seen.value("near_limit_total", name="a", limit="10/hour") == 5
        assert seen.labels("wait_seconds_count") == set()


async def test_requests_are_counted_by_what_became_of_them(url: str) -> None:
    seen = Scraped()
    config = RateLimitConfig("1/hour", queue=QueueConfig(max_size=1, overflow="drop_oldest"))
    limits = {"a": "1 per 0.2 seconds", "full": RateLimitConfig("1/hour", queue=QueueConfig(max_size=1)), "b": config}
    async with limiter_of(url, seen, limits) as limiter:
        for n in range(2):
            assert await limiter.request("a", number, n) == n
        assert seen.value("requests_total", name="a", outcome="granted") == 2
        assert seen.value("queued_total", name="a") == 1
        assert seen.value("wait_seconds_count", name="a") == 2
        # One of them did not wait at all, the other not long.
        assert seen.value("wait_seconds_bucket", name="a", le="0.0") == 1
        assert seen.value("wait_seconds_bucket", name="a", le="300.0") == 2
        assert seen.value("held_seconds_count", name="a") == 2
        grant = await limiter.acquire("full")
        with pytest.raises(RequestTimeout):
            await limiter.acquire("full", timeout=0.05)
        waiting = await limiter.submit("full", number, 1)
        with pytest.raises(QueueFull):
            await limiter.submit("full", number, 2)
        waiting.cancel()
        with pytest.raises(RequestCancelled):
            await waiting
        await grant.refund()
        for outcome in ("expired", "rejected", "cancelled"):
            await eventually(lambda outcome=outcome: seen.value("requests_total", name="full", outcome=outcome) == 1)
        assert seen.value("refunds_total", name="full") == 1
        await limiter.acquire("b")
        dropped = await limiter.submit("b", number, 1)
        last = await limiter.submit("b", number, 2)
        with contextlib.suppress(Exception):
            await dropped
        assert seen.value("requests_total", name="b", outcome="dropped") == 1
        last.cancel()
        await limiter.pause_for("b", 0.05)
        await eventually(lambda: seen.value("pauses_total", name="b") == 1)


async def test_a_call_that_is_retried_is_counted(url: str) -> None:
    seen, calls = Scraped(), 0

    async def fail_once() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        return calls

    async with limiter_of(url, seen, {"a": "10/hour"}) as limiter:
        assert await limiter.request("a", fail_once, retry_on=ValueError, backoff=0.01) == 2
        assert seen.value("retries_total", name="a") == 1


async def test_durable_tasks_are_counted_where_they_run(url: str) -> None:
    seen = Scraped()
    async with limiter_of(url, seen, {"a": "100/hour"}) as limiter:

        @limiter.task("work", max_attempts=2, backoff=0.01)
        async def work(n: int) -> int:
            return 12 // n

        assert await limiter.request("a", work, 3) == 4
        with pytest.raises(TaskFailed):
            await limiter.request("a", work, 0)
        found = {what: seen.value("task_events_total", name="a", task="work", event=what) for what in EVENTS}
        assert found == {"started": 3, "finished": 1, "retried": 1, "dead": 1}
        assert seen.value("task_duration_seconds_count", name="a", task="work") == 1
        assert seen.value("requests_total", name="a", outcome="granted") == 2
        assert seen.value("held_seconds_count", name="a") == 3


EVENTS = ("started", "finished", "retried", "dead")


async def test_labels_are_bounded_and_tell_no_subject(url: str) -> None:
    seen, listed = Scraped(), Scraped()
    hooks = [PrometheusHook(registry=seen.registry), PrometheusHook(names=["a"], registry=listed.registry)]
    async with RateLimiter(url, default="5/hour", hooks=hooks) as limiter:
        await asyncio.gather(*(limiter.hit("a", by=f"secret-{n}") for n in range(50)))
        await asyncio.gather(*(limiter.hit(f"name-{n}") for n in range(150)))
    names = {labels[0] for labels in seen.labels("decisions_total")}
    assert len(names) == 101
    assert "other" in names
    assert seen.value("decisions_total", name="other", outcome="allowed", reason="ok", source="redis") == 51
    assert {labels[0] for labels in listed.labels("decisions_total")} == {"a", "other"}
    assert not any(
        "secret" in value for measure in MEASURES for labels in seen.labels(told(measure)) for value in labels
    )


def told(measure: Any) -> str:
    plain = measure.name.removeprefix("ratelimit.").replace(".", "_")
    return plain + {"counter": "_total", "histogram": "_seconds_count", "gauge": ""}[measure.kind]


async def test_what_a_name_has_several_of_is_bounded_too(url: str) -> None:
    seen = Scraped()
    async with limiter_of(url, seen, {"a": "1000000/hour"}) as limiter:
        for amount in range(1, 520):
            await limiter.configure({"a": f"{amount}/day"}, by=str(amount))
            await limiter.hit("a", by=str(amount), cost=amount)
    assert len(seen.labels("near_limit_total")) == 501
    assert seen.value("near_limit_total", name="a", limit="other") == 19


async def test_it_is_scraped_over_http(url: str) -> None:
    seen = Scraped()
    async with limiter_of(url, seen, {"a": "10/hour"}) as limiter:
        await limiter.hit("a", cost=3)
        port = free_port()
        server, thread = start_http_server(port, addr="127.0.0.1", registry=seen.registry)
        try:
            async with httpx.AsyncClient() as client:
                text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["ratelimit_decisions"].samples[0].value == 1
    assert all(measure.name.replace(".", "_") in text for measure in MEASURES)


async def test_how_full_limits_and_queues_are_is_asked_when_it_is_scraped(url: str) -> None:
    seen = Scraped()
    async with RateLimiter(url, limits={"a": "3/hour", "b": "5/day"}, hooks=[]) as limiter:
        collector = StatusCollector(limiter, ["a", "b"], registry=seen.registry)
        app = collector.refreshed(make_asgi_app(registry=seen.registry))
        await limiter.hit("a", cost=3)
        tickets = [await limiter.submit("a", number, n) for n in range(2)]
        await limiter.pause("b")
        await eventually(lambda: depth_is(limiter, "a", 2))
        assert seen.labels("limit_used") == set()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            text = (await client.get("/metrics")).text
        assert 'ratelimit_limit_used{limit="3/hour",name="a"} 3.0' in text
        assert seen.value("limit_size", name="b", limit="5/day") == 5
        assert seen.value("queue_depth", name="a") == 2
        assert seen.value("queue_depth", name="b") == 0
        assert (seen.value("queue_oldest_seconds", name="a") or 0) > 0
        assert [seen.value("paused", name=name) for name in "ab"] == [0, 1]
        assert seen.value("tasks", name="a", state="dead") == 0
        for ticket in tickets:
            ticket.cancel()


@pytest.mark.real_redis
async def test_an_outage_is_seen(own_server: RedisServer) -> None:
    seen = Scraped()
    limits = {"a": RateLimitConfig("100/hour", on_outage="raise"), "b": "100/hour"}
    async with limiter_of(own_server.url, seen, limits) as limiter:
        collector = StatusCollector(limiter, ["a"], registry=seen.registry)
        address = own_server.url.removeprefix("redis://").removesuffix("/0")
        assert seen.value("breaker_open", address=address) == 0
        own_server.kill()

        async def open_now() -> bool:
            with contextlib.suppress(Exception):
                await limiter.hit("a")
            await limiter.hit("b")
            return seen.value("breaker_open", address=address) == 1

        await eventually(open_now)
        assert (seen.value("unavailable_total", name="a") or 0) > 0
        local = {"reason": "outage", "source": "local"}
        assert (
            sum(
                seen.value("decisions_total", name="b", outcome="allowed", **{**local, "reason": reason}) or 0
                for reason in ("ok", "outage")
            )
            > 0
        )
        assert (seen.value("connections_lost_total", connection="commands") or 0) > 0
        await collector.refresh()
        assert seen.labels("queue_depth") == set()
        own_server.start()

        async def closed_again() -> bool:
            await limiter.hit("b")
            return seen.value("breaker_open", address=address) == 0

        await eventually(closed_again)


def test_nonsense_is_refused() -> None:
    seen = Scraped()
    limiter = RateLimiter("memory://", limits={"a": "1/hour"})
    with pytest.raises(ConfigurationError, match="names"):
        PrometheusHook(names="openai", registry=seen.registry)
    with pytest.raises(ConfigurationError, match="names"):
        StatusCollector(limiter, "openai", registry=seen.registry)
    PrometheusHook(registry=seen.registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusHook(registry=seen.registry)


async def test_it_stands_beside_the_log(url: str) -> None:
    seen = Scraped()
    hooks = [log_event, PrometheusHook(registry=seen.registry)]
    async with RateLimiter(url, limits={"a": "1/hour"}, hooks=hooks) as limiter:
        await limiter.hit("a")
    assert seen.value("decisions_total", name="a", outcome="allowed", reason="ok", source="redis") == 1


# ---- what the docs show ----


def exposed() -> set[str]:
    """All that can be scraped, by the names that expressions use."""
    registry = CollectorRegistry()
    PrometheusHook(registry=registry)
    StatusCollector(RateLimiter("memory://"), [], registry=registry)
    names = set()
    for family in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}[family.type]
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("page", ["grafana.json", "monitoring.md"])
def test_every_metric_that_the_docs_name_exists(page: str) -> None:
    text = (DOCS / page).read_text()
    if page.endswith(".json"):
        dashboard = json.loads(text)
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        assert len(expressions) > 10
        text = "\n".join(expressions)
    named = set(re.findall(r"\bratelimit_[a-z_]+\b", text)) - {"ratelimit_async"}
    known = exposed() | {name.removesuffix("_bucket") for name in exposed()}
    assert named
    assert named - known == set()
