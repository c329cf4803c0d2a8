"""Durable tasks: run by whichever process has them, at least once, until they end."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ratelimit_async import (
    ConfigurationError,
    Event,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RedisUnavailable,
    RequestCancelled,
    RequestTimeout,
    Retry,
    RetryAfter,
    TaskFailed,
    Ticket,
    UnknownRequest,
    _due,
)
from ratelimit_async._events import Finished, Released, Started
from ratelimit_async._task_scripts import TaskScripts
from tests.helpers import client_of, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit_async._keys import Key

LIMITS = {"a": "1000/second", "one": "1 concurrent", "two": "2 concurrent", "slow": "1 per 0.2 seconds"}


def limiter_of(url: str, ran: list[Any], *, limits: dict[str, Any] | None = None, **settings: Any) -> RateLimiter:
    """Build a process of its own, as it were: a limiter with the tasks of these tests."""
    limiter = RateLimiter(url, limits=limits or LIMITS, **settings)

    @limiter.task("note", backoff=0.01)
    async def note(n: int) -> int:
        ran.append(n)
        return n * 2

    @limiter.task("fail", max_attempts=3, backoff=0.01)
    def fail(text: str) -> None:
        ran.append(text)
        raise ValueError(text)

    return limiter


def task_of(limiter: RateLimiter, name: str) -> Callable[..., Any]:
    task = limiter._registry.get(name)
    assert task is not None
    return task


async def test_a_task_runs_and_its_result_comes_back(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, ran) as limiter:
        note = task_of(limiter, "note")
        assert await limiter.request("a", note, 3) == 6
        ticket = await limiter.submit("a", note, 4)
        assert await ticket == 8
        assert await limiter.result(ticket.id) == 8
        assert ticket.done
        assert ran == [3, 4]
        # Called as it is, it just runs.
        assert await note(5) == 10


async def granted_ahead(limiter: RateLimiter, ran: list[Any]) -> Ticket[Any]:
    """Give a task that has been begun ahead of its time, by a clock that stands still."""
    note = task_of(limiter, "note")
    await limiter.request("second", note, 0)
    ticket: Ticket[Any] = await limiter.submit("second", note, 1)

    async def is_there() -> bool:
        nonlocal ticket
        if len(ran) > 1:
            # On a busy machine it may come too late to have to wait.
            ran.pop()
            ticket = await limiter.submit("second", note, 1)
        # Until its time it costs nothing; another attempt may just be ending.
        return any(attempt.cost is not None for attempt in limiter._live().worker._attempts.values())

    await eventually(is_there, 60)
    return ticket


async def test_a_task_that_is_granted_ahead_of_its_time_waits_for_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    told: list[Event] = []
    clock = [0.0]
    monkeypatch.setattr(_due, "_time", lambda: clock[0])
    async with limiter_of(url, ran, limits={"second": "1/second"}, hooks=[told.append]) as limiter:
        ticket = await granted_ahead(limiter, ran)

        def told_of_it() -> list[type[Event]]:
            return [type(one) for one in told if isinstance(one, (Started, Finished)) and one.id == ticket.id]

        await asyncio.sleep(0.05)
        assert ran == [0]
        assert told_of_it() == []
        clock[0] += 0.066
        assert await ticket == 2
        assert ran == [0, 1]
        await eventually(lambda: told_of_it() == [Started, Finished])


async def test_a_task_that_is_granted_ahead_of_its_time_can_be_cancelled(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(_due, "_time", lambda: 0.0)
    async with limiter_of(url, ran, limits={"second": "1/second"}) as limiter:
        ticket = await granted_ahead(limiter, ran)
        given_back: list[str] = []
        scripts = limiter._live().scripts
        adjust = scripts.adjust_task

        def look_and_adjust(key: Key, own: str, stamp: int, costs: str, true: str) -> asyncio.Future[Any]:
            given_back.append(true)
            return adjust(key, own, stamp, costs, true)

        monkeypatch.setattr(scripts, "adjust_task", look_and_adjust)
        assert ticket.cancel()
        with pytest.raises(RequestCancelled):
            await ticket
        await eventually(lambda: not limiter._live().worker._attempts)
        assert ran == [0]
        assert given_back == ["requests=0"]


async def test_a_task_that_is_granted_ahead_of_its_time_is_given_back_by_a_process_that_ends(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    with monkeypatch.context() as stands_still:
        stands_still.setattr(_due, "_time", lambda: 0.0)
        async with limiter_of(url, ran, limits={"second": "1/second"}, shutdown_timeout=0.1) as limiter:
            ticket = await granted_ahead(limiter, ran)
    assert ran == [0]
    async with limiter_of(url, ran, limits={"second": "1/second"}) as limiter:
        assert await limiter.result(ticket.id) == 2
    assert ran == [0, 1]


async def test_a_task_is_run_by_another_process(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False) as submitter:
        ticket = await submitter.submit("a", task_of(submitter, "note"), 1)
        assert ran == []
        async with limiter_of(url, ran):
            assert await ticket == 2
        assert ran == [1]


async def test_a_task_outlives_who_submitted_it(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False) as submitter:
        ids = [(await submitter.submit("a", task_of(submitter, "note"), n, by=f"user-{n % 3}")).id for n in range(9)]
    async with limiter_of(url, ran) as worker:
        assert [await worker.result(one) for one in ids] == [n * 2 for n in range(9)]
        assert sorted(ran) == list(range(9))


async def test_submitting_an_id_again_is_the_same_request(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False) as submitter:
        note = task_of(submitter, "note")
        first = await submitter.submit("a", note, 1, id="order: 7")
        again = await submitter.submit("a", note, 1, id="order: 7")
        assert first.id == again.id
    async with limiter_of(url, ran) as worker:
        third = await worker.submit("a", task_of(worker, "note"), 1, id="order: 7")
        assert await third == 2
        fourth = await worker.submit("a", task_of(worker, "note"), 99, id="order: 7")
        assert fourth.done
        assert await fourth == 2
        assert ran == [1]


async def test_tasks_and_functions_share_one_queue_in_order_of_arrival_and_priority(url: str) -> None:
    ran: list[Any] = []

    async def here(n: int) -> None:
        ran.append(n)

    async with limiter_of(url, ran) as limiter:
        await limiter.pause("slow")
        note = task_of(limiter, "note")
        tickets = [
            await limiter.submit("slow", note, 1),
            await limiter.submit("slow", here, 2),
            await limiter.submit("slow", note, 3),
            await limiter.submit("slow", here, 0, priority="high"),
        ]
        waiting = [(request.id, request.position) async for request in limiter.waiting("slow")]
        assert waiting == [(tickets[n].id, place) for place, n in enumerate((3, 0, 1, 2), 1)]
        await limiter.resume("slow")
        await asyncio.gather(*tickets)
        assert ran == [0, 1, 2, 3]


async def test_a_task_that_fails_is_retried_and_then_dead_until_it_is_requeued(url: str) -> None:
    ran: list[Any] = []
    seen: list[str] = []

    def hook(event: Event) -> None:
        seen.append(type(event).__name__)

    async with limiter_of(url, ran, hooks=[hook]) as limiter:
        fail = task_of(limiter, "fail")
        ticket = await limiter.submit("a", fail, "boom")
        with pytest.raises(TaskFailed, match=r"3 attempts: ValueError\('boom'\)"):
            await ticket
        assert ran == ["boom"] * 3
        (letter,) = [letter async for letter in limiter.dead_letters("a")]
        assert (letter.id, letter.task, letter.attempts) == (ticket.id, "fail", 3)
        assert letter.error == "ValueError('boom')"
        assert letter.arguments == (["boom"], {})
        await limiter.requeue(ticket.id)
        with pytest.raises(TaskFailed):
            await limiter.result(ticket.id)
        assert len(ran) == 6
        await limiter.delete(ticket.id)
        assert [letter async for letter in limiter.dead_letters("a")] == []
        for gone in (limiter.result, limiter.requeue, limiter.delete):
            with pytest.raises(UnknownRequest):
                await gone(ticket.id)
        assert seen.count("Started") == 6
        assert seen.count("Retried") == 4
        assert seen.count("Dead") == 2


async def test_many_dead_letters_are_read_page_by_page(url: str) -> None:
    async with limiter_of(url, []) as limiter:
        limiter._registry._tasks["fail"].max_attempts = 1
        tickets = [await limiter.submit("a", task_of(limiter, "fail"), str(n)) for n in range(45)]
        await asyncio.gather(*tickets, return_exceptions=True)
        letters = [letter async for letter in limiter.dead_letters("a")]
        assert {letter.id for letter in letters} == {ticket.id for ticket in tickets}
        assert len(letters) == 45


@pytest.mark.parametrize("error", [Retry(0.01), RetryAfter(0.01)], ids=lambda error: type(error).__name__)
async def test_a_task_that_asks_for_it_comes_back_before_those_that_came_later(url: str, error: Exception) -> None:
    ran: list[int] = []
    errors = [error, error]
    async with limiter_of(url, ran) as limiter:

        @limiter.task("again")
        async def again(n: int) -> int:
            ran.append(n)
            if errors:
                raise errors.pop()
            return n

        await limiter.pause("slow")
        first = await limiter.submit("slow", again, 1)
        second = await limiter.submit("slow", task_of(limiter, "note"), 2)
        await limiter.resume("slow")
        assert await first == 1
        await second
        assert ran == [1, 1, 1, 2]


async def test_errors_that_are_not_to_be_retried_go_to_the_dead_letters_at_once(url: str) -> None:
    async with limiter_of(url, []) as limiter:

        @limiter.task("picky", retry_on=(ConnectionError,))
        def picky() -> None:
            raise KeyError("no")

        with pytest.raises(TaskFailed, match="after 1 attempts: KeyError"):
            await limiter.request("a", picky)


async def test_a_task_that_takes_too_long_is_stopped_and_retried(url: str) -> None:
    async with limiter_of(url, []) as limiter:

        @limiter.task("hangs", run_timeout=0.05, max_attempts=2, backoff=0.01)
        async def hangs() -> None:
            await asyncio.sleep(3600)

        with pytest.raises(TaskFailed, match="after 2 attempts: TimeoutError"):
            await limiter.request("a", hangs)


class Order(msgspec.Struct):
    number: int
    at: dt.datetime
    lines: list[tuple[str, int]]


async def test_arguments_and_results_arrive_as_their_annotations_say(url: str) -> None:
    ran: list[Any] = []
    order = Order(7, dt.datetime(2026, 1, 2, tzinfo=dt.UTC), [("tea", 2)])
    number = uuid.uuid4()
    async with limiter_of(url, ran) as limiter:

        @limiter.task("typed")
        async def typed(order: Order, *numbers: uuid.UUID, raw: bytes = b"", **more: set[int]) -> Order:
            ran.append((order, numbers, raw, more))
            return order

        from functools import partial

        assert await limiter.request("a", partial(typed, raw=b"\x00\xff\n", extra={1}), order, number) == order
        assert ran == [(order, (number,), b"\x00\xff\n", {"extra": {1}})]
        ticket = await limiter.submit("a", typed, order)
        assert await limiter.result(ticket.id) == order


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("x",), r"n: Expected `int`, got `str`"),
        ((), "missing a required argument: 'n'"),
        ((1, 2), "too many positional arguments"),
        ((object(),), "Encoding objects of type object is unsupported"),
        ((10**30,), "serialize ints"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_when_they_are_submitted(
    url: str, args: tuple[Any, ...], problem: str
) -> None:
    async with limiter_of(url, []) as limiter:
        with pytest.raises(ConfigurationError, match=f"arguments of task 'note'.*{problem}"):
            await limiter.submit("a", task_of(limiter, "note"), *args)


async def test_arguments_larger_than_64_kib_are_refused(url: str) -> None:
    async with limiter_of(url, []) as limiter:
        with pytest.raises(ConfigurationError, match="may have 65536"):
            await limiter.submit("a", task_of(limiter, "fail"), "x" * 65_536)


async def test_a_result_that_cannot_be_kept_is_a_dead_letter(url: str) -> None:
    async with limiter_of(url, []) as limiter:

        @limiter.task("large")
        async def large(size: int) -> Any:
            return "x" * size if size else object()

        for size in (70_000, 0):
            with pytest.raises(TaskFailed, match="its result"):
                await limiter.request("a", large, size)


async def test_a_payload_that_cannot_be_read_is_a_dead_letter_and_blocks_nobody(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False) as older:
        task = limiter_of(url, [])._registry._tasks["fail"]
        task.name, task.word = "note", "note"
        older._registry._tasks["note"] = task
        unreadable = await older.submit("a", task, "no number")
        task.encode = lambda _args, _kwargs: b"\x09nonsense"  # type: ignore[method-assign]
        unknown_form = await older.submit("a", task, "x")
        async with limiter_of(url, ran) as worker:
            for ticket, problem in ((unreadable, "n: Expected `int`"), (unknown_form, "this version cannot read")):
                with pytest.raises(TaskFailed, match=problem):
                    await ticket
            letters = {letter.id: letter.arguments async for letter in worker.dead_letters("a")}
            assert letters == {unreadable.id: (["no number"], {}), unknown_form.id: None}
            assert await worker.request("a", task_of(worker, "note"), 1) == 2


async def test_a_task_that_nobody_has_blocks_nobody_and_dies_after_the_grace(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False, task_grace=0.3) as older:

        @older.task("gone")
        async def gone() -> None:
            raise AssertionError

        ticket = await older.submit("slow", gone)
        async with limiter_of(url, ran, task_grace=0.3) as worker:
            assert await worker.request("slow", task_of(worker, "note"), 1) == 2
            await eventually(lambda: _hit(worker))
            with pytest.raises(TaskFailed, match="no process has a task of this name"):
                await ticket


async def _hit(limiter: RateLimiter) -> bool:
    return (await limiter.hit("slow")).allowed


async def test_a_task_whose_worker_comes_later_keeps_its_place(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False) as submitter:
        tickets = [await submitter.submit("a", task_of(submitter, "note"), n) for n in range(3)]
        # Grants for others, but has no tasks.
        async with RateLimiter(url, limits=LIMITS, poll_interval=0.05) as other:
            assert await other.request("a", asyncio.sleep, 0, timeout=5) is None
            async with limiter_of(url, ran):
                assert await asyncio.gather(*tickets) == [0, 2, 4]
        assert ran == [0, 1, 2]


async def test_tasks_that_were_put_aside_go_before_those_that_came_later(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False) as submitter:
        note = task_of(submitter, "note")
        tickets = [await submitter.submit("a", note, n) for n in range(70)]
        async with RateLimiter(url, limits=LIMITS, poll_interval=0.05) as other:
            assert await other.request("a", asyncio.sleep, 0, timeout=10) is None
            assert (await other.status("a")).tasks.parked == 70
        tickets += [await submitter.submit("a", note, n) for n in range(70, 140)]
        # More than one call brings back.
        async with limiter_of(url, ran, task_slots=1), asyncio.timeout(20):
            assert await asyncio.gather(*tickets) == [2 * n for n in range(140)]
    assert ran == list(range(140))


async def test_what_is_not_ours_among_delayed_and_put_aside_tasks_holds_none_up(url: str) -> None:
    async with limiter_of(url, []) as limiter, client_of(url) as client:
        key = limiter._key_of("a", None)
        _, workers, _, delayed, parked, _, _ = key.durable
        note = task_of(limiter, "note")
        assert await limiter.request("a", note, 1) == 2
        assert await client.exists(workers)
        await client.zadd(delayed, {"nonsense": 0, "1 note": 0})
        await client.zadd(parked, {"note": 0, "note 1 2 nonsense": 0, "note 1 2 1 *": 0})
        assert await limiter.request("a", note, 2) == 4
        await eventually(lambda: _gone(client, delayed, parked))


async def _gone(client: Any, *keys: bytes) -> bool:
    return not await client.exists(*keys)


async def test_many_tasks_that_nobody_has_hide_none_that_somebody_has(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, [], processor=False) as submitter:

        @submitter.task("gone")
        async def gone() -> None:
            raise AssertionError

        lost = [await submitter.submit("a", gone) for _ in range(150)]
        tickets = [await submitter.submit("a", task_of(submitter, "note"), n) for n in range(70)]
        async with RateLimiter(url, limits=LIMITS, poll_interval=0.05) as other:
            # Nobody has any of them yet: this waits behind none.
            assert await other.request("a", asyncio.sleep, 0, timeout=10) is None
            assert (await other.status("a")).tasks.parked == 220
            async with limiter_of(url, ran, task_slots=1), asyncio.timeout(20):
                assert await asyncio.gather(*tickets) == [2 * n for n in range(70)]
                assert (await other.status("a")).tasks.parked == 150
        assert ran == list(range(70))
        for ticket in lost:
            ticket.cancel()


async def test_a_cancelled_task_does_not_run(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, ran) as limiter:
        await limiter.pause("a")
        note = task_of(limiter, "note")
        by_ticket, by_id = await limiter.submit("a", note, 1), await limiter.submit("a", note, 2)
        assert by_ticket.cancel()
        await limiter.cancel(by_id.id)
        awaiting = asyncio.create_task(limiter.request("a", note, 3))
        await eventually(lambda: _depth(limiter, 1))
        awaiting.cancel()
        await eventually(lambda: _depth(limiter, 0))
        await limiter.resume("a")
        for ticket in (by_ticket, by_id):
            with pytest.raises(RequestCancelled):
                await ticket
        assert not by_ticket.cancel()
        with pytest.raises(UnknownRequest):
            await limiter.cancel(by_id.id)
        assert ran == []


async def _depth(limiter: RateLimiter, depth: int) -> bool:
    return (await limiter.status("a")).queue.depth == depth


async def test_a_task_that_runs_can_be_cancelled_from_elsewhere(url: str) -> None:
    running = asyncio.Event()
    ended: list[str] = []
    async with limiter_of(url, []) as worker, limiter_of(url, []) as other:

        @worker.task("long")
        async def long() -> None:
            running.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("cancelled")

        ticket = await worker.submit("one", long)
        await asyncio.wait_for(running.wait(), 10)
        await other.cancel(ticket.id)
        with pytest.raises(RequestCancelled, match="cancelled"):
            await ticket
        await eventually(lambda: ended)
        # Its slot is free again.
        assert await other.request("one", task_of(other, "note"), 1, timeout=10) == 2


async def test_a_task_whose_turn_does_not_come_in_time_expires(url: str) -> None:
    ran: list[Any] = []
    async with limiter_of(url, ran) as limiter:
        note = task_of(limiter, "note")
        await limiter.pause("a")
        with pytest.raises(RequestTimeout, match=r"0\.05 s"):
            await limiter.request("a", note, 1, timeout=0.05)
        ticket = await limiter.submit("a", note, 2, timeout=0.05)
        await asyncio.sleep(0.1)
        await limiter.resume("a")
        with pytest.raises(RequestTimeout):
            await limiter.result(ticket.id)
        assert ran == []


async def test_tasks_are_charged_and_settled(url: str) -> None:
    limits = {"llm": "1000 tokens/minute; 2 concurrent", "end": "10/minute from finish"}
    async with limiter_of(url, [], limits=limits) as limiter:

        @limiter.task("spend", settle=lambda tokens: {"tokens": tokens})
        async def spend(tokens: int) -> int:
            return tokens

        assert await limiter.request("llm", spend, 30, cost={"tokens": 500}) == 30
        await eventually(lambda: _used(limiter, "llm", [30, 0]))
        await limiter.request("end", task_of(limiter, "note"), 1)
        await eventually(lambda: _used(limiter, "end", [1]))


async def _used(limiter: RateLimiter, name: str, used: list[int]) -> bool:
    return [limit.used for limit in (await limiter.status(name)).limits] == used


async def test_no_more_tasks_run_at_once_than_there_are_slots(url: str) -> None:
    most: list[int] = []
    running = 0
    full = asyncio.Event()
    async with limiter_of(url, [], task_slots=3) as limiter:

        @limiter.task("count")
        async def count() -> None:
            nonlocal running
            running += 1
            most.append(running)
            if running == 3:
                full.set()
            await full.wait()
            await asyncio.sleep(0.01)
            running -= 1

        tickets = [await limiter.submit("a", count, by=f"{n % 4}") for n in range(40)]
        await asyncio.gather(*tickets)
        assert max(most) == 3
        assert len(most) == 40


async def test_a_slot_that_was_given_back_is_not_held_again_by_a_lease_renewed_meanwhile(url: str) -> None:
    def renew(event: Event) -> None:
        if isinstance(event, Released):
            session = limiter._session
            assert session is not None
            # It goes to Redis between what gives the slot back and what ends the task.
            session.worker.on_key(session._names.key("one", None))

    async with limiter_of(url, [], hooks=[renew]) as limiter:
        assert await (await limiter.submit("one", task_of(limiter, "note"), 1)) == 2
        assert await _used(limiter, "one", [0])


async def test_a_burst_of_tasks_calls_its_first_worker_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    call = TaskScripts._call

    def counted(self: TaskScripts, key: Any, op: str, *rest: Any) -> asyncio.Future[Any]:
        calls.append(op)
        return call(self, key, op, *rest)

    async with limiter_of(url, []) as limiter:
        monkeypatch.setattr(TaskScripts, "_call", counted)
        note = task_of(limiter, "note")
        tickets = await asyncio.gather(*(limiter.submit("a", note, n) for n in range(200)))
        assert await asyncio.gather(*tickets) == [2 * n for n in range(200)]
        # Later ones tell that there is room again.
        assert 0 < calls[: calls.index("begin")].count("work") < 20


async def test_of_all_that_submit_to_a_key_at_once_one_tells_the_index_and_a_cancelled_one_takes_nobody_along(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    add, outcomes = TaskScripts.add_to_index, iter(["refused"])

    def counted(self: TaskScripts, key: Any) -> asyncio.Future[Any]:
        told.append(key.label)
        sent = add(self, key)
        if next(outcomes, ""):
            sent = asyncio.get_running_loop().create_future()
            sent.set_exception(RedisUnavailable("redis", "refused"))
        return sent

    async with limiter_of(url, []) as limiter:
        monkeypatch.setattr(TaskScripts, "add_to_index", counted)
        note = task_of(limiter, "note")
        # Nothing is submitted that no worker would find, and whoever comes next tries again.
        lost = await asyncio.gather(*(limiter.submit("a", note, n) for n in range(3)), return_exceptions=True)
        assert [str(error) for error in lost] == [str(RedisUnavailable("redis", "refused"))] * 3
        first = asyncio.create_task(limiter.submit("a", note, 0))
        others = [asyncio.create_task(limiter.submit("a", note, n, by=n % 2)) for n in range(40)]
        others += [asyncio.create_task(limiter.submit("a", note, n)) for n in range(40)]
        await asyncio.sleep(0)
        first.cancel()
        tickets = await asyncio.gather(*others)
        assert await asyncio.gather(*tickets) == [2 * n for n in range(40)] * 2
        assert sorted(told) == ["a:", "a:", "a:0", "a:1"]


async def test_a_slot_whose_release_was_lost_counts_once_when_its_task_is_tried_again(url: str) -> None:
    async with limiter_of(url, []) as limiter:
        session = limiter._session
        assert session is not None
        release = session.worker._scripts.adjust_task

        def lose(*_: Any) -> asyncio.Future[Any]:
            session.worker._scripts.adjust_task = release  # type: ignore[method-assign]
            lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            lost.set_exception(RedisUnavailable("redis", "connection lost"))
            return lost

        session.worker._scripts.adjust_task = lose  # type: ignore[method-assign]
        with pytest.raises(TaskFailed):
            await (await limiter.submit("two", task_of(limiter, "fail"), "boom"))
        await eventually(lambda: _used(limiter, "two", [0]))


async def test_several_workers_share_the_tasks_and_run_each_once(url: str) -> None:
    ran: list[list[Any]] = [[], [], []]
    async with (
        limiter_of(url, ran[0], task_slots=5) as one,
        limiter_of(url, ran[1], task_slots=5),
        limiter_of(url, ran[2], task_slots=5),
    ):
        tickets = [await one.submit("a", task_of(one, "note"), n) for n in range(150)]
        await asyncio.gather(*tickets)
        assert sorted(n for some in ran for n in some) == list(range(150))
        assert all(ran)


async def test_a_clean_end_gives_running_tasks_back_to_others(url: str) -> None:
    ran: list[Any] = []
    started = asyncio.Event()
    async with limiter_of(url, [], processor=False) as submitter:

        async def long() -> None:
            started.set()
            await asyncio.sleep(3600)

        async def short() -> None:
            ran.append("done")

        worker = RateLimiter(url, limits=LIMITS, shutdown_timeout=0.05)
        worker.task("work")(long)
        async with worker:
            ticket = await submitter.submit("a", submitter.task("work")(short))
            await asyncio.wait_for(started.wait(), 10)
        other = RateLimiter(url, limits=LIMITS)
        other.task("work")(short)
        async with other:
            await ticket
        assert ran == ["done"]
        # What a process gave back is no attempt.
        assert ticket._known is not None
        assert ticket._known.attempts == 1


async def test_a_queue_that_is_full_of_tasks_refuses_more_and_drops_none(url: str) -> None:
    config = RateLimitConfig("1000/second", {"max_size": 2, "overflow": "drop_oldest"})
    async with limiter_of(url, [], limits={"a": config}) as limiter:
        await limiter.pause("a")
        note = task_of(limiter, "note")
        tickets = [await limiter.submit("a", note, n) for n in range(2)]
        with pytest.raises(QueueFull):
            await limiter.submit("a", note, 2)
        with pytest.raises(QueueFull):
            await limiter.submit("a", asyncio.sleep, 0)
        await limiter.resume("a")
        assert await asyncio.gather(*tickets) == [0, 2]


async def test_ends_are_kept_for_their_time_and_nothing_else_stays(url: str) -> None:
    async with limiter_of(url, []) as limiter:

        @limiter.task("brief", result_ttl=0.1)
        async def brief() -> int:
            return 1

        ticket = await limiter.submit("a", brief)
        assert await ticket == 1
        await eventually(lambda: _forgotten(limiter, ticket.id))
        async with client_of(url) as client:
            names = [key async for key in client.scan_iter()]
            assert all([await client.pttl(key) > 0 for key in names])


async def _forgotten(limiter: RateLimiter, request_id: str) -> bool:
    # Anything that looks at the key's tasks clears up.
    await limiter.submit("a", task_of(limiter, "note"), 1)
    try:
        await limiter.result(request_id)
    except UnknownRequest:
        return True
    return False


async def test_status_counts_tasks(url: str) -> None:
    release = asyncio.Event()
    async with limiter_of(url, []) as limiter, limiter_of(url, []) as other:

        @limiter.task("hold")
        async def hold() -> None:
            await release.wait()

        @limiter.task("later")
        async def later() -> None:
            raise Retry(3600)

        limiter._registry._tasks["fail"].max_attempts = 1
        tickets = [await limiter.submit("a", task) for task in (hold, hold, later)]
        tickets.append(await limiter.submit("a", task_of(limiter, "fail"), "x"))
        await eventually(lambda: _counts(other, (2, 1, 0, 1)))
        assert (await other.status("a")).tasks.workers == 2
        assert (await other.status("a", total=True)).tasks.running == 2
        tickets[2].cancel()
        release.set()
        await eventually(lambda: _counts(other, (0, 0, 0, 1)))


async def _counts(limiter: RateLimiter, expected: tuple[int, ...]) -> bool:
    tasks = (await limiter.status("a")).tasks
    return (tasks.running, tasks.delayed, tasks.parked, tasks.dead) == expected


async def test_unknown_ids_are_named(url: str) -> None:
    async with limiter_of(url, []) as limiter:
        for nonsense in ("", "a", "a::*.nobody", "a::client.7", "::*.x", None):
            with pytest.raises(UnknownRequest):
                await limiter.result(nonsense)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("max_attempts", {"max_attempts": 0}),
        ("max_attempts", {"max_attempts": True}),
        ("backoff", {"backoff": -1}),
        ("run_timeout", {"run_timeout": "x"}),
        ("result_ttl", {"result_ttl": None}),
        ("retry_on", {"retry_on": "x"}),
        ("settle", {"settle": 3}),
        ("task", {"name": ""}),
    ],
)
def test_nonsense_in_a_task_names_its_field(field: str, arguments: dict[str, Any]) -> None:
    limiter = RateLimiter("memory://")
    with pytest.raises(ConfigurationError) as caught:
        limiter.task(**{"name": "x", **arguments})(lambda: None)
    assert caught.value.field == field


def test_a_task_that_cannot_travel_is_refused_when_it_is_registered() -> None:
    limiter = RateLimiter("memory://")

    def bad(_: Callable[[], int]) -> None:
        return None

    bad.__annotations__["_"] = type("Strange", (), {})()
    with pytest.raises(ConfigurationError, match="task"):
        limiter.task("bad")(bad)
    limiter.task("twice")(lambda: None)
    with pytest.raises(ConfigurationError, match="registered already"):
        limiter.task("twice")(lambda: None)


async def test_what_belongs_to_functions_or_to_tasks_is_refused_for_the_other(url: str) -> None:
    async with limiter_of(url, []) as limiter, limiter_of(url, []) as other:
        note = task_of(limiter, "note")
        with pytest.raises(ConfigurationError, match="max_retries: is for functions"):
            await limiter.submit("a", note, 1, max_retries=5)
        with pytest.raises(ConfigurationError, match="id: is for durable tasks"):
            await limiter.request("a", asyncio.sleep, 0, id="x")
        with pytest.raises(ConfigurationError, match="durability"):
            await limiter.submit("a", note, 1, durability="eternal")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="another limiter"):
            await other.submit("a", note, 1)


async def test_what_others_put_among_the_tasks_blocks_nobody(url: str) -> None:
    async with limiter_of(url, []) as limiter, client_of(url) as client:
        await limiter.pause("a")
        note = task_of(limiter, "note")
        first, broken, last = [await limiter.submit("a", note, n) for n in range(3)]
        own = broken.id.rpartition("*.")[2]
        await client.hset("{rl:a:}:t", own, "nonsense")
        await client.hset("{rl:a:}:t", "unknown", "\n\n")
        await client.lpush("{rl:a:}:q1", "nonsense", "* a b c d", "*note unknown 1 0 -")
        await client.zadd("{rl:a:}:x", {"unknown 1@nobody": 1})
        await client.zadd("{rl:a:}:z", {"unknown": 1})
        await client.zadd("{rl:a:}:u", {"nonsense": 0, "note 1 2 nonsense": 0, "*": 7})
        await limiter.resume("a")
        assert await asyncio.gather(first, last) == [0, 4]
        assert [letter async for letter in limiter.dead_letters("a")] == []
        await eventually(lambda: _depth(limiter, 0))


async def test_the_embedded_server_has_no_replicas_to_ask() -> None:
    async with limiter_of("memory://", [], durability="replicated") as limiter:
        assert await limiter.request("a", task_of(limiter, "note"), 1) == 2


async def test_methods_lambdas_and_plain_functions_may_be_tasks_and_keep_their_names() -> None:
    limiter = RateLimiter("memory://")

    @limiter.task("doc")
    def documented() -> int:
        """Say something."""
        return 1

    assert documented.__doc__ == "Say something."
    assert documented.__name__ == "documented"
    assert repr(documented) == "<Task 'doc'>"
    assert documented() == 1
