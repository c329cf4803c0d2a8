"""How `top` is drawn, by rich."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ratelimit_async._errors import RateLimitError
from ratelimit_async._output import clean, seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ratelimit_async._top import KeyFigures, LimitFigures, Look, Watch

__all__ = ["Layout", "picture", "plot", "show"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLOT = 24
# Lines around the keys.
_FRAME = 5
_END = ("Ctrl-C ends", "dim")


class Layout(NamedTuple):
    """How wide things are; what has no width is left out."""

    key: int
    limit: int
    bar: int
    plot: int
    run: int
    p99: int
    driver: int

    @classmethod
    def of(cls, width: int) -> Layout:
        """Fit a terminal: first the plot, the bar and the driver shrink, then some go."""
        bar = 10 if width >= 140 else 5 if width >= 100 else 0
        plot = max(min(_PLOT, width - 140), 8) if width >= 110 else 0
        run, p99 = (4, 8) if width >= 90 else (0, 0)
        driver = 11 if width >= 140 else 6 if width >= 100 else 0
        # Used, rate, waiting and oldest; and the space between columns.
        rest = width - (12 + 8 + 10 + 8) - bar - plot - run - p99 - driver
        rest -= 2 * (6 + sum(map(bool, (plot, run, p99, driver))))
        key = max(min(rest * 9 // 20, 32), 8)
        return cls(key, max(min(rest - key, 32), 8), bar, plot, run, p99, driver)


async def show(watch: Watch, interval: float) -> None:
    """Draw until cancelled; while Redis is away, what was seen last."""
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        look: Look | None = None
        while True:
            problem = ""
            rows = max(console.size.height - _FRAME, 3)
            try:
                look = await watch.look(rows)
            except RateLimitError as error:
                problem = str(error)
            live.update(picture(look, watch, rows, Layout.of(console.size.width), problem), refresh=True)
            await asyncio.sleep(interval)


def picture(look: Look | None, watch: Watch, rows: int, layout: Layout, problem: str = "") -> RenderableType:
    """Draw one look, in so many lines beside its frame."""
    if look is None:
        return Text(problem, style="bold red")
    processes = f"{look.processes} process{'' if look.processes == 1 else 'es'}"
    clock = time.strftime("%H:%M:%S", time.localtime(look.at)) if look.at else ""
    lines: list[RenderableType] = [
        _line(
            ("ratelimit-async top  ", "bold"),
            f"{look.address}  prefix {clean(look.prefix)}  {processes}  looked in {look.took * 1000:.0f} ms  {clock}",
        ),
        _line(
            ("charged ", "dim"),
            (f"{look.rate:.1f}/s", "bold green"),
            ("   waiting ", "dim"),
            (str(look.waiting), "bold yellow" if look.waiting else "bold"),
            ("   keys ", "dim"),
            f"{look.found} found, {look.watched} watched",
            ("   drivers ", "dim"),
            _drivers(look),
        ),
        _line((f"Redis does not answer: {problem}" if problem else "", "bold white on red")),
    ]
    table = Table(box=None, padding=(0, 1), header_style="bold reverse", style="dim" if problem else "")
    for heading, justify, shown in (
        ("KEY", "left", layout.key),
        ("LIMIT", "left", layout.limit),
        ("USED", "left", 1),
        ("OVER TIME", "left", layout.plot),
        ("/S", "right", 1),
        ("RUN", "right", layout.run),
        ("WAITING", "right", 1),
        ("OLDEST", "right", 1),
        ("P99", "right", layout.p99),
        ("DRIVER", "left", layout.driver),
    ):
        if shown:
            table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    left = rows
    for key in look.keys:
        if left <= 0:
            break
        left -= max(len(key.limits), 1)
        _add(table, key, watch, layout)
    lines.append(table)
    lines.append(_line(("P99: 99 % of those who wait now have waited less   " if layout.p99 else "", "dim"), _END))
    return Group(*lines)


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def plot(shares: list[float], width: int = _PLOT) -> str:
    """Draw shares from 0 to 1 as bars, the newest at the right; what is used at all is seen."""
    top = len(_BLOCKS) - 1
    bars = [min(max(round(share * top), int(share > 0)), top) for share in shares[-width:]]
    return "".join(_BLOCKS[bar] for bar in bars).rjust(width)


def _drivers(look: Look) -> str:
    drivers = sorted(look.drivers.items(), key=lambda item: -item[1])
    more = f" and {len(drivers) - 3} more" if len(drivers) > 3 else ""
    return (", ".join(f"{clean(client)} ({keys})" for client, keys in drivers[:3]) or "none") + more


def _add(table: Table, key: KeyFigures, watch: Watch, layout: Layout) -> None:
    """Add a line per limit; what is of the key stands in the first."""
    name = Text(clean(key.name if key.by is None else f"{key.name}:{key.by}"), style="bold")
    name.truncate(max(layout.key - 7, 8) if key.paused else layout.key, overflow="ellipsis")
    if key.paused:
        name.append(" paused", style="bold red")
    waiting = "+".join(map(str, key.waiting_by_priority)) if key.waiting else "-"
    for i, limit in enumerate(key.limits or (None,)):
        shares = list(watch.histories.get((key.name, key.by, i), ()))
        first = not i
        said, used, bars, rate = _limit_cells(limit, shares, layout)
        of_key = (
            (str(key.running or "-"), layout.run),
            (Text(waiting, style="yellow" if key.waiting else "dim"), 1),
            (seconds(key.oldest_wait) if key.waiting else "-", 1),
            (seconds(key.p99_wait) if key.waiting else "-", layout.p99),
            (clean(key.driver or "-")[: layout.driver], layout.driver),
        )
        cells = [name if first else "", said, used, *((bars,) if layout.plot else ()), rate]
        table.add_row(*cells, *(cell if first else "" for cell, shown in of_key if shown))


def _limit_cells(limit: LimitFigures | None, shares: list[float], layout: Layout) -> tuple[str | Text, ...]:
    if limit is None:
        return "not known here", "", "", "-"
    rate = "-" if limit.rate is None else f"{limit.rate:.1f}"
    said = Text(limit.limit or f"? {limit.unit} {limit.algorithm}")
    said.truncate(layout.limit, overflow="ellipsis")
    if limit.used is None or limit.most is None:
        return said, "", "", rate
    share = limit.used / limit.most
    colour = "red" if share >= 0.95 else "yellow" if share >= 0.7 else "green"
    full = min(round(share * layout.bar), layout.bar)
    bar = Text.assemble(("█" * full, colour), ("·" * (layout.bar - full) + " " * bool(layout.bar), "dim"))
    return said, bar.append(f"{limit.used}/{limit.most}"), Text(plot(shares, layout.plot), style=colour), rate
