"""What lives between entering and leaving a limiter: its parts, the tasks that run them, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from typing import TYPE_CHECKING, Any

from ratelimit_async._checks import Checks
from ratelimit_async._control import Control
from ratelimit_async._deployment import executor_of
from ratelimit_async._errors import NotStarted, RateLimitError, RequestCancelled, WrongEventLoop
from ratelimit_async._events import Failed
from ratelimit_async._grants import Running
from ratelimit_async._lua import ALL
from ratelimit_async._processor import Processor
from ratelimit_async._replies import Listener
from ratelimit_async._requests import Requests
from ratelimit_async._scripts import Scripts
from ratelimit_async._startup import check_server
from ratelimit_async._supervision import supervise
from ratelimit_async._task_scripts import TaskScripts
from ratelimit_async._task_tickets import TaskTickets
from ratelimit_async._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ratelimit_async._catalog import Catalog
    from ratelimit_async._connection import Source
    from ratelimit_async._deployment import Caller
    from ratelimit_async._events import Events
    from ratelimit_async._keys import KeyNames, Reconfigured
    from ratelimit_async._options import Durability
    from ratelimit_async._settings import Settings
    from ratelimit_async._tasks import Registry
    from ratelimit_async._tracing import Traces
    from ratelimit_async._waiter import Waiter

__all__ = ["Session"]


class Session:
    """The running half of a limiter; belongs to one event loop."""

    def __init__(
        self,
        source: Source,
        names: KeyNames,
        catalog: Catalog,
        settings: Settings,
        registry: Registry,
        events: Events,
        traces: Traces,
        *,
        counts: bool,
    ) -> None:
        """Build the parts; `counts`: among the processes alive."""
        self.traces = traces
        self.loop = asyncio.get_running_loop()
        self.client = secrets.token_urlsafe(8)
        names.enter(self.client)
        self.running = Running()
        self.tickets: set[asyncio.Task[Any]] = set()
        # Bound once, not for each ticket.
        self._when_done = self._on_ticket
        self._source = source
        self._names = names
        self._settings = settings
        emit = self._emit = events.emit
        self.executor = executor_of(source, tuple(ALL.values()), settings.command_timeout, emit)
        driver_lease = 2 * settings.poll_interval if settings.processor else 0.0
        self.scripts = Scripts(
            self.executor,
            names.channels,
            self.client,
            settings.lease,
            driver_lease,
            settings.task_grace,
            counts=counts,
        )
        self.control = Control(self.scripts, names, catalog, self, settings.lease)
        self.requests = Requests(self.scripts, self.client, lambda: self.control.processes, settings.lease, emit)
        self.checks = Checks(self.scripts, lambda: self.replies_alive, self.requests.outage, events)
        self.processor = Processor(self.scripts, settings.batch_size, settings.poll_interval, emit)
        self.task_scripts = TaskScripts(self.executor, self.client, names.index, settings.task_grace)
        self.task_tickets = TaskTickets(self.task_scripts, emit, self._spawn)
        self.worker = Worker(
            self.scripts,
            self.task_scripts,
            names,
            registry,
            settings.task_slots,
            settings.lease,
            self.running,
            emit,
            traces,
        )
        self.listener = Listener(source, names.channels, self.client, self, emit)
        self.executor.on_next = self.processor.schedule
        self.executor.on_connected = self.on_connected
        self._durable = bool(registry)
        self._replicating: Caller | None = None
        self._group: asyncio.TaskGroup | None = None
        self._executors: set[asyncio.Task[None]] = set()
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._stop = asyncio.Event()
        self._open = False
        self._changes: set[asyncio.Task[None]] = set()
        self._missed = False
        self._catching: asyncio.Task[None] | None = None
        self._runner = asyncio.create_task(self._run(), name="ratelimit_async")

    async def start(self) -> None:
        """Wait until requests can be taken, or raise RedisUnavailable."""
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End all, in order; goes on by itself when its caller is cancelled."""
        self._open = False
        self._stop.set()
        with contextlib.suppress(RateLimitError):
            await asyncio.shield(self._runner)

    def check(self) -> None:
        """Refuse use from elsewhere, or before the start or after the end."""
        if asyncio.get_running_loop() is not self.loop:
            raise WrongEventLoop
        if not self._open:
            raise NotStarted

    async def _replicate(self) -> Caller:
        """Give the executor whose calls replicas have to confirm; it is made when it is first needed."""
        if self._replicating is None:
            settings = self._settings
            executor = executor_of(
                self._source, tuple(ALL.values()), settings.command_timeout, self._emit, settings.replicas
            )
            executor.head = self.executor.head
            executor.on_next = self.processor.schedule
            assert self._group is not None
            await executor.start()
            self._replicating = executor
            self._start("replicating executor", executor.run)
        return self._replicating

    def keep(self, ticket: asyncio.Task[Any]) -> None:
        """Hold a ticket's task until it ends."""
        self.tickets.add(ticket)
        ticket.add_done_callback(self._when_done)

    def _on_ticket(self, ticket: asyncio.Task[Any]) -> None:
        self.tickets.discard(ticket)
        if ticket.cancelled():
            return
        error = ticket.exception()
        # Our own errors have had their events; what a function raised must show even where nobody awaits the ticket.
        if error is not None and not isinstance(error, RateLimitError):
            self._emit(Failed(what=ticket.get_name(), error=repr(error)))

    async def executor_for(self, durability: Durability | None) -> Caller:
        """Give what sends a task's submission; None: as the settings say."""
        # The embedded server has no replicas to ask.
        if (durability or self._settings.durability) == "primary" or self._source.embedded:
            return self.executor
        return await self._replicate()

    @property
    def replies_alive(self) -> bool:
        """Whether the reply channel is subscribed."""
        return self.listener.subscribed.is_set()

    @property
    def processor_alive(self) -> bool:
        """Whether the processor runs, and is not waiting to be restarted."""
        return self.processor.alive

    def on_ids(self, seqs: list[int]) -> None:
        """Pass on."""
        self.requests.on_ids(seqs)

    def on_wake(self, driver: str, *, everyone: bool) -> None:
        """Look at a queue, if this process may; of all that hear a call to everyone, the first gets it."""
        found = self._names.parse_driver(driver)
        if found is None or not self._settings.processor:
            return
        with contextlib.suppress(RateLimitError):
            # A process without a configuration for this name cannot grant for it.
            self.processor.schedule(self._names.key(*found), random.random() * 0.02 if everyone else 0)

    def on_freed(self, driver: str) -> None:
        """Ask Redis again about a key."""
        found = self._names.parse_driver(driver)
        if found is not None:
            with contextlib.suppress(RateLimitError):
                self._names.key(*found).forget_denial()

    def on_task(self, kind: str, driver: str, owns: list[str]) -> None:
        """Run a task, look at its key, stop it, or fetch its end."""
        found = self._names.parse_driver(driver)
        if found is None:
            return
        with contextlib.suppress(RateLimitError):
            key = self._names.key(*found)
            if kind == "t":
                self.worker.on_granted(key, owns)
            elif kind == "k":
                self.worker.on_key(key)
            elif kind == "s":
                self.worker.on_stop(key, owns[0])
            else:
                self.task_tickets.on_ended(key, owns[0])

    def on_control(self) -> None:
        """Read again what is paused and configured."""
        self._spawn(self._read_control())

    def on_subscribed(self) -> None:
        """Catch up with what was said while nobody listened."""
        self._names.forget_denials()
        self._spawn(self._catch_up())
        self.worker.on_subscribed()

    def on_connected(self) -> None:
        """Leave to Redis again what was decided without it."""
        self.control.on_outage_over()
        self._spawn(self._recover(self.requests.on_outage_over()))

    def on_pauses(self) -> None:
        """Look at the queues: of what is paused no longer, too."""
        self._names.forget_denials()
        self.processor.look_at_all()

    def on_unreadable(self, label: str, error: Exception) -> None:
        """Say so."""
        self._emit(Failed(what=f"configuration of {label}", error=repr(error)))

    def on_configured(self, keys: list[Reconfigured]) -> None:
        """Follow new configurations: of who waits, too."""
        self.requests.on_configured(keys)
        self.processor.look_at_all()
        self._spawn(self._sync())

    def _spawn(self, change: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return task

    async def _catch_up(self) -> None:
        """Ask for what may have been missed; where that is being asked already, once more after it, for all."""
        self._missed = True
        if self._catching is None:
            self._catching = self._spawn(self._catch_up_again())
        await asyncio.shield(self._catching)

    async def _catch_up_again(self) -> None:
        try:
            while self._missed:
                self._missed = False
                await self._read_control()
                await self._sync()
        finally:
            self._catching = None

    async def _recover(self, waiters: list[Waiter]) -> None:
        try:
            # Those who waited in Redis before the outage go back to their places before newcomers.
            await self._catch_up()
        finally:
            self.requests.resend(waiters)

    async def _listen(self) -> None:
        # Whether Redis is back is found out by one probe, the executor's.
        await self.executor.passing()
        await self.listener.run()

    async def _sync(self) -> None:
        with contextlib.suppress(RateLimitError):
            await self.requests.sync(scan=True)
        with contextlib.suppress(RateLimitError):
            await self.task_tickets.sync()

    async def _read_control(self) -> None:
        # Without an answer the timer asks again.
        with contextlib.suppress(RateLimitError):
            await self.control.read()

    async def _run(self) -> None:
        settings = self._settings
        try:
            await self.executor.start()
        except BaseException as error:  # noqa: BLE001 - whoever enters is told
            self._ready.set_exception(error)
            self._ready.exception()
            return
        async with asyncio.TaskGroup() as self._group:
            self._start("executor", self.executor.run)
            if not self._source.embedded:
                # Before anything is written: what a replica says to that opens the circuit breaker.
                self._spawn(self._check_server())
            others = [self._start("listener", self._listen), self._start("timer", self._tick)]
            if settings.processor:
                others.append(self._start("processor", self.processor.run))
                self.worker.open()
            try:
                async with asyncio.timeout(settings.connect_timeout):
                    await self.listener.subscribed.wait()
                    await self._read_control()
                self._open = True
                self._ready.set_result(None)
                await self._stop.wait()
                await self._end(others)
            except TimeoutError:
                late = f"the reply channel is not subscribed within {settings.connect_timeout} s"
                failure = self._source.failure(self.listener.problem or late)
                self._ready.set_exception(failure)
                self._ready.exception()
            except Exception as error:
                # Whoever enters is told in any case.
                if not self._ready.done():
                    self._ready.set_exception(error)
                    self._ready.exception()
                raise
            finally:
                self._open = False
                for executor in filter(None, (self.executor, self._replicating)):
                    executor.close()
                await _cancel({*others, *self._executors})

    async def _check_server(self) -> None:
        settings = self._settings
        replicas = settings.replicas if settings.durability == "replicated" else 0
        await check_server(self.executor, self._emit, durable=self._durable, replicas=replicas)

    def _start(self, what: str, run: Callable[[], Any]) -> asyncio.Task[None]:
        assert self._group is not None
        task = self._group.create_task(supervise(what, run, self._emit), name=f"ratelimit_async {what}")
        if what.endswith("executor"):
            self._executors.add(task)
        return task

    async def _tick(self) -> None:
        """Renew leases and ask for what no message told; also the safety net for pauses and configurations."""
        while True:
            await asyncio.sleep(self._settings.lease / 3 * random.uniform(0.8, 1.0))
            await self._read_control()
            with contextlib.suppress(RateLimitError):
                await asyncio.gather(
                    self.requests.renew(),
                    self.requests.holds.renew(),
                    self.worker.tick(),
                    self.task_tickets.tick(),
                )

    async def _end(self, others: list[asyncio.Task[None]]) -> None:
        """Withdraw what waits, let finish what runs, give back what nobody took, hand over the keys."""
        settings = self._settings
        self.requests.end_all("shutdown")
        self.task_tickets.end_all(RequestCancelled("shutdown"))
        await self.worker.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.shutdown_timeout):
                await self.running.idle.wait()
        # Tickets that were told of the end get to raise that, where nothing ran that had to be waited for.
        await asyncio.sleep(0)
        for task in self.tickets:
            task.cancel()
        if self.tickets:
            await asyncio.wait(self.tickets, timeout=settings.command_timeout)
        await self.worker.end(settings.command_timeout)
        await _cancel({*others, *self._changes})
        with contextlib.suppress(TimeoutError, RateLimitError):
            async with asyncio.timeout(settings.command_timeout):
                await self.requests.drain()
                await self.processor.resign()
                await self.control.leave()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    """End tasks; again where one swallows it: a task group whose child fails meanwhile raises that failure instead."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.1)
