"""Real servers of both protocols, each in a process of its own, serve real apps."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

pytestmark = pytest.mark.process

HERE = Path(__file__).parent
FLASKR = HERE.parent / "examples" / "flaskr"
BIN = Path(sys.executable).parent

GUNICORN = "{python} -m gunicorn --bind {address} --log-level warning "
WSGIREF = """
import importlib, sys, wsgiref.simple_server
from socketserver import ThreadingMixIn
class Server(ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads, request_queue_size = True, 128
app = importlib.import_module(sys.argv[1]).app
wsgiref.simple_server.make_server(
    "127.0.0.1", int(sys.argv[2]), app, server_class=Server
).serve_forever()
"""
WSGI = {
    "gunicorn sync": GUNICORN + "{module}:app",
    "gunicorn gthread": GUNICORN + "-k gthread --threads 8 {module}:app",
    "gunicorn preload": GUNICORN + "--threads 8 --preload -w 2 {module}:app",
    "waitress": "{python} -m waitress --listen={address} {module}:app",
    "uwsgi": "{bin}/uwsgi --http-socket {address} --module {module}:app"
    " --enable-threads --threads 8 --master --die-on-term --disable-logging"
    " --virtualenv {prefix} --need-app --pythonpath {source}"
    # It closes each connection, and does not say so by itself.
    " --add-header Connection:close",
    "wsgiref": "{python} -c {wsgiref} {module} {port}",
}
ASGI = {
    "uvicorn": "{python} -m uvicorn --port {port} --log-level warning {module}:app",
    "hypercorn": "{python} -m hypercorn -b {address} {module}:app",
    "granian": "{bin}/granian --interface asgi --port {port} {module}:app",
    "gunicorn asgi": GUNICORN + "-k asgi {module}:app",
}
SERVERS = {**WSGI, **ASGI}


class Served(NamedTuple):
    """A server that runs: where, in which process, and what it says."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, text: str) -> None:
        """Wait until the server has said something."""
        deadline = time.monotonic() + 20
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(
    command: str, folder: Path, module: str, tmp_path: Path
) -> Iterator[Served]:
    """Start a server by its command line, and stop it in the end."""
    port = free_port()
    words = {
        "python": sys.executable,
        "bin": BIN,
        "prefix": sys.prefix,
        "source": HERE.parent,
        "address": f"127.0.0.1:{port}",
        "port": port,
        "module": module,
        "wsgiref": WSGIREF,
    }
    args = [word.format(**words) for word in command.split()]
    environ = {
        **os.environ,
        "FLASKR_DATABASE": str(tmp_path / "flaskr.db"),
        "PYTHONPATH": os.pathsep.join([str(folder), str(HERE.parent)]),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            args, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until_it_listens(port, process, log)
        yield Served(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def wait_until_it_listens(
    port: int, process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)


@pytest.mark.parametrize("name", SERVERS)
def test_each_server_recognises_the_protocol_by_itself(name: str, tmp_path: Path):
    with serving(SERVERS[name], HERE, "served", tmp_path) as server:
        protocol = httpx.get(f"{server.url}/protocol").text
        assert protocol == ("wsgi" if name in WSGI else "asgi")
        assert httpx.get(f"{server.url}/loops").text == "1"
        body = os.urandom(300_000)
        assert httpx.post(f"{server.url}/echo", content=body).content == body


@pytest.mark.parametrize("name", SERVERS)
def test_flaskr_keeps_every_entry(name: str, tmp_path: Path):
    def write(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            client.post("/login", data={"username": "admin", "password": "default"})
            entry = {"title": f"<{number}>", "text": "text"}
            assert client.post("/add", data=entry).status_code == 302
            page = client.get("/")
            assert page.status_code == 200
            assert f"&lt;{number}&gt;" in page.text
            assert client.get("/static/style.css").status_code == 200
            assert client.get("/stats").status_code == 200
            assert client.get("/nowhere").status_code == 404

    with serving(SERVERS[name], FLASKR, "flaskr", tmp_path) as server:
        assert httpx.get(server.url).status_code == 200
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(write, range(48)))
    with closing(sqlite3.connect(tmp_path / "flaskr.db")) as db:
        titles = [title for (title,) in db.execute("select title from entries")]
    assert sorted(titles) == sorted(f"<{number}>" for number in range(48))


@pytest.mark.parametrize("name", ["gunicorn sync", "gunicorn gthread", "waitress"])
def test_no_loop_is_started_for_plain_views(name: str, tmp_path: Path):
    with serving(WSGI[name], FLASKR, "flaskr", tmp_path) as server:
        assert httpx.get(server.url).status_code == 200
        threads = os.listdir(f"/proc/{server.process.pid}/task")
        assert not any(
            Path(f"/proc/{server.process.pid}/task/{thread}/comm")
            .read_text()
            .startswith("asyncflask")
            for thread in threads
        )


@pytest.mark.parametrize("path", ["/endless", "/endless-async"])
@pytest.mark.parametrize("name", ["gunicorn gthread", "waitress", "uwsgi", "uvicorn"])
def test_a_client_that_leaves_ends_the_stream(name: str, path: str, tmp_path: Path):
    kind = "async" if path.endswith("async") else "plain"
    with serving(SERVERS[name], HERE, "served", tmp_path) as server:
        with httpx.stream("GET", server.url + path) as response:
            assert next(response.iter_raw())
        deadline = time.monotonic() + 5
        while httpx.get(f"{server.url}/closed").json() != [kind]:
            assert time.monotonic() < deadline, "the body was not closed"
            time.sleep(0.02)


def test_W21_gevent_serves_plain_views_and_refuses_async_ones(tmp_path: Path):
    command = GUNICORN + "-k gevent {module}:app"
    with serving(command, FLASKR, "flaskr", tmp_path) as server:
        assert httpx.get(server.url).status_code == 200
        assert httpx.get(f"{server.url}/stats").status_code == 500
        server.wait_for("or gunicorn's gthread worker")


def test_uwsgi_without_threads_says_what_is_missing(tmp_path: Path):
    command = WSGI["uwsgi"].replace("--enable-threads --threads 8", "")
    with serving(command, FLASKR, "flaskr", tmp_path) as server:
        assert httpx.get(server.url).status_code == 200
        with pytest.raises(httpx.HTTPError):  # how it answers what fails
            httpx.get(f"{server.url}/stats")
        server.wait_for("Start it with --enable-threads")
