"""The console: code typed in, run in a frame of a request that has failed.

Plain code runs where the plain code of the request ran, so that whatever
belongs to that thread (a sqlite3 connection) can be used. Code with ``await``
in it runs on the loop. In both cases the request's context is bound.
"""

from __future__ import annotations

import ast
import builtins
import contextvars
import inspect
import io
import linecache
import pprint
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, TextIO, cast

from ..context import current_app, g, request, session
from ..helpers import url_for

#: characters that are shown of what an input gives
MOST_OUTPUT = 20_000

_captured: contextvars.ContextVar[io.StringIO | None] = contextvars.ContextVar(
    "asyncflask.debug.captured", default=None
)


_ALWAYS = {
    "current_app": current_app,
    "g": g,
    "request": request,
    "session": session,
    "url_for": url_for,
}


def names_of(frame: FrameType) -> dict[str, Any]:
    """Return the names of a frame: its locals, behind them its globals, and behind
    those what everybody looks for.

    What is assigned stays there; the frame itself cannot be changed.
    """
    return {
        "__builtins__": builtins,
        **_ALWAYS,
        **frame.f_globals,
        **frame.f_locals,
    }


class Output(io.StringIO):
    """Keeps what is printed, up to a bound."""

    #: characters that there was no room for
    lost: int = 0

    def write(self, text: str) -> int:
        """Keep a text as far as there is room for it."""
        room = max(MOST_OUTPUT - self.tell(), 0)
        super().write(text[:room])
        self.lost += max(len(text) - room, 0)
        return len(text)

    def shown(self) -> str:
        """Return it all, and say how much is missing."""
        text = self.getvalue()
        return f"{text}\n… and {self.lost} characters more" if self.lost else text


class _Router:
    """Stands in for ``sys.stdout``: what the console prints goes to its page."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        captured = _captured.get()
        return (self._stream if captured is None else captured).write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def capturing() -> Iterator[Output]:
    """Collect what is printed in this context, and in no other."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Router):
            setattr(sys, name, cast("TextIO", _Router(stream)))
    output = Output()
    token = _captured.set(output)
    try:
        yield output
    finally:
        _captured.reset(token)


class Console:
    """An interpreter in one frame; what an input assigns, later ones see."""

    def __init__(self, frame: FrameType) -> None:
        self._names = names_of(frame)
        self._files: list[str] = []

    def compile(self, source: str) -> Input:
        """Return an input, ready to be run.

        :raises SyntaxError: when it is not Python.
        """
        file = f"<console {id(self):x}-{len(self._files)}>"
        self._files.append(file)
        lines = source.splitlines(keepends=True)
        linecache.cache[file] = len(source), None, lines, file  # for its tracebacks
        try:
            tree = ast.parse(source, file)
        except (RecursionError, MemoryError):
            raise ValueError("It is nested too deep to be understood.") from None
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(cast("ast.Expr", tree.body.pop()).value)
        codes = [_compiled(node, file) for node in (tree, last) if node is not None]
        return Input(codes, self._names, has_value=last is not None)

    def forget(self) -> None:
        """Let go of what was typed in."""
        for file in self._files:
            linecache.cache.pop(file, None)


def _compiled(node: ast.Module | ast.Expression, file: str) -> CodeType:
    mode = "eval" if isinstance(node, ast.Expression) else "exec"
    code = compile(
        node, file, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    return cast("CodeType", code)


class Input:
    """Something that was typed in: statements, and perhaps a last expression."""

    def __init__(
        self, codes: list[CodeType], names: dict[str, Any], has_value: bool
    ) -> None:
        self._codes = codes
        self._names = names
        self._has_value = has_value

    @property
    def waits(self) -> bool:
        """True if there is an ``await`` in it, so that it belongs on the loop."""
        return any(code.co_flags & inspect.CO_COROUTINE for code in self._codes)

    def run(self) -> str:
        """Run it here, and return what is to be shown."""
        with capturing() as output:
            try:
                value = None
                for code in self._codes:
                    value = eval(code, self._names)
                self._show(value, output)
            except BaseException:
                output.write(_traceback())
        return output.shown()

    async def run_async(self) -> str:
        """Run it here, awaiting what it awaits."""
        with capturing() as output:
            try:
                value = None
                for code in self._codes:
                    value = eval(code, self._names)
                    if code.co_flags & inspect.CO_COROUTINE:
                        value = await value
                self._show(value, output)
            except (Exception, SystemExit, KeyboardInterrupt):
                output.write(_traceback())
        return output.shown()

    def _show(self, value: Any, output: io.StringIO) -> None:
        if self._has_value and value is not None:
            self._names["_"] = value
            output.write(pprint.pformat(value, width=88, sort_dicts=False) + "\n")


def _traceback() -> str:
    """Return the traceback of what was typed in, and of nothing around it."""
    kind, exc, tb = sys.exc_info()
    while tb is not None and not tb.tb_frame.f_code.co_filename.startswith("<console"):
        tb = tb.tb_next
    return "".join(traceback.format_exception(kind, exc, tb))
