"""Where connections to a Redis Cluster come from, and who owns which slots."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ratelimit_async._connection import FAILURES, Source, ask, hang_up, make_server, peer
from ratelimit_async._errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimit_async._connection import Address, Server, Wire

__all__ = ["ClusterSource", "Topology"]

T = TypeVar("T")


class Topology(NamedTuple):
    """Who owns which slots: (first, last) by primary."""

    ranges: dict[Address, list[tuple[int, int]]]


class ClusterSource(Source):
    """Where connections to a cluster's nodes come from."""

    def __init__(
        self,
        seeds: list[Address],
        connection_class: Callable[..., Any],
        options: dict[str, Any],
        connect_timeout: float,
    ) -> None:
        """Know where to ask first; `options` are those of connections to any node, all but its address."""
        self.address = ",".join(f"{host}:{port}" for host, port in seeds)
        self._seeds = seeds
        self._primaries: list[Address] = []
        self._connection_class = connection_class
        self._options = options
        self._connect_timeout = connect_timeout

    def node(self, address: Address) -> Server:
        """Give the source of connections to one node."""
        host, port = address
        options = {**self._options, "host": host, "port": port}
        return make_server(f"{host}:{port}", self._connection_class, options, self._connect_timeout)

    def current(self, wire: Wire) -> bool:
        """Whether its node still is a primary: any hears all that is published, one that was removed nothing."""
        return peer(wire) in self._primaries

    async def open(self) -> Wire:
        """Connect to any primary, or raise RedisUnavailable within the connect timeout."""
        return await self._first_of(_shuffled(self._primaries or self._seeds), lambda node: self.node(node).open())

    async def read(self, hint: Address | None = None) -> Topology:
        """Ask the hinted node, or any that answers, who owns what."""
        known = [*_shuffled(self._primaries), *_shuffled(self._seeds)]
        topology = await self._first_of([hint, *known] if hint else known, self._read)
        self._primaries = list(topology.ranges)
        return topology

    async def _read(self, address: Address) -> Topology:
        server = self.node(address)
        wire = await server.open()
        try:
            ranges: dict[Address, list[tuple[int, int]]] = {}
            for first, last, primary, *_replicas in await ask(wire, "CLUSTER", "SLOTS"):
                # A node that does not know its own name is where it was asked.
                host = primary[0].decode() if primary[0] not in (None, b"", b"?") else address[0]
                ranges.setdefault((host, int(primary[1])), []).append((int(first), int(last)))
        except FAILURES as error:
            raise server.failure(error) from error
        finally:
            await hang_up(wire)
        if not ranges:
            raise RedisUnavailable(server.address, "knows of no slots", outage=True)
        return Topology(ranges)

    async def _first_of(self, nodes: Sequence[Address], use: Callable[[Address], Awaitable[T]]) -> T:
        problems: dict[str, None] = {}
        # Where all answer and refuse, it is no outage.
        outage = False
        try:
            async with asyncio.timeout(self._connect_timeout):
                for node in dict.fromkeys(nodes):
                    try:
                        # None may use up the time for the others.
                        async with asyncio.timeout(self._connect_timeout / 3):
                            return await use(node)
                    except (RedisUnavailable, TimeoutError) as error:
                        problems[str(error) or f"{node[0]}:{node[1]} does not answer"] = None
                        outage = outage or self.failure(error).outage
        except TimeoutError:
            problems[f"nothing found within {self._connect_timeout} s"] = None
            outage = True
        raise RedisUnavailable(self.address, "; ".join(problems), outage=outage)


def _shuffled(addresses: Sequence[Address]) -> list[Address]:
    return random.sample(addresses, len(addresses))
