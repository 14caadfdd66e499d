"""What is cleaned up when a request ends: all of it, in one order, on every exit.

The body of the response is closed, the teardown functions run, the uploaded
files are closed, and the context is released: its worker is given back, and
nothing holds it any more. Each exit is a test, and its cells are one for each
server (and loop), kind of view, of body, and of teardown function.

To add an exit, write a test that takes a ``cell``: say what its application does
and what its server, :meth:`~Cell.serve` it, and :meth:`~Cell.check` what there
was to be cleaned up.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import itertools
import logging
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from asyncflask import Flask, _request_ctx_stack, receiving, request
from asyncflask.testing import build_request

#: seconds after which something that was to happen has not
PATIENCE = 20
CHUNK = b"x" * 100
FILE = {"file": (b"y" * 1000, "file.bin")}


class Trouble(Exception):
    """What goes wrong on purpose."""


# ------------------------------------------------------------------------- the record


class Record:
    """What happens to a request, in order, each time that it happens.

    What ends without a word is looked at whenever something else happens.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self._quiet: list[tuple[str, Callable[[], bool]]] = []

    def note(self, event: str) -> None:
        self.look()
        self.events.append(event)

    def watch(self, event: str, is_over: Callable[[], bool]) -> None:
        self._quiet.insert(0, (event, is_over))  # the context is to be the last

    def look(self) -> None:
        for event, is_over in list(self._quiet):
            if is_over():
                self._quiet.remove((event, is_over))
                self.events.append(event)


class Upload(tempfile.SpooledTemporaryFile[bytes]):
    """An uploaded file that says when it is closed."""

    def __init__(self, record: Record, **options: Any) -> None:
        self.record = record
        super().__init__(**options)

    def close(self) -> None:
        self.record.note("file closed")
        super().close()

    def __del__(self) -> None:
        """Say nothing: nobody has closed it."""


# -------------------------------------------------------------------------- the bodies


class Chunks:
    """An iterator that says when it is closed."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.chunks = cell.chunks()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        self.cell.record.note("body closed")
        self.cell.meet("close")
        self.chunks.close()
        self.cell.fail("close")


class AsyncChunks:
    """The same, async."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.chunks = cell.async_chunks()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self.chunks)

    async def aclose(self) -> None:
        self.cell.record.note("body closed")
        try:
            await self.cell.meet_async("close")
        finally:
            await self.chunks.aclose()
        self.cell.fail("close")


class Lines:
    """No iterator itself: who asks for one gets it."""

    def __init__(self, cell: Cell) -> None:
        self.body = Chunks(cell)
        self.close = self.body.close

    def __iter__(self) -> Iterator[bytes]:
        return self.body.chunks


class AsyncLines:
    """The same, async."""

    def __init__(self, cell: Cell) -> None:
        self.body = AsyncChunks(cell)
        self.aclose = self.body.aclose

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.body.chunks


class File(io.BufferedReader):
    """An open file that says when it is closed."""

    def __init__(self, cell: Cell) -> None:
        self.record = cell.record
        super().__init__(io.FileIO(__file__))

    def close(self) -> None:
        self.record.note("body closed")
        super().close()

    def __del__(self) -> None:
        """Say nothing: nobody has closed it."""


def generator(cell: Cell) -> Iterator[bytes]:
    """Return a generator; before its first step it is closed without a word."""
    made = cell.chunks()
    cell.record.watch("body closed", lambda: made.gi_frame is None)
    return made


def async_generator(cell: Cell) -> AsyncIterator[bytes]:
    """Return an async generator; it is the same with them."""
    made = cell.async_chunks()
    cell.record.watch("body closed", lambda: made.ag_frame is None)
    return made


def application(cell: Cell) -> Any:
    """Return an ASGI application that says when it has ended."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-type", b"text/plain")]
        start = {"type": "http.response.start", "status": 200, "headers": fields}
        body = {"type": "http.response.body", "more_body": True}
        try:
            await send(start)
            async with aclosing(cell.async_chunks()) as chunks:
                async for chunk in chunks:
                    await send({**body, "body": chunk})
            await send({**body, "body": b"", "more_body": False})
        finally:
            cell.record.note("body closed")

    return asgi


BODIES: dict[str, Callable[[Cell], Any]] = {
    "text": lambda cell: "text",
    "generator": generator,
    "iterator": Chunks,
    "lines": lambda cell: cell.app.response_class(Lines(cell)),
    "file": File,
    "async generator": async_generator,
    "async iterator": AsyncChunks,
    "async lines": lambda cell: cell.app.response_class(AsyncLines(cell)),
    "application": application,
}
STREAMS = tuple(body for body in BODIES if body not in ("text", "application"))
#: those that can do something before they are at their end
LONG = tuple(body for body in STREAMS if body != "file")
PLAIN = tuple(body for body in LONG if not body.startswith("async"))
#: those that do something when they are closed
CLOSING = tuple(body for body in LONG if "generator" not in body)


# --------------------------------------------------------------------------- the cells


class Cell:
    """One request: its application, its server, and what happens to it.

    :ivar respond: what the view does; by default it returns the body.
    """

    method = "POST"
    status: Any = 200
    #: where code waits until the server has done something
    stops = ""
    #: what the server does there: "leave" for its client, "cancel", or "wait"
    act = ""
    #: True for async code that stops for good, until it is cancelled
    is_stuck = False
    #: True for a body without an end
    is_endless = False
    #: True for a body that raises when its first chunk is sent
    is_broken = False
    error: type[BaseException] = Trouble
    #: what raises when it is done
    failing = ""
    #: the form that is sent
    data: Any = FILE
    #: True when the view reads the body as it comes in
    is_unread = False
    path = "/"
    #: called when the response starts
    on_start: Callable[[], object] = bool
    #: the type of the first message that the server does not send but fails
    refuses = ""
    #: the number of chunks that a WSGI server asks for before it closes the body
    asks: int | None = None
    #: True once all that is looked at is over
    is_over = False
    #: what came of it: a status, or the name of an exception
    outcome: Any = None
    _was_lent = False

    def __init__(self, server: str, view: str, body: str, around: str) -> None:
        self.view, self.body = view, body
        self.teardown = around.partition(" teardown")[0]
        self.is_upload = around.endswith("upload")
        self.app: Flask = Flask(__name__)
        self.record = Record()
        #: what the teardown functions are told
        self.told: list[str] = []
        self.here, self.go = threading.Event(), threading.Event()
        self.server: Any = WSGI(self) if server == "wsgi" else ASGI(self, server)
        self._context: Any = None

    # ------------------------------------------------------------ the application

    def prepare(self) -> None:
        """Add to the application what every cell has."""

        def view() -> Any:
            return self.respond()

        app = self.app
        reader = self.read if self.view == "def" else self.read_async
        shown = reader if self.is_unread else self.made(view)
        options = {"methods": ["GET", "POST"], "stream_body": self.is_unread}
        app.add_url_rule("/", "view", shown, **options)
        app.add_url_rule("/def", "def", lambda: "again")
        app.add_url_rule("/async", "async", self.again)
        for number in "12" if self.teardown else "":
            app.teardown_request(self.made(self.torn(number), self.teardown))
        self.record.watch("context released", self.has_given_back)

    def respond(self) -> Any:
        return BODIES[self.body](self), self.status

    async def again(self) -> str:
        return "again"

    def read(self) -> str:
        self.see()
        return str(sum(map(len, request.stream)))

    async def read_async(self) -> str:
        self.see()
        return str(sum([len(chunk) async for chunk in request.stream]))

    def torn(self, number: str) -> Callable[..., Any]:
        def teardown(exc: BaseException | None) -> None:
            self.record.note(f"teardown {number}")
            self.told.append(name_of(exc))
            self.fail(f"teardown {number}")

        return teardown

    def fail(self, place: str) -> None:
        if place == self.failing:
            raise Trouble

    def made(self, function: Callable[..., Any], kind: str = "") -> Callable[..., Any]:
        """Return a function of the kind of the view, or of another."""

        @functools.wraps(function)
        def plain(*args: Any) -> Any:
            if self.is_over:
                return args[0] if args else None
            self.see()
            self.meet(function.__name__)
            rv = function(*args)
            self.meet(f"after {function.__name__}")
            return rv

        async def asynchronous(*args: Any) -> Any:
            if self.is_over:
                return args[0] if args else None
            self.see()
            await anyio.lowlevel.checkpoint()
            await self.meet_async(function.__name__)
            rv = function(*args)
            await self.meet_async(f"after {function.__name__}")
            return rv

        return plain if (kind or self.view) == "def" else asynchronous

    def see(self) -> None:
        """Remember the context, as long as somebody else does."""
        self._context = weakref.ref(_request_ctx_stack.top)
        self.record.look()

    def has_given_back(self) -> bool:
        is_lent = self.app.workers.stats()["lent"] > 0
        self._was_lent = self._was_lent or is_lent
        return self._was_lent and not is_lent

    def chunks(self) -> Iterator[bytes]:
        yield CHUNK
        self.meet("chunk")
        yield self.another()
        while self.is_endless:
            yield CHUNK

    async def async_chunks(self) -> AsyncIterator[bytes]:
        yield CHUNK
        await self.meet_async("chunk")
        yield self.another()
        while self.is_endless:
            yield CHUNK

    def another(self) -> bytes:
        if self.is_broken:
            raise self.error
        return CHUNK

    def told_once(self) -> str:
        """Return what all teardown functions were told, whatever it was."""
        return self.told[0] if self.told else ""

    # ------------------------------------------------------------------- meetings

    def meet(self, place: str) -> None:
        """Wait in plain code until the server has done what it is to do here."""
        if place == self.stops and not self.here.is_set():
            self.here.set()
            assert self.go.wait(PATIENCE)

    async def meet_async(self, place: str) -> None:
        """Wait in async code, until then or until it is cancelled."""
        if place == self.stops and not self.here.is_set():
            self.here.set()
            await self.server.go.wait()

    # ------------------------------------------------------------ before and after

    def serve(self) -> None:
        """Serve the request, and others after it."""
        self.prepare()
        self.server.run()

    def check(self, *before: str, outcome: Any = 200, told: str = "") -> None:
        """Compare what happened with what was to.

        :param before: what happens before the teardown functions run.
        """
        if self._context is None or self._context() is not None:
            gc.collect()
        self.record.look()
        if "context released" not in self.record.events:
            self.record.note("context released")
        torn = ["teardown 2", "teardown 1"] if self.teardown else []
        files = ["file closed"] if self.is_upload and not self.is_unread else []
        assert self.record.events == [*before, *torn, *files, "context released"]
        assert self.app.workers.stats()["lent"] == 0
        assert self._context is None or self._context() is None
        assert self.outcome == outcome
        assert self.told == [told or name_of(None)] * len(torn)


def name_of(exc: BaseException | None) -> str:
    """Return the name of an exception; that of a cancellation is not trio's."""
    name = type(exc).__name__
    return "CancelledError" if name == "Cancelled" else name


# ------------------------------------------------------------------------- the servers


class ASGI:
    """An ASGI server for one request, which does everything when it is told to."""

    def __init__(self, cell: Cell, loop: str) -> None:
        self.cell, self.loop = cell, loop
        self.has_ended = False
        self.cancel: Callable[[], object] = bool

    def run(self) -> None:
        backend = "trio" if self.loop == "trio" else "asyncio"
        anyio.run(self.serve, backend=backend)

    async def serve(self) -> None:
        cell = self.cell
        data = cell.data if cell.is_upload else None
        method = cell.method if cell.is_upload or cell.method != "POST" else "GET"
        scope, body = build_request(cell.path, method=method, data=data)
        half = len(body) // 2
        self.incoming = [body[:half], body[half:]] if half else []
        self.gone, self.go = anyio.Event(), anyio.Event()
        await self.play(scope)
        cell.is_over = True
        cell.app.cancel_on_disconnect, cell.app.view_timeout = False, None
        for path in "/def", "/async":
            assert await self.answer(path) == b"again"

    async def play(self, scope: Any) -> None:
        if self.loop == "asyncio":
            task = asyncio.create_task(self.call(scope))
            self.cancel = task.cancel
            await self.meeting()
            await asyncio.wait([task])
            self.cancel = bool  # it would hold the task, which holds its exception
            return

        async def call() -> None:
            with anyio.CancelScope() as within:
                self.cancel = within.cancel
                await self.call(scope)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await self.meeting()

    async def meeting(self) -> None:
        """Do what there is to do where the application stops for it."""
        cell = self.cell
        if not cell.stops:
            return

        await anyio.to_thread.run_sync(cell.here.wait, PATIENCE)
        assert not self.has_ended, "it never got there"
        if cell.act == "wait":
            return

        if cell.act == "cancel":
            self.cancel()
        else:
            self.gone.set()
        cell.go.set()
        if not cell.is_stuck and (cell.act == "cancel" or cell.stops != "chunk"):
            self.go.set()  # otherwise it waits for ever

    async def call(self, scope: Any) -> None:
        cell = self.cell
        try:
            await cell.app(scope, self.receive, self.send)
        except BaseException as exc:
            cell.outcome = name_of(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self.has_ended = True
            cell.here.set()
            assert _request_ctx_stack.top is None

    async def receive(self) -> Any:
        await anyio.lowlevel.checkpoint()
        if self.incoming and (self.cell.stops != "uploading" or len(self.incoming) > 1):
            body = self.incoming.pop(0)
            more = bool(self.incoming)
            return {"type": "http.request", "body": body, "more_body": more}

        await self.cell.meet_async("uploading")
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if message["type"] == self.cell.refuses:
            raise OSError("the client has gone")

        if message["type"] == "http.response.start":
            self.cell.outcome = message["status"]
            self.cell.on_start()
        if message.get("body"):
            await self.cell.meet_async("send")

    async def answer(self, path: str) -> bytes:
        got = []

        async def send(message: Any) -> None:
            got.append(message.get("body", b""))

        await self.cell.app(build_request(path)[0], self.receive, send)
        return b"".join(got)


class WSGI:
    """A WSGI server for one request."""

    go: Any = None

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def run(self) -> None:
        cell = self.cell
        data = cell.data if cell.is_upload else None
        method = cell.method if cell.is_upload or cell.method != "POST" else "GET"
        scope, body = build_request(cell.path, method=method, data=data)
        try:
            self.play(self.environ(cell.path, method, dict(scope["headers"]), body))
        except BaseException as exc:
            cell.outcome = name_of(exc)
        assert _request_ctx_stack.top is None
        cell.is_over = True
        cell.asks = None
        for path in "/def", "/async":
            said = lambda status, fields: None  # noqa: E731
            assert list(cell.app(self.environ(path, "GET", {}, b""), said)) == [
                b"again"
            ]

    def environ(
        self, path: str, method: str, fields: dict[bytes, bytes], body: bytes
    ) -> dict[str, Any]:
        environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
        environ |= {"SCRIPT_NAME": "", "QUERY_STRING": ""}
        environ["CONTENT_TYPE"] = fields.get(b"content-type", b"text/plain").decode()
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = Incoming(self.cell, body)
        setup_testing_defaults(environ)
        return environ

    def play(self, environ: dict[str, Any]) -> None:
        cell = self.cell
        chunks = validator(cell.app)(environ, self.start_response)
        try:
            for _ in itertools.islice(chunks, cell.asks):
                pass
        finally:
            chunks.close()

    def start_response(self, status: str, fields: Any, exc_info: Any = None) -> Any:
        if self.cell.refuses:
            raise OSError("the client has gone")
        self.cell.outcome = int(status[:3])
        self.cell.on_start()
        return pytest.fail


class Incoming(io.BytesIO):
    """A body that breaks off in its middle, if the cell stops there."""

    def __init__(self, cell: Cell, body: bytes) -> None:
        super().__init__(body)
        self.cell = cell

    def read(self, size: int = -1) -> bytes:
        half = len(self.getvalue()) // 2
        if self.cell.stops != "uploading":
            return super().read(size)
        if self.tell() < half:
            return super().read(min(size, half))
        raise SystemExit if self.cell.act == "cancel" else ConnectionResetError


# --------------------------------------------------------------------------- the table

LOOPS = ("asyncio", "trio")
ALL = (*LOOPS, "wsgi")
#: asyncio's own cancellation comes once, anyio's again and again
CANCELLING = ("asyncio", "anyio", "trio")
UPLOADS = ("def teardown, upload", "async def teardown, upload")
AROUND = (*UPLOADS, "")


def cells(
    servers: tuple[str, ...] = ALL,
    bodies: tuple[str, ...] = ("text",),
    views: tuple[str, ...] = ("def", "async def"),
    around: tuple[str, ...] = AROUND,
) -> Any:
    """Parametrise a test with a cell for each combination.

    With many bodies, what is around them changes from cell to cell, so that each
    two of a server, a view, a body and what is around it meet somewhere.
    """
    combinations: list[tuple[str, ...]] = list(
        itertools.product(servers, views, bodies, around)
    )
    if len(bodies) > 1:
        combinations = [
            (server, view, body, around[(i + j + k) % len(around)])
            for i, server in enumerate(servers)
            for j, view in enumerate(views)
            for k, body in enumerate(bodies)
        ]
    if "application" in bodies:  # it could not read an upload once more
        combinations = [
            (*rest, body, around.removesuffix(", upload" * (body == "application")))
            for *rest, body, around in combinations
        ]
    ids = [", ".join(filter(None, parts)) for parts in combinations]
    return pytest.mark.parametrize("cell", combinations, ids=ids, indirect=True)


@pytest.fixture
def cell(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cell]:
    cell = Cell(*request.param)
    upload = functools.partial(Upload, cell.record)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", upload)
    # What is logged with its traceback would be held by pytest.
    monkeypatch.setattr(logging.getLogger("asyncflask"), "disabled", True)
    yield cell
    cell.app.workers.close()


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> Iterator[None]:
    """Keep what was there before out of the way of the collector."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# -------------------------------------------------------------- it ends as it should


@cells(bodies=tuple(BODIES))
def test_success(cell: Cell):
    cell.serve()
    cell.check(*closed(cell))


def closed(cell: Cell) -> list[str]:
    return [] if cell.body == "text" else ["body closed"]


@cells(bodies=(*STREAMS, "application"))
def test_a_head_request_for_a_stream(cell: Cell):
    cell.method = "HEAD"
    cell.serve()
    cell.check("body closed")


@cells(bodies=STREAMS)
@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(cell: Cell, status: int):
    cell.status = status
    cell.serve()
    cell.check("body closed", outcome=status)


@cells(bodies=STREAMS)
def test_a_hook_replaces_the_response(cell: Cell):
    @cell.app.after_request
    @cell.made
    def after(response: Any) -> Any:
        return cell.app.response_class(b"another")

    cell.serve()
    cell.check("body closed")


@cells(bodies=STREAMS)
def test_a_hook_replaces_the_body(cell: Cell):
    @cell.app.after_request
    @cell.made
    def after(response: Any) -> Any:
        response.data = b"another"
        return response

    cell.serve()
    cell.check("body closed")


@cells(bodies=STREAMS)
def test_a_hook_replaces_a_stream_by_a_stream(cell: Cell):
    @cell.app.after_request
    @cell.made
    def after(response: Any) -> Any:
        return cell.app.make_response(BODIES[cell.body](cell))

    cell.serve()
    cell.check("body closed", "body closed")


@cells(bodies=STREAMS)
def test_one_hook_replaces_what_another_has_put_in_place(cell: Cell):
    for _ in range(2):

        @cell.app.after_request
        @cell.made
        def after(response: Any) -> Any:
            return cell.app.make_response(BODIES[cell.body](cell))

    cell.serve()
    cell.check(*["body closed"] * 3)


@cells(bodies=STREAMS)
def test_a_hook_answers_in_place_of_the_view(cell: Cell):
    @cell.app.before_request
    @cell.made
    def before() -> Any:
        return BODIES[cell.body](cell)

    cell.respond = pytest.fail
    cell.serve()
    cell.check("body closed")


# ------------------------------------------- an exception before the response starts


@cells()
def test_before_request_raises(cell: Cell):
    @cell.app.before_request
    @cell.made
    def before() -> None:
        raise Trouble

    cell.serve()
    cell.check(outcome="Trouble", told="Trouble")


@cells()
def test_the_view_raises(cell: Cell):
    cell.respond = trouble
    cell.serve()
    cell.check(outcome="Trouble", told="Trouble")


def trouble() -> None:
    raise Trouble


@cells(bodies=("text", *STREAMS))
def test_the_view_raises_and_a_handler_answers(cell: Cell):
    @cell.app.errorhandler(Trouble)
    @cell.made
    def handle(exc: Trouble) -> Any:
        return BODIES[cell.body](cell), 500

    cell.respond = trouble
    cell.serve()
    cell.check(*closed(cell), outcome=500)


@cells()
def test_the_view_returns_no_response(cell: Cell):
    cell.respond = lambda: None
    cell.serve()
    cell.check(outcome="TypeError", told="TypeError")


@cells(bodies=STREAMS)
def test_make_response_refuses_what_is_around_the_body(cell: Cell):
    cell.status = "no status"
    cell.serve()
    cell.check("body closed", outcome="ValueError", told="ValueError")


@cells(bodies=STREAMS)
def test_an_overridden_make_response_raises(cell: Cell):
    def refuse(rv: Any) -> Any:
        if cell.is_over:
            return cell.app.response_class(rv)
        Flask.make_response(cell.app, rv)
        raise Trouble

    async def refuse_async(rv: Any) -> Any:
        return refuse(rv)

    overriding = refuse if cell.view == "def" else refuse_async
    cell.app.make_response = overriding
    cell.serve()
    cell.check("body closed", outcome="Trouble", told="Trouble")


@cells(bodies=("text", *STREAMS))
def test_after_request_raises(cell: Cell):
    @cell.app.after_request
    @cell.made
    def after(response: Any) -> Any:
        raise Trouble

    cell.serve()
    cell.check(*closed(cell), outcome="Trouble", told="Trouble")


@cells(bodies=tuple(BODIES))
def test_the_server_refuses_the_header(cell: Cell):
    cell.refuses = "http.response.start"
    cell.serve()
    failure = "OSError" if heeds(cell) else ""
    cell.check(*closed(cell), outcome=failure or None, told=failure)


def heeds(cell: Cell) -> bool:
    """Say whether it is no sign of the client's leaving that the server fails."""
    return isinstance(cell.server, WSGI) or cell.body == "application"


# -------------------------------------------------------- an exception after its start


@cells(bodies=(*LONG, "application"))
def test_the_body_raises(cell: Cell):
    cell.is_broken = True
    cell.serve()
    cell.check("body closed", outcome="Trouble", told="Trouble")


@cells(LOOPS, bodies=tuple(BODIES))
def test_the_server_refuses_a_chunk(cell: Cell):
    cell.refuses = "http.response.body"
    cell.serve()
    if heeds(cell):
        cell.check(*closed(cell), outcome="OSError", told="OSError")
    else:
        cell.check(*closed(cell))


# ------------------------------------------------------------------ the client leaves


@cells(LOOPS, around=UPLOADS)
def test_the_client_leaves_while_uploading(cell: Cell):
    cell.stops, cell.act = "uploading", "leave"
    cell.respond = pytest.fail
    cell.serve()
    cell.check(outcome=None)


@cells(("wsgi",), around=UPLOADS)
def test_under_wsgi_the_client_leaves_while_uploading(cell: Cell):
    cell.stops, cell.act = "uploading", "leave"
    cell.respond = pytest.fail
    cell.serve()
    cell.check(outcome=400)


@cells(LOOPS, bodies=("text", *STREAMS))
def test_the_client_leaves_while_the_view_runs(cell: Cell):
    cell.stops, cell.act = "view", "leave"
    cell.is_endless = True
    cell.serve()
    cell.check(*closed(cell))


@cells(LOOPS, bodies=STREAMS)
def test_the_client_leaves_while_a_chunk_is_sent(cell: Cell):
    cell.stops, cell.act = "send", "leave"
    cell.is_endless = True
    cell.serve()
    cell.check("body closed")


@cells(LOOPS, bodies=LONG)
def test_the_client_leaves_while_a_chunk_is_made(cell: Cell):
    cell.stops, cell.act = "chunk", "leave"
    cell.is_endless = True
    cell.serve()
    cell.check("body closed")


@cells(("wsgi",), bodies=(*STREAMS, "application"))
@pytest.mark.parametrize("count", [0, 1, 2])
def test_under_wsgi_the_client_leaves_after_some_chunks(cell: Cell, count: int):
    cell.is_endless, cell.asks = True, count
    cell.serve()
    cell.check("body closed")


@cells(LOOPS, bodies=("text", *STREAMS))
def test_the_client_leaves_while_a_view_runs_that_minds(cell: Cell):
    cell.app.cancel_on_disconnect = cell.is_stuck = True
    cell.stops, cell.act = "view", "leave"
    cell.serve()
    before = closed(cell) if cell.view == "def" else []  # a plain one goes on
    cell.check(*before, outcome=None, told="ClientDisconnected")


# ------------------------------------------------------------------ time runs out


@cells(LOOPS, around=UPLOADS)
def test_the_client_keeps_the_body_back(cell: Cell):
    cell.app.body_timeout = 0.15
    cell.stops, cell.act = "uploading", "wait"
    cell.respond = pytest.fail
    cell.serve()
    cell.check(outcome=408)


@cells(LOOPS, around=UPLOADS)
def test_the_client_keeps_a_body_back_that_is_refused(cell: Cell, monkeypatch):
    monkeypatch.setattr(receiving, "DRAIN_PAUSE", 0.05)
    cell.app.max_content_length = 10
    cell.stops, cell.act = "uploading", "wait"
    cell.respond = pytest.fail
    cell.serve()
    cell.is_upload = False  # no file was made of it
    cell.check(outcome=413)


@cells(LOOPS, bodies=("text", *STREAMS))
def test_the_view_takes_too_long(cell: Cell):
    cell.app.view_timeout = 0.15
    cell.stops, cell.act = "view", "wait"
    cell.on_start = cell.go.set  # a plain one goes on once the client has its answer
    cell.serve()
    before = closed(cell) if cell.view == "def" else []
    cell.check(*before, outcome=503, told="ServiceUnavailable")


# ------------------------------------------------------- the server cancels the request


@cells(CANCELLING, around=UPLOADS)
def test_the_server_cancels_while_uploading(cell: Cell):
    cell.stops, cell.act = "uploading", "cancel"
    cell.respond = pytest.fail
    cell.serve()
    cell.check(outcome="CancelledError", told="CancelledError")


@cells(CANCELLING, bodies=("text", *STREAMS))
def test_the_server_cancels_while_the_view_runs(cell: Cell):
    cell.stops, cell.act = "view", "cancel"
    cell.serve()
    before = closed(cell) if cell.view == "def" else []  # a plain one goes on
    cell.check(*before, outcome="CancelledError", told="CancelledError")


@cells(CANCELLING, bodies=tuple(BODIES))
def test_the_server_cancels_while_a_chunk_is_sent(cell: Cell):
    cell.stops, cell.act = "send", "cancel"
    cell.is_endless = True
    cell.serve()
    cell.check(*closed(cell), outcome="CancelledError", told="CancelledError")


@cells(CANCELLING, bodies=(*LONG, "application"))
def test_the_server_cancels_while_a_chunk_is_made(cell: Cell):
    cell.stops, cell.act = "chunk", "cancel"
    cell.is_endless = True
    cell.serve()
    cell.check("body closed", outcome="CancelledError", told="CancelledError")


@cells(CANCELLING, bodies=("text", *STREAMS))
@pytest.mark.parametrize("hook", ["before_request", "after_request"])
def test_the_server_cancels_while_a_hook_runs(cell: Cell, hook: str):
    def waits(*args: Any) -> Any:
        return args[0] if args else None

    getattr(cell.app, hook)(cell.made(waits))
    cell.stops, cell.act = "waits", "cancel"
    cell.serve()
    # What is plain goes on, to the view and further.
    was_made = hook == "after_request" or cell.view == "def"
    before = closed(cell) if was_made else []
    cell.check(*before, outcome="CancelledError", told="CancelledError")


@cells(CANCELLING, bodies=CLOSING)
def test_the_server_cancels_while_the_body_is_closed(cell: Cell):
    cell.stops, cell.act = "close", "cancel"
    cell.serve()
    cell.check("body closed", outcome=cell.outcome, told=cell.told_once())
    assert cell.outcome in (200, "CancelledError")


@cells(CANCELLING, bodies=("text", *STREAMS), around=UPLOADS)
def test_the_server_cancels_while_a_teardown_function_runs(cell: Cell):
    cell.stops, cell.act = "after teardown", "cancel"
    cell.serve()
    cell.check(*closed(cell), outcome=cell.outcome)
    assert cell.outcome in (200, "CancelledError")


@cells(("wsgi",), views=("def",), around=UPLOADS)
def test_under_wsgi_the_server_exits_while_uploading(cell: Cell):
    cell.stops, cell.act = "uploading", "cancel"
    cell.respond = pytest.fail
    cell.serve()
    cell.check(outcome="SystemExit", told="SystemExit")


@cells(("wsgi",), views=("def",))
def test_under_wsgi_the_server_exits_while_the_view_runs(cell: Cell):
    def leave() -> None:
        raise SystemExit

    cell.respond = leave
    cell.serve()
    cell.check(outcome="SystemExit", told="SystemExit")


@cells(("wsgi",), bodies=PLAIN)
def test_under_wsgi_the_server_exits_while_a_chunk_is_made(cell: Cell):
    cell.is_broken, cell.error = True, SystemExit
    cell.serve()
    cell.check("body closed", outcome="SystemExit", told="SystemExit")


# ----------------------------------------------------- the cleaning itself goes wrong


@cells(bodies=("text", *STREAMS), around=UPLOADS)
def test_a_teardown_function_raises(cell: Cell):
    cell.failing = "teardown 2"
    cell.serve()
    cell.check(*closed(cell))


@cells(bodies=CLOSING)
def test_closing_the_body_raises(cell: Cell):
    cell.failing = "close"
    cell.serve()
    cell.check("body closed", outcome="Trouble", told="Trouble")


@cells(bodies=CLOSING)
def test_closing_a_body_that_was_replaced_raises(cell: Cell):
    @cell.app.after_request
    @cell.made
    def after(response: Any) -> Any:
        return cell.app.response_class(b"another")

    cell.failing = "close"
    cell.serve()
    cell.check("body closed", outcome="Trouble", told=cell.told_once())


@cells(bodies=CLOSING)
def test_closing_each_of_two_bodies_that_were_replaced_raises(cell: Cell):
    for _ in range(2):

        @cell.app.after_request
        @cell.made
        def after(response: Any) -> Any:
            return cell.app.make_response(BODIES[cell.body](cell))

    cell.refuses, cell.failing = "http.response.start", "close"
    cell.serve()
    told = cell.told_once()
    cell.check(*["body closed"] * 3, outcome="Trouble", told=told)


# ------------------------------------------------------------- the body of the request


@cells(around=UPLOADS)
def test_an_upload_is_refused_in_its_middle(cell: Cell):
    cell.app.max_form_parts = 1
    cell.data = {"one": (b"y" * 1000, "file"), "two": "2"}
    cell.respond = pytest.fail
    cell.serve()
    cell.check(outcome=413)


@cells(around=UPLOADS)
def test_an_unread_upload_comes_in_whole(cell: Cell):
    cell.is_unread = True
    cell.serve()
    cell.check()


@cells(LOOPS, around=UPLOADS)
def test_the_client_leaves_while_the_view_reads(cell: Cell):
    cell.is_unread = True
    cell.stops, cell.act = "uploading", "leave"
    cell.serve()
    cell.check(outcome=400)


@cells(CANCELLING, around=UPLOADS)
def test_the_server_cancels_while_the_view_reads(cell: Cell):
    cell.is_unread = True
    cell.stops, cell.act = "uploading", "cancel"
    cell.serve()
    cell.check(outcome="CancelledError", told="CancelledError")


@cells(around=UPLOADS)
def test_a_big_body_of_another_kind_is_closed(cell: Cell, monkeypatch):
    made = functools.partial(Upload, cell.record)
    monkeypatch.setattr(tempfile, "TemporaryFile", made)
    cell.data = b"x" * (2 << 20)
    cell.serve()
    cell.check()


# ----------------------------------------------------------------------- a static file


class Static:
    """A file of the static folder, too big to be read at once."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell = cell
        (folder / "static").mkdir()
        self.path = folder / "static" / "big"
        self.path.write_bytes(bytes(1 << 20))
        self.found: list[io.FileIO] = []
        cell.app.root_path, cell.path, cell.method = str(folder), "/static/big", "GET"
        cell.on_start = self.find

    def find(self) -> None:
        files = [o for o in gc.get_objects() if isinstance(o, io.FileIO)]
        self.found = [file for file in files if file.name == str(self.path)]
        assert [file.closed for file in self.found] == [False]
        assert not any(self.cell.app.workers.stats().values())

    def check(self, outcome: Any = 200) -> None:
        """The file is closed; no hook has run, and no worker was needed."""
        assert (self.cell.outcome, self.cell.record.events) == (outcome, [])
        assert [file.closed for file in self.found] == [True]


@pytest.fixture
def static(cell: Cell, tmp_path: Path) -> Static:
    return Static(cell, tmp_path)


def static_cells(servers: tuple[str, ...] = ALL) -> Any:
    return cells(servers, views=("async def",), around=UPLOADS[:1])


@static_cells()
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_static_file(cell: Cell, static: Static, method: str):
    cell.method = method
    cell.serve()
    static.check()


@static_cells(("wsgi",))
@pytest.mark.parametrize("count", [0, 1])
def test_under_wsgi_the_client_leaves_before_a_static_file_is_sent(
    cell: Cell, static: Static, count: int
):
    cell.asks = count
    cell.serve()
    static.check()


@static_cells(LOOPS)
def test_the_client_leaves_while_a_static_file_is_sent(cell: Cell, static: Static):
    cell.stops, cell.act = "send", "leave"
    cell.serve()
    static.check()


@static_cells(LOOPS)
def test_the_server_refuses_a_chunk_of_a_static_file(cell: Cell, static: Static):
    cell.refuses = "http.response.body"
    cell.serve()
    static.check()


@static_cells(CANCELLING)
def test_the_server_cancels_while_a_static_file_is_sent(cell: Cell, static: Static):
    cell.stops, cell.act = "send", "cancel"
    cell.serve()
    static.check(outcome="CancelledError")
