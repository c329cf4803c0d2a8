"""Redis URLs, read as redis-py does; nothing of one that cannot be used is repeated but its scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import RedisError

from ratelimit_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hidden", "read_url"]

# What is for redis-py's pool of connections, which is not used here.
_OF_POOLS = ("max_connections", "timeout")


def hidden(url: str) -> str:
    """Hide all but the scheme: where a text cannot be read, nobody knows which part of it is the password."""
    scheme, found, _ = url.partition("://")
    return f"{scheme}://***" if found and scheme.replace("+", "").isalpha() else "***"


def read_url(url: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Give the class of a URL's connections and its options; raises ConfigurationError."""
    connection_class, options, problem = _read(url)
    if problem:
        # Not from within an `except`: the errors of the standard library repeat parts of the URL, and are logged.
        raise ConfigurationError("url", hidden(url), problem)
    return connection_class, options


def _read(url: str) -> tuple[Callable[..., Any], dict[str, Any], str]:
    """Read a URL, and say what is wrong with it."""
    try:
        parts = urlsplit(url)
        port = parts.port
        options = cast("dict[str, Any]", dict(parse_url(url)))
    except ValueError:
        return (
            Connection,
            {},
            "cannot be read: its numbers must be numbers, and what is special in its password escaped (%40)",
        )
    for option in _OF_POOLS:
        options.pop(option, None)
    connection_class = options.pop("connection_class", Connection)
    problem = ""
    if parts.fragment or "@" in parts.path + parts.query:
        # A password that holds one of /?# has been cut there.
        problem = "holds # or a late @: what is special in names and passwords must be escaped (%40)"
    elif parts.scheme == "unix":
        problem = "" if options.get("path") else "names no socket"
    elif not options.get("host"):
        problem = "names no host"
    elif port == 0:
        problem = "its port must be from 1 to 65535"
    elif (path := parts.path.strip("/")) and not path.isdecimal():
        problem = "the path must be a database's number"
    return connection_class, options, problem or _misfit(connection_class, options, list(parse_qs(parts.query)))


def _misfit(connection_class: Callable[..., Any], options: dict[str, Any], given: list[str]) -> str:
    """Say which options a connection does not take, "" if it takes all; nothing is connected."""
    try:
        connection_class(**options)
    except (TypeError, ValueError, RedisError):
        return f"has an option that cannot be used, among {given}"
    return ""
