"""Other applications inside ours, of both protocols, whichever of them serves us."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import tracemalloc
import types
from concurrent.futures import ThreadPoolExecutor
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import InputWrapper, validator

import anyio.lowlevel
import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from asyncflask import Flask, current_app, request, session, url_for
from asyncflask.mounting import speaks_asgi
from asyncflask.testing import build_request

from .server import served

TEXT = [("Content-Type", "text/plain")]

# ------------------------------------------------------------ what is mounted here


def wsgi_mirror(environ, start_response):
    """Answer with what was asked."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length + 1)  # the end included
    seen = {
        "method": environ["REQUEST_METHOD"],
        "root": environ["SCRIPT_NAME"].encode("latin-1").decode(),
        "path": environ["PATH_INFO"].encode("latin-1").decode(),
        "query": environ["QUERY_STRING"],
        "thing": environ.get("HTTP_X_THING"),
        "body": body.decode(),
    }
    fields = [*TEXT, ("X-Twice", "a"), ("X-Twice", "b")]
    start_response("404 Not Found", fields)
    return [json.dumps(seen).encode()]


async def asgi_mirror(scope, receive, send):
    """Answer with what was asked."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    root = scope["root_path"]
    assert scope["path"].startswith(root)
    seen = {
        "method": scope["method"],
        "root": root,
        "path": scope["path"][len(root) :],
        "query": scope["query_string"].decode(),
        "thing": dict(scope["headers"]).get(b"x-thing", b"").decode("latin-1") or None,
        "body": body.decode(),
    }
    await send(start(404, [(b"x-twice", b"a"), (b"x-twice", b"b")]))
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


def start(status=200, headers=()):
    headers = [(b"content-type", b"text/plain"), *headers]
    return {"type": "http.response.start", "status": status, "headers": headers}


def part(chunk, more=True):
    return {"type": "http.response.body", "body": chunk, "more_body": more}


@pytest.fixture(params=[wsgi_mirror, asgi_mirror], ids=["wsgi", "asgi"])
def mirror(request):
    return request.param


async def place(client, path, **options):
    """Return where the mirror believes to be."""
    seen = (await client.get(path, **options)).json
    return seen["root"], seen["path"]


# -------------------------------------------------------------------- which answers


@pytest.mark.parametrize("prefix", ["/old", "/old/"])
async def test_a_prefix_ends_with_a_segment(app: Flask, client, mirror, prefix):
    app.mount(prefix, mirror)
    assert await place(client, "/old") == ("/old", "")
    assert await place(client, "/old/") == ("/old", "/")
    assert await place(client, "/old/a/b/") == ("/old", "/a/b/")
    assert await place(client, "/old//a") == ("/old", "//a")
    for path in "/older", "/ol", "/", "/x/old":
        assert "Not Found" in (await client.get(path)).text


async def test_a_root_of_ours_stands_in_front(app: Flask, client, mirror):
    app.mount("/old", mirror)
    for base_url in "http://h/front", "http://h/front/":
        got = await place(client, "/old/x", base_url=base_url)
        assert got == ("/front/old", "/x")
    assert await place(client, "/old", base_url="http://h/old") == ("/old/old", "")
    app.mount("/", mirror)
    assert await place(client, "/a", base_url="http://h/front") == ("/front", "/a")


async def test_paths_may_hold_anything(app: Flask, client, mirror):
    app.mount("/größe", mirror)
    app.mount("/a b", mirror)
    assert await place(client, "/größe/ü/€") == ("/größe", "/ü/€")
    assert await place(client, "/gr%C3%B6%C3%9Fe/%C3%BC") == ("/größe", "/ü")
    assert await place(client, "/a%20b/%25/%3F", base_url="http://h/ö") == (
        "/ö/a b",
        "/%/?",
    )
    assert await place(client, "/a%20b/x%2Fy") == ("/a b", "/x/y")
    assert await place(client, "/a%20b%2Fx") == ("/a b", "/x")


async def test_an_asgi_application_sees_the_path_as_it_was_sent():
    app = Flask(__name__)
    raw = []

    async def site(scope, receive, send):
        raw.append(scope["raw_path"])
        await asgi_mirror(scope, receive, send)

    app.mount("/old", site)
    app.test_client().get("/old/x%2Fy")
    assert raw == [b"/old/x%2Fy"]


async def test_the_root_takes_what_our_rules_leave_over(app: Flask, client, mirror):
    @app.route("/ours")
    def ours():
        return "ours"

    @app.route("/folder/")
    def folder():
        return "ours"

    app.mount("/", mirror)
    assert (await client.get("/ours")).text == "ours"
    assert (await client.head("/ours")).status_code == 200
    assert (await client.get("/folder")).status_code == 308
    for path in "/", "/theirs", "/ours/", "/ours/more", "//", "/older/":
        assert await place(client, path) == ("", path)
    for method in "POST", "PUT", "DELETE", "PATCH", "OPTIONS":
        got = await client.open("/ours", method=method)
        assert (got.json["method"], got.json["path"]) == (method, "/ours")
    assert (await client.post("/folder")).json["path"] == "/folder"


async def test_the_most_literal_text_in_front_wins(app: Flask, client, mirror):
    app.mount("/old", mirror)
    app.add_url_rule("/<path:p>", "path", lambda p: f"path {p}")
    app.add_url_rule("/old/new", "new", lambda: "new")
    app.add_url_rule("/old/<int:number>", "number", lambda number: f"number {number}")
    app.add_url_rule("/old/files/<path:p>", "files", lambda p: f"files {p}")
    assert (await client.get("/other")).text == "path other"
    assert (await client.get("/older")).text == "path older"
    assert (await client.get("/old/new")).text == "new"
    assert (await client.get("/old/5")).text == "number 5"
    assert (await client.get("/old/files/a/b")).text == "files a/b"
    for path in "", "/", "/x", "/new/", "/new/x", "/files", "/files/", "/5/x":
        assert await place(client, f"/old{path}") == ("/old", path)
    assert (await client.post("/old/new")).json["method"] == "POST"
    assert (await client.post("/old/5")).json["path"] == "/5"


async def test_a_rule_at_the_very_prefix_wins(app: Flask, client, mirror):
    app.mount("/old", mirror)
    app.add_url_rule("/old", "old", lambda: "ours")
    assert (await client.get("/old")).text == "ours"
    assert (await client.post("/old")).json["path"] == ""
    assert await place(client, "/old/") == ("/old", "/")


@pytest.mark.parametrize("turn", [1, -1])
async def test_the_longest_prefix_wins_whatever_the_order(
    app: Flask, client, mirror, turn
):
    for prefix in ["/", "/a", "/a/b", "/a/b/c"][::turn]:
        app.mount(prefix, mirror)
    assert await place(client, "/a/b/c/d") == ("/a/b/c", "/d")
    assert await place(client, "/a/b/c") == ("/a/b/c", "")
    assert await place(client, "/a/b/cd") == ("/a/b", "/cd")
    assert await place(client, "/a/") == ("/a", "/")
    assert await place(client, "/ab") == ("", "/ab")


async def test_a_missing_static_file_falls_to_the_mount(
    app: Flask, client, mirror, tmp_path
):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "ours.css").write_text("ours")
    app.root_path = str(tmp_path)
    app.mount("/", mirror)
    assert (await client.get("/static/ours.css")).text == "ours"
    for path in "/static/theirs.css", "/static/", "/static", "/static/../x":
        assert (await client.get(path)).json["root"] == ""
    assert await place(client, "/static/theirs.css") == ("", "/static/theirs.css")
    assert (await client.head("/static/theirs.css")).status_code == 404
    assert (await client.post("/static/ours.css")).json["method"] == "POST"
    app.mount("/static", mirror)
    assert await place(client, "/static/theirs.css") == ("/static", "/theirs.css")
    assert (await client.get("/static/ours.css")).text == "ours"
    app.static_path = None
    assert await place(client, "/static/ours.css") == ("/static", "/ours.css")


async def test_mounts_of_mounts_add_up(app: Flask, client, mirror):
    inner = Flask(__name__)
    inner.mount("/in", mirror)
    app.mount("/out", inner)
    assert await place(client, "/out/in/x") == ("/out/in", "/x")
    got = await place(client, "/out/in/x", base_url="http://h/front")
    assert got == ("/front/out/in", "/x")


async def test_one_of_ours_may_be_mounted_in_another(app: Flask, client):
    inner = Flask(__name__)

    @inner.route("/a/<name>")
    @inner.route("/p/<name>", endpoint="plain")
    async def view(name):
        assert current_app == inner
        return [request.path, request.script_root, url_for("plain", name="ü")]

    @inner.route("/environ")
    def environ():
        return [request.environ["SCRIPT_NAME"], request.environ["PATH_INFO"]]

    app.mount("/in", inner)
    expected = ["/a/x", "/in", "/in/p/%C3%BC"]
    assert (await client.get("/in/a/x")).json == expected
    assert (await client.get("/in/environ")).json == ["/in", "/environ"]
    assert (await client.get("/in/nothing")).status_code == 404


async def test_our_hooks_sessions_and_handlers_are_not_for_it(app, client, mirror):
    def fail(*args):
        raise AssertionError("this is ours")

    app.before_request(fail)
    app.after_request(fail)
    app.teardown_request(fail)
    app.open_session = app.save_session = app.process_response = fail
    app.errorhandler(404)(fail)
    app.errorhandler(Exception)(fail)
    app.errorhandler(500)(fail)
    app.mount("/old", mirror)
    for method in "GET", "POST":
        got = await client.open("/old/x", method=method)
        assert (got.status_code, got.json["path"]) == (404, "/x")
        assert "vary" not in got.headers


def test_a_prefix_is_a_path():
    app = Flask(__name__)
    for prefix in "old", "old/", "http://h/", "/<name>", "/old/<int:n>/x":
        with pytest.raises(ValueError, match="no place to mount at"):
            app.mount(prefix, wsgi_mirror)
    assert app.mounts == []


def test_what_speaks_no_protocol_is_refused():
    app = Flask(__name__)
    for wrong in (None, "app", lambda: "x", lambda a: a, lambda a, b, c, d: a, Flask):
        with pytest.raises(TypeError, match="neither"):
            app.mount("/old", wrong)
    assert app.mounts == []


# ---------------------------------------------------------------- what passes through


async def test_a_request_passes_unchanged(app: Flask, client, mirror):
    app.mount("/old", mirror)
    got = await client.open(
        "/old/x?a=1&a=%20&b=%C3%BC%2F+x&&c",
        method="PATCH",
        data="grüße",
        headers={"X-Thing": "\xe4 b"},
        content_type="text/plain",
    )
    assert got.json == {
        "method": "PATCH",
        "root": "/old",
        "path": "/x",
        "query": "a=1&a=%20&b=%C3%BC%2F+x&&c",
        "thing": "\xe4 b",
        "body": "grüße",
    }
    assert got.status_code == 404
    assert got.headers.get_list("x-twice") == ["a", "b"]


def as_servers_do(site):
    """Few WSGI servers end the body themselves. Told so, some applications call
    ``read()``, which PEP 3333 allows and the checker of wsgiref does not."""

    def called(environ, start_response):
        if isinstance(environ["wsgi.input"], InputWrapper):
            del environ["wsgi.input_terminated"]
        return site(environ, start_response)

    return called


def flask_site() -> flask.Flask:
    site = flask.Flask("site")
    site.secret_key = "a secret for the tests"

    @site.route("/hello/<name>")
    def hello(name):
        return f"flask {name} {flask.request.args.get('q')}"

    @site.route("/form", methods=["POST"])
    def form():
        files = flask.request.files.values()
        return {
            "form": flask.request.form.to_dict(flat=False),
            "files": [[f.filename, len(f.read())] for f in files],
        }

    @site.route("/login/<name>")
    def login(name):
        flask.session["user"] = name
        return flask.redirect(flask.url_for("whoami"))

    @site.route("/whoami")
    def whoami():
        return flask.session.get("user", "nobody")

    return site


async def test_a_form_reaches_flask_whatever_our_limits(app: Flask, client):
    app.max_content_length, app.max_form_parts = 10, 1
    app.mount("/old", as_servers_do(flask_site()))
    got = await client.post("/old/form", data={"a": "grüße", "b": ["1", "2"]})
    assert got.json == {"form": {"a": ["grüße"], "b": ["1", "2"]}, "files": []}
    file = b"x" * 3_000_000
    got = await client.post("/old/form", data={"a": "ü", "f": (file, "ü b.png")})
    assert got.json == {"form": {"a": ["ü"]}, "files": [["ü b.png", 3_000_000]]}


async def test_a_body_over_our_limit_is_not_our_business(app, client, mirror):
    app.max_content_length = 10
    app.mount("/", mirror)
    got = await client.post("/x", data="x" * 1_500_000)
    assert len(got.json["body"]) == 1_500_000


async def test_a_session_is_one_for_both(app: Flask, client):
    @app.route("/login/<name>")
    def login(name):
        session["user"] = name
        return ""

    @app.route("/whoami")
    def whoami():
        return session.get("user", "nobody")

    app.mount("/old", flask_site())
    for theirs, ours in (("/old", ""), ("", "/old")):
        got = await client.get(f"{theirs}/login/ada")
        cookie, _, flags = got.headers["set-cookie"].partition(";")
        assert "Path=/;" in f"{flags};"
        headers = {"Cookie": cookie}
        for path in theirs, ours:
            assert (await client.get(f"{path}/whoami", headers=headers)).text == "ada"
    got = await client.get("/old/login/ada", base_url="http://h/front")
    assert got.headers["location"] == "/front/old/whoami"


async def test_head_has_the_fields_and_no_body(app: Flask, client):
    app.mount("/flask", flask_site())
    got = await client.head("/flask/hello/x")
    assert (got.status_code, got.data) == (200, b"")
    assert got.headers["content-length"] == str(len("flask x None"))
    if client.driver == "wsgi":
        app.mount("/", asgi_mirror)  # which sends a body all the same
    else:
        app.mount("/", wsgi_mirror)
    got = await client.head("/x")
    assert (got.status_code, got.data) == (404, b"")
    assert got.headers.get_list("x-twice") == ["a", "b"]


# ------------------------------------------------------------- bodies piece by piece


async def test_a_wsgi_application_reads_a_body_while_it_comes_in():
    app = Flask(__name__)
    log = []

    def site(environ, start_response):
        assert "CONTENT_LENGTH" not in environ
        assert environ["wsgi.input_terminated"]
        while chunk := environ["wsgi.input"].read(4):
            log.append(chunk)
        start_response("200 OK", TEXT)
        return [b"done"]

    app.mount("/", site)

    def body():
        for number in range(4):
            log.append("sent")
            yield b"%04d" % number

    assert (await exchange(app, body=body())).tail == b"done"
    pieces = [b"0000", b"0001", b"0002", b"0003"]
    assert log == [item for piece in pieces for item in ("sent", piece)]


async def test_W24_wsgi_input_is_an_open_file(app: Flask, client):
    def site(environ, start_response):
        stream = environ["wsgi.input"]
        read = [stream.readline(), stream.read(3), stream.read(0), *stream]
        start_response("200 OK", TEXT)
        return [repr([*read, stream.read(1)]).encode()]

    if client.driver != "wsgi":  # where it is the server's
        app.mount("/", site)
        got = await client.post("/", data="one\ntwo\nthree\nfour")
        read = [b"one\n", b"two", b"", b"\n", b"three\n", b"four", b""]
        assert got.text == repr(read)


CHUNK, COUNT = 65536, 800


def wsgi_flood(environ, start_response):
    start_response("200 OK", TEXT)
    return (bytes(CHUNK) for _ in range(COUNT))


async def asgi_flood(scope, receive, send):
    assert scope["type"] == "http"
    await send(start())
    for _ in range(COUNT):
        await send(part(bytes(CHUNK)))
    await send(part(b"", more=False))


def wsgi_drain(environ, start_response):
    size = 0
    while chunk := environ["wsgi.input"].read(CHUNK):
        size += len(chunk)
    start_response("200 OK", TEXT)
    return [b"%d" % size]


async def asgi_drain(scope, receive, send):
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await send(start())
    await send(part(b"%d" % size, more=False))


class Upload:
    """A body of so many bytes, as a WSGI server gives it."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


class Exchange:
    """One request and its response, as an ASGI server sees them.

    The client leaves after so many chunks of the response, or with None in the body.
    """

    def __init__(self, body=(), leaves_after=None):
        self.body = iter(body)
        self.more = True
        self.leaves_after = leaves_after
        self.left = anyio.Event()
        self.count = self.size = 0
        self.tail = b""

    async def receive(self):
        await anyio.lowlevel.checkpoint()
        if not self.more:
            await self.left.wait()
            return {"type": "http.disconnect"}

        chunk = next(self.body, b"")
        if chunk is None:
            return {"type": "http.disconnect"}

        self.more = bool(chunk)
        return {"type": "http.request", "body": chunk, "more_body": self.more}

    async def send(self, message):
        await anyio.lowlevel.checkpoint()
        chunk = message.get("body", b"")
        self.count += bool(chunk)
        self.size += len(chunk)
        self.tail = (self.tail + chunk)[-1000:]
        if self.count == self.leaves_after:
            self.left.set()


async def exchange(app, path="/", body=(), leaves_after=None):
    """Return what came of a request to an ASGI application."""
    done = Exchange(body, leaves_after)
    scope, _ = build_request(path)
    if body:
        scope["headers"].append((b"transfer-encoding", b"chunked"))
    await app(scope, done.receive, done.send)
    return done


def wsgi_environ(path="/", **more):
    environ = {"PATH_INFO": path, **more}
    setup_testing_defaults(environ)
    return environ


def ask(app, path="/", **more):
    """Return status, fields and body that a WSGI server gets."""
    said = []
    chunks = app.wsgi_app(wsgi_environ(path, **more), lambda *a: said.extend(a))
    try:
        data = b"".join(chunks)
    finally:
        getattr(chunks, "close", int)()
    return said[0], dict(said[1]), data


@pytest.fixture
def traced():
    tracemalloc.start()
    yield tracemalloc
    tracemalloc.stop()


@pytest.mark.parametrize("site", [wsgi_flood, asgi_flood])
@pytest.mark.parametrize("server", ["asgi", "wsgi"])
async def test_a_long_response_takes_no_memory(server, site, traced):
    app = Flask(__name__)
    app.mount("/", site)
    if server == "asgi":
        size = (await exchange(app)).size
    else:
        chunks = app.wsgi_app(wsgi_environ(), lambda *args: None)
        size = sum(map(len, chunks))
        chunks.close()
    assert size == CHUNK * COUNT
    assert traced.get_traced_memory()[1] < 4_000_000
    app.workers.close()


@pytest.mark.parametrize("site", [wsgi_drain, asgi_drain])
@pytest.mark.parametrize("server", ["asgi", "wsgi"])
async def test_a_long_upload_takes_no_memory(server, site, traced):
    app = Flask(__name__)
    app.mount("/", site)
    upload = Upload(CHUNK * COUNT)
    if server == "asgi":
        data = (await exchange(app, body=iter(lambda: upload.read(CHUNK), b""))).tail
    else:
        more = {"wsgi.input": upload, "wsgi.input_terminated": True}
        data = ask(app, **more)[2]
    assert data == b"%d" % (CHUNK * COUNT)
    assert traced.get_traced_memory()[1] < 4_000_000
    app.workers.close()


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
async def test_a_response_waits_for_its_client(kind):
    app = Flask(__name__)
    made = []

    def chunks():
        for number in range(5):
            made.append(number)
            yield b"%d" % number

    def wsgi_site(environ, start_response):
        start_response("200 OK", TEXT)
        return chunks()

    async def asgi_site(scope, receive, send):
        assert scope["type"] == "http"
        await send(start())
        for chunk in chunks():
            await send(part(chunk))
        await send(part(b"", more=False))

    app.mount("/", wsgi_site if kind == "wsgi" else asgi_site)
    scope, _ = build_request("/")
    seen = []

    async def send(message):
        await asyncio.sleep(0)
        if message.get("body"):
            seen.append((message["body"], len(made)))

    await app(scope, asyncio.Event().wait, send)
    if kind == "asgi":  # the thread of the other works ahead
        assert seen == [(b"%d" % n, n + 1) for n in range(5)]
    made.clear()
    seen = [(c, len(made)) for c in app.wsgi_app(wsgi_environ(), lambda *a: None)]
    assert seen == [(b"%d" % n, n + 1) for n in range(5)]
    app.workers.close()


# ------------------------------------------------------------------ PEP 3333's corners

# Under WSGI the application talks to the server, and all this is between them.
hosted = pytest.mark.parametrize("driver", ["thread", "client", "trio"])


def test_under_wsgi_a_wsgi_application_talks_to_the_server_itself():
    app = Flask(__name__)
    seen, body = [], [b"x"]

    def site(environ, start_response):
        seen.extend([environ["wsgi.input"], start_response])
        return body

    app.mount("/", site)
    environ, theirs = wsgi_environ(**{"wsgi.input": io.BytesIO()}), object()
    assert app.wsgi_app(environ, theirs) is body
    assert seen[0] is environ["wsgi.input"]
    assert seen[1] is theirs


@hosted
async def test_we_are_a_wsgi_server_to_the_letter(app: Flask, client):
    checked = validator(wsgi_mirror)
    app.mount("/old", lambda environ, respond: checked(environ, respond))
    got = await client.get("/old/x?a=1", headers={"X-Thing": "1"})
    assert (got.status_code, got.json["root"], got.json["path"]) == (404, "/old", "/x")
    assert (await client.post("/old", data="body")).json["body"] == "body"


@hosted
async def test_what_is_written_comes_first(app: Flask, client):
    def site(environ, start_response):
        write = start_response("201 Whatever", [*TEXT, ("X", "1")])
        write(b"a")
        write(b"")
        write(b"b")
        return [b"", b"c"]

    app.mount("/", site)
    got = await client.get("/")
    assert (got.status_code, got.text, got.headers["x"]) == (201, "abc", "1")


async def test_start_response_may_come_with_the_first_chunk(app: Flask, client):
    def site(environ, start_response):
        start_response("202 Accepted", TEXT)
        yield b"late"

    app.mount("/", site)
    got = await client.get("/")
    assert (got.status_code, got.text) == (202, "late")


@hosted
async def test_an_error_page_replaces_what_was_not_sent(app: Flask, client):
    def site(environ, start_response):
        start_response("200 OK", [*TEXT, ("X", "1")])
        yield b""  # which does not send the header
        try:
            raise LookupError("in the site")
        except LookupError as exc:
            info = type(exc), exc, exc.__traceback__
            start_response("503 Sorry", [*TEXT, ("Y", "1")], info)
        yield b"sorry"

    app.mount("/", site)
    got = await client.get("/")
    assert (got.status_code, got.text) == (503, "sorry")
    assert "x" not in got.headers
    assert "y" in got.headers


@hosted
async def test_an_error_page_is_too_late_for_what_was_sent(app: Flask, client):
    def site(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        try:
            raise LookupError("in the site")
        except LookupError as exc:
            info = type(exc), exc, exc.__traceback__
            start_response("503 Sorry", TEXT, info)
        yield b"sorry"

    app.mount("/", site)
    with pytest.raises(LookupError, match="in the site"):
        await client.get("/")


@hosted
async def test_start_response_is_called_once_and_before_the_body(app, client):
    def twice(environ, start_response):
        start_response("200 OK", TEXT)
        start_response("200 OK", TEXT)

    def never(environ, start_response):
        return []

    def after(environ, start_response):
        yield b"x"
        start_response("200 OK", TEXT)

    for site, message in (
        (twice, "start_response was called twice"),
        (never, "has not called start_response"),
        (after, "has not called start_response"),
    ):
        app.mount(f"/{site.__name__}", site)
        with pytest.raises(RuntimeError, match=message):
            await client.get(f"/{site.__name__}")


class Body:
    """A body that says when it is closed."""

    def __init__(self, log, *chunks):
        self.log = log
        self.chunks = chunks

    def __iter__(self):
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def close(self):
        self.log.append("closed")


async def test_a_wsgi_body_is_closed_once_come_what_may(app: Flask, client):
    log = []

    def site(environ, start_response):
        chunks = {
            "/whole": (b"a", b"b"),
            "/empty": (),
            "/early": (LookupError("in the site"),),
            "/late": (b"a", LookupError("in the site")),
        }
        start_response("200 OK", TEXT)
        return Body(log, *chunks[environ["PATH_INFO"]])

    app.mount("/old", site)
    assert (await client.get("/old/whole")).text == "ab"
    assert (await client.get("/old/empty")).text == ""
    assert log == ["closed"] * 2
    for path in "/old/early", "/old/late":
        with pytest.raises(LookupError):
            await client.get(path)
    assert log == ["closed"] * 4
    if client.driver != "wsgi":
        assert (await client.head("/old/whole")).data == b""
        assert log == ["closed"] * 5


async def test_exceptions_leave_us_as_they_leave_the_application(app, client, caplog):
    app.errorhandler(500)(lambda error: "a page of ours")

    def wsgi_site(environ, start_response):
        raise LookupError("in the site")

    async def asgi_site(scope, receive, send):
        if scope["path"] == "/asgi/late":
            await send(start())
            await send(part(b"begun"))
        raise LookupError("in the site")

    app.mount("/wsgi", wsgi_site)
    app.mount("/asgi", asgi_site)
    for path in "/wsgi/x", "/asgi/x", "/asgi/late":
        with pytest.raises(LookupError, match="in the site"):
            await client.get(path)
        assert f"GET {path} failed: LookupError: in the site" in caplog.text


# --------------------------------------------------------------------- ASGI's corners


@pytest.mark.parametrize("begun", [False, True], ids=["nothing", "half"])
async def test_an_unfinished_response_is_an_error(app: Flask, client, begun):
    async def site(scope, receive, send):
        if begun and scope["type"] == "http":
            await send(start())
            await send(part(b"half"))

    app.mount("/", site)
    # RuntimeError is ours, and AssertionError what httpx has in place of a server's
    with pytest.raises((RuntimeError, AssertionError)):
        await client.get("/")


def test_an_unfinished_response_is_cut_off_by_a_server():
    app = Flask(__name__)

    async def site(scope, receive, send):
        if scope["path"] == "/half":
            await send(start())
            await send(part(b"half"))

    def wsgi_site(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"half"
        raise LookupError("in the site")

    app.mount("/", site)
    app.mount("/wsgi", wsgi_site)
    with served(app) as url:
        assert httpx.get(f"{url}/nothing").status_code == 500
        for path in "/half", "/wsgi":
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.get(f"{url}{path}")


async def test_the_client_leaves_when_the_response_is_complete(app: Flask, client):
    """An application may wait for that (ASGI, "disconnect - receive event")."""
    left = threading.Event()

    async def site(scope, receive, send):
        assert scope["type"] == "http"
        while (await receive())["more_body"]:
            pass
        await send(start())
        await send(part(b"whole", more=False))
        with anyio.move_on_after(5):
            assert await receive() == {"type": "http.disconnect"}
            left.set()

    app.mount("/", site)
    assert (await client.get("/")).text == "whole"
    assert left.is_set()


def test_under_wsgi_header_fields_may_be_left_out():
    app = Flask(__name__)

    async def site(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    app.mount("/", site)
    assert ask(app) == ("200 OK", {}, b"")


async def test_starlette_streams_and_cleans_up(app: Flask, client):
    log = []

    async def echo(request):
        data = await request.body()

        async def body():
            for start in range(0, len(data), 65536):
                yield data[start : start + 65536]

        task = BackgroundTask(log.append, "behind it")
        return StreamingResponse(body(), background=task, media_type="text/plain")

    async def where(request):
        return PlainTextResponse(str(request.url_for("where")))

    routes = [Route("/echo", echo, methods=["POST"]), Route("/where", where)]
    app.mount("/star", Starlette(routes=routes))
    got = await client.post("/star/echo", data=b"x" * 300_000)
    assert got.data == b"x" * 300_000
    assert log == ["behind it"]
    assert (await client.get("/star/where")).text == "http://localhost/star/where"


def test_under_wsgi_asgi_applications_answer_threads_at_once():
    app = Flask(__name__)
    everyone = asyncio.Barrier(20)

    async def site(scope, receive, send):
        assert scope["type"] == "http"
        await asyncio.wait_for(everyone.wait(), 20)
        await send(start())
        await send(part(scope["path"].encode(), more=False))

    app.mount("/", site)
    paths = [f"/{number}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda path: ask(app, path)[2].decode(), paths))
    assert answers == paths


async def test_a_websocket_goes_to_the_application_it_is_for():
    app = Flask(__name__)

    async def site(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"{scope['root_path']}: x"})

    app.mount("/ws", site)
    app.mount("/old", wsgi_mirror)
    app.add_url_rule("/ours", "ours", lambda: "ours")

    async def connect(path):
        said = []
        scope, _ = build_request(path, base_url="ws://h/front")

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            said.append((message["type"], message.get("text")))

        await app({**scope, "type": "websocket"}, receive, send)
        return said

    accepted = [("websocket.accept", None), ("websocket.send", "/front/ws: x")]
    assert await connect("/ws") == await connect("/ws/a") == accepted
    for path in "/old", "/old/x", "/ours", "/nothing", "/wsx":
        assert await connect(path) == [("websocket.close", None)]


# ---------------------------------------------------------------- threads, and leaving


async def test_a_wsgi_application_has_one_worker_of_ours():
    app = Flask(__name__)
    threads, lent = [], []

    def note():
        threads.append(threading.current_thread().name)
        lent.append(app.workers.stats()["lent"])

    class Site(Body):
        def __iter__(self):
            for chunk in self.chunks:
                note()
                yield chunk

        def close(self):
            note()

    def site(environ, start_response):
        note()
        environ["wsgi.input"].read()
        note()
        start_response("200 OK", TEXT)
        return Site([], b"a", b"b")

    app.mount("/", site)
    assert (await exchange(app)).tail == b"ab"
    assert len(threads) == 5
    assert len(set(threads)) == 1
    assert threads[0].startswith("asyncflask-worker")
    assert set(lent) == {1}
    assert app.workers.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    app.workers.close()


async def test_its_worker_is_given_back_when_it_fails():
    app = Flask(__name__)

    def site(environ, start_response):
        if environ["PATH_INFO"] == "/late":
            start_response("200 OK", TEXT)
            yield b"begun"
        raise LookupError("in the site")

    app.mount("/", site)
    for path in "/early", "/late":
        with pytest.raises(LookupError):
            await exchange(app, path)
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


MANY = 10_000


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("reads", [None, 0, 1, 2, -1])
async def test_a_client_that_leaves_ends_a_wsgi_response(reads):
    """Whether or not the application reads the body, and how far."""
    app = Flask(__name__)
    log = []

    def site(environ, start_response):
        environ["wsgi.input"].read(reads or 0)
        start_response("200 OK", TEXT)
        return Body(log, *[b"x"] * MANY)

    app.mount("/", site)
    body = () if reads is None else (b"x", b"y")
    done = await exchange(app, body=body, leaves_after=2)
    assert done.count < MANY
    assert log == ["closed"]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


@pytest.mark.parametrize("is_handled", [False, True])
async def test_a_client_that_leaves_while_uploading_is_a_broken_connection(is_handled):
    app = Flask(__name__)
    seen = []

    def site(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError as exc:
            seen.append(isinstance(exc, ConnectionResetError))
            if not is_handled:
                raise
        start_response("400 Bad Request", TEXT)
        return [b"cut off"]

    app.mount("/", site)
    try:
        await exchange(app, body=[b"x", None])
    except ConnectionResetError:
        assert not is_handled
    assert seen == [True]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_wsgi_server_may_stop_in_the_middle(kind):
    app = Flask(__name__)
    log = []

    def wsgi_site(environ, start_response):
        start_response("200 OK", TEXT)
        return Body(log, b"a", b"b", b"c")

    async def asgi_site(scope, receive, send):
        assert scope["type"] == "http"
        try:
            await send(start())
            for chunk in b"a", b"b", b"c":
                await send(part(chunk))
        finally:
            log.append("closed")

    app.mount("/", wsgi_site if kind == "wsgi" else asgi_site)
    body = app.wsgi_app(wsgi_environ(), lambda *args: None)
    assert next(iter(body)) == b"a"
    assert log == []
    body.close()
    assert log == ["closed"]


# ---------------------------------------------------------------- other people's sites


def bottle_site():
    bottle = pytest.importorskip("bottle")
    site = bottle.Bottle()

    @site.route("/hello/<name>")
    def hello(name):
        return f"bottle {name} {bottle.request.query.q}"

    @site.post("/form")
    def form():
        return {"form": {"a": [bottle.request.forms.getunicode("a")]}, "files": []}

    return site


def django_site(kind):
    pytest.importorskip("django")
    from django.conf import settings

    urls = types.ModuleType("urls")
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=urls, LOGGING_CONFIG=None)

    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, JsonResponse
    from django.urls import path

    def hello(request, name):
        return HttpResponse(f"django {name} {request.GET['q']}")

    def form(request):
        return JsonResponse({"form": dict(request.POST.lists()), "files": []})

    if settings.ROOT_URLCONF is urls:
        urls.urlpatterns = [path("hello/<name>", hello), path("form", form)]
    return get_wsgi_application() if kind == "wsgi" else get_asgi_application()


SITES = {
    "flask": flask_site,
    "bottle": bottle_site,
    "django": lambda: django_site("wsgi"),
    "django asgi": lambda: django_site("asgi"),
}


@pytest.fixture(params=SITES)
def site(request):
    return request.param


@pytest.mark.parametrize("driver", ["thread", "client", "wsgi"])
async def test_sites_of_other_frameworks_answer(app: Flask, client, site):
    name = site.split()[0]
    for prefix in "/old", "/":
        inner = SITES[site]()
        app.mount(prefix, inner if speaks_asgi(inner) else as_servers_do(inner))
        prefix = prefix.rstrip("/")
        got = await client.get(f"{prefix}/hello/ü?q=%C3%9F")
        assert got.text == f"{name} ü ß"
        got = await client.post(f"{prefix}/form", data={"a": "ü"})
        assert got.json["form"] == {"a": ["ü"]}
        assert (await client.get(f"{prefix}/nothing")).status_code == 404


def test_old_and_new_serve_a_hundred_clients_side_by_side(site):
    app = Flask(__name__)

    @app.route("/hello/<name>")
    async def hello(name):
        await asyncio.sleep(0)
        return f"async {name} {request.args['q']}"

    @app.route("/plain/hello/<name>")
    def plain(name):
        return f"plain {name} {request.args['q']}"

    app.mount("/flask", flask_site())
    app.mount("/old", SITES[site]())
    kinds = [("", "async"), ("/plain", "plain"), ("/flask", "flask")]
    kinds.append(("/old", site.split()[0]))

    async def one(client, number):
        prefix, kind = kinds[number % 4]
        got = await client.get(f"{prefix}/hello/{number}?q={number}")
        assert got.text == f"{kind} {number} {number}"
        got = await client.post("/old/form", data={"a": str(number)})
        assert got.json()["form"] == {"a": [str(number)]}

    async def everyone(url):
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(one(client, number))

    with served(app) as url:
        asyncio.run(everyone(url))
    assert app.workers.stats()["lent"] == 0
