"""The libraries side by side: one small adapter each, set up as its documentation recommends for asyncio and Redis."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from importlib import metadata
from typing import TYPE_CHECKING, ClassVar

import redis.asyncio

if TYPE_CHECKING:
    from bench.workloads import Policy, Workload


class Peer(ABC):
    """One library at work; a key is a name, which has limits, and a subject of it."""

    # What it can do: check, acquire (it waits), waiters (they are to be seen in Redis), submit and task (durable ones),
    # endpoint (of a web app, which is checked).
    calls: ClassVar[tuple[str, ...]] = ("check",)
    # Whether several limits are checked in one atomic step.
    many_limits: ClassVar[bool] = False
    # Its keys of a name in Redis.
    pattern: ClassVar[str] = "*{name}:*"
    # Whether its windows begin at whole minutes; a run must not see one end.
    aligned: ClassVar[bool] = False
    # Whether it only differs from another in what it does about denials.
    for_denials: ClassVar[bool] = False
    # Whether it is no limiter: it shows what of the others' latency is the machine's.
    for_arrivals: ClassVar[bool] = False

    def __init__(self, url: str, policy: Policy, keys: list[tuple[str, str]], connections: int) -> None:
        """Take a Redis, limits by name, all keys of the run, and most calls under way at once (0: any number)."""
        self.url = url
        self.policy = policy
        self.keys = keys
        self.connections = connections

    @abstractmethod
    async def setup(self) -> None:
        """Connect and load scripts."""

    @abstractmethod
    async def check(self, name: str, by: str) -> bool:
        """Take one of a key's limits now or not at all."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    async def acquire(self, name: str, by: str) -> None:
        """Wait until a key's limits allow one more."""
        raise NotImplementedError

    async def submit(self, name: str, by: str, payload: str) -> None:
        """Give a durable task its place."""
        raise NotImplementedError

    async def task(self, name: str, by: str, payload: str) -> None:
        """Have a durable task run, and wait for its result."""
        raise NotImplementedError

    async def counted(self, name: str) -> int:
        """Read from Redis itself how many were counted for all keys of a name."""
        count = 0
        async with redis.asyncio.Redis.from_url(self.url) as client:
            async for key in client.scan_iter(self.pattern.format(name=name), count=1000):
                kind = await client.type(key)
                if kind == b"zset":
                    count += await client.zcard(key)
                elif kind == b"list":
                    count += await client.llen(key)
                else:
                    count += int(await client.get(key))
        return count


# Of a pool where arrivals may come faster than answers: an unbounded one would open a connection per call.
WIDE = 64


def pool_of(url: str, connections: int) -> redis.asyncio.ConnectionPool:
    """Give redis-py's pool: a connection per caller, or of any number of callers the first ones, while others wait."""
    if connections:
        return redis.asyncio.ConnectionPool.from_url(url, max_connections=connections)
    return redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=WIDE, timeout=None)


BASE = "redis-py"
CONTROL = "PING, no limiter"
OURS = "ratelimit_async"
# By the name in tables: the module here and its class, and the distribution that it needs.
PEERS = {
    CONTROL: ("control", "Ping", "redis"),
    BASE: ("raw", "RedisPy", "redis"),
    "valkey-glide": ("glide", "Glide", "valkey-glide"),
    "limits": ("limits", "Moving", "limits"),
    "limits, fixed": ("limits", "Fixed", "limits"),
    "throttled-py": ("throttled", "Sliding", "throttled-py"),
    "throttled-py, fixed": ("throttled", "Fixed", "throttled-py"),
    "pyrate-limiter": ("pyrate", "Pyrate", "pyrate-limiter"),
    OURS: ("own", "Own", "ratelimit-async"),
    "ratelimit_async, fixed": ("own", "OwnFixed", "ratelimit-async"),
    "ratelimit_async, denials kept": ("own", "OwnKeepingDenials", "ratelimit-async"),
    "FastAPI, no limiter": ("apps", "Plain", "fastapi"),
    "FastAPI, slowapi": ("apps", "Slow", "slowapi"),
    "FastAPI, ratelimit_async": ("apps", "Ours", "ratelimit-async"),
}


def load(name: str) -> type[Peer]:
    """Import a peer's adapter; ImportError where the library is not there."""
    module, adapter, _ = PEERS[name]
    found: type[Peer] = getattr(importlib.import_module(f"bench.peers.{module}"), adapter)
    return found


def missing(name: str) -> str:
    """Say why a peer cannot be measured here; "" where it can."""
    try:
        load(name)
    except ImportError as error:
        return f"not installed: {error}"
    return ""


def can(name: str, workload: Workload) -> bool:
    """Whether a peer has what a workload needs."""
    peer = load(name)
    return (
        workload.call in peer.calls
        and (workload.limits == 1 or peer.many_limits)
        and (workload.denied > 0 or not peer.for_denials)
        and (workload.kind == "open" or not peer.for_arrivals)
    )


def versions() -> dict[str, str]:
    """Give the version of each distribution; "not installed" where it is not."""
    found = {}
    for distribution in dict.fromkeys((*(needs for _, _, needs in PEERS.values()), "hiredis", "uvloop")):
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[distribution] = "not installed"
    return found
