"""Time limits, and views that end when their client leaves."""

from __future__ import annotations

import asyncio
import socket
import threading

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from asyncflask import Flask, request
from asyncflask.testing import build_request

from .server import served


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app():
    app = Flask(__name__)
    yield app
    app.workers.close()


async def get(app: Flask, path: str = "/", **options) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
        return await client.request("GET", path, **options)


async def test_a_view_that_takes_too_long_is_an_error_like_any_other(app, caplog):
    app.view_timeout = 0.05
    ended = []

    @app.route("/")
    async def slow():
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("view")

    @app.errorhandler(503)
    def later(error):
        return f"later, please: {error.name}", 503

    @app.after_request
    async def mark(response):
        response.headers["X-After"] = "yes"
        return response

    got = await get(app)
    assert (got.status_code, got.text) == (503, "later, please: Service Unavailable")
    assert got.headers["x-after"] == "yes"
    assert ended == ["view"]
    assert "GET /: no response within 0.05 seconds" in caplog.text


async def test_hooks_count_as_well(app):
    app.view_timeout = 0.05
    app.route("/")(lambda: "never")
    app.before_request(anyio.sleep_forever)
    assert (await get(app)).status_code == 503


async def test_a_rule_may_have_limits_of_its_own(app):
    app.view_timeout = 0.05

    @app.route("/", view_timeout=None)
    @app.route("/slow", endpoint="slow", view_timeout=0.01)
    async def view():
        with anyio.move_on_after(0.2):
            await anyio.sleep_forever()
        return "at last"

    assert (await get(app)).text == "at last"
    assert (await get(app, "/slow")).status_code == 503


async def test_a_view_in_time_is_left_alone(app):
    app.view_timeout, app.cancel_on_disconnect = 20, True

    @app.route("/")
    async def view():
        await anyio.lowlevel.checkpoint()
        return "in time"

    app.route("/plain")(lambda: "plain")
    app.teardown_request(told := [].append)
    for path, text in ("/", "in time"), ("/plain", "plain"):
        assert (await get(app, path)).text == text
    assert told.__self__ == [None, None]


async def test_a_stream_that_has_started_has_no_end_to_its_time(app):
    app.view_timeout = 0.05

    @app.route("/")
    async def view():
        async def chunks():
            yield "started"
            await anyio.sleep(0.2)
            yield " and done"

        return chunks()

    assert (await get(app)).text == "started and done"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_view_may_make_something_of_its_cancellation(app, anyio_backend):
    """On trio, the scope that is cancelled stays so."""
    app.view_timeout = 0.05

    @app.route("/")
    async def view():
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            return "what there was so far"

    @app.route("/next")
    async def after():
        await anyio.lowlevel.checkpoint()
        return "next"

    assert (await get(app)).text == "what there was so far"
    assert (await get(app, "/next")).text == "next"


async def test_the_time_for_a_body_starts_anew_with_each_piece(app):
    app.body_timeout = 1
    messages = [b"a", b"b", b"c", b"d"]

    @app.route("/", methods=["POST"])
    async def view():
        return request.data

    sent = []

    async def receive():
        await anyio.sleep(0.3)
        body = messages.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(messages)}

    async def send(message):
        sent.append(message)

    scope, _ = build_request("/", method="POST", data=b"abcd")
    await app(scope, receive, send)
    assert sent[1]["body"] == b"abcd"


@pytest.mark.parametrize("stream_body", [False, True])
async def test_M22_a_body_that_does_not_go_on_is_408_and_the_end_of_the_connection(
    app, stream_body
):
    app.body_timeout = 0.05

    @app.route("/", methods=["POST"], stream_body=stream_body)
    async def view():
        return b"".join([chunk async for chunk in request.stream])

    sent, pieces = [], [b"some"]

    async def receive():
        if not pieces:
            await anyio.sleep_forever()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(message):
        sent.append(message)

    scope, _ = build_request("/", method="POST", headers={"Content-Length": "9"})
    await app(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"Nothing of the body has come for 0.05 seconds." in sent[1]["body"]


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_real_client_of_a_stuck_plain_view_is_answered_at_once(http):
    app, release, told = Flask(__name__), threading.Event(), []
    over = threading.Event()
    app.view_timeout = 0.05
    app.add_url_rule("/", "stuck", lambda: str(release.wait(30)))
    app.add_url_rule("/other", "other", lambda: "other")

    @app.teardown_request
    def note(exc):
        told.append(type(exc).__name__)
        over.set()

    with served(app, http=http, lifespan="off") as url, httpx.Client() as client:
        got = client.get(url)
        assert got.status_code == 503
        assert "Service Unavailable" in got.text
        assert not release.is_set()
        assert told == []
        release.set()
        assert over.wait(20)
        assert told == ["ServiceUnavailable"]
        app.view_timeout = None
        assert client.get(f"{url}/other").text == "other"


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_M22_a_real_client_that_keeps_its_body_back_is_told(http):
    app = Flask(__name__)
    app.body_timeout = 0.1
    app.add_url_rule("/", "view", lambda: "never", methods=["POST"])
    with served(app, http=http, lifespan="off") as url:
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(
                b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nsome"
            )
            received = b""
            while chunk := connection.recv(1 << 16):
                received += chunk
    assert received.startswith(b"HTTP/1.1 408 ")


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_view_that_minds_ends_when_a_real_client_leaves(http):
    app = Flask(__name__)
    events, started, over = [], threading.Event(), threading.Event()

    @app.route("/", cancel_on_disconnect=True)
    async def view():
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            events.append("view")

    @app.teardown_request
    async def note(exc):
        await anyio.lowlevel.checkpoint()
        events.append(type(exc).__name__)
        over.set()

    with served(app, http=http, lifespan="off") as url:
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert started.wait(20)
        assert over.wait(20)
    assert events == ["view", "ClientDisconnected"]


async def test_a_view_that_ends_while_its_503_is_sent_leaves_it_whole(app):
    go, ended = threading.Event(), threading.Event()
    app.view_timeout = 0.05
    app.route("/")(lambda: str(go.wait(20)))
    app.teardown_request(told := [].append)

    @app.after_request
    def note(response):
        ended.set()
        return response

    sent = []

    async def send(message):
        sent.append(message)
        go.set()
        await anyio.to_thread.run_sync(ended.wait, 20)
        for _ in range(100):  # so that it comes back from its thread
            await anyio.lowlevel.checkpoint()

    scope, _ = build_request("/")
    await app(scope, anyio.sleep_forever, send)
    assert [message["type"] for message in sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert (sent[0]["status"], b"Service Unavailable" in sent[1]["body"]) == (503, True)
    assert [type(exc).__name__ for exc in told.__self__] == ["ServiceUnavailable"]


async def test_a_body_that_nobody_waits_for_does_not_end_a_stream(app):
    """The view answers in the middle of an upload whose client has paused."""
    app.body_timeout = 0.02

    @app.route("/", methods=["POST"], stream_body=True)
    async def view():
        await anext(aiter(request.stream))

        async def chunks():
            yield "a"
            await anyio.sleep(0.2)
            yield "b"

        return chunks()

    sent, pieces = [], [b"some"]

    async def receive():
        if not pieces:
            await anyio.sleep_forever()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(message):
        sent.append(message)

    scope, _ = build_request("/", method="POST", headers={"Content-Length": "9"})
    await app(scope, receive, send)
    assert [message.get("body") for message in sent[1:]] == [b"a", b"b", b""]
    assert sent[0]["status"] == 200
