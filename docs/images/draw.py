"""Draws the pictures beside it, from what measure.py wrote down in runs.json; needs nothing but Python.

python docs/images/draw.py [folder]
"""

import json
import sys
from pathlib import Path
from typing import Any

RUNS = Path(__file__).with_name("runs.json")
INK, PALE, LINE = "#222222", "#6b6b6b", "#dddddd"
GREEN, RED, BLUE, ORANGE = "#2e7d32", "#c62828", "#1565c0", "#ef6c00"
COLOURS = {"high": RED, "normal": BLUE, "low": PALE}


class Picture:
    """An SVG, built line by line."""

    def __init__(self, width: int, height: int, title: str) -> None:
        style = f'font-family="sans-serif" font-size="12" fill="{INK}"'
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" {style}>',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]

    def text(self, x: float, y: float, words: str, *, anchor: str = "start", fill: str = INK, size: int = 12) -> None:
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}">{words}</text>'
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1, dash: str = ""
    ) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}" stroke-dasharray="{dash or "none"}"/>'
        )

    def path(self, points: list[tuple[float, float]], colour: str) -> None:
        d = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{d}" fill="none" stroke="{colour}" stroke-width="1.5"/>')

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" rx="2"/>'
        )

    def arrow(self, x1: float, x2: float, y: float, words: str, *, colour: str = INK, dash: str = "") -> None:
        self.line(x1, y, x2, y, colour, dash=dash)
        back = -6 if x2 > x1 else 6
        self.parts.append(f'<path d="M{x2} {y} l{back} -4 v8 z" fill="{colour}"/>')
        self.text((x1 + x2) / 2, y - 5, words, anchor="middle", size=11)

    def save(self, path: Path) -> None:
        path.write_text("\n".join([*self.parts, "</svg>", ""]))


# ---- what the algorithms let through ----

SECONDS = 5.0

Hits = list[tuple[float, bool]]


def most_in_a_second(passed: list[float], at: float) -> int:
    """How many passed in the second that ends then."""
    return sum(at - 1 < one <= at for one in passed)


def draw_algorithms(runs: dict[str, Hits], path: Path) -> None:
    """Draw calls as dots, and below them how many passed in the last second."""
    left, wide, high = 130, 150, 120
    picture = Picture(left + round(SECONDS * wide) + 20, high * len(runs) + 50, "What four algorithms let through")
    for row, (name, hits) in enumerate(runs.items()):
        top = 30 + row * high
        passed = [at for at, allowed in hits if allowed]

        def x(at: float) -> float:
            return left + at * wide

        def y(count: float, top: float = top) -> float:
            return top + 95 - count * 3.6

        picture.text(10, top + 12, name, size=13)
        picture.text(10, top + 30, f"{len(passed)} of {len(hits)} passed", fill=PALE)
        peak = max(most_in_a_second(passed, at) for at in passed)
        picture.text(10, top + 46, f"at most {peak} in 1 s", fill=PALE)
        for second in range(round(SECONDS) + 1):
            picture.line(x(second), top, x(second), top + 95, LINE)
        picture.line(left, y(0), x(SECONDS), y(0), INK)
        picture.line(left, y(10), x(SECONDS), y(10), ORANGE, dash="4 3")
        picture.text(x(SECONDS) + 2, y(10) + 4, "10", fill=ORANGE, size=10)
        steps = [i / 100 for i in range(round(SECONDS * 100) + 1)]
        picture.path([(x(at), y(most_in_a_second(passed, at))) for at in steps], BLUE)
        for at, allowed in hits:
            picture.box(x(at) - 1, top + (2 if allowed else 8), 2, 6, GREEN if allowed else RED)
    bottom = 30 + high * len(runs)
    for second in range(round(SECONDS) + 1):
        picture.text(left + second * wide, bottom - 10, f"{second} s", anchor="middle", fill=PALE, size=10)
    picture.text(left, bottom + 10, "green: passed; red: denied; blue: passed in the last second; limit: 10/second")
    picture.save(path)


# ---- who goes when ----


def draw_queue(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a bar for each wait, with its place among the grants."""
    left, wide, high = 90, 250, 20
    end = max(row["granted"] for row in rows)
    picture = Picture(left + round(end * wide) + 60, high * len(rows) + 60, "In which order waiting requests go")
    order = sorted(rows, key=lambda row: row["granted"])
    for i, row in enumerate(rows):
        y = 12 + i * high
        colour = COLOURS[row["priority"]]
        came, granted = left + row["came"] * wide, left + row["granted"] * wide
        picture.text(10, y + 11, row["priority"], fill=colour)
        picture.box(came, y + 3, max(granted - came, 2), 9, colour)
        picture.text(granted + 5, y + 12, f"{order.index(row) + 1}", size=11)
    bottom = 12 + high * len(rows) + 6
    picture.line(left, bottom, left + end * wide, bottom, INK)
    for tenth in range(0, int(end * 10) + 1, 4):
        x = left + tenth / 10 * wide
        picture.line(x, bottom, x, bottom + 4, INK)
        picture.text(x, bottom + 17, f"{tenth / 10:.1f} s", anchor="middle", size=10, fill=PALE)
    picture.text(left, bottom + 34, "a bar: a request waits; the number: its place among the grants; 2 per 0.4 seconds")
    picture.save(path)


# ---- how many run ----


def draw_concurrent(rows: list[tuple[float, float, float]], path: Path) -> None:
    """Draw waiting and running."""
    left, wide, high = 20, 420, 18
    end = max(ended for _, _, ended in rows)
    picture = Picture(left + round(end * wide) + 30, high * len(rows) + 55, "Three at once")
    for i, (came, began, ended) in enumerate(rows):
        y = 10 + i * high
        picture.box(left + came * wide, y + 5, max((began - came) * wide, 0.5), 4, LINE)
        picture.box(left + began * wide, y + 1, (ended - began) * wide, 12, GREEN)
    bottom = 10 + high * len(rows) + 4
    picture.line(left, bottom, left + end * wide, bottom, INK)
    for tenth in range(0, int(end * 10) + 1, 2):
        x = left + tenth / 10 * wide
        picture.text(x, bottom + 14, f"{tenth / 10:.1f}", anchor="middle", size=10, fill=PALE)
    picture.text(left, bottom + 30, "grey: waits; green: runs; 3 concurrent")
    picture.save(path)


# ---- who tells whom ----


def draw_sequence(path: Path) -> None:
    """Draw what is sent when a request waits."""
    places = {"caller A": 90, "process A": 250, "Redis": 430, "process B (drives)": 620}
    picture = Picture(720, 390, "What is sent when a request waits")
    for name, x in places.items():
        picture.text(x, 20, name, anchor="middle", size=13)
        picture.line(x, 28, x, 360, LINE, width=2)
    caller, a, redis, b = places.values()
    steps = [
        (caller, a, "request(...)", "", INK),
        (a, redis, "admit: charge or queue", "", INK),
        (redis, a, "queued, place 3", "", INK),
        (b, redis, "grant", "", INK),
        (redis, b, "none now; next in 0.42 s", "", INK),
        (b, b, "sleeps until then, or until it is woken", "", PALE),
        (b, redis, "grant: take the first, charge, record", "", INK),
        (redis, a, "message: granted (id)", "5 3", BLUE),
        (a, caller, "your turn: fn runs", "", INK),
        (caller, a, "returns", "", INK),
        (a, redis, "adjust: settle, release", "", INK),
        (redis, b, "message: look again", "5 3", BLUE),
    ]
    y = 55
    for start, end, words, dash, colour in steps:
        if start == end:
            picture.text(start - 8, y - 5, words, anchor="end", size=11, fill=colour)
        else:
            picture.arrow(start, end, y, words, colour=colour, dash=dash)
        y += 27
    picture.text(
        20, 380, "Lines: commands and replies; one command of a moment carries many entries. Dashes: messages."
    )
    picture.save(path)


def main(folder: Path) -> None:
    """Draw all."""
    runs = json.loads(RUNS.read_text())
    draw_algorithms(runs["algorithms"], folder / "algorithms.svg")
    draw_queue(runs["queue"], folder / "order.svg")
    draw_concurrent(runs["concurrent"], folder / "concurrent.svg")
    draw_sequence(folder / "sequence.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
