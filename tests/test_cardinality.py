"""What users can make up is bounded: in Redis by lifetimes, in a queue by its size, in a process by what it keeps."""

from __future__ import annotations

import re
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import Event, QueueConfig, QueueFull, RateLimitConfig, RateLimiter
from ratelimit_async import _keys as keys_module
from ratelimit_async._batches import _pack_key
from ratelimit_async._events import ManyKeys
from tests.helpers import client_of, eventually, leftovers, number, unseen
from tests.main_paths import LIMITS, drive

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis.asyncio

# Every part of a limit key as the scripts write it; a queue per level, and a state per limit.
KINDS = {"d", "c", "r", "l", "h", "p", "w", "q", "sw", "fw", "sc", "tb", "control", "processes"}
TASKS = {"a", "t", "k", "x", "y", "u", "z", "e", "tasks"}
# ms: configurations and pauses without end. Everything else is gone within what its limit counts, and a minute or so.
# So are durable tasks, and lists that they wait in.
LONGEST = dict.fromkeys(("control", "c", "p", "q", "r", "l", *TASKS - {"a", "k"}), 30 * 86_400_000 + 5_000)


async def test_everything_that_is_written_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    async def look() -> None:
        async with client_of(url) as client:
            assert await unseen(client) == []
            async for key in client.scan_iter():
                life = await client.pttl(key)
                shared = key.rpartition("}:")[2]
                kind = (
                    shared
                    if shared in ("control", "tasks", "processes")
                    else re.split(r"[0-9:]", key.partition("}:")[2])[0]
                )
                assert life != -1, key
                assert life <= LONGEST.get(kind, 200_000), key
                seen.add(kind)

    def make(**settings: Any) -> RateLimiter:
        return RateLimiter(url, limits=LIMITS, hooks=[], lease=0.6, **settings)

    await drive(make, look)
    async with make() as limiter, make(processor=False) as deaf:
        # What is granted and not taken over yet.
        monkeypatch.setattr(deaf._session.requests, "on_ids", lambda _seqs: None)  # type: ignore[union-attr]
        tickets = [await deaf.submit("sliding", number, n, by="deaf") for n in range(12)]
        await eventually(lambda: _grants(limiter, 1))
        # And who had to go and does not know it yet.
        await deaf.hit("oldest", by="deaf")
        tickets += [await deaf.submit("oldest", number, n, by="deaf") for n in range(2)]
        await look()
        for ticket in tickets:
            ticket.cancel()
    await look()
    assert seen == KINDS | TASKS
    assert (await leftovers(url))["for ever"] == []


async def test_who_is_lifted_while_nobody_grants_leaves_nothing_for_ever(url: str) -> None:
    config = RateLimitConfig("1/minute", QueueConfig(priorities=2, max_wait_before_promotion=0.02))
    async with RateLimiter(url, limits={"a": config}, processor=False, hooks=[]) as limiter:
        await limiter.hit("a")
        ticket = await limiter.submit("a", number, 1, priority=1)
        await eventually(lambda: _lifted(limiter))
        async with client_of(url) as client:
            assert await client.pttl("{rl:a:}:q0") > 0
        ticket.cancel()


async def _lifted(limiter: RateLimiter) -> bool:
    await limiter.hit("a")
    return [one.priority async for one in limiter.waiting("a")] == [0]


async def _grants(limiter: RateLimiter, least: int) -> bool:
    return (await limiter.status("sliding", by="deaf")).processor.grants >= least


async def test_what_is_idle_is_forgotten_by_redis(url: str) -> None:
    async with RateLimiter(url, default="5 per 0.1 seconds", hooks=[]) as limiter, client_of(url) as client:
        for n in range(50):
            await limiter.hit("a", by=n)
            await limiter.request("a", number, n, by=n)
        assert await client.dbsize() >= 50
        await eventually(lambda: _is_empty(client))


async def _is_empty(client: redis.asyncio.Redis) -> bool:
    # What a client took lately is kept a little longer, in case a reply is lost.
    return all([":a:" in key or key.endswith("}:processes") async for key in client.scan_iter()])


async def test_a_queue_takes_no_more_than_it_may(url: str) -> None:
    config = RateLimitConfig("1/minute", QueueConfig(max_size=3))
    async with RateLimiter(url, limits={"a": config}, hooks=[]) as limiter:
        await limiter.hit("a")
        tickets = [await limiter.submit("a", number, n) for n in range(3)]
        for _ in range(3):
            with pytest.raises(QueueFull):
                await limiter.submit("a", number, 9)
        assert (await limiter.status("a")).queue.depth == 3
        for ticket in tickets:
            ticket.cancel()


def test_every_queue_has_a_bound() -> None:
    assert QueueConfig().max_size == 1000
    with pytest.raises(ValueError, match="max_size"):
        QueueConfig(max_size=10**9)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(keys_module, "_MOST_KEYS", 10)
    return 10


async def test_a_process_remembers_so_many_keys_and_says_once_whose_they_are(url: str, few: int) -> None:
    seen: list[Event] = []
    limiter = RateLimiter(url, hooks=[seen.append])
    async with limiter:
        for n in range(3):
            await limiter.hit("calm", by=n)
        for n in range(few - 3):
            await limiter.hit("made up", by=n)
        assert (await limiter.health()).keys == few
        assert told(seen) == []
        for n in range(100):
            await limiter.hit("made up", by=f"more {n}")
        assert (await limiter.health()).keys <= few + 1
        assert told(seen) == [ManyKeys(keys=few, name="made up", subjects=few - 3)]
        # Those that are forgotten here are counted on in Redis.
        assert (await limiter.hit("made up", by=0)).remaining == 98
    assert (await limiter.health()).keys <= few + 1


def told(seen: list[Event]) -> list[Event]:
    return [event for event in seen if isinstance(event, ManyKeys)]


async def test_keys_in_use_are_counted_beyond_what_is_remembered(url: str, few: int) -> None:
    async with RateLimiter(url, default="1/minute", hooks=[]) as limiter:
        tickets = [await limiter.submit("a", number, n, by=n % 20) for n in range(40)]
        assert (await limiter.health()).keys == 20 > few
        for ticket in tickets:
            ticket.cancel()


@pytest.mark.parametrize("field", ["name", "by"])
@pytest.mark.parametrize("make", [lambda: "x" * 257, lambda: "", lambda: "é" * 1000], ids=["long", "empty", "longer"])
async def test_names_and_subjects_are_not_endless(field: str, make: Callable[[], str]) -> None:
    async with RateLimiter("memory://", hooks=[]) as limiter:
        with pytest.raises(ValueError, match=field):
            await limiter.hit(**{"name": "a", field: make()})
        assert (await limiter.health()).keys == 0


def test_a_key_that_is_only_checked_takes_little_of_the_process() -> None:
    config = RateLimitConfig("5/minute; 100/hour")
    names = keys_module.KeyNames("rl", lambda _name, _by: config, lambda _event: None)
    names.enter("some client")
    subjects = [f"subject {number}" for number in range(1001)]
    before, each = 0, len(subjects) - 1
    tracemalloc.start()
    try:
        for subject in subjects:
            _pack_key(names.key("a", subject))
            # What is made once is there after the first.
            before = before or tracemalloc.get_traced_memory()[0]
        taken = (tracemalloc.get_traced_memory()[0] - before) / each
    finally:
        tracemalloc.stop()
    assert taken < 1300
    assert names.key("a", subjects[-1]).redis is names.key("a", subjects[-1]).redis
