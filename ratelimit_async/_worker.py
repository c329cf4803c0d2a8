"""The worker: runs the durable tasks that are granted to this process, and renews their leases."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any

from ratelimit_async._config import decode_cost
from ratelimit_async._due import due, left
from ratelimit_async._errors import RateLimitError, RedisUnavailable, Retry, RetryAfter
from ratelimit_async._events import Dead, Finished, Lost, Paused, Released, Retried, Started
from ratelimit_async._functions import call_function
from ratelimit_async._leases import Rounds
from ratelimit_async._spelling import encode_costs, parse_label, task_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from ratelimit_async._events import Emit
    from ratelimit_async._grants import Running
    from ratelimit_async._keys import Key, KeyNames
    from ratelimit_async._scripts import Scripts
    from ratelimit_async._task_scripts import Begun, TaskScripts
    from ratelimit_async._tasks import Registry, Task
    from ratelimit_async._tracing import Traces

__all__ = ["Worker"]

# Seconds: between attempts at most; between looks for keys that no message told of; until a key without tasks is left;
# since its last submission until the index forgets it, which must exceed the time for which submitters trust the index.
_LONGEST_BACKOFF, _LOOK, _IDLE, _FORGOTTEN = 3600.0, 300.0, 10.0, 120.0
# The same between attempts to tell Redis how a task ended.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class _Attempt:
    """An attempt that runs here."""

    __slots__ = ("begun", "cost", "ending", "key", "lost", "runner", "since")

    def __init__(self, key: Key, begun: Begun, runner: asyncio.Task[Any]) -> None:
        self.key = key
        self.begun = begun
        self.runner = runner
        self.since = asyncio.get_running_loop().time()
        self.cost: dict[str, int] | None = None
        self.ending = False
        self.lost = False


class Worker:
    """Takes tasks of the keys that have any, as many at once as it has room for."""

    def __init__(
        self,
        scripts: Scripts,
        task_scripts: TaskScripts,
        names: KeyNames,
        registry: Registry,
        slots: int,
        lease: float,
        running: Running,
        emit: Emit,
        traces: Traces,
    ) -> None:
        """Run nothing yet."""
        self._traces = traces
        self._scripts = scripts
        self._tasks = task_scripts
        self._names = names
        self._registry = registry
        self._slots = slots
        self._lease = lease
        self._rounds = Rounds(lease)
        self._running = running
        self._emit = emit
        self._open = False
        self._doubtful = True
        self._looked = 0.0
        # When each key last had a task that had not ended.
        self._keys: dict[Key, float] = {}
        # Of which it was heard, and Redis is being told that this process is there for them.
        self._asking: set[Key] = set()
        # Grants for which there is no room yet, and since when.
        self._backlog: deque[tuple[Key, str, float]] = deque()
        # How many each key has here, of either.
        self._load: Counter[Key] = Counter()
        # Keys that were told that there is no room.
        self._told_full: dict[Key, None] = {}
        self._inviting = False
        self._attempts: dict[tuple[bytes, str], _Attempt] = {}
        self._jobs: set[asyncio.Task[Any]] = set()
        self._taken = 0

    def _room_for(self, key: Key) -> int:
        """Say how many tasks more of a key this process may be granted: its share of what is free."""
        free = self._slots - self._taken - len(self._backlog) if self._open else 0
        if free <= 0:
            self._told_full[key] = None
            return 0
        self._told_full.pop(key, None)
        return max(free // (len(self._load) + (key not in self._load)), 1)

    def open(self) -> None:
        """Begin to take tasks."""
        self._open = True

    def on_key(self, key: Key) -> None:
        """Hear of a key that has tasks."""
        if self._open and self._registry:
            self._keys.setdefault(key, asyncio.get_running_loop().time())
            if key not in self._asking:
                self._asking.add(key)
                self._spawn(self._work(key)).add_done_callback(lambda _: self._asking.discard(key))

    def on_granted(self, key: Key, owns: Iterable[str]) -> None:
        """Begin tasks that were granted to this process."""
        now = asyncio.get_running_loop().time()
        if self._open:
            for own in owns:
                self._backlog.append((key, own, now))
                self._load[key] += 1
            self._take()

    def _take(self) -> None:
        """Begin what there is room for."""
        while self._backlog and self._taken < self._slots:
            key, own, _ = self._backlog.popleft()
            self._taken += 1
            self._spawn(self._begin(key, own)).add_done_callback(partial(self._on_free, key))

    def _on_free(self, key: Key, _: asyncio.Task[Any]) -> None:
        self._taken -= 1
        self._unload(key)
        self._take()
        if self._told_full and not self._inviting and self._taken < self._slots:
            self._inviting = True
            self._spawn(self._invite())

    def _unload(self, key: Key) -> None:
        self._load[key] -= 1
        if not self._load[key]:
            del self._load[key]

    async def _invite(self) -> None:
        """Tell keys that were told otherwise that there is room, as long as there is."""
        try:
            while self._open and self._told_full and self._taken + len(self._backlog) < self._slots:
                await self._work(next(iter(self._told_full)))
        finally:
            self._inviting = False

    def on_stop(self, key: Key, own: str) -> None:
        """Stop a task that is not to be run any more."""
        attempt = self._attempts.get((key.driver, own))
        if attempt is not None and not attempt.lost:
            attempt.lost = True
            self._emit(Lost(name=key.name, by=key.by, id=task_id(key.label, own), task=attempt.begun.task))
            attempt.runner.cancel()

    def on_subscribed(self) -> None:
        """Ask for grants whose message may have been missed."""
        self._doubtful = True
        self._spawn(self.tick())

    async def tick(self) -> None:
        """Renew the leases of what runs here, and look for keys that no message told of."""
        if not self._open or not self._registry:
            return
        now = asyncio.get_running_loop().time()
        if self._doubtful or now > self._looked + _LOOK:
            self._looked = now
            await self._look()
        doubtful, self._doubtful = self._doubtful, False
        await self._decline_old()
        keys = self._keys if doubtful else await self._renew()
        await asyncio.gather(*(self._work(key, doubtful=doubtful) for key in list(keys)))

    async def _renew(self) -> set[Key]:
        """Say again what was said of keys of which nothing is here; gives those of which there is more to say."""
        idle = [key for key in self._keys if key not in self._load]
        room = 0
        for key in idle:
            # The same for all.
            room = self._room_for(key)
        asked = await self._rounds.go(self._tasks.renew(idle, room, self._registry.words))
        now = asyncio.get_running_loop().time()
        for key in idle:
            # Somebody drives it: it has tasks.
            if key not in asked:
                self._keys[key] = now
        return asked.union(key for key in self._keys if key in self._load)

    async def stop(self) -> None:
        """Take no more tasks."""
        if self._open:
            self._open = False
            with contextlib.suppress(RateLimitError):
                await asyncio.gather(*map(self._leave, self._keys))

    async def _leave(self, key: Key) -> None:
        await self._tasks.work(key, -1, "", self._leases(key))

    async def end(self, timeout: float) -> None:
        """Give back what still runs, within so many seconds."""
        for attempt in self._attempts.values():
            attempt.runner.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=timeout)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._quietly(job))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def _quietly(self, job: Coroutine[Any, Any, None]) -> None:
        # Whatever Redis did not hear of, a lease makes good.
        with contextlib.suppress(RateLimitError):
            await job

    def _leases(self, key: Key) -> list[tuple[Begun, bool]]:
        """Give what runs here, and whether it still holds what it was charged."""
        own = (attempt for attempt in self._attempts.values() if attempt.key is key and not attempt.lost)
        return [(attempt.begun, not attempt.ending) for attempt in own]

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for label in await self._tasks.read_index():
            # A process without a configuration for a name cannot count for it.
            with contextlib.suppress(RateLimitError, UnicodeDecodeError):
                self._keys.setdefault(self._names.key(*parse_label(label)), now)

    async def _work(self, key: Key, *, doubtful: bool = False) -> None:
        found = await self._tasks.work(key, self._room_for(key), self._registry.words, self._leases(key))
        now = asyncio.get_running_loop().time()
        for own in found.lost:
            attempt = self._attempts.get((key.driver, own))
            # The end of one that is being told may have arrived, and only its reply been lost.
            if attempt is not None and not attempt.ending:
                self.on_stop(key, own)
        if doubtful:
            self.on_granted(key, found.granted)
        if found.left:
            self._keys[key] = now
        elif now > self._keys.get(key, now) + _IDLE:
            del self._keys[key]
            await self._tasks.work(key, -1, "", ())
            await self._tasks.remove_from_index(key, _FORGOTTEN)

    async def _decline_old(self) -> None:
        """Give to others what has waited here for a good part of its lease."""
        oldest = asyncio.get_running_loop().time() - self._lease / 3
        while self._backlog and self._backlog[0][2] < oldest:
            key, own, _ = self._backlog.popleft()
            self._unload(key)
            self._told_full[key] = None
            await self._tasks.decline(key, own)

    async def _begin(self, key: Key, own: str) -> None:
        place = key.driver, own
        if place in self._attempts:
            return
        begun = await self._tasks.begin(key, own, self._room_for(key))
        if begun is None:
            return
        runner = asyncio.current_task()
        assert runner is not None
        attempt = self._attempts[place] = _Attempt(key, begun, runner)
        try:
            with self._running:
                await self._run(attempt)
        finally:
            del self._attempts[place]

    async def _run(self, attempt: _Attempt) -> None:
        key, begun = attempt.key, attempt.begun
        request_id = task_id(key.label, begun.own)
        task = self._registry.get(begun.task)
        outcome, wait, error, result = "S", 0.0, "", b""
        try:
            await self._until_due(attempt)
            self._emit(
                Started(
                    name=key.name,
                    by=key.by,
                    id=request_id,
                    task=begun.task,
                    attempt=begun.attempt,
                    waited=begun.waited,
                )
            )
            if task is None:
                outcome, error = "K", f"no task {begun.task!r} is registered"
            else:
                follow = partial(self._traces.follow, "task", key.name, task=task.name, attempt=begun.attempt)
                with follow(payload=begun.payload) as span:
                    span.granted(begun.waited)
                    result = await self._call(attempt, task)
        except asyncio.CancelledError:
            if attempt.lost:
                self._release(attempt)
                return
            # This process ends: another attempt, elsewhere, and it does not count.
            outcome, error = "B", "given back by a process that ended"
        except _Unusable as problem:
            outcome, error = "K", str(problem)
        except Retry as told:
            outcome, wait, error = "F", told.after, repr(told)
        except RetryAfter as told:
            outcome, wait, error = "F", told.seconds, repr(told)
            await self._scripts.pause(key, told.seconds)
            self._emit(Paused(name=key.name, by=key.by, seconds=told.seconds))
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is kept with the task
            error = repr(raised)
            outcome = "F" if task is not None and isinstance(raised, task.retry_on) else "K"
            wait = 0.0 if task is None else _backoff(task.backoff, begun.attempt)
        await self._finish(attempt, outcome, wait, error[:2_000], result)
        if outcome == "S":
            took = asyncio.get_running_loop().time() - attempt.since
            self._emit(Finished(name=key.name, by=key.by, id=request_id, task=begun.task, took=took))

    async def _until_due(self, attempt: _Attempt) -> None:
        """Wait where it was granted ahead of its time; until then it costs nothing."""
        begun = attempt.begun
        if begun.stamp > begun.now:
            attempt.cost = dict.fromkeys(attempt.key.config.usual, 0)
            when = due(begun.stamp, begun.now)
            while (seconds := left(when)) > 0:  # noqa: ASYNC110 - a timer may come early
                await asyncio.sleep(seconds)
            attempt.since, attempt.cost = asyncio.get_running_loop().time(), None

    async def _call(self, attempt: _Attempt, task: Task[..., Any]) -> bytes:
        try:
            args, kwargs = task.decode(attempt.begun.payload)
        except ValueError as error:
            problem = f"its arguments cannot be read: {error}"
            raise _Unusable(problem) from None
        async with asyncio.timeout(task.run_timeout):
            result = await call_function(task.fn, args, kwargs)
        if task.settle is not None:
            attempt.cost = decode_cost(task.settle(result), attempt.key.config, limited=False)
        try:
            return task.encode_result(result)
        except ValueError as error:
            raise _Unusable(str(error)) from None

    async def _finish(self, attempt: _Attempt, outcome: str, wait: float, error: str, result: bytes) -> None:
        key, begun = attempt.key, attempt.begun
        attempt.ending = True
        self._release(attempt)
        sent = asyncio.create_task(self._tell(attempt, outcome, wait, error, result))
        state = await _through(sent)
        request_id = task_id(key.label, begun.own)
        if not state and not attempt.lost:
            self._emit(Lost(name=key.name, by=key.by, id=request_id, task=begun.task))
        elif state == "D":
            self._emit(
                Dead(name=key.name, by=key.by, id=request_id, task=begun.task, attempts=begun.attempt, error=error)
            )
        elif outcome == "F":
            self._emit(
                Retried(name=key.name, by=key.by, id=request_id, task=begun.task, retry=begun.attempt, error=error)
            )

    async def _tell(self, attempt: _Attempt, outcome: str, wait: float, error: str, result: bytes) -> str:
        """Tell Redis how an attempt ended: what was done is not to be done again for an outage."""
        pause = _SHORTEST_PAUSE
        while True:
            try:
                room = self._room_for(attempt.key)
                return await self._tasks.finish(
                    attempt.key, attempt.begun, outcome, room, wait=wait, error=error, result=result
                )
            except RedisUnavailable:
                if attempt.lost or not self._open:
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _release(self, attempt: _Attempt) -> None:
        """Settle the true cost, and end what is counted while calls run."""
        key, begun = attempt.key, attempt.begun
        held = asyncio.get_running_loop().time() - attempt.since
        self._emit(Released(name=key.name, by=key.by, id=task_id(key.label, begun.own), held=held))
        true = begun.costs if attempt.cost is None else encode_costs(attempt.cost, key.config.usual)
        if key.config.holds or true != begun.costs:
            sent = self._scripts.adjust_task(key, begun.own, begun.stamp, begun.costs, true)
            sent.add_done_callback(_ignore)


class _Unusable(Exception):
    """A task that no further attempt can help."""


async def _through(sent: asyncio.Future[str]) -> str:
    """Wait for an answer through cancellations, of which there is one at most."""
    for _ in itertools.repeat(None, 2):
        try:
            return await asyncio.shield(sent)
        except asyncio.CancelledError:
            if sent.done():
                raise
    return await sent


def _ignore(sent: asyncio.Future[Any]) -> None:
    # What Redis did not hear of, a lease makes good.
    if not sent.cancelled():
        sent.exception()


def _backoff(first: float, attempt: int) -> float:
    """Give the seconds until the next attempt: doubled each time, with jitter."""
    return min(first * 2.0 ** min(attempt - 1, 32), _LONGEST_BACKOFF) * random.uniform(0.5, 1.0)
