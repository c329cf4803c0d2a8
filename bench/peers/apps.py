"""Endpoints of a FastAPI app, called without a network between: limited by nobody, by slowapi, and by this library."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address

from bench.peers import Peer
from bench.peers.own import Own
from ratelimit_async.contrib.fastapi import RateLimit, client_ip, install

if TYPE_CHECKING:
    from starlette.types import Message

FOUND = {"found": "something"}
# Of the clients, one after another.
FIRST_ADDRESS = IPv4Address("10.0.0.1")


class Plain(Peer):
    """What FastAPI takes by itself: nothing is limited, and what passed counts as counted."""

    calls = ("endpoint",)

    async def setup(self) -> None:
        """Make an app with an endpoint for each name."""
        self.app = FastAPI()
        self._passed = dict.fromkeys(self.policy, 0)
        for name in self.policy:
            self.add(name)

    def add(self, name: str) -> None:
        """Add an endpoint."""

        @self.app.get(f"/{name}")
        async def find() -> dict[str, str]:
            return FOUND

    async def check(self, name: str, by: str) -> bool:
        """Make a request."""
        passed = await answer(self.app, f"/{name}", str(FIRST_ADDRESS + int(by))) == 200
        self._passed[name] += passed
        return passed

    async def counted(self, name: str) -> int:
        """Give what passed."""
        return self._passed[name]

    async def close(self) -> None:
        """Leave nothing: there is nothing."""


class Slow(Plain):
    """slowapi: its decorator, its fixed window, its storage, which blocks the event loop until Redis answers."""

    pattern = "LIMITS:LIMITER/*/{name}/*"
    aligned = True

    async def setup(self) -> None:
        """Make its limiter, too."""
        self._limiter = Limiter(key_func=get_remote_address, storage_uri=self.url)
        await super().setup()
        self.app.state.limiter = self._limiter
        self.app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]

    def add(self, name: str) -> None:
        """Add one that is decorated."""
        amount, period = self.policy[name][0]

        async def find(request: Request) -> dict[str, str]:  # noqa: ARG001 - slowapi needs it
            return FOUND

        # slowapi knows endpoints by it.
        find.__name__ = name
        self.app.get(f"/{name}")(self._limiter.limit(f"{amount} per {period} second")(find))

    async def counted(self, name: str) -> int:
        """Read its counters."""
        return await Peer.counted(self, name)


class Ours(Plain):
    """The dependency, on a sliding window."""

    async def setup(self) -> None:
        """Enter a limiter."""
        await super().setup()
        self._own = Own(self.url, self.policy, self.keys, self.connections)
        await self._own.setup()
        install(self.app, self._own.limiter)

    def add(self, name: str) -> None:
        """Add one that depends on it."""

        @self.app.get(f"/{name}", dependencies=[Depends(RateLimit(name, by=client_ip))])
        async def find() -> dict[str, str]:
            return FOUND

    async def counted(self, name: str) -> int:
        """Read what Redis counted."""
        return await self._own.counted(name)

    async def close(self) -> None:
        """Leave the limiter."""
        await self._own.close()


async def answer(app: FastAPI, path: str, client: str) -> int:
    """Have an app answer a request as a server does; gives the status."""
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
        "client": (client, 40_000),
        "server": ("localhost", 80),
        "state": {},
    }
    await app(scope, receive, send)
    return status
