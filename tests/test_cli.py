"""The commands: what they tell, what they change, and what they never do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ratelimit_async import Limit, QueueConfig, RateLimitConfig, RateLimiter
from ratelimit_async._cli import main
from ratelimit_async._output import say_json, seconds
from tests.helpers import client_of, depth_is, eventually
from tests.servers import RedisServer, die_with_parent, free_port
from tests.topologies import ClusterSetup, SentinelSetup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """
url = "{url}"
[limits]
api = "5/hour"
two = ["100/minute", "1000 tokens/minute", "2 concurrent"]
mail = "5/second burst 10"
"""
LIMITS = {"api": "5/hour", "two": ["100/minute", "1000 tokens/minute", "2 concurrent"], "mail": "5/second burst 10"}


class Shell:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *argv: str, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main(argv)
        out, self.err = self._capsys.readouterr()
        assert found == code, (out, self.err)
        return out

    def json(self, *argv: str, code: int = 0) -> Any:
        return json.loads(self(*argv, "--json", code=code))

    async def aside(self, *argv: str, code: int = 0) -> str:
        """Run one while this event loop goes on."""
        return await asyncio.to_thread(self, *argv, code=code)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in [name for name in os.environ if name.startswith("RATELIMIT_")]:
        monkeypatch.delenv(name)
    return Shell(capsys)


@pytest.fixture
def config(url: str, tmp_path: Path) -> str:
    path = tmp_path / "limits.toml"
    path.write_text(CONFIG.format(url=url))
    return str(path)


def limiter_at(url: str, **settings: Any) -> RateLimiter:
    return RateLimiter(url, **{"limits": LIMITS, "hooks": [], **settings})


def do(url: str, work: Any, **settings: Any) -> Any:
    """Use a limiter as an application does, and leave."""

    async def run() -> Any:
        async with limiter_at(url, **settings) as limiter:
            return await work(limiter)

    return asyncio.run(run())


async def spend(limiter: RateLimiter) -> None:
    for _ in range(3):
        await limiter.hit("api", by="ann")
    await limiter.hit("api")


def run_process(*argv: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ratelimit_async", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509
        **settings,
    )


# ---- status ----


def test_status_shows_a_key_whose_limits_are_known(shell: Shell, url: str, config: str) -> None:
    do(url, spend)
    text = shell("status", "api", "--by", "ann", "--config", config)
    assert "api by ann" in text
    assert "5/hour   used 3   left 2   unused again in " in text
    assert "waiting     0\n" in text
    assert "paused      no\n" in text
    report = shell.json("status", "api", "--by", "ann", "--config", config)
    limit = report["limits"][0]
    assert (report["known"], report["keys"], limit["limit"], limit["used"], limit["remaining"]) == (
        *(True, 1, "5/hour", 3),
        2,
    )
    assert report["queue"] == {"depth": 0, "depth_by_priority": [0, 0, 0], "oldest_wait": 0, "estimated_wait": 0}
    assert report["processor"] == {"active": False, "driver": None}
    total = shell.json("status", "api", "--total", "--config", config)
    assert (total["keys"], total["limits"][0]["used"]) == (2, 4)


def test_status_shows_all_names_in_short(shell: Shell, url: str, config: str) -> None:
    do(url, spend)
    shell("pause", "ghost", "--url", url)
    assert "'ghost' has no configuration here" in shell.err
    names = {report["name"]: report for report in shell.json("status", "--config", config)}
    assert set(names) == {"api", "two", "mail", "ghost"}
    assert (names["api"]["keys"], names["two"]["keys"]) == (2, 0)
    assert names["api"]["limits"] == ["5/hour"]
    assert (names["ghost"]["paused_keys"], names["ghost"]["limits"]) == (1, None)
    lines = shell("status", "--config", config).splitlines()
    assert lines[0].split() == ["NAME", "KEYS", "WAITING", "OLDEST", "RUNNING", "TASKS", "DEAD", "PAUSED", "LIMITS"]
    assert lines[2].split() == ["ghost", "0", "0", "-", "0", "0", "0", "1", "not", "known", "here"]


def test_status_says_what_it_cannot_know_and_counts_nothing_by_it(shell: Shell, url: str, config: str) -> None:
    do(url, spend)
    report = shell.json("status", "api", "--by", "ann", "--url", url)
    assert not report["known"]
    assert report["limits"] == [
        dict.fromkeys(("limit", "most", "used", "remaining", "reset_after"))
        | {"algorithm": "sliding_window", "unit": "requests"}
    ]
    assert report["queue"]["estimated_wait"] is None
    text = shell("status", "api", "--by", "ann", "--url", url)
    assert "not known here: give --app or --config" in text
    assert "sliding_window of requests" in text
    assert "nothing under the prefix 'other'" in shell("status", "--url", url, "--prefix", "other")
    shell("status", "api", "--total", "--url", url, code=1)
    assert "has no configuration here" in shell.err
    # None of it was taken for used up, or for expired.
    for command in (("waiting", "api"), ("dead", "api"), ("top", "--once", "--interval", "0.1"), ("pause", "api")):
        shell(*command, "--url", url)
    assert shell.json("status", "api", "--by", "ann", "--config", config)["limits"][0]["used"] == 3


@pytest.mark.parametrize("argv", [("status", "--by", "ann"), ("status", "--total")])
def test_status_of_a_subject_needs_its_name(shell: Shell, url: str, argv: tuple[str, ...]) -> None:
    shell(*argv, "--url", url, code=1)
    assert "name: is needed" in shell.err


# ---- where the limiter comes from ----


def test_the_environment_says_which_limiter(
    shell: Shell, url: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(url, spend)
    monkeypatch.setenv("RATELIMIT_URL", url)
    monkeypatch.setenv("RATELIMIT_LIMITS__API", "7/hour")
    assert shell.json("status", "api")["limits"][0]["limit"] == "7/hour"
    monkeypatch.setenv("RATELIMIT_CONFIG", "/nowhere.toml")
    # What is given as an option goes before it; variables go before files.
    assert shell.json("status", "api", "--config", config)["limits"][0]["limit"] == "7/hour"
    shell("status", code=1)
    assert "/nowhere.toml" in shell.err


def test_a_default_that_nobody_wrote_down_is_not_known(shell: Shell, url: str, tmp_path: Path) -> None:
    (tmp_path / "with.toml").write_text('default = "9/hour"\n')
    (tmp_path / "without.toml").write_text("lease = 4.0\n")
    assert shell.json("status", "x", "--url", url, "--config", str(tmp_path / "with.toml"))["known"]
    assert not shell.json("status", "x", "--url", url, "--config", str(tmp_path / "without.toml"))["known"]


def test_an_applications_limiter_is_looked_through(
    shell: Shell, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_for_cli.py").write_text(
        "from ratelimit_async import RateLimiter\n"
        f"limiter = RateLimiter({redis_url!r}, limits={LIMITS!r}, prefix='shop')\n"
        "@limiter.task('t')\nasync def t() -> None:\n    raise AssertionError\n"
    )
    (tmp_path / "broken_for_cli.py").write_text("url = 'redis://:secret@host/0'\nraise ValueError('no ' + url)\n")
    monkeypatch.chdir(tmp_path)
    do(redis_url, spend, prefix="shop")
    app = ("--app", "shop_for_cli:limiter")
    assert shell.json("status", "api", *app)["limits"][0]["used"] == 1
    shell("status", *app, "--prefix", "rl", code=1)
    assert "prefix: is the application's own" in shell.err
    shell("status", "--app", "broken_for_cli:limiter", code=1)
    assert "importing it raised ValueError" in shell.err
    assert "broken_for_cli.py:2" in shell.err
    assert "secret" not in shell.err
    shell("status", "--app", "nonsense", code=1)
    assert "must be module:name" in shell.err


# ---- changes ----


def test_reset_forgets_what_is_counted(shell: Shell, url: str, config: str) -> None:
    do(url, spend)
    assert shell("reset", "api", "--by", "ann", "--config", config) == "reset api by ann\n"
    assert shell.json("status", "api", "--by", "ann", "--config", config)["limits"][0]["used"] == 0
    assert shell.json("reset", "api", "--config", config) == {"name": "api", "by": None, "reset": True}
    shell("reset", "api", "--url", url, code=1)
    assert "has no configuration here" in shell.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("n\n", 3), ("\n", 3), ("", 3), ("Yes\n", 0)])
def test_reset_asks_whoever_sits_at_a_terminal(
    shell: Shell, url: str, config: str, answer: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(url, spend)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    shell("reset", "api", "--by", "ann", "--config", config, code=int(left > 0))
    assert "forget what api by ann has counted? [y/N]" in shell.err
    assert shell.json("status", "api", "--by", "ann", "--config", config)["limits"][0]["used"] == left
    shell("reset", "api", "--by", "ann", "--config", config, "--yes")
    assert "[y/N]" not in shell.err


@pytest.mark.parametrize("by", [None, "ann"])
def test_pause_and_resume_hold_for_applications(shell: Shell, url: str, config: str, by: str | None) -> None:
    async def reason(limiter: RateLimiter) -> str:
        return (await limiter.hit("api", by=by)).reason

    key = ("api", "--config", config, *(("--by", by) if by else ()))
    shell("pause", *key)
    assert do(url, reason) == "paused"
    assert "paused      yes\n" in shell("status", *key)
    shell("resume", *key)
    assert do(url, reason) == "ok"
    done = shell.json("pause", *key, "--for", "3000")
    assert done == {"name": "api", "by": by, "paused": True, "seconds": 3000}
    assert 2900 < shell.json("status", *key)["resumes_in"] <= 3000
    assert "paused      yes, for 50 min more" in shell("status", *key)
    # Also for who does not know its limits.
    unknown = shell.json("status", "api", "--url", url, *(("--by", by) if by else ()))
    assert (unknown["paused"], unknown["known"]) == (True, False)


def test_configure_changes_what_is_allowed_and_back(shell: Shell, url: str, config: str) -> None:
    do(url, spend)
    assert shell("configure", "api", "8/hour", "--config", config) == "api allows 8/hour\n"
    # What came at run time is known to all, and goes on with what was counted.
    assert shell.json("status", "api", "--by", "ann", "--url", url)["limits"][0]["remaining"] == 5
    spec = json.dumps({"limits": "9/hour", "queue": {"max_size": 3}})
    assert shell.json("configure", "api", spec, "--by", "ann", "--config", config)["limits"] == "9/hour"
    assert shell.json("status", "api", "--by", "ann", "--url", url)["limits"][0]["limit"] == "9/hour"
    shell("configure", "api", "--as-built", "--by", "ann", "--config", config)
    assert shell("configure", "api", "--as-built", "--config", config) == "api allows 5/hour\n"
    assert shell("configure", "api", "--as-built", "--url", url) == "api is what each process was built with\n"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ((), "give either"),
        (("5/hour", "--as-built"), "give either"),
        (("5/fortnight",), "limits['api']"),
        (("{broken",), "is no JSON"),
        (('{"nonsense": 1}',), "nonsense"),
    ],
)
def test_configure_refuses_nonsense(shell: Shell, url: str, spec: tuple[str, ...], problem: str) -> None:
    shell("configure", "api", *spec, "--url", url, code=1)
    assert problem in shell.err
    assert len(shell.err.splitlines()) == 1 or "note" in shell.err


# ---- dead letters ----


def test_dead_letters_are_listed_shown_requeued_and_deleted(shell: Shell, url: str, config: str) -> None:
    async def die(limiter: RateLimiter) -> None:
        @limiter.task("send", max_attempts=1)
        async def send(address: str, *, subject: str = "hi") -> None:
            raise ConnectionError(f"no route\nto {address}")

        for n in range(3):
            await limiter.submit("mail", send, f"a{n}@example.org")

        async def dead() -> bool:
            return (await limiter.status("mail")).tasks.dead == 3

        await eventually(dead)

    do(url, die)
    mail = ("dead", "mail", "--config", config)
    letters = shell.json(*mail)
    assert {letter["arguments"][0][0] for letter in letters} == {f"a{n}@example.org" for n in range(3)}
    assert [letter["id"] for letter in letters] == [line.split()[-1] for line in shell(*mail).splitlines()[1:]]
    one, two, three = (letter["id"] for letter in letters)
    shown = shell("dead", "mail", "show", one, "--config", config)
    assert f"arguments  '{letters[0]['arguments'][0][0]}'" in shown
    assert "no route" in shown
    assert shell.json("dead", "mail", "show", two, "--config", config)[0]["id"] == two
    assert shell.json("dead", "mail", "requeue", one, "--config", config)["requeued"] == [one]
    assert shell.json("status", "mail", "--config", config)["queue"]["depth"] == 1
    shell("dead", "mail", "requeue", one, "--config", config, code=1)
    assert "no dead letter has it" in shell.err
    shell("dead", "mail", "requeue", two, "--url", url, code=1)
    assert "has no configuration here" in shell.err
    assert shell("dead", "mail", "delete", two, "--url", url, "--yes") == "deleted 1 of 1\n"
    shell("dead", "mail", "show", two, "--config", config, code=1)
    assert two in shell.err
    assert shell("dead", "mail", "delete", "--all", "--config", config) == "deleted 1 of 1\n"
    assert three not in shell(*mail)
    assert shell("dead", "mail", "requeue", "--all", "--config", config) == "requeued 0 of 0\n"


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("list", "x"), "list takes neither"),
        (("show",), "show takes ids"),
        (("show", "--all"), "show takes ids"),
        (("requeue",), "takes either ids or --all"),
        (("delete", "mail::*.x", "--all"), "takes either ids or --all"),
        (("delete", "other::*.x"), "is none of a dead letter of mail"),
        (("delete", "mail:ann:*.x", "--by", "bob"), "is none of a dead letter of mail by bob"),
        (("show", "nonsense"), "is none"),
    ],
)
def test_dead_letters_that_cannot_be_meant_are_refused(
    shell: Shell, url: str, argv: tuple[str, ...], problem: str
) -> None:
    shell("dead", "mail", *argv, "--url", url, code=1)
    assert problem in shell.err


# ---- with applications at work ----


@pytest.mark.real_redis
async def test_waiting_lists_who_waits_in_their_order(shell: Shell, redis_url: str) -> None:
    async with limiter_at(redis_url, limits={"slow": "1/hour"}) as limiter:
        tickets = [await limiter.submit("slow", asyncio.sleep, 0, priority=n) for n in ("low", "low", "high", "normal")]
        order = [tickets[2].id, tickets[3].id, tickets[1].id]
        for which in (("--url", redis_url), ("--url", redis_url, "--config", os.devnull)):
            lines = (await shell.aside("waiting", "slow", *which, "--json")).splitlines()
            assert [json.loads(line)["id"] for line in lines] == order
        text = await shell.aside("waiting", "slow", "--url", redis_url, "--limit", "2")
        assert [line.split()[-1] for line in text.splitlines()] == ["ID", *order[:2]]
        assert "waiting     3   1+1+1 by priority" in await shell.aside("status", "slow", "--url", redis_url)


@pytest.mark.real_redis
async def test_no_command_drives_runs_or_counts(shell: Shell, redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('[limits]\nslow = "1/hour"\n')
    async with limiter_at(redis_url, limits={"slow": "1/hour"}, processor=False) as limiter:
        tickets = [await limiter.submit("slow", asyncio.sleep, 0) for _ in range(3)]
        for argv in (
            ("status", "slow"),
            ("status",),
            ("top", "--once", "--interval", "0.2"),
            ("waiting", "slow"),
            ("pause", "slow"),
            ("resume", "slow"),
            ("reset", "slow"),
            ("configure", "slow", "2/hour"),
            ("health",),
        ):
            await shell.aside(*argv, "--url", redis_url, "--config", str(path))
            async with client_of(redis_url) as client:
                # Whoever grants or runs for others has written one of these.
                assert await client.exists("{rl:slow:}:d", "{rl:slow:}:k") == 0
                assert await client.zcard("{rl}:processes") == 1
        assert await depth_is(limiter, "slow", 2)
        assert (await limiter.health()).processes == 1
        del tickets


# ---- health ----


def test_health_is_told_by_the_exit_code(shell: Shell, url: str) -> None:
    assert shell("health", "--url", url).startswith("ok: ")
    report = shell.json("health", "--url", url)
    assert (report["ok"], report["redis"], report["breaker"], report["error"]) == (True, True, "closed", "")
    # Whoever only looks does not count.
    assert report["processes"] == 0


@pytest.mark.real_redis
def test_health_of_a_redis_that_is_gone_or_hangs(shell: Shell) -> None:
    gone = f"redis://me:secret@127.0.0.1:{free_port()}/0"
    assert shell("health", "--url", gone, code=1).startswith("not ok: Redis at 127.0.0.1:")
    report = shell.json("health", "--url", gone, code=1)
    assert (report["ok"], report["redis"], report["latency"]) == (False, False, None)
    assert "secret" not in json.dumps(report)
    with RedisServer() as server:
        server.suspend()
        try:
            text = shell("health", "--url", server.url, "--timeout", "0.3", code=1)
        finally:
            server.resume()
        assert text == "not ok: no answer within 0.3 s\n"


# ---- bench ----


def test_bench_measures_and_leaves_nothing(shell: Shell, url: str) -> None:
    argv = ("bench", "--url", url, "--seconds", "0.2", "--concurrency", "1", "4", "--keys", "2")
    report = shell.json(*argv)
    assert [run["concurrency"] for run in report["runs"]] == [1, 4]
    for run in report["runs"]:
        assert run["hits"] > 0
        assert 0 < run["p50_ms"] <= run["p95_ms"] <= run["p99_ms"] <= run["worst_ms"]
        assert run["not_by_redis"] == 0

    async def keys() -> list[str]:
        async with client_of(url) as client:
            return [key async for key in client.scan_iter()]

    assert asyncio.run(keys()) == []
    text = shell(*argv[:-2])
    assert text.splitlines()[1].startswith("AT A TIME  ")
    assert "4 at a time" in shell.err


@pytest.mark.real_redis
def test_bench_says_when_redis_did_not_decide(shell: Shell) -> None:
    with RedisServer() as server:
        process = run_process("bench", "--url", server.url, "--seconds", "3", "--concurrency", "2")
        assert process.stderr is not None
        process.stderr.readline()
        server.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Redis" in out + err
    assert "Traceback" not in err


# ---- errors and ends ----


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("status", "--url", "redis://:secret@127.0.0.1:1/0"), "Redis at 127.0.0.1:1"),
        (("top", "--once", "--url", "redis://:secret@127.0.0.1:1/0"), "Redis at 127.0.0.1:1"),
        (("bench", "--url", "redis://:secret@127.0.0.1:1/0"), "Redis at 127.0.0.1:1"),
        (("status", "--url", "nonsense://:secret@host"), "url: must start with one of"),
        (("status", "--config", "redis://:secret@host"), "config: cannot be read"),
        (("bench", "--limits", "nonsense", "--url", "memory://"), "limits['bench']"),
    ],
)
def test_errors_are_one_line_without_secrets(shell: Shell, argv: tuple[str, ...], problem: str) -> None:
    shell(*argv, code=1)
    assert shell.err.startswith("ratelimit-async: ")
    assert problem in shell.err
    assert "secret" not in shell.err
    assert len(shell.err.splitlines()) == 1


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("nonsense",),
        ("top", "--interval", "nan"),
        ("top", "--interval", "0"),
        ("waiting", "x", "--limit", "0"),
        ("waiting",),
        ("pause", "x", "--for", "-1"),
        ("dead", "x", "nonsense"),
        ("bench", "--concurrency", "many"),
    ],
)
def test_what_cannot_be_a_command_is_refused_with_2(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["", "status", "top", "waiting", "reset", "pause", "resume", "configure", "dead", "health", "bench"]
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "--app" in out
    assert "--json" in out or "Exit codes" in out


def test_names_that_a_terminal_would_obey_are_escaped(shell: Shell, url: str) -> None:
    async def hit(limiter: RateLimiter) -> None:
        await limiter.hit("\x1b[2Jodd\n")

    do(url, hit, default="1/minute")
    assert "\\x1b[2Jodd\\n" in shell("status", "--url", url)
    assert shell.json("status", "--url", url)[0]["name"] == "\x1b[2Jodd\n"


def test_memory_is_said_to_be_of_one_process(shell: Shell) -> None:
    shell("status", "--url", "memory://")
    assert "sees nothing of others" in shell.err


@pytest.mark.real_redis
@pytest.mark.parametrize("argv", [("--interval", "0.1"), ("--interval", "0.1", "--json")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_ends_cleanly_when_it_is_told_to(redis_url: str, argv: tuple[str, ...], number: signal.Signals) -> None:
    process = run_process("top", "--url", redis_url, *argv)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


@pytest.mark.real_redis
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_look_that_is_interrupted_says_nothing(redis_url: str, number: signal.Signals, code: int) -> None:
    process = run_process("top", "--url", redis_url, "--once", "--interval", "60")
    with RateLimitedWait(redis_url):
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "", "")


@contextlib.contextmanager
def RateLimitedWait(url: str) -> Iterator[None]:  # noqa: N802
    """Wait until the process has connected and listens."""

    async def listens() -> None:
        async with client_of(url) as client:

            async def subscribed() -> bool:
                return bool(await client.pubsub_channels("rl:reply:*"))

            await eventually(subscribed, 30)
            await asyncio.sleep(0.3)

    asyncio.run(listens())
    yield


@pytest.mark.real_redis
def test_a_reader_that_goes_is_no_error(redis_url: str) -> None:
    process = run_process("top", "--url", redis_url, "--interval", "0.1")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.real_redis
def test_streams_may_be_closed(redis_url: str) -> None:
    command = f"{sys.executable} -m ratelimit_async status --url {redis_url} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=60).returncode == 0


def test_durations_are_short() -> None:
    texts = [seconds(value) for value in (None, 0.0, 0.25, 1.5, 119.0, 600.0, 36_000.0)]
    assert texts == ["-", "0 ms", "250 ms", "1.5 s", "119.0 s", "10 min", "10.0 h"]


def test_what_json_has_no_word_for_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"arguments": [1, object, b"raw"], 7: "\udc80"})
    assert json.loads(capsys.readouterr().out) == {"arguments": [1, "<class 'object'>", "cmF3"], "7": "\udc80"}


# ---- Sentinel and Cluster ----


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def topology(request: pytest.FixtureRequest) -> Iterator[SentinelSetup | ClusterSetup]:
    with SentinelSetup() if request.param == "sentinel" else ClusterSetup() as setup:
        yield setup


@pytest.mark.real_redis
async def test_all_commands_work_over_sentinel_and_in_a_cluster(
    shell: Shell, topology: SentinelSetup | ClusterSetup, tmp_path: Path
) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('[limits]\nslow = "2/hour"\napi = "100/hour"\n')
    which = ("--url", topology.url, "--config", str(path))
    limits = {
        "slow": RateLimitConfig(Limit.per_hour(2), queue=QueueConfig(timeout=60)),
        "api": "100/hour",
    }
    async with limiter_at(topology.url, limits=limits) as limiter:
        for n in range(20):
            await limiter.hit("api", by=f"user {n}")
        tickets = [await limiter.submit("slow", asyncio.sleep, 0) for _ in range(5)]
        await eventually(lambda: depth_is(limiter, "slow", 3))
        names = {one["name"]: one for one in json.loads(await shell.aside("status", *which, "--json"))}
        assert (names["api"]["keys"], names["slow"]["waiting"]) == (20, 3)
        total = json.loads(await shell.aside("status", "api", "--total", *which, "--json"))
        assert total["limits"][0]["used"] == 20
        assert len((await shell.aside("waiting", "slow", *which, "--json")).splitlines()) == 3
        unknown = await shell.aside("top", "--once", "--interval", "0.2", "--json", "--url", topology.url)
        assert json.loads(unknown)["found"] == 21
        look = json.loads(await shell.aside("top", "--once", "--interval", "0.2", "--json", "--keys", "30", *which))
        slow = next(key for key in look["keys"] if key["name"] == "slow")
        assert (slow["waiting"], slow["limits"][0]["used"], bool(slow["driver"])) == (3, 2, True)
        for argv in (("pause", "api"), ("resume", "api"), ("health",), ("dead", "slow")):
            await shell.aside(*argv, *which)
        await shell.aside("bench", *which, "--seconds", "0.2", "--concurrency", "4", "--keys", "8")
        await shell.aside("configure", "slow", "5/hour", *which)
        await asyncio.gather(*(ticket for ticket in tickets))
        await shell.aside("reset", "slow", *which)
        assert json.loads(await shell.aside("status", "slow", *which, "--json"))["limits"][0]["used"] == 0
        await shell.aside("configure", "slow", "--as-built", *which)
