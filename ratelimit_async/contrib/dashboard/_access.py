"""Who may look and act: by a token, or as the application decides that the page is mounted in."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import secrets
import time
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from ratelimit_async import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    Authorize: TypeAlias = Callable[[Request], bool | Awaitable[bool]]

__all__ = ["Access"]

SESSION_SECONDS = 12 * 3600
CSRF_HEADER = "x-csrf-token"
_CSRF_COOKIE = "ratelimit_csrf"
_SHORTEST = 16


class Access:
    """Lets in by `Authorization: Bearer`, by the cookie of a login, or as a function says."""

    def __init__(self, token: str | None, authorize: Authorize | None) -> None:
        """Take one of both."""
        if (token is None) == (authorize is None):
            problem = "needs a token or authorize, and only one of them: it shows and steers limits"
            raise ConfigurationError("dashboard", None if token is None else "both", problem)
        if authorize is not None and not callable(authorize):
            raise ConfigurationError("authorize", authorize, "must be a function of the request")
        if token is not None and (
            not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token
        ):
            raise ConfigurationError("token", "***", "must be a text of printable ASCII characters, without spaces")
        if token is not None and len(token) < _SHORTEST:
            problem = f"must have {_SHORTEST} characters or more, e.g. from secrets.token_urlsafe()"
            raise ConfigurationError("token", "***", problem)
        self._token = token
        self._authorize = authorize
        # Several pages of one host, at other ports, share its cookies.
        self._cookie = f"ratelimit_{self._sign('cookie')[:12]}"

    @property
    def by_token(self) -> bool:
        """Whether there is a login."""
        return self._token is not None

    async def allows(self, request: Request) -> bool:
        """Whether a request may look."""
        if self._authorize is not None:
            answer = self._authorize(request)
            return bool(await answer if inspect.isawaitable(answer) else answer)
        return self._bears_token(request) or self._has_session(request)

    def knows(self, token: object) -> bool:
        """Whether this is the token, in a time that tells nothing."""
        return isinstance(token, str) and self._token is not None and _same(token, self._token)

    def check_origin(self, request: Request) -> None:
        """Refuse what another site makes a browser send."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site is not None:
            if site != "same-origin":
                raise HTTPException(403, "This request comes from another site.")
        elif origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            # Browsers send the other header over https and to this machine only.
            raise HTTPException(403, "This request comes from another site, or a proxy does not pass on its Host.")

    def check_action(self, request: Request) -> None:
        """Refuse what the page itself did not send; one that bears the token is no browser's."""
        self.check_origin(request)
        if self._bears_token(request):
            return
        given, expected = request.headers.get(CSRF_HEADER), request.cookies.get(_CSRF_COOKIE)
        if not given or not expected or not _same(given, expected):
            raise HTTPException(403, "The page is out of date: reload it.")

    def csrf_of(self, request: Request) -> str:
        """Give what the page has to send with actions."""
        return request.cookies.get(_CSRF_COOKIE, "")

    def hand_out_csrf(self, request: Request, response: Response) -> None:
        """Give a browser what it needs for actions."""
        if not self.csrf_of(request):
            self._set(request, response, _CSRF_COOKIE, secrets.token_urlsafe(18), None)

    def log_in(self, request: Request, response: Response) -> None:
        """Give a browser a session."""
        expires = f"{int(time.time()) + SESSION_SECONDS:x}"
        self._set(request, response, self._cookie, f"{expires}.{self._sign(expires)}", SESSION_SECONDS)

    def log_out(self, request: Request, response: Response) -> None:
        """Take it back."""
        self._set(request, response, self._cookie, "", 0)

    def _bears_token(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.knows(token.strip())

    def _has_session(self, request: Request) -> bool:
        expires, _, signature = request.cookies.get(self._cookie, "").partition(".")
        if not _same(signature, self._sign(expires)):
            return False
        return int(expires, 16) > time.time()

    def _sign(self, text: str) -> str:
        key = (self._token or "").encode()
        return hmac.new(key, f"ratelimit dashboard {text}".encode(errors="replace"), hashlib.sha256).hexdigest()

    def _set(self, request: Request, response: Response, name: str, value: str, seconds: int | None) -> None:
        # Without a path, a browser takes that of the address it asked, which only it knows behind a proxy.
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
        response.set_cookie(name, value, max_age=seconds, path=None, secure=secure, httponly=True, samesite="strict")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass"))
