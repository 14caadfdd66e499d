"""The WSGI driver, called as a server calls it (PEP 3333), with its checker between."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import io
import json
import os
import signal
import threading
import traceback
import tracemalloc
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import anyio
import pytest
from starlette import requests, responses
from starlette.background import BackgroundTask

from asyncflask import (
    Flask,
    _request_ctx_stack,
    g,
    render_template_string,
    render_template_string_async,
    request,
    session,
    url_for,
)

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
TERMINATED = {"wsgi.input_terminated": True}
CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked"}
MIB = 1 << 20

kinds = pytest.mark.parametrize("kind", ["plain", "async"])
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
kills = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no kill here")


def new_environ(
    path: str = "/", data: bytes | io.IOBase = b"", **keys: Any
) -> dict[str, Any]:
    made: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
    made |= {"SERVER_NAME": "localhost", "HTTP_HOST": "localhost", "wsgi.input": data}
    if isinstance(data, bytes):
        made["wsgi.input"] = io.BytesIO(data)
        made |= {"CONTENT_LENGTH": str(len(data))} if data else {}
    made |= keys
    setup_testing_defaults(made)
    return made


class Opened:
    """A response whose header is there; its body is to be asked for, and closed."""

    def __init__(self, app: Any, path: str = "/", *args: Any, **keys: Any) -> None:
        self.said: list[Any] = []
        called = validator(app) if keys.pop("checked", True) else app
        self.body = called(new_environ(path, *args, **keys), self.start_response)
        self.chunks = iter(self.body)
        self.status, self.fields = self.said
        assert {type(text) for pair in self.fields for text in pair} <= {str}
        assert type(self.status) is str
        self.code = int(self.status[:3])
        self.headers = {name.lower(): value for name, value in self.fields}

    def start_response(self, status: str, fields: Any, exc_info: Any = None) -> Any:
        assert not self.said, "start_response was called twice"
        self.said += status, fields
        return self.refuse_to_write

    def refuse_to_write(self, chunk: bytes) -> None:
        raise AssertionError(f"write({chunk!r}) was used")

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()


class Answer(Opened):
    """The same, with the whole body taken."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        try:
            self.data = b"".join(self)
        finally:
            self.close()

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Input(io.BytesIO):
    """A body of which more may come, but which must not be asked for more."""

    def __init__(self, data: bytes, beyond: bytes = b"") -> None:
        super().__init__(data + beyond)
        self.end = len(data)
        self.threads: set[int] = set()

    def read(self, size: int = -1) -> bytes:
        assert 0 < size <= self.end - self.tell(), "it would have waited for ever"
        self.threads.add(threading.get_ident())
        return super().read(min(size, 40_000))


class Flood(io.RawIOBase):
    """A body without an end."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.taken += size
        return b"x" * size


class Broken(io.RawIOBase):
    """A body whose client has gone."""

    def read(self, size: int = -1) -> bytes:
        raise ConnectionResetError("gone")


def echo() -> tuple[Flask, list[str]]:
    """An application that sends bodies back, and notes that its view was called."""
    app, ran = Flask(__name__), []

    @app.route("/", methods=["GET", "POST"])
    def view():
        ran.append(request.method)
        return request.data

    return app, ran


def made(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function or generator function as it is, or an async one like it."""

    async def coroutine(*args: Any) -> Any:
        return function(*args)

    async def generator() -> AsyncIterator[Any]:
        with contextlib.closing(function()) as chunks:
            for chunk in chunks:
                yield chunk

    if kind == "plain":
        return function
    return generator if inspect.isgeneratorfunction(function) else coroutine


def run_forked(function: Callable[[], object]) -> None:
    """Run a function in a process that is forked off; fail if it fails there."""
    read, write = os.pipe()
    with warnings.catch_warnings():  # that there are threads is what it is about
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            function()
            os.write(write, b"done")
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    assert said == "done", said or "it did not end"


# ------------------------------------------------------------------- the application


def test_the_application_is_its_own_wsgi_app():
    app, _ = echo()
    got, same = Answer(app, "/", b"x"), Answer(app.wsgi_app, "/", b"x")
    assert got.said == same.said
    assert (got.status, got.data, same.data) == ("200 OK", b"x", b"x")


def test_W16_middleware_changes_what_the_application_sees():
    app = Flask(__name__)
    inner = app.wsgi_app

    def middleware(environ, start_response):
        environ |= {"SCRIPT_NAME": "/shop", "wsgi.url_scheme": "https", "x.user": "Ada"}
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/old")
        return inner(environ, start_response)

    @app.route("/item/<int:number>")
    def item(number):
        assert request.environ["x.user"] == "Ada"
        assert (request.script_root, request.path) == ("/shop", "/item/5")
        return [number, url_for("item", number=6), request.url]

    app.wsgi_app = middleware
    for called in app, app.wsgi_app:
        got = Answer(called, "/old/item/5")
        assert got.json == [5, "/shop/item/6", "https://localhost/shop/item/5"]
    assert Answer(inner, "/old/item/5").code == 404


def test_W16_the_environ_is_the_servers_own_with_the_body_back():
    app = Flask(__name__)
    seen = []

    @app.route("/", methods=["POST"])
    def view():
        seen.append(request.environ)
        return request.data + request.environ["wsgi.input"].read()

    environ = new_environ("/", b"x", REQUEST_METHOD="POST")
    assert list(app(environ, lambda status, fields: None)) == [b"xx"]
    assert seen[0] is environ


# ------------------------------------------------------------------------ the header


@kinds
def test_hop_by_hop_fields_are_dropped(kind):
    app = Flask(__name__)
    fields = [("Connection", "close"), ("Keep-Alive", "5"), ("Upgrade", "h2c")]
    fields += [("Transfer-Encoding", "chunked"), ("TE", "x"), ("Trailers", "x")]
    fields += [("X-Y", "ü"), ("X-Y", "z")]

    def body():
        yield "x"

    app.add_url_rule("/bytes", "bytes", made(kind, lambda: ("x", 200, fields)))
    streamed = made(kind, body)
    app.add_url_rule("/body", "body", lambda: (streamed(), 200, fields))
    got = Answer(app, "/bytes")
    assert set(got.headers) == {"content-type", "content-length", "x-y"}
    got = Answer(app, "/body")
    assert set(got.headers) == {"content-type", "x-y"}
    assert [value for name, value in got.fields if name.lower() == "x-y"] == ["ü", "z"]


@pytest.mark.parametrize(
    ("method", "code", "data"),
    [
        ("GET", 200, b"body"),
        ("GET", 299, b"body"),
        ("GET", 999, b"body"),
        ("GET", 204, b""),
        ("GET", 304, b""),
        ("HEAD", 200, b""),
        ("HEAD", 204, b""),
    ],
)
@kinds
def test_a_status_has_a_phrase_and_its_body(kind, method, code, data):
    app = Flask(__name__)

    def body():
        yield "body"

    streamed = made(kind, body)
    app.add_url_rule("/bytes", "bytes", made(kind, lambda: ("body", code)))
    app.add_url_rule("/body", "body", lambda: (streamed(), code))
    for path, length in ("/bytes", "4"), ("/body", None):
        got = Answer(app, path, REQUEST_METHOD=method)
        assert (got.code, got.data) == (code, data)
        assert got.status == {200: "200 OK", 299: "299 Unknown"}.get(code, got.status)
        has_content = code not in (204, 304)
        assert ("content-type" in got.headers) is has_content
        assert got.headers.get("content-length") == (length if has_content else None)


# -------------------------------------------------------------------- the environ


@pytest.mark.parametrize(
    ("script", "path", "rest", "url"),
    [
        ("", "/\xc3\xbc", "ü", "/%C3%BC"),
        ("", "/\xff", "\ufffd", "/%EF%BF%BD"),
        ("", "/a%2Fb", "a%2Fb", "/a%252Fb"),
        ("", "/a/b c", "a/b c", "/a/b%20c"),
        ("/\xc3\xa4 b", "/x", "x", "/%C3%A4%20b/x"),
        ("/app", "/app/x", "app/x", "/app/app/x"),
        ("/app", "/application", "application", "/app/application"),
        ("/app", "", "", "/app/"),
    ],
)
def test_W11_a_path_may_have_any_bytes(script, path, rest, url):
    app = Flask(__name__)

    @app.route("/", defaults={"rest": ""})
    @app.route("/<path:rest>")
    def view(rest):
        return {"rest": rest, "url": url_for("view", rest=rest)}

    got = Answer(app, path, SCRIPT_NAME=script)
    assert got.json == {"rest": rest, "url": url}


def test_a_redirect_names_the_whole_path():
    app = Flask(__name__)
    app.add_url_rule("/ä/", "ä", lambda: "x")
    got = Answer(app, "/\xc3\xa4", SCRIPT_NAME="/\xc3\xbc", QUERY_STRING="a=b")
    assert got.headers["location"] == "/%C3%BC/%C3%A4/?a=b"


def test_a_query_may_have_any_bytes():
    app = Flask(__name__)
    queries = []

    @app.route("/")
    def view():
        queries.append((request.query_string, request.args.multi_items()))
        return ""

    Answer(app, "/", QUERY_STRING="a=\xc3\xbc&b=%2F+&c=\xff")
    parsed = [("a", "ü"), ("b", "/ "), ("c", "\ufffd")]
    assert queries == [(b"a=\xc3\xbc&b=%2F+&c=\xff", parsed)]


def test_an_environ_says_no_more_than_it_must():
    app = Flask(__name__)

    @app.route("/")
    async def view():
        client = request.remote_addr, request.scope["client"]
        return [*client, request.url, request.args.get("x"), len(request.data)]

    said, environ = [], new_environ(SERVER_NAME="example.com")
    optional = {"QUERY_STRING", "SCRIPT_NAME", "PATH_INFO", "HTTP_HOST"}
    required = {key: environ[key] for key in environ.keys() - optional}
    body = app(required, lambda *args: said.append(args))
    assert (json.loads(body[0]), said[0][0]) == (
        [None, None, "http://example.com/", None, 0],
        "200 OK",
    )

    got = Answer(app, REMOTE_ADDR="10.0.0.1")
    assert got.json[:2] == ["10.0.0.1", ["10.0.0.1", 0]]


# ------------------------------------------------------------------- the body comes in


@pytest.mark.parametrize(
    ("length", "code", "data"),
    [
        (None, 200, b""),
        ("", 200, b""),
        ("0", 200, b""),
        ("5", 200, b"12345"),
        (" 5 ", 200, b"12345"),
        ("10", 200, b"1234567890"),
        ("11", 400, None),
        ("abc", 400, None),
        ("-5", 400, None),
        ("+5", 400, None),
        ("1_0", 400, None),
        ("٣", 400, None),
        ("5.0", 400, None),
        ("5, 5", 400, None),
    ],
)
def test_W6_a_body_is_as_long_as_it_says(length, code, data):
    app, ran = echo()
    stream = Input(b"1234567890")
    stream.end = len(data) if data else 11
    keys = {} if length is None else {"CONTENT_LENGTH": length}
    got = Answer(app, "/", stream, checked=False, REQUEST_METHOD="POST", **keys)
    assert (got.code, bool(ran)) == (code, code == 200)
    if code == 200:
        assert (got.data, stream.tell()) == (data, len(data))


@pytest.mark.parametrize("limit", [None, 100])
def test_W6_a_length_beyond_all_numbers_is_refused(limit):
    app, ran = echo()
    app.max_content_length = limit
    keys = {"CONTENT_LENGTH": "9" * 5000, "REQUEST_METHOD": "POST", "checked": False}
    assert Answer(app, "/", io.BytesIO(b"x"), **keys).code in (400, 413)
    assert not ran


@pytest.mark.parametrize("size", [1, 1 << 16, (1 << 16) + 1, 3 * MIB])
@pytest.mark.parametrize("keys", [{}, CHUNKED | TERMINATED], ids=["sized", "chunked"])
def test_W4_a_body_comes_in_whole_whoever_says_its_end(keys, size):
    app, _ = echo()
    data = os.urandom(size)
    stream = io.BytesIO(data) if keys else Input(data, b"next")
    length = {} if keys else {"CONTENT_LENGTH": str(size)}
    assert (
        Answer(app, "/", stream, REQUEST_METHOD="POST", **keys, **length).data == data
    )


def test_a_body_over_the_limit_is_drained_up_to_a_bound():
    app, ran = echo()
    app.max_content_length = 100
    within = Input(b"x" * 300_000, b"next")
    got = Answer(app, "/", within, REQUEST_METHOD="POST", CONTENT_LENGTH="300000")
    assert (got.code, within.tell()) == (413, 300_000)

    for keys in {"CONTENT_LENGTH": str(MIB * 100)}, CHUNKED | TERMINATED:
        beyond = Flood()
        got = Answer(app, "/", beyond, REQUEST_METHOD="POST", **keys)
        assert got.code == 413
        assert MIB <= beyond.taken <= 2 * MIB

        asked_first = Flood()
        got = Answer(app, "/", asked_first, HTTP_EXPECT="100-continue", **keys)
        assert got.code == 413
        assert asked_first.taken <= 1 << 16
    assert not ran


@pytest.mark.parametrize("keys", [CHUNKED, CHUNKED | {"wsgi.input_terminated": False}])
def test_W4_a_chunked_body_whose_end_nobody_says_is_refused(keys):
    app, ran = echo()
    got = Answer(app, "/", Input(b""), REQUEST_METHOD="POST", **keys)
    assert (got.status, ran) == ("411 Length Required", [])


@pytest.mark.parametrize("keys", [{"CONTENT_LENGTH": "5"}, CHUNKED | TERMINATED])
def test_a_body_that_cannot_be_read_is_a_bad_request(keys):
    app, ran = echo()
    hooked = []
    app.before_request(lambda: hooked.append(request.path))
    got = Answer(app, "/", Broken(), REQUEST_METHOD="POST", **keys)
    assert (got.code, ran, hooked) == (400, [], ["/"])


@kinds
@pytest.mark.parametrize(
    ("data", "keys", "code"),
    [
        (Input(b"x" * 300_000, b"next"), {"CONTENT_LENGTH": "300000"}, 200),
        (io.BytesIO(b"x" * 300_000), CHUNKED | TERMINATED, 200),
        (Flood(), CHUNKED | TERMINATED, 413),
        (io.BytesIO(b"x" * 10), {"CONTENT_LENGTH": "11"}, 400),
        (io.BytesIO(b"x" * 10), {"CONTENT_LENGTH": "x"}, 400),
        (io.BytesIO(b"x" * 10), CHUNKED, 411),
        (Broken(), {"CONTENT_LENGTH": "11"}, 400),
    ],
    ids=["sized", "chunked", "large", "short", "garbage", "endless", "broken"],
)
def test_an_unread_body_is_read_as_it_is_asked_for(kind, data, keys, code):
    app = Flask(__name__)
    app.max_content_length = 300_000
    options = {"methods": ["POST"], "stream_body": True}

    @app.route("/plain", **options)
    def plain():
        return str(sum(len(chunk) for chunk in request.stream))

    @app.route("/async", **options)
    async def asynchronous():
        return str(sum([len(chunk) async for chunk in request.stream]))

    data.seek(0) if data.seekable() else None
    got = Answer(app, f"/{kind}", data, checked=False, REQUEST_METHOD="POST", **keys)
    assert got.code == code
    assert code != 200 or got.data == b"300000"
    assert getattr(data, "threads", set()) <= {threading.get_ident()}


@kinds
@pytest.mark.parametrize("length", [None, "", "0"])
def test_an_unread_body_may_be_empty(kind, length):
    app = Flask(__name__)

    @app.route("/plain", methods=["POST"], stream_body=True)
    def plain():
        return {"chunks": list(request.stream)}

    @app.route("/async", methods=["POST"], stream_body=True)
    async def asynchronous():
        return {"chunks": [chunk async for chunk in request.stream]}

    keys = {} if length is None else {"CONTENT_LENGTH": length}
    got = Answer(app, f"/{kind}", REQUEST_METHOD="POST", **keys)
    assert (got.code, got.json) == (200, {"chunks": []})


@kinds
def test_an_unread_body_is_not_read_further_than_the_view_goes(kind):
    app = Flask(__name__)
    flood = Flood()

    @app.route("/plain", methods=["POST"], stream_body=True)
    def plain():
        assert flood.taken == 0
        return str(len(next(iter(request.stream))))

    @app.route("/async", methods=["POST"], stream_body=True)
    async def asynchronous():
        assert flood.taken == 0
        async for chunk in request.stream:
            return str(len(chunk))

    got = Answer(app, f"/{kind}", flood, REQUEST_METHOD="POST", **TERMINATED)
    assert got.data == b"%d" % flood.taken


# --------------------------------------------------------------- threads and loops


def note_where(ran: list[Any]) -> None:
    try:
        ran.append(asyncio.get_running_loop())
    except RuntimeError:
        ran.append(threading.get_ident())


def application(ran: list[Any], **is_async: bool) -> Flask:
    """An application that notes thread or loop of every callable it has."""
    app = Flask(__name__)
    app.secret_key = "k"

    def made(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def plain(*args: Any) -> Any:
            note_where(ran)
            return function(*args)

        async def asynchronous(*args: Any) -> Any:
            note_where(ran)
            await asyncio.sleep(0)
            note_where(ran)
            return function(*args)

        return asynchronous if is_async.get(kind) else plain

    def fail() -> str:
        session["x"] = 1
        raise LookupError("in the view")

    app.before_request(made("before", lambda: None))
    app.add_url_rule("/", "view", made("view", fail))
    app.errorhandler(LookupError)(made("handler", lambda exc: "handled"))
    app.after_request(made("after", lambda response: response))
    app.teardown_request(made("teardown", lambda exc: None))
    return app


@forks
def test_plain_callables_need_no_thread_and_no_loop():
    ran: list[Any] = []
    app = application(ran)

    @app.route("/body")
    def body():
        for _ in range(2):
            note_where(ran)
            yield "x"

    @app.route("/template")
    def template():
        return render_template_string("{{ request.path }}")

    def serve():
        assert Answer(app).data == b"handled"
        assert Answer(app, "/body").data == b"xx"
        assert Answer(app, "/body", REQUEST_METHOD="HEAD").data == b""
        assert Answer(app, "/template").data == b"/template"
        assert Answer(app, "/nothing", b"data").code == 404
        assert Answer(app, "/static/nothing").code == 404
        assert set(ran) == {threading.get_ident()}
        assert threading.enumerate() == [threading.current_thread()]

    run_forked(serve)


def test_async_callables_run_on_one_loop():
    ran: list[Any] = []
    names = ("before", "view", "handler", "after", "teardown")
    app = application(ran, **dict.fromkeys(names, True))
    for _ in range(3):
        assert Answer(app).data == b"handled"
    assert len(ran) == 30
    assert len(set(ran)) == 1
    assert isinstance(ran[0], asyncio.AbstractEventLoop)


@pytest.mark.parametrize("name", ["before", "view", "handler", "after", "teardown"])
def test_plain_callables_stay_in_the_servers_thread(name):
    ran: list[Any] = []
    app = application(ran, **{name: True})
    assert Answer(app).data == b"handled"
    here = [place for place in ran if place == threading.get_ident()]
    assert (len(ran), len(here)) == (6, 4)


@forks
def test_many_threads_share_the_loop_from_its_first_use():
    app = Flask(__name__)
    count = 50
    barrier, loops, answers = threading.Barrier(count), [], []

    @app.before_request
    def before():
        g.thread = threading.get_ident()

    @app.route("/<int:number>")
    async def view(number):
        loops.append(asyncio.get_running_loop())
        while len(loops) < count:  # all are in it at once
            await asyncio.sleep(0)
        return str(number)

    @app.after_request
    def after(response):
        assert g.thread == threading.get_ident()
        return response

    def client(number):
        barrier.wait()
        answers.append(Answer(app, f"/{number}").data == b"%d" % number)

    def serve():
        threads = [threading.Thread(target=client, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * count
        assert len(set(loops)) == 1
        assert threading.active_count() == 2

    run_forked(serve)


def test_context_variables_go_to_the_loop_and_come_back():
    app = Flask(__name__)
    seen = []

    @app.before_request
    def before():
        VAR.set(VAR.get() + " before")

    @app.route("/")
    async def view():
        VAR.set(VAR.get() + " view")
        return VAR.get()

    @app.after_request
    def after(response):
        response.headers["X-Var"] = VAR.get()
        VAR.set("after")
        return response

    @app.teardown_request
    async def teardown(exc):
        seen.append(VAR.get())

    token = VAR.set("server")
    try:
        got = Answer(app)
        assert VAR.get() == "server"
    finally:
        VAR.reset(token)
    expected = "server before view"
    assert (got.data.decode(), got.headers["x-var"]) == (expected, expected)
    assert seen == ["after"]


def test_a_view_may_start_tasks():
    app = Flask(__name__)
    threads = set()

    @app.context_processor
    def processor():
        threads.add(threading.get_ident())
        return {"x": "x"}

    async def render(n):
        await asyncio.sleep(0)
        return await render_template_string_async(
            f"{n}{{{{ x }}}}{{{{ request.path }}}}"
        )

    @app.route("/")
    async def view():
        task = asyncio.create_task(render(0))
        parts = [render_template_string("{{ x }}")]
        parts += await asyncio.gather(*map(render, range(1, 4)))
        async with asyncio.timeout(30):
            return [*parts, await task]

    assert Answer(app).json == ["x", "1x/", "2x/", "3x/", "0x/"]
    assert threads == {threading.get_ident()}


def test_plain_code_of_a_task_goes_to_no_other_thread():
    app = Flask(__name__)
    threads, tasks = set(), []

    @app.context_processor
    def processor():
        threads.add(threading.get_ident())
        return {}

    @app.route("/")
    async def view():
        g.go = asyncio.Event()
        tasks.append(asyncio.create_task(task(g.go)))
        return "x"

    async def task(go):
        await go.wait()
        return await render_template_string_async("x")

    async def get_on(go):
        go.set()
        for _ in range(10):
            await asyncio.sleep(0)

    @app.after_request
    def busy(response):
        turns = asyncio.run_coroutine_threadsafe(get_on(g.go), tasks[0].get_loop())
        turns.result(20)
        return response

    @app.after_request
    async def idle(response):
        await asyncio.wait(tasks, timeout=5)
        return response

    assert Answer(app).data == b"x"
    assert tasks[0].done()
    assert threads <= {threading.get_ident()}


@forks
def test_a_task_that_outlives_its_request_does_not_wait_for_ever():
    app = Flask(__name__)
    tasks = []
    app.context_processor(dict)

    @app.route("/start")
    async def start():
        tasks.append(asyncio.create_task(render_template_string_async("x")))
        return "x"

    @app.route("/done")
    async def done():
        finished, _ = await asyncio.wait(tasks, timeout=5)
        return str(len(finished))

    def serve():
        for _ in range(5):
            Answer(app, "/start")
        assert Answer(app, "/done").data == b"5"

    run_forked(serve)


@forks
def test_the_loop_keeps_nothing_of_the_request_that_started_it():
    app = Flask(__name__)
    kept = []

    @app.route("/")
    async def view():
        g.thing = threading.Event()
        kept.append(weakref.ref(g.thing))
        return "x"

    def serve():
        for _ in range(3):
            Answer(app)
        gc.collect()
        assert [thing() for thing in kept[:2]] == [None, None]

    run_forked(serve)


async def test_W20_the_servers_thread_may_have_a_loop_of_its_own():
    ran: list[Any] = []
    app = application(ran, view=True, teardown=True)

    @app.route("/nested")
    async def nested():
        return Answer(app).data + Answer(app, "/body").data  # waits on the loop itself

    @app.route("/body")
    async def body():
        for letter in "xyz":
            await asyncio.sleep(0)
            yield letter

    assert Answer(app).data == b"handled"
    assert Answer(app, "/body").data == b"xyz"
    assert asyncio.get_running_loop() in ran
    assert len(set(ran)) == 2
    assert Answer(app, "/nested").data == b"handledxyz"


# ---------------------------------------------------------------------- the body goes


def counting(kind: str) -> tuple[Flask, list[Any]]:
    """An application whose bodies note how far they got, and how they ended."""
    app, log = Flask(__name__), []
    app.teardown_request(lambda exc: log.append(type(exc).__name__))

    def chunk(n):
        log.append(n)
        return f"{n} {request.path} {VAR.get()} {g.x};"

    def prepare():
        g.x = "x"
        VAR.set("v")

    @app.route("/plain")
    def plain():
        prepare()

        def body():
            try:
                for n in range(3):
                    yield chunk(n)
                raise LookupError("at the end")
            finally:
                log.append("closed")

        return body()

    @app.route("/async")
    async def asynchronous():
        prepare()
        try:
            for n in range(3):
                await asyncio.sleep(0)
                yield chunk(n)
            raise LookupError("at the end")
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    return app, log


@kinds
def test_a_chunk_is_made_when_it_is_asked_for(kind):
    app, log = counting(kind)
    opened = Opened(app, f"/{kind}")
    for n in range(3):
        assert log == list(range(n))
        assert next(opened).decode() == f"{n} /{kind} v x;"
        assert (_request_ctx_stack.top, VAR.get()) == (None, "unset")
    with pytest.raises(LookupError, match="at the end"):
        next(opened)
    assert log == [0, 1, 2, "closed"]
    opened.close()
    opened.close()
    assert log == [0, 1, 2, "closed", "LookupError"]


def test_a_body_runs_where_its_kind_belongs():
    app = Flask(__name__)
    ran: list[Any] = []

    @app.route("/plain")
    async def plain():
        def body():
            note_where(ran)
            yield "plain"

        return body()

    @app.route("/async")
    def asynchronous():
        async def body():
            note_where(ran)
            yield "async"

        return body()

    assert Answer(app, "/plain").data + Answer(app, "/async").data == b"plainasync"
    assert ran[0] == threading.get_ident()
    assert isinstance(ran[1], asyncio.AbstractEventLoop)


@kinds
@pytest.mark.parametrize("asked", [0, 1, 3])
def test_W3_a_body_that_is_closed_early_ends_before_the_teardown(kind, asked):
    app, log = counting(kind)
    opened = Opened(app, f"/{kind}")
    for _ in range(asked):
        next(opened)
    opened.close()
    opened.close()
    closed = ["closed"] if asked else []
    assert log == [*range(asked), *closed, "NoneType"]


@kinds
def test_a_body_may_be_asked_for_in_any_thread_and_beside_others(kind):
    app, log = counting(kind)
    opened = [Opened(app, f"/{kind}") for _ in range(3)]
    got: list[bytes] = []
    for _ in range(3):
        for each in opened:
            thread = threading.Thread(target=lambda each=each: got.append(next(each)))
            thread.start()
            thread.join()
    assert [chunk[:1] for chunk in got] == [b"0"] * 3 + [b"1"] * 3 + [b"2"] * 3
    for each in opened:
        each.close()
    assert log[-6:] == ["closed", "NoneType"] * 3


@kinds
def test_what_fails_while_a_body_is_closed_is_not_lost(kind):
    app = Flask(__name__)
    torn = []
    app.teardown_request(lambda exc: torn.append(request.path))

    def body():
        try:
            yield "x"
        finally:
            raise LookupError("while closing")

    app.add_url_rule("/", "view", made(kind, body))
    opened = Opened(app)
    assert next(opened) == b"x"
    with pytest.raises(LookupError, match="while closing"):
        opened.close()
    assert torn == ["/"]


def test_an_async_body_is_one_task():
    app = Flask(__name__)
    tasks, log = set(), []

    @app.route("/")
    async def view():
        async with asyncio.timeout(30), anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            try:
                for letter in "xyz":
                    tasks.add(asyncio.current_task())
                    yield letter
            finally:
                tasks.add(asyncio.current_task())
                log.append("closed")
            group.cancel_scope.cancel()

    assert Answer(app).data == b"xyz"
    assert (len(tasks), log) == (1, ["closed"])
    opened = Opened(app)
    assert next(opened) == b"x"
    opened.close()
    assert (len(tasks), log) == (2, ["closed", "closed"])


class Chunks:
    """A body that is an object of its own, and notes what is done with it."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.left = [b"a", b"b"]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.left:
            raise StopIteration
        self.log.append("asked")
        return self.left.pop(0)

    def close(self) -> None:
        self.log.append("closed")


class AsyncChunks:
    def __init__(self, log: list[str]) -> None:
        self.chunks = Chunks(log)

    def __aiter__(self) -> AsyncChunks:
        return self

    async def __anext__(self) -> bytes:
        chunk = next(self.chunks, None)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self.chunks.close()


def returning(kind: str, log: list[str]) -> Flask:
    app, cls = Flask(__name__), AsyncChunks if kind == "async" else Chunks
    app.add_url_rule("/", "view", lambda: cls(log))
    app.teardown_request(lambda exc: log.append("teardown"))
    return app


@kinds
def test_a_body_is_closed_once(kind):
    log: list[str] = []
    app = returning(kind, log)
    assert Answer(app).data == b"ab"
    assert log == ["asked", "asked", "closed", "teardown"]


@kinds
def test_a_head_request_closes_the_body_unasked(kind):
    log: list[str] = []
    assert Answer(returning(kind, log), REQUEST_METHOD="HEAD").data == b""
    assert log == ["closed", "teardown"]


@kinds
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_that_another_replaces_is_closed(kind, method):
    old: list[str] = []
    new: list[str] = []
    app = returning(kind, old)
    app.after_request(lambda response: app.response_class(Chunks(new)))
    Answer(app, REQUEST_METHOD=method)
    assert old == ["closed", "teardown"]
    assert new == ["asked", "asked", "closed"][-3 if method == "GET" else -1 :]


@kinds
def test_a_body_is_closed_when_the_server_refuses_the_header(kind):
    log: list[str] = []
    app = returning(kind, log)

    def refuse(status, fields):
        raise OSError("the client has gone")

    with pytest.raises(OSError, match="the client has gone"):
        app(new_environ(), refuse)
    assert log == ["closed", "teardown"]


@pytest.mark.parametrize(
    ("kind", "count"), [("plain", 200_000), ("async", 20_000)], ids=["plain", "async"]
)
def test_a_stream_takes_no_more_memory_than_a_chunk(kind, count):
    app = Flask(__name__)

    def body():
        for _ in range(count):
            yield bytes(1000)

    app.add_url_rule("/", "view", made(kind, body))
    opened = Opened(app)
    for _ in range(100):
        next(opened)
    tracemalloc.start()
    try:
        rest = sum(map(len, opened))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    opened.close()
    assert rest == (count - 100) * 1000
    assert peak < 200_000


# ------------------------------------------------------------------------------ files


@pytest.fixture
def big(tmp_path) -> tuple[Flask, bytes]:
    """An application with a static file that is not sent in one piece."""
    app, data = Flask(__name__), os.urandom(300_000)
    app.root_path = str(tmp_path)
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "big").write_bytes(data)
    return app, data


def test_a_whole_file_goes_through_the_servers_wrapper(big):
    app, data = big
    keys = {"wsgi.file_wrapper": FileWrapper, "checked": False}
    opened = Opened(app, "/static/big", **keys)
    file = opened.body.filelike
    assert isinstance(opened.body, FileWrapper)
    assert os.fstat(file.fileno()).st_size == len(data)
    assert b"".join(opened) == data
    assert not file.closed
    opened.close()
    assert file.closed


@pytest.mark.parametrize(
    ("field", "first", "last"), [("0-279999", 0, 279_999), ("10000-", 10_000, 299_999)]
)
def test_a_part_of_a_file_is_no_more_than_asked_for(big, field, first, last):
    app, data = big
    keys = {"wsgi.file_wrapper": FileWrapper, "HTTP_RANGE": f"bytes={field}"}
    got = Answer(app, "/static/big", **keys)
    assert (got.code, got.data) == (206, data[first : last + 1])
    assert got.headers["content-range"] == f"bytes {first}-{last}/300000"


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.parametrize("wrapper", [{}, {"wsgi.file_wrapper": FileWrapper}])
def test_a_file_is_sent_and_closed_without_a_wrapper_too(big, wrapper):
    app, data = big
    assert Answer(app, "/static/big", **wrapper).data == data
    got = Answer(app, "/static/big", REQUEST_METHOD="HEAD", **wrapper)
    assert (got.data, got.headers["content-length"]) == (b"", "300000")
    opened = Opened(app, "/static/big", **wrapper)
    assert data.startswith(next(opened))
    opened.close()


# ------------------------------------------------- responses of other kinds of code


@kinds
@pytest.mark.parametrize("view", ["plain", "async"])
def test_make_response_may_be_overridden(kind, view):
    class Plain(Flask):
        def make_response(self, rv):
            return super().make_response((f"made {rv}", 201))

    class Async(Flask):
        async def make_response(self, rv):
            return await super().make_response((f"made {rv}", 201))

    app = {"plain": Plain, "async": Async}[kind](__name__)
    app.add_url_rule("/", "view", made(view, lambda: "it"))
    got = Answer(app)
    assert (got.status, got.data) == ("201 Created", b"made it")


def foreign(tmp_path: Any) -> tuple[Flask, list[Any]]:
    """An application whose views return Starlette's responses and ASGI code."""
    app, log = Flask(__name__), []
    (tmp_path / "file").write_bytes(b"file")

    @app.after_request
    def after(response):
        response.headers["X-After"] = "after"
        return response

    @app.teardown_request
    def teardown(exc):
        log.append("teardown")

    async def chunks():
        try:
            yield b"a"
            yield b"b"
        finally:
            log.append("closed")

    async def asgi(scope, receive, send):
        log.append(scope["path"])
        fields = [(b"content-type", b"text/plain"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 202, "headers": fields})
        try:
            more = True
            while more:
                message = await receive()
                more = message["more_body"]
                await send({**message, "type": "http.response.body"})
            log.append("sent")
        finally:
            log.append("asgi ended")

    made = {
        "json": lambda: responses.JSONResponse({"a": 1}, 201, {"X-Own": "own"}),
        "stream": lambda: responses.StreamingResponse(chunks(), 206, media_type="a/b"),
        "file": lambda: responses.FileResponse(tmp_path / "file"),
        "task": lambda: responses.HTMLResponse(
            b"x", background=BackgroundTask(log.append, "task")
        ),
        "asgi": lambda: asgi,
    }
    for name, view in made.items():
        app.add_url_rule(f"/{name}", name, view, methods=["GET", "POST"])
    return app, log


@pytest.mark.parametrize(
    ("name", "code", "data", "log"),
    [
        ("json", 201, b'{"a":1}', []),
        ("stream", 206, b"ab", ["closed"]),
        ("file", 200, b"file", []),
        ("task", 200, b"x", ["task"]),
        ("asgi", 202, b"body", ["/app/asgi", "sent", "asgi ended"]),
    ],
)
@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_starlette_and_asgi_answer_with_our_fields(
    tmp_path, name, code, data, log, method
):
    app, seen = foreign(tmp_path)
    keys = {"SCRIPT_NAME": "/app", "REQUEST_METHOD": method, "CONTENT_TYPE": "text/xml"}
    got = Answer(app, f"/{name}", b"body", **keys)
    assert (got.code, got.headers["x-after"]) == (code, "after")
    assert got.data == (data if method == "POST" else b"")
    assert seen == [*log, "teardown"]
    assert name != "json" or got.headers["x-own"] == "own"
    assert name != "asgi" or sorted(got.headers) == ["content-type", "x-after"]


def test_W3_asgi_code_waits_for_the_server_and_ends_with_it(tmp_path):
    app, log = foreign(tmp_path)
    opened = Opened(app, "/asgi", b"body", REQUEST_METHOD="POST")
    assert (next(opened), log) == (b"body", ["/asgi"])
    opened.close()
    assert log == ["/asgi", "asgi ended", "teardown"]


def test_asgi_code_gets_what_the_view_has_left_of_the_body():
    app = Flask(__name__)
    data = os.urandom(200_000)

    async def rest(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await responses.Response(body, media_type="text/plain")(scope, receive, send)

    @app.route("/", methods=["POST"], stream_body=True)
    def view():
        g.first = next(iter(request.stream))
        return rest

    @app.after_request
    def after(response):
        response.headers["X-First"] = str(len(g.first))
        return response

    keys = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "200000"}
    got = Answer(app, "/", Input(data, b"next"), **keys)
    assert got.data == data[int(got.headers["x-first"]) :]


@pytest.mark.parametrize(
    ("count", "error"), [(0, "ended without a response"), (1, "ended in mid-response")]
)
def test_asgi_code_that_ends_too_early_is_an_error(count, error):
    app = Flask(__name__)
    torn = []
    app.teardown_request(lambda exc: torn.append(type(exc)))

    async def asgi(scope, receive, send):
        fields = [(b"content-type", b"text/plain")]
        if count:
            start = {"type": "http.response.start", "status": 200, "headers": fields}
            await send(start)

    app.add_url_rule("/", "view", lambda: asgi)
    with pytest.raises(RuntimeError, match=error):
        Answer(app)
    assert torn == [RuntimeError]


@pytest.mark.parametrize(
    ("length", "code"), [("abc", 400), ("5", 400), ("9" * 5000, 400), ("4", 200)]
)
@pytest.mark.parametrize("how", ["ours", "starlette", "quiet", "returned"])
def test_a_body_that_asgi_code_cannot_read_is_the_fault_of_its_client(
    how, length, code
):
    """The code is told that the client has left: ASGI has no other word for it."""
    app, inner = Flask(__name__), Flask(__name__)
    ended = []

    @inner.route("/<path:path>", methods=["POST"])
    async def ours(path):
        return request.data

    async def starlette(scope, receive, send):
        body = await requests.Request(scope, receive).body()
        await responses.Response(body)(scope, receive, send)

    async def quiet(scope, receive, send):
        body, message = b"", await receive()
        while message.get("more_body"):
            body, message = body + message["body"], await receive()
        if message["type"] == "http.request":
            await responses.Response(body)(scope, receive, send)

    guests = {"ours": inner, "starlette": starlette, "quiet": quiet}
    app.mount("/in", guests.get(how, starlette))
    app.add_url_rule(
        "/own", "own", lambda: starlette, methods=["POST"], stream_body=True
    )
    app.teardown_request(lambda exc: ended.append(exc))
    path = "/own" if how == "returned" else "/in/x"
    keys = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length, "checked": False}
    got = Answer(app, path, io.BytesIO(b"body"), **keys)
    assert got.code == code
    assert got.data == b"body" or (code == 400 and b"Content-Length" in got.data)
    assert len(ended) == (how == "returned")
    inner.workers.close()


class Closing:
    """A WSGI application's body, which notes that it was closed."""

    def __init__(self, chunks: Iterator[bytes], log: list[Any]) -> None:
        self.chunks = chunks
        self.log = log

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks

    def close(self) -> None:
        self.log.append("closed")


def hosting(kind: str, wsgi: Callable[..., Any]) -> Flask:
    """An application whose view returns a WSGI application."""
    app = Flask(__name__)
    app.add_url_rule("/", "view", made(kind, lambda: wsgi), methods=["GET", "POST"])
    return app


@kinds
@pytest.mark.parametrize("keys", [{}, TERMINATED], ids=["sized", "terminated"])
def test_a_view_may_return_a_wsgi_application(kind, keys):
    log: list[Any] = []

    def wsgi(environ, start_response):
        data = environ["wsgi.input"].read(4)
        log.append(threading.get_ident())

        def body():
            yield b""
            write = start_response("201 Made", [("Content-Type", "text/x"), ("A", "b")])
            write(b"written ")
            yield data

        return Closing(body(), log)

    app = hosting(kind, wsgi)
    got = Answer(app, "/", b"body", REQUEST_METHOD="POST", **keys)
    assert (got.code, got.data) == (201, b"written body")
    assert (got.headers["a"], got.headers["content-length"]) == ("b", "12")
    assert log == [threading.get_ident(), "closed"]


@kinds
def test_a_hosted_header_may_be_replaced_until_it_is_sent(kind):
    def wsgi(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/a")])
        try:
            raise LookupError("too late" if environ["QUERY_STRING"] else "in time")
        except LookupError as exc:
            info = type(exc), exc, exc.__traceback__
        yield b"x" if environ["QUERY_STRING"] else b""
        start_response("500 Oops", [("Content-Type", "text/b")], info)
        yield b"body"

    app = hosting(kind, wsgi)
    got = Answer(app)
    assert (got.code, got.headers["content-type"], got.data) == (500, "text/b", b"body")
    with pytest.raises(LookupError, match="too late"):
        Answer(app, QUERY_STRING="late")


@kinds
@pytest.mark.parametrize(
    ("starts", "error"), [(2, "start_response was called twice"), (0, "has not called")]
)
def test_a_hosted_application_starts_its_response_once(kind, starts, error):
    log: list[Any] = []

    def wsgi(environ, start_response):
        def body():
            for _ in range(starts):
                start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"x"

        return Closing(body(), log)

    with pytest.raises(RuntimeError, match=error):
        Answer(hosting(kind, wsgi))
    assert log == ["closed"]


# ------------------------------------------------------------- context and exceptions


@kinds
def test_nothing_of_a_request_is_left_in_the_thread(kind):
    app = Flask(__name__)

    def body():
        VAR.set("view")
        yield "x"
        VAR.set("body")

    app.add_url_rule("/", "view", made(kind, body))
    before = dict(contextvars.copy_context().items())
    opened = Opened(app)
    assert dict(contextvars.copy_context().items()) == before
    assert list(opened) == [b"x"]
    opened.close()
    assert dict(contextvars.copy_context().items()) == before
    assert _request_ctx_stack.top is None


@kinds
@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_is_freed_when_it_is_over(kind, streamed):
    app = Flask(__name__)
    kept = []

    def keep():
        g.thing = threading.Event()
        kept.append(weakref.ref(g.thing))

    def view():
        keep()
        return request.path

    def body():
        keep()
        yield request.path

    app.add_url_rule("/", "view", made(kind, body if streamed else view))
    gc.disable()
    try:
        for _ in range(5):
            assert Answer(app).data == b"/"
        alive = [thing() for thing in kept[:-1]]  # the loop may be at the last one
    finally:
        gc.enable()
    assert alive == [None] * 4


def failing(kind: str) -> tuple[Flask, list[Any]]:
    """An application that fails, and notes what its teardown functions get."""
    app, torn = Flask(__name__), []

    def view():
        VAR.set("view")
        raise LookupError("in the view")

    app.add_url_rule("/", "view", made(kind, view))
    app.teardown_request(torn.append)
    app.teardown_request(made("async", torn.append))
    return app, torn


@kinds
def test_W8_an_exception_without_a_handler_is_the_servers(kind, caplog):
    app, torn = failing(kind)
    with pytest.raises(LookupError, match="in the view") as caught:
        Answer(app)
    assert torn == [caught.value] * 2
    assert (_request_ctx_stack.top, VAR.get()) == (None, "unset")
    assert "GET / failed: LookupError: in the view" in caplog.text


@kinds
@pytest.mark.parametrize("handler", ["plain", "async"])
def test_an_exception_with_a_handler_is_answered(kind, handler):
    app, torn = failing(kind)
    app.errorhandler(500)(made(handler, lambda exc: (f"sorry: {exc.args[0]}", 500)))
    got = Answer(app)
    assert (got.code, got.data) == (500, b"sorry: in the view")
    assert [type(exc) for exc in torn] == [LookupError] * 2


@kills
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("moment", ["at its start", "later"])
@pytest.mark.parametrize("path", ["/view", "/body", "/asgi"])
def test_a_signal_ends_what_the_thread_waits_for(error, moment, path):
    app = Flask(__name__)
    log: list[Any] = []
    app.context_processor(dict)
    app.teardown_request(lambda exc: log.append(type(exc)))

    async def wait(*args):
        if moment == "later":
            await render_template_string_async("")  # in the thread, so it waits
        try:
            while not log:  # one that comes just before it waits does not wake it
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                await asyncio.sleep(0.01)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("ended")

    @app.route("/body")
    async def body():
        yield "x"
        await wait()

    def interrupt(number, frame):
        if not log:
            log.append("signal")
            raise error("from outside")

    app.add_url_rule("/view", "view", wait)
    app.add_url_rule("/asgi", "asgi", lambda: wait)
    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(error, match="from outside"):
            Answer(app, path)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert log == ["signal", "ended", error]


@forks
def test_a_task_that_exits_leaves_the_loop_to_others():
    app = Flask(__name__)

    @app.route("/exit")
    async def leave():
        async def task():
            raise SystemExit("in a task")

        await asyncio.create_task(task())

    @app.route("/")
    async def view():
        return "x"

    def serve():
        with pytest.raises(SystemExit):
            Answer(app, "/exit")
        assert Answer(app).data == b"x"

    run_forked(serve)


@forks
def test_W2_a_forked_process_has_a_loop_of_its_own():
    app = Flask(__name__)
    loops = []

    @app.route("/")
    async def view():
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return "x"

    @app.route("/body")
    async def body():
        for letter in "xyz":
            yield letter

    def serve():
        assert Answer(app).data == Answer(app).data == b"x"
        assert Answer(app, "/body").data == b"xyz"
        assert loops[0] is not loops[1]
        assert loops[1] is loops[2]

    assert Answer(app).data == b"x"
    run_forked(serve)
    assert Answer(app).data == b"x"
    assert loops[0] is loops[1]
