"""Driving web apps in tests: without a server, message by message, and as a real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.servers import die_with_parent, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message


@contextlib.asynccontextmanager
async def client_for(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that has begun."""
    async with app.router.lifespan_context(app), plain_client_for(app) as client:
        yield client


def plain_client_for(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


class Connection:
    """One request, or websocket, whose every message the test says."""

    def __init__(self, app: ASGIApp, path: str, kind: str = "http", **scope: Any) -> None:
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self.answers: list[Message] = []
        empty: dict[str, Any] = {"headers": [], "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1)}
        empty |= {"type": kind, "path": path, "scheme": "http", **({"method": "GET"} if kind == "http" else {})}
        self.task = asyncio.ensure_future(app({**empty, **scope}, self._heard.get, self._send))

    async def _send(self, message: Message) -> None:
        self.answers.append(message)

    def say(self, kind: str, **message: Any) -> None:
        self._heard.put_nowait({"type": kind, **message})

    @property
    def unheard(self) -> int:
        return self._heard.qsize()

    @property
    def status(self) -> int:
        return next(message["status"] for message in self.answers if message["type"].endswith(".start"))


class UvicornServer:
    """A real server in processes of its own."""

    def __init__(self, app: str, redis_url: str, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "uvicorn", app, "--port", str(self.port), "--no-access-log", *options]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "RATELIMIT_URL": redis_url},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads before exec
        )

    def __enter__(self) -> Self:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/ready")
                return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError("uvicorn did not start")

    def __exit__(self, *_: object) -> None:
        # Its workers, too, where it did not end them itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def terminate(self) -> int:
        self._process.terminate()
        return self._process.wait(60)
