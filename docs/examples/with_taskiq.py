"""Tasks of taskiq that share a limit.

taskiq worker with_taskiq:broker --max-async-tasks 50
python with_taskiq.py 12
"""

import asyncio
import os
import sys

from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from ratelimit_async import RateLimiter

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
limiter = RateLimiter(URL, limits={"crm": "5/second"})
broker = ListQueueBroker(URL).with_result_backend(RedisAsyncResultBackend(URL))


async def call_crm(contact: int) -> str:
    return f"contact {contact} is in sync"


@broker.task
async def sync_contact(contact: int) -> str:
    return await limiter.request("crm", call_crm, contact, timeout=30)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    await limiter.__aenter__()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(state: TaskiqState) -> None:
    await limiter.__aexit__(None, None, None)


async def main(contacts: int) -> None:
    await broker.startup()
    tasks = [await sync_contact.kiq(contact) for contact in range(contacts)]
    for task in tasks:
        print((await task.wait_result(timeout=60)).return_value)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
