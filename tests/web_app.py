"""What test_web_server serves."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from ratelimit_async import Decision, Grant, RateLimiter
from ratelimit_async.contrib.fastapi import ClientIP, RateLimit, RateLimitMiddleware, lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMITS = {
    "search": "40/hour",
    "stream": "1 concurrent",
    "turns": "1/hour",
    "socket": "1 concurrent",
    "proxied": "2/hour",
    "api": "5/hour",
}
limiter = RateLimiter.from_env(limits=LIMITS, hooks=())
app = FastAPI(lifespan=lifespan(limiter))
app.add_middleware(RateLimitMiddleware, name="api", paths=["/api/*"])


class Worker:
    """Says on every answer which worker gave it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-worker", str(os.getpid()).encode())]
            await send(message)

        await self._app(scope, receive, told)


app.add_middleware(Worker)
by_proxy = ClientIP(trusted_proxies=["127.0.0.1"], header="x-real-client")


@app.get("/ready")
async def ready() -> int:
    return 1


@app.get("/search", dependencies=[Depends(RateLimit("search"))])
async def search() -> int:
    return 1


@app.get("/boom", dependencies=[Depends(RateLimit("search", by="boom"))])
async def boom() -> int:
    raise ZeroDivisionError


@app.get("/api/anything")
async def anything() -> int:
    return 1


async def drip() -> AsyncIterator[bytes]:
    while True:
        yield b"."
        await asyncio.sleep(0.01)


@app.get("/stream", dependencies=[Depends(RateLimit("stream"))])
async def stream() -> StreamingResponse:
    return StreamingResponse(drip())


@app.get("/turn")
async def turn(grant: Annotated[Grant, Depends(RateLimit("turns", wait=60))]) -> float:
    return grant.waited


@app.get("/proxied")
async def proxied(decision: Annotated[Decision, Depends(RateLimit("proxied", by=by_proxy))]) -> int:
    return decision.remaining


@app.websocket("/socket")
async def socket(websocket: WebSocket, grant: Annotated[Grant, Depends(RateLimit("socket"))]) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text + grant.id)
