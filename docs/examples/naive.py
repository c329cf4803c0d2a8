"""Ten calls at once, without a limiter."""

import asyncio
import os
import sys

import httpx

LLM = os.environ.get("LLM_URL", "http://127.0.0.1:8089")


async def ask(http: httpx.AsyncClient, prompt: str) -> int:
    response = await http.post(LLM, json={"prompt": prompt, "max_tokens": 200})
    return response.status_code


async def main(worker: str) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        statuses = await asyncio.gather(*(ask(http, f"question {i}") for i in range(10)))
    print(f"worker {worker}: {statuses.count(200)} answered, {statuses.count(429)} refused")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "1"))
