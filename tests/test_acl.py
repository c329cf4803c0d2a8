"""The documented ACL is enough, and no more than that."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import redis
import redis.asyncio
from redis.exceptions import NoPermissionError, ResponseError

import ratelimit_async
from ratelimit_async import DurabilityUnknown, Event, RateLimiter, RedisUnavailable, RequestTimeout
from ratelimit_async._events import Disconnected, Failed, Misconfigured, Restarted
from tests.helpers import eventually, number
from tests.main_paths import LIMITS, drive
from tests.topologies import ClusterSetup, SentinelSetup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RedisServer

pytestmark = pytest.mark.real_redis
PAGE = Path(__file__).parent.parent / "docs" / "security.md"
LINE = next(line for line in PAGE.read_text().splitlines() if line.startswith("ACL SETUSER rl "))
ALLOWED = {word[1:] for word in LINE.split() if word.startswith("+")}
# What is sent beside scripts: on connecting, while idle, and to look around.
PLAIN = {"evalsha", "script|load", "subscribe", "ping", "info", "scan", "wait"}
LUA = Path(ratelimit_async.__file__).parent / "lua"
BY_SCRIPTS = ("time", "getrange", "setrange", "zadd", "pexpire", "exists", "llen", "lrange", "rpush", "publish")
TROUBLE = (Disconnected, Failed, Misconfigured, Restarted)


def commands_of_scripts() -> set[str]:
    text = "\n".join(re.sub(r"--.*", "", file.read_text()) for file in LUA.rglob("*.lua"))
    # Some are given by name to a function that calls them: any word in capitals that Redis has as a command.
    return {word.lower() for word in re.findall(r"'([A-Z]+)'", text)}


@pytest.fixture
def server(own_server: RedisServer) -> RedisServer:
    own_server.call(*LINE.split())
    return own_server


@pytest.fixture
def user(server: RedisServer) -> str:
    return f"redis://rl:PASSWORD@127.0.0.1:{server.port}/0"


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, username="rl", password="PASSWORD", protocol=2, driver_info=None) as client:  # noqa: S106
        yield client


def maker(url: str, seen: list[Event]) -> Callable[..., RateLimiter]:
    return lambda **settings: RateLimiter(url, limits=LIMITS, hooks=[seen.append], lease=0.6, **settings)


async def test_everything_works_under_the_line_and_uses_all_of_it(server: RedisServer, user: str) -> None:
    seen: list[Event] = []
    server.call("CONFIG", "RESETSTAT")
    await drive(maker(user, seen))
    assert server.call("ACL", "LOG") == []
    assert server.client.info("errorstats") == {}
    assert [event for event in seen if isinstance(event, TROUBLE)] == []
    stats = server.client.info("commandstats")
    used = {name.removeprefix("cmdstat_") for name, found in stats.items() if found["calls"]}
    # `auth` needs no permission; the others are the test's own.
    assert used - {"auth", "acl|log", "config|resetstat"} == ALLOWED


def test_the_line_names_what_the_code_calls_and_nothing_else(server: RedisServer) -> None:
    known = {name for name, in_use in server.client.command().items() if in_use}
    assert (commands_of_scripts() & known) | PLAIN == ALLOWED


async def broken_by(url: str) -> str:
    """What goes wrong first, of entering, of charging, of waiting, and of looking around."""
    seen: list[Event] = []
    try:
        settings = {"connect_timeout": 0.5, "command_timeout": 0.5}
        async with RateLimiter(url, limits=LIMITS, hooks=[seen.append], **settings) as limiter:
            await limiter.hit("sliding")
            with contextlib.suppress(RequestTimeout):
                await asyncio.gather(*(limiter.request("sliding", number, n, timeout=1) for n in range(6)))
            _ = [key async for key in limiter.keys("")]
            with contextlib.suppress(DurabilityUnknown):
                await limiter.submit("sliding", limiter.task("number")(number), 1, durability="replicated")
            await eventually(lambda: [event for event in seen if isinstance(event, TROUBLE)], bound=2)
            return next(str(event) for event in seen if isinstance(event, TROUBLE))
    except RedisUnavailable as error:
        return str(error)


@pytest.mark.parametrize("command", [*sorted(PLAIN), *BY_SCRIPTS])
async def test_without_one_of_them_something_says_so(server: RedisServer, user: str, command: str) -> None:
    server.call("ACL", "SETUSER", "rl", f"-{command}")
    text = await broken_by(user)
    # Of one that a script calls, Redis itself tells the name, in ACL LOG.
    assert any(command in denied for denied in server.call("ACL", "LOG"))
    assert "permission" in text or "can't run this command" in text
    assert str(server.port) in text
    assert "PASSWORD" not in text


async def test_without_the_channels_entering_says_so(server: RedisServer, user: str) -> None:
    server.call("ACL", "SETUSER", "rl", "resetchannels")
    assert "channel" in await broken_by(user)


async def test_another_prefix_is_another_user(server: RedisServer, user: str) -> None:
    prefix = "shop:{1}*"
    with pytest.raises(RedisUnavailable, match="channel"):
        async with RateLimiter(user, prefix=prefix, connect_timeout=0.5):
            pass
    server.call(*LINE.replace(" rl ", " other ").replace("rl", quote(prefix, safe="")).split())
    seen: list[Event] = []
    await drive(lambda **settings: maker(user.replace("rl:", "other:"), seen)(prefix=prefix, **settings))
    assert [event for event in seen if isinstance(event, TROUBLE)] == []
    with pytest.raises(RedisUnavailable, match="channel"):
        async with RateLimiter(user.replace("rl:", "other:"), connect_timeout=0.5):
            pass


FOREIGN = [
    ("GET", "rl"),
    ("GET", "{rlx:a:}:d"),
    ("SET", "session:1", "x"),
    ("GET", "{rl2:a:}:d"),
    ("PUBLISH", "news", "x"),
    ("PUBLISH", "rl2:reply:all", "x"),
    ("SUBSCRIBE", "news"),
    ("PSUBSCRIBE", "*"),
    ("EVAL", "return 1", "0"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("KEYS", "*"),
    ("RANDOMKEY",),
    ("MONITOR",),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("SCRIPT", "FLUSH"),
    ("SHUTDOWN",),
    ("REPLICAOF", "localhost", "1"),
    ("MIGRATE", "localhost", "1", "x", "0", "1"),
    ("MODULE", "LIST"),
]


@pytest.mark.parametrize("command", FOREIGN, ids=" ".join)
def test_what_is_not_ours_is_denied(client: redis.Redis, command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command)


@pytest.mark.parametrize(
    "body",
    [
        "return redis.call('GET', 'session:1')",
        "return redis.call('GET', KEYS[1])",
        "return redis.call('PUBLISH', 'news', 'x')",
        "return redis.call('FLUSHALL')",
        "return redis.call('KEYS', '*')",
    ],
)
def test_not_even_a_script_may_do_it(client: redis.Redis, body: str) -> None:
    sha: Any = client.script_load(body)
    with pytest.raises(ResponseError, match=r"(?i)permission|can't (run|access)|ACL"):
        client.execute_command("EVALSHA", sha, 1, "session:1")


SENTINEL_LINE = "ACL SETUSER rl reset on >PASSWORD -@all +sentinel|get-master-addr-by-name"


async def _use(limiter: RateLimiter) -> None:
    assert (await limiter.hit("sliding")).allowed
    assert await asyncio.gather(*(limiter.request("sliding", number, n, by=n % 3) for n in range(12))) == [*range(12)]
    assert await limiter.request("sliding", limiter.task("number")(number), 7, by="task", timeout=30) == 7
    assert {key.name async for key in limiter.keys("")} == {"sliding"}
    await limiter.pause("sliding")
    await limiter.resume("sliding")


async def test_sentinel_works_under_its_lines() -> None:
    seen: list[Event] = []
    with SentinelSetup() as setup:
        for server in setup.servers:
            server.call(*LINE.split(), "+role")
        for sentinel in setup.sentinels:
            sentinel.call(*SENTINEL_LINE.split())
        url = setup.url.replace("://", "://rl:PASSWORD@")
        url += "?sentinel_username=rl&sentinel_password=PASSWORD"
        async with RateLimiter(url, limits=LIMITS, hooks=[seen.append]) as limiter:
            await _use(limiter)
            await asyncio.sleep(1.5)
            assert (await limiter.health()).ok
        assert [event for event in seen if isinstance(event, TROUBLE)] == []
        assert setup.primary.call("ACL", "LOG") == []


async def test_a_cluster_works_under_its_line() -> None:
    seen: list[Event] = []
    with ClusterSetup() as setup:
        for server in setup.servers:
            server.call(*LINE.split(), "+cluster|slots", "+asking")
        url = setup.url.replace("://", "://rl:PASSWORD@")
        async with RateLimiter(url, limits=LIMITS, hooks=[seen.append]) as limiter:
            await _use(limiter)
            assert (await limiter.health()).ok
        assert [event for event in seen if isinstance(event, TROUBLE)] == []
        assert [server.call("ACL", "LOG") for server in setup.servers] == [[]] * 6
