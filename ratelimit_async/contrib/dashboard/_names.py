"""How the page's addresses spell a key: plain ASCII, whatever its name and subject hold."""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import quote, unquote

__all__ = ["Pair", "read_key", "spell_key"]

# A name and a subject of it.
Pair: TypeAlias = tuple[str, str | None]


def spell_key(pair: Pair) -> str:
    """Write a name and subject as one word."""
    return ":".join(quote(part or "", safe="", errors="surrogatepass") for part in pair)


def read_key(text: object) -> Pair | None:
    """Read it back; None where it is no such word."""
    if not isinstance(text, str) or text.count(":") != 1:
        return None
    name, by = (unquote(part, errors="surrogatepass") for part in text.split(":"))
    return (name, by or None) if name else None
