"""Errors: which become responses, which leave the application."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import random
import weakref

import anyio
import anyio.lowlevel
import pytest
import starlette.exceptions

from asyncflask import Flask, HTTPException, Response, abort, request
from asyncflask.context import _request_ctx_stack
from asyncflask.exceptions import (
    BadRequestKeyError,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    RequestedRangeNotSatisfiable,
    RequestRedirect,
)


async def test_an_error_without_a_handler_is_a_page(app: Flask, client):
    @app.route("/<int:code>")
    def view(code):
        abort(code, request.args.get("why"))

    got = await client.get("/404?why=<b>gone</b>")
    assert got.status_code == 404
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;b&gt;gone&lt;/b&gt;" in got.text
    assert "<b>" not in got.text
    assert "I'm a Teapot" in (await client.get("/418")).text.replace("&#x27;", "'")
    missing = await client.get("/nowhere/<script>")
    assert missing.status_code == 404
    assert "script" not in missing.text


async def test_abort_with_a_response_answers_with_it(app: Flask, client):
    @app.errorhandler(402)
    def never(error):
        raise AssertionError("a handler was called")

    @app.route("/")
    def view():
        abort(Response("pay", 402))

    got = await client.get("/")
    assert (got.status_code, got.text) == (402, "pay")


def test_abort_wants_an_error_code():
    with pytest.raises(LookupError, match="only 400 to 599"):
        abort(200)


async def test_handlers_by_code_and_by_class(app: Flask, client):
    class Base(Exception):
        pass

    class Special(Base):
        pass

    @app.errorhandler(Base)
    def base(error):
        return f"base {type(error).__name__}"

    @app.errorhandler(Special)
    async def special(error):
        return "special", 409

    @app.errorhandler(HTTPException)
    def http(error):
        return f"http {error.code} {error.name}", error.code

    @app.errorhandler(404)
    def missing(error):
        return f"missing {error.description}", 404

    @app.route("/<name>")
    def view(name):
        raise {"base": Base, "special": Special, "forbidden": Forbidden}[name]()

    assert (await client.get("/base")).text == "base Base"
    got = await client.get("/special")
    assert (got.status_code, got.text) == (409, "special")
    assert (await client.get("/forbidden")).text == "http 403 Forbidden"
    assert (await client.get("/a/b")).text == "missing Nothing matches the given URI."
    assert (await client.post("/base")).text == "http 405 Method Not Allowed"


async def test_the_dict_of_0_1_can_be_filled_by_hand(app: Flask, client):
    app.error_handlers[404] = lambda error: (f"by hand {error.code}", 404)
    assert (await client.get("/")).text == "by hand 404"


async def test_the_handler_for_500_gets_the_original(app, client, caplog):
    @app.errorhandler(500)
    def failed(error):
        return f"{type(error).__name__}: {error}", 500

    @app.route("/x\ny")
    def view():
        raise ValueError("on purpose")

    got = await client.get("/x%0Ay")
    assert (got.status_code, got.text) == (500, "ValueError: on purpose")
    (record,) = [r for r in caplog.records if r.name == "asyncflask"]
    assert record.getMessage() == r"GET /x\ny failed"
    assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("debug", [False, True])
async def test_without_a_handler_it_leaves_the_app(app, client, caplog, debug):
    app.debug = debug
    torn_down = []
    app.teardown_request(lambda exc: torn_down.append(repr(exc)))
    if debug:
        app.errorhandler(500)(lambda error: "never in debug mode")

    @app.route("/")
    def view():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await client.get("/")
    assert torn_down == ["ValueError('on purpose')"]
    messages = [r.getMessage() for r in caplog.records if r.name == "asyncflask"]
    assert messages == ["GET / failed: ValueError: on purpose"]


async def test_starlettes_http_errors_are_treated_alike(app: Flask, client):
    @app.route("/<int:code>")
    def view(code):
        raise starlette.exceptions.HTTPException(code, "why", {"X-Why": "1"})

    @app.errorhandler(409)
    def conflict(error):
        return f"{error.code} {error.description}", 409

    got = await client.get("/404")
    assert (got.status_code, got.headers["x-why"]) == (404, "1")
    assert "why" in got.text
    assert (await client.get("/409")).text == "409 why"


@pytest.mark.parametrize("where", ["after", "save", "handler"])
async def test_an_error_after_the_view_is_rescued_once(app, client, where):
    calls = []

    @app.after_request
    def after(response):
        calls.append("after")
        if where == "after":
            raise LookupError(where)
        return response

    @app.errorhandler(403)
    def forbidden(error):
        raise LookupError(where)

    @app.errorhandler(LookupError)
    def lookup(error):
        return f"rescued {error.args[0]}", 500

    @app.route("/")
    def view():
        from asyncflask import session

        if where == "save":
            session["x"] = random.Random(1).randbytes(5000)
        if where == "handler":
            abort(403)
        return "view"

    if where == "after":
        got = await client.get("/")
        assert (got.status_code, got.text) == (500, "rescued after")
    else:
        error = ValueError if where == "save" else LookupError
        with pytest.raises(error):
            await client.get("/")


async def test_abort_in_after_request_becomes_the_response(app: Flask, client):
    @app.after_request
    def refuse(response):
        abort(403)

    app.add_url_rule("/", "i", lambda: "")
    assert (await client.get("/")).status_code == 403


async def test_a_view_may_return_an_error(app: Flask, client):
    app.add_url_rule("/", "i", lambda: NotFound("returned"))
    got = await client.get("/")
    assert got.status_code == 404
    assert "returned" in got.text


async def test_every_teardown_function_runs(app: Flask, client, caplog):
    ran = []

    @app.teardown_request
    def first(exc):
        ran.append("first")

    @app.teardown_request
    def second(exc):
        raise LookupError("in teardown")

    app.add_url_rule("/", "i", lambda: "fine")
    assert (await client.get("/")).text == "fine"
    assert ran == ["first"]
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "teardown function" in record.getMessage()
    assert record.exc_info[0] is LookupError


async def test_an_endpoint_without_a_view_says_so(app: Flask, client):
    app.add_url_rule("/", "lonely")
    with pytest.raises(LookupError, match="'lonely' has a rule, but no view"):
        await client.get("/")


def test_abort_wants_a_code_or_a_response():
    with pytest.raises(TypeError, match="takes an error code or a response"):
        abort("404")


async def test_a_class_of_starlettes_may_have_a_handler(app: Flask, client):
    class Teapot(starlette.exceptions.HTTPException):
        pass

    @app.errorhandler(Teapot)
    def teapot(error):
        return f"{type(error).__name__} {error.detail}", 418

    @app.route("/")
    def view():
        raise Teapot(418, "tea")

    assert (await client.get("/")).text == "Teapot tea"


async def test_an_error_in_a_converter_goes_through_the_door(app: Flask, client):
    from asyncflask.converters import BaseConverter

    class Odd(BaseConverter):
        def to_python(self, value):
            raise KeyError(f"{request.path} {value}")

    app.url_map.converters["odd"] = Odd
    app.add_url_rule("/<odd:x>", "view", lambda x: x)
    app.errorhandler(500)(lambda error: (f"handled {error.args[0]}", 500))
    assert (await client.get("/a")).text == "handled /a a"


async def test_what_is_logged_is_one_line(app: Flask, client, caplog):
    @app.route("/")
    def view():
        raise ValueError(request.args["q"])

    with pytest.raises(ValueError, match="FAKE"):
        await client.get("/?q=a%0AFAKE")
    assert "ValueError: a\\nFAKE" in caplog.text


async def test_a_cancelled_child_does_not_stop_the_teardown(app: Flask, client):
    import asyncio

    from asyncflask import g

    ran = []
    app.teardown_request(lambda exc: ran.append("first"))

    @app.teardown_request
    async def second(exc):
        g.child.cancel()
        await g.child

    @app.route("/")
    async def view():
        g.child = asyncio.ensure_future(asyncio.sleep(60))
        return "fine"

    if client.driver != "trio":
        with pytest.raises(asyncio.CancelledError):
            await client.get("/")
        assert ran == ["first"]


async def test_a_stage_that_returns_nothing_is_named(driver):
    from .conftest import Caller

    class Forgetful(Flask):
        async def process_response(self, response):
            pass

    app = Forgetful(__name__)
    app.add_url_rule("/", "view", lambda: "")
    with pytest.raises(TypeError, match=r"process_response of .* returned None"):
        await Caller(app, driver).get("/")
    app.workers.close()


def test_errorhandler_wants_a_code_or_a_class():
    with pytest.raises(TypeError, match="neither a status code"):
        Flask(__name__).errorhandler("404")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/folder/", 405),
        ("GET", "/folder", 308),
        ("GET", "/aborted", 403),
        ("POST", "/limited", 413),
        ("GET", "/static/nothing", 404),
    ],
)
async def test_an_error_leaves_nothing_to_the_garbage_collector(
    app: Flask, client, method, path, status
):
    contexts = []

    @app.before_request
    def note():
        contexts.append(weakref.ref(_request_ctx_stack.top))

    @app.route("/folder/", endpoint="folder")
    @app.route("/limited", endpoint="limited", methods=["POST"], max_content_length=1)
    def view():
        return "x"

    app.route("/aborted")(lambda: abort(403))
    await client.open("/nowhere")
    gc.collect()
    gc.disable()
    try:
        got = await client.open(path, method=method, data=b"12")
        assert got.status_code == status
        with anyio.fail_after(10):  # a worker may be just about to let go of it
            while any(ctx() for ctx in contexts[1:]):
                await anyio.lowlevel.checkpoint()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "error",
    [
        NotFound(),
        NotFound("Gone."),
        HTTPException("Out of tea.", code=418, headers={"Retry-After": "60"}),
        MethodNotAllowed(allowed=["GET"]),
        BadRequestKeyError("name", "form"),
        RequestedRangeNotSatisfiable(length=5),
        RequestRedirect("/there"),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "taken",
    [copy.copy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copied", "from another process"],
)
def test_an_error_may_travel(error: HTTPException, taken):
    there = taken(error)
    assert type(there) is type(error)
    assert str(there) == str(error)
    assert there.get_body() == error.get_body()
    assert there.get_headers() == error.get_headers()
    assert vars(there) == vars(error)
