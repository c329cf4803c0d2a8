"""How a key and a limiter are: what `status` and `health` answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ratelimit_async._config import decode_priority
from ratelimit_async._errors import RateLimitError
from ratelimit_async._scripts import ALL
from ratelimit_async._values import Health, LimitStatus, ProcessorStatus, QueueStatus, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit_async._keys import Key, KeyNames
    from ratelimit_async._session import Session
    from ratelimit_async._settings import Settings

__all__ = ["health_of", "status_of"]


async def status_of(session: Session, key: Key, costs: Mapping[str, int]) -> Status:
    """Look at a key; the wait is estimated for one more request of these costs."""
    level = decode_priority("normal", key.config.queue.priorities)
    reply = await session.scripts.status(key, level, costs)
    processor = session.processor
    last = processor.last_run
    limits = [
        LimitStatus(limit=limit, used=used, remaining=max(limit.amount - used, 0), reset_after=reset)
        for limit, (used, reset) in zip(key.config.parsed, reply.limits, strict=True)
    ]
    return Status(
        name=key.name,
        by=key.by,
        paused=key.paused,
        limits=tuple(limits),
        queue=QueueStatus(
            depth=sum(reply.depths),
            depth_by_priority=tuple(reply.depths),
            oldest_wait=reply.oldest,
            estimated_wait=reply.estimate,
        ),
        processor=ProcessorStatus(
            active=reply.driven,
            last_run=None if last is None else session.loop.time() - last,
            runs=processor.runs,
            grants=processor.grants,
        ),
    )


async def health_of(session: Session | None, names: KeyNames, settings: Settings, address: str) -> Health:
    """Ask Redis and look at the parts; never raises."""
    error, latency = "", None
    if session is None:
        error = "not started"
    else:
        started = asyncio.get_running_loop().time()
        try:
            session.check()
            await session.scripts.control(names.control, "read")
            latency = asyncio.get_running_loop().time() - started
        except RateLimitError as problem:
            error = str(problem)
    replies = session is not None and session.replies_alive
    processor = session is not None and session.processor_alive if settings.processor else None
    if not error and not replies:
        error = "the reply channel is not subscribed"
    if not error and processor is False:
        error = "the processor is being restarted"
    return Health(
        ok=not error,
        redis=latency is not None,
        latency=latency,
        address=address,
        replies=replies,
        processor=processor,
        scripts={name: script.sha for name, script in ALL.items()},
        error=error,
    )
