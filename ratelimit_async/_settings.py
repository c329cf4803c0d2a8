"""How a limiter behaves: its settings, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import msgspec

from ratelimit_async._config import decode_seconds
from ratelimit_async._errors import ConfigurationError
from ratelimit_async._options import Durability, check_durability

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Unpack

__all__ = ["Settings", "SettingsArguments"]


class SettingsArguments(TypedDict, total=False):
    """The settings as keywords, for type checkers; a test holds them against Settings."""

    prefix: str
    processor: bool
    batch_size: int
    poll_interval: float | timedelta
    lease: float | timedelta
    connect_timeout: float | timedelta
    command_timeout: float | timedelta
    shutdown_timeout: float | timedelta
    task_slots: int
    task_grace: float | timedelta
    durability: Durability
    replicas: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What RateLimiter takes beside its limits; times in seconds, or given as a `timedelta`."""

    prefix: str = "rl"
    processor: bool = True
    batch_size: int = 50
    poll_interval: float = 1.0
    lease: float = 5.0
    connect_timeout: float = 5.0
    # A hung server is noticed after so long: within two seconds.
    command_timeout: float = 1.5
    shutdown_timeout: float = 10.0
    task_slots: int = 100
    task_grace: float = 30.0
    durability: Durability = "primary"
    replicas: int = 1

    if TYPE_CHECKING:

        def __init__(self, **settings: Unpack[SettingsArguments]) -> None:
            """Check every field."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.prefix, str) or not 0 < len(self.prefix) <= 64:
            raise ConfigurationError("prefix", self.prefix, "must be a text of 1 to 64 characters")
        if not isinstance(self.processor, bool):
            raise ConfigurationError("processor", self.processor, "must be True or False")
        for field, most in (("batch_size", 1_000), ("task_slots", 10_000), ("replicas", 10)):
            size = getattr(self, field)
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
                raise ConfigurationError(field, size, f"must be a whole number from 1 to {most}")
        check_durability(self.durability)
        for field, least in (
            ("poll_interval", 0.01),
            ("lease", 0.1),
            ("connect_timeout", 0.01),
            ("command_timeout", 0.01),
            ("shutdown_timeout", 0.0),
            ("task_grace", 0.0),
        ):
            value = getattr(self, field)
            seconds = decode_seconds(field, value)
            if not least <= seconds <= 86_400:
                raise ConfigurationError(field, value, f"must be seconds from {least} to 86400, or a timedelta")
            msgspec.structs.force_setattr(self, field, seconds)
