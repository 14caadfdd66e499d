"""Checks what is packed and what is installed; run by ``nox -s package``.

``packaging.py contents FILE ...`` looks into wheels and sdists. ``packaging.py
installed``, run by the Python of a venv that holds nothing but the package, imports
it, has the uvicorn that came with it serve an application, and asks that.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parent.parent

#: what stands at the top of an sdist, folders with all that lies below
SDIST = {
    *("asyncflask", "benchmarks", "docs", "examples", "tests", "CHANGES.md"),
    *("CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "noxfile.py"),
    *("pyproject.toml", ".gitignore", "PKG-INFO"),
}
#: what the kinds of files in there end with
SUFFIXES = {
    *("", ".css", ".html", ".http", ".js", ".md", ".png", ".py", ".sql", ".toml"),
    *(".txt", ".typed", ".conf", ".ini", ".service", ".sh", ".svg"),
}

APP = """
from asyncflask import Flask, render_template_string, request, session
from asyncflask.debug import Debugger

app = Flask(__name__)
app.secret_key = "a secret of the check"

@app.route("/")
def index():
    session["visits"] = session.get("visits", 0) + 1
    return render_template_string("plain {{ request.args['q'] }} {{ session.visits }}")

@app.route("/async", methods=["POST"])
async def form():
    return {"async": request.form["a"]}

@app.route("/failing")
def failing():
    return 1 / 0

app.debug = True
app.asgi_app = Debugger(app)
"""


def sources() -> set[str]:
    """Return the files of the package, as they are named below the root."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "asyncflask").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def check_wheel(path: Path) -> None:
    """Check that a wheel holds the package, its licence, and nothing else."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    info = metadata.removesuffix("/METADATA")
    about = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}
    expected = sources() | {f"{info}/{name}" for name in about}
    assert names == expected, sorted(names ^ expected)
    for line in (
        "License-Expression: BSD-3-Clause",
        "License-File: LICENSE",
        "Requires-Python: >=3.11",
        "Provides-Extra: standard",
        "Description-Content-Type: text/markdown",
        "Classifier: Typing :: Typed",
    ):
        assert line in text.splitlines(), line


def check_sdist(path: Path) -> None:
    """Check that an sdist holds the sources, and nothing that running them leaves."""
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
    names = {member.name.partition("/")[2] for member in members}
    assert sources() <= names, sorted(sources() - names)
    top = {name.partition("/")[0] for name in names}
    assert top == SDIST, sorted(top ^ SDIST)
    odd = {n for n in names if PurePosixPath(n).suffix not in SUFFIXES}
    odd |= {n for n in names if "__pycache__" in n}
    assert not odd, sorted(odd)


def check_installed() -> None:
    """Check the package that this Python has: what it says, and whether it serves."""
    import asyncflask

    assert Path(asyncflask.__file__).is_relative_to(sys.prefix), asyncflask.__file__
    assert (Path(asyncflask.__file__).parent / "py.typed").is_file()
    assert importlib.metadata.version("asyncflask")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hello.py").write_text(APP)
        options = ["--app-dir", folder, "--port", "0", "--log-level", "info"]
        command = [sys.executable, "-m", "uvicorn", "hello:app", *options]
        with subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, text=True
        ) as server:
            try:
                ask(address(server))
            finally:
                server.terminate()


def address(server: subprocess.Popen[str]) -> str:
    """Return the URL that uvicorn says it serves."""
    said = []
    for line in server.stderr or ():
        said.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]

    raise RuntimeError("uvicorn did not start:\n" + "".join(said))


def ask(url: str) -> None:
    """Ask the served application, and look at what it says."""
    code, headers, data = fetch(f"{url}/?q=x")
    assert (code, data) == (200, b"plain x 1")
    cookie = headers["set-cookie"].partition(";")[0]
    code, _, data = fetch(f"{url}/?q=y", headers={"Cookie": cookie})
    assert (code, data) == (200, b"plain y 2")
    code, _, data = fetch(f"{url}/async", data=b"a=1")
    assert (code, data) == (200, b'{"async":"1"}\n')
    code, _, data = fetch(f"{url}/failing", headers={"Accept": "text/html"})
    assert code == 500
    assert b"ZeroDivisionError" in data


def fetch(url: str, **options: Any) -> tuple[int, Message, bytes]:
    """Return code, header fields and body of what a URL answers."""
    try:
        got = urllib.request.urlopen(urllib.request.Request(url, **options), timeout=20)
    except urllib.error.HTTPError as error:
        got = error
    with got:
        return got.status, got.headers, got.read()


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["contents", *files] if files:
            for path in map(Path, files):
                check_wheel(path) if path.suffix == ".whl" else check_sdist(path)
        case ["installed"]:
            check_installed()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
