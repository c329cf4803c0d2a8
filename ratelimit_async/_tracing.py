"""What tracers are told: a request, or an attempt at a durable task, while it lasts; and what travels with a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from ratelimit_async._errors import ConfigurationError
from ratelimit_async._events import log_failure
from ratelimit_async._tasks import add_carrier, read_carrier

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = ["Operation", "Span", "Traced", "Traces", "Tracing"]

Operation: TypeAlias = Literal["request", "acquire", "submit", "task"]


class Traced(msgspec.Struct, kw_only=True):
    """What a tracer follows.

    Args:
        op: `"request"`: a call from its arrival to its end, also one that was submitted; `"acquire"`: until its block
            ends; `"submit"`: until the place is known; `"task"`: an attempt at a durable task, where it runs.
        name: Whose limits.
        cost: What it is charged, by unit; empty for an attempt at a task.
        priority: 0 goes first; None for an attempt at a task.
        task: A durable task's name, "" for a function.
        attempt: Of a durable task, 1 for the first; 0 for all else.
        carrier: What `Tracing.carrier` gave where the task was submitted.
        waited: Seconds that it waited for its grants together; None until the first.
        turns: How often it was granted: retries have turns of their own.
    """

    op: Operation
    name: str
    cost: Mapping[str, int] = {}
    priority: int | None = None
    task: str = ""
    attempt: int = 0
    carrier: Mapping[str, str] = {}
    waited: float | None = None
    turns: int = 0


@runtime_checkable
class Tracing(Protocol):
    """What `RateLimiter(tracing=...)` takes; it is called on the event loop, and what it raises is logged."""

    def follow(self, traced: Traced) -> AbstractContextManager[object]:
        """Give what is entered before the wait, and left, with the error if there is one, after the call."""
        ...

    def carrier(self) -> Mapping[str, str]:
        """Give what travels with a durable task that is submitted now."""
        ...


class Span:
    """Follows something; this one, for limiters without tracing, nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what was raised passes through."""

    def granted(self, waited: float) -> None:
        """Hear of a grant, after so many seconds."""


class _Following(Span):
    """Tells a tracer."""

    __slots__ = ("_manager", "_traced")

    def __init__(self, manager: AbstractContextManager[object], traced: Traced) -> None:
        self._manager: AbstractContextManager[object] | None = manager
        self._traced = traced

    def __enter__(self) -> Self:
        if self._manager is not None:
            try:
                self._manager.__enter__()
            except Exception:  # noqa: BLE001 - a tracer is not ours
                self._manager = None
                log_failure("tracing failed", step="enter")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._manager is not None:
            try:
                self._manager.__exit__(kind, error, trace)
            except Exception as raised:  # noqa: BLE001 - the same
                if raised is not error:
                    log_failure("tracing failed", step="exit")

    def granted(self, waited: float) -> None:
        self._traced.waited = (self._traced.waited or 0.0) + waited
        self._traced.turns += 1


_NOT_FOLLOWED = Span()


class Traces:
    """Asks a tracer, if there is one, and keeps its failures from the requests."""

    def __init__(self, tracing: Tracing | None) -> None:
        """Check what is given."""
        if not (tracing is None or isinstance(tracing, Tracing)):
            raise ConfigurationError("tracing", tracing, "must have the methods follow and carrier")
        self._tracing = tracing

    def follow(
        self,
        op: Operation,
        name: str,
        cost: Mapping[str, int] | None = None,
        priority: int | None = None,
        *,
        task: str = "",
        attempt: int = 0,
        payload: bytes = b"",
    ) -> Span:
        """Give what follows something; `payload`: of a task that runs."""
        if self._tracing is None:
            return _NOT_FOLLOWED
        traced = Traced(
            op=op,
            name=name,
            cost=dict(cost or {}),
            priority=priority,
            task=task,
            attempt=attempt,
            carrier=read_carrier(payload),
        )
        try:
            return _Following(self._tracing.follow(traced), traced)
        except Exception:  # noqa: BLE001 - the same
            log_failure("tracing failed", step="follow")
            return _NOT_FOLLOWED

    def carry(self, payload: bytes) -> bytes:
        """Add to a task's payload what travels with it."""
        if self._tracing is None:
            return payload
        try:
            return add_carrier(payload, self._tracing.carrier())
        except Exception:  # noqa: BLE001 - the same
            log_failure("tracing failed", step="carrier")
            return payload
