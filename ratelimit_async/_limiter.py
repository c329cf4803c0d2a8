"""RateLimiter: the face that ties the parts together."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, overload

import msgspec
from anyio import to_thread

from ratelimit_async._config import (
    RateLimitConfig,
    RequestOptions,
    Unset,
    decode_configs,
    decode_cost,
    decode_name,
    decode_priority,
    decode_subject,
    decode_timeout,
)
from ratelimit_async._connection import source_of
from ratelimit_async._errors import (
    ConfigurationError,
    NotStarted,
    UnknownRequest,
)
from ratelimit_async._events import Allowed, Denied, Events, Paused, Resumed, log_event
from ratelimit_async._grants import Acquire, Grant, Ticket
from ratelimit_async._keys import Key, KeyNames, parse_request_id
from ratelimit_async._reports import health_of, status_of
from ratelimit_async._session import Session
from ratelimit_async._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self, Unpack

    from redis.asyncio import Redis

    from ratelimit_async._config import Cost, RequestArguments
    from ratelimit_async._events import Hook
    from ratelimit_async._requests import Waiter
    from ratelimit_async._settings import SettingsArguments
    from ratelimit_async._values import Decision, Health, Status

__all__ = ["RateLimiter"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_DEFAULTS = RequestOptions()


class RateLimiter:
    """Rate limits and queues shared by every process that uses the same Redis."""

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        limits: Mapping[str, object] | None = None,
        default: object = "100/minute",
        client: Redis | None = None,
        hooks: Iterable[Hook] = (log_event,),
        **settings: Unpack[SettingsArguments],
    ) -> None:
        """Describe a limiter; neither event loop nor network is touched before `async with`.

        Args:
            url: `redis://`, `rediss://`, `unix://`, or `memory://` for the embedded server (`memory://name` is shared
                within the process).
            limits: What each name allows: texts such as `"500/minute"`, tuples `(500, 60)`, `Limit`s, lists of them,
                mappings, or `RateLimitConfig`s.
            default: The same for names that `limits` does not have; None makes such a name an error.
            client: A `redis.asyncio` client whose server is used in place of `url`; it stays the caller's.
            hooks: Called with every event; the default logs them with structlog.
            **settings: `prefix` of all keys (`"rl"`); `processor` (True: grants for others too); `batch_size` (most
                grants per script call, 100); and in seconds `poll_interval` (1.0), `lease` (5.0), `connect_timeout`
                (5.0), `command_timeout` (5.0) and `shutdown_timeout` (10.0).

        Raises:
            ConfigurationError: If any of it cannot be used; it names the field and the value.
        """
        unknown = sorted(settings.keys() - set(Settings.__struct_fields__))
        if unknown:
            raise ConfigurationError(unknown[0], settings.get(unknown[0]), "is not a setting of RateLimiter")
        self._settings = Settings(**settings)
        self._configs, self._default = decode_configs(limits, default)
        self._source = source_of(url, client, self._settings.connect_timeout)
        self._names = KeyNames(self._settings.prefix)
        self._events = Events(tuple(hooks))
        self._session: Session | None = None

    def __repr__(self) -> str:
        """Name the Redis, never its password."""
        return f"<RateLimiter {self._source.address}>"

    async def __aenter__(self) -> Self:
        """Connect, load the scripts, start the processor.

        Raises:
            RedisUnavailable: If Redis cannot be reached within `connect_timeout`.
            ConfigurationError: If it is entered already.
        """
        if self._session is not None:
            raise ConfigurationError("limiter", self, "is entered already")
        session = Session(self._source, self._names, self._settings, self._events.emit, self._key_of)
        self._session = session
        try:
            await session.start()
        except BaseException:
            self._session = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: what waits is cancelled, what runs may finish within `shutdown_timeout`."""
        session = self._session
        if session is not None:
            try:
                await session.stop()
            finally:
                self._session = None

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
            RedisUnavailable: If Redis does not answer. Whether it was charged is then not known.
        """
        session, key, costs = self._prepare(name, by, cost)
        decision = await session.scripts.hit(key, costs)
        if decision.allowed:
            self._events.emit(Allowed(name=key.name, by=key.by))
        else:
            self._events.emit(Denied(name=key.name, by=key.by, reason=decision.reason))
        return decision

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
            RedisUnavailable: If Redis does not answer.
        """
        session, key, costs = self._prepare(name, by, cost)
        return await session.scripts.check(key, costs)

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
            fn: An async function, or a plain one, which runs in a worker thread.
            *args: Its arguments; keywords go through `functools.partial`.
            by: The subject within the name.
            cost: What it charges: a number of requests, or numbers by unit.
            priority: 0 goes first, LOWER BEFORE HIGHER; or `"high"`, `"normal"`, `"low"`.
            timeout: Seconds to wait for the turn at most; None: without bound; 0: not at all. By default the queue's.
            options: All of these together; what is given by itself wins.

        Returns:
            What the function returns; what it raises passes through unchanged.

        Raises:
            RequestTimeout: If its turn did not come in time. It has not run and costs nothing.
            QueueFull: If the queue is.
            RequestDropped: If it had to make place in the queue.
            RequestCancelled: If `cancel(id)` or the limiter's end took it.
            CostExceedsLimit: If no limit could ever allow the cost.
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, waiter = self._open(name, options, how)
        with session.running:
            await session.requests.wait(waiter)
            return await _call(fn, args)

    def acquire(
        self,
        name: str,
        *,
        options: RequestOptions = _DEFAULTS,
        **how: Unpack[RequestArguments],
    ) -> Acquire:
        """Wait for the turn, around code of one's own: `async with limiter.acquire(...) as grant`, or await it.

        Args:
            name: Whose limits.
            by: As in `request`.
            cost: As in `request`.
            priority: As in `request`; LOWER goes first.
            timeout: As in `request`, seconds.
            options: As in `request`.

        Returns:
            Something to await or to enter; either gives a `Grant` or raises what `request` does.
        """

        async def start() -> Grant:
            session, waiter = self._open(name, options, how)
            charged = await session.requests.wait(waiter)
            return Grant(waiter, charged, session.scripts, self._events.emit)

        return Acquire(start, lambda: self._live().running)

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
        """Give a function its place and return at once; this process runs it at its turn.

        Args:
            name: As in `request`.
            fn: As in `request`.
            *args: As in `request`.
            by: As in `request`.
            cost: As in `request`.
            priority: As in `request`; LOWER goes first.
            timeout: As in `request`, seconds.
            options: As in `request`.

        Returns:
            The ticket: `id`, `position`, `estimated_wait`, `cancel()`; await it for the result.

        Raises:
            QueueFull: If the queue is.
            CostExceedsLimit: If no limit could ever allow the cost.
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, waiter = self._open(name, options, how, estimate=True)
        try:
            await asyncio.shield(waiter.placed)
        except asyncio.CancelledError:
            session.requests.cancel(waiter, "caller")
            raise
        if waiter.granted.done():
            waiter.granted.result()
        task = asyncio.create_task(_run_ticket(session, waiter, fn, args), name=waiter.id)
        session.keep(task)
        return Ticket(waiter, task, session.requests)

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
            key = self._key_of(name, by)
        except ConfigurationError:
            raise UnknownRequest(request_id) from None
        if not await session.scripts.withdraw(key, own, reason="cancelled"):
            raise UnknownRequest(request_id)

    # ---- administration ----

    async def status(self, name: str, *, by: str | int | None = None) -> Status:
        """Show a key's limits, queue and processor.

        Args:
            name: Which name.
            by: Which subject of it.

        Returns:
            How they are now.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, costs = self._prepare(name, by)
        return await status_of(session, key, costs)

    async def reset(self, name: str, *, by: str | int | None = None) -> None:
        """Forget what a key's limits have counted; those who wait keep their places and may pass at once.

        Args:
            name: Which name.
            by: Which subject of it.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, _ = self._prepare(name, by)
        await session.scripts.reset(key)

    async def pause(self, name: str, *, by: str | int | None = None) -> None:
        """Stop granting in every process: hits are denied, requests wait. What runs goes on.

        Other processes learn of it by a message, so within milliseconds; one that is cut off, when it is back.

        Args:
            name: Which name.
            by: One subject of it; by default all.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        await self._control("pause", name, by)

    async def resume(self, name: str, *, by: str | int | None = None) -> None:
        """End a pause, with the same arguments as it was begun with.

        Args:
            name: Which name.
            by: One subject of it.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        await self._control("resume", name, by)

    async def health(self) -> Health:
        """Tell how the limiter is; never raises."""
        return await health_of(self._session, self._names, self._settings, self._source.address)

    # ---- within ----

    async def _control(self, operation: Literal["pause", "resume"], name: str, by: str | int | None) -> None:
        session = self._live()
        subject = decode_subject(by)
        field = self._names.pause_field(decode_name(name), subject)
        session.set_paused(await session.scripts.control(self._names.control, operation, field))
        event = Paused if operation == "pause" else Resumed
        self._events.emit(event(name=name, by=subject))

    def _live(self) -> Session:
        if self._session is None:
            raise NotStarted
        self._session.check()
        return self._session

    def _config_of(self, name: str) -> RateLimitConfig:
        config = self._configs.get(name, self._default)
        if config is None:
            known = ", ".join(map(repr, sorted(self._configs))) or "none"
            raise ConfigurationError("name", name, f"has no configuration; those that have: {known}")
        return config

    def _key_of(self, name: str, by: str | None) -> Key:
        return self._names.key(name, by, self._config_of(name))

    def _prepare(self, name: str, by: str | int | None, cost: Cost = 1) -> tuple[Session, Key, dict[str, int]]:
        session = self._live()
        key = self._key_of(decode_name(name), decode_subject(by))
        return session, key, decode_cost(cost, key.config)

    def _open(
        self, name: str, options: RequestOptions, how: RequestArguments, *, estimate: bool = False
    ) -> tuple[Session, Waiter]:
        if how:
            options = msgspec.structs.replace(options, **how)
        session, key, costs = self._prepare(name, options.by, options.cost)
        queue = key.config.queue
        timeout = options.timeout
        wait = queue.timeout if isinstance(timeout, Unset) else decode_timeout(timeout)
        level = decode_priority(options.priority, queue.priorities)
        return session, session.requests.open(key, costs, level, wait, estimate=estimate)


async def _call(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if inspect.iscoroutinefunction(inspect.unwrap(getattr(fn, "func", fn))):
        return await fn(*args)
    result = await to_thread.run_sync(fn, *args)
    # A lambda around a coroutine, or a callable object, shows itself only now.
    return await result if inspect.isawaitable(result) else result


async def _run_ticket(session: Session, waiter: Waiter, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    await session.requests.wait(waiter)
    with session.running:
        return await _call(fn, args)
