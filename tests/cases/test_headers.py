"""Responses and errors on the wire, against what has gone wrong in the field.

The letters and numbers in the names of the tests are the project's own catalogue
of faults and attacks that its field has seen.
"""

from __future__ import annotations

import array
import ast
import asyncio
import logging
import re
from pathlib import Path

import pytest
import starlette.exceptions
import starlette.responses
from starlette.middleware.cors import CORSMiddleware

import asyncflask
from asyncflask import (
    Flask,
    HTTPException,
    Response,
    abort,
    jsonify,
    redirect,
    render_template,
    render_template_string,
    request,
    session,
)
from asyncflask.debug import Debugger
from asyncflask.exceptions import (
    BadRequest,
    InternalServerError,
    NotFound,
    RequestRedirect,
)
from asyncflask.testing import build_request

from ..conftest import Caller
from ..server import served
from .raw import PROTOCOLS, ask, get, talk

EVIL = "a\r\nSet-Cookie: evil=1"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# --------------------------------------------------------------------- injection


def set_header(name, value):
    def view():
        response = Response("")
        response.headers[name] = value
        return response

    return view


INJECTIONS = {
    "value": set_header("X", EVIL),
    "bare line feed": set_header("X", "a\nb"),
    "bare return": set_header("X", "a\rb"),
    "folded": set_header("X", "a\r\n b"),
    "nul": set_header("X", "a\x00b"),
    "name with colon": set_header("X:", "a"),
    "name with space": set_header("X Y", "a"),
    "name with break": set_header("X\r\nY", "a"),
    "empty name": set_header("", "a"),
    "name beyond ascii": set_header("X-\xe9", "a"),
    "tuple": lambda: ("", 200, {"X": EVIL}),
    "pairs": lambda: ("", 200, [("X", "a"), ("X", EVIL)]),
    "list of values": lambda: ("", 200, {"X": ["a", EVIL]}),
    "two-tuple": lambda: ("", {"X": EVIL}),
    "mimetype": lambda: ("", 200, None, EVIL),
    "content type": lambda: ("", 200, None, None, EVIL),
    "response class": lambda: Response("", headers={"X": EVIL}),
    "redirect": lambda: redirect(EVIL),
    "redirect to a path": lambda: redirect(f"/{EVIL}"),
    "routing": lambda: RequestRedirect(f"/{EVIL}"),
    "error": lambda: HTTPException("", code=404, headers={"X": EVIL}),
    "abort": lambda: abort(Response("", 404, {"X": EVIL})),
    "cookie name": lambda: cookie(EVIL, "a"),
    "cookie path": lambda: cookie("a", "b", path=EVIL),
    "cookie domain": lambda: cookie("a", "b", domain=EVIL),
    "vary": lambda: vary(EVIL),
    "json": lambda: (jsonify(a=1), 200, {"X": EVIL}),
    "stream": lambda: (iter("ab"), 200, {"X": EVIL}),
}


def cookie(*args, **options):
    response = Response("")
    response.set_cookie(*args, **options)
    return response


def vary(*names):
    response = Response("")
    response.vary(*names)
    return response


@pytest.mark.parametrize("way", INJECTIONS)
async def test_R1_nothing_splits_a_response(app: Flask, client, way):
    """Werkzeug 0.8.2, BlackSheep 2.4.6: the application fails instead, at once."""
    app.add_url_rule("/", "view", INJECTIONS[way])
    with pytest.raises(ValueError, match=r"control|end it|no header name|no cookie"):
        await client.get("/")


@pytest.mark.parametrize("way", INJECTIONS)
async def test_R1_a_handler_for_500_answers_instead(app: Flask, client, way):
    app.add_url_rule("/", "view", INJECTIONS[way])
    app.errorhandler(500)(lambda error: (type(error).__name__, 500))
    try:
        got = await client.get("/")
    except ValueError:  # it was an answer to an error already
        assert way in ("routing", "error", "abort")
        return
    assert (got.status_code, got.text) == (500, "ValueError")
    assert not {"x", "set-cookie", "location"} & set(got.headers)


async def test_R1_a_status_line_holds_no_more_than_its_code(app: Flask, client):
    app.add_url_rule("/", "view", lambda: ("", f"404 Not\r\n{EVIL}"))
    got = await client.get("/")
    assert got.status_code == 404
    assert "set-cookie" not in got.headers


@pytest.mark.parametrize(
    "value", ["x\r\ny: z", "\x00", ";", ",", '"', "\\", "ü€", " a "]
)
async def test_R1_a_cookie_may_hold_anything_as_its_value(app, client, value):
    @app.route("/set")
    def write():
        return cookie("a", value)

    @app.route("/get")
    def read():
        return {"a": request.cookies["a"]}

    (field,) = (await client.get("/set")).headers.get_list("set-cookie")
    assert not CONTROL.search(field)
    pair = field.rpartition("; Path=")[0]
    assert (await client.get("/get", headers={"Cookie": pair})).json == {"a": value}


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_R1_a_foreign_response_does_not_get_through_the_server_either(http):
    """Starlette leaves the check to the server."""
    app = Flask(__name__)
    headers = {"X": EVIL}

    @app.route("/whole")
    async def whole():
        return starlette.responses.PlainTextResponse("", headers=headers)

    @app.route("/stream")
    async def stream():
        return starlette.responses.StreamingResponse(iter("ab"), headers=headers)

    with served(app, http=http, lifespan="off") as url:
        for path in (b"/whole", b"/stream"):
            status, head, _ = talk(url, get(path))
            assert status in (0, 500)
            assert b"evil" not in head


# ------------------------------------------------------------- what a field holds


@pytest.mark.parametrize("value", ["€", "ü€", "日本", "\U0001f600", "\ud800"])
@pytest.mark.parametrize("where", ["header", "mimetype", "location"])
async def test_R2_a_value_outside_latin_1_is_a_clear_error(app, client, value, where):
    """falcon 3.0.1: not a crash of the server in mid-response."""

    @app.route("/")
    def view():
        response = Response("never sent")
        if where == "header":
            response.headers["X-Name"] = value
        elif where == "mimetype":
            response.mimetype = f"text/{value}"
        else:
            response.location = f"/{value}"
        return response

    with pytest.raises(ValueError, match=r"outside Latin-1. Percent-encode it"):
        await client.get("/")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_R2_a_value_in_latin_1_is_sent_as_it_is(protocol):
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: ("", {"X-Name": "\xfc\xa7"}))
    assert dict(ask(app, protocol, "/").headers.raw)[b"x-name"] == b"\xfc\xa7"


async def test_R2_a_filename_is_encoded_by_starlette(app: Flask, client, tmp_path):
    """RFC 6266: filename*=utf-8''…"""
    (tmp_path / "f").write_text("content")
    name = 'ü€ "x"\r\n.txt'
    file = str(tmp_path / "f")
    app.add_url_rule(
        "/", "view", lambda: starlette.responses.FileResponse(file, filename=name)
    )
    got = await client.get("/")
    assert got.text == "content"
    assert "filename*=utf-8''%C3%BC%E2%82%AC" in got.headers["content-disposition"]
    assert not CONTROL.search(got.headers["content-disposition"])


async def test_R2_text_that_is_no_unicode_fails_before_anything_is_sent(app, client):
    app.add_url_rule("/", "view", lambda: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        await client.get("/")


# ----------------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/get", "POST", "GET, HEAD"),
        ("/get", "OPTIONS", "GET, HEAD"),
        ("/get", "FOO", "GET, HEAD"),
        ("/both", "DELETE", "GET, HEAD, PATCH, POST"),
        ("/post", "HEAD", "POST"),
        ("/post", "GET", "POST"),
        ("/auto", "POST", "GET, HEAD, OPTIONS"),
        ("/auto-post", "GET", "OPTIONS, POST"),
        ("/own", "PUT", "GET, HEAD, OPTIONS"),
        ("/v/5", "POST", "GET, HEAD, PUT"),
        ("/v/a", "POST", "PUT"),
        ("/folder", "POST", "GET, HEAD"),
        ("/folder/", "POST", "GET, HEAD"),
        ("/static/x", "POST", "GET, HEAD"),
        ("/static/x", "OPTIONS", "GET, HEAD"),
    ],
)
async def test_R5_a_405_lists_all_that_the_url_answers(
    app: Flask, client, path, method, allowed
):
    """RFC 9110, section 15.5.6; Flask 0.6.1, falcon#2671, Litestar 2.20."""
    automatic = {"provide_automatic_options": True}
    app.add_url_rule("/get", "get", lambda: "")
    app.add_url_rule("/both", "both", lambda: "")
    app.add_url_rule("/both", "more", lambda: "", methods=["post", "patch"])
    app.add_url_rule("/post", "post", lambda: "", methods=["POST"])
    app.add_url_rule("/auto", "auto", lambda: "", **automatic)
    app.add_url_rule("/auto-post", "ap", lambda: "", methods=["POST"], **automatic)
    app.add_url_rule("/own", "own", lambda: "", methods=["GET", "OPTIONS"])
    app.add_url_rule("/v/<int:n>", "int", lambda n: "")
    app.add_url_rule("/v/<x>", "text", lambda x: "", methods=["PUT"])
    app.add_url_rule("/folder/", "folder", lambda: "")
    got = await client.open(path, method=method)
    assert (got.status_code, got.headers["allow"]) == (405, allowed)


async def test_R5_a_handler_may_answer_and_keep_the_field(app: Flask, client):
    @app.errorhandler(405)
    def refused(error):
        return f"one of {error.allowed}", 405, error.get_headers()

    app.add_url_rule("/", "view", lambda: "")
    got = await client.post("/")
    assert got.headers["allow"] == "GET, HEAD"
    assert got.text == "one of ['GET', 'HEAD']"


async def test_R6_options_is_answered_where_it_is_asked_for(app: Flask, client):
    """The view of a rule that lists OPTIONS wins over the automatic answer."""
    app.provide_automatic_options = True

    @app.route("/auto", methods=["GET", "PUT"])
    def auto():
        raise AssertionError("the view was called")

    @app.route("/own", methods=["GET", "OPTIONS"])
    def own():
        return f"own {request.method}", {"Allow": "what it likes"}

    app.add_url_rule("/two", "two", lambda: "")
    app.add_url_rule("/two", "delete", lambda: "", methods=["DELETE"])
    got = await client.options("/auto")
    assert (got.status_code, got.data) == (200, b"")
    assert got.headers["allow"] == "GET, HEAD, OPTIONS, PUT"
    got = await client.options("/own")
    assert (got.text, got.headers["allow"]) == ("own OPTIONS", "what it likes")
    got = await client.options("/two")
    assert got.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert (await client.options("/none")).status_code == 404


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "method", ["FOO", "TRACE", "CONNECT", "PROPFIND", "M-SEARCH", "X" * 5000, "GETX"]
)
def test_R7_an_unknown_method_is_405(protocol, method):
    """Starlette 1.1.0 #3286."""
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: "")
    app.add_url_rule("/any", "any", lambda: request.method, methods=None)
    assert ask(app, protocol, "/", method=method).status_code == 405
    assert ask(app, protocol, "/none", method=method).status_code == 404
    assert ask(app, protocol, "/any", method=method).text == method


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_R7_an_unknown_method_on_a_real_socket_is_a_4xx(http):
    app = Flask(__name__)

    @app.route("/")
    async def view():
        return ""

    with served(app, http=http, lifespan="off") as url:
        for method in (b"FOO", b"get", b"TRACE", b"GE\tT", b"\xff"):
            assert 400 <= talk(url, get(b"/", method=method))[0] < 500


# ------------------------------------------------------------------------ errors


def failing_app(where: str) -> Flask:
    """Return an application that fails at one place, with a secret in its text."""
    app = Flask(__name__)
    app.secret_key = "key"

    def fail():
        raise LookupError("the-secret-of-the-failure")

    @app.after_request
    async def after(response):
        return fail() if where == "after" else response

    @app.teardown_request
    async def teardown(exc):
        if where == "teardown":
            fail()

    @app.before_request
    async def before():
        if where == "before":
            fail()

    @app.errorhandler(404)
    async def missing(error):
        fail()

    @app.context_processor
    def processor():
        return fail() if where == "template" else {}

    @app.route("/")
    async def view():
        if where == "view":
            fail()
        if where == "save":
            session["the-secret-of-the-failure"] = object()
        if where == "handler":
            abort(404)
        if where == "template":
            return render_template_string("")
        return "fine"

    return app


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_R10_a_failure_anywhere_is_one_plain_500(http, caplog):
    """Quart 0.21 and earlier showed the traceback in production."""
    places = ("before", "view", "template", "save", "after", "handler", "teardown")
    apps = {f"/{where}": failing_app(where) for where in places}

    async def choose(scope, receive, send):
        await apps[scope["path"]]({**scope, "path": "/"}, receive, send)

    with served(choose, http=http, lifespan="off") as url:
        answers = {where: talk(url, get(f"/{where}".encode())) for where in places}
        said = caplog.text
    for where, (status, head, rest) in answers.items():
        text = b"fine" if where == "teardown" else b"Internal Server Error"
        assert status == (200 if where == "teardown" else 500), where
        assert rest.count(text) == 1
        assert len(rest) < len(text) + 20  # the server may send it in chunks
        assert b"secret" not in head + rest
        assert b"Traceback" not in head + rest
    assert said.count("failed: LookupError: the-secret") == len(places) - 2
    assert "cannot keep <object" in said
    assert "The teardown function" in said
    for app in apps.values():
        app.workers.close()


@pytest.mark.parametrize("where", ["before", "view", "template", "save", "after"])
async def test_R10_the_handler_for_500_answers_once(driver, where):
    app = failing_app(where)
    calls = []

    @app.errorhandler(500)
    async def failed(error):
        calls.append(error)
        return "sorry", 500

    client = Caller(app, driver)
    got = await client.get("/")
    assert (got.status_code, got.text) == (500, "sorry")
    assert len(calls) == 1
    await client.httpx.aclose()
    app.workers.close()


async def test_R12_the_most_specific_handler_is_called(app: Flask, client):
    """falcon 3.0, Flask 1.0: by the order of the classes, not of registration."""

    class Base(Exception):
        pass

    class Left(Base):
        pass

    class Right(Base):
        pass

    class Both(Left, Right):
        pass

    class Teapot(HTTPException):
        code = 418

    errors = {
        *(Base, Left, Right, Both, Teapot, KeyError, NotFound, ZeroDivisionError),
    }
    for cls in (Exception, Right, Base, LookupError, HTTPException):
        app.errorhandler(cls)(
            lambda error, name=cls.__name__: f"{name} got {type(error).__name__}"
        )
    app.errorhandler(404)(lambda error: "404 got it")
    app.errorhandler(500)(lambda error: "500 got it")

    @app.route("/<name>")
    def view(name):
        if name == "form":
            return request.form["x"]
        if name == "abort":
            abort(500)
        if name == "starlette":
            raise starlette.exceptions.HTTPException(403)
        raise {cls.__name__: cls for cls in errors}[name]()

    for name, text in {
        "Base": "Base got Base",
        "Left": "Base got Left",
        "Right": "Right got Right",
        "Both": "Right got Both",
        "Teapot": "HTTPException got Teapot",
        "KeyError": "LookupError got KeyError",
        "NotFound": "404 got it",
        "ZeroDivisionError": "Exception got ZeroDivisionError",
        "form": "HTTPException got BadRequestKeyError",
        "abort": "500 got it",
        "starlette": "HTTPException got HTTPException",
        "none/none": "404 got it",
    }.items():
        assert (await client.get(f"/{name}")).text == text, name


async def test_R12_a_handler_for_all_exceptions_gets_no_redirect(app: Flask, client):
    app.errorhandler(Exception)(lambda error: (f"{type(error).__name__}", 500))
    app.errorhandler(HTTPException)(lambda error: (f"{error.code}", 500))
    app.errorhandler(308)(lambda error: ("308", 500))
    app.add_url_rule("/a/", "view", lambda: "")
    assert (await client.get("/a")).status_code == 308


async def test_R12_what_nothing_handles_is_the_original_for_500(app: Flask, client):
    seen = []

    @app.errorhandler(500)
    def failed(error):
        seen.append(error)
        return "", 500

    original = ValueError("this very one")

    @app.route("/")
    def view():
        raise original

    @app.route("/abort")
    def aborts():
        abort(500, "why")

    await client.get("/")
    await client.get("/abort")
    assert seen[0] is original
    assert isinstance(seen[1], InternalServerError)
    assert seen[1].description == "why"


async def test_R12_a_handler_that_fails_is_not_asked_again(app: Flask, client):
    calls = []

    @app.errorhandler(404)
    def missing(error):
        calls.append("404")
        raise ValueError("in the handler")

    @app.errorhandler(500)
    def failed(error):
        calls.append("500")
        raise TypeError("in the other")

    with pytest.raises(ValueError, match="in the handler"):
        await client.get("/none")
    assert calls == ["404"]


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "{{ 7*7 }}", "{0.__class__}", "%(x)s", "\x00"]
)
async def test_R13_an_error_page_shows_nothing_unescaped(app: Flask, client, text):
    """Werkzeug#1001 and 2.3.5."""

    @app.route("/say")
    def say():
        abort(400, text)

    @app.route("/key")
    def key():
        return request.args[text]

    @app.route("/json", methods=["POST"])
    def parse():
        return request.json

    app.add_url_rule("/folder/<x>/", "folder", lambda x: x)
    quoted = build_request(f"/none/{text}")[0]["raw_path"].decode()
    got = [await client.get(quoted), await client.get("/say"), await client.get("/key")]
    got += [await client.post("/json", data=text, content_type="application/json")]
    got += [await client.post("/json", data=b"", content_type=text.replace("\0", ""))]
    got += [await client.get(quoted.replace("none", "folder"))]
    for answer in got:
        assert answer.status_code in (308, 400, 404, 415)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<script" not in answer.text
        assert "49" not in answer.text.partition("<h1>")[2]


def test_R13_a_bad_request_says_what_is_wrong_in_text():
    page = BadRequest("<b>").get_body()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_R13_the_debugger_escapes_what_failed():
    app = Flask(__name__)
    app.debug = True
    app.asgi_app = Debugger(app, pin="1")

    @app.route("/<path:p>")
    async def view(p):
        raise type("Odd<b>", (ValueError,), {})(f"</title><script>{p}")

    scope, _ = build_request("/%3Cscript%3E", headers={"Accept": "text/html"})
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    with pytest.raises(ValueError, match="script"):
        asyncio.run(app(scope, receive, send))
    page = b"".join(message.get("body", b"") for message in sent).decode()
    assert "&lt;/title&gt;&lt;script&gt;" in page
    assert "<script>&lt;script" not in page
    assert "</title><script" not in page
    assert "Odd<b>" not in page


async def test_R14_every_teardown_runs_and_each_failure_is_logged(app, client, caplog):
    """Flask 3.2: one that fails does not keep the others from cleaning up."""
    ran = []
    for number in range(4):

        @app.teardown_request
        def teardown(exc, number=number):
            ran.append(number)
            if number % 2:
                raise ValueError(f"number {number}")

    app.add_url_rule("/", "view", lambda: "fine")
    app.add_url_rule("/stream", "stream", lambda: iter("fine"))
    for path in ("/", "/stream", "/none"):
        ran.clear()
        caplog.clear()
        got = await client.get(path)
        assert got.text == "fine" or got.status_code == 404
        assert ran == [3, 2, 1, 0]
        logged = [str(r.exc_info[1]) for r in caplog.records if r.exc_info]
        assert logged == ["number 3", "number 1"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *(
            (None, "None"),
            (True, "bool"),
            (0, "int"),
            (1.5, "float"),
            pytest.param(object(), "obj", id="object"),
        ),
        *(
            ({1}, "set"),
            (range(3), "range"),
            (Exception("x"), "Exception"),
            (len, "len"),
        ),
        *(((), "tuple of 0"), (("a",) * 6, "tuple of 6"), ((None, 200), "None")),
        *((ValueError, "type"), (Response, "type"), (str, "type")),
    ],
    ids=repr,
)
async def test_R16_a_wrong_value_is_a_type_error_that_names_the_view(
    app: Flask, client, value, kind
):
    app.add_url_rule("/", "the_endpoint", lambda: value)
    with pytest.raises(TypeError, match=f"'the_endpoint' returned .*{kind}"):
        await client.get("/")


@pytest.mark.parametrize("status", ["fine", "", "99", 99, 1000, "4O4", None, -1])
async def test_R16_a_wrong_status_is_a_value_error(app: Flask, client, status):
    app.add_url_rule("/", "view", lambda: ("text", status))
    if status is None:
        assert (await client.get("/")).status_code == 200
    else:
        with pytest.raises(ValueError, match="no status"):
            await client.get("/")


@pytest.mark.parametrize("code", [300, 301, 302, 303, 305, 307, 308])
async def test_R17_redirect_is_302_unless_it_says_otherwise(app: Flask, client, code):
    app.add_url_rule("/", "view", lambda: redirect("/to"))
    app.add_url_rule("/code", "code", lambda: redirect("/to", code))
    app.add_url_rule("/keyword", "keyword", lambda: redirect("/to", code=code))
    assert (await client.get("/")).status_code == 302
    for path in ("/code", "/keyword"):
        got = await client.get(path)
        assert (got.status_code, got.headers["location"]) == (code, "/to")


@pytest.mark.parametrize("code", [200, 304, 306, 400, 0, "302"])
def test_R17_what_is_no_redirect_is_refused(code):
    with pytest.raises(ValueError, match="no redirect"):
        redirect("/to", code)


# ----------------------------------------------------------------- on the wire


def made_with_two():
    response = Response("x", headers=[("Link", "</a>"), ("Link", "</b>")])
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def starlette_with_two():
    response = starlette.responses.PlainTextResponse("x", headers={"link": "</a>"})
    response.headers.append("link", "</b>")
    response.set_cookie("a", "1", samesite=None)
    response.set_cookie("b", "2", samesite=None)
    return response


def wsgi_with_two(environ, start_response):
    fields = [("Link", "</a>"), ("Link", "</b>"), ("Content-Type", "text/plain")]
    fields += [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/")]
    start_response("200 OK", fields)
    return [b"x"]


@pytest.mark.parametrize(
    "make",
    [
        made_with_two,
        starlette_with_two,
        lambda: wsgi_with_two,
        lambda: (made_with_two(), 200, {"X": "1"}),
        lambda: abort(made_with_two()),
    ],
    ids=["response", "starlette", "wsgi", "tuple", "abort"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_R18_fields_of_one_name_all_arrive(app: Flask, client, make, method):
    app.add_url_rule("/", "view", make)

    @app.after_request
    def after(response):
        response.headers.add("Link", "</c>")
        return response

    got = await client.open("/", method=method)
    assert got.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2; Path=/"]
    assert got.headers.get_list("link") == ["</a>", "</b>", "</c>"]


HOP_BY_HOP = {"Connection": "X-Mark", "Keep-Alive": "timeout=5", "TE": "trailers"}
HOP_BY_HOP |= {"Transfer-Encoding": "chunked", "Upgrade": "h2c", "Trailers": "X"}
HOP_BY_HOP |= {"Proxy-Authenticate": "Basic", "Proxy-Authorization": "x"}


def test_R19_wsgi_gets_no_hop_by_hop_field():
    """PEP 3333 leaves them to the server; a2wsgi forwards them."""
    app = Flask(__name__)
    app.add_url_rule("/", "v", lambda: ("x", {**HOP_BY_HOP, "X-Mark": "1"}))
    app.add_url_rule("/s", "s", lambda: (iter("x"), {**HOP_BY_HOP, "X-Mark": "1"}))
    app.add_url_rule(
        "/f", "f", lambda: starlette.responses.Response("x", headers=HOP_BY_HOP)
    )
    for path in ("/", "/s", "/f"):
        got = ask(app, "wsgi", path)
        assert not {name.lower() for name in HOP_BY_HOP} & set(got.headers.keys())
        assert got.data == b"x"


def test_R19_a_body_has_one_framing_only():
    """RFC 9112, section 6.2: no Content-Length beside Transfer-Encoding."""
    app = Flask(__name__)
    app.add_url_rule("/", "v", lambda: ("x", {"Transfer-Encoding": "chunked"}))
    got = ask(app, "asgi", "/")
    assert got.headers["content-length"] == "1"
    assert "transfer-encoding" not in got.headers


@pytest.mark.parametrize("length", ["5", "50", "0", "-1", "abc", "5, 5"])
async def test_R20_the_length_of_a_whole_body_is_its_own(app: Flask, client, length):
    fields = {"Content-Length": length}
    app.add_url_rule("/", "view", lambda: ("0123456789", fields))
    app.add_url_rule("/two", "two", lambda: ("0123456789", [*fields.items()] * 2))
    app.add_url_rule(
        "/foreign",
        "foreign",
        lambda: starlette.responses.PlainTextResponse("0123456789", headers=fields),
    )
    for path in ("/", "/two", "/foreign"):
        got = await client.get(path)
        assert got.text == "0123456789"
        assert got.headers.get_list("content-length") == ["10"]
        head = await client.head(path)
        assert (head.data, head.headers.get_list("content-length")) == (b"", ["10"])


def bare_wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"0123456789"]


def without_type():
    response = Response("0123456789", headers={"Content-Length": "5"})
    del response.headers["Content-Type"]
    return response


@pytest.mark.parametrize(
    "make",
    [
        lambda: starlette.responses.Response("0123456789"),
        lambda: bare_wsgi,
        without_type,
    ],
    ids=["starlette", "wsgi", "own"],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_R20_without_a_type_the_length_is_sent_once_too(protocol, make):
    """RFC 9112, section 6.3: two lengths are an error that clients may refuse."""
    app = Flask(__name__)
    app.add_url_rule("/", "view", make)
    got = ask(app, protocol, "/")
    assert got.headers.getlist("content-length") == ["10"]


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_R20_a_stream_of_another_length_is_broken_off(http):
    app = Flask(__name__)
    app.add_url_rule(
        "/long", "l", lambda: (iter(["0123"] * 3), {"Content-Length": "8"})
    )
    app.add_url_rule("/short", "s", lambda: (iter(["01"]), {"Content-Length": "8"}))
    with served(app, http=http, lifespan="off") as url:
        keep = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for path, most in ((b"long", 8), (b"short", 2)):
            status, head, body = talk(url, keep % path)  # the server closes, not we
            assert status == 200
            assert b"content-length: 8" in head.lower()
            assert len(body) <= most


# ------------------------------------------------------------------------- logs


NASTY = "a\n2026-01-01 ERROR forged\r\x1b[31m\x00\x7f\x85\u2028b"


def messages(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "asyncflask"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("where", ["leaves", "handled", "teardown", "debug"])
def test_R22_no_request_forges_a_line_of_the_log(protocol, where, caplog):
    """Litestar 2.17, Werkzeug 2.3."""
    caplog.set_level(logging.DEBUG, "asyncflask")
    app = Flask(__name__)

    @app.route("/<path:p>", methods=None)
    def view(p):
        if where != "teardown":
            raise ValueError(NASTY)
        return ""

    if where == "handled":
        app.errorhandler(500)(lambda error: ("", 500))
    if where == "teardown":
        app.teardown_request(lambda exc: abort(500, NASTY))
    if where == "debug":
        app.debug = True
        app.asgi_app = app.wsgi_app = Debugger(app, pin="1")
        app.secret_key = NASTY
    headers = [(b"host", b"h"), (b"user-agent", b"a\nb"), (b"referer", b"a\x1b")]
    method = "GE\nT" if protocol == "asgi" else "GET"
    try:
        ask(app, protocol, f"/{NASTY}", b"q=\n\x1b", method=method, headers=headers)
    except ValueError:
        assert where in ("leaves", "debug")
    assert messages(caplog)
    for message in messages(caplog):
        assert not CONTROL.search(message), message
        assert "\u2028" not in message


async def test_R22_nor_does_one_whose_client_has_gone(caplog):
    caplog.set_level(logging.DEBUG, "asyncflask")
    app = Flask(__name__)

    @app.route("/<path:p>", methods=["POST"])
    async def view(p):
        return ""

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError("nobody listens")

    scope, _ = build_request("/", method="POST", data=b"x")
    await app({**scope, "path": f"/{NASTY}"}, receive, send)
    (message,) = messages(caplog)
    assert "the client has gone" in message
    assert not CONTROL.search(message)


async def test_R22_an_exception_without_a_text_is_logged_all_the_same(
    app: Flask, client, caplog
):
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("in __str__")

    @app.route("/")
    def view():
        raise Odd

    with pytest.raises(Odd):
        await client.get("/")
    (message,) = messages(caplog)
    assert message.startswith("GET / failed: Odd")


def test_R22_what_is_logged_of_a_request_is_escaped_everywhere():
    """No call of a logger gets a part of a scope or environ as it came."""
    found = 0
    for path in Path(asyncflask.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or "logger." not in ast.unparse(
                node.func
            ):
                continue
            found += 1
            for argument in node.args:
                text = ast.unparse(argument)
                if not text.startswith(("escaped(", "describe(")):
                    assert not re.search(r"scope|environ|request|path", text), text
    assert found > 10


# ------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("chunk", "data"),
    [
        (memoryview(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(array.array("H", [1, 2])), bytes(array.array("H", [1, 2]))),
        (bytearray(b"abc"), b"abc"),
        (type("Bytes", (bytes,), {})(b"abc"), b"abc"),
        (type("Text", (str,), {})("abc"), b"abc"),
        ("ü", "ü".encode()),
        (b"", b""),
        ("", b""),
        (memoryview(b""), b""),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_R24_whatever_is_like_bytes_is_sent(app: Flask, client, chunk, data):
    app.add_url_rule("/stream", "stream", lambda: iter([chunk, b"|", chunk]))
    app.add_url_rule("/whole", "whole", lambda: Response(chunk))
    app.add_url_rule("/list", "list", lambda: Response([chunk, b"|", chunk]))
    app.add_url_rule("/view", "view", lambda: chunk)

    @app.route("/async")
    async def asynchronous():
        yield chunk
        yield b"|"
        yield chunk

    for path in ("/stream", "/list", "/async"):
        assert (await client.get(path)).data == data + b"|" + data
    for path in ("/whole", "/view"):
        assert (await client.get(path)).data == data


@pytest.mark.parametrize("chunk", [5, None, 1.5, ["a"], {"a": 1}, object, True])
async def test_R24_what_is_not_is_a_type_error(app: Flask, client, chunk):
    closed = []

    @app.route("/stream")
    def stream():
        def body():
            try:
                yield "first"
                yield chunk
            finally:
                closed.append("plain")

        return body()

    @app.route("/async")
    async def asynchronous():
        try:
            yield "first"
            yield chunk
        finally:
            closed.append("async")

    app.add_url_rule("/list", "list", lambda: Response(["first", chunk]))
    for path in ("/stream", "/async", "/list"):
        with pytest.raises(TypeError, match=r"gave .*it must give str or bytes"):
            await client.get(path)
    assert closed == ["plain", "async"]


# ------------------------------------------------------------- other origins


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://example.com", True),
        ("https://app.example.org", True),
        ("https://evil-example.com", False),
        ("https://example.com.evil.com", False),
        ("https://appXexample.org", False),
        ("http://example.com", False),
        ("null", False),
    ],
)
async def test_R27_starlettes_cors_stands_round_the_application(
    app: Flask, client, origin, allowed
):
    """starlette#801, Litestar 2.20: whole origins, named, and Vary: Origin."""
    if client.driver == "wsgi":
        pytest.skip("it is middleware of ASGI")

    app.asgi_app = CORSMiddleware(
        app.asgi_app,
        allow_origins=["https://example.com"],
        allow_origin_regex=r"https://[a-z]+\.example\.org",
        allow_credentials=True,
        allow_methods=["GET", "PUT"],
    )

    @app.route("/", methods=["GET", "PUT"])
    def view():
        return "answer"

    headers = {"Origin": origin}
    got = await client.get("/", headers=headers)
    assert got.text == "answer"
    assert got.headers.get("access-control-allow-origin") == (
        origin if allowed else None
    )
    assert not allowed or "origin" in got.headers["vary"].lower()
    headers["Access-Control-Request-Method"] = "PUT"
    preflight = await client.options("/", headers=headers)
    assert preflight.status_code == (200 if allowed else 400)


@pytest.mark.parametrize("origin", [b"https://evil.example", b"http://localhost", b""])
async def test_R28_a_websocket_is_only_for_a_mounted_application(origin):
    """Which sees the Origin field, so that it can refuse a page of another site."""
    seen = []

    async def mounted(scope, receive, send):
        seen.append(dict(scope["headers"])[b"origin"])
        await send({"type": "websocket.close", "code": 1008, "reason": ""})

    app = Flask(__name__)
    app.secret_key = "key"
    app.mount("/ws", mounted)
    app.add_url_rule("/view", "view", lambda: "a view answers no WebSocket")
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"origin", origin), (b"cookie", b"session=x")]
    scope = {**build_request("/")[0], "type": "websocket", "headers": headers}
    for path in ("/view", "/none", "/static/x", "/wsx"):
        await app({**scope, "path": path}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"] * 4
    assert seen == []
    await app({**scope, "path": "/ws/x"}, receive, send)
    assert seen == [origin]
    assert sent[-1]["code"] == 1008


# -------------------------------------------------------------------- templates


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.txt", "a.js", "a", "a.md"])
async def test_R30_every_template_escapes(app: Flask, client, tmp_path, name):
    """As in 0.1, whatever its ending is."""
    (tmp_path / "templates").mkdir()
    source = "{{ value }}{{ value|safe }}{{ '<i>' }}{% set x = value %}{{ x ~ '' }}"
    (tmp_path / "templates" / name).write_text(source)
    app.root_path = str(tmp_path)
    expected = "&lt;b&gt;<b>&lt;i&gt;&lt;b&gt;"

    @app.route("/file")
    def file():
        return render_template(name, value="<b>")

    @app.route("/string")
    def string():
        return render_template_string(source, value="<b>")

    assert (await client.get("/file")).text == expected
    assert (await client.get("/string")).text == expected


async def test_R30_what_comes_from_the_request_is_escaped(app: Flask, client):
    script = "<script>alert(1)</script>"

    @app.route("/<path:p>")
    def view(p):
        return render_template_string(
            "{{ request.path }} {{ request.args.q }} {{ request.headers['x-a'] }}"
            " {{ request.url }} {{ url_for('view', p=request.path) }} {{ session.s }}"
        )

    app.add_url_rule("/set", "set", lambda: session.update(s=script) or "")
    cookie = (await client.get("/set")).headers["set-cookie"].partition(";")[0]
    got = await client.get(
        "/%3Cscript%3E",
        query_string={"q": script},
        headers={"X-A": script, "Cookie": cookie},
    )
    assert got.status_code == 200
    assert "<" not in got.text
