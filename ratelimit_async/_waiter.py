"""A request between its arrival and its end, and what is held while its call runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from ratelimit_async._keys import encode_costs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit_async._keys import Key
    from ratelimit_async._scripts import Charged

__all__ = ["Holding", "Waiter"]


class Holding(Protocol):
    """What is held for a call that runs."""

    @property
    def holding(self) -> tuple[Key, int, str]:
        """Its key, its number and its costs."""
        ...


class Waiter:
    """A request between its arrival and its end."""

    __slots__ = (
        "abandoned",
        "asked",
        "costs",
        "created",
        "entry",
        "estimate",
        "fail_fast",
        "granted",
        "id",
        "key",
        "placed",
        "position",
        "priority",
        "seq",
        "state",
        "text",
        "timeout",
    )

    def __init__(
        self,
        seq: int,
        request_id: str,
        key: Key,
        costs: Mapping[str, int],
        priority: int,
        timeout: float | None,
        *,
        fail_fast: bool,
    ) -> None:
        """Belong to the running loop; timeout in seconds."""
        self.seq = seq
        self.id = request_id
        self.key = key
        self.costs = costs
        # As the scripts read them; what is charged under this text is also given back under it.
        self.text = encode_costs(costs, key.config.usual)
        self.priority = priority
        self.timeout = self.asked = timeout
        self.fail_fast = fail_fast
        self.entry = b""
        self.arrive()

    def arrive(self) -> None:
        """Begin to wait, for the first time or again."""
        loop = asyncio.get_running_loop()
        self.created = loop.time()
        self.granted: asyncio.Future[Charged] = loop.create_future()
        self.placed: asyncio.Future[None] = loop.create_future()
        self.state = "sent"
        self.position = 0
        self.estimate = 0.0
        self.abandoned = False

    @property
    def enqueued(self) -> int:
        """When it joined the queue, us by Redis' clock; 0 if it never had to."""
        return int(self.entry.split(b" ")[2]) if self.entry else 0

    @property
    def gone(self) -> bool:
        """Whether nobody wants the grant any more; a cancelled caller takes its future along first."""
        return self.abandoned or self.granted.cancelled()
