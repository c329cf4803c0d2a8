"""Sentinel: who the primary is changes."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING

import pytest
import redis

from bench.failover import AMOUNT, BOUND, PERIOD, SUBJECTS, over_admitted, report_failover, run_failover
from ratelimit_async import RateLimiter, RedisUnavailable
from ratelimit_async._deployment import source_of
from ratelimit_async._sentinel import SentinelSource
from tests.helpers import eventually, number
from tests.servers import RedisServer, free_port
from tests.topologies import NAME, SentinelSetup

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real_redis


@pytest.fixture(scope="module")
def setup() -> Iterator[SentinelSetup]:
    with SentinelSetup("secret") as setup:
        yield setup


async def healthy(limiter: RateLimiter) -> bool:
    return (await limiter.health()).ok


async def is_at(limiter: RateLimiter, server: RedisServer) -> bool:
    return (await limiter.health()).address == f"127.0.0.1:{server.port}"


def test_over_admission_is_counted() -> None:
    spread = [n * PERIOD / AMOUNT for n in range(100)]
    assert over_admitted(spread) == 0
    assert over_admitted([*spread, 1.0]) == AMOUNT


async def test_no_request_is_lost_or_run_twice_when_primaries_are_killed(setup: SentinelSetup) -> None:
    result = await run_failover(setup, "sentinel", kills=2, durability="replicated")
    report_failover(result)
    assert result.requests > 0
    assert (result.lost, result.duplicated, result.lost_tasks) == (0, 0, 0)
    assert result.acknowledged > 0
    assert result.over_admitted <= result.kills * AMOUNT * len(SUBJECTS)
    assert result.worst_recovery < BOUND


async def test_a_primary_that_was_demoted_while_it_lives_is_left(setup: SentinelSetup) -> None:
    setup.wait_ready()
    async with RateLimiter(setup.url, prefix=uuid.uuid4().hex, limits={"a": "1 per 0.05 second"}) as limiter:
        before = setup.primary
        waiting = [await limiter.submit("a", number, n) for n in range(60)]
        setup.sentinels[0].call("SENTINEL", "FAILOVER", NAME)
        assert await asyncio.gather(*waiting) == list(range(60))
        await eventually(lambda: healthy(limiter))
        await eventually(lambda: setup.primary is not before, BOUND)
        await eventually(lambda: is_at(limiter, setup.primary), BOUND)
    setup.wait_back(before)


async def test_a_primary_that_hangs_is_left(setup: SentinelSetup) -> None:
    async with RateLimiter(setup.url, prefix=uuid.uuid4().hex, limits={"a": "1 per 0.05 second"}) as limiter:
        waiting = [await limiter.submit("a", number, n) for n in range(30)]
        hung = setup.primary
        hung.suspend()
        try:
            assert await asyncio.gather(*waiting) == list(range(30))
            assert not await is_at(limiter, hung)
        finally:
            hung.resume()
    setup.wait_back(hung)


async def test_an_idle_limiter_and_its_listener_go_to_the_new_primary(setup: SentinelSetup) -> None:
    setup.wait_ready()
    prefix = uuid.uuid4().hex
    async with RateLimiter(setup.url, prefix=prefix) as idle:
        killed = setup.kill_primary()

        def subscribed() -> bool:
            with contextlib.suppress(redis.RedisError):
                return bool(setup.primary.call("PUBSUB", "CHANNELS", f"{prefix}:*"))
            return False

        await eventually(subscribed, BOUND)
        await eventually(lambda: healthy(idle), BOUND)
        async with RateLimiter(setup.url, prefix=prefix) as other:
            await other.configure({"a": "7/minute"})
            await eventually(lambda: _allows(idle, 7))
    killed.start()
    setup.wait_back(killed)


async def _allows(limiter: RateLimiter, n: int) -> bool:
    return (await limiter.status("a")).limits[0].remaining == n


async def test_a_primary_that_became_a_replica_gets_the_call_again_when_it_is_back(own_server: RedisServer) -> None:
    # No sentinel here: the address stays, the role comes back.
    async with RateLimiter(own_server.url, limits={"a": "100/minute"}) as limiter:
        await limiter.hit("a")
        own_server.call("REPLICAOF", "127.0.0.1", free_port())
        hit = asyncio.create_task(limiter.hit("a"))
        await eventually(lambda: _refused(own_server) > 1)
        own_server.call("REPLICAOF", "NO", "ONE")
        assert (await hit).allowed
        # What was refused was not charged.
        assert (await limiter.status("a")).limits[0].used == 2


def _refused(server: RedisServer) -> int:
    return int(server.client.info("errorstats").get("errorstat_READONLY", {}).get("count", 0))


async def test_what_a_sentinel_calls_the_primary_must_say_so_itself(setup: SentinelSetup) -> None:
    source = source_of(setup.url, None, 1.0)
    assert isinstance(source, SentinelSource)
    replica = next(server for server in setup.servers if server is not setup.primary)
    with pytest.raises(RedisUnavailable, match="is no primary but a slave"):
        await source._open(("127.0.0.1", replica.port))
    wire = await source._open(("127.0.0.1", setup.primary.port))
    await wire.disconnect()


async def test_a_wrong_password_for_the_sentinels_is_an_error_that_does_not_show_it(setup: SentinelSetup) -> None:
    url = setup.url.replace("sentinel_password=secret", "sentinel_password=other")
    with pytest.raises(RedisUnavailable, match="password") as caught:
        async with RateLimiter(url):
            pass
    assert "other" not in str(caught.value)


async def test_a_name_that_no_sentinel_knows_is_an_error(setup: SentinelSetup) -> None:
    with pytest.raises(RedisUnavailable, match="'nobody'"):
        async with RateLimiter(setup.url.replace(f"/{NAME}/", "/nobody/")):
            pass


async def test_sentinels_that_are_gone_are_passed_over(setup: SentinelSetup) -> None:
    setup.sentinels[0].kill()
    try:
        async with RateLimiter(setup.url) as limiter:
            assert (await limiter.hit("a")).allowed
    finally:
        setup.sentinels[0].start()
        setup.wait_ready()
