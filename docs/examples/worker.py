"""Ten calls at once, each in its turn."""

import asyncio
import sys
import time

import httpx
from quota import ask, limiter


async def main(worker: str) -> None:
    started = time.monotonic()
    async with limiter, httpx.AsyncClient(timeout=30) as http:
        replies = await asyncio.gather(*(ask(http, f"question {i}", "low") for i in range(10)))
    tokens = sum(reply["tokens"] for reply in replies)
    print(f"worker {worker}: {len(replies)} answered, {tokens} tokens, {time.monotonic() - started:.1f} s")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "1"))
