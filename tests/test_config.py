"""Configurations, costs, priorities, names: what is taken, and what every mistake says."""

from datetime import timedelta
from typing import Any

import pytest

from ratelimit_async import (
    ConfigurationError,
    CostExceedsLimit,
    Limit,
    QueueConfig,
    RateLimitConfig,
    RateLimiter,
    RequestOptions,
)
from ratelimit_async._catalog import Catalog
from ratelimit_async._config import decode_cost, decode_priority, decode_subject, decode_timeout
from ratelimit_async._options import AcquireArguments, RequestArguments
from ratelimit_async._settings import Settings, SettingsArguments

TOKENS = RateLimitConfig("5/second; 100 tokens/minute")


def test_a_name_is_configured_by_any_form() -> None:
    queue = {"max_size": 5, "overflow": "drop_oldest", "timeout": timedelta(seconds=2)}
    catalog = Catalog(
        {
            "a": "5/second",
            "b": RateLimitConfig(limits=[Limit(5, 1)], queue=QueueConfig(max_size=5)),
            "c": {"limits": "5/second", "queue": queue},
            "d": {"amount": 5, "period": 1},
        },
        None,
    )
    assert {catalog.find(name, None).config.limits for name in "abcd"} == {(Limit(5, 1),)}
    assert catalog.find("c", None).config.queue == QueueConfig(max_size=5, overflow="drop_oldest", timeout=2.0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limits": {"openai": "0/minute"}}, "limits['openai'].amount"),
        ({"limits": {"openai": ["5/second", "x"]}}, "limits['openai'][1]"),
        ({"limits": {"openai": {"limits": "0/minute"}}}, "limits['openai'].limits.amount"),
        (
            {"limits": {"openai": {"limits": "5/s", "queue": {"max_size": 0}}}},
            "limits['openai'].queue.max_size",
        ),
        ({"limits": {"openai": {"limits": "5/s", "queue": {"size": 1}}}}, "limits['openai'].queue.size"),
        ({"limits": {"openai": {"limits": "5/s", "queue": 7}}}, "limits['openai'].queue"),
        ({"limits": {"openai": {"limits": "5/s", "que": 7}}}, "limits['openai'].que"),
        ({"limits": {"openai": {"queue": {}}}}, "limits['openai'].limits"),
        ({"limits": {"": "5/second"}}, "limits"),
        ({"limits": ["5/second"]}, "limits"),
        ({"default": "soon"}, "default"),
        ({"prefix": ""}, "prefix"),
        ({"processor": 1}, "processor"),
        ({"batch_size": 0}, "batch_size"),
        ({"lease": -1}, "lease"),
        ({"poll_interval": float("inf")}, "poll_interval"),
        ({"poll": 1}, "poll"),
        ({"url": "localhost:6379"}, "url"),
        ({"url": "http://localhost"}, "url"),
        ({"url": "redis://"}, "url"),
        ({"url": "unix://"}, "url"),
        ({"url": "redis://localhost:port/0"}, "url"),
        ({"url": "redis://localhost:99999/0"}, "url"),
        ({"url": "redis://localhost/first"}, "url"),
        ({"url": "redis+cluster://a:1/5"}, "url"),
        ({"url": "redis+cluster://"}, "url"),
        ({"url": "redis+cluster://a:1,:2"}, "url"),
        ({"url": "redis+cluster://a:1,b:port"}, "url"),
        ({"url": "redis+sentinel://a:1"}, "url"),
        ({"url": "redis+sentinel://a:1/mymaster/first"}, "url"),
        ({"url": "redis+other://a:1"}, "url"),
        ({"url": ""}, "url"),
        ({"url": None}, "url"),
    ],
)
def test_a_mistake_in_building_names_the_field(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RateLimiter(**{"url": "memory://", **arguments})
    assert caught.value.field == field


def test_a_password_is_never_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RateLimiter("redis://me:secret@localhost:no/0")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        RateLimiter("redis+sentinel://me:secret@a:1,b:no/m?sentinel_password=secret")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(RateLimiter("redis://me:secret@localhost/0"))
    assert "secret" not in repr(RateLimiter("redis+sentinel://me:secret@a:1,b/m?sentinel_password=secret"))
    assert "secret" not in repr(RateLimiter("redis+cluster://me:secret@a:1,b"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_size": True}, "queue.max_size"),
        ({"overflow": "explode"}, "queue.overflow"),
        ({"priorities": 17}, "queue.priorities"),
        ({"timeout": -1}, "queue.timeout"),
        ({"timeout": 0}, "queue.timeout"),
    ],
)
def test_a_queue_checks_its_fields(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        QueueConfig(**fields)
    assert caught.value.field == field


def test_a_cost_is_one_request_unless_said() -> None:
    assert decode_cost(1, TOKENS) == {"requests": 1, "tokens": 0}
    assert decode_cost(3, TOKENS) == {"requests": 3, "tokens": 0}
    assert decode_cost({"tokens": 9}, TOKENS) == {"requests": 1, "tokens": 9}
    assert decode_cost({"requests": 0, "tokens": 9}, TOKENS) == {"requests": 0, "tokens": 9}
    assert decode_cost(1, RateLimitConfig("100 tokens/minute")) == {"tokens": 0}
    assert decode_cost(1, RateLimitConfig("5/second; 20 concurrent; 8 gpus concurrent")) == {
        "requests": 1,
        "concurrent": 1,
        "gpus": 1,
    }


def test_a_bare_number_is_refused_where_no_limit_counts_requests() -> None:
    with pytest.raises(ConfigurationError, match="cost: no limit of this name counts it; they count gpus"):
        decode_cost(2, RateLimitConfig("8 gpus concurrent"))


def test_the_usual_cost_is_kept_per_configuration_but_not_for_settling() -> None:
    assert decode_cost(1, TOKENS) is decode_cost(1, TOKENS)
    assert decode_cost(1, TOKENS, limited=False) is not decode_cost(1, TOKENS)


def test_a_number_is_a_subject_unless_its_text_is_endless() -> None:
    assert decode_subject(-7) == "-7"
    for number in (10**300, 10**5000):
        with pytest.raises(ConfigurationError, match="by: must be None"):
            decode_subject(number)


@pytest.mark.parametrize(
    ("cost", "field"),
    [
        (-1, "cost"),
        (True, "cost"),
        (1.5, "cost"),
        ("3", "cost"),
        ({"tokns": 3}, "cost['tokns']"),
        ({"tokens": -3}, "cost['tokens']"),
        ({"tokens": None}, "cost['tokens']"),
    ],
)
def test_a_cost_that_is_none_names_the_unit(cost: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        decode_cost(cost, TOKENS)
    assert caught.value.field == field


def test_a_cost_that_no_limit_can_allow_is_refused() -> None:
    with pytest.raises(CostExceedsLimit) as caught:
        decode_cost({"tokens": 101}, TOKENS)
    assert (caught.value.cost, caught.value.unit) == (101, "tokens")


def test_priorities_are_levels_or_names_lower_first() -> None:
    assert [decode_priority(p, 3) for p in ("high", "normal", "low", 0, 2)] == [0, 1, 2, 0, 2]
    assert [decode_priority(p, 1) for p in ("high", "normal", "low")] == [0, 0, 0]


@pytest.mark.parametrize("priority", [3, -1, "urgent", True, 1.0, None])
def test_a_priority_out_of_range_is_refused(priority: Any) -> None:
    with pytest.raises(ConfigurationError, match="priority: must be from 0"):
        decode_priority(priority, 3)


def test_a_timeout_is_seconds_a_timedelta_or_none() -> None:
    assert [decode_timeout(t) for t in (None, 0, 2, 0.5, timedelta(minutes=1))] == [None, 0, 2, 0.5, 60]


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), 10**400, "1", True])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout: must be seconds"):
        decode_timeout(timeout)


@pytest.mark.parametrize(
    ("name", "by"),
    [("", None), ("x" * 257, None), (5, None), ("a", ""), ("a", "x" * 257), ("a", True), ("a", 1.5)],
)
async def test_names_and_subjects_are_checked(name: Any, by: Any) -> None:
    async with RateLimiter("memory://") as limiter:
        with pytest.raises(ConfigurationError) as caught:
            await limiter.hit(name, by=by)
    assert caught.value.field == ("by" if name == "a" else "name")


async def test_an_unknown_name_uses_the_default_or_is_an_error() -> None:
    async with RateLimiter("memory://", default="1/minute") as limiter:
        assert (await limiter.hit("anything")).limit == Limit(1, 60)
    async with RateLimiter("memory://", limits={"known": "1/minute"}, default=None) as limiter:
        with pytest.raises(ConfigurationError, match="name: has no configuration; those that have: 'known'"):
            await limiter.hit("anything")


async def test_options_are_overridden_by_what_is_given_by_itself() -> None:
    options = RequestOptions(by="u", cost=2, priority="high", timeout=0)
    async with RateLimiter("memory://", limits={"a": "4/minute"}) as limiter:
        await limiter.acquire("a", options=options)
        await limiter.acquire("a", options=options, cost=1)
        status = await limiter.status("a", by="u")
    assert status.limits[0].used == 3


def test_the_typed_keywords_are_the_options_of_a_request() -> None:
    assert set(RequestArguments.__optional_keys__) == set(RequestOptions.__struct_fields__)
    assert AcquireArguments.__optional_keys__ < RequestArguments.__optional_keys__


async def test_a_keyword_that_no_request_has_is_refused() -> None:
    unknown: Any = {"prority": 1}
    async with RateLimiter("memory://") as limiter:
        with pytest.raises(TypeError, match="prority"):
            await limiter.acquire("a", **unknown)


def test_the_typed_keywords_are_the_settings() -> None:
    assert set(SettingsArguments.__annotations__) == set(Settings.__struct_fields__)
