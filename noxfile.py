"""The one door for checks: ``nox -s tests``, ``lint``, ``types``, ``examples``,
``docs``.

``fuzz``, ``soak`` and ``bench`` run only when they are asked for.
Versions and dependency groups stand in ``pyproject.toml``.
"""

import shutil
import subprocess

import nox

nox.needs_version = ">=2025.5"
nox.options.sessions = ["lint", "types", "tests", "examples", "docs"]
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")


def is_present(version: str) -> bool:
    """Say whether there is a Python of that version, and it starts."""
    try:
        command = [f"python{version}", "-c", ""]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


PYTHONS = [v for v in nox.project.python_versions(PROJECT) if is_present(v)]


def install(session: nox.Session, group: str) -> None:
    """Install the package itself and a dependency group."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, group))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; those that start servers and browsers on one version only."""
    install(session, "test")
    only = [] if session.python == PYTHONS[0] else ["-m", "not process"]
    session.run("pytest", "tests", *only, *session.posargs)


@nox.session(python=PYTHONS)
def examples(session: nox.Session) -> None:
    """Run the example applications' own tests."""
    install(session, "test")
    session.run("pytest", "examples", *session.posargs)


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


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "types")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into ``docs/_build``; a warning is an error."""
    install(session, "docs")
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html"]
    session.run("sphinx-build", *options, *session.posargs, "docs", "docs/_build")


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist into ``dist``."""
    shutil.rmtree("dist", ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build")
