"""The demo's live view, drawn by rich."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from ratelimit_async._demo import AMOUNT, LEVELS, PERIOD

if TYPE_CHECKING:
    from ratelimit_async._demo import Board
    from ratelimit_async._limiter import RateLimiter
    from ratelimit_async._values import Status

_COLOURS = ("red", "yellow", "blue")


async def show(board: Board, limiter: RateLimiter) -> None:
    """Draw ten times a second until cancelled."""
    with Live(refresh_per_second=10) as live:
        while True:
            live.update(picture(await limiter.status("api"), board))
            await asyncio.sleep(0.1)


def picture(status: Status, board: Board) -> Panel:
    used = min(status.limits[0].used, AMOUNT)
    lines = [
        Text.assemble(
            "window   ",
            ("█" * used * 3, "green"),
            "·" * (AMOUNT - used) * 3,
            f" {used}/{AMOUNT} per {PERIOD:g} s",
        ),
        Text.assemble("running  ", *((f"{mark} ", "bold green") for mark in board.running)),
    ]
    for level, (name, colour) in enumerate(zip(LEVELS, _COLOURS, strict=True)):
        depth = status.queue.depth_by_priority[level]
        lines.append(Text.assemble(f"{name:8} ", ("■" * min(depth, 40), colour), f" {depth}"))
    queue = sorted(board.waiting.items(), key=lambda item: item[1][0])
    coming = [(f"{mark} ", _COLOURS[level]) for mark, (level, _) in queue[:10]]
    lines.append(Text.assemble("next     ", *coming))
    lines.append(Text(""))
    lines.extend(
        Text.assemble(
            f"worker {one.worker}  ",
            (f"{LEVELS[one.level]:7}", _COLOURS[one.level]),
            f" waited {one.waited:5.2f} s",
        )
        for one in board.granted[-6:]
    )
    title = f"granted {len(board.granted)}   waiting {status.queue.depth}"
    return Panel(Group(*lines), title=title, width=78, height=16)
