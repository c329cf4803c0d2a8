"""What the pages about LLM APIs define, in several processes against a server that enforces its limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from tests.llm import Counted, LlmServer, Quota

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
QUOTA = Quota(requests=100, tokens=4000, period=1.0)
OPENAI = ["{requests}/second burst {requests} from finish", "{tokens} tokens/second burst {tokens} from finish"]
ANTHROPIC = [
    "{requests}/second burst {requests} from finish",
    "{tokens} input_tokens/second burst {tokens} from finish",
    "{tokens} output_tokens/second burst {tokens} from finish",
]
APIS = {"openai": OPENAI, "anthropic": ANTHROPIC}


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer(QUOTA) as server:
        yield server


class Run(NamedTuple):
    """What the clients saw, added up, and what the server counted; `share`: of the tokens that it would have given."""

    answers: int
    refused: int
    settled: int
    pauses: int
    counted: Counted
    share: float


def _answers_of(clients: list[subprocess.Popen[str]], begin: str) -> list[str]:
    """Tell all when to begin, then hear all."""
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(begin)
        client.stdin.flush()
    return [client.communicate()[0] for client in clients]


def run(redis_url: str, server: LlmServer, api: str, *, factor: int = 1, seconds: float = 4.0) -> Run:
    """Ask from 4 processes, with limits that are the server's times a factor."""
    limits = {api: [text.format(requests=factor * QUOTA.requests, tokens=factor * QUOTA.tokens) for text in APIS[api]]}
    places = {"OPENAI_BASE_URL": f"{server.url}/v1", "ANTHROPIC_BASE_URL": server.url}
    environ = os.environ | places | {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
    arguments = [redis_url, f"{api}.md", json.dumps(limits), str(seconds)]
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.llm_client", *arguments],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for client in clients:
        assert client.stdout is not None
        client.stdout.readline()
    begin = f"{time.time() + 0.5}\n"
    told = [json.loads(answer) for answer in _answers_of(clients, begin)]
    answers, refused, settled, pauses = (
        sum(one[what] for one in told) for what in ("answers", "refused", "settled", "pauses")
    )
    counted = server.counted("k")
    could = QUOTA.tokens * (1 + (counted.last - counted.first) / QUOTA.period)
    return Run(answers, refused, settled, pauses, counted, counted.used / could)


def test_the_stand_in_enforces_both_limits(server: LlmServer) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    for api, path, header in (("o", "/v1/chat/completions", "authorization"), ("a", "/v1/messages", "x-api-key")):
        with httpx.Client(base_url=server.url) as client:
            big = client.post(path, json=body | {"max_tokens": 10_000}, headers={header: f"{api}-big"})
            # One counts what a call may use, the other only what it did.
            assert big.status_code == (429 if api == "o" else 200)
            prompt = [{"role": "user", "content": "x" * 20_000}]
            assert client.post(path, json=body | {"messages": prompt}, headers={header: "b"}).status_code == 429
            many = [client.post(path, json=body, headers={header: f"{api}-many"}) for _ in range(3)]
            assert {answer.status_code for answer in many} == {200}


def test_the_stand_in_says_when_to_come_back() -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    with LlmServer(Quota(requests=2, tokens=100, period=60.0)) as server, httpx.Client(base_url=server.url) as client:
        answers = [client.post("/v1/messages", json=body, headers={"x-api-key": "k"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= float(answers[-1].headers["retry-after"]) <= 31


@pytest.mark.real_redis
@pytest.mark.slow
@pytest.mark.parametrize("api", APIS)
def test_four_processes_use_the_tokens_there_are_and_are_never_rejected(
    redis_url: str, server: LlmServer, api: str
) -> None:
    result = run(redis_url, server, api)
    assert (result.refused, result.counted.rejected, result.pauses) == (0, 0, 0)
    assert result.answers == result.counted.served
    # Every token, streamed or not, is settled as the server counted it.
    assert result.settled == result.counted.used
    # A busy machine may be slower than the quota, but nothing may be faster.
    assert 0 < result.share <= 1.1


@pytest.mark.real_redis
@pytest.mark.slow
@pytest.mark.parametrize("api", APIS)
def test_limits_that_are_too_high_cost_rejections_and_hardly_an_answer(
    redis_url: str, server: LlmServer, api: str
) -> None:
    result = run(redis_url, server, api, factor=2)
    assert 0 < result.counted.rejected < result.counted.served
    # One is given up that was rejected as often as it may be sent again.
    assert result.refused <= result.answers // 20
    assert result.answers == result.counted.served
