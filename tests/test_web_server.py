"""A real uvicorn, with several workers, as its clients see it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ratelimit_async import RateLimiter
from tests.helpers import CLEAN, depth_is, eventually, leftovers
from tests.web import UvicornServer
from tests.web_app import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

pytestmark = [pytest.mark.real_redis, pytest.mark.slow]
WORKERS = 4


@pytest.fixture(scope="module")
def server(redis_server: RedisServer) -> Iterator[UvicornServer]:
    with UvicornServer("tests.web_app:app", redis_server.url, "--workers", str(WORKERS)) as server:
        yield server
        assert server.terminate() == 0


@pytest.fixture
async def limiter(redis_server: RedisServer):
    async with RateLimiter(redis_server.url, limits=LIMITS, processor=False) as limiter:
        for name in LIMITS:
            await limiter.reset(name)
        yield limiter


async def test_all_workers_together_let_exactly_so_many_pass(server: UvicornServer, limiter: RateLimiter) -> None:
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=0)
    answers = list[httpx.Response]()

    async def ask() -> bool:
        """Whom the kernel gives a connection to is its choice: ask until several have answered."""
        answers.extend(await asyncio.gather(*(client.get("/search") for _ in range(100))))
        return len({answer.headers["x-worker"] for answer in answers}) > 1

    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
        await eventually(ask, 60)
    assert Counter(answer.status_code for answer in answers) == {200: 40, 429: len(answers) - 40}
    for answer in answers:
        assert answer.headers["ratelimit-policy"] == '"search";q=40;w=3600'
        assert ("retry-after" in answer.headers) == (answer.status_code == 429)


async def test_an_error_of_the_route_carries_the_fields(server: UvicornServer, limiter: RateLimiter) -> None:
    await limiter.reset("search", by="boom")
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.get("/boom")
    assert answer.status_code == 500
    assert answer.headers["ratelimit"].startswith('"search";r=39;t=360')


async def test_the_middleware_of_all_workers_counts_together(server: UvicornServer, limiter: RateLimiter) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        answers = [await client.get("/api/anything") for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3


async def test_a_stream_holds_its_slot_to_its_end(server: UvicornServer, limiter: RateLimiter) -> None:
    async def passes() -> bool:
        async with client.stream("GET", "/stream") as answer:
            return answer.status_code == 200

    async with httpx.AsyncClient(base_url=server.url) as client:
        async with client.stream("GET", "/stream") as answer:
            assert answer.headers["ratelimit"] == '"stream";r=0'
            async for _ in answer.aiter_raw():
                denied = await client.get("/stream")
                assert denied.status_code == 429
                assert int(denied.headers["retry-after"]) >= 1
                break
        await eventually(passes)


async def test_a_client_that_goes_away_while_it_waits_gives_its_place_back(
    server: UvicornServer, limiter: RateLimiter, redis_server: RedisServer
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        assert (await client.get("/turn")).status_code == 200
        waiting = asyncio.create_task(client.get("/turn"))
        await eventually(lambda: depth_is(limiter, "turns", 1))
        waiting.cancel()
        await eventually(lambda: depth_is(limiter, "turns", 0))
        again = asyncio.create_task(client.get("/turn"))
        await eventually(lambda: depth_is(limiter, "turns", 1))
        await limiter.reset("turns")
        assert (await again).status_code == 200
    await eventually(lambda: _clean(redis_server.url))


async def _clean(url: str) -> bool:
    return (await leftovers(url))["for ever"] == CLEAN["for ever"]


async def test_a_websocket_holds_its_slot_while_it_is_open(server: UvicornServer, limiter: RateLimiter) -> None:
    url = server.url.replace("http", "ws") + "/socket"

    async def passes() -> bool:
        try:
            async with connect(url):
                return True
        except InvalidStatus:
            return False

    async with connect(url) as websocket:
        await websocket.send("hello")
        assert (await websocket.recv()).startswith("hello")
        assert websocket.response is not None
        assert websocket.response.headers["RateLimit"] == '"socket";r=0'
        with pytest.raises(InvalidStatus) as caught:
            await connect(url)
        assert caught.value.response.status_code == 429
        assert caught.value.response.headers["Content-Type"] == "application/problem+json"
        assert int(caught.value.response.headers["Retry-After"]) >= 1
    await eventually(passes)


async def test_a_trusted_proxy_says_whose_request_it_is(server: UvicornServer, limiter: RateLimiter) -> None:
    for by in ("192.0.2.1", "2001:db8:0:1::/64"):
        await limiter.reset("proxied", by=by)
    async with httpx.AsyncClient(base_url=server.url) as client:
        told = ["192.0.2.1", "2001:db8:0:1::5", "2001:db8:0:1::6", "6.6.6.6, 192.0.2.1"]
        answers = [await client.get("/proxied", headers={"x-real-client": one}) for one in told]
    assert [answer.json() for answer in answers] == [1, 1, 0, 0]


async def test_terminated_it_lets_running_requests_end(redis_url: str) -> None:
    with UvicornServer("tests.web_app:app", redis_url, "--workers", "2") as server:
        async with (
            RateLimiter(redis_url, limits=LIMITS, processor=False) as limiter,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):
            assert (await client.get("/turn")).status_code == 200
            waiting = asyncio.create_task(client.get("/turn"))
            await eventually(lambda: depth_is(limiter, "turns", 1))
            ending = asyncio.create_task(asyncio.to_thread(server.terminate))
            await limiter.reset("turns")
            assert (await waiting).status_code == 200
            assert await ending == 0
