"""Code as users write it, for type checkers only: nothing imports or runs it.

mypy --strict and pyright's strict mode take it as it stands, without a single
``ignore``. What must be refused is in ``wrong_code.py``.
"""

from __future__ import annotations

import asyncio
import io
import sqlite3
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    MutableMapping,
)
from datetime import timedelta
from typing import Any, assert_type
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx
import jinja2
import starlette.responses
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

import asyncflask
from asyncflask import (
    Flask,
    HTTPException,
    Markup,
    Request,
    Response,
    abort,
    current_app,
    escape,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    render_template,
    render_template_async,
    render_template_string,
    render_template_string_async,
    request,
    session,
    url_for,
)
from asyncflask.converters import BaseConverter, IntegerConverter
from asyncflask.datastructures import FileStorage, MultiDict
from asyncflask.debug import Debugger
from asyncflask.exceptions import BadRequest, NotFound
from asyncflask.sessions import Session
from asyncflask.testing import Client, ClientResponse

app = Flask(__name__)
app.secret_key = "a long random value"
app.secret_key_fallbacks = ["an older one"]
app.max_content_length = None
app.body_timeout = 5
app.view_timeout = 2.5
app.cancel_on_disconnect = True
app.permanent_session_lifetime = timedelta(days=7)
app.static_path = None
app.jinja_options = {"autoescape": False}


# --------------------------------------------------------------------- decorators


@app.route("/")
def index() -> str:
    return "Hello"


@app.route("/wait/<float:seconds>", methods=["GET", "POST"], view_timeout=10.0)
async def wait(seconds: float) -> dict[str, Any]:
    await asyncio.sleep(seconds)
    return {"waited": seconds}


@app.route("/tuple")
def with_status() -> tuple[str, int, dict[str, str]]:
    return "made", 201, {"X-Made": "yes"}


@app.route("/one")
@app.route("/two", endpoint="second", defaults={"page": 1})
def two_rules(page: int = 0) -> list[int]:
    return [page]


# A decorator hands back the very function: its type is not lost.
assert_type(index(), str)
assert_type(with_status(), tuple[str, int, dict[str, str]])


async def decorated_async() -> None:
    assert_type(await wait(0.5), dict[str, Any])


@app.before_request
def connect() -> None:
    g.db = sqlite3.connect(":memory:")


@app.before_request
async def check() -> Response | None:
    return None if "user" in session else redirect(url_for("login"))


@app.after_request
def mark(response: Response) -> Response:
    response.headers["X-Frame-Options"] = "DENY"
    response.headers.add("Link", "</style.css>; rel=preload")
    response.set_cookie("seen", "1", max_age=timedelta(days=1), samesite="Lax")
    response.vary("Accept")
    return response


@app.after_request
async def mark_async(response: Response) -> Response:
    response.status_code = 200
    response.status = "200 OK"
    return response


@app.teardown_request
def disconnect(exception: BaseException | None) -> None:
    g.pop("db").close()


@app.teardown_request
async def disconnect_async(exception: BaseException | None) -> None:
    await asyncio.sleep(0)


@app.errorhandler(404)
def not_found(error: HTTPException) -> tuple[str, int]:
    assert_type(error.code, int)
    return error.description or "nothing here", 404


@app.errorhandler(sqlite3.Error)
async def database_failed(error: sqlite3.Error) -> Response:
    return Response(f"{error}", 503, mimetype="text/plain")


@app.context_processor
def names() -> dict[str, Any]:
    return {"site": "example"}


@app.context_processor
async def more_names() -> dict[str, Any]:
    return {"user": session.get("user")}


@app.while_serving
async def pool() -> AsyncGenerator[None]:
    yield


@app.while_serving
async def another_pool() -> AsyncIterator[None]:
    yield


app.add_url_rule("/added", "added", lambda: "added", methods=["GET"])
app.add_url_rule("/later", "later")
app.view_functions["later"] = index
app.error_handlers[NotFound] = not_found


# ------------------------------------------------------------------ what is asked


@app.route("/asked", methods=["POST"])
def asked() -> dict[str, Any]:
    assert_type(request.args["q"], str)
    assert_type(request.args.get("q"), str | None)
    assert_type(request.args.get("q", ""), str)
    assert_type(request.args.get("page", 1, int), int)
    assert_type(request.args.get("page", type=int), int | None)
    assert_type(request.args.getlist("tag"), list[str])
    assert_type(request.args.getlist("id", int), list[int])
    assert_type(request.form.to_dict(), dict[str, str])
    assert_type(request.form.to_dict(flat=False), dict[str, list[str]])
    for name, value in request.form.items():
        assert_type(name, str)
        assert_type(value, str)
    for pair in request.form.items(multi=True):
        assert_type(pair, tuple[str, str])
    assert_type(request.form, MultiDict[str])
    assert_type(request.files["photo"], FileStorage)
    assert_type(request.files["photo"].read(), bytes)
    request.files["photo"].save("/tmp/photo")
    request.files["photo"].save(io.BytesIO())
    assert_type(request.data, bytes)
    assert_type(request.get_data(), bytes)
    assert_type(request.get_data(as_text=True), str)
    assert_type(request.values.get("q"), str | None)
    assert_type(request.headers["User-Agent"], str)
    assert_type(request.headers.get("Accept"), str | None)
    assert_type(request.headers.get("Accept", ""), str)
    assert_type(request.headers.get("Age", 0, int), int)
    assert_type(request.cookies.get("seen"), str | None)
    assert_type(request.content_length, int | None)
    assert_type(request.method, str)
    assert_type(request.path, str)
    assert_type(request.url, str)
    assert_type(request.remote_addr, str | None)
    assert_type(request.endpoint, str | None)
    assert_type(request.view_args, dict[str, Any] | None)
    assert_type(request.is_json, bool)
    assert_type(request.accept_mimetypes.best_match(["text/html"]), str | None)
    assert_type(request.accept_languages["en"], float)
    if request.authorization is not None:
        assert_type(request.authorization.username, str | None)
    if request.url_rule is not None:
        assert_type(request.url_rule.endpoint, str)
    body: dict[str, int] = request.json
    other: list[str] = request.get_json(force=True, silent=True)
    return {"body": body, "other": other, "agent": request.user_agent.string}


@app.route("/kept")
def kept() -> str:
    session["visits"] = session.get("visits", 0) + 1
    session.permanent = True
    assert_type(session.modified, bool)
    session.pop("old", None)
    g.user = "somebody"
    if "user" in g:
        name: str = g.get("user", "nobody")
        flash(f"Hello, {name}", "greeting")
    assert_type(get_flashed_messages(), list[str])
    assert_type(get_flashed_messages(with_categories=True), list[tuple[str, str]])
    assert_type(get_flashed_messages(category_filter=["error"]), list[str])
    return render_template("kept.html", name=Markup("<b>x</b>"), also=escape("<"))


@app.route("/render")
async def rendered() -> str:
    assert_type(render_template_string("{{ a }}", a=1), str)
    assert_type(await render_template_string_async("{{ a }}", a=1), str)
    return await render_template_async("page.html", entries=[1, 2])


@app.route("/go/<int:id>")
def go(id: int) -> Response:
    assert_type(url_for("go", id=1, _external=True, _anchor="x"), str)
    if id < 0:
        abort(404)
    if id == 0:
        abort(400, "zero is no id")
    if id == 1:
        abort(redirect("/"))
    if id == 2:
        raise BadRequest("two is none either")
    return redirect(url_for("index"), code=303)


def number_or_404(text: str) -> int:
    # abort() does not return, so that number is known below.
    try:
        number = int(text)
    except ValueError:
        abort(404)
    return number


@app.route("/made")
def made() -> Response:
    assert_type(jsonify(a=1), Response)
    assert_type(jsonify([1, 2]), Response)
    response = Response("text", status=201, headers={"X-A": "1"})
    response = Response([b"a", b"b"], "404 NOT FOUND", [("X-A", "1"), ("X-A", "2")])
    assert_type(response.headers["X-A"], str)
    assert_type(response.data, bytes)
    assert_type(response.get_data(as_text=True), str)
    assert_type(response.content_type, str | None)
    response.data = "new"
    response.mimetype = "text/plain"
    response.delete_cookie("seen")
    return response


@app.route("/app")
def about_the_app() -> str:
    assert_type(current_app.debug, bool)
    assert_type(asyncflask.current_app.root_path, str)
    with current_app.open_resource("schema.sql") as file:
        return file.read().decode()


# -------------------------------------------------------------------------- streams


@app.route("/plain-stream")
def plain_stream() -> Iterator[str]:
    yield from ("a", "b")


@app.route("/async-stream")
async def async_stream() -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.sleep(1)


@app.route("/stream-response")
def stream_response() -> Response:
    return Response(plain_stream(), mimetype="text/plain")


@app.route("/upload", methods=["PUT"], stream_body=True, max_content_length=1 << 30)
async def upload() -> dict[str, int]:
    size = 0
    async for chunk in request.stream:
        size += len(chunk)
    return {"size": size}


@app.route("/starlette")
async def from_starlette() -> starlette.responses.Response:
    return starlette.responses.PlainTextResponse("hello")


# ------------------------------------------------------------------------- subclasses


class OwnRequest(Request):
    """A request that knows its user."""

    @property
    def user(self) -> str:
        return self.headers.get("x-user", "nobody")


class OwnResponse(Response):
    """A response that is text."""

    default_mimetype = "text/plain"


class OwnSession(Session):
    """A session that is kept elsewhere."""

    id: str = ""


class PlainSite(Flask):
    """Every stage overridden by a plain method."""

    request_class = OwnRequest
    response_class = OwnResponse
    session_cookie_secure = True

    def match_request(self) -> tuple[str, dict[str, Any]]:
        endpoint, values = super().match_request()
        return endpoint, values

    def open_session(self, request: Request) -> OwnSession | None:
        return OwnSession(new=True)

    def save_session(self, session: OwnSession, response: Response) -> None:
        response.set_cookie("id", session.id)

    def preprocess_request(self) -> Any:
        return super().preprocess_request()

    def dispatch_request(self) -> Any:
        return super().dispatch_request()

    def make_response(self, rv: Any) -> Any:
        return super().make_response("" if rv is None else rv)

    def process_response(self, response: Response) -> Response:
        processed: Response = super().process_response(response)
        return processed

    def update_template_context(self, context: dict[str, Any]) -> None:
        context["site"] = self.package_name

    def create_jinja_loader(self) -> jinja2.BaseLoader:
        return jinja2.DictLoader({"index.html": "hello"})


class AsyncSite(Flask):
    """Every stage overridden by an async method."""

    async def match_request(self) -> tuple[str, dict[str, Any]]:
        endpoint, values = await super().match_request()
        return endpoint, values

    async def open_session(self, request: Request) -> Session | None:
        return None

    async def save_session(self, session: Session, response: Response) -> None:
        await super().save_session(session, response)

    async def preprocess_request(self) -> Any:
        return await super().preprocess_request()

    async def dispatch_request(self) -> Any:
        return await super().dispatch_request()

    async def make_response(self, rv: Any) -> Response:
        made: Response = await super().make_response(rv)
        return made

    async def process_response(self, response: Response) -> Response:
        processed: Response = await super().process_response(response)
        return processed

    async def update_template_context(self, context: dict[str, Any]) -> None:
        await super().update_template_context(context)

    async def create_jinja_loader(self) -> jinja2.BaseLoader:
        return jinja2.DictLoader({})


class ListConverter(BaseConverter):
    """``<list:names>``: words with plus signs between them."""

    regex = r"[^/]+(?:\+[^/]+)*"
    weight = 90

    def to_python(self, value: str) -> list[str]:
        return value.split("+")

    def to_url(self, value: Iterable[str]) -> str:
        return "+".join(value)


app.url_map.converters["list"] = ListConverter
app.url_map.converters["year"] = IntegerConverter


@app.route("/words/<list:words>/<uuid:key>")
def words(words: list[str], key: uuid.UUID) -> str:
    return f"{words} {key.hex}"


for rule in app.url_map:
    assert_type(rule.endpoint, str)


# ------------------------------------------------------------------------ middleware


class Prefixed:
    """Middleware around an ASGI application."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "root_path": self.prefix}, receive, send)


class WSGIPrefixed:
    """Middleware around a WSGI application."""

    def __init__(self, app: Callable[..., Iterable[bytes]], prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ["SCRIPT_NAME"] = self.prefix
        return self.app(environ, start_response)


app.asgi_app = Prefixed(app.asgi_app, "/prefix")
app.asgi_app = GZipMiddleware(app.asgi_app)
app.asgi_app = Debugger(app)
app.wsgi_app = WSGIPrefixed(app.wsgi_app, "/prefix")

app.mount("/starlette", Starlette())
app.mount("/old", WSGIPrefixed(app.wsgi_app, "/old"))


# -------------------------------------------------------------- serving and testing

an_asgi_application: ASGIApp = app
Starlette().mount("/flask", app)


def serve() -> None:
    uvicorn.run(app, port=8000)
    uvicorn.Config(app)
    app.run(port=0, debug=True, use_reloader=False, extra_files=["settings.ini"])
    with make_server("", 0, app) as server:
        server.handle_request()


def test_index() -> None:
    with app.test_client() as client:
        assert_type(client, Client)
        got = client.post("/", data={"a": 1}, headers={"X-A": "1"})
        assert_type(got, ClientResponse)
        assert_type(got.status_code, int)
        assert_type(got.data, bytes)
        assert_type(got.text, str)
        assert_type(got.get_data(as_text=True), str)
        assert_type(got.headers["Content-Type"], str)
        assert_type(got.headers.get("Location"), str | None)
        assert_type(got.history, list[ClientResponse])
        answer: dict[str, int] = client.get("/", follow_redirects=True).json
        assert answer


def test_by_hand(scope: MutableMapping[str, Any]) -> None:
    with app.test_request_context("/?q=1", method="POST", json={"a": 1}) as ctx:
        assert_type(ctx.request, Request)
        assert_type(ctx.session, Session)
        app.preprocess_request()
        response: Response = app.make_response(app.dispatch_request())
        assert response.status_code == 200
    with app.request_context(scope):
        assert url_for("index") == "/"


async def test_async() -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).status_code == 200
    async with app.test_request_context("/"):
        await app.preprocess_request()
        response: Response = await app.make_response("text")
        assert response.data == b"text"


async def by_protocol(scope: Scope, receive: Receive, send: Send) -> None:
    assert_type(app(scope, receive, send), Awaitable[None])
    await app(scope, receive, send)


def by_environ(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    return app(environ, start_response)
