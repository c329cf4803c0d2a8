"""The page as an ASGI application: its files, what it polls, what it may do."""

from __future__ import annotations

import contextlib
import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from ratelimit_async import ConfigurationError, RateLimiter
from ratelimit_async.contrib.dashboard._access import Access
from ratelimit_async.contrib.dashboard._actions import act
from ratelimit_async.contrib.dashboard._details import Details
from ratelimit_async.contrib.dashboard._names import read_key
from ratelimit_async.contrib.dashboard._sampler import Sampler
from ratelimit_async.contrib.dashboard._views import describe, describe_key, find_page

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ratelimit_async.contrib.dashboard._access import Authorize

__all__ = ["dashboard"]

_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
_MOST_BODY = 16_384
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def dashboard(
    limiter: RateLimiter,
    *,
    token: str | None = None,
    authorize: Authorize | None = None,
    read_only: bool = True,
    interval: float = 2.0,
) -> Starlette:
    """Make a web page of a limiter, as an application to mount in one's own, which enters the limiter.

    Args:
        limiter: What to show.
        token: Who has it may look: in `Authorization: Bearer`, or typed in once, for a cookie of 12 hours. 16 printable
            ASCII characters or more.
        authorize: In place of a token: says of each request whether it may, or raises an HTTPException. Actions are
            POST requests, so it can tell them apart.
        read_only: False: the page also pauses, resumes, resets, and requeues or deletes dead letters.
        interval: Seconds between looks at Redis, 0.1 to 60; one for all viewers, none without viewers.

    Returns:
        An ASGI application. Where it runs by itself, it enters the limiter.

    Raises:
        ConfigurationError: If an argument cannot be used, or there is neither a token nor `authorize`.
    """
    if not isinstance(limiter, RateLimiter):
        raise ConfigurationError("limiter", limiter, "must be a RateLimiter")
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0.1 <= interval <= 60:
        raise ConfigurationError("interval", interval, "must be from 0.1 to 60 seconds")
    if not isinstance(read_only, bool):
        raise ConfigurationError("read_only", read_only, "must be True or False")
    page = _Page(limiter, Access(token, authorize), read_only=read_only, interval=interval)
    application = Starlette(
        routes=[
            Route("/", page.index),
            Route("/login", page.login, methods=["POST"]),
            Route("/logout", page.logout, methods=["POST"]),
            Route("/api/limits", page.limits),
            Route("/api/key", page.key),
            Route("/api/actions", page.actions, methods=["POST"]),
            Route("/static/{file}", page.static),
        ],
        exception_handlers={HTTPException: _on_error},
        lifespan=page.lifespan,
    )
    application.add_middleware(_SafeHeaders)
    return application


class _Page:
    def __init__(self, limiter: RateLimiter, access: Access, *, read_only: bool, interval: float) -> None:
        self._limiter = limiter
        self._access = access
        self._read_only = read_only
        self._sampler = Sampler(limiter, interval)
        self._details = Details(limiter, interval)
        self._files = _read_files()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        async with self._limiter:
            yield
            self._sampler.stop()

    async def index(self, request: Request) -> Response:
        if await self._access.allows(request):
            response = self._file(request, "index.html")
            self._access.hand_out_csrf(request, response)
        elif self._access.by_token:
            response = self._file(request, "login.html", 401)
            response.headers["www-authenticate"] = "Bearer"
        else:
            raise HTTPException(403, "You may not see this page.")
        response.headers["cache-control"] = "no-store"
        return response

    async def static(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name not in self._files or name.endswith(".html"):
            raise HTTPException(404, "There is no such file.")
        return self._file(request, name)

    async def login(self, request: Request) -> Response:
        self._access.check_origin(request)
        body = await _body(request)
        if not self._access.knows(body.get("token")):
            raise HTTPException(401, "That is not the token.")
        response = Response(status_code=204)
        self._access.log_in(request, response)
        return response

    async def logout(self, request: Request) -> Response:
        self._access.check_origin(request)
        response = Response(status_code=204)
        self._access.log_out(request, response)
        return response

    async def limits(self, request: Request) -> Response:
        await self._let_in(request)
        query = request.query_params
        name = read_key(query.get("name"))
        await self._sampler.watch()
        page = find_page(
            self._sampler,
            name=name[0] if name else None,
            search=query.get("search", "")[:256],
            show=query.get("show", ""),
            order=query.get("order", ""),
            number=_whole(query.get("page", "")),
        )
        await self._sampler.show(page.pairs)
        return self._answer(request, describe(self._sampler, page))

    async def key(self, request: Request) -> Response:
        await self._let_in(request)
        pair = read_key(request.query_params.get("key"))
        if pair is None:
            raise HTTPException(400, "key: must be a key's id")
        await self._sampler.watch()
        # A pause of the name is told of at its key without a subject.
        await self._sampler.show({(pair[0], None), pair})
        status = self._sampler.series[pair].status
        detail = None if status is None else await self._details.of(pair, status)
        return self._answer(request, describe_key(self._sampler, pair, detail))

    async def actions(self, request: Request) -> Response:
        await self._let_in(request)
        if self._read_only:
            raise HTTPException(403, "This page is read-only.")
        self._access.check_action(request)
        who = request.client.host if request.client else "unknown"
        pair = await act(self._limiter, await _body(request), who)
        self._details.forget(pair)
        await self._sampler.read([pair])
        return Response(status_code=204)

    async def _let_in(self, request: Request) -> None:
        if not await self._access.allows(request):
            if self._access.by_token:
                raise HTTPException(401, "Sign in first.", {"www-authenticate": "Bearer"})
            raise HTTPException(403, "You may not see this page.")

    def _answer(self, request: Request, content: dict[str, Any]) -> Response:
        content["read_only"] = self._read_only
        content["sign_out"] = self._access.by_token
        content["csrf"] = self._access.csrf_of(request)
        return _json(content)

    def _file(self, request: Request, name: str, status: int = 200) -> Response:
        content, tag = self._files[name]
        headers = {"etag": tag, "cache-control": "no-cache"}
        if status == 200 and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, status, headers, _TYPES[name.rpartition(".")[2]])


class _SafeHeaders:
    """Adds to every response what keeps a browser from being used against its user."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code, error.headers)


async def _body(request: Request) -> dict[str, Any]:
    """Read a request's JSON, which is never long."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send application/json.")
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MOST_BODY:
            raise HTTPException(413, "That is too long.")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "Send a JSON object.")
    return cast("dict[str, Any]", body)


def _json(content: object, status: int = 200, headers: Any = None) -> Response:
    # Plain ASCII: a subject may hold what is no UTF-8.
    text = json.dumps(content, separators=(",", ":"))
    return Response(text, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _read_files() -> dict[str, tuple[bytes, str]]:
    """Read the page's files, with a tag of each that changes with it."""
    files: dict[str, tuple[bytes, str]] = {}
    for file in (resources.files("ratelimit_async.contrib.dashboard") / "static").iterdir():
        content = file.read_bytes()
        files[file.name] = content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return files
