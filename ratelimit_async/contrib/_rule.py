"""One limit of requests: what it counts, whose, and what happens to what it denies."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from ratelimit_async import ConfigurationError
from ratelimit_async._config import Cost, decode_name, decode_timeout
from ratelimit_async.contrib._fields import policy_of
from ratelimit_async.contrib._visit import RequestDenied, visit_of

if TYPE_CHECKING:
    from datetime import timedelta

    from starlette.requests import HTTPConnection
    from starlette.responses import Response

    from ratelimit_async.contrib._visit import Decided

__all__ = ["TRY_AGAIN_LATER", "By", "CostOf", "Rule", "answer", "call", "can_answer", "handle", "problem"]

T = TypeVar("T")
Subject: TypeAlias = str | int | None
By: TypeAlias = Subject | Callable[[Any], Subject | Awaitable[Subject]]
CostOf: TypeAlias = Cost | Callable[[Any], Cost | Awaitable[Cost]]

# The code to close a websocket with.
TRY_AGAIN_LATER = 1013
_TYPES = "https://iana.org/assignments/http-problem-types#"


class Rule:
    """Lets requests pass, one name's limits permitting."""

    def __init__(self, name: str, by: Any, cost: Any, wait: float | timedelta | None) -> None:
        """Check what can be checked now; `by` and `cost` are values, or functions of the connection."""
        self.name = decode_name(name)
        self.by: Any = by
        self.cost: Any = cost
        self.wait = decode_timeout(wait, "wait")
        if not (by is None or isinstance(by, (str, int)) or callable(by)):
            raise ConfigurationError("by", by, "must be a text, a number, None, or a function of the request")
        if not (isinstance(cost, (int, Mapping)) or callable(cost)):
            raise ConfigurationError("cost", cost, "must be a number, numbers by unit, or a function of the request")

    async def admit(self, connection: HTTPConnection, **known: Any) -> Decided:
        """Take the cost or raise RequestDenied; the endpoint finds the outcome in `request.state.rate_limit`.

        `known` are `by` and `cost` where they have been worked out already.
        """
        visit = visit_of(connection.scope)
        if visit is None:
            problem = "no limiter is installed: use FastAPI(lifespan=lifespan(limiter)), or install(app, limiter)"
            raise ConfigurationError("limiter", None, problem)
        by: Any = known.get("by", self.by)
        cost: Any = known.get("cost", self.cost)
        if callable(by):
            by = cast("Subject", await call(by, connection))
        if callable(cost):
            cost = cast("Cost", await call(cost, connection))
        decided = await visit.admit(self.name, by, cost, self.wait)
        connection.state.rate_limit = decided
        return decided


async def call(fn: Callable[..., T | Awaitable[T]], *args: object) -> T:
    """Call a function, async or plain; a plain one runs in the event loop."""
    result = fn(*args)
    return cast("T", await result if inspect.isawaitable(result) else result)


def problem(connection: HTTPConnection, denied: RequestDenied) -> Response:
    """Answer as RFC 9457 and the draft say, which a client's general error handling can read too."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": denied.detail.rstrip("."),
        "status": denied.status_code,
        "detail": denied.detail,
    }
    if denied.status_code == 429:
        body["type"] = f"{_TYPES}quota-exceeded"
        body["detail"] = f"{denied.detail} Try again in {denied.retry_after} s."
        visit = visit_of(connection.scope)
        if visit is not None and denied.decision is not None and denied.decision.reason == "limit":
            told = visit.told[-1]
            body["violated-policies"] = [policy_of(told.name, told.config, told.decision.limit)]
    return JSONResponse(body, denied.status_code, denied.headers, "application/problem+json")


async def handle(connection: HTTPConnection, denied: Exception) -> Response | None:
    """Answer a denial as Starlette's handler of the exception."""
    assert isinstance(denied, RequestDenied)
    response = await answer(connection, denied)
    if not isinstance(connection, WebSocket):
        return response
    # Older versions do not send what a handler gives to a websocket.
    await connection.send_denial_response(response)
    return None


async def answer(connection: HTTPConnection, denied: RequestDenied) -> Response:
    """Give the app's answer to a denial."""
    visit = visit_of(connection.scope)
    assert visit is not None
    return await call(visit.settings.on_denied, connection, denied)


def can_answer(connection: HTTPConnection) -> bool:
    """Whether a denial can be an answer; to a websocket only some servers can give one in place of a handshake."""
    scope = connection.scope
    return scope["type"] == "http" or "websocket.http.response" in (scope.get("extensions") or ())
