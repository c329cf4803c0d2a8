"""The bench's own figures: that adapters count, what it refuses to report, and how it shows the rest."""

from __future__ import annotations

import asyncio
import itertools
import random
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from bench.comparison import Bench, Results, compare
from bench.contended import contention
from bench.open_loop import Arrivals
from bench.peers import BASE, CONTROL, OURS, PEERS, Peer, can, load, missing
from bench.plots import write_plots
from bench.tables import table
from bench.workloads import Measured, Row, Workload
from tests.helpers import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RedisServer

SECONDS = {"closed": 0.1, "open": 0.2, "wait": 2.5, "memory": 0.0}
KEYS = [(name, str(by)) for name in ("open", "shut") for by in range(3)]


def results(rows: list[Row]) -> Results:
    return Results(
        command="python -m bench",
        date="2000-01-01",
        machine=dict.fromkeys(("python", "redis", "cores", "placing", "system"), "?"),
        versions={},
        repetitions=2,
        seconds=SECONDS,
        rows=rows,
    )


def rows_of(workload: Workload, rates: dict[str, tuple[float, ...]]) -> list[Row]:
    return [
        Row(workload=workload, peer=peer, repetition=number, measured=Measured(rate=rate, p99=3, client=5, server=2))
        for peer, each in rates.items()
        for number, rate in enumerate(each)
    ]


# Peers come with the extra `bench`; without it only those that need nothing else are tried, here as there.
ABLE = [
    (name, limits)
    for name in PEERS
    for call in ("check", "endpoint")
    for limits in (1, 3)
    if not missing(name) and can(name, Workload(call=call, keys=3, denied=0.5, limits=limits))
]


def test_the_base_and_ours_are_tried_everywhere() -> None:
    assert {(BASE, 1), (OURS, 1), (OURS, 3)} <= set(ABLE)


@pytest.mark.real_redis
@pytest.mark.parametrize(("name", "limits"), ABLE)
async def test_every_adapter_allows_and_denies_as_asked_and_reads_back_what_redis_counted(
    name: str, limits: int, redis_url: str
) -> None:
    workload = Workload(keys=3, denied=0.5, limits=limits)
    peer = load(name)(redis_url, workload.policy, KEYS, 8)
    await peer.setup()
    try:
        opened = [await peer.check("open", str(number % 3)) for number in range(7)]
        shut = [await peer.check("shut", "1") for _ in range(2)]
        assert opened == [True] * 7
        # The app that nobody limits is there to be compared with.
        assert shut == [True, name == "FastAPI, no limiter"]
        assert await peer.counted("open") == 7
        if "acquire" in peer.calls:
            await peer.acquire("open", "2")
            assert await peer.counted("open") == 8
        if "task" in peer.calls:
            await peer.submit("shut", "1", "x")
            assert await peer.counted("shut") == 2
            await peer.task("open", "0", "x")
            assert await peer.counted("open") == 9
    finally:
        await peer.close()


@pytest.mark.real_redis
def test_client_processes_measure_every_kind_of_work_and_find_all_of_it_counted(own_server: RedisServer) -> None:
    bench = Bench(own_server, SECONDS)
    closed = bench.run(OURS, Workload(callers=4, keys=3, denied=0.5), 0)
    opened = bench.run(BASE, Workload(kind="open", rate=300, keys=3), 0)
    control = bench.run(CONTROL, Workload(kind="open", rate=300, keys=3), 0)
    waiters = bench.run(OURS, Workload(kind="memory", call="waiters", keys=1, requests=50), 0)
    waited = bench.run(OURS, Workload(kind="wait", call="acquire", callers=3, keys=1, rate=6, processes=2), 0)
    assert [row.problem for row in (closed, opened, control, waiters, waited)] == [""] * 5
    for row in (closed, opened, control):
        measured = row.measured
        assert measured is not None
        assert measured.counted == measured.allowed > 0
        assert min(measured.rate, measured.p50, measured.client, measured.memory) > 0
        assert (measured.script > 0) == (row is not control)
        assert measured.p50 <= measured.p99
    assert waiters.measured is not None
    assert waiters.measured.counted == 50
    assert waiters.measured.bytes_in_redis > 0
    assert waited.measured is not None
    assert waited.measured.contention is not None
    assert waited.measured.contention.grants >= 12
    # Who runs after the others' end, not beside them, is never served.
    assert waited.measured.contention.never == 0


@pytest.mark.real_redis
def test_a_client_that_fails_and_a_count_that_is_wrong_have_no_figures(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(own_server, SECONDS)
    failed = bench.run(BASE, Workload(call="acquire", keys=3), 0)
    assert failed.measured is None
    assert failed.problem == "NotImplementedError"
    monkeypatch.setattr("bench.comparison._run_clients", lambda _: (0.0, [Measured(rate=9, allowed=3, counted=2)]))
    wrong = bench.run(BASE, Workload(), 0)
    assert wrong.problem == "3 were allowed, but 2 counted in Redis"
    text = table(results([wrong]))
    assert "3 were allowed, but 2 counted in Redis (1 of 1)" in text


@pytest.mark.real_redis
def test_a_library_that_is_not_there_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "nothing", ("nowhere", "Nothing", "nothing"))
    monkeypatch.setattr("bench.comparison.WORKLOADS", {"closed": lambda **_: [Workload(callers=2, keys=3)]})
    (found,) = compare(["closed"], quick=True, repetitions=1, peers=["nothing", BASE], command="?")
    absent, base = found.rows
    assert absent.problem.startswith("not installed")
    assert not base.problem
    assert "not installed" in table(found)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Results) == found


def test_ratios_are_taken_within_each_repetition() -> None:
    text = table(results(rows_of(Workload(), {BASE: (100.0, 200.0), OURS: (400.0, 600.0)})))
    assert "500 (400-600)" in text
    assert "3.50 (3.00-4.00)" in text


def test_plots_are_written_for_what_was_measured(tmp_path: Path) -> None:
    rates = {BASE: (100.0, 200.0), OURS: (400.0, 600.0)}
    rows = rows_of(Workload(), rates) + rows_of(Workload(kind="open", rate=1000), rates)
    written = write_plots(results(rows), tmp_path)
    assert [path.name for path in written] == ["throughput.svg", "cpu.svg", "open_loop.svg"]
    for path in written:
        assert OURS in "".join(ET.parse(path).getroot().itertext())  # noqa: S314 - our own
    bars = ET.parse(tmp_path / "throughput.svg").iter("{http://www.w3.org/2000/svg}rect")  # noqa: S314
    heights = [float(bar.attrib["height"]) for bar in bars if bar.attrib.get("opacity")]
    assert heights == pytest.approx([heights[0], heights[0] * 3.5], rel=0.01)


def test_grants_are_counted_over_all_processes_and_those_never_served_are_seen() -> None:
    workload = Workload(kind="wait", call="acquire", callers=2, keys=1, rate=2, processes=2)
    one = Measured(scripts=2.0, client=10.0, grants=[(0, 0.0, 0.1), (0, 0.1, 1.4), (1, 0.0, 0.0)])
    other = Measured(scripts=4.0, client=20.0, grants=[(0, 0.0, 0.2), (1, 0.0, 1.3), (1, 1.3, 2.5)])
    found = contention(workload, 2.0, 0.0, [one, other])
    assert (found.grants, found.ideal, found.most, found.never) == (4, 4, 2, 1)
    assert found.longest == 2.0


class Slow(Peer):
    """A library that answers one call at a time, 100 per second."""

    async def setup(self) -> None:
        self.lock = asyncio.Lock()

    async def check(self, name: str, by: str) -> bool:  # noqa: ARG002 - one for all keys
        async with self.lock:
            await asyncio.sleep(0.01)
        return True

    async def close(self) -> None:
        pass


class Quick(Slow):
    """A library that answers at once."""

    async def check(self, name: str, by: str) -> bool:  # noqa: ARG002 - one for all keys
        return True


async def test_an_open_loop_whose_checks_are_answered_is_not_saturated(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock by which no machine stands still.
    ticks = itertools.count()
    monkeypatch.setattr("bench.open_loop.time", SimpleNamespace(perf_counter=lambda: next(ticks) / 10_000))
    arrivals = Arrivals(Quick("", {}, [], 0), iter([("open", "0")] * 10_000), 400, random.Random(1))
    await arrivals.run(1.0)
    assert not arrivals.saturated
    assert arrivals.allowed == len(arrivals.latencies) > 300


async def test_latency_of_an_open_loop_is_from_the_scheduled_arrival_and_saturation_is_seen() -> None:
    peer = Slow("", {}, [], 0)
    await peer.setup()
    arrivals = Arrivals(peer, iter([("open", "0")] * 10_000), 400, random.Random(1))
    seconds, answered = await arrivals.run(0.2)
    assert arrivals.saturated
    assert answered <= seconds * 100 + 1
    assert arrivals.allowed == len(arrivals.latencies)
    # The last one waited for all that arrived before it.
    assert max(arrivals.latencies) >= (len(arrivals.latencies) * 0.01 - seconds) * 0.9
    await eventually(lambda: not arrivals._tasks)
