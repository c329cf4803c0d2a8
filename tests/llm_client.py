"""A process that asks the stand-in of tests/llm.py by what a page of the docs defines, as fast as it may."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from ratelimit_async import Event, RateLimiter
from ratelimit_async._events import Paused, Settled

DOCS = Path(__file__).parent.parent / "docs"


def definitions_of(page: str) -> dict[str, Any]:
    """Run the blocks of a page that define, without the last, which calls."""
    names: dict[str, Any] = {"__name__": page}
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)[:-1]:
        exec(compile(block, page, "exec"), names)  # noqa: S102 - our own pages
    return names


async def ask_on(url: str, page: str, limits: dict[str, list[str]], seconds: float) -> dict[str, Any]:
    """Let 15 callers ask, streaming and not by turns, for so long; what they got and what was settled."""
    names = definitions_of(page)
    told: dict[str, Any] = {"answers": 0, "refused": 0, "settled": 0, "pauses": 0}

    def see(event: Event) -> None:
        if isinstance(event, Settled):
            told["settled"] += event.cost.get("tokens", event.cost.get("output_tokens", 0))
        told["pauses"] += isinstance(event, Paused)

    async with RateLimiter(url, limits=limits, hooks=[see]) as limiter, names["client_of"](limiter) as client:

        async def caller(number: int) -> None:
            ask = names["ask"] if number % 2 else names["ask_streaming"]
            while time.time() < end:
                try:
                    assert await ask(client, "why? " * 8)
                    told["answers"] += 1
                except httpx.HTTPStatusError as error:
                    assert error.response.status_code == 429
                    told["refused"] += 1

        # All begin at once, however long it took them to get ready.
        print(flush=True)
        end = float(await asyncio.to_thread(sys.stdin.readline)) + seconds
        await asyncio.sleep(max(end - seconds - time.time(), 0))
        await asyncio.gather(*(caller(number) for number in range(15)))
    return told


def main(url: str, page: str, limits: str, seconds: str) -> None:
    """Say when it is ready, read when to begin, and print what came of it."""
    print(json.dumps(asyncio.run(ask_on(url, page, json.loads(limits), float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
