"""What holds for all header fields: whatever goes in, no line breaks go out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import starlette.exceptions
import starlette.responses as starlette_responses
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncflask import Flask, HTTPException, Response, abort, redirect, session
from asyncflask.exceptions import MethodNotAllowed
from asyncflask.testing import build_request

SPLIT = "\r\nX-Injected: yes"

#: any text, most of it with something in it that ends a line
EVIL = st.one_of(
    st.text(),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "a", "/", "text/html", "200 OK", "ü", "Lax", "x=y; "]),
        st.sampled_from(["\r\n", "\r", "\n", "\0", SPLIT, "\n\n", "\r\n\r\n<script>"]),
        st.sampled_from(["", "b", "; charset=utf-8", ": c", "€"]),
    ),
)


def field(x: str) -> dict[str, str]:
    return {"X-Field": x}


def after(change: Callable[[Any, str], Any]) -> Callable[[str], Any]:
    """Return what changes a response that is there already."""

    def door(x: str) -> Any:
        response = Response("body")
        change(response, x)
        return response

    return door


def asgi(x: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-field", x.encode("latin-1"))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return app


def wsgi(x: str) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-Field", x)])
        return [b""]

    return app


def refuse(error: Exception) -> Any:
    raise error


async def chunks() -> Any:
    yield b"chunk"


class Named(MethodNotAllowed):
    pass


DOORS: dict[str, Callable[[str], Any]] = {
    "headers, value": lambda x: Response("", headers=field(x)),
    "headers, name": lambda x: Response("", headers={x: "v"}),
    "headers, pairs": lambda x: Response("", headers=[("X-Field", x)]),
    "headers, list": lambda x: Response("", headers={"X-Field": ["a", x]}),
    "status": lambda x: Response("", status=x),
    "mimetype": lambda x: Response("", mimetype=x),
    "content_type": lambda x: Response("", content_type=x),
    "headers[x]": after(lambda r, x: r.headers.__setitem__("X-Field", x)),
    "headers[x], name": after(lambda r, x: r.headers.__setitem__(x, "v")),
    "headers.add": after(lambda r, x: r.headers.add("X-Field", x)),
    "headers.append": after(lambda r, x: r.headers.append("X-Field", x)),
    "headers.set": after(lambda r, x: r.headers.set("X-Field", x)),
    "headers.setdefault": after(lambda r, x: r.headers.setdefault("X-Field", x)),
    "headers.setdefault, name": after(lambda r, x: r.headers.setdefault(x, "v")),
    "headers.update": after(lambda r, x: r.headers.update(field(x))),
    "headers.update, name": after(lambda r, x: r.headers.update({x: "v"})),
    "headers.extend": after(lambda r, x: r.headers.extend(field(x))),
    "headers |=": after(lambda r, x: r.headers.__ior__(field(x))),
    "headers.add_vary": after(lambda r, x: r.headers.add_vary_header(x)),
    "replace_headers": after(lambda r, x: r.replace_headers(field(x))),
    "response.status": after(lambda r, x: setattr(r, "status", x)),
    "response.mimetype": after(lambda r, x: setattr(r, "mimetype", x)),
    "response.content_type": after(lambda r, x: setattr(r, "content_type", x)),
    "response.location": after(lambda r, x: setattr(r, "location", x)),
    "vary": after(lambda r, x: r.vary(x)),
    "cookie, name": after(lambda r, x: r.set_cookie(x)),
    "cookie, value": after(lambda r, x: r.set_cookie("c", x)),
    "cookie, expires": after(lambda r, x: r.set_cookie("c", expires=x)),
    "cookie, path": after(lambda r, x: r.set_cookie("c", path=x)),
    "cookie, domain": after(lambda r, x: r.set_cookie("c", domain=x)),
    "cookie, samesite": after(lambda r, x: r.set_cookie("c", samesite=x)),
    "delete_cookie, name": after(lambda r, x: r.delete_cookie(x)),
    "delete_cookie, path": after(lambda r, x: r.delete_cookie("c", path=x)),
    "delete_cookie, domain": after(lambda r, x: r.delete_cookie("c", domain=x)),
    "tuple, status": lambda x: ("", x),
    "tuple of two, headers": lambda x: ("", field(x)),
    "tuple of two, pairs": lambda x: ("", [("X-Field", x)]),
    "tuple, headers": lambda x: ("", 200, field(x)),
    "tuple, header name": lambda x: ("", 200, {x: "v"}),
    "tuple, mimetype": lambda x: ("", 200, None, x),
    "tuple, content_type": lambda x: ("", 200, None, None, x),
    "tuple, response, status": lambda x: (Response(""), x),
    "tuple, response, headers": lambda x: (Response(""), 200, field(x)),
    "tuple, json, mimetype": lambda x: ({"a": 1}, 200, None, x),
    "tuple, json, content_type": lambda x: ({"a": 1}, 200, None, None, x),
    "tuple, stream, headers": lambda x: (chunks(), 200, field(x)),
    "redirect": redirect,
    "abort, response": lambda x: abort(Response("", headers=field(x))),
    "error, headers": lambda x: refuse(HTTPException("", headers=field(x))),
    "error, name": lambda x: refuse(HTTPException("", headers={x: "v"})),
    "error, description": lambda x: abort(400, x),
    "error, allowed": lambda x: refuse(MethodNotAllowed(allowed=[x])),
    "error, returned": lambda x: HTTPException("", headers=field(x)),
    "error, subclass": lambda x: refuse(Named(allowed=[x])),
    "starlette": lambda x: starlette_responses.Response("", headers=field(x)),
    "starlette, name": lambda x: starlette_responses.Response("", headers={x: "v"}),
    "starlette, type": lambda x: starlette_responses.Response("", media_type=x),
    "starlette, redirect": lambda x: starlette_responses.RedirectResponse(x),
    "starlette, stream": lambda x: starlette_responses.StreamingResponse(
        chunks(), headers=field(x)
    ),
    "starlette, file": lambda x: starlette_responses.FileResponse(__file__, filename=x),
    "starlette, file type": lambda x: starlette_responses.FileResponse(
        __file__, media_type=x
    ),
    "starlette, error": lambda x: refuse(
        starlette.exceptions.HTTPException(400, "", headers=field(x))
    ),
    "starlette, tuple": lambda x: (
        starlette_responses.Response(""),
        200,
        field(x),
    ),
    "ASGI application": asgi,
    "WSGI application": wsgi,
}


def asgi_messages(app: Flask, scope: Any) -> list[Any]:
    """Return what an ASGI server is told in answer to a request without a body."""
    sent: list[Any] = []

    async def call() -> None:
        messages = [{"type": "http.request", "body": b"", "more_body": False}]
        over = asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if not message.get("more_body", True):
                over.set()

        await app(scope, receive, send)

    RUNNER.run(call())
    return sent


def serve_asgi(app: Flask, path: str) -> list[tuple[bytes, bytes]]:
    """Return the header fields that go to an ASGI server."""
    start = asgi_messages(app, build_request(path)[0])[0]
    assert isinstance(start["status"], int)
    return list(start["headers"])


def serve_wsgi(app: Flask, path: str) -> list[tuple[bytes, bytes]]:
    """Return the header fields that go to a WSGI server, and the status line."""
    said: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    }
    body = app.wsgi_app(environ, lambda *args: said.extend(args))
    try:
        for _ in body:
            pass
    finally:
        if hasattr(body, "close"):
            body.close()
    status, headers = said
    return [
        (b":status", status.encode("latin-1")),
        *((name.encode("latin-1"), text.encode("latin-1")) for name, text in headers),
    ]


RUNNER = asyncio.Runner()
SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


@pytest.fixture(scope="module", autouse=True)
def runner() -> Iterator[None]:
    yield
    RUNNER.close()


def fields_sent(server: str, app: Flask, path: str) -> list[tuple[bytes, bytes]]:
    """Return the fields of a response; none if the view was told of its mistake."""
    try:
        return SERVERS[server](app, path)
    except (ValueError, TypeError, LookupError) as exc:
        assert str(exc)  # noqa: PT017
        return []


def holds_a_break(fields: list[tuple[bytes, bytes]]) -> bool:
    return any(set(b"".join(pair)) & set(b"\r\n\0") for pair in fields)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("door", DOORS)
@settings(max_examples=settings.default.max_examples // 10)  # of each door
@given(x=EVIL)
@example(x=f"a{SPLIT}")
@example(x="a\0")
@example(x="a\n")
@example(x=f"404 Not Found{SPLIT}")
def test_no_line_break_goes_out_through_any_door(door, server, x):
    app = Flask(__name__)
    app.workers.close()

    @app.route("/")
    async def index():
        return DOORS[door](x)

    assert not holds_a_break(fields_sent(server, app, "/"))


#: what a door wants instead of "text"
DECENT = {
    "status": "200 OK",
    "response.status": "200 OK",
    "tuple, status": "200 OK",
    "tuple, response, status": "200 OK",
    "cookie, samesite": "Lax",
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("door", DOORS)
def test_every_door_lets_a_decent_text_through(door, server):
    app = Flask(__name__)

    @app.route("/")
    async def index():
        return DOORS[door](DECENT.get(door, "text"))

    assert SERVERS[server](app, "/")


SETTINGS = ["session_cookie_name", "session_cookie_path", "session_cookie_domain"]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", [*SETTINGS, "session_cookie_samesite", "mimetype"])
@settings(max_examples=settings.default.max_examples // 10)
@given(x=EVIL)
@example(x=f"a{SPLIT}")
def test_no_line_break_goes_out_through_a_setting(name, server, x):
    class Typed(Response):
        default_mimetype = "text/html"

    app = Flask(__name__)
    app.secret_key = "a secret for the tests"
    if name != "mimetype":
        setattr(app, name, x)

    @app.route("/")
    async def index():
        session["user"] = x
        if name == "mimetype":
            return type("Own", (Typed,), {"default_mimetype": x})("")
        return ""

    assert not holds_a_break(fields_sent(server, app, "/"))


@given(
    path=st.text(st.characters(exclude_categories=["Cs"])) | EVIL,
    query=st.binary(),
    host=st.binary() | st.just(b"localhost"),
    root=st.sampled_from(["", "/app", "/a\r\nb", "/\u20ac"]),
    form=st.sampled_from(["/folder/{}", "/text/{}", "/list/1", "/{}"]),
)
@example(path="x", query=b"a\r\nX-Injected: yes", host=b"a", root="", form="/folder/{}")
def test_nothing_in_a_request_breaks_the_header_of_a_redirect(
    path, query, host, root, form
):
    app = Flask(__name__)
    app.server_name = "localhost"
    app.add_url_rule("/folder/<path:x>/", "folder", view_func=redirect)
    app.add_url_rule("/text/<path:x>", "text", redirect_to="/to/<x>")
    app.add_url_rule("/list/", "list", defaults={"page": 1})
    app.add_url_rule("/list/<int:page>", "list")
    app.add_url_rule("/sub/", "sub", subdomain="<sub>")
    scope, _ = build_request("/")
    scope["path"] = root + form.format(path.lstrip("/"))
    scope["root_path"] = root
    scope["query_string"] = query
    scope["headers"] = [(b"host", host)]
    sent = asgi_messages(app, scope)
    assert sent[0]["status"] in (308, 400, 404)
    assert not holds_a_break(sent[0]["headers"])
