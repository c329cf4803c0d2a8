"""What `status`, `keys`, `waiting` and `health` answer."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from ratelimit_async._config import decode_priority
from ratelimit_async._errors import RateLimitError
from ratelimit_async._lua import ALL
from ratelimit_async._spelling import task_id
from ratelimit_async._tasks import read_arguments
from ratelimit_async._values import (
    DeadLetter,
    Health,
    KeyInfo,
    LimitStatus,
    ProcessorStatus,
    QueueStatus,
    Status,
    TaskStatus,
    WaitingRequest,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ratelimit_async._keys import Key, KeyNames
    from ratelimit_async._limits import Limit
    from ratelimit_async._session import Session
    from ratelimit_async._settings import Settings

__all__ = ["dead_letters_of", "health_of", "keys_of", "status_of", "total_of", "waiting_of"]

_PAGE = 200
# Dead letters are up to 64 KiB each.
_DEAD_PAGE = 20


async def status_of(session: Session, key: Key) -> Status:
    """Look at a key; the wait is estimated for one more request of normal priority and the usual cost."""
    config = key.config
    reply = await session.scripts.status(key, decode_priority("normal", config.queue.priorities), config.usual)
    processor = session.processor
    last = processor.last_run
    limits = [
        LimitStatus(limit=limit, used=used, remaining=max(limit.most - used, 0), reset_after=reset)
        for limit, (used, reset) in zip(config.limits, reply.limits, strict=True)
    ]
    return Status(
        name=key.name,
        by=key.by,
        keys=1,
        paused=reply.paused,
        resumes_in=reply.resumes_in,
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
        tasks=TaskStatus(**dict(zip(TaskStatus.__struct_fields__, reply.tasks, strict=True))),
    )


async def total_of(session: Session, names: KeyNames, key: Key) -> Status:
    """Add up all keys of a name: the key without a subject, which is given, and those that Redis knows."""
    infos = {KeyInfo(name=key.name, by=None)}
    infos |= {info async for info in keys_of(session, names, key.name, whole=True)}
    each: list[Status] = []
    for some in _batched(sorted(infos, key=lambda info: info.by or ""), _PAGE):
        found = (names.key(info.name, info.by) for info in some)
        each += await asyncio.gather(*(status_of(session, one) for one in found))
    limits: dict[Limit, LimitStatus] = {}
    for limit in itertools.chain.from_iterable(status.limits for status in each):
        so_far = limits.get(limit.limit)
        limits[limit.limit] = limit if so_far is None else _add(so_far, limit)
    queues = [status.queue for status in each]
    levels = itertools.zip_longest(*(queue.depth_by_priority for queue in queues), fillvalue=0)
    own = each[0]
    return Status(
        name=key.name,
        by=None,
        keys=len(each),
        paused=all(status.paused for status in each),
        resumes_in=max((status.resumes_in for status in each if status.resumes_in is not None), default=None),
        limits=tuple(limits.values()),
        queue=QueueStatus(
            depth=sum(queue.depth for queue in queues),
            depth_by_priority=tuple(map(sum, levels)),
            oldest_wait=max(queue.oldest_wait for queue in queues),
            estimated_wait=max(queue.estimated_wait for queue in queues),
        ),
        processor=ProcessorStatus(
            active=any(status.processor.active for status in each),
            last_run=own.processor.last_run,
            runs=own.processor.runs,
            grants=own.processor.grants,
        ),
        tasks=TaskStatus(
            **{
                field: (max if field == "workers" else sum)(getattr(status.tasks, field) for status in each)
                for field in TaskStatus.__struct_fields__
            }
        ),
    )


def _add(one: LimitStatus, other: LimitStatus) -> LimitStatus:
    return LimitStatus(
        limit=one.limit,
        used=one.used + other.used,
        remaining=one.remaining + other.remaining,
        reset_after=max(one.reset_after, other.reset_after),
    )


def _batched(items: list[KeyInfo], size: int) -> list[list[KeyInfo]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


async def keys_of(session: Session, names: KeyNames, prefix: str, *, whole: bool = False) -> AsyncGenerator[KeyInfo]:
    """Find keys that Redis holds something of, a step of its keyspace at a time."""
    seen: set[tuple[str, str | None]] = set()
    async for found in session.scripts.scan(names.pattern(prefix, whole=whole)):
        for redis_key in found:
            pair = names.parse(redis_key)
            if pair is not None and pair not in seen:
                seen.add(pair)
                yield KeyInfo(name=pair[0], by=pair[1])


async def waiting_of(session: Session, key: Key) -> AsyncGenerator[WaitingRequest]:
    """Read the queue a page at a time; who comes or goes meanwhile may be missed, but nobody is told twice."""
    seen: set[str] = set()
    for level in range(key.config.queue.priorities):
        start = 0
        while True:
            now, entries = await session.scripts.waiting(key, level, start, _PAGE)
            for entry in entries:
                client, seq, enqueued = entry.decode().split(" ", 3)[:3]
                request_id = f"{key.label}:{'*' if client.startswith('*') else client}.{seq}"
                if request_id not in seen:
                    seen.add(request_id)
                    age = max(now - int(enqueued), 0) / 1e6
                    yield WaitingRequest(id=request_id, position=len(seen), age=age, priority=level)
            if len(entries) < _PAGE:
                break
            # Those ahead may have gone meanwhile: pages overlap by half, so that few of the others are passed over.
            start += _PAGE // 2


async def dead_letters_of(session: Session, key: Key) -> AsyncGenerator[DeadLetter]:
    """Read the dead letters a page at a time; who comes or goes meanwhile may be missed, but nobody is told twice."""
    seen: set[str] = set()
    start = 0
    while True:
        page = await session.task_scripts.dead(key, start, _DEAD_PAGE)
        for letter in page:
            if letter.own not in seen:
                seen.add(letter.own)
                yield DeadLetter(
                    id=task_id(key.label, letter.own),
                    task=letter.task,
                    error=letter.error,
                    attempts=letter.attempts,
                    died_at=letter.died / 1e6,
                    arguments=read_arguments(letter.payload),
                )
        if len(page) < _DEAD_PAGE:
            break
        start += _DEAD_PAGE // 2


async def health_of(session: Session | None, names: KeyNames, settings: Settings, address: str) -> Health:
    """Ask Redis and look at the parts; never raises."""
    error, latency = "", None
    if session is None:
        error = "not started"
    else:
        started = asyncio.get_running_loop().time()
        try:
            session.check()
            await session.scripts.read_control(names.control, -1)
            latency = asyncio.get_running_loop().time() - started
        except RateLimitError as problem:
            error = str(problem)
    replies = session is not None and session.replies_alive
    breaker = session.executor.breaker_state if session is not None else "closed"
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
        keys=names.known,
        breaker=breaker,
        processes=session.control.processes if session is not None else 0,
        scripts={name: script.sha for name, script in ALL.items()},
        error=error,
    )
