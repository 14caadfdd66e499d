r"""The documentation does what it says: every code block of it runs here.

The pages are ``docs/**/*.md`` and ``README.md``. The blocks of a page run in the
order of the page, in a folder of their own, which is the current one.

Python
    All blocks of a page share one namespace, as one module. ``await`` may stand
    at the top level. A function ``test_…`` without arguments is called, plain or
    async.

Files
    A block with a path for a caption, or with one in a comment on its first line,
    is a file::

        ```{code-block} html              ```python
        :caption: templates/hello.html    # hello.py
        ...                               ...

    ``<!-- path -->``, ``-- path``, ``/* path */`` and ``{# path #}`` are comments
    too. The file is written to the folder. A Python file is imported before the
    next block that is no file, and its names are at hand from there on; written
    once more, it is imported afresh. ``conftest.py`` and ``test_….py`` wait for
    pytest. A ``literalinclude`` with a caption appends to the file: one after the
    other, the parts of an example become the example.

Consoles
    ``>>>`` in ``pycon`` blocks is a doctest, in the namespace of the page; ``...``
    in its output stands for anything.
    ``$`` in ``console`` blocks runs a command in the folder, which must succeed.
    Output that stands below it is compared, ``...`` as above. A server is left
    running until the next one, or the end of the page; what stands below it must
    be among what it says. The number 8000 stands for a port that is free. Such a
    page is a test of the kind ``process``.

Other languages
    ``jinja``, ``html+jinja``, ``json`` and ``toml`` are parsed; those in
    :data:`DATA` are not for Python to run.

What must not run
    says so, and why, in a line above it: ``<!-- not run: why -->``. Python in it
    is compiled nevertheless. :data:`MOST_NOT_RUN` keeps that rare.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import tomllib
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pytest

import asyncflask
from asyncflask import Flask
from asyncflask.lazy import cached_property
from asyncflask.rules import Rule

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
#: blocks in all pages together that must not run
MOST_NOT_RUN = 25
#: languages that are read by people, browsers, and other programs
DATA = {"", "text", "html", "css", "js", "javascript", "ini", "nginx", "yaml", "sql"}
DATA |= {"dockerfile", "diff", "http", "apache", "caddy", "svg", "xml", "systemd"}
#: seconds for a command, or for a server to be there
PATIENCE = 30
SERVER = re.compile(
    r"\b(uvicorn|gunicorn|hypercorn|granian|waitress|waitress-serve|uwsgi)\b"
    r"|^python [\w/]+\.py\b"
)

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
DIRECTIVE = re.compile(r"\{(?P<name>[\w-]+)\}\s*(?P<argument>.*)")
OPTION = re.compile(r":(?P<name>[\w-]+):\s*(?P<value>.*)")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.\w+")
NAMED = re.compile(
    rf"(?:#|--|<!--|/\*|\{{#) (?P<path>{PATH.pattern})(?: (?:-->|\*/|#\}}))?"
)
NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+?) -->")


# ------------------------------------------------------------------- the blocks


class Block(NamedTuple):
    """A block of code: where it stands, what it is, and what it says."""

    page: Path
    #: the line that its code starts on
    line: int
    language: str
    code: str
    #: the file that it is, or is a part of; None if it is none
    path: str | None
    is_include: bool
    #: why it must not run; None if it may
    not_run: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    blocks = []
    lines = enumerate(page.read_text().splitlines(), start=1)
    not_run = None
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is not None:
            inside = list(lines_until(opening, lines))
            block = new_block(page, number, opening["info"].strip(), inside, not_run)
            blocks += [] if block is None else [block]
        if line.strip():
            marked = NOT_RUN.fullmatch(line.strip())
            not_run = None if marked is None else marked["why"]
    return blocks


def lines_until(opening: re.Match[str], lines: Iterator[Any]) -> Iterator[str]:
    """Iterate over the lines of a block, up to its end."""
    indent, ticks = opening["indent"], opening["ticks"]
    for number, line in lines:
        if line.strip() == ticks:
            return
        if line.strip() and not line.startswith(indent):
            raise ValueError(f"line {number}: {line!r} stands left of its block")
        yield line[len(indent) :]
    raise ValueError(f"a block has no end: {opening['info']!r}")


def new_block(
    page: Path, number: int, info: str, inside: list[str], not_run: str | None
) -> Block | None:
    """Return a block; None for a directive that shows no code."""
    options: dict[str, str] = {}
    directive = DIRECTIVE.fullmatch(info)
    language = info
    if directive is not None:
        if directive["name"] not in ("code-block", "literalinclude"):
            return None
        language = directive["argument"]
        while inside and (option := OPTION.fullmatch(inside[0])) is not None:
            options[option["name"]] = option["value"]
            del inside[0]
            number += 1
    is_include = directive is not None and directive["name"] == "literalinclude"
    if is_include:
        inside = included(page.parent / directive["argument"], options)
        language = options.get("language", "")
    while inside and not inside[0].strip():
        del inside[0]
        number += 1
    path = options.get("caption", "")
    named = NAMED.fullmatch(inside[0]) if inside and not path else None
    if named is not None:
        path = named["path"]
    file = path if PATH.fullmatch(path) else None
    code = "\n".join(inside) + "\n"
    return Block(page, number + 1, language, code, file, is_include, not_run)


def included(path: Path, options: dict[str, str]) -> list[str]:
    """Return the lines that a literalinclude shows."""
    lines = path.read_text().splitlines()
    known = {"caption", "language", "start-at", "end-before", "name", "linenos"}
    assert options.keys() <= known, options
    start, end = options.get("start-at"), options.get("end-before")
    if start is not None:
        del lines[: next(i for i, line in enumerate(lines) if start in line)]
    if end is not None:
        first = 0 if start is None else 1
        found = (i for i, line in enumerate(lines[first:], first) if end in line)
        del lines[next(found) :]
    return lines


# ------------------------------------------------------------------ running them


class Runner:
    """Runs the blocks of one page in a folder."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.server: Server | None = None
        self.module = types.ModuleType("page_" + page.stem.replace("-", "_"))
        self.module.__file__ = str(folder / f"{self.module.__name__}.py")
        self.names = self.module.__dict__
        #: modules that have been written and wait to be imported
        self.waiting: list[str] = []
        #: modules of the same names, which other tests have imported
        self.hidden: dict[str, Any] = {}

    def run(self, block: Block) -> None:
        """Run a block, or keep it for those to come."""
        if block.path is not None and block.not_run is None:
            self.write(block)
            return

        self.import_files()
        if block.not_run is not None:
            if block.language == "python":
                compiled(block)
        elif block.language == "python":
            self.execute(block)
        elif block.language == "pycon":
            self.converse(block)
        elif block.language in ("console", "sh", "bash"):
            self.command(block)
        else:
            check(block)

    # -------------------------------------------------------------------- files

    def write(self, block: Block) -> None:
        """Write the file that a block is, or append what is a part of one."""
        path = self.folder / str(block.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self.with_port(block.code)
        if block.is_include and path.exists():
            part = f"{path.read_text()}\n{part}"
        path.write_text(part)
        check(block)
        if path.suffix != ".py" or path.name.startswith(("test_", "conftest")):
            return

        name = str(block.path)[:-3].replace("/", ".").removesuffix(".__init__")
        if name not in self.waiting and name.replace(".", "").isidentifier():
            self.waiting.append(name)

    def import_files(self) -> None:
        """Import what has been written; all of it afresh if some was there before."""
        waiting, self.waiting = self.waiting, []
        importlib.invalidate_caches()
        if self.own_modules() & set(waiting):
            self.forget()
        for name in waiting:
            self.hide(name.partition(".")[0])
        for name in waiting:
            module = importlib.import_module(name)
            self.names.update(
                (key, value)
                for key, value in vars(module).items()
                if not key.startswith("__")
            )

    def own_modules(self) -> set[str]:
        """Return the names of the modules that come from this folder."""
        return {
            name
            for name, module in list(sys.modules.items())
            if module is not self.module
            and str(getattr(module, "__file__", None)).startswith(str(self.folder))
        }

    def forget(self) -> None:
        """Forget the modules of this folder."""
        for name in self.own_modules():
            del sys.modules[name]

    def hide(self, package: str) -> None:
        """Take a package away that others have imported, until the page ends."""
        for name in sys.modules.keys() - self.own_modules():
            if f"{name}.".startswith(f"{package}."):
                self.hidden[name] = sys.modules.pop(name)

    def close(self) -> None:
        """Leave everything as it was."""
        self.forget()
        sys.modules.update(self.hidden)
        self.stop()

    # ------------------------------------------------------------------- Python

    def execute(self, block: Block) -> None:
        """Run Python in the namespace of the page."""
        before = dict(self.names)
        code = compiled(block)
        result = eval(code, self.names)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(result)
        for name, test in list(self.names.items()):
            if before.get(name) is test:
                continue
            if name.startswith("test_") and not inspect.signature(test).parameters:
                asked = test()
                if inspect.iscoroutine(asked):
                    asyncio.run(asked)

    def converse(self, block: Block) -> None:
        """Run a doctest in the namespace of the page."""
        test = doctest.DocTestParser().get_doctest(
            block.code, {}, block.where, str(block.page), block.line - 1
        )
        test.globs = self.names
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        runner.run(test, out=said.append, clear_globs=False)
        assert not said, "".join(said)

    # ----------------------------------------------------------------- commands

    def command(self, block: Block) -> None:
        """Run the commands of a block, and compare what they say."""
        for command, expected in commands_of(block):
            if SERVER.search(command):
                self.stop()
                self.server = Server(self.with_port(command), self, expected)
                self.server.wait_until_it_listens()
                continue

            done = subprocess.run(
                self.with_port(command),
                shell=True,
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                timeout=PATIENCE,
                text=True,
            )
            where = f"{block.where}: {command}\n{done.stderr}"
            assert done.returncode == 0, f"{where}{done.stdout}"
            if expected:  # curl draws its progress to where errors go
                said = done.stdout or done.stderr
                assert_same(self.without_port(said), expected, where)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command: this Python, this asyncflask, this port."""
        binaries = os.path.dirname(sys.executable)
        return {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "UVICORN_PORT": str(self.port),
            "PORT": str(self.port),
        }

    def with_port(self, text: str) -> str:
        """Put the free port in place of 8000."""
        return re.sub(r"\b8000\b", str(self.port), text)

    def without_port(self, text: str) -> str:
        """Put 8000 back in place of the free port."""
        return re.sub(rf"\b{self.port}\b", "8000", text)

    def stop(self) -> None:
        """Stop the server that runs, if one does."""
        server, self.server = self.server, None
        if server is not None:
            server.stop()


class Server:
    """A server that a page has started."""

    def __init__(self, command: str, runner: Runner, expected: str) -> None:
        self.command = command
        self.runner = runner
        self.expected = expected
        self.log = runner.folder.parent / f"{runner.folder.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                shlex.split(command),
                cwd=runner.folder,
                env=runner.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_it_listens(self) -> None:
        """Return when it takes connections."""
        for _ in range(PATIENCE * 50):
            try:
                self.process.wait(0.02)
                break
            except subprocess.TimeoutExpired:
                pass
            try:
                socket.create_connection(("127.0.0.1", self.runner.port), 1).close()
                return
            except OSError:
                pass
        said = self.log.read_text()
        self.kill()
        raise AssertionError(f"{self.command} did not listen:\n{said}")

    def stop(self) -> None:
        """Stop it as Ctrl-C does, and look at what it has said."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.kill()
        said = self.runner.without_port(self.log.read_text())
        for line in filter(None, self.expected.splitlines()):
            assert_same(said, f"...{line}...", self.command)

    def kill(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """Iterate over the commands of a block, each with what it is to say."""
    joined = block.code.replace("\\\n", " ")
    parts = re.split(r"^\$ ", joined, flags=re.MULTILINE)
    assert not parts[0].strip(), f"{block.where}: a command starts with '$ '"
    for part in parts[1:]:
        command, _, expected = part.partition("\n")
        yield command.strip(), expected.strip()


def compiled(block: Block) -> types.CodeType:
    """Compile Python; its lines are those of the page."""
    return compile(
        "\n" * (block.line - 1) + block.code,
        str(block.page),
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )


def check(block: Block) -> None:
    """Look at a block that is not run as far as a parser can."""
    suffix = Path(block.path or "").suffix.removeprefix(".")
    language = block.language or suffix
    if language in ("python", "py"):
        compiled(block)
    elif language in ("jinja", "html+jinja"):
        jinja2.Environment().parse(block.code)
    elif language == "json":
        json.loads(block.code)
    elif language == "toml":
        tomllib.loads(block.code)
    else:
        assert block.path or language in DATA, f"{block.where}: {language!r}?"


def assert_same(said: str, expected: str, where: str) -> None:
    """Compare an output, line ends and blanks at the ends of lines left out."""
    said, expected = (
        "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"
        for text in (said, expected)
    )
    same = doctest.OutputChecker().check_output(expected, said, doctest.ELLIPSIS)
    assert same, f"{where}\n--- is to say\n{expected}--- says\n{said}"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# -------------------------------------------------------------------- the tests


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


def has_commands(page: Path) -> bool:
    return any(
        block.language in ("console", "sh", "bash") and block.not_run is None
        for block in blocks_of(page)
    )


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=name_of(page),
            marks=[pytest.mark.process] if has_commands(page) else [],
        )
        for page in PAGES
        if blocks_of(page)
    ],
)
def test_every_block_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "$ curl" in page.read_text() and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    folder = tmp_path / "page"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    runner = Runner(page, folder)
    monkeypatch.setitem(sys.modules, runner.module.__name__, runner.module)
    try:
        for block in blocks_of(page):
            runner.run(block)
        runner.import_files()
        runner.stop()
    finally:
        runner.close()


def test_few_blocks_do_not_run_and_all_of_them_say_why() -> None:
    marked = [block for page in PAGES for block in blocks_of(page) if block.not_run]
    listed = "\n".join(f"{block.where}: {block.not_run}" for block in marked)
    assert len(marked) <= MOST_NOT_RUN, listed
    marks = sum(page.read_text().count("<!-- not run: ") for page in PAGES)
    assert marks == len(marked), f"a mark stands above no block\n{listed}"


def test_a_block_that_fails_fails_its_page(tmp_path: Path) -> None:
    page = ROOT / "docs" / "page.md"
    for language, code, error in (
        ("python", "assert False, 'no'", AssertionError),
        ("python", "def test_it():\n    raise KeyError", KeyError),
        ("python", "async def test_it():\n    raise KeyError", KeyError),
        ("pycon", ">>> 1 + 1\n3\n", AssertionError),
        ("console", "$ echo yes\nno", AssertionError),
        ("console", "$ false", AssertionError),
        ("cobol", "STOP RUN", AssertionError),
    ):
        block = new_block(page, 1, language, code.splitlines(), None)
        assert block is not None
        with pytest.raises(error):
            Runner(page, tmp_path).run(block)


def test_what_a_block_is_stands_in_its_head(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        textwrap.dedent("""\
        ```python
        # shop/views.py
        x = 1
        ```
        <!-- not run: it never ends -->
        ```{code-block} html+jinja
        :caption: templates/a.html

        {{ x }}
        ```
        ```{toctree}
        nothing
        ```
        1. ```console
           $ ls
           a
           ```
        """).replace("1. ```", "1.\n   ```")
    )
    found = [(b.language, b.line, b.path, b.not_run) for b in blocks_of(page)]
    assert found == [
        ("python", 2, "shop/views.py", None),
        ("html+jinja", 9, "templates/a.html", "it never ends"),
        ("console", 16, None, None),
    ]


@pytest.mark.parametrize("name", ["flaskr.py", "flaskr_async.py"])
def test_the_tutorial_builds_the_whole_example(name: str) -> None:
    parts = [b for b in blocks_of(ROOT / "docs" / "tutorial.md") if b.path == name]
    built = "".join(part.code for part in parts)
    example = (ROOT / "examples" / "flaskr" / name).read_text()
    assert re.sub("\n+", "\n", built) == re.sub("\n+", "\n", example)


def test_the_page_of_settings_has_them_all_with_their_defaults() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    of_application, of_rule = page.split("## Of a rule\n")
    for name, value in vars(Flask).items():
        if name.startswith("_") or (callable(value) and not isinstance(value, type)):
            continue
        if not isinstance(value, property | cached_property):
            default = default_of(of_application, name)
            assert eval(default, {**vars(asyncflask), "timedelta": timedelta}) == value

    parameters = dict(inspect.signature(Rule).parameters)
    del parameters["string"]
    for name, parameter in parameters.items():
        default = default_of(of_rule, name)
        if name not in ("methods", "endpoint") and parameter.default is not ...:
            assert eval(default) == parameter.default, name


def default_of(text: str, name: str) -> str:
    """Return what a table has in its second column."""
    row = re.search(rf"^\| `{name}` \| (.*?) \|", text, re.MULTILINE)
    assert row is not None, f"docs/settings.md does not have {name!r}"
    return row[1].strip("`")


@pytest.mark.parametrize("name", asyncflask.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert re.search(rf"^\.\. \w+:: (asyncflask\.)?{name}\b", page, re.MULTILINE)
