"""Sending a response through an ASGI server.

While it streams, somebody listens for the client's farewell, so that a body
which waits for something ends when nobody wants it any more. What ends the
response is sent outside of the request's context, because a server may start
its work for the *next* request from in there.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from contextlib import AsyncExitStack
from functools import partial
from time import monotonic
from types import AsyncGeneratorType, GeneratorType
from typing import Any

import anyio.to_thread
from starlette.types import Message, Receive, Scope, Send

from .calling import Calling
from .exceptions import ClientDisconnected
from .files import FileBody, lost, read_cached
from .loops import Signal, checkpoint, new_signal, within
from .mounting import body_once_more, merged_start
from .moving import Visit
from .pipeline import log_exception
from .watching import farewell, to_the_end, unless
from .wrappers import AppBody, Response, as_bytes

#: bytes of a file that are read and sent at a time
FILE_CHUNK = 1 << 18
#: seconds after which other tasks get their turn
BREATH = 0.001
#: chunks between two looks at the clock
GLANCE = 16
#: bytes, or chunks, of a plain body that are made before its worker is asked to go on
AHEAD = 1 << 16
AHEAD_CHUNKS = 64
_END: Any = object()


async def send_response(ctx: Calling, receive: Receive, send: Send) -> None:
    """Send the response that a request was led to; its body is closed on every exit."""
    response: Any = ctx.response
    if isinstance(response.body, AppBody):
        await send_app(ctx, response, receive, send)
        return

    start, body = response.on_wire(ctx.scope["method"])
    if type(response.body) is bytes:
        await deliver(send, start)
        await deliver(send, {"type": "http.response.body", "body": body})
        return

    ctx.hold(response.body)
    chunks = chunks_of(response.body)
    ctx.release(response.body)
    ctx.response = None  # whose body is closed here from now on
    try:
        await deliver(send, start)
        if body is response.body:
            with ctx.app.outstanding:
                await unless(
                    farewell(ctx, receive), lambda: begin_sending(ctx, chunks, send)
                )
    finally:
        if not is_spent(response.body):
            await to_the_end(ctx.carry(close_body(ctx, response.body, chunks)))
    await deliver(send, {"type": "http.response.body", "body": b""})


async def deliver(send: Send, message: Message) -> None:
    """Send a message.

    :raises ClientDisconnected: when that fails, which ASGI servers may have it do
        once the client has left (HTTP spec 2.4).
    """
    try:
        await send(message)
    except OSError:
        raise ClientDisconnected() from None


def chunks_of(body: Any) -> AsyncIterator[Any] | Iterator[Any]:
    """Return what gives the chunks of a body."""
    if isinstance(body, FileBody):
        return FileChunks(body)

    if isinstance(body, AsyncIterable):
        return aiter(body)

    return body if isinstance(body, Iterator) else _each(body)


def _each(body: Any) -> Iterator[Any]:
    yield from body  # asked for its iterator in the thread that uses it


class FileChunks:
    """Reads a file in chunks: at once, or in threads that the views do not use.

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
        chunk = read_cached(self._file, size)
        if chunk is None:
            chunk = await anyio.to_thread.run_sync(self._file.read, size)
        if not chunk:
            raise lost(self._file, self._left)
        self._left -= len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the file."""
        self._file.close()


def begin_sending(
    ctx: Calling, chunks: AsyncIterator[Any] | Iterator[Any], send: Send
) -> Awaitable[None] | None:
    """Begin to send every chunk as it comes, but for the message that ends the
    response; return what is left to be awaited, if anything is."""
    if isinstance(chunks, AsyncIterator):
        return ctx.start(send_chunks(chunks, send))

    return send_plain(ctx, chunks, send)


async def send_plain(ctx: Calling, chunks: Iterator[Any], send: Send) -> None:
    """Send the chunks of a plain body."""
    async with Ahead(ctx, chunks) as ahead:
        await send_chunks(ahead, send)


async def send_chunks(chunks: AsyncIterator[Any], send: Send) -> None:
    """Send every chunk as it comes.

    A body that waits for nothing would keep the loop to itself, for ever once a
    server drops what is sent to a client that has left; so we let others in.
    """
    left, due = GLANCE, monotonic() + BREATH
    async for chunk in chunks:
        if type(chunk) is not bytes:
            chunk = as_bytes(chunk)
        try:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except OSError:
            raise ClientDisconnected() from None
        left -= 1
        if not left:
            left = GLANCE
            if monotonic() > due:
                await checkpoint()
                due = monotonic() + BREATH


class Ahead:
    """Iterates over a plain body in the request's worker, which works ahead.

    Handing over to another thread costs more than most chunks do. So the worker
    goes on while the loop sends, as servers may have it (PEP 3333, "Buffering and
    Streaming"): until :data:`AHEAD_CHUNKS` lie ready, or :data:`AHEAD` bytes have
    been made at a stretch. No chunk waits for another one.

    For the worker's visit it is also the signal that the visit is over.
    """

    _visit: Visit | None = None
    #: what the loop waits for, if it does
    _news: Signal | None = None
    #: True once the worker has laid down its work
    _is_over = False
    #: True once it need not take it up again
    _at_end = False

    def __init__(self, ctx: Calling, chunks: Iterator[Any]) -> None:
        self._ctx = ctx
        self._chunks = chunks
        self._ready: deque[Any] = deque()

    async def __aenter__(self) -> Ahead:
        return self

    async def __aexit__(self, kind: Any, exc: Any, tb: Any) -> None:
        self._at_end = True
        if self._visit is not None:
            await self._ctx.arrive(self._visit, wanted=False)
            if isinstance(self._visit.error, Exception):  # nobody waits for it now
                log_exception(self._ctx, self._visit.error)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._visit is None and self._at_end:
                raise StopAsyncIteration

            visit = self._visit or await self._depart()
            await self._until(lambda: self._ready or self._is_over)
            if not self._ready:
                self._visit = None
                await self._ctx.arrive(visit)
                if visit.error is not None:
                    raise visit.error
        return self._ready.popleft()

    async def _depart(self) -> Visit:
        desk = self._ctx.desk or await self._ctx.engage()
        self._is_over = False
        step = partial(self._ctx.context.run, self._work)  # type: ignore[union-attr]
        visit = self._visit = self._ctx.depart(desk, step, self)
        return visit

    def _work(self) -> None:
        size = 0
        while size < AHEAD and len(self._ready) < AHEAD_CHUNKS and not self._at_end:
            chunk = next(self._chunks, _END)
            if chunk is _END:
                self._at_end = True
                return

            chunk = as_bytes(chunk)
            size += len(chunk)
            self._ready.append(chunk)
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            news = self._news = new_signal()
            if not condition():  # it may have become true right before
                await news.wait()

    def set(self) -> bool:
        """Take note that the visit is over."""
        self._is_over = True
        self._tell()
        return True

    async def wait(self) -> None:
        """Wait until the visit is over."""
        await self._until(lambda: self._is_over)


def is_spent(body: Any) -> bool:
    """Say whether a body is a generator at its end: nothing in it is left to close."""
    if isinstance(body, AsyncGeneratorType):
        return body.ag_frame is None

    return isinstance(body, GeneratorType) and body.gi_frame is None


async def close_body(ctx: Calling, body: Any, chunks: Any) -> None:
    """End what gives the chunks of a body, and the body, where that is not the same."""
    try:
        await close_chunks(ctx, chunks)
    finally:
        if body is not chunks and not isinstance(body, FileBody):
            await close_chunks(ctx, body)


async def close_bodies(ctx: Calling) -> None:
    """End the bodies that were not sent, each of them, whatever one of them raises."""
    async with AsyncExitStack() as stack:
        for body in ctx.bodies:
            stack.push_async_callback(close_chunks, ctx, body)


async def close_chunks(ctx: Calling, chunks: Any) -> None:
    """End an iterator that may not be at its end, or what it came from."""
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
    pending = body_once_more(ctx.body, ctx.endpoint)
    body: AppBody = response.body

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}

        message: Message = await within(outside, receive())
        return message

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = merged_start(message, response)
        elif ctx.scope["method"] == "HEAD":
            message = {**message, "body": b""}
        await within(outside, send(message))

    await ctx.carry(_call_app(body.app, ctx.scope, replay, add))


async def _call_app(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
