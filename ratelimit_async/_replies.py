"""The reply listener: one pub/sub channel per process, and one that all share.

Messages are hints, never the truth: what they tell of is recorded in Redis, and asked for again on every subscription.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ratelimit_async._connection import FAILURES, hang_up, pack
from ratelimit_async._errors import RedisUnavailable
from ratelimit_async._events import Connected, Disconnected
from ratelimit_async._link import first_of, link_of

if TYPE_CHECKING:
    from ratelimit_async._connection import Source, Wire
    from ratelimit_async._events import Emit
    from ratelimit_async._link import Link

__all__ = ["Listener", "Replies"]

# Seconds of silence after which the server is asked, and as long again until it counts as gone.
_SILENCE = 0.75
_MOVED = "the server is no longer the one to listen at"


class Replies(Protocol):
    """Who is told."""

    def on_ids(self, seqs: list[int]) -> None:
        """Requests of this client were granted or dropped."""

    def on_wake(self, driver: str, *, everyone: bool) -> None:
        """Somebody should look at a queue."""

    def on_freed(self, driver: str) -> None:
        """What was denied for a key may pass now."""

    def on_task(self, kind: str, driver: str, owns: list[str]) -> None:
        """Durable tasks: t are granted to this client, k wait for workers, s is to be stopped, f has ended."""

    def on_control(self) -> None:
        """What is paused by name, or configured, has changed."""

    def on_subscribed(self) -> None:
        """Messages may have been missed until now."""


class Listener:
    """Reads the reply channels, over one connection after another."""

    def __init__(self, source: Source, channels: str, client: str, replies: Replies, emit: Emit) -> None:
        """Listen for one client."""
        self.subscribed = asyncio.Event()
        # Why it is not subscribed, "" where nothing went wrong.
        self.problem = ""
        self._source = source
        self._own = f"{channels}{client}"
        self._all = f"{channels}all"
        self._replies = replies
        self._emit = emit
        # When the server last said something.
        self._heard = 0.0

    async def run(self) -> None:
        """Listen until the connection fails; the supervisor starts it again."""
        try:
            wire = await self._source.open()
        except RedisUnavailable as error:
            self.problem = error.problem
            raise
        try:
            link = link_of(wire, partial(self._receive, wire))
            link.write(pack("SUBSCRIBE", self._own, self._all))
            async with asyncio.TaskGroup() as group:
                group.create_task(link.run())
                # The embedded server is silent when it has nothing to say.
                if not self._source.embedded:
                    group.create_task(self._watch(link))
        except Exception as raised:  # noqa: BLE001 - a group of whatever ended it
            cause = first_of(raised)
            if not isinstance(cause, FAILURES):
                raise cause from None
            text = self.problem = str(cause) or f"no sign of life for {2 * _SILENCE} s"
            self._emit(Disconnected(what="replies", address=self._source.address, error=text))
            raise self._source.failure(text) from cause
        finally:
            self.subscribed.clear()
            await hang_up(wire)

    async def _watch(self, link: Link) -> None:
        """Notice a server that says nothing, not even when it is asked."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while True:
            heard = self._heard
            await asyncio.sleep(heard + _SILENCE - loop.time())
            if self._heard == heard:
                link.write(pack("PING"))
                await asyncio.sleep(_SILENCE)
                if self._heard == heard:
                    raise TimeoutError

    def _receive(self, wire: Wire, message: Any) -> None:
        """Take the next message."""
        self._heard = asyncio.get_running_loop().time()
        if isinstance(message, Exception):
            raise message
        if not self._source.current(wire):
            raise ConnectionError(_MOVED)
        kind = message[0]
        if kind == b"message":
            self._dispatch(message[1].decode(), message[2].decode())
        elif kind == b"subscribe" and message[1].decode() == self._all:
            self._emit(Connected(what="replies", address=self._source.address))
            self.problem = ""
            self.subscribed.set()
            self._replies.on_subscribed()

    def _dispatch(self, channel: str, text: str) -> None:
        kind, _, rest = text.partition(" ")
        if kind == "g":
            self._replies.on_ids([int(seq) for seq in rest.split(" ")])
        elif kind == "w":
            self._replies.on_wake(rest, everyone=channel == self._all)
        elif kind == "x":
            self._replies.on_freed(rest)
        elif kind == "c":
            self._replies.on_control()
        elif kind in ("t", "k", "s", "f"):
            driver, *owns = rest.split(" ")
            self._replies.on_task(kind, driver, owns)
