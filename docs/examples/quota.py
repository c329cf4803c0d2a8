"""What all processes share: the limiter, and the call that it limits."""

import os
from typing import Any

import httpx

from ratelimit_async import RateLimiter, RetryAfter

LLM = os.environ.get("LLM_URL", "http://127.0.0.1:8089")
MAX_TOKENS = 200

limiter = RateLimiter(
    os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
    limits={"llm": ["20 per 10 seconds from finish", "3000 tokens per 10 seconds from finish"]},
)


async def call(http: httpx.AsyncClient, prompt: str) -> dict[str, Any]:
    response = await http.post(LLM, json={"prompt": prompt, "max_tokens": MAX_TOKENS})
    if response.status_code == 429:  # should not happen; if it does, everybody stays away for as long
        raise RetryAfter(float(response.headers["Retry-After"]))
    response.raise_for_status()
    return response.json()


async def ask(http: httpx.AsyncClient, prompt: str, priority: str = "normal") -> dict[str, Any]:
    return await limiter.request(
        "llm",
        call,
        http,
        prompt,
        cost={"tokens": MAX_TOKENS},  # the most that it can take is reserved,
        settle=lambda reply: {"tokens": reply["tokens"]},  # and what it took is charged
        priority=priority,
        timeout=60,
    )
