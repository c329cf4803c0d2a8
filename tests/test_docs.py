"""What README and docs show, runs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.faults import EXPERIMENTS
from tests.llm import LlmServer, Quota

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def upstreams() -> Iterator[None]:
    """Stand in for the APIs that the pages call."""
    with LlmServer(Quota()) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        patch.setenv("ANTHROPIC_BASE_URL", server.url)
        yield


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_the_code_of_a_page_runs(page: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    blocks = BLOCK.findall(page.read_text())
    assert blocks or page.name != "README.md"
    for block in blocks:
        source = block.replace("redis://localhost:6379/0", "memory://")
        code = compile(source, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307 - our own pages
        if inspect.isawaitable(result):
            await result


@pytest.mark.parametrize("package", ["openai", "anthropic"])
async def test_the_client_of_an_upstream_s_package_calls_through_the_transport(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    monkeypatch.setenv(f"{package.upper()}_API_KEY", "a key")
    text = (ROOT / "docs" / f"{package}.md").read_text()
    (shown,) = re.findall(r"^```py\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    asked = {"model": "m", "messages": [{"role": "user", "content": "why?"}], "max_tokens": 20}
    call = "chat.completions" if package == "openai" else "messages"
    use = f"async with limiter:\n    reply = await client.{call}.create(**asked)\n"
    use += f"    used = [limit.used for limit in (await limiter.status('{package}')).limits]\n"
    names: dict[str, Any] = {"__name__": package, "asked": asked}
    for block in [*BLOCK.findall(text), "limiter = RateLimiter(REDIS, limits=LIMITS)\n" + shown + use]:
        source = block.replace("redis://localhost:6379/0", "memory://")
        result = eval(compile(source, package, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)  # noqa: S307
        if inspect.isawaitable(result):
            await result
    assert names["used"][0] >= 1  # the upstream tells of the calls before, too
    assert type(names["reply"]).__module__.startswith(f"{package}.")
    await names["client"].close()


def test_what_is_promised_names_experiments_that_exist() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 10
    files = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    assert [name for name in named - {"test_x"} - files if f"def {name}(" not in tests] == []
    shown = {word for words in re.findall(r"`bench\.faults ([\w ]+)`", page) for word in words.split()}
    assert shown - {"x"} <= EXPERIMENTS.keys()
    # Those that are left out are shown by no line.
    assert EXPERIMENTS.keys() - shown == set()
