"""How `top` is drawn, by rich."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ratelimit_async._errors import RateLimitError
from ratelimit_async._output import clean, seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ratelimit_async._top import KeyFigures, LimitFigures, Look, Watch

__all__ = ["picture", "plot", "show"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLOT, _BAR = 24, 10
# Lines around the keys.
_FRAME = 5


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
            live.update(picture(look, watch, rows, problem), refresh=True)
            await asyncio.sleep(interval)


def picture(look: Look | None, watch: Watch, rows: int, problem: str = "") -> RenderableType:
    """Draw one look, in so many lines beside its frame."""
    if look is None:
        return Text(problem, style="bold red")
    processes = f"{look.processes} process{'' if look.processes == 1 else 'es'}"
    clock = time.strftime("%H:%M:%S", time.localtime(look.at)) if look.at else ""
    lines: list[RenderableType] = [
        Text.assemble(
            ("ratelimit-async top  ", "bold"),
            f"{look.address}  prefix {clean(look.prefix)}  {processes}  looked in {look.took * 1000:.0f} ms  {clock}",
        ),
        Text.assemble(
            ("charged ", "dim"),
            (f"{look.rate:.1f}/s", "bold green"),
            ("   waiting ", "dim"),
            (str(look.waiting), "bold yellow" if look.waiting else "bold"),
            ("   keys ", "dim"),
            f"{look.found} found, {look.watched} watched",
            ("   drivers ", "dim"),
            _drivers(look),
        ),
        Text(f"Redis does not answer: {problem}" if problem else "", style="bold white on red"),
    ]
    table = Table(box=None, padding=(0, 1), expand=True, header_style="bold reverse", style="dim" if problem else "")
    for heading, justify in (
        ("KEY", "left"),
        ("LIMIT", "left"),
        ("USED", "left"),
        ("OVER TIME", "left"),
        ("/S", "right"),
        ("RUN", "right"),
        ("WAITING", "right"),
        ("OLDEST", "right"),
        ("P99", "right"),
        ("DRIVER", "left"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    left = rows
    for key in look.keys:
        if left <= 0:
            break
        left -= max(len(key.limits), 1)
        _add(table, key, watch)
    lines.append(table)
    lines.append(Text("P99: 99 % of those who wait now have waited less   Ctrl-C ends", style="dim"))
    return Group(*lines)


def plot(shares: list[float], width: int = _PLOT) -> str:
    """Draw shares from 0 to 1 as bars, the newest at the right; what is used at all is seen."""
    top = len(_BLOCKS) - 1
    bars = [min(max(round(share * top), int(share > 0)), top) for share in shares[-width:]]
    return "".join(_BLOCKS[bar] for bar in bars).rjust(width)


def _drivers(look: Look) -> str:
    drivers = sorted(look.drivers.items(), key=lambda item: -item[1])
    more = f" and {len(drivers) - 3} more" if len(drivers) > 3 else ""
    return (", ".join(f"{clean(client)} ({keys})" for client, keys in drivers[:3]) or "none") + more


def _add(table: Table, key: KeyFigures, watch: Watch) -> None:
    """Add a line per limit; what is of the key stands in the first."""
    name = Text(clean(key.name if key.by is None else f"{key.name}:{key.by}")[:32], style="bold")
    if key.paused:
        name.append(" paused", style="bold red")
    waiting = "+".join(map(str, key.waiting_by_priority)) if key.waiting else "-"
    of_key = (
        str(key.running or "-"),
        Text(waiting, style="yellow" if key.waiting else "dim"),
        seconds(key.oldest_wait) if key.waiting else "-",
        seconds(key.p99_wait) if key.waiting else "-",
        clean(key.driver or "-")[:11],
    )
    for i, limit in enumerate(key.limits or (None,)):
        shares = list(watch.histories.get((key.name, key.by, i), ()))
        rest = of_key if i == 0 else ("",) * 5
        table.add_row(name if i == 0 else "", *_limit_cells(limit, shares), *rest)


def _limit_cells(limit: LimitFigures | None, shares: list[float]) -> tuple[str | Text, ...]:
    if limit is None:
        return "not known here", "", "", "-"
    rate = "-" if limit.rate is None else f"{limit.rate:.1f}"
    if limit.used is None or limit.most is None:
        return f"? {limit.unit} {limit.algorithm}", "", "", rate
    share = limit.used / limit.most
    colour = "red" if share >= 0.95 else "yellow" if share >= 0.7 else "green"
    full = min(round(share * _BAR), _BAR)
    bar = Text.assemble(("█" * full, colour), ("·" * (_BAR - full), "dim"), f" {limit.used}/{limit.most}")
    return str(limit.limit), bar, Text(plot(shares), style=colour), rate
