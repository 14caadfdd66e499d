"""The ASGI driver: from the server's scope into the pipeline, and back out.

:func:`serve_request` is the way of a request: match it, take in its body,
lead it through the pipeline, send what comes back, clean up. The user's code
runs in a copy of the server's context variables that ends with the request.
The server's own ``receive`` and ``send`` are awaited outside of that copy,
because a server may start its work for the *next* request from in there.

While a response streams, somebody listens for the client's farewell, so that
a body which waits for something ends when nobody wants it any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from starlette.types import Message, Receive, Scope, Send

from . import static
from .calling import Calling, within
from .exceptions import ClientDisconnected, HTTPException
from .forms import Body, MultipartBody
from .loops import in_asyncio
from .pipeline import (
    begin,
    describe,
    escaped,
    expected_body,
    limits_for,
    respond,
    teardown,
)
from .wrappers import AppBody, FileBody, Response, as_bytes

if TYPE_CHECKING:
    from .app import Flask

logger = logging.getLogger("asyncflask")

#: bytes of a big body that are taken in between two trips to a thread
FEED_CHUNK = 1 << 18
#: bytes at least that are still read of a body that was refused
DRAIN = 1 << 20
#: bytes of a file that are read and sent at a time
FILE_CHUNK = 1 << 18
#: methods whose requests rarely have a body, so that it must be announced
_BODILESS = frozenset(("GET", "HEAD", "OPTIONS", "DELETE", "TRACE"))
_ANNOUNCING = frozenset((b"content-length", b"transfer-encoding"))
_END: Any = object()


async def serve(app: Flask, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection; a request, unless the server says otherwise."""
    if scope["type"] != "http":
        await serve_other(app, scope, receive, send)
        return

    ctx = Calling(app, scope)
    ctx.context = contextvars.copy_context()
    hooked = False
    failure: BaseException | None = None
    try:
        ctx.context.run(begin, ctx)
        if ctx.rule is not app.static_rule or not await is_static(ctx):
            hooked = True
            if scope["method"] not in _BODILESS or announces_body(scope):
                await take_body(ctx, receive)
            rest = ctx.start(respond(ctx))
            if rest is not None:
                await rest
        response: Any = ctx.response
        if type(response.body) is bytes:
            start, body = response.on_wire(scope["method"])
            await send(start)
            await send({"type": "http.response.body", "body": body})
        else:
            await send_streamed(ctx, response, receive, send)
    except ClientDisconnected:
        logger.info("%s: the client has gone", describe(ctx))
    except BaseException as exc:
        failure = exc
        if isinstance(exc, Exception):
            what = escaped(f"{type(exc).__name__}: {exc}")
            logger.error("%s failed: %s", describe(ctx), what)
        raise
    finally:
        if hooked and (ctx.is_laden or app.teardown_request_funcs):
            await finish(ctx, failure or ctx.exception)
        ctx.closed = True
        ctx.context = None  # it holds the variable that holds the request


async def serve_other(app: Flask, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a connection that is no request."""
    kind = scope["type"]
    if kind == "lifespan":
        await serve_lifespan(app, receive, send)
    elif kind == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
    else:
        raise ValueError(
            f"The server opened a connection of type {kind!r}, which asyncflask does"
            " not know. It serves 'http' and 'lifespan' (ASGI 3)."
        )


async def serve_lifespan(app: Flask, receive: Receive, send: Send) -> None:
    """Answer start-up and shut-down; the workers end with the latter."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            app.workers.close()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def finish(ctx: Calling, exc: BaseException | None) -> None:
    """Close what was not sent, tear the request down, close its files, and give
    its worker back."""
    try:
        if ctx.bodies or ctx.app.teardown_request_funcs:
            with anyio.CancelScope(shield=True):
                for body in ctx.bodies:
                    await ctx.carry(close_chunks(ctx, body))
                await ctx.carry(teardown(ctx, exc))
    finally:
        ctx.close()
        ctx.dismiss()


# -------------------------------------------------------------- taking a body in


def announces_body(scope: Scope) -> bool:
    """Say whether a body follows the header (RFC 9112, section 6.3).

    HTTP/2 and 3 need no field to announce one.
    """
    for field in scope["headers"]:
        if field[0] in _ANNOUNCING:
            return True

    return bool(scope.get("http_version", "1.1") >= "2")


async def take_body(ctx: Calling, receive: Receive) -> None:
    """Take in the whole body, or keep the error that says why it is refused.

    :raises ClientDisconnected: when the client does not send it to its end.
    """
    ctx.is_laden = True
    if ctx.rule is not None and ctx.rule.stream_body:
        ctx.body = UnreadBody(ctx, receive)
        return

    intake = Intake(receive)
    try:
        ctx.body = expected_body(ctx)
        await intake.fill(ctx.body)
    except ClientDisconnected:
        raise
    except HTTPException as exc:
        ctx.body_error = exc
        if not any(name == b"expect" for name, _ in ctx.scope["headers"]):
            await intake.drain(max(limits_for(ctx).content_length or 0, DRAIN))


class Intake:
    """The messages that bring a body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        #: False once the last message has come
        self.more = True

    @cached_property
    def complete(self) -> anyio.Event:
        """Set once the last message has come."""
        event = anyio.Event()
        if not self.more:
            event.set()
        return event

    async def next(self) -> bytes:
        """Return the next chunk, which may be empty.

        :raises ClientDisconnected: when the client has left instead.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected()

        self.more = message.get("more_body", False)
        if not self.more and "complete" in self.__dict__:
            self.complete.set()
        return message.get("body", b"")  # type: ignore[no-any-return]

    async def fill(self, body: Body) -> None:
        """Feed a body; off the loop once it is so big that files are involved."""
        pending: list[bytes] = []
        while self.more:
            chunk = await self.next()
            if body.in_memory:
                body.feed(chunk)
                continue

            pending.append(chunk)
            if not self.more or sum(map(len, pending)) >= FEED_CHUNK:
                await anyio.to_thread.run_sync(_feed_all, body, pending)
                pending = []
        body.end()

    async def drain(self, limit: int) -> None:
        """Read on for so many bytes after a body was refused, and keep nothing.

        A client that is still sending would not see the response otherwise:
        closing a connection with unread data resets it.
        """
        while self.more and limit > 0:
            limit -= len(await self.next())


def _feed_all(body: Body, chunks: list[bytes]) -> None:
    for chunk in chunks:
        body.feed(chunk)


class UnreadBody(Body):
    """The body of a rule with ``stream_body=True``: the view takes it in."""

    def __init__(self, ctx: Calling, receive: Receive) -> None:
        super().__init__(limits_for(ctx))
        self._stream = BodyStream(self, ctx, receive)

    @property
    def stream(self) -> BodyStream:
        """The chunks, to iterate over once."""
        return self._stream

    def _refuse(self) -> Any:
        raise RuntimeError(
            "The body of this request was left unread, because its rule says"
            " stream_body=True. Iterate over request.stream, or drop the option."
        )

    data = fields = files = property(_refuse)


class BodyStream:
    """The chunks of an unread body: ``async for`` on the loop, ``for`` elsewhere.

    :raises RequestEntityTooLarge: when the body is over the limit.
    :raises ClientDisconnected: when the client does not send it to its end.
    """

    def __init__(self, body: UnreadBody, ctx: Calling, receive: Receive) -> None:
        self._body = body
        self._ctx = ctx
        self.intake = Intake(receive)
        self._outside = contextvars.copy_context()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while self.intake.more:
            chunk: bytes = await within(self._outside, self.intake.next())
            if chunk:
                self._body.feed(chunk)
                return chunk

        raise StopAsyncIteration

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._ctx.run_on_loop(partial(_next, self))) is not _END:
            yield chunk


async def _next(chunks: AsyncIterator[Any]) -> Any:
    """Return the next item, or ``_END``."""
    try:
        return await chunks.__anext__()
    except StopAsyncIteration:
        return _END


# ------------------------------------------------------------------ static files


async def is_static(ctx: Calling) -> bool:
    """Answer from the static folder, in a thread that the views do not use.

    False if the file is not there; the request goes on as any other then.
    """
    try:
        ctx.response = await anyio.to_thread.run_sync(
            static.respond, ctx.request, ctx.app.static_folder, ctx.app.response_class
        )
    except HTTPException as exc:
        ctx.routing_exception = exc
        return False

    return True


# -------------------------------------------------------------- sending a response


async def send_streamed(
    ctx: Calling, response: Response, receive: Receive, send: Send
) -> None:
    """Send a response whose body is not there yet; it is closed on every exit."""
    if isinstance(response.body, AppBody):
        await send_app(ctx, response, receive, send)
        return

    start, body = response.on_wire(ctx.scope["method"])
    chunks = chunks_of(response.body)
    ctx.bodies = tuple(body for body in ctx.bodies if body is not response.body)
    try:
        await send(start)
        if body is response.body:
            sending = partial(send_chunks, ctx, chunks, send)
            await while_connected(sending, farewell(ctx, receive))
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.carry(close_chunks(ctx, chunks))
    await send({"type": "http.response.body", "body": b""})


def farewell(ctx: Calling, receive: Receive) -> Callable[[], Awaitable[None]]:
    """Return what waits until the client has left.

    Two readers would take the messages from each other, so it only begins when
    an unread body has been read.
    """

    async def wait() -> None:
        if isinstance(ctx.body, UnreadBody):
            await ctx.body.stream.intake.complete.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    return wait


async def while_connected(
    sending: Callable[[], Awaitable[None]], gone: Callable[[], Awaitable[None]]
) -> None:
    """Send, and break off when the client leaves.

    :raises ClientDisconnected: when it has left.
    """
    await (_while_connected_asyncio if in_asyncio() else _while_connected_anyio)(
        sending, gone
    )


async def _while_connected_asyncio(
    sending: Callable[[], Awaitable[None]], gone: Callable[[], Awaitable[None]]
) -> None:
    # asyncio's own cancel() comes once. A scope of anyio's would cancel, over and
    # over, whatever the body awaits to clean up.
    sender = asyncio.current_task()
    state = "sending"

    async def listen() -> None:
        nonlocal state
        await gone()
        if state == "sending" and sender is not None:
            state = "gone"
            sender.cancel()

    listener = asyncio.create_task(listen())
    try:
        await sending()
        if state == "gone":
            await asyncio.sleep(0)  # the cancellation has not come through yet
        state = "sent"
    except asyncio.CancelledError:
        if state != "gone" or sender is None or sender.uncancel():
            raise
        raise ClientDisconnected() from None
    finally:
        listener.cancel()


async def _while_connected_anyio(
    sending: Callable[[], Awaitable[None]], gone: Callable[[], Awaitable[None]]
) -> None:
    failure: Exception | None = None

    async def listen() -> None:
        nonlocal failure
        await gone()
        failure = ClientDisconnected()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        try:
            await sending()
        except Exception as exc:  # kept out of the group, which would wrap it
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def chunks_of(body: Any) -> AsyncIterator[Any] | Iterator[Any]:
    """Return what gives the chunks of a body."""
    if isinstance(body, FileBody):
        return FileChunks(body)

    if isinstance(body, AsyncIterable):
        return aiter(body)

    return body if isinstance(body, Iterator) else _each(body)


def _each(body: Any) -> Iterator[Any]:
    try:
        yield from body  # asked for its iterator in the thread that uses it
    finally:
        if hasattr(body, "close"):
            body.close()


class FileChunks:
    """Reads a file in chunks, in threads that the views do not use.

    :raises RuntimeError: when the file has become shorter meanwhile.
    """

    def __init__(self, body: FileBody) -> None:
        self._file = body.file
        self._left = body.length

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration

        size = min(self._left, FILE_CHUNK)
        chunk = await anyio.to_thread.run_sync(self._file.read, size)
        if not chunk:
            raise RuntimeError(
                f"{self._file.name!r} lost {self._left} bytes while it was sent"
            )
        self._left -= len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the file."""
        self._file.close()


async def send_chunks(
    ctx: Calling, chunks: AsyncIterator[Any] | Iterator[Any], send: Send
) -> None:
    """Send every chunk as it comes."""
    while True:
        await ctx.carry(next_chunk(ctx, chunks))
        if ctx.chunk is _END:
            return

        message = {"type": "http.response.body", "body": ctx.chunk, "more_body": True}
        await send(message)


async def next_chunk(ctx: Calling, chunks: AsyncIterator[Any] | Iterator[Any]) -> None:
    """Put the next chunk on the context, or ``_END``: plain ones in the worker."""
    if isinstance(chunks, AsyncIterator):
        chunk = await _next(chunks)
    else:
        await ctx.to_thread()
        chunk = next(chunks, _END)
    ctx.chunk = chunk if chunk is _END else as_bytes(chunk)


async def close_chunks(ctx: Calling, chunks: Any) -> None:
    """End an iterator that may not be at its end."""
    if hasattr(chunks, "aclose"):
        await chunks.aclose()
    elif hasattr(chunks, "close"):
        await ctx.to_thread()
        chunks.close()


async def send_app(
    ctx: Calling, response: Response, receive: Receive, send: Send
) -> None:
    """Let an application answer that a view returned, and add our header fields.

    It gets the body once more from its start, and then whatever comes.
    """
    outside = contextvars.copy_context()
    pending = body_once_more(ctx)
    body: AppBody = response.body

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}

        message: Message = await within(outside, receive())
        return message

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = _merged(message, response, body.status)
        elif ctx.scope["method"] == "HEAD":
            message = {**message, "body": b""}
        await within(outside, send(message))

    await ctx.carry(_call_app(body.app, ctx.scope, replay, add))


async def _call_app(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def body_once_more(ctx: Calling) -> list[bytes]:
    """Return the body that was taken in, if it was, for an application to read.

    :raises RuntimeError: when it was taken apart as a form.
    """
    if isinstance(ctx.body, UnreadBody):
        return []

    if isinstance(ctx.body, MultipartBody):
        raise RuntimeError(
            f"The endpoint {ctx.endpoint!r} hands a multipart form on to another"
            " application, but the form was taken apart already. Add"
            " stream_body=True to its rule, so that the body is left unread."
        )
    return [b"" if ctx.body is None else ctx.body.data]


def _merged(start: Message, response: Response, status: int | None) -> Message:
    """Return the start of an application's response with what hooks changed."""
    if status is not None:
        changed = response.status_code != status
        return {**start, "status": response.status_code} if changed else start

    return {**start, "headers": [*start.get("headers", ()), *response.raw_headers]}
