"""What a granted request is in its caller's hands: grants and tickets."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ratelimit_async._config import decode_cost
from ratelimit_async._errors import ConfigurationError
from ratelimit_async._events import Paused, Refunded, Released, Settled
from ratelimit_async._spelling import encode_costs

if TYPE_CHECKING:
    from collections.abc import Generator

    from ratelimit_async._config import Cost
    from ratelimit_async._keys import Key
    from ratelimit_async._requests import Requests
    from ratelimit_async._scripts import Charged
    from ratelimit_async._values import Decision
    from ratelimit_async._waiter import Waiter

__all__ = ["CallTicket", "Grant", "Running", "Ticket"]

T = TypeVar("T")


class Running:
    """Counts what runs under a grant, so that a limiter can end after it."""

    def __init__(self) -> None:
        """Start with nothing running."""
        self._count = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def __enter__(self) -> None:
        """Begin."""
        self._count += 1
        self.idle.clear()

    def __exit__(self, *_: object) -> None:
        """End."""
        self._count -= 1
        if not self._count:
            self.idle.set()


class Grant:
    """Capacity taken for one request.

    Attributes:
        id: The request's id.
        decision: How the limits stood when it was granted.
        waited: Seconds from the request to the grant.
        granted_at: When it was charged, by Redis' clock, in seconds since the epoch.
    """

    __slots__ = (
        "__weakref__",
        "_costs",
        "_ending",
        "_key",
        "_later",
        "_requests",
        "_scripts",
        "_seq",
        "_since",
        "_stamp",
        "_text",
        "decision",
        "granted_at",
        "id",
        "waited",
    )

    def __init__(self, waiter: Waiter, charged: Charged, requests: Requests) -> None:
        """Hold what was charged."""
        self.id = waiter.id
        self.decision: Decision = charged.decision
        self._since = asyncio.get_running_loop().time()
        self.waited = self._since - waiter.created
        self.granted_at = charged.stamp / 1e6
        self._key = waiter.key
        self._seq = waiter.seq
        self._stamp = charged.stamp
        self._costs = waiter.costs
        self._text = waiter.text
        # What was charged since: when, us, and what the costs of its units were before.
        self._later: list[tuple[int, dict[str, int]]] = []
        self._requests = requests
        self._scripts = requests.scripts
        self._ending: asyncio.Future[Any] | None = None
        if self._key.config.holds and charged.stamp:
            requests.holds.add(self)
        elif not charged.stamp:
            requests.outage.own(self, self._key, self._seq)

    @property
    def holding(self) -> tuple[Key, int, str]:
        """What is held for the call that runs: its key, number and costs."""
        return self._key, self._seq, self._text

    @property
    def costs(self) -> Mapping[str, int]:
        """What it costs by unit, as far as it is settled."""
        return self._costs

    async def settle(self, cost: Cost) -> None:
        """Replace the reserved cost by the true one; the difference is given back or charged, even into debt.

        Args:
            cost: The true cost; units that it does not name stay as reserved.

        Raises:
            ConfigurationError: If it is not a cost of this name's limits.
            RedisUnavailable: If Redis cannot be told.
        """
        await self._adjust(self._true_costs(cost))
        self._tell_settled()

    async def refund(self) -> None:
        """Give everything back, for a call that was not made; a second time does nothing.

        Raises:
            RedisUnavailable: If Redis cannot be told.
        """
        if any(self._costs.values()):
            await self._adjust(dict.fromkeys(self._costs, 0), ends=self._ending is None)
            self._requests.emit(Refunded(name=self._key.name, by=self._key.by, id=self.id))

    async def release(self) -> None:
        """End the call, for a grant that was awaited: what counts running calls no longer counts it.

        A grant that `async with` or `request` gave is released by it; a second time does nothing.

        Raises:
            RedisUnavailable: If Redis cannot be told.
        """
        if self._ending is None:
            await self._adjust(self._costs, ends=True)

    def end(self, cost: Cost | None = None) -> None:
        """Settle and release without waiting for Redis."""
        if self._ending is None:
            try:
                costs = self._costs if cost is None else self._true_costs(cost)
            except ConfigurationError:
                self.end()
                raise
            if (sent := self._send(costs, ends=True)) is not None:
                self._requests.detach(sent)
            if cost is not None:
                self._tell_settled()

    def push_back(self, seconds: float) -> None:
        """Pause the key, as the upstream asked, without waiting for Redis."""
        if not seconds:
            return
        self._requests.pause(self._key, seconds)
        self._requests.emit(Paused(name=self._key.name, by=self._key.by, seconds=seconds))

    def _tell_settled(self) -> None:
        self._requests.emit(Settled(name=self._key.name, by=self._key.by, id=self.id, cost=dict(self._costs)))

    def _true_costs(self, cost: Cost) -> Mapping[str, int]:
        true = decode_cost(cost, self._key.config, limited=False)
        named = cost if isinstance(cost, Mapping) else ("requests",)
        return {**self._costs, **{unit: true[unit] for unit in named if unit in true}}

    async def _adjust(self, costs: Mapping[str, int], *, ends: bool = False) -> None:
        if self._ending is not None:
            # What is settled after the end is settled where the end was charged.
            await asyncio.wait((self._ending,))
        charged = {unit: self._costs[unit] for unit, cost in costs.items() if cost > self._costs[unit]}
        if (sent := self._send(costs, ends=ends)) is not None:
            at = await asyncio.shield(sent)
            self._key.forget_denial()
            if charged:
                self._later.append((at, charged))

    def _send(self, costs: Mapping[str, int], *, ends: bool) -> asyncio.Future[Any] | None:
        """Send what takes the costs from what they are to what they shall be; gives the last of it."""
        sent = None
        for stamp, lower in self._given_back(costs):
            sent = self._send_step(stamp, lower, ends=False) or sent
        sent = self._send_step(self._stamp, costs, ends=ends) or sent
        if ends:
            self._requests.holds.discard(self)
            self._ending = sent or _done(self._stamp)
            if not self._stamp:
                self._requests.local.release(self._key, self._seq)
            held = asyncio.get_running_loop().time() - self._since
            self._requests.emit(Released(name=self._key.name, by=self._key.by, id=self.id, held=held))
        return sent

    def _given_back(self, costs: Mapping[str, int]) -> list[tuple[int, Mapping[str, int]]]:
        """Go down from what was charged last: each is given back where it was charged."""
        steps: list[tuple[int, Mapping[str, int]]] = []
        now, later = self._costs, self._later
        self._later = []
        for stamp, floor in reversed(later):
            lower = {
                unit: max(costs[unit], floor[unit]) if unit in floor and costs[unit] < cost else cost
                for unit, cost in now.items()
            }
            if lower != now:
                steps.append((stamp, lower))
                now = lower
            if left := {unit: least for unit, least in floor.items() if now[unit] > least}:
                self._later.insert(0, (stamp, left))
        return steps

    def _send_step(self, stamp: int, costs: Mapping[str, int], *, ends: bool) -> asyncio.Future[Any] | None:
        key, before = self._key, self._text
        self._costs, self._text = costs, encode_costs(costs, key.config.usual)
        ending = self._ending
        # A call that nothing counts while it runs ends by itself, and one in shadow may have been charged nothing.
        if not self._stamp or (self._text == before and not (ends and key.config.holds)):
            return None
        finished = ending.result() if ending is not None and ending.exception() is None else 0
        return self._scripts.adjust(key, self._seq, stamp, before, self._text, finished=finished, ends=ends)


def _done(stamp: int) -> asyncio.Future[int]:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(stamp)
    return future


class Ticket(ABC, Generic[T]):
    """A submitted request; await it for the result.

    Attributes:
        id: The request's id; `limiter.cancel(id)` takes it from any process.
        position: Its place in the queue when it was submitted, 1 for the first; 0 if it did not have to wait.
        estimated_wait: Seconds until its turn as it looked then, by the costs of those before it and all limits.
    """

    __slots__ = ("estimated_wait", "id", "position")

    def __init__(self, id: str, position: int, estimated_wait: float) -> None:
        """Keep what was said when it was submitted."""
        self.id = id
        self.position = position
        self.estimated_wait = estimated_wait

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result; cancelling the awaiting task leaves the request alone."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the request has ended; of a durable task, as far as this ticket was told: while it is awaited."""

    @abstractmethod
    def cancel(self) -> bool:
        """Take the request back; one that runs already is cancelled like any task.

        Returns:
            Whether there was something to cancel, as far as is known here; `limiter.cancel(id)` waits for the truth.
        """


class CallTicket(Ticket[T]):
    """The ticket of a function that this process runs."""

    __slots__ = ("_requests", "_task", "_waiter")

    def __init__(self, waiter: Waiter, task: asyncio.Task[T], requests: Requests) -> None:
        """Follow a request and the task that runs it."""
        # The id that its task is named by: one text for both.
        super().__init__(task.get_name(), waiter.position, waiter.estimate)
        self._waiter = waiter
        self._task = task
        self._requests = requests

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result."""
        return asyncio.shield(self._task).__await__()

    @property
    def done(self) -> bool:
        """Whether the request has ended."""
        return self._task.done()

    def cancel(self) -> bool:
        """Take the request back."""
        if self._task.done():
            return False
        if self._waiter.granted.done():
            return self._task.cancel()
        self._requests.cancel(self._waiter, "cancelled")
        return True
