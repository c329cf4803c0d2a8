"""Names, subjects and prefixes may be anything: none gets at what belongs to another."""

from __future__ import annotations

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from ratelimit_async import RateLimitConfig, RateLimiter
from ratelimit_async._keys import Key, KeyNames
from ratelimit_async._spelling import escape_word, parse_label, parse_request_id, plain_word, task_id
from tests.helpers import client_of

CONFIG = RateLimitConfig(
    ["5/minute", "9/day fixed_window", "7/hour sliding_counter", "3/second burst 4", "2 concurrent", "50 tokens/minute"]
)
# What separates, escapes, tags, globs, ends or breaks something somewhere, and few letters, so that they meet again.
PIECES = ["{", "}", ":", "}:", "{rl:", "%", "%7D", "%3A", "%25", "d", "q0", "sw:requests:0", "a", "rl", "control"]
PIECES += ["\n", "\r\n", "\0", " ", "*", "?", "[a]", "^", "\\", ".", "-", "~", "+", "/", "é", "e\u0301", "💥", "\ud800"]
PIECES += ["\udc80", "\uffff", "reply", "all", "c:", "p:", "nobody.1"]
hostile = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join),
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=8),
    st.sampled_from(PIECES).map(lambda piece: (piece * 256)[:256]),
)
prefixes = hostile.map(lambda text: text[:64])
triples = st.tuples(prefixes, hostile, st.none() | hostile)
# At what Redis' patterns mean something else than itself.
GLOB = re.compile(r"[*?\[\]\\]")


def names_of(prefix: str) -> KeyNames:
    return KeyNames(prefix, lambda _name, _by: CONFIG, lambda _event: None)


def spelt(prefix: str, name: str, by: str | None) -> Key:
    return names_of(prefix).key(name, by)


@given(one=triples, other=triples)
@example(one=("rl", "a:b", None), other=("rl", "a", "b"))
@example(one=("rl", "a", "b"), other=("rl:a", "b", None))
@example(one=("rl", "a}:d", None), other=("rl", "a", None))
@example(one=("rl}", "a", None), other=("rl", "}a", None))
@example(one=("rl", "%61", None), other=("rl", "a", None))
@example(one=("rl", "é", None), other=("rl", "e\u0301", None))
@example(one=("rl", "None", "None"), other=("rl", "None", None))
def test_two_never_share_a_redis_key_a_channel_or_a_field(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None]
) -> None:
    keys = [spelt(*triple) for triple in (one, other)]
    shared = {*keys[0].redis, *keys[0].durable} & {*keys[1].redis, *keys[1].durable}
    assert (one == other) == bool(shared)
    labels = [names_of(prefix).change_field(name, by) for prefix, name, by in (one, other)]
    assert (one[1:] == other[1:]) == (labels[0] == labels[1])
    fields = [names_of(prefix).pause_field(name) for prefix, name, _ in (one, other)]
    assert (one[1] == other[1]) == (fields[0] == fields[1])
    for ours in (
        lambda names: names.channels,
        lambda names: names.control[0],
        lambda names: names.control[1],
        lambda names: names.index,
    ):
        mine, theirs = (ours(names_of(prefix)) for prefix in (one[0], other[0]))
        assert (one[0] == other[0]) == (mine == theirs)
        assert mine == theirs or not theirs.startswith(mine)
        assert theirs.encode() not in {*keys[0].redis, *keys[1].redis}


@given(triple=triples)
def test_all_keys_of_one_are_distinct_share_a_slot_and_are_plain(triple: tuple[str, str, str | None]) -> None:
    key = spelt(*triple)
    assert len({*key.redis, *key.durable}) == len(key.redis) + len(key.durable)
    assert {key_slot(name) for name in (*key.redis, *key.durable)} == {key_slot(key.driver)}
    for name in (*key.redis, *key.durable):
        # The tag is the whole label, so that a cluster spreads keys, and what is in it ends there.
        tag, end, part = name.partition(b"}")
        assert tag.startswith(b"{")
        assert tag.count(b"{") == end.count(b"}") == 1
        assert not {b"{", b"}"} & {part[i : i + 1] for i in range(len(part))}
        assert name.isascii()
        assert not re.search(rb"[\s\0*?\[\]\\]", name)


@given(triple=triples)
def test_what_is_spelt_is_read_back(triple: tuple[str, str, str | None]) -> None:
    prefix, name, by = triple
    names = names_of(prefix)
    key = names.key(name, by)
    assert {names.parse(redis_key.decode()) for redis_key in key.redis} == {(name, by)}
    assert names.parse_driver(key.driver.decode()) == (name, by)
    assert parse_label(key.label) == parse_label(names.change_field(name, by)) == (name, by)
    assert [names.parse(shared) for shared in (*names.control, names.index)] == [None] * 3


@given(triple=triples, other=prefixes)
def test_another_prefix_reads_none_of_it(triple: tuple[str, str, str | None], other: str) -> None:
    names = names_of(other)
    for redis_key in spelt(*triple).redis:
        assert (names.parse(redis_key.decode()) is not None) == (other == triple[0])


@given(triple=triples, client=st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True), seq=st.integers(0, 2**53))
def test_an_id_is_read_back(triple: tuple[str, str, str | None], client: str, seq: int) -> None:
    _, name, by = triple
    own = f"{client}.{seq}"
    assert parse_request_id(f"{spelt(*triple).label}:{own}") == (name, by, own)


@given(triple=triples, mine=hostile)
def test_an_id_of_ones_own_is_read_back(triple: tuple[str, str, str | None], mine: str) -> None:
    _, name, by = triple
    own = f"*.{escape_word(mine)}"
    assert parse_request_id(task_id(spelt(*triple).label, escape_word(mine))) == (name, by, own)
    assert plain_word(own.removeprefix("*.")) == mine


@given(text=hostile, triple=triples)
def test_what_is_no_id_is_none_or_names_what_it_spells(text: str, triple: tuple[str, str, str | None]) -> None:
    for forged in (text, f"{text}::nobody.1", f"{spelt(*triple).label}:{text}", f"{text}:nobody.1"):
        found = parse_request_id(forged)
        if found is not None:
            name, by, own = found
            # Whatever is given, its keys are those of that name and subject, and of no other.
            assert names_of("rl").parse(spelt("rl", name, by).driver.decode()) == (name, by)
            assert ":" not in own
            assert " " not in own


@given(prefix=prefixes, start=hostile)
def test_a_pattern_has_no_other_glob_than_its_end(prefix: str, start: str) -> None:
    for whole in (False, True):
        pattern = names_of(prefix).pattern(start, whole=whole)
        assert not GLOB.search(pattern.removesuffix("*"))
        assert pattern.endswith(":*" if whole else "*")


numbers = itertools.count()


@given(prefix=prefixes.map(lambda text: text[:40]), known=st.sets(hostile, min_size=1, max_size=6), start=hostile)
async def test_no_listing_is_fooled(url: str, prefix: str, known: set[str], start: str) -> None:
    prefix = f"{next(numbers)} {prefix}"
    async with RateLimiter(url, prefix=prefix, default="5/minute", hooks=[]) as limiter, client_of(url) as client:
        for name in known:
            await limiter.hit(name)
            await limiter.hit(name, by=start)
        listed = [(key.name, key.by) async for key in limiter.keys(start)]
        assert len(set(listed)) == len(listed)
        assert set(listed) == {(name, by) for name in known if name.startswith(start) for by in (None, start)}
        for name in known:
            assert (await limiter.status(name, total=True)).limits[0].used == 2
        await client.flushall()
