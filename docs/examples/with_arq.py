"""Jobs of arq that share a limit.

arq with_arq.WorkerSettings
python with_arq.py 12
"""

import asyncio
import os
import sys
from typing import Any

from arq import Retry, create_pool
from arq.connections import RedisSettings
from arq.jobs import Job, ResultNotFound

from ratelimit_async import RateLimiter, RequestTimeout

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
limiter = RateLimiter(URL, limits={"crm": "5/second"})


async def call_crm(contact: int) -> str:
    return f"contact {contact} is in sync"


async def sync_contact(ctx: dict[str, Any], contact: int) -> str:
    try:
        return await limiter.request("crm", call_crm, contact, timeout=30)
    except RequestTimeout:
        raise Retry(defer=60) from None  # the queue here is long: make room for other jobs


async def startup(ctx: dict[str, Any]) -> None:
    await limiter.__aenter__()


async def shutdown(ctx: dict[str, Any]) -> None:
    await limiter.__aexit__(None, None, None)


class WorkerSettings:
    functions = [sync_contact]
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 50  # jobs that wait for their turn count, too
    job_timeout = 60  # more than the time to wait and the time to call


async def result_of(job: Job) -> str:
    try:
        return await job.result(timeout=60)
    except ResultNotFound:
        return await job.result(timeout=60)  # arq looks for the result, then for the job, which may end in between


async def main(contacts: int) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    jobs = [await pool.enqueue_job("sync_contact", contact) for contact in range(contacts)]
    for job in jobs:
        if job is not None:
            print(await result_of(job))
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
