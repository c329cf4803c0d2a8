"""A TCP proxy between a limiter and its Redis, which breaks what passes through it as a test says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 16


class Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.seen = 0
        self.swallowing = False

    def cut(self) -> None:
        for side in (self.client, self.server):
            # abort(): what is still in a buffer must not get through.
            side.transport.abort()


class Proxy:
    """Forwards, until told otherwise; all switches may be turned while connections are open.

    delay: seconds by which every chunk is late, both ways.
    refuse: new connections are cut at once.
    """

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.refuse = False
        # How often something was swallowed.
        self.swallowed = 0
        self.links: set[Link] = set()
        self._target = port
        self._swallow: tuple[Callable[[bytes, int], bool], int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        self._flowing.set()
        # They end by themselves; of one that is cancelled asyncio says that it failed.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1 + self.delay)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End every connection."""
        for link in list(self.links):
            link.cut()

    def blackhole(self) -> None:
        """Let nothing pass either way from now on; connections stay open, and new ones are taken."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let pass what was held back, and all that comes."""
        self._flowing.set()

    def swallow(self, when: str | Callable[[bytes, int], bool], times: int = 1) -> None:
        """Drop the reply to what is sent when it contains a text, then end its connection; so many times.

        `when` may also be a function of the bytes sent and the connection's count of chunks so far. The server executes
        what was sent: its first answer is waited for, and dropped.
        """
        if isinstance(when, str):
            text = when.encode()
            self._swallow = (lambda data, _: text in data), times
        else:
            self._swallow = when, times

    def stop_swallowing(self) -> None:
        self._swallow = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.refuse:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        self.links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(link, reader))
                group.create_task(self._down(link, from_server))
        except* (OSError, EOFError):
            pass
        finally:
            self.links.discard(link)
            link.cut()

    async def _up(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await self._chunk(reader):
            link.seen += 1
            if self._swallow is not None:
                when, left = self._swallow
                if when(data, link.seen):
                    link.swallowing = True
                    self._swallow = (when, left - 1) if left > 1 else None
            link.server.write(data)
            await link.server.drain()
        raise EOFError

    async def _down(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await self._chunk(reader):
            if link.swallowing:
                self.swallowed += 1
                break
            link.client.write(data)
            await link.client.drain()
        raise EOFError

    async def _chunk(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(CHUNK)
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._flowing.wait()
        return data
