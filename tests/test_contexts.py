"""Contexts entered by hand, and the proxies."""

from __future__ import annotations

import threading

import pytest

from asyncflask import (
    Flask,
    Request,
    _request_ctx_stack,
    current_app,
    g,
    request,
    session,
    url_for,
)
from asyncflask.environ import build_environ
from asyncflask.testing import build_request


@pytest.mark.parametrize(
    ("proxy", "name"),
    [
        (request, "request"),
        (session, "session"),
        (g, "g"),
        (current_app, "current_app"),
    ],
)
def test_outside_a_request_a_proxy_tells_the_cure(proxy, name):
    with pytest.raises(RuntimeError, match=f"{name} was used.*test_request_context"):
        _ = proxy.anything
    with pytest.raises(RuntimeError, match=name):
        proxy["x"] = 1
    assert not proxy
    assert repr(proxy) == f"<{name}, outside a request>"
    assert not hasattr(proxy, "__wrapped__")
    assert not isinstance(proxy, Flask | Request)


def test_helpers_outside_a_request_tell_the_cure():
    with pytest.raises(RuntimeError, match="url_for was used"):
        url_for("index")


def test_a_context_is_entered_with_with_and_no_loop():
    app = Flask(__name__)
    app.add_url_rule("/<int:id>", "view", methods=["GET", "POST"])
    with app.test_request_context(
        "/5",
        base_url="https://example.com/app",
        query_string={"q": "ü"},
        method="POST",
        data={"field": "value"},
        headers={"X-A": "1"},
    ) as ctx:
        assert _request_ctx_stack.top is ctx
        assert (request.method, request.path, request.script_root) == (
            *("POST", "/5"),
            "/app",
        )
        assert (request.args["q"], request.form["field"]) == ("ü", "value")
        assert (request.headers["x-a"], request.endpoint) == ("1", "view")
        assert request.view_args == {"id": 5}
        assert url_for("view", id=3, _external=True) == "https://example.com/app/3"
        assert current_app._get_current_object() is app
        assert isinstance(request, Request)
        assert session.get("x") is None
    assert _request_ctx_stack.top is None


def test_json_and_bytes_can_be_the_body():
    app = Flask(__name__)
    with app.test_request_context("/", method="POST", json={"a": 1}):
        assert request.json == {"a": 1}
    with app.test_request_context("/", method="POST", data=b"raw"):
        assert request.data == b"raw"


def test_contexts_nest():
    app, other = Flask(__name__), Flask(__name__)
    with app.test_request_context("/outer"):
        g.x = "outer"
        with other.test_request_context("/inner"):
            assert (request.path, "x" in g) == ("/inner", False)
            assert current_app._get_current_object() is other
        assert (request.path, g.x) == ("/outer", "outer")


async def test_contexts_work_with_async_with():
    app = Flask(__name__)
    done = []

    @app.teardown_request
    async def teardown(exc):
        done.append(("async", exc))

    app.teardown_request(lambda exc: done.append(("plain", exc)))
    async with app.test_request_context("/x"):
        assert request.path == "/x"
    assert done == [("plain", None), ("async", None)]
    app.workers.close()


def test_the_stack_of_0_1_pushes_and_pops():
    app = Flask(__name__)
    ctx = app.test_request_context("/x")
    _request_ctx_stack.push(ctx)
    assert _request_ctx_stack.top.request.path == "/x"
    assert _request_ctx_stack.pop() is ctx
    assert _request_ctx_stack.pop() is None
    outer, inner = app.test_request_context(), app.test_request_context()
    outer.push()
    inner.push()
    with pytest.raises(RuntimeError, match="reverse order"):
        outer.pop()
    inner.pop()
    outer.pop()


def test_a_context_is_made_from_a_scope_or_an_environ():
    app = Flask(__name__)
    scope, _ = build_request("/ü?q=1", method="POST", headers={"X-A": "1"})
    with app.request_context(scope):
        assert (request.path, request.args["q"]) == ("/ü", "1")
    import io

    body = io.BytesIO(b"field=value, and what is not of this request")
    environ = build_environ(scope, "/ü", body)
    environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
    environ["CONTENT_LENGTH"] = "11"
    with app.request_context(environ):
        assert (request.path, request.headers["x-a"]) == ("/ü", "1")
        assert request.form["field"] == "value"
        assert request.environ is environ


def test_stages_called_by_plain_code_answer_with_the_value():
    app = Flask(__name__)
    app.secret_key = "k"
    threads = []

    @app.before_request
    def plain():
        threads.append(threading.get_ident())
        g.plain = True

    @app.before_request
    async def asynchronous():
        g.asynchronous = g.plain

    @app.after_request
    async def after(response):
        response.data += b"!"
        return response

    @app.route("/<int:x>")
    async def view(x):
        session["x"] = x
        return f"view {x}"

    with app.test_request_context("/5"):
        assert app.match_request() == ("view", {"x": 5})
        assert app.preprocess_request() is None
        assert g.asynchronous is True
        assert threads == [threading.get_ident()]
        rv = app.dispatch_request()
        assert rv == "view 5"
        response = app.process_response(app.make_response(rv))
        assert response.data == b"view 5!"
        assert "session=" in response.headers["set-cookie"]
    with app.test_request_context("/missing"):
        assert app.dispatch_request().code == 404


async def test_stages_called_by_a_coroutine_answer_with_an_awaitable():
    app = Flask(__name__)
    app.secret_key = "k"

    @app.before_request
    def plain():
        g.thread = threading.get_ident()

    @app.before_request
    async def asynchronous():
        g.asynchronous = threading.get_ident()

    @app.route("/<int:x>")
    def view(x):
        return f"view {x} {threading.get_ident() == g.thread}"

    async with app.test_request_context("/5"):
        assert await app.match_request() == ("view", {"x": 5})
        assert await app.preprocess_request() is None
        assert g.thread != g.asynchronous == threading.get_ident()
        rv = await app.dispatch_request()
        assert rv == "view 5 True"
        response = await app.make_response(rv)
        assert app.make_response(rv).data == response.data  # this one never waits
        assert (await app.process_response(response)).status_code == 200
        opened = await app.open_session(request)
        assert await app.save_session(opened, response) is None
    app.workers.close()


def test_the_proxies_pass_everything_on():
    app = Flask(__name__)
    app.secret_key = "k"
    with app.test_request_context():
        session["a"] = 1
        session.update(b=2)
        assert ("a" in session, len(session), sorted(session)) == (True, 2, ["a", "b"])
        assert session == {"a": 1, "b": 2}
        assert session | {"c": 3} == {"a": 1, "b": 2, "c": 3}
        del session["a"]
        assert dict(session) == {"b": 2}
        assert bool(session)
        g.x = 1
        assert g.setdefault("y", 2) == 2
        assert (g.pop("x"), g.get("x"), g.pop("x", None)) == (1, None, None)
        with pytest.raises(KeyError):
            g.pop("x")
        del g.y
        assert "y" not in g
        assert "path" in dir(request)
        assert str(request).startswith("<Request GET '/'")
        assert hash(current_app) == hash(app)


async def test_a_context_opens_what_the_application_overrides():
    class Mine(Flask):
        def match_request(self):
            return "mine", {}

        async def open_session(self, request):
            return {"from": request.path}

    app = Mine(__name__)
    app.view_functions["mine"] = lambda: f"mine {session['from']}"
    async with app.test_request_context("/x"):
        assert await app.dispatch_request() == "mine /x"
        assert request.endpoint == "mine"
    app.workers.close()


def test_a_context_entered_by_plain_code_does_so_too():
    class Mine(Flask):
        async def match_request(self):
            return "mine", {}

        def open_session(self, request):
            return {"from": request.path}

    app = Mine(__name__)
    app.view_functions["mine"] = lambda: f"mine {session['from']}"
    with app.test_request_context("/x"):
        assert app.dispatch_request() == "mine /x"


def test_resources_lie_beside_the_module():
    app = Flask(__name__)
    with app.open_resource("test_contexts.py") as file:
        assert file.readline() == b'"""Contexts entered by hand, and the proxies."""\n'
    with pytest.raises(FileNotFoundError):
        app.open_resource("nothing")


def test_settings_may_be_set_on_a_subclass_or_an_instance():
    class Mine(Flask):
        max_content_length = 5
        session_cookie_name = "mine"

    app = Mine(__name__)
    app.worker_threads = 3
    assert (app.max_content_length, app.session_cookie_name) == (5, "mine")
    assert (Flask.worker_threads, Flask.max_content_length) == (40, 16 * 1024**2)
