"""What is secret is in no event, log line, repr or error, whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import redis.asyncio
import structlog
from redis.credentials import CredentialProvider

from ratelimit_async import ConfigurationError, Event, RateLimiter, RateLimitError, log_event
from tests.servers import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Any part of it would be found, also where a URL was cut at what is special in it.
PARTS = ("hunter2", "7654321", "swordfish")
SECRET = "hunter2/7654321?x=y#z@swordfish"  # noqa: S105 - of nothing
QUOTED = quote(SECRET, safe="")
# What is left of one that was cut may look like a port.
DIGITS = "7321"


class Recorder:
    """Keeps all that anybody could see."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.texts: list[str] = []
        self._caplog = caplog

    def hear(self, event: Event) -> None:
        log_event(event)
        self.texts += [repr(event), str(event)]

    def see(self, error: BaseException) -> None:
        self.texts += ["".join(traceback.format_exception(error))]
        seen: BaseException | None = error
        while seen is not None:
            self.texts += [str(seen), repr(seen), repr(vars(seen)), repr(seen.args)]
            # Also what a traceback would suppress: sinks of errors look at that too.
            seen = seen.__cause__ or seen.__context__

    def found(self) -> list[str]:
        texts = [*self.texts, self._caplog.text, *(repr(vars(record)) for record in self._caplog.records)]
        return [text for text in texts for part in (*PARTS, SECRET, QUOTED) if part in text]


@pytest.fixture(params=["plain", "structlog"])
def recorder(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Recorder]:
    caplog.set_level(logging.DEBUG)
    if request.param == "structlog":
        structlog.configure(
            processors=[structlog.processors.JSONRenderer(default=repr)],
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
    yield Recorder(caplog)
    structlog.reset_defaults()


async def live(recorder: Recorder, *arguments: Any, **settings: Any) -> RateLimitError:
    """Build and enter, which must fail; all of it is recorded."""
    try:
        limiter = RateLimiter(*arguments, hooks=[recorder.hear], connect_timeout=0.3, command_timeout=0.3, **settings)
        recorder.texts += [repr(limiter), str(limiter), repr(vars(limiter)), repr(vars(limiter._source))]
        async with limiter:
            recorder.texts.append(repr(await limiter.health()))
            await limiter.hit("a")
    except RateLimitError as error:
        recorder.see(error)
        return error
    pytest.fail("it must not work")


MALFORMED = [
    f"redis://:{SECRET}@localhost:6379/0",
    f"redis://me:{SECRET}@localhost/0",
    f"redis://:{DIGITS}/x@localhost/0",
    f"redis://me:{DIGITS}?x@localhost/0",
    f"redis://me:{DIGITS}#x@localhost/0",
    f"redis://:{QUOTED}@localhost:port/0",
    f"redis://:{QUOTED}@localhost:99999/0",
    f"redis://:{QUOTED}@localhost:0/0",
    f"redis://:{QUOTED}@[::1/0",
    f"redis://:{QUOTED}@ho\u2100st/0",
    f"redis://:{QUOTED}@localhost/first",
    f"redis://:{QUOTED}@localhost/0?db=first",
    f"redis://:{QUOTED}@localhost/0?option=1",
    f"redis://:{QUOTED}@",
    f"redis://:{QUOTED}",
    f"redis://localhost/0?password={QUOTED}&option=1",
    f"redis://localhost/0?option={QUOTED}",
    f"rediss://localhost/0?ssl_cert_reqs={QUOTED}",
    f"rediss://:{QUOTED}@localhost:x/0?ssl_password={QUOTED}",
    f"redis:/:{QUOTED}@localhost",
    f"http://:{QUOTED}@localhost",
    f"redis+sentinel://:{QUOTED}@",
    f"redis+cluster://:{QUOTED}@",
    f"unix://:{QUOTED}@",
    f"unix://:{SECRET}@/tmp/redis.sock",
    f"unix://:{QUOTED}@/tmp/redis.sock?option=1",
    f":{QUOTED}@localhost:6379",
    SECRET,
    f"redis://:{QUOTED}@localhost/0".encode(),
    ["redis", SECRET],
]


@pytest.mark.parametrize("url", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_url_that_cannot_be_used_is_not_repeated(recorder: Recorder, url: Any) -> None:
    error = await live(recorder, url)
    assert isinstance(error, ConfigurationError)
    assert error.field == "url"
    assert recorder.found() == []
    assert DIGITS not in "".join(recorder.texts)


@pytest.mark.parametrize("setting", ["password", "redis_url", "auth", "passwort"])
async def test_a_setting_that_there_is_not_is_not_repeated(recorder: Recorder, setting: str, tmp_path: Path) -> None:
    await live(recorder, "redis://localhost/0", **{setting: SECRET})
    path = tmp_path / "limits.toml"
    path.write_text(f'{setting} = "{SECRET}"')
    environ = {f"RATELIMIT_{setting.upper()}": SECRET}
    ways: list[Callable[[], object]] = [
        lambda: RateLimiter.from_file(path),
        lambda: RateLimiter.from_env(environ),
    ]
    for way in ways:
        with pytest.raises(ConfigurationError) as caught:
            way()
        recorder.see(caught.value)
    assert recorder.found() == []


@pytest.mark.parametrize("way", ["redis://{}localhost:{}/0", "redis://localhost:{1}/0?password={2}"])
async def test_a_server_that_is_not_there(recorder: Recorder, way: str) -> None:
    await live(recorder, way.format(f":{QUOTED}@", free_port(), QUOTED))
    assert recorder.found() == []


async def test_a_host_that_is_not_there(recorder: Recorder) -> None:
    await live(recorder, f"rediss://:{QUOTED}@nowhere.invalid/0?ssl_password={QUOTED}&ssl_ca_data={QUOTED}")
    assert recorder.found() == []


async def test_a_socket_that_is_not_there(recorder: Recorder) -> None:
    await live(recorder, f"unix://:{QUOTED}@/nowhere/redis.sock")
    assert recorder.found() == []


WAYS = ("url", "user", "option", "client", "provider", "client's provider", "failing provider")


class Provider(CredentialProvider):
    """Knows a secret; `fails`: and is not careful with it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    async def get_credentials_async(self) -> tuple[str]:
        if self.fails:
            # The cause of the error is the provider's own and says what it says; nothing of ours repeats it.
            raise PermissionError("denied")
        return (SECRET,)

    def __repr__(self) -> str:
        return f"Provider({SECRET!r})"


@pytest.mark.real_redis
@pytest.mark.parametrize(
    "who", ["url", "user", "option", "client", "provider", "client's provider", "failing provider"]
)
async def test_a_password_that_is_wrong(recorder: Recorder, redis_server: RedisServer, who: str) -> None:
    port = redis_server.port
    how: dict[str, Any] = {
        "url": {"url": f"redis://nobody:{QUOTED}@localhost:{port}/0"},
        "user": {"url": f"redis://{QUOTED}:{QUOTED}@localhost:{port}/0"},
        "option": {"url": f"redis://localhost:{port}/0?username=nobody&password={QUOTED}"},
        "client": {"client": redis.asyncio.Redis(port=port, username="nobody", password=SECRET)},
        "provider": {"url": f"redis://localhost:{port}/0", "credential_provider": Provider()},
        "client's provider": {"client": redis.asyncio.Redis(port=port, credential_provider=Provider())},
        "failing provider": {"url": f"redis://localhost:{port}/0", "credential_provider": Provider(fails=True)},
    }[who]
    with locked(redis_server):
        error = await live(recorder, **how)
    assert str(port) in str(error)
    assert recorder.found() == []


@contextlib.contextmanager
def locked(server: RedisServer) -> Iterator[None]:
    """A password that nobody here knows."""
    server.call("CONFIG", "SET", "requirepass", "another")
    try:
        yield
    finally:
        server.call("CONFIG", "SET", "requirepass", "")


@pytest.mark.real_redis
async def test_a_database_that_is_not_there(recorder: Recorder, own_server: RedisServer) -> None:
    own_server.call("CONFIG", "SET", "requirepass", SECRET)
    error = await live(recorder, f"redis://:{QUOTED}@127.0.0.1:{own_server.port}/99")
    assert "DB index is out of range" in str(error)
    assert recorder.found() == []


@pytest.mark.real_redis
async def test_a_life_with_connections_that_break(recorder: Recorder, own_server: RedisServer) -> None:
    own_server.call("CONFIG", "SET", "requirepass", SECRET)
    url = f"redis://:{QUOTED}@127.0.0.1:{own_server.port}/0"
    hooks = [recorder.hear]
    async with RateLimiter(url, hooks=hooks, limits={"a": "1 per 0.05 seconds"}, command_timeout=0.3) as limiter:
        await limiter.hit("a")
        for kind in ("normal", "pubsub"):
            own_server.call("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        own_server.kill()
        with contextlib.suppress(RateLimitError):
            await limiter.request("a", asyncio.sleep, 0)
        recorder.texts += [repr(limiter), repr(await limiter.health())]
    assert len(recorder.texts) > 4
    assert recorder.found() == []


def test_what_looks_for_secrets_finds_them(recorder: Recorder) -> None:
    logging.getLogger("somebody").debug("connecting to %s", f"redis://:{QUOTED}@localhost")
    assert recorder.found()
