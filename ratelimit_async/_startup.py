"""What is asked of Redis once, on entering: whether it is set up for what is promised."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ratelimit_async._errors import RateLimitError
from ratelimit_async._events import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ratelimit_async._events import Emit
    from ratelimit_async._executor import Executor

__all__ = ["check_server", "find_mismatches"]

_SECTIONS = ("server", "memory", "persistence", "replication")
_OLDEST = (6, 2)


async def check_server(executor: Executor, emit: Emit, *, durable: bool, replicas: int) -> None:
    """Emit one Misconfigured for each thing that does not fit; nothing fails or waits for it.

    `durable`: requests are kept in Redis that must survive its restart; `replicas`: so many must confirm each.
    """
    try:
        texts = await asyncio.gather(*(executor.command(("INFO", section)) for section in _SECTIONS))
    except RateLimitError as error:
        emit(
            Misconfigured(
                what="INFO",
                found=str(error),
                expected="an answer",
                advice="cannot check how Redis is set up: allow INFO to this user (ACL SETUSER ... +info)",
            )
        )
        return
    info = {field: value for text in texts for field, value in _fields(text)}
    if durable and replicas:
        info |= await _configured(executor, "appendfsync")
    for mismatch in find_mismatches(info, durable=durable, replicas=replicas):
        emit(mismatch)


def _fields(text: bytes) -> Iterator[tuple[str, str]]:
    for line in text.decode(errors="replace").splitlines():
        field, found, value = line.partition(":")
        if found:
            yield field, value


async def _configured(executor: Executor, parameter: str) -> dict[str, str]:
    """Read a parameter that INFO does not tell; where that is not allowed, which is wise, nothing."""
    try:
        reply: list[bytes] = await executor.command(("CONFIG", "GET", parameter))
    except RateLimitError:
        return {}
    texts = [text.decode(errors="replace") for text in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def find_mismatches(info: Mapping[str, str], *, durable: bool, replicas: int) -> Iterator[Misconfigured]:
    """Hold what Redis says of itself against what is promised; what it does not say is not held against it."""
    version = info.get("redis_version", "")
    if (numbers := _numbers(version)) and numbers < _OLDEST:
        yield Misconfigured(
            what="redis_version",
            found=version,
            expected="6.2 or newer",
            advice="use a newer Redis: the scripts are not made for this one",
        )
    if info.get("role", "master") != "master":
        yield Misconfigured(
            what="role",
            found=info["role"],
            expected="master",
            advice="connect to the primary: a replica takes no writes",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Misconfigured(
            what="maxmemory-policy",
            found=policy,
            expected="noeviction",
            advice="set it to noeviction: otherwise, when its memory is full, Redis drops limits and who waits, untold",
        )
    if durable:
        yield from _not_durable(info)
    if replicas:
        yield from _not_replicated(info, replicas, durable=durable)


def _not_durable(info: Mapping[str, str]) -> Iterator[Misconfigured]:
    if info.get("aof_enabled", "1") == "0":
        yield Misconfigured(
            what="appendonly",
            found="no",
            expected="yes",
            advice="set it to yes: otherwise a restart of Redis loses durable requests",
        )


def _not_replicated(info: Mapping[str, str], wanted: int, *, durable: bool) -> Iterator[Misconfigured]:
    fsync = info.get("appendfsync", "always")
    if durable and info.get("aof_enabled") != "0" and fsync != "always":
        yield Misconfigured(
            what="appendfsync",
            found=fsync,
            expected="always",
            advice="set it to always: otherwise a loss of power loses the last second of acknowledged requests",
        )
    replicas = info.get("connected_slaves", "")
    if replicas.isdecimal() and int(replicas) < wanted:
        yield Misconfigured(
            what="connected replicas",
            found=replicas,
            expected=f"{wanted} or more",
            advice='add a replica, or do not set durability="replicated": no request can be acknowledged',
        )
    # Redis tells of it only where it is set.
    if "connected_slaves" in info and "min_slaves_good_slaves" not in info:
        yield Misconfigured(
            what="min-replicas-to-write",
            found="0",
            expected=f"{wanted} or more",
            advice="set it to 1: otherwise a primary that was cut off goes on taking writes that are lost later",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
