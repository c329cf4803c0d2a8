"""A user's web app, which must type-check strictly."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from ratelimit_async import Decision, Grant, RateLimiter
from ratelimit_async.contrib import starlette
from ratelimit_async.contrib.fastapi import (
    ClientIP,
    RateLimit,
    RateLimitMiddleware,
    RequestDenied,
    client_ip,
    install,
    lifespan,
)

limiter = RateLimiter("memory://")


def by_user(request: Request) -> str:
    return request.headers["x-user"]


async def cost_of(connection: HTTPConnection) -> dict[str, int]:
    return {"tokens": len(connection.url.path)}


def user() -> str:
    return "me"


async def is_internal(connection: HTTPConnection) -> bool:
    return connection.client is None


def on_denied(connection: HTTPConnection, denied: RequestDenied) -> Response:
    return JSONResponse({"retry_after": denied.retry_after, "name": denied.name}, denied.status_code)


async def on_denied_async(connection: HTTPConnection, denied: RequestDenied) -> JSONResponse:
    return JSONResponse(denied.decision is None)


@asynccontextmanager
async def own(app: FastAPI) -> AsyncGenerator[None]:
    async with limiter:
        install(app, limiter, on_denied=on_denied_async)
        yield


app = FastAPI(lifespan=lifespan(limiter, on_denied=on_denied, legacy_headers=True))
app_of_its_own = FastAPI(lifespan=own)
app.add_middleware(RateLimitMiddleware, name="api", by=client_ip, paths=["/v1/*"], exempt=["/health", is_internal])


@app.get("/a")
async def a(
    decision: Annotated[Decision, Depends(RateLimit("a", by=by_user, cost=cost_of))],
    grant: Annotated[Grant, Depends(RateLimit("b", by=Depends(user), cost=2, wait=2.0))],
) -> int:
    await grant.settle(1)
    return decision.remaining


plain = Starlette(
    lifespan=starlette.lifespan(limiter),
    middleware=[Middleware(RateLimitMiddleware, name="api", by=ClientIP(trusted_proxies=["unix"]), cost=3)],
)
