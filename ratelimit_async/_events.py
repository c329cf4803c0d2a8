"""What happens, as frozen structs for hooks; the sink that logs them."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from ratelimit_async._values import Decision

__all__ = [
    "Allowed",
    "BreakerClosed",
    "BreakerHalfOpened",
    "BreakerOpened",
    "Cancelled",
    "Configured",
    "Connected",
    "Dead",
    "Defaulted",
    "Denied",
    "Disconnected",
    "Dropped",
    "Event",
    "Expired",
    "Failed",
    "Finished",
    "Granted",
    "Hook",
    "Lost",
    "ManyKeys",
    "Misconfigured",
    "Paused",
    "Queued",
    "Refunded",
    "Rejected",
    "Released",
    "Restarted",
    "Resumed",
    "Retried",
    "Settled",
    "Started",
    "Unavailable",
    "log_event",
    "log_failure",
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in a limiter."""


class KeyEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one limit key."""

    name: str
    by: str | None = None


class Allowed(KeyEvent, frozen=True, kw_only=True):
    """A hit passed, or a request, which has an `id`, was admitted without waiting."""

    id: str | None = None
    source: str = "redis"
    decision: Decision


class Denied(KeyEvent, frozen=True, kw_only=True):
    """A hit did not pass or, in shadow mode, would not have; so may a request, which has an `id`, in shadow mode."""

    id: str | None = None
    reason: str
    source: str = "redis"
    shadow: bool = False
    decision: Decision


class Queued(KeyEvent, frozen=True, kw_only=True):
    """A request waits."""

    id: str
    position: int


class Granted(KeyEvent, frozen=True, kw_only=True):
    """A waiting request was granted; `waited` in seconds."""

    id: str
    waited: float
    decision: Decision


class Unavailable(KeyEvent, frozen=True, kw_only=True):
    """A hit or request failed because Redis is away or refuses, and nothing was decided without it."""

    error: str


class Expired(KeyEvent, frozen=True, kw_only=True):
    """A request was not granted within its timeout, seconds."""

    id: str
    timeout: float


class Rejected(KeyEvent, frozen=True, kw_only=True):
    """A request found its queue full."""

    max_size: int


class Dropped(KeyEvent, frozen=True, kw_only=True):
    """A waiting request was dropped in favour of a newcomer."""

    id: str
    reason: str


class Cancelled(KeyEvent, frozen=True, kw_only=True):
    """A request was withdrawn by its caller, by its id, or by the limiter's end."""

    id: str
    reason: str


class Refunded(KeyEvent, frozen=True, kw_only=True):
    """What a request had been charged was given back."""

    id: str


class Released(KeyEvent, frozen=True, kw_only=True):
    """What a request, or an attempt at a durable task, was granted it held for so many seconds; now it has ended."""

    id: str
    held: float


class Settled(KeyEvent, frozen=True, kw_only=True):
    """A request was settled at its true cost by unit."""

    id: str
    cost: dict[str, int]


class Started(KeyEvent, frozen=True, kw_only=True):
    """This process began an attempt, 1 for the first, at a durable task; `waited`: seconds since its submission."""

    id: str
    task: str
    attempt: int
    waited: float


class Finished(KeyEvent, frozen=True, kw_only=True):
    """This process finished a durable task; its last attempt took so many seconds."""

    id: str
    task: str
    took: float


class Lost(KeyEvent, frozen=True, kw_only=True):
    """A durable task that ran here is not this process' any more: cancelled, or its lease ended."""

    id: str
    task: str


class Dead(KeyEvent, frozen=True, kw_only=True):
    """A durable task failed for good in this process and went to the dead letters."""

    id: str
    task: str
    attempts: int
    error: str


class Retried(KeyEvent, frozen=True, kw_only=True):
    """A call or durable task, which is named, failed or was pushed back, and is requested again; `error` is why."""

    id: str
    task: str = ""
    retry: int
    error: str


class Paused(KeyEvent, frozen=True, kw_only=True):
    """This process paused a name or key, for so many seconds or, None, until it is resumed."""

    seconds: float | None = None


class Resumed(KeyEvent, frozen=True, kw_only=True):
    """This process resumed a name or key."""


class Configured(KeyEvent, frozen=True, kw_only=True):
    """This process changed the configuration of a name or key; `config` is JSON, "" for the one it was built with."""

    config: str


class Defaulted(KeyEvent, frozen=True, kw_only=True):
    """A name without a configuration was used for the first time here, and got the default."""

    limits: str


class Failed(Event, frozen=True, kw_only=True):
    """A ticket's function raised, another process' configuration cannot be read, or Redis refuses `what` else."""

    what: str
    error: str


class Connected(Event, frozen=True, kw_only=True):
    """The connection `what` (commands or replies) to Redis stands."""

    what: str
    address: str


class Disconnected(Event, frozen=True, kw_only=True):
    """The connection `what` to Redis broke, or could not be made."""

    what: str
    address: str
    error: str


class BreakerOpened(Event, frozen=True, kw_only=True):
    """Redis is gone or hangs: calls are answered without it; `probes`: how often it was looked for since, in vain."""

    address: str
    error: str
    probes: int


class BreakerHalfOpened(Event, frozen=True, kw_only=True):
    """One probe looks whether Redis is back."""

    address: str


class BreakerClosed(Event, frozen=True, kw_only=True):
    """Redis answers again, so many seconds after it first failed."""

    address: str
    after: float


class Restarted(Event, frozen=True, kw_only=True):
    """A part of the limiter crashed and starts again after so many seconds."""

    what: str
    error: str
    after: float


class Misconfigured(Event, frozen=True, kw_only=True):
    """Redis is not set up for what this limiter promises: a setting of its, what it is, should be, and what to do."""

    what: str
    found: str
    expected: str
    advice: str


class ManyKeys(Event, frozen=True, kw_only=True):
    """This process uses so many keys at once, told of once; `name` has the most of them, `subjects`."""

    keys: int
    name: str
    subjects: int


Hook: TypeAlias = Callable[[Event], object]
Emit: TypeAlias = Callable[[Event], None]

_LEVELS: dict[type[Event], int] = {
    Disconnected: logging.WARNING,
    BreakerOpened: logging.WARNING,
    Restarted: logging.ERROR,
    Dead: logging.ERROR,
    Dropped: logging.WARNING,
    Lost: logging.WARNING,
    Failed: logging.WARNING,
    Rejected: logging.WARNING,
    Misconfigured: logging.WARNING,
    ManyKeys: logging.WARNING,
    Connected: logging.INFO,
    BreakerClosed: logging.INFO,
    Paused: logging.INFO,
    Resumed: logging.INFO,
    Configured: logging.INFO,
    Defaulted: logging.INFO,
}

_stdlib = logging.getLogger("ratelimit_async")


def _is_structlog_configured() -> bool:
    # It takes longer to import than all of this package; who has configured it has imported it.
    structlog = sys.modules.get("structlog")
    return structlog is not None and structlog.is_configured()


def _is_logged(level: int) -> bool:
    return _is_structlog_configured() or _stdlib.isEnabledFor(level)


@functools.cache
def _plain() -> Any:
    import structlog

    return structlog.wrap_logger(_stdlib, processors=[structlog.processors.KeyValueRenderer(key_order=["event"])])


def _logger() -> Any:
    """Log as the application configured structlog; where it did not, through the standard library's logging."""
    return sys.modules["structlog"].get_logger("ratelimit_async") if _is_structlog_configured() else _plain()


def log_event(event: Event) -> None:
    """Log an event: what is routine at debug level, trouble as a warning or an error."""
    level = _LEVELS.get(type(event), logging.DEBUG)
    # An outage is told of when it begins and ends, not with every probe.
    if isinstance(event, BreakerOpened) and event.probes:
        level = logging.DEBUG
    if not _is_logged(level):
        return
    fields = msgspec.structs.asdict(event)
    if "name" in fields:
        # `name` is what a logger is called; a limit's name gets a key of its own.
        fields["limit"] = fields.pop("name")
    if (decision := fields.pop("decision", None)) is not None:
        fields |= {"binds": str(decision.limit), "remaining": decision.remaining}
    method = getattr(_logger(), logging.getLevelName(level).lower())
    method(type(event).__name__.lower(), **fields)


def log_failure(what: str, **fields: str) -> None:
    """Log the exception that is being handled: of what is not ours, and must not break a request."""
    _logger().exception(what, **fields)


class Events:
    """Hands events to the hooks; one that fails is logged and never breaks a request."""

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        """Take the hooks in their order."""
        self._hooks = hooks
        self._others = any(hook is not log_event for hook in hooks)

    def hear_routine(self) -> bool:
        """Whether anybody does: an event with every check is not even made where nobody hears of it."""
        return self._others or (bool(self._hooks) and _is_logged(logging.DEBUG))

    def emit(self, event: Event) -> None:
        """Tell every hook."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:  # noqa: BLE001 - a hook is not ours
                log_failure("hook failed", hook=repr(hook))
