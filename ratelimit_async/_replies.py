"""The reply listener: one pub/sub channel per process, and one that all share.

Messages are hints, never the truth: what they tell of is recorded in Redis, and asked for again on every subscription.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from ratelimit_async._connection import FAILURES, hang_up, pack
from ratelimit_async._errors import RedisUnavailable
from ratelimit_async._events import Connected, Disconnected

if TYPE_CHECKING:
    from ratelimit_async._connection import Source, Wire
    from ratelimit_async._events import Emit

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

    async def run(self) -> None:
        """Listen until the connection fails; the supervisor starts it again."""
        try:
            wire = await self._source.open()
        except RedisUnavailable as error:
            self.problem = error.problem
            raise
        try:
            await wire.send_packed_command(pack("SUBSCRIBE", self._own, self._all), check_health=False)
            await self._read(wire)
        except FAILURES as error:
            text = self.problem = str(error) or f"no sign of life for {2 * _SILENCE} s"
            self._emit(Disconnected(what="replies", address=self._source.address, error=text))
            raise self._source.failure(text) from error
        finally:
            self.subscribed.clear()
            await hang_up(wire)

    async def _read(self, wire: Wire) -> None:
        asked = False
        # The embedded server is silent when it has nothing to say.
        patience = None if self._source.embedded else _SILENCE
        while True:
            try:
                async with asyncio.timeout(patience):
                    message = await wire.read_response(disable_decoding=True, disconnect_on_error=False)
            except TimeoutError:
                if asked:
                    raise
                asked = True
                await wire.send_packed_command(pack("PING"), check_health=False)
                continue
            asked = False
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
