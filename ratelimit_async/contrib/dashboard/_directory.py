"""Which keys there are: what is configured, and what Redis holds something of, up to a bound."""

from __future__ import annotations

from collections import Counter
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit_async import RateLimiter
    from ratelimit_async.contrib.dashboard._names import Pair

__all__ = ["Directory"]

# So many are looked through in one go, listed in all, and listed of one name, so that it hides no others.
_MOST_SEEN = 100_000
_MOST = 20_000
_MOST_OF_A_NAME = 5_000


class Directory:
    """Finds keys step by step; each name is listed also without a subject."""

    def __init__(self, limiter: RateLimiter) -> None:
        """Know none yet."""
        self.subjects: Counter[str] = Counter()
        # Whether there are keys that are not listed.
        self.more = False
        self._limiter = limiter
        self._turn = 0
        # In which turn a key was seen last.
        self._turns: dict[Pair, int] = {}
        self._ordered: list[Pair] | None = None

    def __len__(self) -> int:
        """How many are listed."""
        return len(self._turns)

    def __contains__(self, pair: object) -> bool:
        """Whether a key is listed."""
        return pair in self._turns

    async def scan(self) -> None:
        """Look through Redis once; new keys show at once, those that are gone when all have been seen."""
        self._turn += 1
        seen, more, subjects = 0, False, Counter[str]()
        self._add((name, None) for name in self._limiter.names)
        async for key in self._limiter.keys():
            seen += 1
            self._add([(key.name, None)])
            if key.by is not None:
                subjects[key.name] += 1
                if subjects[key.name] <= _MOST_OF_A_NAME:
                    self._add([(key.name, key.by)])
            if seen >= _MOST_SEEN:
                more = True
                break
        kept = {pair: turn for pair, turn in self._turns.items() if turn == self._turn}
        if len(kept) < len(self._turns):
            self._turns, self._ordered = kept, None
        self.more = more or len(kept) >= _MOST or any(count > _MOST_OF_A_NAME for count in subjects.values())
        self.subjects = subjects

    def ordered(self) -> list[Pair]:
        """Give all by name, then by subject."""
        if self._ordered is None:
            self._ordered = sorted(self._turns, key=lambda pair: (pair[0], pair[1] or ""))
        return self._ordered

    def names(self) -> list[str]:
        """Give the names."""
        return [name for name, by in self.ordered() if by is None]

    def some(self, most: int) -> list[Pair]:
        """Give so many at most, of each name as many as of the others, if it has them."""
        by_name: dict[str, list[Pair]] = {}
        for pair in self.ordered():
            of_name = by_name.setdefault(pair[0], [])
            if len(of_name) < most:
                of_name.append(pair)
        in_turns = chain.from_iterable(zip_longest(*by_name.values()))
        return [pair for pair in in_turns if pair is not None][:most]

    def _add(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            if pair not in self._turns:
                if len(self._turns) >= _MOST:
                    continue
                self._ordered = None
            self._turns[pair] = self._turn
