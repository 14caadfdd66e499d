"""The application behind WSGI servers, against what has gone wrong in the field.

The letters and numbers in the names of the tests are the project's own catalogue
of faults and attacks that its field has seen. More of them are on the neighbouring
pages: test_wsgi.py, test_lifespan.py, test_environ.py, test_mounting.py and
test_servers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.handlers import SimpleHandler

import anyio
import pytest

from asyncflask import Flask, request, session, url_for

from ..conftest import DRIVERS
from ..test_wsgi import (
    CHUNKED,
    MIB,
    TERMINATED,
    Answer,
    Flood,
    Input,
    Opened,
    echo,
    forks,
    kinds,
    made,
    new_environ,
    run_forked,
)

FORM = {"CONTENT_TYPE": "application/x-www-form-urlencoded"}
PARTS = {"CONTENT_TYPE": "multipart/form-data; boundary=x"}
UPLOAD = (
    b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    + b"data\r\n--x--\r\n"
)


def reading(ran: list[str]) -> Flask:
    """An application that reads bodies in every way there is."""
    app = Flask(__name__)
    options: dict[str, Any] = {"methods": ["POST"]}

    @app.route("/data", **options)
    def data():
        ran.append("data")
        return str(len(request.data))

    @app.route("/form", **options)
    async def form():
        ran.append("form")
        return request.form["a"]

    @app.route("/files", **options)
    def files():
        ran.append("files")
        return request.files["f"].read()

    @app.route("/plain", **options, stream_body=True)
    def plain():
        size = sum(map(len, request.stream))
        ran.append("plain")
        return str(size)

    @app.route("/async", **options, stream_body=True)
    async def asynchronous():
        size = sum([len(chunk) async for chunk in request.stream])
        ran.append("async")
        return str(size)

    async def site(scope: Any, receive: Any, send: Any) -> None:
        more, size = True, 0
        while more:
            message = await receive()
            more, size = message["more_body"], size + len(message["body"])
        ran.append("site")
        fields = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"%d" % size})

    app.mount("/site", site)
    return app


class Counted(io.BytesIO):
    """A body that counts how often it is asked for more."""

    asked = 0

    def read(self, size: int = -1) -> bytes:
        self.asked += 1
        assert self.asked < 100, "it is asked again and again"
        return super().read(size)


BODIES = {
    "/data": (b"1234567890", {}),
    "/form": (b"a=12345678", FORM),
    "/files": (UPLOAD, PARTS),
    "/plain": (b"1234567890", {}),
    "/async": (b"1234567890", {}),
}


# ---------------------------------------------------------------- processes and ends


@forks
@kinds
def test_W2_children_of_one_parent_have_their_own_loops(kind: str):
    """One that has served before, and two that are forked off it."""
    app = Flask(__name__)
    app.before_request(made(kind, lambda: None))
    pids: list[int] = []

    @app.while_serving
    async def pool():
        pids.append(os.getpid())
        yield

    @app.route("/")
    async def view():
        await asyncio.sleep(0)
        return str(pids[-1])

    def serve() -> None:
        assert Answer(app).data == Answer(app).data == b"%d" % os.getpid()

    serve()
    run_forked(serve)
    run_forked(serve)
    serve()


@forks
def test_W2_a_process_may_be_forked_off_while_a_body_is_sent():
    app = Flask(__name__)

    @app.route("/")
    async def view():
        for letter in "xyz":
            await asyncio.sleep(0)
            yield letter

    opened = Opened(app)
    assert next(opened) == b"x"
    run_forked(lambda: Answer(app).data == b"xyz" or pytest.fail("it is not whole"))
    assert list(opened) == [b"y", b"z"]
    opened.close()


@kinds
def test_W3_a_body_that_the_server_forgets_is_closed_with_it(kind: str):
    """A server that never calls close() breaks PEP 3333; the body ends all the same."""
    app, log = Flask(__name__), []

    def body() -> Iterator[str]:
        try:
            yield "x"
            yield "y"
        finally:
            log.append("closed")

    app.add_url_rule("/", "view", made(kind, body))
    chunks = app(new_environ(), lambda *args: None)
    assert next(iter(chunks)) == b"x"
    del chunks
    gc.collect()
    assert log == ["closed"]
    assert Answer(app).data == b"xy"


@kinds
def test_W3_a_body_is_closed_where_it_waits(kind: str):
    """What a body awaits in its finally clause is awaited, in its own task."""
    app, log = Flask(__name__), []
    app.teardown_request(made(kind, lambda exc: log.append("teardown")))

    @app.route("/")
    async def view():
        task = asyncio.current_task()
        try:
            while True:
                yield "x"
        finally:
            await asyncio.sleep(0.01)
            log.append("closed" if asyncio.current_task() is task else "elsewhere")

    opened = Opened(app)
    assert next(opened) == b"x"
    opened.close()
    assert log == ["closed", "teardown"]


# --------------------------------------------------------------- the body of a request


@pytest.mark.parametrize("path", BODIES)
def test_W4_a_chunked_body_is_read_to_its_end(path: str):
    """OpenNeuro#3111: without a length it was taken for an empty one."""
    data, keys = BODIES[path]
    ran: list[str] = []
    keys = {"REQUEST_METHOD": "POST", **CHUNKED, **keys}
    got = Answer(reading(ran), path, io.BytesIO(data), **TERMINATED, **keys)
    text = {"/form": b"12345678", "/files": b"data"}.get(path, b"10")
    assert (got.code, got.data, ran) == (200, text, [path[1:]])


def test_W4_a_chunked_body_reaches_a_mounted_application():
    keys = {"REQUEST_METHOD": "POST", **CHUNKED, **TERMINATED}
    assert Answer(reading([]), "/site", io.BytesIO(b"1234567890"), **keys).data == b"10"


@pytest.mark.parametrize("length", ["5", "10", "11", "0"])
def test_W4_chunks_count_more_than_a_length(length: str):
    """RFC 9112, section 6.3: with both fields, it is the chunks that say the end."""
    app, _ = echo()
    keys = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length, **CHUNKED, **TERMINATED}
    got = Answer(app, "/", io.BytesIO(b"1234567890"), **keys)
    assert (got.code, got.data) == (200, b"1234567890")


def test_W4_no_body_is_looked_for_where_none_is_announced():
    """A server that says where bodies end is still not to be waited for."""
    app, ran = echo()
    got = Answer(app, "/", Input(b""), checked=False, **TERMINATED)
    assert (got.code, ran) == (200, ["GET"])


@pytest.mark.parametrize("there", [0, 1, 5, -1])
@pytest.mark.parametrize("path", BODIES)
def test_W5_a_short_body_is_refused_and_never_loops(path: str, there: int):
    data, keys = BODIES[path]
    ran: list[str] = []
    stream = Counted(data[:there])
    length = {"CONTENT_LENGTH": str(len(data)), "REQUEST_METHOD": "POST"}
    got = Answer(reading(ran), path, stream, **length, **keys)
    assert (got.code, ran) == (400, [])
    assert stream.asked <= 3


@pytest.mark.parametrize("there", [0, 5])
def test_W5_a_short_body_is_not_a_whole_one_to_a_mounted_application(there: int):
    ran: list[str] = []
    keys = {"CONTENT_LENGTH": "10", "REQUEST_METHOD": "POST"}
    with contextlib.suppress(Exception):
        got = Answer(reading(ran), "/site", Counted(b"1234567890"[:there]), **keys)
        assert got.code == 400
    assert ran == []


def test_W5_a_long_body_is_left_to_the_next_request():
    """What lies behind the length belongs to somebody else."""
    app, _ = echo()
    stream = Input(b"1234567890", b"GET /next HTTP/1.1\r\n")
    got = Answer(app, "/", stream, REQUEST_METHOD="POST", CONTENT_LENGTH="10")
    assert (got.data, stream.tell()) == (b"1234567890", 10)


@pytest.mark.parametrize(
    "length", ["abc", "-5", "-0", "0x5", "1e3", "5;6", "\xb2", "5 5"]
)
@pytest.mark.parametrize("path", BODIES)
def test_W6_a_length_that_is_no_number_is_refused(path: str, length: str):
    """GHSA-v9pg-7xvm-68hf: it was an exception, or a read without end."""
    data, keys = BODIES[path]
    ran: list[str] = []
    keys = {"CONTENT_LENGTH": length, "REQUEST_METHOD": "POST", **keys}
    got = Answer(reading(ran), path, Input(data), checked=False, **keys)
    assert got.code == 400
    assert ran == []


@pytest.mark.parametrize("length", ["abc", "-5", "9" * 30])
@pytest.mark.parametrize(("path", "code"), [("/", 400), ("/nowhere", 404)])
def test_W6_a_request_without_a_body_may_say_nonsense_too(path, code, length):
    app, ran = echo()
    app.max_content_length = None
    got = Answer(app, path, Input(b""), checked=False, CONTENT_LENGTH=length)
    assert (got.code, ran) == (code, [])


def test_W23_a_body_in_many_pieces_takes_linear_time():
    """uvicorn 0.17.5: each piece was put behind a copy of all before it."""

    class Pieces(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            return super().read(5)

    app, _ = echo()
    data = os.urandom(MIB)  # 200,000 pieces, all of them kept in memory
    keys = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(data))}
    began = time.process_time()
    got = Answer(app, "/", Pieces(data), checked=False, **keys)
    assert time.process_time() - began < 5
    assert got.data == data


@pytest.mark.parametrize("path", ["/data", "/plain", "/async"])
def test_W23_a_body_of_64_megabytes_takes_no_memory(path: str):
    class Pieces(Flood):
        def read(self, size: int = -1) -> bytes:
            return super().read(min(size, 16384))

    app = Flask(__name__)
    app.max_content_length = None
    options: dict[str, Any] = {"methods": ["POST"]}

    @app.route("/data", **options)
    def data():
        return str(os.fstat(request.stream.fileno()).st_size)

    @app.route("/plain", **options, stream_body=True)
    def plain():
        return str(sum(map(len, request.stream)))

    @app.route("/async", **options, stream_body=True)
    async def asynchronous():
        return str(sum([len(chunk) async for chunk in request.stream]))

    keys = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(2 * MIB)}
    assert Answer(app, path, Pieces(), **keys).data == b"%d" % (2 * MIB)
    size = 64 * MIB if path != "/async" else 16 * MIB
    tracemalloc.start()
    try:
        got = Answer(app, path, Pieces(), **{**keys, "CONTENT_LENGTH": str(size)})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got.data == b"%d" % size
    assert peak < 4 * MIB


# ------------------------------------------------------------------------- exceptions


class Handler(SimpleHandler):
    """A server out of the standard library, for one request."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.sent, self.errors = io.BytesIO(), io.StringIO()
        super().__init__(environ["wsgi.input"], self.sent, self.errors, environ)

    def log_exception(self, exc_info: Any) -> None:
        self.errors.write(f"{exc_info[0].__name__}: {exc_info[1]}")


@kinds
@pytest.mark.parametrize("moment", ["in the view", "at the first chunk", "later"])
def test_W8_a_server_answers_500_or_breaks_off(kind: str, moment: str):
    """PEP 3333: an exception is the server's, who alone knows what it has sent."""
    app, torn = Flask(__name__), []
    app.teardown_request(lambda exc: torn.append(str(exc)))

    def fail(now: str) -> None:
        if moment == now:
            raise LookupError(f"{moment}: a secret")

    def body() -> Iterator[str]:
        fail("at the first chunk")
        yield "begun"
        fail("later")

    def view() -> Any:
        fail("in the view")
        return app.response_class(made(kind, body)())

    app.add_url_rule("/", "view", made(kind, view))
    handler = Handler(new_environ())
    handler.run(app)
    sent = handler.sent.getvalue()
    assert sent.count(b"Status:") + sent.count(b"HTTP/1.0") == 1
    assert b"a secret" not in sent
    assert (b"500" in sent.partition(b"\r\n")[0]) == (moment != "later")
    assert (b"begun" in sent) == (moment == "later")
    assert handler.errors.getvalue() == f"LookupError: {moment}: a secret"
    assert torn == [f"{moment}: a secret"]


@kinds
def test_W8_an_exception_that_is_handled_is_not_raised_on(kind: str, caplog):
    """One that a handler has answered is no business of the server's."""
    app = Flask(__name__)

    def view() -> None:
        raise LookupError("in the view")

    app.add_url_rule("/", "view", made(kind, view))
    app.errorhandler(500)(made(kind, lambda exc: ("sorry", 500)))
    handler = Handler(new_environ())
    handler.run(app)
    assert handler.sent.getvalue().endswith(b"sorry")
    assert handler.errors.getvalue() == ""
    assert "GET / failed" in caplog.text


# --------------------------------------------------------------------------- the target


class Dispatcher:
    """Mounts applications at prefixes, as all such middleware does."""

    def __init__(self, app: Any, mounts: dict[str, Any]) -> None:
        self.app, self.mounts = app, mounts

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        script, path = environ.get("PATH_INFO", ""), ""
        while script not in self.mounts and "/" in script:
            script, _, last = script.rpartition("/")
            path = f"/{last}{path}"
        app = self.mounts.get(script, self.app)
        if app is not self.app:
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + script
            environ["PATH_INFO"] = path
        return app(environ, start_response)


def site(name: str) -> Flask:
    app = Flask(__name__)

    @app.route("/")
    @app.route("/item/<path:rest>")
    async def item(rest: str = ""):
        urls = [url_for("item", rest="x"), url_for("static", filename="y")]
        return [name, request.script_root, request.path, *urls]

    app.add_url_rule("/slash/", "slash", lambda: "slash")
    return app


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/app/item/1", ["inner", "/app", "/item/1", "/app/item/x", "/app/static/y"]),
        ("/app/item/app", ["inner", "/app", "/item/app"]),
        ("/app/item/app/item/1", ["inner", "/app", "/item/app/item/1"]),
        ("/app/", ["inner", "/app", "/", "/app/item/x"]),
        ("/app", ["inner", "/app", "/", "/app/item/x"]),
        ("/item/app", ["outer", "", "/item/app", "/item/x", "/static/y"]),
        ("/b\xc3\xbc/item/1", ["third", "/b\xfc", "/item/1", "/b%C3%BC/item/x"]),
    ],
)
def test_W13_a_prefix_is_in_urls_once_and_not_in_the_routing(path, seen):
    mounts = {"/app": site("inner"), "/b\xc3\xbc": site("third")}
    got = Answer(Dispatcher(site("outer"), mounts), path)
    assert got.json[: len(seen)] == seen


def test_W13_a_prefix_ends_with_a_segment():
    dispatcher = Dispatcher(site("outer"), {"/app": site("inner")})
    assert Answer(dispatcher, "/application/item/1").code == 404
    assert Answer(dispatcher, "/app/nothing").code == 404


def test_W13_a_redirect_keeps_the_prefix():
    dispatcher = Dispatcher(site("outer"), {"/app": site("inner")})
    got = Answer(dispatcher, "/app/slash", QUERY_STRING="a=%2F")
    assert (got.code, got.headers["location"]) == (308, "/app/slash/?a=%2F")


@pytest.mark.parametrize("script", ["/app", "/app/"])
def test_W13_a_slash_behind_the_prefix_is_none_in_front_of_the_path(script: str):
    got = Answer(site("one"), "/item/1", SCRIPT_NAME=script, checked=False)
    assert got.json == ["one", "/app", "/item/1", "/app/item/x", "/app/static/y"]


def test_W15_cookies_that_the_server_has_joined_are_told_apart():
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: dict(request.cookies.items()))
    got = Answer(app, HTTP_COOKIE="a=1; b=2,3; c=4")
    assert got.json == {"a": "1", "b": "2,3", "c": "4"}


# ---------------------------------------------------------------------- its middleware


@kinds
def test_W16_middleware_may_read_the_body_and_put_it_back(kind: str):
    app, seen = Flask(__name__), []

    def view() -> Any:
        return {"form": request.form["a"], "user": request.environ["x.user"]}

    app.add_url_rule("/", "view", made(kind, view), methods=["POST"])
    inner = app.wsgi_app

    def middleware(environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        seen.append(body)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["x.user"] = "Ada"

        def start(status: str, fields: Any, exc_info: Any = None) -> Any:
            return start_response(status, [*fields, ("X-Mark", status)], exc_info)

        return inner(environ, start)

    app.wsgi_app = middleware
    got = Answer(app, "/", b"a=b", REQUEST_METHOD="POST", **FORM)
    assert got.json == {"form": "b", "user": "Ada"}
    assert (got.headers["x-mark"], seen) == ("200 OK", [b"a=b"])


@kinds
def test_W16_middleware_may_answer_or_change_the_body(kind: str):
    app, log = Flask(__name__), []
    app.teardown_request(lambda exc: log.append("teardown"))

    def body() -> Iterator[str]:
        yield "a"
        yield "b"

    app.add_url_rule("/", "view", made(kind, body))
    inner = app.wsgi_app

    def middleware(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/gone":
            start_response("410 Gone", [("Content-Type", "text/plain")])
            return [b"gone"]

        def upper() -> Iterator[bytes]:
            chunks = inner(environ, start_response)
            try:
                yield from (chunk.upper() for chunk in chunks)
            finally:
                chunks.close()
                log.append("closed")

        return upper()

    app.wsgi_app = middleware
    assert Answer(app, "/gone", checked=False).data == b"gone"
    assert log == []
    chunks = app(new_environ(), lambda *args: None)
    assert (b"".join(chunks), log) == (b"AB", ["teardown", "closed"])


# ------------------------------------------------------------------- loops of others


async def test_W20_a_session_of_anyio_may_call_it():
    """Called on a running loop: the loop waits, and nothing locks up."""
    app = Flask(__name__)
    app.secret_key = "k"

    @app.route("/")
    async def view():
        session["x"] = 1
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.lowlevel.checkpoint)
        return "x"

    async def several() -> list[bytes]:
        call: Callable[[], Answer] = lambda: Answer(app)  # noqa: E731
        answers = [await anyio.to_thread.run_sync(call) for _ in range(2)]
        return [answer.data for answer in [*answers, Answer(app)]]

    assert await several() == [b"x"] * 3


def test_W20_every_thread_with_a_loop_may_call_it():
    app = Flask(__name__)

    @app.route("/")
    async def view():
        await asyncio.sleep(0)
        return "x"

    async def call() -> bytes:
        return Answer(app).data

    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(asyncio.run(call())))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [b"x"] * 5


def test_W20_a_trio_loop_may_call_it():
    app = Flask(__name__)

    @app.route("/")
    async def view():
        await asyncio.sleep(0)
        return "x"

    async def call() -> bytes:
        return Answer(app).data

    assert anyio.run(call, backend="trio") == b"x"


# ----------------------------------------------------------------------------- lifespan


@kinds
def test_W22_what_is_opened_is_there_in_the_first_request_and_opened_once(kind: str):
    app, log = Flask(__name__), []

    @app.while_serving
    async def pool():
        log.append(asyncio.get_running_loop())
        yield

    async def loops() -> str:
        return str(log == [asyncio.get_running_loop()])

    app.add_url_rule("/plain", "plain", lambda: str(len(log) == 1))
    app.add_url_rule("/async", "async", loops)
    assert [Answer(app, f"/{kind}").data for _ in range(3)] == [b"True"] * 3


# ------------------------------------------------------------- hosting others by WSGI

#: mounted under a WSGI server, it has the input of that
PLACES = [("returned", driver) for driver in DRIVERS]
PLACES += [("mounted", driver) for driver in DRIVERS if driver != "wsgi"]
TEXT = b"first\nsecond line\n\nlast without an end"
READS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "read all": (lambda f: f.read(), TEXT),
    "read some": (lambda f: [f.read(3), f.read(4)], [b"fir", b"st\ns"]),
    "read beyond": (lambda f: [f.read(1000), f.read(5), f.read()], [TEXT, b"", b""]),
    "readline": (
        lambda f: [f.readline(), f.readline()],
        [b"first\n", b"second line\n"],
    ),
    "readline(limit)": (
        lambda f: [f.readline(3), f.readline(3), f.readline(3)],
        [b"fir", b"st\n", b"sec"],
    ),
    "readline(more)": (lambda f: f.readline(1000), b"first\n"),
    "readline(0)": (lambda f: [f.readline(0), f.readline()], [b"", b"first\n"]),
    "readlines": (lambda f: f.readlines(), TEXT.splitlines(keepends=True)),
    "readlines(hint)": (lambda f: f.readlines(7), [b"first\n", b"second line\n"]),
    "iteration": (list, TEXT.splitlines(keepends=True)),
    "mixed": (
        lambda f: [f.read(2), f.readline(), next(f), f.readlines()],
        [b"fi", b"rst\n", b"second line\n", [b"\n", b"last without an end"]],
    ),
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize(("place", "driver"), PLACES)
async def test_W24_the_input_of_a_hosted_application_is_a_file(app, client, place, how):
    """PEP 3333: read, readline, readlines with their limits, and iteration."""
    read, expected = READS[how]
    got: list[Any] = []

    def hosted(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        got.append(read(environ["wsgi.input"]))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    if place == "mounted":
        app.mount("/site", hosted)
    app.add_url_rule("/view", "view", lambda: hosted, methods=["POST"])
    path = "/site" if place == "mounted" else "/view"
    assert (await client.post(path, data=TEXT)).text == "done"
    assert got == [expected]
