"""An application with one of everything, which fails only where it means to."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import starlette.responses

from asyncflask import (
    Flask,
    Response,
    abort,
    flash,
    g,
    get_flashed_messages,
    redirect,
    render_template_string,
    render_template_string_async,
    request,
    session,
    url_for,
)
from asyncflask.exceptions import BadRequest, BuildError
from asyncflask.sessions import signer_for

SECRET = "a secret for the tests"
MODIFIED = 1_000_000_000


class Boom(Exception):
    """What the site raises on purpose."""


def write_files(folder: Path) -> None:
    """Make what the site serves."""
    files = {
        "static/small.txt": b"0123456789",
        "static/big.bin": bytes(range(256)) * 1200,
        "static/sub/a.css": b"a {}",
        "static/empty": b"",
        "secret": b"nobody is to see this",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (MODIFIED, MODIFIED))


def build(folder: Path, with_plain_hooks: bool) -> Flask:
    """Return the site."""
    app = Flask("nowhere")
    app.root_path = str(folder)
    app.secret_key = SECRET
    app.server_name = "example.com"
    app.max_content_length = 20_000
    app.max_form_parts = 20
    app.worker_threads = 4
    add_urls(app)
    add_bodies(app)
    add_state(app)
    add_streams(app, folder)
    add_guests(app)
    if with_plain_hooks:
        add_hooks(app)
    return app


def signed_session() -> bytes:
    """Return a session's cookie that the site takes."""
    app = Flask("nowhere")
    app.secret_key = SECRET
    value: str = signer_for(app).dumps({"user": "admin", "tags": ("a", b"b")})
    return value.encode()


async def show(**values: Any) -> dict[str, Any]:
    """Answer with what the URL says, and with a URL made of it."""
    url = url_for(request.endpoint, **values)
    return {"values": {k: str(v) for k, v in values.items()}, "url": url}


def show_plain(x: str) -> str:
    return x


def add_urls(app: Flask) -> None:
    for rule in (
        *("/", "/string/<x>", "/string/<string(minlength=2, maxlength=5):x>/"),
        *("/int/<int:x>", "/int/<int(signed=True):x>/signed", "/float/<float:x>"),
        *("/uuid/<uuid:x>", "/any/<any(about, 'a b', c):x>", "/path/<path:x>"),
        *("/mixed/<int:x>-<y>.html", "/edit/<path:x>/edit", "/folder/"),
        *("/deep/<a>/<b>/<int:c>/<path:d>/", "/digits/<int(fixed_digits=3):x>"),
    ):
        app.add_url_rule(rule, rule, view_func=show)
    app.add_url_rule("/page/", "page", show, defaults={"x": 1})
    app.add_url_rule("/page/<int:x>", "page", show)
    app.add_url_rule("/lenient", "lenient", show, strict_slashes=False)
    app.add_url_rule("/old/<x>", "old", redirect_to="/string/<x>")
    app.add_url_rule("/sub", "sub", show, subdomain="<user>")
    app.add_url_rule(
        "/options", "options", show, methods=["GET", "PUT"], provide_automatic_options=1
    )
    app.add_url_rule("/plain/<x>", "plain", show_plain)

    @app.route("/url")
    async def url():
        values = {k: v for k, v in request.args.items() if not k.startswith("_")}
        endpoint = values.pop("endpoint", "sub")
        try:
            return url_for(endpoint, _anchor=values.pop("anchor", None), **values)
        except (BuildError, UnicodeEncodeError):
            return "none"


def add_bodies(app: Flask) -> None:
    def form():
        files = [(f.filename, f.mimetype, f.read()) for f in request.files.values()]
        fields = request.form.multi_items()
        return {"fields": fields, "files": [str(file) for file in files]}

    async def async_form():
        return form()

    app.add_url_rule("/form", "form", async_form, methods=["POST"])
    app.add_url_rule("/form/plain", "form_plain", form, methods=["POST"])

    @app.route("/json", methods=["POST"])
    async def json():
        return {"got": repr(request.json)}

    @app.route("/raw", methods=["PUT", "POST"])
    async def raw():
        return request.get_data()

    @app.route("/up", methods=["POST"], stream_body=True)
    async def up():
        return str(sum([len(chunk) async for chunk in request.stream]))

    @app.route("/up/plain", methods=["POST"], stream_body=True)
    def up_plain():
        return str(sum(len(chunk) for chunk in itertools.islice(request.stream, 2)))

    @app.route("/everything", methods=["GET", "POST"])
    async def everything():
        names = (
            *("args", "values", "cookies", "headers", "mimetype", "mimetype_params"),
            *("content_length", "authorization", "accept_mimetypes", "is_json"),
            *("accept_charsets", "accept_encodings", "accept_languages", "url"),
            *("is_xhr", "user_agent", "referrer", "remote_addr", "full_path"),
        )
        said = {name: repr(getattr(request, name)) for name in names}
        said["environ"] = str(request.environ["PATH_INFO"])
        return said


def add_state(app: Flask) -> None:
    @app.route("/session", methods=["GET", "POST"])
    async def of_session():
        for name, value in request.form.items():
            session[name] = value[:100]
        return {"session": repr(dict(session)), "new": session.new}

    @app.route("/flash")
    async def flashed():
        flash(request.args.get("message", "")[:50])
        return {"messages": get_flashed_messages()}

    @app.route("/cookie")
    async def cookie():
        response = Response("")
        args = request.args
        try:
            response.set_cookie(args["name"], args["value"], path=args.get("path"))
        except ValueError as exc:
            raise BadRequest(str(exc)) from None
        return response

    @app.route("/header")
    async def header():
        try:
            return Response("", headers={request.args["name"]: request.args["value"]})
        except ValueError as exc:
            raise BadRequest(str(exc)) from None

    @app.route("/go")
    async def go():
        try:
            return redirect(request.args["to"])
        except ValueError as exc:
            raise BadRequest(str(exc)) from None

    @app.route("/template")
    async def template():
        return await render_template_string_async("{{ request.args }}", x=1)

    @app.route("/template/plain")
    def plain_template():
        return render_template_string("{{ request.args }}")

    @app.route("/abort/<int(min=400, max=599):code>")
    async def aborted(code):
        g.aborted = True
        abort(code if code < 500 else 418)

    @app.route("/boom")
    async def boom():
        raise Boom(request.full_path)

    @app.errorhandler(404)
    async def not_found(error):
        return f"nothing at {request.path!r}", 404


def add_streams(app: Flask, folder: Path) -> None:
    @app.route("/generator/<int(max=2000):count>")
    def generator(count):
        for number in range(count):
            yield f"{number} {request.path}\n"

    @app.route("/generator/async/<int(max=2000):count>")
    async def async_generator(count):
        for number in range(count):
            yield f"{number} {request.path}\n"

    @app.route("/file")
    async def file():
        path = folder / "static" / "small.txt"
        return starlette.responses.FileResponse(path, filename="a\u20ac.txt")

    @app.route("/starlette")
    async def from_starlette():
        async def chunks():
            yield b"a"
            yield b"b"

        return starlette.responses.StreamingResponse(chunks())


async def asgi_guest(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body, as an ASGI application does."""
    if scope["type"] != "http":
        return
    chunks, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = scope["path"].encode("utf-8", "replace") + b"".join(chunks)
    await send({"type": "http.response.body", "body": body})


def wsgi_guest(environ: Any, start_response: Any) -> list[bytes]:
    """Answer with the body, as a WSGI application does."""
    try:
        body = environ["wsgi.input"].read(10)
    except OSError:
        body = b"lost"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode("latin-1"), b"", body]


def add_guests(app: Flask) -> None:
    app.mount("/asgi", asgi_guest)
    app.mount("/wsgi", wsgi_guest)
    inner = Flask("nowhere")
    inner.static_path = None
    inner.max_content_length = 20_000

    @inner.route("/echo/<path:x>", methods=["GET", "POST"])
    def echo(x):
        return {"x": x, "root": request.script_root, "size": len(request.data)}

    app.mount("/inner", inner)

    @app.route("/returned/asgi", methods=["GET", "POST"])
    async def returned_asgi():
        return asgi_guest

    @app.route("/returned/wsgi", methods=["GET", "POST"])
    async def returned_wsgi():
        return wsgi_guest


def add_hooks(app: Flask) -> None:
    @app.before_request
    def before():
        g.endpoint = request.endpoint

    @app.after_request
    async def after(response):
        response.headers["X-Endpoint"] = "yes" if g.endpoint else "no"
        return response

    @app.teardown_request
    def teardown(exception):
        g.is_over = True
