"""A connection that serves calls: commands go straight to its transport, replies straight to who takes them.

redis-py connects, with its authentication, TLS and Sentinel; its streams and a task on either side of them would cost
each call several turns of the event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from ratelimit_async._connection import UNWILLING, ResponseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit_async._connection import Wire

__all__ = ["Link", "first_of", "link_of"]

_INCOMPLETE = object()


class Link:
    """What carries packed commands to a server, and hands each reply to who takes them, be it an error.

    It does so in callbacks of the loop, never in a task: whoever takes a reply may resume others.
    """

    def __init__(self, receive: Callable[[Any], None]) -> None:
        """Belong to the running loop; what `receive` raises ends the link."""
        self._receive = receive
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        """Whether it can be written to."""
        return not self._ended.done()

    def write(self, packed: bytes) -> None:
        """Send commands."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """End it."""
        if not self._ended.done():
            self._ended.set_exception(error)
            # Whoever runs it may be leaving.
            self._ended.exception()

    async def run(self) -> None:
        """Wait until it ends, and raise what ended it."""
        await self._ended


def link_of(wire: Wire, receive: Callable[[Any], None]) -> Link:
    """Take over a connection on which nothing is under way."""
    writer: object = getattr(wire, "_writer", None)
    if isinstance(writer, asyncio.StreamWriter):
        return _Direct(wire, writer.transport, receive)
    return _Streamed(wire, receive)


class _Direct(Link, asyncio.Protocol):
    """Reads and writes the transport itself."""

    def __init__(self, wire: Any, transport: asyncio.WriteTransport, receive: Callable[[Any], None]) -> None:
        super().__init__(receive)
        self._transport = transport
        # redis-py knows what its own errors are.
        to_error = wire._parser.parse_error  # noqa: SLF001
        self._replies = hiredis.Reader(protocolError=InvalidResponse, replyError=to_error, notEnoughData=_INCOMPLETE)
        # The streams of redis-py still want to hear of the end: they close by it.
        self._streams = transport.get_protocol()
        transport.set_protocol(self)
        if transport.is_closing() or wire._reader.at_eof():  # noqa: SLF001
            self.fail(_closed())

    def write(self, packed: bytes) -> None:
        self._transport.write(packed)

    def data_received(self, data: bytes) -> None:
        if self._ended.done():
            return
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not _INCOMPLETE:
                self._receive(_answer(reply))
        except Exception as error:  # noqa: BLE001 - whoever runs it sees to it
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or _closed())
        self._streams.connection_lost(exc)


class _Streamed(Link):
    """Goes through the methods of the connection: of the embedded server, which has no transport."""

    def __init__(self, wire: Wire, receive: Callable[[Any], None]) -> None:
        super().__init__(receive)
        self._wire = wire
        self._packed: asyncio.Queue[bytes] = asyncio.Queue()

    def write(self, packed: bytes) -> None:
        self._packed.put_nowait(packed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write())
            group.create_task(self._read())
            await self._ended

    async def _write(self) -> None:
        while True:
            await self._wire.send_packed_command(await self._packed.get(), check_health=False)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                reply = await self._wire.read_response(disable_decoding=True, disconnect_on_error=False)
            except (ResponseError, *UNWILLING) as error:
                reply = error
            loop.call_soon(self._take, reply)

    def _take(self, reply: Any) -> None:
        if not self.open:
            return
        try:
            self._receive(reply)
        except Exception as error:  # noqa: BLE001 - whoever runs it sees to it
            self.fail(error)


def _answer(reply: Any) -> Any:
    """Pass on what answers a call; what tells that the connection is of no use is raised."""
    if isinstance(reply, Exception) and not isinstance(reply, (ResponseError, *UNWILLING)):
        raise reply
    return reply


def first_of(error: BaseException) -> BaseException:
    """Give the first plain exception of a group: what ended a link, and all that ran beside it."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error = group.exceptions[0]
    return error


def _closed() -> Exception:
    return RedisConnectionError("Connection closed by server.")
