"""From a URL or a client to the source of connections, and to what sends calls over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from redis.asyncio import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.credentials import CredentialProvider

from ratelimit_async import _connection
from ratelimit_async._cluster import ClusterSource
from ratelimit_async._connection import make_server
from ratelimit_async._errors import ConfigurationError
from ratelimit_async._executor import Executor
from ratelimit_async._router import Router
from ratelimit_async._sentinel import SentinelExecutor, SentinelSource
from ratelimit_async._urls import hidden

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from ratelimit_async._batches import Argument, Script
    from ratelimit_async._connection import Address, Source
    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key
    from ratelimit_async._resumption import Resumption
    from ratelimit_async._values import BreakerState

__all__ = ["Caller", "executor_of", "source_of"]

_PORTS = {"sentinel": 26379, "cluster": 6379}


class Caller(Protocol):
    """What an executor, or many behind one face, can be asked."""

    on_next: Callable[[Key, float], None]
    on_connected: Callable[[], None]
    head: tuple[Argument, ...]
    # Keys of a script that takes many in one entry.
    most_keys: int

    def call(
        self, script: Script, key: Key | None, entry: tuple[Argument, ...], *, replayable: bool = True
    ) -> asyncio.Future[Any]:
        """Send an entry with the next batch."""
        ...

    def ask(self, script: Script, key: Key, entry: tuple[Argument, ...], *, replayable: bool = True) -> Resumption:
        """Send an entry as `call` does, for one task that awaits the reply at once."""
        ...

    def nodes(self) -> Sequence[Executor]:
        """Give the executors of all servers that hold keys."""
        ...

    @property
    def breaker_state(self) -> BreakerState:
        """Whether calls go to Redis; of several servers, the worst."""
        ...

    async def passing(self) -> None:
        """Wait until others may connect, too."""

    async def start(self) -> None:
        """Connect for the first time, or raise RedisUnavailable."""

    async def run(self) -> None:
        """Serve calls for ever."""

    def close(self) -> None:
        """Fail what is left and refuse what comes."""


def executor_of(
    source: Source, scripts: tuple[Script, ...], command_timeout: float, emit: Emit, replicas: int = 0
) -> Caller:
    """Make what sends calls to a source's servers; `replicas` have to confirm every call."""
    if isinstance(source, ClusterSource):
        return Router(source, scripts, command_timeout, emit, replicas)
    if isinstance(source, SentinelSource):
        return SentinelExecutor(source, scripts, command_timeout, emit, replicas)
    return Executor(source, scripts, command_timeout, emit, replicas)


def source_of(
    url: object,
    client: Redis | RedisCluster | None,
    connect_timeout: float,
    credentials: CredentialProvider | None = None,
) -> Source:
    """Choose where connections come from; touches neither loop nor network."""
    if credentials is not None and not isinstance(credentials, CredentialProvider):
        raise ConfigurationError("credential_provider", type(credentials), "must be a CredentialProvider of redis-py")
    own = {} if credentials is None else {"credential_provider": credentials}
    if isinstance(client, RedisCluster):
        return _cluster_of_client(client, own, connect_timeout)
    if client is not None and isinstance(client.connection_pool, SentinelConnectionPool):
        return _sentinel_of_pool(client.connection_pool, own, connect_timeout)
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    security, _, kind = scheme.partition("+")
    if client is not None or kind not in _PORTS or security not in ("redis", "rediss"):
        return _connection.source_of(url, client, connect_timeout, credentials)
    assert isinstance(url, str)
    hosts, path, options, problem = _read(url, security, _PORTS[kind])
    if problem:
        # Not from within an `except`: the errors of the standard library repeat parts of the URL, and are logged.
        raise ConfigurationError("url", hidden(url), problem)
    options |= own
    connection_class = options.pop("connection_class", Connection)
    if kind == "cluster":
        if path not in ("", "0") or options.get("db"):
            raise ConfigurationError("url", hidden(url), "a cluster has no databases but 0")
        return ClusterSource(hosts, connection_class, options, connect_timeout)
    name, _, db = path.partition("/")
    if not name:
        raise ConfigurationError("url", hidden(url), "names no primary: redis+sentinel://host:26379/mymaster")
    if db and not db.isdecimal():
        raise ConfigurationError("url", hidden(url), "after the primary's name comes a database's number or nothing")
    if db:
        options["db"] = int(db)
    return _sentinel_source(name, hosts, connection_class, options, connect_timeout)


def _read(url: str, security: str, default_port: int) -> tuple[list[Address], str, dict[str, Any], str]:
    """Read hosts, path and options, and say what is wrong with them."""
    try:
        return *_parse(url, security, default_port), ""
    except ValueError:
        return [], "", {}, f"cannot be read as {security}+...://user:password@host:port,host:port/...: see the docs"


def _parse(url: str, security: str, default_port: int) -> tuple[list[Address], str, dict[str, Any]]:
    """Read them; redis-py's parser knows one host, so it gets them one at a time."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    addresses: list[Address] = []
    options: dict[str, Any] = {}
    for host in hosts.split(","):
        one = f"{security}://{credentials}{at}{host}"
        _ = urlsplit(one).port
        options = dict(parse_url(f"{one}?{parts.query}"))
        if not options.get("host"):
            raise ValueError("a host is empty")
        addresses.append((str(options.pop("host")), int(options.pop("port", default_port))))
    return addresses, unquote(parts.path).strip("/"), options


def _sentinel_source(
    name: str, hosts: list[Address], connection_class: Any, options: dict[str, Any], connect_timeout: float
) -> SentinelSource:
    """Give sentinels the TLS of their primary, unless it is switched off, but never its password."""
    encrypted = options.pop("sentinel_ssl", "true").lower() not in ("false", "no", "0")
    own = {
        field: options.pop(f"sentinel_{field}") for field in ("username", "password") if f"sentinel_{field}" in options
    }
    if encrypted:
        own |= {field: value for field, value in options.items() if field.startswith("ssl_")}
    sentinel_class = connection_class if encrypted else Connection
    sentinels = [
        make_server(f"{host}:{port}", sentinel_class, {**own, "host": host, "port": port}, connect_timeout)
        for host, port in hosts
    ]
    return SentinelSource(name, sentinels, connection_class, options, connect_timeout)


def _sentinel_of_pool(pool: Any, own: dict[str, Any], connect_timeout: float) -> SentinelSource:
    sentinels = [
        make_server(
            f"{one.connection_kwargs['host']}:{one.connection_kwargs['port']}",
            one.connection_class,
            one.connection_kwargs,
            connect_timeout,
        )
        for one in (sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels)
    ]
    # The pool's own connections look for the primary themselves: what they are made of does not.
    connection_class = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
    options = {field: value for field, value in pool.connection_kwargs.items() if field != "connection_pool"} | own
    return SentinelSource(pool.service_name, sentinels, connection_class, options, connect_timeout)


def _cluster_of_client(client: RedisCluster, own: dict[str, Any], connect_timeout: float) -> ClusterSource:
    nodes = client.startup_nodes
    options = {field: value for field, value in nodes[0].connection_kwargs.items() if field not in ("host", "port")}
    options |= own
    hosts = [(node.host, int(node.port)) for node in nodes]
    return ClusterSource(hosts, nodes[0].connection_class, options, connect_timeout)
