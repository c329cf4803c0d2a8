"""Which configuration holds, where it comes from, and changing it at run time."""

from __future__ import annotations

import asyncio
import string
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_async import (
    ConfigurationError,
    CostExceedsLimit,
    Event,
    Limit,
    NotStarted,
    QueueConfig,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RedisUnavailable,
    RequestCancelled,
    RequestTimeout,
)
from ratelimit_async._catalog import Catalog, decode_change
from ratelimit_async._config import decode_config
from ratelimit_async._events import Allowed, Configured, Defaulted, Denied, Failed, Refunded, Settled
from tests.helpers import client_of, depth_is, eventually, number
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis.asyncio

    from ratelimit_async._settings import SettingsArguments

CONTROL = "{rl}:control"
# The timers that ask Redis by themselves stay silent: only messages tell.
STILL: SettingsArguments = {"lease": 600, "poll_interval": 600}


async def amounts(limiter: RateLimiter, name: str, by: str | None = None) -> list[int]:
    return [limit.limit.amount for limit in (await limiter.status(name, by=by)).limits]


async def amounts_are(limiter: RateLimiter, name: str, expected: list[int], by: str | None = None) -> bool:
    try:
        return await amounts(limiter, name, by) == expected
    except RedisUnavailable:
        return False


async def used(limiter: RateLimiter, name: str, by: str | None = None) -> dict[str, int]:
    return {str(limit.limit): limit.used for limit in (await limiter.status(name, by=by)).limits}


async def granted_is(limiter: RateLimiter, name: str, n: int) -> bool:
    status = await limiter.status(name)
    return (status.queue.depth, status.limits[0].used) == (0, n)


@pytest.fixture
def durable_server() -> Iterator[RedisServer]:
    with RedisServer("--appendfsync", "always", appendonly=True) as server:
        yield server


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
    assert {pair: catalog.find(*pair).config.limits[0].amount for pair in expected} == expected


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
            ({"a*": None}, "x", "limits"),
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
    assert (back.limits, back.queue, back.slots) == (config.limits, config.queue, config.slots)


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


# ---- which one holds ----


async def test_the_same_order_holds_for_what_came_at_run_time(url: str) -> None:
    limits = {"a": {"limits": "1/minute", "by": {"x": "2/minute", "y*": "3/minute"}}, "b*": "4/minute"}
    async with RateLimiter(url, limits=limits, default="5/minute") as limiter:
        assert [await amounts(limiter, "a", by) for by in (None, "x", "yy", "z")] == [[1], [2], [3], [1]]
        await limiter.configure({"a": "6/minute"}, by="yy")
        await limiter.configure({"bb*": "7/minute", "bbc": "8/minute"})
        assert [await amounts(limiter, "a", by) for by in (None, "x", "yy", "z")] == [[1], [2], [6], [1]]
        assert [await amounts(limiter, name) for name in ("bx", "bbx", "bbc", "c")] == [[4], [7], [8], [5]]
        await limiter.configure({"a": {"limits": "9/minute", "by": {"*": "10/minute"}}})
        assert [await amounts(limiter, "a", by) for by in (None, "x", "yy")] == [[9], [10], [6]]


async def test_names_and_subjects_of_any_letters_are_changed_by_themselves(url: str) -> None:
    hostile = ("a:b", "a%3Ab", "{x}", "é💥 \n", "\ud800", "version", "p:a", "c:a:")
    async with RateLimiter(url, limits={"a": "5/minute"}) as one, RateLimiter(url) as two:
        for amount, name in enumerate(hostile, 1):
            await one.configure({name: f"{amount}/minute"})
            await one.configure({name: f"{amount + 50}/minute"}, by=name)
        for limiter in (one, two):
            for amount, name in enumerate(hostile, 1):
                await eventually(lambda limiter=limiter, name=name, n=amount: amounts_are(limiter, name, [n]))
                assert await amounts(limiter, name, name) == [amount + 50]
        assert await amounts(one, "a") == [5]


async def test_subjects_of_any_letters_are_changed_within_their_name(url: str) -> None:
    hostile = ("a:b", "{x}", "é💥 \n", "\ud800", '"', "\\", "vip")
    by = {subject: f"{amount}/minute" for amount, subject in enumerate(hostile, 1)}
    async with RateLimiter(url) as one, RateLimiter(url) as two:
        await one.configure({"a": {"limits": "50/minute", "by": by}})
        for limiter in (one, two):
            await eventually(lambda limiter=limiter: amounts_are(limiter, "a", [50]))
            assert [await amounts(limiter, "a", subject) for subject in hostile] == [[n] for n in range(1, 8)]


async def test_the_default_is_told_of_once_per_name_whatever_is_configured_since(url: str) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, default="7/minute", hooks=[seen.append]) as limiter:
        for by in (None, "x", "y"):
            await limiter.hit("a", by=by)
        await limiter.configure({"b": "5/minute", "a": "6/minute"})
        await limiter.hit("b")
        await limiter.configure({"b": "6/minute", "a": None})
        for by in (None, "z"):
            await limiter.check("a", by=by)
        await limiter.request("c", number, 1)
        await limiter.status("c", total=True)
    told = [event for event in seen if isinstance(event, Defaulted)]
    assert told == [Defaulted(name=name, limits="7/minute") for name in ("a", "c")]


async def test_an_error_about_an_unknown_name_knows_what_was_configured_since(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}, default=None) as limiter:
        for call in (limiter.hit, limiter.check, limiter.status, limiter.acquire, limiter.reset):
            with pytest.raises(ConfigurationError, match="has no configuration; those that have: 'a' ") as caught:
                await call("c")
            assert (caught.value.field, caught.value.value) == ("name", "c")
        await limiter.configure({"b": "5/minute"})
        with pytest.raises(ConfigurationError, match="those that have: 'a', 'b' "):
            await limiter.hit("c")
        await limiter.configure({"c": "5/minute"})
        assert (await limiter.hit("c")).allowed
        await limiter.configure({"c": None})
        with pytest.raises(ConfigurationError, match="has no configuration"):
            await limiter.hit("c")


async def test_the_limiters_of_a_file_and_of_the_environment_share_what_they_count(url: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(f'url = "{url}"\n[limits.mail]\nlimits = "2/hour"\nqueue = {{max_size = 1, timeout = 5}}\n')
    environ = {
        "RATELIMIT_URL": url,
        "RATELIMIT_LIMITS__MAIL__LIMITS": "2/hour",
        "RATELIMIT_LIMITS__MAIL__QUEUE__MAX_SIZE": "1",
        "RATELIMIT_DEFAULT": "none",
    }
    async with RateLimiter.from_file(path) as one, RateLimiter.from_env(environ) as two:
        assert (await one.hit("mail")).allowed
        assert (await two.hit("mail")).allowed
        assert not (await one.hit("mail")).allowed
        await one.submit("mail", number, 1)
        with pytest.raises(QueueFull):
            await two.submit("mail", number, 1)
        with pytest.raises(ConfigurationError):
            await two.hit("other")
        assert (await one.hit("other")).allowed


# ---- changed at run time, everywhere ----


async def test_a_change_is_heard_by_message_and_survives_those_who_made_it(url: str) -> None:
    limits = {"a": "5/minute"}
    async with RateLimiter(url, limits=limits, **STILL) as stays:
        async with RateLimiter(url, limits=limits, **STILL) as leaves:
            await leaves.configure({"a": "6/minute"})
        await eventually(lambda: amounts_are(stays, "a", [6]))
    async with RateLimiter(url, limits=limits, **STILL) as late:
        assert await amounts(late, "a") == [6]
        await late.configure({"a": None})
    async with RateLimiter(url, limits=limits, **STILL) as later:
        assert await amounts(later, "a") == [5]


async def test_a_change_is_made_before_configure_returns(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/minute"}, **STILL) as limiter:
        for amount in range(1, 20):
            await limiter.configure({"a": f"{amount}/minute"})
            assert (await limiter.hit("a")).allowed
            assert not (await limiter.hit("a")).allowed


async def test_the_last_of_many_changes_at_once_holds_in_every_process(url: str) -> None:
    async with RateLimiter(url, **STILL) as one, RateLimiter(url, **STILL) as two, RateLimiter(url, **STILL) as three:
        await asyncio.gather(*(limiter.configure({"a": f"{n}/minute"}) for n in range(1, 30) for limiter in (one, two)))

        async def agree() -> bool:
            found = [await amounts(limiter, "a") for limiter in (one, two, three)]
            return found[0] == found[1] == found[2] != [100]

        await eventually(agree)
        async with RateLimiter(url) as late:
            assert await amounts(late, "a") == await amounts(one, "a")


async def test_a_change_that_was_told_to_nobody_is_read_after_a_reconnect(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "5/minute"}, **STILL) as limiter:
        text = Catalog({}, None).encode("6/minute", "a", None)
        own_server.call("HSET", CONTROL, "c:a:", text, "version", 1)
        assert await amounts(limiter, "a") == [5]
        own_server.call("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: amounts_are(limiter, "a", [6]))


async def test_a_change_outlives_a_restart_of_redis(durable_server: RedisServer) -> None:
    limits = {"a": "5/hour"}
    async with RateLimiter(durable_server.url, limits=limits, **STILL) as limiter:
        await limiter.hit("a", cost=3)
        await limiter.configure({"a": "4/hour"})
        durable_server.restart()
        await eventually(lambda: amounts_are(limiter, "a", [4]))
        await limiter.configure({"a": "3/hour"})
        async with RateLimiter(durable_server.url, limits=limits) as late:
            assert await used(late, "a") == {"3/hour": 3}
            assert not (await late.hit("a")).allowed


async def test_one_that_leaves_while_it_reads_a_change_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter(url, **STILL)
    async with asyncio.timeout(10), limiter:
        session = limiter._session
        assert session is not None
        # What is asked of Redis on entering has been answered.
        await eventually(lambda: not session._changes)
        executor, close = session.executor, session.executor.close

        def close_as_a_reply_comes() -> None:
            close()
            executor._receive([b"1"])

        monkeypatch.setattr(executor, "close", close_as_a_reply_comes)
        await limiter.configure({"a": "6/minute"})


async def test_where_redis_forgot_a_change_what_was_built_holds_again(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits={"a": "5/minute"}, **STILL) as limiter:
        await limiter.configure({"a": "6/minute"})
        own_server.restart()
        await eventually(lambda: amounts_are(limiter, "a", [5]))


async def test_a_change_is_heard_even_after_redis_forgot_all_earlier_ones(own_server: RedisServer) -> None:
    limits = {"a": "5/minute"}
    one, two = (RateLimiter(own_server.url, limits=limits, **STILL) for _ in range(2))
    async with one, two:
        await one.configure({"a": "6/minute"})
        await eventually(lambda: amounts_are(two, "a", [6]))
        own_server.call("FLUSHALL")
        await one.configure({"a": "7/minute"})
        await eventually(lambda: amounts_are(two, "a", [7]))


async def test_the_timer_finds_a_change_that_no_message_told(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}, lease=0.1) as limiter, client_of(url) as client:
        text = Catalog({}, None).encode("6/minute", "a", None)
        await client.hset(CONTROL, mapping={"c:a:": text, "version": "1"})
        await eventually(lambda: amounts_are(limiter, "a", [6]))


async def test_one_key_goes_back_to_what_its_name_is_configured_with(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}) as one, RateLimiter(url, limits={"a": "5/minute"}) as two:
        await one.configure({"a": "6/minute"})
        await one.configure({"a": "7/minute"}, by=7)
        await eventually(lambda: amounts_are(two, "a", [7], "7"))
        assert [await amounts(two, "a", by) for by in ("8", None)] == [[6], [6]]
        await one.configure({"a": None}, by="7")
        await eventually(lambda: amounts_are(two, "a", [6], "7"))
        await one.configure({"a": None})
        await eventually(lambda: amounts_are(two, "a", [5], "7"))


async def test_taking_back_what_was_never_changed_does_nothing(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}) as limiter:
        await limiter.configure({"a": None, "never": None})
        await limiter.configure({"a": None}, by="x")
        assert await amounts(limiter, "a", "x") == [5]


async def test_an_event_tells_what_was_configured(url: str) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, hooks=[seen.append]) as limiter:
        await limiter.configure({"a": "6/minute"}, by=7)
        await limiter.configure({"a": None}, by=7)
    events = [event for event in seen if isinstance(event, Configured)]
    assert [(event.name, event.by) for event in events] == [("a", "7")] * 2
    assert decode_config(msgspec.json.decode(events[0].config), "a").limits == (Limit.per_minute(6),)
    assert events[1].config == ""


# ---- what is counted ----

STEPS = [
    ("100/minute", "50/minute", {"50/minute": 10}),
    ("100/minute", "5/minute", {"5/minute": 10}),
    ("100/minute", "100/hour", {"100/hour": 10}),
    ("100/hour", "100/minute", {"100/minute": 10}),
    ("100/minute", ["7/second", "100/minute"], {"7/second": 0, "100/minute": 10}),
    ("100/minute", ["100/minute", "7/second"], {"100/minute": 10, "7/second": 0}),
    ("100/minute", ["1000/day", "100/minute"], {"1000/day": 0, "100/minute": 10}),
    ("100/minute", ["100/minute", "1000/day"], {"100/minute": 10, "1000/day": 0}),
    (["70/second", "100/minute"], "100/minute", {"100/minute": 10}),
    (["100/minute", "1000/day"], "1000/day", {"1000/day": 10}),
    (["100/minute", "90 tokens/minute"], ["90 tokens/minute", "100/minute"], {"90 tokens/minute": 0, "100/minute": 10}),
    ("100/hour burst 50", "200/hour burst 70", {"200/hour burst 70": 10}),
    ("100/hour burst 50", "100/day burst 50", {"100/day burst 50": 10}),
    ("100/day burst 50", "100/hour burst 50", {"100/hour burst 50": 10}),
    ("100/hour fixed_window", "50/hour fixed_window", {"50/hour fixed_window": 10}),
    ("100/hour fixed_window", "50/day fixed_window", {"50/day fixed_window": 10}),
    ("100/day fixed_window", "50/hour fixed_window", {"50/hour fixed_window": 10}),
    ("100/day sliding_counter", "50/day sliding_counter", {"50/day sliding_counter": 10}),
    ("100/hour sliding_counter", "50/day sliding_counter", {"50/day sliding_counter": 10}),
    ("100/day sliding_counter", "50/hour sliding_counter", {"50/hour sliding_counter": 10}),
]


@pytest.mark.parametrize(("before", "after", "expected"), STEPS, ids=str)
async def test_what_is_counted_stays_counted(url: str, before: Any, after: Any, expected: dict[str, int]) -> None:
    async with RateLimiter(url, limits={"a": before}) as limiter:
        for by in (None, "x"):
            await limiter.hit("a", by=by, cost=10)
        await limiter.configure({"a": after})
        for by in (None, "x"):
            assert await used(limiter, "a", by) == expected


@pytest.mark.parametrize("kind", ["sliding_window", "token_bucket", "fixed_window", "sliding_counter"])
@pytest.mark.parametrize(("before", "after"), [("day", "minute"), ("minute", "day")])
async def test_a_changed_period_is_counted_to_its_own_end_and_no_longer(
    url: str, kind: str, before: str, after: str
) -> None:
    seconds = {"minute": 60, "day": 86_400}
    async with RateLimiter(url, limits={"a": f"10/{before} {kind}"}) as limiter:
        await limiter.hit("a", cost=10)
        await limiter.configure({"a": f"10/{after} {kind}"})
        status = (await limiter.status("a")).limits[0]
        # A window that was a counter's may cover two of its periods, and a bucket is as wide as it was.
        most = 2 * seconds[after] + seconds[before] / 800 + 1
        assert status.reset_after <= most
        decision = await limiter.check("a")
        assert decision.retry_after is not None
        assert decision.retry_after <= most


@pytest.mark.parametrize("kind", ["sliding_window", "token_bucket", "fixed_window", "sliding_counter"])
async def test_what_is_counted_is_kept_for_as_long_as_a_longer_period_counts_it(url: str, kind: str) -> None:
    async with RateLimiter(url, limits={"a": f"10/minute {kind}"}) as limiter, client_of(url) as client:
        await limiter.hit("a", cost=10)
        await limiter.configure({"a": f"10/day {kind}"})
        await eventually(lambda: _is_kept(limiter, client))


async def _is_kept(limiter: RateLimiter, client: redis.asyncio.Redis) -> bool:
    reset = (await limiter.status("a")).limits[0].reset_after
    (state,) = [key async for key in client.scan_iter("{rl:a:}:*:requests:*")]
    return bool(await client.pttl(state) >= reset * 1000)


async def test_going_there_and_back_loses_nothing(url: str) -> None:
    limits = {"a": ["100/minute", "1000/hour"]}
    async with RateLimiter(url, limits=limits) as limiter:
        await limiter.hit("a", cost=10)
        await limiter.configure({"a": ["50 tokens/minute", "1000/hour", "100/minute", "5000/day"]})
        assert (await limiter.hit("a", cost={"requests": 5, "tokens": 20})).allowed
        await limiter.configure({"a": ["1000/hour", "50 tokens/minute", "100/minute"]})
        assert await used(limiter, "a") == {"1000/hour": 15, "50 tokens/minute": 20, "100/minute": 15}
        await limiter.configure({"a": None})
        assert await used(limiter, "a") == {"100/minute": 15, "1000/hour": 15}


async def test_what_one_subject_has_used_stays_counted_when_its_own_configuration_changes(url: str) -> None:
    limits = {"a": {"limits": "5/minute", "by": {"vip": "100/minute"}}}
    changed = ["1000/hour", "80/minute"]
    async with RateLimiter(url, limits=limits) as limiter:
        await limiter.hit("a", by="vip", cost=10)
        await limiter.configure({"a": changed}, by="vip")
        assert await used(limiter, "a", "vip") == {"1000/hour": 0, "80/minute": 10}
        await limiter.configure({"a": None}, by="vip")
        assert await used(limiter, "a", "vip") == {"100/minute": 10}
        # The same, said within the name's.
        await limiter.configure({"a": {"limits": "5/minute", "by": {"vip": changed}}})
        assert await used(limiter, "a", "vip") == {"1000/hour": 0, "80/minute": 10}


async def test_a_concurrent_limit_counts_those_who_run_whatever_is_changed(url: str) -> None:
    async with RateLimiter(url, limits={"a": "3 concurrent"}) as limiter:
        grants = [await limiter.acquire("a") for _ in range(3)]
        await limiter.configure({"a": "2 concurrent"})
        assert await used(limiter, "a") == {"2 concurrent": 3}
        with pytest.raises(RequestTimeout):
            await limiter.acquire("a", timeout=0)
        await grants.pop().release()
        assert not (await limiter.check("a")).allowed
        await grants.pop().release()
        async with limiter.acquire("a", timeout=0):
            assert await used(limiter, "a") == {"2 concurrent": 2}
        await grants.pop().release()
        assert await used(limiter, "a") == {"2 concurrent": 0}


async def test_a_grant_from_before_a_change_is_settled_and_refunded_after_it(url: str) -> None:
    async with RateLimiter(url, limits={"a": "10/hour; 100 tokens/hour"}) as limiter:
        kept = await limiter.acquire("a", cost={"tokens": 30})
        gone = await limiter.acquire("a", cost={"tokens": 40})
        await limiter.configure({"a": ["50 tokens/hour", "1000/day", "5/hour"]})
        await kept.settle({"tokens": 20})
        await gone.refund()
        assert await used(limiter, "a") == {"50 tokens/hour": 20, "1000/day": 0, "5/hour": 1}


# ---- who waits ----


async def test_a_lowered_limit_denies_the_next_check_in_every_process(url: str) -> None:
    limits = {"a": "10/hour"}
    async with RateLimiter(url, limits=limits, **STILL) as one, RateLimiter(url, limits=limits, **STILL) as two:
        await two.hit("a", cost=5)
        await one.configure({"a": "5/hour"})
        assert not (await one.hit("a")).allowed
        assert not (await one.check("a")).allowed
        await eventually(lambda: amounts_are(two, "a", [5]))
        decision = await two.hit("a")
        assert (decision.allowed, decision.reason, str(decision.limit)) == (False, "limit", "5/hour")


@pytest.mark.parametrize("raised", ["100/hour", "2000/day", "1 tokens/hour", ["50/hour", "100/day"], None])
async def test_a_raised_limit_wakes_all_who_may_pass_in_every_process_at_once(url: str, raised: Any) -> None:
    limits = {"a": "100/hour"}
    async with RateLimiter(url, limits=limits, **STILL) as one, RateLimiter(url, limits=limits, **STILL) as two:
        await one.configure({"a": "1/hour"})
        await eventually(lambda: amounts_are(two, "a", [1]))
        await one.hit("a")
        tickets = [await (two if n % 2 else one).submit("a", number, n) for n in range(8)]
        assert [ticket.done for ticket in tickets] == [False] * 8
        await two.configure({"a": raised})
        assert await asyncio.gather(*tickets) == list(range(8))


async def test_a_raised_limit_lets_go_in_order_no_more_than_it_allows(url: str) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    limits = {"a": "1/hour"}
    async with RateLimiter(url, limits=limits, **STILL) as one, RateLimiter(url, limits=limits, **STILL) as two:
        await one.hit("a")
        for n in range(6):
            await (two if n % 2 else one).submit("a", call, n)
        await let_go_one_by_one(two, ran, lambda n: f"{n}/hour", 6)
        assert ran == list(range(6))


async def let_go_one_by_one(limiter: RateLimiter, ran: list[Any], config: Callable[[int], object], people: int) -> None:
    """Raise a limit of which 1 is used, so that one after another runs."""
    for n in range(1, people + 1):
        assert len(ran) == n - 1
        await limiter.configure({"a": config(1 + n)})
        await eventually(lambda n=n: len(ran) >= n)


async def test_a_raised_limit_wakes_those_of_the_one_that_drives_elsewhere(url: str) -> None:
    limits = {"a": "1/hour"}
    async with RateLimiter(url, limits=limits, **STILL) as driver:
        await driver.hit("a")
        first = await driver.submit("a", number, 1)
        async with RateLimiter(url, limits=limits, processor=False, **STILL) as waiter:
            second = await waiter.submit("a", number, 2)
            await waiter.configure({"a": "10/hour"})
            assert await asyncio.gather(first, second) == [1, 2]


async def test_costs_that_can_never_pass_any_more_are_told_wherever_they_wait(url: str) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    limits = {"a": "100/hour; 10 tokens/hour"}
    async with RateLimiter(url, limits=limits, **STILL) as one, RateLimiter(url, limits=limits, **STILL) as two:
        await one.hit("a", cost={"tokens": 10})
        costs = [4, 9, 2, 5, 7, 1, 10, 3]
        tickets = [
            await (two if n % 2 else one).submit("a", call, cost, cost={"tokens": cost}) for n, cost in enumerate(costs)
        ]
        acquiring = asyncio.create_task(_acquire(two, {"tokens": 8}))
        await eventually(lambda: depth_is(one, "a", 9))
        await one.configure({"a": "100/hour; 4 tokens/hour"})
        for cost, ticket in zip(costs, tickets, strict=True):
            if cost > 4:
                with pytest.raises(CostExceedsLimit) as caught:
                    await ticket
                told = (caught.value.cost, caught.value.unit, caught.value.limit)
                assert told == (cost, "tokens", "4 tokens/hour")
        with pytest.raises(CostExceedsLimit):
            await acquiring
        await eventually(lambda: depth_is(one, "a", 4))
        assert ran == []
        assert [ticket.done for ticket in tickets] == [cost > 4 for cost in costs]
        # 10 are used; what is left goes in order, and nobody overtakes.
        for most, expected in ((13, []), (14, [4]), (15, [4]), (16, [4, 2]), (17, [4, 2, 1]), (20, [4, 2, 1, 3])):
            await two.configure({"a": f"100/hour; {most} tokens/hour"})
            await eventually(lambda expected=expected: len(ran) >= len(expected))
            assert ran == expected
        assert await used(two, "a") == {"100/hour": 5, "20 tokens/hour": 20}


async def _acquire(limiter: RateLimiter, cost: dict[str, int]) -> None:
    async with limiter.acquire("a", cost=cost):
        pass


async def test_those_behind_an_impossible_cost_go_on_at_once(url: str) -> None:
    limits = {"a": "10/hour"}
    async with RateLimiter(url, limits=limits, **STILL) as one, RateLimiter(url, limits=limits, **STILL) as two:
        await one.hit("a", cost=3)
        head = await two.submit("a", number, 1, cost=8)
        behind = await one.submit("a", number, 2, cost=2)
        await one.configure({"a": "7/hour"})
        with pytest.raises(CostExceedsLimit):
            await head
        assert await behind == 2


async def test_a_new_unit_is_not_held_against_those_who_wait(url: str) -> None:
    async with RateLimiter(url, limits={"a": "2/hour"}) as limiter:
        await limiter.hit("a", cost=2)
        tickets = [await limiter.submit("a", number, n) for n in range(2)]
        await limiter.configure({"a": "10/hour; 5 tokens/hour; 1 concurrent"})
        assert await asyncio.gather(*tickets) == [0, 1]


async def test_a_unit_that_is_gone_is_not_held_against_those_who_wait(url: str) -> None:
    async with RateLimiter(url, limits={"a": "9/hour; 5 tokens/hour"}) as limiter:
        await limiter.hit("a", cost={"tokens": 5})
        tickets = [await limiter.submit("a", number, n, cost={"tokens": 5}) for n in range(2)]
        await limiter.configure({"a": "9/hour"})
        assert await asyncio.gather(*tickets) == [0, 1]
        assert await used(limiter, "a") == {"9/hour": 3}


async def depths_are(limiter: RateLimiter, expected: tuple[int, ...]) -> bool:
    return (await limiter.status("a")).queue.depth_by_priority == expected


def levels(n: int, limits: str = "1/hour") -> RateLimitConfig:
    return RateLimitConfig(limits, QueueConfig(priorities=n, timeout=None))


async def test_with_fewer_levels_everyone_waits_once_and_better_ones_still_first(url: str) -> None:
    ran: list[str] = []

    async def call(mark: str) -> None:
        ran.append(mark)

    limits = {"a": levels(4)}
    async with RateLimiter(url, limits=limits) as one, RateLimiter(url, limits=limits) as two:
        await one.hit("a")
        tickets = [
            await (two if n % 2 else one).submit("a", call, f"{priority}{n}", priority=priority)
            for n, priority in enumerate((3, 2, 1, 0, 0, 3, 2, 1))
        ]
        await two.configure({"a": levels(2)})
        await eventually(lambda: depths_are(one, (2, 6)))
        assert sorted([waiting.id async for waiting in one.waiting("a")]) == sorted(ticket.id for ticket in tickets)
        await let_go_one_by_one(two, ran, lambda n: levels(2, f"{n}/hour"), 8)
        assert ran == ["03", "04", "30", "21", "12", "35", "26", "17"]


async def test_those_who_were_moved_to_another_level_keep_their_arrival_order(url: str) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    async with RateLimiter(url, limits={"a": levels(3)}) as limiter:
        await limiter.hit("a")
        for n, priority in enumerate((2, 1, 0, 1, 2)):
            await limiter.submit("a", call, n, priority=priority)
        await limiter.configure({"a": levels(1)})
        await eventually(lambda: depths_are(limiter, (5,)))
        await let_go_one_by_one(limiter, ran, lambda n: levels(1, f"{n}/hour"), 5)
        assert ran == [0, 1, 2, 3, 4]


async def test_with_fewer_levels_and_more_again_nobody_is_granted_twice(url: str) -> None:
    async with RateLimiter(url, limits={"a": levels(3)}) as limiter:
        await limiter.hit("a")
        tickets = [await limiter.submit("a", number, n, priority=n) for n in range(3)]
        await limiter.configure({"a": levels(1)})
        await eventually(lambda: depths_are(limiter, (3,)))
        await limiter.configure({"a": levels(3)})
        waiting = [one.id async for one in limiter.waiting("a")]
        assert sorted(waiting) == sorted(ticket.id for ticket in tickets)
        await limiter.configure({"a": levels(3, "100/hour")})
        assert await asyncio.gather(*tickets) == [0, 1, 2]
        await eventually(lambda: granted_is(limiter, "a", 4))


async def test_one_whose_level_is_gone_can_still_leave(url: str) -> None:
    async with RateLimiter(url, limits={"a": levels(3)}) as limiter:
        await limiter.hit("a")
        tickets = [await limiter.submit("a", number, n, priority="low") for n in range(3)]
        expiring = asyncio.create_task(_expire(limiter))
        await eventually(lambda: depth_is(limiter, "a", 4))
        await limiter.configure({"a": levels(1)})
        await eventually(lambda: depths_are(limiter, (4,)))
        assert tickets[0].cancel()
        with pytest.raises(RequestCancelled):
            await tickets[0]
        await limiter.cancel(tickets[1].id)
        with pytest.raises(RequestCancelled):
            await tickets[1]
        await expiring
        await eventually(lambda: depth_is(limiter, "a", 1))
        await limiter.configure({"a": levels(1, "100/hour")})
        assert await tickets[2] == 2
        await eventually(lambda: granted_is(limiter, "a", 2))


async def _expire(limiter: RateLimiter) -> None:
    with pytest.raises(RequestTimeout):
        await limiter.request("a", number, 9, priority="low", timeout=0.5)


async def test_with_more_levels_those_who_wait_keep_theirs(url: str) -> None:
    ran: list[str] = []

    async def call(mark: str) -> None:
        ran.append(mark)

    async with RateLimiter(url, limits={"a": levels(2)}) as limiter:
        await limiter.hit("a")
        for level in (1, 0):
            await limiter.submit("a", call, f"old{level}", priority=level)
        await limiter.configure({"a": levels(4)})
        for level in (3, 2, 1, 0):
            await limiter.submit("a", call, f"new{level}", priority=level)
        assert (await limiter.status("a")).queue.depth_by_priority == (2, 2, 1, 1)
        await let_go_one_by_one(limiter, ran, lambda n: levels(4, f"{n}/hour"), 6)
        assert ran == ["old0", "new0", "old1", "new1", "new2", "new3"]


async def test_a_priority_is_checked_against_the_levels_of_now(url: str) -> None:
    async with RateLimiter(url, limits={"a": levels(3, "9/hour")}) as limiter:
        assert await limiter.request("a", number, 1, priority=2) == 1
        await limiter.configure({"a": levels(2, "9/hour")})
        with pytest.raises(ConfigurationError, match="priority: must be from 0"):
            await limiter.request("a", number, 1, priority=2)
        assert await limiter.request("a", number, 1, priority="low") == 1


async def test_a_smaller_queue_keeps_those_in_it_and_takes_no_more(url: str) -> None:
    def sized(size: int, **options: Any) -> RateLimitConfig:
        return RateLimitConfig("1/hour", QueueConfig(max_size=size, **options))

    async with RateLimiter(url, limits={"a": sized(3)}) as limiter:
        await limiter.hit("a")
        tickets = [await limiter.submit("a", number, n) for n in range(3)]
        await limiter.configure({"a": sized(2)})
        with pytest.raises(QueueFull, match="2 requests wait"):
            await limiter.submit("a", number, 3)
        assert await depth_is(limiter, "a", 3)
        tickets[0].cancel()
        await eventually(lambda: depth_is(limiter, "a", 2))
        with pytest.raises(QueueFull):
            await limiter.submit("a", number, 3)
        await limiter.configure({"a": sized(4)})
        tickets += [await limiter.submit("a", number, n) for n in (3, 4)]
        with pytest.raises(QueueFull):
            await limiter.submit("a", number, 5)
        await limiter.configure({"a": sized(4, overflow="drop_oldest")})
        await limiter.submit("a", number, 5)
        await eventually(lambda: tickets[1].done)
        assert [ticket.done for ticket in tickets] == [True, True, False, False, False]


async def test_the_timeout_of_the_queue_is_that_of_now(url: str) -> None:
    async with RateLimiter(url, limits={"a": levels(3)}) as limiter:
        await limiter.hit("a")
        await limiter.configure({"a": RateLimitConfig("1/hour", QueueConfig(timeout=0.05))})
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
            await limiter.request("a", number, 1)


async def test_another_algorithm_begins_anew_and_lets_those_who_wait_pass(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}, **STILL) as limiter:
        await limiter.hit("a")
        ticket = await limiter.submit("a", number, 1)
        await limiter.configure({"a": "5/hour burst 5"})
        assert await ticket == 1


# ---- changes that cannot be used ----

WRONG: list[tuple[Any, Any, str, Any]] = [
    ({"a": "9/minute", "b": "soon"}, None, "limits['b']", "soon"),
    ({"b": "9/minute", "a": 5}, None, "limits['a']", 5),
    ({"a": []}, None, "limits['a']", []),
    ({"a": "0/minute"}, None, "limits['a'].amount", "0/minute"),
    ({"a": {"limits": "9/minute", "enforce": "no"}}, None, "limits['a'].enforce", "no"),
    ({"a": {"limits": "9/minute", "queue": {"max_size": 0}}}, None, "limits['a'].queue.max_size", 0),
    ({"a": {"limits": "9/minute", "queue": {"size": 1}}}, None, "limits['a'].queue.size", 1),
    ({"a": {"limits": "9/minute", "deny": True}}, None, "limits['a'].deny", True),
    ({"a": {"queue": {}}}, None, "limits['a'].limits", {"queue": {}}),
    ({"a": {"limits": "9/minute", "by": {"x": "soon"}}}, None, "limits['a'].by['x']", "soon"),
    ({"a": "9/minute", 5: "9/minute"}, None, "limits", 5),
    ({"a": "9/minute", "": None}, None, "limits", ""),
    ({"a": "9/minute", "x" * 300: None}, None, "limits", "x" * 300),
    ({"a": "9/minute"}, "", "by", ""),
    ({"a": "9/minute"}, 1.5, "by", 1.5),
    ({"a": "9/minute"}, "x*", "by", "x*"),
    ({"a": "9/minute", "b?": "9/minute"}, "x", "limits", "b?"),
    (None, None, "limits", None),
    ("9/minute", None, "limits", "9/minute"),
    ([("a", "9/minute")], None, "limits", [("a", "9/minute")]),
]


@pytest.mark.parametrize(("limits", "by", "field", "value"), WRONG, ids=str)
async def test_a_change_with_a_mistake_is_refused_whole(url: str, limits: Any, by: Any, field: str, value: Any) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, limits={"a": "5/minute"}, hooks=[seen.append]) as one, client_of(url) as client:
        await one.configure({"kept": "7/minute"})
        before = await client.hgetall(CONTROL)
        with pytest.raises(ConfigurationError) as caught:
            await one.configure(limits, by=by)
        assert (caught.value.field, caught.value.value) == (field, value)
        assert await client.hgetall(CONTROL) == before
        assert [await amounts(one, name) for name in ("a", "b", "kept")] == [[5], [100], [7]]
        assert [event.name for event in seen if isinstance(event, Configured)] == ["kept"]


async def test_configure_is_for_a_limiter_that_runs(url: str) -> None:
    limiter = RateLimiter(url, limits={"a": "5/minute"})
    with pytest.raises(NotStarted):
        await limiter.configure({"a": "6/minute"})


# ---- what cannot be read in Redis ----

UNREADABLE = {
    "no JSON": "nonsense",
    "empty": "",
    "no pair": "[]",
    "another shape": '{"limits": "9/minute"}',
    "nonsense within": '["nonsense", [0]]',
    "endless": "[" * 100_000,
    "endless within": '["' + "[" * 100_000 + '", [0]]',
    "a limit of the future": '["{\\"limits\\": [\\"9/minute quantum\\"]}", [0]]',
    "a field of the future": '["{\\"limits\\": [\\"9/minute\\"], \\"colour\\": 1}", [0]]',
    "too few counters": '["{\\"limits\\": [\\"9/minute\\"]}", []]',
    "too many counters": '["{\\"limits\\": [\\"9/minute\\"]}", [0, 1]]',
    "no counter": '["{\\"limits\\": [\\"9/minute\\"]}", ["x"]]',
    "no text": b"\xff\xfe",
}


async def write_by_hand(client: redis.asyncio.Redis, fields: dict[str, Any]) -> None:
    await client.hset(CONTROL, mapping=fields)
    await client.hincrby(CONTROL, "version", 1)
    await client.publish("rl:reply:all", "c")


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_cannot_be_read_breaks_neither_those_who_run_nor_those_who_start(url: str, what: str) -> None:
    seen: list[Event] = []
    limits = {"a": "5/minute"}
    async with RateLimiter(url, limits=limits, hooks=[seen.append], **STILL) as one, client_of(url) as client:
        await one.configure({"b": "6/minute"})
        await write_by_hand(client, {"c:a:": UNREADABLE[what]})
        await eventually(lambda: _has_failed(seen))
        assert [await amounts(one, name) for name in "ab"] == [[5], [6]]
        async with asyncio.timeout(10), RateLimiter(url, limits=limits, **STILL) as late:
            assert (await late.hit("a")).allowed
            assert [await amounts(late, name) for name in "ab"] == [[5], [6]]
            await late.configure({"b": "7/minute"})
            await eventually(lambda: amounts_are(one, "b", [7]))
            await late.configure({"a": "8/minute"})
            await eventually(lambda: amounts_are(one, "a", [8]))


def _has_failed(seen: list[Event]) -> bool:
    return "configuration of a:" in [event.what for event in seen if isinstance(event, Failed)]


async def test_what_was_readable_before_goes_on_holding(url: str) -> None:
    seen: list[Event] = []
    limits = {"a": "5/minute"}
    async with RateLimiter(url, limits=limits, hooks=[seen.append], **STILL) as limiter, client_of(url) as client:
        await limiter.configure({"a": "6/minute"})
        await write_by_hand(client, {"c:a:": "nonsense"})
        await eventually(lambda: _has_failed(seen))
        assert await amounts(limiter, "a") == [6]


@pytest.mark.parametrize(
    ("field", "value"),
    [("p:b", "nonsense"), ("p:b", ""), ("z:b", "1"), ("c:", "nonsense"), ("c:%FF:", "nonsense"), (b"c:\xff:", "x")],
    ids=str,
)
async def test_a_field_that_nobody_knows_is_passed_over(url: str, field: str | bytes, value: str) -> None:
    limits = {"a": "5/minute"}
    async with RateLimiter(url, limits=limits, **STILL) as one, client_of(url) as client:
        await client.hset(CONTROL, field, value)  # type: ignore[arg-type]
        async with asyncio.timeout(10), RateLimiter(url, limits=limits, **STILL) as late:
            assert (await late.hit("b")).allowed
            await late.configure({"a": "6/minute"})
            await eventually(lambda: amounts_are(one, "a", [6]))
            await one.pause("a")
            await one.resume("a")
            assert (await one.hit("a")).allowed


# ---- written and read back ----

UNITS = st.sampled_from(["requests", "tokens", "a_b2"])
AMOUNTS = st.integers(1, 10**9)
PERIODS = st.sampled_from([0.001, 0.25, 1, 60, 3600, 86_400, 604_800]) | st.floats(0.001, 10**6)
GUARDS = st.sampled_from([0.0, 0.005]) | st.floats(0, 10)
COUNTED = st.sampled_from(["start", "finish"])
ANY_LIMIT = st.one_of(
    st.builds(
        Limit,
        AMOUNTS,
        PERIODS,
        st.sampled_from(["sliding_window", "sliding_counter"]),
        unit=UNITS,
        count_from=COUNTED,
        guard=GUARDS,
    ),
    st.builds(Limit, AMOUNTS, PERIODS, st.just("fixed_window"), unit=UNITS, count_from=COUNTED),
    st.builds(
        Limit,
        AMOUNTS,
        PERIODS,
        st.just("token_bucket"),
        unit=UNITS,
        burst=st.none() | AMOUNTS,
        count_from=COUNTED,
        guard=GUARDS,
    ),
    st.builds(Limit.concurrent, AMOUNTS, unit=st.sampled_from(["", "requests", "tokens"])),
)
ANY_LIMITS = st.lists(
    ANY_LIMIT, min_size=1, max_size=4, unique_by=lambda limit: (limit.algorithm, limit.unit, limit.period)
)
ANY_QUEUE = st.builds(
    QueueConfig,
    max_size=st.integers(1, 10**6),
    overflow=st.sampled_from(["reject", "drop_oldest", "drop_lowest"]),
    priorities=st.integers(1, 16),
    timeout=st.none() | st.floats(0.001, 10**6),
    fail_fast=st.booleans(),
    max_wait_before_promotion=st.none() | st.floats(0.001, 10**6),
)
ANY_CONFIG = st.builds(RateLimitConfig, ANY_LIMITS, ANY_QUEUE, st.booleans(), st.booleans())
SUBJECTS = st.text(min_size=1, max_size=5) | st.text(string.punctuation, min_size=1, max_size=5)


@given(ANY_CONFIG, st.dictionaries(SUBJECTS, ANY_CONFIG, max_size=3))
def test_any_configuration_is_equal_once_it_is_written_and_read(
    config: RateLimitConfig, by: dict[str, RateLimitConfig]
) -> None:
    whole = RateLimitConfig(config.limits, config.queue, config.enforce, config.denial_cache, by)
    back = decode_change(Catalog({}, None).encode(whole, "a", None), "a")
    assert list(back.by) == list(by)
    for one, other in [(back, whole), *((back.by[subject], by[subject]) for subject in by)]:
        assert (one.limits, one.queue) == (other.limits, other.queue)
        assert (one.enforce, one.denial_cache, one.slots) == (other.enforce, other.denial_cache, other.slots)


@given(st.lists(ANY_LIMITS, min_size=2, max_size=5))
def test_no_two_limits_of_a_configuration_ever_share_a_counter(steps: list[list[Limit]]) -> None:
    catalog = Catalog({"a": steps[0]}, None)
    for step in steps[1:]:
        config = decode_change(catalog.encode(step, "a", None), "a")
        catalog.change({("a", None): config})
        counters = [
            (limit.algorithm, limit.unit, slot) for limit, slot in zip(config.limits, config.slots, strict=True)
        ]
        assert len(counters) == len(set(counters))


# ---- shadow mode ----


def shadow(limits: str, **options: Any) -> RateLimitConfig:
    return RateLimitConfig(limits, enforce=False, **options)


async def test_in_shadow_mode_a_hit_says_what_would_have_bound(url: str) -> None:
    async with RateLimiter(url, limits={"a": shadow("9/hour; 2/minute")}) as limiter:
        decisions = [await limiter.hit("a") for _ in range(4)]
        assert [one.allowed for one in decisions] == [True] * 4
        assert [one.shadow for one in decisions] == [False, False, True, True]
        assert [one.reason for one in decisions] == ["ok", "ok", "limit", "limit"]
        last = decisions[-1]
        assert str(last.limit) == "2/minute"
        assert last.retry_after is not None
        assert 0 < last.retry_after <= 61
        last.raise_if_denied()
        # What would have been denied is not charged.
        assert await used(limiter, "a") == {"9/hour": 2, "2/minute": 2}


async def test_in_shadow_mode_a_pause_is_told_and_stops_nobody(url: str) -> None:
    async with RateLimiter(url, limits={"a": shadow("9/hour")}) as limiter:
        await limiter.pause("a")
        await limiter.pause_for("a", 60, by="x")
        for by in (None, "x"):
            decision = await limiter.hit("a", by=by)
            assert (decision.allowed, decision.shadow, decision.reason) == (True, True, "paused")
            assert await limiter.request("a", number, 1, by=by, timeout=0) == 1
            assert (await limiter.status("a", by=by)).queue.depth == 0


async def test_in_shadow_mode_a_cost_that_could_never_pass_is_told_and_passes(url: str) -> None:
    async with RateLimiter(url, limits={"a": shadow("9/hour")}) as limiter:
        decision = await limiter.hit("a", cost=10)
        assert (decision.allowed, decision.shadow, decision.reason) == (True, True, "limit")
        assert await limiter.request("a", number, 1, cost=10, timeout=0) == 1
        assert await used(limiter, "a") == {"9/hour": 0}


async def test_in_shadow_mode_nobody_waits(url: str) -> None:
    config = shadow("1/hour; 1 concurrent", queue=QueueConfig(max_size=1, fail_fast=True))
    async with RateLimiter(url, limits={"a": config}) as limiter:
        results = await asyncio.gather(*(limiter.request("a", number, n, timeout=0) for n in range(20)))
        assert results == list(range(20))
        tickets = [await limiter.submit("a", number, n) for n in range(5)]
        assert [ticket.position for ticket in tickets] == [0] * 5
        assert await asyncio.gather(*tickets) == list(range(5))
        async with limiter.acquire("a", timeout=0) as one, limiter.acquire("a", timeout=0) as two:
            assert [grant.decision.allowed for grant in (one, two)] == [True, True]
            assert two.decision.shadow
        assert (await limiter.status("a")).queue.depth == 0


async def test_in_shadow_mode_only_what_was_charged_is_given_back(url: str) -> None:
    seen: list[Event] = []
    limits = {"a": shadow("10/hour")}
    async with RateLimiter(url, limits=limits, hooks=[seen.append]) as limiter:
        charged = await limiter.acquire("a", cost=8)
        free = await limiter.acquire("a", cost=5)
        assert (charged.decision.shadow, free.decision.shadow) == (False, True)
        await free.settle(9)
        await free.refund()
        assert await used(limiter, "a") == {"10/hour": 8}
        await charged.settle(6)
        assert await used(limiter, "a") == {"10/hour": 6}
        await charged.refund()
        assert await used(limiter, "a") == {"10/hour": 0}
        kinds = [type(event) for event in seen if isinstance(event, (Settled, Refunded))]
        assert kinds == [Settled, Refunded, Settled, Refunded]


async def test_in_shadow_mode_events_tell_who_would_have_been_denied(url: str) -> None:
    seen: list[Event] = []
    limits = {"a": shadow("2/hour"), "b": "1/hour"}
    async with RateLimiter(url, limits=limits, hooks=[seen.append]) as limiter:
        await limiter.hit("a", by="x")
        await limiter.request("a", number, 1, by="x")
        await limiter.hit("a", by="x")
        await limiter.request("a", number, 1, by="x")
        await limiter.hit("b")
        await limiter.hit("b")
    decided = [event for event in seen if isinstance(event, (Allowed, Denied))]
    assert [(type(event), event.name, event.by, event.decision.shadow) for event in decided] == [
        (Allowed, "a", "x", False),
        (Allowed, "a", "x", False),
        (Denied, "a", "x", True),
        (Denied, "a", "x", True),
        (Allowed, "b", None, False),
        (Denied, "b", None, False),
    ]
    # A hit is no request, which has an id.
    assert [event.id is None for event in decided] == [True, False, True, False, True, True]
    assert [(event.reason, event.shadow) for event in decided if isinstance(event, Denied)] == [
        ("limit", True),
        ("limit", True),
        ("limit", False),
    ]


async def test_enforcing_begins_and_ends_at_run_time_in_every_process(url: str) -> None:
    limits = {"a": shadow("2/hour")}
    async with RateLimiter(url, limits=limits, **STILL) as one, RateLimiter(url, limits=limits, **STILL) as two:
        for _ in range(3):
            assert (await two.hit("a")).allowed
        await one.configure({"a": "2/hour"})
        assert not (await one.hit("a")).allowed
        await eventually(lambda: _denied(two))
        with pytest.raises(RequestTimeout):
            await two.request("a", number, 1, timeout=0)
        await one.configure({"a": None})
        assert (await one.hit("a")).shadow
        await eventually(lambda: _shadowed(two))
        assert await two.request("a", number, 1, timeout=0) == 1
        assert await used(one, "a") == {"2/hour": 2}


async def _denied(limiter: RateLimiter) -> bool:
    return not (await limiter.check("a")).allowed


async def _shadowed(limiter: RateLimiter) -> bool:
    return (await limiter.check("a")).shadow


@pytest.mark.parametrize("limit", ["3/hour", "1/hour"])
async def test_those_who_wait_go_ahead_when_enforcing_ends(url: str, limit: str) -> None:
    limits = {"a": "3/hour"}
    async with RateLimiter(url, limits=limits) as one, RateLimiter(url, limits=limits) as two:
        await one.hit("a", cost=3)
        tickets = [await limiter.submit("a", number, n, cost=2) for n, limiter in enumerate((one, two))]
        await one.configure({"a": shadow(limit)})
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tickets) == [0, 1]
        await eventually(lambda: depth_is(one, "a", 0))


async def test_one_subject_is_in_shadow_where_its_name_enforces(url: str) -> None:
    async with RateLimiter(url, limits={"a": RateLimitConfig("1/hour", by={"x": shadow("1/hour")})}) as limiter:
        for by in ("x", "y"):
            await limiter.hit("a", by=by)
        assert [(await limiter.hit("a", by=by)).allowed for by in ("x", "y")] == [True, False]


def test_a_switch_is_true_or_false() -> None:
    for wrong in (1, 0, "yes", None):
        with pytest.raises(ConfigurationError) as caught:
            decode_config({"limits": "5/s", "enforce": wrong}, "x")
        assert (caught.value.field, caught.value.value) == ("x.enforce", wrong)
