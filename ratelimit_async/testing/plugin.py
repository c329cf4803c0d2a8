"""The pytest plugin: `pytest_plugins = ["ratelimit_async.testing.plugin"]` in the topmost conftest.py."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING

import pytest

from ratelimit_async import RateLimiter
from ratelimit_async.testing._clock import Clock
from ratelimit_async.testing._memory import on_memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = ["clock", "limiter", "limiter_limits"]


@pytest.fixture
def limiter_limits() -> dict[str, object]:
    """Override it with the `limits` of the fixture `limiter`; without, every name has the default."""
    return {}


@pytest.fixture
def _limiter_on_memory(limiter_limits: dict[str, object]) -> Generator[RateLimiter]:
    with on_memory(RateLimiter("memory://", limits=limiter_limits)) as limiter:
        yield limiter


async def _entered(_limiter_on_memory: RateLimiter) -> AsyncGenerator[RateLimiter]:
    async with _limiter_on_memory:
        yield _limiter_on_memory


_limiter_of_anyio = pytest.fixture(name="_limiter_of_anyio")(_entered)
with contextlib.suppress(ImportError):
    import pytest_asyncio  # pyright: ignore[reportMissingImports]

    # In its strict mode it runs only fixtures of its own.
    _limiter_of_asyncio = pytest_asyncio.fixture(name="_limiter_of_asyncio")(_entered)


@pytest.fixture
def limiter(request: pytest.FixtureRequest) -> RateLimiter:
    """Give a limiter on an embedded server of its own, entered for an async test; `limiter_limits` are its limits."""
    if "anyio_backend" in request.fixturenames:
        name = "_limiter_of_anyio"
    elif inspect.iscoroutinefunction(getattr(request, "function", None)):
        name = "_limiter_of_asyncio"
    else:
        name = "_limiter_on_memory"
    found: RateLimiter = request.getfixturevalue(name)
    return found


@pytest.fixture
def clock() -> Clock:
    """Give the clock: `await clock.advance(60)`."""
    return Clock()
