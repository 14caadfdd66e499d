"""Views, rules and hooks: what the tests of 0.1 asked for, on every driver."""

from __future__ import annotations

import functools

import pytest

from asyncflask import (
    Flask,
    abort,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    render_template_string,
    request,
    session,
    url_for,
)
from asyncflask.converters import BaseConverter
from asyncflask.exceptions import NotFound


async def test_a_view_answers_the_methods_of_its_rule(app: Flask, client):
    @app.route("/")
    def index():
        return request.method

    @app.route("/more", methods=["GET", "POST"])
    def more():
        return request.method

    assert (await client.get("/")).text == "GET"
    refused = await client.post("/")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"
    head = await client.head("/")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["content-length"] == "4"
    assert (await client.post("/more")).text == "POST"
    refused = await client.open("/more", method="DELETE")
    assert refused.headers["allow"] == "GET, HEAD, POST"


async def test_values_in_the_url_reach_the_view_by_name(app: Flask, client):
    @app.route("/<name>/<int:number>/<path:rest>")
    async def show(name, number, rest):
        return {"name": name, "number": number, "rest": rest}

    got = await client.get("/grüße an/7/a/b%20c")
    assert got.json == {"name": "grüße an", "number": 7, "rest": "a/b c"}


async def test_a_folder_asked_for_without_its_slash_redirects_there(app, client):
    @app.route("/a/", methods=["GET", "POST"])
    def folder():
        return request.query_string

    got = await client.post("/a?x=%2F&x=1", data={"lost": "no"})
    assert got.status_code == 308
    assert got.headers["location"] == "/a/?x=%2F&x=1"
    assert (await client.get("/a/?q")).text == "q"


async def test_a_file_asked_for_with_a_slash_is_not_found(app, client):
    @app.route("/a")
    def file():
        return "a"

    assert (await client.get("/a/")).status_code == 404


async def test_one_view_may_have_several_rules(app: Flask, client):
    @app.route("/", defaults={"page": 1})
    @app.route("/page/<int:page>")
    def listing(page):
        return f"{page} {url_for('listing', page=1)} {url_for('listing', page=2)}"

    assert (await client.get("/")).text == "1 / /page/2"
    assert (await client.get("/page/2")).text == "2 / /page/2"
    moved = await client.get("/page/1?x=1")
    assert (moved.status_code, moved.headers["location"]) == (308, "/?x=1")


async def test_rules_can_be_added_in_the_way_of_0_1(app: Flask, client):
    app.add_url_rule("/", "index")
    app.view_functions["index"] = lambda: "by hand"
    app.add_url_rule("/other", view_func=lambda: "other", endpoint="other")
    assert (await client.get("/")).text == "by hand"
    assert (await client.get("/other")).text == "other"


async def test_a_value_may_have_any_name(app: Flask, client):
    @app.route("/<function>/<self>/<args>")
    def view(function, self, args):
        return f"{function} {self} {args}"

    assert (await client.get("/a/b/c")).text == "a b c"


async def test_methods_may_come_from_a_generator_or_be_all(app: Flask, client):
    app.provide_automatic_options = True
    methods = (method for method in ("get", "post"))
    app.add_url_rule("/some", "some", lambda: request.method, methods=methods)
    app.add_url_rule("/all", "all", lambda: request.method, methods=None)
    assert (await client.post("/some")).text == "POST"
    allowed = (await client.options("/some")).headers["allow"]
    assert allowed == "GET, HEAD, OPTIONS, POST"
    assert (await client.open("/all", method="FOO")).text == "FOO"


def test_a_view_without_a_name_needs_an_endpoint():
    with pytest.raises(TypeError, match="Pass one: endpoint="):
        Flask(__name__).route("/")(functools.partial(print))


async def test_a_stage_is_overridden_whatever_it_is_made_with(app: Flask, client):
    from unittest import mock

    app.add_url_rule("/", "view", lambda: "view")

    @functools.wraps(app.process_response)
    def timed(response):
        response.headers["X-Timed"] = "1"
        return response

    def patched():
        return "patched"

    app.process_response = timed
    assert (await client.get("/")).headers["x-timed"] == "1"
    del app.process_response
    assert "x-timed" not in (await client.get("/")).headers
    with mock.patch.object(app, "dispatch_request", new=patched):
        assert (await client.get("/")).text == "patched"
    assert (await client.get("/")).text == "view"


async def test_a_route_decorator_may_be_kept_and_used_twice(app: Flask, client):
    both = app.route("/twice", endpoint="named")

    @both
    def view():
        return url_for("named")

    both(view)
    assert {rule.endpoint for rule in app.url_map} == {"static", "named"}
    assert (await client.get("/twice")).text == "/twice"


async def test_an_asterisk_is_no_path(app: Flask, client):
    app.add_url_rule("/", "index", lambda: "index")
    from asyncflask.testing import build_request

    scope, _ = build_request("/", method="OPTIONS")
    scope["path"] = "*"
    with app.request_context(scope) as ctx:
        assert ctx.routing_exception.code == 404


async def test_a_view_may_be_replaced_between_requests(app: Flask, client):
    @app.route("/")
    def index():
        return "first"

    assert (await client.get("/")).text == "first"
    app.view_functions["index"] = lambda: "second"
    assert (await client.get("/")).text == "second"


async def test_a_custom_converter_serves_its_rules(app: Flask, client):
    class Listed(BaseConverter):
        regex = r"\w+(?:,\w+)*"

        def to_python(self, value):
            return value.split(",")

        def to_url(self, value):
            return ",".join(value)

    app.url_map.converters["list"] = Listed

    @app.route("/<list:words>")
    def words(words):
        return f"{len(words)} {url_for('words', words=words)}"

    assert (await client.get("/a,b,c")).text == "3 /a,b,c"


async def test_a_converter_may_look_at_the_request(app: Flask, client):
    class OfTheHost(BaseConverter):
        def to_python(self, value):
            if request.args.get("refuse"):
                raise ValueError
            return f"{value}@{request.host}"

    app.url_map.converters["of_the_host"] = OfTheHost

    @app.route("/users/<of_the_host:user>")
    def user(user):
        assert request.view_args == {"user": user}
        return f"{user} {request.endpoint} {request.url_rule.rule}"

    @app.errorhandler(404)
    def missing(error):
        assert request.routing_exception is error
        return "missing", 404

    got = await client.get("/users/ann")
    assert got.text == "ann@localhost user /users/<of_the_host:user>"
    assert (await client.get("/users/ann?refuse=1")).text == "missing"


async def test_subdomains_choose_among_rules(app: Flask, client):
    app.server_name = "example.com"

    @app.route("/", subdomain="api")
    def api():
        return url_for("user", name="ann")

    @app.route("/", subdomain="<name>")
    def user(name):
        return f"{name} {url_for('index')}"

    @app.route("/")
    def index():
        return "index"

    app.add_url_rule("/auto", "auto", subdomain="api", provide_automatic_options=True)

    async def ask(host):
        return await client.get("/", base_url=f"http://{host}/")

    answer = await client.options("/auto", base_url="http://api.example.com/")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"

    assert (await ask("example.com")).text == "index"
    assert (await ask("api.example.com")).text == "http://ann.example.com/"
    assert (await ask("bob.example.com")).text == "bob http://example.com/"
    assert (await ask("elsewhere.org")).status_code == 404


async def test_an_app_below_a_prefix_strips_it_at_a_slash_only(app, client):
    @app.route("/x")
    def x():
        return f"{request.path} {request.script_root} {url_for('x')} {request.url}"

    got = await client.get("/x", base_url="http://h:8080/app")
    assert got.text == "/x /app /app/x http://h:8080/app/x"
    scope = {"root_path": "/app", "path": "/application"}
    from asyncflask.target import application_path

    assert application_path(scope) == "/application"
    assert application_path({"root_path": "/app", "path": "/app"}) == "/"
    assert application_path({"root_path": "/app", "path": "/app/app/x"}) == "/app/x"
    assert application_path({"root_path": "/app", "path": "/x/app/y"}) == "/x/app/y"


async def test_a_redirect_rule_sends_the_client_on(app: Flask, client):
    @app.route("/new/<int:id>")
    def new(id):
        return str(id)

    app.add_url_rule("/old/<int:id>", "old", redirect_to="/new/<id>")
    got = await client.get("/old/3?q=1")
    assert (got.status_code, got.headers["location"]) == (308, "/new/3?q=1")


async def test_options_is_answered_only_when_asked_to(app: Flask, client):
    @app.route("/plain", methods=["GET"])
    def plain():
        return ""

    @app.route("/listed", methods=["GET", "OPTIONS"])
    def listed():
        return f"own {request.method}"

    app.provide_automatic_options = True

    @app.route("/auto", methods=["GET", "PUT"])
    def auto():
        return ""

    refused = await client.options("/plain")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert (await client.options("/listed")).text == "own OPTIONS"
    answer = await client.options("/auto")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, PUT"


async def test_head_is_automatic_and_any_unknown_method_is_405(app, client):
    @app.route("/")
    def index():
        return "x" * 10

    head = await client.head("/")
    assert (head.headers["content-length"], head.data) == ("10", b"")
    assert (await client.open("/", method="FOO")).status_code == 405


async def test_the_same_endpoint_for_another_view_is_an_error(app: Flask):
    @app.route("/a")
    def view():
        return "a"

    first = app.view_functions["view"]
    with pytest.raises(ValueError, match="'view' leads to") as caught:

        @app.route("/b")
        def view():
            return "b"

    assert repr(first) in str(caught.value)


async def test_a_plain_decorator_may_stand_round_either_kind(app: Flask, client):
    def only_for_known(view):
        @functools.wraps(view)
        def wrapper(*args, **kwargs):
            if "user" not in request.args:
                abort(401)
            return view(*args, **kwargs)

        return wrapper

    @app.route("/plain")
    @only_for_known
    def plain():
        return "plain"

    @app.route("/async")
    @only_for_known
    async def asynchronous():
        return "async"

    for path in "plain", "async":
        assert (await client.get(f"/{path}")).status_code == 401
        assert (await client.get(f"/{path}?user=a")).text == path


async def test_hooks_run_round_the_view_in_order(app: Flask, client):
    log = []
    for name in "one", "two":
        app.before_request(lambda name=name: log.append(f"before {name}"))

        @app.after_request
        def after(response, name=name):
            log.append(f"after {name}")
            response.data += name.encode()
            return response

        app.teardown_request(lambda exc, name=name: log.append(f"teardown {name}"))

    @app.route("/")
    def index():
        log.append("view")
        return ""

    assert (await client.get("/")).text == "onetwo"
    assert log == [
        *("before one", "before two", "view", "after one", "after two"),
        *("teardown two", "teardown one"),
    ]


async def test_a_value_from_before_request_is_the_response(app: Flask, client):
    @app.before_request
    def closed():
        return "closed", 503

    @app.after_request
    async def mark(response):
        response.headers["X-Mark"] = "1"
        return response

    @app.route("/")
    def index():
        raise AssertionError("the view was called")

    got = await client.get("/")
    assert (got.status_code, got.text, got.headers["x-mark"]) == (503, "closed", "1")


async def test_hooks_run_for_what_is_not_found_and_know_the_endpoint(app, client):
    seen = []

    @app.before_request
    def look():
        seen.append((request.endpoint, request.view_args))

    @app.route("/user/<int:id>")
    def user(id):
        return str(id)

    assert (await client.get("/user/5")).status_code == 200
    assert (await client.get("/nowhere")).status_code == 404
    assert (await client.post("/user/5")).status_code == 405
    assert seen == [("user", {"id": 5}), (None, None), (None, None)]


async def test_abort_in_a_hook_is_caught_like_one_in_a_view(app: Flask, client):
    @app.before_request
    def refuse():
        abort(403)

    @app.errorhandler(403)
    def forbidden(error):
        return "handled", 403

    assert (await client.get("/")).text == "handled"


async def test_g_lasts_for_one_request(app: Flask, client):
    @app.before_request
    def count():
        g.count = g.get("count", 0) + 1

    @app.route("/")
    def index():
        assert "count" in g
        assert list(g) == ["count"]
        return str(g.count)

    for _ in range(3):
        assert (await client.get("/")).text == "1"


async def test_missing_g_says_what_to_do(app: Flask):
    with app.test_request_context():
        with pytest.raises(AttributeError, match=r"g\.db is not set"):
            _ = g.db


async def test_a_session_comes_back_with_the_next_request(app: Flask, client):
    @app.route("/set", methods=["POST"])
    def set():
        session["value"] = request.form["value"]
        return "set"

    @app.route("/get")
    async def get():
        return session["value"]

    assert (await client.post("/set", data={"value": "42"})).text == "set"
    assert (await client.get("/get")).text == "42"


async def test_a_flashed_message_is_shown_once(app: Flask, client):
    @app.route("/flash")
    def make():
        flash("Hello")
        flash("Careful", "warning")
        return redirect(url_for("show"))

    @app.route("/show")
    def show():
        first = get_flashed_messages()
        assert get_flashed_messages() == first  # once taken, remembered
        chosen = get_flashed_messages(category_filter=["warning"])
        return jsonify(first, chosen, get_flashed_messages(with_categories=True))

    moved = await client.get("/flash")
    assert (moved.status_code, moved.headers["location"]) == (302, "/show")
    pairs = [["message", "Hello"], ["warning", "Careful"]]
    expected = [["Hello", "Careful"], ["Careful"], pairs]
    assert (await client.get("/show")).json == expected
    assert (await client.get("/show")).json == [[], [], []]


async def test_templates_know_request_session_and_g(app: Flask, client):
    @app.context_processor
    def more():
        return {"extra": "from the processor", "name": "the processor wins"}

    @app.route("/")
    def index():
        g.thing = "thing"
        session["user"] = "<ann>"
        return render_template_string(
            "{{ request.path }} {{ session.user }} {{ g.thing }} {{ extra }} "
            "{{ name }} {{ url_for('index') }} {{ get_flashed_messages()|length }} "
            "{{ g.nothing }}",
            name="an argument",
        )

    got = await client.get("/")
    assert got.text == "/ &lt;ann&gt; thing from the processor the processor wins / 0 "


async def test_request_processing_calls_the_stages(driver: str):
    calls = []

    class Logging(Flask):
        def match_request(self):
            calls.append("match_request")
            return super().match_request()

        def open_session(self, request):
            calls.append("open_session")
            return super().open_session(request)

        def preprocess_request(self):
            calls.append("preprocess_request")
            return super().preprocess_request()

        def dispatch_request(self):
            calls.append("dispatch_request")
            return super().dispatch_request()

        def make_response(self, rv):
            calls.append("make_response")
            return super().make_response(rv)

        def process_response(self, response):
            calls.append("process_response")
            return super().process_response(response)

        def save_session(self, session, response):
            calls.append("save_session")
            return super().save_session(session, response)

    class AsyncLogging(Flask):
        async def match_request(self):
            calls.append("match_request")
            return await super().match_request()

        async def open_session(self, request):
            calls.append("open_session")
            return await super().open_session(request)

        async def preprocess_request(self):
            calls.append("preprocess_request")
            return await super().preprocess_request()

        async def dispatch_request(self):
            calls.append("dispatch_request")
            return await super().dispatch_request()

        async def make_response(self, rv):
            calls.append("make_response")
            return await super().make_response(rv)

        async def process_response(self, response):
            calls.append("process_response")
            return await super().process_response(response)

        async def save_session(self, session, response):
            calls.append("save_session")
            return await super().save_session(session, response)

    from .conftest import Caller

    for cls in Logging, AsyncLogging:
        app = cls(__name__)
        app.secret_key = "k"
        app.before_request(lambda: calls.append("before"))

        @app.after_request
        async def after(response):
            calls.append("after")
            return response

        @app.route("/<int:id>")
        def view(id):
            calls.append("view")
            session["id"] = id
            return str(id)

        calls.clear()
        got = await Caller(app, driver).get("/3")
        assert got.text == "3"
        assert "session=" in got.headers["set-cookie"]
        assert calls == [
            *("match_request", "open_session", "preprocess_request", "before"),
            *("dispatch_request", "view", "make_response", "process_response"),
            *("save_session", "after"),
        ]
        app.workers.close()


async def test_a_request_that_match_request_refuses_has_no_view(driver: str):
    class Closed(Flask):
        def match_request(self):
            assert request.endpoint == "view"  # which the rules alone would say
            raise NotFound("Closed.")

    class AsyncClosed(Flask):
        async def match_request(self):
            assert request.endpoint == "view"
            raise NotFound("Closed.")

    from .conftest import Caller

    for cls in Closed, AsyncClosed:
        app = cls(__name__)

        @app.errorhandler(404)
        async def look(error):
            assert request.routing_exception is error
            matched = request.endpoint, request.view_args, request.url_rule
            assert matched == (None, None, None)
            return f"looked at: {error.description}", 404

        @app.route("/<int:id>")
        async def view(id):
            return "the view"

        got = await Caller(app, driver).get("/3")
        assert (got.status_code, got.text) == (404, "looked at: Closed.")
        app.workers.close()
