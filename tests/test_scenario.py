"""Real processes that wait for one key: the scenario of `python -m bench waiting`, smaller."""

import os
from pathlib import Path

import pytest

from bench.waiting import run_waiting
from tests.servers import RedisServer


@pytest.mark.real_redis
@pytest.mark.slow
def test_processes_share_a_quota_in_order_with_few_calls(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", root + os.pathsep + os.environ.get("PYTHONPATH", ""))
    result = run_waiting(own_server.url, processes=3, waiters=20, rate=40, seconds=4)
    assert result.most_in_any_window <= 40
    assert result.out_of_order == 0
    assert result.grants >= 0.9 * result.ideal
    assert result.script_calls_per_grant <= 1.5
