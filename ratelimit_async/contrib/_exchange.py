"""A request of httpx, or of httpx2, between its arrival and the end of its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from ratelimit_async import NotStarted, RedisUnavailable, RetryAfter
from ratelimit_async._headers import read_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ratelimit_async import RateLimiter, RequestOptions
    from ratelimit_async._config import Cost

__all__ = ["Body", "Exchange", "Library", "Policy"]

_IDEMPOTENT = {"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"}
_PAUSES = ("retry-after", "retry-after-ms")
# Seconds.
_LONGEST_BACKOFF = 60.0


class Library(NamedTuple):
    """What is needed of httpx or httpx2, which are alike and have nothing in common.

    `replayable`: bodies that can be sent twice, as the library holds them; `broken`: errors of a connection, of which
    `unsent` leave the upstream untouched.
    """

    response: type[Any]
    base: type[Any]
    transport: type[Any]
    body: type[Body]
    replayable: type[Any]
    broken: type[Exception]
    unsent: tuple[type[Exception], ...]
    timeout: Callable[[str, float | None, float | None], Exception]


class Policy(NamedTuple):
    """What all requests of a transport have in common."""

    library: Library
    limiter: RateLimiter
    transport: Any
    settle: Callable[[Any], Cost | None] | None
    rejected: Callable[[Any], bool]
    options: RequestOptions


class _Outcome:
    """How an attempt ended: what it truly cost, None: as charged; whether to try again; why nothing was sent."""

    __slots__ = ("again", "cost", "error")

    def __init__(self, cost: Cost | None, *, again: bool = False, error: Exception | None = None) -> None:
        """Keep all three."""
        self.cost = cost
        self.error = error
        # The key is paused already.
        self.again = RetryAfter(0.0) if again else None


class Exchange:
    """A request on its way: sent at its turn, again where it was rejected; its turn lasts until `closed`.

    It runs in a task of its own, as the turn outlasts what the client awaits. It holds no response that a caller has,
    so that it learns when nobody has it any more.
    """

    def __init__(self, policy: Policy, request: Any, name: str, how: dict[str, Any]) -> None:
        """Begin."""
        self._policy = policy
        self._request = request
        self._name = name
        self._by = how["by"]
        self._cost: object = how["cost"]
        self._attempts = 0
        # Once the last chunk was read; what was read, where somebody wants to see it.
        self.complete = False
        self.body: list[bytes] | None = None if policy.settle is None else []
        self.closed = asyncio.Event()
        self.answered: asyncio.Future[Any] | None = asyncio.get_running_loop().create_future()
        options = msgspec.structs.replace(
            policy.options,
            settle=attrgetter("cost"),
            on_result=attrgetter("again"),
            **how,
        )
        self.task = asyncio.create_task(policy.limiter.request(name, self._send, options=options))
        self.task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[_Outcome]) -> None:
        error = None if task.cancelled() else task.exception() or task.result().error
        answered = self.answered
        if answered is not None and not answered.done():
            if error is None:
                answered.cancel()
            else:
                answered.set_exception(error)

    async def _send(self) -> _Outcome:
        self._attempts += 1
        try:
            response = await self._policy.transport.handle_async_request(self._request)
        except self._policy.library.unsent as error:
            return _Outcome({**(self._nothing() or {}), "requests": 0}, error=error)
        try:
            return await self._follow(response)
        finally:
            await response.aclose()

    async def _follow(self, response: Any) -> _Outcome:
        rejected = self._policy.rejected(response)
        busy = response.status_code == 503 and any(name in response.headers for name in _PAUSES)
        may = rejected or (busy and self._request.method in _IDEMPOTENT)
        if (
            may
            and isinstance(self._request.stream, self._policy.library.replayable)
            and self._attempts <= self._policy.options.max_retries
        ):
            await self._learn(response, rejected=rejected, busy=busy)
            # Read, so that its connection serves again.
            with suppress(self._policy.library.broken):
                await response.aread()
            return _Outcome(self._nothing() if rejected else None, again=True)
        self._hand_over(response)
        # Sent before whoever awaits the response goes on.
        await self._learn(response, rejected=rejected, busy=busy)
        await self.closed.wait()
        return _Outcome(self._nothing() if rejected else self._true_cost(response))

    def _hand_over(self, response: Any) -> None:
        answered, self.answered = self.answered, None
        assert answered is not None
        if answered.done():  # its caller was cancelled just now
            raise asyncio.CancelledError
        library = self._policy.library
        body = library.body(response.stream, self)
        answered.set_result(
            library.response(
                response.status_code, headers=response.headers, stream=body, extensions=response.extensions
            )
        )

    async def _learn(self, response: Any, *, rejected: bool, busy: bool) -> None:
        """Believe what the headers tell; without Redis, what they tell is lost but for a pause."""
        # A Retry-After of another status is about one resource: an export that is being made, a redirect.
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _PAUSES]
        if rejected or busy:
            headers.append(("retry-after-ms", str(1000 * self._pause_told(response))))
        elif not any("ratelimit" in name.replace("-", "") for name, _ in headers):
            return
        with suppress(RedisUnavailable, NotStarted):
            await self._policy.limiter.sync_from_headers(self._name, headers, by=self._by)

    def _pause_told(self, response: Any) -> float:
        """Read how long the upstream wants to be left alone; if it does not say so, until what is used up is fresh."""
        told = read_headers(response.headers, time.time())
        if told.retry_after is not None:
            return told.retry_after
        resets = [limit.reset_after or 0.0 for limit in told.limits if not limit.remaining]
        backoff = self._policy.options.first_backoff * 2 ** min(self._attempts - 1, 32)
        return max(resets, default=0.0) or min(backoff, _LONGEST_BACKOFF)

    def _true_cost(self, response: Any) -> Cost | None:
        settle = self._policy.settle
        if settle is None or self.body is None:
            return None
        if response.is_error:
            return self._nothing()
        if not self.complete:
            return None
        content = b"".join(self.body)
        headers, make = response.headers, self._policy.library.response
        return settle(make(response.status_code, headers=headers, content=content, request=self._request))

    def _nothing(self) -> dict[str, int] | None:
        """Give the cost of what used nothing but a request; None: that is all it costs."""
        costs: Mapping[str, int] = cast("Mapping[str, int]", self._cost) if isinstance(self._cost, Mapping) else {}
        return dict.fromkeys(costs.keys() - {"requests"}, 0) or None


class Body:
    """A response's body, to be mixed with a library's kind; closing it, or losing it, ends the turn."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        """Belong to the running loop."""
        self._stream = stream
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pass the chunks on."""
        kept = self._exchange.body
        async for chunk in self._stream:
            if kept is not None:
                kept.append(chunk)
            yield chunk
        self._exchange.complete = True

    async def aclose(self) -> None:
        """Close it; what `settle` raises is raised here."""
        try:
            await self._stream.aclose()
        finally:
            self._exchange.closed.set()
            # In the end of the turn there is nothing to wait for but its own steps.
            await asyncio.shield(self._exchange.task)

    def __del__(self) -> None:
        """End the turn of a response that was never closed; this may be another thread."""
        if not self._exchange.closed.is_set():
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._exchange.closed.set)
