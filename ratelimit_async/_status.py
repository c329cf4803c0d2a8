"""What `status` tells: of one key, of all keys of a name together, of all names."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from ratelimit_async._output import clean, say, seconds, table
from ratelimit_async._spelling import KINDS

if TYPE_CHECKING:
    from ratelimit_async._onlooker import Onlooker
    from ratelimit_async._survey import Counter, Holding
    from ratelimit_async._values import LimitStatus

__all__ = ["ALGORITHMS", "key_report", "limit_report", "name_reports", "show_key", "show_names", "trimmed"]

ALGORITHMS = {kind: algorithm for algorithm, kind in KINDS.items()}
# Keys that are looked at together.
_PAGE = 200


def trimmed(depths: list[int]) -> list[int]:
    """Leave out levels at the end in which nobody waits, of a queue whose number of levels is not known."""
    last = max((level for level, depth in enumerate(depths) if depth), default=0)
    return depths[: last + 1]


def limit_report(limit: LimitStatus) -> dict[str, Any]:
    """Give a limit's figures as they are written."""
    return {
        "limit": str(limit.limit),
        "algorithm": limit.limit.algorithm,
        "unit": limit.limit.unit,
        "most": limit.limit.most,
        "used": limit.used,
        "remaining": limit.remaining,
        "reset_after": limit.reset_after,
    }


def _counter_report(counter: Counter) -> dict[str, Any]:
    """The same of a limit of which only the counter is known."""
    unknown = dict.fromkeys(("limit", "algorithm", "unit", "most", "used", "remaining", "reset_after"))
    return unknown | {"algorithm": ALGORITHMS[counter.kind], "unit": counter.unit}


async def key_report(limiter: Onlooker, name: str, by: str | None, *, total: bool) -> dict[str, Any]:
    """Give all there is to tell of a key, or of a name."""
    if limiter.config_of(name, by) is None:
        if total:
            limiter.require(name, by)
        holding = await limiter.holding(name, by, await limiter.counters(name, by))
        return {
            "name": name,
            "by": by,
            "known": False,
            "keys": 1,
            "paused": holding.paused != 0,
            "resumes_in": holding.paused if holding.paused > 0 else None,
            "limits": [_counter_report(counter) for counter in holding.counters],
            "queue": {
                "depth": holding.waiting,
                "depth_by_priority": trimmed(holding.depths),
                "oldest_wait": holding.oldest,
                "estimated_wait": None,
            },
            "processor": {"active": bool(holding.driver), "driver": holding.driver or None},
            "tasks": asdict(holding.tasks),
        }
    status = await limiter.status(name, by=by, total=total)
    holding = await limiter.holding(name, by)
    return {
        "name": name,
        "by": by,
        "known": True,
        "keys": status.keys,
        "paused": status.paused,
        "resumes_in": status.resumes_in,
        "limits": [limit_report(limit) for limit in status.limits],
        "queue": asdict(status.queue),
        "processor": {
            "active": status.processor.active,
            "driver": holding.driver or None if not total else None,
        },
        "tasks": asdict(status.tasks),
    }


async def name_reports(limiter: Onlooker) -> list[dict[str, Any]]:
    """Give a summary of each name that is configured here or of which Redis holds something."""
    found: dict[tuple[str, str | None], set[Counter]] = {}
    async for step in limiter.found():
        for pair, counters in step.items():
            found.setdefault(pair, set()).update(counters)
    in_redis = set(found)
    for name in (*limiter.names, *limiter.paused):
        found.setdefault((name, None), set())
    names: dict[str, list[tuple[str | None, Holding]]] = {}
    pairs = sorted(found, key=lambda pair: (pair[0], pair[1] or ""))
    for some in (pairs[start : start + _PAGE] for start in range(0, len(pairs), _PAGE)):
        holdings = await asyncio.gather(*(limiter.holding(*pair) for pair in some))
        for (name, by), holding in zip(some, holdings, strict=True):
            names.setdefault(name, []).append((by, holding))
    return [_name_report(limiter, name, held, in_redis) for name, held in names.items()]


def _name_report(
    limiter: Onlooker, name: str, held: list[tuple[str | None, Holding]], in_redis: set[tuple[str, str | None]]
) -> dict[str, Any]:
    config = limiter.config_of(name)
    holdings = [holding for _, holding in held]
    levels = itertools.zip_longest(*(holding.depths for holding in holdings), fillvalue=0)
    tasks = ("running", "delayed", "parked", "dead")
    depths = [sum(level) for level in levels]
    return {
        "name": name,
        "known": config is not None,
        "keys": sum((name, by) in in_redis for by, _ in held),
        "paused_keys": sum(holding.paused != 0 for holding in holdings),
        "limits": None if config is None else [str(limit) for limit in config.limits],
        "waiting": sum(depths),
        "waiting_by_priority": trimmed(depths) if config is None else depths,
        "oldest_wait": max(holding.oldest for holding in holdings),
        "running": sum(holding.running for holding in holdings),
        "tasks": {field: sum(getattr(holding.tasks, field) for holding in holdings) for field in tasks},
    }


def show_names(limiter: Onlooker, reports: list[dict[str, Any]]) -> None:
    """Write the summaries as a table."""
    if not reports:
        say(f"nothing under the prefix {clean(limiter.prefix)!r} at {limiter.address}")
        return
    rows = [("NAME", "KEYS", "WAITING", "OLDEST", "RUNNING", "TASKS", "DEAD", "PAUSED", "LIMITS")]
    for report in reports:
        tasks = report["tasks"]
        rows.append(
            (
                clean(report["name"]),
                str(report["keys"]),
                str(report["waiting"]),
                seconds(report["oldest_wait"]) if report["waiting"] else "-",
                str(report["running"]),
                str(tasks["running"] + tasks["delayed"] + tasks["parked"]),
                str(tasks["dead"]),
                str(report["paused_keys"] or "-"),
                "not known here" if report["limits"] is None else "; ".join(report["limits"]),
            )
        )
    table(rows, right=(1, 2, 3, 4, 5, 6, 7))


def show_key(limiter: Onlooker, report: dict[str, Any]) -> None:
    """Write all there is to tell of a key."""
    by = "" if report["by"] is None else f" by {clean(report['by'])}"
    keys = f", {report['keys']} keys together" if report["keys"] > 1 else ""
    say(f"{clean(report['name'])}{by}  (at {limiter.address}{keys})")
    if not report["known"]:
        say("limits      not known here: give --app or --config, or RATELIMIT_LIMITS__...; Redis holds these counters:")
    width = max((len(limit["limit"] or "") for limit in report["limits"]), default=0)
    for i, limit in enumerate(report["limits"]):
        head = "limits" if not i and report["known"] else ""
        if limit["limit"] is None:
            say(f"{head:10}  {limit['algorithm']} of {limit['unit']}")
        else:
            again = f"   unused again in {seconds(limit['reset_after'])}" if limit["used"] else ""
            say(f"{head:10}  {limit['limit']:{width}}   used {limit['used']}   left {limit['remaining']}{again}")
    queue = report["queue"]
    depths = "+".join(map(str, queue["depth_by_priority"]))
    waiting = f"{depths} by priority   oldest {seconds(queue['oldest_wait'])}" if queue["depth"] else ""
    say(f"waiting     {queue['depth']}   {waiting}".rstrip())
    if queue["estimated_wait"]:
        say(f"            one more would wait about {seconds(queue['estimated_wait'])}")
    driver = report["processor"]["driver"]
    nobody = "by nobody at present" if queue["depth"] else "by nobody: nothing waits"
    who = f"by {clean(driver)}" if driver else "yes" if report["processor"]["active"] else nobody
    say(f"driven      {who}")
    say("tasks       " + "   ".join(f"{field} {count}" for field, count in report["tasks"].items()))
    ends = "" if report["resumes_in"] is None else f", for {seconds(report['resumes_in'])} more"
    say(f"paused      {'yes' + ends if report['paused'] else 'no'}")
