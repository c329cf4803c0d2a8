"""RateLimiter: the face that ties the parts together."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, overload

import msgspec

from ratelimit_async._acquire import Acquire
from ratelimit_async._calls import make_call
from ratelimit_async._config import decode_cost, decode_name, decode_priority, decode_subject, decode_timeout
from ratelimit_async._durable import Durable, is_task
from ratelimit_async._errors import ConfigurationError, UnknownRequest
from ratelimit_async._grants import CallTicket, Ticket
from ratelimit_async._limited import decorate
from ratelimit_async._options import UNSET, AcquireArguments, RequestArguments, RequestOptions, Unset
from ratelimit_async._spelling import parse_request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Unpack

    from ratelimit_async._config import Cost
    from ratelimit_async._limited import ByOf, CostOf, LimitedDecorator
    from ratelimit_async._options import LimitedArguments
    from ratelimit_async._session import Session
    from ratelimit_async._values import Decision
    from ratelimit_async._waiter import Waiter

__all__ = ["RateLimiter"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_DEFAULTS = RequestOptions()
_CALLS_ONLY = RequestArguments.__optional_keys__ - AcquireArguments.__optional_keys__


class RateLimiter(Durable):
    """Rate limits and queues shared by every process that uses the same Redis."""

    # ---- now or not at all ----

    async def hit(self, name: str, *, by: str | int | None = None, cost: Cost = 1) -> Decision:
        """Take capacity now or not at all; never waits, and never overtakes those who do.

        Args:
            name: Whose limits.
            by: The subject within the name, with counters and a queue of its own.
            cost: What it charges: a number of requests, or numbers by unit.

        Returns:
            The decision; denial is a value.

        Raises:
            CostExceedsLimit: If no limit could ever allow the cost.
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis refuses, or is away and `on_outage` is `"raise"`; whether it was charged is then
                not known.
        """
        session, key, costs = self._prepare(name, by, cost)
        return await session.checks.hit(key, costs)

    async def check(self, name: str, *, by: str | int | None = None, cost: Cost = 1) -> Decision:
        """Answer what `hit` would, and take nothing.

        Args:
            name: Whose limits.
            by: The subject within the name.
            cost: What a hit would charge.

        Returns:
            The decision.

        Raises:
            CostExceedsLimit: If no limit could ever allow the cost.
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis refuses, or is away and `on_outage` is `"raise"`.
        """
        session, key, costs = self._prepare(name, by, cost)
        return await session.checks.check(key, costs)

    # ---- in turn ----

    @overload
    async def request(
        self,
        name: str,
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        options: RequestOptions = ...,
        **how: Unpack[RequestArguments],
    ) -> T: ...
    @overload
    async def request(
        self,
        name: str,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        options: RequestOptions = ...,
        **how: Unpack[RequestArguments],
    ) -> T: ...
    async def request(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        options: RequestOptions = _DEFAULTS,
        **how: Unpack[RequestArguments],
    ) -> Any:
        """Run a function when its turn has come.

        Args:
            name: Whose limits.
            fn: An async function, or a plain one, which runs in a worker thread; or a durable task, which runs in any
                process that has it, and without a timeout unless one is given.
            *args: Its arguments; keywords go through `functools.partial`.
            by: The subject within the name.
            cost: What it charges: a number of requests, or numbers by unit.
            priority: 0 goes first, LOWER BEFORE HIGHER; or `"high"`, `"normal"`, `"low"`.
            timeout: Seconds to wait for the turn at most; None: without bound; 0: not at all. By default the queue's.
                Retries wait within it too.
            fail_fast: Whether to refuse at once what, by estimate, will not be served in time. By default the queue's.
            settle: Gives the true cost from the result; None: it is as charged.
            on_result: Gives a RetryAfter where the result says that the upstream wants to be left alone.
            retry_on: Exceptions of `fn` after which it is requested again.
            max_retries: How often, and also how often after a RetryAfter that `fn` raised or `on_result` gave.
            backoff: Seconds before the first retry on an exception; doubled each time, up to a minute, with jitter.
            id: Of a durable task: the same id is one request, whoever submits it how often.
            durability: Of a durable task: `"replicated"`: its submission is confirmed by replicas. By default the
                limiter's.
            options: All of these together; what is given by itself wins.

        Returns:
            What the function returns; what it raises passes through unchanged.

        Raises:
            RequestTimeout: If its turn did not come in time, or would not. It has not run and costs nothing.
            RetryAfter: If `fn` still raises it after `max_retries`.
            QueueFull: If the queue is.
            RequestDropped: If it had to make place in the queue.
            RequestCancelled: If `cancel(id)` or the limiter's end took it.
            TaskFailed: If a durable task failed for good.
            DurabilityUnknown: If too few replicas confirmed a durable task.
            CostExceedsLimit: If no limit could ever allow the cost.
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis refuses, or is away and `on_outage` is `"deny"` or `"raise"`.
        """
        if is_task(fn):
            return await self._submit_task(name, fn, args, msgspec.structs.replace(options, **how), attends=True)
        session, waiter, options = self._open(name, options, how)
        return await make_call(session, waiter, fn, args, options)

    def acquire(
        self,
        name: str,
        *,
        options: RequestOptions = _DEFAULTS,
        **how: Unpack[AcquireArguments],
    ) -> Acquire:
        """Wait for the turn, around code of one's own: `async with limiter.acquire(...) as grant`, or await it.

        Args:
            name: Whose limits.
            by: As in `request`.
            cost: As in `request`.
            priority: As in `request`; LOWER goes first.
            timeout: As in `request`, seconds.
            fail_fast: As in `request`.
            options: As in `request`.

        Returns:
            Something to await or to enter; either gives a `Grant` or raises what `request` does. A grant that was
            awaited ends with its `release()`; where limits count running calls they count it until then.
        """
        for field, value in how.items():
            if field in _CALLS_ONLY:
                raise ConfigurationError(field, value, "is for request and submit, which make the call")
        return Acquire(RateLimiter._open, self, name, msgspec.structs.replace(options, **how) if how else options)

    @overload
    async def submit(
        self,
        name: str,
        fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        options: RequestOptions = ...,
        **how: Unpack[RequestArguments],
    ) -> Ticket[T]: ...
    @overload
    async def submit(
        self,
        name: str,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        options: RequestOptions = ...,
        **how: Unpack[RequestArguments],
    ) -> Ticket[T]: ...
    async def submit(
        self,
        name: str,
        fn: Callable[[*Ts], Any],
        *args: *Ts,
        options: RequestOptions = _DEFAULTS,
        **how: Unpack[RequestArguments],
    ) -> Ticket[Any]:
        """Give a function its place and return at once; this process, or for a task any, runs it at its turn.

        Args:
            name: As in `request`.
            fn: As in `request`.
            *args: As in `request`.
            by: As in `request`.
            cost: As in `request`.
            priority: As in `request`; LOWER goes first.
            timeout: As in `request`, seconds.
            fail_fast: As in `request`.
            settle: As in `request`; and so are `on_result`, `retry_on`, `max_retries`, `backoff`, `id`, `durability`.
            options: As in `request`.

        Returns:
            The ticket: `id`, `position`, `estimated_wait`, `cancel()`; await it for the result.

        Raises:
            QueueFull: If the queue is.
            CostExceedsLimit: If no limit could ever allow the cost.
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis refuses, or is away and `on_outage` is `"deny"` or `"raise"`.
        """
        if is_task(fn):
            ticket: Ticket[Any]
            ticket = await self._submit_task(name, fn, args, msgspec.structs.replace(options, **how), attends=False)
            return ticket
        session, waiter, options = self._open(name, options, how, estimate=True)
        assert waiter.placing is not None
        with self._traces.follow("submit", name, waiter.costs, waiter.priority):
            try:
                await asyncio.shield(waiter.placing)
            except asyncio.CancelledError:
                session.requests.cancel(waiter, "caller")
                raise
            waiter.placing = None
            if waiter.granted.done():
                waiter.granted.result()
            task = asyncio.create_task(make_call(session, waiter, fn, args, options), name=waiter.id)
        session.keep(task)
        return CallTicket(waiter, task, session.requests)

    def limited(
        self,
        name: str,
        *,
        by: ByOf | Unset = UNSET,
        cost: CostOf | Unset = UNSET,
        options: RequestOptions = _DEFAULTS,
        **how: Unpack[LimitedArguments],
    ) -> LimitedDecorator:
        """Make every call of a function a request: `@limiter.limited("openai")`.

        For functions and methods, async or plain; a plain one becomes async and runs in a worker thread. Generators are
        refused.

        Args:
            name: As in `request`; it has to be configured already where names without a configuration are errors.
            by: As in `request`; or a function that gets all arguments of the call, also `self` and those that are left
                at their defaults.
            cost: The same.
            priority: As in `request`; LOWER goes first.
            timeout: As in `request`, seconds.
            fail_fast: As in `request`.
            settle: As in `request`; and so are `on_result`, `retry_on`, `max_retries`, `backoff`.
            options: As in `request`.

        Returns:
            A decorator; what it gives is called like the function, and gives and raises what `request` does.

        Raises:
            ConfigurationError: If an argument or the function cannot be used.
        """
        if callable(name):
            raise ConfigurationError("name", name, 'is missing: write @limiter.limited("name")')
        rules = {field: given for field, given in (("by", by), ("cost", cost)) if callable(given)}
        given = {"by": by, "cost": cost, **how}
        given = {field: one for field, one in given.items() if not isinstance(one, Unset) and field not in rules}
        options = msgspec.structs.replace(options, **given)
        _refuse_task_options(options)
        decode_timeout(None if isinstance(options.timeout, Unset) else options.timeout)
        subject = None if "by" in rules else decode_subject(options.by)
        config = self._catalog.find(decode_name(name), subject).config
        # A subject that is known only by the call may have other limits.
        if "by" not in rules or not config.by:
            decode_priority(options.priority, config.queue.priorities)
            decode_cost(1 if "cost" in rules else options.cost, config, limited=False)
        return partial(decorate, request=self.request, name=name, options=options, rules=rules)

    async def cancel(self, request_id: str) -> None:
        """Cancel a waiting request by its id, from any process; its caller gets `RequestCancelled`.

        Args:
            request_id: A ticket's or grant's `id`.

        Raises:
            UnknownRequest: If no such request waits.
            RedisUnavailable: If Redis does not answer.
        """
        session = self._live()
        found = parse_request_id(request_id) if isinstance(request_id, str) else None
        if found is None:
            raise UnknownRequest(request_id)
        name, by, own = found
        try:
            key = self._names.key(name, by)
        except ConfigurationError:
            raise UnknownRequest(request_id) from None
        if own.startswith("*."):
            if not await session.task_tickets.cancel(key, own.removeprefix("*."), "cancelled"):
                raise UnknownRequest(request_id)
        elif not await session.scripts.withdraw_other(key, own, "cancelled"):
            raise UnknownRequest(request_id)

    def _open(
        self, name: str, options: RequestOptions, how: Mapping[str, Any], *, estimate: bool = False
    ) -> tuple[Session, Waiter, RequestOptions]:
        if how:
            options = msgspec.structs.replace(options, **how)
        _refuse_task_options(options)
        session, key, costs = self._prepare(name, options.by, options.cost)
        queue = key.config.queue
        timeout, fast = options.timeout, options.fail_fast
        waiter = session.requests.open(
            key,
            costs,
            decode_priority(options.priority, queue.priorities),
            queue.timeout if isinstance(timeout, Unset) else decode_timeout(timeout),
            estimate=estimate,
            fail_fast=queue.fail_fast if isinstance(fast, Unset) else fast,
        )
        return session, waiter, options


def _refuse_task_options(options: RequestOptions) -> None:
    if options.id is not None:
        raise ConfigurationError("id", options.id, "is for durable tasks")
    if not isinstance(options.durability, Unset):
        raise ConfigurationError("durability", options.durability, "is for durable tasks")
