"""How the page's addresses spell a key: as the core does."""

from __future__ import annotations

from typing import TypeAlias

from ratelimit_async._spelling import parse_label, spell_label

__all__ = ["Pair", "read_key", "spell_key"]

# A name and a subject of it.
Pair: TypeAlias = tuple[str, str | None]


def spell_key(pair: Pair) -> str:
    """Write a name and subject as one word."""
    return spell_label(*pair)


def read_key(text: object) -> Pair | None:
    """Read it back; None where it is no such word."""
    if not isinstance(text, str) or text.count(":") != 1:
        return None
    try:
        name, by = parse_label(text)
    except UnicodeDecodeError:
        return None
    return (name, by) if name else None
