"""Makes the picture of docs/dashboard.md: `python -m tests.screenshot docs/images/dashboard.png`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys

from ratelimit_async import RateLimiter, RateLimitError
from tests.browser import Chromium
from tests.servers import RedisServer
from tests.test_dashboard_page import served

LIMITS = {
    "crm": "5/minute",
    "geocoder": "1000/day fixed_window",
    "mail": "20/minute",
    "openai": ["60/minute", "30000 tokens/minute", "8 concurrent"],
    "payments": "300/minute",
}
SECONDS = 110


async def use(limiter: RateLimiter) -> None:
    """Use the limits as an application might, for ever."""
    async with asyncio.TaskGroup() as group:
        while True:
            for _ in range(random.randrange(3)):
                tokens, level = random.randrange(100, 900), random.choice(["high", "normal", "low"])
                group.create_task(ask(limiter, tokens, level))
            for _ in range(random.randrange(1, 5)):
                await limiter.hit("payments", by=random.choice(["acme", "globex"]))
            await limiter.hit("geocoder", cost=random.randrange(1, 4))
            if random.random() < 0.07:
                await limiter.hit("mail")
            await asyncio.sleep(0.25)


async def ask(limiter: RateLimiter, tokens: int, level: str) -> None:
    with contextlib.suppress(RateLimitError):
        seconds = random.uniform(0.2, 2.5)
        await limiter.request("openai", asyncio.sleep, seconds, cost={"tokens": tokens}, priority=level, timeout=45)


async def main(path: str) -> None:
    with RedisServer() as server, Chromium() as chromium:
        limiter = RateLimiter(server.url, limits=LIMITS, hooks=[])

        @limiter.task("send_mail", max_attempts=1)
        async def send_mail(address: str) -> None:
            raise ConnectionError(f"550 mailbox {address} unavailable")

        async with limiter, served(limiter, authorize=lambda _: True, interval=1.0) as address:
            for name in ("ann", "bob"):
                await limiter.submit("mail", send_mail, f"{name}@example.org")
            await limiter.pause("crm")
            using = asyncio.create_task(use(limiter))
            async with chromium.page(1280, 860) as page:
                await page.goto(address)
                await asyncio.sleep(SECONDS)
                await page.screenshot(path)
            using.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
