"""Looking: which keys there are, who waits, how a name is as a whole, and pauses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ratelimit_async import ConfigurationError, KeyInfo, RateLimiter
from tests.helpers import depth_is, eventually, number

if TYPE_CHECKING:
    from tests.servers import RedisServer

HOSTILE = ("a:{b}", "a*", "[x]", "é💥 \n", "a")


async def test_all_keys_are_found_once_whatever_they_are_called(url: str) -> None:
    expected = {KeyInfo(name=name, by=by) for name in HOSTILE for by in (None, *HOSTILE)}
    async with RateLimiter(url, default="5/minute; 9/day fixed_window") as limiter:
        await asyncio.gather(*(limiter.hit(key.name, by=key.by) for key in expected))
        await limiter.pause("paused")
        found = [key async for key in limiter.keys("")]
        assert len(found) == len(set(found))
        assert set(found) == expected
        assert {key.name async for key in limiter.keys("a")} == {"a:{b}", "a*", "a"}
        assert {key.name async for key in limiter.keys("é💥")} == {"é💥 \n"}
        assert [key async for key in limiter.keys("nobody")] == []


async def test_another_prefix_is_another_world(url: str) -> None:
    async with RateLimiter(url, prefix="one") as one, RateLimiter(url, prefix="two") as two:
        await one.hit("a")
        assert [key.name async for key in one.keys("")] == ["a"]
        assert [key async for key in two.keys("")] == []


@pytest.mark.real_redis
async def test_many_keys_are_found_without_blocking_redis(redis_server: RedisServer, redis_url: str) -> None:
    async with RateLimiter(redis_url) as limiter:
        await asyncio.gather(*(limiter.hit("a", by=n) for n in range(1500)))
        found = [key async for key in limiter.keys("a")]
        assert len(found) == len(set(found)) == 1500
        total = await limiter.status("a", total=True)
        assert total.limits[0].used == 1500
        assert total.keys == 1501
    stats = redis_server.client.info("commandstats")
    assert "cmdstat_keys" not in stats
    assert stats["cmdstat_scan"]["calls"] >= 3


async def test_those_who_wait_are_listed_in_the_order_in_which_they_go(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}) as limiter:
        await limiter.hit("a")
        assert [one async for one in limiter.waiting("a")] == []
        tickets = {n: await limiter.submit("a", number, n, priority=n % 3) for n in range(450)}
        waiting = [one async for one in limiter.waiting("a")]
        order = sorted(tickets, key=lambda n: (n % 3, n))
        assert [one.id for one in waiting] == [tickets[n].id for n in order]
        assert [one.position for one in waiting] == list(range(1, 451))
        assert [one.priority for one in waiting] == [n % 3 for n in order]
        assert min(one.age for one in waiting) >= 0
        ages = [one.age for one in waiting if one.priority == 0]
        assert ages == sorted(ages, reverse=True)
        for one in waiting:
            await limiter.cancel(one.id)
        await eventually(lambda: depth_is(limiter, "a", 0))


async def test_a_name_is_added_up_over_its_subjects(url: str) -> None:
    async with RateLimiter(url, limits={"a": {"limits": "5/hour", "by": {"vip": "50/hour"}}}) as limiter:
        await asyncio.gather(*(limiter.hit("a", by=by, cost=cost) for by, cost in ((None, 1), ("x", 5), ("vip", 7))))
        await limiter.hit("ab")
        tickets = [await limiter.submit("a", number, n, by="x") for n in range(3)]
        total = await limiter.status("a", total=True)
        assert (total.name, total.by, total.keys) == ("a", None, 3)
        assert {str(limit.limit): (limit.used, limit.remaining) for limit in total.limits} == {
            "5/hour": (6, 4),
            "50/hour": (7, 43),
        }
        assert total.queue.depth == sum(total.queue.depth_by_priority) == 3
        assert total.queue.estimated_wait > 3000
        assert not total.paused
        with pytest.raises(ConfigurationError, match="by: must be left out"):
            await limiter.status("a", by="x", total=True)
        for ticket in tickets:
            ticket.cancel()


async def test_a_key_that_was_never_used_is_unused(url: str) -> None:
    async with RateLimiter(url, limits={"a": ["5/hour", "3/second burst 7", "2 concurrent"]}) as limiter:
        status = await limiter.status("a")
        assert [(limit.used, limit.remaining, limit.reset_after) for limit in status.limits] == [
            (0, 5, 0),
            (0, 7, 0),
            (0, 2, 0),
        ]
        assert (status.keys, status.paused, status.resumes_in) == (1, False, None)


async def test_a_pause_for_a_time_ends_exactly_then(url: str) -> None:
    async with RateLimiter(url, default="9/minute") as limiter:
        for by in (None, "x"):
            await limiter.pause_for("a", 0.15, by=by)
            decision = await limiter.hit("a", by=by)
            assert (decision.allowed, decision.reason) == (False, "paused")
            assert decision.retry_after is not None
            assert 0 < decision.retry_after <= 0.15
            assert await limiter.request("a", number, 1, by=by) == 1
            assert (await limiter.status("a", by=by)).paused is False


async def test_a_longer_pause_is_not_cut_short_but_resumed(url: str) -> None:
    async with RateLimiter(url, default="9/minute") as one, RateLimiter(url, default="9/minute") as two:
        for by in (None, "x"):
            await one.pause_for("a", 60, by=by)
            await one.pause_for("a", 1, by=by)
            await one.pause_for("a", 0, by=by)
            resumes = (await one.status("a", by=by)).resumes_in
            assert resumes is not None
            assert 50 < resumes <= 60
            await two.pause("a", by=by)
            await two.pause_for("a", 1, by=by)
            assert (await two.status("a", by=by)).resumes_in is None
            async with RateLimiter(url, default="9/minute") as late:
                assert (await late.status("a", by=by)).paused
            await two.resume("a", by=by)
            assert (await two.hit("a", by=by)).allowed
        for wrong in (-1, "soon", None):
            with pytest.raises(ConfigurationError, match="seconds: must be seconds"):
                await one.pause_for("a", wrong)  # type: ignore[arg-type]
