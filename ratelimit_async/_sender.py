"""The sender: calls made in one turn of the event loop travel together; callers await futures.

So do calls that come while earlier ones are on the wire: as one EVALSHA with many entries where they share a script,
otherwise as one pipeline; a lone caller's go at once, what fills a batch as soon as a reply makes room for it.
Cancelling a caller never touches the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError

from ratelimit_async._backlog import Backlog
from ratelimit_async._batches import PLAIN, Call, groups_of, packed
from ratelimit_async._connection import NoScriptError, pack
from ratelimit_async._errors import RedisUnavailable
from ratelimit_async._resumption import resumptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratelimit_async._batches import Argument, Entry, Script
    from ratelimit_async._connection import Source
    from ratelimit_async._keys import Key
    from ratelimit_async._link import Link
    from ratelimit_async._resumption import Resumption

__all__ = ["Flight", "Sender", "Unconfirmed", "loading"]

# us: what those take who are granted together, and most for what lies between: the driver is told and asks, whoever is
# granted is told, takes it over and is told so.
_LEAD, _LONGEST_TRIPS = 10_000, 50_000


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


class Sender:
    """Puts calls on a link, as long as there is one, and hands out their replies."""

    new_backlog: type[Backlog] = Backlog
    # Batches on the wire at once: enough to keep the server busy, few enough that calls gather behind them. By itself a
    # batch costs the server as much as some checks in it, so behind two of them calls gather until they fill one.
    most_batches, most_unfilled = 4, 2
    # Keys of a script that takes many in one entry: some 0.3 ms.
    most_keys = 64

    def __init__(self, source: Source, command_timeout: float, replicas: int) -> None:
        """Take whom errors are of; `replicas` have to confirm every call."""
        self.on_next: Callable[[Key, float], None] = lambda _key, _seconds: None
        self.head: tuple[Argument, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._resumption = resumptions()
        self._source = source
        self._timeout = command_timeout
        self._replicas = replicas
        self._backlog = self.new_backlog()
        self._flying: deque[Flight] = deque()
        self._link: Link | None = None
        # What a reply takes, seconds: a quick one, as others wait for more than their way.
        self._trip = 0.0
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

    def _refusal(self) -> RedisUnavailable:
        return (self._shut or self._problem).copy()

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
                head = () if batch[0].script.lean else (*self.head, self._lead())
                try:
                    commands.append(packed(batch, head))
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
        trip = self._turn - flight.since
        self._trip = min(trip, self._trip + (trip - self._trip) / 64) if self._trip else trip
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
            self._unproven = False
            self._proved()
        if self._unloaded and not self._flying:
            self._load_again()
        self._send()

    def _proved(self) -> None:
        """Learn that the connection has answered its first call."""

    def _lead(self) -> int:
        """Say how long before its time a grant is looked for, us: until then it has gone to and fro."""
        return _LEAD + min(int(self._trip * 2.5e6), _LONGEST_TRIPS)

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

    def _load_again(self) -> None:
        """Load what is missing into a server that has lost its scripts, before anything else is sent."""
        assert self._link is not None
        # Not all: where they are flushed again and again, that takes longer than they stay.
        missing = {call.script.sha: call.script for call in self._unloaded}
        self._flying.append(Flight([], len(missing), self._loop.time()))
        self._link.write(loading(missing.values()))

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

    def _take_back(self, failure: RedisUnavailable) -> None:
        """Have what was under way wait again, before the rest; whose calls may not be sent twice are told."""
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
                    lost = f"connection lost before the reply: {failure.problem}"
                    call.fail(RedisUnavailable(failure.address, lost, outage=failure.outage))
        self._flying.clear()
        self._backlog.put_first([*replay, *self._backlog.take()])

    def _take_all(self) -> list[Call]:
        flying = [call for flight in self._flying for call in flight.batch]
        taken = [*self._backlog.take(), *self._unloaded, *flying]
        self._unloaded.clear()
        self._flying.clear()
        return taken


def _tell(calls: list[Call], replies: Iterable[Any]) -> None:
    for call, reply in zip(calls, replies, strict=True):
        if not call.future.done():
            call.future.set_result(reply)


def loading(scripts: Iterable[Script]) -> bytes:
    """Give the commands that load scripts, as they travel."""
    return b"".join(pack("SCRIPT", "LOAD", script.source) for script in scripts)
