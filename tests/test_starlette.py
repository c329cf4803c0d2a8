"""The middleware: which requests it limits, in Starlette and in any other ASGI app."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from ratelimit_async import ConfigurationError, RateLimiter
from ratelimit_async.contrib.starlette import RateLimitMiddleware, RequestDenied, client_ip, install, lifespan
from tests.helpers import depth_is, eventually
from tests.web import Connection, client_for, plain_client_for

if TYPE_CHECKING:
    import httpx
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send


async def endpoint(request: Request) -> Response:
    return JSONResponse(type(getattr(request.state, "rate_limit", None)).__name__)


async def fails(request: Request) -> Response:
    raise ZeroDivisionError


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI app of no framework."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("hello")(scope, receive, send)


def app_for(url: str, *middleware: Middleware, **limits: Any) -> Starlette:
    limiter = RateLimiter(url, limits=limits, default=None, hooks=())
    routes = [Route(path, endpoint, methods=["GET", "OPTIONS"]) for path in ("/a", "/api/a", "/api/b", "/health")]
    routes += [Route("/fails", fails)]
    return Starlette(routes=routes, lifespan=lifespan(limiter), middleware=middleware)


def limited(name: str, **how: Any) -> Middleware:
    return Middleware(RateLimitMiddleware, name=name, **how)


async def statuses(client: httpx.AsyncClient, *paths: str, **how: Any) -> list[int]:
    return [(await client.get(path, **how)).status_code for path in paths]


async def test_it_limits_all_requests_of_an_app_and_tells_on_every_answer(url: str) -> None:
    async with client_for(app_for(url, limited("all", by=client_ip), all="4/hour")) as client:
        answers = [await client.get(path) for path in ("/a", "/fails", "/nowhere", "/api/a", "/a")]
    assert [answer.status_code for answer in answers] == [200, 500, 404, 200, 429]
    assert answers[0].json() == "Decision"
    for answer, remaining in zip(answers, (3, 2, 1, 0, 0), strict=True):
        assert answer.headers["ratelimit"].startswith(f'"all";r={remaining};t=')
    assert answers[4].json()["violated-policies"] == ["all"]
    assert int(answers[4].headers["retry-after"]) > 3000


async def test_paths_and_exemptions_are_patterns(url: str) -> None:
    app = app_for(url, limited("api", paths=["/api/*", "/fail?"], exempt=["*/b"]), api="1/hour")
    async with client_for(app) as client:
        assert await statuses(client, *["/a", "/health", "/api/b", "/api"] * 2) == [200, 200, 200, 404] * 2
        assert await statuses(client, "/api/a", "/api/a", "/api/", "/fails") == [200, 429, 429, 429]


async def test_exemptions_may_be_functions_async_or_not(url: str) -> None:
    def is_internal(connection: HTTPConnection) -> bool:
        return connection.headers.get("x-who") == "internal"

    async def is_admin(connection: HTTPConnection) -> bool:
        return connection.headers.get("x-who") == "admin"

    app = app_for(url, limited("all", exempt=["/health", is_internal, is_admin]), all="1/hour")
    async with client_for(app) as client:
        for who in ("internal", "admin"):
            assert await statuses(client, "/a", "/a", headers={"x-who": who}) == [200, 200]
        assert await statuses(client, "/a", "/a", "/health") == [200, 429, 200]


async def test_preflight_requests_of_browsers_pass_and_no_others(url: str) -> None:
    cors = Middleware(CORSMiddleware, allow_origins=["https://a.example"], expose_headers=["RateLimit"])
    # Outside, denials carry the headers without which a browser hides them.
    async with client_for(app_for(url, cors, limited("all"), all="1/hour")) as client:
        assert await statuses(client, "/a") == [200]
        origin = {"origin": "https://a.example"}
        denied = await client.get("/a", headers=origin)
        assert (denied.status_code, denied.headers["access-control-allow-origin"]) == (429, "https://a.example")
    async with client_for(app_for(url, limited("all"), all="1/hour")) as client:
        for headers, status in (
            ({}, 429),
            (origin, 429),
            ({**origin, "access-control-request-method": "GET"}, 200),
        ):
            assert (await client.options("/a", headers=headers)).status_code == status, headers


async def test_several_of_them_are_all_asked_and_tell_together(url: str) -> None:
    app = app_for(url, limited("wide"), limited("tight", paths=["/api/*"]), wide="9/hour", tight="1/hour")
    async with client_for(app) as client:
        assert await statuses(client, "/a", "/api/a", "/api/a", "/a") == [200, 200, 429, 200]
        answer = await client.get("/api/a")
        assert answer.headers["ratelimit-policy"] == '"wide";q=9;w=3600, "tight";q=1;w=3600'
        assert answer.headers["ratelimit"].startswith('"tight";r=0;t=')


async def test_a_route_and_a_mounted_app_have_their_own(url: str) -> None:
    app = app_for(url, route="1/hour", mount="1/hour")
    app.router.routes.append(Route("/one", endpoint, middleware=[limited("route")]))
    inner = RateLimitMiddleware(Starlette(routes=[Route("/x", endpoint)]), "mount", paths=["/in/*"])
    app.router.routes.append(Mount("/in", inner))
    async with client_for(app) as client:
        assert await statuses(client, "/one", "/one", "/a", "/in/x", "/in/x") == [200, 429, 200, 200, 429]


async def test_it_waits_and_the_endpoint_gets_a_grant(url: str) -> None:
    async with client_for(app_for(url, limited("turns", wait=30), turns="1 per 0.2 seconds")) as client:
        answers = await asyncio.gather(*(client.get("/a") for _ in range(3)))
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "Grant")] * 3


async def test_who_goes_away_while_waiting_runs_nothing(url: str) -> None:
    app = app_for(url, limited("turns", wait=60), turns="1/hour")
    async with app.router.lifespan_context(app):
        await app.state.limiter.hit("turns")
        waiting = Connection(app, "/fails")
        waiting.say("http.request", body=b"", more_body=False)
        await eventually(lambda: depth_is(app.state.limiter, "turns", 1))
        waiting.say("http.disconnect")
        await waiting.task
        assert waiting.status == 499
        assert await depth_is(app.state.limiter, "turns", 0)


async def test_an_app_answers_denials_its_own_way(url: str) -> None:
    async def shortly(connection: HTTPConnection, denied: RequestDenied) -> Response:
        return PlainTextResponse(f"{connection.url.path}: {denied.detail}", denied.status_code)

    app = app_for(url, limited("all"))
    async with RateLimiter(url, limits={"all": "1/hour"}, hooks=()) as limiter:
        install(app, limiter, on_denied=shortly)
        async with plain_client_for(app) as client:
            assert await statuses(client, "/a") == [200]
            answer = await client.get("/a")
            assert (answer.status_code, answer.text) == (429, "/a: Too many requests.")
            assert "retry-after" in answer.headers


async def test_an_asgi_app_of_no_framework_brings_its_limiter(url: str) -> None:
    async with RateLimiter(url, limits={"all": "1/hour"}, hooks=()) as limiter:
        app = RateLimitMiddleware(plain, "all", limiter=limiter, exempt=["/free"])
        async with plain_client_for(app) as client:
            answers = [await client.get(path) for path in ("/a", "/a", "/free")]
        assert [answer.status_code for answer in answers] == [200, 429, 200]
        assert ["ratelimit" in answer.headers for answer in answers] == [True, True, False]


async def test_without_any_limiter_the_error_says_what_to_do() -> None:
    app = RateLimitMiddleware(plain, "all")
    with pytest.raises(ConfigurationError, match="install"):
        await Connection(app, "/a").task


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_websocket_is_denied_before_its_handshake(url: str, extensions: Any) -> None:
    async with RateLimiter(url, limits={"sockets": "1 concurrent"}, hooks=()) as limiter:
        open_, end = asyncio.Event(), asyncio.Event()

        async def stays(scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "websocket.connect"
            open_.set()
            await end.wait()

        app = RateLimitMiddleware(stays, "sockets", limiter=limiter)
        holding = Connection(app, "/a", "websocket", extensions=extensions)
        holding.say("websocket.connect")
        await open_.wait()
        second = Connection(app, "/a", "websocket", extensions=extensions)
        await second.task
        answer = second.answers[0]
        if extensions:
            assert (answer["type"], answer["status"]) == ("websocket.http.response.start", 429)
        else:
            assert answer == {"type": "websocket.close", "code": 1013, "reason": "Too many requests."}
        end.set()
        await holding.task
        third = Connection(app, "/a", "websocket", extensions=extensions)
        third.say("websocket.connect")
        await third.task
        assert third.answers == []


async def test_it_lets_other_kinds_of_calls_through() -> None:
    seen = list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await Connection(RateLimitMiddleware(app, "all"), "/", "lifespan").task
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("paths", {"paths": "/api/*"}),
        ("paths", {"paths": ["api"]}),
        ("paths", {"paths": [1]}),
        ("exempt", {"exempt": "/health"}),
        ("exempt", {"exempt": [None]}),
        ("wait", {"wait": True}),
    ],
)
def test_nonsense_is_refused_by_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RateLimitMiddleware(plain, "all", **arguments)
    assert caught.value.field == field
