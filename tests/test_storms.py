"""Cancellation storms: deadlines around the time that a check takes harm nobody but those that they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.storms import WAYS, compare, run_storm, storm_of_turns
from tests.helpers import eventually, leftovers

if TYPE_CHECKING:
    from tests.servers import RedisServer

pytestmark = pytest.mark.real_redis


def connections(server: RedisServer) -> int:
    return len(server.call("CLIENT", "LIST").splitlines())


@pytest.mark.parametrize("way", WAYS)
async def test_a_storm_swallows_no_cancel_leaks_no_connection_and_takes_nothing_from_others(
    own_server: RedisServer, way: str
) -> None:
    before = connections(own_server)
    share, storms = await compare(own_server, way, seconds=0.5, repetitions=3)
    assert sum(storm.cancels for storm in storms) > 100
    assert [storm.swallowed for storm in storms] == [0, 0, 0]
    assert [storm.connections for storm in storms] == [2, 2, 2]
    await eventually(lambda: connections(own_server) == before)
    # A collapse leaves less than a hundredth; `python -m bench.storms` measures what a short run cannot.
    assert share > 0.5


async def test_cancelled_checks_break_no_connection(own_server: RedisServer) -> None:
    own_server.call("CONFIG", "RESETSTAT")
    storm = await run_storm(own_server, "timeout", 0.5, stormy=True)
    assert storm.cancels > 30
    # Two of the limiter; each cancel would have cost one more.
    assert int(own_server.client.info("stats")["total_connections_received"]) <= 3


async def test_a_storm_of_turns_charges_those_that_ran_and_leaves_nobody_in_the_queue(own_server: RedisServer) -> None:
    # `python -m bench.storms` measures what share of the calm rate is left; on a busy machine few make their deadlines.
    ran, cancelled, charged = await storm_of_turns(own_server, 1.0)
    assert cancelled > 0
    assert charged == ran > 0
    assert (await leftovers(own_server.url))["waiting"] == []
