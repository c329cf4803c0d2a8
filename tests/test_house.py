"""The house keeps its floors."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import ratelimit_async
from ratelimit_async._lua import _sources

PACKAGE = Path(ratelimit_async.__file__).parent
FLOORS = [
    {"_errors", "_limits", "_config", "_options", "_values", "_events", "_headers", "_catalog", "_upstream"}
    | {"_functions", "_spelling"},
    {
        "_settings",
        "_loading",
        "_keys",
        "_connection",
        "_supervision",
        "_batches",
        "_backlog",
        "_breaker",
        "_link",
        "_resumption",
        "_sender",
        "_executor",
        "_urls",
        "_credentials",
    }
    | {"_tasks", "_tracing"},
    {"_sentinel", "_cluster", "_router"},
    {"_deployment", "_leases", "_lua", "_scripts", "_task_scripts", "_survey"},
    {
        "_checks",
        "_control",
        "_due",
        "_waiter",
        "_requests",
        "_replies",
        "_grants",
        "_task_tickets",
        "_startup",
        "_outage",
    }
    | {"_local_queue"},
    {"_processor", "_worker"},
    {"_session", "_calls", "_reports", "_lifecycle", "_administration", "_durable", "_limited", "_limiter"}
    | {"_acquire"},
    {
        "_cli",
        "_arguments",
        "_commands",
        "_status",
        "_output",
        "_onlooker",
        "_top",
        "_top_command",
        "_top_view",
        "_bench",
    }
    | {"_demo", "_demo_view", "_work", "__main__"},
]
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)
# What meets other libraries stands on top of all.
CONTRIB = {module for module in MODULES if module.startswith(("contrib.", "testing"))}
FLOOR = {module: number for number, floor in enumerate([*FLOORS, CONTRIB]) for module in floor}
SCRIPTS = sorted((PACKAGE / "lua").glob("*.lua"))


def imports_of(module: str, *, at_run_time: bool) -> set[str]:
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
    if at_run_time:
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            bare = node.module in {"ratelimit_async", "ratelimit_async.contrib"}
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if bare else {node.module or ""}
    ours = {name.removeprefix("ratelimit_async.") for name in found if name.startswith("ratelimit_async.")}
    # Those on top use the public face; it is no module of its own.
    return ours - set(ratelimit_async.__all__) - {"contrib"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_floor_or_lower_ones(module: str) -> None:
    higher = {name for name in imports_of(module, at_run_time=False) if FLOOR[name] > FLOOR[module]}
    assert higher == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {module: imports_of(module, at_run_time=True) for module in MODULES}
    # The view needs the demo's figures, and the demo the view where rich is there.
    left["_demo"].discard("_demo_view")
    while left:
        free = {module for module, needs in left.items() if not needs & left.keys()}
        assert free, left
        left = {module: needs for module, needs in left.items() if module not in free}


def test_all_is_sorted_and_is_what_the_package_imports() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert ratelimit_async.__all__ == sorted(names)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_starts_with_its_contract(script: Path) -> None:
    lines = script.read_text().splitlines()
    header = list(itertools.takewhile(lambda line: line.startswith("--"), lines))
    for word in ("Purpose:", "KEYS:", "ARGV:", "Reply:", "Cost:"):
        assert any(line.startswith(f"-- {word}") for line in header), word


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_no_script_scans_the_keyspace_or_needs_more_than_plain_lua(script: Path) -> None:
    text = script.read_text()
    assert [word for word in ("'KEYS'", "'SCAN'", "cmsgpack", "cjson", "struct.", "bit.") if word in text] == []


OPTIONAL = [
    "fakeredis",
    "lupa",
    "fastapi",
    "starlette",
    "httpx",
    "httpx2",
    "aiohttp",
    "prometheus_client",
    "opentelemetry",
]
OPTIONAL += ["rich", "pytest", "uvicorn"]
# Not optional, but not needed before something is logged.
OPTIONAL += ["structlog"]


def loaded_with(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*[name for name in {OPTIONAL} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_brings_no_optional_one() -> None:
    # redis-py takes what it finds of these
    assert loaded_with("import ratelimit_async") <= loaded_with("import redis.asyncio")


def test_importing_the_package_looks_at_each_line_of_its_scripts_a_few_times() -> None:
    lines = sum(len(file.read_text().splitlines()) for file in (PACKAGE / "lua").rglob("*.lua"))
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        _sources()
    finally:
        sys.setprofile(None)
    # However many scripts share it.
    assert lines < calls < 10 * lines


def test_types_ship() -> None:
    assert (resources.files("ratelimit_async") / "py.typed").is_file()
