"""Who may speak with whom: passwords, users, credentials that change, TLS, sockets; against real servers."""

from __future__ import annotations

import ast
import asyncio
import logging
import ssl
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from redis.credentials import CredentialProvider

import ratelimit_async
from ratelimit_async import ConfigurationError, Event, RateLimiter, RedisUnavailable
from ratelimit_async._events import Disconnected
from tests.certificates import HOST, Certificates
from tests.helpers import eventually, number
from tests.servers import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

real_redis = pytest.mark.real_redis
LIMITS = {"a": "1 per 0.05 seconds"}
PASSWORD = "p@ss/w:rd"  # noqa: S105 - of a server of this test
QUOTED = "p%40ss%2Fw%3Ard"
WRONG = "hunter2"


async def works(*arguments: Any, **settings: Any) -> bool:
    """Both connections are used: what one process waits for is granted by another, which tells it so."""
    settings = {"limits": LIMITS, **settings}
    async with RateLimiter(*arguments, **settings) as one, RateLimiter(*arguments, processor=False, **settings) as two:
        assert await asyncio.gather(*(two.request("a", number, n) for n in range(3))) == [0, 1, 2]
        return all([(await limiter.health()).ok for limiter in (one, two)])


async def refusal(*arguments: Any, **settings: Any) -> str:
    """Enter, which must fail, and give the text."""
    with pytest.raises(RedisUnavailable) as caught:
        async with RateLimiter(*arguments, **settings):
            pass
    return str(caught.value)


def kick(server: RedisServer) -> None:
    """Close all connections but the test's own."""
    for kind in ("normal", "pubsub"):
        server.call("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


# ---- passwords and users ----


@pytest.fixture
def locked(own_server: RedisServer) -> RedisServer:
    """A server with a password, and a user of another one; the test's own connection stays."""
    own_server.call("ACL", "SETUSER", "me", "on", f">{PASSWORD}me", "~*", "&*", "+@all")
    own_server.call("CONFIG", "SET", "requirepass", PASSWORD)
    return own_server


@real_redis
async def test_a_password_in_the_url_or_of_a_client_opens(locked: RedisServer) -> None:
    assert await works(f"redis://:{QUOTED}@127.0.0.1:{locked.port}/0")
    assert await works(f"redis://127.0.0.1:{locked.port}/0?password={QUOTED}")
    async with redis.asyncio.Redis(port=locked.port, password=PASSWORD) as client:
        assert await works(client=client)


@real_redis
async def test_a_user_and_its_password_open(locked: RedisServer) -> None:
    assert await works(f"redis://me:{QUOTED}me@127.0.0.1:{locked.port}/0")
    async with redis.asyncio.Redis(port=locked.port, username="me", password=f"{PASSWORD}me") as client:
        assert await works(client=client)
    assert locked.call("ACL", "LOG") == []


@real_redis
@pytest.mark.parametrize("who", [f":{WRONG}@", f"me:{WRONG}@", f"nobody:{WRONG}@", ""])
async def test_a_wrong_password_is_refused_with_the_address_and_without_the_password(
    locked: RedisServer, who: str
) -> None:
    text = await refusal(f"redis://{who}127.0.0.1:{locked.port}/0")
    assert text.startswith(f"Redis at 127.0.0.1:{locked.port}: ")
    assert ("password" if who else "uthentication required") in text
    assert WRONG not in text


@real_redis
async def test_a_password_that_changes_at_run_time_is_told_of_and_its_return_found(locked: RedisServer) -> None:
    seen: list[Event] = []
    url = f"redis://:{QUOTED}@127.0.0.1:{locked.port}/0"
    default = {"limits": "100/minute", "on_outage": "raise"}
    async with RateLimiter(
        url, default=default, hooks=[seen.append], command_timeout=0.3, connect_timeout=0.3
    ) as limiter:
        locked.call("CONFIG", "SET", "requirepass", "another")
        assert (await limiter.hit("a")).allowed
        kick(locked)
        await eventually(lambda: _fails(limiter, f"Redis at 127.0.0.1:{locked.port}: invalid username-password pair"))
        told = [event for event in seen if isinstance(event, Disconnected) and "password" in event.error]
        assert told
        assert PASSWORD not in repr(seen)
        assert QUOTED not in repr(seen)
        locked.call("CONFIG", "SET", "requirepass", PASSWORD)
        await eventually(lambda: _ok(limiter))


async def _fails(limiter: RateLimiter, text: str) -> bool:
    """What was on its way when the connection went is told of that first."""
    with pytest.raises(RedisUnavailable) as caught:
        await limiter.hit("a")
    return text in str(caught.value)


async def _ok(limiter: RateLimiter) -> bool:
    return (await limiter.health()).ok


@real_redis
async def test_a_unix_socket_with_a_password() -> None:
    # the name of a socket may have 107 bytes, and tmp_path may be deep
    directory = tempfile.TemporaryDirectory(dir="/tmp")
    path = Path(directory.name) / "redis@here.sock"
    with directory, RedisServer("--unixsocket", str(path)) as server:
        server.call("CONFIG", "SET", "requirepass", PASSWORD)
        quoted = str(path).replace("@", "%40")
        assert await works(f"unix://:{QUOTED}@{quoted}?db=0")
        text = await refusal(f"unix://:{WRONG}@{quoted}")
        assert text.startswith(f"Redis at unix://{path}: ")
        assert "password" in text
        assert WRONG not in text


# ---- credentials that change ----


class Rotating(CredentialProvider):
    """Gives what is right now, and counts."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.asked = 0

    async def get_credentials_async(self) -> tuple[str]:
        self.asked += 1
        return (self.password,)


class Blocking(CredentialProvider):
    """Knows the blocking way only."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def get_credentials(self) -> tuple[str, str]:
        self.threads.add(threading.get_ident())
        return "me", f"{PASSWORD}me"


class Failing(Rotating):
    """Fails until it is repaired."""

    broken = True

    async def get_credentials_async(self) -> tuple[str]:
        if self.broken:
            raise LookupError(f"no answer about {self.password}")
        return await super().get_credentials_async()


@real_redis
@pytest.mark.parametrize("way", ["url", "client"])
async def test_every_connection_asks_the_provider_anew(locked: RedisServer, way: str) -> None:
    provider = Rotating(PASSWORD)
    how: dict[str, Any] = {"url": locked.url, "credential_provider": provider}
    if way == "client":
        how = {"client": redis.asyncio.Redis(port=locked.port, credential_provider=provider)}
    async with RateLimiter(limits=LIMITS, **how) as limiter:
        assert await limiter.request("a", number, 1) == 1
        assert provider.asked == 2
        for n in range(2):
            provider.password = f"rotated {n}"
            locked.call("CONFIG", "SET", "requirepass", provider.password)
            kick(locked)
            assert await asyncio.gather(*(limiter.request("a", number, n) for n in range(3))) == [0, 1, 2]
            await eventually(lambda: _ok(limiter))
            assert provider.asked == 4 + 2 * n
    assert "password" in await refusal(f"redis://:{QUOTED}@127.0.0.1:{locked.port}/0")


@real_redis
async def test_a_provider_that_blocks_is_asked_in_a_thread(
    locked: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Blocking()
    with caplog.at_level(logging.WARNING):
        assert await works(locked.url, credential_provider=provider)
    assert provider.threads
    assert threading.get_ident() not in provider.threads
    assert caplog.text == ""


@real_redis
async def test_a_provider_that_fails_is_an_outage_that_ends(locked: RedisServer) -> None:
    provider = Failing(PASSWORD)
    seen: list[Event] = []
    text = await refusal(locked.url, credential_provider=provider)
    assert text == f"Redis at 127.0.0.1:{locked.port}: the credential provider raised LookupError"
    provider.broken = False
    how: dict[str, Any] = {"command_timeout": 0.3, "connect_timeout": 0.3, "hooks": [seen.append]}
    default = {"limits": "100/minute", "on_outage": "raise"}
    async with RateLimiter(locked.url, default=default, credential_provider=provider, **how) as limiter:
        provider.broken = True
        kick(locked)
        await eventually(lambda: _fails(limiter, "LookupError"))
        provider.broken = False
        await eventually(lambda: _ok(limiter))
    assert PASSWORD not in repr(seen)


def test_a_provider_and_a_password_do_not_go_together() -> None:
    with pytest.raises(ConfigurationError, match="credential_provider: goes without"):
        RateLimiter(f"redis://:{WRONG}@localhost/0", credential_provider=Rotating(PASSWORD))


def test_what_is_no_provider_is_refused_and_not_shown() -> None:
    wrong: Any = ("me", WRONG)
    with pytest.raises(ConfigurationError, match="credential_provider: must be") as caught:
        RateLimiter(credential_provider=wrong)
    assert WRONG not in repr(caught.value)


# ---- TLS ----


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["server", "mutual"])
def tls(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[tuple[str, int, Certificates]]:
    """A server that speaks TLS 1.2 at most, with a password; whether it wants to know its clients, and its port."""
    port, clients = free_port(), "yes" if request.param == "mutual" else "no"
    options = ("--tls-port", str(port), "--tls-auth-clients", clients, "--tls-protocols", "TLSv1.2")
    with RedisServer(*options, *certificates.options) as server:
        server.call("CONFIG", "SET", "requirepass", PASSWORD)
        yield request.param, port, certificates


def url_of(tls: tuple[str, int, Certificates], host: str = HOST, **options: object) -> str:
    kind, port, certificates = tls
    if kind == "mutual":
        options = {"ssl_certfile": certificates.client, "ssl_keyfile": certificates.client, **options}
    options = {"ssl_ca_certs": certificates.authority, **options}
    query = "&".join(f"{key}={value}" for key, value in options.items() if value is not None)
    return f"rediss://:{QUOTED}@{host}:{port}/0?{query}"


@real_redis
async def test_tls_with_a_known_authority(tls: tuple[str, int, Certificates]) -> None:
    assert await works(url_of(tls))


@real_redis
async def test_tls_by_a_client(tls: tuple[str, int, Certificates]) -> None:
    async with redis.asyncio.Redis.from_url(url_of(tls)) as client:
        assert await works(client=client)


@real_redis
async def test_an_unknown_authority_is_refused(tls: tuple[str, int, Certificates]) -> None:
    for authority in (tls[2].stranger, None):
        text = await refusal(url_of(tls, ssl_ca_certs=authority))
        assert f"{HOST}:{tls[1]}" in text
        assert "certificate verify failed" in text
        assert WRONG not in text


@real_redis
async def test_a_certificate_of_another_host_is_refused_unless_one_says_so(tls: tuple[str, int, Certificates]) -> None:
    text = await refusal(url_of(tls, host="127.0.0.1"))
    assert "certificate is not valid for '127.0.0.1'" in text
    assert await works(url_of(tls, host="127.0.0.1", ssl_check_hostname="false"))


@real_redis
async def test_an_older_tls_than_wanted_is_refused(tls: tuple[str, int, Certificates]) -> None:
    # What exactly it says is the operating system's: the server may hang up before its reason is read.
    text = await refusal(url_of(tls, ssl_min_version=int(ssl.TLSVersion.TLSv1_3)))
    assert f"{HOST}:{tls[1]}" in text
    assert await works(url_of(tls, ssl_min_version=int(ssl.TLSVersion.TLSv1_2)))


@real_redis
async def test_a_file_that_is_not_there_is_an_error_with_the_address(tls: tuple[str, int, Certificates]) -> None:
    text = await refusal(url_of(tls, ssl_ca_certs="/nowhere/ca.pem"))
    assert f"{HOST}:{tls[1]}" in text
    assert "No such file" in text


@real_redis
async def test_a_client_that_does_not_show_its_certificate_is_refused(certificates: Certificates) -> None:
    port = free_port()
    with RedisServer("--tls-port", str(port), "--tls-auth-clients", "yes", *certificates.options):
        text = await refusal(f"rediss://{HOST}:{port}/0?ssl_ca_certs={certificates.authority}")
        assert text.startswith(f"Redis at {HOST}:{port}: ")


@real_redis
async def test_plain_text_to_a_tls_port_and_the_other_way_round_is_refused(
    tls: tuple[str, int, Certificates], redis_server: RedisServer
) -> None:
    assert f":{tls[1]}" in await refusal(f"redis://localhost:{tls[1]}/0", connect_timeout=1.0, command_timeout=1.0)
    text = await refusal(f"rediss://localhost:{redis_server.port}/0", connect_timeout=1.0)
    assert text == f"Redis at localhost:{redis_server.port}: no connection within 1.0 s"


@real_redis
async def test_leaving_does_not_wait_for_the_farewell_of_tls(certificates: Certificates) -> None:
    port = free_port()
    with RedisServer("--tls-port", str(port), "--tls-auth-clients", "no", *certificates.options) as server:
        url = f"rediss://{HOST}:{port}/0?ssl_ca_certs={certificates.authority}"
        async with RateLimiter(url, command_timeout=0.2, shutdown_timeout=0.2) as limiter:
            wire: Any = limiter._session.executor._wire  # type: ignore[union-attr]
            socket = wire._writer.get_extra_info("socket")
            assert socket.fileno() > 0
            server.suspend()
        # Soon, and not when the server wakes up: the loop may end with its limiters.
        await eventually(lambda: socket.fileno() == -1, bound=1)
        server.resume()


def test_by_default_nothing_older_than_tls_1_2_is_spoken() -> None:
    wire: Any = RateLimiter("rediss://localhost/0")._source._make()
    context = wire.ssl_context.get()
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


# ---- code ----

PACKAGE = Path(ratelimit_async.__file__).parent
RUNS_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "jsonpickle", "joblib", "code"}


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_runs_what_it_reads(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            assert not RUNS_DATA & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in RUNS_DATA
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("script", sorted((PACKAGE / "lua").rglob("*.lua")), ids=lambda path: path.stem)
def test_no_script_runs_what_it_reads(script: Path) -> None:
    text = script.read_text()
    assert [word for word in ("loadstring", "load(", "dofile", "setfenv", "getfenv", "_G") if word in text] == []
