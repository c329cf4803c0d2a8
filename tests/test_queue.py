"""The queue: order, bounds, ends; one process or several."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import (
    Event,
    QueueConfig,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RedisUnavailable,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
    UnknownRequest,
    _due,
)
from ratelimit_async._events import Cancelled, Granted, Refunded
from ratelimit_async.testing import _clock
from tests.helpers import CLEAN, client_of, depth_is, eventually, is_paused, leftovers, number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ratelimit_async._scripts import Scripts

SHORT = "2 per 0.2 seconds"


@pytest.fixture
async def limiter(url: str) -> AsyncIterator[RateLimiter]:
    """One whose name `full` is used up for long, and `short` for moments."""
    small = QueueConfig(max_size=2)
    dropping = QueueConfig(max_size=2, overflow="drop_oldest")
    limits = {
        "full": "1/minute",
        "short": SHORT,
        "small": RateLimitConfig("1/minute", small),
        "dropping": RateLimitConfig("1/minute", dropping),
        "tokens": "100/minute; 10 tokens/minute",
    }
    async with RateLimiter(url, limits=limits) as made:
        for name in ("full", "small", "dropping"):
            await made.hit(name)
        yield made
    await eventually(lambda: _is_clean(url))


async def _is_clean(url: str) -> bool:
    return await leftovers(url) == CLEAN


async def client_now(limiter: RateLimiter) -> float:
    """When something is charged now, seconds since the epoch by Redis' clock."""
    async with limiter.acquire("clock") as grant:
        return grant.granted_at


async def depth(limiter: RateLimiter, name: str) -> int:
    return (await limiter.status(name)).queue.depth


async def test_a_request_that_may_run_runs_at_once(limiter: RateLimiter) -> None:
    assert await limiter.request("short", number, 7) == 7


async def test_requests_beyond_the_limit_wait_and_all_run(limiter: RateLimiter) -> None:
    results = await asyncio.gather(*(limiter.request("short", number, n) for n in range(7)))
    assert results == list(range(7))


async def test_a_plain_function_runs_in_a_thread_and_keywords_go_through_partial(
    limiter: RateLimiter,
) -> None:
    assert await limiter.request("tokens", max, 3, 5) == 5
    assert await limiter.request("tokens", functools.partial(int, base=2), "101") == 5
    assert await limiter.request("tokens", functools.partial(number, n=4)) == 4
    assert await limiter.request("tokens", lambda: number(6)) == 6


async def test_what_the_function_raises_passes_through_and_stays_charged(limiter: RateLimiter) -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await limiter.request("tokens", fail, cost={"tokens": 3})
    assert (await limiter.status("tokens")).limits[1].used == 3


async def test_waiting_ones_are_granted_by_priority_then_in_order(limiter: RateLimiter) -> None:
    ran: list[str] = []

    async def call(mark: str) -> None:
        ran.append(mark)

    await limiter.pause("short")
    levels = {"low": "low", "high": "high", "normal": "normal", "0": 0, "2": 2}
    tickets = [
        await limiter.submit("short", call, f"{mark}{n}", priority=levels[mark]) for n in range(2) for mark in levels
    ]
    assert (await limiter.status("short")).queue.depth_by_priority == (4, 2, 4)
    await limiter.resume("short")
    await asyncio.gather(*tickets)
    assert ran == ["high0", "00", "high1", "01", "normal0", "normal1", "low0", "20", "low1", "21"]


async def test_a_newcomer_does_not_overtake_even_when_capacity_is_free(limiter: RateLimiter) -> None:
    ran: list[str] = []

    async def call(mark: str) -> None:
        ran.append(mark)

    await limiter.hit("tokens", cost={"tokens": 9})
    big = await limiter.submit("tokens", call, "big", cost={"tokens": 5})
    small = await limiter.submit("tokens", call, "small", cost={"tokens": 1})
    assert (big.position, small.position) == (1, 2)
    await limiter.reset("tokens")
    await asyncio.gather(big, small)
    assert ran == ["big", "small"]


async def test_a_better_priority_goes_first_when_it_fits(limiter: RateLimiter) -> None:
    await limiter.hit("tokens", cost={"tokens": 9})
    blocked = await limiter.submit("tokens", number, 1, cost={"tokens": 5}, priority="low")
    assert await limiter.request("tokens", number, 2, cost={"tokens": 1}, priority="high") == 2
    assert not blocked.done
    assert blocked.cancel()


async def test_hit_and_check_are_denied_while_anyone_waits(limiter: RateLimiter) -> None:
    await limiter.hit("tokens", cost={"tokens": 9})
    ticket = await limiter.submit("tokens", number, 1, cost={"tokens": 5})
    for ask in (limiter.hit, limiter.check):
        decision = await ask("tokens", cost={"tokens": 1})
        assert (decision.allowed, decision.reason) == (False, "queue")
    ticket.cancel()
    await eventually(lambda: _allowed(limiter, "tokens"))


async def _allowed(limiter: RateLimiter, name: str) -> bool:
    return (await limiter.check(name)).allowed


async def test_a_full_queue_rejects(limiter: RateLimiter) -> None:
    tickets = [await limiter.submit("small", number, n) for n in range(2)]
    with pytest.raises(QueueFull, match="'small' is full"):
        await limiter.submit("small", number, 3)
    with pytest.raises(QueueFull):
        await limiter.request("small", number, 3)
    tickets[0].cancel()
    await eventually(lambda: depth_is(limiter, "small", 1))
    await limiter.submit("small", number, 4)


async def test_a_dropped_caller_is_told_at_once(limiter: RateLimiter) -> None:
    oldest = await limiter.submit("dropping", number, 0)
    other = await limiter.submit("dropping", number, 1)
    newest = await limiter.submit("dropping", number, 2)
    with pytest.raises(RequestDropped, match="overflow"):
        await oldest
    assert not other.done
    assert not newest.done
    assert await depth(limiter, "dropping") == 2


async def test_the_worst_priority_is_dropped_first_and_never_a_better_one(limiter: RateLimiter) -> None:
    normal = await limiter.submit("dropping", number, 0)
    low = await limiter.submit("dropping", number, 1, priority="low")
    high = await limiter.submit("dropping", number, 2, priority="high")
    with pytest.raises(RequestDropped):
        await low
    with pytest.raises(QueueFull):
        await limiter.submit("dropping", number, 3, priority="low")
    assert not normal.done
    assert not high.done


async def test_a_timeout_leaves_the_queue_and_charges_nothing(limiter: RateLimiter) -> None:
    with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
        await limiter.request("full", number, 1, timeout=0.05)
    with pytest.raises(TimeoutError):
        await limiter.acquire("full", timeout=timedelta(milliseconds=20))
    await eventually(lambda: depth_is(limiter, "full", 0))
    assert (await limiter.status("full")).limits[0].used == 1


async def test_a_timeout_of_zero_does_not_wait_at_all(limiter: RateLimiter) -> None:
    with pytest.raises(RequestTimeout):
        await limiter.request("full", number, 1, timeout=0)
    assert await limiter.request("short", number, 1, timeout=0) == 1
    assert await depth(limiter, "full") == 0


async def test_the_queues_timeout_is_the_default(url: str) -> None:
    config = RateLimitConfig("1/minute", QueueConfig(timeout=0.05))
    async with RateLimiter(url, limits={"a": config}) as limiter:
        await limiter.hit("a")
        with pytest.raises(RequestTimeout):
            await limiter.request("a", number, 1)


async def test_cancelling_a_waiting_caller_removes_its_place(limiter: RateLimiter) -> None:
    task = asyncio.create_task(limiter.request("full", number, 1))
    await eventually(lambda: depth_is(limiter, "full", 1))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: depth_is(limiter, "full", 0))


async def test_a_caller_cancelled_at_any_moment_leaves_capacity_to_others(limiter: RateLimiter) -> None:
    ran: list[int] = []

    async def call() -> None:
        ran.append(1)

    for turns in range(12):
        task = asyncio.create_task(limiter.request("tokens", call, cost={"tokens": 10}))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if ran:
            # What ran stays charged.
            assert (await limiter.status("tokens")).limits[1].used == 10
            await limiter.reset("tokens")
            ran.clear()
        await eventually(lambda: _used_is(limiter, 0))


async def _used_is(limiter: RateLimiter, n: int) -> bool:
    return (await limiter.status("tokens")).limits[1].used == n


async def test_a_ticket_is_cancelled_by_itself_or_by_its_id_from_another_process(
    limiter: RateLimiter, url: str
) -> None:
    first, second = [await limiter.submit("full", number, n) for n in range(2)]
    assert first.cancel()
    assert not first.done or not first.cancel()
    with pytest.raises(RequestCancelled):
        await first
    async with RateLimiter(url, limits={"full": "1/minute"}) as other:
        await other.cancel(second.id)
        with pytest.raises(RequestCancelled, match="cancelled"):
            await second
        for unknown in (second.id, "full::nobody.1", "nonsense", "a:b:c:d.1", "::x.1", 5):
            with pytest.raises(UnknownRequest):
                await other.cancel(unknown)  # type: ignore[arg-type]


async def test_cancel_of_an_unconfigured_name_is_unknown(url: str) -> None:
    async with RateLimiter(url, default=None) as limiter:
        with pytest.raises(UnknownRequest):
            await limiter.cancel("full::nobody.1")


async def test_a_running_ticket_can_be_cancelled_too(limiter: RateLimiter) -> None:
    started = asyncio.Event()

    async def call() -> None:
        started.set()
        await asyncio.Event().wait()

    ticket = await limiter.submit("tokens", call)
    await started.wait()
    assert ticket.position == 0
    assert ticket.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ticket
    assert not ticket.cancel()


async def test_tickets_know_their_place_and_estimate_their_wait(limiter: RateLimiter) -> None:
    tickets = [await limiter.submit("full", number, n) for n in range(3)]
    assert [ticket.position for ticket in tickets] == [1, 2, 3]
    waits = [ticket.estimated_wait for ticket in tickets]
    assert [round(wait / 60) for wait in waits] == [1, 2, 3]
    status = await limiter.status("full")
    assert status.queue.depth == 3
    assert status.queue.oldest_wait >= 0
    assert round(status.queue.estimated_wait / 60) == 4
    assert status.processor.active


async def test_acquire_is_awaited_or_entered_and_settles(limiter: RateLimiter) -> None:
    grant = await limiter.acquire("tokens", cost={"tokens": 4})
    assert grant.decision.allowed
    assert grant.waited >= 0
    await grant.settle({"tokens": 1})
    assert [limit.used for limit in (await limiter.status("tokens")).limits] == [1, 1]
    async with limiter.acquire("tokens", cost={"tokens": 2}) as other:
        await other.settle({"tokens": 20})
        assert (await limiter.status("tokens")).limits[1].used == 21
        await other.refund()
        await other.refund()
    assert [limit.used for limit in (await limiter.status("tokens")).limits] == [1, 1]
    await grant.settle(3)
    assert [limit.used for limit in (await limiter.status("tokens")).limits] == [3, 1]


async def test_a_refund_wakes_who_waits(limiter: RateLimiter) -> None:
    grant = await limiter.acquire("tokens", cost={"tokens": 10})
    ticket = await limiter.submit("tokens", number, 1, cost={"tokens": 10})
    await grant.refund()
    assert await ticket == 1


async def test_a_fixed_window_refunds_only_within_itself(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/day fixed_window"}) as limiter:
        grant = await limiter.acquire("a", cost=3)
        await grant.settle(1)
        assert (await limiter.status("a")).limits[0].used == 1


async def test_a_refund_after_a_reset_takes_nothing_from_others(url: str) -> None:
    async with RateLimiter(url, limits={"a": "5/minute", "b": "1 per 0.05 seconds"}) as limiter:
        grant = await limiter.acquire("a", cost=3)
        await limiter.reset("a")
        # Longer than a bucket of the window.
        await asyncio.sleep(0.1)
        await limiter.hit("a", cost=4)
        await grant.refund()
        assert (await limiter.status("a")).limits[0].used == 4
        late = await limiter.acquire("b")
        await eventually(lambda: _allowed(limiter, "b"))
        await late.refund()
        # At once: what was hit counts for a moment only.
        _, checked = await asyncio.gather(limiter.hit("b"), limiter.check("b"))
        assert not checked.allowed


async def test_a_pause_stops_grants_in_every_process_until_resumed(limiter: RateLimiter, url: str) -> None:
    async with RateLimiter(url, limits={"short": SHORT}) as other:
        await other.pause("short")
        await eventually(lambda: is_paused(limiter, "short"))
        decision = await limiter.hit("short")
        assert (decision.allowed, decision.reason, decision.retry_after) == (False, "paused", None)
        assert (await limiter.hit("short", by="anyone")).reason == "paused"
        ticket = await limiter.submit("short", number, 1)
        with pytest.raises(RequestTimeout):
            await limiter.request("short", number, 1, timeout=0.05)
        assert not ticket.done
        await other.resume("short")
        assert await ticket == 1


async def test_one_subject_can_be_paused_and_newcomers_know(limiter: RateLimiter, url: str) -> None:
    await limiter.pause("short", by="x")
    assert (await limiter.hit("short", by="x")).reason == "paused"
    assert (await limiter.hit("short", by="y")).allowed
    async with RateLimiter(url, limits={"short": SHORT}) as other:
        assert (await other.status("short", by="x")).paused
        await other.resume("short", by="x")
    await eventually(lambda: _allowed(limiter, "short"))


async def test_one_that_does_not_process_is_served_by_others(url: str) -> None:
    limits = {"short": SHORT}
    async with (
        RateLimiter(url, limits=limits, processor=False) as waiter,
        RateLimiter(url, limits=limits),
    ):
        assert (await waiter.health()).processor is None
        results = await asyncio.gather(*(waiter.request("short", number, n) for n in range(5)))
        assert results == list(range(5))


async def test_another_process_takes_over_from_a_driver_that_leaves(url: str) -> None:
    limits = {"short": SHORT}
    async with RateLimiter(url, limits=limits) as stays:
        async with RateLimiter(url, limits=limits) as leaves:
            await leaves.pause("short")
            gone = await leaves.submit("short", number, 0)
            kept = await stays.submit("short", number, 1)
            await leaves.resume("short")
        with pytest.raises((RequestCancelled, asyncio.CancelledError)):
            if await gone == 0:
                raise asyncio.CancelledError
        assert await kept == 1


async def test_events_tell_what_happens(url: str) -> None:
    seen: list[str] = []

    def hook(event: Event) -> None:
        seen.append(type(event).__name__)

    def broken(event: Event) -> Any:
        raise RuntimeError(event)

    config = RateLimitConfig("2 per 1.5 seconds", QueueConfig(max_size=1))
    async with RateLimiter(url, limits={"a": config}, hooks=[broken, hook]) as limiter:
        await limiter.request("a", number, 1, cost=2)
        await limiter.hit("a")
        ticket = await limiter.submit("a", number, 1)
        with pytest.raises(QueueFull):
            await limiter.submit("a", number, 1)
        await ticket
        with pytest.raises(RequestTimeout):
            await limiter.request("a", number, 1, cost=2, timeout=0)
    expected = ["Connected", "Allowed", "Denied", "Queued", "Rejected", "Granted", "Expired"]
    assert [name for name in expected if name not in seen] == []


async def test_who_waits_is_kept_until_a_long_lease_is_renewed(url: str) -> None:
    async with (
        RateLimiter(url, limits={"a": "1/day"}, lease=3000) as patient,
        RateLimiter(url, limits={"a": "1/day"}) as other,
        client_of(url) as client,
    ):
        await patient.hit("a")
        tickets = [await limiter.submit("a", asyncio.sleep, 0, timeout=None) for limiter in (patient, other)]
        lives = {key.rpartition("}:")[2]: await client.pttl(key) async for key in client.scan_iter()}
        # A lease is renewed each third of itself.
        assert {part: life for part, life in lives.items() if part in ("q1", "c") and life <= 1_000_000} == {}
        assert {"q1", "c"} <= lives.keys()
        for ticket in tickets:
            ticket.cancel()


def lose_reply(scripts: Scripts, call: str) -> tuple[asyncio.Future[Any], asyncio.Event]:
    """Lose the reply to the next such call: the answer to its second sending, and when the first was answered."""
    again, answered = asyncio.get_running_loop().create_future(), asyncio.Event()
    send = getattr(scripts, call)

    def send_and_lose(*args: Any, **how: Any) -> asyncio.Future[Any]:
        setattr(scripts, call, send)
        send(*args, **how).add_done_callback(lambda _: answered.set())
        return again

    setattr(scripts, call, send_and_lose)
    return again, answered


@pytest.mark.parametrize("late", ["request", "claim"])
@pytest.mark.parametrize("lost", [False, True])
async def test_what_answers_a_turn_once_more_gives_nothing_back_of_what_ran(url: str, late: str, *, lost: bool) -> None:
    async with RateLimiter(url, limits={"a": "10000/hour", "clock": "100/second"}) as limiter:
        session = limiter._live()
        requests = session.requests
        again, answered = lose_reply(session.scripts, late)
        admitted: list[Any] = [b"A", 1, 9999, 0, 0]
        granted: list[Any] = [b"G 0 1 1 9999 0", 0]

        await limiter.pause("a")
        await eventually(lambda: is_paused(limiter, "a"))
        task = asyncio.create_task(limiter.request("a", number, 7))
        await eventually(lambda: depth_is(limiter, "a", 1))
        (waiter,) = requests._waiters.values()
        await limiter.resume("a")
        if late == "claim":
            await answered.wait()
            stamp = int((await client_now(limiter)) * 1e6)
            first = asyncio.get_running_loop().create_future()
            first.add_done_callback(
                functools.partial(requests._on_admission, waiter, waiter.turns, session.scripts.admission)
            )
            first.set_result([*admitted[:-1], stamp])
            granted = [f"G {stamp} 1 1 9999 0".encode(), stamp]
        assert await task == 7
        if lost:
            again.set_exception(RedisUnavailable("redis", "gone", outage=True))
        else:
            admitted[-1] = int((await client_now(limiter)) * 1e6)
            again.set_result(admitted if late == "request" else granted)
        # Once what is called back on it has been.
        await asyncio.sleep(0)
        requests.resend(requests.on_outage_over())
        await requests.drain()
        assert (await limiter.status("a")).limits[0].used == 1
        assert not requests._waiters


@pytest.mark.parametrize("granted", [True, False])
async def test_what_a_second_sending_finds_and_cannot_take_over_is_put_back(url: str, *, granted: bool) -> None:
    async with RateLimiter(url, limits={"a": "10000/hour"}) as limiter:
        scripts, requests = limiter._live().scripts, limiter._live().requests
        again, _ = lose_reply(scripts, "request")
        await limiter.pause("a")
        await eventually(lambda: is_paused(limiter, "a"))
        task = asyncio.create_task(limiter.request("a", number, 7))
        await eventually(lambda: depth_is(limiter, "a", 1))
        (waiter,) = requests._waiters.values()
        _, (entry,) = await scripts.waiting(waiter.key, waiter.priority, 0, 1)
        # Whoever granted or dropped it is gone, and what it left with it.
        again.set_result([b"G", b"G 1 1 1 9999 0 " + entry if granted else b"D overflow"])
        await eventually(lambda: waiter.state == "waiting")
        assert waiter.entry == (entry if granted else b"")
        assert await scripts.withdraw_other(waiter.key, waiter.id.rpartition(":")[2], "")
        assert await depth_is(limiter, "a", 0)
        await requests.sync(scan=True)
        await eventually(lambda: depth_is(limiter, "a", 1))
        await limiter.resume("a")
        assert await task == 7
        assert (await limiter.status("a")).limits[0].used == 1


async def test_who_is_cancelled_after_it_failed_is_not_told_of_again(url: str) -> None:
    told: list[Event] = []
    config = RateLimitConfig("1/minute", QueueConfig(max_size=1))
    async with RateLimiter(url, limits={"a": config}, hooks=[told.append]) as limiter:
        await limiter.hit("a")
        requests = limiter._live().requests
        waiting, rejected = (requests.open(limiter._names.key("a", None), {"requests": 1}, 0, None) for _ in range(2))
        with pytest.raises(QueueFull):
            await rejected.granted
        for waiter in (rejected, waiting):
            requests.cancel(waiter, "caller")
        assert [event.id for event in told if isinstance(event, Cancelled)] == [waiting.id]


@pytest.mark.parametrize("promote", [None, 3600.0])
async def test_who_comes_back_and_still_stands_there_stands_there_once(url: str, promote: float | None) -> None:
    config = RateLimitConfig("1/day", QueueConfig(max_wait_before_promotion=promote))
    async with RateLimiter(url, limits={"a": config}) as one, RateLimiter(url, limits={"a": config}) as two:
        await one.hit("a")
        tickets = list[Any]()
        for limiter in (one, two, one):
            # Those of one call come in one microsecond after the other.
            tickets += await asyncio.gather(*(limiter.submit("a", number, n, priority=n % 3) for n in range(15)))
        places = [ticket.id for ticket in tickets]
        before = [waiting.id async for waiting in one.waiting("a")]
        assert sorted(before) == sorted(places)
        for limiter in (one, two):
            requests = limiter._live().requests
            for key, waiters in requests._waiting.items():
                for waiter in random.sample(list(waiters.values()), len(waiters)):
                    sent = requests.scripts.requeue(key, waiter.turn, waiter.priority, waiter.text, waiter.entry)
                    told = requests.scripts.admission(key, await sent)
                    assert (told.kind, told.entry) == ("Q", waiter.entry)
                    assert told.position == before[waiter.priority * 15 :].index(waiter.id) + 1
        assert [waiting.id async for waiting in two.waiting("a")] == before
        # Those of one microsecond, too; all of them are older than the others.
        scripts, key = one._live().requests.scripts, one._key_of("a", None)
        earlier = min(waiter.enqueued for waiter in one._live().requests._waiting[key].values()) - 1_000_000
        stood = dict[int, bytes]()
        for n in (0, 1, 2, 3, 3, 1, 0, 2):
            known = n in stood
            told = scripts.admission(key, await scripts.requeue(key, f"{9000 + n}", 1, "-", b"- - %d 0 -" % earlier))
            assert told.kind == "Q"
            assert told.entry == stood.setdefault(n, told.entry)
            assert not known or told.position == n + 1
        assert len(set(stood.values())) == 4
        for ticket in tickets:
            ticket.cancel()


async def test_requests_of_one_call_are_admitted_one_after_another_each_for_its_own_key(url: str) -> None:
    limits = {"a": "9/minute", "b": "7/minute", "c": "5/hour token_bucket", "d": "8/minute"}
    async with RateLimiter(url, limits=limits) as limiter:
        # The first of a turn is sent by itself.
        names = "d" + "abcdab"
        grants = await asyncio.gather(*(limiter.acquire(name) for name in names))
        assert [grant.decision.remaining for grant in grants] == [7, 8, 6, 4, 6, 7, 5]
        assert [(await limiter.status(name)).limits[0].used for name in limits] == [2, 2, 1, 2]
        # Of three that come together two have room; the third waits.
        await limiter.hit("c", cost=2)
        several = [asyncio.ensure_future(limiter.acquire(name, timeout=0.2)) for name in "dccc"]
        done = await asyncio.gather(*several, return_exceptions=True)
        assert [isinstance(grant, RequestTimeout) for grant in done] == [False, False, False, True]


async def test_a_request_for_which_there_is_room_waits_behind_one_that_came_before_it(url: str) -> None:
    async with RateLimiter(url, limits={"a": SHORT}, processor=False) as limiter:
        await limiter.hit("a", cost=2)
        first = asyncio.ensure_future(limiter.acquire("a"))
        await eventually(lambda: depth_is(limiter, "a", 1))
        # Nobody serves the queue, so there is room and yet somebody waits.
        await eventually(lambda: is_unused(limiter))
        with pytest.raises(RequestTimeout):
            await limiter.acquire("a", timeout=0.05)
        first.cancel()


async def is_unused(limiter: RateLimiter) -> bool:
    return (await limiter.status("a")).limits[0].used == 0


async def test_a_key_that_is_paused_admits_nobody(url: str) -> None:
    async with RateLimiter(url, limits={"a": "9/minute"}) as limiter:
        await limiter._live().requests.pause(limiter._key_of("a", None), 60)
        with pytest.raises(RequestTimeout):
            await limiter.acquire("a", timeout=0.05)
        assert (await limiter.status("a")).limits[0].used == 0


@contextlib.asynccontextmanager
async def granted_ahead(
    url: str, monkeypatch: pytest.MonkeyPatch, timeout: float | None = None
) -> AsyncIterator[tuple[RateLimiter, asyncio.Task[int], list[Event], list[float]]]:
    """Give a limiter with a request whose grant is there ahead of its time, by a clock that stands still until told."""
    told: list[Event] = []
    clock = [0.0]
    monkeypatch.setattr(_due, "_time", lambda: clock[0])
    async with RateLimiter(url, limits={"a": "1/second"}, hooks=[told.append]) as limiter:
        requests = limiter._live().requests
        await limiter.hit("a")
        task = asyncio.create_task(limiter.request("a", number, 7, timeout=timeout))

        def is_there() -> bool:
            nonlocal task
            if task.done():
                # On a busy machine it may come too late to have to wait.
                told.clear()
                task = asyncio.create_task(limiter.request("a", number, 7, timeout=timeout))
            return [waiter.state for waiter in requests._waiters.values()] == ["early"]

        await eventually(is_there, 60)
        yield limiter, task, told, clock


async def test_what_is_granted_ahead_of_its_time_waits_for_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with granted_ahead(url, monkeypatch) as (limiter, task, told, clock):
        for _ in range(5):
            # The loop's timers come; it is not time yet.
            await asyncio.sleep(0.01)
        assert not task.done()
        assert not any(isinstance(event, Granted) for event in told)
        requests = limiter._live().requests
        # Neither a message that comes again, nor who asks for what no message told, changes anything.
        requests.on_ids(list(requests._waiters))
        await requests.sync(scan=True)
        clock[0] += 0.066
        assert await task == 7
        assert [type(event) for event in told if isinstance(event, (Granted, Refunded))] == [Granted]


async def by_its_caller(_limiter: RateLimiter, task: asyncio.Task[int]) -> None:
    task.cancel()


async def by_the_end(limiter: RateLimiter, _task: asyncio.Task[int]) -> None:
    limiter._live().requests.end_all("shutdown")


async def by_its_timeout(_limiter: RateLimiter, _task: asyncio.Task[int]) -> None:
    """Wait for that."""


@pytest.mark.parametrize(
    ("way", "error"),
    [
        (by_its_caller, asyncio.CancelledError),
        (by_the_end, RequestCancelled),
        (by_its_timeout, RequestTimeout),
    ],
)
async def test_what_is_granted_ahead_of_its_time_and_ended_before_it_is_given_back(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[RateLimiter, asyncio.Task[int]], Awaitable[None]],
    error: type[BaseException],
) -> None:
    timeout = 1.5 if way is by_its_timeout else None
    async with granted_ahead(url, monkeypatch, timeout) as (limiter, task, told, clock):
        await way(limiter, task)
        with pytest.raises(error):
            await task
        await limiter._live().requests.drain()
        clock[0] += 0.066
        await asyncio.sleep(0.02)
        assert [type(event) for event in told if isinstance(event, (Granted, Refunded))] == [Refunded]
        # What was given back, somebody else may have within the same second; time goes on.
        monkeypatch.undo()
        assert await limiter.request("a", number, 8) == 8
    assert await leftovers(url) == CLEAN


async def test_no_clock_that_was_set_back_keeps_what_was_granted_waiting(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1000/hour"}) as limiter:
        again, answered = lose_reply(limiter._live().scripts, "claim")
        await limiter.pause("a")
        await eventually(lambda: is_paused(limiter, "a"))
        task = asyncio.create_task(limiter.request("a", number, 7))
        await eventually(lambda: depth_is(limiter, "a", 1))
        await limiter.resume("a")
        await answered.wait()
        again.set_result([b"G 3600000000 1 1 999 0", 1])
        assert await asyncio.wait_for(task, 60) == 7


async def test_no_call_runs_before_the_time_for_which_it_was_charged(url: str) -> None:
    early: list[float] = []
    ahead = _clock._server_time.ahead if url.startswith("memory://") else 0.0
    async with RateLimiter(url, limits={"a": "5 per 0.1 seconds", "b": "50/second burst 1"}, hooks=[]) as limiter:

        async def run(name: str) -> None:
            async with limiter.acquire(name) as grant:
                # The server is on this machine; an embedded one may have been told that it is later.
                early.append(grant.granted_at - time.time() - ahead)

        await asyncio.gather(*(run(name) for name in "ab" for _ in range(40)))
    assert len(early) == 80
    assert max(early) <= 0
