"""What lasts as long as the server: start-up and shut-down.

The functions of :meth:`Flask.while_serving` and the lifespans of mounted ASGI
applications are nested in each other: entered one after the other at the start,
left in the reverse order at the end. If one fails to start, those before it are
left again and the server does not start.

An ASGI server tells us when. Under WSGI nobody does: there the first request
of each process starts it all, on the loop of the process, and the end of the
interpreter ends it.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .loops import Signal, new_signal, process_loop

if TYPE_CHECKING:
    from .app import Flask

logger = logging.getLogger("asyncflask")

#: seconds that a WSGI process waits at its end for the shut-down
PATIENCE = 5


@asynccontextmanager
async def lifespan(
    app: Flask, state: dict[str, Any] | None = None
) -> AsyncIterator[None]:
    """Do what an application wants done around its serving.

    :param state: what ASGI servers share between the lifespan and the requests.
    :raises Exception: whatever keeps a part from starting.
    """
    async with AsyncExitStack() as stack:
        for function in app.while_serving_funcs:
            await stack.enter_async_context(asynccontextmanager(function)())
        for mount in app.mounts:
            if not mount.is_wsgi:
                await stack.enter_async_context(lifespan_of(mount.app, state))
        yield


async def serve_lifespan(
    app: Flask, scope: Scope, receive: Receive, send: Send
) -> None:
    """Start up and shut down as an ASGI server says."""
    await receive()
    phase = "startup"
    try:
        async with lifespan(app, scope.get("state")):
            await send({"type": "lifespan.startup.complete"})
            phase = "shutdown"
            await receive()
    except Exception as exc:
        logger.error("The application failed at its %s.", phase, exc_info=exc)
        message = f"{type(exc).__name__}: {exc}"
        await send({"type": f"lifespan.{phase}.failed", "message": message})
        return

    app.workers.close()
    await send({"type": "lifespan.shutdown.complete"})


# ------------------------------------------------------- of a mounted application


class _Sub:
    """The lifespan of an application inside ours, which we are the server of."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.answered = anyio.Event()
        self.leaving = anyio.Event()
        #: why it does not start, or did not stop well
        self.failure: str | None = None
        self._asked = False

    async def run(self, scope: Scope) -> None:
        """Call the application; one that knows no lifespan is left alone."""
        try:
            await self.app(scope, self.receive, self.send)
        except Exception as exc:
            if self.answered.is_set():
                raise
            logger.info("%r has no lifespan: %r", self.app, exc)
        finally:
            self.answered.set()

    async def receive(self) -> Message:
        """Say what the application is to do: first start, then stop."""
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}

        await self.leaving.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        """Take note of what it has done."""
        if message["type"].endswith(".failed"):
            self.failure = message.get("message") or "it did not say why"
        self.answered.set()


@asynccontextmanager
async def lifespan_of(
    app: ASGIApp, state: dict[str, Any] | None = None
) -> AsyncIterator[None]:
    """Run the lifespan of a mounted ASGI application around ours.

    :raises RuntimeError: when it fails to start or to stop.
    """
    sub = _Sub(app)
    scope: Scope = {
        "type": "lifespan",
        "asgi": {"version": "3.0", "spec_version": "2.0"},
        "state": {} if state is None else state,
    }
    async with anyio.create_task_group() as group:
        group.start_soon(sub.run, scope)
        await sub.answered.wait()
        if sub.failure is None:
            try:
                yield
            finally:
                sub.leaving.set()
    if sub.failure is not None:
        raise RuntimeError(f"The mounted application {app!r} failed: {sub.failure}")


# --------------------------------------------------------------------- under WSGI


class ProcessLifespan:
    """The lifespan of an application in a process that a WSGI server runs."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._pid = 0
        self._error: BaseException | None = None

    def ensure(self) -> None:
        """Start up, if this process has not yet.

        :raises RuntimeError: when that has failed.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._start()
                self._pid = os.getpid()
        if self._error is not None:
            raise RuntimeError(
                "The application failed at its startup, so it cannot serve."
            ) from self._error

    def _start(self) -> None:
        self._error = None
        self._up, self._down = threading.Event(), threading.Event()
        self._leave: Signal | None = None
        # Nothing of the request that happens to come first belongs in there.
        contextvars.Context().run(process_loop().start, self._stand, id)
        self._up.wait()
        atexit.register(self._stop, os.getpid())

    async def _stand(self) -> None:
        try:
            async with lifespan(self._app):
                self._leave = new_signal()
                self._up.set()
                await self._leave.wait()
        except BaseException as exc:
            logger.error("The application failed.", exc_info=exc)
            self._error = exc
        finally:
            self._up.set()
            self._down.set()

    def _stop(self, pid: int) -> None:
        if pid == os.getpid() and self._leave is not None:
            self._leave.set()
            self._down.wait(PATIENCE)
