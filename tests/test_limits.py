"""Limits: what can be written, and what every mistake says."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_async import ConfigurationError, Limit
from ratelimit_async._limits import LimitOptions, decode_limits, parse_limits

TEXTS = {
    "500/minute": [Limit(500, 60)],
    "100/m": [Limit(100, 60)],
    "5/10 seconds": [Limit(5, 10)],
    "100 per 30 seconds": [Limit(100, 30)],
    "100 per minute": [Limit(100, 60)],
    "30000 tokens/minute": [Limit(30000, 60, unit="tokens")],
    "  1_000 / DAY ": [Limit(1000, 86400)],
    "7/week": [Limit(7, 604800)],
    "1/250ms": [Limit(1, 0.25)],
    "2 per 0.5 seconds": [Limit(2, 0.5)],
    "1000/day fixed_window": [Limit(1000, 86400, "fixed_window")],
    "500/minute; 30000 tokens/minute": [Limit(500, 60), Limit(30000, 60, unit="tokens")],
    "10/second burst 20": [Limit(10, 1, "token_bucket", burst=20)],
    "10/second token_bucket": [Limit(10, 1, "token_bucket", burst=10)],
    "10/second  from finish  guard 0.05": [Limit(10, 1, count_from="finish", guard=0.05)],
    "5/minute sliding_counter": [Limit(5, 60, "sliding_counter")],
    "20 concurrent": [Limit.concurrent(20)],
    "8 gpus concurrent": [Limit.concurrent(8, unit="gpus")],
    "8 concurrent/minute": [Limit(8, 60, unit="concurrent")],
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_limits(text: str) -> None:
    assert list(parse_limits(text, "limits")) == TEXTS[text]


words = st.one_of(
    st.sampled_from(["requests", "per", "concurrent", "burst", "guard", "from"]),
    st.from_regex("[a-z][a-z0-9_]{0,31}", fullmatch=True),
)
concurrencies = st.builds(Limit.concurrent, st.integers(1, 2**40), unit=words)
rates = st.builds(
    Limit,
    amount=st.integers(1, 2**40),
    period=st.one_of(
        st.sampled_from([1, 60, 3600, 86400, 604800]),
        st.floats(0.001, 1e8, allow_nan=False),
    ),
    algorithm=st.sampled_from(["sliding_window", "sliding_counter", "token_bucket"]),
    unit=words,
    count_from=st.sampled_from(["start", "finish"]),
    guard=st.one_of(st.just(0), st.floats(0, 10)),
)
bursts = st.builds(Limit.per_minute, st.integers(1, 2**40), burst=st.integers(1, 2**40), unit=words)
calendars = st.builds(Limit.per_day, st.integers(1, 2**40), algorithm=st.just("fixed_window"), unit=words)


@given(st.one_of(rates, concurrencies, bursts, calendars))
@example(Limit(5, 60, unit="per"))
@example(Limit(5, 61, unit="per"))
def test_the_text_of_a_limit_reads_back_as_the_same_limit(limit: Limit) -> None:
    assert parse_limits(str(limit), "limits") == (limit,)


@given(st.one_of(st.text(), st.text("0123456789 per/;secondmiut_.", max_size=30)))
@example("1_/minute")
@example("1__0/minute")
@example("1/1_ s")
@example("9" * 5000 + "/minute")
@example("1/" + "9" * 5000 + " s")
def test_no_text_gives_anything_but_limits_or_a_configuration_error(text: str) -> None:
    try:
        assert parse_limits(text, "limits")
    except ConfigurationError as error:
        assert error.field.startswith("limits")
        assert error.value == text


@pytest.mark.parametrize(
    ("spec", "field", "problem"),
    [
        ("", "x", "cannot be read"),
        ("500/minute;", "x", "cannot be read"),
        ("0/minute", "x.amount", "whole number"),
        ("0.5/minute", "x", "cannot be read"),
        ("-5/minute", "x", "cannot be read"),
        ("5/fortnight", "x", "no period"),
        ("5/ss", "x", "no period"),
        ("\N{ARABIC-INDIC DIGIT THREE}/minute", "x", "cannot be read"),
        ("5/0 seconds", "x.period", "must be seconds"),
        ("5/minute leaky", "x.algorithm", "must be one of"),
        ("10/second burst 0", "x.burst", "whole number"),
        ("10/second sliding_window burst 20", "x.burst", "for 'token_bucket' only"),
        ("10/second burst", "x.algorithm", "must be one of"),
        ("10/second burst 1 burst 2", "x", "gives burst twice"),
        ("10/second guard x y", "x", "gives algorithm twice"),
        ("10/second !", "x", "an option that cannot be read"),
        ("10/day fixed_window guard 1", "x.guard", "cannot lengthen"),
        ("10/second concurrent", "x.period", "must be 0"),
        ("0 concurrent", "x.amount", "whole number"),
        ({"amount": 5, "period": 1, "guard": -1}, "x.guard", "must be seconds"),
        ({"amount": 5, "period": 1, "count_from": "middle"}, "x.count_from", "must be 'start' or 'finish'"),
        ({"amount": 5, "algorithm": "concurrent", "count_from": "finish"}, "x.count_from", "while it runs"),
        ({"amount": 5, "algorithm": "concurrent", "guard": 1}, "x.guard", "cannot lengthen"),
        ({"amount": 5, "period": 1, "burst": 2.5}, "x.burst", "whole number"),
        ((0, 60), "x.amount", "whole number"),
        ((-1, 60), "x.amount", "whole number"),
        ((True, 60), "x.amount", "whole number"),
        ((1.5, 60), "x.amount", "whole number"),
        ((10**5000, 60), "x.amount", "whole number"),
        ((5, 10**400), "x.period", "must be seconds"),
        ((5, 0), "x.period", "must be seconds"),
        ((5, -1.0), "x.period", "must be seconds"),
        ((5, float("nan")), "x.period", "must be seconds"),
        ((5, "minute"), "x.period", "must be seconds"),
        ([], "x", "no limit"),
        (None, "x", "must be a text"),
        (b"5/minute", "x", "must be a text"),
        ({"amount": 5}, "x.period", "is missing"),
        ({"amount": 5, "period": 1, "perod": 2}, "x.perod", "is not one of"),
        ({"amount": 5, "period": 1, "unit": "To kens"}, "x.unit", "must be a word"),
        (["5/minute", (7, 60)], "x", "twice"),
        (["5/minute", "7/hour", (0, 1)], "x[2].amount", "whole number"),
        ([(n, n) for n in range(1, 11)], "x", "more than 8"),
    ],
)
def test_a_mistake_names_the_field_and_the_value(spec: Any, field: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        decode_limits(spec, "x")
    assert caught.value.field == field
    assert problem in str(caught.value)


def test_all_forms_of_a_limit_are_one() -> None:
    forms: list[object] = [
        "500/minute",
        (500, 60),
        (500, timedelta(minutes=1)),
        {"amount": 500, "period": 60},
        Limit(500, 60),
        Limit.per_minute(500),
        {"amount": 500, "period": 60, "algorithm": "sliding_window", "unit": "requests"},
        ["500/minute"],
    ]
    assert {decode_limits(form, "x") for form in forms} == {(Limit(500, 60),)}


def test_named_constructors_say_their_period() -> None:
    constructors = [Limit.per_second, Limit.per_minute, Limit.per_hour, Limit.per_day]
    assert [make(2).period for make in constructors] == [1, 60, 3600, 86400]
    assert Limit.per_second(10, burst=20) == Limit(10, 1, "token_bucket", burst=20)
    assert Limit.concurrent(20) == Limit(20, 0, "concurrent")


def test_the_options_of_named_constructors_are_the_fields_of_a_limit() -> None:
    assert {"amount", "period", *LimitOptions.__optional_keys__} == set(Limit.__struct_fields__)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"algorithm": "magic"}, "algorithm"),
        ({"algorithm": "concurrent"}, "period"),
        ({"unit": " "}, "unit"),
        ({"burst": 7}, "burst"),
    ],
)
def test_a_limit_checks_its_own_fields(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limit(5, 1.0, **fields)
    assert caught.value.field == field
