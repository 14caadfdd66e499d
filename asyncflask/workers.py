"""The threads for plain callables.

A :class:`WorkerPool` lends a whole thread to a request, from its first plain
callable to its last, so that whatever belongs to a thread (a sqlite3
connection, a scoped session) stays usable throughout. The threads stand and
wait: handing a job to one takes a wake-up, not a start.

They are nobody else's: anyio's default threads stay free for files and for
the views' own use, so that blocked workers block nothing but themselves.
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from .loops import LoopHandle, new_signal


class Job(Protocol):
    """Something to be done at a desk, or to be refused."""

    def __call__(self) -> object:
        """Do it."""

    def refuse(self, error: Exception) -> object:
        """Say why it is not done, to who waits for it."""


class Desk:
    """Where a thread waits for its next job.

    A thread that waits for something itself may sit down at its desk again
    meanwhile, and so serve what it waits for.
    """

    def __init__(self, thread_id: int | None = None) -> None:
        #: the thread that works here
        self.thread_id = thread_id
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._refusal: Exception | None = None

    def submit(self, job: Job | None) -> None:
        """Hand over a job; None only makes the thread look up."""
        self._jobs.put(job)
        if self._refusal is not None:
            self.close(self._refusal)

    def close(self, refusal: Exception) -> None:
        """Refuse the jobs that nobody will do any more, and those to come."""
        self._refusal = refusal
        while not self._jobs.empty():
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is not None:
                job.refuse(refusal)

    def work(self, until: Callable[[], object]) -> None:
        """Do the jobs as they come, until a condition holds."""
        self.thread_id = threading.get_ident()
        while not until():
            job = self._jobs.get()
            if job is not None:
                job()
            del job  # it may hold a whole request

    def wait_for(self, function: Callable[[], Awaitable[Any]], loop: LoopHandle) -> Any:
        """Run an async function on a loop, and work here until it is done.

        :raises RuntimeError: in the thread of that very loop.
        """
        errand = Errand(self, function, loop)
        errand.start()
        errand.work(lambda: False)
        return errand.outcome.get()

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a plain function here, while the thread that asks stands still.

        Context variables go there and come back.
        """
        done = threading.Event()
        call = Call(function, done.set)
        self.submit(call)
        done.wait()
        return call.result()


class Errand:
    """An async function on a loop, for a thread that serves it meanwhile.

    :param started: gets what cancels it, before it starts.
    :ivar outcome: what came of it.
    :ivar cancel: ends it early; may be called in any thread.
    :raises RuntimeError: in the thread of that very loop.
    """

    def __init__(
        self,
        desk: Desk,
        function: Callable[[], Awaitable[Any]],
        loop: LoopHandle,
        started: Callable[[Callable[[], None]], object] = id,
    ) -> None:
        if loop.is_here():
            raise RuntimeError(
                f"{function!r} was to be waited for in the thread of the event loop"
                " that runs it, which would never end. Await it instead."
            )
        self.outcome: Outcome = Outcome()
        self.cancel: Callable[[], object] = bool
        self._desk = desk
        self._function = function
        self._loop = loop
        self._tell = started

    def start(self) -> None:
        """Start it."""
        self._loop.start(self._run, self._started)

    def _started(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel
        self._tell(cancel)

    async def _run(self) -> None:
        try:
            self.outcome.value = await self._function()
        except BaseException as exc:
            self.outcome.error = exc
        finally:
            self.outcome.is_there = True
            self.cancel = bool  # it holds the function, and so all of the request
            self._desk.submit(None)

    def work(self, until: Callable[[], object]) -> None:
        """Work at the desk until a condition holds, or the function is done.

        An exception from outside, such as a signal handler's, ends the function.
        """
        outcome = self.outcome
        try:
            self._desk.work(lambda: outcome.is_there or until())
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Cancel the function, if it is not done, and work until it is."""
        outcome = self.outcome
        if self.cancel is not bool and not outcome.is_there:
            self.cancel()
            self._desk.work(lambda: outcome.is_there)


class Call:
    """A call of a plain function at a desk, in a copy of the caller's context.

    :ivar outcome: what came of it.
    """

    def __init__(self, function: Callable[[], Any], done: Callable[[], object]) -> None:
        self._context = contextvars.copy_context()
        self._function = function
        self._done = done
        self.outcome: Outcome = Outcome()

    def __call__(self) -> None:
        try:
            self.outcome.value = self._context.run(self._function)
        except BaseException as exc:
            self.outcome.error = exc
        finally:
            self._done()

    def refuse(self, error: Exception) -> None:
        """Raise an error in place of a result."""
        self.outcome.error = error
        self._done()

    def result(self) -> Any:
        """Return what it returned, or raise; take over its context variables."""
        adopt(self._context)
        return self.outcome.get()


class Outcome:
    """What came of a call in another thread."""

    is_there = False
    value: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error

        return self.value


_UNSET = object()


def adopt(context: contextvars.Context) -> None:
    """Take over what another context has set, variable by variable."""
    mine = contextvars.copy_context()
    for variable, value in context.items():
        if mine.get(variable, _UNSET) is not value:
            variable.set(value)


class Worker(threading.Thread):
    """A standing thread at a desk."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.desk: Desk = Desk()
        self._is_done = False

    def run(self) -> None:
        """Work until told to stop."""
        self.desk.work(lambda: self._is_done)

    def stop(self) -> None:
        """Let the thread end when its jobs are done."""
        self._is_done = True
        self.desk.submit(None)


class _Ticket:
    """A place in the queue for a worker."""

    def __init__(self) -> None:
        self.signal = new_signal()
        self.worker: Worker | None = None


class WorkerPool:
    """A bounded number of workers, each lent to one request at a time.

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

    def acquire_idle(self) -> Worker | None:
        """Return a worker for the caller alone, if one is idle or may be started."""
        with self._lock:
            return self._take(self._limit())

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

    def acquire_now(self) -> tuple[Worker, bool]:
        """Return a worker without waiting, and whether it may be kept.

        When all are lent it is one over the limit, to be given back at once.
        """
        with self._lock:
            worker = self._take(self._limit())
            if worker is not None:
                return worker, True

            worker = self._take(len(self._lent) + 1)
        if worker is None:
            raise RuntimeError("a new worker was refused below its own limit")

        return worker, False

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
            if ticket in self._waiting:
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
                ticket.worker = None  # its loop has gone
            self._lent.discard(worker)
            if self._closed or len(self._idle) + len(self._lent) >= self._limit():
                worker.stop()
            else:
                self._idle.append(worker)

    def detach(self, worker: Worker) -> None:
        """Let a lent worker go for good; another may take its place."""
        with self._lock:
            self._lent.discard(worker)
            replacement = self._take(self._limit()) if self._waiting else None
        if replacement is not None:
            self.release(replacement)

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
        worker.stop()
