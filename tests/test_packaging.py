"""What is built holds all that it needs, and no more; the suite runs on the wheel that is built from the sdist."""

from __future__ import annotations

import email
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

EXTRAS = {"embedded", "cli", "fastapi", "httpx", "httpx2", "prometheus", "otel", "dashboard", "all"}
# Those of development.
OWN = {"test", "lint", "bench", "docs"}
SCRIPTS = {"admit", "quick", "grant", "claim", "sync", "task", "status", "survey"}


@pytest.fixture(scope="module")
def dist() -> Path:
    """What `nox -s tests` has built."""
    place = os.environ.get("BUILT")
    if place is None:
        assert "CI" not in os.environ
        pytest.skip("nothing was built: run `nox -s tests`")
    return Path(place)


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    assert path.stat().st_size < 400_000
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist(dist: Path) -> set[str]:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile, sdist: set[str]) -> None:
    names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"ratelimit_async"}
    sources = {name for name in sdist if name.startswith("ratelimit_async/") and "." in Path(name).name}
    assert {name for name in names if name.startswith("ratelimit_async/")} == sources
    assert {f"ratelimit_async/lua/{script}.lua" for script in SCRIPTS} <= names
    assert {"ratelimit_async/lua/include/limits.lua", "ratelimit_async/py.typed"} <= names
    assert "ratelimit_async/contrib/dashboard/static/index.html" in names


def test_the_sdist_holds_what_tests_and_docs_are_made_of(sdist: set[str]) -> None:
    assert {"LICENSE", "README.md", "noxfile.py", "pyproject.toml", "tests/conftest.py", "docs/index.md"} <= sdist
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in sdist)


def test_the_wheel_tells_what_it_is(wheel: zipfile.ZipFile) -> None:
    (place,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    told = email.message_from_bytes(wheel.read(f"{place}/METADATA"))
    assert set(told.get_all("Provides-Extra", [])) - OWN == EXTRAS
    assert told["License-Expression"] == "MIT"
    assert f"{place}/licenses/LICENSE" in wheel.namelist()
    assert told["Requires-Python"] == ">=3.11"
    needed = {
        line.partition(";")[0].split(">")[0].strip()
        for line in told.get_all("Requires-Dist", [])
        if "extra ==" not in line
    }
    assert needed == {"redis[hiredis]", "msgspec", "anyio", "structlog"}
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    assert "ratelimit-async = ratelimit_async._cli:main" in wheel.read(f"{place}/entry_points.txt").decode()
