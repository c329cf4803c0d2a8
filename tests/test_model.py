"""Random limits, calls and times: the scripts decide as a plain model of the definitions does."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ratelimit_async import Grant, Limit, RateLimiter, RequestTimeout
from ratelimit_async._batches import Script
from ratelimit_async._config import decode_config, decode_cost
from ratelimit_async._executor import Executor
from ratelimit_async._lua import ALL
from ratelimit_async._scripts import Charged
from ratelimit_async._spelling import encode_costs
from tests.helpers import client_of, depth_is, eventually
from tests.model import Answer, Charge, Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis.asyncio

    from ratelimit_async import Decision

LEASE = 60
START = 1_700_000_000_000_000
names = (f"model{n}" for n in itertools.count())


class Clock:
    """The time that the scripts are told in place of Redis' own; set by the test, us."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client

    async def set(self, now: int) -> None:
        await self.client.set("clock", now)

    async def go_on(self, step: int) -> None:
        """Go on by so much with each look at it."""
        await self.client.set("step", step)


@pytest.fixture
async def clock(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clock]:
    told = (
        "(function() redis.call('INCRBY', 'clock', redis.call('GET', 'step') or 0) local t = redis.call('GET', 'clock')"
        " return { string.sub(t, 1, -7), string.sub(t, -6) } end)()"
    )
    for name, script in ALL.items():
        source = script.source.replace("redis.call('TIME')", told)
        assert source != script.source
        patched = copy.copy(script)
        named = Script(name, source)
        patched.source, patched.sha, patched.evalsha = source, named.sha, named.evalsha
        monkeypatch.setitem(ALL, name, patched)
    async with client_of(url) as client:
        clock = Clock(client)
        await clock.set(START)
        yield clock


periods = st.sampled_from([1.0, 1.5, 2.0, 3.333333, 10.0, 60.0])
units = st.sampled_from(["requests", "tokens"])
amounts = st.integers(1, 12)
limit_lists = st.lists(
    st.one_of(
        st.builds(Limit, amounts, periods, st.just("sliding_window"), units),
        st.builds(Limit, amounts, periods, st.just("sliding_window"), units, guard=st.sampled_from([0.01, 0.5])),
        st.builds(Limit, amounts, periods, st.just("sliding_window"), units, count_from=st.just("finish")),
        st.builds(Limit, amounts, periods, st.just("fixed_window"), units),
        st.builds(Limit, amounts, periods, st.just("sliding_counter"), units),
        st.builds(Limit, amounts, periods, st.just("token_bucket"), units, burst=st.integers(1, 12)),
        st.builds(Limit.concurrent, st.integers(1, 4), unit=st.sampled_from(["concurrent", "gpus"])),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda limit: (limit.algorithm, limit.unit, limit.period),
)
operations = st.lists(
    st.tuples(
        st.sampled_from(["hit", "hit", "check", "acquire", "acquire", "settle", "refund", "release"]),
        # us that pass before it.
        st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 400_000), st.integers(0, 8_000_000)),
        st.integers(0, 6),
        st.integers(0, 6),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=25,
)


def answer_of(decision: Decision, limits: tuple[Limit, ...]) -> Answer:
    assert decision.retry_after is not None
    retry, reset = round(decision.retry_after * 1e6), round(decision.reset_after * 1e6)
    return Answer(decision.allowed, limits.index(decision.limit), decision.remaining, retry, reset)


@settings(max_examples=150)
@given(limit_lists, operations)
async def test_the_scripts_decide_as_the_definitions_say(
    url: str, clock: Clock, limits: list[Limit], steps: list[tuple[str, int, int, int, int]]
) -> None:
    name, now = next(names), START
    config = decode_config(limits, "limits")
    model = Model(config.limits, LEASE * 1_000_000)
    running: list[tuple[Grant, Charge]] = []
    await clock.set(now)
    async with RateLimiter(url, limits={name: config}, lease=LEASE, hooks=[]) as limiter:
        for op, passes, requests, tokens, pick in steps:
            now += passes
            await clock.set(now)
            given_costs = {"requests": requests, "tokens": tokens}
            cost = {unit: number for unit, number in given_costs.items() if unit in config.usual}
            costs = decode_cost(cost, config, limited=False)
            if any(costs[limit.unit] > limit.most for limit in config.limits):
                continue
            event(op)
            if op == "check" or (op == "hit" and any(limit.algorithm == "concurrent" for limit in config.limits)):
                assert answer_of(await limiter.check(name, cost=cost), config.limits) == model.answer(now, costs)
            elif op == "hit":
                expected = model.answer(now, costs)
                if expected.allowed:
                    model.take(now, costs)
                    # Told as it stands after the charge.
                    expected = model.answer(now, dict.fromkeys(costs, 0))
                assert answer_of(await limiter.hit(name, cost=cost), config.limits) == expected
            elif op == "acquire":
                allowed = model.answer(now, costs).allowed
                try:
                    grant = await limiter.acquire(name, cost=cost, timeout=0)
                except RequestTimeout:
                    assert not allowed
                    continue
                assert allowed
                running.append((grant, model.take(now, costs, runs=True)))
            elif running:
                grant, charge = running[pick % len(running)]
                # What a lease took back is another test's.
                if charge.lease <= now:
                    continue
                if op == "settle":
                    true = {unit: number for unit, number in cost.items() if unit != "concurrent"}
                    await grant.settle(true)
                    model.settle(now, charge, {**charge.costs, **true})
                else:
                    running.remove((grant, charge))
                    if op == "refund":
                        await grant.refund()
                        model.settle(now, charge, dict.fromkeys(charge.costs, 0))
                    else:
                        await grant.release()
                    charge.ended = now
        used = [limit.used for limit in (await limiter.status(name)).limits]
        assert used == [model.used_whole(i, now) for i in range(len(config.limits))]


one_window = st.builds(lambda amount, period: [Limit(amount, period)], amounts, st.sampled_from([1.0, 2.0, 3.333333]))
checks = st.tuples(st.sampled_from(["hit", "hit", "hit", "check"]), st.integers(0, 3))
# So that some of a window expires between two calls, and some does not.
waits = st.sampled_from([0, 700, 90_000, 310_000, 620_000, 940_000, 1_800_000])


@settings(max_examples=150)
@given(
    st.one_of(one_window, one_window, limit_lists),
    st.lists(st.tuples(waits, st.lists(checks, min_size=1, max_size=8)), min_size=3, max_size=16),
)
async def test_checks_of_one_script_call_are_decided_one_after_another(
    url: str, clock: Clock, limits: list[Limit], steps: list[tuple[int, list[tuple[str, int]]]]
) -> None:
    name, now = next(names), START
    config = decode_config(limits, "limits")
    model = Model(config.limits, LEASE * 1_000_000)
    await clock.set(now)
    async with RateLimiter(url, limits={name: config}, lease=LEASE, hooks=[]) as limiter:
        for passes, calls in steps:
            now += passes
            await clock.set(now)
            asked, expected = [], []
            for op, number in calls:
                cost = dict.fromkeys(("requests", "tokens") & config.usual.keys(), number)
                costs = decode_cost(cost, config, limited=False)
                if any(costs[limit.unit] > limit.most for limit in config.limits):
                    continue
                answer = model.answer(now, costs)
                if op == "check" or any(limit.algorithm == "concurrent" for limit in config.limits):
                    asked.append(limiter.check(name, cost=cost))
                else:
                    asked.append(limiter.hit(name, cost=cost))
                    if answer.allowed:
                        model.take(now, costs)
                        answer = model.answer(now, dict.fromkeys(costs, 0))
                expected.append(answer)
            decisions = await asyncio.gather(*asked)
            assert [answer_of(decision, config.limits) for decision in decisions] == expected
        used = [limit.used for limit in (await limiter.status(name)).limits]
        assert used == [model.used_whole(i, now) for i in range(len(config.limits))]


@settings(max_examples=100)
@given(limit_lists, operations)
async def test_the_same_call_passes_after_exactly_retry_after_and_not_before(
    url: str, clock: Clock, limits: list[Limit], steps: list[tuple[str, int, int, int, int]]
) -> None:
    name, now = next(names), START
    config = decode_config(limits, "limits")
    await clock.set(now)
    async with RateLimiter(url, limits={name: config}, lease=LEASE, hooks=[]) as limiter:
        held: list[Grant] = []
        for _, passes, requests, tokens, _ in steps:
            now += passes
            await clock.set(now)
            cost = {u: n for u, n in {"requests": requests, "tokens": tokens}.items() if u in config.usual}
            if any(decode_cost(cost, config, limited=False)[limit.unit] > limit.most for limit in config.limits):
                continue
            decision = await limiter.check(name, cost=cost)
            assert decision.retry_after is not None
            retry = round(decision.retry_after * 1e6)
            if decision.allowed:
                held.append(await limiter.acquire(name, cost=cost, timeout=0))
                continue
            for early in (int(retry * 0.95), retry - 1):
                await clock.set(now + early)
                assert not (await limiter.check(name, cost=cost)).allowed
            now += retry
            await clock.set(now)
            assert (await limiter.check(name, cost=cost)).allowed


def assert_kept(limits: tuple[Limit, ...], log: list[tuple[int, dict[str, int]]]) -> None:
    """What ran when, at which costs, exceeds no limit."""
    for limit in limits:
        hits = [(at, costs[limit.unit]) for at, costs in log]
        if limit.algorithm == "sliding_window":
            for end, _ in hits:
                assert sum(cost for at, cost in hits if end - limit.period_us < at <= end) <= limit.amount
        elif limit.algorithm == "fixed_window":
            for end, _ in hits:
                index = end // limit.period_us
                assert sum(cost for at, cost in hits if at // limit.period_us == index) <= limit.amount
        elif limit.algorithm == "token_bucket":
            for (start, _), (end, _) in itertools.product(hits, hits):
                if start <= end:
                    passed = sum(cost for at, cost in hits if start <= at <= end)
                    assert passed * limit.period_us <= limit.most * limit.period_us + (end - start) * limit.amount
        elif limit.algorithm == "sliding_counter":
            for end, _ in hits:
                # The error that the docs state.
                assert sum(cost for at, cost in hits if end - limit.period_us < at <= end) < 2 * limit.amount + 1


@settings(max_examples=100)
@given(limit_lists, st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, 6), st.integers(0, 6)), max_size=30))
async def test_no_limit_is_ever_exceeded_by_what_is_granted(
    url: str, clock: Clock, limits: list[Limit], arrivals: list[tuple[int, int, int]]
) -> None:
    name, now = next(names), START
    config = decode_config(limits, "limits")
    log: list[tuple[int, dict[str, int]]] = []
    await clock.set(now)
    async with RateLimiter(url, limits={name: config}, lease=LEASE, hooks=[]) as limiter:
        for passes, requests, tokens in arrivals:
            now += passes
            await clock.set(now)
            cost = {u: n for u, n in {"requests": requests, "tokens": tokens}.items() if u in config.usual}
            costs = decode_cost(cost, config, limited=False)
            if any(costs[limit.unit] > limit.most for limit in config.limits):
                continue
            with contextlib.suppress(RequestTimeout):
                async with limiter.acquire(name, cost=cost, timeout=0):
                    log.append((now, dict(costs)))
    assert_kept(config.limits, log)


@pytest.mark.parametrize("evenly", [False, True])
async def test_the_error_of_a_sliding_counter_is_as_the_docs_state(url: str, clock: Clock, *, evenly: bool) -> None:
    name, amount, second = next(names), 50, 1_000_000
    taken: list[int] = []
    first = (START // second + 1) * second
    async with RateLimiter(url, limits={name: f"{amount}/second sliding_counter"}, hooks=[]) as limiter:
        # All at once at the very end of a window and then whatever passes; or a little more than passes, evenly.
        times = [first - 1] * amount if not evenly else []
        times += range(first, first + 3 * second, second // (2 * amount) if not evenly else second // (amount + 5))
        for now in times:
            await clock.set(now)
            if (await limiter.hit(name)).allowed:
                taken.append(now)
    most = max(sum(end - second < at <= end for at in taken) for end in taken)
    if evenly:
        assert amount - 1 <= most <= amount + 1
    else:
        assert 1.8 * amount < most < 2 * amount


@pytest.mark.parametrize("algorithm", ["sliding_window", "fixed_window", "sliding_counter", "token_bucket"])
async def test_how_long_a_check_waits_is_known_whatever_was_charged_before_it_in_the_same_call(
    url: str, clock: Clock, algorithm: str
) -> None:
    limits = [f"10 per 10 seconds {algorithm}", "1000/hour"]
    async with RateLimiter(url, limits={"a": limits}, hooks=[]) as limiter:
        for by in ("together", "one by one"):
            await clock.set(START)
            await limiter.hit("a", by=by, cost=10)
        for by in ("together", "one by one"):
            await clock.set(START + 15_000_000)
            await limiter.hit("a", by=by, cost=2)
        await clock.set(START + 15_500_000)
        # The last one lacks as much as the first, but something was charged in between.
        costs = [9, 2, 7]
        # The first of a turn is sent by itself.
        hits = (limiter.hit("a", by="together", cost=cost) for cost in costs)
        _, *together = await asyncio.gather(limiter.check("a", by="another"), *hits)
        assert [decision.allowed for decision in together] == [False, True, False]
        assert together == [await limiter.hit("a", by="one by one", cost=cost) for cost in costs]


async def test_a_fixed_window_goes_on_where_the_clock_has_stepped_back(url: str, clock: Clock) -> None:
    limits = ["5 per 10 seconds fixed_window", "1000/hour"]
    async with RateLimiter(url, limits={"a": limits}, hooks=[]) as limiter:
        for step in (15_000_000, 5_000_000, 15_000_000, 5_000_000):
            await clock.set(START + step)
            assert (await limiter.hit("a")).allowed
        await clock.set(START + 15_000_000)
        assert (await limiter.status("a")).limits[0].used == 4


@pytest.mark.parametrize(
    ("limit", "charged", "waiters", "due"),
    [
        pytest.param("3/second", [0, 2_000, 20_000], 1, 1_250, id="alone"),
        pytest.param("3/second", [0, 2_000, 20_000], 3, 2_500, id="two soon after one another"),
        pytest.param("3/second", [0, 20_000, 40_000], 3, 1_250, id="nobody soon after the first"),
        pytest.param("3/second", [0, 2_000, 4_000], 9, 5_000, id="as many as there can be"),
        pytest.param("5/second", [0, 1_300, 2_600, 4_000, 20_000], 9, 5_000, id="four of five"),
        pytest.param("2/second", [0, 0], 9, 1_250, id="all at once"),
        pytest.param("2/second; 1000 tokens/hour", [0, 3_000], 9, 3_750, id="one of two limits"),
        pytest.param("3/second from finish", [0, 2_000, 20_000], 2, 5_250, id="what runs"),
    ],
)
async def test_a_grant_is_put_off_for_those_who_may_pass_soon_after_and_for_nobody_else(
    url: str, clock: Clock, limit: str, charged: list[int], waiters: int, due: int
) -> None:
    # Nothing is granted ahead for a fixed window.
    limits = limit if "finish" in limit else f"{limit}; 1000000/hour fixed_window"
    async with RateLimiter(url, limits={"a": limits}, hooks=[]) as limiter:
        told: list[float] = []
        limiter._live().executor.on_next = lambda _key, seconds: told.append(seconds)
        for at in charged:
            await clock.set(START + at)
            async with limiter.acquire("a"):
                pass
        await clock.set(START + 100_000)
        waiting = [asyncio.ensure_future(limiter.acquire("a").__aenter__()) for _ in range(waiters)]
        await eventually(lambda: depth_is(limiter, "a", waiters))
        for elapsed in (0, 500):
            # The grants themselves may take some time.
            await clock.go_on(elapsed)
            told.clear()
            await clock.set(START + 100_000 - elapsed)
            scripts = limiter._live().scripts
            assert scripts.granted(await scripts.grant(limiter._key_of("a", None), 100)) == 0
            assert told == [pytest.approx((1_000_000 + due - 100_000 - elapsed) / 1e6, abs=1e-9)]
        await clock.go_on(0)
        for waiter in waiting:
            waiter.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


granted_ahead = st.lists(
    st.one_of(
        st.builds(Limit, amounts, periods, st.just("sliding_window"), units),
        st.builds(Limit, amounts, periods, st.just("token_bucket"), units, burst=st.integers(1, 12)),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda limit: (limit.algorithm, limit.unit, limit.period),
)


class Asked:
    """A client of one key that sends what a test says and nothing else, and notes what ran when."""

    def __init__(self, limiter: RateLimiter, name: str, clock: Clock) -> None:
        self.scripts = limiter._live().scripts
        self.key = limiter._key_of(name, None)
        self.log: dict[int, tuple[int, dict[str, int]]] = {}
        self.waiting: dict[int, dict[str, int]] = {}
        self.now = START
        # us, as told last.
        self.next = -1.0
        self._clock = clock
        self._numbers = itertools.count(1)
        executor = limiter._live().executor
        assert isinstance(executor, Executor)
        executor.on_next = self._on_next
        # Whatever a reply takes here.
        executor._lead = lambda: 10_000

    def _on_next(self, _key: object, seconds: float) -> None:
        self.next = seconds * 1e6

    async def pass_by(self, us: int) -> None:
        self.now += us
        await self._clock.set(self.now)

    async def request(self, costs: dict[str, int]) -> None:
        seq = next(self._numbers)
        text = encode_costs(costs, self.key.config.usual)
        reply = await self.scripts.request(self.key, str(seq), 0, text, None)
        if self.scripts.admission(self.key, reply).kind == "A":
            self.log[seq] = (self.now, costs)
        else:
            self.waiting[seq] = costs

    async def grant(self, most: int) -> list[int]:
        """Have grants given, and claim them; the times, us, from which on they run."""
        await self.scripts.grant(self.key, most)
        if not self.waiting:
            return []
        records, now = self.scripts.claimed(await self.scripts.claim(self.key, map(str, self.waiting)))
        assert now == self.now
        times: list[int] = []
        for seq, record in zip(list(self.waiting), records, strict=True):
            charged = self.scripts.record(self.key, record)
            if charged is not None:
                assert isinstance(charged, Charged)
                assert self.now <= charged.stamp <= self.now + 15_000
                times.append(charged.stamp)
                self.log[seq] = (charged.stamp, self.waiting.pop(seq))
        return times

    async def take_back(self, seq: int) -> None:
        at, costs = self.log.pop(seq)
        text, free = (encode_costs(c, self.key.config.usual) for c in (costs, dict.fromkeys(costs, 0)))
        await self.scripts.adjust(self.key, seq, at, text, free, ends=True)


@settings(max_examples=150)
@given(
    granted_ahead,
    st.lists(
        st.tuples(
            st.sampled_from(["request", "request", "request", "hit", "grant", "grant", "look", "take back"]),
            st.one_of(st.just(0), st.integers(0, 3_000), st.integers(0, 20_000), st.integers(0, 3_000_000)),
            st.integers(0, 6),
            st.integers(0, 6),
            st.integers(1, 20),
        ),
        min_size=5,
        max_size=40,
    ),
)
async def test_what_is_granted_ahead_exceeds_no_limit_beside_checks_and_refunds(
    url: str, clock: Clock, limits: list[Limit], steps: list[tuple[str, int, int, int, int]]
) -> None:
    name = next(names)
    config = decode_config(limits, "limits")
    await clock.set(START)
    async with RateLimiter(url, limits={name: config}, lease=3600, hooks=[]) as limiter:
        asked = Asked(limiter, name, clock)
        hits: list[tuple[int, dict[str, int]]] = []
        for op, passes, requests, tokens, pick in steps:
            # Often just when somebody is to look.
            await asked.pass_by(int(asked.next) if op == "look" and 0 <= asked.next < 1e7 else passes)
            cost = {u: n for u, n in {"requests": requests, "tokens": tokens}.items() if u in config.usual}
            costs = dict(decode_cost(cost, config, limited=False))
            early = [seq for seq, (at, _) in asked.log.items() if at > asked.now]
            if op in ("grant", "look"):
                event("ahead" if any(at > asked.now for at in await asked.grant(pick)) else "not ahead")
            elif op == "take back" and early:
                await asked.take_back(early[pick % len(early)])
            elif any(costs[limit.unit] > limit.most for limit in config.limits):
                continue
            elif op == "request":
                await asked.request(costs)
            elif op == "hit" and (await limiter.hit(name, cost=cost)).allowed:
                hits.append((asked.now, costs))
        # Whoever waits gets a turn, and whoever looks when told to needs no more calls than a few for each.
        for _ in range(4 * len(asked.waiting) + 4):
            await asked.pass_by(max(int(asked.next), 0))
            await asked.grant(20)
        assert asked.waiting == {}
        assert_kept(config.limits, [*asked.log.values(), *hits])


async def test_a_grant_is_given_ahead_and_until_its_time_nothing_else_passes(url: str, clock: Clock) -> None:
    async with RateLimiter(url, limits={"a": "3/second"}, hooks=[]) as limiter:
        asked = Asked(limiter, "a", clock)
        for us in (0, 2_000, 50_000):
            await asked.pass_by(us)
            assert (await limiter.hit("a")).allowed
        for _ in range(4):
            await asked.request({"requests": 1})
        # A bucket is 1,250 us; those charged first count for a second after the end of theirs.
        assert asked.next == pytest.approx(1_000_000 + 1_250 - 52_000 - 10_000, abs=1)
        await asked.pass_by(986_500 - 52_000)
        assert await asked.grant(10) == [START + 1_001_250]
        assert asked.next == pytest.approx(1_002_500 - 986_500 - 10_000, abs=1)
        await asked.pass_by(6_000)
        assert await asked.grant(10) == [START + 1_002_500]
        assert asked.next == pytest.approx(1_052_500 - 992_500 - 10_000, abs=1)
        await asked.pass_by(1_045_000 - 992_500)
        assert await asked.grant(10) == [START + 1_052_500]
        # What one of them gives back before its time is the next one's.
        await asked.take_back(max(asked.log))
        assert await asked.grant(10) == [START + 1_052_500]
        assert asked.waiting == {}
        denied = await limiter.hit("a")
        assert not denied.allowed
        assert denied.retry_after == pytest.approx((2_002_500 - 1_045_000) / 1e6)
        # What is to come counts already, beside what still counts until then.
        assert (await limiter.status("a")).limits[0].used == 4


async def test_a_task_that_will_be_late_by_its_turn_is_looked_at_again_only_then(url: str, clock: Clock) -> None:
    limiter = RateLimiter(url, limits={"a": "1/second"}, hooks=[])

    @limiter.task("note")
    async def note() -> None:
        """Do nothing."""

    async with limiter:
        asked = Asked(limiter, "a", clock)
        await limiter.hit("a")
        late = await limiter.submit("a", note, timeout=0.99)
        await limiter.submit("a", note)

        async def are_two_that_can_be_run() -> bool:
            status = await limiter.status("a")
            return status.queue.depth == 2 and status.tasks.workers == 1

        await eventually(are_two_that_can_be_run)
        await asked.pass_by(988_000)
        await asked.grant(10)
        assert asked.next == pytest.approx(1_001_250 - 988_000, abs=1)
        assert not late.done
        await asked.pass_by(13_250)
        await asked.grant(10)
        with pytest.raises(RequestTimeout):
            await late


@pytest.mark.parametrize(
    ("limit", "grants"),
    [
        ("100 per 1 second burst 1", [10_000]),
        ("400 per 1 second burst 1", [2_500, 5_000, 7_500, 10_000, 12_500, 15_000]),
        ("2000 per 1 second burst 1", [500 * n for n in range(1, 17)]),
        ("400 per 1 second burst 3; 1000 tokens/second", [2_500, 5_000, 7_500, 10_000, 12_500, 15_000]),
    ],
)
async def test_one_call_grants_ahead_all_that_pass_within_its_lead(
    url: str, clock: Clock, limit: str, grants: list[int]
) -> None:
    async with RateLimiter(url, limits={"a": limit}, hooks=[]) as limiter:
        asked = Asked(limiter, "a", clock)
        for _ in range(40):
            await asked.request({"requests": 1})
        # Each a little later than it might be.
        assert [at - START for at in await asked.grant(50)] == pytest.approx(grants, abs=20)
