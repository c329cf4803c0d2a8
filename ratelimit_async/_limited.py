"""The decorator: every call of a function is a request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar, overload
from weakref import WeakKeyDictionary

import msgspec

from ratelimit_async._durable import is_task
from ratelimit_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit_async._config import Cost
    from ratelimit_async._options import RequestOptions

__all__ = ["ByOf", "CostOf", "LimitedDecorator", "decorate"]

P = ParamSpec("P")
T = TypeVar("T")
# A value, or a function of the call's arguments that gives it.
ByOf: TypeAlias = str | int | Callable[..., str | int | None] | None
CostOf: TypeAlias = "Cost | Callable[..., Cost]"

_METHODS: tuple[Any, ...] = (classmethod, staticmethod)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Of what was decorated here: limits can stand on limits.
_SIGNATURES: WeakKeyDictionary[Any, inspect.Signature] = WeakKeyDictionary()
_ANYTHING = inspect.Signature([inspect.Parameter(kind.name, kind) for kind in _VARIABLE])


class LimitedDecorator(Protocol):
    """What `limited` gives: makes a function, async or plain, an async one with the same arguments and result."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> Callable[P, Coroutine[Any, Any, T]]: ...


def decorate(
    fn: Any,
    request: Callable[..., Awaitable[Any]],
    name: str,
    options: RequestOptions,
    rules: Mapping[str, Callable[..., Any]],
) -> Any:
    """Make a function's calls requests; `rules` give options of a call from its arguments."""
    for kind in _METHODS:
        if isinstance(fn, kind):
            return kind(decorate(fn.__func__, request, name, options, rules))
    _check(fn)
    signature = _signature_of(fn)
    for field, rule in rules.items():
        _check_rule(field, rule, signature)

    async def call(*args: Any, **kwargs: Any) -> Any:
        # What does not fit the function is told before it waits.
        bound = signature.bind(*args, **kwargs)
        own = options
        if rules:
            bound.apply_defaults()
            given = {field: rule(*bound.args, **bound.kwargs) for field, rule in rules.items()}
            own = msgspec.structs.replace(options, **given)
        return await request(name, partial(fn, **kwargs) if kwargs else fn, *args, options=own)

    # A callable object is known by its class.
    call.__name__ = call.__qualname__ = type(fn).__name__
    named: Any = getattr(fn, "func", fn)
    wrapped: Any = wraps(named, updated=("__dict__",) if inspect.isroutine(fn) else ())(call)
    wrapped.__wrapped__ = fn
    # Read here, as not everybody reads them where the function stands, such as older FastAPIs; some cannot be read yet.
    with suppress(Exception):
        wrapped.__signature__ = inspect.signature(fn, eval_str=True)
    _SIGNATURES[wrapped] = signature
    return wrapped


def _check(fn: Any) -> None:
    if not callable(fn) or isinstance(fn, type):
        raise ConfigurationError("fn", fn, "must be a function, async or plain")
    if is_task(fn):
        raise ConfigurationError("fn", fn, "is a durable task: give it to request or submit, which wait for its turn")
    for one in (fn, getattr(fn, "__call__", None)):  # noqa: B004 - of a callable object, its method
        if inspect.isasyncgenfunction(one) or inspect.isgeneratorfunction(one):
            problem = "is a generator, whose call runs nothing yet: use `async with limiter.acquire(...)` within it"
            raise ConfigurationError("fn", fn, problem)


def _signature_of(fn: Any) -> inspect.Signature:
    """Give what it can truly be called with, which may differ from what a decorator shows; or else anything."""
    if inspect.isfunction(fn) and fn in _SIGNATURES:
        return _SIGNATURES[fn]
    try:
        return inspect.signature(fn, follow_wrapped=False)
    except ValueError:
        return _ANYTHING


def _check_rule(field: str, rule: Callable[..., Any], signature: inspect.Signature) -> None:
    """Refuse a function that cannot be called with what the limited one is called with."""
    if inspect.iscoroutinefunction(rule):
        raise ConfigurationError(field, rule, "must be a plain function of the call's arguments, not an async one")
    parameters = signature.parameters.values()
    if any(one.kind in _VARIABLE for one in parameters):
        return
    words = {one.name: None for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    try:
        _signature_of(rule).bind(*[None] * (len(parameters) - len(words)), **words)
    except TypeError as error:
        problem = f"must take the same arguments as the function, {signature}: {error}"
        raise ConfigurationError(field, rule, problem) from None
