"""Sentinel: the primary is asked for anew at every connection, and while one lasts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from ratelimit_async._connection import FAILURES, Source, ask, hang_up, make_server, peer
from ratelimit_async._errors import RedisUnavailable
from ratelimit_async._executor import Executor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ratelimit_async._batches import Script
    from ratelimit_async._connection import Address, Server, Wire
    from ratelimit_async._events import Emit

__all__ = ["SentinelExecutor", "SentinelSource"]

# Seconds between questions whether the primary is still the primary.
_PERIOD = 1.0
_FAILURES: tuple[type[Exception], ...] = (*FAILURES, RedisUnavailable)
_MOVED = "the primary is {} now"


class SentinelSource(Source):
    """Where connections to the primary of a name come from."""

    def __init__(
        self,
        name: str,
        sentinels: list[Server],
        connection_class: Callable[..., Any],
        options: dict[str, Any],
        connect_timeout: float,
    ) -> None:
        """Know the sentinels; `options` are those of connections to the primary, all but its address."""
        self._name = name
        # Each process begins with another one.
        self._sentinels = random.sample(sentinels, len(sentinels))
        self._connection_class = connection_class
        self._options = options
        self._connect_timeout = connect_timeout
        self._primary: Address | None = None
        self._where = f"{','.join(sentinel.address for sentinel in sentinels)}/{name}"
        # The primary's, once it is known.
        self.address = self._where

    def current(self, wire: Wire) -> bool:
        """Whether it leads to what was the primary when that was last asked."""
        return peer(wire) == self._primary

    async def open(self) -> Wire:
        """Connect to the primary, or raise RedisUnavailable within the connect timeout."""
        problems: list[str] = []
        # Where all answer and refuse, it is no outage.
        outage = False
        failed: Address | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                for sentinel in list(self._sentinels):
                    try:
                        async with self._patience(), self._connected(sentinel) as wire:
                            primary = await self._ask(wire)
                        if primary == failed:
                            continue
                        failed = primary
                        async with self._patience():
                            opened = await self._open(primary)
                    except _FAILURES as error:
                        problems.append(str(error) or f"{sentinel.address}: {type(error).__name__}")
                        outage = outage or self.failure(error).outage
                        continue
                    self._prefer(sentinel)
                    self._found(primary)
                    return opened
        except TimeoutError:
            problems.append(f"nothing found within {self._connect_timeout} s")
            outage = True
        raise RedisUnavailable(self._where, "; ".join(dict.fromkeys(problems)), outage=outage)

    async def follow(self, wire: Wire) -> None:
        """Ask on for as long as a connection to the primary lasts; ends it when the primary is another."""
        while True:
            for sentinel in list(self._sentinels):
                # The next one is asked where one does not answer, or tells of what is no primary.
                with contextlib.suppress(*_FAILURES):
                    async with self._connected(sentinel) as asked:
                        primary = peer(wire)
                        while primary == peer(wire):
                            self._found(primary)
                            await asyncio.sleep(_PERIOD)
                            async with self._patience():
                                primary = await self._ask(asked)
                        other = await self._open(primary)
                        await hang_up(other)
                        self._found(primary)
                if not self.current(wire):
                    raise ConnectionError(_MOVED.format(self.address))
            await asyncio.sleep(_PERIOD)

    def _patience(self) -> asyncio.Timeout:
        """Bound one attempt, so that there is time for others."""
        return asyncio.timeout(self._connect_timeout / 3)

    def _found(self, primary: Address) -> None:
        self._primary = primary
        self.address = f"{primary[0]}:{primary[1]}"

    def _prefer(self, sentinel: Server) -> None:
        self._sentinels.remove(sentinel)
        self._sentinels.insert(0, sentinel)

    @contextlib.asynccontextmanager
    async def _connected(self, server: Server) -> AsyncGenerator[Wire]:
        wire = await server.open()
        try:
            yield wire
        finally:
            await hang_up(wire)

    async def _ask(self, sentinel: Wire) -> Address:
        found = await ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        if found is None:
            raise self.failure(f"the sentinels know no primary {self._name!r}")
        host, port = found
        return host.decode(), int(port)

    async def _open(self, primary: Address) -> Wire:
        """Connect to what a sentinel says is the primary, and have it say so itself."""
        host, port = primary
        options = {**self._options, "host": host, "port": port}
        server = make_server(f"{host}:{port}", self._connection_class, options, self._connect_timeout)
        wire = await server.open()
        try:
            async with asyncio.timeout(self._connect_timeout):
                role = (await ask(wire, "ROLE"))[0].decode()
        except BaseException:
            await hang_up(wire)
            raise
        if role != "master":
            await hang_up(wire)
            raise RedisUnavailable(server.address, f"is no primary but a {role}", outage=True)
        return wire


class SentinelExecutor(Executor):
    """Serves calls over connections to the primary, whichever that is."""

    def __init__(
        self, source: SentinelSource, scripts: tuple[Script, ...], command_timeout: float, emit: Emit, replicas: int = 0
    ) -> None:
        """Take where connections come from."""
        super().__init__(source, scripts, command_timeout, emit, replicas)
        self._sentinels = source

    async def _serve(self, wire: Wire) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super()._serve(wire))
            group.create_task(self._sentinels.follow(wire))
