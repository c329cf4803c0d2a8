"""Errors: one root, pickles, and texts that name what is wrong."""

import pickle

import pytest

from ratelimit_async import (
    ConfigurationError,
    CostExceedsLimit,
    Decision,
    Limit,
    NotStarted,
    QueueFull,
    RateLimitError,
    RateLimitExceeded,
    RedisUnavailable,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
    UnknownRequest,
    WrongEventLoop,
)

DENIED = Decision(
    allowed=False,
    reason="limit",
    limit=Limit.per_second(3),
    remaining=0,
    retry_after=0.25,
    reset_after=1.0,
)
ERRORS = [
    (ConfigurationError("timeout", -1, "must be seconds"), "timeout: must be seconds (got -1)"),
    (RateLimitExceeded(DENIED), "rate limit '3/second' denied this call (limit); retry after 0.250 s"),
    (RequestTimeout("openai", 3.0), "request for 'openai' was not granted within 3.0 s"),
    (CostExceedsLimit(9, "tokens", "5 tokens/minute"), "9 tokens can never pass the limit '5 tokens/minute'"),
    (QueueFull("mail", 10), "the queue of 'mail' is full (10 requests wait)"),
    (RequestDropped("overflow"), "dropped: overflow"),
    (RequestCancelled("shutdown"), "cancelled: shutdown"),
    (UnknownRequest("a::b.1"), "no request 'a::b.1' waits here"),
    (RedisUnavailable("localhost:1", "refused"), "Redis at localhost:1: refused"),
    (RedisUnavailable("localhost:1", "gone", outage=True), "Redis at localhost:1: gone"),
    (NotStarted(), "async with limiter"),
    (WrongEventLoop(), "another event loop"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_every_error_names_what_is_wrong_and_survives_pickling(error: RateLimitError, text: str) -> None:
    assert isinstance(error, RateLimitError)
    assert text in str(error)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", [RequestTimeout("openai", 3.0, 4.0), RedisUnavailable("localhost:1", "refused")])
def test_errors_that_are_those_of_the_system_too_carry_no_number_of_it(error: OSError) -> None:
    assert (error.errno, error.strerror) == (None, None)


def test_a_long_value_is_shortened() -> None:
    assert len(str(ConfigurationError("name", "x" * 1000, "is too long"))) < 200


def test_a_value_that_cannot_be_written_does_not_hide_the_error() -> None:
    assert "amount: is too much (got <int>)" in str(ConfigurationError("amount", 10**5000, "is too much"))


def test_errors_are_also_the_builtin_ones_that_callers_may_expect() -> None:
    assert issubclass(RequestTimeout, TimeoutError)
    assert issubclass(RedisUnavailable, ConnectionError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(UnknownRequest, LookupError)
