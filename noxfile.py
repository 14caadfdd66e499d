"""The one door for checks: ``nox`` runs those that are due before each commit.

``nox --list`` names them all. ``lowest``, ``coverage``, ``fuzz``, ``soak`` and
``bench`` run only when they are asked for. What stands behind ``--`` goes to the tool
itself: ``nox -s tests-3.13 -- -k streams``. Versions and dependency groups stand in
``pyproject.toml``.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.sessions = ["lint", "types", "tests", "examples", "docs", "package"]
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")

#: the tests that share the processors; those that start servers, browsers and the
#: like want them for themselves, one after the other
PARALLEL = ["-m", "not process", "-n", "auto"]
SERIAL = ["-m", "process"]


def is_present(version: str) -> bool:
    """Say whether there is a Python of that version, and it starts."""
    try:
        command = [f"python{version}", "-c", ""]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


PYTHONS = [v for v in nox.project.python_versions(PROJECT) if is_present(v)]


def install(session: nox.Session, group: str, *more: str) -> None:
    """Install the package itself and a dependency group."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, group), *more)


# ------------------------------------------------------------------------ the tests


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; those that start servers and browsers on one version only."""
    install(session, "test")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return

    session.run("pytest", "tests", *PARALLEL)
    if session.python == PYTHONS[0]:
        session.run("pytest", "tests", *SERIAL)


@nox.session(python=PYTHONS)
def examples(session: nox.Session) -> None:
    """Run the example applications' own tests."""
    install(session, "test")
    session.run("pytest", "examples", *session.posargs)


@nox.session(python=PYTHONS[:1])
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that ``pyproject.toml`` allows."""
    wanted = PROJECT["project"]["dependencies"]
    oldest = [re.sub(r">=([^,]+).*", r"==\1", requirement) for requirement in wanted]
    install(session, "test", *oldest)
    # What an old uvicorn asks of a new websockets is not our business.
    calm = ["-W", "ignore:websockets:DeprecationWarning"]
    session.run("pytest", "tests", *calm, *(session.posargs or PARALLEL))


@nox.session(python=PYTHONS[:1])
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches the tests reach, in all processes."""
    install(session, "coverage")
    session.run("coverage", "erase")
    for chosen in PARALLEL, SERIAL:
        session.run("coverage", "run", "-m", "pytest", "tests", *chosen)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Try odd inputs: ``nox -s fuzz -- --count 1000 --seed 7 --target asgi``."""
    install(session, "test")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Serve for a long time: ``nox -s soak -- --seconds 60 --seed 3 --http h11``."""
    install(session, "test")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the peers: ``nox -s bench -- inprocess --quick``."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


# --------------------------------------------------------- the sources and the package


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, and that all that is public says its type."""
    # pyright judges what is installed, so it must not be installed as editable.
    session.install(".", *nox.project.dependency_groups(PROJECT, "types"))
    session.run("mypy", *session.posargs)
    session.run("pyright")
    session.run("pyright", "--verifytypes", "asyncflask", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into ``docs/_build``; a warning is an error."""
    install(session, "docs")
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html"]
    session.run("sphinx-build", *options, *session.posargs, "docs", "docs/_build")


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist into ``dist``, check them, and serve with each."""
    session.install(*nox.project.dependency_groups(PROJECT, "package"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    files = sorted(str(path) for path in Path("dist").iterdir())
    session.run("twine", "check", "--strict", *files)
    session.run("python", "tests/packaging.py", "contents", *files)
    for file in files:
        venv = session.create_tmp()
        session.run("python", "-m", "venv", "--clear", venv)
        python = str(Path(venv, "Scripts" if os.name == "nt" else "bin", "python"))
        session.run(python, "-m", "pip", "install", "-q", file, external=True)
        # -I: nothing of the folder it stands in
        session.run(python, "-I", "tests/packaging.py", "installed", external=True)
