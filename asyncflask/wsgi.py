"""The WSGI driver: the same pipeline in the server's own thread (PEP 3333).

Plain callables are called right here, and no event loop is ever started for
them. Async ones run on the one loop of the process, while this thread waits
and does what they call of plain code. :func:`serve` is the way of a request;
what comes after the header is a list with the body in it, or a
:class:`Stream`, which the server asks for one chunk after the other and closes
in the end.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
from starlette.types import ASGIApp, Message, Scope

from . import pipeline, static
from .calling import Calling, Give
from .environ import build_scope
from .exceptions import BadRequest, HTTPException, LengthRequired
from .files import FileBody, lost
from .forms import UnreadBody
from .mounting import Mount, body_once_more, is_last, merged_start
from .moving import OVER
from .pipeline import (
    begin,
    find_mount,
    limits_for,
    report_failure,
    respond,
    teardown,
    without_traceback,
)
from .wrappers import AppBody, Response, as_bytes

if TYPE_CHECKING:
    from .app import Flask

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

#: bytes that are read of a body or a file at a time
CHUNK = 1 << 16
_END: Any = object()
_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
#: PEP 3333: these are between the server and the client, and not ours to set
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailers"
    b" transfer-encoding upgrade".split()
)


def serve(
    app: Flask, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a request in the thread that calls."""
    scope = build_scope(environ)
    if app.process_lifespan is not None:
        app.process_lifespan.ensure()
        scope["state"] = app.process_lifespan.state.copy()
    ctx = Calling(app, scope)
    ctx.context = contextvars.copy_context()
    ctx.belong_here()
    return ctx.context.run(answer, ctx, environ, start_response)


def answer(
    ctx: Calling, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Lead a request to its response, and the response to the server."""
    is_broken = False
    try:
        begin(ctx)
        mount = None
        if ctx.rule is not None and ctx.rule.aside is not None:
            mount = step_aside(ctx)
        if mount is not None and mount.is_wsgi:
            chunks: Iterable[bytes] = mount.app(mount.environ(environ), start_response)
        elif mount is not None:
            chunks = open_mounted(ctx, mount, environ, start_response)
        else:
            if ctx.response is None:
                take_body(ctx, environ)
                ctx.drive(respond(ctx))
            chunks = open_response(ctx, environ, start_response)
        return chunks
    except BaseException as exc:
        is_broken, ctx.exception = True, exc
        report_failure(ctx, exc)
        raise
    finally:
        if is_broken or not ctx.is_streaming:
            finish(ctx)


def finish(ctx: Calling) -> None:
    """Close what was not sent, tear the request down, and close its files."""
    try:
        try:
            close_bodies(ctx)
        except BaseException as exc:
            ctx.exception = ctx.exception or exc
            raise
        finally:
            if ctx.has_teardown:
                ctx.drive(teardown(ctx, ctx.exception))
    finally:
        desk = ctx.desk
        ctx.close()
        ctx.dismiss()
        if desk is not None:
            desk.close(RuntimeError(OVER))


def step_aside(ctx: Calling) -> Mount | None:
    """Return the mounted application that is to answer, or answer from the static
    folder; neither if there is no such file."""
    mount, ctx.is_aside = ctx.rule.aside, True  # type: ignore[union-attr]
    if isinstance(mount, Mount):
        return mount

    try:
        ctx.response = static.respond(ctx)
    except HTTPException as exc:
        ctx.unmatched(without_traceback(exc))
        mount = find_mount(ctx.app, ctx.scope)
        ctx.is_aside = mount is not None
        return mount

    body = ctx.response.body
    if isinstance(body, FileBody) and body.length <= static.SMALL:
        ctx.response.body = body.read()
    return None


# -------------------------------------------------------------- taking a body in


def take_body(ctx: Calling, environ: Environ) -> None:
    """Take in the whole body, or keep the error that says why it is refused."""
    if not ctx.may_have_body:
        return

    chunks = input_chunks(environ)
    if ctx.rule is not None and ctx.rule.stream_body:
        body = ctx.body = UnreadBody(limits_for(ctx))
        body.stream = InputStream(ctx, chunks)
        return

    pipeline.take_body(ctx, chunks)
    if ctx.body_error is not None and "HTTP_EXPECT" not in environ:
        drain(chunks, max(limits_for(ctx).content_length or 0, pipeline.DRAIN))


def input_chunks(environ: Environ) -> Iterator[bytes]:
    """Read the body as far as it goes; no chunk is empty.

    Its end is where ``CONTENT_LENGTH`` says, or the server does
    (``wsgi.input_terminated``), who alone knows it for chunks (RFC 9112, section
    6.3). Reading beyond would wait for ever.

    :raises BadRequest: when the length is no number, or the body is shorter.
    :raises LengthRequired: when nothing says where it ends.
    """
    length = environ.get("CONTENT_LENGTH", "").strip()
    is_chunked = "HTTP_TRANSFER_ENCODING" in environ
    if environ.get("wsgi.input_terminated"):
        length = "" if is_chunked else length
    elif not length:
        if not is_chunked:
            return
        raise LengthRequired()

    if length and not (length.isascii() and length.isdigit()):
        raise BadRequest(f"The Content-Length {length!r} is not a number.")

    if len(length) > pipeline.MOST_DIGITS:
        raise BadRequest("The Content-Length is beyond all that can be sent.")

    stream = environ["wsgi.input"]
    if not length:
        while chunk := _read(stream, CHUNK):
            yield chunk
        return

    left = int(length)
    while left:
        chunk = _read(stream, min(left, CHUNK))
        if not chunk:
            raise BadRequest(f"The body is {left} bytes short of its Content-Length.")
        left -= len(chunk)
        yield chunk


def _read(stream: Any, size: int) -> bytes:
    try:
        chunk: bytes = stream.read(size)
    except OSError as exc:
        raise BadRequest(f"The body could not be read: {exc}.") from exc

    return chunk


def drain(chunks: Iterator[bytes], limit: int) -> None:
    """Read on for so many bytes after a body was refused, and keep nothing.

    A client that is still sending would not see the response otherwise.
    """
    try:
        for chunk in chunks:
            limit -= len(chunk)
            if limit <= 0:
                return
    except HTTPException:
        pass


class InputStream:
    """The chunks of an unread body: plain ``for``, or ``async for`` on the loop.

    :raises RequestEntityTooLarge: when the body is over the limit.
    :raises BadRequest: when it ends too early.
    """

    def __init__(self, ctx: Calling, chunks: Iterator[bytes]) -> None:
        self._ctx = ctx
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._next():
            yield chunk

    def _next(self) -> bytes:
        chunk = next(self._chunks, b"")
        if self._ctx.body is not None:
            self._ctx.body.feed(chunk)
        return chunk

    def __aiter__(self) -> InputStream:
        return self

    async def __anext__(self) -> bytes:
        chunk: bytes = await self._ctx.call_back(self._next)
        if not chunk:
            raise StopAsyncIteration

        return chunk


# ------------------------------------------------------------ sending a response


def say(start: Message, start_response: StartResponse) -> None:
    """Tell the server status and header fields, as native strings."""
    code = start["status"]
    fields = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in start.get("headers", ())
        if name not in _HOP_BY_HOP
    ]
    start_response(_LINES.get(code) or f"{code} Unknown", fields)


def open_response(
    ctx: Calling, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Tell the server the header, and return the body for it to iterate over."""
    response: Any = ctx.response
    if isinstance(response.body, AppBody):
        return open_app(ctx, response, environ, start_response)

    ctx.hold(response.body)
    start, body = response.on_wire(ctx.scope["method"])
    say(start, start_response)
    if type(body) is bytes:
        return [body] if body else []

    stream = Stream(ctx)
    stream.chunks = chunks_of(ctx, body)
    if isinstance(body, FileBody) and "wsgi.file_wrapper" in environ and body.is_whole:
        wrapper: Callable[..., Iterable[bytes]] = environ["wsgi.file_wrapper"]
        return wrapper(_SentFile(body, stream), CHUNK)

    return stream


class Stream:
    """A body for the server to iterate over, and to close in the end (PEP 3333).

    Each step runs in the request's context, in the server's thread.

    :ivar chunks: what gives the body.
    """

    chunks: Iterator[Any] = iter(())

    def __init__(self, ctx: Calling) -> None:
        ctx.is_streaming = True
        self._ctx = ctx
        self._run: Callable[..., Any] = ctx.context.run  # type: ignore[union-attr]

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = self._run(next, self.chunks, _END)
            if chunk is not _END:
                return as_bytes(chunk)
        except BaseException as exc:
            self._ctx.exception = exc
            report_failure(self._ctx, exc)
            raise
        raise StopIteration

    def close(self) -> None:
        """End the body, wherever it stands, and the request with it."""
        if not self._ctx.closed:
            self._run(self._close)

    def _close(self) -> None:
        ctx = self._ctx
        try:
            if not any(self.chunks is body for body in ctx.bodies):
                close_body(ctx, self.chunks)
        except BaseException as exc:
            ctx.exception = ctx.exception or exc
            raise
        finally:
            finish(ctx)


def chunks_of(ctx: Calling, body: Any) -> Iterator[Any]:
    """Return the chunks of a body, whatever gives them."""
    if isinstance(body, FileBody):
        return file_chunks(body)

    return from_loop(ctx, body) if isinstance(body, AsyncIterable) else iter(body)


def file_chunks(body: FileBody) -> Iterator[bytes]:
    """Read a file as far as it is to be sent.

    :raises RuntimeError: when it has become shorter meanwhile.
    """
    left = body.length
    while left:
        chunk = body.file.read(min(left, CHUNK))
        if not chunk:
            raise lost(body.file, left)
        left -= len(chunk)
        yield chunk


def from_loop(ctx: Calling, body: AsyncIterable[Any]) -> Iterator[Any]:
    """Iterate over an async body, which lives on the loop as one task."""

    async def give_each(give: Give) -> None:
        chunks = aiter(body)
        try:
            async for chunk in chunks:
                await give(chunk)
        finally:
            await close_async(chunks)
            if chunks is not body:
                await close_async(body)

    ctx.release(body)  # closed over there from now on
    yield from ctx.produce(give_each)


async def close_async(body: Any) -> None:
    """End an async body on the loop."""
    if hasattr(body, "aclose"):
        await body.aclose()


def close_bodies(ctx: Calling) -> None:
    """End the bodies that are left, each of them, whatever one of them raises."""
    with ExitStack() as stack:
        for body in ctx.bodies:
            stack.callback(close_body, ctx, body)


def close_body(ctx: Calling, body: Any) -> None:
    """End a body that may not be at its end."""
    if hasattr(body, "aclose"):
        ctx.run_on_loop(body.aclose)
    elif hasattr(body, "close"):
        body.close()


class _SentFile:
    """A file for ``wsgi.file_wrapper``, which ends the request when it is closed."""

    def __init__(self, body: FileBody, stream: Stream) -> None:
        self._file = body.file
        self.close = stream.close
        self.read = body.file.read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


# ------------------------------------------------------- ASGI applications inside


def open_mounted(
    ctx: Calling, mount: Mount, environ: Environ, start_response: StartResponse
) -> Stream:
    """Call a mounted ASGI application, and return its body."""
    chunks, scope = input_chunks(environ), mount.scope(ctx.scope)
    return host(ctx, mount.app, scope, chunks, start_response, None)


def open_app(
    ctx: Calling, response: Response, environ: Environ, start_response: StartResponse
) -> Stream:
    """Call an ASGI application that a view returned, and return its body.

    It gets the body once more from its start, and then whatever comes.
    """
    chunks = iter(body_once_more(ctx.body, ctx.endpoint))
    if isinstance(ctx.body, UnreadBody):
        chunks = iter(ctx.body.stream)
    return host(ctx, response.body.app, ctx.scope, chunks, start_response, response)


def host(
    ctx: Calling,
    app: ASGIApp,
    scope: Scope,
    chunks: Iterator[bytes],
    start_response: StartResponse,
    response: Response | None,
) -> Stream:
    """Call an ASGI application on the loop until its header is there.

    :param chunks: the body of the request.
    :param response: what hooks have changed, if a view returned the application.
    """
    stream = Stream(ctx)
    refusals: list[HTTPException] = []

    async def run(give: Give) -> None:
        gone = anyio.Event()

        async def send(message: Message) -> None:
            await give(message)
            if is_last(message):
                gone.set()

        await app(scope, receiver(ctx, chunks, gone, refusals), send)

    messages = ctx.produce(run)
    ctx.hold(messages)
    try:
        start = next(messages, None)
    except Exception:
        if not refusals:
            raise
        start = None
    if start is None and refusals:  # the client's fault, whoever was to read it
        page = pipeline.to_response(ctx.app, refusals[0])
        start, body = page.on_wire(scope["method"])
        say(start, start_response)
        stream.chunks = iter([body])
        return stream

    if start is None:
        raise RuntimeError(f"The ASGI application {app!r} ended without a response.")

    say(start if response is None else merged_start(start, response), start_response)
    stream.chunks = bodies(ctx, app, messages)
    return stream


def bodies(ctx: Calling, app: ASGIApp, messages: Iterator[Message]) -> Iterator[bytes]:
    """Take the body out of messages.

    :raises RuntimeError: when they end before it does.
    """
    is_complete = False
    for message in messages:
        if message["type"] == "http.response.body":
            is_complete = is_last(message)
            if message.get("body") and ctx.scope["method"] != "HEAD":
                yield message["body"]
    if not is_complete:
        raise RuntimeError(f"The ASGI application {app!r} ended in mid-response.")


def receiver(
    ctx: Calling,
    chunks: Iterator[bytes],
    gone: anyio.Event,
    refusals: list[HTTPException],
) -> Callable[[], Awaitable[Message]]:
    """Return what gives an ASGI application the body, read in the server's thread.

    :param gone: set when the response is complete.
    :param refusals: gets the error when the body cannot be read to its end; the
        application is told that the client has left, as ASGI has nothing else.
    """
    is_complete = False

    async def receive() -> Message:
        nonlocal is_complete
        if is_complete:  # nobody says when the client leaves before that
            await gone.wait()
            return {"type": "http.disconnect"}

        try:
            chunk = await ctx.call_back(functools.partial(next, chunks, b""))
        except HTTPException as exc:
            refusals.append(exc)
            return {"type": "http.disconnect"}

        is_complete = not chunk
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    return receive
