"""The results as plots: plain SVG, which needs nothing installed and differs only where figures do."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from bench.peers import BASE, OURS, PEERS
from bench.tables import summaries
from bench.workloads import Workload

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.comparison import Results
    from bench.tables import Spread, Summary

WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 60, 105
COLOURS = (
    "#c8ccd0",
    "#9aa0a6",
    "#e8a33d",
    "#5b8def",
    "#8fb3f5",
    "#3aa387",
    "#86c9b5",
    "#b07cc6",
    "#d63f3f",
    "#e98787",
    "#f3b8b8",
)
# Web apps are in no plot.
COLOUR = dict(zip((peer for peer, (module, *_) in PEERS.items() if module != "apps"), COLOURS, strict=True))
STYLE = "text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:15px;font-weight:600}.s{font-size:11px;fill:#777}"
# p99s that a plot tells apart, ms.
LEAST, MOST = 0.1, 10_000.0


class Bar(NamedTuple):
    """One bar of a group."""

    peer: str
    height: float
    low: float
    high: float
    lower: float = 0.0


def write_plots(results: Results, directory: Path) -> list[Path]:
    """Write those plots for which there are figures."""
    found = summaries(results)
    directory.mkdir(parents=True, exist_ok=True)
    note = [
        f"medians and range of {results.repetitions} interleaved repetitions, {results.date}, "
        + ", ".join(f"{name} {results.machine[name]}" for name in ("python", "redis", "cores")),
        *textwrap.wrap(results.command, 130),
    ]
    plots = {
        "throughput": _throughput(found, note),
        "cpu": _cpu(found, note),
        "open_loop": _open_loop(found, one_key=False, note=note),
        "open_loop_one_key": _open_loop(found, one_key=True, note=note),
    }
    written = []
    for name, plot in plots.items():
        if plot:
            path = directory / f"{name}.svg"
            path.write_text(plot, encoding="utf-8")
            written.append(path)
    return written


def _throughput(found: dict[Workload, dict[str, Summary]], note: list[str]) -> str:
    """Ratios to raw redis-py, by callers."""
    groups = {}
    for workload, peers in found.items():
        if workload == Workload(callers=workload.callers, keys=workload.keys) and workload.keys > 1:
            ratios = [(peer, one.ratio) for peer, one in peers.items() if one.ratio is not None]
            plural = "s" if workload.callers > 1 else ""
            keys = f", {workload.keys:,} keys" if workload.keys > Workload().keys else ""
            groups[f"{workload.callers} caller{plural}{keys}"] = [Bar(peer, *ratio) for peer, ratio in ratios]
    title = f"Checks per second, as a multiple of raw {BASE}'s; closed loop, many keys"
    return _bars(title, groups, note)


def _cpu(found: dict[Workload, dict[str, Summary]], note: list[str]) -> str:
    """CPU per check, on both sides."""
    peers = found.get(Workload(), {})
    groups = {}
    for peer, one in peers.items():
        if one:
            client, server = one.of(lambda each: each.client), one.of(lambda each: each.server)
            whole = client.median + server.median
            groups[peer] = [Bar(peer, whole, whole, whole, lower=client.median)]
    return _bars(
        "CPU per check, us: client (full), and Redis on top of it (pale); 64 callers, 1,000 keys", groups, note
    )


def _bars(title: str, groups: dict[str, list[Bar]], note: list[str]) -> str:
    if not any(groups.values()):
        return ""
    top = _round_up(max(bar.high for bars in groups.values() for bar in bars))
    parts = [_text(LEFT, 28, title, "t")]
    parts += _level_lines(((step / 5 * top, _number(step / 5 * top)) for step in range(6)), lambda value: value / top)
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    for number, (group, bars) in enumerate(groups.items()):
        wide = min(room * 0.84 / max(len(bars), 1), 60.0)
        begin = LEFT + room * number + (room - wide * len(bars)) / 2
        alone = len(bars) == 1 and bars[0].peer == group
        parts.append(_label(LEFT + room * (number + 0.5), group, slanted=alone))
        for place, bar in enumerate(bars):
            x, colour = begin + wide * place, COLOUR[bar.peer]
            pale = 0.45 if bar.lower else 1
            parts.append(_rectangle(x + 1, _y(bar.height / top), wide - 2, bar.height / top, colour, pale))
            if bar.lower:
                parts.append(_rectangle(x + 1, _y(bar.lower / top), wide - 2, bar.lower / top, colour, 1))
            if bar.high > bar.low:
                parts.append(_line(x + wide / 2, _y(bar.low / top), x + wide / 2, _y(bar.high / top), "#333", 1.2))
    named = not all(bars and bars[0].peer == group for group, bars in groups.items())
    if named:
        parts += _legend(dict.fromkeys(bar.peer for bars in groups.values() for bar in bars))
    return _svg(parts, note)


def _open_loop(found: dict[Workload, dict[str, Summary]], *, one_key: bool, note: list[str]) -> str:
    """p99 against the offered rate, both in powers; hollow where the client did not keep up."""
    lines: dict[str, list[tuple[int, Spread, bool]]] = {}
    workloads = [one for one in found if one.kind == "open" and (one.keys == 1) == one_key]
    for workload in workloads:
        rate = workload.rate
        for peer, one in found[workload].items():
            if one:
                saturated = sum(row.measured is not None and row.measured.saturated for row in one.rows)
                point = (rate, one.of(lambda each: each.p99), saturated * 2 > len(one.rows))
                lines.setdefault(peer, []).append(point)
    if not lines:
        return ""
    keys = "one key" if one_key else f"{workloads[0].keys:,} keys"
    title = f"p99 from the scheduled arrival, ms, by arrivals per second; {keys}; hollow: saturated"
    rates = sorted(workload.rate for workload in workloads)
    parts = [_text(LEFT, 28, title, "t")]
    powers = range(round(math.log10(LEAST)), round(math.log10(MOST)) + 1)
    parts += _level_lines(((10.0**power, f"{10.0**power:g}") for power in powers), _share_of)
    wide = (WIDTH - LEFT - RIGHT) / len(rates)
    across = {rate: LEFT + wide * (number + 0.5) for number, rate in enumerate(rates)}
    parts += [_label(x, f"{rate:,}/s") for rate, x in across.items()]
    for peer, points in lines.items():
        colour, thick = COLOUR[peer], 3 if peer == OURS else 1.8
        places = [(across[rate], _y(_share_of(p99.median))) for rate, p99, _ in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
        for (x, y), (_, p99, saturated) in zip(places, points, strict=True):
            parts.append(_line(x, _y(_share_of(p99.low)), x, _y(_share_of(p99.high)), colour, 1))
            fill = "#fff" if saturated else colour
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
            )
    return _svg([*parts, *_legend(lines)], note)


def _share_of(milliseconds: float) -> float:
    held = min(max(milliseconds, LEAST), MOST)
    return math.log10(held / LEAST) / math.log10(MOST / LEAST)


def _y(share: float) -> float:
    """Say where a share of the height is."""
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value)


def _number(value: float) -> str:
    return f"{value:,.4g}"


def _level_lines(levels: Iterable[tuple[float, str]], share: object) -> list[str]:
    assert callable(share)
    parts = []
    for value, label in levels:
        y = _y(share(value))
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "#e4e4e4", 1))
        parts.append(_text(LEFT - 8, y + 4, label, anchor="end"))
    return parts


def _label(x: float, text: str, *, slanted: bool = False) -> str:
    y = HEIGHT - BOTTOM + 18
    if slanted:
        turn = f'transform="rotate(-18 {x:.1f} {y})"'
        return f'<text x="{x:.1f}" y="{y}" text-anchor="end" {turn}>{escape(text)}</text>'
    return _text(x, y, text, anchor="middle")


def _legend(peers: Iterable[str]) -> list[str]:
    parts, x, y = [], float(LEFT), HEIGHT - BOTTOM + 40
    for peer in peers:
        wide = 26 + 6.3 * len(peer)
        if x + wide > WIDTH - RIGHT:
            x, y = float(LEFT), y + 17
        parts += [f'<rect x="{x:.1f}" y="{y - 10}" width="11" height="11" fill="{COLOUR[peer]}"/>']
        parts += [_text(x + 15, y, peer)]
        x += wide
    return parts


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, thick: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{thick}"/>'


def _rectangle(x: float, y: float, wide: float, share: float, colour: str, opacity: float) -> str:
    high = share * (HEIGHT - TOP - BOTTOM)
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="{colour}" opacity="{opacity:g}"/>'
    )


def _svg(parts: list[str], note: list[str]) -> str:
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><style>{STYLE}</style>'
    notes = [_text(LEFT, HEIGHT - 8 - 15 * number, line, "s") for number, line in enumerate(reversed(note))]
    paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    return "\n".join([head, paper, *parts, *notes, "</svg>", ""])
