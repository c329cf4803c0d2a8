"""Which of our limits an upstream's headers speak of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratelimit_async._headers import UpstreamLimit
    from ratelimit_async._limits import Limit

__all__ = ["limit_told"]


def limit_told(limits: tuple[Limit, ...], told: UpstreamLimit) -> int | None:
    """Find the limit of the unit told, with the period told or else the amount nearest to it; None: there is none.

    Without either it is the shortest that lasts until the reset: one that would be fresh before cannot be meant.
    """
    of_unit = [i for i, limit in enumerate(limits) if limit.unit == told.unit and limit.algorithm != "concurrent"]
    if not of_unit:
        return None
    period, amount, reset = told.period, told.limit, told.reset_after
    if period is not None:
        return min(of_unit, key=lambda i: abs(math.log(limits[i].period / max(period, 1e-3))))
    if amount is not None:
        return min(of_unit, key=lambda i: abs(math.log(limits[i].amount / max(amount, 1))))
    lasting = [i for i in of_unit if reset is None or limits[i].period >= reset]
    return min(lasting, key=lambda i: limits[i].period) if lasting else max(of_unit, key=lambda i: limits[i].period)
