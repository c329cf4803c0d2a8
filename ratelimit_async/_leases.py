"""Leases on many keys, renewed by few calls; about each key more is asked only now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ratelimit_async._lua import ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

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
        entry: Entry = (len(names), *names, op, *arguments)
        yield some, executor.call(ALL["renew"], some[0], entry)


class Rounds:
    """Rounds of renewals, each a third of a lease after the other."""

    def __init__(self, lease: float) -> None:
        """Begin anywhere; lease in seconds."""
        self.rounds = max(1, int(_ASKED * 3 / lease))
        self._round = 0

    async def go(self, keys: Collection[Key], sent: Iterable[Renewal]) -> set[Key]:
        """Wait for a round's renewals; gives the keys about which more is to be asked.

        Their leases could not be renewed by themselves, or it is their turn, so that what they have in Redis lives on.
        """
        self._round = (self._round + 1) % self.rounds
        asked = {key for key in keys if hash(key.label) % self.rounds == self._round}
        jobs = list(sent)
        replies: list[Any] = await asyncio.gather(*(reply for _, reply in jobs))
        for (some, _), reply in zip(jobs, replies, strict=True):
            asked.update(key for key, renewed in zip(some, reply, strict=True) if not renewed)
        return asked
