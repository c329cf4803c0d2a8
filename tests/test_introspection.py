"""Looking: which keys there are, who waits, how a name is as a whole, and pauses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import (
    ConfigurationError,
    KeyInfo,
    NotStarted,
    QueueConfig,
    RateLimitConfig,
    RateLimiter,
    RedisUnavailable,
    RequestCancelled,
    RequestTimeout,
    UnknownRequest,
)
from tests.helpers import client_of, depth_is, eventually, is_paused, number
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

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
            await limiter.pause_for("a", 0.6, by=by)
            decision = await limiter.hit("a", by=by)
            assert (decision.allowed, decision.reason) == (False, "paused")
            assert decision.retry_after is not None
            assert 0 < decision.retry_after <= 0.6
            assert await limiter.request("a", number, 1, by=by) == 1
            assert (await limiter.status("a", by=by)).paused is False


async def test_resuming_a_name_also_ends_what_an_upstream_asked_for(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute"}, default=None) as limiter:
        await limiter.sync_from_headers("a", {"Retry-After": "60"})
        assert (await limiter.status("a")).paused
        await limiter.resume("a")
        assert not (await limiter.status("a")).paused
        assert (await limiter.hit("a")).allowed


async def test_the_names_that_are_configured_can_be_asked_for(url: str) -> None:
    async with RateLimiter(url, limits={"b": "5/minute", "a:*": "5/minute"}) as limiter:
        assert limiter.names == ("b",)
        await limiter.configure({"a:1": "1/minute"})
        assert limiter.names == ("a:1", "b")


async def test_a_process_that_only_looks_grants_for_nobody(url: str) -> None:
    looking = RateLimiter(url, limits={"a": "5/minute"})
    looking.task("t")(number)
    assert looking.runs_tasks
    looking.only_look()
    assert not looking.runs_tasks
    async with looking:
        assert (await looking.health()).processor is None
        assert (await looking.health()).ok
        with pytest.raises(ConfigurationError, match="entered already"):
            looking.only_look()


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


# ---- which keys there are ----


async def test_a_key_is_found_by_whatever_is_held_of_it(url: str) -> None:
    limits = {"counted": "5/hour", "running": "2 concurrent", "waited for": "1/hour"}
    async with RateLimiter(url, limits=limits, default="5/hour") as limiter:
        await limiter.hit("counted", by=7)
        await limiter.hit("waited for")
        await limiter.submit("waited for", number, 1)
        await limiter.pause("stopped", by="x")
        await limiter.check("looked at")
        await limiter.status("looked at")
        async with limiter.acquire("running"):
            found = {(key.name, key.by) async for key in limiter.keys("")}
        assert found == {("counted", "7"), ("running", None), ("waited for", None), ("stopped", "x")}
        await limiter.reset("counted", by=7)
        assert [key async for key in limiter.keys("counted")] == []


@pytest.mark.parametrize("name", ["%", "%41", "a%", "?", "\\", "[a-z]", "}", "{", "}:", "rl:a", "ж", "a b", "^a"])
async def test_a_prefix_is_taken_by_its_letters(url: str, name: str) -> None:
    others = {"A", "a", "b", "zz", "ab", "x}", "rlxa", "a\tb"} - {name}
    async with RateLimiter(url) as limiter:
        await asyncio.gather(*(limiter.hit(one) for one in (name, f"{name} more", *others)))
        expected = {one for one in (name, f"{name} more", *others) if one.startswith(name)}
        assert {key.name async for key in limiter.keys(name)} == expected


async def test_what_others_keep_in_redis_is_passed_over(url: str) -> None:
    async with RateLimiter(url) as limiter, client_of(url) as client:
        await limiter.hit("a")
        for foreign in ("{rl:", "{rl:a", "{rl:}", "{rl:b:}", "{rl}:x", "rl:b:x", "{rl:c:d", "{RL:a:}:d"):
            await client.set(foreign, "x")
        assert [key.name async for key in limiter.keys("")] == ["a"]


@pytest.mark.parametrize("foreign", [b"{rl:\xff:}:d", "{rl:%FF:}:d"])
async def test_a_foreign_key_that_is_no_text_breaks_no_listing(url: str, foreign: bytes | str) -> None:
    async with RateLimiter(url) as limiter, client_of(url) as client:
        await limiter.hit("a")
        await client.set(foreign, "x")
        assert [key.name async for key in limiter.keys("")] == ["a"]


@pytest.mark.parametrize("id", ["%FF::nobody.1", "a:%FF:nobody.1", "%::nobody.1"])
async def test_an_id_that_is_no_text_is_unknown(url: str, id: str) -> None:
    async with RateLimiter(url) as limiter:
        with pytest.raises(UnknownRequest):
            await limiter.cancel(id)


async def test_a_listing_may_be_left_halfway(url: str) -> None:
    async with RateLimiter(url) as limiter:
        await asyncio.gather(*(limiter.hit("a", by=n) for n in range(20)))
        async for key in limiter.keys("a"):
            assert key.name == "a"
            break
        assert len([key async for key in limiter.keys("a")]) == 20


async def test_keys_are_found_while_others_come_and_go(url: str) -> None:
    async with RateLimiter(url) as limiter:
        await asyncio.gather(*(limiter.hit("stays", by=n) for n in range(600)))
        found: list[KeyInfo] = []
        async for key in limiter.keys():
            found.append(key)
            if len(found) % 50 == 0:
                await limiter.hit("comes", by=len(found))
        assert len(found) == len(set(found))
        assert {key.by for key in found if key.name == "stays"} == {str(n) for n in range(600)}


async def test_the_names_of_nothing_are_refused(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/hour"}, default=None) as limiter:
        wrong: Any
        for wrong in (None, 5, b"a", "x" * 300):
            with pytest.raises(ConfigurationError) as caught:
                limiter.keys(wrong)
            assert (caught.value.field, caught.value.value) == ("prefix", wrong)
        for wrong in (None, 5, b"a", "", "x" * 300, "unknown"):
            for look in (limiter.status, limiter.waiting, limiter.reset, limiter.pause, limiter.resume):
                if wrong == "unknown" and look in {limiter.pause, limiter.resume}:
                    # A name may be stopped before any process knows it.
                    continue
                with pytest.raises(ConfigurationError) as caught:
                    await _told(look(wrong))
                assert (caught.value.field, caught.value.value) == ("name", wrong)
        for wrong in ("", b"x", 1.5, True, [], "x" * 300):
            for look in (limiter.status, limiter.waiting, limiter.reset, limiter.pause, limiter.resume):
                with pytest.raises(ConfigurationError) as caught:
                    await _told(look("a", by=wrong))
                assert (caught.value.field, caught.value.value) == ("by", wrong)


async def _told(answer: Any) -> Any:
    if hasattr(answer, "__aiter__"):
        return [one async for one in answer]
    return await answer


async def test_nothing_is_looked_at_before_the_start(url: str) -> None:
    limiter = RateLimiter(url)
    for look in (limiter.keys, lambda: limiter.waiting("a"), lambda: limiter.status("a"), lambda: limiter.pause("a")):
        with pytest.raises(NotStarted):
            await _told(look())


# ---- who waits ----


async def test_a_queue_of_many_pages_is_listed_whole_and_in_the_order_of_its_grants(url: str) -> None:
    ran: list[int] = []

    async def call(n: int) -> None:
        ran.append(n)

    config = RateLimitConfig("1/hour", QueueConfig(priorities=2, timeout=None))
    async with RateLimiter(url, limits={"a": config}) as limiter:
        await limiter.hit("a", by="x")
        priorities = [1 if n % 10 else 0 for n in range(500)]
        tickets = await asyncio.gather(
            *(limiter.submit("a", call, n, by="x", priority=priority) for n, priority in enumerate(priorities))
        )
        by_id = {ticket.id: n for n, ticket in enumerate(tickets)}
        waiting = [one async for one in limiter.waiting("a", by="x")]
        order = sorted(range(500), key=lambda n: (priorities[n], n))
        assert [by_id[one.id] for one in waiting] == order
        assert [one.position for one in waiting] == list(range(1, 501))
        assert [one.priority for one in waiting] == [0] * 50 + [1] * 450
        assert [one async for one in limiter.waiting("a")] == []
        # Those who are let go are the first of them, also in the midst of a page.
        for gone in (3, 50, 57, 260):
            await limiter.configure({"a": RateLimitConfig(f"{1 + gone}/hour", config.queue)})
            await eventually(lambda gone=gone: len(ran) >= gone)
            assert sorted(ran) == sorted(order[:gone])
            assert [by_id[one.id] async for one in limiter.waiting("a", by="x")] == order[gone:]


async def test_one_that_waits_is_cancelled_by_the_id_that_another_process_sees(url: str) -> None:
    limits = {"a": "1/hour"}
    async with RateLimiter(url, limits=limits) as one, RateLimiter(url, limits=limits) as two:
        await one.hit("a")
        tickets = [await one.submit("a", number, n) for n in range(250)]
        seen = [waiting.id async for waiting in two.waiting("a")]
        for one_id in (seen[0], seen[220], seen[249]):
            await two.cancel(one_id)
        for n, ticket in enumerate(tickets):
            if n in {0, 220, 249}:
                with pytest.raises(RequestCancelled):
                    await ticket
            else:
                assert not ticket.done
        assert [waiting.id async for waiting in two.waiting("a")] == [
            ticket.id for ticket in tickets if not ticket.done
        ]


async def test_nobody_is_listed_twice_while_those_ahead_go(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}) as limiter:
        await limiter.hit("a")
        tickets = await asyncio.gather(*(limiter.submit("a", number, n) for n in range(450)))
        seen: list[str] = []
        async for one in limiter.waiting("a"):
            seen.append(one.id)
            assert one.position == len(seen)
            if len(seen) <= 90:
                await limiter.cancel(one.id)
        assert len(seen) == len(set(seen))
        # Fewer went than a page overlaps the one before: nobody who stayed is passed over.
        stayed = [ticket.id for ticket in tickets[90:]]
        assert [one_id for one_id in seen if one_id in stayed] == stayed


async def test_ages_are_from_the_arrival_and_one_that_is_lifted_keeps_its_age(url: str) -> None:
    queue = QueueConfig(priorities=2, max_wait_before_promotion=0.05)
    async with RateLimiter(url, limits={"a": RateLimitConfig("1/hour", queue)}, poll_interval=0.02) as limiter:
        await limiter.hit("a")
        old = await limiter.submit("a", number, 1, priority=1)
        await eventually(lambda: _is_lifted(limiter))
        new = await limiter.submit("a", number, 2, priority=0)
        waiting = [one async for one in limiter.waiting("a")]
        assert [(one.id, one.priority) for one in waiting] == [(old.id, 0), (new.id, 0)]
        assert waiting[0].age >= 0.05
        assert waiting[0].age > waiting[1].age >= 0
        assert (await limiter.status("a")).queue.oldest_wait >= waiting[0].age


async def _is_lifted(limiter: RateLimiter) -> bool:
    return (await limiter.status("a")).queue.depth_by_priority == (1, 0)


async def test_those_of_all_processes_are_listed(url: str) -> None:
    limits = {"a": "1/hour"}
    async with RateLimiter(url, limits=limits) as one, RateLimiter(url, limits=limits, processor=False) as two:
        await one.hit("a")
        tickets = [await limiter.submit("a", number, 1) for limiter in (one, two, one)]
        for limiter in (one, two):
            assert [waiting.id async for waiting in limiter.waiting("a")] == [ticket.id for ticket in tickets]


# ---- a name as a whole ----


async def test_the_total_is_the_sum_of_its_keys(url: str) -> None:
    limits = {"a": ["10/hour", "50 tokens/hour", "20/day fixed_window", "9 concurrent"], "ab": "5/hour", "a:": "5/hour"}
    async with RateLimiter(url, limits=limits) as limiter:
        grants = [
            await limiter.acquire("a", by=by, cost={"requests": 1, "tokens": cost})
            for cost, by in enumerate((None, *HOSTILE, 7), 1)
            for _ in range(2)
        ]
        await grants[0].release()
        await limiter.hit("ab", cost=3)
        await limiter.hit("a:", by="x", cost=3)
        each = [await limiter.status("a", by=by) for by in (None, *HOSTILE, 7)]
        total = await limiter.status("a", total=True)
        assert total.keys == len(each) == 7
        for i, limit in enumerate(total.limits):
            parts = [status.limits[i] for status in each]
            assert limit.limit == parts[0].limit
            assert limit.used == sum(part.used for part in parts)
            assert limit.remaining == sum(part.remaining for part in parts)
            assert abs(limit.reset_after - max(part.reset_after for part in parts)) < 10
        assert [limit.used for limit in total.limits] == [14, 56, 14, 13]
        for grant in grants:
            await grant.release()


async def test_the_total_of_queues_and_pauses(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}) as limiter:
        tickets = []
        for by, depth in ((None, 1), ("x", 3), ("y", 2)):
            await limiter.hit("a", by=by)
            tickets += [await limiter.submit("a", number, n, by=by, priority=n) for n in range(depth)]
        each = [await limiter.status("a", by=by) for by in (None, "x", "y")]
        total = await limiter.status("a", total=True)
        assert (total.queue.depth, total.queue.depth_by_priority) == (6, (3, 2, 1))
        assert total.queue.oldest_wait >= max(status.queue.oldest_wait for status in each)
        assert abs(total.queue.estimated_wait - max(status.queue.estimated_wait for status in each)) < 10
        assert total.processor.active
        await limiter.pause("a", by="x")
        assert not (await limiter.status("a", total=True)).paused
        await limiter.pause_for("a", 60)
        total = await limiter.status("a", total=True)
        assert total.paused
        assert total.resumes_in is not None
        assert 0 < total.resumes_in <= 60


async def test_the_total_of_a_name_that_was_never_used_is_that_of_one_unused_key(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/hour"}) as limiter:
        total = await limiter.status("a", total=True)
        assert total == await limiter.status("a")
        assert (total.keys, total.limits[0].used, total.queue.depth) == (1, 0, 0)
        assert (total.queue.oldest_wait, total.queue.estimated_wait) == (0, 0)


async def test_looking_charges_and_keeps_nothing(url: str) -> None:
    async with RateLimiter(
        url, limits={"a": ["5/hour", "5/day fixed_window", "5/minute burst 7", "2 concurrent"]}
    ) as one:
        await one.status("a", by="x")
        await one.status("a", total=True)
        await one.check("a", by="x")
        assert [key async for key in one.keys("")] == []
        assert [waiting async for waiting in one.waiting("a", by="x")] == []
        assert [limit.used for limit in (await one.status("a", by="x")).limits] == [0, 0, 0, 0]


# ---- pauses ----


@pytest.mark.parametrize("by", [None, "x"])
async def test_after_exactly_retry_after_a_paused_key_lets_the_same_call_pass(url: str, by: str | None) -> None:
    async with RateLimiter(url) as limiter:
        for _ in range(3):
            await limiter.pause_for("a", 0.4, by=by)
            decision = await limiter.hit("a", by=by)
            assert (decision.reason, decision.allowed) == ("paused", False)
            assert decision.retry_after is not None
            resumes_in = (await limiter.status("a", by=by)).resumes_in
            assert resumes_in is not None
            assert 0 < resumes_in <= decision.retry_after <= 0.4
            await asyncio.sleep(decision.retry_after)
            assert (await limiter.hit("a", by=by)).allowed


@pytest.mark.parametrize("by", [None, "x"])
async def test_a_paused_key_that_is_used_up_is_denied_until_both_end(url: str, by: str | None) -> None:
    async with RateLimiter(url, limits={"a": "1/hour"}) as limiter:
        await limiter.hit("a", by=by)
        for seconds, least, most in ((60, 3500, 3604.5), (7200, 7100, 7200)):
            await limiter.pause_for("a", seconds, by=by)
            decision = await limiter.check("a", by=by)
            assert decision.reason == "paused"
            assert decision.retry_after is not None
            assert least < decision.retry_after <= most


@pytest.mark.parametrize("by", [None, "x"])
async def test_those_who_wait_in_any_process_go_on_when_a_pause_ends_by_itself(url: str, by: str | None) -> None:
    async with RateLimiter(url) as one, RateLimiter(url) as two, RateLimiter(url) as late:
        await one.pause_for("a", 0.2, by=by)
        await eventually(lambda: is_paused_by(two, by))
        tickets = [await limiter.submit("a", number, n, by=by) for n, limiter in enumerate((one, two, late))]
        assert [ticket.done for ticket in tickets] == [False] * 3
        assert await asyncio.gather(*tickets) == [0, 1, 2]
        assert (await two.hit("a", by=by)).allowed


async def is_paused_by(limiter: RateLimiter, by: str | None) -> bool:
    return (await limiter.status("a", by=by)).paused


@pytest.mark.parametrize("by", [None, "x"])
async def test_late_comers_know_of_a_pause_and_its_end(url: str, by: str | None) -> None:
    async with RateLimiter(url) as one:
        await one.pause_for("a", 60, by=by)
        async with RateLimiter(url) as late:
            resumes_in = (await late.status("a", by=by)).resumes_in
            assert resumes_in is not None
            assert 50 < resumes_in <= 60
            assert (await late.hit("a", by=by)).reason == "paused"
            await late.resume("a", by=by)
            assert (await late.hit("a", by=by)).allowed
        await eventually(lambda: _allowed(one, by))


async def _allowed(limiter: RateLimiter, by: str | None = None) -> bool:
    return (await limiter.hit("a", by=by)).allowed


async def test_a_longer_pause_takes_the_place_of_a_shorter_one(url: str) -> None:
    async with RateLimiter(url) as limiter:
        for by in (None, "x"):
            for seconds in (10, 1000):
                await limiter.pause_for("a", seconds, by=by)
            resumes_in = (await limiter.status("a", by=by)).resumes_in
            assert resumes_in is not None
            assert 900 < resumes_in <= 1000


async def test_a_pause_of_a_name_and_one_of_a_key_end_each_by_itself(url: str) -> None:
    async with RateLimiter(url) as limiter:
        await limiter.pause("a", by="x")
        await limiter.pause_for("a", 60)
        assert (await limiter.status("a", by="x")).resumes_in is None
        assert (await limiter.status("a", by="y")).resumes_in is not None
        await limiter.resume("a")
        assert (await limiter.hit("a", by="y")).allowed
        assert (await limiter.hit("a", by="x")).reason == "paused"
        await limiter.pause("a")
        await limiter.resume("a", by="x")
        assert (await limiter.hit("a", by="x")).reason == "paused"
        await limiter.resume("a")
        assert (await limiter.hit("a", by="x")).allowed


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_pause_stops_its_own_name_only_whatever_it_is_called(url: str, name: str) -> None:
    async with RateLimiter(url) as limiter:
        await limiter.pause(name)
        assert [(await limiter.hit(other)).reason == "paused" for other in HOSTILE] == [
            other == name for other in HOSTILE
        ]
        await limiter.resume(name)
        await limiter.pause("b", by=name)
        assert [(await limiter.hit("b", by=other)).reason == "paused" for other in HOSTILE] == [
            other == name for other in HOSTILE
        ]


async def test_resuming_what_is_not_paused_does_nothing(url: str) -> None:
    async with RateLimiter(url) as limiter:
        for by in (None, "x"):
            await limiter.resume("a", by=by)
            assert (await limiter.hit("a", by=by)).allowed


async def test_a_request_counts_a_pause_in_its_estimate(url: str) -> None:
    config = RateLimitConfig("100/hour", QueueConfig(fail_fast=True))
    async with RateLimiter(url, limits={"a": config}) as limiter:
        await limiter.pause_for("a", 60)
        with pytest.raises(RequestTimeout) as caught:
            await limiter.request("a", number, 1, timeout=30)
        assert caught.value.estimate is not None
        assert 50 < caught.value.estimate <= 60
        assert await depth_is(limiter, "a", 0)


@pytest.fixture
def durable_server() -> Iterator[RedisServer]:
    with RedisServer("--appendfsync", "always", appendonly=True) as server:
        yield server


async def test_pauses_outlive_a_restart_of_redis(durable_server: RedisServer) -> None:
    server = durable_server
    async with RateLimiter(server.url) as limiter:
        await limiter.pause("a")
        await limiter.pause_for("b", 3600, by="x")
        server.restart()
        await eventually(lambda: _still_paused(limiter))
        async with RateLimiter(server.url) as late:
            assert (await late.hit("a")).reason == "paused"
            decision = await late.hit("b", by="x")
            assert decision.reason == "paused"
            assert decision.retry_after is not None
            assert 3000 < decision.retry_after <= 3600


async def _still_paused(limiter: RateLimiter) -> bool:
    try:
        return await is_paused(limiter, "a")
    except RedisUnavailable:
        return False


async def test_what_is_configured_for_a_key_can_be_asked(url: str) -> None:
    limits = {"a": RateLimitConfig("5/minute", by={"vip": "50/minute"})}
    async with RateLimiter(url, limits=limits, default="1/hour") as limiter:
        told = [limiter.config(name, by=by).limits[0].amount for name, by in (("a", None), ("a", "vip"), ("b", "x"))]
        assert told == [5, 50, 1]
        await limiter.configure({"a": "7/minute"}, by="x")
        assert limiter.config("a", by="x").limits[0].amount == 7
