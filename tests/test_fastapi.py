"""The dependency: what clients, endpoints and OpenAPI see of it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from ratelimit_async import ConfigurationError, Decision, Grant, QueueConfig, RateLimitConfig, RateLimiter
from ratelimit_async.contrib.fastapi import RateLimit, RequestDenied, client_ip, install, lifespan
from tests.helpers import depth_is, eventually
from tests.servers import RedisServer
from tests.web import Connection, client_for, plain_client_for


def app_for(url: str, *routes: tuple[str, Any], on_denied: Any = None, **limits: Any) -> FastAPI:
    """An app with a GET route per path and dependency, which gives what the dependency gave."""
    limiter = RateLimiter(url, limits=limits, default=None, hooks=())
    app = FastAPI(lifespan=lifespan(limiter, on_denied=on_denied))
    for path, limit in routes:
        app.get(path)(_endpoint(limit))
    return app


def _endpoint(limit: Any) -> Any:
    async def endpoint(decided: Annotated[Any, Depends(limit)]) -> str:
        return type(decided).__name__

    return endpoint


def fields(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if "rate" in name or "retry" in name}


async def statuses(client: httpx.AsyncClient, *paths: str, **how: Any) -> list[int]:
    return [(await client.get(path, **how)).status_code for path in paths]


# ---- answers ----


async def test_a_denial_is_a_429_that_says_when_and_nothing_secret(url: str) -> None:
    async with client_for(app_for(url, ("/a", RateLimit("a", by=client_ip)), a="1/hour; 9/day")) as client:
        allowed, denied = await client.get("/a"), await client.get("/a")
    assert (allowed.status_code, denied.status_code) == (200, 429)
    policies = '"a";q=1;w=3600, "a-2";q=9;w=86400'
    assert fields(allowed).keys() == {"ratelimit", "ratelimit-policy"}
    assert allowed.headers["ratelimit-policy"] == denied.headers["ratelimit-policy"] == policies
    assert allowed.headers["ratelimit"].startswith('"a";r=0;t=360')
    seconds = int(denied.headers["retry-after"])
    assert 3000 < seconds <= 3605
    assert denied.headers["ratelimit"] == f'"a";r=0;t={seconds}'
    assert denied.headers["content-type"] == "application/problem+json"
    assert denied.json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests",
        "status": 429,
        "detail": f"Too many requests. Try again in {seconds} s.",
        "violated-policies": ["a"],
    }


async def test_our_own_reader_of_upstreams_reads_the_fields(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a", cost={"tokens": 30})), a="5/minute; 100 tokens/hour")
    async with client_for(app) as client:
        answer = await client.get("/a")
    async with RateLimiter("memory://", limits={"b": "100 tokens/hour"}, hooks=()) as other:
        (told,) = (await other.sync_from_headers("b", answer.headers)).limits
        assert (told.unit, told.remaining, told.limit, told.period) == ("tokens", 70, 100, 3600.0)
        assert (await other.status("b")).limits[0].remaining == 70


@pytest.mark.parametrize(
    ("route", "status"), [("missing", 404), ("broken", 500), ("own", 418), ("invalid", 422), ("stream", 200)]
)
async def test_every_answer_of_a_limited_route_has_the_fields(url: str, route: str, status: int) -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def endpoint(n: int = 0) -> Any:
        if route == "missing":
            raise HTTPException(404)
        if route == "broken":
            raise ZeroDivisionError
        if route == "own":
            return PlainTextResponse("teapot", 418, {"RateLimit": '"upstream";r=1', "Retry-After": "7"})
        return StreamingResponse(drip())

    app = app_for(url, a="5/minute")
    app.get("/a", dependencies=[Depends(RateLimit("a"))])(endpoint)
    async with client_for(app) as client:
        answer = await client.get("/a", params={"n": "x"} if route == "invalid" else None)
    assert answer.status_code == status
    assert '"a";r=4' in answer.headers["ratelimit"]
    if route == "own":
        assert answer.headers.get_list("ratelimit")[0] == '"upstream";r=1'
        assert answer.headers["retry-after"] == "7"


async def test_without_a_limit_there_are_no_fields(url: str) -> None:
    app = app_for(url, a="1/minute")
    app.get("/free")(lambda: 1)
    async with client_for(app) as client:
        assert fields(await client.get("/free")) == {}
        assert (await client.get("/nowhere")).status_code == 404


async def test_of_several_limits_the_strictest_is_told_and_all_policies_are(url: str) -> None:
    app = app_for(url, wide="100/minute", tight="2/minute")
    router = APIRouter(dependencies=[Depends(RateLimit("wide"))])
    tight = RateLimit("tight")
    # The same object twice is one dependency, charged once.
    router.get("/a", dependencies=[Depends(tight), Depends(tight)])(lambda: 1)
    app.include_router(router, prefix="/v1")
    async with client_for(app) as client:
        answers = [await client.get("/v1/a") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    for answer, remaining in zip(answers, (1, 0, 0), strict=True):
        assert answer.headers["ratelimit-policy"] == '"wide";q=100;w=60, "tight";q=2;w=60'
        assert answer.headers["ratelimit"].startswith(f'"tight";r={remaining};t=')


async def test_a_pause_without_end_has_no_time_and_says_to_come_back_later(url: str) -> None:
    limiter = RateLimiter(url, limits={"a": "1/hour"}, hooks=())
    app = FastAPI(lifespan=lifespan(limiter, legacy_headers=True))
    app.get("/a", dependencies=[Depends(RateLimit("a"))])(lambda: 1)
    async with client_for(app) as client:
        await limiter.pause("a")
        answer = await client.get("/a")
        await limiter.resume("a")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["ratelimit"] == '"a";r=0'
    assert "x-ratelimit-reset" not in answer.headers


async def test_other_headers_come_where_they_are_asked_for(url: str) -> None:
    limiter = RateLimiter(url, limits={"a": "1/hour"}, hooks=())
    app = FastAPI(lifespan=lifespan(limiter, legacy_headers=True))
    app.get("/a", dependencies=[Depends(RateLimit("a"))])(lambda: 1)
    async with client_for(app) as client:
        for _ in range(2):
            headers = (await client.get("/a")).headers
            assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("1", "0")
            assert 3000 < int(headers["x-ratelimit-reset"]) <= 3605


async def test_names_that_no_header_can_hold_are_written_with_what_it_can(url: str) -> None:
    name = 'é"\\\r\nSet-Cookie: x'
    limiter = RateLimiter(url, limits={name: "1 per 0.5 seconds"}, hooks=())
    app = FastAPI(lifespan=lifespan(limiter))
    app.get("/a", dependencies=[Depends(RateLimit(name))])(lambda: 1)
    async with client_for(app) as client:
        answer = await client.get("/a")
    assert answer.headers["ratelimit-policy"] == '"?\\"\\\\??Set-Cookie: x";q=1;w=1'
    assert "set-cookie" not in answer.headers


# ---- whose, and how much ----


async def test_by_may_be_a_value_a_function_async_or_not_or_a_dependency(url: str) -> None:
    def key(x_key: Annotated[str, Header()]) -> str:
        return x_key

    def of(request: Request) -> str:
        return request.headers["x-key"]

    async def slowly(request: Request) -> str:
        return of(request)

    ways = [of, slowly, lambda request: request.headers["x-key"], Depends(key)]
    app = app_for(url, *((f"/{i}", RateLimit("a", by=by)) for i, by in enumerate(ways)), a="1/hour")
    app.get("/all", dependencies=[Depends(RateLimit("a", by="one for all"))])(lambda: 1)
    async with client_for(app) as client:
        for i in range(len(ways)):
            for user in ("x", "y"):
                mine = {"x-key": f"{user}{i}"}
                assert await statuses(client, f"/{i}", f"/{i}", headers=mine) == [200, 429]
        # What the dependency refuses has charged nothing.
        assert await statuses(client, "/3") == [422]
        assert await statuses(client, "/all", "/all") == [200, 429]


async def test_cost_may_be_a_number_a_mapping_a_function_or_a_dependency(url: str) -> None:
    def of_body(text: Annotated[str, Body(embed=True)]) -> dict[str, int]:
        return {"tokens": len(text)}

    async def asked(request: Request) -> int:
        return int(request.query_params["n"])

    app = app_for(url, ("/two", RateLimit("a", cost=2)), ("/n", RateLimit("a", cost=asked)), a="9/hour", b="9 tokens/h")

    @app.post("/b")
    async def post(
        text: Annotated[str, Body(embed=True)],
        decision: Annotated[Decision, Depends(RateLimit("b", cost=Depends(of_body)))],
    ) -> tuple[str, int]:
        return text, decision.remaining

    async with client_for(app) as client:
        assert await statuses(client, "/two", "/n?n=3", "/n?n=4", "/n?n=5") == [200, 200, 200, 429]
        assert (await client.post("/b", json={"text": "hello"})).json() == ["hello", 4]
        assert (await client.post("/b", json={"text": "hello"})).status_code == 429
        assert (await client.post("/b", json={"text": "hell"})).json() == ["hell", 0]


async def test_a_cost_that_can_never_pass_is_a_413_and_no_matter_of_time(url: str) -> None:
    async with client_for(app_for(url, ("/a", RateLimit("a", cost=6)), a="5/minute")) as client:
        answer = await client.get("/a")
    assert answer.status_code == 413
    assert fields(answer) == {}
    assert answer.json()["title"] == "This request costs more than can ever be allowed"


async def test_the_endpoint_sees_what_was_decided(url: str) -> None:
    app = app_for(url, a="3/hour")
    Limited = Annotated[Decision, Depends(RateLimit("a"))]  # noqa: N806 - a type

    @app.get("/a")
    async def endpoint(request: Request, decision: Limited) -> int:
        assert request.state.rate_limit is decision
        assert request.app.state.limiter.config("a").limits[0].amount == 3
        return decision.remaining

    async with client_for(app) as client:
        assert [(await client.get("/a")).json() for _ in range(3)] == [2, 1, 0]


async def test_an_endpoint_settles_its_true_cost(url: str) -> None:
    app = app_for(url, a="100 tokens/hour")

    @app.get("/a")
    async def endpoint(grant: Annotated[Grant, Depends(RateLimit("a", cost={"tokens": 90}, wait=0))]) -> None:
        await grant.settle({"tokens": 10})

    async with client_for(app) as client:
        assert await statuses(client, *["/a"] * 3) == [200, 200, 429]


# ---- waiting and holding ----


async def test_with_wait_the_endpoint_runs_at_its_turn(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a", wait=30)), a="1 per 0.3 seconds")
    async with client_for(app) as client:
        answers = await asyncio.gather(*(client.get("/a") for _ in range(3)))
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "Grant")] * 3


async def test_a_turn_that_does_not_come_in_time_is_a_429(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a", wait=0.05)), a="1/hour")
    async with client_for(app) as client:
        first, second = await client.get("/a"), await client.get("/a")
        assert (first.status_code, second.status_code) == (200, 429)
        assert int(second.headers["retry-after"]) > 3000
        assert await depth_is(app.state.limiter, "a", 0)


async def test_a_full_queue_is_a_429(url: str) -> None:
    config = RateLimitConfig("1/hour", QueueConfig(max_size=1))
    app = app_for(url, ("/a", RateLimit("a", wait=60)), a=config)
    async with client_for(app) as client:
        assert await statuses(client, "/a") == [200]
        waiting = asyncio.create_task(client.get("/a"))
        await eventually(lambda: depth_is(app.state.limiter, "a", 1))
        denied = await client.get("/a")
        assert denied.status_code == 429
        assert int(denied.headers["retry-after"]) >= 1
        assert denied.headers["ratelimit"].startswith('"a";r=0')
        assert "violated-policies" not in denied.json()
        (entry,) = [one async for one in app.state.limiter.waiting("a")]
        await app.state.limiter.cancel(entry.id)
        cancelled = await waiting
        assert (cancelled.status_code, cancelled.headers["retry-after"]) == (503, "5")


async def test_a_slot_is_free_when_the_answer_is_over_or_the_endpoint_fails(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a")), a="1 concurrent")
    inside, end = asyncio.Event(), asyncio.Event()

    @app.get("/held", dependencies=[Depends(RateLimit("a"))])
    async def held() -> None:
        inside.set()
        await end.wait()

    @app.get("/fails", dependencies=[Depends(RateLimit("a"))])
    async def fails() -> None:
        raise ZeroDivisionError

    async with client_for(app) as client:
        holding = asyncio.create_task(client.get("/held"))
        await inside.wait()
        assert await statuses(client, "/a") == [429]
        end.set()
        assert (await holding).headers["ratelimit-policy"] == '"a";q=1;qu="concurrent-requests"'
        assert await statuses(client, "/fails", "/fails", "/a", "/a") == [500, 500, 200, 200]


async def test_a_client_that_goes_away_while_it_waits_gives_its_place_back(url: str) -> None:
    ran = list[bytes]()
    app = app_for(url, a="1/hour")

    @app.post("/a", dependencies=[Depends(RateLimit("a", wait=60))])
    async def endpoint(request: Request) -> None:
        ran.append(await request.body())

    async with app.router.lifespan_context(app):
        limiter = app.state.limiter
        await limiter.hit("a")
        leaves, stays = (Connection(app, "/a", method="POST") for _ in range(2))
        await eventually(lambda: depth_is(limiter, "a", 2))
        # What it says while it waits reaches the endpoint, in order.
        for one in (leaves, stays):
            one.say("http.request", body=b"hel", more_body=True)
        leaves.say("http.disconnect")
        await leaves.task
        assert leaves.status == 499
        assert await depth_is(limiter, "a", 1)
        await limiter.reset("a")
        stays.say("http.request", body=b"lo", more_body=False)
        await stays.task
        assert stays.status == 200
        assert ran == [b"hello"]


async def test_what_a_waiting_client_sends_is_kept_within_bounds(url: str) -> None:
    app = app_for(url, a="1/hour")
    sizes = list[int]()

    @app.post("/a", dependencies=[Depends(RateLimit("a", wait=60)), Depends(RateLimit("b", wait=60))])
    async def endpoint(request: Request) -> None:
        sizes.append(len(await request.body()))

    async with app.router.lifespan_context(app):
        await app.state.limiter.configure({"b": "9/hour"})
        await app.state.limiter.hit("a")
        loud = Connection(app, "/a", method="POST")
        await eventually(lambda: depth_is(app.state.limiter, "a", 1))
        for _ in range(20):
            loud.say("http.request", body=b"x" * 10_000, more_body=True)
        await eventually(lambda: loud.unheard == 13)
        await app.state.limiter.reset("a")
        loud.say("http.request", body=b"", more_body=False)
        await loud.task
    assert sizes == [200_000]


async def test_a_server_that_stops_a_waiting_request_leaves_nothing_behind(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a", wait=60)), a="1/hour")
    async with app.router.lifespan_context(app):
        await app.state.limiter.hit("a")
        waiting = Connection(app, "/a")
        await eventually(lambda: depth_is(app.state.limiter, "a", 1))
        waiting.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting.task
        await eventually(lambda: depth_is(app.state.limiter, "a", 0))


# ---- trouble ----


async def test_paused_is_a_503(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a")), a="5/minute")
    async with client_for(app) as client:
        await app.state.limiter.pause_for("a", 30)
        answer = await client.get("/a")
        assert answer.status_code == 503
        assert 0 < int(answer.headers["retry-after"]) <= 30
        assert answer.headers["ratelimit"].startswith('"a";r=0')
        assert answer.json() == {
            "type": "about:blank",
            "title": "Not available at the moment",
            "status": 503,
            "detail": "Not available at the moment.",
        }
        await app.state.limiter.resume("a")
        assert await statuses(client, "/a") == [200]


@pytest.mark.real_redis
async def test_in_an_outage_the_configuration_decides(own_server: RedisServer) -> None:
    kinds = {"local": 200, "allow": 200, "deny": 503, "raise": 503}
    limits = {kind: RateLimitConfig("9/minute", on_outage=kind) for kind in kinds}  # type: ignore[arg-type]
    routes = [(f"/{kind}", RateLimit(kind)) for kind in kinds]
    routes += [(f"/wait/{kind}", RateLimit(kind, wait=1)) for kind in kinds]
    async with client_for(app_for(own_server.url, *routes, **limits)) as client:
        own_server.kill()
        for prefix in ("", "/wait"):
            for kind, status in kinds.items():
                answer = await client.get(f"{prefix}/{kind}")
                assert answer.status_code == status, (prefix, kind)
                assert ("retry-after" in answer.headers) == (status == 503)
                assert ("ratelimit" in answer.headers) == (kind == "local")
                assert str(own_server.port) not in answer.text


@pytest.mark.real_redis
async def test_a_turn_that_an_outage_keeps_from_coming_is_a_429(own_server: RedisServer) -> None:
    config = RateLimitConfig("1/hour", on_outage="raise")
    app = app_for(own_server.url, ("/a", RateLimit("a", wait=0.5)), a=config)
    async with client_for(app) as client:
        assert await statuses(client, "/a") == [200]
        waiting = asyncio.create_task(client.get("/a"))
        await eventually(lambda: depth_is(app.state.limiter, "a", 1))
        own_server.kill()
        denied = await waiting
        assert (denied.status_code, denied.headers["retry-after"]) == (429, "5")
        assert "ratelimit" not in denied.headers


@pytest.mark.real_redis
async def test_a_redis_that_refuses_is_an_error_of_the_server(own_server: RedisServer) -> None:
    async with client_for(app_for(own_server.url, ("/a", RateLimit("a")), a="9/minute")) as client:
        own_server.call("CONFIG", "SET", "maxmemory", "1")
        answer = await client.get("/a")
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")


async def test_without_a_limiter_the_error_says_what_to_do() -> None:
    app = FastAPI()
    app.get("/a", dependencies=[Depends(RateLimit("a"))])(lambda: 1)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(ConfigurationError, match="lifespan"):
            await client.get("/a")


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("name", {"name": ""}),
        ("name", {"name": 5}),
        ("by", {"by": 1.5}),
        ("cost", {"cost": "many"}),
        ("wait", {"wait": -1}),
        ("wait", {"wait": "long"}),
    ],
)
def test_nonsense_is_refused_by_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RateLimit(**{"name": "a", **arguments})
    assert caught.value.field == field


@pytest.mark.parametrize("module", ["fastapi", "starlette"])
def test_what_is_missing_is_named_with_its_extra(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; import ratelimit_async.contrib.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f'ImportError: ratelimit_async.contrib.{module} needs {module}: pip install "ratelimit-async[fastapi]"' in (
        done.stderr
    )


# ---- an app's own ways ----


async def test_an_app_answers_denials_its_own_way(url: str) -> None:
    def plainly(request: Request, denied: RequestDenied) -> JSONResponse:
        return JSONResponse({"name": denied.name, "path": request.url.path}, denied.status_code)

    async def slowly(request: Request, denied: RequestDenied) -> JSONResponse:
        assert denied.decision is not None
        return JSONResponse({"name": denied.decision.reason, "path": request.url.path}, denied.status_code)

    for on_denied, name in ((plainly, "a"), (slowly, "limit")):
        app = app_for(url, ("/a", RateLimit("a", by=name)), on_denied=on_denied, a="1/hour")
        async with client_for(app) as client:
            assert await statuses(client, "/a") == [200]
            denied = await client.get("/a")
            assert denied.json() == {"name": name, "path": "/a"}
            assert int(denied.headers["retry-after"]) > 3000
            assert "ratelimit" in denied.headers


@pytest.mark.parametrize("what", [429, RequestDenied])
async def test_an_exception_handler_of_the_app_s_own_goes_first(url: str, what: Any) -> None:
    app = app_for(url, ("/a", RateLimit("a")), a="1/hour")

    @app.exception_handler(what)
    async def handle(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("slow down", 429)

    async with client_for(app) as client:
        assert await statuses(client, "/a") == [200]
        denied = await client.get("/a")
        assert denied.text == "slow down"
        assert int(denied.headers["retry-after"]) > 3000


async def test_a_limit_can_be_overridden_in_tests(url: str) -> None:
    limit = RateLimit("a")
    app = app_for(url, ("/a", limit), a="1/hour")
    async with client_for(app) as client:
        app.dependency_overrides[limit] = lambda: None
        assert [(await client.get("/a")).json() for _ in range(3)] == ["NoneType"] * 3
        app.dependency_overrides.clear()
        assert await statuses(client, "/a", "/a") == [200, 429]


async def test_a_mounted_app_takes_from_the_limiter_around_it_or_its_own(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a")), a="1/hour")
    sharing, own = FastAPI(), FastAPI()
    for inner in (sharing, own):
        inner.get("/a", dependencies=[Depends(RateLimit("a"))])(lambda: 1)
    app.mount("/sharing", sharing)
    app.mount("/own", own)
    async with RateLimiter("memory://", limits={"a": "2/hour"}, hooks=()) as limiter, client_for(app) as client:
        install(own, limiter)
        assert await statuses(client, "/a", "/a", "/sharing/a") == [200, 429, 429]
        denied = await client.get("/sharing/a")
        assert denied.headers["content-type"] == "application/problem+json"
        assert len(denied.headers.get_list("ratelimit")) == 1
        assert await statuses(client, "/own/a", "/own/a", "/own/a") == [200, 200, 429]
        answer = await client.get("/own/a")
        assert answer.headers.get_list("ratelimit-policy") == ['"a";q=2;w=3600']


async def test_an_app_can_begin_again_and_with_another_limiter(url: str) -> None:
    app = app_for(url, ("/a", RateLimit("a")), a="1/hour")
    for status in (200, 429):
        async with client_for(app) as client:
            answer = await client.get("/a")
            assert answer.status_code == status
            assert len(answer.headers.get_list("ratelimit")) == 1
    for _ in range(2):
        async with RateLimiter("memory://", limits={"a": "1/hour"}, hooks=()) as another:
            install(app, another)
            async with plain_client_for(app) as client:
                assert await statuses(client, "/a", "/a") == [200, 429]


async def test_installed_before_the_app_is_complete_it_stands_outside_of_all(url: str) -> None:
    app = FastAPI()
    async with RateLimiter(url, limits={"a": "3/hour"}, hooks=()) as limiter:
        install(app, limiter)

        @app.middleware("http")
        async def around(request: Request, call_next: Any) -> Any:
            answer = await call_next(request)
            assert "ratelimit" not in answer.headers
            return answer

        @app.get("/a", dependencies=[Depends(RateLimit("a", wait=1))])
        async def endpoint(request: Request) -> int:
            return len(await request.body())

        async with plain_client_for(app) as client:
            answer = await client.request("GET", "/a", content=b"hello")
            assert answer.json() == 5
            assert answer.headers["ratelimit"].startswith('"a";r=2')


def test_openapi_shows_the_429_of_limited_routes() -> None:
    app = FastAPI()
    limit = RateLimit("a")

    def nested(decision: Annotated[Decision, Depends(limit)]) -> None: ...

    router = APIRouter(prefix="/r", dependencies=[Depends(limit)])
    router.get("/{id}")(lambda: 1)
    app.include_router(router)
    app.get("/free")(lambda: 1)
    app.post("/nested", dependencies=[Depends(nested)])(lambda: 1)
    app.get("/own", dependencies=[Depends(limit)], responses={429: {"description": "mine"}})(lambda: 1)
    app.get("/hidden", dependencies=[Depends(limit)], include_in_schema=False)(lambda: 1)
    limiter = RateLimiter("memory://")
    install(app, limiter)
    install(app, limiter)
    for _ in range(2):
        paths = app.openapi()["paths"]
        assert paths["/r/{id}"]["get"]["responses"]["429"]["headers"].keys() == {
            "Retry-After",
            "RateLimit",
            "RateLimit-Policy",
        }
        assert "application/problem+json" in paths["/nested"]["post"]["responses"]["429"]["content"]
        assert paths["/own"]["get"]["responses"]["429"] == {"description": "mine"}
        assert "429" not in paths["/free"]["get"]["responses"]
        assert "/hidden" not in paths


# ---- websockets ----


@pytest.mark.parametrize("extensions", [None, {"websocket.http.response": {}}])
async def test_a_websocket_is_denied_before_its_handshake(url: str, extensions: Any) -> None:
    app = app_for(url, a="1/hour")

    @app.websocket("/a")
    async def endpoint(websocket: WebSocket, decision: Annotated[Decision, Depends(RateLimit("a"))]) -> None:
        await websocket.accept()
        await websocket.send_text(str(decision.remaining))
        await websocket.close()

    async with app.router.lifespan_context(app):
        heard = list[list[Any]]()
        for _ in range(2):
            websocket = Connection(app, "/a", "websocket", extensions=extensions)
            websocket.say("websocket.connect")
            await websocket.task
            heard.append(websocket.answers)
    allowed, denied = heard
    accept = {name.decode(): value.decode() for name, value in allowed[0]["headers"]}
    assert accept["ratelimit-policy"] == '"a";q=1;w=3600'
    assert allowed[1]["text"] == "0"
    if extensions is None:
        assert [(one["type"], one["code"]) for one in denied] == [("websocket.close", 1013)]
    else:
        assert (denied[0]["type"], denied[0]["status"]) == ("websocket.http.response.start", 429)
        assert {b"retry-after", b"ratelimit", b"ratelimit-policy"} <= {name for name, _ in denied[0]["headers"]}
