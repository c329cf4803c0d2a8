"""Sliding windows as the scripts keep them in Redis; `ratelimit_async/lua/include/window.lua` tells their form."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROW = struct.Struct(">QQ")
_TAIL = struct.Struct(">QQQQQ")


def window_of(rows: Iterable[tuple[int, int]]) -> bytes:
    """Write one: for each bucket, oldest first, its end, us, and all that was ever charged up to it."""
    written = list(rows)
    # None has been found expired, and it is prolonged at the next charge.
    return b"".join(_ROW.pack(*row) for row in written) + _TAIL.pack(written[0][0], 0, 0, 0, len(written))


def rows_of(window: bytes) -> list[tuple[int, int]]:
    """Read the rows of one, those that have expired among them; it must have as many as it says."""
    rows = list(_ROW.iter_unpack(window[: -_TAIL.size]))
    *_, count = _TAIL.unpack(window[-_TAIL.size :])
    if len(rows) != count:
        raise ValueError(f"{count} rows are said to be there: {len(rows)}")
    return rows
