"""For httpx: a transport that sends every request of a client at its turn.

`httpx.AsyncClient(transport=RateLimitTransport(limiter, name="openai"))`
"""

from __future__ import annotations

from ratelimit_async import RequestTimeout
from ratelimit_async.contrib._exchange import Body, Library
from ratelimit_async.contrib._transport import Transport, host_of

try:
    import httpx
except ImportError as error:
    raise ImportError('ratelimit_async.contrib.httpx needs httpx: pip install "ratelimit-async[httpx]"') from error

__all__ = ["RateLimitTimeout", "RateLimitTransport", "host_of"]


class RateLimitTimeout(RequestTimeout, httpx.PoolTimeout):
    """A request was not sent in time, as its turn did not come; what httpx raises where no connection is free."""

    def __init__(self, name: str, timeout: float | None, estimate: float | None = None) -> None:
        """Keep what RequestTimeout does; httpx notes the request."""
        super().__init__(name, timeout, estimate)
        self._request = None


class _Body(Body, httpx.AsyncByteStream):
    pass


class RateLimitTransport(Transport[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    """Sends each request of a client when its turn has come; the turn lasts until the response is closed.

    Where the upstream rejects a request, its key is paused in every process, for its `Retry-After`, and the request is
    sent again before all others of its priority. What headers tell of the upstream's limits is believed.

    A request may have its own `by`, `cost`, `priority`, `timeout` and `fail_fast`: `extensions={"ratelimit": {...}}`.
    Beside what httpx raises, `get` and the like raise RateLimitTimeout, and the other errors of `limiter.request`.
    """

    _library = Library(
        response=httpx.Response,
        base=httpx.AsyncBaseTransport,
        transport=httpx.AsyncHTTPTransport,
        body=_Body,
        replayable=httpx.ByteStream,
        broken=httpx.TransportError,
        unsent=(
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.ProxyError,
            httpx.UnsupportedProtocol,
        ),
        timeout=RateLimitTimeout,
    )
