"""Redis connections from a URL or a client, and what goes wrong with them in one place."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakValueDictionary

import hiredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.maint_notifications import MaintNotificationsConfig

from ratelimit_async._credentials import Credentials
from ratelimit_async._errors import ConfigurationError, RedisUnavailable
from ratelimit_async._urls import hidden, read_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from redis.asyncio.connection import Connection

__all__ = [
    "FAILURES",
    "UNWILLING",
    "Address",
    "NoScriptError",
    "ReadOnlyError",
    "ResponseError",
    "Server",
    "Source",
    "Wire",
    "ask",
    "embedded_server",
    "hang_up",
    "make_server",
    "pack",
    "peer",
    "source_of",
]

# All that a broken, hung or unwilling Redis shows itself as.
FAILURES: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError, EOFError)

# What a server answers that does not execute anything at present, or no longer: nothing has happened.
UNWILLING = (ReadOnlyError, BusyLoadingError, MasterDownError)

Address = tuple[str, int]

# What a Redis that cannot serve yet, or no longer, begins its errors with; Redis 6 puts the script's line before it.
_NOT_READY = re.compile(r"(?:^|[-:] ?)(?:LOADING|CLUSTERDOWN|MASTERDOWN|READONLY)\b")
# A Redis that answers and refuses is there: no other decision than its own would be right.
_REFUSALS = (AuthenticationError, AuthorizationError, MaxConnectionsError)
_GONE = (RedisConnectionError, RedisTimeoutError, ClusterDownError, ReadOnlyError, OSError, TimeoutError, EOFError)

_SCHEMES = ("redis://", "rediss://", "unix://", "memory://")
_EMBEDDED: WeakValueDictionary[str, Any] = WeakValueDictionary()


class Wire(Protocol):
    """What is used of a connection of redis-py (and of fakeredis)."""

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def send_packed_command(
        self,
        command: bytes,
        check_health: bool = True,
    ) -> None: ...
    async def read_response(
        self,
        disable_decoding: bool = False,
        *,
        disconnect_on_error: bool = True,
    ) -> Any: ...


class Source(Protocol):
    """Where connections to one Redis, or to one of those that make it up, come from."""

    address: str

    async def open(self) -> Wire:
        """Give a connected connection, or raise RedisUnavailable within the connect timeout."""
        ...

    @property
    def embedded(self) -> bool:
        """Whether it is the embedded server of this process."""
        return self.address.startswith("memory://")

    def current(self, wire: Wire) -> bool:
        """Whether a connection that was opened earlier still leads to where a new one would."""
        del wire
        return True

    def failure(self, error: BaseException | str, otherwise: str = "") -> RedisUnavailable:
        """Translate an error of redis-py or of the operating system; `otherwise` stands for one without a text."""
        if isinstance(error, RedisUnavailable):
            return error
        text = str(error) or otherwise or type(error).__name__
        return RedisUnavailable(self.address, text, outage=is_outage(error))


class Server(Source):
    """One server at an address that stays."""

    def __init__(self, address: str, make: Callable[[], Wire], connect_timeout: float) -> None:
        """Keep how to make a connection and how to call its server."""
        self.address = address
        self._make = make
        self._connect_timeout = connect_timeout

    async def open(self) -> Wire:
        """Give a connected connection, or raise RedisUnavailable within the connect timeout."""
        wire = self._make()
        try:
            async with asyncio.timeout(self._connect_timeout):
                await wire.connect()
        except BaseException as error:
            await hang_up(wire)
            if isinstance(error, FAILURES):
                raise self.failure(error, f"no connection within {self._connect_timeout} s") from error
            raise
        return wire


def is_outage(error: BaseException | str) -> bool:
    """Tell a Redis that is gone, hangs or is not ready from one that answers and refuses."""
    if isinstance(error, str):
        return _NOT_READY.search(error) is not None
    if isinstance(error, _REFUSALS):
        return False
    return isinstance(error, _GONE)


def pack(*command: bytes | str | int) -> bytes:
    """Write a command as it travels; in C, which is most of the client's time saved."""
    # Its stub knows tuples of one.
    return cast("bytes", hiredis.pack_command(cast("Any", command)))


async def ask(wire: Wire, *command: bytes | str | int) -> Any:
    """Send one command over a connection that nobody else uses, and read its reply; the caller bounds the time."""
    await wire.send_packed_command(pack(*command), check_health=False)
    return await wire.read_response(disable_decoding=True)


def peer(wire: Wire) -> Address:
    """Give the address that a TCP connection was made for."""
    connection = cast("Connection", wire)
    return connection.host, int(connection.port)


async def hang_up(wire: Wire) -> None:
    """Close a connection now; TLS would go on taking its leave, for longer than the loop may run."""
    writer: object = getattr(wire, "_writer", None)
    await wire.disconnect(nowait=True)
    if isinstance(writer, asyncio.StreamWriter):
        writer.transport.abort()


def embedded_server(name: str) -> Any:
    """Give the embedded server of a name, shared within this process; '' is always a new one."""
    try:
        from fakeredis import FakeServer
    except ImportError as error:
        problem = "needs the extra: pip install 'ratelimit-async[embedded]'"
        raise ConfigurationError("url", f"memory://{name}", problem) from error
    server = _EMBEDDED.get(name) if name else None
    if server is None:
        server = FakeServer(version=(7,))
        if name:
            _EMBEDDED[name] = server
    return server


def source_of(
    url: object,
    client: Redis | None,
    connect_timeout: float,
    credentials: CredentialProvider | None = None,
) -> Source:
    """Choose where connections come from; touches neither loop nor network."""
    if credentials is not None and not isinstance(credentials, CredentialProvider):
        raise ConfigurationError("credential_provider", type(credentials), "must be a CredentialProvider of redis-py")
    if client is not None:
        pool = client.connection_pool
        options: dict[str, Any] = pool.connection_kwargs
        return make_server(_address(options), pool.connection_class, options, connect_timeout, credentials)
    if not isinstance(url, str) or not url:
        # Whatever it is, it may hold a password.
        raise ConfigurationError("url", type(url), f"must be a text that starts with one of {_SCHEMES}")
    scheme, found, rest = url.partition("://")
    if not found or f"{scheme}://" not in _SCHEMES:
        raise ConfigurationError("url", hidden(url), f"must start with one of {_SCHEMES}")
    if scheme == "memory":
        return _embedded_source(rest, connect_timeout)
    connection_class, options = read_url(url)
    return make_server(_address(options), connection_class, options, connect_timeout, credentials)


def _embedded_source(name: str, connect_timeout: float) -> Source:
    server = embedded_server(name)
    from fakeredis import FakeAsyncRedis

    pool = FakeAsyncRedis(server=server).connection_pool
    return make_server(f"memory://{name}", pool.connection_class, pool.connection_kwargs, connect_timeout)


def make_server(
    address: str,
    connection_class: Callable[..., Any],
    options: dict[str, Any],
    connect_timeout: float,
    credentials: CredentialProvider | None = None,
) -> Server:
    """Make the source of connections to one server, from what redis-py's connections take."""
    options = {k: v for k, v in options.items() if not k.startswith(("maint_", "orig_"))}
    credentials = credentials or options.get("credential_provider")
    if credentials is not None:
        if options.get("username") or options.get("password"):
            raise ConfigurationError("credential_provider", type(credentials), "goes without a user and password")
        options["credential_provider"] = Credentials(credentials)
    # RESP2: pushes and maintenance notifications would arrive between the replies that are counted off here.
    # No socket timeout: redis-py enforces it with wait_for, which swallows cancellations on Python 3.11.
    # No retries: what may be sent twice is decided per call, in the executor.
    # No driver_info: it takes a permission that Redis 7.0 does not even know.
    options |= {
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    return Server(address, lambda: cast("Wire", connection_class(**options)), connect_timeout)


def _address(options: dict[str, Any]) -> str:
    if "path" in options:
        return f"unix://{options['path']}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
