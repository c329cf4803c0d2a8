"""Cluster: slots move, nodes die."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot

from bench.failover import AMOUNT, BOUND, SUBJECTS, report_failover, run_failover
from ratelimit_async import RateLimitConfig, RateLimiter, RedisUnavailable
from ratelimit_async._cluster import Topology
from tests.helpers import eventually, number
from tests.topologies import ClusterSetup, slot_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

pytestmark = pytest.mark.real_redis
# What Redis does not decide is to be seen.
LIMITS = {
    "a": RateLimitConfig("100000/minute", on_outage="raise"),
    "queue": RateLimitConfig("20 per 0.1 second", on_outage="raise"),
}


@pytest.fixture(scope="module")
def setup() -> Iterator[ClusterSetup]:
    with ClusterSetup() as setup:
        yield setup


async def healthy(limiter: RateLimiter) -> bool:
    return (await limiter.health()).ok


def listens_at(server: RedisServer, prefix: str) -> bool:
    return bool(server.call("PUBSUB", "CHANNELS", f"{prefix}:reply:all"))


async def move_on(setup: ClusterSetup, slots: list[int], times: int, pause: float = 0.0) -> None:
    """Move slots to the next primary, again and again."""
    primaries = await asyncio.to_thread(setup.primaries)
    for _ in range(times):
        for slot in slots:
            owner = await asyncio.to_thread(setup.owner_of, slot)
            target = primaries[(primaries.index(owner) + 1) % 3]
            await asyncio.to_thread(setup.reshard, slot, target, pause)


@pytest.mark.parametrize("pause", [0.0, 0.2])
async def test_slots_move_under_load_and_nobody_notices(setup: ClusterSetup, pause: float) -> None:
    prefix = uuid.uuid4().hex
    slots = [slot_of(prefix, "a"), slot_of(prefix, "queue"), key_slot(f"{{{prefix}}}:control".encode())]
    stopping = False
    hits = 0
    results: list[int] = []
    async with (
        RateLimiter(setup.url, prefix=prefix, limits=LIMITS, lease=1) as one,
        RateLimiter(setup.url, prefix=prefix, limits=LIMITS, lease=1) as other,
    ):

        async def hit_again(limiter: RateLimiter) -> None:
            nonlocal hits
            while not stopping:
                assert (await limiter.hit("a")).allowed
                hits += 1
                await asyncio.sleep(0.002)

        async def wait_again(limiter: RateLimiter) -> None:
            while not stopping:
                results.append(await limiter.request("queue", number, 1))

        tasks = [
            asyncio.create_task(work(limiter))
            for limiter in (one, other)
            for work in [hit_again] * 4 + [wait_again] * 10
        ]
        await move_on(setup, slots, times=4 if pause else 20, pause=pause)
        stopping = True
        await asyncio.gather(*tasks)
        # Nothing was lost on the way, and nothing charged twice.
        assert (await one.status("a")).limits[0].used == hits
        assert len(results) > 20
    refusals = setup.refusals()
    print(refusals)
    assert refusals["MOVED"]
    assert not pause or (refusals["ASK"] and refusals["TRYAGAIN"])


async def test_no_request_is_lost_or_run_twice_when_primaries_are_killed(setup: ClusterSetup) -> None:
    result = await run_failover(setup, "cluster", kills=2, durability="replicated")
    report_failover(result)
    assert result.requests > 0
    assert (result.lost, result.duplicated, result.lost_tasks) == (0, 0, 0)
    assert result.acknowledged > 0
    assert result.over_admitted <= result.kills * AMOUNT * len(SUBJECTS)
    assert result.worst_recovery < BOUND


async def test_a_primary_that_hangs_is_left(setup: ClusterSetup) -> None:
    prefix = uuid.uuid4().hex
    async with RateLimiter(setup.url, prefix=prefix, limits=LIMITS, command_timeout=2) as limiter:
        waiting = [await limiter.submit("queue", number, n) for n in range(100)]
        hung = setup.owner_of(slot_of(prefix, "queue"))
        hung.suspend()
        try:
            assert await asyncio.gather(*waiting) == list(range(100))
            await eventually(lambda: healthy(limiter), BOUND)
        finally:
            hung.resume()
    setup.wait_back(hung)


async def test_an_idle_subscriber_goes_to_another_node_when_its_own_died(setup: ClusterSetup) -> None:
    prefix = uuid.uuid4().hex

    def listened_at() -> list[RedisServer]:
        servers = [server for server in setup.servers if server._process is not None]
        return [server for server in servers if listens_at(server, prefix)]

    async with RateLimiter(setup.url, prefix=prefix) as idle:
        (killed,) = listened_at()
        killed.kill()
        try:
            await eventually(lambda: len(listened_at()) == 1, BOUND)
            await eventually(lambda: healthy(idle), BOUND)
            async with RateLimiter(setup.url, prefix=prefix) as other:
                await other.configure({"a": "7/minute"})
                await eventually(lambda: _allows(idle, 7), BOUND)
        finally:
            killed.start()
    setup.wait_back(killed)


async def _allows(limiter: RateLimiter, n: int) -> bool:
    # Its key may be one of those that were at the node that died.
    with contextlib.suppress(RedisUnavailable):
        return (await limiter.status("a")).limits[0].remaining == n
    return False


async def test_a_primary_that_is_demoted_while_it_lives_is_left_without_an_error(setup: ClusterSetup) -> None:
    prefix = uuid.uuid4().hex
    slot = slot_of(prefix, "a")
    stopping = False
    hits = 0
    async with RateLimiter(setup.url, prefix=prefix, limits=LIMITS) as limiter:

        async def hit_again() -> None:
            nonlocal hits
            while not stopping:
                assert (await limiter.hit("a")).allowed
                hits += 1

        tasks = [asyncio.create_task(hit_again()) for _ in range(4)]
        owner = setup.owner_of(slot)
        (replica,) = [
            server for server in setup.servers if server.client.info("replication").get("master_port") == owner.port
        ]
        replica.call("CLUSTER", "FAILOVER")
        await eventually(lambda: asyncio.to_thread(lambda: setup.owner_of(slot) is replica), BOUND)
        before = hits
        await eventually(lambda: hits > before + 100)
        stopping = True
        await asyncio.gather(*tasks)
        assert (await limiter.status("a")).limits[0].used == hits
    setup.wait_ready()


async def _passes(limiter: RateLimiter) -> bool:
    try:
        return (await limiter.hit("a")).allowed
    except RedisUnavailable:
        return False


async def test_a_slot_that_nobody_serves_is_an_outage_of_its_keys_until_it_is_served(setup: ClusterSetup) -> None:
    prefix = uuid.uuid4().hex
    slot = slot_of(prefix, "a")
    owner = setup.owner_of(slot)
    async with (
        RateLimiter(setup.url, prefix=prefix, limits=LIMITS, command_timeout=0.5) as limiter,
        # Entered before: without a slot the whole cluster may be down.
        RateLimiter(setup.url, prefix=prefix, limits=LIMITS, command_timeout=30) as patient,
    ):
        owner.call("CLUSTER", "DELSLOTS", slot)
        try:
            with pytest.raises(RedisUnavailable, match=r"not served|cluster is down"):
                await limiter.hit("a")
            # Neither fails while it waits, nor when it must wait no longer.
            waiting = asyncio.create_task(patient.hit("a"))
            left = asyncio.create_task(limiter.hit("a"))
            await eventually(lambda: setup.refusals().get("CLUSTERDOWN", 0) > 2)
        finally:
            owner.call("CLUSTER", "ADDSLOTS", slot)
        assert (await waiting).allowed
        await asyncio.gather(left, return_exceptions=True)
        await eventually(lambda: _passes(limiter))
    setup.wait_ready()


async def test_calls_that_wait_for_a_slot_end_with_the_limiter(
    setup: ClusterSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave() -> None:
        """Say nothing: the whole cluster may be down by then, and this would wait for it as long as a call may."""

    prefix = uuid.uuid4().hex
    slot = slot_of(prefix, "a")
    owner = setup.owner_of(slot)
    async with RateLimiter(setup.url, prefix=prefix, limits=LIMITS, command_timeout=60, shutdown_timeout=0) as limiter:
        monkeypatch.setattr(limiter._live().control, "leave", leave)
        before = setup.refusals().get("CLUSTERDOWN", 0)
        owner.call("CLUSTER", "DELSLOTS", slot)
        waiting = asyncio.create_task(limiter.hit("a"))
        await eventually(lambda: setup.refusals().get("CLUSTERDOWN", 0) > before)
    with pytest.raises(RedisUnavailable, match="has ended"):
        await waiting
    owner.call("CLUSTER", "ADDSLOTS", slot)
    setup.wait_ready()


async def test_a_redis_that_is_no_cluster_is_an_error(redis_url: str) -> None:
    with pytest.raises(RedisUnavailable, match="cluster support disabled"):
        async with RateLimiter(redis_url.replace("redis://", "redis+cluster://")):
            pass


async def test_a_node_without_slots_is_left_and_found_again(setup: ClusterSetup) -> None:
    prefix = uuid.uuid4().hex
    async with RateLimiter(setup.url, prefix=prefix, limits=LIMITS) as limiter:
        session = limiter._session
        assert session is not None
        router: Any = session.executor
        assert len(router.nodes()) == 3
        # A map on which one node has given all it had to another; it is told otherwise by those that know.
        (first, ranges), (second, others), *rest = router._topology.ranges.items()
        router._apply(Topology({first: [*ranges, *others], **dict(rest)}))
        gone = f"{second[0]}:{second[1]}"
        assert gone not in [node._source.address for node in router.nodes()]
        for by in range(20):
            for _ in range(3):
                assert (await limiter.hit("a", by=by)).allowed
            assert (await limiter.status("a", by=by)).limits[0].used == 3
        await eventually(lambda: gone in [node._source.address for node in router.nodes()], BOUND)
