"""Sending the requests of a client of httpx, or of httpx2, each at its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast

from ratelimit_async import ConfigurationError, RateLimiter, RequestOptions, RequestTimeout
from ratelimit_async._options import UNSET, AcquireArguments, Unset
from ratelimit_async.contrib._exchange import Exchange, Policy

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from ratelimit_async._config import Cost, Priority
    from ratelimit_async.contrib._exchange import Library

__all__ = ["Transport", "host_of"]

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")
# A value, or a function that gives it for a request.
PerRequest: TypeAlias = T | Callable[[Request], T]

_FIELDS = AcquireArguments.__optional_keys__


def host_of(request: Any) -> str:
    """Give a request's host, with its port where that is not the scheme's own.

    Args:
        request: What is to be sent.

    Returns:
        Such as `"api.example.com"` or `"localhost:8080"`.
    """
    netloc: bytes = request.url.netloc
    return netloc.decode("ascii")


def _is_429(response: Any) -> bool:
    return bool(response.status_code == 429)


class Transport(Generic[Request, Response]):
    """Sends each request when its turn has come; to be mixed with a library's kind of transport."""

    _library: ClassVar[Library]

    def __init__(
        self,
        limiter: RateLimiter,
        name: PerRequest[str, Request] = host_of,
        *,
        transport: Any | None = None,
        by: PerRequest[str | int | None, Request] = None,
        cost: PerRequest[Cost, Request] = 1,
        priority: PerRequest[Priority, Request] = "normal",
        timeout: float | timedelta | Unset | None = UNSET,
        settle: Callable[[Response], Cost | None] | None = None,
        rejected: Callable[[Response], bool] = _is_429,
        max_retries: int = 3,
        backoff: float | timedelta = 1.0,
    ) -> None:
        """Send nothing yet.

        Args:
            limiter: An entered limiter.
            name: Whose limits, or a function of the request; by default its host.
            transport: What sends; by default `AsyncHTTPTransport()`.
            by: The subject within the name, or a function of the request: `host_of` has counters for each host.
            cost: What a request charges, or a function of it.
            priority: 0 goes first, LOWER BEFORE HIGHER; or `"high"`, `"normal"`, `"low"`; or a function of the request.
            timeout: Seconds to wait for the turn at most; None: without bound; 0: not at all. By default the queue's.
            settle: Gives the true cost from the whole response, None: as charged. Called where a body was read to its
                end; an error's cost is 0, but for the request.
            rejected: Whether a response says that the upstream did nothing, and wants to be left alone; by default 429.
            max_retries: How often a request is sent again: one that was rejected, or, if it is idempotent, one answered
                by 503 with `Retry-After`; neither if its body is a stream, which cannot be sent twice.
            backoff: Seconds to pause after the first rejection that does not tell how long; doubled each time.

        Raises:
            ConfigurationError: If an argument cannot be used.
        """
        library = self._library
        if not isinstance(limiter, RateLimiter):
            raise ConfigurationError("limiter", limiter, "must be a RateLimiter")
        if not (isinstance(name, str) or callable(name)):
            raise ConfigurationError("name", name, "must be a text, or a function of the request")
        if not (transport is None or isinstance(transport, library.base)):
            raise ConfigurationError("transport", transport, "must be an AsyncBaseTransport of the same library")
        if not callable(rejected):
            raise ConfigurationError("rejected", rejected, "must be a function of the response")
        self._name = name
        self._transport = library.transport() if transport is None else transport
        self._how: dict[str, object] = {"by": by, "cost": cost, "priority": priority, "timeout": timeout}
        options = RequestOptions(settle=settle, max_retries=max_retries, backoff=backoff)
        self._policy = Policy(library, limiter, self._transport, settle, rejected, options)
        self._exchanges: set[Exchange] = set()

    async def handle_async_request(self, request: Request) -> Response:
        """Send a request at its turn.

        Args:
            request: What to send.

        Returns:
            The response; the turn lasts until it is closed.

        Raises:
            RateLimitTimeout: If its turn did not come in time.
            RateLimitError: The other errors of `limiter.request`.
            HTTPError: What the transport within raises.
        """
        exchange = self._exchange(request)
        self._exchanges.add(exchange)
        answered = exchange.answered
        assert answered is not None
        exchange.task.add_done_callback(lambda _: self._exchanges.discard(exchange))
        try:
            response: Response = await answered
        except RequestTimeout as error:
            raise self._policy.library.timeout(error.name, error.timeout, error.estimate) from error
        except asyncio.CancelledError:
            exchange.task.cancel()
            await asyncio.wait((exchange.task,))
            raise
        return response

    def _exchange(self, request: Any) -> Exchange:
        given: object = request.extensions.get("ratelimit", {})
        own = cast("Mapping[str, Any]", given)
        if not (isinstance(given, Mapping) and _FIELDS.issuperset(own)):
            problem = f"must be a mapping of {', '.join(sorted(_FIELDS))}"
            raise ConfigurationError("extensions['ratelimit']", own, problem)
        how: dict[str, Any] = {
            field: value(request) if callable(value) else value
            for field, value in self._how.items()
            if field not in own
        }
        how.update(own)
        name = self._name(request) if callable(self._name) else self._name
        return Exchange(self._policy, request, name, how)

    async def __aenter__(self) -> Self:
        """Enter the transport within."""
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave the transport within."""
        try:
            await self._transport.__aexit__(exc_type, exc_value, traceback)
        finally:
            self._end()

    async def aclose(self) -> None:
        """Close the transport within, and end the turns of responses that nobody has closed."""
        try:
            await self._transport.aclose()
        finally:
            self._end()

    def _end(self) -> None:
        for exchange in self._exchanges:
            exchange.closed.set()
