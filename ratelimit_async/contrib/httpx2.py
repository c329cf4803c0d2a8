"""For httpx2: a transport that sends every request of a client at its turn.

`httpx2.AsyncClient(transport=RateLimitTransport(limiter, name="openai"))`
"""

from __future__ import annotations

from ratelimit_async import RequestTimeout
from ratelimit_async.contrib._exchange import Body, Library
from ratelimit_async.contrib._transport import Transport, host_of

try:
    import httpx2
except ImportError as error:
    raise ImportError('ratelimit_async.contrib.httpx2 needs httpx2: pip install "ratelimit-async[httpx2]"') from error

__all__ = ["RateLimitTimeout", "RateLimitTransport", "host_of"]


class RateLimitTimeout(RequestTimeout, httpx2.PoolTimeout):
    """A request was not sent in time, as its turn did not come; what httpx2 raises where no connection is free."""

    def __init__(self, name: str, timeout: float | None, estimate: float | None = None) -> None:
        """Keep what RequestTimeout does; httpx2 notes the request."""
        super().__init__(name, timeout, estimate)
        self._request = None


class _Body(Body, httpx2.AsyncByteStream):
    pass


class RateLimitTransport(Transport[httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport):
    """Sends each request of a client when its turn has come; the turn lasts until the response is closed.

    Where the upstream rejects a request, its key is paused in every process, for its `Retry-After`, and the request is
    sent again before all others of its priority. What headers tell of the upstream's limits is believed.

    A request may have its own `by`, `cost`, `priority`, `timeout` and `fail_fast`: `extensions={"ratelimit": {...}}`.
    Beside what httpx2 raises, `get` and the like raise RateLimitTimeout, and the other errors of `limiter.request`.
    """

    _library = Library(
        response=httpx2.Response,
        base=httpx2.AsyncBaseTransport,
        transport=httpx2.AsyncHTTPTransport,
        body=_Body,
        replayable=httpx2.ByteStream,
        broken=httpx2.TransportError,
        unsent=(
            httpx2.ConnectError,
            httpx2.ConnectTimeout,
            httpx2.PoolTimeout,
            httpx2.ProxyError,
            httpx2.UnsupportedProtocol,
        ),
        timeout=RateLimitTimeout,
    )
