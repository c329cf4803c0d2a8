"""Toward an nginx that enforces its own limit: nothing is rejected, and what it rejects after all is served later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from bench.upstream import BURST, RATE, run_upstream
from ratelimit_async import Event, RateLimiter
from ratelimit_async._events import Paused
from ratelimit_async.contrib.httpx import RateLimitTransport
from tests.servers import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real_redis, pytest.mark.slow]


@pytest.fixture
def nginx() -> Iterator[Nginx]:
    with Nginx(RATE, BURST) as server:
        yield server


async def test_nginx_rejects_who_does_not_wait() -> None:
    # Slow enough that a busy machine is not slower.
    with Nginx(1, 9) as nginx:
        async with httpx.AsyncClient(timeout=60) as client:
            answers = await asyncio.gather(*(client.get(nginx.url) for _ in range(80)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 10
        assert sorted(statuses) == sorted(status for _, status in nginx.requests())


def serve_more_than(served: int, redis_url: str, limits: str, *, delay: float, seconds: float) -> None:
    """Have so many served, on a busy machine in more time, and none rejected.

    How much of its rate that is, `python -m bench upstream` tells.
    """
    for longer in (1, 2, 4):
        result = run_upstream(redis_url, limits, delay=delay, seconds=longer * seconds)
        assert result.rejected == 0
        if result.served > served:
            return
    pytest.fail(f"{result.served} served in {longer * seconds} s, and not more than {served}")


def test_four_processes_that_mirror_its_limit_from_the_finish_are_never_rejected(redis_url: str) -> None:
    serve_more_than(2 * BURST, redis_url, "100/second burst 99 from finish", delay=0.0, seconds=6.0)


@pytest.mark.parametrize("limits", ["100/second burst 99 from finish", "100/second from finish"])
def test_nothing_is_rejected_where_the_network_is_slow_at_times(redis_url: str, limits: str) -> None:
    serve_more_than(BURST, redis_url, limits, delay=0.3, seconds=3.0)


async def test_what_it_rejects_is_paused_for_all_and_served_later(redis_url: str, nginx: Nginx) -> None:
    seen: list[Event] = []
    async with (
        RateLimiter(redis_url, default="1000/second", hooks=[seen.append]) as one,
        RateLimiter(redis_url, default="1000/second", hooks=[seen.append]) as two,
        httpx.AsyncClient(transport=RateLimitTransport(one, "a")) as first,
        httpx.AsyncClient(transport=RateLimitTransport(two, "a")) as second,
    ):
        calls = [client.get(nginx.url) for client in (first, second) for _ in range(80)]
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    assert {event.seconds for event in seen if isinstance(event, Paused)} <= {1.0, 2.0, 4.0}
    statuses = [status for _, status in nginx.requests()]
    assert statuses.count(200) == 160
    # Each was rejected once, at most: nobody came back before the pause was over.
    assert 0 < statuses.count(429) <= 160 - (BURST + 1)
