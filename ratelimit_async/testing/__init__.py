"""For tests of what uses this library: the embedded server, a clock to advance; fixtures are in `testing.plugin`."""

from ratelimit_async.testing._calls import assert_within_limit
from ratelimit_async.testing._clock import Clock
from ratelimit_async.testing._memory import on_memory, unlimited

__all__ = ["Clock", "assert_within_limit", "on_memory", "unlimited"]
