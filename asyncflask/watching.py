"""Breaking off what takes too long, or what nobody waits for any more.

While a body streams, somebody listens for the client's farewell. While a view
runs nobody does, unless the application asks for it with
:attr:`Flask.cancel_on_disconnect`, and no clock runs without
:attr:`Flask.view_timeout`.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio
from starlette.types import Receive, Send

from .calling import Calling
from .context import THREAD
from .exceptions import ClientDisconnected, RequestTimeout, ServiceUnavailable
from .forms import UnreadBody
from .loops import in_asyncio
from .pipeline import describe, logger, respond, setting

#: seconds that cleaning up may still take once the server has cancelled it
GRACE = 10.0

#: waits for something, and returns the exception to be raised for it
Watch = Callable[[], Awaitable[Exception]]
#: begins something, and returns what is left to be awaited, if anything is
Work = Callable[[], Awaitable[Any] | None]


def farewell(ctx: Calling, receive: Receive) -> Watch:
    """Return what waits until the client has left."""

    async def wait() -> ClientDisconnected:
        while isinstance(ctx.body, UnreadBody):
            try:
                await ctx.body.stream.read_ahead()
                break
            except RequestTimeout:  # who wants to read it is told that
                continue
            except ClientDisconnected as exc:
                return exc
        while (await receive())["type"] != "http.disconnect":
            pass
        return ClientDisconnected()

    return wait


async def unless(watch: Watch, work: Work) -> None:
    """Do some work, and break it off when something else happens first.

    :param work: begins it.
    :raises Exception: the one that ``watch`` returned.
    """
    await (_unless_asyncio if in_asyncio() else _unless_anyio)(watch, work)


async def _unless_asyncio(watch: Watch, work: Work) -> None:
    rest = work()
    if rest is None:  # what waits for nothing cannot be broken off
        return

    # asyncio's own cancel() comes once. A scope of anyio's would cancel, over and
    # over, whatever the work awaits to clean up.
    worker: Any = asyncio.current_task()
    is_over = False
    reason: Exception | None = None

    async def look() -> None:
        nonlocal reason
        found = await watch()
        if not is_over:
            reason = found
            worker.cancel()

    watcher = asyncio.create_task(look())
    try:
        await rest
        if reason is not None:  # the cancellation was too late, or was caught
            await asyncio.sleep(0)
            worker.uncancel()
    except asyncio.CancelledError:
        if reason is None or worker.uncancel():
            raise
        raise reason from None
    finally:
        is_over = True
        watcher.cancel()


async def _unless_anyio(watch: Watch, work: Work) -> None:
    failure: Exception | None = None

    async def look() -> None:
        nonlocal failure
        failure = await watch()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        try:
            rest = work()
            if rest is not None:
                await rest
        except Exception as exc:  # kept out of the group, which would wrap it
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


# -------------------------------------------------------------------- the view


async def guarded(ctx: Calling, receive: Receive, send: Send) -> bool:
    """Lead a request to its response, as long as it is allowed to take.

    Async code is cancelled. Plain code cannot be: its thread runs on, and
    teardown waits for it, but the client gets its 503 at once. False then.

    :raises ClientDisconnected: when the client has left, and that matters.
    """
    limit = setting(ctx, "view_timeout")
    cares = setting(ctx, "cancel_on_disconnect")
    rest = ctx.carry(respond(ctx))
    if limit is None and not cares:
        await rest
        return True

    gone: Any = farewell(ctx, receive) if cares else anyio.sleep_forever
    late = Late(ctx, send)

    async def watch() -> Exception:
        with anyio.move_on_after(limit):
            reason: Exception = await gone()
            return reason
        logger.error("%s: no response within %s seconds", describe(ctx), limit)
        if ctx.side is THREAD:
            await late.answer()
        return late.error

    try:
        with ctx.app.outstanding:  # the page of a late one may outlast the view
            await unless(watch, lambda: late.wait_for(rest))
    except (ClientDisconnected, ServiceUnavailable) as exc:
        ctx.exception = exc  # for teardown: nothing of this is to be kept
        if exc is not late.error:
            raise

        if not late.is_answered:
            await ctx.carry(respond(ctx, late.error))
    return not late.is_answered


class Late:
    """What is done about a view that takes too long.

    :ivar error: what the request has failed with.
    :ivar is_answered: True once the client is sent its page while plain code runs on.
    """

    is_answered: bool = False

    def __init__(self, ctx: Calling, send: Send) -> None:
        self.error: ServiceUnavailable = ServiceUnavailable()
        self._ctx = ctx
        self._send = send
        self._delivered = anyio.Event()

    async def answer(self) -> None:
        """Send the page, and nothing else after it."""
        self.is_answered = True
        self._ctx.exception = self.error
        start, body = self.error.get_response().on_wire(self._ctx.scope["method"])
        try:
            await self._send(start)
            await self._send({"type": "http.response.body", "body": body})
        finally:
            self._delivered.set()

    async def wait_for(self, rest: Awaitable[Any]) -> None:
        """Await the view, and the page, if that is on its way when the view is done."""
        try:
            await rest
        finally:
            if self.is_answered:
                await self._delivered.wait()


# ------------------------------------------------------------------ cleaning up


async def to_the_end(awaitable: Awaitable[Any]) -> None:
    """Await something that has to be completed, in this very task.

    A cancellation is raised when it is done; or within it, after
    :data:`GRACE` seconds.
    """
    with anyio.CancelScope(shield=True):  # which asyncio's own cancel() ignores
        await (_shielded(awaitable) if in_asyncio() else awaitable)


@types.coroutine
def _shielded(awaitable: Awaitable[Any]) -> Generator[Any, Any, None]:
    """Wait for what it waits for by a proxy, so that only the proxy is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    waited: Any = None

    def give_up() -> None:
        if waited is not None:
            waited.cancel()

    for waited in awaitable.__await__():
        is_waiting = True
        while is_waiting:
            try:
                yield from _proxy(waited)
            except asyncio.CancelledError as exc:
                if cancelled is None:
                    asyncio.get_running_loop().call_later(GRACE, give_up)
                cancelled = exc
            is_waiting = waited is not None and not waited.done()
    waited = None
    if cancelled is not None:
        raise cancelled


def _proxy(waited: asyncio.Future[Any] | None) -> Generator[Any, Any, None]:
    """Wait until a future is done, without passing a cancellation on to it."""
    if waited is None:  # only the other tasks' turn
        yield
        return

    waited._asyncio_future_blocking = False
    done = asyncio.get_running_loop().create_future()

    def wake(_: Any) -> None:
        if not done.done():
            done.set_result(None)

    waited.add_done_callback(wake)
    try:
        yield from done.__await__()
    finally:
        waited.remove_done_callback(wake)
