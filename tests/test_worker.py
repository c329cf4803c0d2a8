"""Worker processes, and what becomes of their tasks when they are stopped, killed or cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import ConfigurationError, DurabilityUnknown, RateLimiter, RedisUnavailable, TaskFailed
from ratelimit_async._cli import main
from ratelimit_async._work import load_limiter
from tests import worker_app
from tests.helpers import eventually
from tests.servers import RedisServer, die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real_redis
ROOT = Path(__file__).parent.parent
LIMITS = {"a": "1000/second", "one": "1 concurrent"}


@contextlib.contextmanager
def worker(url: str, lease: float = 1.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command that the docs give, as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ratelimit_async", "worker", "tests.worker_app:limiter"],
        env={**os.environ, "TEST_URL": url, "TEST_LEASE": str(lease)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )
    try:
        assert process.stderr is not None
        line = b""
        while b"runs the tasks" not in line:
            line = process.stderr.readline()
            assert line, "the worker ended at once"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def submitter(url: str, **settings: Any) -> RateLimiter:
    limiter = RateLimiter(url, limits=LIMITS, processor=False, **settings)
    for name in worker_app.limiter.tasks:
        task = worker_app.limiter._registry._tasks[name]
        limiter.task(name, max_attempts=task.max_attempts)(task.fn)
    return limiter


def task_of(limiter: RateLimiter, name: str) -> Any:
    return limiter._registry._tasks[name]


def noted(server: RedisServer) -> list[str]:
    return server.call("LRANGE", "noted", 0, -1)


async def test_sigterm_lets_finish_what_runs(own_server: RedisServer) -> None:
    async with submitter(own_server.url) as limiter:
        with worker(own_server.url) as process:
            ticket = await limiter.submit("a", task_of(limiter, "slow"), 0.5)
            await eventually(lambda: noted(own_server))
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
        assert await ticket == noted(own_server)[0].split()[1]
        assert [line.split()[0] for line in noted(own_server)] == ["begun", "ended"]


async def test_a_task_of_a_killed_worker_is_taken_over(own_server: RedisServer) -> None:
    async with submitter(own_server.url) as limiter:
        with worker(own_server.url) as one:
            # A slot is held meanwhile, and comes back as well.
            ticket = await limiter.submit("one", task_of(limiter, "slow"), 0.3)
            await eventually(lambda: noted(own_server))
            one.kill()
            with worker(own_server.url) as two:
                assert await asyncio.wait_for(_result(ticket), 30) == str(two.pid)
        assert [line.split()[0] for line in noted(own_server)] == ["begun", "begun", "ended"]


async def _result(ticket: Any) -> Any:
    return await ticket


async def test_a_task_that_kills_its_workers_ends_among_the_dead_letters(own_server: RedisServer) -> None:
    async with submitter(own_server.url) as limiter:
        ticket = await limiter.submit("a", task_of(limiter, "deadly"))
        for _ in range(2):
            with worker(own_server.url) as process:
                await asyncio.to_thread(process.wait, 30)
        with worker(own_server.url), pytest.raises(TaskFailed, match="after 2 attempts: its process is gone"):
            await asyncio.wait_for(_result(ticket), 30)
        assert noted(own_server) == ["deadly"] * 2


async def test_a_worker_that_was_stopped_past_its_lease_cannot_end_the_task(own_server: RedisServer) -> None:
    async with submitter(own_server.url) as limiter:
        with worker(own_server.url) as one:
            ticket = await limiter.submit("a", task_of(limiter, "first"))
            await eventually(lambda: noted(own_server))
            with worker(own_server.url) as two:
                assert await asyncio.wait_for(_result(ticket), 30) == str(two.pid)
                one.send_signal(signal.SIGCONT)
                await eventually(lambda: noted(own_server)[-1] == f"back {one.pid}")
                await asyncio.sleep(0.3)
                # What it says now is refused: the result stays what it was.
                assert await limiter.result(ticket.id) == str(two.pid)


async def test_tasks_survive_workers_that_are_killed_again_and_again(own_server: RedisServer) -> None:
    async with submitter(own_server.url) as limiter:
        tickets = [await limiter.submit("a", task_of(limiter, "slow"), 0.01) for _ in range(40)]
        results = asyncio.gather(*tickets)
        while not results.done():
            with worker(own_server.url, lease=0.4):
                done, _ = await asyncio.wait([results], timeout=1.5)
                del done
        assert len(await results) == 40


async def test_tasks_survive_redis_killed_and_restarted_with_aof() -> None:
    with RedisServer("--appendfsync", "always", appendonly=True) as server:
        async with submitter(server.url) as limiter:
            tickets = [await limiter.submit("a", task_of(limiter, "quick"), n) for n in range(50)]
            waiting = asyncio.gather(*tickets)
            server.restart()
            with worker(server.url):
                assert await asyncio.wait_for(waiting, 60) == [2 * n for n in range(50)]


async def test_tasks_that_redis_forgot_are_put_back_by_who_waits_for_them(own_server: RedisServer) -> None:
    async with submitter(own_server.url) as limiter:
        tickets = [await limiter.submit("a", task_of(limiter, "quick"), n) for n in range(20)]
        waiting = asyncio.gather(*tickets)
        await asyncio.sleep(0.1)
        own_server.call("FLUSHALL")
        own_server.call("CLIENT", "KILL", "TYPE", "pubsub")
        with worker(own_server.url):
            assert await asyncio.wait_for(waiting, 60) == [2 * n for n in range(20)]


async def test_an_outage_refuses_what_is_submitted_and_keeps_the_end_of_what_runs(own_server: RedisServer) -> None:
    with RedisServer("--appendfsync", "always", appendonly=True) as server:
        release = asyncio.Event()
        async with RateLimiter(server.url, limits=LIMITS, command_timeout=0.5, connect_timeout=0.5) as limiter:

            @limiter.task("waits")
            async def waits() -> int:
                await release.wait()
                return 7

            ticket = await limiter.submit("a", waits)
            waiting = asyncio.create_task(_result(ticket))
            await eventually(lambda: limiter._session and limiter._session.worker._attempts)
            server.kill()
            with pytest.raises(RedisUnavailable):
                await limiter.submit("a", waits)
            release.set()
            await asyncio.sleep(0.3)
            server.start()
            assert await asyncio.wait_for(waiting, 30) == 7


async def test_a_submission_without_enough_replicas_says_so(own_server: RedisServer) -> None:
    async with submitter(own_server.url, command_timeout=0.6) as limiter:
        quick = task_of(limiter, "quick")
        with pytest.raises(DurabilityUnknown, match="0 of 1 replicas") as caught:
            await limiter.submit("a", quick, 1, id="x", durability="replicated")
        with RedisServer("--replicaof", "127.0.0.1", str(own_server.port)) as replica:
            await eventually(lambda: replica.client.info("replication")["master_link_status"] == "up", 30)

            async def submit_again() -> Any:
                with contextlib.suppress(DurabilityUnknown):
                    return await limiter.submit("a", quick, 1, id="x", durability="replicated")
                return None

            ticket = await eventually(submit_again, 30)
            assert ticket.id == caught.value.id
            assert replica.client.hexists("{rl:a:}:t", "x")
            with worker(own_server.url):
                assert await ticket == 2
        assert len(noted(own_server)) == 1


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("tests.worker_app", "must be module:name"),
        ("tests.nowhere:limiter", "there is no module 'tests.nowhere'"),
        ("tests.worker_app:nobody", "has no 'nobody'"),
        ("tests.worker_app:nothing", "is no RateLimiter"),
        ("tests.worker_app:empty", "runs no tasks"),
    ],
)
def test_a_limiter_that_cannot_be_found_is_named(place: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", place]) == 1
    assert problem in capsys.readouterr().err


def test_an_import_that_fails_within_the_module_shows_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_app.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_limiter("broken_app:limiter")
    with pytest.raises(ConfigurationError, match="limiter"):
        load_limiter(":")
