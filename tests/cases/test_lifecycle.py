"""Contexts, threads, cancellation, start-up and shut-down: what gets crossed, stuck,
lost or left behind.

The letters and numbers in the names are the project's own catalogue of faults and
attacks that its field has seen.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.responses import PlainTextResponse, StreamingResponse

from asyncflask import (
    Flask,
    Response,
    _request_ctx_stack,
    abort,
    g,
    render_template,
    render_template_string,
    render_template_string_async,
    request,
    session,
    url_for,
    watching,
)
from asyncflask.testing import build_request

from ..server import served

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="clean")


def asgi(app: Flask) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@contextmanager
def switching_often():
    """Let threads take turns after a microsecond instead of five milliseconds."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


# --------------------------------------------------------------- X1, X24: many at once


def crossing_app(count: int) -> Flask:
    """An application whose requests write who they are wherever they can, wait for
    each other, and say what they read."""
    app = Flask(__name__)
    app.secret_key = "k"
    app.worker_threads = count
    everyone = asyncio.Event()
    arrived = 0

    async def meet():
        nonlocal arrived
        arrived += 1
        if arrived >= count:
            everyone.set()
        await everyone.wait()

    def write(name):
        setattr(g, name, request.args["id"])
        session[name] = request.args["id"]
        VAR.set(request.args["id"])

    def seen(*names):
        found = {request.args["id"], VAR.get(), request.form["id"]}
        for name in names:
            found |= {getattr(g, name), session[name]}
        return " ".join(sorted(found))

    @app.before_request
    def before():
        assert VAR.get() == "clean"
        write("before")
        g.thread = threading.get_ident()

    @app.teardown_request
    def teardown(exc):
        assert g.thread == threading.get_ident()
        assert VAR.get() == request.args["id"]

    @app.route("/async", methods=["POST"])
    async def asynchronous():
        write("view")
        await meet()
        return seen("before", "view")

    @app.route("/task", methods=["POST"])
    async def task():
        write("view")
        await asyncio.gather(meet(), asyncio.to_thread(seen, "view"))
        return await asyncio.create_task(asyncio.to_thread(seen, "before", "view"))

    @app.route("/stream", methods=["POST"])
    async def stream():
        write("view")
        yield seen("before") + " "
        await meet()
        yield seen("view")

    @app.route("/plain", methods=["POST"])
    def plain():
        write("view")
        assert g.thread == threading.get_ident()
        return seen("before", "view")

    @app.route("/plain-stream", methods=["POST"])
    def plain_stream():
        write("view")
        for _ in range(3):
            assert g.thread == threading.get_ident()
            yield seen("before", "view") + " "

    return app


@pytest.mark.process
@pytest.mark.parametrize("often", [False, True], ids=["X1", "X24 with eager switches"])
async def test_X1_hundreds_of_requests_at_once_do_not_cross(often, caplog):
    """Not in g, the session, the form, a context variable, nor in the threads."""
    paths = ["/async", "/task", "/stream", "/plain", "/plain-stream"]
    count = 200
    app = crossing_app(count * 3 // 5)
    limits = httpx.Limits(max_connections=count)

    async def one(client, number):
        path = f"{paths[number % 5]}?id={number}"
        got = await client.post(path, data={"id": str(number)})
        assert set(got.text.split()) == {str(number)}

    with served(app) as url:
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            if often:
                with switching_often():
                    await asyncio.gather(*(one(client, n) for n in range(count)))
            else:
                await asyncio.gather(*(one(client, n) for n in range(count)))
    assert not [r for r in caplog.records if r.levelname == "ERROR"]
    assert app.workers.stats()["lent"] == 0


# ------------------------------------------------- X2: along a keep-alive connection


def leaking_app() -> Flask:
    """An application with a leak at each door, and a probe that finds it."""
    app = Flask(__name__)
    app.secret_key = "k"

    def leak():
        VAR.set("leaked")
        g.leaked = True

    @app.before_request
    def before():
        if request.path == "/hook":
            leak()

    @app.before_request
    async def async_before():
        if request.path == "/async-hook":
            leak()

    @app.after_request
    async def after(response):
        if request.path == "/after":
            leak()
        return response

    @app.teardown_request
    async def teardown(exc):
        if request.path == "/teardown":
            leak()

    @app.errorhandler(404)
    def missing(error):
        leak()
        return "missing", 404

    @app.route("/fails")
    async def fails():
        leak()
        raise LookupError

    @app.route("/plain")
    def plain():
        leak()
        return ""

    @app.route("/async")
    async def asynchronous():
        leak()
        await asyncio.sleep(0)
        return ""

    @app.route("/stream")
    async def stream():
        yield "x"
        leak()
        await asyncio.sleep(0)
        yield "y"

    @app.route("/plain-stream")
    def plain_stream():
        yield "x"
        leak()
        yield "y"

    @app.route("/starlette")
    async def starlette():
        async def body():
            leak()
            yield b"x"

        return StreamingResponse(body(), background=BackgroundTask(leak))

    @app.route("/pushed")
    async def pushed():
        app.test_request_context("/forgotten").push()
        leak()
        return ""

    for path in ("hook", "async-hook", "after", "teardown"):
        app.add_url_rule(f"/{path}", path, lambda: "")

    @app.route("/probe")
    async def probe():
        return f"{VAR.get()} {hasattr(g, 'leaked')} {request.path}"

    @app.route("/plain-probe")
    def plain_probe():
        return f"{VAR.get()} {hasattr(g, 'leaked')} {request.path}"

    return app


LEAKS = [
    *("/hook", "/async-hook", "/after", "/teardown", "/missing", "/plain", "/async"),
    *("/stream", "/plain-stream", "/starlette", "/pushed", "/fails"),
]


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_X2_nothing_leaks_into_the_next_request_of_a_connection(http):
    """uvicorn#2167: contexts of requests of one connection grow out of each other."""
    app = leaking_app()
    with served(app, http=http) as url, httpx.Client(base_url=url) as client:
        for path in LEAKS:
            client.get(path)
            for probe in ("/probe", "/plain-probe"):
                assert client.get(probe).text == f"clean False {probe}", path


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_X2_nor_does_it_where_requests_are_sent_ahead(http):
    """A pipelined request is begun by the server while the one before it ends."""
    app = leaking_app()
    head = b"GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n"
    with served(app, http=http) as url:
        port = int(url.rpartition(":")[2])
        for path in LEAKS[:-1]:  # the last one closes the connection
            with socket.create_connection(("127.0.0.1", port), 20) as connection:
                connection.sendall(
                    head % (path.encode(), b"")
                    + head % (b"/probe", b"")
                    + head % (b"/plain-probe", b"Connection: close\r\n")
                )
                heard = b""
                while data := connection.recv(65_536):
                    heard += data
            assert b"clean False /probe" in heard, path
            assert b"clean False /plain-probe" in heard, path


def test_X2_a_thread_that_serves_wsgi_keeps_nothing_either():
    app = leaking_app()
    client = app.test_client()
    for path in LEAKS:
        if path in ("/starlette", "/fails"):
            continue
        client.get(path)
        assert client.get("/plain-probe").text == "clean False /plain-probe"
    assert VAR.get() == "clean"
    assert _request_ctx_stack.top is None


# ---------------------------------------------- X4, X5, X6: threads wait for each other


@pytest.mark.parametrize("workers", [1, 2])
async def test_X4_a_request_keeps_its_thread_to_its_teardown(workers):
    """fastapi PR#5122: all threads were held by requests that waited for one more."""
    app = Flask(__name__)
    app.worker_threads = workers
    log: list[tuple[str, int]] = []

    @app.before_request
    def before():
        g.thread = threading.get_ident()

    @app.route("/<int:number>")
    async def view(number):
        await asyncio.sleep(0)
        if number % 3 == 0:
            abort(404)
        if number % 3 == 1:
            return render_template_string("{{ x }}")

        async def body():
            yield "x"
            await asyncio.sleep(0)

        return body()

    @app.context_processor
    def processor():
        return {"x": threading.get_ident() == g.thread}

    @app.teardown_request
    async def between(exc):
        await asyncio.sleep(0)

    @app.teardown_request
    def teardown(exc):
        log.append((request.path, threading.get_ident() == g.thread))

    async with asgi(app) as client:
        with anyio.fail_after(20):
            got = await asyncio.gather(*(client.get(f"/{n}") for n in range(60)))
    assert [one.text for one in got[1::3]] == ["True"] * 20
    assert sorted(log) == sorted((f"/{n}", True) for n in range(60))
    assert app.workers.stats() == {"lent": 0, "idle": workers, "waiting": 0}
    app.workers.close()


async def test_X5_plain_code_that_calls_async_code_that_calls_plain_code(app, client):
    """asgiref#249: the thread in the middle waited for itself."""
    threads = []
    app.worker_threads = 1

    def template(depth):
        return "{{ depth }}" if not depth else "{{ inner }}{{ depth }}"

    @app.context_processor
    async def asynchronous():
        if not g.depth:
            return {}
        g.depth -= 1
        depth = g.depth
        inner = await render_template_string_async(template(depth), depth=depth)
        return {"inner": inner}

    @app.context_processor
    def plain():
        threads.append(threading.get_ident())
        return {}

    @app.route("/")
    def view():
        g.depth = 3
        threads.append(threading.get_ident())
        if client.driver == "loop":
            return render_template_string_async(template(3), depth=3)
        return render_template_string(template(3), depth=3)

    with anyio.fail_after(20):
        assert (await client.get("/")).text == "0123"
    assert len(threads) == 5
    assert len(set(threads)) == 1 or client.driver == "loop"


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_X6_the_test_client_works_in_any_loop(anyio_backend):
    """Its own loop is asyncio's, whatever anyio calls the one that it is used in."""
    app = Flask(__name__)
    log = []

    @app.teardown_request
    async def teardown(exc):
        await anyio.lowlevel.checkpoint()
        log.append("torn down")

    @app.route("/", methods=["POST"])
    async def view():
        await anyio.lowlevel.checkpoint()
        return str(len(request.data))

    data = b"x" * 2_000_000  # so much that a file is involved
    assert app.test_client().post("/", data=data).text == "2000000"
    assert log == ["torn down"]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_X6_a_view_may_make_a_request_of_its_own(app, client, kind):
    """asgiref#348: with one thread, the inner one waited for the outer one's."""
    app.worker_threads = 1
    sub = Flask(__name__)
    sub.add_url_rule("/", "view", lambda: f"sub {request.script_root}")
    sub.workers = app.workers
    app.mount("/sub", sub)

    @app.before_request
    def before():
        g.path = request.path

    @app.teardown_request
    def teardown(exc):
        assert g.path == request.path

    @app.route("/inner")
    def inner():
        return f"{kind} {request.path}"

    def ask():
        ours = app.test_client()
        said = [ours.get("/inner").text, ours.get("/sub/").text]
        return [*said, ours.get("/inner", headers={"X": "y"}).text, request.path]

    @app.route("/plain")
    def plain():
        return ask()

    @app.route("/async")
    async def asynchronous():
        await anyio.lowlevel.checkpoint()
        return ask()

    with anyio.fail_after(20):
        got = await client.get(f"/{kind}")
    one = f"{kind} /inner"
    assert got.json == [one, "sub /sub", one, f"/{kind}"]


# ---------------------------------------------- X7, X8, X12: cancelled and disconnected


def slow_app() -> tuple[Flask, list[str], threading.Event, threading.Event]:
    """An application whose plain view waits for us, and what it logs."""
    app = Flask(__name__)
    log: list[str] = []
    started, release = threading.Event(), threading.Event()

    def note(word):
        log.append(f"{word} {threading.get_ident() == g.thread}")

    @app.before_request
    def before():
        g.thread = threading.get_ident()

    @app.route("/")
    def view():
        started.set()
        assert release.wait(30)
        note("view")
        return "dropped"

    @app.after_request
    def after(response):
        note("after")
        return response

    @app.teardown_request
    def teardown(exc):
        note("teardown")

    @app.teardown_request
    async def async_teardown(exc):
        await anyio.lowlevel.checkpoint()
        log.append(f"async teardown {type(exc).__name__}")

    return app, log, started, release


@pytest.mark.parametrize("times", [1, 3])
async def test_X7_a_cancelled_plain_view_ends_before_its_teardown(times):
    """asgiref PR#567: the connection was closed while the thread still used it."""
    app, log, started, release = slow_app()
    async with asgi(app) as client:
        task = asyncio.ensure_future(client.get("/"))
        await asyncio.to_thread(started.wait)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert (log, task.done()) == ([], False)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    ended = ["view True", "after True", "async teardown CancelledError"]
    assert log == [*ended, "teardown True"]
    assert app.workers.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    app.workers.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_X7_nor_does_a_cancelled_scope_overtake_it(anyio_backend):
    app, log, started, release = slow_app()
    async with asgi(app) as client, anyio.create_task_group() as group:
        group.start_soon(client.get, "/")
        await anyio.to_thread.run_sync(started.wait)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
        assert log == []
        release.set()
    assert log[:2] == ["view True", "after True"]
    assert log[2].startswith("async teardown Cancelled")
    assert log[3:] == ["teardown True"]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_X7_a_client_that_leaves_does_not_interrupt_a_plain_view(http):
    """As in Flask: it goes on to its end, and its response is dropped."""
    app, log, started, release = slow_app()
    done = threading.Event()
    app.teardown_request_funcs.insert(0, lambda exc: done.set())
    with served(app, http=http) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert started.wait(20)
        release.set()
        assert done.wait(20)
        assert httpx.get(url).text == "dropped"
    ended = ["view True", "after True", "async teardown NoneType", "teardown True"]
    assert log == ended * 2


def restless_app(log: dict[str, list[str]]) -> Flask:
    """An application that goes back and forth between the loop and its threads."""
    app = Flask(__name__)
    app.worker_threads = 20

    def note(word):
        log.setdefault(request.args["id"], []).append(word)

    @app.before_request
    def before():
        note("before")
        g.thread = threading.get_ident()

    @app.before_request
    async def async_before():
        await asyncio.sleep(0)

    @app.teardown_request
    def teardown(exc):
        assert g.get("thread") in (None, threading.get_ident())
        note("teardown")

    @app.after_request
    def after(response):
        return response

    @app.route("/plain")
    def plain():
        sum(range(1000))
        return "x" * 1000

    @app.route("/async")
    async def asynchronous():
        await asyncio.sleep(0.001)
        return await render_template_string_async("{{ request.path }}")

    @app.route("/plain-stream")
    def plain_stream():
        try:
            for _ in range(20):
                yield "x"
        finally:
            note("closed")

    @app.route("/stream")
    async def stream():
        try:
            for _ in range(20):
                yield "x"
                await asyncio.sleep(0)
        finally:
            note("closed")

    return app


async def test_X8_no_moment_is_a_bad_one_for_a_cancellation(caplog):
    """``cannot enter context: ... is already entered`` is what a loop says when it goes
    on with what a thread has not left yet."""
    log: dict[str, list[str]] = {}
    app = restless_app(log)
    complaints = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(context)
    )
    rng = random.Random(8)
    paths = ["/plain", "/async", "/plain-stream", "/stream"]

    async def forever():
        await asyncio.Event().wait()

    async def one(number):
        scope, _ = build_request(f"{paths[number % 4]}?id={number}")

        async def send(message):
            await asyncio.sleep(0)

        task = asyncio.ensure_future(app(scope, forever, send))
        for _ in range(rng.randrange(1, 3)):
            for _ in range(rng.randrange(0, 30)):
                await asyncio.sleep(0)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() / 200)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass

    with switching_often(), anyio.fail_after(50):
        for start in range(0, 400, 20):
            await asyncio.gather(*(one(n) for n in range(start, start + 20)))
    await asyncio.sleep(0)
    assert complaints == []
    assert "already entered" not in caplog.text
    for words in log.values():
        assert words.count("before") == 1 or words == ["teardown"]  # before it began
        assert words.count("teardown") == 1
        assert words[-1] == "teardown"
    assert len(log) > 100
    assert len([words for words in log.values() if "before" in words]) > 50
    stats = app.workers.stats()
    assert (stats["lent"], stats["waiting"]) == (0, 0)
    app.workers.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["before", "view", "after", "stream"])
async def test_X12_a_teardown_may_await_whatever_was_cancelled(anyio_backend, where):
    """starlette PR#1258: what cleans up was itself cancelled at its first await."""
    app = Flask(__name__)
    log = []
    reached = anyio.Event()

    async def wait_at(place):
        if place == where:
            reached.set()
            await anyio.sleep_forever()

    @app.before_request
    async def before():
        await wait_at("before")

    @app.route("/")
    async def view():
        await wait_at("view")

        async def body():
            try:
                yield "x"
                await wait_at("stream")
            finally:
                log.append("body closed")

        return body()

    @app.after_request
    async def after(response):
        await wait_at("after")
        return response

    @app.teardown_request
    async def teardown(exc):
        for _ in range(3):
            await anyio.sleep(0.001)
        log.append("teardown")

    @app.teardown_request
    def plain(exc):
        log.append("plain teardown")

    async def send(message):
        await anyio.lowlevel.checkpoint()

    scope, _ = build_request("/")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(app, scope, anyio.sleep_forever, send)
            await reached.wait()
            group.cancel_scope.cancel()
    assert log[-2:] == ["plain teardown", "teardown"]
    assert ("body closed" in log) is (where == "stream")
    app.workers.close()


async def test_X12_each_teardown_is_called_though_one_never_ends(monkeypatch):
    """asyncio's own cancel() may come in the middle of a teardown function, which is
    then given some time, but not for ever."""
    monkeypatch.setattr(watching, "GRACE", 0.05)
    app = Flask(__name__)
    log, reached = [], asyncio.Event()
    app.add_url_rule("/", "view", lambda: "")

    @app.teardown_request
    def plain(exc):
        log.append("plain")

    @app.teardown_request
    async def waiting(exc):
        reached.set()
        await asyncio.Event().wait()

    @app.teardown_request
    async def first(exc):
        log.append("first")

    async with asgi(app) as client:
        task = asyncio.ensure_future(client.get("/"))
        await asyncio.wait_for(reached.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log == ["first", "plain"]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


async def test_X12_a_teardown_that_waits_for_a_thread_is_called_though_cancelled():
    """All threads are lent when an async view is done, and then its time is up."""
    app = Flask(__name__)
    app.worker_threads = 1
    log = []
    started, release = threading.Event(), threading.Event()

    @app.route("/slow")
    def slow():
        started.set()
        assert release.wait(30)
        return ""

    @app.route("/")
    async def view():
        return ""

    @app.teardown_request
    def teardown(exc):
        log.append(request.path)

    async with asgi(app) as client:
        first = asyncio.ensure_future(client.get("/slow"))
        await asyncio.to_thread(started.wait)
        second = asyncio.ensure_future(client.get("/"))
        while not app.workers.stats()["waiting"]:
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        await asyncio.wait([first, second])
    app.workers.close()
    assert sorted(log) == ["/", "/slow"]


async def test_X12_a_teardown_that_awaits_something_is_not_cancelled():
    app = Flask(__name__)
    log, reached, release = [], asyncio.Event(), asyncio.Event()

    @app.route("/")
    async def view():
        return ""

    @app.teardown_request
    async def teardown(exc):
        reached.set()
        await release.wait()
        log.append("released")

    async with asgi(app) as client:
        task = asyncio.ensure_future(client.get("/"))
        await asyncio.wait_for(reached.wait(), 20)
        task.cancel()
        await asyncio.sleep(0)
        release.set()
        await asyncio.wait([task])
    assert log == ["released"]


# ------------------------------------------------------ X10, X11: bodies that end early


class AsyncChunks:
    """An async iterable that wants to be closed."""

    def __init__(self, log):
        self.log = log

    async def __aiter__(self):
        while True:
            yield b"x"
            await anyio.sleep(0.001)

    async def aclose(self):
        self.log.append("closed")


class AsyncIterator(AsyncChunks):
    """An async iterator that wants to be closed."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        await anyio.sleep(0.001)
        return b"x"


class Chunks:
    """An iterable that wants to be closed, as PEP 3333 has it."""

    def __init__(self, log):
        self.log = log

    def __iter__(self):
        while True:
            yield b"x"

    def close(self):
        self.log.append("closed")


class PlainIterator(Chunks):
    """An iterator that wants to be closed."""

    def __iter__(self):
        return self

    def __next__(self):
        return b"x"


def plain_generator(log):
    try:
        while True:
            yield b"x"
    finally:
        log.append("closed")


async def async_generator(log):
    try:
        while True:
            yield b"x"
            await anyio.sleep(0.001)
    finally:
        await anyio.lowlevel.checkpoint()
        log.append("closed")


async def waiting_generator(log):
    try:
        yield b"x"
        yield b"x"
        await anyio.sleep_forever()
    finally:
        await anyio.lowlevel.checkpoint()
        log.append("closed")


ITERABLES = [AsyncChunks, AsyncIterator, Chunks, PlainIterator]
GENERATORS = [plain_generator, async_generator, waiting_generator]


def streaming_app(make, log, app=None) -> Flask:
    app = app or Flask(__name__)
    app.teardown_request(lambda exc: log.append("teardown"))
    app.add_url_rule("/", "view", lambda: Response(make(log)))
    app.add_url_rule("/304", "not_modified", lambda: Response(make(log), 304))
    app.add_url_rule("/204", "no_content", lambda: Response(make(log), 204))
    app.add_url_rule("/hook", "hook", lambda: Response(make(log)))
    app.add_url_rule("/fails", "fails", lambda: Response(make(log)))

    @app.after_request
    def after(response):
        if request.path == "/hook":
            return Response("another")
        if request.path == "/fails":
            raise LookupError
        return response

    @app.errorhandler(LookupError)
    def failed(error):
        return "failed"

    return app


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_X10_a_client_that_leaves_ends_the_body_and_then_the_request(http):
    """connect-py#174: cursors and locks of streams stayed open for ever."""
    app = Flask(__name__)
    makes = {make.__name__: make for make in [*ITERABLES, *GENERATORS]}
    logs: dict[str, list[str]] = {name: [] for name in makes}
    over = {name: threading.Event() for name in makes}

    @app.route("/<name>")
    def view(name):
        g.name = name
        return Response(makes[name](logs[name]))

    @app.teardown_request
    def teardown(exc):
        logs[g.name].append("teardown")
        over[g.name].set()

    with served(app, http=http) as url:
        for name in makes:
            with httpx.stream("GET", f"{url}/{name}") as response:
                assert next(response.iter_raw())
            assert over[name].wait(5), name
    assert logs == {name: ["closed", "teardown"] for name in makes}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/"),
        ("GET", "/304"),
        ("GET", "/204"),
        ("GET", "/hook"),
        ("GET", "/fails"),
    ],
)
@pytest.mark.parametrize("make", ITERABLES)
async def test_X11_a_body_that_is_never_iterated_is_closed(
    app, client, make, method, path
):
    """falcon#1963, flask#6123: HEAD and 304 left files and contexts open."""
    log: list[str] = []
    streaming_app(make, log, app)
    got = await client.open(path, method=method)
    assert got.status_code in (200, 204, 304)
    assert log == ["closed", "teardown"]
    assert app.workers.stats()["lent"] == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("make", [*ITERABLES, *GENERATORS[:2]])
async def test_X11_a_server_that_cannot_send_ends_the_body(make, at, anyio_backend):
    """hypercorn and others raise from send() when the client has gone."""
    log: list[str] = []
    app = streaming_app(make, log)
    sent = []

    async def send(message):
        if len(sent) == at:
            raise OSError("gone")
        sent.append(message)

    scope, _ = build_request("/")
    with anyio.fail_after(20):
        await app(scope, anyio.sleep_forever, send)
    unstarted = at == 0 and make in GENERATORS
    assert log == ["closed", "teardown"][unstarted:]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


# -------------------------------------------------------- X15 to X17: start and stop


async def lifespan(app: Flask, log: list[str]) -> None:
    asked = ["lifespan.startup", "lifespan.shutdown"]

    async def receive():
        return {"type": asked.pop(0)}

    async def send(message):
        log.append(message["type"].removeprefix("lifespan."))
        log.extend(filter(None, [message.get("message")]))

    with anyio.fail_after(20):
        await app({"type": "lifespan", "state": {}}, receive, send)


def around(log, name, fails=()):
    async def function():
        log.append(f"{name} up")
        if "up" in fails:
            raise LookupError(f"{name} is broken")
        yield
        await anyio.lowlevel.checkpoint()
        log.append(f"{name} down")
        if "down" in fails:
            raise LookupError(f"{name} is broken")

    return function


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_X15_a_failed_start_is_said_once_and_undone(anyio_backend, caplog):
    """Quart 0.17: the server went on as if nothing had happened."""
    app, log = Flask(__name__), []
    app.while_serving(around(log, "a"))
    app.while_serving(around(log, "b", fails=("up",)))
    app.while_serving(around(log, "c"))
    await lifespan(app, log)
    failed = ["startup.failed", "LookupError: b is broken"]
    assert log == ["a up", "b up", "a down", *failed]
    assert "LookupError: b is broken" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_X15_a_function_that_never_yields_is_a_failed_start(anyio_backend):
    app, log = Flask(__name__), []

    async def forgetful():
        log.append("forgetful up")
        if not log:
            yield

    app.while_serving(around(log, "a"))
    app.while_serving(forgetful)
    await lifespan(app, log)
    assert log[:4] == ["a up", "forgetful up", "a down", "startup.failed"]


@pytest.mark.process
def test_X15_a_server_whose_application_does_not_start_ends(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from asyncflask import Flask\n"
        "app = Flask(__name__)\n"
        "@app.while_serving\n"
        "async def broken():\n"
        "    raise LookupError('no database')\n"
        "    yield\n"
    )
    command = [sys.executable, "-m", "uvicorn", "broken:app", "--port", "0"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode != 0
    assert "no database" in done.stderr


def test_X16_a_server_without_lifespan_serves():
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: "served")
    with served(app, lifespan="off") as url:
        assert httpx.get(url).text == "served"
    app.workers.close()


def test_X16_under_wsgi_the_first_of_many_requests_starts_it_once():
    app, log = Flask(__name__), []
    barrier = threading.Barrier(8)

    @app.while_serving
    async def pool():
        log.append("up")
        await asyncio.sleep(0.01)
        app.pool = "pool"
        yield

    app.add_url_rule("/", "view", lambda: app.pool)

    def ask(_):
        barrier.wait(20)
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "h"}
        environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http"}
        return b"".join(app.wsgi_app(environ, lambda status, headers: None))

    with ThreadPoolExecutor(8) as pool_of_threads:
        assert list(pool_of_threads.map(ask, range(8))) == [b"pool"] * 8
    assert log == ["up"]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("broken", ["", "a", "b", "c", "abc"])
async def test_X17_everything_stops_in_the_reverse_order(broken, anyio_backend):
    """Whatever fails keeps no other from its end."""
    app, log = Flask(__name__), []
    for name in "abc":
        app.while_serving(around(log, name, fails=("down",) if name in broken else ()))
    await lifespan(app, log)
    stopped = ["shutdown.complete"]
    if broken:
        # the last that failed is the one that is named
        stopped = ["shutdown.failed", f"LookupError: {broken[0]} is broken"]
    up, down = ["a up", "b up", "c up"], ["c down", "b down", "a down"]
    assert log == [*up, "startup.complete", *down, *stopped]


# ----------------------------------------- X18, X19: Starlette's background, X21: Jinja


async def test_X18_the_background_of_a_starlette_response_runs(app, client):
    """After the response, before the teardown, and in the request's context."""
    log = []

    @app.teardown_request
    def teardown(exc):
        log.append("teardown")

    @app.route("/")
    async def view():
        async def later(word):
            await anyio.lowlevel.checkpoint()
            gc.collect()
            log.append(f"{word} {request.path}")

        tasks = BackgroundTasks()
        tasks.add_task(later, "one")
        tasks.add_task(later, "two")
        return PlainTextResponse("x", background=tasks)

    assert (await client.get("/")).text == "x"
    assert log == ["one /", "two /", "teardown"]


async def test_X18_the_client_does_not_wait_for_the_background():
    app = Flask(__name__)
    release = threading.Event()

    @app.route("/")
    async def view():
        return PlainTextResponse("x", background=BackgroundTask(release.wait, 30))

    with served(app) as url:
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).text == "x"
        assert not release.is_set()
        release.set()


async def test_X19_a_background_that_fails_is_logged_and_torn_down(app, client, caplog):
    log = []

    @app.teardown_request
    def teardown(exc):
        log.append(type(exc))

    @app.route("/")
    async def view():
        def fail():
            raise LookupError("in the background")

        return PlainTextResponse("x", background=BackgroundTask(fail))

    with pytest.raises(LookupError, match="in the background"):
        await client.get("/")
    assert log == [LookupError]
    assert "GET / failed: LookupError: in the background" in caplog.text


def test_X21_many_threads_render_a_cold_template(tmp_path):
    """The environment, too, is made at the first use."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "base.html").write_text("<{% block body %}{% endblock %}>")
    (folder / "part.html").write_text("{{ url_for('view', n=n) }}")
    (folder / "page.html").write_text(
        "{% extends 'base.html' %}"
        "{% block body %}{% include 'part.html' %}{% endblock %}"
    )
    for _ in range(5):
        app = Flask(__name__)
        app.root_path = str(tmp_path)
        barrier = threading.Barrier(8)

        @app.route("/<int:n>")
        def view(n, barrier=barrier):
            barrier.wait(20)
            return render_template("page.html", n=n)

        with switching_often(), ThreadPoolExecutor(8) as pool:
            got = pool.map(lambda n, app=app: app.test_client().get(f"/{n}"), range(8))
            assert [one.text for one in got] == [f"</{n}>" for n in range(8)]


# --------------------------------------------------------- X25, X26: signals, trio

SERVER_SENT = """
import asyncio, sys
from asyncflask import Flask
app = Flask(__name__)

@app.teardown_request
async def teardown(exc):
    await asyncio.sleep(0)
    print("torn down", flush=True)

@app.route("/")
async def events():
    try:
        while True:
            yield "data: x\\n\\n"
            await asyncio.sleep(0.01)
    finally:
        print("closed", flush=True)

@app.route("/plain")
def plain():
    import time
    try:
        while True:
            yield "data: x\\n\\n"
            time.sleep(0.01)
    finally:
        print("closed", flush=True)

if __name__ == "__main__":
    import uvicorn
    if sys.argv[1] == "app.run":
        app.run(port=0)
    else:
        uvicorn.run(app, port=0, timeout_graceful_shutdown=1)
"""


@pytest.mark.process
@pytest.mark.parametrize("path", ["/", "/plain"])
@pytest.mark.parametrize("way", ["app.run", "uvicorn"])
def test_X25_an_open_stream_does_not_hold_up_the_end(tmp_path, way, path):
    """uvicorn#2943: Ctrl-C waited for a client that never leaves."""
    script = tmp_path / "events.py"
    script.write_text(SERVER_SENT)
    process = subprocess.Popen(
        [sys.executable, str(script), way],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    try:
        found = (re.search(r"http://\S+:\d+", line) for line in process.stdout)
        url = next(filter(None, found))[0]
        with httpx.stream("GET", f"{url}{path}") as response:
            assert next(response.iter_raw()).startswith(b"data:")
            process.send_signal(signal.SIGINT)
            output = process.communicate(timeout=20)[0]
    finally:
        process.kill()
        process.communicate()
    assert output.index("closed") < output.index("torn down")


TRIO = """
import threading, trio
from asyncflask import Flask, request, g
app = Flask(__name__)

@app.while_serving
async def pool():
    app.pool = trio.Lock()
    yield

@app.before_request
def before():
    g.thread = threading.get_ident()

@app.route("/", methods=["POST"])
async def view():
    async with app.pool:
        await trio.sleep(0)
    return request.form["a"]

@app.route("/plain")
def plain():
    return str(g.thread == threading.get_ident())

@app.route("/stream")
async def stream():
    for n in range(3):
        await trio.sleep(0)
        yield str(n)

@app.route("/up", methods=["POST"], stream_body=True)
async def up():
    return str(sum([len(chunk) async for chunk in request.stream]))
"""


@pytest.mark.process
def test_X26_a_server_on_trio_serves_it(tmp_path):
    (tmp_path / "on_trio.py").write_text(TRIO)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", address, "on_trio:app"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    try:
        for line in process.stderr:
            if "Running on" in line:
                break
        with httpx.Client(base_url=f"http://{address}", timeout=20) as client:
            assert client.post("/", data={"a": "1"}).text == "1"
            assert client.get("/plain").text == "True"
            assert client.get("/stream").text == "012"
            assert client.post("/up", content=b"x" * 300_000).text == "300000"
            assert client.get("/missing").status_code == 404
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.communicate()
    assert "Traceback" not in rest


# ------------------------------------------------------------- X27, X28: what is kept


def used_app(tmp_path: Path) -> Flask:
    """An application that has done a bit of everything."""
    app = Flask(__name__)
    app.secret_key = "k"
    app.root_path = str(tmp_path)
    sub = Flask(__name__)
    sub.add_url_rule("/", "view", lambda: "sub")
    app.mount("/sub", sub)

    class Own(Flask):
        async def open_session(self, request):
            return {}

        def save_session(self, session, response):
            pass

    own = Own(__name__)
    own.add_url_rule("/", "view", lambda: str(session))
    app.mount("/own", own)

    @app.while_serving
    async def pool():
        app.pool = app
        yield

    @app.errorhandler(LookupError)
    def handler(error):
        return render_template_string("{{ url_for('view', n=1) }}{{ app }}", app=app)

    @app.teardown_request
    async def teardown(exc):
        g.app = app

    @app.route("/<int:n>")
    def view(n):
        session["n"] = url_for("view", n=n)
        return iter(["x", str(app)])

    @app.route("/fails")
    async def fails():
        raise LookupError(app)

    @app.route("/breaks")
    def breaks():
        raise ValueError(app)

    return app


def use(app: Flask) -> None:
    client = app.test_client()
    for path in ("/1", "/fails", "/sub/", "/own/", "/missing", "/static/x"):
        client.get(path)
        client.head(path)
    with pytest.raises(ValueError, match="Flask"):
        client.get("/breaks")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/1", "SERVER_NAME": "h"}
    environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    body = app.wsgi_app(environ, lambda status, headers: None)
    list(body)
    body.close()


def are_freed(refs: list[weakref.ref[Flask]], seconds: float = 10) -> bool:
    """Say whether objects go; a worker may still be about to put its last job down."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        gc.collect()
        if all(ref() is None for ref in refs):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("debug", [False, True])
def test_X27_applications_and_their_requests_are_freed(tmp_path, debug, caplog):
    """litestar#4876: a cache on a class kept every application there ever was.

    One that has run its lifespan under WSGI lasts as long as the process.
    """
    dead = []
    for _ in range(10):
        app = used_app(tmp_path)
        app.debug = debug
        app.while_serving_funcs.clear()
        app.process_lifespan = None
        use(app)
        dead += [weakref.ref(app), *(weakref.ref(mount.app) for mount in app.mounts)]
    del app
    caplog.clear()
    sys.last_value = sys.last_exc = sys.last_traceback = None
    assert are_freed(dead)


async def test_X27_a_server_that_stops_lets_go(tmp_path):
    app = used_app(tmp_path)
    with served(app) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            for path in ("/1", "/fails", "/sub/", "/own/", "/breaks", "/missing"):
                await client.get(path)
    ref = weakref.ref(app)
    del app
    for _ in range(3):
        await asyncio.sleep(0)
    assert are_freed([ref])


@pytest.mark.parametrize("path", ["/{}", "/x/{}", "/n/{}", "/n/1?x={}"])
def test_X28_no_number_of_paths_takes_memory(path):
    """Neither those that are found nor those that are not are remembered."""
    app = Flask(__name__)
    app.add_url_rule("/x/<name>", "text", lambda name: url_for("text", name=name))
    app.add_url_rule("/n/<int:n>", "number", lambda n: url_for("number", n=n))
    client = app.test_client()

    def ask(numbers):
        for number in numbers:
            client.get(path.format(number * 7919))

    def grown(first):
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        ask(range(first, first + 150))
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    ask(range(150))
    tracemalloc.start()
    try:
        # The least of them, since a thread or a table may grow once in a while.
        least = min(grown(first) for first in (150, 300, 450))
    finally:
        tracemalloc.stop()
    assert least < 6_000  # 40 bytes for each; a path alone takes more


def test_X28_no_number_of_statuses_types_and_lengths_takes_memory():
    app = Flask(__name__)

    @app.route("/<int:n>")
    def view(n):
        return Response("x" * (n % 5000), mimetype=f"text/x-{n}", headers={f"X-{n}": n})

    client = app.test_client()
    for number in range(1100):
        client.get(f"/{number}")
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1100, 2000):
            client.get(f"/{number}")
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 300_000  # a thousand lengths and a hundred types are remembered
