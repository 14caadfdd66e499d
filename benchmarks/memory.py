"""What importing costs, and what requests need of memory.

Everything is measured in fresh interpreters, because memory is seldom given
back. Linux only: the figures are read from ``/proc``.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import overload

from .driving import PIECE, RecordedExchange, Request, build_scope, start_up
from .jobs import FILE, MULTIPART, multipart_frame
from .marks import MEMORY, Results, print_marks
from .peers import PEERS, describe_run, factory
from .report import number, say, show_progress, table
from .serve import raise_file_limit
from .servers import serving

#: what a hello world imports
IMPORTS = {
    "asyncflask": "from asyncflask import Flask",
    "starlette": "from starlette.applications import Starlette;"
    " from starlette.routing import Route;"
    " from starlette.responses import HTMLResponse",
    "fastapi": "from fastapi import FastAPI",
    "quart": "from quart import Quart",
    "litestar": "from litestar import Litestar",
    "falcon": "from falcon.asgi import App",
    "blacksheep": "from blacksheep import Application",
    "flask": "from flask import Flask",
}

_IMPORT = """
import time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
memory, start = resident(), time.process_time()
{statement}
print(time.process_time() - start, resident() - memory)
"""

MB = 1_000_000


def memory_of(process: int | str, field: str = "VmRSS") -> int:
    """Return the bytes of memory that a process uses, or has used at most."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)


def forget_peak() -> None:
    """Let the most that this process has used be what it uses now."""
    Path("/proc/self/clear_refs").write_text("5")


# ---------------------------------------------------------------------- imports


def measure_imports(rounds: int) -> dict[str, tuple[float, float]]:
    """Return milliseconds of CPU time and megabytes of each import.

    Of modules that are compiled already, whatever the environment says.
    """
    found: dict[str, list[list[float]]] = {peer: [] for peer in IMPORTS}
    page = os.sysconf("SC_PAGE_SIZE")
    with TemporaryDirectory() as cache:
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
        for turn in range(-1, rounds):
            show_progress(f"imports: round {turn + 1} of {rounds}")
            for peer, statement in IMPORTS.items():
                command = [sys.executable, "-c", _IMPORT.format(statement=statement)]
                output = subprocess.check_output(command, text=True, env=env)
                cpu, pages = map(float, output.split())
                if turn >= 0:  # the first one compiles
                    found[peer].append([cpu * 1000, pages * page / MB])
    show_progress("")
    return {
        peer: (min(cpu for cpu, _ in all_), statistics.median(mb for _, mb in all_))
        for peer, all_ in found.items()
    }


# ---------------------------------------------------------------------- uploads


class Upload(Sequence[bytes]):
    """The pieces of an upload of any size, made when they are asked for."""

    def __init__(self, size: int) -> None:
        self.start, self.end = multipart_frame()
        self.whole, rest = divmod(size, PIECE)
        self.last = FILE[:rest] + self.end
        self.length = len(self.start) + size + len(self.end)

    def __len__(self) -> int:
        return self.whole + 2

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(at, slice):
            raise TypeError("There are no slices of an upload.")
        if at == 0:
            return self.start
        return self.last if at == self.whole + 1 else FILE[:PIECE]


async def upload(peer: str, size: int) -> int:
    """Upload to a peer's application here; return the bytes needed at the peak."""
    build = factory(peer, "multipart")
    assert build is not None
    app = build()
    await start_up(app)
    before = 0
    for bytes_sent in (MB, size):  # one MB first, so that all is imported
        pieces = Upload(bytes_sent)
        fields = {**MULTIPART, "content-length": str(pieces.length)}
        scope = build_scope(Request("/upload", "POST", headers=fields))
        if not before:
            before = memory_of("self")
            forget_peak()
        exchange = RecordedExchange(scope, pieces)
        await app(scope, exchange.receive, exchange.send)
        answer = exchange.answer()
        wanted = f"10 fields, {bytes_sent} bytes"
        if not answer.body.startswith(wanted.encode()):
            raise AssertionError(f"it answers {answer.status}, {answer.body[:60]!r}")
    return memory_of("self", "VmHWM") - before


def measure_uploads(peers: list[str], sizes: list[int]) -> dict[str, list[float]]:
    """Return the megabytes that uploads of these sizes need at the peak."""
    found: dict[str, list[float]] = {}
    for peer in peers:
        if peer == "floor" or factory(peer, "multipart") is None:
            continue

        for size in sizes:
            show_progress(f"upload of {size // MB:,} MB to {peer}")
            command = [sys.executable, "-m", "benchmarks.memory", peer, str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = done.stderr.strip().rpartition("\n")[2]
                say(
                    f"- {peer} is left out of the upload of {size // MB:,} MB: {reason}"
                )
                break

            found.setdefault(peer, []).append(int(done.stdout) / MB)
    show_progress("")
    return found


# ----------------------------------------------------------------- idle clients


def open_client(port: int) -> socket.socket:
    """Ask for an endless response; return the connection when it has begun."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(b"GET /idle HTTP/1.1\r\nHost: example.com\r\n\r\n")
    received = b""
    while b"hello\n" not in received:
        more = client.recv(4096)
        if not more:
            raise AssertionError(f"the connection has ended: {received!r}")
        received += more
    return client


def measure_idle(peers: list[str], number_of_clients: int) -> dict[str, float]:
    """Return the kilobytes that an idle streaming client needs of a server."""
    raise_file_limit()
    found = {}
    for peer in peers:
        if factory(peer, "idle") is None:
            continue

        show_progress(f"{number_of_clients:,} idle clients of {peer}")
        with ExitStack() as stack:
            server = stack.enter_context(serving(peer, "idle"))
            for _ in range(20):
                stack.enter_context(open_client(server.port))
            before = memory_of(server.process.pid)
            for _ in range(number_of_clients):
                stack.enter_context(open_client(server.port))
            needed = memory_of(server.process.pid) - before
            found[peer] = needed / number_of_clients / 1000
    show_progress("")
    return found


# ----------------------------------------------------------------------- report


JOBS = ["import", "upload", "idle"]


def run(only: set[str], rounds: int, quick: bool, full: bool) -> None:
    """Measure imports, uploads and idle clients, and print the tables."""
    say("## Memory\n")
    say(describe_run() + "\n")
    if not Path("/proc/self/statm").exists():
        say("Not measured: there is no /proc on this machine.\n")
        return

    results: Results = {}
    if not only or "import" in only:
        imports = measure_imports(rounds)
        say("### Import, in a fresh interpreter\n")
        rows = [[peer, number(ms), number(mb)] for peer, (ms, mb) in imports.items()]
        table(["", "ms of CPU", "MB"], rows)
        results.update({("import ms", peer): ms for peer, (ms, _) in imports.items()})
        results.update({("import MB", peer): mb for peer, (_, mb) in imports.items()})
    if not only or "upload" in only:
        sizes = [10 * MB, 100 * MB, *([1000 * MB] if full else [])]
        peers = ["asyncflask", "starlette"] if quick else PEERS
        uploads = measure_uploads(peers, sizes)
        say("### Upload, MB needed at the peak\n")
        titles = [f"{size // MB:,} MB" for size in sizes]
        table(["", *titles], [[p, *map(number, mbs)] for p, mbs in uploads.items()])
        results.update(
            {("upload 10 MB", peer): mbs[0] for peer, mbs in uploads.items()}
        )
        results.update({("upload most", p): mbs[-1] for p, mbs in uploads.items()})
    if not only or "idle" in only:
        clients = 10_000 if full else 200 if quick else 2000
        idle = measure_idle(PEERS, clients)
        say(f"### {clients:,} idle streaming clients, kB for each\n")
        table(["", "kB"], [[peer, number(kb)] for peer, kb in idle.items()])
        results.update({("idle", peer): kb for peer, kb in idle.items()})
    print_marks(MEMORY, results)


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(upload(sys.argv[1], int(sys.argv[2])))))
