"""What the page is told, as plain data; read from memory, so that a poll costs Redis nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ratelimit_async._values import spell_arguments
from ratelimit_async.contrib.dashboard._details import MOST_LETTERS, MOST_WAITING
from ratelimit_async.contrib.dashboard._names import spell_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratelimit_async import DeadLetter, Status, WaitingRequest
    from ratelimit_async.contrib.dashboard._details import Detail
    from ratelimit_async.contrib.dashboard._names import Pair
    from ratelimit_async.contrib.dashboard._sampler import Sampler
    from ratelimit_async.contrib.dashboard._series import Series

__all__ = ["Page", "describe", "describe_key", "find_page"]

PAGE = 50
_SLICES = 40
_MOST_NAMES = 1_000
_LONGEST_TEXT = 2_000

# Which keys are shown, by what the page calls it.
SHOW: dict[str, Callable[[Status], object]] = {
    "full": lambda status: any(limit.remaining == 0 for limit in status.limits),
    "waiting": lambda status: status.queue.depth,
    "paused": lambda status: status.paused,
    "dead": lambda status: status.tasks.dead,
}
ORDER: dict[str, Callable[[Series], float]] = {
    "full": lambda series: series.fullest,
    "waiting": lambda series: series.status.queue.depth if series.status else 0,
    "oldest": lambda series: series.status.queue.oldest_wait if series.status else 0,
}


class Page:
    """The keys of one page of the list."""

    def __init__(self, pairs: list[Pair], number: int) -> None:
        """Cut out a page, counted from 1; one that there is not is the last."""
        self.matching = len(pairs)
        self.pages = max(-(-len(pairs) // PAGE), 1)
        self.number = min(max(number, 1), self.pages)
        self.pairs = pairs[(self.number - 1) * PAGE : self.number * PAGE]


def find_page(sampler: Sampler, *, name: str | None, search: str, show: str, order: str, number: int) -> Page:
    """Find the keys that a viewer asks for; by what was seen last, those that were seen."""
    directory = sampler.directory
    if show in SHOW or order in ORDER:
        seen = ((pair, one) for pair, one in sampler.series.items() if pair in directory)
        chosen = SHOW.get(show)
        found = [(pair, one) for pair, one in seen if chosen is None or (one.status and chosen(one.status))]
        found.sort(key=lambda item: (item[0][0], item[0][1] or ""))
        if order in ORDER:
            found.sort(key=lambda item: -ORDER[order](item[1]))
        pairs: Iterable[Pair] = (pair for pair, _ in found)
    else:
        pairs = directory.ordered()
    words = search.casefold().split()
    matching = [
        pair
        for pair in pairs
        if (name is None or pair[0] == name)
        and all(word in pair[0].casefold() or word in (pair[1] or "").casefold() for word in words)
    ]
    if name is not None and search and directory.more and (name, search) not in directory:
        # One that is not listed may be looked up by all of its subject.
        matching.insert(0, (name, search))
    return Page(matching, number)


def describe(sampler: Sampler, page: Page) -> dict[str, Any]:
    """Tell of all keys together, and of those of a page."""
    now = asyncio.get_running_loop().time()
    window = sampler.span(now)
    return {
        **describe_health(sampler, now),
        "totals": _totals(sampler),
        "names": [
            {"id": spell_key((name, None)), "name": name, "subjects": sampler.directory.subjects[name]}
            for name in sampler.directory.names()[:_MOST_NAMES]
        ],
        "page": page.number,
        "pages": page.pages,
        "matching": page.matching,
        "window": window,
        "rows": [
            {**_row(pair, series, now), "peaks": series.peaks(window, _SLICES)}
            for pair in page.pairs
            if (series := sampler.series.get(pair)) is not None
        ],
    }


def describe_key(sampler: Sampler, pair: Pair, detail: Detail | None) -> dict[str, Any]:
    """Tell all of one key."""
    now = asyncio.get_running_loop().time()
    series = sampler.series[pair]
    window = sampler.span(now)
    told = {**describe_health(sampler, now), "window": window, "key": _row(pair, series, now)}
    status = series.status
    if status is None or detail is None:
        return told
    since = now - window
    of_name = sampler.series.get((pair[0], None))
    whole = of_name.status if of_name else None
    return {
        **told,
        "history": {
            "ages": [round(now - at, 1) for at in series.column(0, since)],
            "depth": [int(depth) for depth in series.column(1, since)],
            "limits": [
                [round(100 * full, 1) for full in series.column(2 + i, since)] for i in range(len(status.limits))
            ],
        },
        "name_paused": bool(whole and whole.paused),
        "estimated_wait": status.queue.estimated_wait,
        "driven": status.processor.active,
        "tasks": {field: getattr(status.tasks, field) for field in status.tasks.__struct_fields__},
        "waiting": [_waiting(one) for one in detail.waiting],
        "letters": [_letter(one) for one in detail.letters],
        "most_waiting": MOST_WAITING,
        "most_letters": MOST_LETTERS,
    }


def describe_health(sampler: Sampler, now: float) -> dict[str, Any]:
    """Tell how the limiter is."""
    health = sampler.health
    away = sampler.away_since
    return {
        "now": time.time(),
        "interval": sampler.interval,
        "watched": round(now - sampler.since, 1),
        "health": None
        if health is None
        else {
            "ok": health.ok,
            "redis": health.redis,
            "address": health.address,
            "latency": health.latency,
            "breaker": health.breaker,
            "processes": health.processes,
            "error": health.error,
            "away": None if away is None else round(now - away, 1),
        },
    }


def _totals(sampler: Sampler) -> dict[str, Any]:
    statuses = [one.status for pair, one in sampler.series.items() if one.status and pair in sampler.directory]
    return {
        "keys": len(sampler.directory),
        "more": sampler.directory.more,
        "read": len(statuses),
        **{show: sum(bool(chosen(status)) for status in statuses) for show, chosen in SHOW.items()},
        "depth": sum(status.queue.depth for status in statuses),
        "oldest": max((status.queue.oldest_wait for status in statuses), default=0.0),
        "letters": sum(status.tasks.dead for status in statuses),
    }


def _row(pair: Pair, series: Series, now: float) -> dict[str, Any]:
    name, by = pair
    row = {"id": spell_key(pair), "name": name, "by": by, "age": round(now - series.seen, 1), "problem": series.problem}
    status = series.status
    if status is None:
        return {**row, "limits": None}
    return {
        **row,
        "paused": status.paused,
        "resumes_in": status.resumes_in,
        "limits": [
            {
                "limit": str(one.limit),
                "unit": one.limit.unit,
                "used": one.used,
                "most": one.limit.most,
                "remaining": one.remaining,
                "reset_after": one.reset_after,
            }
            for one in status.limits
        ],
        "depth": status.queue.depth,
        "depths": status.queue.depth_by_priority,
        "oldest": status.queue.oldest_wait,
        "dead": status.tasks.dead,
    }


def _waiting(one: WaitingRequest) -> dict[str, Any]:
    return {"id": one.id, "position": one.position, "age": one.age, "priority": one.priority}


def _letter(one: DeadLetter) -> dict[str, Any]:
    arguments = spell_arguments(one)
    call = f"{one.task}({'…' if arguments is None else arguments})"
    return {
        "id": one.id,
        "task": one.task,
        "call": _short(call),
        "error": _short(one.error),
        "attempts": one.attempts,
        "died_at": one.died_at,
    }


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
