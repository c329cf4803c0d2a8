"""Durable jobs: submitted here, kept in Redis, run by whichever process has them.

python jobs.py submit 5
ratelimit-async worker jobs:limiter
python jobs.py results 5
"""

import asyncio
import os
import sys

from ratelimit_async import RateLimiter

limiter = RateLimiter(
    os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
    limits={"mail": "10/second"},
    processor=__name__ != "__main__",  # who submits runs nothing; the worker imports this module
)


@limiter.task("welcome", max_attempts=3)
async def welcome(user: int, *, language: str = "en") -> str:
    """Send a mail; it may be run twice, so a real one would look whether it was sent already."""
    await asyncio.sleep(0.01)
    return f"welcomed {user} ({language})"


async def main(command: str, users: int) -> None:
    async with limiter:
        # the same id is the same job, however often it is submitted
        tickets = [await limiter.submit("mail", welcome, user, id=f"welcome-{user}") for user in range(users)]
        if command == "submit":
            print(f"submitted {len(tickets)}")
        else:
            for ticket in tickets:
                print(await ticket)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
