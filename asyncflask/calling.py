"""How a request calls plain and async code, in any mixture.

The pipeline reaches every callable of the user through :meth:`Calling.call`.
What that does depends on the kind of the callable and on the side where the
request is at that moment:

=========  ==============================  ==============================
side       plain callable                  async callable
=========  ==============================  ==============================
LOOP       move to the request's worker    await it
THREAD     call it                         move back to the loop
DIRECT     call it                         run it on a loop elsewhere, wait
=========  ==============================  ==============================

What it means to move, :mod:`asyncflask.moving` tells. DIRECT is plain code that
drives a stage itself, with no loop in its thread: the shell, a script, an
overridden plain stage that calls the one it overrides, and a WSGI server.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from enum import Enum
from threading import get_ident
from typing import Any

from .context import DIRECT, LOOP, Side, _current
from .loops import Signal, awaiting, in_loop, new_signal, process_loop, wait_through
from .moving import TO_THREAD, Moving, leaving
from .pipeline import opening, teardown
from .sessions import open_session
from .workers import Call, Desk, Errand, adopt

_MUST_BE_AWAITED = (
    "{!r} is async, and was needed in the middle of plain code that the event loop"
    " would have to wait for; neither could go on. Await it instead: for templates"
    " with `await render_template_async(...)`, for contexts with `async with`."
)

#: hands the next item over to who iterates
Give = Callable[[Any], Awaitable[None]]

_NOTHING: dict[str, Any] = {}
#: what plain code returns most; to ask whether it is a coroutine takes longer
_PLAIN_RESULTS = frozenset((type(None), str, bytes, dict, list, tuple))

#: True in tasks of the user's own, and in contexts entered by hand
_apart: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "asyncflask.apart", default=False
)


class Kind(Enum):
    """What a callable is, as far as calling it goes."""

    PLAIN = "def"
    COROUTINE = "async def"
    GENERATOR = "async def with yield"


PLAIN, COROUTINE, GENERATOR = Kind.PLAIN, Kind.COROUTINE, Kind.GENERATOR


def kind_of(function: Callable[..., Any]) -> Kind:
    """Tell what a callable is; partials and objects with ``__call__`` included."""
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(candidate):
            return COROUTINE
        if inspect.isasyncgenfunction(candidate):
            return GENERATOR

    return PLAIN


class KindTable(dict[Callable[..., Any], Kind]):
    """The kinds of an application's callables, each found out once."""

    def __missing__(self, function: Callable[..., Any]) -> Kind:
        kind = self[function] = kind_of(function)
        return kind


def apart(context: contextvars.Context) -> contextvars.Context:
    """Mark a context as one that no request is carried in; what runs there waits
    for the plain code that it calls."""
    context.run(_apart.set, True)
    return context


class _Ready:
    """A result that may be awaited, but need not be."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, Any]:
        return self._value
        yield


def answer(value: Any) -> Any:
    """Return the value of a stage that never waits, as :meth:`Calling.by_hand`
    returns those of the others: to be awaited by a coroutine."""
    ctx = _current.get()
    plain = ctx.in_plain_code if isinstance(ctx, Calling) else not in_loop()
    return value if plain else _Ready(value)


class _Lent:
    """A request lent to the loop by plain code, which serves it meanwhile.

    Within ``with`` the request is on the loop, and what it calls of plain code
    comes back to this thread. Behind it all is as before, and the variables set
    over there are taken over.
    """

    errand: Errand | None = None

    def __init__(self, ctx: Calling, function: Callable[..., Any]) -> None:
        self._loop = ctx._loop or process_loop()
        if ctx._loop_waits or self._loop.is_here():
            raise RuntimeError(_MUST_BE_AWAITED.format(function))

        here = ctx.desk is not None and ctx.desk.thread_id == get_ident()
        self.desk = ctx.desk if ctx.desk is not None and here else Desk()
        self._ctx = ctx
        self._context = contextvars.copy_context()
        self._outer: tuple[Any, ...] = ()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Errand:
        """Start to carry a coroutine over there."""
        ctx = self._ctx

        def started(cancel: Callable[[], None]) -> None:
            ctx._cancel_awaited = cancel

        carry = functools.partial(ctx.carry, coroutine)
        errand = self.errand = Errand(self.desk, carry, self._loop, started)
        errand.start()
        return errand

    def __enter__(self) -> None:
        ctx = self._ctx
        with leaving:
            ctx._is_shared = True
            self._outer = ctx.side, ctx.context, ctx.desk, ctx._cancel_awaited
            ctx.side, ctx.context, ctx.desk = LOOP, self._context, self.desk

    def __exit__(self, kind: Any, exc: BaseException | None, tb: Any) -> None:
        ctx = self._ctx
        if exc is not None and self.errand is not None:
            self.errand.end()
        if _current.get() is ctx:  # a forgotten iterator is closed anywhere
            adopt(self._context)
        ctx.side, ctx.context, ctx.desk, ctx._cancel_awaited = self._outer


class Calling(Moving):
    """A request context that can call the user's code."""

    side: Side
    desk: Desk | None
    #: True once the response is left to who sends it, who ends the request too
    is_streaming = False
    #: the thread that drives the request, where one does
    _driver = 0
    #: True while the loop stands still and waits for the worker
    _loop_waits = False

    def open_session(self) -> Any:
        """Return the session, opened by the application if it does so itself."""
        if self.app.stages.opens_sessions:
            return self.call_now(self.app.open_session, self.request)

        return open_session(self.app, self.request)

    # ------------------------------------------------------------ the table

    def call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] = _NOTHING,
    ) -> Awaitable[Any]:
        """Call plain or async code where it belongs; await the result."""
        try:
            kind = self.app.kinds[function]
        except TypeError:  # an unhashable callable
            kind = kind_of(function)
        if kind is COROUTINE and self.side is LOOP:
            self._is_shared = True  # it may leave tasks behind
            if kwargs:
                return function(*args, **kwargs)  # type: ignore[no-any-return]

            return function(*args) if args else function()  # type: ignore[no-any-return]

        return self._call(kind, function, args, kwargs)

    async def _call(
        self,
        kind: Kind,
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] = _NOTHING,
    ) -> Any:
        if kind is GENERATOR:
            return function(*args, **kwargs)

        if kind is COROUTINE:
            return await self._await(functools.partial(function, *args, **kwargs))

        if _apart.get():
            rv = await self._hop(functools.partial(function, *args, **kwargs))
        else:
            if self.side is LOOP:  # what to_thread() does, less its coroutine
                await TO_THREAD
            rv = function(*args, **kwargs)
        if type(rv) in _PLAIN_RESULTS or not isinstance(rv, Coroutine):
            return rv

        # A plain decorator round an async view returns its coroutine.
        return await self._await(lambda: rv)

    async def _await(self, function: Callable[[], Awaitable[Any]]) -> Any:
        if self.is_direct:
            return self.run_on_loop(function)

        if not _apart.get():
            await self.to_loop()
        return await function()

    @property
    def is_direct(self) -> bool:
        """True in the plain code that drives the request, and in no other thread."""
        return self.side is DIRECT and self._driver == get_ident()

    async def _hop(self, function: Callable[[], Any]) -> Any:
        """Call a plain function in the worker for a task of the user's own.

        Such a task has a context of its own and cannot move; it waits here.
        """
        signal = new_signal()
        call = Call(function, signal.set)
        while not self._submit(call):
            await self.engage()
        await wait_through(signal)
        return call.result()

    # --------------------------------------------------------- from plain code

    @property
    def in_plain_code(self) -> bool:
        """True where plain code asks, False where a coroutine does.

        A running loop in this thread is what tells them apart; but a thread that
        has one may serve as the worker of a request, or drive a stage.
        """
        if self.is_direct or not in_loop():
            return True

        return self.desk is not None and self.desk.thread_id == get_ident()

    def call_now(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call plain or async code in the middle of plain code.

        Where that is the event loop itself, in an async view, a plain callable
        still runs in the request's worker, and the loop waits for it. When all
        workers are lent, it gets a thread for this one call.

        :raises RuntimeError: for async code in an async view.
        """
        bound = functools.partial(function, *args)
        if kind_of(function) is COROUTINE:
            if not self.in_plain_code:
                raise RuntimeError(_MUST_BE_AWAITED.format(function))

            return self.run_on_loop(bound)

        if self.in_plain_code and not self._is_elsewhere:
            return bound()

        self._loop_waits = True
        try:
            return self._run_in_worker(bound)
        finally:
            self._loop_waits = False

    @property
    def _is_elsewhere(self) -> bool:
        """True in a thread of the user's own while the request's worker is idle."""
        desk = self.desk
        return desk is not None and self.side is LOOP and desk.thread_id != get_ident()

    def _run_in_worker(self, function: Callable[[], Any]) -> Any:
        done = threading.Event()
        call = Call(function, done.set)
        worker = None
        if not (self.desk or self._known_desk()) or not self._submit(call):
            worker, to_keep = self.app.workers.acquire_now()
            worker.desk.submit(call)
            if to_keep and self._queue is None and self.desk is None:
                self._employ(worker)
                worker = None
        done.wait()
        if worker is not None:
            self.app.workers.release(worker)
        return call.result()

    def run_on_loop(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async function from plain code, and wait for its result.

        It runs on the loop of the server that handles the request, or on the
        loop of the process when there is none. What it calls of plain code runs
        in this thread, which would only stand still otherwise.

        :raises RuntimeError: where waiting would block that very loop.
        """
        given: Any = None

        async def keep() -> None:
            nonlocal given
            given = await function()

        lent = _Lent(self, function)
        with lent:
            errand = lent.start(keep())
            errand.work(lambda: False)
        errand.outcome.get()
        return given

    def produce(self, function: Callable[[Give], Awaitable[Any]]) -> Iterator[Any]:
        """Iterate in plain code over what an async function gives.

        The function runs on the loop, as one task, and stands still after each
        item until the next one is asked for. Closing the iterator cancels it.

        :param function: gets an async function, which takes the next item.
        :raises RuntimeError: where waiting would block that very loop.
        """
        items: list[Any] = []
        resume: list[Signal] = []

        async def give(item: Any) -> None:
            signal = new_signal()
            resume.append(signal)
            items.append(item)
            lent.desk.submit(None)
            await signal.wait()

        lent = _Lent(self, function)
        with lent:  # also between two items: tasks of its own may go on then
            errand = lent.start(awaiting(function(give)))
            errand.work(lambda: items)
            try:
                while items:
                    yield items.pop(0)
                    resume.pop().set()
                    errand.work(lambda: items)
            finally:
                errand.end()
                if isinstance(errand.outcome.error, Exception):
                    raise errand.outcome.error  # also if it comes of the closing
        errand.outcome.get()

    async def call_back(self, function: Callable[[], Any]) -> Any:
        """Call plain code where it belongs, for async code that goes on after it."""
        return await self.awaited(self._call(PLAIN, function))

    # ------------------------------------------------------- stages, by hand

    def by_hand(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a stage for someone who calls it: its value, or an awaitable.

        Plain code gets the value. Where an event loop runs, so in a coroutine,
        it is an awaitable.
        """
        return self.drive(coroutine) if self.in_plain_code else self.awaited(coroutine)

    async def awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the pipeline for a coroutine of the user.

        Whatever it moves to, the user's one goes on on the loop. One that was
        started as a task of its own, or in a context entered by hand, does not
        move at all; its plain callables are waited for.
        """
        if self._is_carried:
            try:
                return await coroutine
            finally:
                await self.to_loop()

        token = _apart.set(True)
        try:
            return await coroutine
        finally:
            _apart.reset(token)

    @property
    def _is_carried(self) -> bool:
        """True in the one coroutine that lives through the request."""
        if self.context is None or self.side is not LOOP:
            return False

        try:
            self.context.run(bool)
        except RuntimeError:  # it is entered already
            return True
        return False

    def belong_here(self) -> None:
        """Have this thread drive the request from now on, and do its plain code."""
        self.side, self._driver = DIRECT, get_ident()
        self.desk = Desk(self._driver)

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the pipeline to its end, here and now."""
        side, self.side = self.side, DIRECT
        driver, self._driver = self._driver, get_ident()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        finally:
            self.side, self._driver = side, driver
        coroutine.close()
        raise RuntimeError(
            "The pipeline waited for something other than a callable. Whatever"
            " waits must be reached through call()."
        )

    # ------------------------------------------------------- entered by hand

    def __enter__(self) -> Calling:
        self.push()
        try:
            self.drive(opening(self))
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: Any, exc: BaseException | None, tb: Any) -> None:
        try:
            self.drive(teardown(self, exc))
        finally:
            self._leave()

    async def __aenter__(self) -> Calling:
        self.push()
        try:
            await self.awaited(opening(self))
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(self, kind: Any, exc: BaseException | None, tb: Any) -> None:
        try:
            await self.awaited(teardown(self, exc))
        finally:
            self._leave()

    def _leave(self) -> None:
        self.pop()
        self.close()
        self.dismiss()
