"""Real servers: uvicorn on a socket, app.run() in a process, curl as the client."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import uvicorn

from asyncflask import Flask, g, request, session

from .server import served

LEAKY: contextvars.ContextVar[str] = contextvars.ContextVar("leaky", default="clean")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_nothing_leaks_along_a_keep_alive_connection(loop, http):
    app = Flask(__name__)
    app.secret_key = "k"

    def touch():
        seen = LEAKY.get()
        LEAKY.set("leaked")
        g.x = 1
        return seen

    @app.route("/async", methods=["GET", "POST"])
    async def asynchronous():
        await asyncio.sleep(0)
        return touch()

    @app.route("/plain", methods=["GET", "POST"])
    def plain():
        return touch()

    @app.route("/stream")
    async def stream():
        yield touch()
        await asyncio.sleep(0)
        yield "."

    @app.route("/upload", methods=["POST"], stream_body=True)
    async def upload():
        seen = touch()
        async for _ in request.stream:
            pass
        return seen

    with served(app, loop=loop, http=http) as url, httpx.Client() as client:
        for _ in range(3):
            assert client.get(f"{url}/async").text == "clean"
            assert client.post(f"{url}/async", content=b"x" * 300_000).text == "clean"
            assert client.get(f"{url}/plain").text == "clean"
            assert client.post(f"{url}/plain", content=b"x").text == "clean"
            assert client.get(f"{url}/stream").text == "clean."
            assert client.post(f"{url}/upload", content=b"x" * 300_000).text == "clean"
        connections = client._transport._pool.connections
        assert len(connections) == 1  # all of it went along one


def test_workers_are_gone_when_the_server_has_stopped():
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: str(threading.get_native_id()))
    with served(app) as url:
        number = int(httpx.get(url).text)
        assert number in {thread.native_id for thread in threading.enumerate()}
    assert number not in {thread.native_id for thread in threading.enumerate()}


def test_an_unhandled_error_is_a_plain_500_sent_once(caplog):
    app = Flask(__name__)

    @app.route("/")
    def view():
        raise ValueError("a secret")

    with served(app) as url:
        got = httpx.get(url)
    assert (got.status_code, got.text) == (500, "Internal Server Error")
    assert "GET / failed: ValueError: a secret" in caplog.text


def test_a_broken_stream_is_not_ended_as_if_it_were_complete():
    app = Flask(__name__)

    @app.route("/")
    async def view():
        yield "begun"
        raise ValueError("midway")

    with served(app) as url, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url)


def test_lifespan_may_be_off_and_websockets_are_refused():
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: "served")
    with served(app, lifespan="off", ws="websockets-sansio") as url:
        assert httpx.get(url).text == "served"
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        assert httpx.get(url, headers=upgrade).status_code == 403
    app.workers.close()


def upload_app() -> Flask:
    app = Flask(__name__)

    @app.route("/form", methods=["POST"])
    def form():
        files = {
            name: [
                file.filename,
                file.mimetype,
                hashlib.sha256(file.read()).hexdigest(),
            ]
            for name, file in request.files.items()
        }
        return {"form": request.form.to_dict(), "files": files}

    @app.route("/stream", methods=["POST"], stream_body=True, max_content_length=None)
    async def stream():
        size = 0
        async for chunk in request.stream:
            size += len(chunk)
        return str(size)

    return app


curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")


@curl
def test_curl_uploads_a_form(tmp_path):
    file = tmp_path / "ü b.png"
    file.write_bytes(os.urandom(3_000_000))
    with served(upload_app()) as url:
        command = ["curl", "-sS", "-F", "text=grüße", "-F", f"f=@{file}", f"{url}/form"]
        output = subprocess.run(command, capture_output=True, check=True, timeout=30)
    import json

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads(output.stdout) == {
        "form": {"text": "grüße"},
        "files": {"f": ["ü b.png", "image/png", digest]},
    }


@curl
@pytest.mark.parametrize("chunked", [False, True])
def test_curl_gets_413_for_a_body_that_is_too_long(tmp_path, chunked):
    file = tmp_path / "big"
    file.write_bytes(b"x" * 40_000_000)
    with served(upload_app()) as url:
        command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"]
        command += ["-H", "Transfer-Encoding: chunked"] if chunked else []
        command += ["--data-binary", f"@{file}", f"{url}/form"]
        output = subprocess.run(command, capture_output=True, timeout=30, text=True)
        assert output.stdout == "413"
        streamed = [*command[:-1], f"{url}/stream"]
        output = subprocess.run(streamed, capture_output=True, timeout=30, text=True)
        assert output.stdout == "200"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_all_first_still_sees_413(chunked):
    body = b"x" * 20_000_000
    content = (body[n : n + 65536] for n in range(0, len(body), 65536))
    with served(upload_app()) as url:
        got = httpx.post(f"{url}/form", content=content if chunked else body)
    assert got.status_code == 413
    assert got.headers["connection"] == "close"


@pytest.mark.process
def test_200_connections_at_once_post_5000_requests():
    """One request in three writes; every write is there once, in its own name."""
    app = Flask(__name__)
    app.secret_key = "k"
    written: list[tuple[str, str]] = []

    @app.before_request
    def count():
        g.user = session.get("user")

    @app.route("/login", methods=["POST"])
    def login():
        session["user"] = request.form["user"]
        return "in"

    @app.route("/write", methods=["POST"])
    def write():
        written.append((g.user, request.form["text"]))
        return g.user

    @app.route("/read")
    async def read():
        await asyncio.sleep(0)
        return str(g.user)

    async def one(url: str, number: int) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            name = f"user {number}"
            assert (await client.post("/login", data={"user": name})).text == "in"
            for text in range(8):
                wrote = await client.post("/write", data={"text": f"{number}/{text}"})
                assert wrote.text == name
                assert (await client.get("/read")).text == name
                assert (await client.get("/read")).text == name

    async def everyone(url: str) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(url, number))

    with served(app) as url:
        asyncio.run(everyone(url))
    expected = {(f"user {n}", f"{n}/{t}") for n in range(200) for t in range(8)}
    assert len(written) == 1600
    assert set(written) == expected


# --------------------------------------------------------------------- app.run()

SCRIPT = """
from asyncflask import Flask
app = Flask(__name__)

@app.route("/")
def index():
    return f"debug {app.debug}"

if __name__ == "__main__":
    app.run(port=0, debug=True, log_level="warning")
"""


def clean_environment() -> dict[str, str]:
    root = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_says_where_it_listens_and_ends_cleanly(tmp_path, number):
    script = tmp_path / "application.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        found = (re.search(r"http://\S+", line) for line in process.stdout)
        url = next(filter(None, found))[0]
        assert httpx.get(url.replace("[::1]", "localhost")).text == "debug True"
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in (0, -number)
    assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    "target", [["application:app"], ["--factory", "application:make"]]
)
def test_uvicorn_serves_it_from_the_command_line(tmp_path, target):
    (tmp_path / "application.py").write_text(SCRIPT + "\ndef make():\n    return app\n")
    command = [sys.executable, "-m", "uvicorn", *target, "--port", "0"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    try:
        for line in process.stderr:
            found = re.search(r"running on (http://\S+)", line)
            if found:
                break
        assert httpx.get(found[1]).text == "debug False"
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.communicate()
    assert "Application shutdown complete" in rest


def test_run_refuses_options_that_uvicorn_does_not_know():
    with pytest.raises(TypeError, match=r"got nonsense=.*see uvicorn\.Config"):
        Flask(__name__).run(nonsense=80)
    with pytest.raises(TypeError, match=r"got log_leve=.*did you mean 'log_level'"):
        Flask(__name__).run(log_leve="info")
    with pytest.raises(TypeError, match="got workers="):
        Flask(__name__).run(workers=4)


async def test_run_inside_a_loop_names_the_cure():
    with pytest.raises(RuntimeError, match=r"uvicorn\.Server\(.*\)\.serve\(\)"):
        Flask(__name__).run()


def test_run_passes_options_on(monkeypatch):
    seen = {}

    def fake_run(self, sockets=None):
        seen.update(vars(self.config), name=sockets[0].getsockname()[0])

    monkeypatch.setattr(uvicorn.Server, "run", fake_run)
    Flask(__name__).run("0.0.0.0", 0, limit_concurrency=7)
    assert (seen["name"], seen["limit_concurrency"]) == ("0.0.0.0", 7)


def test_a_malformed_request_does_not_stop_the_server():
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: "served")
    with served(app) as url:
        port = int(url.rpartition(":")[2])
        for raw in (b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET"):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1000)
        assert httpx.get(url).text == "served"
