"""The programs in docs/examples do what the pages say."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

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


def start(*command: str, merged: bool = False, **environment: str) -> Process:
    path = os.pathsep.join([str(PACKAGE), str(EXAMPLES)])
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
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


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1])


def test_without_a_limiter_half_of_the_calls_are_refused() -> None:
    with stand_in() as llm:
        processes = [start("naive.py", str(i), LLM_URL=llm) for i in range(4)]
        # Fewer than 20 pass where their tokens are used up first.
        assert sum(number(r"(\d+) refused", output(process)) for process in processes) >= 20
        assert told(llm)["answered"] <= 20


@pytest.mark.slow
def test_four_processes_share_the_quota_and_a_question_goes_before_the_calls_that_wait(redis_url: str) -> None:
    with stand_in() as llm:
        environment = {"LLM_URL": llm, "REDIS_URL": redis_url}
        workers = [start("worker.py", str(i), **environment) for i in range(4)]
        while told(llm)["answered"] < 15:
            time.sleep(0.05)
        # 20 pass at once; of 21 that wait, one is too many for the next ten seconds.
        question = run("question.py", **environment)
        assert re.search(r"(\d+) wait", question)
        assert "about 'why?'" in question
        assert any(worker.poll() is None for worker in workers)
        lines = [output(worker) for worker in workers]
        assert [number(r"worker (\d): 10 answered", line) for line in lines] == [0, 1, 2, 3]
        assert told(llm) == {"answered": 41, "refused": 0}


def test_hosts_are_crawled_politely(redis_url: str) -> None:
    lines = run("crawler.py", REDIS_URL=redis_url).splitlines()
    seen = [match.groups() for match in map(re.compile(r" *([\d.]+) s  (\S+) page \d").match, lines) if match]
    assert Counter(host for _, host in seen) == {"a.example": 4, "b.example": 4, "slow.example": 4}
    slow = [float(second) for second, host in seen if host == "slow.example"]
    assert all(later - earlier >= 0.8 for earlier, later in itertools.pairwise(slow))


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


@pytest.mark.parametrize(
    ("library", "program", "worker", "ready"),
    [
        ("arq", "with_arq.py", ["arq", "with_arq.WorkerSettings"], "Starting worker"),
        ("saq", "with_saq.py", ["saq", "with_saq.settings", "--verbose"], "Worker starting"),
        ("taskiq", "with_taskiq.py", ["taskiq", "worker", "with_taskiq:broker", "--workers", "2"], "Listening"),
    ],
)
def test_jobs_of_other_queues_share_a_limit(
    library: str, program: str, worker: list[str], ready: str, redis_url: str
) -> None:
    pytest.importorskip(library)
    process = start("-m", *worker, REDIS_URL=redis_url, merged=True)
    assert process.stdout is not None
    try:
        # SAQ gives up what it finds begun when it starts.
        for line in process.stdout:
            if ready in line:
                break
        began = time.monotonic()
        results = run(program, "12", REDIS_URL=redis_url).splitlines()
        assert results == [f"contact {i} is in sync" for i in range(12)]
        # At 5 a second, the last two go after two seconds.
        assert time.monotonic() - began >= 2
    finally:
        process.terminate()
        process.communicate()


PAGES = sorted((ROOT / "docs").glob("*.md"))
EXCERPT = re.compile(r'^```\w+ title="(examples/[\w.]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)


def test_what_pages_show_of_the_examples_is_in_them() -> None:
    shown = [(page.name, name, text) for page in PAGES for name, text in EXCERPT.findall(page.read_text())]
    assert len(shown) > 5
    stale = [(page, name) for page, name, text in shown if text not in (ROOT / "docs" / name).read_text()]
    assert stale == []


def test_code_of_pages_is_run_either_as_a_block_or_as_an_example() -> None:
    fences = re.compile(r"^```(\w*)([^\n]*)\n.*?^```", re.DOTALL | re.MULTILINE)
    found = [(page.name, *fence) for page in PAGES for fence in fences.findall(page.read_text())]
    # `py` is for excerpts, and for what needs a package of an upstream, which tests/test_docs.py runs.
    bare = {page for page, language, title in found if language.startswith("py") and language != "python" and not title}
    assert bare == {"openai.md", "anthropic.md"}
    assert {language for _, language, _ in found} <= {"python", "py", "sh", "text", "toml", "yaml", "js", "nginx"}


def test_no_example_is_left_out() -> None:
    here = Path(__file__).read_text()
    modules = {"quota.py"}  # which the others import
    assert {path.name for path in EXAMPLES.glob("*.py")} - modules == set(re.findall(r'"(\w+\.py)"', here)) - modules
