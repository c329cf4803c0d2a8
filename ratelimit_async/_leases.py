"""Leases on many keys, renewed by few calls; about each key more is asked only now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ratelimit_async._lua import ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ratelimit_async._batches import Argument, Entry
    from ratelimit_async._deployment import Caller
    from ratelimit_async._keys import Key

__all__ = ["Renewal", "Rounds", "renewals"]

# Some keys, and for each of them 0 where its lease was not renewed.
Renewal = tuple["Sequence[Key]", "asyncio.Future[list[int]]"]

# Seconds within which more is asked about each key: a third of what Redis keeps for who waits on it.
_ASKED = 20.0


def renewals(
    executor: Caller, keys: Sequence[Key], named: Callable[[Key], Sequence[bytes]], op: str, *arguments: Argument
) -> Iterator[Renewal]:
    """Send one of the operations of renew.lua, for some keys at a time."""
    for start in range(0, len(keys), executor.most_keys):
        some = keys[start : start + executor.most_keys]
        names = [name for key in some for name in named(key)]
        # Who calls, and for how long its leases are.
        entry: Entry = (len(names), *names, *executor.head[:3], op, *arguments)
        yield some, executor.call(ALL["renew"], some[0], entry)


class Rounds:
    """Rounds of renewals, each a third of a lease after the other."""

    def __init__(self, lease: float) -> None:
        """Begin anywhere; lease in seconds."""
        self.rounds = max(1, int(_ASKED * 3 / lease))
        self._round = 0

    async def go(self, sent: Iterable[Renewal]) -> set[Key]:
        """Wait for a round's renewals; gives the keys about which more is to be asked.

        Their leases could not be renewed by themselves, or it is their turn, so that what they have in Redis lives on.
        """
        self._round = (self._round + 1) % self.rounds
        turn = self._round
        jobs = list(sent)
        replies: list[Any] = await asyncio.gather(*(reply for _, reply in jobs))
        asked: set[Key] = set()
        for (some, _), reply in zip(jobs, replies, strict=True):
            told = zip(some, reply, strict=True)
            asked.update(key for key, renewed in told if not renewed or hash(key.label) % self.rounds == turn)
        return asked
