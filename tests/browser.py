"""A headless Chromium, driven as a person would: it clicks what is visible, at the place where it is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from websockets.asyncio.client import ClientConnection, connect

from tests.helpers import eventually
from tests.servers import die_with_parent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
# Finds the one visible element with a selector, whose text, or label, holds a text.
FIND = """(selector, text) => {
  const words = (node) => `${node.innerText ?? ""} ${node.getAttribute("aria-label") ?? ""} ${node.value ?? ""}`;
  const found = [...document.querySelectorAll(selector)]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }) && words(node).includes(text));
  return found.filter((node) => !found.some((other) => other !== node && node.contains(other)));
}"""

# Scrolls to it, gives its place, and lets the next click through only if it meets what was aimed at.
AIM = """(found) => {
  if (found.length !== 1) return `${found.length} of them`;
  found[0].scrollIntoView({ block: "center", behavior: "instant" });
  const box = found[0].getBoundingClientRect();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  if (!found[0].contains(document.elementFromPoint(x, y))) return "something lies above it";
  removeEventListener("click", window.guard, true);
  window.hit = false;
  window.guard = (event) => {
    window.hit = found[0].contains(event.target);
    if (window.hit) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  addEventListener("click", window.guard, { capture: true, once: true });
  return [x, y];
}"""


class Chromium:
    """One browser for all tests; each gets a page with cookies of its own."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp()
        self._log = Path(self._profile) / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["chromium", *QUIET.split(), f"--user-data-dir={self._profile}/user", "--remote-debugging-port=0"],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads before exec
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    async def address(self) -> str:
        port = Path(self._profile) / "user" / "DevToolsActivePort"

        def lines() -> list[str]:
            assert self._process.poll() is None, f"chromium ended: {self._log.read_text()[-2000:]}"
            return port.read_text().split() if port.exists() else []

        number, path = await eventually(lambda: lines()[:2], 30)
        return f"ws://127.0.0.1:{number}{path}"

    @contextlib.asynccontextmanager
    async def page(self, width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
        async with connect(await self.address(), max_size=None, compression=None) as wire:
            page = Page(wire)
            try:
                await page.open(width, height)
                yield page
            finally:
                await page.close()


class NavigatedError(Exception):
    """The page that was asked has gone meanwhile."""


class Page:
    """A tab."""

    def __init__(self, wire: ClientConnection) -> None:
        # What the page complained of: exceptions, and what its Content-Security-Policy refused.
        self.errors: list[str] = []
        self._wire = wire
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session = ""
        self._context = ""
        self._reader = asyncio.create_task(self._read())

    async def open(self, width: int, height: int) -> None:
        self._context = (await self._send("Target.createBrowserContext"))["browserContextId"]
        target = await self._send("Target.createTarget", url="about:blank", browserContextId=self._context)
        attached = await self._send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._send(f"{domain}.enable")
        await self.resize(width, height)

    async def close(self) -> None:
        self._session = ""
        await self._send("Target.disposeBrowserContext", browserContextId=self._context)
        self._reader.cancel()

    async def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        await self._send("Emulation.setDeviceMetricsOverride", **size)

    async def prefer(self, scheme: str) -> None:
        await self._send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def goto(self, url: str) -> None:
        await self._send("Page.navigate", url=url)
        await eventually(lambda: self._tells("document.readyState === 'complete'"))

    async def evaluate(self, expression: str) -> Any:
        told = await self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def text(self, selector: str) -> str:
        """What is visible of all elements of a selector."""
        return await self.evaluate(f"({FIND})({json.dumps(selector)}, '').map((node) => node.innerText).join('\\n')")

    async def shows(self, selector: str, text: str = "") -> bool:
        return await self._tells(f"({FIND})({json.dumps(selector)}, {json.dumps(text)}).length > 0")

    async def sees(self, selector: str, text: str = "", bound: float = 10.0) -> None:
        """Wait until it is there to see."""
        try:
            await eventually(lambda: self.shows(selector, text), bound)
        except AssertionError:
            seen = await self.evaluate("document.body?.innerText ?? ''")
            raise AssertionError(f"no {selector} with {text!r} in: {seen[:3000]}; {self.errors}") from None

    async def misses(self, selector: str, text: str = "") -> None:
        """Wait until it is not there to see."""
        await eventually(lambda: self._gone(selector, text))

    async def click(self, selector: str, text: str = "") -> None:
        """Click the middle of the one element that is visible, where nothing may lie above it."""
        await self.sees(selector, text)
        # A live page may move it while the mouse is on its way.
        for _ in range(10):
            place = await self.evaluate(f"({AIM})(({FIND})({json.dumps(selector)}, {json.dumps(text)}))")
            assert isinstance(place, list), (selector, text, place)
            mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
                await self._send("Input.dispatchMouseEvent", type=kind, **mouse)
            # A page that has gone was left by the click.
            if await self._tells("window.hit !== false", gone=True):
                return
        raise AssertionError(f"{selector} with {text!r} moves whenever it is clicked")

    async def type(self, text: str) -> None:
        await self._send("Input.insertText", text=text)

    async def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            await self._send("Input.dispatchKeyEvent", **event, **(text if kind == "keyDown" else {}))

    async def choose(self, selector: str, text: str) -> None:
        """Choose an option, as headless browsers have no menus to click."""
        await eventually(
            lambda: self.evaluate(f"""(() => {{
          const select = document.querySelector({json.dumps(selector)});
          const option = [...select.options].find((one) => one.text.includes({json.dumps(text)}));
          if (!option) return false;
          select.value = option.value;
          select.dispatchEvent(new Event("change", {{ bubbles: true }}));
          return true;
        }})()""")
        )

    async def screenshot(self, path: Path | str) -> None:
        shot = await self._send("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    async def _tells(self, expression: str, *, gone: bool = False) -> bool:
        """What is true of the page; `gone` where the one that was asked has gone meanwhile."""
        with contextlib.suppress(NavigatedError):
            return await self.evaluate(expression)
        return gone

    async def _gone(self, selector: str, text: str) -> bool:
        return not await self.shows(selector, text)

    async def _send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session else {}
        await self._wire.send(json.dumps({"id": number, "method": method, "params": params, **session}))
        async with asyncio.timeout(30):
            told = await answer
        if method == "Runtime.evaluate" and "error" in told:
            raise NavigatedError(told["error"]["message"])
        assert "error" not in told, (method, told)
        return told["result"]

    async def _read(self) -> None:
        async for text in self._wire:
            told = json.loads(text)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(told["params"]["exceptionDetails"])[:2000])
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.errors.append(told["params"]["entry"]["text"])
            elif told["method"] == "Page.javascriptDialogOpening":
                self.errors.append(f"a dialog: {told['params']['message']}")
