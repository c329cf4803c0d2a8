"""The middleware for aiohttp that its page shows, toward a real server."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientOSError, ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestServer

from ratelimit_async import RateLimitConfig, RateLimiter, RedisUnavailable, RequestTimeout, RetryAfter
from tests.llm_client import definitions_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.servers import RedisServer


class Upstream:
    """Rejects as many requests as it is told, then echoes; notes the bodies that arrive."""

    def __init__(self, rejects: int) -> None:
        self.rejects = rejects
        self.arrived: list[bytes] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.arrived.append(await request.read())
        if len(self.arrived) <= self.rejects:
            return web.Response(status=429, headers={"Retry-After": "0.05"})
        return web.Response(body=self.arrived[-1])

    def serve(self) -> TestServer:
        app = web.Application()
        app.router.add_post("/", self.answer)
        return TestServer(app)


def client_of(limiter: RateLimiter, server: TestServer) -> ClientSession:
    page = definitions_of("aiohttp.md")
    page["limiter"] = limiter
    timeout = ClientTimeout(total=None, sock_connect=10, sock_read=60)
    return ClientSession(server.make_url("/"), middlewares=(page["limited"],), timeout=timeout)


async def stream() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


@pytest.mark.parametrize(
    ("body", "sent"),
    [({}, b""), ({"data": b"abc"}, b"abc"), ({"json": [1]}, b"[1]"), ({"data": {"k": "v"}}, b"k=v")],
    ids=["none", "bytes", "json", "form"],
)
async def test_what_is_rejected_is_sent_again_as_it_was(url: str, body: dict[str, Any], sent: bytes) -> None:
    upstream = Upstream(rejects=2)
    limiter = RateLimiter(url, limits={"crm": "9/minute"})
    async with limiter, upstream.serve() as server, client_of(limiter, server) as client:
        async with client.post("/", **body) as response:
            assert (response.status, await response.read()) == (200, sent)
        assert upstream.arrived == [sent] * 3
        assert (await limiter.status("crm")).limits[0].used == 3


@pytest.mark.parametrize("make", [stream, lambda: io.BytesIO(b"onetwo")], ids=["stream", "file"])
async def test_the_rejection_of_what_cannot_be_sent_twice_is_the_callers(url: str, make: Callable[[], Any]) -> None:
    upstream = Upstream(rejects=1)
    limiter = RateLimiter(url, limits={"crm": "9/minute"})
    async with limiter, upstream.serve() as server, client_of(limiter, server) as client:
        async with client.post("/", data=make()) as response:
            assert response.status == 429
        assert upstream.arrived == [b"onetwo"]


async def test_an_upstream_that_always_rejects_is_asked_four_times(url: str) -> None:
    upstream = Upstream(rejects=9)
    limiter = RateLimiter(url, limits={"crm": "9/minute"})
    async with limiter, upstream.serve() as server, client_of(limiter, server) as client:
        with pytest.raises(RetryAfter):
            await client.post("/", data=b"x")
    assert len(upstream.arrived) == 4


async def test_what_does_not_get_its_turn_is_not_sent(url: str) -> None:
    upstream = Upstream(rejects=0)
    limiter = RateLimiter(url, limits={"crm": {"limits": "1/minute", "queue": {"timeout": 0.05}}})
    async with limiter, upstream.serve() as server, client_of(limiter, server) as client:
        await client.post("/", data=b"x")
        with pytest.raises(RequestTimeout):
            await client.post("/", data=b"y")
    assert upstream.arrived == [b"x"]


@pytest.mark.real_redis
async def test_an_outage_is_the_cause_of_what_aiohttp_raises(own_server: RedisServer) -> None:
    upstream = Upstream(rejects=0)
    limiter = RateLimiter(own_server.url, limits={"crm": RateLimitConfig("9/minute", on_outage="raise")})
    async with limiter, upstream.serve() as server, client_of(limiter, server) as client:
        own_server.kill()
        with pytest.raises(ClientOSError) as caught:
            await client.post("/", data=b"x")
        assert isinstance(caught.value.__cause__, RedisUnavailable)
    assert upstream.arrived == []
