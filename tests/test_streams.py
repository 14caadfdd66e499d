"""Streaming bodies: alive while they last, closed on every exit."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from asyncflask import Flask, g, request, session
from asyncflask.sending import AHEAD, AHEAD_CHUNKS
from asyncflask.testing import build_request


async def test_generators_stream_with_the_context_alive(app: Flask, client):
    @app.route("/plain")
    def plain():
        g.x = "x"

        def body():
            yield request.path
            yield b" bytes "
            yield g.x

        return body()

    @app.route("/async")
    async def asynchronous():
        g.x = "x"
        yield request.path
        yield bytearray(b" bytes ")
        yield g.x

    @app.route("/generator")
    def generator():
        yield request.path
        yield " itself"

    assert (await client.get("/plain")).text == "/plain bytes x"
    assert (await client.get("/async")).text == "/async bytes x"
    assert (await client.get("/generator")).text == "/generator itself"
    assert "content-length" not in (await client.get("/async")).headers


async def test_a_body_is_closed_before_the_teardown(app: Flask, client):
    log = []

    @app.teardown_request
    def teardown(exc):
        log.append("teardown")

    @app.route("/plain")
    def plain():
        def body():
            try:
                yield "a"
                yield "b"
            finally:
                log.append(f"closed {request.path}")

        return body()

    @app.route("/async")
    async def asynchronous():
        try:
            yield "a"
        finally:
            log.append(f"closed {request.path}")

    for method, body in (("GET", b"ab"), ("HEAD", b"")):
        assert (await client.open("/plain", method=method)).data == body
    assert (await client.get("/async")).data == b"a"
    started = ["closed /plain", "teardown"]
    assert log == [*started, "teardown", "closed /async", "teardown"]


async def test_a_failing_body_breaks_off_and_is_logged(app, client, caplog):
    torn = []
    app.teardown_request(lambda exc: torn.append(type(exc)))

    @app.route("/plain")
    def plain():
        yield "a"
        raise LookupError("midway")

    @app.route("/async")
    async def asynchronous():
        yield "a"
        raise LookupError("midway")

    @app.route("/wrong")
    def wrong():
        yield 5

    for path in "/plain", "/async":
        with pytest.raises(LookupError, match="midway"):
            await client.get(path)
    with pytest.raises(TypeError, match="must give str or bytes"):
        await client.get("/wrong")
    assert torn == [LookupError, LookupError, TypeError]
    assert "GET /plain failed: LookupError: midway" in caplog.text


async def test_a_body_that_is_not_sent_is_closed(app, client, tmp_path):
    files = []

    @app.after_request
    def replace(response):
        if request.path == "/fail":
            raise LookupError("in a hook")
        return app.response_class("another")

    @app.route("/replace")
    def replaced():
        files.append((tmp_path / "file").open("w+b"))
        return files[-1]

    app.add_url_rule("/fail", "fail", replaced)
    assert (await client.get("/replace")).text == "another"
    with pytest.raises(LookupError):
        await client.get("/fail")
    assert [file.closed for file in files] == [True, True]


class Leaver:
    """A client that leaves after some chunks."""

    def __init__(self, app: Flask, path: str, chunks: int) -> None:
        self.app = app
        self.scope, _ = build_request(path)
        self.chunks = chunks
        self.got: list[bytes] = []
        self.leave = asyncio.Event()

    async def receive(self):
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message.get("body"):
            self.got.append(message["body"])
            if len(self.got) == self.chunks:
                self.leave.set()

    async def run(self):
        await asyncio.wait_for(self.app(self.scope, self.receive, self.send), 10)


@pytest.mark.parametrize("kind", ["async", "plain", "waiting"])
async def test_a_client_that_leaves_ends_the_body(kind):
    app = Flask(__name__)
    log = []
    app.teardown_request(lambda exc: log.append(("teardown", exc)))

    @app.route("/async")
    async def asynchronous():
        try:
            while True:
                yield "x"
                await asyncio.sleep(0)
        finally:
            log.append(request.path)

    @app.route("/plain")
    def plain():
        try:
            while True:
                yield "x"
        finally:
            log.append(request.path)

    @app.route("/waiting")
    async def waiting():
        try:
            yield "x"
            yield "x"
            await asyncio.Event().wait()  # for ever
        finally:
            await asyncio.sleep(0)
            log.append(request.path)

    leaver = Leaver(app, f"/{kind}", 2)
    await leaver.run()
    assert log == [f"/{kind}", ("teardown", None)]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


async def test_a_client_that_leaves_while_uploading_is_no_error(caplog):
    app = Flask(__name__)
    torn = []
    app.teardown_request(lambda exc: torn.append(exc))

    @app.route("/", methods=["POST"])
    def view():
        raise AssertionError("the view was called")

    scope, _ = build_request("/", method="POST", data=b"x" * 10)
    messages = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        raise AssertionError("something was sent")

    await app(scope, receive, send)
    assert torn == [None]
    assert not [r for r in caplog.records if r.levelname == "ERROR"]
    app.workers.close()


async def test_an_async_body_waits_for_its_client():
    """Back-pressure: the next chunk is made when the last one is sent."""
    app = Flask(__name__)
    made = []

    @app.route("/")
    async def view():
        for n in range(5):
            made.append(n)
            yield str(n)

    scope, _ = build_request("/")
    seen = []

    async def send(message):
        await asyncio.sleep(0)
        if message.get("body"):
            seen.append((message["body"], len(made)))

    await app(scope, anyio.sleep_forever, send)
    assert seen == [(b"%d" % n, n + 1) for n in range(5)]


@pytest.mark.parametrize(
    ("size", "ahead"), [(1, AHEAD_CHUNKS), (AHEAD // 4, 4), (AHEAD, 1)]
)
async def test_a_plain_body_is_ahead_of_its_client_within_bounds(size, ahead):
    """Its thread goes on while the client is slow, up to some chunks and bytes."""
    app = Flask(__name__)
    made, sent = [], []
    reached = threading.Event()

    @app.route("/")
    def view():
        for n in range(1000):
            made.append(n)
            if len(made) == ahead:
                reached.set()
            yield b"x" * size

    scope, _ = build_request("/")

    async def send(message):
        if message.get("body"):
            assert await anyio.to_thread.run_sync(reached.wait, 10)
            sent.append(message)
            assert len(made) <= len(sent) + ahead
            if len(sent) == 200:
                raise OSError

    await app(scope, anyio.sleep_forever, send)
    assert len(made) <= 200 + ahead
    app.workers.close()


async def test_a_plain_chunk_does_not_wait_for_the_next():
    app = Flask(__name__)
    arrived = threading.Event()

    @app.route("/")
    def view():
        for n in range(5):
            yield str(n)
            assert arrived.wait(10)
            arrived.clear()

    scope, _ = build_request("/")

    async def send(message):
        if message.get("body"):
            arrived.set()

    await app(scope, anyio.sleep_forever, send)
    app.workers.close()


async def test_a_plain_body_that_breaks_is_sent_up_to_there():
    app = Flask(__name__)

    @app.route("/")
    def view():
        yield from "abc"
        raise LookupError("d")

    scope, _ = build_request("/")
    sent = []

    async def send(message):
        sent.append(message.get("body"))

    with pytest.raises(LookupError):
        await app(scope, anyio.sleep_forever, send)
    assert sent == [None, b"a", b"b", b"c"]
    app.workers.close()


async def test_a_plain_body_that_breaks_when_its_client_has_gone_is_logged(caplog):
    app = Flask(__name__)
    at_work, gone = threading.Event(), threading.Event()

    @app.route("/")
    def view():
        yield "a"
        at_work.set()
        assert gone.wait(10)
        raise LookupError("too late")

    scope, _ = build_request("/")

    async def send(message):
        if message.get("body"):
            assert await anyio.to_thread.run_sync(at_work.wait, 10)
            gone.set()
            raise OSError

    await app(scope, anyio.sleep_forever, send)
    assert "too late" in caplog.text
    app.workers.close()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_where_no_body_is_there_is_nothing_to_iterate_over(app, client, method):
    @app.route("/async", methods=["GET", "POST", "DELETE"], stream_body=True)
    async def asynchronous():
        return str([chunk async for chunk in request.stream])

    @app.route("/plain", methods=["GET", "POST", "DELETE"], stream_body=True)
    def plain():
        return str(list(request.stream))

    for headers in {}, {"Content-Length": "0"}:
        for path in "/async", "/plain":
            answer = await client.open(path, method=method, headers=headers)
            assert (answer.status_code, answer.text) == (200, "[]")


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_body_may_be_echoed_while_it_comes_in(kind):
    app = Flask(__name__)

    @app.route("/async", methods=["POST"], stream_body=True)
    async def asynchronous():
        async for chunk in request.stream:
            yield chunk

    @app.route("/plain", methods=["POST"], stream_body=True)
    def plain():
        yield from request.stream

    scope, _ = build_request(f"/{kind}", method="POST", data=b"x")
    sent, queue = [], asyncio.Queue()
    for number in range(20):
        queue.put_nowait(b"%d;" % number)

    async def receive():
        await asyncio.sleep(0)
        if queue.empty():
            await asyncio.Event().wait()
        chunk = queue.get_nowait()
        more = not queue.empty()
        return {"type": "http.request", "body": chunk, "more_body": more}

    async def send(message):
        await asyncio.sleep(0)
        sent.append(message.get("body", b""))

    await asyncio.wait_for(app(scope, receive, send), 20)
    assert b"".join(sent) == b"".join(b"%d;" % number for number in range(20))
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


async def test_the_session_is_saved_before_the_stream(app: Flask, client):
    @app.route("/")
    def view():
        session["x"] = 1

        def body():
            yield str(session["x"])

        return body()

    got = await client.get("/")
    assert got.text == "1"
    assert "set-cookie" in got.headers


async def test_a_plain_body_runs_in_the_requests_thread(app: Flask, client):
    @app.route("/")
    def view():
        thread = threading.get_ident()

        def body():
            for _ in range(100):
                yield str(threading.get_ident() == thread)[0]

        return body()

    if client.driver != "loop":
        assert (await client.get("/")).text == "T" * 100
