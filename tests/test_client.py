"""The synchronous test client."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from asyncflask import (
    Flask,
    flash,
    g,
    get_flashed_messages,
    redirect,
    request,
    session,
    url_for,
)


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "k"

    @app.route("/", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def echo():
        return {
            "method": request.method,
            "args": request.args.to_dict(),
            "form": request.form.to_dict(flat=False),
            "files": {k: v.read().decode() for k, v in request.files.items()},
            "data": request.data.decode(),
            "json": request.get_json(silent=True),
            "header": request.headers.get("x-a"),
            "host": request.host_url,
        }

    @app.route("/login")
    def login():
        session["user"] = "ann"
        flash("welcome")
        return redirect(url_for("home"))

    @app.route("/home")
    def home():
        return f"{session['user']} {get_flashed_messages()}"

    @app.route("/again", methods=["POST"])
    def again():
        return redirect("/", 307)

    @app.route("/loop")
    def loop():
        return redirect("/loop")

    @app.route("/away")
    def away():
        return redirect("http://elsewhere.org/")

    @app.route("/error")
    def error():
        raise ZeroDivisionError("on purpose")

    return app


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
def test_there_is_a_method_for_each_method(app, method):
    got = getattr(app.test_client(), method)("/?a=1")
    assert (got.status_code, got.status) == (200, "200 OK")
    assert (got.json["method"], got.json["args"]) == (method.upper(), {"a": "1"})
    assert (got.mimetype, got.content_type) == ("application/json",) * 2


def test_head_and_open(app):
    client = app.test_client()
    assert client.head("/").data == b""
    got = client.open("/", method="PUT", base_url="https://h:1/", headers={"X-A": "b"})
    assert (got.json["method"], got.json["header"]) == ("PUT", "b")
    assert got.json["host"] == "https://h:1/"


def test_bodies_of_all_kinds(app):
    client = app.test_client()
    assert client.post("/", data=b"raw").json["data"] == "raw"
    assert client.post("/", data="täxt").json["data"] == "täxt"
    form = client.post("/", data={"a": "1", "b": ["2", "3"]}).json
    assert form["form"] == {"a": ["1"], "b": ["2", "3"]}
    both = client.post("/", data={"a": "1", "f": (b"file", "f.txt")}).json
    assert (both["form"], both["files"]) == ({"a": ["1"]}, {"f": "file"})
    assert client.post("/", json=[1]).json["json"] == [1]
    assert client.get("/", query_string={"q": "ü"}).json["args"] == {"q": "ü"}
    with pytest.raises(TypeError, match="either data= or json="):
        client.post("/", data=b"", json=1)
    with pytest.raises(TypeError, match="pass a dict"):
        client.post("/", data=5)


def test_cookies_are_kept_and_redirects_followed(app):
    client = app.test_client()
    got = client.get("/login")
    assert (got.status_code, got.location) == (302, "/home")
    assert client.get("/home").text == "ann ['welcome']"
    got = client.get("/login", follow_redirects=True)
    assert got.text == "ann ['welcome']"
    assert [response.status_code for response in got.history] == [302]
    got = client.post("/again", data={"kept": "yes"}, follow_redirects=True)
    assert (got.json["method"], got.json["form"]) == ("POST", {"kept": ["yes"]})
    with pytest.raises(RuntimeError, match="looks like a loop"):
        client.get("/loop", follow_redirects=True)
    with pytest.raises(RuntimeError, match="leaves the application"):
        client.get("/away", follow_redirects=True)
    with pytest.raises(KeyError):
        app.test_client().get("/home").json  # noqa: B018 - a client of its own


def test_redirects_below_a_prefix_are_followed(app):
    client, base = app.test_client(), "http://h/app"
    got = client.get("/login", base_url=base, follow_redirects=True)
    assert got.text == "ann ['welcome']"


def test_errors_of_the_app_are_raised(app):
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        app.test_client().get("/error")


def test_plain_callables_run_in_the_calling_thread(app):
    db = sqlite3.connect(":memory:")
    db.execute("create table t (x)")

    @app.before_request
    def connect():
        g.db = db
        g.thread = threading.get_ident()

    @app.route("/write/<x>")
    def write(x):
        g.db.execute("insert into t values (?)", [x])
        return ""

    @app.route("/async")
    async def asynchronous():
        return str(g.thread == threading.get_ident())

    client = app.test_client()
    client.get("/write/a")
    assert db.execute("select * from t").fetchall() == [("a",)]
    assert client.get("/async").text == "False"
    assert app.workers.stats()["idle"] == 0
    db.close()


async def test_it_works_inside_a_running_loop(app):
    client = app.test_client()
    assert client.get("/login", follow_redirects=True).text == "ann ['welcome']"
    assert client.post("/", json=1).json["json"] == 1


def test_middleware_round_the_app_is_not_bypassed(app):
    inner = app.asgi_app

    async def middleware(scope, receive, send):
        async def marked(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-middle", b"1"))
            await send(message)

        await inner(scope, receive, marked)

    app.asgi_app = middleware
    assert app.test_client().get("/").headers["x-middle"] == "1"


def test_it_works_in_a_view_that_runs_on_its_own_loop(app):
    @app.route("/nested")
    async def nested():
        return app.test_client().get("/login", follow_redirects=True).text

    assert app.test_client().get("/nested").text == "ann ['welcome']"


def test_an_async_loader_can_be_waited_for_in_an_async_view():
    import jinja2

    class Loading(Flask):
        async def create_jinja_loader(self):
            return jinja2.DictLoader({"t": "loaded"})

    app = Loading(__name__)

    @app.route("/")
    async def view():
        from asyncflask import render_template

        return render_template("t")

    assert app.test_client().get("/").text == "loaded"


def test_it_serves_as_a_context_manager(app):
    with app.test_client() as client:
        assert client.get("/").status_code == 200
