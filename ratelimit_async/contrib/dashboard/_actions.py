"""What the page may do, where it may: one request each, told to the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from ratelimit_async import ConfigurationError, RateLimitError, RedisUnavailable, UnknownRequest
from ratelimit_async.contrib.dashboard._names import Pair, read_key

if TYPE_CHECKING:
    from ratelimit_async import RateLimiter

__all__ = ["act"]

_log = logging.getLogger("ratelimit_async")


async def act(limiter: RateLimiter, body: dict[str, Any], who: str) -> Pair:
    """Do what the body of a request says; gives the key that it was about."""
    action, pair = body.get("action"), read_key(body.get("key"))
    if pair is None:
        raise HTTPException(400, "key: must be a key's id")
    try:
        await _do(limiter, action, pair, body)
    except ConfigurationError as error:
        raise HTTPException(400, str(error)) from None
    except UnknownRequest:
        raise HTTPException(404, "This dead letter is there no longer.") from None
    except RedisUnavailable as error:
        raise HTTPException(503, f"Nothing is known to have changed: {error}") from None
    except RateLimitError as error:
        raise HTTPException(503, str(error)) from None
    _log.info("dashboard: %s of %r by %s", action, body.get("letter") or pair, who)
    return pair


async def _do(limiter: RateLimiter, action: object, pair: Pair, body: dict[str, Any]) -> None:
    name, by = pair
    if action == "pause":
        seconds = body.get("seconds")
        if seconds is None:
            await limiter.pause(name, by=by)
        else:
            await limiter.pause_for(name, seconds, by=by)
    elif action == "resume":
        await limiter.resume(name, by=by)
    elif action == "reset":
        await limiter.reset(name, by=by)
    elif action == "requeue":
        await limiter.requeue(body.get("letter", ""))
    elif action == "delete":
        await limiter.delete(body.get("letter", ""))
    else:
        raise HTTPException(400, "action: must be pause, resume, reset, requeue or delete")
