"""Which configuration holds, where it comes from, and changing it at run time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_async import (
    ConfigurationError,
    CostExceedsLimit,
    Event,
    Limit,
    QueueConfig,
    RateLimitConfig,
    RateLimiter,
)
from ratelimit_async._catalog import Catalog, decode_change
from ratelimit_async._config import decode_config
from ratelimit_async._events import Configured, Defaulted, Denied, Failed
from tests.helpers import client_of, depth_is, eventually, number

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RedisServer


async def amounts(limiter: RateLimiter, name: str, by: str | None = None) -> list[int]:
    return [limit.limit.amount for limit in (await limiter.status(name, by=by)).limits]


async def used(limiter: RateLimiter, name: str) -> dict[str, int]:
    return {str(limit.limit): limit.used for limit in (await limiter.status(name)).limits}


async def amounts_are(limiter: RateLimiter, name: str, expected: list[int], by: str | None = None) -> bool:
    return await amounts(limiter, name, by) == expected


def test_a_keys_own_goes_before_its_names_before_patterns_before_the_default() -> None:
    catalog = Catalog(
        {
            "search": {"limits": "2/minute", "by": {"vip": "3/minute", "trial-*": "4/minute", "trial-a*": "5/minute"}},
            "tenant:*": "6/minute",
            "tenant:big*": "7/minute",
            "tenant:bigger": "8/minute",
            "?": "9/minute",
        },
        "1/minute",
    )
    expected = {
        ("search", None): 2,
        ("search", "vip"): 3,
        ("search", "trial-x"): 4,
        ("search", "trial-ab"): 5,
        ("search", "other"): 2,
        ("tenant:small", "vip"): 6,
        ("tenant:bigX\n", None): 7,
        ("tenant:bigger", None): 8,
        ("x", None): 9,
        ("unknown", "vip"): 1,
    }
    assert {pair: catalog.find(*pair).config.parsed[0].amount for pair in expected} == expected


async def test_a_name_that_gets_the_default_is_told_of_once(url: str) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, limits={"a": "5/minute"}, hooks=[seen.append]) as limiter:
        for name, by in (("a", None), ("new", None), ("new", "x"), ("new", None)):
            await limiter.hit(name, by=by)
    assert [event for event in seen if isinstance(event, Defaulted)] == [Defaulted(name="new", limits="100/minute")]


async def test_without_a_default_an_unknown_name_is_an_error(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute", "b*": "1/minute"}, default=None) as limiter:
        with pytest.raises(ConfigurationError, match=r"name: has no configuration; those that have: 'a', 'b\*'"):
            await limiter.hit("c")
        assert (await limiter.hit("bc")).allowed


async def test_a_file_and_the_environment_make_limiters(url: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(
        'default = false\nlease = 2.0\n[limits]\napi = ["5/minute", "20 concurrent"]\n'
        '[limits.mail]\nlimits = "10/second burst 20"\nqueue = {max_size = 5}\nby = {vip = "7/minute"}\n'
    )
    async with RateLimiter.from_file(path, url=url) as limiter:
        assert await amounts(limiter, "api") == [5, 20]
        assert await amounts(limiter, "mail", "vip") == [7]
        with pytest.raises(ConfigurationError, match="has no configuration"):
            await limiter.hit("other")
    environ = {"RATELIMIT_URL": url, "RATELIMIT_CONFIG": str(path), "RATELIMIT_LIMITS__API": "6/minute"}
    async with RateLimiter.from_env(environ) as limiter:
        assert await amounts(limiter, "api") == [6]
        assert await amounts(limiter, "mail") == [10]


async def test_a_change_reaches_every_process_and_those_that_start_later(url: str) -> None:
    seen: list[Event] = []
    limits = {"a": "5/minute"}
    async with RateLimiter(url, limits=limits, hooks=[seen.append]) as one, RateLimiter(url, limits=limits) as two:
        await one.hit("a", cost=4)
        await one.configure({"a": "3/minute", "new:*": "8/minute"})
        assert not (await one.hit("a")).allowed
        await eventually(lambda: amounts_are(two, "a", [3]))
        await eventually(lambda: amounts_are(two, "new:x", [8]))
        assert [event.name for event in seen if isinstance(event, Configured)] == ["a", "new:*"]
        async with RateLimiter(url, limits=limits) as late:
            assert await amounts(late, "a") == [3]
            assert await used(late, "a") == {"3/minute": 4}
        await two.configure({"a": None})
        await eventually(lambda: amounts_are(one, "a", [5]))
        assert (await one.hit("a")).allowed


async def test_one_key_is_changed_by_itself(url: str) -> None:
    async with RateLimiter(url, limits={"a": {"limits": "5/minute", "by": {"y": "6/minute"}}}) as limiter:
        await limiter.configure({"a": "9/minute"}, by="x")
        assert [await amounts(limiter, "a", by) for by in (None, "x", "y")] == [[5], [9], [6]]
        await limiter.configure({"a": "7/minute"})
        assert [await amounts(limiter, "a", by) for by in (None, "x", "y")] == [[7], [9], [7]]
        await limiter.configure({"a": None}, by="x")
        assert await amounts(limiter, "a", "x") == [7]


async def test_what_is_counted_stays_counted_beside_limits_that_are_added(url: str) -> None:
    async with RateLimiter(url, limits={"a": "100/minute"}) as limiter:
        await limiter.hit("a", cost=60)
        await limiter.configure({"a": ["10/second", "100/minute", "1000/hour"]})
        assert await used(limiter, "a") == {"10/second": 0, "100/minute": 60, "1000/hour": 0}
        await limiter.hit("a", cost=5)
        await limiter.configure({"a": ["50/minute", "1000/hour"]})
        assert await used(limiter, "a") == {"50/minute": 65, "1000/hour": 5}
        await limiter.configure({"a": "80 per 45 seconds"})
        assert list((await used(limiter, "a")).values())[0] in {5, 65}  # noqa: RUF015 - one of both went on


@pytest.mark.parametrize("kind", ["token_bucket", "sliding_counter", "fixed_window"])
async def test_what_is_counted_stays_counted_whatever_the_algorithm(url: str, kind: str) -> None:
    async with RateLimiter(url, limits={"a": f"100/day {kind}"}) as limiter:
        await limiter.hit("a", cost=60)
        await limiter.configure({"a": f"70/day {kind}"})
        assert await used(limiter, "a") == {str(Limit(70, 86400, kind)): 60}  # type: ignore[arg-type]
        assert not (await limiter.hit("a", cost=11)).allowed


async def test_a_raised_limit_wakes_who_waits_and_impossible_costs_are_told(url: str) -> None:
    async with RateLimiter(url, limits={"a": "10/hour"}) as one, RateLimiter(url, limits={"a": "10/hour"}) as two:
        await one.hit("a", cost=10)
        small = await two.submit("a", number, 1, cost=2)
        big = await two.submit("a", number, 2, cost=9)
        last = await one.submit("a", number, 3, cost=3)
        await one.configure({"a": "5/hour"})
        with pytest.raises(CostExceedsLimit, match="9 requests can never pass the limit '5/hour'"):
            await big
        assert not small.done
        assert not last.done
        await one.configure({"a": "15/hour"})
        assert await asyncio.gather(small, last) == [1, 3]


async def test_what_runs_is_counted_right_whatever_is_held_since(url: str) -> None:
    both = ["100/minute from finish", "3 concurrent"]
    async with RateLimiter(url, limits={"a": both[:1]}) as limiter:
        grants = [await limiter.acquire("a") for _ in range(2)]
        await limiter.configure({"a": both})
        assert list((await used(limiter, "a")).values()) == [2, 2]
        await limiter.configure({"a": both[:1]})
        await grants.pop().release()
        await limiter.configure({"a": both})
        assert list((await used(limiter, "a")).values()) == [2, 1]
        await grants.pop().release()
        assert list((await used(limiter, "a")).values()) == [2, 0]


async def test_nobody_is_lost_when_levels_go_or_come(url: str) -> None:
    def config(levels: int) -> RateLimitConfig:
        return RateLimitConfig("1/hour", QueueConfig(priorities=levels))

    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    async with RateLimiter(url, limits={"a": config(3)}) as limiter:
        await limiter.hit("a")
        tickets = [await limiter.submit("a", call, n, priority=n) for n in (2, 1, 0)]
        await limiter.configure({"a": config(1)})
        await eventually(lambda: depth_is(limiter, "a", 3))
        await limiter.configure({"a": RateLimitConfig("100/hour", QueueConfig(priorities=4))})
        await asyncio.gather(*tickets)
        assert sorted(ran) == [0, 1, 2]


async def test_a_wrong_change_changes_nothing(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}) as limiter:
        for wrong, by, field in (
            ({"a*": "6/minute"}, "x", "limits"),
            ({"a": "6/minute"}, "x?", "by"),
            ({"a": "6/minute", "b": "soon"}, None, "limits['b']"),
            ({"": "6/minute"}, None, "limits"),
            (["6/minute"], None, "limits"),
            ({"a": {"limits": "6/minute", "by": {"x": "1/minute"}}}, "y", "limits['a'].by"),
            (
                {"a": {"limits": "6/minute", "by": {"x": {"limits": "1/s", "by": {"z": "1/s"}}}}},
                None,
                "limits['a'].by['x'].by",
            ),
        ):
            with pytest.raises(ConfigurationError) as caught:
                await limiter.configure(wrong, by=by)
            assert caught.value.field == field
        assert await amounts(limiter, "a") == [5]


async def test_a_change_is_read_again_after_the_messages_were_cut(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "5/minute"}) as one:
        async with RateLimiter(own_server.url, limits={"a": "5/minute"}) as two:
            own_server.call("CLIENT", "KILL", "TYPE", "pubsub")
            await two.configure({"a": "6/minute"})
        await eventually(lambda: amounts_are(one, "a", [6]))


async def test_what_cannot_be_read_of_a_change_breaks_nobody(url: str) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, limits={"a": "5/minute"}, hooks=[seen.append]) as limiter, client_of(url) as client:
        await limiter.configure({"a": "6/minute"})
        (control,) = [key async for key in client.scan_iter() if key.endswith(":control")]
        await client.hset(control, "c:a:", '["{\\"limits\\": [\\"from the future\\"]}", [0]]')
        await client.hset(control, "c:b:", "nonsense")
        await limiter.configure({"c": "7/minute"})
        assert [await amounts(limiter, name) for name in "abc"] == [[6], [100], [7]]
        told = {event.what for event in seen if isinstance(event, Failed)}
        assert told == {"configuration of a:", "configuration of b:"}


limits = st.lists(
    st.one_of(
        st.builds(Limit, st.integers(1, 99), st.sampled_from([0.25, 1, 60, 3600])),
        st.builds(Limit.per_minute, st.integers(1, 99), burst=st.integers(1, 99)),
        st.builds(Limit.concurrent, st.integers(1, 9)),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda limit: (limit.algorithm, limit.period),
)
queues = st.builds(
    QueueConfig,
    max_size=st.integers(1, 10),
    overflow=st.sampled_from(["reject", "drop_oldest", "drop_lowest"]),
    timeout=st.none() | st.floats(0.1, 100),
    max_wait_before_promotion=st.none() | st.floats(0.1, 100),
)


@given(
    limits, queues, st.booleans(), st.booleans(), st.dictionaries(st.text(min_size=1, max_size=5), limits, max_size=2)
)
def test_a_configuration_is_read_back_as_it_was_written(
    some: list[Limit], queue: QueueConfig, enforce: bool, cache: bool, by: dict[str, Any]
) -> None:
    config = RateLimitConfig(some, queue, enforce, cache, by)
    back = decode_change(Catalog({}, None).encode(config, "a", None), "a")
    assert back.plain() == config.plain()
    assert (back.parsed, back.queue, back.slots) == (config.parsed, config.queue, config.slots)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"limits": "5/s", "enforce": 1}, "x.enforce"),
        ({"limits": "5/s", "denial_cache": "yes"}, "x.denial_cache"),
        ({"limits": "5/s", "by": ["vip"]}, "x.by"),
        ({"limits": "5/s", "by": {"vip": "soon"}}, "x.by['vip']"),
        ({"limits": "5/s", "by": {"": "5/s"}}, "x.by"),
        ({"limits": "5/s", "queue": {"max_wait_before_promotion": 0}}, "x.queue.max_wait_before_promotion"),
        ({"limits": "5/s", "queue": {"fail_fast": "no"}}, "x.queue.fail_fast"),
        ({"enforce": False}, "x.limits"),
    ],
)
def test_a_mistake_in_a_configuration_names_the_field(spec: object, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        decode_config(spec, "x")
    assert caught.value.field == field


async def test_in_shadow_mode_everything_is_told_and_nothing_denied(url: str) -> None:
    seen: list[Event] = []
    config = RateLimitConfig("1/minute; 1 concurrent", enforce=False)
    async with RateLimiter(
        url, limits={"a": config, "b": RateLimitConfig("1/minute", enforce=False)}, hooks=[seen.append]
    ) as limiter:
        assert not (await limiter.hit("b")).shadow
        assert (await limiter.check("b", cost=2)).shadow
        for ask in (limiter.hit, limiter.check):
            decision = await ask("b")
            assert (decision.allowed, decision.shadow, decision.reason, decision.remaining) == (True, True, "limit", 0)
        async with limiter.acquire("a") as first:
            assert not first.decision.shadow
            async with limiter.acquire("a", timeout=None) as second:
                assert (second.decision.allowed, second.decision.shadow) == (True, True)
                await second.settle(0)
                await second.refund()
            assert await limiter.request("a", number, 3) == 3
            assert await (await limiter.submit("a", number, 4)) == 4
        denied = [event for event in seen if isinstance(event, Denied)]
        assert [event.shadow for event in denied] == [True] * len(denied)
        assert len(denied) == 4
        assert [limit.used for limit in (await limiter.status("a")).limits] == [1, 0]
        await limiter.configure({"b": "1/minute"})
        assert not (await limiter.hit("b")).allowed


# ---- what a process remembers of denials ----


def calls_of(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    session = limiter._session
    assert session is not None
    call = session.executor.call

    def note(script: Any, *arguments: Any, **options: Any) -> Any:
        made.append(script.name)
        return call(script, *arguments, **options)

    monkeypatch.setattr(session.executor, "call", note)
    return made


CACHED = {"a": RateLimitConfig("3/hour", denial_cache=True)}


async def test_a_denial_is_repeated_without_asking_redis(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RateLimiter(url, limits=CACHED) as limiter:
        await limiter.hit("a", cost=2)
        assert (await limiter.hit("a", cost=2)).source == "redis"
        made = calls_of(limiter, monkeypatch)
        for ask in (limiter.hit, limiter.check):
            decision = await ask("a", cost=3)
            assert (decision.allowed, decision.reason, decision.source) == (False, "limit", "denied_cache")
            assert decision.retry_after is not None
            assert 0 < decision.retry_after <= decision.reset_after <= 3604
        assert "admit" not in made
        assert (await limiter.hit("a", cost=1)).allowed
        assert "admit" in made


async def test_denials_are_not_remembered_unless_said(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}) as limiter:
        for _ in range(3):
            assert (await limiter.hit("a")).source == "redis"


@pytest.mark.parametrize("how", ["reset", "refund", "settle", "configure"])
async def test_a_change_from_anywhere_makes_a_denial_void(url: str, how: str) -> None:
    async with RateLimiter(url, limits=CACHED) as one, RateLimiter(url, limits=CACHED) as two:

        async def free(limiter: RateLimiter, grant: Any) -> None:
            if how == "configure":
                await limiter.configure({"a": RateLimitConfig("30/hour", denial_cache=True)})
            elif how == "reset":
                await limiter.reset("a")
            else:
                await (grant.refund() if how == "refund" else grant.settle(0))

        grant = await one.acquire("a", cost=3)
        for limiter in (one, two):
            await limiter.hit("a")
            assert (await limiter.hit("a")).source == "denied_cache"
        await free(one, grant)
        assert (await one.check("a")).allowed
        await eventually(lambda: _allowed(two))


async def _allowed(limiter: RateLimiter) -> bool:
    return (await limiter.check("a")).allowed


async def test_a_denial_ends_by_itself_and_is_not_kept_where_words_may_be_missed(own_server: RedisServer) -> None:
    limits = {"a": RateLimitConfig("1 per 0.2 seconds", denial_cache=True)}
    async with RateLimiter(own_server.url, limits=limits) as limiter:
        await limiter.hit("a")
        assert not (await limiter.hit("a")).allowed
        await eventually(lambda: _allowed(limiter))
        await limiter.hit("a")
        session = limiter._session
        assert session is not None
        session.listener.subscribed.clear()
        for _ in range(2):
            assert (await limiter.hit("a")).source == "redis"


async def test_denials_by_the_queue_or_a_pause_or_running_calls_are_not_kept(url: str) -> None:
    limits = {
        "a": RateLimitConfig("9/hour; 9 tokens/hour", denial_cache=True),
        "b": RateLimitConfig("1/hour from finish", denial_cache=True),
    }
    async with RateLimiter(url, limits=limits) as limiter:
        async with limiter.acquire("b"):
            for _ in range(2):
                assert (await limiter.hit("b")).source == "redis"
        await limiter.pause("a", by="x")
        for _ in range(2):
            assert (await limiter.hit("a", by="x")).source == "redis"
        await limiter.hit("a", cost={"tokens": 9})
        ticket = await limiter.submit("a", number, 1, cost={"tokens": 5})
        for _ in range(2):
            decision = await limiter.hit("a", cost={"tokens": 0})
            assert (decision.reason, decision.source) == ("queue", "redis")
        with contextlib.suppress(Exception):
            ticket.cancel()
