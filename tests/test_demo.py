"""The demo ends by itself, says what it saw, and refuses nonsense in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ratelimit_async._demo import Granted, most_in_any_window, out_of_order

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


def test_the_summary_counts_windows_and_overtaking() -> None:
    def grant(queued: float, at: float) -> Granted:
        return Granted("x", "A", 0, queued, at, 0.0)

    assert out_of_order([grant(1, 2), grant(1.5, 3)]) == 0
    assert out_of_order([grant(1.5, 2), grant(1, 3)]) == 1
    assert most_in_any_window([0.0, 0.5, 0.9, 1.0, 1.1], 1.0) == 4
