"""Jobs of SAQ that share a limit.

saq with_saq.settings
python with_saq.py 12
"""

import asyncio
import os
import sys
from typing import Any

from saq import Queue

from ratelimit_async import RateLimiter

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
limiter = RateLimiter(URL, limits={"crm": "5/second"})
queue = Queue.from_url(URL)


async def call_crm(contact: int) -> str:
    return f"contact {contact} is in sync"


async def sync_contact(ctx: dict[str, Any], *, contact: int) -> str:
    return await limiter.request("crm", call_crm, contact, timeout=30)


async def startup(ctx: dict[str, Any]) -> None:
    await limiter.__aenter__()


async def shutdown(ctx: dict[str, Any]) -> None:
    await limiter.__aexit__(None, None, None)


settings = {
    "queue": queue,
    "functions": [sync_contact],
    "startup": startup,
    "shutdown": shutdown,
    "concurrency": 50,  # jobs that wait for their turn count, too
}


async def main(contacts: int) -> None:
    await queue.connect()
    # SAQ ends a job after 10 s unless said; let that be more than the time to wait and the time to call.
    jobs = [{"contact": contact} for contact in range(contacts)]
    for result in await queue.map("sync_contact", jobs, timeout=60, retries=3, retry_delay=1.0):
        print(result)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
