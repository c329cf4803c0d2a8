"""What a granted request is in its caller's hands: grants, the acquire block, tickets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ratelimit_async._config import decode_cost
from ratelimit_async._events import Refunded, Settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from ratelimit_async._config import Cost
    from ratelimit_async._events import Emit
    from ratelimit_async._requests import Requests, Waiter
    from ratelimit_async._scripts import Charged, Scripts
    from ratelimit_async._values import Decision

__all__ = ["Acquire", "Grant", "Running", "Ticket"]

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
        "_charged",
        "_emit",
        "_reserved",
        "_scripts",
        "_waiter",
        "decision",
        "granted_at",
        "id",
        "waited",
    )

    def __init__(self, waiter: Waiter, charged: Charged, scripts: Scripts, emit: Emit) -> None:
        """Hold what was charged."""
        self.id = waiter.id
        self.decision: Decision = charged.decision
        self.waited = asyncio.get_running_loop().time() - waiter.created
        self.granted_at = charged.stamp / 1e6
        self._waiter = waiter
        self._charged = charged
        self._reserved = dict(waiter.costs)
        self._scripts = scripts
        self._emit = emit

    async def settle(self, cost: Cost) -> None:
        """Replace the reserved cost by the true one; the difference is given back or charged, even into debt.

        Args:
            cost: The true cost; units that it does not name stay as reserved.

        Raises:
            ConfigurationError: If it is not a cost of this name's limits.
            RedisUnavailable: If Redis cannot be told.
        """
        true = decode_cost(cost, self._waiter.key.config, limited=False)
        if isinstance(cost, dict):
            true = {**self._reserved, **{unit: true[unit] for unit in cost if unit in true}}
        await self._adjust(true)
        key = self._waiter.key
        self._emit(Settled(name=key.name, by=key.by, id=self.id, cost=true))

    async def refund(self) -> None:
        """Give everything back, for a call that was not made; a second time does nothing.

        Raises:
            RedisUnavailable: If Redis cannot be told.
        """
        if any(self._reserved.values()):
            await self._adjust(dict.fromkeys(self._reserved, 0))
            self._emit(Refunded(name=self._waiter.key.name, by=self._waiter.key.by, id=self.id))

    async def _adjust(self, true: dict[str, int]) -> None:
        more = {u: n - self._reserved.get(u, 0) for u, n in true.items()}
        back = {u: -n for u, n in more.items() if n < 0}
        debt = {u: n for u, n in more.items() if n > 0}
        self._reserved = true
        if back or debt:
            await self._scripts.adjust(self._waiter.key, self._charged.stamp, back, debt)


class Acquire:
    """A request for capacity: await it for a Grant, or use it as `async with ... as grant`."""

    def __init__(self, start: Callable[[], Awaitable[Grant]], running: Callable[[], Running]) -> None:
        """Send nothing until awaited or entered."""
        self._start = start
        self._running = running

    def __await__(self) -> Generator[Any, Any, Grant]:
        """Wait for the grant."""
        return self._start().__await__()

    async def __aenter__(self) -> Grant:
        """Wait for the grant; the limiter does not end before the block does."""
        grant = await self._start()
        self._held = self._running()
        self._held.__enter__()
        return grant

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block; what was charged stays charged."""
        self._held.__exit__()


class Ticket(Generic[T]):
    """A submitted request; await it for the function's result.

    Attributes:
        id: The request's id; `limiter.cancel(id)` takes it from any process.
        position: Its place in the queue when it was submitted, 1 for the first; 0 if it did not have to wait.
        estimated_wait: Seconds until its turn as it looked then, if those before it cost as much as it does.
    """

    __slots__ = ("_requests", "_task", "_waiter", "estimated_wait", "id", "position")

    def __init__(self, waiter: Waiter, task: asyncio.Task[T], requests: Requests) -> None:
        """Follow a request and the task that runs it."""
        self.id = waiter.id
        self.position = waiter.position
        self.estimated_wait = waiter.estimate
        self._waiter = waiter
        self._task = task
        self._requests = requests

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result; cancelling the awaiting task leaves the request alone."""
        return asyncio.shield(self._task).__await__()

    @property
    def done(self) -> bool:
        """Whether the request has ended."""
        return self._task.done()

    def cancel(self) -> bool:
        """Take the request back; one that runs already is cancelled like any task.

        Returns:
            Whether there was something to cancel.
        """
        if self._task.done():
            return False
        if self._waiter.granted.done():
            return self._task.cancel()
        self._requests.cancel(self._waiter, "cancelled")
        return True
