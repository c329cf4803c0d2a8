"""The demo ends by itself, says what it saw, and refuses nonsense in one line."""

from __future__ import annotations

import asyncio
import contextlib
import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from ratelimit_async import RateLimiter
from ratelimit_async._demo import AMOUNT, PERIOD, Board, Granted, most_in_any_window, out_of_order
from ratelimit_async._demo_view import picture, show

if TYPE_CHECKING:
    from tests.servers import RedisServer


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ratelimit_async", "demo", "--plain", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_demo_keeps_limit_and_order() -> None:
    done = demo("--seconds", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "order kept           yes" in done.stdout
    assert "(limit 10 per 2 s, by Redis' clock)" in done.stdout


@pytest.mark.real_redis
def test_the_demo_runs_in_real_processes(redis_server: RedisServer) -> None:
    done = demo("--seconds", "4", "--processes", "2", "--url", redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "order kept           yes" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--processes", "2"), 2, "needs --url of a real Redis"),
        (("--processes", "0"), 2, "must be from 1 to 64"),
        (("--seconds", "0"), 2, "must be from 0.5 to 3600"),
        (("--url", "nonsense"), 1, "url: must start with one of"),
        (("--url", "redis://127.0.0.1:1/0"), 1, "Redis at 127.0.0.1:1"),
    ],
)
def test_nonsense_is_refused_in_a_line(options: tuple[str, ...], code: int, says: str) -> None:
    done = demo(*options)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_live_view_shows_the_window_the_queue_and_who_is_next(url: str) -> None:
    board = Board()
    board.waiting = {"B7": (2, "B"), "A3": (0, "A")}
    board.running = {"C5": "C"}
    board.granted = [Granted("x", "D", 1, 0.0, 0.0, 1.25)]
    async with RateLimiter(url, limits={"api": (AMOUNT, PERIOD)}) as limiter:
        await limiter.hit("api", cost=4)
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(picture(await limiter.status("api"), board))
        drawing = asyncio.create_task(show(board, limiter))
        await asyncio.sleep(0.01)
        drawing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drawing
    text = console.export_text()
    for part in ("4/10 per 2 s", "running  C5", "next     A3 B7", "worker D  normal  waited  1.25 s"):
        assert part in text


def test_grants_of_one_step_are_in_order_however_they_are_listed() -> None:
    one, two = Granted("x", "A", 0, 1.0, 5.0, 0.0), Granted("y", "B", 0, 2.0, 5.0, 0.0)
    assert out_of_order([two, one]) == 0


def test_the_summary_counts_windows_and_overtaking() -> None:
    def grant(queued: float, at: float) -> Granted:
        return Granted("x", "A", 0, queued, at, 0.0)

    assert out_of_order([grant(1, 2), grant(1.5, 3)]) == 0
    assert out_of_order([grant(1.5, 2), grant(1, 3)]) == 1
    assert most_in_any_window([0.0, 0.5, 0.9, 1.0, 1.1], 1.0) == 4
