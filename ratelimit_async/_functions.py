"""Calls functions, be they async or not."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["call_function"]


async def call_function(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Any:
    """Await an async function; run a plain one in a worker thread."""
    if kwargs:
        fn = partial(fn, **kwargs)
    called = getattr(fn, "func", fn)
    if inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(inspect.unwrap(called)):
        return await fn(*args)
    result = await to_thread.run_sync(fn, *args)
    # A lambda around a coroutine, or a callable object, shows itself only now.
    return await result if inspect.isawaitable(result) else result
