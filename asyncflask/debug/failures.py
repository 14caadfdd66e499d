"""The requests that have failed, the latest few: kept until newer ones come.

A kept request has been torn down like any other. What stays is its context,
for ``request``, ``session`` and ``g``, and the thread that its plain code ran
in, out of the pool, for what belongs to that thread.
"""

from __future__ import annotations

import contextvars
import secrets
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import anyio

from ..calling import Calling, apart
from ..loops import new_signal, within
from ..workers import Call, Worker
from .console import Console

#: failed requests that are kept
KEPT = 4
#: seconds after which an input that is not done is left to itself
PATIENCE = 20


class Failure:
    """A request that has failed.

    :ivar id: what the page knows it by.
    :param context: the context variables of the request.
    :ivar error: the exception.
    :ivar ctx: the request's context; None if it failed outside of the application.
    :ivar frames: the frames that have a console.
    """

    def __init__(
        self,
        error: BaseException,
        ctx: Calling | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        self.id: str = secrets.token_urlsafe(12)
        self.error = error
        self.ctx = ctx
        self.frames: list[FrameType] = []
        self._consoles: dict[int, Console] = {}
        self._own_worker: Worker | None = None
        self._context = context or contextvars.copy_context()

    @property
    def _worker(self) -> Worker:
        """The thread of the request's plain code, or one that stands in for it."""
        if self.ctx is not None and self.ctx.kept_worker is not None:
            return self.ctx.kept_worker

        if self._own_worker is None:
            self._own_worker = Worker("asyncflask-console")
            self._own_worker.start()
        return self._own_worker

    def call_here(self, function: Callable[[], Any]) -> Any:
        """Call plain code in this thread, with the request's context bound."""
        return self._context.copy().run(function)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call plain code in the request's thread, with its context bound.

        :raises TimeoutError: when it is not done in time; it goes on.
        """
        signal = new_signal()
        call = Call(partial(self.call_here, function), signal.set)
        self._worker.desk.submit(call)
        with anyio.fail_after(PATIENCE):
            await signal.wait()
        return call.outcome.get()

    async def run(self, number: int, source: str) -> str:
        """Run an input in a frame, and return what it shows."""
        console = self._consoles.get(number)
        if console is None:
            console = self._consoles[number] = Console(self.frames[number])
        try:
            typed = console.compile(source)
        except (SyntaxError, ValueError) as exc:
            return f"{type(exc).__name__}: {exc}\n"

        try:
            if not typed.waits:
                return str(await self.call(typed.run))

            with anyio.fail_after(PATIENCE):
                return str(await within(apart(self._context.copy()), typed.run_async()))
        except TimeoutError:
            return f"It has not come to its end within {PATIENCE} seconds.\n"

    def forget(self) -> None:
        """Let go of everything, the threads included."""
        for console in self._consoles.values():
            console.forget()
        if self._own_worker is not None:
            self._own_worker.stop()
        if self.ctx is not None:
            self.ctx.forget()


class Failures:
    """The latest failures, by their id."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Failure] = OrderedDict()

    def add(self, failure: Failure) -> None:
        """Keep a failure, and forget the oldest if there are too many."""
        self._kept[failure.id] = failure
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)[1].forget()

    def get(self, id: str) -> Failure | None:
        """Return a failure that is still kept."""
        return self._kept.get(id)

    def clear(self) -> None:
        """Forget them all."""
        while self._kept:
            self._kept.popitem()[1].forget()
