"""A web page that shows a limiter's limits and queues live, and, where allowed, pauses, resumes and resets them."""

from importlib import import_module

try:
    import_module("starlette")
except ImportError as error:
    message = 'ratelimit_async.contrib.dashboard needs starlette: pip install "ratelimit-async[dashboard]"'
    raise ImportError(message) from error

from ratelimit_async.contrib.dashboard._app import dashboard
from ratelimit_async.contrib.dashboard._serve import serve

__all__ = ["dashboard", "serve"]
