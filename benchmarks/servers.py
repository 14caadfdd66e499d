"""Start and stop servers of the peers, each in a process of its own."""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Server:
    """A running server.

    :ivar peer: whose application it serves.
    :ivar process: its process.
    :ivar port: where it listens.
    """

    peer: str
    process: subprocess.Popen[str]
    port: int

    def cpu_time(self) -> float:
        """Return the seconds of CPU time it has spent so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> bytes:
        """Return the body of an answer; empty if it is not 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return body if response.status == 200 else b""


def pin(process: int, core: int | None) -> None:
    """Let a process run on one core only, where that can be said."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, {core})


@contextmanager
def serving(peer: str, job: str, core: int | None = None) -> Iterator[Server]:
    """Serve a peer's application for a job, on a core if one is given."""
    command = [sys.executable, "-m", "benchmarks.serve", peer, job]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        pin(process.pid, core)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"The server of {peer} for {job!r} did not start.")

        yield Server(peer, process, int(line))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
