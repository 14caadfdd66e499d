"""The server: a process of its own, and what it holds as time goes by."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .limits import STOP_GRACE
from .wire import Address, Connection, request

ROOT = Path(__file__).parent.parent.parent
UVICORN = (
    "{python} -m uvicorn tests.soak.site:app --port {port} --loop {loop} --http {http}"
    " --no-access-log --timeout-graceful-shutdown {grace}"
)
COMMANDS = {
    "uvicorn httptools": UVICORN.replace("{loop}", "uvloop").replace(
        "{http}", "httptools"
    ),
    "uvicorn h11": UVICORN.replace("{loop}", "asyncio").replace("{http}", "h11"),
    "gunicorn gthread": "{python} -m gunicorn tests.soak.site:app --bind"
    " 127.0.0.1:{port} -k gthread --threads 32 --graceful-timeout {grace}",
}


class Server:
    """A server that runs.

    :param folder: where it keeps its files; its log is there, too.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.log = folder / "log"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.address = Address("127.0.0.1", port)
        words = {"python": sys.executable, "port": port, "grace": STOP_GRACE}
        environ = {
            **os.environ,
            "SOAK_FOLDER": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "default",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [word.format(**words) for word in COMMANDS[kind].split()],
                cwd=folder,
                env=environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.process.kill()
            raise

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(self.address, 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self.log.read_text()) from None
                time.sleep(0.02)

    def stop(self) -> tuple[int, float]:
        """Ask it to stop; return its exit code, and how many seconds it took.

        :raises TimeoutError: when it does not; it is killed then.
        """
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.wait(start)

    def wait(self, start: float) -> tuple[int, float]:
        """Wait until it has stopped."""
        try:
            code = self.process.wait(STOP_GRACE + 20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"it runs on after {STOP_GRACE + 20} s") from None
        return code, time.monotonic() - start

    def events(self) -> list[tuple[str, str]]:
        """Return what the site has written down: what happened, to which request."""
        lines = (self.folder / "events").read_text().splitlines()
        return [
            (what, name) for what, _, name in (line.partition(" ") for line in lines)
        ]

    async def state(self, deep: bool = False) -> dict[str, Any]:
        """Ask the site what it holds."""
        connection = Connection(self.address)
        await connection.open()
        await connection.send(request("GET", f"/state{'?deep=1' if deep else ''}"))
        answer = await connection.answer()
        connection.close()
        said: dict[str, Any] = json.loads(answer.body)
        return said

    def memory(self) -> int:
        """Return the resident memory, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def files(self) -> list[str]:
        """Return what the open file descriptors are."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        found = []
        for entry in folder.iterdir():
            try:
                found.append(os.readlink(entry))
            except FileNotFoundError:  # closed meanwhile
                pass
        return found


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[Server]:
    """Start a server, and end it whatever happens."""
    folder.mkdir()
    server = Server(kind, folder)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@dataclass
class Sample:
    """What the server held at one moment."""

    seconds: float
    #: KiB
    memory: int
    files: int
    threads: int
    tasks: int
    lent: int
    waiting: int
    #: seconds that the loop kept a task waiting at most, since the last sample
    lag: float


async def sample(server: Server, seconds: float) -> Sample:
    """Look at what the server holds now."""
    state = await server.state()
    return Sample(
        seconds,
        server.memory(),
        len(server.files()),
        len(state["threads"]),
        state["tasks"],
        sum(pool["lent"] for pool in state["workers"]),
        sum(pool["waiting"] for pool in state["workers"]),
        state["lag"],
    )


# ---------------------------------------------------------------------- the log


#: a traceback; and the last one of those that led to each other
ONE = r"Traceback \(.*\n(?:[ \t].*\n)*{}.*\n"
CHAIN = re.compile(
    rf"^(?:{ONE.format('')}\n(?:During|The above) .*\n\n)*{ONE.format('(?P<error>)')}",
    re.MULTILINE,
)


def unexpected(log: str, *allowed: str) -> list[str]:
    """Return the lines of a log that are neither news nor the failing views'.

    :param allowed: exceptions whose tracebacks are expected.
    """

    def shortened(found: re.Match[str]) -> str:
        error = found.string[found.start("error") : found.end()]
        return "" if error.startswith(allowed) else " / ".join(found[0].splitlines())

    return [
        line for line in CHAIN.sub(shortened, log).splitlines() if not is_news(line)
    ]


NEWS = (
    *("INFO:", "WARNING:  Invalid HTTP request received.", "DEBUG:"),
    "WARNING:  Unsupported upgrade request.",
    "ERROR:    Exception in ASGI application",
    "ERROR asyncflask: GET /boom",
    "ERROR asyncflask: GET /late",
    "ERROR:    Cancel ",
)


def is_news(line: str) -> bool:
    """Say whether a line of the log is as it should be."""
    return not line.strip() or line.startswith(NEWS) or "[INFO]" in line
