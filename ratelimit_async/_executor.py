"""The executor: one multiplexed connection, written at the end of a turn of the event loop; callers await futures.

Calls made in one turn of the event loop, or while earlier ones are on the wire, travel together: as one EVALSHA with
many entries where they share a script, otherwise as one pipeline; a lone caller's go at once, what fills a batch as
soon as a reply makes room for it. Cancelling a caller never touches the connection.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError

from ratelimit_async._backlog import Backlog
from ratelimit_async._batches import PLAIN, Call, groups_of, packed
from ratelimit_async._breaker import Breaker
from ratelimit_async._connection import FAILURES, NoScriptError, ask, hang_up, pack
from ratelimit_async._errors import RateLimitError, RedisUnavailable
from ratelimit_async._events import Connected, Disconnected
from ratelimit_async._link import first_of, link_of
from ratelimit_async._resumption import resumptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratelimit_async._batches import Argument, Entry, Script
    from ratelimit_async._connection import Source, Wire
    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key
    from ratelimit_async._link import Link
    from ratelimit_async._resumption import Resumption
    from ratelimit_async._values import BreakerState

__all__ = ["Executor", "Unconfirmed"]

# Seconds between attempts to connect.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
# While callers wait to hear whether it is an outage.
_LONGEST_IN_DOUBT = 0.1


class Unconfirmed(Exception):
    """So many replicas have confirmed a call, of so many wanted."""


class Flight:
    """A batch on the wire since then, and what came back of so many replies; one without calls loads the scripts."""

    __slots__ = ("batch", "needs", "replies", "since")

    def __init__(self, batch: list[Call], needs: int, since: float) -> None:
        """Take off."""
        self.batch = batch
        self.needs = needs
        self.replies: list[Any] = []
        self.since = since


class Executor:
    """Sends script calls and hands out their replies."""

    new_backlog: type[Backlog] = Backlog
    # Batches on the wire at once: enough to keep the server busy, few enough that calls gather behind them. By itself a
    # batch costs the server as much as some checks in it, so behind two of them calls gather until they fill one.
    most_batches, most_unfilled = 4, 2

    def __init__(
        self, source: Source, scripts: tuple[Script, ...], command_timeout: float, emit: Emit, replicas: int = 0
    ) -> None:
        """Take where connections come from, and what to load into each; `replicas` have to confirm every call."""
        self.on_next: Callable[[Key, float], None] = lambda _key, _seconds: None
        # Called when Redis is back.
        self.on_connected: Callable[[], None] = lambda: None
        self.breaker = Breaker(source.address, emit)
        self.head: tuple[Argument, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._resumption = resumptions()
        self._source = source
        self._scripts = scripts
        self._timeout = command_timeout
        self._emit = emit
        self._replicas = replicas
        self._backlog = self.new_backlog()
        self._flying: deque[Flight] = deque()
        self._wire: Wire | None = None
        self._link: Link | None = None
        # Whether what waits is sent at the end of this turn of the loop, and when that began.
        self._planned, self._turn = False, 0.0
        # Whether the last that was sent had no company: the next then waits for none.
        self._alone = False
        # Whether the connection has yet to answer its first call.
        self._unproven = True
        # What no Redis has executed, to be sent again.
        self._unloaded: list[Call] = []
        self._refused: RedisUnavailable | None = None
        self._problem = source.failure("not connected")
        # What calls are refused with at once; None: they are sent.
        self._shut: RedisUnavailable | None = None
        self._closed = False
        # Of attempts that fail for the same reason, the first is told of.
        self._told = ""

    def call(self, script: Script, key: Key | None, entry: Entry, *, replayable: bool = True) -> asyncio.Future[Any]:
        """Send an entry with the next batch.

        `replayable`: it may be sent again when the connection breaks before its reply; otherwise its caller is told.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._push(Call(script, key, entry, future, self._time(), replayable))
        return future

    def ask(self, script: Script, key: Key, entry: Entry, *, replayable: bool = True) -> Resumption:
        """Send an entry as `call` does, for one task that awaits the reply at once."""
        reply = self._resumption()
        self._push(Call(script, key, entry, reply, self._time(), replayable))
        return reply

    def _time(self) -> float:
        return self._turn if self._planned else self._loop.time()

    def _push(self, call: Call) -> None:
        if self._shut is not None:
            call.fail(self._refusal())
            return
        self._backlog.push(call)
        if self._alone and not self._flying:
            self._send()
        # Asked here, too: of many calls of a turn, the first plans.
        elif not self._planned:
            self._plan()

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
        self._unloaded.clear()
        self._flying.clear()

    def _refusal(self) -> RedisUnavailable:
        return (self._shut or self._problem).copy()

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

    def _plan(self) -> None:
        """Send what waits at the end of this turn of the loop, with all that comes in it."""
        if not self._planned:
            self._planned = True
            self._turn = self._loop.time()
            self._loop.call_soon(self._send_planned)

    def _send_planned(self) -> None:
        self._planned = False
        self._send()

    def _send(self) -> None:
        link = self._link
        if link is None or not link.open or self._unloaded:
            return
        try:
            if commands := self._take_off():
                link.write(commands[0] if len(commands) == 1 else b"".join(commands))
        except Exception as error:  # noqa: BLE001 - it ends the link, and whoever serves it sees to it
            link.fail(error)

    def _take_off(self) -> list[bytes]:
        """Give the next batches as they travel."""
        now = self._loop.time()
        commands: list[bytes] = []
        free = len(self._flying) < self.most_unfilled
        while len(self._flying) < self.most_batches and self._backlog and (free or self._backlog.presses):
            if batch := self._backlog.next_batch():
                try:
                    commands.append(packed(batch, self.head))
                except Exception as error:  # noqa: BLE001 - a mistake of ours, of which its callers are to hear
                    for call in batch:
                        call.fail(error)
                    continue
                confirms = bool(self._replicas) and batch[0].script is not PLAIN
                if confirms:
                    # Well within the time after which an answer counts as missing.
                    commands.append(pack("WAIT", self._replicas, int(self._timeout * 500)))
                self._flying.append(Flight(batch, 1 + confirms, now))
                self._alone = len(self._flying) == 1 and len(batch) == 1
        return commands

    def _receive(self, reply: Any) -> None:
        """Take the next reply."""
        if self._closed:
            return
        if not self._flying:
            problem = f"an answer that nobody asked for: {reply!r:.100}"
            raise RedisConnectionError(problem)
        flight = self._flying[0]
        if flight.needs > 1:
            flight.replies.append(reply)
            if len(flight.replies) < flight.needs:
                return
        # What callers who go on now send goes with what waits, below: nobody has to plan it.
        planned, self._planned, self._turn = self._planned, True, self._loop.time()
        try:
            # It stays among the flying until its callers are told: a crash here must not lose them.
            if flight.batch:
                self._answer(flight.batch, self._confirmed(*flight.replies) if flight.replies else reply)
            else:
                self._loaded(flight.replies or [reply])
        finally:
            self._planned = planned
        self._flying.popleft()
        if self._refused is not None and not self._flying:
            raise self._refused
        if self._unproven and self._refused is None:
            self._unproven, doubted = False, self.breaker.doubted
            self.breaker.answered()
            if doubted:
                self.on_connected()
        if self._unloaded and not self._flying:
            self._load_again()
        self._send()

    def _answer(self, batch: list[Call], reply: Any) -> None:
        if isinstance(reply, NoScriptError):
            self._unloaded += batch
        elif isinstance(reply, Unconfirmed):
            for call in batch:
                call.fail(reply)
        elif isinstance(reply, Exception):
            self._on_error(batch, reply)
        else:
            self._deliver(batch, reply)

    async def _load(self, wire: Wire) -> None:
        """Load all scripts; nothing else is on the wire meanwhile."""
        async with asyncio.timeout(self._timeout):
            # Where a password is missing, a PING is told so; an unauthenticated script is cut off for its length.
            await ask(wire, "PING")
            await wire.send_packed_command(_loading(self._scripts), check_health=False)
            for _ in self._scripts:
                await wire.read_response(disable_decoding=True)

    def _load_again(self) -> None:
        """Load what is missing into a server that has lost its scripts, before anything else is sent."""
        assert self._link is not None
        # Not all: where they are flushed again and again, that takes longer than they stay.
        missing = {call.script.sha: call.script for call in self._unloaded}
        self._flying.append(Flight([], len(missing), self._loop.time()))
        self._link.write(_loading(missing.values()))

    def _loaded(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        self._backlog.put_first(self._unloaded)
        self._unloaded.clear()

    def _confirmed(self, reply: Any, confirmed: Any) -> Any:
        """Give a reply if enough replicas have confirmed it, otherwise an error."""
        for problem in (reply, confirmed):
            if isinstance(problem, Exception):
                return problem
        return reply if confirmed >= self._replicas else Unconfirmed(confirmed, self._replicas)

    def _on_error(self, batch: list[Call], error: Exception) -> None:
        """Hand out an error that answers a whole batch."""
        self._refuse(batch, self._source.failure(error))

    def _refuse(self, calls: list[Call], error: RedisUnavailable) -> None:
        """Tell the callers; what a Redis would not do that is not ready is sent to the next, or to it later.

        Of such calls nothing was executed; this connection ends when all that is under way has its reply.
        """
        if error.outage:
            self._unloaded += calls
            self._refused = error
            return
        for call in calls:
            call.fail(error.copy())

    def _deliver(self, batch: list[Call], reply: list[list[Any] | bytes | Exception]) -> None:
        script = batch[0].script
        if not script.grouped:
            _tell(batch, [reply])
            return
        if script.lean:
            # All in a row, whatever their keys; five numbers each.
            _tell(batch, zip(*[iter(reply)] * 5, strict=True))
            return
        for calls, result in zip(groups_of(batch), reply, strict=True):
            if not isinstance(result, list):
                text = result.decode(errors="replace") if isinstance(result, bytes) else str(result)
                self._refuse(calls, self._source.failure(text))
                continue
            _tell(calls, result[1:])
            key = calls[0].key
            if result[0] >= 0 and key is not None:
                self.on_next(key, result[0] / 1e6)

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
        replay = [*self._unloaded]
        self._unloaded.clear()
        for flight in self._flying:
            for call in flight.batch:
                if call.future.done():
                    continue
                if call.replayable:
                    call.again = True
                    replay.append(call)
                else:
                    lost = f"connection lost before the reply: {text}"
                    call.fail(RedisUnavailable(failure.address, lost, outage=failure.outage))
        self._flying.clear()
        self._backlog.put_first([*replay, *self._backlog.take()])
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

    def _take_all(self) -> list[Call]:
        flying = [call for flight in self._flying for call in flight.batch]
        return [*self._backlog.take(), *self._unloaded, *flying]


def _tell(calls: list[Call], replies: Iterable[Any]) -> None:
    for call, reply in zip(calls, replies, strict=True):
        if not call.future.done():
            call.future.set_result(reply)


def _loading(scripts: Iterable[Script]) -> bytes:
    return b"".join(pack("SCRIPT", "LOAD", script.source) for script in scripts)
