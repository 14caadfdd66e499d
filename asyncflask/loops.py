"""Event loops, as plain code in other threads sees them.

A :class:`LoopHandle` reaches a loop from any thread; a :class:`Signal` lets a
task wait for one. Both come in two kinds, for asyncio (and what is built like
it, such as uvloop) and for trio. :func:`process_loop` is the loop for async
callables that plain code needs where no server brings one. :func:`within` is for
tasks: it awaits something in another context than their own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    import trio

logger: logging.Logger = logging.getLogger("asyncflask")


class Signal(Protocol):
    """A one-time event that any thread may set and one task waits for."""

    def set(self) -> bool:
        """Set it; False if the loop that waits has gone."""

    async def wait(self) -> None:
        """Wait until it is set."""


class LoopHandle(Protocol):
    """A running event loop."""

    def is_here(self) -> bool:
        """Say whether it is the loop of this very thread."""

    def start(
        self,
        function: Callable[[], Awaitable[Any]],
        started: Callable[[Callable[[], None]], object],
    ) -> None:
        """Start an async function there, which must not raise.

        :param started: gets what cancels it, from any thread, before it starts.
        """


class AsyncioSignal:
    """A signal for a task on asyncio."""

    __slots__ = ("_future", "_is_set", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._is_set = False

    def set(self) -> bool:
        """Set it; False if the loop that waits has gone."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed
            return False

        return True

    def _wake(self) -> None:
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until it is set."""
        while not self._is_set:
            self._future = self._loop.create_future()
            await self._future


class TrioSignal:
    """A signal for a task on trio."""

    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def set(self) -> bool:
        """Set it; False if the loop that waits has gone."""
        import trio

        try:
            self._token.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            return False

        return True

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()


class AsyncioHandle:
    """A handle on an asyncio loop."""

    __slots__ = ("loop",)
    #: those that run; loops keep weak references only
    _tasks: ClassVar[set[asyncio.Task[Any]]] = set()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop

    def is_here(self) -> bool:
        """Say whether it is the loop of this very thread."""
        return in_asyncio() and asyncio.get_running_loop() is self.loop

    def start(
        self,
        function: Callable[[], Awaitable[Any]],
        started: Callable[[Callable[[], None]], object],
    ) -> None:
        """Start an async function there, in a copy of this thread's context."""
        context = contextvars.copy_context()
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None:  # anyio.run() has it say "trio" where trio runs
            context.run(sniffio.current_async_library_cvar.set, "asyncio")
        task: asyncio.Task[None] | None = None

        def start() -> asyncio.Task[None]:
            nonlocal task
            if task is None:
                task = self.loop.create_task(_awaited(function), context=context)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return task

        def end() -> None:  # behind its first step: it must begin, to end
            self.loop.call_soon(start().cancel)

        def cancel() -> None:
            self.loop.call_soon_threadsafe(end)

        started(cancel)
        self.loop.call_soon_threadsafe(start)


class TrioHandle:
    """A handle on a trio loop."""

    def __init__(self) -> None:
        import trio

        self.token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()

    def is_here(self) -> bool:
        """Say whether it is the loop of this very thread."""
        import trio

        return in_loop() and trio.lowlevel.current_trio_token() is self.token

    def start(
        self,
        function: Callable[[], Awaitable[Any]],
        started: Callable[[Callable[[], None]], object],
    ) -> None:
        """Start an async function there, in a copy of this thread's context."""
        import trio

        context = contextvars.copy_context()
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await function()

        def start() -> None:
            trio.lowlevel.spawn_system_task(run, context=context)

        started(lambda: self.token.run_sync_soon(scope.cancel))
        self.token.run_sync_soon(start)


async def _awaited(function: Callable[[], Awaitable[Any]]) -> None:
    await function()


def in_asyncio() -> bool:
    """Say whether an asyncio loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False

    return True


def in_loop() -> bool:
    """Say whether any event loop runs in this thread."""
    if in_asyncio():
        return True

    try:
        anyio.lowlevel.current_token()
    except RuntimeError:  # anyio's NoEventLoopError is one
        return False

    return True


def this_loop() -> LoopHandle:
    """Return a handle on the loop that runs in this thread."""
    return AsyncioHandle(asyncio.get_running_loop()) if in_asyncio() else TrioHandle()


async def checkpoint() -> None:
    """Let other tasks get on."""
    await (asyncio.sleep(0) if in_asyncio() else anyio.lowlevel.checkpoint())


def new_signal() -> Signal:
    """Return a signal for the task that runs now."""
    try:
        return AsyncioSignal(asyncio.get_running_loop())
    except RuntimeError:
        return TrioSignal()


async def wait_through(signal: Signal) -> None:
    """Wait for a signal from a thread, also when this task is cancelled.

    A thread cannot be interrupted, and what it works on must not be torn down
    under its hands; so the cancellation is raised when the thread is done.
    """
    try:
        await signal.wait()
    except anyio.get_cancelled_exc_class():
        await wait_on(signal)
        raise


async def wait_on(signal: Signal) -> None:
    """Wait for a signal, whatever is cancelled."""
    with anyio.CancelScope(shield=True):
        while True:
            try:
                return await signal.wait()
            except asyncio.CancelledError:  # asyncio's own cancel() knows no shield
                continue


# ------------------------------------------------------ the loop of the process


class _ProcessLoop:
    """The lazily started loop of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: AsyncioHandle | None = None
        self._pid = 0

    def handle(self) -> AsyncioHandle:
        with self._lock:
            if self._handle is None or self._pid != os.getpid():
                # Nothing of the request that happens to be first belongs in there.
                self._handle = contextvars.Context().run(self._start)
                self._pid = os.getpid()
            return self._handle

    def _start(self) -> AsyncioHandle:
        refuse_where_threads_do_not_run()
        loop = asyncio.new_event_loop()
        # A task to live by: anyio keeps its threads as long as there is one.
        life = loop.create_task(asyncio.Event().wait())
        thread = threading.Thread(
            target=self._run, args=(loop, life), name="asyncflask-loop", daemon=True
        )
        thread.start()
        atexit.register(self._stop, loop, life, thread)
        return AsyncioHandle(loop)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop, life: asyncio.Task[Any]) -> None:
        asyncio.set_event_loop(loop)
        while not life.done():
            try:
                loop.run_until_complete(life)
            except asyncio.CancelledError:
                break
            except (SystemExit, KeyboardInterrupt) as exc:
                # Raised by one task; the others have nothing to do with it.
                logger.error("A task tried to end the process: %r", exc)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    @staticmethod
    def _stop(
        loop: asyncio.AbstractEventLoop,
        life: asyncio.Task[Any],
        thread: threading.Thread,
    ) -> None:
        if not loop.is_closed() and thread.is_alive():
            loop.call_soon_threadsafe(life.cancel)
            thread.join(timeout=5)


def refuse_where_threads_do_not_run() -> None:
    """Say so where the thread of a loop would never get on.

    :raises RuntimeError: under gevent's patches, and in uWSGI without threads.
    """
    gevent, uwsgi = sys.modules.get("gevent.monkey"), sys.modules.get("uwsgi")
    if gevent is not None and gevent.is_module_patched("threading"):
        raise RuntimeError(
            "Async callables need an event loop in a thread of its own, and gevent has"
            " replaced threads. Use plain callables only, or gunicorn's gthread worker."
        )
    if uwsgi is not None and not {"enable-threads", "threads"} & set(uwsgi.opt):
        raise RuntimeError(
            "Async callables need an event loop in a thread of its own, and uWSGI runs"
            " no threads by itself. Start it with --enable-threads."
        )


_process_loops = [_ProcessLoop()]


def process_loop() -> AsyncioHandle:
    """Return a handle on the loop of this process, started on first need.

    It lives in a thread of its own until the interpreter exits; a process
    that was forked off starts its own. Code that runs on it already gets
    another, since it could not wait for itself.
    """
    for loop in _process_loops:
        handle = loop.handle()
        if not handle.is_here():
            return handle

    _process_loops.append(_ProcessLoop())
    return _process_loops[-1].handle()


@types.coroutine
def within(
    context: contextvars.Context, awaitable: Awaitable[Any]
) -> Generator[Any, Any, Any]:
    """Await something in a context other than the task's own."""
    coroutine = awaiting(awaitable)
    step: Callable[..., Any] = coroutine.send
    value: Any = None
    while True:
        try:
            yielded = context.run(step, value)
        except StopIteration as stop:
            return stop.value
        step = coroutine.send
        try:
            value = yield yielded
        except BaseException as exc:
            step, value = coroutine.throw, exc


async def awaiting(awaitable: Awaitable[Any]) -> Any:
    """Await something, as a coroutine."""
    return await awaitable
