"""A request between its arrival and its end, and what is held while its call runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from ratelimit_async._spelling import encode_costs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit_async._keys import Key
    from ratelimit_async._scripts import Charged, Scripts

__all__ = ["MOST_IDS", "Holds", "Waiter"]

# Ids of one entry: a script call looks at those of some, and unpacks them on Lua's stack.
MOST_IDS = 125


class Holding(Protocol):
    """What is held for a call that runs."""

    @property
    def holding(self) -> tuple[Key, int, str]:
        """Its key, its number and its costs."""
        ...

    @property
    def costs(self) -> Mapping[str, int]:
        """Its costs by unit."""
        ...


class Holds:
    """Grants that count while their calls run; one that nobody holds any more is not renewed."""

    def __init__(self, scripts: Scripts) -> None:
        """Start with none."""
        self._scripts = scripts
        self._grants: WeakSet[Holding] = WeakSet()

    def add(self, grant: Holding) -> None:
        """Renew it from now on."""
        self._grants.add(grant)

    def discard(self, grant: Holding) -> None:
        """Renew it no longer."""
        self._grants.discard(grant)

    def running(self, key: Key) -> Mapping[str, int]:
        """Add up what is held of a key, by unit."""
        total: dict[str, int] = {}
        for grant in self._grants:
            if grant.holding[0] is key:
                for unit, cost in grant.costs.items():
                    total[unit] = total.get(unit, 0) + cost
        return total

    async def renew(self) -> None:
        """Renew the leases of all."""
        by_key: dict[Key, list[tuple[int, str]]] = {}
        for grant in self._grants:
            key, seq, costs = grant.holding
            by_key.setdefault(key, []).append((seq, costs))
        jobs = [(key, held[i : i + MOST_IDS]) for key, held in by_key.items() for i in range(0, len(held), MOST_IDS)]
        await asyncio.gather(*(self._scripts.hold(key, held) for key, held in jobs))


class Waiter:
    """A request between its arrival and its end."""

    __slots__ = (
        "abandoned",
        "asked",
        "charged",
        "client",
        "costs",
        "created",
        "entry",
        "estimate",
        "fail_fast",
        "granted",
        "key",
        "placed",
        "placing",
        "position",
        "priority",
        "seq",
        "state",
        "text",
        "timeout",
        "timer",
        "tried",
        "turns",
    )

    def __init__(
        self,
        client: str,
        seq: int,
        key: Key,
        costs: Mapping[str, int],
        priority: int,
        timeout: float | None,
        *,
        fail_fast: bool,
    ) -> None:
        """Belong to the running loop; timeout in seconds."""
        self.client = client
        self.seq = seq
        self.key = key
        self.costs = costs
        # As the scripts read them; what is charged under this text is also given back under it.
        self.text = encode_costs(costs, key.config.usual)
        self.priority = priority
        self.timeout = self.asked = timeout
        self.fail_fast = fail_fast
        self.entry = b""
        self.turns = 0
        # Ends once it has a place or needs none; only where somebody waits for that.
        self.placing: asyncio.Future[None] | None = None
        self.arrive()

    def arrive(self) -> None:
        """Begin to wait, for the first time or again."""
        loop = asyncio.get_running_loop()
        self.created = loop.time()
        self.granted: asyncio.Future[Charged] = loop.create_future()
        # Ends its wait; a coroutine around it to bound the wait would take as much as all else of it.
        self.timer: asyncio.TimerHandle | None = None
        self.placed = False
        self.state = "sent"
        # What it was charged ahead of its time, while that has not come.
        self.charged: Charged | None = None
        # Whether it may have reached Redis.
        self.tried = False
        self.position = 0
        self.estimate = 0.0
        self.abandoned = False
        self.turns += 1

    def place(self, position: int = 0, estimate: float = 0.0) -> bool:
        """Note its place in the queue, 0 for none; whether it is the first that is told."""
        if self.placed:
            return False
        self.placed, self.position, self.estimate = True, position, estimate
        if self.placing is not None and not self.placing.done():
            self.placing.set_result(None)
        return True

    @property
    def id(self) -> str:
        """What its caller knows it by."""
        return f"{self.key.label}:{self.client}.{self.seq}"

    @property
    def turn(self) -> str:
        """What the scripts remember a charge by: never that of an earlier turn."""
        return f"{self.seq}/{self.turns - 1}" if self.turns > 1 else str(self.seq)

    @property
    def enqueued(self) -> int:
        """When it joined the queue, us by Redis' clock; 0 if it never had to."""
        return int(self.entry.split(b" ")[2]) if self.entry else 0

    def was_charged(self, turns: int) -> bool:
        """Whether this turn was: an answer to its second sending, or to what overtook it, tells nothing new then."""
        return self.turns != turns or self.state in ("early", "charged")

    @property
    def gone(self) -> bool:
        """Whether nobody wants the grant any more; a cancelled caller takes its future along first."""
        return self.abandoned or self.granted.cancelled()
