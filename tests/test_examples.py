"""The programs in docs/examples do what the pages say."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ratelimit_async
from tests.servers import die_with_parent, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PACKAGE = Path(ratelimit_async.__file__).parent.parent
pytestmark = pytest.mark.real_redis
Process = subprocess.Popen[str]


def start(*command: str, **environment: str) -> Process:
    path = os.pathsep.join([str(PACKAGE), str(EXAMPLES)])
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )


def output(process: Process) -> str:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


def run(*command: str, **environment: str) -> str:
    return output(start(*command, **environment))


@contextlib.contextmanager
def stand_in() -> Iterator[str]:
    process = start("llm.py", str(free_port()))
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()


def told(llm: str) -> dict[str, int]:
    import httpx

    found: dict[str, int] = httpx.get(llm).json()
    return found


def test_without_a_limiter_half_of_the_calls_are_refused() -> None:
    with stand_in() as llm:
        processes = [start("naive.py", str(i), LLM_URL=llm) for i in range(4)]
        assert sum(int(re.search(r"(\d+) refused", output(one))[1]) for one in processes) >= 20  # type: ignore[index]
        # Fewer than 20 pass where their tokens were used up first.
        assert told(llm)["answered"] <= 20


@pytest.mark.slow
def test_four_processes_share_the_quota_and_none_of_their_calls_is_refused(redis_url: str) -> None:
    with stand_in() as llm:
        environment: dict[str, Any] = {"LLM_URL": llm, "REDIS_URL": redis_url}
        workers = [start("worker.py", str(i), **environment) for i in range(4)]
        # By now the quota is used up, and the rest waits.
        lines = [output(one) for one in workers]
        assert [re.match(r"worker (\d): 10 answered", line)[1] for line in lines] == ["0", "1", "2", "3"]  # type: ignore[index]
        assert told(llm) == {"answered": 40, "refused": 0}


@pytest.mark.slow
def test_a_question_goes_before_the_calls_that_wait(redis_url: str) -> None:
    with stand_in() as llm:
        environment: dict[str, Any] = {"LLM_URL": llm, "REDIS_URL": redis_url}
        # 20 pass at once and 20 wait; those 20 and the question would be one too many for the next ten seconds.
        workers = [start("worker.py", str(i), **environment) for i in range(4)]
        while told(llm)["answered"] < 15:
            pass
        assert "about 'why?'" in run("question.py", **environment)
        still = [one for one in workers if one.poll() is None]
        assert still
        for one in workers:
            output(one)
        assert told(llm)["refused"] == 0


def test_hosts_are_crawled_politely(redis_url: str) -> None:
    seen: dict[str, list[float]] = {}
    for line in run("crawler.py", REDIS_URL=redis_url).splitlines():
        second, host = re.match(r" *([\d.]+) s  (\S+) page \d", line).groups()  # type: ignore[union-attr]
        seen.setdefault(host, []).append(float(second))
    assert {host: len(pages) for host, pages in seen.items()} == {"a.example": 4, "b.example": 4, "slow.example": 4}
    assert all(later - earlier >= 0.8 for earlier, later in zip(seen["slow.example"], seen["slow.example"][1:]))  # noqa: B905, RUF007


def test_customers_have_limits_of_their_own(redis_url: str) -> None:
    expected = ["acme 20", "trial-7 1", "somebody 2", "trial-7, with 5 an hour: 4 more"]
    for _ in range(2):
        assert run("tenants.py", REDIS_URL=redis_url).splitlines() == expected


def test_jobs_outlive_who_submits_them(redis_url: str) -> None:
    assert "submitted 5" in run("jobs.py", "submit", "5", REDIS_URL=redis_url)
    worker = start("-m", "ratelimit_async", "worker", "jobs:limiter", REDIS_URL=redis_url)
    try:
        results = run("jobs.py", "results", "5", REDIS_URL=redis_url)
        assert [line for line in results.splitlines() if "welcomed" in line] == [f"welcomed {i} (en)" for i in range(5)]
    finally:
        worker.terminate()
        worker.communicate()
    assert worker.returncode == 0


def test_no_example_is_left_out() -> None:
    here = Path(__file__).read_text()
    modules = {"quota.py"}  # which the others import
    assert {path.name for path in EXAMPLES.glob("*.py")} - modules == set(re.findall(r'"(\w+\.py)"', here)) - modules
