"""Whose request it is, by address: what trusted proxies say, and nobody else."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from ratelimit_async import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.requests import HTTPConnection

__all__ = ["ClientIP"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_UNIX = "unix"
_LONGEST = 80
# A port may follow: `192.0.2.1:443`, `[2001:db8::1]:443`.
_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[0-9]+)?")


class ClientIP:
    """For `by`: the client's address, past the proxies that are trusted; of IPv6 its network.

    Args:
        trusted_proxies: Addresses and networks (`"10.0.0.0/8"`) of your own proxies; `"unix"` for what comes through a
            unix socket. By default nobody is trusted, and the address is that of the connection.
        header: What they write the addresses into: `"x-forwarded-for"`, `"forwarded"` (RFC 7239), or one that holds a
            single address such as `"x-real-ip"`. Name the one that your proxies set or extend: any other may come from
            the client.
        ipv6_prefix: Bits of an IPv6 address that are one client; most get a whole /64.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """

    def __init__(
        self, *, trusted_proxies: Iterable[str] = (), header: str = "x-forwarded-for", ipv6_prefix: int = 64
    ) -> None:
        """Read the networks."""
        proxies: object = trusted_proxies
        if isinstance(proxies, str):
            raise ConfigurationError("trusted_proxies", proxies, "must be a list of addresses and networks")
        given = list(trusted_proxies)
        self._unix = _UNIX in given
        self._trusted = tuple(map(_network, (one for one in given if one != _UNIX)))
        name: object = header
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ConfigurationError("header", name, "must be the name of a header, such as 'x-forwarded-for'")
        self._header = name.lower()
        prefix: object = ipv6_prefix
        if isinstance(prefix, bool) or not isinstance(prefix, int) or not 0 < prefix <= 128:
            raise ConfigurationError("ipv6_prefix", prefix, "must be a whole number from 1 to 128")
        self._prefix = prefix

    def __call__(self, connection: HTTPConnection) -> str:
        """Go back from the connection to the first address that is no proxy of ours.

        Args:
            connection: A request or a websocket.

        Returns:
            The address, or an IPv6 network such as `"2001:db8::/64"`.

        Raises:
            ConfigurationError: If the connection has no address, as on a unix socket, and `"unix"` is not trusted.
        """
        peer = connection.client.host if connection.client is not None else ""
        hop = _address(peer)
        if not peer:
            if not self._unix:
                problem = 'the connection has no address; behind a unix socket, "unix" must be one of them'
                raise ConfigurationError("trusted_proxies", [str(one) for one in self._trusted], problem)
        elif hop is None or not self._trusts(hop):
            return self._subject(hop, peer)
        # Each proxy appends whom it heard, so the nearest to us is the last.
        for text in self._told(connection):
            told = _address(text)
            if told is None:
                break
            hop = told
            if not self._trusts(hop):
                break
        return self._subject(hop, _UNIX)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)

    def _told(self, connection: HTTPConnection) -> Iterator[str]:
        """Give what the header holds from right to left; a quote that the client left open swallows nothing."""
        for element in reversed(",".join(connection.headers.getlist(self._header)).split(",")):
            if self._header != "forwarded":
                if element.strip():
                    yield element
                continue
            for parameter in element.split(";"):
                name, _, value = parameter.partition("=")
                if name.strip().lower() == "for":
                    yield value

    def _subject(self, address: _Address | None, otherwise: str) -> str:
        if address is None:
            return otherwise
        if isinstance(address, ipaddress.IPv4Address):
            return str(address)
        # A zone is of no interest to others, and would not count as part of the network.
        return str(ipaddress.IPv6Network((int(address), self._prefix), strict=False))


def _network(text: object) -> _Network:
    try:
        if isinstance(text, str):
            return ipaddress.ip_network(text)
    except ValueError:
        pass
    raise ConfigurationError("trusted_proxies", text, "must be an address, a network such as '10.0.0.0/8', or 'unix'")


def _address(text: str) -> _Address | None:
    """Read an address, if it is one."""
    text = text.strip().strip('"')
    # Nothing longer is remembered, since clients can write here.
    return _parsed(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> _Address | None:
    """Take off a port; what an IPv4 address becomes on an IPv6 socket is IPv4 again."""
    found = _PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((found[1] or found[2] or "") if found else text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
