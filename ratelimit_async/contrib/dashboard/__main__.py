"""`python -m ratelimit_async.contrib.dashboard module:limiter`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from ratelimit_async import RateLimitError
from ratelimit_async._work import load_limiter
from ratelimit_async.contrib.dashboard._serve import TOKEN_VARIABLE, serve

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is told to stop; gives the process' exit code."""
    options = _parser().parse_args(argv)
    # Does nothing where the limiter's module has set up logging.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        limiter = load_limiter(options.limiter)
        asyncio.run(serve(limiter, host=options.host, port=options.port, read_only=not options.allow_actions))
    except RateLimitError as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ratelimit_async.contrib.dashboard",
        description="A web page of a limiter's limits and queues.",
        epilog=f"The token is that of the environment's {TOKEN_VARIABLE}; without one, a new one is made and printed.",
    )
    parser.add_argument("limiter", metavar="module:limiter", help="where the RateLimiter is, e.g. app.limits:limiter")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; default: for this machine only")
    parser.add_argument("--port", type=int, default=8765, help="default: 8765")
    parser.add_argument("--allow-actions", action="store_true", help="pause, resume, reset, requeue from the page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
