"""Calls that the limiter makes at their turn, and makes again as their options say."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from ratelimit_async._errors import ConfigurationError, RetryAfter
from ratelimit_async._events import Retried
from ratelimit_async._functions import call_function
from ratelimit_async._grants import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit_async._options import RequestOptions
    from ratelimit_async._session import Session
    from ratelimit_async._waiter import Waiter

__all__ = ["make_call"]

# Seconds between retries at most.
_LONGEST_BACKOFF = 60.0


async def make_call(
    session: Session, waiter: Waiter, fn: Callable[..., Any], args: tuple[Any, ...], options: RequestOptions
) -> Any:
    """Wait for the turn and call; a retry waits for its own turn, at the same priority and under the same id."""
    timeout = waiter.timeout
    retry = 0
    with session.traces.follow("request", waiter.key.name, waiter.costs, waiter.priority) as span:
        while True:
            retry += 1
            try:
                charged = await waiter.granted
            except asyncio.CancelledError:
                session.requests.cancel(waiter, "caller")
                raise
            grant = Grant(waiter, charged, session.requests)
            span.granted(grant.waited)
            with session.running:
                result, error, push_back = await _attempt(grant, fn, args, options)
            if error is None and push_back is None:
                return result
            if retry > options.max_retries:
                if error is not None:
                    raise error
                return result
            reason = repr(error or push_back)
            session.requests.emit(
                Retried(name=waiter.key.name, by=waiter.key.by, id=waiter.id, retry=retry, error=reason)
            )
            if push_back is None:
                pause = min(options.first_backoff * 2 ** min(retry - 1, 32), _LONGEST_BACKOFF)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            session.check()
            # The timeout bounds the waits of all turns together.
            timeout = None if timeout is None else max(timeout - grant.waited, 0.0)
            # Back to the front: before all that came after it did.
            session.requests.reopen(waiter, timeout, (waiter.enqueued or charged.stamp) if push_back is not None else 0)


async def _attempt(
    grant: Grant, fn: Callable[..., Any], args: tuple[Any, ...], options: RequestOptions
) -> tuple[Any, Exception | None, RetryAfter | None]:
    """Call once: the result, the error to retry on, and how long the upstream wants to be left alone."""
    try:
        result = await call_function(fn, args)
        cost = None if options.settle is None else options.settle(result)
        told = None if options.on_result is None else options.on_result(result)
    except RetryAfter as error:
        # Before the end, which may let the next one go.
        grant.push_back(error.seconds)
        grant.end()
        return None, error, error
    except options.retry_on as error:
        grant.end()
        return None, error, None
    except BaseException:
        grant.end()
        raise
    if not (told is None or isinstance(told, RetryAfter)):
        grant.end()
        raise ConfigurationError("on_result", told, "must return a RetryAfter or None")
    if told is not None:
        grant.push_back(told.seconds)
    grant.end(cost)
    return result, None, told
