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
        #: the calls for tasks that are not done; they may outlive the request
        self.calls: set[Call] = set()

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
        #: the desk that it is handed to, if that is to know
        self.desk: Desk | None = None
        self.outcome: Outcome = Outcome()

    def __call__(self) -> None:
        try:
            self.outcome.value = self._context.run(self._function)
        except BaseException as exc:
            self.outcome.error = exc
        finally:
            if self.desk is not None:
                self.desk.calls.discard(self)
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
        """Let the thread end when its present job is done."""
        self._is_done = True
        self.desk.submit(None)


class Claim(Protocol):
    """What wants a worker."""

    def take(self, worker: Worker) -> bool:
        """Have a worker, in its own thread; False to give it back with that."""

    def tell(self) -> None:
        """Say that this is done, once the worker is back where it belongs."""


class _Ticket:
    """A claim for a worker to be handed over."""

    worker: Worker
    #: False if the loop that waited for it has gone
    is_handed_over = False

    def __init__(self) -> None:
        self.signal = new_signal()
        self.is_settled = threading.Event()

    def take(self, worker: Worker) -> bool:
        """Hand the worker over."""
        self.worker = worker
        self.is_handed_over = self.signal.set()
        self.is_settled.set()
        return self.is_handed_over

    def tell(self) -> None:
        """Say nothing: who waits for it knows."""


class _Round:
    """What a worker is woken for: it goes through the claims, until one keeps it."""

    __slots__ = ("_pool", "_worker")

    def __init__(self, pool: WorkerPool, worker: Worker) -> None:
        self._pool = pool
        self._worker = worker

    def __call__(self) -> None:
        pool, worker = self._pool, self._worker
        claim = pool.next_claim(worker)
        while claim is not None:
            done = claim
            claim = None if done.take(worker) else pool.next_claim(worker)
            done.tell()

    def refuse(self, error: Exception) -> None:
        """Do nothing: nobody closes the desk of a worker."""


class WorkerPool:
    """A bounded number of workers, each lent to one request at a time.

    To wake a thread takes longer than many a plain view. So a worker that is done with
    one request goes on with the next that waits, and only one more is on its way at a
    time. Still no request waits for the view of another: who takes a claim wakes the
    next worker first, if more claims are there.

    :param limit: asked for the number of threads whenever one more is wanted.
    :param name: what the threads are called, with a number behind it.
    """

    def __init__(self, limit: Callable[[], int], name: str) -> None:
        self._limit = limit
        self._name = name
        # Which a request that is garbage may want in the middle of anything.
        self._lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Worker] = []
        self._lent: set[Worker] = set()
        self._claims: deque[Claim] = deque()
        #: the worker that has been woken for them, and is not there yet
        self._roused: Worker | None = None
        self._started = 0
        self._closed = False
        # Without a server that says goodbye, the threads end with the pool.
        self._finalizer = weakref.finalize(self, _stop_all, self._idle)

    def post(self, claim: Claim) -> None:
        """Have the next free worker take a claim; they are taken in their order.

        :raises RuntimeError: when the system has no thread for us.
        """
        with self._lock:
            self._open()
            self._claims.append(claim)
            try:
                worker = self._rouse()
            except RuntimeError:
                self._claims.remove(claim)
                raise
        self._send(worker)

    def withdraw(self, claim: Claim) -> bool:
        """Take a claim back; False if a worker has taken it."""
        with self._lock:
            if claim not in self._claims:
                return False

            self._claims.remove(claim)
            return True

    def next_claim(self, worker: Worker) -> Claim | None:
        """Return what a worker is to do next, who is through with what it has done.

        If there is nothing it is idle.
        """
        limit = self._limit()  # here: garbage may withdraw a claim while it is called
        with self._lock:
            self._lent.discard(worker)
            if self._roused is worker:
                self._roused = None
            if not self._claims or len(self._lent) >= limit:
                self._retire(worker)
                return None

            claim = self._claims.popleft()
            self._lent.add(worker)
            other = self._rouse()
        self._send(other)
        return claim

    def acquire_idle(self) -> Worker | None:
        """Return a worker for the caller alone, if one is idle or may be started."""
        with self._lock:
            self._open()
            return None if self._claims else self._take(self._limit())

    async def acquire(self) -> Worker:
        """Return a worker for the caller alone, waiting in line if need be."""
        ticket = _Ticket()
        self.post(ticket)
        try:
            await ticket.signal.wait()
        except BaseException:
            if not self.withdraw(ticket):
                ticket.is_settled.wait()  # a worker is right at it
                if ticket.is_handed_over:
                    self.release(ticket.worker)
            raise
        return ticket.worker

    def acquire_now(self) -> tuple[Worker, bool]:
        """Return a worker without waiting, and whether it may be kept.

        When all are lent it is one over the limit, to be given back at once.
        """
        with self._lock:
            self._open()
            worker = self._take(self._limit())
            if worker is not None:
                return worker, True

            worker = self._take(self._busy + 1)
        if worker is None:
            raise RuntimeError("a new worker was refused below its own limit")

        return worker, False

    def release(self, worker: Worker, for_good: bool = False) -> None:
        """Take a worker back that was lent.

        :param for_good: let it go instead; another may take its place.
        """
        if not for_good and worker.desk.calls:
            self._send(worker)  # lent until it is through with those
            return

        with self._lock:
            self._lent.discard(worker)
            if not for_good:
                self._retire(worker)
            other = self._rouse()
        self._send(other)

    # What follows is called under the lock, but for _send().

    @property
    def _busy(self) -> int:
        return len(self._lent) + (self._roused is not None)

    def _open(self) -> None:
        if self._pid != os.getpid():  # threads do not survive a fork
            self._finalizer.detach()
            self._reset()
        self._closed = False

    def _take(self, limit: int) -> Worker | None:
        worker = self._free(limit)
        if worker is not None:
            self._lent.add(worker)
        return worker

    def _free(self, limit: int) -> Worker | None:
        if self._idle:
            return self._idle.pop()

        if self._busy >= limit:
            return None

        worker = Worker(f"{self._name}-{self._started + 1}")
        try:
            worker.start()
        except RuntimeError:  # the system has no more threads
            if not self._lent:
                raise
            return None
        self._started += 1
        return worker

    def _retire(self, worker: Worker) -> None:
        is_last = self._closed and not self._claims
        if is_last or len(self._idle) + self._busy >= self._limit():
            worker.stop()
        else:
            self._idle.append(worker)

    def _rouse(self) -> Worker | None:
        """Return the worker to be woken for the claims, if one is needed."""
        if not self._claims or self._roused is not None:
            return None

        self._roused = self._free(self._limit())
        return self._roused

    def _send(self, worker: Worker | None) -> None:
        if worker is not None:
            worker.desk.submit(_Round(self, worker))

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
            "waiting": len(self._claims),
        }


def _stop_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()
