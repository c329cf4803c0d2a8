"""How the command line writes: tables, JSON, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["clean", "confirm", "fail", "key_text", "note", "say", "say_json", "seconds", "table"]

_PASSWORD = re.compile(r"://[^\s/'\"]*@")


def clean(text: str) -> str:
    """Write what cannot be printed as it is escaped: names and errors come from anywhere."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def say(text: str = "") -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")


def say_json(value: object) -> None:
    """Write a document of JSON as a line; plain ASCII, so that any name can be written."""
    # Arguments of tasks may hold what JSON has no word for.
    plain: object = msgspec.to_builtins(value, str_keys=True, enc_hook=repr)
    sys.stdout.write(json.dumps(plain) + "\n")


def note(text: str) -> None:
    """Write a line beside the output."""
    sys.stderr.write(f"ratelimit-async: {clean(_PASSWORD.sub('://***@', text))}\n")


def fail(error: object) -> int:
    """Say in a line what went wrong; gives the exit code."""
    note(" ".join(str(error).split()))
    return 1


def confirm(question: str, *, yes: bool) -> bool:
    """Ask, where somebody sits at a terminal and has not said yes already."""
    if yes or not sys.stdin.isatty():
        return True
    sys.stderr.write(f"{clean(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    note("nothing was changed")
    return False


def key_text(options: argparse.Namespace) -> str:
    """Name the key that a command is about."""
    return clean(options.name if options.by is None else f"{options.name} by {options.by}")


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Write rows, of which the first is the heading; `right`: columns of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join(cells).rstrip())


def seconds(value: float | None) -> str:
    """Write a duration."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    minutes = value / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
