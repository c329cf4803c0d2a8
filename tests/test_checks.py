"""hit and check: one decision, exact times, all limits or none."""

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
    Decision,
    Limit,
    RateLimitConfig,
    RateLimiter,
    RateLimitError,
    RateLimitExceeded,
)
from ratelimit_async import _session as session_module
from ratelimit_async._batches import HIT
from ratelimit_async._executor import Executor
from ratelimit_async._link import Link
from ratelimit_async._lua import ALL
from tests.helpers import client_of, eventually, leftovers, number, rows_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from ratelimit_async._settings import SettingsArguments


async def test_a_key_that_is_paused_hurts_no_others_of_the_same_call(url: str) -> None:
    limits = {"one": "5/minute", "two": ["5/minute", "9/hour"], "bucket": "5/day token_bucket"}
    keys = [(name, by) for by in "123" for name in limits]
    async with RateLimiter(url, limits=limits) as limiter:
        for name in limits:
            await limiter.pause(name, by="2")
        for remaining in (3, 1):
            decisions = await asyncio.gather(*(limiter.hit(name, by=by) for name, by in keys * 2))
            told = {(*key, one.reason, one.remaining) for key, one in zip(keys * 2, decisions, strict=True)}
            paused = {(name, "2", "paused", 5) for name in limits}
            assert told == paused | {
                (name, by, "ok", left) for name in limits for by in "13" for left in (remaining, remaining + 1)
            }


async def test_a_hit_takes_and_a_check_only_looks(url: str) -> None:
    async with RateLimiter(url, limits={"a": "2/minute"}) as limiter:
        for remaining in (1, 0):
            assert (await limiter.check("a")).allowed
            decision = await limiter.hit("a")
            assert (decision.allowed, decision.reason, decision.remaining) == (True, "ok", remaining)
        for ask in (limiter.hit, limiter.check):
            decision = await ask("a")
            assert (decision.allowed, decision.reason, decision.remaining) == (False, "limit", 0)
            assert decision.retry_after is not None
            assert 0 < decision.retry_after <= 60.075
            with pytest.raises(RateLimitExceeded) as caught:
                decision.raise_if_denied()
            assert caught.value.decision is decision


async def test_an_allowed_decision_does_not_raise(url: str) -> None:
    async with RateLimiter(url) as limiter:
        decision = await limiter.hit("anything")
        assert decision.raise_if_denied() is None
        assert decision.limit == Limit(100, 60)
        assert decision.retry_after == 0


async def test_denied_hits_charge_nothing(url: str) -> None:
    async with RateLimiter(url, limits={"a": "2/minute"}) as limiter:
        for _ in range(5):
            await limiter.hit("a")
        assert (await limiter.status("a")).limits[0].used == 2


async def test_several_limits_are_charged_all_or_none_each_with_its_own_cost(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute; 100 tokens/minute; 9/hour fixed_window"}) as limiter:
        assert (await limiter.hit("a", cost={"tokens": 90})).allowed
        denied = await limiter.hit("a", cost={"tokens": 11})
        assert not denied.allowed
        assert denied.limit.unit == "tokens"
        assert denied.remaining == 10
        assert [limit.used for limit in (await limiter.status("a")).limits] == [1, 90, 1]
        assert (await limiter.hit("a", cost={"tokens": 10})).allowed
        assert (await limiter.hit("a", cost={"requests": 0, "tokens": 0})).allowed
        assert [limit.used for limit in (await limiter.status("a")).limits] == [2, 100, 2]


@pytest.mark.parametrize(
    ("limits", "cost", "used"),
    [
        ("100/minute", 7, [7]),
        ("100 tokens/minute", {"tokens": 7}, [7]),
        ("100 tokens/minute", 1, [0]),
        ("100 tokens/minute fixed_window", {"tokens": 7}, [7]),
        ("90/hour; 100/minute; 100 tokens/minute", {"tokens": 7}, [1, 1, 7]),
        ("90/hour; 100/minute; 100 tokens/minute", {"requests": 2, "tokens": 7}, [2, 2, 7]),
        ("90 tokens/hour; 100/minute; 100 bytes/day; 100 tokens/minute", {"bytes": 0, "tokens": 7}, [7, 1, 0, 7]),
    ],
)
async def test_what_does_not_cost_the_usual_takes_the_short_way_too(
    url: str, limits: str, cost: Any, used: list[int]
) -> None:
    async with RateLimiter(url, limits={"a": limits}) as limiter:
        assert (await limiter.hit("a", cost=cost)).allowed
        assert (await limiter.check("a", cost=cost)).allowed
        # Were the short way not it, its next checks would take the long one.
        assert limiter._key_of("a", None).busy == 0
        assert [limit.used for limit in (await limiter.status("a")).limits] == used


async def test_the_limit_that_denies_for_longest_binds(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/second; 1/hour"}) as limiter:
        await limiter.hit("a")
        denied = await limiter.hit("a")
        assert denied.limit == Limit(1, 3600)
        assert denied.retry_after is not None
        assert denied.retry_after > 3000


async def test_a_cost_that_can_never_pass_is_refused_at_once(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}) as limiter:
        for call in (
            limiter.hit("a", cost=6),
            limiter.check("a", cost=6),
            limiter.request("a", asyncio.sleep, 0, cost=6),
        ):
            with pytest.raises(CostExceedsLimit, match="6 requests can never pass the limit '5/minute'"):
                await call


async def test_of_several_limits_the_first_is_named_that_a_cost_can_never_pass(url: str) -> None:
    costs: dict[str, Any] = {"7 tokens/hour": {"tokens": 8}, "3/hour": 4, "5/minute": {"requests": 6, "tokens": 10}}
    async with RateLimiter(url, limits={"a": "5/minute; 9 tokens/minute; 3/hour; 7 tokens/hour"}) as limiter:
        for named, cost in costs.items():
            with pytest.raises(CostExceedsLimit, match=named):
                await limiter.hit("a", cost=cost)


@pytest.mark.parametrize("limit", ["5/minute", "5/minute fixed_window"])
async def test_a_cost_beyond_an_amount_that_was_lowered_meanwhile_hurts_no_others_of_the_same_call(
    url: str, limit: str
) -> None:
    async with RateLimiter(url, limits={"a": limit, "b": limit}) as limiter:
        scripts = limiter._live().requests.scripts
        lowered, other = (limiter._key_of(name, None) for name in "ab")
        sent = scripts.hit(lowered, {"requests": 6}), scripts.hit(other, {"requests": 4})
        replies = [await reply for reply in sent]
        decisions = [scripts.decision(key, reply) for key, reply in zip((lowered, other), replies, strict=True)]
        assert [decision and decision.remaining for decision in decisions] == [None, 1]
        assert (await limiter.status("a")).limits[0].used == 0


async def test_a_check_that_was_on_its_way_when_its_key_began_to_count_what_runs_is_answered(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute", "b": "5/minute"}) as limiter:
        key = limiter._key_of("a", None)
        counting = RateLimitConfig([Limit.concurrent(3), Limit(5, 60)])
        first, second = limiter.hit("a"), limiter.hit("b", cost=2)
        tasks = [asyncio.ensure_future(hit) for hit in (first, second)]
        asyncio.get_running_loop().call_soon(key.configure, counting)
        decisions = await asyncio.gather(*tasks)
        assert [decision.remaining for decision in decisions] == [4, 3]
        assert (await limiter.status("b")).limits[0].used == 2


async def test_subjects_and_names_have_their_own_counters(url: str) -> None:
    async with RateLimiter(url, default="1/minute") as limiter:
        for name, by in (("a", None), ("a", "x"), ("a", "y"), ("b", None), ("a", 7)):
            assert (await limiter.hit(name, by=by)).allowed
            assert not (await limiter.hit(name, by=by)).allowed
        assert not (await limiter.hit("a", by="7")).allowed


hostile = st.text(st.one_of(st.sampled_from(":{}* \n\r\0%/\\[]é\ud800💥|.-"), st.characters()), min_size=1, max_size=12)


@given(st.lists(st.tuples(hostile, st.none() | hostile), min_size=1, max_size=6, unique=True))
async def test_no_name_or_subject_reaches_another_key(url: str, pairs: list[tuple[str, str | None]]) -> None:
    async with RateLimiter(url, default="1/minute") as limiter:
        for name, by in pairs:
            await limiter.reset(name, by=by)
        for name, by in pairs:
            assert (await limiter.hit(name, by=by)).allowed, (name, by)
        for name, by in pairs:
            assert not (await limiter.hit(name, by=by)).allowed, (name, by)


async def test_every_key_carries_one_hash_tag_and_ends_by_itself(url: str) -> None:
    async with RateLimiter(url, limits={"a:{b}": "3/minute; 9/hour fixed_window"}) as limiter:
        await limiter.hit("a:{b}", by="{x}:")
        async with client_of(url) as client:
            keys = [key async for key in client.scan_iter()]
        assert keys
        assert all(key.count("{") == key.count("}") == 1 for key in keys)
        assert (await leftovers(url))["for ever"] == []


async def test_changing_a_limit_keeps_what_is_counted(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}) as limiter:
        await limiter.hit("a", cost=4)
    async with RateLimiter(url, limits={"a": "10/30 seconds"}) as limiter:
        assert (await limiter.status("a")).limits[0].used == 4


async def test_reset_forgets_what_is_counted(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/minute; 1/hour fixed_window"}) as limiter:
        await limiter.hit("a")
        await limiter.hit("a", by="x")
        await limiter.reset("a")
        assert (await limiter.hit("a")).allowed
        assert not (await limiter.hit("a", by="x")).allowed


@pytest.mark.parametrize("limit", ["3 per 0.3 seconds", "3 per 0.3 seconds fixed_window"])
async def test_after_exactly_retry_after_the_same_call_passes(url: str, limit: str) -> None:
    async with RateLimiter(url, limits={"a": limit}) as limiter:
        for _ in range(3):
            denied = await _until_denied(lambda: limiter.hit("a"))
            assert denied.retry_after is not None
            await asyncio.sleep(denied.retry_after)
            assert (await limiter.hit("a")).allowed


async def _until_denied(hit: Callable[[], Awaitable[Decision]]) -> Decision:
    while (decision := await hit()).allowed:
        pass
    return decision


async def test_a_window_of_many_hits_stays_small(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1000000/second"}) as limiter:
        for _ in range(30):
            await asyncio.gather(*(limiter.hit("a") for _ in range(100)))
        async with client_of(url) as client:
            (key,) = [key async for key in client.scan_iter() if ":sw:" in key]
            assert len(await rows_at(client, key)) <= 1001
        assert (await limiter.status("a")).limits[0].used <= 3000


async def test_the_window_never_holds_more_than_its_buckets(url: str) -> None:
    limits = {"a": "1000000 per 0.01 seconds"}
    async with RateLimiter(url, limits=limits) as limiter, client_of(url) as client:
        for _ in range(300):
            await limiter.hit("a")
            keys = [key async for key in client.scan_iter() if ":sw:" in key]
            assert [len(await rows_at(client, key)) <= 1001 for key in keys] == [True] * len(keys)
        await eventually(lambda: _is_unused(limiter))


async def _is_unused(limiter: RateLimiter) -> bool:
    return (await limiter.status("a")).limits[0].used == 0


async def test_nobody_is_charged_who_was_cancelled_before_sending(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}) as limiter:
        task = asyncio.create_task(limiter.hit("a"))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert (await limiter.status("a")).limits[0].used == 0


@pytest.mark.parametrize(
    "value", ["", "nonsense", "nonsense that is longer than all that a window of few hits would take", ["x"]]
)
async def test_a_foreign_value_in_a_key_hurts_only_its_own_callers(url: str, value: str | list[str]) -> None:
    async with RateLimiter(url, default="5/minute") as limiter, client_of(url) as client:
        await limiter.hit("good")
        (key,) = [key async for key in client.scan_iter() if ":sw:" in key]
        foreign = key.replace("good", "bad")
        await (client.set(foreign, value) if isinstance(value, str) else client.rpush(foreign, *value))
        good, bad = await asyncio.gather(limiter.hit("good"), limiter.hit("bad"), return_exceptions=True)
        assert isinstance(good, Decision)
        if not value:
            # As if nothing was there.
            assert isinstance(bad, Decision)
            assert bad.remaining == 4
        else:
            assert isinstance(bad, ConnectionError)
            assert "WRONGTYPE" in str(bad)
            assert isinstance(value, list) or f"{foreign} holds something else than a sliding window" in str(bad)


async def test_a_nonsense_fixed_window_is_named(url: str) -> None:
    async with RateLimiter(url, default="5/minute fixed_window") as limiter, client_of(url) as client:
        await limiter.hit("good")
        (key,) = [key async for key in client.scan_iter() if ":fw:" in key]
        await client.set(key, "nonsense")
        with pytest.raises(ConnectionError, match="holds something else than a fixed window"):
            await limiter.hit("good")


async def test_a_name_that_is_no_text_is_refused_before_redis_is_asked(url: str) -> None:
    async with RateLimiter(url) as limiter:
        with pytest.raises(ConfigurationError, match="name: must be a text of 1 to 256 characters"):
            await limiter.check("")


async def test_checks_of_a_key_that_somebody_waited_for_are_answered_as_before(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1000/minute"}) as limiter:
        assert (await limiter.hit("a")).allowed
        await limiter.pause("a")
        await eventually(lambda: denied_for(limiter, "paused"))
        ticket = await limiter.submit("a", asyncio.sleep, 0)
        await limiter.resume("a")
        await ticket
        # More of them than are taken to meet somebody who waits.
        decisions = [await limiter.hit("a") for _ in range(250)]
        assert [decision.remaining for decision in decisions] == [997 - n for n in range(250)]
        assert (await limiter.status("a")).limits[0].used == 252


async def denied_for(limiter: RateLimiter, reason: str) -> bool:
    return (await limiter.check("a")).reason == reason


async def test_a_check_of_what_is_no_counter_says_so(url: str) -> None:
    config = RateLimitConfig("5/minute; 7/hour fixed_window", on_outage="raise")
    async with RateLimiter(url, limits={"a": config}) as limiter, client_of(url) as client:
        second = limiter._key_of("a", None).redis[-1].decode()
        await client.set(second, "nonsense")
        with pytest.raises(RateLimitError, match="holds something else than a fixed window"):
            await limiter.hit("a")
        await client.delete(second)
        # Nothing was charged to the first limit either.
        assert [limit.used for limit in (await limiter.status("a")).limits] == [0, 0]


@contextlib.asynccontextmanager
async def bare_executor(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RateLimiter, Executor]]:
    """A limiter that asks nothing of Redis by itself, and what sends its calls."""

    async def nothing(*_: Any, **__: Any) -> None:
        pass

    monkeypatch.setattr(session_module, "check_server", nothing)
    still: SettingsArguments = {"lease": 600, "poll_interval": 600}
    async with RateLimiter(url, limits={"a": "1000/minute"}, **still) as limiter:
        session = limiter._session
        assert session is not None
        # What is asked of Redis on entering has been answered.
        await eventually(lambda: not session._changes)
        assert isinstance(session.executor, Executor)
        yield limiter, session.executor


def start_hit(limiter: RateLimiter) -> asyncio.Future[Any]:
    return limiter._live().executor.call(ALL["quick"], limiter._key_of("a", None), HIT, replayable=False)


def flying(executor: Executor) -> list[int]:
    return [len(flight.batch) for flight in executor._flying]


async def test_a_lone_call_is_sent_at_once_and_those_of_a_turn_together(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bare_executor(url, monkeypatch) as (limiter, executor):
        await start_hit(limiter)
        await start_hit(limiter)
        alone = start_hit(limiter)
        assert flying(executor) == [1]
        others = [start_hit(limiter) for _ in range(5)]
        assert len(executor._flying) == 1
        await asyncio.gather(alone, *others)
        # Which had company: the first of the next waits for more.
        more = [start_hit(limiter) for _ in range(5)]
        assert not executor._flying
        await asyncio.sleep(0)
        assert flying(executor) == [5]
        await asyncio.gather(*more)
        assert (await limiter.check("a")).remaining == 1000 - 13


class HeldBack(Link):
    """Keeps what is written, so that no reply comes before it is let go."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.kept: list[bytes] = []

    def write(self, packed: bytes) -> None:
        self.kept.append(packed)


@contextlib.contextmanager
def held_back(executor: Executor) -> Iterator[None]:
    """Let nothing reach Redis until the end."""
    link, held = executor._link, HeldBack()
    assert link is not None
    executor._link = held
    yield
    executor._link = link
    link.write(b"".join(held.kept))


async def test_behind_two_calls_under_way_others_gather_until_they_fill_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bare_executor(url, monkeypatch) as (limiter, executor):
        hits = list[asyncio.Future[Any]]()

        async def start(count: int) -> list[int]:
            hits.extend(start_hit(limiter) for _ in range(count))
            await asyncio.sleep(0)
            return flying(executor)

        with held_back(executor):
            assert await start(1) == [1]
            assert await start(1) == [1, 1]
            assert await start(1) == [1, 1]
            assert await start(30) == [1, 1]
            assert await start(2) == [1, 1, 32]
            # Four are the most, even of full ones.
            assert await start(64) == [1, 1, 32, 32]
        await asyncio.gather(*hits)
        assert (await limiter.check("a")).remaining == 1000 - 99


async def test_what_is_urgent_does_not_wait_behind_two_calls_under_way(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bare_executor(url, monkeypatch) as (limiter, executor):
        hits = list[asyncio.Future[Any]]()
        with held_back(executor):
            for _ in range(3):
                hits.append(start_hit(limiter))
                await asyncio.sleep(0)
            assert flying(executor) == [1, 1]
            scripts = limiter._live().requests.scripts
            look = scripts.grant(limiter._key_of("a", None), 10)
            await asyncio.sleep(0)
            assert [flight.batch[0].script.name for flight in executor._flying] == ["quick", "quick", "grant"]
        await asyncio.gather(*hits, look)


async def test_once_the_last_that_waited_has_its_turn_a_check_need_not_look_for_others(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/day"}, hooks=[]) as limiter, client_of(url) as client:
        for by in "xyz":
            await limiter.hit("a", by=by)
            waiting = asyncio.create_task(limiter.request("a", number, 1, by=by))
            await eventually(lambda by=by: client.exists(f"{{rl:a:{by}}}:c"))
            await limiter.reset("a", by=by)
            await waiting
            assert not await client.exists(f"{{rl:a:{by}}}:c")
