"""One call that somebody waits for."""

import asyncio
import time

import httpx
from quota import ask, limiter


async def main() -> None:
    async with limiter, httpx.AsyncClient(timeout=30) as http:
        queue = (await limiter.status("llm")).queue
        print(f"{queue.depth} wait; one more would wait about {queue.estimated_wait:.1f} s")
        started = time.monotonic()
        reply = await ask(http, "why?", "high")
        print(f"{reply['text']}, after {time.monotonic() - started:.1f} s")


asyncio.run(main())
