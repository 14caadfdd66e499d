"""The threads that the library owns.

A :class:`WorkerPool` lends a whole thread to a request, from its first plain
callable to its last, so that whatever belongs to a thread (a sqlite3
connection, a scoped session) stays usable throughout. The threads stand and
wait: handing a job to one costs a queue and a wake-up, no start.

:func:`process_loop` is the event loop for async callables that plain code
needs when no server brings one: one per process, started on first need.

Both belong to nobody else: anyio's default threads stay free for files and
for the views' own use, so that blocked workers block nothing but themselves.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Protocol

import anyio
import anyio.from_thread
import anyio.lowlevel

Job = Callable[[], object]


# -------------------------------------------------------------------- signals


class Signal(Protocol):
    """A one-time event that any thread may set and one task waits for."""

    def set(self) -> bool:
        """Set it. False if the waiting loop has gone."""

    async def wait(self) -> None:
        """Wait until it is set."""


class _AsyncioSignal:
    """The quick one, for asyncio and the loops that are built like it."""

    __slots__ = ("_future", "_is_set", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._is_set = False

    def set(self) -> bool:
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
        while not self._is_set:
            self._future = self._loop.create_future()
            await self._future


class _AnyioSignal:
    """The slower one, for every other loop that anyio knows (trio)."""

    def __init__(self) -> None:
        self._token = anyio.lowlevel.current_token()
        self._event = anyio.Event()

    def set(self) -> bool:
        try:
            anyio.from_thread.run_sync(self._event.set, token=self._token)
        except RuntimeError:  # the loop has gone
            return False

        return True

    async def wait(self) -> None:
        await self._event.wait()


def new_signal() -> Signal:
    """Return a signal for the task that runs now."""
    if in_asyncio():
        return _AsyncioSignal()

    return _AnyioSignal()


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


async def wait_through(signal: Signal) -> None:
    """Wait for a signal from a thread, also when this task is cancelled.

    A thread cannot be interrupted, and what it works on must not be torn down
    under its hands; so the cancellation is raised when the thread is done.
    """
    try:
        await signal.wait()
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):
            await _wait_again(signal)
        raise


async def _wait_again(signal: Signal) -> None:
    while True:
        try:
            return await signal.wait()
        except asyncio.CancelledError:  # asyncio's own cancel() knows no shield
            continue


# -------------------------------------------------------------------- workers


class Desk:
    """Where a thread waits for its next job, one at a time.

    Whoever holds the thread submits a job only when the last one is done, so
    one slot and one lock do; a queue would take twice the time.
    """

    def __init__(self) -> None:
        self._job: Job | None = None
        self._empty = threading.Lock()
        self._empty.acquire()

    def submit(self, job: Job | None) -> None:
        """Hand over the next job; None ends the work."""
        self._job = job
        self._empty.release()

    def work(self) -> None:
        """Do the jobs as they come, until there are to be no more."""
        while True:
            self._empty.acquire()
            job, self._job = self._job, None  # a job may hold a whole request
            if job is None:
                return

            job()
            del job


class Worker(Desk, threading.Thread):
    """A standing thread that does one job after the other."""

    def __init__(self, name: str) -> None:
        Desk.__init__(self)
        threading.Thread.__init__(self, name=name, daemon=True)

    def run(self) -> None:
        """Do the jobs."""
        self.work()


def run_in(worker: Desk, function: Callable[[], Any]) -> Any:
    """Run a plain function in a worker while this thread stands and waits.

    Context variables go there and come back.
    """
    context = contextvars.copy_context()
    done: Future[Any] = Future()

    def job() -> None:
        try:
            done.set_result(context.run(function))
        except BaseException as exc:
            done.set_exception(exc)

    worker.submit(job)
    try:
        return done.result()
    finally:
        adopt(context)


class _Ticket:
    """A place in the queue for a worker."""

    __slots__ = ("signal", "worker")

    def __init__(self) -> None:
        self.signal = new_signal()
        self.worker: Worker | None = None


class WorkerPool:
    """A bounded number of workers, lent one request at a time.

    :param limit: asked for the number of threads whenever one more is wanted.
    :param name: what the threads are called, with a number behind it.
    """

    def __init__(self, limit: Callable[[], int], name: str) -> None:
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Worker] = []
        self._lent: set[Worker] = set()
        self._waiting: deque[_Ticket] = deque()
        self._started = 0
        self._closed = False
        # Without a server that says goodbye, the threads end with the pool.
        self._finalizer = weakref.finalize(self, _stop_all, self._idle)

    async def acquire(self) -> Worker:
        """Return a worker for the caller alone, waiting in line if need be."""
        with self._lock:
            worker = self._take(self._limit())
            if worker is not None:
                return worker
            ticket = _Ticket()
            self._waiting.append(ticket)
        try:
            await ticket.signal.wait()
        except BaseException:
            self._give_up(ticket)
            raise
        if ticket.worker is None:
            raise RuntimeError("a worker was promised but not handed over")

        return ticket.worker

    def acquire_now(self) -> Worker:
        """Return a worker without waiting, over the limit if all are lent."""
        with self._lock:
            worker = self._take(len(self._lent) + 1)
        if worker is None:
            raise RuntimeError("a new worker was refused below its own limit")

        return worker

    def _take(self, limit: int) -> Worker | None:
        if self._pid != os.getpid():  # threads do not survive a fork
            self._finalizer.detach()
            self._reset()
        self._closed = False
        if self._idle:
            worker = self._idle.pop()
        elif len(self._lent) < limit:
            self._started += 1
            worker = Worker(f"{self._name}-{self._started}")
            worker.start()
        else:
            return None

        self._lent.add(worker)
        return worker

    def _give_up(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket.worker is None:
                self._waiting.remove(ticket)
        if ticket.worker is not None:
            self.release(ticket.worker)

    def release(self, worker: Worker) -> None:
        """Take a worker back, or hand it to who has waited longest."""
        with self._lock:
            while self._waiting:
                ticket = self._waiting.popleft()
                ticket.worker = worker
                if ticket.signal.set():
                    return
            self._lent.discard(worker)
            if self._closed or len(self._idle) + len(self._lent) >= self._limit():
                worker.submit(None)
            else:
                self._idle.append(worker)

    def close(self) -> None:
        """End the idle threads now, and the lent ones when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle[:] = list(self._idle), []
        _stop_all(idle)
        for worker in idle:
            worker.join(timeout=1)

    def stats(self) -> dict[str, int]:
        """Return how many threads are lent, idle, and waited for."""
        return {
            "lent": len(self._lent),
            "idle": len(self._idle),
            "waiting": len(self._waiting),
        }


def _stop_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.submit(None)


# ----------------------------------------------------- from a thread to a loop


def adopt(context: contextvars.Context) -> None:
    """Take over what another context has set, variable by variable."""
    mine = contextvars.copy_context()
    for variable, value in context.items():
        if mine.get(variable, _UNSET) is not value:
            variable.set(value)


_UNSET = object()


class LoopHandle(Protocol):
    """A running event loop, as seen from plain code in another thread."""

    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async function there in a copy of this context; wait for it."""

    def is_here(self) -> bool:
        """Say whether it is the loop of this very thread."""


class AsyncioHandle:
    """A handle on an asyncio loop."""

    __slots__ = ("loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def is_here(self) -> bool:
        """Say whether it is the loop of this very thread."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def start(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Start an async function there, in a copy of this context."""
        context = contextvars.copy_context()
        tasks: set[asyncio.Future[Any]] = set()  # the loop keeps weak ones only

        def start() -> None:
            task = self.loop.create_task(_awaited(function), context=context)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        self.loop.call_soon_threadsafe(start)

    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async function there and return its result.

        Context variables go there and come back.
        """
        context = contextvars.copy_context()
        done: Future[Any] = Future()
        tasks: list[asyncio.Task[None]] = []

        async def run() -> None:
            try:
                done.set_result(await function())
            except BaseException as exc:
                done.set_exception(exc)

        def start() -> None:
            tasks.append(self.loop.create_task(run(), context=context))

        self.loop.call_soon_threadsafe(start)
        try:
            return done.result()
        except KeyboardInterrupt:
            self.loop.call_soon_threadsafe(lambda: tasks and tasks[0].cancel())
            raise
        finally:
            adopt(context)


async def _awaited(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()


class AnyioHandle:
    """A handle on any other loop that anyio knows."""

    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token = anyio.lowlevel.current_token()

    def is_here(self) -> bool:
        """Say whether it is the loop of this very thread."""
        try:
            return anyio.lowlevel.current_token() == self.token
        except RuntimeError:
            return False

    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async function there and return its result."""
        context = contextvars.copy_context()

        async def run() -> tuple[Any, contextvars.Context]:
            return await function(), contextvars.copy_context()

        call = functools.partial(anyio.from_thread.run, run, token=self.token)
        result, theirs = context.run(call)
        adopt(theirs)
        return result


def this_loop() -> LoopHandle:
    """Return a handle on the loop that runs in this thread."""
    if in_asyncio():
        return AsyncioHandle(asyncio.get_running_loop())

    return AnyioHandle()


class _ProcessLoop:
    """The lazily started loop of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: AsyncioHandle | None = None
        self._pid = 0

    def handle(self) -> AsyncioHandle:
        with self._lock:
            if self._handle is None or self._pid != os.getpid():
                self._start()
            if self._handle is None:
                raise RuntimeError("the loop of this process did not start")

            return self._handle

    def _start(self) -> None:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=self._run, args=(loop,), name="asyncflask-loop", daemon=True
        )
        self._handle, self._pid = AsyncioHandle(loop), os.getpid()
        thread.start()
        atexit.register(self._stop, loop, thread)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    @staticmethod
    def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        if not loop.is_closed() and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5)


_process_loop = _ProcessLoop()


def process_loop() -> AsyncioHandle:
    """Return a handle on the loop of this process, started on first need.

    It lives in a thread of its own until the interpreter exits; a process
    that was forked off starts its own.
    """
    return _process_loop.handle()
