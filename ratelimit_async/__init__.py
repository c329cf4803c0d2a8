"""Distributed rate limiting and queueing over Redis, native to asyncio."""

from ratelimit_async._acquire import Acquire
from ratelimit_async._config import QueueConfig, RateLimitConfig
from ratelimit_async._errors import (
    ConfigurationError,
    CostExceedsLimit,
    DurabilityUnknown,
    NotStarted,
    QueueFull,
    RateLimitError,
    RateLimitExceeded,
    RedisUnavailable,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
    Retry,
    RetryAfter,
    TaskFailed,
    UnknownRequest,
    WrongEventLoop,
)
from ratelimit_async._events import Event, log_event
from ratelimit_async._grants import Grant, Ticket
from ratelimit_async._headers import Upstream, UpstreamLimit
from ratelimit_async._limiter import RateLimiter
from ratelimit_async._limits import Limit
from ratelimit_async._options import RequestOptions
from ratelimit_async._tasks import Task
from ratelimit_async._tracing import Traced, Tracing
from ratelimit_async._values import (
    DeadLetter,
    Decision,
    Health,
    KeyInfo,
    LimitStatus,
    ProcessorStatus,
    QueueStatus,
    Status,
    TaskStatus,
    WaitingRequest,
)

__all__ = [
    "Acquire",
    "ConfigurationError",
    "CostExceedsLimit",
    "DeadLetter",
    "Decision",
    "DurabilityUnknown",
    "Event",
    "Grant",
    "Health",
    "KeyInfo",
    "Limit",
    "LimitStatus",
    "NotStarted",
    "ProcessorStatus",
    "QueueConfig",
    "QueueFull",
    "QueueStatus",
    "RateLimitConfig",
    "RateLimitError",
    "RateLimitExceeded",
    "RateLimiter",
    "RedisUnavailable",
    "RequestCancelled",
    "RequestDropped",
    "RequestOptions",
    "RequestTimeout",
    "Retry",
    "RetryAfter",
    "Status",
    "Task",
    "TaskFailed",
    "TaskStatus",
    "Ticket",
    "Traced",
    "Tracing",
    "UnknownRequest",
    "Upstream",
    "UpstreamLimit",
    "WaitingRequest",
    "WrongEventLoop",
    "log_event",
]
