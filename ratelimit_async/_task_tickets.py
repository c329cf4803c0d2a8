"""Durable tasks as those who submit them see them: places in the queue, and ends that are waited for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from ratelimit_async._errors import (
    ConfigurationError,
    QueueFull,
    RateLimitError,
    RedisUnavailable,
    RequestCancelled,
    RequestTimeout,
    TaskFailed,
    UnknownRequest,
)
from ratelimit_async._events import Cancelled, Expired, Queued, Rejected
from ratelimit_async._grants import Ticket
from ratelimit_async._spelling import task_id
from ratelimit_async._waiter import MOST_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from ratelimit_async._deployment import Caller
    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key
    from ratelimit_async._task_scripts import Outcome, Submission, TaskScripts

__all__ = ["TaskTicket", "TaskTickets"]

T = TypeVar("T")
# Seconds for which a key is not told to the index again; every how many of the timer's rounds it asks for all ends.
_INDEXED = 60.0
_ROUNDS = 6


class _Awaited:
    """The end of a task that somebody in this process waits for."""

    __slots__ = ("end", "key", "submission")

    def __init__(self, key: Key, submission: Submission | None) -> None:
        self.key = key
        self.submission = submission
        self.end: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class TaskTickets:
    """Submits tasks and waits for their ends."""

    def __init__(self, scripts: TaskScripts, emit: Emit, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Start with none."""
        self._scripts = scripts
        self._emit = emit
        self._spawn = spawn
        self._awaited: dict[tuple[bytes, str], _Awaited] = {}
        self._indexed: dict[bytes, float] = {}
        # What tells the index of a key; all who submit to it meanwhile wait for the same.
        self._indexing: dict[bytes, asyncio.Future[Any]] = {}
        self._round = 0

    async def submit(self, key: Key, task: Submission, *, told: bool, executor: Caller | None = None) -> Outcome:
        """Put a task into the queue, or find the one of its id."""
        await self._index(key)
        outcome = await self._scripts.submit(key, task, told=told, executor=executor)
        if outcome.state == "F":
            most = key.config.queue.max_size
            self._emit(Rejected(name=key.name, by=key.by, max_size=most))
            raise QueueFull(key.name, most)
        if outcome.state == "L":
            raise ConfigurationError("arguments", len(task.payload), "take too many bytes")
        if outcome.new:
            request_id = task_id(key.label, task.own)
            self._emit(Queued(name=key.name, by=key.by, id=request_id, position=outcome.position))
        return outcome

    async def end_of(self, key: Key, own: str, submission: Submission | None, known: Outcome | None = None) -> Outcome:
        """Wait for a task's end; `submission` puts it back if Redis forgets it, `known` is what is known of it."""
        place = key.driver, own
        awaited = self._awaited.get(place)
        if awaited is None:
            if known is not None and known.ended:
                return known
            awaited = self._awaited[place] = _Awaited(key, submission)
            awaited.end.add_done_callback(lambda _: self._awaited.pop(place, None))
            if known is None:
                await self._ask_quietly(awaited, own, told=True)
        return await asyncio.shield(awaited.end)

    def on_ended(self, key: Key, own: str) -> None:
        """Fetch the end of a task that somebody here waits for."""
        awaited = self._awaited.get((key.driver, own))
        if awaited is not None:
            self._spawn(self._ask_quietly(awaited, own, told=False))

    async def sync(self) -> None:
        """Ask for all ends that are waited for: something may have been missed."""
        by_key: dict[Key, list[str]] = {}
        for (_, own), awaited in self._awaited.items():
            by_key.setdefault(awaited.key, []).append(own)
        jobs = [(key, owns[i : i + MOST_IDS]) for key, owns in by_key.items() for i in range(0, len(owns), MOST_IDS)]
        await asyncio.gather(*(self._sync_key(key, owns) for key, owns in jobs))

    async def _sync_key(self, key: Key, owns: list[str]) -> None:
        ended, unknown = await self._scripts.which(key, owns)
        known = ((own, self._awaited.get((key.driver, own))) for own in (*ended, *unknown))
        await asyncio.gather(*(self._ask_quietly(one, own, told=True) for own, one in known if one is not None))

    async def tick(self) -> None:
        """Do so now and then."""
        self._round += 1
        if self._round % _ROUNDS == 0:
            await self.sync()

    async def cancel(self, key: Key, own: str, reason: str, *, waiting_only: bool = False) -> bool:
        """Cancel a task; whether there was something to cancel."""
        was = await self._scripts.cancel(key, own, reason, waiting_only=waiting_only)
        if was:
            self._emit(Cancelled(name=key.name, by=key.by, id=task_id(key.label, own), reason=reason))
        return bool(was)

    async def expire(self, key: Key, own: str, timeout: float) -> bool:
        """Take out a task whose turn did not come in time; False where it is running or has ended."""
        was = await self._scripts.cancel(key, own, "expired", waiting_only=True)
        if was:
            self._emit(Expired(name=key.name, by=key.by, id=task_id(key.label, own), timeout=timeout))
        return bool(was)

    def cancel_soon(self, key: Key, own: str, reason: str, *, waiting_only: bool = False) -> None:
        """Do so without anybody waiting for it."""

        async def cancel() -> None:
            with contextlib.suppress(RateLimitError):
                await self.cancel(key, own, reason, waiting_only=waiting_only)

        self._spawn(cancel())

    def end_all(self, error: RateLimitError) -> None:
        """Tell all who wait that this limiter ends; the tasks stay."""
        for awaited in list(self._awaited.values()):
            self._end(awaited, error)

    async def _index(self, key: Key) -> None:
        now = asyncio.get_running_loop().time()
        if self._indexed.get(key.driver, 0.0) + _INDEXED > now:
            return
        # Before the task itself: a worker that starts must find it, whatever happens in between.
        sent = self._indexing.get(key.driver)
        if sent is None:
            sent = self._indexing[key.driver] = self._scripts.add_to_index(key)
            sent.add_done_callback(lambda _: self._indexing.pop(key.driver, None))
        await asyncio.wait((sent,))
        if (error := sent.exception()) is not None:
            raise error.copy() if isinstance(error, RedisUnavailable) else error
        if len(self._indexed) > 10_000:
            self._indexed.clear()
        self._indexed[key.driver] = now

    async def _ask(self, awaited: _Awaited, own: str, *, told: bool) -> None:
        outcome = await self._scripts.outcome(awaited.key, own, told=told)
        if not outcome.state:
            if awaited.submission is None:
                raise UnknownRequest(task_id(awaited.key.label, own))
            # Redis lost it: whoever waits for it still knows it.
            outcome = await self.submit(awaited.key, awaited.submission, told=True)
        if outcome.ended and not awaited.end.done():
            awaited.end.set_result(outcome)

    async def _ask_quietly(self, awaited: _Awaited, own: str, *, told: bool) -> None:
        try:
            await self._ask(awaited, own, told=told)
        except (UnknownRequest, QueueFull) as error:
            self._end(awaited, error)
        except RateLimitError:
            # The next subscription or the timer asks again.
            return

    @staticmethod
    def _end(awaited: _Awaited, error: RateLimitError) -> None:
        if not awaited.end.done():
            awaited.end.set_exception(error)
            awaited.end.exception()


def result_of(outcome: Outcome, name: str, request_id: str, timeout: float | None) -> bytes:
    """Give a task's encoded result, or raise what became of it."""
    if outcome.state == "D":
        raise TaskFailed(request_id, outcome.attempts, outcome.error)
    if outcome.state == "X" and outcome.error == "expired":
        raise RequestTimeout(name, timeout)
    if outcome.state == "X":
        raise RequestCancelled(outcome.error)
    return outcome.body


class TaskTicket(Ticket[T]):
    """The ticket of a durable task."""

    __slots__ = ("_deadline", "_decode", "_key", "_known", "_submission", "_tickets")

    def __init__(
        self,
        tickets: TaskTickets,
        key: Key,
        submission: Submission,
        outcome: Outcome,
        decode: Callable[[bytes], T],
    ) -> None:
        """Follow a task."""
        super().__init__(task_id(key.label, submission.own), outcome.position, outcome.estimate)
        self._tickets = tickets
        self._key = key
        self._submission = submission
        self._decode = decode
        self._known: Outcome | None = outcome if outcome.ended else None
        timeout = submission.timeout
        self._deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result."""
        return self._result().__await__()

    @property
    def done(self) -> bool:
        """Whether the task has ended, as far as this ticket was told."""
        return self._known is not None

    def cancel(self) -> bool:
        """Take the task back, wherever it is; one that runs is cancelled in its process."""
        if self.done:
            return False
        self._tickets.cancel_soon(self._key, self._submission.own, "cancelled")
        return True

    async def _result(self) -> T:
        outcome = await self.wait()
        return self._decode(result_of(outcome, self._key.name, self.id, self._submission.timeout))

    async def attended(self, known: Outcome) -> T:
        """Give the result to a caller whose cancellation takes the task out of the queue."""
        try:
            await self.wait(known)
        except asyncio.CancelledError:
            self._tickets.cancel_soon(self._key, self._submission.own, "caller", waiting_only=True)
            raise
        return await self._result()

    async def wait(self, known: Outcome | None = None) -> Outcome:
        """Wait for the end; `known`: what is known of the task, which tells this client of its end."""
        if self._known is None:
            own, submission = self._submission.own, self._submission
            end = self._tickets.end_of(self._key, own, submission, known)
            try:
                async with asyncio.timeout_at(self._deadline):
                    self._known = await end
            except TimeoutError as error:
                if isinstance(error, RateLimitError):
                    raise
                # The queue looks at deadlines only when a turn comes; one that runs already goes on.
                await self._tickets.expire(self._key, own, submission.timeout or 0.0)
                self._known = await self._tickets.end_of(self._key, own, submission)
        return self._known
