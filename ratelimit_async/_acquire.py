"""Capacity for code of the caller's own: the acquire block."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ratelimit_async._errors import RetryAfter
from ratelimit_async._grants import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import CoroutineType, TracebackType

    from ratelimit_async._options import RequestOptions
    from ratelimit_async._session import Session
    from ratelimit_async._waiter import Waiter

    Open = Callable[[Any, str, RequestOptions, Mapping[str, Any]], tuple[Session, Waiter, RequestOptions]]

__all__ = ["Acquire"]


class Acquire:
    """A request for capacity: await it for a Grant, or use it as `async with ... as grant`."""

    # There may be ten thousand that wait: one coroutine for each, however it was asked, and no bound method.
    __slots__ = ("_grant", "_limiter", "_name", "_open", "_options", "_running", "_span")

    def __init__(self, open: Open, limiter: object, name: str, options: RequestOptions) -> None:
        """Send nothing until awaited or entered; `open`, of the limiter, does."""
        self._open = open
        self._limiter = limiter
        self._name = name
        self._options = options

    def __await__(self) -> Generator[Any, Any, Grant]:
        """Wait for the grant."""
        return self._wait(entered=False).__await__()

    def __aenter__(self) -> CoroutineType[Any, Any, Grant]:
        """Wait for the grant; the limiter does not end before the block does."""
        return self._wait(entered=True)  # type: ignore[return-value] # mypy knows no more than that it is a Coroutine

    async def _wait(self, *, entered: bool) -> Grant:
        session, waiter, _ = self._open(self._limiter, self._name, self._options, {})
        span = session.traces.follow("acquire", self._name, waiter.costs, waiter.priority).__enter__()
        try:
            grant = Grant(waiter, await waiter.granted, session.requests)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                session.requests.cancel(waiter, "caller")
            span.__exit__(type(error), error, error.__traceback__)
            raise
        span.granted(grant.waited)
        if entered:
            self._grant, self._span, self._running = grant, span, session.running
            self._running.__enter__()
        else:
            span.__exit__(None, None, None)
        return grant

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the call; what was charged stays charged. A RetryAfter pauses the key, and passes through."""
        if isinstance(error, RetryAfter):
            self._grant.push_back(error.seconds)
        self._grant.end()
        self._running.__exit__()
        self._span.__exit__(kind, error, trace)
