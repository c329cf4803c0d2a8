"""All that a limiter does, over Sentinel and in a Cluster as on one Redis."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest
import redis.asyncio
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import Sentinel

from ratelimit_async import QueueConfig, RateLimitConfig, RateLimiter, RequestCancelled, UnknownRequest
from ratelimit_async._cluster import ClusterSource
from ratelimit_async._connection import peer
from ratelimit_async._deployment import source_of
from ratelimit_async._sentinel import SentinelSource
from tests.helpers import eventually, is_paused, number
from tests.topologies import NAME, ClusterSetup, SentinelSetup

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real_redis
SUBJECTS = [f"user {n}" for n in range(20)]


@pytest.mark.parametrize(
    ("url", "encrypted"),
    [
        ("rediss+sentinel://me:pw@a,b:1/m/3?sentinel_password=other&ssl_ca_certs=ca.pem", True),
        ("rediss+sentinel://me:pw@a,b:1/m/3?sentinel_password=other&ssl_ca_certs=ca.pem&sentinel_ssl=false", False),
        ("redis+sentinel://me:pw@a,b:1/m/3?sentinel_password=other", False),
    ],
)
def test_sentinels_get_their_own_password_and_the_tls_of_their_primary(url: str, encrypted: bool) -> None:
    source = source_of(url, None, 1.0)
    assert isinstance(source, SentinelSource)
    assert issubclass(source._connection_class, SSLConnection) is url.startswith("rediss")
    assert [source._options[field] for field in ("username", "password", "db")] == ["me", "pw", 3]
    assert "sentinel" not in "".join(source._options)
    addresses = set()
    for sentinel in source._sentinels:
        wire = sentinel._make()
        assert isinstance(wire, Connection)
        assert isinstance(wire, SSLConnection) is encrypted
        assert (wire.username, wire.password, wire.db) == (None, "other", 0)
        if isinstance(wire, SSLConnection):
            assert wire.ca_certs == "ca.pem"
        addresses.add(peer(wire))
    assert addresses == {("a", 26379), ("b", 1)}


def test_every_node_of_a_cluster_gets_user_password_and_tls() -> None:
    source = source_of("rediss+cluster://me:pw@a,[::1]:7000?ssl_ca_certs=ca.pem", None, 1.0)
    assert isinstance(source, ClusterSource)
    assert source._seeds == [("a", 6379), ("::1", 7000)]
    wire = source.node(("c", 1))._make()
    assert isinstance(wire, SSLConnection)
    assert (wire.username, wire.password, wire.ca_certs, *peer(wire)) == ("me", "pw", "ca.pem", "c", 1)


@pytest.fixture(scope="module", params=[SentinelSetup, ClusterSetup], ids=["sentinel", "cluster"])
def setup(request: pytest.FixtureRequest) -> Iterator[SentinelSetup | ClusterSetup]:
    with request.param() as setup:
        yield setup


def limiter_of(setup: SentinelSetup | ClusterSetup, prefix: str = "", **arguments: object) -> RateLimiter:
    limits = {
        "few": "3/minute",
        "one": RateLimitConfig("1/minute", queue=QueueConfig(priorities=3)),
        "many": "1000/second",
    }
    return RateLimiter(setup.url, limits=limits, prefix=prefix or uuid.uuid4().hex, **arguments)


async def test_hits_of_many_subjects_are_counted_each_for_itself(setup: SentinelSetup) -> None:
    async with limiter_of(setup) as limiter:
        decisions = await asyncio.gather(*(limiter.hit("few", by=by) for by in SUBJECTS for _ in range(5)))
        assert [decision.allowed for decision in decisions] == [True, True, True, False, False] * len(SUBJECTS)
        assert not (await limiter.check("few", by=SUBJECTS[0])).allowed
        await limiter.reset("few", by=SUBJECTS[0])
        assert (await limiter.check("few", by=SUBJECTS[0])).remaining == 3


async def test_keys_and_totals_look_everywhere(setup: SentinelSetup) -> None:
    async with limiter_of(setup) as limiter:
        await asyncio.gather(*(limiter.hit("few", by=by) for by in SUBJECTS))
        assert sorted([key.by async for key in limiter.keys("few")]) == sorted(SUBJECTS)
        total = await limiter.status("few", total=True)
        assert total.limits[0].used == len(SUBJECTS)


async def test_requests_of_two_processes_run_in_the_order_of_their_priorities(setup: SentinelSetup) -> None:
    prefix, ran = uuid.uuid4().hex, list[int]()

    async def run(n: int) -> None:
        ran.append(n)

    async with limiter_of(setup, prefix) as one, limiter_of(setup, prefix) as other:
        await one.pause("many")
        await eventually(lambda: is_paused(other, "many"))
        tickets = []
        for n, priority in enumerate([2, 1, 0, 2, 1, 0]):
            tickets.append(await (one, other)[n % 2].submit("many", run, n, priority=priority))
        assert [request.id async for request in one.waiting("many")] == [tickets[n].id for n in (2, 5, 1, 4, 0, 3)]
        await other.resume("many")
        await asyncio.gather(*tickets)
        # Whose turn it is is told to either process at once: order holds within each.
        assert [n for n in ran if n % 2 == 0] == [2, 4, 0]
        assert [n for n in ran if n % 2] == [5, 1, 3]


async def test_grants_reach_waiters_of_many_subjects(setup: SentinelSetup) -> None:
    async with limiter_of(setup) as limiter:
        await limiter.configure({"few": "2 per 0.2 seconds"})
        calls = [limiter.request("few", number, n, by=by) for n, by in enumerate(SUBJECTS * 5)]
        assert await asyncio.gather(*calls) == list(range(len(SUBJECTS) * 5))
        async with limiter.acquire("few", by="somebody else") as grant:
            assert grant.decision.allowed


async def test_a_request_is_cancelled_from_another_process(setup: SentinelSetup) -> None:
    prefix = uuid.uuid4().hex
    async with limiter_of(setup, prefix) as one, limiter_of(setup, prefix) as other:
        await one.hit("one")
        ticket = await one.submit("one", number, 1)
        assert (await other.status("one")).queue.depth == 1
        await other.cancel(ticket.id)
        with pytest.raises(RequestCancelled):
            await ticket
        with pytest.raises(UnknownRequest):
            await other.cancel(ticket.id)


async def test_configurations_and_pauses_reach_other_processes(setup: SentinelSetup) -> None:
    prefix = uuid.uuid4().hex
    async with limiter_of(setup, prefix) as one, limiter_of(setup, prefix) as other:
        await one.configure({"few": "7/minute"})
        await eventually(lambda: _remaining(other, 7))
        await other.pause("few", by="ann")
        assert await is_paused(one, "few") is False
        assert (await one.status("few", by="ann")).paused
        await one.resume("few", by="ann")
        assert not (await other.status("few", by="ann")).paused
        upstream = await one.sync_from_headers("few", {"x-ratelimit-limit": "7", "x-ratelimit-remaining": "2"})
        assert upstream.limits
        assert await _remaining(other, 2)


async def _remaining(limiter: RateLimiter, n: int) -> bool:
    return (await limiter.status("few")).limits[0].remaining == n


async def test_health_is_good(setup: SentinelSetup) -> None:
    async with limiter_of(setup) as limiter:
        health = await limiter.health()
        assert health.ok
        assert health.address in setup.url or health.address == f"127.0.0.1:{setup.primary.port}"


async def test_scripts_that_are_flushed_are_loaded_again(setup: SentinelSetup) -> None:
    async with limiter_of(setup) as limiter:
        for _ in range(3):
            for server in setup.servers:
                server.call("SCRIPT", "FLUSH")
            assert all(d.allowed for d in await asyncio.gather(*(limiter.hit("many", by=by) for by in SUBJECTS)))


async def test_nothing_is_left_connected(setup: SentinelSetup) -> None:
    async def connections() -> int:
        return sum(len(server.client.client_list(_type="normal")) for server in setup.servers)

    before = await connections()
    async with limiter_of(setup) as limiter:
        await limiter.hit("few")
        assert await connections() > before
    await eventually(lambda: _equals(connections(), before))


async def _equals(one: object, other: int) -> bool:
    return await one <= other


async def test_a_client_of_redis_py_says_where(setup: SentinelSetup | ClusterSetup) -> None:
    if isinstance(setup, SentinelSetup):
        sentinels = Sentinel([("127.0.0.1", sentinel.port) for sentinel in setup.sentinels])
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster = sentinels.master_for(NAME)
    else:
        client = redis.asyncio.RedisCluster(host="127.0.0.1", port=setup.servers[0].port)
    prefix = uuid.uuid4().hex
    async with RateLimiter(client=client, prefix=prefix) as limiter, limiter_of(setup, prefix) as other:
        await limiter.hit("few", by="ann")
        assert [key.by async for key in other.keys("few")] == ["ann"]
    await client.aclose()
