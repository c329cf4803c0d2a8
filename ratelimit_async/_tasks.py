"""Durable tasks: functions registered under a name, so that any process can run them; what travels is plain data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, get_type_hints

import msgspec

from ratelimit_async._config import check_count, decode_name, decode_seconds, decode_timeout
from ratelimit_async._errors import ConfigurationError
from ratelimit_async._spelling import escape_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from ratelimit_async._config import Cost

__all__ = ["MOST_BYTES", "Registry", "Task", "add_carrier", "read_arguments", "read_carrier"]

P = ParamSpec("P")
R = TypeVar("R")

# Of a task's arguments, and of its result.
MOST_BYTES = 64 * 1024
_MOST_ATTEMPTS = 1_000
# What begins a payload: the form of the rest; in the second, something travels with the arguments.
_VERSION = b"\x01"
_CARRIES = b"\x02"
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
_UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)


class Task(Generic[P, R]):
    """A registered function; called as it is, it just runs. `limiter.submit` and `limiter.request` make it durable.

    Attributes:
        name: What processes know it by.
        fn: The function.
    """

    def __init__(
        self,
        name: str,
        fn: Callable[P, R],
        *,
        max_attempts: int,
        retry_on: type[Exception] | tuple[type[Exception], ...],
        backoff: float | timedelta,
        run_timeout: float | timedelta | None,
        result_ttl: float | timedelta,
        settle: Callable[[Any], Cost] | None,
    ) -> None:
        """Check what is given, also that its arguments' types can be read back."""
        self.name = decode_name(name, "task")
        self.word = escape_word(name)
        if not callable(fn):
            raise ConfigurationError("task", fn, "must be a function")
        self.fn = fn
        check_count("max_attempts", max_attempts, _MOST_ATTEMPTS)
        self.max_attempts = max_attempts
        types: tuple[object, ...] = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        if not all(isinstance(one, type) and issubclass(one, Exception) for one in types):
            raise ConfigurationError("retry_on", retry_on, "must be an exception's type, or a tuple of them")
        self.retry_on = retry_on
        self.backoff = decode_seconds("backoff", backoff)
        self.run_timeout = decode_timeout(run_timeout, "run_timeout")
        self.result_ttl = decode_seconds("result_ttl", result_ttl)
        if not (settle is None or callable(settle)):
            raise ConfigurationError("settle", settle, "must be a function of the result, or None")
        self.settle = settle
        self._signature = inspect.signature(fn)
        self._types = self._read_types()
        self.__doc__ = fn.__doc__
        self.__name__ = getattr(fn, "__name__", name)
        self.__module__ = fn.__module__
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, without any limit."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        """Name it."""
        return f"<Task {self.name!r}>"

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Write arguments down; raises ConfigurationError where they do not fit the function or cannot be written."""
        try:
            payload = _VERSION + msgspec.msgpack.encode((args, kwargs))
        except _UNENCODABLE as error:
            raise ConfigurationError(f"arguments of task {self.name!r}", args or kwargs, str(error)) from None
        if len(payload) > MOST_BYTES:
            problem = f"take {len(payload)} bytes; a task may have {MOST_BYTES}"
            raise ConfigurationError(f"arguments of task {self.name!r}", args or kwargs, problem)
        try:
            self.decode(payload)
        except ValueError as error:
            raise ConfigurationError(f"arguments of task {self.name!r}", args or kwargs, str(error)) from None
        return payload

    def decode(self, payload: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read arguments back, by their annotations; raises ValueError that says which cannot be read."""
        if payload[:1] not in (_VERSION, _CARRIES):
            problem = f"written in form {payload[:1]!r}, which this version cannot read"
            raise ValueError(problem)
        try:
            args, kwargs = _decode(payload)
            bound = self._signature.bind(*args, **kwargs)
        except _UNREADABLE as error:
            raise ValueError(str(error)) from None
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            try:
                if kind is inspect.Parameter.VAR_POSITIONAL:
                    bound.arguments[name] = tuple(msgspec.convert(one, self._types[name]) for one in value)
                elif kind is inspect.Parameter.VAR_KEYWORD:
                    bound.arguments[name] = {k: msgspec.convert(v, self._types[name]) for k, v in value.items()}
                else:
                    bound.arguments[name] = msgspec.convert(value, self._types[name])
            except _UNREADABLE as error:
                problem = f"{name}: {error}"
                raise ValueError(problem) from None
        return bound.args, bound.kwargs

    def encode_result(self, result: object) -> bytes:
        """Write a result down; raises ValueError where that cannot be done."""
        try:
            encoded = msgspec.msgpack.encode(result)
        except _UNENCODABLE as error:
            problem = f"its result cannot be written down: {error}"
            raise ValueError(problem) from None
        if len(encoded) > MOST_BYTES:
            problem = f"its result takes {len(encoded)} bytes; it may have {MOST_BYTES}"
            raise ValueError(problem)
        return encoded

    def decode_result(self, body: bytes) -> R:
        """Read a result back, by the function's annotation."""
        return cast("R", msgspec.convert(msgspec.msgpack.decode(body), self._types["return"]))

    def _read_types(self) -> dict[str, Any]:
        try:
            hints = get_type_hints(self.fn, include_extras=True)
        except (NameError, TypeError) as error:
            problem = f"its annotations cannot be read: {error}"
            raise ConfigurationError("task", self.name, problem) from None
        types: dict[str, Any] = {}
        for name in (*self._signature.parameters, "return"):
            types[name] = hints.get(name, Any)
            try:
                msgspec.msgpack.Decoder(types[name])
            except TypeError as error:
                problem = f"{name} of task {self.name!r} has a type that cannot travel: {error}"
                raise ConfigurationError("task", types[name], problem) from None
        return types


def read_arguments(payload: bytes) -> tuple[list[Any], dict[str, Any]] | None:
    """Read arguments without knowing their types; None where they cannot be read."""
    try:
        return _decode(payload) if payload[:1] in (_VERSION, _CARRIES) else None
    except _UNREADABLE:
        return None


def add_carrier(payload: bytes, carrier: Mapping[str, str]) -> bytes:
    """Have something travel with a task's arguments, if there is room for both."""
    if not carrier:
        return payload
    travels = msgspec.convert(dict(carrier), dict[str, str])
    both = _CARRIES + msgspec.msgpack.encode((msgspec.Raw(payload[1:]), travels))
    return both if len(both) <= MOST_BYTES else payload


def read_carrier(payload: bytes) -> dict[str, str]:
    """Read what travels with a task's arguments; nothing where it cannot be read."""
    if payload[:1] != _CARRIES:
        return {}
    try:
        return msgspec.msgpack.decode(payload[1:], type=tuple[msgspec.Raw, dict[str, str]])[1]
    except _UNREADABLE:
        return {}


def _decode(payload: bytes) -> tuple[list[Any], dict[str, Any]]:
    if payload[:1] == _CARRIES:
        return msgspec.msgpack.decode(payload[1:], type=tuple[tuple[list[Any], dict[str, Any]], msgspec.Raw])[0]
    return msgspec.msgpack.decode(payload[1:], type=tuple[list[Any], dict[str, Any]])


class Registry:
    """The tasks of a limiter, by name."""

    def __init__(self) -> None:
        """Start with none."""
        self._tasks: dict[str, Task[..., Any]] = {}

    def add(self, task: Task[..., Any]) -> None:
        """Register a task; one name means one task."""
        if task.name in self._tasks:
            raise ConfigurationError("task", task.name, "is registered already")
        self._tasks[task.name] = task

    def get(self, name: str) -> Task[..., Any] | None:
        """Find a task."""
        return self._tasks.get(name)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._tasks)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._tasks)

    @property
    def words(self) -> str:
        """Their names as the scripts get them."""
        return " ".join(task.word for task in self._tasks.values())
