"""Taking in the body of a request, from the messages of an ASGI server.

The body is all there before the pipeline runs, in memory or in files, and its
limits are kept while it comes in. Only a rule with ``stream_body=True`` leaves
it unread, for the view to iterate over.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from starlette.types import Message, Receive

from .calling import Calling
from .exceptions import ClientDisconnected, HTTPException, RequestTimeout
from .forms import Body, Limits, UnreadBody
from .loops import within
from .pipeline import DRAIN, expected_body, limits_for, setting

#: bytes of a big body that are taken in between two trips to a thread
FEED_CHUNK = 1 << 19
#: seconds without any more of a refused body, after which the client is answered
DRAIN_PAUSE = 1.0
_END: Any = object()


async def take_body(ctx: Calling, receive: Receive) -> None:
    """Take in the whole body, or keep the error that says why it is refused.

    :raises ClientDisconnected: when the client does not send it to its end.
    """
    ctx.is_laden = True
    if ctx.rule is not None and ctx.rule.stream_body:
        ctx.body = unread_body(ctx, limits_for(ctx), receive)
        return

    intake = Intake(receive, setting(ctx, "body_timeout"))
    try:
        body = expected_body(ctx) if ctx.body_fields else None
        chunk = await intake.next()
        if body is None and (chunk or intake.more):  # one that no field tells of
            body = expected_body(ctx)
        if body is not None:
            ctx.body = body
            body.feed(chunk)
            if intake.more:
                await intake.fill(body)
            body.end()
        ctx.is_laden = body is not None and body.has_files
    except ClientDisconnected:
        raise
    except RequestTimeout as exc:
        ctx.refuse_body(exc)
    except HTTPException as exc:
        ctx.refuse_body(exc)
        if b"expect" not in ctx.body_fields:
            await intake.drain(max(limits_for(ctx).content_length or 0, DRAIN))


class Intake:
    """The messages that bring a body.

    :param timeout: seconds that each may take; None for no end.
    """

    def __init__(self, receive: Receive, timeout: float | None = None) -> None:
        self._receive = receive
        self._timeout = timeout
        #: False once the last message has come
        self.more: bool = True

    async def next(self) -> bytes:
        """Return the next chunk, which may be empty.

        :raises ClientDisconnected: when the client has left instead.
        :raises RequestTimeout: when none comes in time.
        """
        if self._timeout is None:
            message = await self._receive()
        else:
            message = await self._receive_in_time(self._timeout)
        if message["type"] == "http.disconnect":
            raise ClientDisconnected()

        self.more = message.get("more_body", False)
        return message.get("body", b"")  # type: ignore[no-any-return]

    async def _receive_in_time(self, seconds: float) -> Message:
        try:
            with anyio.fail_after(seconds):
                return await self._receive()
        except TimeoutError:
            raise RequestTimeout(
                f"Nothing of the body has come for {seconds} seconds."
            ) from None

    async def fill(self, body: Body) -> None:
        """Feed a body; off the loop once it is so big that files are involved."""
        pending: list[bytes] = []
        size = 0
        while self.more:
            chunk = await self.next()
            if body.in_memory:
                body.feed(chunk)
                continue

            pending.append(chunk)
            size += len(chunk)
            if not self.more or size >= FEED_CHUNK:
                await anyio.to_thread.run_sync(_feed_all, body, pending)
                size = 0

    async def drain(self, limit: int) -> None:
        """Read on for so many bytes after a body was refused, and keep nothing.

        A client that is still sending would not see the response otherwise:
        closing a connection with unread data resets it. One that pauses will.
        """
        self._timeout = None  # a pause ends it sooner, and is no error
        while self.more and limit > 0:
            with anyio.move_on_after(DRAIN_PAUSE) as pause:
                limit -= len(await self.next())
            if pause.cancelled_caught:
                return


def _feed_all(body: Body, chunks: list[bytes]) -> None:
    whole = b"".join(chunks)  # a few big pieces are parsed sooner than many
    chunks.clear()
    body.feed(whole)


def unread_body(ctx: Calling, limits: Limits, receive: Receive) -> UnreadBody:
    """Return the body of a request as what is still to be read."""
    body = UnreadBody(limits)
    body.stream = BodyStream(body, ctx, receive)
    return body


class BodyStream:
    """The chunks of an unread body: ``async for`` on the loop, ``for`` elsewhere.

    :raises RequestEntityTooLarge: when the body is over the limit.
    :raises ClientDisconnected: when the client does not send it to its end.
    """

    def __init__(self, body: UnreadBody, ctx: Calling, receive: Receive) -> None:
        self._body = body
        self._ctx = ctx
        self.intake: Intake = Intake(receive, setting(ctx, "body_timeout"))
        #: what has been read before it was asked for
        self._ahead: deque[bytes] = deque()
        self._ahead_size = 0
        self._reading = anyio.Lock()
        #: what waits for the last of it
        self._complete: anyio.Event | None = None
        self._outside = contextvars.copy_context()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            async with self._reading:
                if not self._ahead and not self.intake.more:
                    raise StopAsyncIteration
                if self._ahead:
                    chunk = self._ahead.popleft()
                    self._ahead_size -= len(chunk)
                else:
                    chunk = await within(self._outside, self._next())
            if chunk:
                self._body.feed(chunk)
                return chunk

    async def _next(self) -> bytes:
        chunk = await self.intake.next()
        if self._complete is not None and not self.intake.more:
            self._complete.set()
        return chunk

    async def read_ahead(self) -> None:
        """Take in what the view leaves unread, up to a bound, and then wait for it.

        Behind it all comes the client's farewell, which somebody is to hear.
        """
        while self.intake.more and self._ahead_size < DRAIN:
            async with self._reading:
                if self.intake.more:
                    self._ahead.append(await self._next())
                    self._ahead_size += len(self._ahead[-1])
        if self.intake.more:
            self._complete = self._complete or anyio.Event()
            await self._complete.wait()

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._ctx.run_on_loop(partial(anext, self, _END))) is not _END:
            yield chunk
