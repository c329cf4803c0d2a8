"""Durations are seconds or a timedelta everywhere; configurations are equal when they mean the same."""

from __future__ import annotations

import ast
import inspect
import pickle
import textwrap
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ratelimit_async import (
    ConfigurationError,
    Limit,
    QueueConfig,
    RateLimitConfig,
    RateLimiter,
    RequestOptions,
    RequestTimeout,
    Retry,
    RetryAfter,
)
from ratelimit_async._settings import Settings
from ratelimit_async.contrib.dashboard import dashboard
from ratelimit_async.contrib.fastapi import RateLimit
from ratelimit_async.contrib.httpx import RateLimitTransport

if TYPE_CHECKING:
    from collections.abc import Callable

HALF = timedelta(milliseconds=500)
TOKEN = "0123456789abcdef"  # noqa: S105 - of a test


def task(limiter: RateLimiter, **how: Any) -> None:
    @limiter.task("x", **how)
    def fn() -> None: ...


# Everything in the public face that takes a duration, but for those that need a running limiter.
TAKERS: dict[str, Callable[[Any], object]] = {
    "period": lambda given: Limit(5, given),
    "guard": lambda given: Limit(5, 1, guard=given),
    "guard ": lambda given: Limit.per_minute(5, guard=given),
    "default.period": lambda given: RateLimiter("memory://", default=(5, given)),
    "limits['a'].period": lambda given: RateLimiter("memory://", limits={"a": {"amount": 5, "period": given}}),
    "queue.timeout": lambda given: QueueConfig(timeout=given),
    "queue.max_wait_before_promotion": lambda given: QueueConfig(max_wait_before_promotion=given),
    "queue.timeout ": lambda given: RateLimitConfig("5/minute", queue={"timeout": given}),
    **{
        field: lambda given, field=field: RateLimiter("memory://", **{field: given})
        for field in (
            "poll_interval",
            "lease",
            "connect_timeout",
            "command_timeout",
            "shutdown_timeout",
            "task_grace",
        )
    },
    "backoff": lambda given: RequestOptions(backoff=given),
    "timeout": lambda given: RateLimiter("memory://").limited("a", timeout=given),
    "backoff ": lambda given: task(RateLimiter("memory://"), backoff=given),
    "run_timeout": lambda given: task(RateLimiter("memory://"), run_timeout=given),
    "result_ttl": lambda given: task(RateLimiter("memory://"), result_ttl=given),
    "seconds": RetryAfter,
    "after": Retry,
    "backoff  ": lambda given: RateLimitTransport(RateLimiter("memory://"), "a", backoff=given),
    "wait": lambda given: RateLimit("a", wait=given),
    "interval": lambda given: dashboard(RateLimiter("memory://"), token=TOKEN, interval=given),
}


@pytest.mark.parametrize("field", TAKERS)
def test_a_duration_is_seconds_or_a_timedelta(field: str) -> None:
    for given in (1, 1.5, HALF):
        TAKERS[field](given)
    for wrong in (timedelta(seconds=-1), -1, "5", True, float("nan"), 10**400):
        with pytest.raises(ConfigurationError) as caught:
            TAKERS[field](wrong)
        assert caught.value.field == field.strip()
        assert "second" in caught.value.problem


def test_what_is_kept_is_seconds() -> None:
    assert Limit(5, HALF, guard=HALF) == Limit(5, 0.5, guard=0.5)
    assert Limit(5, timedelta(), "concurrent") == Limit.concurrent(5)
    queue = QueueConfig(timeout=HALF, max_wait_before_promotion=HALF)
    assert (queue.timeout, queue.max_wait_before_promotion) == (0.5, 0.5)
    assert Settings(lease=HALF, poll_interval=1) == Settings(lease=0.5, poll_interval=1.0)
    for error in (Retry(HALF), RetryAfter(HALF)):
        assert error.args == pickle.loads(pickle.dumps(error)).args == (0.5,)  # noqa: S301 - our own


async def test_calls_take_timedeltas_too(url: str) -> None:
    answers: list[Any] = [RetryAfter(timedelta(milliseconds=10)), "done"]

    async def answer() -> str:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    config = RateLimitConfig(Limit(1, timedelta(minutes=1)), queue={"timeout": timedelta(milliseconds=20)})
    async with RateLimiter(url, limits={"a": config, "b": "9/minute"}, poll_interval=HALF) as limiter:
        # Which no timeout ends, however slow the machine is.
        assert (await limiter.hit("a")).allowed
        with pytest.raises(RequestTimeout) as caught:
            await limiter.acquire("a")
        assert caught.value.timeout == 0.02
        with pytest.raises(RequestTimeout) as caught:
            await limiter.request("a", answer, timeout=timedelta(milliseconds=30))
        assert caught.value.timeout == 0.03
        assert await limiter.request("b", answer) == "done"
        await limiter.pause_for("b", timedelta(minutes=1))
        assert 50 < ((await limiter.status("b")).resumes_in or 0) <= 60


@pytest.mark.parametrize("kind", [Limit, QueueConfig, RateLimitConfig])
def test_what_type_checkers_are_told_of_a_constructor_are_its_fields(kind: type[msgspec.Struct]) -> None:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    (init,) = [node for node in ast.walk(body) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    names = [argument.arg for argument in [*init.args.args, *init.args.kwonlyargs] if argument.arg != "self"]
    assert names == list(kind.__struct_fields__)
    defaults = [*init.args.defaults, *init.args.kw_defaults]
    told = [eval(ast.unparse(default), {"QueueConfig": QueueConfig}) for default in defaults if default]  # noqa: S307
    fields = [field for field in msgspec.structs.fields(kind) if not field.required]
    assert told == [
        field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory() for field in fields
    ]


# ---- equality ----

SAME: list[Any] = [
    "100/minute",
    "100 per 60 seconds",
    "100 requests / 1m",
    (100, 60),
    (100, timedelta(minutes=1)),
    Limit(100, 60),
    Limit.per_minute(100),
    ["100/minute"],
    {"amount": 100, "period": 60.0},
]


def test_configurations_are_equal_when_they_mean_the_same() -> None:
    configs = [RateLimitConfig(spec) for spec in SAME]
    configs += [
        RateLimitConfig("100/minute", queue={"timeout": timedelta(minutes=5)}, by={}),
        RateLimitConfig("100/minute", QueueConfig(), on_outage="local"),
        RateLimitConfig("100/minute", MappingProxyType({"max_size": 1000})),
    ]
    assert len(set(configs)) == 1
    assert all(config == configs[0] for config in configs)
    limits = RateLimiter("memory://", limits={str(i): spec for i, spec in enumerate(SAME)})._catalog
    assert {limits.find(str(i), None).config for i in range(len(SAME))} == {configs[0]}


def test_configurations_differ_by_every_field() -> None:
    by = {"vip": "9/minute", 7: (5, 60)}
    others = [
        RateLimitConfig("100/minute"),
        RateLimitConfig("101/minute"),
        RateLimitConfig("100/minute; 5/second"),
        RateLimitConfig("100/minute", queue={"max_size": 5}),
        RateLimitConfig("100/minute", enforce=False),
        RateLimitConfig("100/minute", denial_cache=True),
        RateLimitConfig("100/minute", on_outage="deny"),
        RateLimitConfig("100/minute", by={"vip": "9/minute"}),
        RateLimitConfig("100/minute", by=by),  # type: ignore[arg-type]
    ]
    assert len(set(others)) == len(others)
    assert others[0] != "100/minute"
    again = RateLimitConfig("100/minute", by={"7": Limit.per_minute(5), "vip": RateLimitConfig((9, 60))})
    assert (again, hash(again)) == (others[-1], hash(others[-1]))


# ---- what holds itself ----


def itself() -> list[Any]:
    spec: list[Any] = ["5/second"]
    spec.append(spec)
    return spec


def deep(levels: int) -> Any:
    spec: Any = "5/second"
    for _ in range(levels):
        spec = [spec]
    return spec


def subject_of_itself() -> dict[str, Any]:
    spec: dict[str, Any] = {"limits": "5/second"}
    spec["by"] = {"x": spec}
    return spec


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (itself(), "[1][1]"),
        ({"limits": itself()}, ".limits[1][1]"),
        ({"limits": "5/second", "by": {"x": itself()}}, ".by['x'][1][1]"),
        (deep(5000), "[0][0]"),
        (subject_of_itself(), ".by['x'].by"),
    ],
    ids=["list", "limits", "subject's list", "deep", "subject"],
)
def test_what_holds_itself_or_is_endlessly_deep_is_a_configuration_error(spec: Any, field: str) -> None:
    for make, start in (
        (partial(RateLimiter, "memory://", limits={"a": spec}), "limits['a']"),
        (partial(RateLimiter, "memory://", default=spec), "default"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.field.startswith(start + field)
        assert len(str(caught.value)) < 300


async def test_configuring_with_what_holds_itself_changes_nothing(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/second"}) as limiter:
        with pytest.raises(ConfigurationError):
            await limiter.configure({"a": itself()})
        assert limiter.config("a") == RateLimitConfig(deep(8)) == RateLimitConfig("5/second")
        with pytest.raises(ConfigurationError, match="is a list within 8 lists"):
            RateLimitConfig(deep(9))
