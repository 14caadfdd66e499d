"""The floor of each job: what it costs without any framework.

For some jobs that is a bare ASGI callable, for others the library that every
framework calls for the job, called alone.
"""

import asyncio
import json
from queue import SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

import jinja2
from itsdangerous import URLSafeTimedSerializer
from werkzeug.routing import Map, Rule

from .. import work
from ..driving import Call


async def answer(send: Any, body: bytes, content_type: bytes = b"text/html") -> None:
    """Send a whole response."""
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def bare_hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer as a bare ASGI callable."""
    if scope["type"] != "http":
        return await lifespan(receive, send)

    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/html; charset=utf-8"),
                (b"content-length", b"11"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"Hello World"})


async def lifespan(receive: Any, send: Any) -> None:
    """Start and stop without doing anything."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def bare_json(scope: Any, receive: Any, send: Any) -> None:
    """Call ``json.dumps`` in a bare ASGI callable."""
    await answer(send, json.dumps(work.RECORD).encode(), b"application/json")


async def bare_echo(scope: Any, receive: Any, send: Any) -> None:
    """Call ``json.loads`` and ``json.dumps`` in a bare ASGI callable."""
    message = await receive()
    record = json.loads(message["body"])
    await answer(send, json.dumps(record).encode(), b"application/json")


async def bare_form(scope: Any, receive: Any, send: Any) -> None:
    """Call ``urllib.parse.parse_qsl`` in a bare ASGI callable."""
    message = await receive()
    fields = dict(parse_qsl(message["body"].decode()))
    text = f"{fields['name']}, {fields['email']}, {fields['text']}"
    await answer(send, text.encode())


async def bare_stream(scope: Any, receive: Any, send: Any) -> None:
    """Send many chunks from a bare ASGI callable."""
    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in work.async_chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def bare_file(scope: Any, receive: Any, send: Any) -> None:
    """Read a small file on the loop, in a bare ASGI callable."""
    with open(work.site() / "static" / "style.css", "rb") as file:  # noqa: ASYNC230
        await answer(send, file.read(), b"text/css")


async def bare_wait(scope: Any, receive: Any, send: Any) -> None:
    """Wait as long as the view does, then answer."""
    if scope["type"] == "http":
        await asyncio.sleep(0.01)
    await bare_hello(scope, receive, send)


def hand_over() -> Any:
    """Return a bare ASGI callable that goes to a thread and back first."""
    calls: SimpleQueue[Any] = SimpleQueue()

    def work_off() -> None:
        while True:
            calls.get()()

    Thread(target=work_off, daemon=True).start()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        calls.put(lambda: loop.call_soon_threadsafe(done.set_result, None))
        await done
        await bare_hello(scope, receive, send)

    return app


async def bare_idle(scope: Any, receive: Any, send: Any) -> None:
    """Send one chunk, then nothing for good."""
    if scope["type"] != "http":
        return await lifespan(receive, send)

    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello\n", "more_body": True})
    await receive()
    await receive()


def build_url() -> Call:
    """Return Werkzeug's building of a path."""
    rules = Map([Rule("/user/<int:id>/posts/<slug>", endpoint="post")])
    adapter = rules.bind("example.com")
    return Call(lambda: adapter.build("post", {"id": 42, "slug": "hello"}))


def render() -> Call:
    """Return Jinja's rendering of the template."""
    loader = jinja2.FileSystemLoader(work.site() / "templates")
    template = jinja2.Environment(loader=loader, autoescape=True).get_template(
        "rows.html"
    )
    return Call(lambda: template.render(rows=work.ROWS))


def sign() -> Call:
    """Return the reading and writing of a signed session, signed as Flask does."""
    serializer = URLSafeTimedSerializer(
        work.SECRET, salt="cookie-session", signer_kwargs={"key_derivation": "hmac"}
    )
    cookie = serializer.dumps({"visits": 1})

    def read_and_write() -> str:
        session = serializer.loads(cookie)
        session["visits"] += 1
        serializer.dumps(session)
        return str(session["visits"])

    return Call(read_and_write)


def wsgi_hello(environ: Any, start_response: Any) -> list[bytes]:
    """Answer as a bare WSGI callable."""
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "11")]
    start_response("200 OK", headers)
    return [b"Hello World"]


def of(app: Any) -> Any:
    """Return a function that makes nothing but returns what there is."""
    return lambda: app


ASGI: dict[str, Any] = {
    "hello": of(bare_hello),
    "json": of(bare_json),
    "url_for": build_url,
    "template": render,
    "echo": of(bare_echo),
    "form": of(bare_form),
    "session": sign,
    "plain": hand_over,
    "stream": of(bare_stream),
    "static": of(bare_file),
    "wait": of(bare_wait),
    "idle": of(bare_idle),
}

WSGI: dict[str, Any] = {
    "hello": of(wsgi_hello),
    "url_for": build_url,
    "template": render,
    "session": sign,
}
