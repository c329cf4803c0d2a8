"""The figures of `top`, and how they are shown."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from ratelimit_async import RateLimiter, RedisUnavailable
from ratelimit_async import _top as top_module
from ratelimit_async._cli import main
from ratelimit_async._onlooker import Onlooker
from ratelimit_async._survey import Counter, Found
from ratelimit_async._top import Look, Watch, watching
from ratelimit_async._top_view import Layout, picture, plot
from tests.helpers import client_of, eventually
from tests.servers import RedisServer, die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

HIGHEST = 500


def onlooker(url: str, **settings: Any) -> Onlooker:
    return Onlooker(url, **{"default": None, "processor": False, "hooks": [], **settings})


def figures(look: Look, name: str, by: str | None = None) -> Any:
    return next(key for key in look.keys if (key.name, key.by) == (name, by))


# ---- what is counted between two looks ----


@pytest.mark.parametrize(
    "limit",
    [
        "1000/minute",
        "1000/day fixed_window",
        "1000/day sliding_counter",
        "100/hour burst 5000",
        "1000/day from finish",
    ],
)
async def test_a_rate_is_what_was_charged_between_two_looks(url: str, limit: str) -> None:
    limits = {"api": limit}
    async with RateLimiter(url, limits=limits, hooks=[]) as limiter, watching(onlooker(url, limits=limits)) as watch:
        await limiter.hit("api", cost=7)
        first = await watch.look(HIGHEST)
        assert figures(first, "api").rate is None
        await limiter.hit("api", cost=30)
        await limiter.hit("api", cost=12)
        second = await watch.look(HIGHEST)
        passed = second.at - first.at
        assert figures(second, "api").rate * passed == pytest.approx(42, abs=0.6)
        third = await watch.look(HIGHEST)
        assert figures(third, "api").rate * (third.at - second.at) <= 0.6
        assert second.rate == figures(second, "api").rate


async def test_a_window_that_moved_on_is_not_taken_for_a_new_one(url: str) -> None:
    limits = {"api": "100 per 0.3 seconds"}
    async with RateLimiter(url, limits=limits, hooks=[]) as limiter, watching(onlooker(url, limits=limits)) as watch:
        hits, charged, looks, before = 0, 0.0, 0, await watch.look(HIGHEST)
        start = time.monotonic()
        while time.monotonic() < start + 1.2:
            made = [(await limiter.hit("api")).allowed for _ in range(3)]
            await asyncio.sleep(0.02)
            look = await watch.look(HIGHEST)
            # What came before the key was seen shows no rate, nor need what is looked at after all of it has expired.
            if before.keys and look.keys and look.at - before.at < 0.3:
                hits, looks = hits + sum(made), looks + 1
                charged += (look.keys[0].rate or 0) * (look.at - before.at)
            before = look
        assert looks
        assert hits == pytest.approx(charged, abs=0.5)


BUCKET, WINDOW = Counter("tb", "requests", 0, 1), Counter("fw", "requests", 0, 0, 60_000_000)
SLIDING, UNKNOWN = Counter("sw", "requests", 0, 0, 6_000_000), Counter("sw", "requests", 0)


@pytest.mark.parametrize(
    ("counter", "found", "earlier", "rate"),
    [
        (BUCKET, Found(94, 1_000_000, 0, 0, 0), Found(90, 1_000_000, 0, 0, 0), 2),
        # It was empty meanwhile, or another window came, which may tell of the one before.
        (BUCKET, Found(5, 9_000_000, 0, 0, 0), Found(90, 1_000_000, 0, 0, 0), 2.5),
        (WINDOW, Found(5, 9_000_000, 0, 0, 60_000_000), Found(90, 1_000_000, 0, 0, 60_000_000), 2.5),
        (WINDOW, Found(5, 9_000_000, 0, 97, 60_000_000), Found(90, 1_000_000, 0, 0, 60_000_000), 6),
        # A sliding window's first bucket goes when it has expired; the sums go on.
        (SLIDING, Found(95, 7_000_000, 93, 0, 0), Found(90, 1_000_000, 80, 0, 0), 2.5),
        (SLIDING, Found(20, 9_500_000, 20, 0, 0), Found(20, 1_000_000, 20, 0, 0), 10),
        (UNKNOWN, Found(20, 9_500_000, 10, 0, 0), Found(20, 1_000_000, 20, 0, 0), 10),
        (UNKNOWN, Found(20, 9_500_000, 20, 0, 0), Found(20, 1_000_000, 20, 0, 0), None),
        # A refund is no charge; what is not known stays so.
        (SLIDING, Found(88, 1_000_000, 0, 0, 0), Found(90, 1_000_000, 0, 0, 0), 0),
        (SLIDING, Found(0, 0, 0, 0, 0), Found(90, 1_000_000, 0, 0, 0), 0),
        (BUCKET, Found(-1, 0, 0, 0, 0), Found(-1, 0, 0, 0, 0), None),
        (SLIDING, Found(5, 9_000_000, 0, 0, 0), None, None),
        # Windows shorter than the time between the looks.
        (Counter("sw", "requests", 0, 0, 500_000), Found(20, 9_700_000, 8, 0, 0), Found(20, 7_000_000, 20, 0, 0), 40),
        (Counter("sw", "requests", 0, 0, 500_000), Found(20, 9_400_000, 8, 0, 0), Found(20, 7_000_000, 20, 0, 0), 24),
        (WINDOW, Found(5, 9_000_000, 0, 0, 1_000_000), Found(90, 1_000_000, 0, 0, 1_000_000), None),
    ],
)
def test_a_rate_follows_counters_that_begin_anew(
    counter: Counter, found: Found, earlier: Found | None, rate: float | None
) -> None:
    assert found.rate(counter, earlier, 8.0, 10.0) == rate


async def test_waits_are_those_of_who_waits_now(url: str) -> None:
    chance = random.Random(7)
    async with client_of(url) as client, watching(onlooker(url)) as watch:
        for waiting in (1, 2, 99, 100, 101, 350, 1234):
            await client.delete(*(f"{{rl:x:}}:q{level}" for level in range(5)))
            seconds, micros = await client.time()
            now = seconds * 1_000_000 + micros
            ages = [chance.randrange(1, 10**9) for _ in range(waiting)]
            levels: dict[int, list[int]] = {}
            for age in ages:
                levels.setdefault(chance.choice((0, 0, 0, 2, 4)), []).append(age)
            for level, some in levels.items():
                entries = [f"client {n} {now - age} 0 -" for n, age in enumerate(sorted(some, reverse=True))]
                await client.rpush(f"{{rl:x:}}:q{level}", *entries)
            watch._whole = False
            key = figures(await watch.look(HIGHEST), "x")
            assert key.waiting == waiting
            assert key.waiting_by_priority == [len(levels.get(level, ())) for level in range(max(levels) + 1)]
            ages.sort(reverse=True)
            # 99 % have waited less than this one, and it is one of them.
            p99 = ages[waiting // 100] / 1e6
            assert 0 <= key.oldest_wait - ages[0] / 1e6 < 10
            assert 0 <= key.p99_wait - p99 < 10


async def test_keys_that_are_gone_and_more_than_can_be_watched(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_module, "MOST_WATCHED", 5)
    limits = {"api": "10/second"}
    async with RateLimiter(url, limits=limits, hooks=[]) as limiter, watching(onlooker(url, limits=limits)) as watch:
        for n in range(8):
            await limiter.hit("api", by=n)
        look = await watch.look(3)
        assert (look.found, look.watched, len(look.keys)) == (8, 5, 3)

        async def moved_on() -> bool:
            # What idles gives way to what moves.
            for n in range(6, 8):
                await limiter.hit("api", by=f"new {n}")
            look = await watch.look(5)
            return {"new 6", "new 7"} <= {key.by for key in look.keys}

        await eventually(moved_on)

        async def forgotten() -> bool:
            return (await watch.look(5)).watched == 0

        await eventually(forgotten, 20)
        assert watch.histories == {}


async def test_who_drives_runs_and_waits_is_shown(url: str) -> None:
    limits = {"api": ["2 concurrent", "100/minute"]}
    async with RateLimiter(url, limits=limits, hooks=[]) as limiter, watching(onlooker(url, limits=limits)) as watch:
        tickets = [await limiter.submit("api", asyncio.sleep, 60) for _ in range(5)]
        await eventually(lambda: limiter._session and limiter._session.processor.runs)
        await limiter.pause("api", by="ann")
        look = await watch.look(HIGHEST)
        key = figures(look, "api")
        assert (key.running, key.waiting, key.waiting_by_priority) == (2, 3, [0, 3, 0])
        assert limiter._session is not None
        assert look.drivers == {limiter._session.client: 1}
        assert key.driver == limiter._session.client
        assert [(one.used, one.most, one.unit) for one in key.limits] == [(2, 2, "concurrent"), (2, 100, "requests")]
        assert figures(look, "api", "ann").paused
        assert look.processes == 1
        for ticket in tickets:
            ticket.cancel()


# ---- how it is shown ----


def text_of(look: Look | None, watch: Watch, problem: str = "", width: int = 170) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(picture(look, watch, 20, Layout.of(width), problem))
    return console.export_text()


async def test_the_picture_shows_what_was_seen(url: str) -> None:
    limits = {"api": ["4/hour", "100 tokens/hour"]}
    async with (
        RateLimiter(url, limits=limits | {"other": "1/hour"}, hooks=[]) as limiter,
        watching(onlooker(url, limits=limits)) as watch,
    ):
        await limiter.hit("api", cost={"tokens": 75})
        await limiter.hit("other", by="\x1bbob")
        await watch.look(HIGHEST)
        await limiter.pause("api")
        await limiter.hit("api")
        tickets = [await limiter.submit("api", asyncio.sleep, 0, priority=n) for n in (0, 1, 1)]
        for shown in (await watch.look(HIGHEST), await watch.look(1)):
            text = text_of(shown, watch)
            for part in (
                "1/4",
                "75/100",
                "api paused",
                "1+2+0",
                "4/hour",
                "100 tokens/hour",
                "3",
                "2 found, 2 watched",
            ):
                assert part in text
        text = text_of(await watch.look(HIGHEST), watch)
        assert "other:\\x1bbob" in text
        assert "? requests sliding_window" in text
        # What is narrow leaves things out; figures are whole, and lines stay lines.
        for width in (80, 90, 100, 110, 120, 140, 170, 220):
            lines = text_of(shown, watch, width=width).splitlines()
            assert len(lines) == 7
            for part in ("1/4", "75/100", "1+2+0", "paused"):
                assert part in "".join(lines)
            assert ("OVER TIME" in lines[3]) == (width >= 110)
            assert "api paused" in "".join(lines)
            assert "…" not in "".join(lines[3:6]) or width < 140
        assert "Redis does not answer: gone" in text_of(shown, watch, "gone")
        assert text_of(None, watch, "never there") == "never there\n"
        for ticket in tickets:
            ticket.cancel()


def test_the_plot_shows_the_newest_and_all_that_is_used_at_all() -> None:
    assert plot([0.0, 0.001, 0.5, 1.0, 1.7], 5) == " ▁▄██"
    assert plot([1.0, 0.25], 1) == "▂"
    assert plot([1.0], 3) == "  █"


def spawn(*argv: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *argv],
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509
        **settings,
    )


LOAD = """
import asyncio, sys
from ratelimit_async import RateLimiter
async def main():
    async with RateLimiter(sys.argv[1], limits={"api": "10000/minute", "slow": "20/second"}, hooks=[]) as limiter:
        async def wait():
            while True:
                async with limiter.acquire("slow", timeout=60):
                    pass
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(wait())
            while True:
                await limiter.hit("api")
                await asyncio.sleep(0.02)
asyncio.run(main())
"""


@pytest.fixture
def loaded(own_server: RedisServer) -> Iterator[RedisServer]:
    """Four processes that hit one name and wait for another."""
    processes = [spawn("-c", LOAD, own_server.url, stderr=subprocess.DEVNULL) for _ in range(4)]
    yield own_server
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.real_redis
def test_top_sees_several_processes_at_work(loaded: RedisServer) -> None:
    environ = os.environ | {"RATELIMIT_LIMITS": json.dumps({"api": "10000/minute", "slow": "20/second"})}
    argv = ("-m", "ratelimit_async", "top", "--url", loaded.url, "--json", "--interval", "0.5")
    process = spawn(*argv, stdout=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    for line in process.stdout:
        look = json.loads(line)
        assert look["error"] is None
        keys = {key["name"]: key for key in look["keys"]}
        if look["processes"] == 4 and keys.keys() >= {"api", "slow"} and keys["slow"]["waiting"] > 10:
            slow, api = keys["slow"], keys["api"]
            if slow["driver"] and slow["rate"] and api["rate"]:
                break
    # A sliding window of 20 a second gives no more than two of them in an interval; hits are beside it.
    assert slow["rate"] <= 40 / 0.5
    assert api["rate"] > 0
    assert look["drivers"][slow["driver"]] >= 1
    assert 0 < slow["p99_wait"] <= slow["oldest_wait"]
    process.kill()
    process.communicate()


@pytest.mark.real_redis
@pytest.mark.parametrize("form", ["plain", "json"])
def test_top_outlives_an_outage_of_redis(own_server: RedisServer, form: str) -> None:
    argv = ("-m", "ratelimit_async", "top", "--url", own_server.url, f"--{form}", "--interval", "0.1")
    process = spawn(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    good = "processes"
    while good not in (line := process.stdout.readline()):
        assert line
    own_server.kill()
    while "Redis at" not in (line := process.stdout.readline()):
        assert line
    if form == "json":
        assert json.loads(line).keys() == {"at", "error"}
    own_server.start()
    while good not in (line := process.stdout.readline()):
        assert line
    process.send_signal(2)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def read_terminal(url: str, until: str, env: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], int, str]:
    """Run top on a terminal until a text is on it."""
    ours, theirs = pty.openpty()
    process = spawn(
        *("-m", "ratelimit_async", "top", "--url", url, "--interval", "0.1"),
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "150", "LINES": "20"} | (env or {}),
    )
    os.close(theirs)
    seen = ""
    while until not in seen:
        seen += os.read(ours, 65536).decode(errors="replace")
    return process, ours, seen


@pytest.mark.real_redis
def test_top_is_live_on_a_terminal_and_gives_the_screen_back(loaded: RedisServer) -> None:
    process, ours, seen = read_terminal(loaded.url, "sliding_window")
    assert "\x1b[?1049h" in seen
    loaded.suspend()
    with contextlib.suppress(OSError):
        while "does not answer" not in seen:
            seen += os.read(ours, 65536).decode(errors="replace")
    loaded.resume()
    process.send_signal(15)
    # Linux tells of the other end's closing as an error.
    with contextlib.suppress(OSError):
        while more := os.read(ours, 65536).decode(errors="replace"):
            seen += more
    assert process.wait(30) == 0
    assert "\x1b[?1049l" in seen
    assert "Traceback" not in seen
    os.close(ours)


@pytest.mark.real_redis
def test_top_without_rich_writes_lines(redis_url: str, tmp_path: Any) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('not installed')\n")
    process, ours, seen = read_terminal(redis_url, "watched 0", {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"})
    assert "pip install 'ratelimit-async[cli]'" in seen
    process.send_signal(2)
    assert process.wait(30) == 0
    os.close(ours)


@pytest.mark.real_redis
async def test_lines_tell_what_the_picture_tells(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    limits = {"api": "2 concurrent", "mail": "9/minute"}
    async with RateLimiter(redis_url, limits=limits, hooks=[]) as limiter:
        asleep, awake = asyncio.Event(), asyncio.Event()

        @limiter.task("sleep")
        async def sleep() -> None:
            asleep.set()
            await awake.wait()

        tickets = [await limiter.submit("api", asyncio.sleep, 60) for _ in range(4)]
        task = await limiter.submit("mail", sleep)
        await asleep.wait()
        await limiter.pause("mail", by="ann")
        argv = ["top", "--url", redis_url, "--once", "--interval", "0.1"]
        assert await asyncio.to_thread(main, argv) == 0
        head, *lines = capsys.readouterr().out.splitlines()
        keys = {line.split()[0]: line for line in lines}
        assert "processes 1 keys 3 watched 3" in head
        assert "waiting 2 " in head
        assert "waiting 0+2 oldest" in keys["api"]
        assert "running 2 driver" in keys["api"]
        assert "[requests sliding_window, not known here: ? 0.0/s] tasks 1" in keys["mail"]
        assert keys["mail:ann"] == "  mail:ann paused"
        awake.set()
        await task
        for ticket in tickets:
            ticket.cancel()


def test_one_look_of_an_empty_redis(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", url, "--once", "--interval", "0.1", "--json"]) == 0
    look = json.loads(capsys.readouterr().out)
    assert (look["keys"], look["found"], look["rate"], look["drivers"]) == ([], 0, 0, {})


@pytest.mark.real_redis
async def test_a_watch_goes_on_after_a_look_that_failed(own_server: RedisServer) -> None:
    limits = {"api": "100/minute"}
    onlooking = onlooker(own_server.url, limits=limits, command_timeout=0.3)
    async with RateLimiter(own_server.url, limits=limits, hooks=[]) as limiter, watching(onlooking) as watch:
        await limiter.hit("api")
        assert figures(await watch.look(5), "api").limits[0].used == 1
        own_server.kill()
        with pytest.raises(RedisUnavailable):
            await watch.look(5)
        own_server.start()

        async def looks() -> bool:
            with contextlib.suppress(RedisUnavailable):
                await limiter.hit("api")
                look = await watch.look(5)
                return bool(look.keys) and bool(look.keys[0].rate)
            return False

        await eventually(looks, 30)


async def test_counters_of_others_are_not_read(url: str) -> None:
    async with client_of(url) as client, watching(onlooker(url)) as watch:
        await client.set("{rl:x:}:sw:Nonsense", "1")
        await client.set("{rl:x:}:fw:requests:0", "what is this")
        await client.set("others", "1")
        found = await watch._limiter.counters("x", None)
        assert found == {Counter("fw", "requests", 0)}
        assert figures(await watch.look(5), "x").limits[0].used is None
