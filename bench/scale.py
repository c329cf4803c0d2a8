"""Scale: what a check, a grant, a waiter and a task cost, in Redis and in the client; docs/scale.md is made of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import statistics
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from redis.crc import key_slot

from bench.measure import Calls, Cost, Meter, closed_loop, memory_of, slow_log
from bench.windows import rows_of, window_of
from ratelimit_async import QueueConfig, RateLimitConfig, RateLimiter, Ticket
from ratelimit_async._lua import ALL
from tests.servers import RedisServer
from tests.topologies import ClusterSetup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ratelimit_async._keys import Key

ALGORITHMS = ("sliding_window", "fixed_window", "sliding_counter", "token_bucket")
PLENTY = 1_000_000_000
# What 100 bytes of arguments are, once they are encoded.
PAYLOAD = "x" * 97
MOST_WAITING = QueueConfig(max_size=1_000_000)
# Seconds: each lease is renewed several times in them.
KEPT = 10.0


# ---- checks ----


def _limit(algorithm: str, amount: int, seconds: float) -> str:
    return f"{amount} per {seconds:g} seconds {algorithm}"


def seed(server: RedisServer, key: str, hits: int, seconds: int, *, expired: float = 0.0) -> None:
    """Write a sliding window that looks as if so many hits were spread evenly over it; a share of it has expired.

    The newest bucket has not, unless the share is 2 or more.
    """
    width = seconds * 1250
    buckets = min(hits, 800)
    now_s, now_us = server.call("TIME")
    newest = (int(now_s) * 1_000_000 + int(now_us)) // width * width
    shift = int(800 * expired) * width
    rows = [
        (newest - shift - (buckets - 1 - n) * (800 // buckets) * width, hits * (n + 1) // buckets)
        for n in range(buckets)
    ]
    if 0 < expired < 2:
        # The newest still counts: the window is not simply forgotten.
        rows[-1] = newest, rows[-1][1]
    server.call("SET", key, window_of(rows))


async def lua_per_check(
    server: RedisServer, algorithm: str, hits: int, *, callers: int = 64, total: int = 6400, keys: int = 1
) -> tuple[float, float, float]:
    """Give the us per check, of script calls, server and client, beside so many earlier hits in each window."""
    meter = Meter(server)
    server.call("FLUSHALL")
    limits = {"bench": _limit(algorithm, PLENTY, 3600)}
    async with RateLimiter(server.url, limits=limits, hooks=[]) as limiter:
        for by in range(keys):
            await limiter.hit("bench", by=by, cost=hits)
            if algorithm == "sliding_window":
                seed(server, limiter._key_of("bench", str(by)).redis[-1].decode(), hits, 3600)
        turns = itertools.count()
        with meter.running():
            await closed_loop(lambda: limiter.hit("bench", by=next(turns) * 619 % keys), callers, total)
    cost = meter.cost
    return cost.scripts / total * 1e6, cost.server / total * 1e6, cost.client / total * 1e6


async def steady_window(server: RedisServer, *, callers: int = 64, total: int = 100_000) -> tuple[float, int]:
    """Give the us of Redis' time per check where buckets expire all the time, and how many hits the window held."""
    meter = Meter(server)
    server.call("FLUSHALL")
    async with RateLimiter(server.url, limits={"bench": _limit("sliding_window", PLENTY, 1)}, hooks=[]) as limiter:
        with meter.running():
            await closed_loop(lambda: limiter.hit("bench"), callers, total)
        used = (await limiter.status("bench")).limits[0].used
    return meter.cost.scripts / total * 1e6, used


async def expiry_one_by_one(server: RedisServer, *, callers: int = 64, keys: int = 1000) -> tuple[float, float]:
    """Give the us of script calls per check of full windows: where it finds nothing expired, and where one bucket."""
    meter = Meter(server)
    server.call("FLUSHALL")
    found: list[float] = []
    limits = {"bench": _limit("sliding_window", PLENTY, 3600)}
    async with RateLimiter(server.url, limits=limits, hooks=[]) as limiter:
        for expired in (0, 2):
            for by in range(keys):
                # The one that expired before is what counting starts from.
                state = limiter._key_of("bench", str(by)).redis[-1].decode()
                seed(server, state, 100_000, 3600, expired=expired / 800)
            turns = itertools.count()
            with meter.running():
                await closed_loop(lambda turns=turns: limiter.hit("bench", by=next(turns)), callers, keys)
            found.append(meter.cost.scripts / keys * 1e6)
    return found[0], found[1]


async def expiry_at_once(server: RedisServer, repetitions: int = 11) -> tuple[float, float]:
    """Give the ms of the one check that finds a full window expired: all but its newest bucket, and all of it."""
    meter = Meter(server)
    found: tuple[list[float], list[float]] = ([], [])
    async with RateLimiter(server.url, limits={"bench": _limit("sliding_window", PLENTY, 60)}, hooks=[]) as limiter:
        key = limiter._key_of("bench", None).redis[-1].decode()
        await limiter.hit("bench")
        for _ in range(repetitions):
            for figures, expired in zip(found, (1.0, 2.0), strict=True):
                seed(server, key, 100_000, 60, expired=expired)
                with meter.running():
                    await limiter.hit("bench")
                figures.append(meter.cost.scripts * 1e3)
    return statistics.median(found[0]), statistics.median(found[1])


async def report_checks(server: RedisServer, repetitions: int = 5) -> None:
    """Print Redis' time per check by algorithm and by what the window holds."""
    print("  Redis' time per check, us, 64 callers: that of script calls; with 1,000 hits all of it, and the client's")
    print("  hits in the window                       10     1,000   100,000   most / least    server    client")
    for algorithm, keys in itertools.product(ALGORITHMS, (1, 1000)):
        figures: dict[int, list[tuple[float, float, float]]] = {10: [], 1_000: [], 100_000: []}
        for _ in range(repetitions):
            for hits, values in figures.items():
                values.append(await lua_per_check(server, algorithm, hits, keys=keys))
        medians = [statistics.median(scripts for scripts, *_ in column) for column in figures.values()]
        server_us, client_us = (statistics.median(row[i] for row in figures[1_000]) for i in (1, 2))
        columns = "".join(f"{median:10.1f}" for median in medians)
        of = f"{keys:,} keys" if keys > 1 else "one key"
        spread = max(medians) / min(medians)
        print(f"  {algorithm + ', ' + of:32}{columns}   {spread:12.2f}{server_us:10.1f}{client_us:10.1f}")
    steady = [await steady_window(server) for _ in range(3)]
    cost, used = sorted(steady)[1]
    print(f"  sliding_window of 1 s that moves, {used:,} hits in it: {cost:.1f}")
    none, one = await expiry_one_by_one(server)
    print(f"  full windows of 1,000 keys: {none:.1f}; where each check finds one more bucket expired: {one:.1f}")
    some, whole = await expiry_at_once(server)
    print(f"  one check after 800 buckets expired at once: {some:.2f} ms beside a newer one, {whole:.2f} ms alone")


# ---- the longest calls ----


def _print_calls(what: str, found: list[Calls]) -> None:
    for calls in found:
        figures = "".join(f"{calls.at(share):9.2f}" for share in (0.5, 0.99, 0.999, 1.0))
        print(f"  {what:30}{calls.name:10}{len(calls.times):8}{figures}")
        what = ""


async def many_checks(server: RedisServer, *, callers: int = 256, keys: int = 1000, total: int = 50_000) -> list[Calls]:
    """Check three limits of many keys."""
    server.call("FLUSHALL")
    found: list[Calls] = []
    limits = {"bench": "100/second; 1000/minute; 10000/hour"}
    async with RateLimiter(server.url, limits=limits, hooks=[]) as limiter:
        turn = 0

        async def check() -> None:
            nonlocal turn
            turn += 1
            await limiter.hit("bench", by=turn * 7919 % keys)

        with slow_log(server, found):
            await closed_loop(check, callers, total)
    return found


async def big_grants(server: RedisServer, *, waiters: int = 4000, keys: int = 8) -> list[Calls]:
    """Let many wait on few keys, and let 100 of each pass at a time."""
    server.call("FLUSHALL")
    found: list[Calls] = []
    config = RateLimitConfig("100 per 0.2 seconds; 1000000/hour; 10000000/day", QueueConfig(max_size=waiters))
    async with RateLimiter(server.url, limits={"bench": config}, hooks=[]) as limiter:
        with slow_log(server, found):
            await asyncio.gather(*(limiter.acquire("bench", by=n % keys, timeout=None) for n in range(waiters)))
    return found


async def long_syncs(server: RedisServer, *, waiters: int = 1000, keys: int = 4, rounds: int = 20) -> list[Calls]:
    """Look for what Redis forgot, behind long queues, again and again."""
    server.call("FLUSHALL")
    found: list[Calls] = []
    async with waiting(server, waiters, keys) as (limiter, _):
        session = limiter._live()
        with slow_log(server, found):
            for _ in range(rounds):
                await session.requests.sync(scan=True)
    return found


async def many_tasks(server: RedisServer, *, tasks: int = 5000, keys: int = 5) -> list[Calls]:
    """Submit and run tasks."""
    server.call("FLUSHALL")
    found: list[Calls] = []
    limiter = RateLimiter(
        server.url, limits={"bench": RateLimitConfig("1000000/hour", QueueConfig(max_size=tasks))}, hooks=[]
    )

    @limiter.task("work")
    async def work(text: str) -> str:
        return text

    async with limiter:
        with slow_log(server, found):
            tickets = await asyncio.gather(*(limiter.submit("bench", work, PAYLOAD, by=n % keys) for n in range(tasks)))
            await asyncio.gather(*tickets)
    return found


def machine(server: RedisServer, seconds: float = 2.0) -> list[Calls]:
    """Run one script again and again that always does the same: what varies is the machine's doing."""
    script = server.client.register_script("local n = 0 for i = 1, 60000 do n = n + i end return n")
    script()
    found: list[Calls] = []
    with slow_log(server, found):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            script()
    return found


async def report_calls(server: RedisServer) -> None:
    """Print how long script calls take."""
    print(f"  {'script calls, ms':30}{'':10}{'calls':>8}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>9}")
    _print_calls("hit, 3 limits, 1,000 keys", await many_checks(server))
    _print_calls("grants, 3 limits, 8 keys", await big_grants(server))
    _print_calls("scans behind 1,000 waiters", await long_syncs(server))
    for waiters in (1_000, 10_000):
        found: list[Calls] = []
        await forgotten(server, waiters, 1, found)
        _print_calls(f"{waiters:,} forgotten, one key", found)
    _print_calls("behind 10,000 that are gone", await gone(server, 10_000))
    for buckets in (100, 799):
        _print_calls(f"settled after {buckets} buckets", await settled(server, buckets))
    _print_calls("tasks, 5 keys", await many_tasks(server))
    _print_calls("always the same, for comparison", machine(server))


# ---- waiting ----


@contextlib.asynccontextmanager
async def waiting(
    server: RedisServer, waiters: int, keys: int, *, submit: bool = False, lease: float = 5.0
) -> AsyncIterator[tuple[RateLimiter, list[asyncio.Task[Any]]]]:
    """Have so many wait, for more than anybody has time for, until the block ends."""
    config = RateLimitConfig("1/day", MOST_WAITING)
    async with RateLimiter(server.url, limits={"bench": config}, hooks=[], lease=lease) as limiter:
        await asyncio.gather(*(limiter.hit("bench", by=n) for n in range(keys)))
        tasks: list[asyncio.Task[Any]] = []
        tickets: list[Ticket[Any]] = []
        if submit:
            tickets += await asyncio.gather(
                *(limiter.submit("bench", asyncio.sleep, 0, by=n % keys, timeout=None) for n in range(waiters))
            )
        else:
            acquires = [limiter.acquire("bench", by=n % keys, timeout=None) for n in range(waiters)]
            tasks = [asyncio.create_task(_take(acquire)) for acquire in acquires]
            del acquires
        while await depth(limiter, keys) < waiters:
            await asyncio.sleep(0.1)
        yield limiter, tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _take(acquire: Any) -> None:
    await acquire


async def depth(limiter: RateLimiter, keys: int) -> int:
    statuses = await asyncio.gather(*(limiter.status("bench", by=n) for n in range(keys)))
    return sum(status.queue.depth for status in statuses)


async def grants(server: RedisServer, waiters: int, keys: int, limit: str) -> Cost:
    """Let so many wait, each once, and be granted."""
    server.call("FLUSHALL")
    meter = Meter(server)
    config = RateLimitConfig(limit, MOST_WAITING)
    async with RateLimiter(server.url, limits={"bench": config}, hooks=[]) as limiter:
        gc.collect()
        with meter.running():
            await asyncio.gather(*(limiter.acquire("bench", by=n % keys, timeout=None) for n in range(waiters)))
    return meter.cost


async def kept(server: RedisServer, waiters: int, keys: int) -> Cost:
    """Let so many wait for a while in which nobody is granted."""
    server.call("FLUSHALL")
    meter = Meter(server)
    async with waiting(server, waiters, keys):
        with meter.running():
            await asyncio.sleep(KEPT)
    return meter.cost


async def syncs(server: RedisServer, waiters: int, keys: int) -> tuple[Cost, Cost]:
    """Ask for the state of so many that wait; and look besides for what Redis forgot."""
    server.call("FLUSHALL")
    meter = Meter(server)
    costs: list[Cost] = []
    async with waiting(server, waiters, keys) as (limiter, _):
        requests = limiter._live().requests
        for scan in (False, True):
            with meter.running():
                await requests.sync(scan=scan)
            costs.append(meter.cost)
    return costs[0], costs[1]


async def cancellations(server: RedisServer, waiters: int, keys: int) -> Cost:
    """Cancel so many that wait, all at once."""
    server.call("FLUSHALL")
    meter = Meter(server)
    async with waiting(server, waiters, keys) as (limiter, tasks):
        random.shuffle(tasks)
        with meter.running():
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await limiter._live().requests.drain()
        assert await depth(limiter, keys) == 0
    return meter.cost


async def forgotten(server: RedisServer, waiters: int, keys: int, found: list[Calls]) -> Cost:
    """Let Redis forget everybody who waits, and have them put back to their places."""
    server.call("FLUSHALL")
    meter = Meter(server)
    async with waiting(server, waiters, keys) as (limiter, _):
        server.call("FLUSHALL")
        # It forgets what is charged, too: nobody is to be granted.
        await asyncio.gather(*(limiter.hit("bench", by=n) for n in range(keys)))
        with slow_log(server, found), meter.running():
            await limiter._live().requests.sync(scan=True)
            await limiter._live().executor.call(ALL["waiting"], limiter._key_of("bench", "0"), (0, 0, 0))
        while (left := await depth(limiter, keys)) < waiters:
            await asyncio.sleep(0.1)
        assert left == waiters
    return meter.cost


async def gone(server: RedisServer, waiters: int) -> list[Calls]:
    """Let somebody be granted who stands behind many whose process is gone."""
    server.call("FLUSHALL")
    found: list[Calls] = []
    config = RateLimitConfig("1000000/hour", MOST_WAITING)
    async with RateLimiter(server.url, limits={"bench": config}, hooks=[]) as limiter:
        key = limiter._key_of("bench", None)
        queue = key.redis[8].decode()
        for n in range(0, waiters, 1000):
            entries = [f"gone {n + i} 1 0 -" for i in range(1000)]
            server.call("RPUSH", queue, *entries)
        with slow_log(server, found):
            await limiter.acquire("bench", timeout=None)
    return found


async def settled(server: RedisServer, buckets: int, grants: int = 32) -> list[Calls]:
    """Give back a part of calls that began so many buckets ago."""
    server.call("FLUSHALL")
    found: list[Calls] = []
    async with RateLimiter(server.url, limits={"bench": "1000000/hour"}, hooks=[]) as limiter:
        held = await asyncio.gather(*(limiter.acquire("bench", cost=10) for _ in range(grants)))
        key = limiter._key_of("bench", None).redis[-1].decode()
        rows = rows_of(server.client.execute_command("GET", key, NEVER_DECODE=True))
        newest, total = rows[-1]
        rows += [(newest + 4_500_000 * (n + 1), total + n + 1) for n in range(buckets)]
        server.client.set(key, window_of(rows))
        with slow_log(server, found):
            await asyncio.gather(*(grant.settle(5) for grant in held))
    return found


def _print_cost(what: str, n: int, cost: Cost) -> None:
    client, scripts = cost.client / n * 1e6, cost.scripts / n * 1e6
    print(f"  {what:34}{n:8,}{client:10.0f}{scripts:10.1f}{cost.calls / n:10.3f}{cost.wall:10.2f}")


async def report_waiting(server: RedisServer) -> None:
    """Print what waiting costs, from few to many."""
    print(f"  {'per waiter':34}{'waiters':>8}{'client us':>10}{'Redis us':>10}{'calls':>10}{'in all, s':>10}")
    many = (100, 1_000, 10_000)
    for n in many:
        _print_cost("granted, 10 per key, 2/s each", n, await grants(server, n, n // 10, "1 per 0.5 seconds"))
    for n in many:
        _print_cost("granted, one key, 10 % per 0.3 s", n, await grants(server, n, 1, f"{n // 10} per 0.3 seconds"))
    for n in many:
        _print_cost(f"kept for {KEPT:g} s, a key each", n, await kept(server, n, n))
    for n, (what, per_key) in itertools.product(many, (("10 per key", 10), ("one key", 0))):
        keys = n // per_key if per_key else 1
        _print_cost(f"kept for {KEPT:g} s, {what}", n, await kept(server, n, keys))
        plain, scan = await syncs(server, n, keys)
        _print_cost(f"asked for, {what}", n, plain)
        _print_cost(f"looked for, {what}", n, scan)
        _print_cost(f"forgotten by Redis, {what}", n, await forgotten(server, n, keys, []))
        _print_cost(f"cancelled at once, {what}", n, await cancellations(server, n, keys))


# ---- memory ----


async def memory_counted(server: RedisServer, hits: int, algorithm: str) -> int:
    """Give the bytes of Redis that so many counted requests of one key take."""
    server.call("FLUSHALL")
    async with RateLimiter(server.url, limits={"bench": _limit(algorithm, PLENTY, 3600)}, hooks=[]) as limiter:
        before = memory_of(server)
        await limiter.hit("bench", cost=hits)
        if algorithm == "sliding_window":
            seed(server, limiter._key_of("bench", None).redis[-1].decode(), hits, 3600)
        return memory_of(server) - before


async def memory_keys(server: RedisServer, keys: int, algorithm: str) -> int:
    """Give the bytes of Redis that so many keys take of which each counts one request."""
    server.call("FLUSHALL")
    async with RateLimiter(server.url, limits={"bench": _limit(algorithm, PLENTY, 3600)}, hooks=[]) as limiter:
        before = memory_of(server)
        for start in range(0, keys, 1000):
            await asyncio.gather(*(limiter.hit("bench", by=start + n) for n in range(1000)))
        return memory_of(server) - before


async def memory_acquired(server: RedisServer, keys: int) -> int:
    """Give the bytes of Redis that so many keys take of which each has had one `acquire` within the last seconds."""
    server.call("FLUSHALL")
    async with RateLimiter(server.url, limits={"bench": _limit("token_bucket", PLENTY, 3600)}, hooks=[]) as limiter:
        before = memory_of(server)
        for start in range(0, keys, 1000):
            await asyncio.gather(*(limiter.acquire("bench", by=start + n) for n in range(1000)))
        return memory_of(server) - before


async def memory_taken(server: RedisServer, grants: int) -> int:
    """Give the bytes of Redis that so many `acquire` of one key within the last seconds take."""
    server.call("FLUSHALL")
    async with RateLimiter(server.url, limits={"bench": _limit("token_bucket", PLENTY, 3600)}, hooks=[]) as limiter:
        before = memory_of(server)
        await asyncio.gather(*(limiter.acquire("bench") for n in range(grants)))
        return memory_of(server) - before


async def memory_waiting(server: RedisServer, waiters: int, keys: int, *, submit: bool = False) -> tuple[int, int]:
    """Give the bytes that so many that wait take: of Redis, and of this process."""
    server.call("FLUSHALL")
    # What is made once is there before.
    async with waiting(server, 100, keys):
        pass
    server.call("FLUSHALL")
    # What is counted takes what it takes, whether or not anybody waits.
    async with RateLimiter(server.url, limits={"bench": RateLimitConfig("1/day")}, hooks=[]) as limiter:
        await asyncio.gather(*(limiter.hit("bench", by=n) for n in range(keys)))
    before = memory_of(server)
    gc.collect()
    tracemalloc.start()
    try:
        async with waiting(server, waiters, keys, submit=submit):
            gc.collect()
            client = tracemalloc.get_traced_memory()[0]
            return memory_of(server) - before, client
    finally:
        tracemalloc.stop()


async def memory_tasks(server: RedisServer, tasks: int, keys: int = 1) -> int:
    """Give the bytes of Redis that so many durable tasks with 100 bytes of arguments take while they wait."""
    server.call("FLUSHALL")
    config = RateLimitConfig("1/day", MOST_WAITING)
    limiter = RateLimiter(server.url, limits={"bench": config}, hooks=[])

    @limiter.task("work")
    async def work(_text: str) -> None:
        """Never run."""

    async with limiter:
        await asyncio.gather(*(limiter.hit("bench", by=n) for n in range(keys)))
        before = memory_of(server)
        for start in range(0, tasks, 1000):
            await asyncio.gather(
                *(limiter.submit("bench", work, PAYLOAD, by=(start + n) % keys) for n in range(min(1000, tasks)))
            )
        return memory_of(server) - before


async def report_memory(server: RedisServer, n: int = 10_000) -> None:
    """Print what is kept, in Redis and in a process."""
    print(f"  {'bytes, of each of ' + format(n, ','):44}{'Redis':>10}{'client':>10}")

    def row(what: str, size: float, client: float | None = None) -> None:
        print(f"  {what:44}{size / n:10.1f}" + ("" if client is None else f"{client / n:10.0f}"))

    for algorithm in ALGORITHMS:
        row(f"request counted in a {algorithm}", await memory_counted(server, n, algorithm))
    for algorithm in ALGORITHMS:
        row(f"key with one request, {algorithm}", await memory_keys(server, n, algorithm))
    row("key with one acquire, token_bucket", await memory_acquired(server, n))
    row("acquire of one key, lately", await memory_taken(server, n))
    row("acquire that waits, one key", *await memory_waiting(server, n, 1))
    row("acquire that waits, 10 per key", *await memory_waiting(server, n, n // 10))
    row("submit that waits, one key", *await memory_waiting(server, n, 1, submit=True))
    row("task that waits, one key", await memory_tasks(server, n))
    row("task that waits, 10 per key", await memory_tasks(server, n, n // 10))


# ---- a cluster ----


async def cluster_checks(setup: ClusterSetup, primaries: int, *, keys: int = 1000, total: int = 20_000) -> list[Cost]:
    """Check keys that stand on so many of the primaries; gives what each of those, and this process, spent."""
    servers = setup.servers[:primaries]
    meters = [Meter(server) for server in servers]
    async with RateLimiter(setup.url, limits={"bench": f"{PLENTY}/hour"}, hooks=[]) as limiter:
        # Slots are handed out in thirds.
        subjects = (by for by in itertools.count() if _third(limiter._key_of("bench", by)) < primaries)
        chosen = list(itertools.islice(subjects, keys))
        turns = itertools.count()
        await asyncio.gather(*(limiter.hit("bench", by=by) for by in chosen))
        with contextlib.ExitStack() as stack:
            for meter in meters:
                stack.enter_context(meter.running())
            await closed_loop(lambda: limiter.hit("bench", by=chosen[next(turns) * 619 % keys]), 64, total)
    return [meter.cost for meter in meters]


def _third(key: Key) -> int:
    return key_slot(key.redis[0]) * 3 // 16_384


async def report_cluster(setup: ClusterSetup, total: int = 20_000) -> None:
    """Print how the work spreads over primaries."""
    print(
        "  primaries   client us   Redis us per check   busiest primary, us   checks/s here   checks/s by Redis' time"
    )
    for primaries in (1, 2, 3):
        runs = [await cluster_checks(setup, primaries, total=total) for _ in range(3)]
        costs = sorted(runs, key=lambda run: sum(cost.scripts for cost in run))[1]
        scripts = sum(cost.scripts for cost in costs) / total * 1e6
        busiest = max(cost.scripts for cost in costs) / total * 1e6
        client, wall = costs[0].client / total * 1e6, costs[0].wall
        print(f"  {primaries:9}{client:12.0f}{scripts:21.1f}{busiest:22.1f}{total / wall:16,.0f}{1e6 / busiest:26,.0f}")


def report_scale() -> None:
    """Print all of it, against servers of its own."""
    sections = {
        "checks": report_checks,
        "the longest script calls": report_calls,
        "waiting": report_waiting,
        "memory": report_memory,
    }
    with RedisServer() as server:
        for title, report in sections.items():
            print(f"scale: {title}")
            asyncio.run(report(server))
    print("scale: 64 callers, 1,000 keys of a cluster")
    with ClusterSetup() as setup:
        asyncio.run(report_cluster(setup))
