"""The reloader: a parent that holds the sockets, and a child that serves.

The parent runs the program once more as its child and watches the files. When
one changes, the child is ended, however busy it is, and another started. The
sockets stay open all the time, so a request that comes meanwhile waits for the
new child. A child that does not come up leaves its traceback: in the terminal,
and as a page for whoever asks, until the next change mends it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import uvicorn

from .wrappers import Response

if TYPE_CHECKING:
    from .app import Flask

#: the variables that a child is told by
SOCKETS = "ASYNCFLASK_SOCKETS"
LIFELINE = "ASYNCFLASK_LIFELINE"
COLORS = "ASYNCFLASK_COLORS"
#: seconds that a child gets to end before a reload, and before the end
RELOAD_GRACE = 0.8
GRACE = 4.0
#: lines of what a child has said that may hold the reason of its end
MOST_LINES = 200
_IGNORED = {"__pycache__", "node_modules", "site-packages"}


def is_child() -> bool:
    """Say whether this process is a child of the reloader."""
    return SOCKETS in os.environ


def adopt_sockets() -> list[socket.socket]:
    """Return the sockets of the parent, and end with it, come what may."""
    lifeline = int(os.environ[LIFELINE])
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    return [socket.socket(fileno=int(n)) for n in os.environ[SOCKETS].split(",")]


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when the parent has gone
    os._exit(1)


def check_that_it_can_reload() -> None:
    """Refuse where a program cannot be run once more.

    :raises RuntimeError: on Windows, outside the main thread, in a session that
        was typed in, and in a program that was frozen into an executable.
    """
    if os.name == "nt":
        why = "it hands sockets on to another process, which Windows cannot do"
    elif threading.current_thread() is not threading.main_thread():
        why = "only the main thread is told of signals"
    elif getattr(sys, "frozen", False):
        why = "the program is frozen into an executable, whose code does not change"
    elif not getattr(sys.modules.get("__main__"), "__file__", None):
        why = "there is no program file that could be run once more"
    else:
        return

    raise RuntimeError(
        f"The reloader does not work here: {why}. Call app.run(use_reloader=False)."
    )


# ------------------------------------------------------------------ what to watch


class Watched:
    """The files whose changes count: the application's own, and no library's.

    :param extra_files: more files.
    """

    def __init__(self, app: Flask, extra_files: Iterable[str]) -> None:
        self.extra: set[str] = {os.path.abspath(file) for file in extra_files}
        self.templates: tuple[str, ...] = tuple(
            os.path.abspath(folder) + os.sep
            for folder in getattr(app.create_jinja_loader(), "searchpath", ())
            if os.path.isdir(folder)
        )
        own = {os.path.dirname(file) for file in map(_file_of, _modules()) if file}
        own |= {app.root_path, *(folder.rstrip(os.sep) for folder in self.templates)}
        self.folders: list[str] = [f for f in sorted(own) if os.path.isdir(f)]

    def __call__(self, change: Any, path: str) -> bool:
        """Say whether a change of a file counts."""
        if path in self.extra:
            return True

        if not path.endswith(".py") and not path.startswith(self.templates):
            return False

        return any(
            not any(part in _IGNORED or part.startswith(".") for part in parts)
            for folder in self.folders
            if path.startswith(folder + os.sep)
            for parts in [Path(path).relative_to(folder).parts[:-1]]
        )

    def changes(self, seconds: float) -> Iterator[set[str]]:
        """Iterate for ever over the files that change; often over none."""
        try:
            import watchfiles
        except ImportError:
            yield from self._polled(seconds)
            return

        files = {os.path.dirname(file) for file in self.extra}
        for found in watchfiles.watch(
            *self.folders,
            *(folder for folder in files if os.path.isdir(folder)),
            watch_filter=self,
            step=50,
            debounce=400,
            rust_timeout=int(seconds * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            yield {path for _, path in found}

    def _polled(self, seconds: float) -> Iterator[set[str]]:
        known = dict(self._times())
        while True:
            time.sleep(seconds)
            now = dict(self._times())
            yield {
                path
                for path in now.keys() | known.keys()
                if now.get(path) != known.get(path)
            }
            known = now

    def _times(self) -> Iterator[tuple[str, float]]:
        for folder in self.folders:
            for path in Path(folder).rglob("*"):
                if self(None, str(path)):
                    yield from _time_of(str(path))
        for file in self.extra:
            yield from _time_of(file)


def _time_of(file: str) -> Iterator[tuple[str, float]]:
    try:
        yield file, os.stat(file).st_mtime
    except OSError:
        return


def _modules() -> list[ModuleType]:
    return [module for module in list(sys.modules.values()) if module is not None]


def _file_of(module: ModuleType) -> str | None:
    from .debug.inspection import is_own

    file = getattr(module, "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) and is_own(file) else None


# ---------------------------------------------------------------------- the parent


def _found(word: str) -> str:
    """Return a word of the command line; the program by its whole path, so that
    it is found from any folder."""
    program = getattr(sys.modules["__main__"], "__file__", None)
    is_program = word == sys.argv[0] and program is not None
    return os.path.abspath(str(program)) if is_program else word


class Child:
    """A process that serves."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        lifeline, self._lifeline = os.pipe()
        numbers = [listener.fileno() for listener in sockets]
        environ = {
            **os.environ,
            SOCKETS: ",".join(map(str, numbers)),
            LIFELINE: str(lifeline),
            COLORS: "1" if sys.stderr.isatty() else "0",
        }
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, *map(_found, sys.orig_argv[1:])],
                env=environ,
                stderr=subprocess.PIPE,
                pass_fds=(*numbers, lifeline),
            )
        finally:
            os.close(lifeline)
        #: the last lines that it wrote to its stderr
        self.said: deque[str] = deque(maxlen=MOST_LINES)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in self.process.stderr or ():
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
            self.said.append(line.decode("utf-8", "replace"))

    def end(self, grace: float) -> int:
        """End it, by force if it takes too long, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        self._listener.join(1)
        os.close(self._lifeline)
        return code


class Supervisor:
    """Keeps a child running, always of the newest code, until it is told to stop."""

    def __init__(
        self, sockets: list[socket.socket], trusted_hosts: Collection[str]
    ) -> None:
        self._sockets = sockets
        self._trusted_hosts = trusted_hosts
        #: the signal that ends it all
        self._signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def run(self, watched: Watched) -> int:
        """Serve until Ctrl-C, SIGTERM or the child's own end; return the exit code."""
        child: Child | None = Child(self._sockets)
        notice: Notice | None = None
        code = 0
        try:
            for changed in watched.changes(0.1):
                if self._signal:
                    break
                if changed:
                    self._say_what(changed)
                    _end(child, notice)
                    child, notice = Child(self._sockets), None
                elif child is not None and child.process.poll() is not None:
                    code = child.end(0)
                    if code == 0:
                        return 0
                    notice = Notice(
                        self._sockets, "".join(child.said), self._trusted_hosts
                    )
                    child = None
                    print(" * It has failed; waiting for a change", flush=True)
        finally:
            if notice is not None:
                notice.end()
            if child is not None and child.process.returncode is None:
                child.end(GRACE)
        self._die_of_it()
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def _say_what(self, changed: set[str]) -> None:
        name = os.path.relpath(min(changed))
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        print(f" * {name}{more} changed, reloading", flush=True)

    def _die_of_it(self) -> None:
        """End as SIGTERM ends a process, so that whoever sent it knows."""
        if self._signal == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


def _end(child: Child | None, notice: Notice | None) -> None:
    if notice is not None:
        notice.end()
    if child is not None:
        child.end(RELOAD_GRACE)


class Notice:
    """Answers in place of a child that has failed, with the reason."""

    def __init__(
        self, sockets: list[socket.socket], text: str, trusted_hosts: Collection[str]
    ) -> None:
        self._text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # colours of the terminal
        self._trusted_hosts = trusted_hosts
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_level="critical",
            lifespan="off",
            ws="none",
        )
        self._server = uvicorn.Server(config)
        copies = [listener.dup() for listener in sockets]
        self._thread = threading.Thread(target=self._server.run, args=(copies,))
        self._thread.start()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        from .debug.debugger import is_trusted, wants_html
        from .debug.page import render_notice

        if not is_trusted(scope, self._trusted_hosts):
            response = _plain("The application does not start; its terminal says why.")
        elif wants_html(scope):
            response = render_notice(self._text)
        else:
            response = _plain(self._text)
        start, body = response.on_wire(scope["method"])
        await send(start)
        await send({"type": "http.response.body", "body": body})

    def end(self) -> None:
        """Make room for the next child."""
        self._server.should_exit = True
        self._thread.join()


def _plain(text: str) -> Response:
    return Response(text, 500, mimetype="text/plain")
