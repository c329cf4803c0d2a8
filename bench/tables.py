"""The results as text: medians of the repetitions, the lowest and highest, and the ratio within each repetition."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

from bench.peers import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.comparison import Results
    from bench.workloads import Contention, Measured, Row, Workload


class Spread(NamedTuple):
    """A figure of several repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Sum up values."""
        return cls(statistics.median(values), min(values), max(values))


class Summary(NamedTuple):
    """One peer at one workload; `problems`: what hindered how many of its repetitions."""

    rows: list[Row]
    ratio: Spread | None
    problems: dict[str, int]

    def __bool__(self) -> bool:
        """Whether there are any figures."""
        return bool(self.rows)

    def of(self, figure: Callable[[Measured], float]) -> Spread:
        """Sum up one figure."""
        return Spread.of([figure(row.measured) for row in self.rows if row.measured is not None])


def summaries(results: Results) -> dict[Workload, dict[str, Summary]]:
    """Sum up each peer at each workload; what did not really count has no figures."""
    found: dict[Workload, dict[str, list[Row]]] = {}
    for row in results.rows:
        found.setdefault(row.workload, {}).setdefault(row.peer, []).append(row)
    return {
        workload: {peer: _summary(rows, peers.get(BASE, [])) for peer, rows in peers.items()}
        for workload, peers in found.items()
    }


def _summary(rows: list[Row], base: list[Row]) -> Summary:
    good = [row for row in rows if row.measured is not None and not row.problem]
    rates = {row.repetition: row.measured.rate for row in base if row.measured is not None and not row.problem}
    ratios = [
        row.measured.rate / rates[row.repetition]
        for row in good
        if row.measured is not None and rates.get(row.repetition)
    ]
    problems: dict[str, int] = {}
    for row in rows:
        if row.problem:
            problems[row.problem] = problems.get(row.problem, 0) + 1
    return Summary(good, Spread.of(ratios) if ratios else None, problems)


def table(results: Results) -> str:
    """Write everything down."""
    machine = results.machine
    head = [
        results.command,
        f"{results.date}, {results.repetitions} interleaved repetitions, {machine['placing']}",
        ", ".join(f"{name} {machine[name]}" for name in ("python", "redis", "cores", "system")),
        ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        "Medians (lowest-highest); CPU and scripts per call; all that was allowed was counted in Redis afterwards.",
    ]
    return "\n".join([*head, *(line for one in summaries(results).items() for line in _table(*one))])


def _table(workload: Workload, peers: dict[str, Summary]) -> Iterator[str]:
    columns = {"closed": CLOSED, "open": OPEN, "wait": WAIT, "memory": MEMORY}[workload.kind]
    yield ""
    yield workload.label
    yield f"  {'':29}" + "".join(f"{title:>{width}}" for title, width, _ in columns)
    for peer, summary in peers.items():
        notes = [f"{problem} ({count} of {count + len(summary.rows)})" for problem, count in summary.problems.items()]
        cells = (
            "".join(f"{show(summary):>{width}}" for _, width, show in columns) if summary else "  " + "; ".join(notes)
        )
        yield f"  {peer:29}{cells}"
        if summary:
            yield from (f"    {note}" for note in notes)


def _rate(summary: Summary) -> str:
    rate = summary.of(lambda one: one.rate)
    return f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})"


def _ratio(summary: Summary) -> str:
    ratio = summary.ratio
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _plain(figure: Callable[[Measured], float], digits: int) -> Callable[[Summary], str]:
    return lambda summary: f"{summary.of(figure).median:,.{digits}f}"


def _spread(figure: Callable[[Measured], float], digits: int) -> Callable[[Summary], str]:
    def show(summary: Summary) -> str:
        spread = summary.of(figure)
        return f"{spread.median:,.{digits}f} ({spread.low:,.{digits}f}-{spread.high:,.{digits}f})"

    return show


def _of_contention(figure: Callable[[Contention], float]) -> Callable[[Measured], float]:
    return lambda one: 0.0 if one.contention is None else figure(one.contention)


def _saturated(summary: Summary) -> str:
    count = sum(row.measured is not None and row.measured.saturated for row in summary.rows)
    return f"{count} of {len(summary.rows)}" if count else "no"


Columns = tuple[tuple[str, int, "Callable[[Summary], str]"], ...]
SHARED: Columns = (
    ("p50 ms", 10, _plain(lambda one: one.p50, 2)),
    ("p99 ms (low-high)", 29, _spread(lambda one: one.p99, 2)),
    ("server us", 11, _plain(lambda one: one.server, 1)),
    ("in Lua", 8, _plain(lambda one: one.script, 1)),
    ("scripts", 9, _plain(lambda one: one.scripts, 2)),
    ("MiB", 6, _plain(lambda one: one.memory, 0)),
)
CLOSED: Columns = (
    ("calls/s", 27, _rate),
    (f"x {BASE}", 20, _ratio),
    ("client us", 11, _plain(lambda one: one.client, 1)),
    *SHARED,
)
# Its client turns all the time: its CPU says nothing.
OPEN: Columns = (("calls/s", 27, _rate), ("saturated", 11, _saturated), *SHARED)
WAIT: Columns = (
    ("grants", 20, _spread(_of_contention(lambda one: one.grants), 0)),
    ("ideal", 7, _plain(_of_contention(lambda one: one.ideal), 0)),
    ("most in 1 s", 13, _plain(_of_contention(lambda one: one.most), 0)),
    ("scripts/grant", 15, _plain(_of_contention(lambda one: one.scripts), 2)),
    ("longest wait s", 16, _plain(_of_contention(lambda one: one.longest), 2)),
    ("never served", 14, _plain(_of_contention(lambda one: one.never), 0)),
    ("client us/grant", 17, _plain(_of_contention(lambda one: one.client), 0)),
)
MEMORY: Columns = (
    ("bytes in Redis each", 21, _plain(lambda one: one.bytes_in_redis, 1)),
    ("MB per 10,000", 15, _plain(lambda one: one.bytes_in_redis / 100, 3)),
    ("bytes in client per waiter", 28, _plain(lambda one: one.bytes_in_client, 0)),
    ("keys without expiry", 21, _plain(lambda one: one.for_ever, 0)),
)
