"""What was seen of one key: its last status, and how full its limits were, as far back as is kept."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratelimit_async import Status

__all__ = ["Series"]


class Series:
    """A bounded history: of each look the loop's time, the queue's depth, and how full each limit was, 1.0 is full."""

    __slots__ = ("_most", "_peaks", "_values", "_width", "problem", "seen", "status")

    def __init__(self, most: int) -> None:
        """Keep so many looks at most."""
        self.status: Status | None = None
        # Why the last look failed, "" where it did not.
        self.problem = ""
        # When it was last looked at, by the loop's time.
        self.seen = 0.0
        self._most = most
        self._width = 2
        self._values = array("d")
        self._peaks: tuple[float, float, list[int | None]] = (0.0, 0.0, [])

    def add(self, now: float, status: Status) -> None:
        """Take in a look; one with other limits than before begins anew."""
        width = 2 + len(status.limits)
        if width != self._width:
            self._values, self._width = array("d"), width
        self._values.extend((now, status.queue.depth))
        self._values.extend(limit.used / limit.limit.most for limit in status.limits)
        del self._values[: max(len(self._values) - self._most * width, 0)]
        self.status, self.problem, self.seen = status, "", now

    def fail(self, now: float, problem: str) -> None:
        """Take in a look that failed."""
        self.problem, self.seen = problem, now

    @property
    def fullest(self) -> float:
        """How full the fullest limit was at the last look."""
        return max(self._values[2 - self._width :], default=0.0) if self._values else 0.0

    def column(self, number: int, since: float) -> list[float]:
        """Give one value of every look since then: 0 its time, 1 the depth, from 2 on the limits."""
        width, values = self._width, self._values
        return [values[i + number] for i in range(0, len(values), width) if values[i] >= since]

    def peaks(self, span: float, count: int) -> list[int | None]:
        """Give slices of the time up to the last look, of each the percentage at its fullest; None where none was."""
        # The same for all viewers, until the next look.
        if self._peaks[:2] != (self.seen, span):
            self._peaks = self.seen, span, self._find_peaks(self.seen - span, span, count)
        return self._peaks[2]

    def _find_peaks(self, since: float, span: float, count: int) -> list[int | None]:
        slices: list[int | None] = [None] * count
        width, values = self._width, self._values
        for i in range(0, len(values), width):
            if values[i] >= since:
                place = min(int((values[i] - since) / span * count), count - 1)
                full = round(100 * max(values[i + 2 : i + width], default=0.0))
                slices[place] = max(slices[place] or 0, full)
        return slices
