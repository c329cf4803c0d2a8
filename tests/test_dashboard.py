"""The dashboard's endpoints: who is let in, what they tell, what they do, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from ratelimit_async import ConfigurationError, RateLimiter
from ratelimit_async.contrib.dashboard import _access, _details, _directory, _sampler, dashboard, serve
from ratelimit_async.contrib.dashboard.__main__ import main
from ratelimit_async.contrib.dashboard._names import read_key, spell_key
from tests.helpers import eventually, number
from tests.servers import RedisServer, die_with_parent, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

TOKEN = "a token of 22 letters.".replace(" ", "-")
BEARER = {"authorization": f"Bearer {TOKEN}"}
LIMITS = {"api": "5/minute", "mail": ["10/minute", "100 tokens/minute"]}
STATIC = resources.files("ratelimit_async.contrib.dashboard") / "static"


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page", **options)


@contextlib.asynccontextmanager
async def opened(
    url: str, limits: dict[str, object] | None = None, **options: Any
) -> AsyncIterator[tuple[RateLimiter, httpx.AsyncClient]]:
    """A limiter, and a client of its page that bears the token."""
    options = {"token": TOKEN, "interval": 0.1, "read_only": False, **options}
    limiter = RateLimiter(url, limits=limits or LIMITS, hooks=[])
    async with limiter, client_of(dashboard(limiter, **options), headers=BEARER) as client:
        yield limiter, client


def as_json(content: object) -> dict[str, Any]:
    # httpx' own cannot send what is no UTF-8.
    return {"content": json.dumps(content), "headers": {"content-type": "application/json"}}


async def told(client: httpx.AsyncClient, **query: str | int) -> dict[str, Any]:
    answer = await client.get("/api/limits", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def row_of(client: httpx.AsyncClient, name: str, by: str | None = None) -> dict[str, Any] | None:
    rows = (await told(client))["rows"]
    return next((row for row in rows if (row["name"], row["by"]) == (name, by)), None)


async def key_of(client: httpx.AsyncClient, name: str, by: str | None = None) -> dict[str, Any]:
    answer = await client.get("/api/key", params={"key": spell_key((name, by))})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def act(client: httpx.AsyncClient, action: str, name: str, by: str | None = None, **more: Any) -> httpx.Response:
    return await client.post("/api/actions", json={"action": action, "key": spell_key((name, by)), **more})


# ---- who is let in ----


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "dashboard"),
        ({"token": TOKEN, "authorize": lambda _: True}, "dashboard"),
        ({"token": "fifteen-letters"}, "token"),
        ({"token": ""}, "token"),
        ({"token": "with a space in the middle"}, "token"),
        ({"token": "ünter-den-buchstaben-umlaut"}, "token"),
        ({"token": 1234567890123456}, "token"),
        ({"authorize": True}, "authorize"),
        ({"token": TOKEN, "interval": 0}, "interval"),
        ({"token": TOKEN, "interval": True}, "interval"),
        ({"token": TOKEN, "interval": "2"}, "interval"),
        ({"token": TOKEN, "read_only": None}, "read_only"),
    ],
)
def test_what_cannot_be_used_is_refused_and_no_token_is_shown(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        dashboard(RateLimiter("memory://"), **options)
    assert caught.value.field == field
    token = options.get("token")
    assert not token or str(token) not in str(caught.value)


def test_only_a_limiter_has_a_dashboard() -> None:
    with pytest.raises(ConfigurationError, match="must be a RateLimiter"):
        dashboard("redis://", token=TOKEN)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/api/limits", "/api/key?key=api:", "/"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"cookie": "ratelimit_=; a=b"},
    ],
)
async def test_without_the_token_nothing_is_told(path: str, headers: dict[str, str]) -> None:
    async with opened("memory://") as (_, client):
        client.headers.pop("authorization")
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "api" not in answer.text.replace("/api/", "")


async def test_a_login_gives_a_session_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened("memory://") as (_, client):
        client.headers.pop("authorization")
        for wrong in ("wrong", "", None, 5, "\ud800", TOKEN + " "):
            answer = await client.post("/login", **as_json({"token": wrong}))
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        answer = await client.post("/login", json={"token": TOKEN})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", f"Max-Age={_access.SESSION_SECONDS}"} <= set(cookie.split("; "))
        # Only the browser knows under what prefix the page is.
        assert "path" not in cookie.lower()
        assert TOKEN not in cookie
        assert (await client.get("/api/limits")).status_code == 200
        name, value = cookie.partition(";")[0].split("=")
        expires, _, signature = value.partition(".")
        later = f"{int(expires, 16) + 1:x}"
        for forged in (f"{later}.{signature}", f"{expires}.{'0' * 64}", signature, ".", "x.y", "zz." + signature):
            client.cookies.clear()
            answer = await client.get("/api/limits", headers={"cookie": f"{name}={forged}"})
            assert answer.status_code == 401
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + _access.SESSION_SECONDS)
        assert (await client.get("/api/limits", headers={"cookie": f"{name}={value}"})).status_code == 401


async def test_a_session_over_https_is_for_https_only_and_signing_out_ends_it() -> None:
    async with opened("memory://") as (_, client):
        client.headers.pop("authorization")
        answer = await client.post("/login", json={"token": TOKEN}, headers={"origin": "https://page", "host": "page"})
        assert "Secure" in answer.headers["set-cookie"]
        answer = await client.post("/login", json={"token": TOKEN})
        assert "Secure" not in answer.headers["set-cookie"]
        assert (await client.get("/api/limits")).status_code == 200
        assert "Max-Age=0" in (await client.post("/logout")).headers["set-cookie"]


async def test_the_session_of_another_token_is_none() -> None:
    async with opened("memory://") as (_, one), opened("memory://", token=TOKEN[::-1]) as (_, other):
        cookie = (await one.post("/login", json={"token": TOKEN})).headers["set-cookie"].partition(";")[0]
        other.headers.pop("authorization")
        assert (await other.get("/api/limits", headers={"cookie": cookie})).status_code == 401


async def test_the_application_decides_where_it_wants_to() -> None:
    def refuse(request: Request) -> bool:
        raise HTTPException(303, headers={"location": "/sign-in"})

    async def only_look(request: Request) -> bool:
        return request.method == "GET"

    for authorize, get, post in (
        (lambda _: True, 200, 403),
        (lambda _: False, 403, 403),
        (lambda _: None, 403, 403),
        (only_look, 200, 403),
        (refuse, 303, 303),
    ):
        async with opened("memory://", token=None, authorize=authorize) as (_, client):
            for path in ("/", "/api/limits"):
                answer = await client.get(path)
                assert answer.status_code == get
            assert get != 303 or answer.headers["location"] == "/sign-in"
            # A bearer's token counts for nothing here, and an action needs what the page was handed.
            assert (await act(client, "reset", "api")).status_code == post
            assert (await client.post("/login", json={"token": ""})).status_code == 401


# ---- what other sites make a browser send ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 204),
        ({}, 204),
        ({"origin": "http://page"}, 204),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "http://evil"}, 403),
        ({"origin": "null"}, 403),
        ({"x-csrf-token": ""}, 403),
        ({"x-csrf-token": "x"}, 403),
        ({"x-csrf-token": "\xff"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
async def test_only_the_page_itself_acts(headers: dict[str, str], status: int) -> None:
    async with opened("memory://") as (limiter, client):
        client.headers.pop("authorization")
        await client.post("/login", json={"token": TOKEN})
        assert (await client.get("/")).status_code == 200
        csrf = (await told(client))["csrf"]
        assert len(csrf) > 20
        await limiter.hit("api")
        sent = {"x-csrf-token": csrf, "content-type": "application/json", **headers}
        content = b'{"action": "reset", "key": "api:"}'
        answer = await client.post(
            "/api/actions", content=content, headers={key: value.encode("latin-1") for key, value in sent.items()}
        )
        assert answer.status_code == status
        assert (await limiter.status("api")).limits[0].used == (0 if status == 204 else 1)


async def test_another_site_cannot_log_anybody_in_or_out() -> None:
    async with opened("memory://") as (_, client):
        for path in ("/login", "/logout"):
            answer = await client.post(path, json={"token": TOKEN}, headers={"sec-fetch-site": "cross-site"})
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


async def test_a_read_only_page_acts_for_nobody(url: str) -> None:
    async with opened(url, read_only=True) as (limiter, client):
        await limiter.hit("api")
        assert (await told(client))["read_only"]
        for action in ("pause", "resume", "reset", "requeue", "delete"):
            answer = await act(client, action, "api", letter="api::*.x")
            assert (answer.status_code, answer.json()) == (403, {"error": "This page is read-only."})
        status = await limiter.status("api")
        assert (status.paused, status.limits[0].used) == (False, 1)


async def test_every_answer_forbids_scripts_of_others() -> None:
    async with opened("memory://") as (_, client):
        for path in ("/", "/api/limits", "/api/none", "/static/dashboard.js", "/static/none.js"):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == ("no-cache" if path == "/static/dashboard.js" else "no-store")


# ---- the files ----


async def test_the_files_are_all_there_and_kept_while_they_are_the_same() -> None:
    names = {file.name for file in STATIC.iterdir()}
    assert {"index.html", "login.html", "login.js", "dashboard.css", "dashboard.js", "favicon.svg"} <= names
    async with opened("memory://") as (_, client):
        for name in names:
            answer = await client.get(f"/static/{name}")
            # Pages are not handed out past the question who looks.
            assert answer.status_code == (404 if name.endswith(".html") else 200)
            if answer.status_code == 200:
                again = await client.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]})
                assert (again.status_code, again.content) == (304, b"")
        for name in ("..%2f__init__.py", "__init__.py", "%2e%2e/_app.py"):
            assert (await client.get(f"/static/{name}")).status_code == 404


@pytest.mark.parametrize("file", sorted(STATIC.iterdir(), key=lambda file: file.name), ids=lambda file: file.name)
def test_no_file_needs_another_server_or_a_script_in_a_page(file: Any) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert "//" not in re.sub(r"^\s*//.*$|(?<=\S) // .*$", "", text, flags=re.MULTILINE)
    assert "innerHTML" not in text
    if file.name.endswith(".html"):
        assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", text) == []
        # Whatever prefix it is under.
        assert [found for found in re.findall(r'(?:src|href|action)="([^"]*)"', text) if found.startswith("/")] == []


# ---- what is told ----


async def test_limits_fill_as_others_use_them(url: str) -> None:
    async with opened(url) as (_, client), RateLimiter(url, limits=LIMITS, hooks=[]) as other:
        row = await row_of(client, "api")
        assert row is not None
        assert [(limit["limit"], limit["used"]) for limit in row["limits"]] == [("5/minute", 0)]
        for _ in range(5):
            await other.hit("api")
        await other.hit("mail", by="ann", cost={"tokens": 50})

        async def is_full() -> bool:
            row = await row_of(client, "api")
            return row is not None and row["limits"][0]["remaining"] == 0 and 100 in row["peaks"]

        await eventually(is_full)
        await eventually(lambda: row_of(client, "mail", "ann"))
        page = await told(client)
        assert (page["totals"]["full"], page["health"]["redis"], page["health"]["processes"]) == (1, True, 2)
        assert {"id": "mail:", "name": "mail", "subjects": 1} in page["names"]
        key = await key_of(client, "mail", "ann")
        assert [limit["used"] for limit in key["key"]["limits"]] == [1, 50]
        assert [history[-1] for history in key["history"]["limits"]] == [10.0, 50.0]

        async def has_history() -> bool:
            key = await key_of(client, "mail", "ann")
            return len(key["history"]["ages"]) >= 3 and key["history"]["ages"] == sorted(
                key["history"]["ages"], reverse=True
            )

        await eventually(has_history)


async def test_the_queue_shows_by_priority(url: str) -> None:
    async with opened(url, {"api": "1/minute"}) as (limiter, client):
        await limiter.hit("api")
        tickets = [await limiter.submit("api", number, 1, priority=level) for level in ("low", "high", "high")]

        async def shown() -> dict[str, Any] | None:
            row = await row_of(client, "api")
            return row if row and row["depth"] == 3 else None

        row = await eventually(shown)
        assert row["depths"] == [2, 0, 1]
        assert row["oldest"] > 0
        key = await key_of(client, "api")
        assert [(one["position"], one["priority"], one["id"]) for one in key["waiting"]] == [
            (1, 0, tickets[1].id),
            (2, 0, tickets[2].id),
            (3, 2, tickets[0].id),
        ]
        assert key["estimated_wait"] > 60
        totals = (await told(client, show="waiting", order="oldest"))["totals"]
        assert (totals["waiting"], totals["depth"]) == (1, 3)


async def test_keys_are_searched_filtered_ordered_and_paged(url: str) -> None:
    async with opened(url, {"api": "100/minute", "full": "1/minute"}) as (limiter, client):
        await asyncio.gather(*(limiter.hit("api", by=f"user-{i:03}", cost=i) for i in range(1, 71)))
        await limiter.hit("full")
        await limiter.pause("full", by="x")

        async def found() -> bool:
            return (await told(client))["totals"]["read"] == 73

        await eventually(found)

        async def keys(**query: str | int) -> list[tuple[str, str | None]]:
            return [(row["name"], row["by"]) for row in (await told(client, **query))["rows"]]

        everything = [("api", None), *(("api", f"user-{i:03}") for i in range(1, 71)), ("full", None), ("full", "x")]
        assert await keys() == everything[:50]
        assert await keys(page=2) == everything[50:]
        # Pages that there are not.
        for page in ("3", "99999999999", "-1", "x", "²", ""):
            assert await keys(page=page) in (everything[:50], everything[50:])
        assert await keys(search="USER 07") == [("api", "user-007"), ("api", "user-070")]
        assert await keys(name="full:") == [("full", None), ("full", "x")]
        assert await keys(name="nonsense") == everything[:50]
        assert await keys(show="full") == [("full", None)]
        assert await keys(show="paused") == [("full", "x")]
        assert await keys(show="dead") == []
        assert (await keys(order="full"))[:2] == [("full", None), ("api", "user-070")]


async def test_whatever_keys_are_called_they_come_back(url: str) -> None:
    hostile = ["<img src=x onerror=alert(1)>", "a:b/{c}%3A", "\u202eevil", "\ud800", "\x00\n", "é💥", "&amp;\"'"]
    async with opened(url) as (limiter, client):
        for text in hostile:
            await limiter.hit("api", by=text)

        async def found() -> bool:
            return {row["by"] for row in (await told(client))["rows"]} >= set(hostile)

        await eventually(found)
        for text in hostile:
            assert read_key(spell_key((text, text))) == (text, text)
            key = await key_of(client, "api", text)
            assert (key["key"]["by"], key["key"]["limits"][0]["used"]) == (text, 1)
            assert (await act(client, "reset", "api", text)).status_code == 204
            assert (await limiter.status("api", by=text)).limits[0].used == 0


async def test_a_key_that_nobody_configures_says_so(url: str) -> None:
    async with RateLimiter(url, limits={"other": "5/minute"}, hooks=[]) as other, RateLimiter(url, default=None) as one:
        await other.hit("other")
        async with client_of(dashboard(one, token=TOKEN, interval=0.1), headers=BEARER) as client:
            row = await eventually(lambda: row_of(client, "other"))
            assert row["limits"] is None
            assert "has no configuration" in row["problem"]
            key = await key_of(client, "other")
            assert "history" not in key
            for nonsense in ("", "a", "a:b:c", ":x", "%ff:", None):
                answer = await client.get("/api/key", params={"key": nonsense} if nonsense is not None else {})
                assert answer.status_code == 400


# ---- what is done ----


async def test_pausing_resuming_and_resetting_hold(url: str) -> None:
    async with opened(url) as (limiter, client):
        await limiter.hit("api", cost=5)
        assert (await act(client, "reset", "api")).status_code == 204
        assert (await key_of(client, "api"))["key"]["limits"][0]["used"] == 0
        assert (await act(client, "pause", "api")).status_code == 204
        key = await key_of(client, "api", "ann")
        assert (key["key"]["paused"], key["name_paused"]) == (True, True)
        assert not (await limiter.hit("api", by="ann")).allowed
        assert (await act(client, "resume", "api")).status_code == 204
        assert not (await limiter.status("api")).paused
        assert (await act(client, "pause", "api", "ann", seconds=60)).status_code == 204
        assert not (await limiter.status("api")).paused
        key = await key_of(client, "api", "ann")
        assert (key["key"]["paused"], key["name_paused"]) == (True, False)
        assert 0 < key["key"]["resumes_in"] <= 60
        assert (await act(client, "resume", "api", "ann")).status_code == 204
        assert (await limiter.hit("api", by="ann")).allowed
        await limiter.sync_from_headers("api", {"retry-after": "60"})
        assert (await act(client, "resume", "api")).status_code == 204
        assert (await limiter.hit("api")).allowed


async def test_dead_letters_are_shown_requeued_and_deleted(url: str) -> None:
    async with opened(url, {"mail": "1000/second"}) as (limiter, client):
        broken = True

        @limiter.task("send", max_attempts=1)
        async def send(address: str, *, subject: str = "") -> None:
            if broken:
                raise ConnectionError(f"no way to {address}")

        for address in ("ann", "bob", "x" * 5000):
            await limiter.submit("mail", send, address)

        async def shown() -> dict[str, Any] | None:
            key = await key_of(client, "mail")
            return key if len(key["letters"]) == 3 else None

        key = await eventually(shown)
        assert key["key"]["dead"] == 3
        letters = {letter["call"][:11]: letter for letter in key["letters"]}
        ann, bob = letters["send('ann')"], letters["send('bob')"]
        assert (ann["error"], ann["attempts"]) == ("ConnectionError('no way to ann')", 1)
        assert max(len(letter["call"]) for letter in key["letters"]) == 2001
        assert (await told(client, show="dead"))["totals"]["letters"] == 3
        broken = False
        assert (await act(client, "requeue", "mail", letter=ann["id"])).status_code == 204
        assert (await act(client, "delete", "mail", letter=bob["id"])).status_code == 204
        assert await limiter.result(ann["id"]) is None
        assert len((await key_of(client, "mail"))["letters"]) == 1
        for wrong in (ann["id"], bob["id"], "nonsense", None, 5, {}):
            answer = await act(client, "requeue", "mail", letter=wrong)
            assert (answer.status_code, answer.json()["error"]) == (404, "This dead letter is there no longer.")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b"[" * 15_000, 400),
        (b"{}", 400),
        (b'{"action": "pause", "key": 5}', 400),
        (b'{"action": "pause", "key": "a:b:c"}', 400),
        (b'{"action": "explode", "key": "api:"}', 400),
        (b'{"key": "api:"}', 400),
        (b'{"action": ["pause"], "key": "api:"}', 400),
        (b'{"action": "pause", "key": "api:", "seconds": "soon"}', 400),
        (b'{"action": "pause", "key": "api:", "seconds": -1}', 400),
        (b'{"action": "pause", "key": "api:", "seconds": NaN}', 400),
        (b'{"action": "reset", "key": "%s:"}' % (b"x" * 300), 400),
        (b'{"action": "reset", "key": "%s:"}' % (b"x" * 20_000), 413),
    ],
)
async def test_nonsense_does_nothing(body: bytes, status: int) -> None:
    async with opened("memory://") as (limiter, client):
        await limiter.hit("api")
        answer = await client.post("/api/actions", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status
        assert answer.json()["error"]
        now = await limiter.status("api")
        assert (now.paused, now.limits[0].used) == (False, 1)


# ---- what it costs ----


async def test_many_viewers_cost_redis_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Counted(RateLimiter):
        async def status(self, name: str, **how: Any) -> Any:
            calls.append(name)
            return await super().status(name, **how)

        def keys(self, prefix: str = "") -> Any:
            calls.append("keys")
            return super().keys(prefix)

        def waiting(self, name: str, **how: Any) -> Any:
            calls.append("waiting")
            return super().waiting(name, **how)

    async with Counted("memory://", limits=LIMITS, hooks=[]) as limiter:
        await asyncio.gather(*(limiter.hit("api", by=i) for i in range(60)))
        await limiter.hit("api", cost=5)
        ticket = await limiter.submit("api", number, 1)
        async with client_of(dashboard(limiter, token=TOKEN, interval=60), headers=BEARER) as client:
            await told(client)
            first = len(calls)
            assert calls.count("keys") == 1
            for _ in range(5):
                await asyncio.gather(*(told(client, page=page) for page in (1, 2) for _ in range(5)))
                await asyncio.gather(*(key_of(client, "api") for _ in range(5)))
            assert calls[first:] == ["waiting"]
        ticket.cancel()


async def test_nothing_is_asked_while_nobody_watches_and_all_goes_on_when_somebody_does(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sampler, "_LINGER", 0.3)
    async with RateLimiter(url, limits=LIMITS, hooks=[]) as limiter:
        sampler = _sampler.Sampler(limiter, 0.1)
        await sampler.watch()
        assert {("api", None), ("mail", None)} <= sampler.series.keys()

        def tasks() -> list[str]:
            names = (task.get_name() for task in asyncio.all_tasks())
            return [name for name in names if name.startswith("ratelimit_async dashboard")]

        assert len(tasks()) == 2
        await eventually(lambda: not tasks())
        since = sampler.since
        await sampler.watch()
        assert len(tasks()) == 2
        # The history goes on.
        assert sampler.since == since
        sampler.stop()
        await eventually(lambda: not tasks())


async def test_more_keys_than_it_lists_are_told_of_and_found_by_their_subject(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_directory, "_MOST", 20)
    monkeypatch.setattr(_directory, "_MOST_OF_A_NAME", 10)
    monkeypatch.setattr(_sampler, "_MOST_SWEPT", 6)
    monkeypatch.setattr(_sampler, "_MOST_READ", 4)
    monkeypatch.setattr(_sampler, "_MOST_SERIES", 70)
    async with opened(url, {"a": "5/minute", "b": "5/minute"}) as (limiter, client):
        await asyncio.gather(*(limiter.hit(name, by=f"u{i}") for name in "ab" for i in range(30)))
        page = await told(client)
        assert page["totals"]["keys"] <= 20
        await eventually(lambda: told_more(client))
        names = {one["name"]: one["subjects"] for one in (await told(client))["names"]}
        assert names == {"a": 30, "b": 30}
        for i in range(30):
            rows = (await told(client, name="a:", search=f"u{i}"))["rows"]
            assert rows[0]["limits"][0]["used"] == 1
        monkeypatch.setattr(_directory, "_MOST_SEEN", 5)
        monkeypatch.setattr(_directory, "_MOST", 100)
        await eventually(lambda: keys_are_few(client))


async def told_more(client: httpx.AsyncClient) -> bool:
    return (await told(client))["totals"]["more"]


async def keys_are_few(client: httpx.AsyncClient) -> bool:
    totals = (await told(client))["totals"]
    return totals["more"] and totals["keys"] <= 7


def test_each_name_has_its_share_of_those_that_are_read() -> None:
    directory = _directory.Directory(RateLimiter("memory://"))
    directory._add([("a", None), *(("a", str(i)) for i in range(100)), ("b", None), ("b", "x"), ("c", None)])
    assert directory.some(6) == [("a", None), ("b", None), ("c", None), ("a", "0"), ("b", "x"), ("a", "1")]
    assert len(directory.some(1000)) == 104


async def test_only_so_many_open_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_details, "_MOST_KEPT", 2)
    async with RateLimiter("memory://", limits=LIMITS, hooks=[]) as limiter:
        details = _details.Details(limiter, 60)
        for by in "abc":
            await details.of(("api", by), await limiter.status("api", by=by))
        assert list(details._entries) == [("api", "b"), ("api", "c")]


# ---- without Redis, and elsewhere ----


@pytest.mark.real_redis
async def test_it_says_that_redis_is_away_and_recovers(own_server: RedisServer) -> None:
    async with opened(own_server.url) as (limiter, client):
        await limiter.hit("api")
        await limiter.hit("api", cost=4)
        ticket = await limiter.submit("api", number, 1)
        await eventually(lambda: full(client))
        await key_of(client, "api")
        own_server.kill()

        async def away() -> bool:
            health = (await told(client))["health"]
            return not health["redis"] and health["away"] is not None and bool(health["error"])

        await eventually(away)
        # What was seen last is still shown.
        assert await full(client)
        assert (await key_of(client, "api"))["key"]["depth"] == 1
        assert (await act(client, "reset", "api")).status_code == 503
        own_server.start()
        await eventually(lambda: back(client))
        await eventually(lambda: act_passes(client))
        ticket.cancel()


async def full(client: httpx.AsyncClient) -> bool:
    row = await row_of(client, "api")
    return row is not None and row["limits"][0]["remaining"] == 0


async def back(client: httpx.AsyncClient) -> bool:
    health = (await told(client))["health"]
    return health["redis"] and health["away"] is None


async def act_passes(client: httpx.AsyncClient) -> bool:
    return (await act(client, "reset", "api")).status_code == 204


async def test_a_limiter_that_is_not_entered_is_told_of_and_running_by_itself_enters_it(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS, hooks=[])
    app = dashboard(limiter, token=TOKEN, interval=0.1, read_only=False)
    async with client_of(app, headers=BEARER) as client:
        assert (await told(client))["health"]["error"] == "not started"
        assert (await act(client, "reset", "api")).status_code == 503
        async with app.router.lifespan_context(app):
            await eventually(lambda: back(client))
        assert (await limiter.health()).error == "not started"


async def test_it_is_mounted_under_a_prefix_of_an_application() -> None:
    async with RateLimiter("memory://", limits=LIMITS, hooks=[]) as limiter:
        app = FastAPI()
        app.mount("/ops/limits", dashboard(limiter, token=TOKEN))
        async with client_of(app, headers=BEARER) as client:
            assert "static/dashboard.js" in (await client.get("/ops/limits/")).text
            assert (await client.get("/ops/limits", follow_redirects=True)).url.path == "/ops/limits/"
            assert (await client.get("/ops/limits/static/plot.js")).status_code == 200
            assert (await client.get("/ops/limits/api/limits")).status_code == 200
            assert (await client.get("/api/limits")).status_code == 404


def test_a_missing_starlette_or_uvicorn_is_told_of_with_the_extra() -> None:
    for module, run in (
        ("starlette", ""),
        ("uvicorn", "; import asyncio, ratelimit_async as r; asyncio.run(d.serve(r.RateLimiter('memory://')))"),
    ):
        code = f"import sys; sys.modules[{module!r}] = None; import ratelimit_async.contrib.dashboard as d{run}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert 'pip install "ratelimit-async[dashboard]"' in done.stderr


# ---- by itself ----


@pytest.mark.parametrize("port", [0, 65_536, "80", True])
async def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(ConfigurationError, match="port"):
        await serve(RateLimiter("memory://"), port=port)


async def test_a_port_that_is_taken_is_told_of_before_where_the_page_is(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="cannot be listened on at localhost"):
            await serve(RateLimiter("memory://"), host="localhost", port=taken.getsockname()[1])
    assert capsys.readouterr().out == ""


@pytest.fixture
def module(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"limits_{time.time_ns()}"
    code = f"from ratelimit_async import RateLimiter\nlimiter = RateLimiter({redis_server.url!r}, limits={LIMITS!r})\n"
    code += "gone = RateLimiter('redis://127.0.0.1:1/0', connect_timeout=0.2)\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(
    ("place", "problem"), [("{}:nothing", "has no 'nothing'"), ("none:x", "no module"), ("{}:gone", "127.0.0.1:1")]
)
def test_by_itself_it_says_what_is_wrong(
    module: str, place: str, problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASHBOARD_TOKEN", TOKEN)
    assert main([place.format(module), "--port", str(free_port())]) == 1
    assert problem in capsys.readouterr().err


@pytest.mark.real_redis
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_by_itself_it_needs_a_token_and_ends_when_told(module: str, token: str | None) -> None:
    port = free_port()
    command = [sys.executable, "-m", "ratelimit_async.contrib.dashboard", f"{module}:limiter", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {"DASHBOARD_TOKEN": token} if token else {}
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads before exec
    )
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    base, _, made = line.removeprefix("The dashboard is at ").strip().partition("#token=")
    assert base == f"http://127.0.0.1:{port}/"
    assert (made == "") == (token is not None)
    async with httpx.AsyncClient(base_url=base) as client:

        async def up() -> bool:
            with contextlib.suppress(httpx.ConnectError):
                return (await client.get("/api/limits")).status_code == 401
            return False

        await eventually(up)
        client.headers["authorization"] = f"Bearer {token or made}"
        page = await told(client)
        assert [row["name"] for row in page["rows"]] == ["api", "mail"]
        assert page["read_only"]
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.to_thread(process.communicate, timeout=20)
    assert not [line for line in errors.splitlines() if "Traceback" in line or " ERROR " in line], errors


async def test_other_machines_are_let_in_with_a_warning(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    async def end(_: object, sockets: list[None]) -> None:
        assert sockets == [None]

    monkeypatch.setattr(uvicorn.Server, "serve", end)
    monkeypatch.setattr(socket, "create_server", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.delenv("DASHBOARD_TOKEN", raising=False)
    for host, warned in (("localhost", False), ("::1", False), ("0.0.0.0", True), ("box.example", True)):  # noqa: S104
        await serve(RateLimiter(redis_url, limits=LIMITS), host=host, port=8765)
        out, err = capsys.readouterr()
        assert out.startswith(f"The dashboard is at http://{'[::1]' if host == '::1' else host}:8765/#token=")
        assert ("TLS" in err) == warned
