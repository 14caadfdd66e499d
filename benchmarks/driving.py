"""Call applications as a server does, and take their answers.

Scopes, headers and messages are as uvicorn makes them: fresh objects for each
request, what a browser sends, a body in pieces, a ``receive`` that waits for
the client to go when the body is over.
"""

import asyncio
import contextvars
import io
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

#: what a browser sends with each request
BROWSER_HEADERS = {
    "host": "example.com",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101"
    " Firefox/140.0",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br, zstd",
    "connection": "keep-alive",
    "upgrade-insecure-requests": "1",
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "none",
    "cookie": "theme=dark; lang=en",
}

#: how much of a body a server passes on at a time
PIECE = 1 << 16


#: the number in the request whose answer is checked
NUMBER = 42


def numbers() -> Iterator[int]:
    """Yield the numbers for all others: the same for everybody, in no order."""
    choose = random.Random(NUMBER)
    while True:
        yield choose.randrange(1_000_000)


@dataclass
class Request:
    """What to ask an application for.

    :ivar path: where; ``{}`` in it stands for a number, another one each time.
    """

    path: str
    method: str = "GET"
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def all_headers(self) -> dict[str, str]:
        """Return the header fields, those of a browser included."""
        length = {"content-length": str(len(self.body))}
        announced = length if self.method == "POST" else {}
        return {**BROWSER_HEADERS, **announced, **self.headers}


@dataclass
class Answer:
    """What an application has answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class Call:
    """A function to be called alone, without any request.

    It is called in the context it was made in.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.context = contextvars.copy_context()

    def repeat(self, number: int) -> None:
        """Call it so many times."""
        self.context.run(self._repeat, number)

    def _repeat(self, number: int) -> None:
        function = self.function
        for _ in range(number):
            function()


# ------------------------------------------------------------------------ ASGI


class Exchange:
    """One request and its response, as uvicorn keeps them."""

    __slots__ = ("at", "complete", "gone", "pieces", "scope")

    def __init__(self, scope: dict[str, Any], pieces: Sequence[bytes]) -> None:
        self.scope = scope
        self.pieces = pieces
        self.at = 0
        self.complete = False
        self.gone: asyncio.Event | None = None

    async def receive(self) -> dict[str, Any]:
        """Give the next piece of the body, then wait for the end."""
        at = self.at
        if at < len(self.pieces):
            self.at = at + 1
            if at:  # a body is never there all at once
                await asyncio.sleep(0)
            more = self.at < len(self.pieces)
            return {"type": "http.request", "body": self.pieces[at], "more_body": more}

        if not self.complete:
            self.gone = self.gone or asyncio.Event()
            await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a message, and keep nothing of it."""
        is_body = message["type"] == "http.response.body"
        if is_body and not message.get("more_body", False):
            self.complete = True
            if self.gone is not None:
                self.gone.set()


class RecordedExchange(Exchange):
    """One that keeps the messages."""

    __slots__ = ("messages",)

    def __init__(self, scope: dict[str, Any], pieces: Sequence[bytes]) -> None:
        super().__init__(scope, pieces)
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        """Take a message and keep it."""
        self.messages.append(message)
        await super().send(message)

    def answer(self) -> Answer:
        """Return what was sent."""
        start, *rest = self.messages
        headers = {k.decode().lower(): v.decode() for k, v in start.get("headers", ())}
        body = b"".join(message.get("body", b"") for message in rest)
        return Answer(start["status"], headers, body)


def fresh(text: str) -> bytes:
    """Return new bytes, as a parser cuts them out of what came in."""
    return bytes(bytearray(text, "latin-1"))


def build_scope(request: Request, number: int = NUMBER) -> dict[str, Any]:
    """Return a scope, all of it new."""
    path = fresh(request.path.format(number))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "root_path": "",
        "headers": [(fresh(k), fresh(v)) for k, v in request.all_headers().items()],
        "state": {},
        "method": fresh(request.method).decode(),
        "path": path.decode(),
        "raw_path": path,
        "query_string": fresh(request.query),
    }


def cut(body: bytes) -> list[bytes]:
    """Return a body in the pieces it arrives in."""
    return [body[at : at + PIECE] for at in range(0, len(body), PIECE)] or [b""]


async def ask(app: Any, request: Request) -> Answer:
    """Ask an ASGI application once and return its answer."""
    exchange = RecordedExchange(build_scope(request), cut(request.body))
    await app(exchange.scope, exchange.receive, exchange.send)
    if not exchange.complete:
        raise AssertionError("The response has no end.")

    return exchange.answer()


#: the lifespans that have begun; they last as long as the loop
_lifespans: set[asyncio.Task[None]] = set()


async def start_up(app: Any) -> None:
    """Start an ASGI application, as a server does before the first request."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    asgi = {"version": "3.0", "spec_version": "2.0"}

    async def live() -> None:
        scope = {"type": "lifespan", "asgi": asgi, "state": {}}
        try:
            await app(scope, to_app.get, from_app.put)
        except Exception:  # that is how an application says it has no lifespan
            pass
        await from_app.put({"type": "over"})

    _lifespans.add(asyncio.create_task(live()))
    await to_app.put({"type": "lifespan.startup"})
    message = await from_app.get()
    if message["type"] == "lifespan.startup.failed":
        raise RuntimeError(f"{app!r} does not start: {message}")


# ------------------------------------------------------------------------ WSGI


def build_environ(request: Request, number: int = NUMBER) -> dict[str, Any]:
    """Return an environ as gunicorn makes it, all of it new."""
    path = request.path.format(number)
    environ = {
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "REQUEST_METHOD": fresh(request.method).decode(),
        "SCRIPT_NAME": "",
        "PATH_INFO": fresh(path).decode(),
        "QUERY_STRING": fresh(request.query).decode(),
        "RAW_URI": fresh(path).decode(),
    }
    for name, value in request.all_headers().items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = fresh(value).decode()
    return environ


def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
    """Take status and header fields, and keep nothing of them."""


def ask_wsgi(app: Any, request: Request) -> Answer:
    """Ask a WSGI application once and return its answer."""
    started: list[Any] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> None:
        started.append((status, headers))

    body = app(build_environ(request), start)
    content = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    status, headers = started[-1]
    return Answer(int(status[:3]), {k.lower(): v for k, v in headers}, content)
