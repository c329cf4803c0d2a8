"""Headers: what upstreams tell of their limits, in all the ways they do."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_async import ConfigurationError
from ratelimit_async._headers import Upstream, UpstreamLimit, read_headers
from ratelimit_async._limits import MOST

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
DAY = 86_400.0
MONTH = 30 * DAY


def told(
    remaining: int,
    limit: int | None = None,
    reset_after: float | None = None,
    period: float | None = None,
    unit: str = "requests",
) -> UpstreamLimit:
    return UpstreamLimit(unit=unit, remaining=remaining, limit=limit, reset_after=reset_after, period=period)


UPSTREAMS: dict[str, tuple[dict[str, str], list[UpstreamLimit]]] = {
    "OpenAI": (
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        [told(59, 60, 1.0), told(149_984, 150_000, 360.0, unit="tokens")],
    ),
    "Azure OpenAI, used beyond": (
        {
            "x-ratelimit-limit-requests": "1",
            "x-ratelimit-remaining-requests": "-1",
            "x-ratelimit-reset-requests": "105",
        },
        [told(0, 1, 105.0)],
    ),
    "Azure OpenAI, not limited": (
        {"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"},
        [],
    ),
    "Azure Resource Manager": (
        {"x-ms-ratelimit-remaining-subscription-reads": "11999"},
        [told(11_999, unit="subscription_reads")],
    ),
    "Anthropic": (
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:01Z",
            "anthropic-ratelimit-input-tokens-limit": "30000",
            "anthropic-ratelimit-input-tokens-remaining": "29000",
            "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:02.500Z",
            "anthropic-ratelimit-output-tokens-remaining": "8000",
            "anthropic-ratelimit-unified-status": "allowed",
        },
        [told(49, 50, 1.0), told(29_000, 30_000, 2.5, unit="input_tokens"), told(8000, unit="output_tokens")],
    ),
    "Cerebras": (
        {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-remaining-requests-day": "14399",
            "x-ratelimit-reset-requests-day": "33011.382867",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "59000",
        },
        [told(14_399, 14_400, 33_011.382867, DAY), told(59_000, 60_000, None, 60.0, "tokens")],
    ),
    "Mistral": (
        {
            "x-ratelimit-limit-req-minute": "60",
            "x-ratelimit-remaining-req-minute": "59",
            "x-ratelimit-remaining-tokens-month": "3950246",
            "x-ratelimit-tokens-query-cost": "2804",
        },
        [told(59, 60, None, 60.0), told(3_950_246, None, None, MONTH, "tokens")],
    ),
    "GitHub": (
        {
            "X-RateLimit-Limit": "5000",
            "X-RateLimit-Remaining": "4987",
            "X-RateLimit-Reset": "1767227400",
            "X-RateLimit-Used": "13",
            "X-RateLimit-Resource": "core",
        },
        [told(4987, 5000, 1800.0)],
    ),
    "GitLab": (
        {
            "RateLimit-Limit": "600",
            "RateLimit-Name": "throttle_authenticated_web",
            "RateLimit-Observed": "1",
            "RateLimit-Remaining": "599",
            "RateLimit-Reset": "1767225660",
            "RateLimit-ResetTime": "Thu, 01 Jan 2026 00:01:00 GMT",
        },
        [told(599, 600, 60.0)],
    ),
    "Omnisend": (
        {"X-Rate-Limit-Limit": "400", "X-Rate-Limit-Remaining": "399", "X-Rate-Limit-Reset": "42"},
        [told(399, 400, 42.0)],
    ),
    "Kong": (
        {
            "X-RateLimit-Limit-Second": "5",
            "X-RateLimit-Remaining-Second": "4",
            "X-RateLimit-Limit-Hour": "10000",
            "X-RateLimit-Remaining-Hour": "9900",
        },
        [told(4, 5, None, 1.0), told(9900, 10_000, None, 3600.0)],
    ),
    "RapidAPI": (
        {"x-ratelimit-requests-limit": "500", "x-ratelimit-requests-remaining": "20"},
        [told(20, 500)],
    ),
    "Brave, two limits in each list": (
        {
            "X-RateLimit-Limit": "1, 15000",
            "X-RateLimit-Policy": "1;w=1, 15000;w=2592000",
            "X-RateLimit-Remaining": "1, 1000",
            "X-RateLimit-Reset": "1, 1419704",
        },
        [told(1, 1, 1.0, 1.0), told(1000, 15_000, 1_419_704.0, MONTH)],
    ),
    "draft 2, the policies in the limit": (
        {"RateLimit-Limit": "100, 100;w=60, 5000;w=3600", "RateLimit-Remaining": "50", "RateLimit-Reset": "30"},
        [told(50, 100, 30.0, 60.0)],
    ),
    "draft 6, the policies in their own field": (
        {
            "RateLimit-Limit": "5000",
            "RateLimit-Policy": '1000;w=3600;comment="a, b; c", 5000;w=86400',
            "RateLimit-Remaining": "100",
            "RateLimit-Reset": "36000",
        },
        [told(100, 5000, 36_000.0, DAY)],
    ),
    "draft 7, one field": (
        {"RateLimit": "limit=100, remaining=50, reset=50", "RateLimit-Policy": "100;w=60"},
        [told(50, 100, 50.0, 60.0)],
    ),
    "draft 10, joined by name": (
        {
            "RateLimit": '"default";r=50;t=30, "burst";r=2',
            "RateLimit-Policy": '"default";q=100;w=60;qu="requests", "burst";q=10;w=1',
        },
        [told(50, 100, 30.0, 60.0), told(2, 10, None, 1.0)],
    ),
    "draft 10, other units": (
        {
            "RateLimit": '"bytes";r=300;t=5;pk=:cHsdsRa894==:, slots;r=3',
            "RateLimit-Policy": '"bytes";q=65535;qu="content-bytes";w=10, slots; q=4; qu=concurrent-requests',
        },
        [told(300, 65_535, 5.0, 10.0, "content_bytes"), told(3, 4, unit="concurrent")],
    ),
    "draft 10, without policies": ({"RateLimit": '"default";r=50'}, [told(50)]),
    "draft 10, the quota beside what remains": (
        {"RateLimit-Policy": '"sliding";q=12;w=1', "RateLimit": '"sliding";q=6;r=5;t=1'},
        [told(5, 6, 1.0, 1.0)],
    ),
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_what_an_upstream_sends_is_read(upstream: str) -> None:
    headers, limits = UPSTREAMS[upstream]
    assert read_headers(headers, NOW) == Upstream(retry_after=None, limits=tuple(limits))


TIMES = {
    "0": 0.0,
    "120": 120.0,
    "1.5": 1.5,
    " 7 ": 7.0,
    "1e2": 100.0,
    "-5": 0.0,
    "9" * 400: MONTH,
    "1e999": MONTH,
    "1767225660": 60.0,
    "1767225660000": 60.0,
    "1767225540": 0.0,
    "2026-01-01T00:01:00Z": 60.0,
    "2026-01-01t01:01:00.25+01:00": 60.25,
    "2026-01-01T00:01:00": 60.0,
    "2025-12-31T23:59:00Z": 0.0,
    "9999-12-31T23:59:59Z": MONTH,
    "Thu, 01 Jan 2026 00:01:00 GMT": 60.0,
    "Thursday, 01-Jan-26 00:01:00 GMT": 60.0,
    "Thu Jan  1 00:01:00 2026": 60.0,
    "Thu Jan 01 2026 01:01:00 GMT+0100 (Central European Standard Time)": 60.0,
    "1s": 1.0,
    "6m0s": 360.0,
    "1h2m3.5s": 3723.5,
    "20ms": 0.02,
    "250us": 0.00025,
    "250µs": 0.00025,
    "250Âµs": 0.00025,
    "2d": 2 * DAY,
    "-1m5s": 0.0,
    "9" * 400 + "h": MONTH,
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_read_as_seconds_from_now_wherever_it_stands(text: str) -> None:
    upstream = read_headers({"Retry-After": text, "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": text}, NOW)
    assert upstream.retry_after == pytest.approx(TIMES[text])
    assert upstream.limits[0].reset_after == pytest.approx(TIMES[text])


@pytest.mark.parametrize("text", ["", "soon", "inf", "nan", "1_0", "0x10", "٣", "1m 5", "5x", "Thu, 99 Jan 2026", "—"])
def test_a_time_that_cannot_be_read_is_passed_over(text: str) -> None:
    upstream = read_headers({"Retry-After": text, "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": text}, NOW)
    assert upstream == Upstream(retry_after=None, limits=(told(1),))


@pytest.mark.parametrize(
    ("in_ms", "seconds"), [("1500", 1.5), ("0", 0.0), ("-1", 0.0), ("1e300", MONTH), ("soon", 9.0), ("nan", 9.0)]
)
def test_retry_after_ms_wins_over_retry_after_if_it_can_be_read(in_ms: str, seconds: float) -> None:
    assert read_headers({"retry-after-ms": in_ms, "Retry-After": "9"}, NOW).retry_after == seconds


@pytest.mark.parametrize(
    ("text", "remaining"), [("7", 7), ("7.9", 7), ('"7"', 7), ("-3", 0), ("-0.5", 0), ("9" * 400, MOST)]
)
def test_what_remains_is_a_whole_number_never_below_0(text: str, remaining: int) -> None:
    assert read_headers({"X-RateLimit-Remaining": text}, NOW).limits == (told(remaining),)


@pytest.mark.parametrize("text", ["", "many", "inf", "nan", "None", "--1", ","])
def test_an_entry_without_a_readable_remaining_is_left_out(text: str) -> None:
    headers = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining-Tokens": text, "RateLimit": f'"a";r={text}, "b"'}
    assert read_headers(headers, NOW).limits == ()


@pytest.mark.parametrize("limit", ["-5", "nan", "unlimited"])
def test_a_limit_that_makes_no_sense_is_not_told(limit: str) -> None:
    headers = {"X-RateLimit-Limit": limit, "X-RateLimit-Remaining": "3"}
    assert read_headers(headers, NOW).limits == (told(3),)


@pytest.mark.parametrize("window", ["0", "-1", "x", ""])
def test_a_window_that_makes_no_sense_is_not_told(window: str) -> None:
    headers = {"RateLimit": '"a";r=1', "RateLimit-Policy": f'"a";q=2;w={window}'}
    assert read_headers(headers, NOW).limits == (told(1, 2),)


def test_a_policy_without_a_quota_says_nothing() -> None:
    headers = {"RateLimit": '"a";r=1', "RateLimit-Policy": '"a";w=60;qu="tokens"'}
    assert read_headers(headers, NOW).limits == (told(1),)


@pytest.mark.parametrize(
    "name",
    ["x-ratelimit-used", "x-ratelimit", "x-ratelimit-", "xratelimit-remaining", "x-ratelimitbysize-remaining-minute"],
)
def test_a_name_that_tells_no_limit_is_passed_over(name: str) -> None:
    assert read_headers({name: "5"}, NOW) == Upstream(retry_after=None, limits=())


def test_of_the_same_unit_and_period_told_twice_the_smaller_remaining_wins() -> None:
    headers = {
        "X-RateLimit-Remaining": "5",
        "RateLimit-Remaining": "4",
        "RateLimit-Reset": "9",
        "RateLimit": '"a";r=4;t=20',
        "X-RateLimit-Remaining-Minute": "6",
    }
    assert read_headers(headers, NOW).limits == (told(4, reset_after=20.0), told(6, period=60.0))


def test_vendors_parts_do_not_mix() -> None:
    headers = {"a-ratelimit-tokens-remaining": "5", "b-ratelimit-tokens-limit": "9", "c-ratelimit-tokens-reset": "7"}
    assert read_headers(headers, NOW).limits == (told(5, unit="tokens"),)


SOME = [("X-RATELIMIT-Remaining", "5"), ("x-ratelimit-limit", "10"), ("Retry-after", "3")]


class Headers:
    """What some clients have: no mapping, but it has items."""

    def items(self) -> Iterable[tuple[str, str]]:
        return iter(SOME)


@pytest.mark.parametrize(
    "headers",
    [
        SOME,
        tuple(SOME),
        iter(SOME),
        [list(pair) for pair in SOME],
        [(name.encode(), value.encode()) for name, value in SOME],
        [(name.encode(), value) for name, value in SOME],
        dict(SOME),
        {name.upper(): value.encode() for name, value in SOME},
        Headers(),
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_headers_come_in_many_forms(headers: Any) -> None:
    assert read_headers(headers, NOW) == Upstream(retry_after=3.0, limits=(told(5, 10),))


def test_bytes_beyond_ascii_break_nothing() -> None:
    headers = [(b"x-ratelimit-remaining", b"5"), (b"x-ratelimit-reset", "3µs".encode()), (b"\xff", b"\xfe")]
    assert read_headers(headers, NOW).limits[0].reset_after == pytest.approx(3e-6)


def test_repeated_fields_are_one_list() -> None:
    headers = [
        ("RateLimit-Policy", '"sliding";q=100;w=60'),
        ("RateLimit-Policy", '"fixed";q=5000;w=3600'),
        ("RateLimit", '"sliding";r=50;t=44'),
        ("ratelimit", '"fixed";r=7'),
        ("X-RateLimit-Remaining-Tokens", "9"),
        ("X-Rate-Limit-Remaining-Tokens", "8"),
        ("X-RateLimit-Limit-Tokens", "10"),
        ("Retry-After", "Thu, 01 Jan 2026 00:00:30 GMT"),
        ("Retry-After", "Thursday, 01-Jan-26 00:01:00 GMT"),
        ("Retry-After", "20"),
    ]
    assert read_headers(headers, NOW) == Upstream(
        retry_after=60.0,
        limits=(told(50, 100, 44.0, 60.0), told(7, 5000, None, 3600.0), told(8, 10, unit="tokens")),
    )


def test_no_headers_tell_nothing() -> None:
    assert read_headers({}, NOW) == Upstream(retry_after=None, limits=())


@pytest.mark.parametrize(
    "headers",
    [None, 5, "", "Retry-After: 5", b"", ["ab"], [b"ab"], [5], [("a",)], [("a", "b", "c")], {"a": 5}, {5: "a"}, dict],
    ids=repr,
)
def test_what_holds_no_names_and_values_is_a_configuration_error(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a mapping or pairs of names and values") as caught:
        read_headers(headers, NOW)
    assert caught.value.field == "headers"
    assert caught.value.value is headers


NAMES = [
    "retry-after",
    "retry-after-ms",
    "ratelimit",
    "ratelimit-policy",
    *(f"{prefix}{word}" for prefix in ("ratelimit-", "x-rate-limit-") for word in ("limit", "remaining", "reset")),
    *(f"x-ratelimit-{word}-tokens-minute" for word in ("limit", "remaining", "reset")),
    *(f"anthropic-ratelimit-tokens-{word}" for word in ("limit", "remaining", "reset")),
]
PIECES = ["9", "0", "-", ".", "e", '"', "\\", ",", ";", "=", " ", ":", "r=", "t=", "q=", "w=60", "qu=", "a", "+", "T"]
PIECES += [
    "remaining=",
    "limit=",
    "reset=",
    "Thu, 01 Jan 2026 00:00:00 GMT",
    "2026-01-01",
    "Z",
    "h",
    "ms",
    "inf",
    "nan",
]
texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PIECES)).map("".join),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(str),
)


@given(st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), st.text()), texts)))
@example([(name, "1" * 5000) for name in NAMES])
@example([(name, "1e999") for name in NAMES])
@example([(name, "nan") for name in NAMES])
@example([(name, "-1") for name in NAMES])
@example([(name, '"\\' * 20_000) for name in NAMES])
@example([(name, "1, " * 20_000) for name in NAMES])
@example([("ratelimit", "limit=1,remaining=1;" * 20_000), ("ratelimit-policy", "1;w=1," * 20_000)])
@example([("x-ratelimit-" * 20_000, "1"), ("x-ratelimit-remaining" + "-minute" * 20_000, "1")])
@example([("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "1h" * 20_000 + "x")])
def test_no_text_whatever_raises_or_gives_what_is_not_finite_or_below_0(headers: list[tuple[str, str]]) -> None:
    upstream = read_headers(headers, NOW)
    seconds = [upstream.retry_after]
    for limit in upstream.limits:
        assert 0 <= limit.remaining <= MOST
        assert limit.limit is None or 0 <= limit.limit <= MOST
        assert limit.period is None or limit.period > 0
        seconds += [limit.reset_after, limit.period]
    assert all(value is None or (math.isfinite(value) and 0 <= value <= MONTH) for value in seconds)
    same = [(limit.unit, limit.period) for limit in upstream.limits]
    assert len(same) == len(set(same))
