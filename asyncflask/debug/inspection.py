"""What is to be seen of an exception: its chain, its frames, their values.

Everything is turned into text here, bounded and with secrets masked, while the
request that failed is still at hand; nothing of it is live afterwards.
"""

from __future__ import annotations

import linecache
import os
import re
import reprlib
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType, FrameType, TracebackType
from typing import Any

#: lines of source shown before and behind the one that failed
AROUND = 5
#: frames shown of one exception; recursion makes thousands
MOST_FRAMES = 100
#: local variables shown of one frame
MOST_LOCALS = 80
#: exceptions of a chain or group that are shown
MOST_EXCEPTIONS = 30
#: characters of a message that are shown
MOST_TEXT = 20_000
#: what a repr() or str() of the application's may raise
RAISED = (Exception, SystemExit, KeyboardInterrupt, GeneratorExit)
#: what stands for a secret
MASK = "••••••"
_SECRET = re.compile(
    r"secret|passw|pwd|token|api[-_]?key|private[-_]?key|authori[sz]ation|credential|cookie"
    r"|^session$|signature|signing|csrf|^pin$",
    re.IGNORECASE,
)
_LIBRARIES = tuple(
    {
        os.path.realpath(path) + os.sep
        for path in (
            *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
            os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        )
        if path
    }
)


def _name(cls: type) -> str:
    try:
        return str(cls.__name__)
    except RAISED:
        return "something"


def printable(text: str) -> str:
    """Return a text that UTF-8 can say: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_secret(name: Any) -> bool:
    """Say whether a name promises a value that nobody else should see."""
    return isinstance(name, (str, bytes)) and bool(_SECRET.search(_text(name)))


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("latin-1")


class Viewer(reprlib.Repr):
    """Makes safe, bounded reprs: secrets are masked, and no error comes out.

    :param secrets: texts that must never be seen, wherever they stand.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = 400
        self.maxlong = 100
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 20
        self.maxfrozenset = self.maxdeque = self.maxarray = 20
        self._left = MOST_TEXT
        self._secrets = sorted(
            {s for s in secrets if len(s) > 3}, key=len, reverse=True
        )

    def show(self, value: Any, name: str = "") -> str:
        """Return the repr of a value, by the name of where it stands."""
        if is_secret(name) and value is not None:
            return MASK

        try:
            self._left = MOST_TEXT
            return printable(self.mask(self.repr(value)))
        except RAISED as exc:
            return f"<{_name(type(value))}, whose repr() raised {_name(type(exc))}>"

    def mask(self, text: str) -> str:
        """Return a text without the secrets that are known."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """Show a dictionary; the values of secret keys are masked."""
        if not x or level <= 0:
            return "{…}" if x else "{}"

        shown = []
        for key, value in list(x.items())[: self.maxdict]:
            text = MASK if is_secret(key) else self.repr1(value, level - 1)
            shown.append(f"{self.repr1(key, level - 1)}: {text}")
        if len(x) > self.maxdict:
            shown.append("…")
        return f"{{{', '.join(shown)}}}"

    def repr_tuple(self, x: tuple[Any, ...], level: int) -> str:
        """Show a tuple; as a pair, it may be a field with a secret name."""
        if len(x) == 2 and is_secret(x[0]):
            return f"({self.repr1(x[0], level - 1)}, {MASK})"

        return super().repr_tuple(x, level)

    def repr1(self, x: Any, level: int) -> str:
        """Show a value of any level, as long as there is room for it."""
        if self._left <= 0:
            return "…"

        if isinstance(x, Mapping) and type(x) is not dict:
            text = f"{type(x).__name__}({self.repr_dict(x, level)})"
        elif type(x).__module__ in ("builtins", "collections", "array"):
            text = super().repr1(x, level)
        else:  # whatever its class is called
            text = self.repr_instance(x, level)
        self._left -= len(text)
        return text

    def repr_instance(self, x: Any, level: int) -> str:
        """Show anything else by its own repr, cut in the middle if it is long."""
        text = repr(x)
        if len(text) <= self.maxother:
            return text

        half = self.maxother // 2
        return f"{text[:half]}…{text[-half:]}"


# ------------------------------------------------------------------- what is shown


@dataclass
class Line:
    """A line of source; what failed in it stands from ``start`` to ``end``."""

    number: int
    text: str
    is_current: bool
    start: int = 0
    end: int = 0

    @property
    def parts(self) -> tuple[str, str, str]:
        """The text before, in and behind what failed."""
        return (
            self.text[: self.start],
            self.text[self.start : self.end],
            self.text[self.end :],
        )


@dataclass
class Frame:
    """A place that the exception came through.

    :ivar number: what the console knows it by.
    :ivar is_own: False for the standard library and what is installed.
    :ivar variables: the local variables and their reprs.
    """

    number: int
    file: str
    line: int
    name: str
    is_own: bool
    lines: list[Line]
    variables: list[tuple[str, str]]

    @property
    def short_file(self) -> str:
        """The file as it is best known: from here, or from its library."""
        path = os.path.relpath(self.file) if os.path.isabs(self.file) else self.file
        if not path.startswith(".."):
            return path

        roots = (root for root in _LIBRARIES if self.file.startswith(root))
        return self.file[len(max(roots, key=len, default="")) :]


@dataclass
class Fault:
    """An exception of the chain.

    :ivar relation: how the one shown before this one came of it.
    :ivar members: the exceptions in a group.
    """

    type: str
    message: str
    notes: list[str]
    frames: list[Frame]
    relation: str = ""
    members: list[list[Fault]] = field(default_factory=list)


class Inspection:
    """Walks an exception's chain, and remembers the live frames by number.

    :ivar faults: the chain, the exception that was raised last first.
    :ivar live: the frames themselves, for the console.
    """

    def __init__(self, exc: BaseException, viewer: Viewer) -> None:
        self._viewer = viewer
        self._left = MOST_EXCEPTIONS
        self._seen: set[int] = set()
        self.live: list[FrameType] = []
        self.faults: list[Fault] = self._chain(exc)

    def _chain(self, exc: BaseException) -> list[Fault]:
        chain: list[Fault] = []
        relation = ""
        cause: BaseException | None = exc
        while cause is not None and id(cause) not in self._seen and self._left > 0:
            self._seen.add(id(cause))
            self._left -= 1
            chain.append(self._fault(cause, relation))
            if cause.__cause__ is not None:
                cause, relation = (
                    cause.__cause__,
                    "was the direct cause of the one above",
                )
            elif cause.__suppress_context__:
                cause = None
            else:
                cause, relation = cause.__context__, "was being handled at that moment"
        return chain

    def _fault(self, exc: BaseException, relation: str) -> Fault:
        members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
        return Fault(
            type=_qualified(type(exc)),
            message=self._viewer.mask(_message(exc)),
            notes=[self._viewer.mask(note) for note in _notes(exc)],
            frames=self._frames(exc),
            relation=relation,
            members=[self._chain(member) for member in members if self._left > 0],
        )

    def _frames(self, exc: BaseException) -> list[Frame]:
        found = list(_walk(exc.__traceback__))
        if len(found) > MOST_FRAMES:
            found = found[: MOST_FRAMES // 2] + found[-MOST_FRAMES // 2 :]
        frames = [self._frame(frame, line, lasti) for frame, line, lasti in found]
        if isinstance(exc, SyntaxError) and isinstance(exc.lineno, int):
            frames.append(self._syntax(exc))
        return frames

    def _frame(self, frame: FrameType, line: int, lasti: int) -> Frame:
        code = frame.f_code
        self.live.append(frame)
        return Frame(
            number=len(self.live) - 1,
            file=code.co_filename,
            line=line,
            name=code.co_qualname,
            is_own=is_own(code.co_filename),
            lines=_source(code, line, lasti, frame),
            variables=self._variables(frame),
        )

    def _syntax(self, exc: SyntaxError) -> Frame:
        file, number = str(exc.filename), exc.lineno or 0
        lines = _lines(file, number, {})
        if not lines and isinstance(exc.text, str):
            lines = [Line(number, exc.text.rstrip("\n"), True)]
        start, end = exc.offset, exc.end_offset
        for line in lines:
            if line.is_current and isinstance(start, int) and start > 0:
                line.start = start - 1
                line.end = max(end - 1 if isinstance(end, int) else 0, start)
        return Frame(-1, file, number, "<syntax>", is_own(file), lines, [])

    def _variables(self, frame: FrameType) -> list[tuple[str, str]]:
        shown = []
        for name, value in list(frame.f_locals.items())[:MOST_LOCALS]:
            if not (name.startswith("__") and name.endswith("__")):
                shown.append((name, self._viewer.show(value, name)))
        return shown


def is_own(file: str) -> bool:
    """Say whether a file belongs to the application: it is not installed."""
    return os.path.isfile(file) and not os.path.realpath(file).startswith(_LIBRARIES)


def _qualified(cls: type) -> str:
    if cls.__module__ in ("builtins", "__main__"):
        return cls.__qualname__

    return f"{cls.__module__}.{cls.__qualname__}"


def _message(exc: BaseException) -> str:
    try:
        text = printable(str(exc))
    except RAISED as failure:
        return f"<its str() raised {type(failure).__name__}>"
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"


def _notes(exc: BaseException) -> list[str]:
    notes = getattr(exc, "__notes__", ())
    if not isinstance(notes, (list, tuple)):
        notes = [notes]
    shown = []
    for note in notes:
        try:
            shown.append(printable(str(note))[:MOST_TEXT])
        except RAISED as failure:
            shown.append(f"<its str() raised {type(failure).__name__}>")
    return shown


def _walk(tb: TracebackType | None) -> Iterator[tuple[FrameType, int, int]]:
    while tb is not None:
        if not tb.tb_frame.f_locals.get("__traceback_hide__"):
            yield tb.tb_frame, tb.tb_lineno, tb.tb_lasti
        tb = tb.tb_next


def _source(code: CodeType, line: int, lasti: int, frame: FrameType) -> list[Line]:
    lines = _lines(code.co_filename, line, frame.f_globals)
    for shown in lines:
        if shown.is_current:
            shown.start, shown.end = _marked(code, lasti, shown)
    return lines


def _lines(file: str, number: int, module_globals: dict[str, Any]) -> list[Line]:
    linecache.checkcache(file)
    lines = linecache.getlines(file, module_globals)
    first = max(number - 1 - AROUND, 0)
    return [
        Line(first + index + 1, text.rstrip("\n"), first + index + 1 == number)
        for index, text in enumerate(lines[first : number + AROUND])
    ]


def _marked(code: CodeType, lasti: int, line: Line) -> tuple[int, int]:
    """Return where in a line the failing expression stands (PEP 657)."""
    positions = list(code.co_positions())
    index = lasti // 2
    if not 0 <= index < len(positions):
        return 0, 0

    first, last, start, end = positions[index]
    if first != line.number or start is None or end is None:
        return 0, 0

    if last != first:  # it goes on in the next lines
        end = len(line.text.encode())
    raw = line.text.encode()
    return len(raw[:start].decode(errors="replace")), len(
        raw[:end].decode(errors="replace")
    )


def plain_traceback(exc: BaseException, viewer: Viewer) -> str:
    """Return the traceback as text, as the terminal shows it, secrets masked."""
    try:
        lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
    except RAISED as failure:
        lines = traceback.format_tb(exc.__traceback__)
        lines.append(f"{type(exc).__name__}, whose text raised {failure!r}\n")
    text = printable(viewer.mask("".join(lines)))
    return text if len(text) <= 10 * MOST_TEXT else f"{text[: 10 * MOST_TEXT]}…\n"


def versions() -> list[tuple[str, str]]:
    """Return what runs here: Python and the libraries that matter."""
    from importlib.metadata import PackageNotFoundError, version

    found = [("Python", sys.version.split()[0])]
    for name in ("asyncflask", "starlette", "uvicorn", "jinja2", "anyio"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found
