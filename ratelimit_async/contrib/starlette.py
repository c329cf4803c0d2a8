"""For Starlette, and any ASGI app: a middleware that limits requests and websockets, the client's address.

`Starlette(lifespan=lifespan(limiter), middleware=[Middleware(RateLimitMiddleware, name="api", by=client_ip)])`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

try:
    import_module("starlette")
except ImportError as error:
    message = 'ratelimit_async.contrib.starlette needs starlette: pip install "ratelimit-async[fastapi]"'
    raise ImportError(message) from error

import re
from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection

from ratelimit_async import ConfigurationError
from ratelimit_async._catalog import pattern_regex
from ratelimit_async.contrib._addresses import ClientIP
from ratelimit_async.contrib._rule import TRY_AGAIN_LATER, Rule, answer, call, can_answer, problem
from ratelimit_async.contrib._visit import RequestDenied, Settings, attend, entered, visit_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ratelimit_async import RateLimiter
    from ratelimit_async.contrib._rule import By, CostOf
    from ratelimit_async.contrib._visit import OnDenied

__all__ = ["ClientIP", "RateLimitMiddleware", "RequestDenied", "client_ip", "install", "lifespan"]

_Exempt: TypeAlias = str | Callable[[HTTPConnection], bool | Awaitable[bool]]

client_ip = ClientIP()


def install(
    app: Starlette, limiter: RateLimiter, *, on_denied: OnDenied | None = None, legacy_headers: bool = False
) -> None:
    """Make a limiter that is entered elsewhere the app's: `app.state.limiter`, which its limits take from.

    Args:
        app: At any time; in mounted apps only where they shall have a limiter of their own. Once more: from now on with
            another one.
        limiter: Entered by the time of the first request.
        on_denied: Gives the response to a `RequestDenied`; by default `application/problem+json`. It need not care
            for headers.
        legacy_headers: Whether answers have `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now), too.
    """
    before: Settings | None = getattr(app.state, "ratelimit_async", None)
    app.state.limiter = limiter
    app.state.ratelimit_async = Settings(limiter, on_denied or problem, legacy_headers)
    if before is not None:
        return
    # Starlette answers errors outside of all middleware that can be added; the fields shall be on those answers, too.
    if app.middleware_stack is not None:
        app.middleware_stack = _Entrance(app.middleware_stack, app)
        return
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: _Entrance(build(), app)  # type: ignore[method-assign]


def lifespan(
    limiter: RateLimiter, *, on_denied: OnDenied | None = None, legacy_headers: bool = False
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Give the lifespan of an app that has nothing else to begin and end; otherwise `install` the limiter.

    Args:
        limiter: Entered when the app starts, left when it stops.
        on_denied: As in `install`.
        legacy_headers: As in `install`.

    Returns:
        What `Starlette(lifespan=...)` takes.
    """
    return entered(limiter, lambda app: install(app, limiter, on_denied=on_denied, legacy_headers=legacy_headers))


class RateLimitMiddleware:
    """Pure ASGI middleware: limits the requests and websockets of an app, a mounted one, or a route.

    What it decided is `request.state.rate_limit`: a `Decision`; a `Grant` where it holds one, that is with `wait`, or
    where limits count running calls. Preflight requests of browsers (CORS) are never limited.

    Args:
        app: The app within.
        name: Whose limits.
        by: The subject within the name, or a function of the connection, async or plain, that gives it.
        cost: What a request charges, or a function of the connection, async or plain, that gives it.
        wait: Seconds to wait for the turn at most; 0: not at all, but the endpoint gets a `Grant`, which it can settle.
        paths: Patterns with `*` and `?` of paths that are limited, as `"/api/*"`; the whole path, also where it is
            mounted.
        exempt: Patterns of paths that are not, and functions of the connection, async or plain, that say whether.
        limiter: For apps in which none is installed.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        name: str,
        *,
        by: By = None,
        cost: CostOf = 1,
        wait: float | timedelta | None = None,
        paths: Iterable[str] = ("*",),
        exempt: Iterable[_Exempt] = (),
        limiter: RateLimiter | None = None,
    ) -> None:
        """Check what can be checked now."""
        self._app = app
        self._rule = Rule(name, by, cost, wait)
        self._paths = _regex("paths", _listed("paths", paths))
        given = _listed("exempt", exempt)
        self._exempt = _regex("exempt", [one for one in given if not callable(one)])
        self._spared = [one for one in given if callable(one)]
        self._settings = None if limiter is None else Settings(limiter, problem, legacy_headers=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] not in {"http", "websocket"} or not await self._limits(HTTPConnection(scope)):
            await self._app(scope, receive, send)
        elif visit_of(scope) is None and self._settings is not None:
            await attend(self._pass, self._settings, scope, receive, send)
        else:
            await self._pass(scope, receive, send)

    async def _limits(self, connection: HTTPConnection) -> bool:
        path = connection.scope["path"]
        if not self._paths.fullmatch(path) or self._exempt.fullmatch(path) or _is_preflight(connection):
            return False
        for spares in self._spared:
            if await call(spares, connection):
                return False
        return True

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        try:
            await self._rule.admit(connection)
        except RequestDenied as denied:
            if can_answer(connection):
                response = await answer(connection, denied)
                await response(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": denied.detail})
            return
        await self._app(scope, receive, send)


class _Entrance:
    """Stands outside of everything else of an app."""

    def __init__(self, app: ASGIApp, owner: Starlette) -> None:
        self._app = app
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            await attend(self._app, self._owner.state.ratelimit_async, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_preflight(connection: HTTPConnection) -> bool:
    """Whether a browser asks for permission; it says neither who the user is nor does it take anything."""
    asks = connection.scope.get("method") == "OPTIONS" and "origin" in connection.headers
    return asks and "access-control-request-method" in connection.headers


def _listed(field: str, given: Iterable[_Exempt]) -> list[_Exempt]:
    if isinstance(given, str):
        raise ConfigurationError(field, given, "must be a list")
    return list(given)


def _regex(field: str, patterns: Iterable[object]) -> re.Pattern[str]:
    """Read patterns as those of names are read: `*` is anything, `?` one character."""
    parts = list[str]()
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
            raise ConfigurationError(field, pattern, "must be a pattern of paths such as '/api/*'")
        parts.append(pattern_regex(pattern))
    # Without any, nothing matches.
    return re.compile("|".join(parts) or "(?!)", re.DOTALL)
