"""The demo: workers share one quota and bring more calls than it allows, of three priorities."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ratelimit_async._errors import ConfigurationError, RateLimitError
from ratelimit_async._events import Event, Queued, log_event
from ratelimit_async._limiter import RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ratelimit_async._values import Status

AMOUNT, PERIOD = 10, 2.0
LEVELS = ("high", "normal", "low")
WORKER = "from ratelimit_async._demo import worker_main; worker_main()"


class Plan(NamedTuple):
    """What the command line asked for."""

    url: str
    processes: int
    seconds: float
    plain: bool


class Granted(msgspec.Struct, frozen=True):
    """One call that ran: its place in time, s by Redis' clock, and its wait."""

    id: str
    worker: str
    level: int
    queued_at: float
    granted_at: float
    waited: float


class Board:
    """What the view shows of one process' calls."""

    def __init__(self) -> None:
        """Start empty."""
        self.granted: list[Granted] = []
        self.waiting: dict[str, tuple[int, str]] = {}
        self.running: dict[str, str] = {}


async def run_demo(plan: Plan) -> int:
    """Run it to its end and print the summary; gives the exit code."""
    prefix = f"demo-{secrets.token_hex(4)}"
    board = Board()
    async with _limiter(plan.url, prefix, []) as limiter, contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_view(plan, board, limiter))
        if plan.processes == 1:
            await _work(plan.url, prefix, plan.seconds, "ABCD", board)
        else:
            names = [chr(ord("A") + n % 26) for n in range(plan.processes)]
            await asyncio.gather(*(_follow(plan, prefix, name, board) for name in names))
    return _summary(board.granted)


def _limiter(url: str, prefix: str, hooks: list[object]) -> RateLimiter:
    return RateLimiter(
        url,
        limits={"api": (AMOUNT, PERIOD)},
        prefix=prefix,
        processor=bool(hooks),
        hooks=[log_event, *hooks],  # type: ignore[list-item]
    )


async def _work(url: str, prefix: str, seconds: float, names: str, board: Board, share: float = 1.0) -> None:
    """Bring a share of half again as many calls as the quota allows, each waiting its turn."""
    queued: dict[str, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, Queued):
            queued[event.id] = time.time()

    async with _limiter(url, prefix, [note]) as limiter:

        async def call(worker: str, level: int, mark: str) -> None:
            board.waiting[mark] = (level, worker)
            try:
                async with limiter.acquire("api", priority=level, timeout=seconds) as grant:
                    board.waiting.pop(mark, None)
                    board.running[mark] = worker
                    at = queued.get(grant.id, grant.granted_at)
                    board.granted.append(Granted(grant.id, worker, level, at, grant.granted_at, grant.waited))
                    await asyncio.sleep(random.uniform(0.1, 0.4))
            except RateLimitError:
                pass
            finally:
                board.waiting.pop(mark, None)
                board.running.pop(mark, None)

        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            calls: dict[str, asyncio.Task[None]] = {}
            while time.monotonic() < end:
                worker = names[len(calls) % len(names)]
                mark = f"{worker}{len(calls)}"
                level = random.choices(range(3), (1, 3, 2))[0]
                calls[mark] = group.create_task(call(worker, level, mark))
                await asyncio.sleep(random.expovariate(1.5 * share * AMOUNT / PERIOD))
            # Whoever still waits goes home, so that the demo ends in time.
            for mark in list(board.waiting):
                calls[mark].cancel()


async def _follow(plan: Plan, prefix: str, name: str, board: Board) -> None:
    """Run one worker process and read what it was granted."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WORKER,
        *(plan.url, prefix, str(plan.seconds), name, str(1 / plan.processes)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            board.granted.append(msgspec.json.decode(line, type=Granted))
    except BaseException:
        # Only one that still runs: signalling one that has ended takes its exit code from asyncio.
        process.terminate()
        raise
    finally:
        await process.wait()
    if process.returncode:
        raise ConfigurationError("processes", plan.processes, f"worker {name} ended with {process.returncode}")


def worker_main() -> None:
    """Be one worker process: print a line of JSON per grant."""
    url, prefix, seconds, name, share = sys.argv[1:6]
    asyncio.run(_print_grants(url, prefix, float(seconds), name, float(share)))


async def _print_grants(url: str, prefix: str, seconds: float, name: str, share: float) -> None:
    board = Board()
    task = asyncio.create_task(_work(url, prefix, seconds, name, board, share))
    told = 0
    while not task.done() or told < len(board.granted):
        for granted in board.granted[told:]:
            sys.stdout.write(msgspec.json.encode(granted).decode() + "\n")
            told += 1
        sys.stdout.flush()
        await asyncio.sleep(0.05)
    await task


@contextlib.asynccontextmanager
async def _view(plan: Plan, board: Board, limiter: RateLimiter) -> AsyncGenerator[None]:
    """Show the board while the block runs."""
    draw = _print_lines
    if not plan.plain:
        try:
            from ratelimit_async._demo_view import show

            draw = show
        except ImportError:
            print("for a live view: pip install 'ratelimit-async[cli]'")
    task = asyncio.create_task(draw(board, limiter))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, RateLimitError):
            await task


async def _print_lines(board: Board, limiter: RateLimiter) -> None:
    while True:
        print(line_of(await limiter.status("api"), board), flush=True)
        await asyncio.sleep(1)


def line_of(status: Status, board: Board) -> str:
    """Say in a line how things are."""
    high, normal, low = status.queue.depth_by_priority
    return (
        f"window {status.limits[0].used:2}/{AMOUNT}   waiting: high {high:2} normal {normal:2} low {low:2}   "
        f"running {len(board.running):2}   granted {len(board.granted)}"
    )


def out_of_order(granted: list[Granted]) -> int:
    """Count grants that overtook: same priority, queued before another and granted in a later step than it.

    Times of queueing are those at which each process heard of its place, so only a difference of more than
    50 ms counts.
    """
    count = 0
    for level in range(len(LEVELS)):
        latest = 0.0
        for one in sorted((g for g in granted if g.level == level), key=lambda g: (g.granted_at, g.queued_at)):
            if one.queued_at < latest - 0.05:
                count += 1
            latest = max(latest, one.queued_at)
    return count


def most_in_any_window(stamps: list[float], period: float) -> int:
    """Count the most grants in any window, by Redis' clock."""
    stamps = sorted(stamps)
    most = start = 0
    for end, stamp in enumerate(stamps):
        while stamp - stamps[start] >= period:
            start += 1
        most = max(most, end - start + 1)
    return most


def _summary(granted: list[Granted]) -> int:
    most = most_in_any_window([one.granted_at for one in granted], PERIOD)
    overtaken = out_of_order(granted)
    print(f"\ngranted              {len(granted)}")
    print(f"order kept           {'yes' if not overtaken else f'no: {overtaken} overtook'}")
    print(f"most in any window   {most} (limit {AMOUNT} per {PERIOD:g} s, by Redis' clock)")
    for level, name in enumerate(LEVELS):
        waits = [one.waited for one in granted if one.level == level]
        if waits:
            print(f"longest wait, {name:7}{max(waits):.1f} s ({len(waits)} granted)")
    return 0 if granted and not overtaken and most <= AMOUNT else 1
