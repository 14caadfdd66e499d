"""The shape of the package: its layers, its names, the way of a request."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import asyncflask
from asyncflask import Flask
from asyncflask.testing import build_request

PACKAGE = Path(asyncflask.__file__).parent

#: each module may import from the layers above its own in this list
LAYERS = [
    {"dates", "exceptions", "files", "lazy", "loops", "proxies"},
    {"converters", "datastructures", "environ", "json", "workers"},
    {"cookies", "forms", "rules", "signing", "target"},
    {"routing", "sessions"},
    {"context", "wrappers"},
    {"helpers", "lifespan", "mounting", "static"},
    {"moving", "pipeline", "templating"},
    {"calling"},
    {"receiving", "watching"},
    {"sending"},
    {"asgi", "wsgi"},
    {"testing"},
    {"app"},
    {"debug"},
    {"reloading"},
    {"serving"},
    {"__init__"},
]

#: what waits, blocks or hops has no business in the rooms that decide
WAITING = {"asyncio", "anyio", "threading", "concurrent", "socket", "select", "queue"}
WAITERS = {
    *("loops", "workers", "lifespan", "moving", "calling", "receiving", "sending"),
    "watching",
    *("asgi", "wsgi", "reloading", "serving", "testing"),
}


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Return own modules and top-level packages that a module imports at load."""
    own, foreign = set(), set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [a.name for a in node.names]
            own |= {name.partition(".")[0] for name in names}
        elif isinstance(node, ast.ImportFrom):
            foreign.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            foreign |= {alias.name.partition(".")[0] for alias in node.names}
    return own, foreign


def test_every_module_has_a_layer():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {"debug"}
    assert rooms == set().union(*LAYERS)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_imports_only_go_down(path):
    own, foreign = imports(path)
    level = next(n for n, layer in enumerate(LAYERS) if path.stem in layer)
    below = set().union(*LAYERS[:level])
    assert own <= below
    if path.stem not in WAITERS:
        assert not foreign & WAITING


FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef


def length(function: ast.AST) -> int:
    """Return the number of lines in the body of a function, less its docstring."""
    has_docstring = ast.get_docstring(function) is not None
    first = function.body[0]
    before = first.end_lineno if has_docstring else first.lineno - 1
    return function.end_lineno - before


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_no_function_is_longer_than_a_page(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    assert [f.name for f in functions if length(f) > 40] == []


def test_the_public_names_are_those_promised():
    promised = """
        Flask Request Response request session g current_app url_for flash
        get_flashed_messages render_template render_template_string abort redirect
        Markup escape jsonify HTTPException _request_ctx_stack
        render_template_async render_template_string_async
    """
    assert set(asyncflask.__all__) == set(promised.split())
    assert all(hasattr(asyncflask, name) for name in asyncflask.__all__)
    assert (PACKAGE / "py.typed").exists()


def own_calls(app: Flask, path: str) -> list[str]:
    """Return the calls of our own that one request makes once it is warm."""
    calls: list[str] = []

    async def receive():
        raise AssertionError("a request without a body was asked for one")

    async def send(message):
        pass

    def note(frame, event, argument):
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)):
            calls.append(f"{Path(name).stem}.{frame.f_code.co_name}")

    def request():
        coroutine = app(build_request(path)[0], receive, send)
        with pytest.raises(StopIteration):
            coroutine.send(None)

    request()
    sys.setprofile(note)
    try:
        request()
    finally:
        sys.setprofile(None)
    return [call for call in calls if not call.startswith("testing.")]


def test_the_way_of_a_request_is_short():
    app = Flask(__name__)

    @app.route("/")
    async def index():
        return "hello"

    calls = own_calls(app, "/")
    files = {call.partition(".")[0] for call in calls}
    assert len(calls) <= 11, calls
    assert files <= {
        *("app", "asgi", "calling", "context", "moving", "pipeline", "receiving"),
        *("routing", "target", "wrappers"),
    }
