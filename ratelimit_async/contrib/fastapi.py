"""For FastAPI: a dependency that limits routes and routers, and all of `ratelimit_async.contrib.starlette`.

`@app.get("/search", dependencies=[Depends(RateLimit("search", by=client_ip))])`
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import_module("fastapi")
except ImportError as error:
    message = 'ratelimit_async.contrib.fastapi needs fastapi: pip install "ratelimit-async[fastapi]"'
    raise ImportError(message) from error

from fastapi import params, routing
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from ratelimit_async.contrib import starlette
from ratelimit_async.contrib._rule import TRY_AGAIN_LATER, Rule, can_answer, handle
from ratelimit_async.contrib._visit import entered
from ratelimit_async.contrib.starlette import ClientIP, RateLimitMiddleware, RequestDenied, client_ip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from fastapi import FastAPI
    from fastapi.dependencies.models import Dependant

    from ratelimit_async import RateLimiter
    from ratelimit_async.contrib._rule import By, CostOf
    from ratelimit_async.contrib._visit import Decided, OnDenied

__all__ = ["ClientIP", "RateLimit", "RateLimitMiddleware", "RequestDenied", "client_ip", "install", "lifespan"]


class RateLimit:
    """A dependency: lets the request or websocket pass, one name's limits permitting.

    It gives the endpoint a `Decision`; a `Grant` where it holds one, that is with `wait`, or where limits count running
    calls: they count it until the answer is over, also one that streams, or the websocket is closed.

    Args:
        name: Whose limits.
        by: The subject within the name; or a function of the connection, async or plain, that gives it; or
            `Depends(...)` on whatever does.
        cost: What it charges: a number, numbers by unit, a function of the connection, or `Depends(...)`.
        wait: Seconds to wait for the turn at most; 0: not at all, but the endpoint gets a `Grant`, which it can settle.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        by: By | params.Depends = None,
        cost: CostOf | params.Depends = 1,
        wait: float | timedelta | None = None,
    ) -> None:
        """Tell FastAPI what it depends on."""
        needs = {key: value for key, value in (("by", by), ("cost", cost)) if isinstance(value, params.Depends)}
        self._rule = Rule(name, None if "by" in needs else by, 1 if "cost" in needs else cost, wait)
        word = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter("connection", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection),
                *(inspect.Parameter(key, word, default=value, annotation=Any) for key, value in needs.items()),
            ]
        )

    async def __call__(self, connection: HTTPConnection, **needed: Any) -> Decided:
        """Let it pass or raise RequestDenied, which is an HTTPException."""
        try:
            return await self._rule.admit(connection, **needed)
        except RequestDenied:
            if not can_answer(connection):
                raise WebSocketException(TRY_AGAIN_LATER) from None
            # In the app, or the mounted one, that this is in; its own handler of this exception goes first.
            handlers, _ = connection.scope.get("starlette.exception_handlers", ({}, {}))
            handlers.setdefault(RequestDenied, handle)
            raise


def install(
    app: FastAPI, limiter: RateLimiter, *, on_denied: OnDenied | None = None, legacy_headers: bool = False
) -> None:
    """Make a limiter that is entered elsewhere the app's: `app.state.limiter`, which its limits take from.

    The app's OpenAPI shows the 429 of routes with a `RateLimit` from then on.

    Args:
        app: At any time; in mounted apps only where they shall have a limiter of their own. Once more: from now on with
            another one.
        limiter: Entered by the time of the first request.
        on_denied: Gives the response to a `RequestDenied`; by default `application/problem+json`. It need not care
            for headers.
        legacy_headers: Whether answers have `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now), too.
    """
    starlette.install(app, limiter, on_denied=on_denied, legacy_headers=legacy_headers)
    plain = app.openapi
    if isinstance(plain, _OpenAPI):
        return
    app.openapi = _OpenAPI(app, plain)  # type: ignore[method-assign]


def lifespan(
    limiter: RateLimiter, *, on_denied: OnDenied | None = None, legacy_headers: bool = False
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Give the lifespan of an app that has nothing else to begin and end; otherwise `install` the limiter.

    Args:
        limiter: Entered when the app starts, left when it stops.
        on_denied: As in `install`.
        legacy_headers: As in `install`.

    Returns:
        What `FastAPI(lifespan=...)` takes.
    """
    return entered(limiter, lambda app: install(app, limiter, on_denied=on_denied, legacy_headers=legacy_headers))


class _OpenAPI:
    """An app's OpenAPI with the denials of its limited routes."""

    def __init__(self, app: FastAPI, plain: Callable[[], dict[str, Any]]) -> None:
        self._app = app
        self._plain = plain

    def __call__(self) -> dict[str, Any]:
        """Add them where the route does not describe its own."""
        schema = self._plain()
        for route in _routes(self._app):
            if not _is_limited(route.dependant):
                continue
            operations = schema.get("paths", {}).get(route.path_format, {})
            for method in route.methods:
                if method.lower() in operations:
                    operations[method.lower()].setdefault("responses", {}).setdefault("429", _DENIED)
        return schema


def _routes(app: FastAPI) -> Iterable[Any]:
    """Find all routes; newer versions of FastAPI keep those of included routers apart."""
    contexts: Any = getattr(routing, "iter_route_contexts", iter)
    # Websockets have no methods, and mounted apps no dependencies.
    return [route for route in contexts(app.routes) if getattr(route, "methods", None) and hasattr(route, "dependant")]


def _is_limited(dependant: Dependant) -> bool:
    inner = dependant.dependencies
    return isinstance(dependant.call, RateLimit) or any(map(_is_limited, inner))


def _header(description: str, kind: str) -> dict[str, object]:
    return {"description": description, "schema": {"type": kind}}


_DENIED = {
    "description": "Too many requests",
    "headers": {
        "Retry-After": _header("Seconds to stay away", "integer"),
        "RateLimit": _header("What is left of the limit that binds: r units, for t seconds", "string"),
        "RateLimit-Policy": _header("All limits: q units of kind qu in any w seconds", "string"),
    },
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "violated-policies": {"type": "array", "items": {"type": "string"}},
                },
            }
        }
    },
}
