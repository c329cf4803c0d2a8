"""Every behaviour runs on the embedded server and on a real Redis."""

from __future__ import annotations

import os
import shutil
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from ratelimit_async._connection import embedded_server
from tests.servers import RedisServer, nginx_command

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("ci", deadline=None, max_examples=25, suppress_health_check=QUIET, print_blob=True)
settings.register_profile("long", settings.get_profile("ci"), max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure() -> None:
    if not shutil.which("redis-server"):
        pytest.exit("no redis-server on the PATH: install it, e.g. apt-get install redis-server", 2)
    if not shutil.which("chromium"):
        pytest.exit("no chromium on the PATH: install it, e.g. apt-get install chromium", 2)
    if not nginx_command():
        pytest.exit("no nginx on the PATH: install it, e.g. apt-get install nginx-light", 2)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    redis_server.call("FLUSHALL")
    redis_server.call("CONFIG", "RESETSTAT")
    return redis_server.url


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "redis":
        yield request.getfixturevalue("redis_url")
        return
    name = uuid.uuid4().hex
    # Held here, so that what it holds outlives the limiters of a test.
    server = embedded_server(name)
    yield f"memory://{name}"
    del server
