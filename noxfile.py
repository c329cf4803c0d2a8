"""The only way in: `nox` runs the gates and the tests, `nox -s demo` and `nox -s bench` what they say."""

import os
import re
import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "typing", "docs", "tests"]

HERE = Path(__file__).parent
# Commands, and the Debian packages that have them.
REDIS = {"redis-server": "redis-server"}
NGINX = {"nginx": "nginx-light"}
CHROMIUM = {"chromium": "chromium"}


def _need(session: nox.Session, packages: dict[str, str]) -> None:
    """Find commands, or install as root the Debian packages that have them."""
    # Where Debian keeps servers, which not everybody's PATH has.
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
    missing = [package for command, package in packages.items() if not shutil.which(command, path=path)]
    if missing and not (shutil.which("apt-get") and os.geteuid() == 0):
        session.error(f"install first, e.g. sudo apt-get install {' '.join(missing)}")
    if missing:
        session.run("apt-get", "update", "-qq", external=True)
        # In this runlevel what is installed is not started: the tests start their own.
        install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
        session.run(*install, external=True, env={"RUNLEVEL": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Style, with every exception reasoned in pyproject.toml."""
    session.install("ruff>=0.14")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Types, by two checkers, of the package and of a user's code."""
    session.install("-e", ".[lint]")
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """The site in build/site: a warning or a link that leads nowhere is an error, and so is a page that fetches."""
    session.install(".[docs]")
    site = HERE / "build" / "site"
    config = ("-f", "docs/site/mkdocs.yml", "-d", str(site))
    session.run("mkdocs", "build", "--strict", *config, env={"NO_MKDOCS_2_WARNING": "1"})
    loads = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//|url\(["']?https?:""")
    fetching = [
        str(path) for path in site.rglob("*") if path.suffix in {".html", ".css"} and loads.search(path.read_text())
    ]
    if fetching:
        session.error(f"these load something from elsewhere: {', '.join(fetching)}")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite on the installed wheel, from a directory without the sources, with coverage."""
    _need(session, REDIS | NGINX | CHROMIUM)
    session.install("build")
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    # The sdist, and from that the wheel.
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    (wheel,) = dist.glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(f"{wheel}[test]")
    place = Path(session.create_tmp()) / "away"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("tests", "bench", "docs"):
        shutil.copytree(HERE / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(HERE / name, place / name)
    session.chdir(place)
    # Two at a time: much of the time is spent waiting for leases and elections.
    cover = [] if session.posargs else ["-n2", "--cov", "--cov-report=term-missing:skip-covered"]
    session.run("python", "-m", "pytest", *cover, *session.posargs, env={"BUILT": str(dist)})


@nox.session
def demo(session: nox.Session) -> None:
    """The main job, to look at."""
    session.install(".[cli,embedded]")
    session.run("ratelimit-async", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, side by side with other libraries: `nox -s bench -- --quick`, or scenarios of bench/__main__.py."""
    _need(session, REDIS | NGINX)
    session.install(".[test]")
    for peer in nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["bench"]:
        # One that has nothing for this system is reported as missing; the others are measured.
        session.install(peer, success_codes=[0, 1])
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Break things for long, and count; then the storms of cancellations."""
    _need(session, REDIS)
    session.install(".[test]")
    session.run("python", "-m", "bench.faults", *session.posargs)
    if not session.posargs:
        session.run("python", "-m", "bench.storms")
