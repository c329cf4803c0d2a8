"""Sliding windows as the scripts keep them in Redis; `ratelimit_async/lua/include/window.lua` tells their form."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBER, _COUNT = 7, 2
_TAIL = 3 * _NUMBER + 2 * _COUNT


def window_of(rows: Iterable[tuple[int, int]]) -> bytes:
    """Write one: for each bucket, oldest first, its end, us, and all that was ever charged up to it."""
    written = list(rows)
    numbers = [number for row in written for number in row]
    # None has been found expired, and it is prolonged at the next charge.
    numbers += (written[0][0], 0, 0)
    counts = (0, len(written))
    return b"".join(
        (*(number.to_bytes(_NUMBER, "big") for number in numbers), *(count.to_bytes(_COUNT, "big") for count in counts))
    )


def rows_of(window: bytes) -> list[tuple[int, int]]:
    """Read the rows of one, those that have expired among them; it must have as many as it says."""
    text, count = window[:-_TAIL], int.from_bytes(window[-_COUNT:], "big")
    numbers = [int.from_bytes(text[at : at + _NUMBER], "big") for at in range(0, len(text), _NUMBER)]
    if len(numbers) != 2 * count:
        raise ValueError(f"{count} rows are said to be there: {len(numbers) / 2}")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
