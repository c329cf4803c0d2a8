"""How names, subjects, ids, costs and configurations are written for Redis and its scripts, and read back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit_async._config import RateLimitConfig
    from ratelimit_async._limits import Limit

__all__ = [
    "KINDS",
    "Form",
    "encode_costs",
    "escape_word",
    "parse_label",
    "parse_request_id",
    "plain_word",
    "spell_label",
    "task_id",
]

KINDS = {
    "sliding_window": "sw",
    "fixed_window": "fw",
    "sliding_counter": "sc",
    "token_bucket": "tb",
    "concurrent": "cc",
}
_unreserved = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch


class Form:
    """What the scripts are told of a configuration, and the ends of its keys' names; one for all keys that have it."""

    __slots__ = ("brief", "header", "limits", "packed", "queues", "slack", "states")

    def __init__(self, config: RateLimitConfig) -> None:
        """Write it once."""
        queue = config.queue
        self.limits = len(config.limits)
        states: list[str] = []
        promote = int((queue.max_wait_before_promotion or 0) * 1e6)
        header: list[str | int] = [queue.priorities, queue.max_size, queue.overflow, promote, int(config.denial_cache)]
        for limit, slot in zip(config.limits, config.slots, strict=True):
            kind = KINDS[limit.algorithm]
            if kind != "cc":
                # Neither amount nor period is in the name, so that what is counted outlives a change of either.
                states.append(f"{kind}:{limit.unit}:{slot}")
            header += [kind + ("+" if limit.count_from == "finish" else ""), limit.unit, *_numbers(limit)]
        self.states = tuple(states)
        self.queues = tuple(f"q{level}" for level in range(queue.priorities))
        self.header = " ".join(map(str, header)).encode()
        # What quick.lua is told, which has nothing to do with queues, nor with what runs.
        match header[5:]:
            case ["sw", unit, amount, period, 0]:
                brief = [amount, period, int(unit == "requests")]
            case limits:
                brief = [len(states)] if config.holds else limits
        self.brief = " ".join(map(str, brief)).encode()
        # Brief, and this with a single usual hit, as they travel: once something has sent them.
        self.packed: tuple[bytes, bytes] | None = None
        # Meeting several expiring buckets in one script call may put off a grant by so long, and no longer.
        self.slack = min([4_000, *(_gap(limit) // 250 for limit in config.limits if limit.period)])


def _gap(limit: Limit) -> int:
    """Give the us after which capacity comes back: a token bucket's comes back one by one."""
    return limit.period_us // limit.amount if limit.algorithm == "token_bucket" else limit.period_us


def _numbers(limit: Limit) -> tuple[int, int, int]:
    """Give amount, period and drain as the scripts count them."""
    if limit.algorithm == "token_bucket":
        drain, scale = limit.rate
        return limit.most, scale, drain
    return limit.amount, limit.period_us, 0


def spell_label(name: str, by: str | None) -> str:
    """Write a name and subject as one word of plain ASCII, whatever they hold."""
    return f"{escape_word(name)}:{escape_word(by or '')}"


def parse_label(label: str) -> tuple[str, str | None]:
    """Read name and subject back; raises UnicodeDecodeError where they are none of ours."""
    name, _, by = label.partition(":")
    return plain_word(name), plain_word(by) or None


def task_id(label: str, own: str) -> str:
    """Spell the public id of a durable task."""
    return f"{label}:*.{own}"


def parse_request_id(request_id: str) -> tuple[str, str | None, str] | None:
    """Read name, subject and the queue's own id from a request's public id; that of a task begins with '*.'."""
    label, _, own = request_id.rpartition(":")
    if label.count(":") != 1 or label.startswith(":") or "." not in own or " " in own:
        return None
    try:
        return *parse_label(label), own
    except UnicodeDecodeError:
        return None


def encode_costs(costs: Mapping[str, int], usual: Mapping[str, int]) -> str:
    """Write costs as the scripts read them: what differs from the usual."""
    if costs is usual:
        return "-"
    return ",".join([f"{unit}={cost}" for unit, cost in costs.items() if cost != usual.get(unit)]) or "-"


def escape_word(text: str) -> str:
    """Percent-encode so that nothing can forge a separator, a hash tag or another key."""
    # Of most there is nothing to encode, and quote() takes longer to see it.
    return text if _unreserved(text) else quote(text, safe="", errors="surrogatepass")


def plain_word(text: str) -> str:
    """Read it back."""
    return unquote(text, errors="surrogatepass")
