"""How a request moves between the event loop and its worker thread.

*Moving* is the trick of this package. The coroutine that lives through the
request belongs to no thread: one that yields ``TO_THREAD`` is carried on by
the worker, in the same :class:`contextvars.Context`, until it yields
``TO_LOOP`` or is done. So a view with four plain hooks crosses over once and
back once; all of them run in one thread; variables set on one side are seen
on the other; and a request without plain callables never leaves the loop.

A request takes a worker when the first plain callable is due, and keeps it to
its end. Where all its code was plain, and none can follow, it gives the worker
back as soon as the response is made.
"""

from __future__ import annotations

import contextvars
import functools
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio

from .context import LOOP, THREAD, RequestContext, Side
from .loops import LoopHandle, Signal, new_signal, this_loop, wait_on
from .workers import Call, Desk, Worker

#: where a scope brings along the desk of the thread that plain code is to run in
DESK = "asyncflask.desk"
#: what is said of plain code that comes too late
OVER = (
    "Plain code of a request was to run when the request was over, and its thread"
    " given back. Do it before the response is complete, or in a context of its"
    " own: async with app.test_request_context(): ..."
)

#: what stands for what a coroutine yields when it is at its end
_DONE: Any = object()

#: held where other threads come to share a request's worker, and while it leaves
leaving: threading.Lock = threading.Lock()


class _Move:
    """What a request's coroutine awaits to be carried on elsewhere."""

    def __init__(self) -> None:
        self._only = (self,)

    def __await__(self) -> Any:
        return iter(self._only)  # in C: no generator to make and to resume


TO_THREAD = _Move()
TO_LOOP = _Move()


class Visit:
    """One stay of a request in its worker, and what came of it.

    :ivar signal: set when it is over.
    :ivar outer: how to end what the request waited for before.
    """

    __slots__ = ("_step", "error", "outer", "signal", "yielded")

    def __init__(
        self, step: Callable[[], Any], signal: Signal, outer: Callable[[], object]
    ) -> None:
        self._step = step
        self.signal: Signal = signal
        self.outer: Callable[[], object] = outer
        self.error: BaseException | None = None
        self.yielded: Any = _DONE

    def __call__(self) -> None:
        self._take_step()
        self.signal.set()

    def _take_step(self) -> None:
        try:
            self.yielded = self._step()
        except StopIteration:
            pass
        except BaseException as exc:
            self.error = exc

    def refuse(self, error: Exception) -> None:
        """Raise an error where the coroutine wanted to go to."""
        self.error = error
        self.signal.set()

    def withdraw(self) -> bool:
        """Call it off; False if it may have begun."""
        return False


class FirstVisit(Visit):
    """The stay that a request takes a worker for.

    Where all code was plain, little of it is left once the response is there. Then the
    worker is given back right here, and goes on with the next request.
    """

    __slots__ = ("_ctx",)

    def __init__(self, ctx: Moving, step: Callable[[], Any]) -> None:
        super().__init__(step, new_signal(), ctx._cancel_awaited)
        self._ctx = ctx

    def take(self, worker: Worker) -> bool:
        """Take the step in a worker; False if it is not needed any more."""
        ctx = self._ctx
        was_laden = ctx.is_laden
        ctx.side, ctx._cancel_awaited = THREAD, bool
        ctx._employ(worker)
        self._take_step()
        if self.yielded is not _DONE or self.error is not None:
            return True

        return not ctx._leave_worker(was_laden)

    def tell(self) -> None:
        """Say that it is over."""
        if not self.signal.set():  # its loop has gone, and nobody will end it
            self._ctx.dismiss()

    def withdraw(self) -> bool:
        """Call it off; False if a worker has begun."""
        is_off = self._ctx.app.workers.withdraw(self)
        if is_off:
            self._ctx._leave_queue()
        return is_off


class Moving(RequestContext):
    """A request context that can go to a worker thread and come back.

    :ivar context: where the request's context variables live; None until a
        driver or a stage called by hand needs it.
    """

    context: contextvars.Context | None = None
    is_laden: bool
    side: Side
    #: True when the request is over
    closed: bool = False
    #: True for one that has failed, as long as the debugger keeps it
    is_kept: bool = False
    #: the thread that such a one keeps as well
    kept_worker: Worker | None = None
    #: where plain callables run, once one has been called
    desk: Desk | None = None
    _worker: Worker | None = None
    _loop: LoopHandle | None = None
    #: the tasks of this request that wait for one of them to get a worker
    _queue: list[Signal] | None = None
    #: True once anybody but the request itself may want its worker
    _is_shared = False
    #: ends the async code that the worker waits for
    _cancel_awaited: Callable[[], object] = bool

    # ------------------------------------------------------------- carrying

    async def carry(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the request's context, moving it as it asks.

        It starts and ends on the loop, whatever happens between.
        """
        rest = self.start(coroutine)
        if rest is not None:
            await rest

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Awaitable[Any] | None:
        """Begin to carry a coroutine; return what is left to be awaited.

        Most need not wait for anything and are done with this. What one has to
        say it leaves on the context: a value that it returned would have to be
        caught as a StopIteration, which costs more than all the rest here.
        """
        steps = coroutine.__await__()
        yielded = self.context.run(next, steps, _DONE)  # type: ignore[union-attr]
        return None if yielded is _DONE else self._carry_on(coroutine, steps, yielded)

    @types.coroutine
    def _carry_on(
        self,
        coroutine: Coroutine[Any, Any, None],
        steps: Generator[Any, Any, None],
        yielded: Any,
    ) -> Generator[Any, Any, None]:
        """Carry a coroutine to its end, which the end of the application waits for."""
        run: Callable[..., Any] = self.context.run  # type: ignore[union-attr]
        outstanding = self.app.outstanding
        outstanding.count += 1  # `with` would take two calls
        try:
            while yielded is not _DONE:
                step: Callable[[], Any] | None = None
                try:
                    if yielded is TO_THREAD:
                        there = functools.partial(run, next, steps, _DONE)
                        desk = self.desk or self._known_desk()
                        if desk is None and self._queue is None:
                            visit = self._claim_worker(there)
                        else:
                            desk = desk or (yield from self.engage().__await__())
                            visit = self.depart(desk, there)
                        yield from self.arrive(visit).__await__()
                        if visit.error is not None:
                            raise visit.error
                        if visit.yielded is not TO_LOOP:
                            return
                    else:
                        value = yield yielded
                        if value is not None:
                            step = functools.partial(run, steps.send, value)
                except GeneratorExit:
                    run(coroutine.close)
                    raise
                except BaseException as exc:
                    if coroutine.cr_frame is None:  # type: ignore[attr-defined]
                        raise
                    step = functools.partial(run, steps.throw, exc)
                try:
                    yielded = run(next, steps, _DONE) if step is None else step()
                except StopIteration:
                    return
        finally:
            outstanding.count -= 1

    async def to_thread(self) -> None:
        """Go on in the request's worker, if the request is on the loop."""
        if self.side is LOOP:
            await TO_THREAD

    async def to_loop(self) -> None:
        """Go on on the loop, if the request is in its worker."""
        if self.side is THREAD:
            await TO_LOOP

    # --------------------------------------------------------- there and back

    def depart(
        self, desk: Desk, step: Callable[[], Any], signal: Signal | None = None
    ) -> Visit:
        """Have the worker take a step while the request is in its thread.

        :param signal: what to set when it is over. :meth:`arrive` waits for that.
        """
        visit = Visit(step, signal or new_signal(), self._cancel_awaited)
        self.side, self._cancel_awaited = THREAD, bool
        desk.submit(visit)
        return visit

    def _claim_worker(self, step: Callable[[], Any]) -> Visit:
        """Have the next free worker take a step, and be the request's from then on."""
        visit = FirstVisit(self, step)
        self._queue = []
        try:
            self.app.workers.post(visit)
        except BaseException:
            self._leave_queue()
            raise
        return visit

    async def arrive(self, visit: Visit, wanted: bool = True) -> None:
        """Wait until the worker has taken its step; the request is on the loop then.

        :param wanted: False if nobody does, so that async code which the worker
            waits for is cancelled.
        """
        try:
            if not wanted:
                self._cancel_awaited()
            await visit.signal.wait()
        except GeneratorExit:  # first: there may be no loop to ask for its exception
            visit.withdraw()
            raise
        except anyio.get_cancelled_exc_class():
            if not visit.withdraw():
                self._cancel_awaited()
                await wait_on(visit.signal)
            raise
        finally:
            self.side, self._cancel_awaited = LOOP, visit.outer

    # ------------------------------------------------------------- the worker

    def _submit(self, call: Call) -> bool:
        """Hand a job to the request's worker; False if it has none."""
        with leaving:
            self._is_shared = True
            desk = call.desk = self.desk
            if desk is not None:
                desk.calls.add(call)
                desk.submit(call)
            return desk is not None

    async def engage(self) -> Desk:
        """Take a worker for the rest of the request."""
        queue = self._queue  # before the desk, which a worker sets first
        desk = self._known_desk()
        if desk is not None:
            return desk

        if queue is not None:  # another task of the request is in line already
            signal = new_signal()
            queue.append(signal)
            if queue is self._queue:
                await signal.wait()
            return await self.engage()

        worker = self.app.workers.acquire_idle()
        if worker is None:
            worker = await self._queue_up()
        if self.closed:
            self.app.workers.release(worker)
            raise RuntimeError(OVER)

        self._employ(worker)
        return worker.desk

    def _employ(self, worker: Worker) -> None:
        """Have a worker from now on; tell the tasks that wait for that."""
        self._worker, self.desk, self.is_laden = worker, worker.desk, True
        self._leave_queue()

    def _leave_queue(self) -> None:
        queue, self._queue = self._queue, None
        for signal in queue or ():
            signal.set()

    async def _queue_up(self) -> Worker:
        """Wait for a worker; other tasks of the request wait for this one then."""
        self._queue = []
        try:
            return await self.app.workers.acquire()
        finally:
            self._leave_queue()

    def _known_desk(self) -> Desk | None:
        """Return the desk of this request, of its caller, or of the outer context.

        :raises RuntimeError: when the request is over.
        """
        if self.closed:
            raise RuntimeError(OVER)

        self._loop = self._loop or this_loop()
        outer = self._outer[0] if self._outer else None
        desk = self.desk or self.scope.get(DESK)
        if desk is None and isinstance(outer, Moving) and outer.app is self.app:
            with leaving:
                outer._is_shared, desk = True, outer.desk
        if desk is not None:  # a worker may be setting it right now
            self.desk = desk
        return desk

    def _leave_worker(self, was_laden: bool) -> bool:
        """Give up the worker before the end, if nobody can want it any more."""
        response = self.response
        if (
            response is None
            or type(response.body) is not bytes
            or self.bodies
            or self.app.teardown_request_funcs
        ):
            return False

        with leaving:
            if self._is_shared or self.desk is None:
                return False

            # The desk last: without one, the loop may employ another at once.
            self._worker, self.is_laden = None, was_laden
            self.desk = None
        return True

    def dismiss(self) -> None:
        """End the request: its worker is given back and no other is taken."""
        self.closed = True
        worker, self._worker = self._worker, None
        if self.is_kept and worker is not None:
            self.app.workers.release(worker, for_good=True)
            self.kept_worker = worker
        elif worker is not None:
            self.app.workers.release(worker)
        if not self.is_kept:
            self.context = self.desk = None

    def forget(self) -> None:
        """Let go of what a failed request has kept."""
        self.is_kept = False
        if self.kept_worker is not None:
            self.kept_worker.stop()
        self.dismiss()
