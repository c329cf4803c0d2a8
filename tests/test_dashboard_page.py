"""The dashboard in a real browser: what a person sees and clicks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from ratelimit_async import RateLimiter
from ratelimit_async.contrib.dashboard import dashboard
from tests.browser import Chromium, Page
from tests.helpers import eventually, is_paused, number
from tests.servers import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.real_redis
TOKEN = "a-token-of-some-length"  # noqa: S105 - of a test
LIMITS = {"api": "5/minute", "mail": "100/second", "llm": ["10/minute", "1000 tokens/minute"]}
HOSTILE = "<img src=x onerror=alert(1)>"
PREFIX = "/ops/limits"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@contextlib.asynccontextmanager
async def served(limiter: RateLimiter, **options: Any) -> AsyncIterator[str]:
    """The page, mounted under a prefix of somebody's application; gives its address."""
    app = FastAPI()
    app.mount(PREFIX, dashboard(limiter, **{"read_only": False, "interval": 0.3, **options}))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{port}{PREFIX}/"
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def opened(chromium: Chromium, url: str, **options: Any) -> AsyncIterator[tuple[RateLimiter, Page, str]]:
    """A limiter and its page, looked at by somebody who may."""
    options = {"authorize": lambda _: True, **options}
    async with (
        RateLimiter(url, limits=LIMITS, hooks=[]) as limiter,
        served(limiter, **options) as address,
        chromium.page() as page,
    ):
        await page.goto(address)
        yield limiter, page, address
        # Neither an exception, nor anything that the Content-Security-Policy had to refuse.
        assert page.errors == []


async def test_somebody_signs_in_and_out(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url, authorize=None, token=TOKEN) as (_, page, address):
        await page.sees("h1", "Limits")
        await page.click("#token")
        await page.type("not-the-token-at-all")
        await page.click("button", "Sign in")
        await page.sees("#problem", "That is not the token.")
        assert not await page.shows("a.row")
        await page.type(TOKEN)  # what was wrong is selected
        await page.press("Enter", 13)
        await page.sees("a.row", "api")
        assert await page.evaluate("document.cookie") == ""
        await page.click("button", "Sign out")
        await page.sees("button", "Sign in")
        # The address that `serve` prints.
        await page.goto("about:blank")
        await page.goto(f"{address}#token={TOKEN}")
        await page.sees("a.row", "api")
        assert await page.evaluate("location.href") == address
        refusals = [error for error in page.errors if "401" in error]
        page.errors = [error for error in page.errors if error not in refusals]


async def test_limits_fill_while_others_use_them(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url) as (_, page, _), RateLimiter(redis_url, limits=LIMITS, hooks=[]) as other:
        await page.sees("a.row", "0 of 5")
        for _ in range(4):
            await other.hit("api")
        await page.sees("a.row", "4 of 5")
        await other.hit("api")
        await page.sees("a.row .chip", "full")
        await page.sees(".tile", "Full\n1")
        for by in ("ann", "bob"):
            await other.hit("llm", by=by, cost={"tokens": 300})
        await page.sees("a.row", "ann")

        await page.click("#search")
        await page.type("BO")
        await page.misses("a.row", "ann")
        assert (await page.text("a.row .subject")).split() == ["bob"]
        await page.evaluate("document.getElementById('search').select()")
        await page.press("Backspace", 8)
        await page.choose("#name", "api")
        await page.misses("a.row", "llm")
        await page.choose("#name", "All names")
        await page.sees("a.row", "bob")
        await page.choose("#order", "Fullest first")
        await eventually(lambda: first_is(page, "api"))
        await page.click(".tile", "Full")
        await eventually(lambda: only_is(page, "api"))

        await page.click("a.row", "api")
        await page.sees("h1", "api")
        await page.sees(".big", "100 %")
        # The line climbs from right to left, and says so to who does not see it.
        label = "document.querySelector('.limit svg').getAttribute('aria-label')"
        await eventually(lambda: page.evaluate(f"{label}.startsWith('5/minute: now 100 %')"))
        assert "L" in await page.evaluate("document.querySelector('.limit .line').getAttribute('d')")
        await page.evaluate("document.querySelector('.limit svg').focus()")
        await page.press("ArrowLeft", 37)
        await page.sees(".limit .readout", "100 % at")
        await page.click("a", "All limits")
        await page.sees("a.row", "api")


async def first_is(page: Page, name: str) -> bool:
    return (await page.text("a.row .name")).split()[:1] == [name]


async def only_is(page: Page, name: str) -> bool:
    return (await page.text("a.row .name")).split() == [name]


async def test_the_queue_is_there_to_see(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url) as (limiter, page, _):
        await limiter.hit("api", cost=5)
        tickets = [await limiter.submit("api", number, 1, priority=level) for level in ("low", "high", "low")]
        await page.sees("a.row", "3 waiting")
        await page.click(".tile", "Waiting")
        await eventually(lambda: only_is(page, "api"))
        await page.click("a.row", "1 · 0 · 2")
        await page.sees("#waiting tr", tickets[1].id)
        assert [row.split()[:2] for row in (await page.text("#waiting tr")).splitlines()] == [
            ["1", "0"],
            ["2", "2"],
            ["3", "2"],
        ]
        await page.sees("#queue-levels .level", "Priority 2")
        for ticket in tickets:
            ticket.cancel()
        await page.sees("#waiting-empty", "Nobody waits.")


async def test_pausing_asks_first_and_resuming_too(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url) as (limiter, page, _):
        await limiter.hit("api", by="ann")
        await page.click("a.row[href$='api%3A']")
        await page.click("button", "Pause…")
        await page.sees("dialog h2", "Pause api?")
        await page.sees("dialog", "all its subjects")
        await page.click("dialog button", "Cancel")
        await page.misses("dialog")
        await page.click("button", "Pause…")
        await page.press("Escape", 27)
        await page.misses("dialog")
        assert not await is_paused(limiter, "api")
        await page.click("button", "Pause…")
        await page.click("dialog button", "Pause")
        await page.sees(".toast", "Paused api")
        await page.sees("#detail-state", "paused")
        assert not (await limiter.hit("api", by="ann")).allowed

        await page.click("a", "All limits")
        await page.click("a.row", "ann")
        await page.sees("#detail-state", "paused")
        # It is the name that is paused, and so the name that is resumed.
        await page.click("button", "Resume…")
        await page.sees("dialog h2", "Resume api?")
        await page.click("dialog button", "Resume")
        await page.misses("#detail-state", "paused")
        assert (await limiter.hit("api", by="ann")).allowed

        await page.click("button", "Pause…")
        await page.sees("dialog h2", "Pause api / ann?")
        await page.choose("#confirm-seconds", "1 hour")
        await page.click("dialog button", "Pause")
        await page.sees("#detail-state", "left")
        status = await limiter.status("api", by="ann")
        assert status.resumes_in is not None
        assert 3500 < status.resumes_in <= 3600
        assert not await is_paused(limiter, "api")


async def test_resetting_asks_first(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url) as (limiter, page, _):
        await limiter.hit("api", cost=5)
        await page.click("a.row", "api")
        await page.sees(".big", "100 %")
        await page.click("button", "Reset…")
        await page.sees("dialog", "the upstream may see more than the limit")
        assert (await limiter.status("api")).limits[0].used == 5
        await page.click("dialog button", "Reset")
        await page.sees(".figures", "0 of 5")
        assert (await limiter.status("api")).limits[0].used == 0


async def test_a_dead_letter_is_read_requeued_and_deleted(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url) as (limiter, page, _):
        broken = True

        @limiter.task("send_mail", max_attempts=1)
        async def send_mail(address: str) -> str:
            if broken:
                raise ConnectionError(HOSTILE)
            return address

        one = await limiter.submit("mail", send_mail, "ann@example.org", id="one")
        await eventually(lambda: dead_are(limiter, 1))
        await limiter.submit("mail", send_mail, HOSTILE, id="two")
        await page.sees(".tile", "Dead letters\n2")
        await page.click(".tile", "Dead letters")
        await eventually(lambda: only_is(page, "mail"))
        await page.click("a.row", "2 dead letters")
        await page.sees(".letter .error", f"ConnectionError('{HOSTILE}')")
        await page.click(".letter:last-child summary")
        await page.sees(".letter .call", HOSTILE)
        broken = False
        await page.click("button", "Requeue send_mail, mail::*.one")
        await page.sees("dialog", "Requeue this dead letter?")
        await page.click("dialog button", "Requeue")
        await page.sees(".toast", "Requeued send_mail")
        await page.misses("button", "Requeue send_mail, mail::*.one")
        assert await limiter.result(one.id) == "ann@example.org"
        await page.click("button", "Delete…")
        await page.click("dialog button", "Delete")
        await page.sees("#letters-empty")
        assert [letter async for letter in limiter.dead_letters("mail")] == []


async def dead_are(limiter: RateLimiter, count: int) -> bool:
    return (await limiter.status("mail")).tasks.dead == count


async def test_what_users_made_up_is_only_text(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url) as (limiter, page, _):
        subjects = (HOSTILE, "\ud800", "javascript:alert(1)", '"><script>alert(1)</script>', "../../etc")
        for by in subjects:
            await limiter.hit("api", by=by)
            await limiter.hit(by)
        await page.sees("a.row .subject", HOSTILE)
        assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
        for by in (HOSTILE, subjects[3], "../../etc"):
            await page.click("a.row .subject", by)
            await page.sees("#detail-by", by)
            await page.sees(".big", "20 %")
            await page.click("button", "Reset…")
            await page.sees("dialog h2", f"Reset api / {by}?")
            await page.click("dialog button", "Reset")
            await page.sees(".toast", f"Reset api / {by}")
            await page.click("a", "All limits")
        assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
        assert (await limiter.status("api", by=HOSTILE)).limits[0].used == 0


async def test_who_may_only_look_sees_no_buttons(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url, read_only=True) as (limiter, page, address):
        await limiter.hit("api", cost=5)
        await page.sees("#mode", "read-only")
        await page.click("a.row", "api")
        await page.sees(".big", "100 %")
        assert await page.text("main button") == ""
        # Nor does the server do it for who asks past the page.
        asked = "fetch('api/actions', {method: 'POST', headers: {'content-type': 'application/json'}, body: '{}'})"
        assert await page.evaluate(f"{asked}.then((answer) => answer.status)") == 403
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{address}api/actions", json={"action": "pause", "key": "api:"})
            assert answer.status_code == 403
        assert not await is_paused(limiter, "api")
        page.errors = [error for error in page.errors if "403" not in error]


async def test_it_says_that_redis_is_away_and_goes_on(chromium: Chromium, own_server: RedisServer) -> None:
    async with opened(chromium, own_server.url) as (limiter, page, _):
        await limiter.hit("api", cost=3)
        await page.sees("a.row", "3 of 5")
        own_server.kill()
        await page.sees(".banner", "Redis is away since")
        assert await page.shows("a.row", "3 of 5")
        own_server.start()
        await page.misses(".banner")
        await page.sees("a.row", "0 of 5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_and_is_readable_in_both_schemes(chromium: Chromium, redis_url: str, scheme: str) -> None:
    async with opened(chromium, redis_url) as (limiter, page, _):
        await page.resize(360, 740, phone=True)
        await page.prefer(scheme)
        await limiter.hit("llm", by="a-subject-with-a-rather-long-name-" * 5)
        await page.sees("a.row", "rather-long")
        wide = "document.documentElement.scrollWidth"
        assert await page.evaluate(wide) <= 360
        await page.click("a.row", "rather-long")
        await page.sees(".big", "10 %")
        assert await page.evaluate(wide) <= 360
        # Texts stand out from what they stand on (WCAG AA): those that are quiet, too.
        for selector in (".big", ".note", ".limit h2", ".facts dt", "#facts", "button", "th", ".back a"):
            assert await page.evaluate(CONTRAST.replace("SELECTOR", selector)) >= 4.5, selector


CONTRAST = """(() => {
  const shown = [...document.querySelectorAll("SELECTOR")].find((node) => node.checkVisibility() && node.innerText);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  let under = shown;
  while (under && parse(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const light = (color) => parse(color).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const pair = [getComputedStyle(shown).color, getComputedStyle(under).backgroundColor].map(light);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
})()"""


async def test_keys_alone_reach_everything(chromium: Chromium, redis_url: str) -> None:
    async with opened(chromium, redis_url) as (limiter, page, _):
        await page.sees("a.row", "api")
        focused = "document.activeElement.innerText ?? document.activeElement.id"
        await page.press("Tab", 9)
        assert "Skip to the limits" in await page.evaluate(focused)
        for _ in range(30):
            await page.press("Tab", 9)
            if "0 of 5" in (await page.evaluate(focused) or ""):
                break
        await page.press("Enter", 13)
        await page.sees("h1", "api")
        for _ in range(10):
            await page.press("Tab", 9)
            if await page.evaluate(focused) == "Reset…":
                break
        await page.press("Enter", 13)
        await page.sees("dialog h2", "Reset api?")
        # The first that Enter would do is nothing.
        assert await page.evaluate(focused) == "Cancel"
        await page.press("Enter", 13)
        await page.misses("dialog")
        assert await page.evaluate(focused) == "Reset…"
        assert not await is_paused(limiter, "api")
