"""On entering, what Redis is set up for is held against what is promised."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import Event, RateLimiter
from ratelimit_async import _session as session_module
from ratelimit_async._events import Misconfigured
from ratelimit_async._startup import check_server, find_mismatches
from tests.helpers import eventually, number
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DURABLE_FSYNC = ("--appendfsync", "always")


async def mismatches(
    server: RedisServer, url: str | None = None, *, durable: bool = False, replicas: int = False
) -> dict[str, Misconfigured]:
    """What the checks find on a server, by what they name; and the whole of it has been said when this returns."""
    seen: list[Event] = []
    async with RateLimiter(url or server.url, hooks=[]) as limiter:
        session: Any = limiter._session
        await check_server(session.executor, seen.append, durable=durable, replicas=replicas)
    assert all(isinstance(event, Misconfigured) for event in seen)
    found = {event.what: event for event in seen if isinstance(event, Misconfigured)}
    assert len(found) == len(seen)
    return found


@pytest.mark.real_redis
async def test_a_server_as_it_comes_is_fine_for_limits(redis_server: RedisServer) -> None:
    assert await mismatches(redis_server) == {}


@pytest.mark.real_redis
async def test_entering_tells_what_does_not_fit_and_works_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server, caplog.at_level(logging.WARNING):
        async with RateLimiter(server.url, limits={"a": "1 per 0.1 seconds"}) as limiter:
            assert await asyncio.gather(*(limiter.request("a", number, n) for n in range(2))) == [0, 1]
            await eventually(lambda: caplog.records)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for word in ("misconfigured", "maxmemory-policy", "allkeys-lru", "noeviction", "set it to"):
        assert word in caplog.text


@pytest.mark.real_redis
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
async def test_an_eviction_policy_is_named(own_server: RedisServer, policy: str) -> None:
    own_server.call("CONFIG", "SET", "maxmemory-policy", policy)
    (found,) = (await mismatches(own_server)).values()
    assert (found.what, found.found, found.expected) == ("maxmemory-policy", policy, "noeviction")
    assert "set it to noeviction" in found.advice


@pytest.mark.real_redis
async def test_no_persistence_is_named_where_durable_is_promised(own_server: RedisServer) -> None:
    assert await mismatches(own_server) == {}
    (found,) = (await mismatches(own_server, durable=True)).values()
    assert (found.what, found.found, found.expected) == ("appendonly", "no", "yes")
    assert "set it to yes" in found.advice
    own_server.call("CONFIG", "SET", "appendonly", "yes")
    assert await mismatches(own_server, durable=True) == {}


@pytest.mark.real_redis
async def test_a_lone_primary_is_named_where_replication_is_promised() -> None:
    with RedisServer(*DURABLE_FSYNC, appendonly=True) as server:
        found = await mismatches(server, durable=True, replicas=1)
        assert found.keys() == {"connected replicas", "min-replicas-to-write"}
        assert found["connected replicas"].found == "0"
        assert "add a replica" in found["connected replicas"].advice


@pytest.fixture
async def pair() -> AsyncIterator[tuple[RedisServer, RedisServer]]:
    """A primary that syncs its file each second, and its replica."""
    with (
        RedisServer("--appendfsync", "everysec", appendonly=True) as primary,
        RedisServer("--replicaof", "127.0.0.1", str(primary.port)) as replica,
    ):
        await eventually(lambda: primary.client.info("replication")["connected_slaves"] == 1, bound=30)
        yield primary, replica


@pytest.mark.real_redis
async def test_what_replication_needs_is_named_until_it_is_there(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, _ = pair
    found = await mismatches(primary, durable=True, replicas=1)
    assert found.keys() == {"appendfsync", "min-replicas-to-write"}
    assert (found["appendfsync"].found, found["appendfsync"].expected) == ("everysec", "always")
    assert found["min-replicas-to-write"].found == "0"
    primary.call("CONFIG", "SET", "appendfsync", "always")
    primary.call("CONFIG", "SET", "min-replicas-to-write", "1")
    assert await mismatches(primary, durable=True, replicas=1) == {}


@pytest.mark.real_redis
async def test_a_replica_is_named(pair: tuple[RedisServer, RedisServer]) -> None:
    seen: list[Event] = []
    # What it says to the first write opens the circuit breaker; this is told before.
    async with RateLimiter(pair[1].url, hooks=[seen.append]):
        await eventually(lambda: any(isinstance(event, Misconfigured) for event in seen))
    (found,) = [event for event in seen if isinstance(event, Misconfigured)]
    assert (found.what, found.found, found.expected) == ("role", "slave", "master")
    assert "primary" in found.advice


def the_user(server: RedisServer, *rules: str) -> str:
    server.call("ACL", "SETUSER", "me", "reset", "on", ">pw", "~*", "&*", "+@all", *rules)
    return f"redis://me:pw@127.0.0.1:{server.port}/0"


@pytest.mark.real_redis
async def test_where_info_is_refused_it_says_that_it_cannot_check(own_server: RedisServer) -> None:
    (found,) = (await mismatches(own_server, the_user(own_server, "-info"), durable=True)).values()
    assert found.what == "INFO"
    assert "permission" in found.found
    assert "cannot check" in found.advice


@pytest.mark.real_redis
async def test_where_config_is_refused_what_it_would_say_is_not_held_against_it(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    url = the_user(pair[0], "-config")
    found = await mismatches(pair[0], url, durable=True, replicas=1)
    assert found.keys() == {"min-replicas-to-write"}


@pytest.mark.real_redis
async def test_entering_waits_for_no_check_and_leaving_ends_it(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def for_ever(*_: object, **__: object) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("check")

    monkeypatch.setattr(session_module, "check_server", for_ever)
    async with RateLimiter(redis_url) as limiter:
        assert (await limiter.hit("a")).allowed
        assert ended == []
    assert ended == ["check"]


async def test_the_embedded_server_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(session_module, "check_server", lambda *_, **__: asked.append(1))
    async with RateLimiter("memory://") as limiter:
        assert (await limiter.hit("a")).allowed
    assert asked == []


GOOD = {
    "redis_version": "7.0.15",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "appendfsync": "always",
    "connected_slaves": "2",
    "min_slaves_good_slaves": "2",
}


@pytest.mark.parametrize(
    ("version", "wrong"),
    [("6.2.0", False), ("6.0.20", True), ("5.0", True), ("7.2.4", False), ("10.0.0", False), ("255.255.255", False)],
)
def test_versions_are_compared_by_their_numbers(version: str, *, wrong: bool) -> None:
    found = [one.what for one in find_mismatches({**GOOD, "redis_version": version}, durable=True, replicas=1)]
    assert found == (["redis_version"] if wrong else [])


def test_what_a_server_does_not_say_is_not_held_against_it() -> None:
    for info in ({}, {"redis_version": "unstable"}, {"connected_slaves": "?", "min_slaves_good_slaves": "?"}):
        assert list(find_mismatches(info, durable=True, replicas=1)) == []


@pytest.mark.parametrize("change", [lambda info: info, lambda info: dict.fromkeys(info, "0")])
def test_every_text_says_what_to_do(change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    found = list(find_mismatches(change(GOOD), durable=True, replicas=1))
    assert bool(found) == (change(GOOD) != GOOD)
    for one in found:
        assert all((one.what, one.found, one.expected, one.advice))
        assert one.advice.partition(":")[2]
