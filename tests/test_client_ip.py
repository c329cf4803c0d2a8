"""The client's address: from trusted proxies, and from nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from ratelimit_async import ConfigurationError
from ratelimit_async.contrib.starlette import ClientIP, client_ip

OURS = ["10.0.0.0/8", "2001:db8:ffff::/48"]


def connection(peer: str | None, *values: str, header: str = "x-forwarded-for") -> HTTPConnection:
    headers = [(header.encode(), value.encode()) for value in values]
    return HTTPConnection({"type": "http", "client": None if peer is None else (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "subject"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_without_proxies_it_is_the_connection_s_whatever_it_says(peer: str, subject: str) -> None:
    assert client_ip(connection(peer, "6.6.6.6")) == subject


@pytest.mark.parametrize(
    ("values", "subject"),
    [
        ([], "10.1.1.1"),
        (["192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6, 192.0.2.1, 10.2.2.2"], "192.0.2.1"),
        (["6.6.6.6, 192.0.2.1, 2001:db8:ffff::1, ::ffff:10.2.2.2"], "192.0.2.1"),
        (["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        (["192.0.2.1:443, [2001:db8:ffff::1]:443"], "192.0.2.1"),
        (["[2001:db8::1]:443"], "2001:db8::/64"),
        (["192.0.2.1, , "], "192.0.2.1"),
        # What is no address ends the trust: the proxy that wrote it is the last that is known.
        (["6.6.6.6, unknown, 10.2.2.2"], "10.2.2.2"),
        (["6.6.6.6, 192.0.2.1 evil"], "10.1.1.1"),
        (["192.0.2.1:" + "0" * 100], "10.1.1.1"),
        (["6.6.6.6 , '; DROP TABLE"], "10.1.1.1"),
    ],
)
def test_it_goes_back_through_trusted_proxies_to_the_first_that_is_not(values: list[str], subject: str) -> None:
    assert ClientIP(trusted_proxies=OURS)(connection("10.1.1.1", *values)) == subject


def test_a_peer_that_is_not_trusted_is_not_believed() -> None:
    assert ClientIP(trusted_proxies=OURS)(connection("192.0.2.9", "6.6.6.6")) == "192.0.2.9"


@pytest.mark.parametrize(
    ("values", "subject"),
    [
        (["for=192.0.2.1;proto=https;by=10.1.1.1"], "192.0.2.1"),
        (["for=6.6.6.6, For=192.0.2.1;host=a, proto=http;for=10.2.2.2"], "192.0.2.1"),
        (['for="[2001:db8::1]:4711"'], "2001:db8::/64"),
        (["for=6.6.6.6, for=_hidden"], "10.1.1.1"),
        # A quote that the client opened swallows nothing of what the proxy said.
        (['for="6.6.6.6', "for=192.0.2.1"], "192.0.2.1"),
        (["nonsense"], "10.1.1.1"),
    ],
)
def test_it_reads_forwarded_where_told_to(values: list[str], subject: str) -> None:
    by = ClientIP(trusted_proxies=OURS, header="Forwarded")
    assert by(connection("10.1.1.1", *values, header="forwarded")) == subject
    assert by(connection("10.1.1.1", "6.6.6.6")) == "10.1.1.1"


def test_a_header_of_one_address_can_be_named() -> None:
    by = ClientIP(trusted_proxies=OURS, header="x-real-ip", ipv6_prefix=56)
    assert by(connection("10.1.1.1", "2001:db8:1:2ff::1", header="x-real-ip")) == "2001:db8:1:200::/56"


def test_a_unix_socket_must_be_trusted() -> None:
    with pytest.raises(ConfigurationError, match="unix"):
        ClientIP(trusted_proxies=OURS)(connection(None, "192.0.2.1"))
    by = ClientIP(trusted_proxies=["unix", *OURS])
    assert by(connection(None, "192.0.2.1")) == "192.0.2.1"
    assert by(connection("", "192.0.2.1, 10.2.2.2")) == "192.0.2.1"
    assert by(connection(None)) == "unix"
    assert by(connection(None, "nonsense")) == "unix"


@given(st.lists(st.text(st.sampled_from('0123456789abcdef.:,;"[]=for %\\ '), max_size=40), max_size=4))
def test_what_a_client_writes_changes_nothing_of_what_the_proxy_says(written: list[str]) -> None:
    by = ClientIP(trusted_proxies=OURS)
    assert by(connection("10.1.1.1", *written, "192.0.2.1")) == "192.0.2.1"
    by = ClientIP(trusted_proxies=OURS, header="forwarded")
    assert by(connection("10.1.1.1", *written, "for=192.0.2.1", header="forwarded")) == "192.0.2.1"
    # In one line, as proxies may append.
    text = ", ".join([*written, "for=192.0.2.1;proto=https"])
    assert by(connection("10.1.1.1", text, header="forwarded")) == "192.0.2.1"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"trusted_proxies": "10.0.0.0/8"}, "trusted_proxies"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies"),
        ({"trusted_proxies": ["*"]}, "trusted_proxies"),
        ({"trusted_proxies": [10]}, "trusted_proxies"),
        ({"header": "x forwarded"}, "header"),
        ({"header": None}, "header"),
        ({"ipv6_prefix": 0}, "ipv6_prefix"),
        ({"ipv6_prefix": 129}, "ipv6_prefix"),
        ({"ipv6_prefix": True}, "ipv6_prefix"),
    ],
)
def test_nonsense_is_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ClientIP(**arguments)
    assert caught.value.field == field
