"""A sliding window as the scripts keep it, against a plain model: charges, what is taken off, and what expires."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ratelimit_async
from tests.helpers import client_of, rows_at

if TYPE_CHECKING:
    import redis.asyncio

INCLUDE = Path(ratelimit_async.__file__).parent / "lua" / "include"
PERIOD = 800_000_000
WIDTH = PERIOD // 800
BEGIN = 1_000_000 * WIDTH
CLOCK, WINDOW, SLIDING, SHIFTS = (
    (INCLUDE / f"{part}.lua").read_text() for part in ("clock", "window", "sliding_window", "shifts")
)
SCRIPT = f"""{CLOCK}
now = tonumber(ARGV[1])
{WINDOW}
local parts = {{}}
{SLIDING}
{SHIFTS}
local sliding = parts.sw()
local limit = {{ key = KEYS[1], period = {PERIOD} }}
sliding.open(limit)
local answers = {{}}
local function save()
  if limit.shifts then
    sliding.save_shifts(limit)
  end
  if limit.dirty then
    sliding.save(limit)
    limit.dirty = false
  end
end
for a = 2, #ARGV, 3 do
  if ARGV[a] == 'charge' then
    sliding.charge(limit, tonumber(ARGV[a + 1]))
  elseif ARGV[a] == 'shift' then
    if limit.dirty then
      save()
    end
    sliding.shift(limit, tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]))
  else
    save()
    answers[#answers + 1] = sliding.free_in(limit, tonumber(ARGV[a + 1]))
  end
end
save()
return {{ limit.used, sliding.reset_in(limit), answers }}
"""


class Call(msgspec.Struct, frozen=True):
    """What one script call does, so many us after the last."""

    later: int
    steps: tuple[tuple[str, int, int], ...]


class Model:
    """What was charged in each bucket that counts."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.charged: dict[int, int] = {}

    def call(self, call: Call) -> tuple[list[str | int], list[Any]]:
        """Give a call's arguments, and its reply."""
        self.now += call.later
        self.charged = {end: units for end, units in self.charged.items() if end + PERIOD > self.now}
        arguments: list[str | int] = [self.now]
        answers: list[int] = []
        for what, one, two in call.steps:
            if what == "charge":
                end = max([self.bucket(self.now), *self.charged])
                self.charged[end] = self.charged.get(end, 0) + one
                arguments += ("charge", one, 0)
            elif what == "shift":
                # Mostly of a bucket that is there.
                stamp = (
                    sorted(self.charged)[one % len(self.charged)] - 1 if two % 3 and self.charged else self.now - one
                )
                self._shift(self.bucket(stamp), two)
                arguments += ("shift", stamp, two)
            elif self.used:
                units = one % self.used + 1
                answers.append(self._free_in(units))
                arguments += ("free", units, 0)
        return arguments, [self.used, max(self.charged) + PERIOD - self.now if self.charged else 0, answers]

    @staticmethod
    def bucket(at: int) -> int:
        return (at // WIDTH + 1) * WIDTH

    @property
    def used(self) -> int:
        return sum(self.charged.values())

    def _shift(self, end: int, units: int) -> None:
        if end + PERIOD <= self.now:
            return
        left = max(self.charged.get(end, 0) + units, 0)
        self.charged.pop(end, None)
        if left:
            self.charged[end] = left

    def _free_in(self, units: int) -> int:
        for end, charged in sorted(self.charged.items()):
            units -= charged
            if units <= 0:
                return end + PERIOD - self.now
        raise AssertionError


steps = st.one_of(
    st.tuples(st.just("charge"), st.integers(1, 9), st.just(0)),
    st.tuples(st.just("shift"), st.integers(0, PERIOD), st.integers(-12, 6)),
    st.tuples(st.just("free"), st.integers(0, 1000), st.just(0)),
)
later = st.one_of(st.integers(0, WIDTH), st.integers(0, 60 * WIDTH), st.sampled_from([PERIOD - WIDTH, PERIOD]))
calls = st.lists(st.builds(Call, later, st.lists(steps, max_size=4).map(tuple)), max_size=60)


def assert_few_expired(before: list[tuple[int, int]], after: list[tuple[int, int]], now: int) -> None:
    """Rows that have expired go with a bucket that a charge begins."""
    if after and after[-1][0] > (before[-1][0] if before else 0):
        assert sum(end + PERIOD <= now for end, _ in after) <= max(16, len(before) / 4)


@pytest.fixture
async def client(url: str) -> Any:
    async with client_of(url) as opened:
        yield opened


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls)
async def test_a_window_is_what_its_model_is(client: redis.asyncio.Redis, calls: list[Call]) -> None:
    await client.delete("window")
    model, rows = Model(), list[tuple[int, int]]()
    for call in calls:
        arguments, expected = model.call(call)
        assert await client.eval(SCRIPT, 1, "window", *arguments) == expected
        before, rows = rows, await rows_at(client, "window")
        if {what for what, *_ in call.steps} == {"charge"}:
            assert_few_expired(before, rows, model.now)


@pytest.mark.parametrize("seed", range(4))
async def test_a_window_that_goes_on_is_what_its_model_is(client: redis.asyncio.Redis, seed: int) -> None:
    # Long enough that rows are cut off again and again.
    model, rows = Model(), list[tuple[int, int]]()
    for n in range(400):
        step = (n * (seed * 7 + 11)) % 17
        taken = (("shift", step * WIDTH, -1),) if n % 5 == seed else ()
        call = Call(step * (WIDTH // (seed + 1)), (("charge", step + 1, 0), *taken, ("free", n, 0)))
        arguments, expected = model.call(call)
        assert await client.eval(SCRIPT, 1, "window", *arguments) == expected
        before, rows = rows, await rows_at(client, "window")
        assert len(rows) <= 800 + 270
        assert_few_expired(before, rows, model.now)
