"""What operators ask of a limiter and tell it; all of it holds in every process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from ratelimit_async._config import decode_mapping, decode_name, decode_seconds, decode_subject
from ratelimit_async._errors import ConfigurationError
from ratelimit_async._events import Configured, Paused, Resumed
from ratelimit_async._headers import Upstream, read_headers
from ratelimit_async._lifecycle import Lifecycle
from ratelimit_async._reports import health_of, keys_of, status_of, total_of, waiting_of
from ratelimit_async._upstream import limit_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import timedelta

    from ratelimit_async._config import RateLimitConfig
    from ratelimit_async._values import Health, KeyInfo, Status, WaitingRequest

__all__ = ["Administration"]


class Administration(Lifecycle):
    """Looking at limits, changing and pausing them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that have a configuration of their own, sorted; patterns are not among them."""
        return self._catalog.names

    async def status(self, name: str, *, by: str | int | None = None, total: bool = False) -> Status:
        """Show a key's limits, queue and processor.

        Args:
            name: Which name.
            by: Which subject of it.
            total: All keys of the name together instead: what is used and left of each limit and the depths are added
                up, of waits and resets the longest is given. It looks through Redis' keys step by step.

        Returns:
            How they are now.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, _ = self._prepare(name, by)
        if not total:
            return await status_of(session, key)
        if by is not None:
            raise ConfigurationError("by", by, "must be left out for the total of a name")
        return await total_of(session, self._names, key)

    def config(self, name: str, *, by: str | int | None = None) -> RateLimitConfig:
        """Tell what is configured for a key, as far as this process knows; asks nobody.

        Args:
            name: Which name.
            by: Which subject of it.

        Returns:
            The subject's own configuration, or else the name's, or else the default.

        Raises:
            ConfigurationError: If an argument cannot be used.
        """
        return self._prepare(name, by)[1].config

    def keys(self, prefix: str = "") -> AsyncIterator[KeyInfo]:
        """Find the keys of which Redis holds something, in no order; never blocks it.

        Args:
            prefix: What their names start with.

        Returns:
            An async iterator of `.name` and `.by`.

        Raises:
            ConfigurationError: If the prefix is no text.
            RedisUnavailable: If Redis does not answer.
        """
        if prefix != "":
            decode_name(prefix, "prefix")
        return keys_of(self._live(), self._names, prefix)

    def waiting(self, name: str, *, by: str | int | None = None) -> AsyncIterator[WaitingRequest]:
        """List who waits for a key, the next to go first; read a page at a time.

        Args:
            name: Which name.
            by: Which subject of it.

        Returns:
            An async iterator of `.id`, `.position`, `.age` and `.priority`.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, _ = self._prepare(name, by)
        return waiting_of(session, key)

    async def reset(self, name: str, *, by: str | int | None = None) -> None:
        """Forget what a key's limits have counted, but not what runs; those who wait may pass at once.

        Args:
            name: Which name.
            by: Which subject of it.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, _ = self._prepare(name, by)
        await session.scripts.reset(key)
        key.forget_denial()

    async def configure(self, limits: Mapping[str, object], *, by: str | int | None = None) -> None:
        """Change what names allow, in every process, now and for those that start later.

        What is counted stays counted where a limit keeps its algorithm and unit. Requests that wait keep their places;
        those whose cost can never pass any more get CostExceedsLimit.

        Args:
            limits: By name or pattern, what RateLimiter takes; None for what each process was built with.
            by: Change one subject of these names only.

        Raises:
            ConfigurationError: If anything cannot be used; then nothing has changed.
            RedisUnavailable: If Redis does not answer; then some of the names may have been changed.
        """
        session = self._live()
        subject = decode_subject(by)
        decode_mapping(limits)
        texts = {
            decode_name(name, "limits"): self._catalog.encode(spec, name, subject) for name, spec in limits.items()
        }
        for name, text in texts.items():
            await session.control.configure(name, subject, text)
            config = self._catalog.body(text) if text else ""
            self._events.emit(Configured(name=name, by=subject, config=config))

    async def pause(self, name: str, *, by: str | int | None = None) -> None:
        """Stop granting in every process: hits are denied, requests wait. What runs goes on.

        A pause of one subject holds at once. Other processes learn of a name's by a message, so within milliseconds;
        one that is cut off, when it is back.

        Args:
            name: Which name.
            by: One subject of it; by default all.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        await self._pause(name, by, None)

    async def pause_for(self, name: str, seconds: float | timedelta, *, by: str | int | None = None) -> None:
        """Pause for a time; a pause that lasts longer already is not cut short.

        Args:
            name: Which name.
            seconds: How long, from now on.
            by: One subject of it; by default all.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        duration = decode_seconds("seconds", seconds)
        if duration:
            await self._pause(name, by, duration)

    async def resume(self, name: str, *, by: str | int | None = None) -> None:
        """End a pause, with the same name and subject as it was begun with; also one that an upstream asked for.

        Args:
            name: Which name.
            by: One subject of it.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        if by is None:
            # An upstream pauses one key, here the one without a subject; a name without a configuration has none.
            with contextlib.suppress(ConfigurationError):
                await self._live().scripts.pause(self._key_of(name, None), 0)
        await self._pause(name, by, 0)
        self._events.emit(Resumed(name=name, by=decode_subject(by)))

    async def sync_from_headers(self, name: str, headers: object, *, by: str | int | None = None) -> Upstream:
        """Believe an upstream: pause for its `Retry-After`, and count no more as left than it says remains.

        Args:
            name: Whose limits.
            headers: Of a response, a mapping or pairs: `Retry-After`, `RateLimit` and `RateLimit-Policy`,
                `X-RateLimit-*`, `x-ratelimit-remaining-tokens` and the like, `anthropic-ratelimit-*`. Others, and what
                cannot be read, are ignored.
            by: The subject within the name.

        Returns:
            What was read from them.

        Raises:
            ConfigurationError: If an argument cannot be used.
            RedisUnavailable: If Redis does not answer.
        """
        session, key, _ = self._prepare(name, by)
        upstream = read_headers(headers, time.time())
        # All of it is sent before anything is awaited, and so before what the caller sends next.
        sent: list[asyncio.Future[Any]] = []
        if upstream.retry_after:
            sent.append(session.requests.pause(key, upstream.retry_after))
            self._events.emit(Paused(name=key.name, by=key.by, seconds=upstream.retry_after))
        for told in upstream.limits:
            index = limit_told(key.config.limits, told)
            if index is not None:
                sent.append(session.scripts.lower(key, index, told.remaining, told.reset_after))
        await asyncio.gather(*sent)
        return upstream

    async def health(self) -> Health:
        """Tell how the limiter is; never raises."""
        return await health_of(self._session, self._names, self._settings, self._source.address)

    async def _pause(self, name: str, by: str | int | None, seconds: float | None) -> None:
        session, subject = self._live(), decode_subject(by)
        decode_name(name)
        if subject is None:
            await session.control.pause(name, seconds)
        else:
            await session.scripts.pause(self._key_of(name, subject), seconds)
        if seconds != 0:
            self._events.emit(Paused(name=name, by=subject, seconds=seconds))
