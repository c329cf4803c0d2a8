"""The pages belong together: none is missing, nothing public is left out, pictures are what their script draws."""

from __future__ import annotations

import importlib
import logging
import re
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ratelimit_async
from ratelimit_async import Limit, QueueConfig, RateLimitConfig, RateLimitError, RequestOptions, _errors, _events
from ratelimit_async._settings import Settings

if TYPE_CHECKING:
    import msgspec

DOCS = Path(__file__).parent.parent / "docs"
CONTRIB = Path(ratelimit_async.__file__).parent / "contrib"
API = [*re.findall(r"^::: (\S+)$", "\n".join(page.read_text() for page in DOCS.glob("api*.md")), re.MULTILINE)]


def test_the_api_has_every_public_name_once() -> None:
    own = [path.removeprefix("ratelimit_async.") for path in API if path.count(".") == 1]
    assert sorted(own) == ratelimit_async.__all__


def public_contrib() -> list[str]:
    found = [path.stem for path in CONTRIB.iterdir() if not path.name.startswith("_")]
    return [*(f"contrib.{name}" for name in sorted(found)), "testing"]


@pytest.mark.parametrize("name", public_contrib())
def test_the_api_has_every_public_name_of_contrib(name: str) -> None:
    module = importlib.import_module(f"ratelimit_async.{name}")
    documented: list[Any] = []
    for path in API:
        place, _, what = path.rpartition(".")
        if place != "ratelimit_async":
            documented.append(getattr(importlib.import_module(place), what))
    names = module.__all__
    assert names
    # What two modules share is told of once.
    assert [what for what in names if not any(getattr(module, what) is one for one in documented)] == []


@pytest.mark.parametrize(
    ("struct", "page"),
    [
        (Settings, "configuration.md"),
        (RateLimitConfig, "configuration.md"),
        (QueueConfig, "requests.md"),
        (RequestOptions, "requests.md"),
        (Limit, "limits.md"),
    ],
)
def test_every_field_is_on_the_page_that_explains_it(struct: type[msgspec.Struct], page: str) -> None:
    text = (DOCS / page).read_text()
    missing = [field for field in struct.__struct_fields__ if not re.search(rf"`[^`\n]*\b{field}\b[^`\n]*`", text)]
    assert missing == []


def test_troubleshooting_has_every_error_and_every_event_that_tells_of_trouble() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    errors = set(_errors.__all__)
    assert [name for name in sorted(errors) if f"`{name}`" not in text and f"`{name}" not in text] == []
    trouble = [event.__name__ for event, level in _events._LEVELS.items() if level >= logging.WARNING]
    assert [name for name in trouble if f"`{name.lower()}`" not in text] == []
    assert all(issubclass(getattr(_errors, name), RateLimitError) for name in errors)


def test_every_event_is_on_the_page_that_explains_them() -> None:
    text = (DOCS / "introspection.md").read_text()
    events = set(_events.__all__) - {"Event", "Hook", "log_event", "log_failure"}
    assert [name for name in sorted(events) if f"`{name}`" not in text] == []


def test_the_pictures_are_what_their_script_draws(tmp_path: Path) -> None:
    draw = runpy.run_path(str(DOCS / "images" / "draw.py"))
    draw["main"](tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in (DOCS / "images").glob("*.svg")}


def test_drawing_needs_nothing_but_python() -> None:
    source = (DOCS / "images" / "draw.py").read_text()
    assert set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)) <= set(sys.stdlib_module_names)


PAGES = sorted(DOCS.glob("*.md"))


def anchors(page: Path) -> set[str]:
    """What mkdocs makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = set[str]()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


@pytest.mark.parametrize("page", [DOCS.parent / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name) if name else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_the_navigation_and_every_page_of_the_navigation_is_there() -> None:
    listed = re.findall(r"^ +- ([\w-]+\.md)$", (DOCS / "site" / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES]
