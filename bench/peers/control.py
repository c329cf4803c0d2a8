"""No limiter at all: what this machine, its event loop and its Redis take for anything, at the same arrivals."""

from __future__ import annotations

import asyncio
from collections import deque
from urllib.parse import urlsplit

import redis.asyncio

from bench.peers import Peer


class Ping(Peer):
    """One PING per check, all over one connection."""

    for_arrivals = True

    async def setup(self) -> None:
        """Connect."""
        url = urlsplit(self.url)
        loop = asyncio.get_running_loop()
        self._transport, self._pongs = await loop.create_connection(Pongs, url.hostname, url.port)

    async def check(self, name: str, by: str) -> bool:  # noqa: ARG002
        """Send it, and wait for its answer."""
        asked = asyncio.get_running_loop().create_future()
        self._pongs.asked.append(asked)
        self._transport.write(b"PING\r\n")
        return await asked

    async def counted(self, name: str) -> int:  # noqa: ARG002
        """Read how many Redis has answered."""
        async with redis.asyncio.Redis.from_url(self.url) as client:
            stats = await client.info("commandstats")
        return int(stats["cmdstat_ping"]["calls"])

    async def close(self) -> None:
        """Disconnect."""
        self._transport.close()


class Pongs(asyncio.Protocol):
    """Tells those who asked, in their order."""

    def __init__(self) -> None:
        """Nobody has asked."""
        self.asked = deque[asyncio.Future[bool]]()
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Tell as many as there are whole answers."""
        *answers, self._rest = (self._rest + data).split(b"\r\n")
        for answer in answers:
            self.asked.popleft().set_result(answer == b"+PONG")
