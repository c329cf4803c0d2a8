"""The executor: one multiplexed connection after another, and whether Redis can be reached at all."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from ratelimit_async._batches import PLAIN, Call
from ratelimit_async._breaker import Breaker
from ratelimit_async._connection import FAILURES, ask, hang_up
from ratelimit_async._errors import RateLimitError, RedisUnavailable
from ratelimit_async._events import Connected, Disconnected
from ratelimit_async._link import first_of, link_of
from ratelimit_async._sender import Flight, Sender, loading

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit_async._batches import Entry, Script
    from ratelimit_async._connection import Source, Wire
    from ratelimit_async._events import Emit
    from ratelimit_async._values import BreakerState

__all__ = ["Executor"]

# Seconds between attempts to connect.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
# While callers wait to hear whether it is an outage.
_LONGEST_IN_DOUBT = 0.1


class Executor(Sender):
    """Sends script calls for ever, over one connection after another."""

    def __init__(
        self, source: Source, scripts: tuple[Script, ...], command_timeout: float, emit: Emit, replicas: int = 0
    ) -> None:
        """Take where connections come from, and what to load into each; `replicas` have to confirm every call."""
        super().__init__(source, command_timeout, replicas)
        # Called when Redis is back.
        self.on_connected: Callable[[], None] = lambda: None
        self.breaker = Breaker(source.address, emit)
        self._scripts = scripts
        self._emit = emit
        self._wire: Wire | None = None
        # Of attempts that fail for the same reason, the first is told of.
        self._told = ""

    @property
    def breaker_state(self) -> BreakerState:
        """Whether calls go to Redis."""
        return self.breaker.state

    async def passing(self) -> None:
        """Wait until others may connect, too: one probe at a time looks whether Redis is back."""
        await self.breaker.passing.wait()

    def command(self, command: Entry) -> asyncio.Future[Any]:
        """Send a plain command that may be repeated."""
        return self.call(PLAIN, None, command)

    def nodes(self) -> list[Executor]:
        """Give the executors of all servers that hold keys."""
        return [self]

    async def start(self) -> None:
        """Connect for the first time, or raise RedisUnavailable."""
        self._wire = await self._connect()

    async def run(self) -> None:
        """Serve calls for ever, over one connection after another."""
        pause = _SHORTEST_PAUSE
        while True:
            try:
                if self._wire is None:
                    self._wire = await self._reconnect()
                self._emit(Connected(what="commands", address=self._source.address))
                if not self.breaker.doubted:
                    pause = _SHORTEST_PAUSE
                await self._serve(self._wire)
            except* Exception as group:
                error = first_of(group)
                self._disconnected(error, connected=self._wire is not None)
                if not isinstance(error, (*FAILURES, RateLimitError)):
                    raise
            finally:
                await self._drop_wire()
            self._fail_overdue()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_IN_DOUBT if self.breaker.counting else _LONGEST_PAUSE)

    def close(self) -> None:
        """Fail what is left and refuse what comes."""
        self._closed = True
        self._shut = self._source.failure("the limiter has ended")
        for call in self._take_all():
            call.fail(self._refusal())

    async def _reconnect(self) -> Wire:
        self.breaker.probe()
        # Callers who wait for this wait no longer than for a reply; a probe, for which nobody waits, may take its time.
        async with asyncio.timeout(self._timeout if self.breaker.state == "closed" else None):
            wire = await self._connect()
        self.breaker.connected()
        if not self._closed:
            self._shut = None
        if not self.breaker.doubted:
            self.on_connected()
        return wire

    async def _connect(self) -> Wire:
        wire = await self._source.open()
        try:
            await self._load(wire)
        except BaseException as error:
            await hang_up(wire)
            if isinstance(error, FAILURES):
                raise self._source.failure(error) from error
            raise
        return wire

    async def _serve(self, wire: Wire) -> None:
        self._unproven = True
        link = self._link = link_of(wire, self._receive)
        self._plan()
        async with asyncio.TaskGroup() as group:
            group.create_task(link.run())
            if not self._source.embedded:
                group.create_task(self._watch())

    def _proved(self) -> None:
        doubted = self.breaker.doubted
        self.breaker.answered()
        if doubted:
            self.on_connected()

    async def _load(self, wire: Wire) -> None:
        """Load all scripts; nothing else is on the wire meanwhile."""
        async with asyncio.timeout(self._timeout):
            # Where a password is missing, a PING is told so; an unauthenticated script is cut off for its length.
            await ask(wire, "PING")
            await wire.send_packed_command(loading(self._scripts), check_health=False)
            for _ in self._scripts:
                await wire.read_response(disable_decoding=True)

    async def _watch(self) -> None:
        """Notice a server that takes calls and never answers."""
        late: Flight | None = None
        while True:
            left = self._timeout / 4
            if self._flying:
                flight = self._flying[0]
                left = flight.since + self._timeout - self._loop.time()
                if left <= 0:
                    if flight is late:
                        problem = f"no answer within {self._timeout} s"
                        raise TimeoutError(problem)
                    # A process that was held up itself finds the reply in its own socket, at which not every event loop
                    # looks before its timers: it is given a look first.
                    late = flight
            await asyncio.sleep(max(left, self._timeout / 30))

    async def _drop_wire(self) -> None:
        wire, self._wire, self._link = self._wire, None, None
        if wire is not None:
            await hang_up(wire)

    def _disconnected(self, error: BaseException, *, connected: bool) -> None:
        failure = self._source.failure(error)
        text = failure.problem
        if connected or (self.breaker.state == "closed" and text != self._told):
            self._emit(Disconnected(what="commands", address=self._source.address, error=text))
        self._told = text
        self._take_back(failure)
        self._problem = failure
        refused, self._refused = self._refused is not None, None
        hung = isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)
        self.breaker.failed(failure, hung=hung, refused=refused)
        if self._closed:
            return
        if self.breaker.state == "open":
            self._shut = RedisUnavailable(
                failure.address, f"{text} (the circuit breaker is open)", outage=failure.outage
            )
            for call in self._backlog.take():
                call.fail(self._refusal())
        else:
            self._shut = None

    def _fail_overdue(self) -> None:
        oldest = self._loop.time() - self._timeout
        kept: list[Call] = []
        for call in self._backlog.take():
            if call.since < oldest:
                call.fail(self._problem.copy())
            else:
                kept.append(call)
        self._backlog.put_first(kept)
