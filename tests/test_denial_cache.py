"""What a process remembers of denials: how long, for whom, and what makes it forget."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import Event, RateLimitConfig, RateLimiter
from ratelimit_async._config import QueueConfig
from ratelimit_async._events import Denied
from tests.helpers import client_of, eventually, number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ratelimit_async import Decision, Grant
    from ratelimit_async._keys import Key
    from ratelimit_async._settings import SettingsArguments
    from tests.servers import RedisServer

CACHED = {"a": RateLimitConfig("3/hour; 90 tokens/hour", denial_cache=True)}
# The timers that ask Redis by themselves stay silent: only messages tell.
STILL: SettingsArguments = {"lease": 600, "poll_interval": 600}


async def source_of(limiter: RateLimiter, by: str | None = None) -> str:
    return (await limiter.hit("a", by=by)).source


async def deny_twice(limiter: RateLimiter, by: str | None = None) -> None:
    """Use a key up, so that its denial is remembered."""
    await limiter.hit("a", by=by, cost=3)
    await limiter.hit("a", by=by)
    assert await source_of(limiter, by) == "denied_cache"


async def allowed(limiter: RateLimiter) -> bool:
    return (await limiter.check("a")).allowed


async def is_asked(limiter: RateLimiter, by: str | None = None) -> bool:
    return await source_of(limiter, by) == "redis"


async def hears(limiter: RateLimiter) -> bool:
    return (await limiter.health()).replies


def scripts_run(server: RedisServer) -> int:
    return int(server.client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_a_remembered_denial_sends_redis_no_command(redis_server: RedisServer, redis_url: str) -> None:
    async with RateLimiter(redis_url, limits=CACHED, **STILL) as limiter:
        await deny_twice(limiter)
        before = scripts_run(redis_server)
        for ask in (limiter.hit, limiter.check):
            decisions = await asyncio.gather(*(ask("a") for _ in range(50)))
            assert {(one.allowed, one.source) for one in decisions} == {(False, "denied_cache")}
        assert scripts_run(redis_server) == before
        await limiter.hit("a", by="x")
        assert scripts_run(redis_server) == before + 1


async def test_without_the_switch_every_denial_asks_redis(redis_server: RedisServer, redis_url: str) -> None:
    async with RateLimiter(redis_url, limits={"a": "3/hour"}, **STILL) as limiter:
        await limiter.hit("a", cost=3)
        before = scripts_run(redis_server)
        for _ in range(5):
            assert await source_of(limiter) == "redis"
        assert scripts_run(redis_server) == before + 5


async def test_a_remembered_denial_says_what_redis_said_a_little_later(url: str) -> None:
    async with RateLimiter(url, limits=CACHED) as limiter:
        await limiter.hit("a", cost={"requests": 2, "tokens": 90})
        asked = await limiter.hit("a", cost={"requests": 1, "tokens": 1})
        known = await limiter.hit("a", cost={"requests": 1, "tokens": 1})
        assert (known.source, known.allowed) == ("denied_cache", False)
        assert (known.reason, known.limit, known.remaining) == ("limit", asked.limit, asked.remaining)
        assert str(known.limit) == "90 tokens/hour"
        assert known.retry_after is not None
        assert asked.retry_after is not None
        assert asked.retry_after - 60 < known.retry_after <= asked.retry_after
        assert asked.reset_after - 60 < known.reset_after <= asked.reset_after


async def test_a_check_is_remembered_as_a_hit_is_and_events_say_so(url: str) -> None:
    seen: list[Event] = []
    async with RateLimiter(url, limits=CACHED, hooks=[seen.append]) as limiter:
        await limiter.hit("a", cost=3)
        assert (await limiter.check("a")).source == "redis"
        assert (await limiter.hit("a")).source == "denied_cache"
        (denied,) = [event for event in seen if isinstance(event, Denied)]
        assert (denied.name, denied.reason, denied.source) == ("a", "limit", "denied_cache")


async def test_only_costs_as_high_in_every_unit_are_answered_from_memory(url: str) -> None:
    async with RateLimiter(url, limits=CACHED) as limiter:
        await limiter.hit("a", cost={"requests": 1, "tokens": 80})
        denied = {"requests": 1, "tokens": 20}
        assert not (await limiter.hit("a", cost=denied)).allowed
        assert (await limiter.hit("a", cost=denied)).source == "denied_cache"
        # More of one unit and less of the other may pass.
        other = await limiter.hit("a", cost={"requests": 2, "tokens": 10})
        assert (other.allowed, other.source) == (True, "redis")


async def test_what_one_key_is_denied_says_nothing_of_another(url: str) -> None:
    async with RateLimiter(url, limits={**CACHED, "b": CACHED["a"]}) as limiter:
        await deny_twice(limiter)
        assert (await limiter.hit("a", by="x")).allowed
        assert (await limiter.hit("b")).allowed
        await deny_twice(limiter, "y")
        await limiter.reset("a")
        assert await source_of(limiter, "y") == "denied_cache"


async def test_a_remembered_denial_ends_with_its_retry_after(url: str) -> None:
    limits = {"a": RateLimitConfig("2 per 0.2 seconds", denial_cache=True)}
    async with RateLimiter(url, limits=limits, **STILL) as limiter:
        for _ in range(3):
            await eventually(lambda: allowed(limiter))
            while (decision := await limiter.hit("a")).source == "redis":
                pass
            assert decision.retry_after is not None
            assert 0 < decision.retry_after <= 0.2008
            await asyncio.sleep(decision.retry_after)
            assert (await limiter.check("a")).source == "redis"


async def _pause_and_resume(limiter: RateLimiter, _: Grant) -> None:
    await limiter.pause("a")
    await limiter.resume("a")


FREED: dict[str, Callable[[RateLimiter, Grant], Awaitable[Any]]] = {
    "reset": lambda limiter, _: limiter.reset("a"),
    "configure": lambda limiter, _: limiter.configure({"a": RateLimitConfig("3/hour", denial_cache=True)}),
    "resume": _pause_and_resume,
    "refund": lambda _, grant: grant.refund(),
    "settle": lambda _, grant: grant.settle({"requests": 2}),
}


@pytest.mark.parametrize("how", FREED)
async def test_one_that_changes_something_itself_asks_anew(url: str, how: str) -> None:
    async with RateLimiter(url, limits=CACHED, **STILL) as limiter:
        grant = await limiter.acquire("a")
        await limiter.hit("a", cost=2)
        await limiter.hit("a")
        assert await source_of(limiter) == "denied_cache"
        await FREED[how](limiter, grant)
        assert await source_of(limiter) == "redis"


@pytest.mark.parametrize("how", sorted(FREED.keys() - {"resume"}))
async def test_one_that_hears_of_anothers_change_asks_anew(url: str, how: str) -> None:
    async with RateLimiter(url, limits=CACHED, **STILL) as one, RateLimiter(url, limits=CACHED, **STILL) as two:
        grant = await two.acquire("a")
        await one.hit("a", cost=2)
        await one.hit("a")
        assert await source_of(one) == "denied_cache"
        await FREED[how](two, grant)
        await eventually(lambda: is_asked(one))


async def test_another_that_pauses_and_resumes_a_name_makes_its_denials_void(url: str) -> None:
    async with RateLimiter(url, limits=CACHED, **STILL) as one, RateLimiter(url, limits=CACHED, **STILL) as two:
        for by in (None, "x"):
            await deny_twice(one, by)
        await two.pause("a")
        for by in (None, "x"):
            await eventually(lambda by=by: _is_denied_for(one, "paused", by))
        await two.resume("a")
        for by in (None, "x"):
            await eventually(lambda by=by: _is_denied_for(one, "limit", by))
            assert await source_of(one, by) == "denied_cache"


async def _is_denied_for(limiter: RateLimiter, reason: str, by: str | None) -> bool:
    return (await limiter.hit("a", by=by)).reason == reason


async def test_resuming_one_key_makes_its_denial_void(url: str) -> None:
    async with RateLimiter(url, limits=CACHED, **STILL) as one, RateLimiter(url, limits=CACHED, **STILL) as two:
        for limiter in (one, two):
            await one.hit("a", by="x", cost=3)
            for each in (one, two):
                await eventually(lambda each=each: _remembers(each, "x"))
            await limiter.resume("a", by="x")
            for each in (one, two):
                await eventually(lambda each=each: is_asked(each, "x"))


async def _remembers(limiter: RateLimiter, by: str) -> bool:
    return await source_of(limiter, by) == "denied_cache"


async def test_a_change_by_one_that_remembers_nothing_itself_is_heard(url: str) -> None:
    plain = {"a": "3/hour; 90 tokens/hour"}
    async with RateLimiter(url, limits=CACHED, **STILL) as one, RateLimiter(url, limits=plain, **STILL) as admin:
        await deny_twice(one)
        await admin.reset("a")
        await eventually(lambda: allowed(one))


@pytest.mark.parametrize("by", [None, "x"])
async def test_a_pause_is_told_even_where_a_denial_is_remembered(url: str, by: str | None) -> None:
    async with RateLimiter(url, limits=CACHED, **STILL) as one, RateLimiter(url, limits=CACHED, **STILL) as two:
        await deny_twice(one, by)
        await two.pause_for("a", 7200, by=by)
        await eventually(lambda: _is_paused_for(one, by, 7000))


async def _is_paused_for(limiter: RateLimiter, by: str | None, seconds: float) -> bool:
    decision = await limiter.hit("a", by=by)
    return decision.reason == "paused" and (decision.retry_after or 0) > seconds


async def test_a_denial_that_is_overtaken_by_a_change_is_not_kept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RateLimiter(url, limits=CACHED, **STILL) as limiter:
        session = limiter._session
        assert session is not None
        hit = session.scripts.hit

        async def overtaken(key: Key, costs: Mapping[str, int]) -> Decision:
            decision = await hit(key, costs)
            await limiter.reset("a")
            return decision

        await limiter.hit("a", cost=3)
        monkeypatch.setattr(session.scripts, "hit", overtaken)
        assert not (await limiter.hit("a")).allowed
        assert (await limiter.hit("a")).allowed


async def test_nothing_is_remembered_while_the_reply_channel_is_cut(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=CACHED, **STILL) as limiter:
        await deny_twice(limiter)
        # Nobody may subscribe any more; those who have are cut off.
        own_server.call("ACL", "SETUSER", "default", "resetchannels")
        await eventually(lambda: _hears_nothing(limiter))
        for _ in range(3):
            assert await source_of(limiter) == "redis"
        own_server.call("ACL", "SETUSER", "default", "allchannels")
        await eventually(lambda: hears(limiter))
        assert await source_of(limiter) == "redis"
        assert await source_of(limiter) == "denied_cache"


async def _hears_nothing(limiter: RateLimiter) -> bool:
    return not await hears(limiter)


async def test_what_was_remembered_before_the_channel_was_cut_is_forgotten(own_server: RedisServer) -> None:
    async with RateLimiter(own_server.url, limits=CACHED, **STILL) as limiter, client_of(own_server.url) as client:
        await deny_twice(limiter)
        # Told to nobody, as if the message had been lost.
        await client.delete(*[key async for key in client.scan_iter("{rl:a:}:sw:*")])
        assert await source_of(limiter) == "denied_cache"
        await client.client_kill_filter(_type="pubsub")
        await eventually(lambda: allowed(limiter))


async def test_a_change_at_run_time_switches_remembering_on_and_off(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}, **STILL) as limiter:
        await limiter.hit("a")
        sources = []
        for switch in (True, False):
            await limiter.configure({"a": RateLimitConfig("1/hour", denial_cache=switch)})
            sources.append([await source_of(limiter) for _ in range(3)])
        assert sources == [["redis", "denied_cache", "denied_cache"], ["redis"] * 3]


async def test_a_subject_may_remember_where_its_name_does_not(url: str) -> None:
    by = {"vip": RateLimitConfig("1/hour", denial_cache=True)}
    async with RateLimiter(url, limits={"a": RateLimitConfig("1/hour", by=by)}) as limiter:
        for subject, expected in (("vip", "denied_cache"), ("other", "redis")):
            for _ in range(2):
                await limiter.hit("a", by=subject)
            assert await source_of(limiter, subject) == expected


async def test_denials_because_others_wait_are_not_remembered(url: str) -> None:
    limits = {"a": RateLimitConfig("9/hour; 9 tokens/hour", QueueConfig(timeout=None), denial_cache=True)}
    async with RateLimiter(url, limits=limits) as limiter:
        await limiter.hit("a", cost={"tokens": 9})
        ticket = await limiter.submit("a", number, 1, cost={"tokens": 5})
        for _ in range(3):
            decision = await limiter.hit("a")
            assert (decision.allowed, decision.reason, decision.source) == (False, "queue", "redis")
        ticket.cancel()
        await eventually(lambda: allowed(limiter))


@pytest.mark.parametrize("by", [None, "x"])
@pytest.mark.parametrize("seconds", [None, 60.0])
async def test_denials_because_of_a_pause_are_not_remembered(url: str, by: str | None, seconds: float | None) -> None:
    async with RateLimiter(url, limits=CACHED) as limiter:
        await (limiter.pause("a", by=by) if seconds is None else limiter.pause_for("a", seconds, by=by))
        for _ in range(3):
            decision = await limiter.hit("a", by=by)
            assert (decision.allowed, decision.reason, decision.source) == (False, "paused", "redis")
        await limiter.resume("a", by=by)
        assert (await limiter.hit("a", by=by)).allowed


@pytest.mark.parametrize("limit", ["1 concurrent", "1/hour from finish", "9/minute; 1 concurrent"])
async def test_denials_of_limits_that_count_running_calls_are_not_remembered(url: str, limit: str) -> None:
    limits = {"a": RateLimitConfig(limit, denial_cache=True)}
    async with RateLimiter(url, limits=limits) as limiter, limiter.acquire("a"):
        for _ in range(3):
            decision = await limiter.check("a")
            assert (decision.allowed, decision.reason, decision.source) == (False, "limit", "redis")


async def test_a_remembered_denial_passes_in_shadow_mode(url: str) -> None:
    limits = {"a": RateLimitConfig("1/hour", enforce=False, denial_cache=True)}
    async with RateLimiter(url, limits=limits) as limiter:
        decisions: list[Decision] = [await limiter.hit("a") for _ in range(3)]
        assert [(one.allowed, one.shadow, one.source) for one in decisions] == [
            (True, False, "redis"),
            (True, True, "redis"),
            (True, True, "denied_cache"),
        ]


async def test_a_request_waits_its_turn_whatever_is_remembered(url: str) -> None:
    limits = {"a": RateLimitConfig("1 per 0.2 seconds", denial_cache=True)}
    async with RateLimiter(url, limits=limits) as limiter:
        await limiter.hit("a")
        await limiter.hit("a")
        assert await limiter.request("a", number, 7) == 7
