"""One HTTP request or websocket: what was decided for it, the slots it holds, and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from ratelimit_async import (
    CostExceedsLimit,
    Decision,
    Grant,
    QueueFull,
    RateLimitExceeded,
    RedisUnavailable,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
)
from ratelimit_async.contrib._fields import Told, seconds_of, write_fields

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ratelimit_async import RateLimitConfig, RateLimiter
    from ratelimit_async._config import Cost

__all__ = ["Decided", "OnDenied", "RequestDenied", "Settings", "Visit", "attend", "entered", "visit_of"]

_SCOPE = "ratelimit_async"
# Seconds to stay away where nobody knows for how long.
_A_WHILE = 5.0
_AWAY = "Not available at the moment."
# Bytes of a body that are kept for the endpoint while its turn is waited for; then the client is no longer listened to.
_MOST_HEARD = 65_536
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_ENDS = frozenset({"http.response.body", "websocket.http.response.body"})

App = TypeVar("App")
Decided: TypeAlias = Decision | Grant
OnDenied: TypeAlias = Callable[[HTTPConnection, "RequestDenied"], Response | Awaitable[Response]]


class _ClientLeft(Exception):
    """The client went away while the request waited."""


class RequestDenied(HTTPException):
    """A request that may not pass: for handlers of it, and for `on_denied`.

    Attributes:
        status_code: 429: a limit is used up or the turn did not come; 503: paused, or Redis is away and the
            configuration says so; 413: it costs more than could ever pass; 499: the client went away while it waited.
        detail: What to tell the client; it names no limit, subject or server.
        retry_after: Whole seconds to stay away; None for 413 and 499.
        headers: The same as `Retry-After`; that and the other fields are added to any answer, so none need be passed.
        name: Whose limits.
        decision: Why, and until when; None where nobody could decide.
    """

    def __init__(
        self,
        status_code: int,
        detail: str,
        name: str,
        decision: Decision | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keep all; seconds are made whole."""
        self.retry_after = None if retry_after is None else max(seconds_of(retry_after), 1)
        headers = None if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        super().__init__(status_code, detail, headers)
        self.name = name
        self.decision = decision


class Settings(NamedTuple):
    """What an app limits its requests with."""

    limiter: RateLimiter
    on_denied: OnDenied
    legacy_headers: bool


class Visit:
    """What holds for one request, from its first limit to the end of its answer."""

    __slots__ = ("_heard", "_receive", "_said", "_send", "denied", "settings", "stack", "told")

    def __init__(self, settings: Settings, receive: Receive, send: Send) -> None:
        """Stand between the server and the app."""
        self.settings = settings
        self.told: list[Told] = []
        self.denied: RequestDenied | None = None
        self.stack: AsyncExitStack | None = None
        self._receive = receive
        self._send = send
        # What came while the turn was waited for, and what is still listened for.
        self._heard: deque[Message] = deque()
        self._said: asyncio.Future[Message] | None = None

    # ---- between server and app ----

    async def receive(self) -> Message:
        """Hand on what the client says, first what came while the request waited."""
        if self._heard:
            return self._heard.popleft()
        if self._said is not None:
            said, self._said = self._said, None
            return await said
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Hand on what the app answers, with the fields; at its end what it held is free."""
        kind = message["type"]
        if kind in _STARTS and self.told:
            message = {**message, "headers": [*message.get("headers", ()), *self._fields(message)]}
        await self._send(message)
        if kind in _ENDS and not message.get("more_body", False):
            await self.end()

    async def end(self) -> None:
        """Give back what is held; a second time does nothing."""
        if self._said is not None:
            self._said.cancel()
            self._said = None
        if self.stack is not None:
            stack, self.stack = self.stack, None
            await stack.aclose()

    def _fields(self, message: Message) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in message.get("headers", ())}
        fields = list(write_fields(self.told, legacy=self.settings.legacy_headers))
        if self.denied is not None and message.get("status", 0) >= 400:
            fields += [(name.lower().encode(), value.encode()) for name, value in (self.denied.headers or {}).items()]
        # The app's own word goes first; but those two are lists, and others' limits have their place in them.
        return [field for field in fields if field[0] in {b"ratelimit", b"ratelimit-policy"} or field[0] not in given]

    # ---- limits ----

    async def admit(self, name: str, by: str | int | None, cost: Cost, wait: float | None) -> Decided:
        """Take what the request costs, now or within so many seconds, or raise RequestDenied."""
        config = self.settings.limiter.config(name, by=by)
        denied: RequestDenied
        try:
            decided = await self._take(name, by, cost, wait, config)
        except RateLimitExceeded as error:
            denied = self._denied(name, config, error.decision)
        except (RequestTimeout, QueueFull, RequestDropped) as error:
            estimate = error.estimate if isinstance(error, RequestTimeout) else None
            denied = self._denied(name, config, await self._look(name, by, cost), estimate)
        except CostExceedsLimit:
            denied = RequestDenied(413, "This request costs more than can ever be allowed.", name)
        except RequestCancelled:
            denied = RequestDenied(503, _AWAY, name, retry_after=_A_WHILE)
        except RedisUnavailable as error:
            # One that answers and refuses is set up wrongly: whoever runs this shall see why.
            if not error.outage:
                raise
            denied = RequestDenied(503, _AWAY, name, retry_after=_A_WHILE)
        except _ClientLeft:
            denied = RequestDenied(499, "The client went away.", name)
        else:
            decision = decided.decision if isinstance(decided, Grant) else decided
            self.told.append(Told(name, config, decision))
            return decided
        self.denied = denied
        raise denied

    async def _take(
        self, name: str, by: str | int | None, cost: Cost, wait: float | None, config: RateLimitConfig
    ) -> Decided:
        if wait is not None or config.holds:
            return await self._acquire(name, by, cost, wait or 0)
        decision = await self.settings.limiter.hit(name, by=by, cost=cost)
        decision.raise_if_denied()
        return decision

    def _denied(
        self, name: str, config: RateLimitConfig, decision: Decision | None, estimate: float | None = None
    ) -> RequestDenied:
        if decision is None:
            return RequestDenied(429, "Too many requests.", name, retry_after=estimate or _A_WHILE)
        self.told.append(Told(name, config, decision))
        after = decision.retry_after or estimate or _A_WHILE
        if decision.reason in {"paused", "outage"}:
            return RequestDenied(503, _AWAY, name, decision, after)
        return RequestDenied(429, "Too many requests.", name, decision, after)

    async def _look(self, name: str, by: str | int | None, cost: Cost) -> Decision | None:
        """See how things stand for a request whose turn did not come."""
        try:
            return await self.settings.limiter.check(name, by=by, cost=cost)
        except RedisUnavailable:
            return None

    async def _acquire(self, name: str, by: str | int | None, cost: Cost, wait: float) -> Grant:
        """Wait for the turn, unless the client goes away before it."""
        if self.stack is None:
            self.stack = AsyncExitStack()
        asked = self.stack.enter_async_context(self.settings.limiter.acquire(name, by=by, cost=cost, timeout=wait))
        if not wait:
            return await asked
        granted, left = asyncio.ensure_future(asked), asyncio.ensure_future(self._leave())
        try:
            await asyncio.wait((granted, left), return_when=asyncio.FIRST_COMPLETED)
            if not granted.done():
                raise _ClientLeft
            return granted.result()
        finally:
            left.cancel()
            granted.cancel()
            await asyncio.gather(granted, left, return_exceptions=True)

    async def _leave(self) -> None:
        """Return when the client goes away; what else it says is kept for the endpoint."""
        heard = sum(map(_size, self._heard))
        while not any(message["type"].endswith(".disconnect") for message in self._heard):
            if heard > _MOST_HEARD:
                await asyncio.Event().wait()
            if self._said is None:
                self._said = asyncio.ensure_future(_once(self._receive))
            # Cancelling this does not cancel that: no message is lost.
            await asyncio.wait((self._said,))
            message, self._said = self._said.result(), None
            self._heard.append(message)
            heard += _size(message)


async def _once(receive: Receive) -> Message:
    return await receive()


def _size(message: Message) -> int:
    return sum(len(value) for value in message.values() if isinstance(value, (bytes, str)))


def visit_of(scope: Scope) -> Visit | None:
    """Give what is known of a request."""
    visit: Visit | None = scope.get(_SCOPE)
    return visit


async def attend(app: ASGIApp, settings: Settings, scope: Scope, receive: Receive, send: Send) -> None:
    """Call an app for one request, so that limits can be taken for it anywhere within."""
    around = visit_of(scope)
    if around is not None:
        # Mounted in an app that does this already: its own limiter holds from here on, the answer is that one's.
        around.settings = settings
        await app(scope, receive, send)
        return
    visit = Visit(settings, receive, send)
    scope[_SCOPE] = visit
    try:
        await app(scope, visit.receive, visit.send)
    finally:
        await visit.end()


def entered(limiter: RateLimiter, install: Callable[[App], None]) -> Callable[[App], AbstractAsyncContextManager[None]]:
    """Make an app's lifespan: it enters the limiter, installs it, and leaves it at the end."""

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncGenerator[None]:
        async with limiter:
            install(app)
            yield

    return lifespan
