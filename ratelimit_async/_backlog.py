"""Calls that wait to be sent, and which of them travel together."""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING

from ratelimit_async._batches import MOST_ENTRIES, MOST_OF_CROWD, Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit_async._batches import Script
    from ratelimit_async._keys import Key

__all__ = ["Backlog", "KeyBacklog"]

_BY_KEY = attrgetter("key.label")
# Calls of other keys that a batch of one key may skip to find more of its own.
_SKIPPED = 32


class Backlog:
    """Calls in the order of their arrival; what is urgent goes first, each of its scripts by itself."""

    __slots__ = ("_urgent", "calls")

    def __init__(self) -> None:
        """Start with none."""
        self.calls: deque[Call] = deque()
        self._urgent: dict[Script, deque[Call]] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.calls) or any(self._urgent.values())

    @property
    def presses(self) -> bool:
        """Whether they fill a batch, or are urgent."""
        return len(self.calls) >= MOST_ENTRIES or any(self._urgent.values())

    def push(self, call: Call) -> None:
        """Add one."""
        if call.script.urgent:
            self._urgent.setdefault(call.script, deque()).append(call)
        else:
            self.calls.append(call)

    def put_first(self, calls: Sequence[Call]) -> None:
        """Put back what was taken, before all but what is urgent."""
        self.calls.extendleft(reversed(calls))

    def take(self) -> list[Call]:
        """Take all."""
        taken = [*(call for calls in self._urgent.values() for call in calls), *self.calls]
        self._urgent.clear()
        self.calls.clear()
        return taken

    def next_batch(self) -> list[Call]:
        """Take the next calls that share a script; but for urgent ones, the order of one key's calls is kept.

        None are left of those that were all cancelled.
        """
        queue = next((calls for calls in self._urgent.values() if calls), self.calls)
        script = queue[0].script
        most, most_limits = script.most, script.most_limits
        if script.lean and len(queue) > 2 * most:
            # The other half gathers for the next.
            most = most_limits = min(len(queue) // 2, MOST_OF_CROWD)
        batch: list[Call] = []
        key: Key | None = None
        limits = 0
        while queue and len(batch) < most:
            call = queue[0]
            if call.script is not script:
                break
            # Opening the limits of a key is most of what its first entry costs; those of a key tend to come in a row.
            if call.key is not None and call.key is not key:
                if limits >= most_limits:
                    break
                key = call.key
                limits += key.form.limits
            queue.popleft()
            # Whoever was cancelled before sending must not be charged.
            if not call.future.done():
                batch.append(call)
        if len(batch) > 1:
            batch.sort(key=_BY_KEY)
        return batch


class KeyBacklog(Backlog):
    """For a node of a cluster: a call may have to go to another, and its key's later ones after it."""

    def push(self, call: Call) -> None:
        """Add one; none goes first."""
        self.calls.append(call)

    def next_batch(self) -> list[Call]:
        """Take the next calls that share script and key, so slot; the order of one key's calls is kept."""
        queue = self.calls
        first = queue.popleft()
        batch, skipped = [first], list[Call]()
        while first.script.grouped and queue and len(batch) < first.script.most and len(skipped) < _SKIPPED:
            call = queue.popleft()
            if call.key is not first.key:
                skipped.append(call)
            elif call.script is first.script:
                batch.append(call)
            else:
                skipped.append(call)
                break
        queue.extendleft(reversed(skipped))
        # Whoever was cancelled before sending must not be charged.
        return [call for call in batch if not call.future.done()]
