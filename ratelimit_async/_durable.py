"""Durable tasks as users see them."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import msgspec

from ratelimit_async._administration import Administration
from ratelimit_async._config import decode_priority, decode_timeout
from ratelimit_async._errors import ConfigurationError, UnknownRequest
from ratelimit_async._options import RequestOptions, Unset
from ratelimit_async._reports import dead_letters_of
from ratelimit_async._spelling import encode_costs, escape_word, parse_request_id
from ratelimit_async._task_scripts import Submission
from ratelimit_async._task_tickets import TaskTicket, result_of
from ratelimit_async._tasks import Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta

    from ratelimit_async._config import Cost
    from ratelimit_async._keys import Key
    from ratelimit_async._session import Session
    from ratelimit_async._values import DeadLetter

__all__ = ["Durable"]

P = ParamSpec("P")
R = TypeVar("R")
_FOR_FUNCTIONS = ("settle", "on_result", "retry_on", "max_retries", "backoff")
_DEFAULTS = RequestOptions()


class Durable(Administration):
    """Registers durable tasks and finds them again by their ids."""

    def task(
        self,
        name: str,
        *,
        max_attempts: int = 5,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
        backoff: float | timedelta = 1.0,
        run_timeout: float | timedelta | None = None,
        result_ttl: float | timedelta = 3600.0,
        settle: Callable[[Any], Cost] | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Register a function, async or plain, as a durable task: `request` and `submit` with it outlive this process.

        It runs in any process that has a task of this name: at least once, so it should bear being run again.

        Args:
            name: What processes know it by.
            max_attempts: How often it is tried before it goes to the dead letters.
            retry_on: Exceptions after which it is tried again; others go to the dead letters at once.
            backoff: Seconds before the second attempt; doubled each time, up to an hour, with jitter.
            run_timeout: Seconds that an attempt may take; None: without bound.
            result_ttl: Seconds for which its result, and with it its id, is kept.
            settle: Gives the true cost from the result.

        Returns:
            A decorator; what it gives is called like the function, and then just runs it.

        Raises:
            ConfigurationError: If an argument cannot be used, the name is taken, or an annotation has a type that
                cannot travel.
        """

        def register(fn: Callable[P, R]) -> Task[P, R]:
            task = Task(
                name,
                fn,
                max_attempts=max_attempts,
                retry_on=retry_on,
                backoff=backoff,
                run_timeout=run_timeout,
                result_ttl=result_ttl,
                settle=settle,
            )
            self._registry.add(task)
            return task

        return register

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the registered tasks."""
        return self._registry.names

    @property
    def runs_tasks(self) -> bool:
        """Whether this process runs tasks while the limiter is entered."""
        return self._settings.processor and bool(self._registry)

    async def result(self, request_id: str) -> Any:
        """Wait for the end of a durable task that any process submitted, and give its result.

        Args:
            request_id: Its ticket's `id`.

        Returns:
            The result, by the annotation of the task where it is registered here, otherwise as plain data.

        Raises:
            TaskFailed: If it failed for good.
            RequestCancelled: If it was cancelled.
            RequestTimeout: If its turn did not come in time.
            UnknownRequest: If Redis knows no such task, or no longer.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, own = self._find_task(request_id)
        outcome = await session.task_tickets.end_of(key, own, None)
        body = result_of(outcome, key.name, request_id, None)
        task = self._registry.get(outcome.task)
        return msgspec.msgpack.decode(body) if task is None else task.decode_result(body)

    def dead_letters(self, name: str, *, by: str | int | None = None) -> AsyncIterator[DeadLetter]:
        """List the durable tasks of a key that failed for good, the oldest first; read a page at a time.

        Args:
            name: Which name.
            by: Which subject of it.

        Returns:
            An async iterator of `.id`, `.task`, `.error`, `.attempts`, `.died_at` and `.arguments`.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, _ = self._prepare(name, by)
        return dead_letters_of(session, key)

    async def requeue(self, request_id: str) -> None:
        """Put a dead letter back into its queue, with all its attempts before it.

        Args:
            request_id: Its id.

        Raises:
            UnknownRequest: If no dead letter has it.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, own = self._find_task(request_id)
        if not await session.task_scripts.requeue(key, own):
            raise UnknownRequest(request_id)

    async def delete(self, request_id: str) -> None:
        """Delete a dead letter.

        Args:
            request_id: Its id.

        Raises:
            UnknownRequest: If no dead letter has it.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, own = self._find_task(request_id)
        if not await session.task_scripts.delete(key, own):
            raise UnknownRequest(request_id)

    def _find_task(self, request_id: str) -> tuple[Session, Key, str]:
        session = self._live()
        found = parse_request_id(request_id) if isinstance(request_id, str) else None
        if found is None or not found[2].startswith("*."):
            raise UnknownRequest(request_id)
        name, by, own = found
        try:
            return session, self._names.key(name, by), own.removeprefix("*.")
        except ConfigurationError:
            raise UnknownRequest(request_id) from None

    async def _submit_task(
        self, name: str, fn: object, args: tuple[Any, ...], options: RequestOptions, *, attends: bool
    ) -> Any:
        """Give a task its place; gives its ticket or, to a caller who attends, its result."""
        task, args, kwargs = as_task(fn, args)
        for field in _FOR_FUNCTIONS:
            if getattr(options, field) != getattr(_DEFAULTS, field):
                raise ConfigurationError(field, getattr(options, field), "is for functions; a task has its own")
        if self._registry.get(task.name) is not task:
            raise ConfigurationError("fn", task, "is a task of another limiter")
        payload = task.encode(args, kwargs)
        session, key, costs = self._prepare(name, options.by, options.cost)
        priority = decode_priority(options.priority, key.config.queue.priorities)
        with self._traces.follow("request" if attends else "submit", name, costs, priority, task=task.name):
            submission = Submission(
                own=escape_word(options.id) if options.id is not None else secrets.token_urlsafe(9),
                task=task.name,
                priority=priority,
                costs=encode_costs(costs, key.config.usual),
                timeout=None if isinstance(options.timeout, Unset) else decode_timeout(options.timeout),
                most=task.max_attempts,
                keeps=task.result_ttl,
                payload=self._traces.carry(payload),
            )
            executor = await session.executor_for(None if isinstance(options.durability, Unset) else options.durability)
            outcome = await session.task_tickets.submit(key, submission, told=attends, executor=executor)
            ticket = TaskTicket(session.task_tickets, key, submission, outcome, task.decode_result)
            return await ticket.attended(outcome) if attends else ticket


def is_task(fn: object) -> bool:
    """Whether a function is a durable task, be it with some arguments bound."""
    return isinstance(fn, Task) or (isinstance(fn, partial) and is_task(fn.func))


def as_task(fn: object, args: tuple[Any, ...]) -> tuple[Task[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Find the task and all its arguments."""
    if isinstance(fn, partial):
        bound = cast("partial[Any]", fn)  # type: ignore[redundant-cast] # pyright needs it
        task, args, kwargs = as_task(bound.func, (*bound.args, *args))
        return task, args, {**kwargs, **bound.keywords}
    return cast("Task[..., Any]", fn), args, {}
