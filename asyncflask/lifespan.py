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
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .loops import Signal, new_signal, process_loop

if TYPE_CHECKING:
    from .app import Flask

logger: logging.Logger = logging.getLogger("asyncflask")

#: seconds that a WSGI process waits at its end for the shut-down
PATIENCE = 5


@asynccontextmanager
async def lifespan(
    app: Flask, state: dict[str, Any] | None = None
) -> AsyncIterator[None]:
    """Do what an application wants done around its serving.

    :param state: what ASGI servers share between the lifespan and the requests.
    :raises Exception: whatever keeps a part from starting, or from stopping.
    """
    failure: Exception | None = None
    sites = [mount for mount in app.mounts if not mount.is_wsgi]
    # A task group is left by the task that entered it. Without sites there is none,
    # so that fixtures of a test may enter in one task and leave in another.
    group: Any = anyio.create_task_group() if sites else nullcontext()
    async with group:
        try:
            async with AsyncExitStack() as stack:
                for function in app.while_serving_funcs:
                    generator = function()
                    stack.push_async_callback(_finished, generator)
                    await anext(generator)
                for mount in sites:
                    site = Site(mount.app, {} if state is None else state)
                    group.start_soon(site.run)
                    await site.start()
                    stack.push_async_callback(site.stop)
                yield
        except Exception as exc:  # kept out of the group, which would wrap it
            failure = exc
    if failure is not None:
        raise failure


async def _finished(generator: AsyncGenerator[Any]) -> None:
    """Run what stands behind the yield of a function, whatever has failed."""
    await anext(generator, None)
    await generator.aclose()


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
            await requests_over(app)
    except Exception as exc:
        logger.error("The application failed at its %s.", phase, exc_info=exc)
        message = f"{type(exc).__name__}: {exc}"
        await send({"type": f"lifespan.{phase}.failed", "message": message})
    else:
        await send({"type": "lifespan.shutdown.complete"})
    finally:
        app.workers.close()


class Outstanding:
    """How much is under way that the end of the application waits for.

    Code of requests counts from when it first waits until it is over. Whoever waits
    for anything else that needs the application enters. One request may count twice.
    """

    count: int = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *exc_info: object) -> None:
        self.count -= 1


async def requests_over(app: Flask) -> None:
    """Wait until nothing is under way for a request, but not for ever.

    A server that has lost patience cancels its requests and does not wait until
    they are torn down; they may still need what is about to be closed.
    """
    with anyio.move_on_after(app.cleanup_grace):
        while app.outstanding.count:  # noqa: ASYNC110 - no event of another loop
            await anyio.sleep(0.01)


# ------------------------------------------------------- of a mounted application


class Site:
    """The lifespan of an ASGI application inside ours, which we are the server of.

    :param state: what it may put things into for its requests.
    """

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._answered = anyio.Event()
        self._leaving = anyio.Event()
        self._left = anyio.Event()
        self._failure: str | None = None
        self._asked = False

    async def run(self) -> None:
        """Call the application; one that knows no lifespan is left alone."""
        asgi = {"version": "3.0", "spec_version": "2.0"}
        scope = {"type": "lifespan", "asgi": asgi, "state": self._state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as exc:
            if self._answered.is_set():
                self._failure = self._failure or f"{type(exc).__name__}: {exc}"
                logger.error("The lifespan of %r failed.", self._app, exc_info=exc)
            else:
                logger.info("%r has no lifespan: %r", self._app, exc)
        finally:
            self._answered.set()
            self._left.set()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}

        await self._leaving.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            self._failure = message.get("message") or "it did not say why"
        self._answered.set()

    async def start(self) -> None:
        """Wait until it has started.

        :raises RuntimeError: when it says that it cannot.
        """
        await self._answered.wait()
        self._check()

    async def stop(self) -> None:
        """Let it stop, and wait until it has.

        :raises RuntimeError: when it says that it could not.
        """
        self._leaving.set()
        await self._left.wait()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise RuntimeError(
                f"The mounted application {self._app!r} failed: {self._failure}"
            )


# --------------------------------------------------------------------- under WSGI


class ProcessLifespan:
    """The lifespan of an application in a process that a WSGI server runs."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._pid = 0
        self._error: BaseException | None = None
        #: what mounted applications share between their lifespan and requests
        self.state: dict[str, Any] = {}

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
            async with lifespan(self._app, self.state):
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
