"""The scripts of the package, as they are sent to Redis, and what one call of each may carry."""

from __future__ import annotations

import re
from collections import ChainMap
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from ratelimit_async._batches import MOST_ENTRIES, Script

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from importlib.resources.abc import Traversable

__all__ = ["ALL"]

# A line of Lua that puts a shared part in; indented where it is made only when it is needed.
_INCLUDE = re.compile(r"^ *-- @include (\w+)\n", re.MULTILINE)
# One that names constants, and what may be such a name, or only look like one: within a comment or text.
_NAME, _VALUE = r"[A-Z_]+", r"(?:'[^',]*'|[\d ()^*/+-]+)"
_CONSTANTS = re.compile(rf"local ({_NAME}(?:, {_NAME})*) = ({_VALUE}(?:, {_VALUE})*)")
_WORD = re.compile(r"--.*|'[^']*'|\b[A-Z_]+\b")


def _sources() -> dict[str, str]:
    """Read the scripts of the package, with their shared parts put in."""
    root = resources.files("ratelimit_async") / "lua"
    # What the constants of shared parts stand for; a script's own are its own.
    shared: dict[str, str] = {}

    # Each part once, however many scripts have it: importing the package waits for this.
    @cache
    def part(name: str) -> list[str]:
        return read(root / "include" / f"{name}.lua", shared)

    def read(file: Traversable, values: MutableMapping[str, str]) -> list[str]:
        """Give a text, the name of the part that comes next, the text after it, and so on."""
        pieces = _INCLUDE.split(file.read_text(encoding="utf-8"))
        for n, piece in enumerate(pieces):
            if n % 2:
                # Its constants are known from here on.
                part(piece)
            else:
                pieces[n] = _folded(piece, values)
        return pieces

    def assembled(pieces: list[str], seen: set[str]) -> str:
        texts: list[str] = []
        for n, piece in enumerate(pieces):
            if not n % 2:
                texts.append(piece)
            elif piece not in seen:
                seen.add(piece)
                texts.append(assembled(part(piece), seen))
        return "".join(texts)

    scripts = [file for file in root.iterdir() if file.name.endswith(".lua")]
    return {file.name.removesuffix(".lua"): assembled(read(file, ChainMap({}, shared)), set()) for file in scripts}


def _folded(text: str, values: MutableMapping[str, str]) -> str:
    """Put constants where they are used: functions are made with each call, and each name that one holds costs it."""
    lines: list[str] = []
    for line in text.splitlines():
        folded = line if line.islower() else _WORD.sub(lambda word: values.get(word[0], word[0]), line)
        if found := _CONSTANTS.fullmatch(folded):
            names, constants = (part.split(", ") for part in found.groups())
            values.update(zip(names, (f"({constant})" for constant in constants), strict=True))
        else:
            lines.append(f"{folded}\n")
    return "".join(lines)


# Entries of one call, where they are not all alike.
_MOST = {"grant": 8, "claim": 8, "hold": 4, "sync": 4, "waiting": 1, "place": 1, "task": 16, "withdraw": 16}
# Limits of one call's keys: what is given back may have to be taken off a thousand buckets of each.
_MOST_LIMITS = {"adjust": 4, "withdraw": 8, "grant": 6, "task": 16}
ALL = {
    name: Script(
        name,
        source,
        grouped=name not in ("control", "index", "renew", "survey"),
        most=_MOST.get(name, MOST_ENTRIES),
        most_limits=_MOST_LIMITS.get(name, MOST_ENTRIES),
        tells_again=name in ("admit", "adjust", "claim", "sync", "task"),
        durable=name in ("grant", "status", "task"),
        # Each is about requests whose earlier calls have been answered. Behind a flood of newcomers, who is granted
        # would be gone before it hears of it, and who waits would lose its lease.
        urgent=name in ("grant", "claim", "renew", "withdraw"),
        lean=name == "quick",
    )
    for name, source in sorted(_sources().items())
}
