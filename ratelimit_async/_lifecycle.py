"""A limiter's beginning and end, and what all its calls start with."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import msgspec

from ratelimit_async._catalog import Catalog
from ratelimit_async._config import decode_cost, decode_name, decode_subject
from ratelimit_async._deployment import source_of
from ratelimit_async._errors import ConfigurationError, NotStarted
from ratelimit_async._events import Defaulted, Events, log_event
from ratelimit_async._keys import Key, KeyNames
from ratelimit_async._loading import load_environment, load_toml
from ratelimit_async._session import Session
from ratelimit_async._settings import Settings
from ratelimit_async._tasks import Registry
from ratelimit_async._tracing import Traces

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self, Unpack

    from redis.asyncio import Redis, RedisCluster
    from redis.credentials import CredentialProvider

    from ratelimit_async._config import Cost, RateLimitConfig
    from ratelimit_async._events import Hook
    from ratelimit_async._settings import SettingsArguments
    from ratelimit_async._tracing import Tracing

__all__ = ["Lifecycle", "elsewhere"]


_MOST_NOTED = 1_000


class Lifecycle:
    """What a limiter is built from, and the session between entering and leaving it."""

    # Whether an entered one counts among the processes alive, by which an outage shares out the limits.
    _counts = True

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        limits: Mapping[str, object] | None = None,
        default: object = "100/minute",
        client: Redis | RedisCluster | None = None,
        credential_provider: CredentialProvider | None = None,
        hooks: Iterable[Hook] = (log_event,),
        tracing: Tracing | None = None,
        **settings: Unpack[SettingsArguments],
    ) -> None:
        """Describe a limiter; neither event loop nor network is touched before `async with`.

        Args:
            url: `redis://`, `rediss://`, `unix://`; `redis+sentinel://host,host/primary`, `redis+cluster://host,host`
                (`rediss+...` for TLS); or `memory://` for the embedded server (`memory://name` is shared within the
                process).
            limits: What each name allows: texts such as `"500/minute"`, tuples `(500, 60)`, `Limit`s, lists of them,
                mappings, or `RateLimitConfig`s. Names may be patterns such as `"tenant:*"`.
            default: The same for names that `limits` does not have; None makes such a name an error.
            client: A `redis.asyncio` client, also one of `Sentinel.master_for`, or a `RedisCluster`: its servers are
                used in place of `url`; it stays the caller's.
            credential_provider: One of redis-py's, for passwords or tokens that change; every connection asks it anew.
            hooks: Called with every event; the default logs them with structlog.
            tracing: Follows requests and durable tasks, e.g. `contrib.opentelemetry.OpenTelemetryTracing()`.
            **settings: `prefix` of all keys (`"rl"`); `processor` (True: grants for others too, and runs tasks);
                `batch_size` (most grants per script call, 50); `task_slots` (most durable tasks that this process runs
                at once, 100); `durability` of tasks (`"primary"`, or `"replicated"`: a submission is confirmed by as
                many `replicas`, 1); and in seconds, or as a `timedelta`, `poll_interval` (1.0),
                `lease` (5.0), `connect_timeout` (5.0), `command_timeout` (1.5), `shutdown_timeout` (10.0) and
                `task_grace` (30.0: after which a task whose name no running process has goes to the dead letters).

        Raises:
            ConfigurationError: If any of it cannot be used; it names the field and the value.
        """
        unknown = sorted(settings.keys() - set(Settings.__struct_fields__))
        if unknown:
            # What it is nobody knows: it may be a secret.
            raise ConfigurationError(unknown[0], "***", "is not a setting of RateLimiter")
        self._settings = Settings(**settings)
        self._catalog = Catalog(limits, default)
        self._defaulted: set[str] = set()
        self._source = source_of(url, client, self._settings.connect_timeout, credential_provider)
        self._events = Events(tuple(hooks))
        self._traces = Traces(tracing)
        self._registry = Registry()
        self._names = KeyNames(self._settings.prefix, self._find, self._events.emit)
        self._session: Session | None = None

    def __repr__(self) -> str:
        """Name the Redis, never its password."""
        return f"<RateLimiter {self._source.address}>"

    async def __aenter__(self) -> Self:
        """Connect, load the scripts, start the processor.

        Raises:
            RedisUnavailable: If Redis cannot be reached within `connect_timeout`.
            ConfigurationError: If it is entered already.
        """
        if self._session is not None:
            raise ConfigurationError("limiter", self, "is entered already")
        session = Session(
            self._source,
            self._names,
            self._catalog,
            self._settings,
            self._registry,
            self._events,
            self._traces,
            counts=self._counts,
        )
        self._session = session
        try:
            await session.start()
        except BaseException:
            self._session = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: what waits is cancelled, what runs may finish within `shutdown_timeout`."""
        session = self._session
        if session is not None:
            try:
                await session.stop()
            finally:
                self._session = None

    def only_look(self) -> None:
        """Grant for nobody and run no tasks once entered, whatever `processor` says: for a process that only looks.

        Raises:
            ConfigurationError: If it is entered already.
        """
        if self._session is not None:
            raise ConfigurationError("limiter", self, "is entered already")
        self._settings = msgspec.structs.replace(self._settings, processor=False)

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> Self:
        """Build a limiter from a TOML file: `url`, `default`, the table `limits`, and any setting.

        Args:
            path: Where the file is.
            **overrides: Arguments of RateLimiter that go before those of the file.

        Returns:
            The limiter.

        Raises:
            ConfigurationError: If the file or anything in it cannot be used; it names the field and the value.
        """
        return cls(**{**load_toml(path), **overrides})

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Build a limiter from the environment: `RATELIMIT_URL`, `RATELIMIT_LIMITS__OPENAI="500/minute"` and so on.

        `RATELIMIT_CONFIG` names a TOML file, before which the other variables go.

        Args:
            environ: The variables; by default those of this process.
            **overrides: Arguments of RateLimiter that go before those of the environment.

        Returns:
            The limiter.

        Raises:
            ConfigurationError: If a variable is not known or cannot be used; it names the variable and the value.
        """
        return cls(**{**load_environment(os.environ if environ is None else environ), **overrides})

    @contextlib.contextmanager
    def _elsewhere(
        self,
        url: str,
        *,
        adapt: Callable[[RateLimitConfig], RateLimitConfig] | None = None,
        **settings: Unpack[SettingsArguments],
    ) -> Generator[None]:
        """Use another Redis for a while, under other settings and adapted configurations."""
        if self._session is not None:
            raise ConfigurationError("limiter", self, "is entered already")
        before = {field: vars(self)[field] for field in ("_settings", "_source", "_names")}
        self._source = source_of(url, None, self._settings.connect_timeout)
        self._settings = msgspec.structs.replace(self._settings, **settings)

        def find(name: str, by: str | None) -> RateLimitConfig:
            config = self._find(name, by)
            return adapt(config) if adapt else config

        # What a process remembers of its keys is of one Redis.
        self._names = KeyNames(self._settings.prefix, find, self._events.emit)
        try:
            yield
        finally:
            vars(self).update(before)
        if self._session is not None:
            raise ConfigurationError("limiter", self, "is entered still")

    # ---- within ----

    def _live(self) -> Session:
        if self._session is None:
            raise NotStarted
        self._session.check()
        return self._session

    def _find(self, name: str, by: str | None) -> RateLimitConfig:
        found = self._catalog.find(name, by)
        if found.default and name not in self._defaulted:
            # Names may come from users: what is remembered of them is bounded.
            if len(self._defaulted) < _MOST_NOTED:
                self._defaulted.add(name)
            self._events.emit(Defaulted(name=name, limits="; ".join(map(str, found.config.limits))))
        return found.config

    def _key_of(self, name: object, by: object) -> Key:
        return self._names.key(decode_name(name), decode_subject(by))

    def _prepare(self, name: str, by: str | int | None, cost: Cost = 1) -> tuple[Session, Key, Mapping[str, int]]:
        session = self._live()
        # What was found lately has been checked then.
        key = self._names.recent(name, by) or self._key_of(name, by)
        # What is not enforced denies nothing, not even what could never pass.
        return session, key, decode_cost(cost, key.config, limited=key.config.enforce)


# For tests of what uses a limiter: no part of the face.
elsewhere = Lifecycle._elsewhere  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
