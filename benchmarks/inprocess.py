"""CPU time per request, the applications called directly, without a server.

Each job has a process of its own, or shares one with those it is compared with. All
peers take turns in there, round by round, and the best round of each counts: whatever
else the machine does can only make a round worse. A round is made of small batches,
whose requests are made right before, so that their memory is as warm as under a
server; garbage is collected between rounds only. CPU time is that of the process,
threads included.

The process keeps to one core, as the server does on the wire. What a thread costs
that is woken on another one depends on how idle that is, and on the machine.
"""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

import uvloop

from . import work
from .driving import (
    Answer,
    Call,
    Exchange,
    ask,
    ask_wsgi,
    build_environ,
    build_scope,
    cut,
    numbers,
    start_response,
    start_up,
)
from .jobs import JOBS as JOBS
from .jobs import Job
from .marks import IN_PROCESS, Results, print_marks
from .peers import PEERS, describe_run, factory
from .report import number, ratio, say, show_progress, table

#: how many requests are made ready at a time
BATCH = 100
#: seconds of CPU time that a round of one contestant may take, about
ROUND = 0.03

#: jobs that are compared with each other, so that they take turns as well
TOGETHER = (
    ("hello", "unused", "async_hooks", "template"),
    ("rules_10", "rules_10000"),
    ("plain", "plain_hooks"),
)

#: a row of its own: how long it takes to have many rules
START = ("start", "from nothing to the first answer, 10,000 rules")


class Contestant:
    """A peer's application for a job, checked, and ready to be measured.

    :ivar number: how many requests make a round.
    :ivar best: seconds of CPU time of one request in the best round.
    :ivar answered: the CPU time when it had first answered.
    :raises AssertionError: when the answer is wrong.
    """

    def __init__(self, runner: asyncio.Runner, job: Job, peer: str, app: Any) -> None:
        self.runner = runner
        self.job = job
        self.peer = peer
        self.app = app
        self.request = job.request
        self.numbers = numbers()
        self.number = 1
        self.best = float("inf")
        self.check()
        self.answered = time.process_time()
        self.run()
        self.number = max(1, min(job.number, int(ROUND / max(self.run(), 1e-6))))

    def check(self) -> None:
        """Make the request as a browser does, and look at the answer."""
        work.hooks_called.update(before=0, after=0)
        answer = self.ask()
        if self.job.follow_up is not None:
            fields = {**self.request.headers, **self.job.follow_up(answer)}
            self.request = replace(self.request, headers=fields)
            work.hooks_called.update(before=0, after=0)
            answer = self.ask()
        if set(work.hooks_called.values()) != {self.job.hooks}:
            raise AssertionError(f"hooks were called so often: {work.hooks_called}")

        self.job.check(answer)

    def ask(self) -> Answer:
        """Make one request."""
        raise NotImplementedError

    def run(self) -> float:
        """Run one round; return the seconds of CPU time of one request."""
        raise NotImplementedError

    def play(self) -> None:
        """Run one round, without garbage collection, and keep the best."""
        gc.collect()
        gc.disable()
        self.best = min(self.best, self.run())
        gc.enable()

    def batches(self) -> list[int]:
        """Return how many requests there are in each batch of a round."""
        whole, rest = divmod(self.number, BATCH)
        return [BATCH] * whole + [rest] * (rest > 0)


class AsgiContestant(Contestant):
    """One under ASGI."""

    def ask(self) -> Answer:
        """Make one request."""
        return self.runner.run(ask(self.app, self.request))

    def run(self) -> float:
        """Run one round."""
        return self.runner.run(self._run())

    async def _run(self) -> float:
        app = self.app
        pieces = cut(self.request.body)
        spent = 0.0
        for size in self.batches():
            scopes = [build_scope(self.request, n) for n in islice(self.numbers, size)]
            batch = [Exchange(scope, pieces) for scope in scopes]
            start = time.process_time()
            for exchange in batch:
                await app(exchange.scope, exchange.receive, exchange.send)
            spent += time.process_time() - start
            if not all(exchange.complete for exchange in batch):
                raise AssertionError(
                    f"{self.peer}, {self.job.name}: a response has no end"
                )
        return spent / self.number


class WsgiContestant(Contestant):
    """One under WSGI."""

    def ask(self) -> Answer:
        """Make one request."""
        return ask_wsgi(self.app, self.request)

    def run(self) -> float:
        """Run one round."""
        app = self.app
        spent = 0.0
        for size in self.batches():
            some = islice(self.numbers, size)
            batch = [build_environ(self.request, number) for number in some]
            start = time.process_time()
            for environ in batch:
                body = app(environ, start_response)
                for _ in body:
                    pass
                close = getattr(body, "close", None)
                if close is not None:
                    close()
            spent += time.process_time() - start
        return spent / self.number


class CallContestant(Contestant):
    """A function that is called alone; it needs no check."""

    def check(self) -> None:
        """Do nothing."""

    def run(self) -> float:
        """Run one round."""
        start = time.process_time()
        self.app.repeat(self.number)
        return (time.process_time() - start) / self.number


class Contest:
    """Some jobs of all peers under one protocol.

    :ivar results: microseconds of CPU time of a request, by job and peer.
    """

    def __init__(self, runner: asyncio.Runner, protocol: str) -> None:
        self.runner = runner
        self.protocol = protocol
        self.contestants: list[Contestant] = []
        self.results: Results = {}
        self._apps: dict[tuple[str, Callable[[], Any]], Any] = {}

    def enter(self, job: Job, peer: str) -> None:
        """Let a peer take part in a job, if it has it and gets it right."""
        build = factory(peer, job.app or job.name, self.protocol)
        if build is None:
            return

        is_asgi = self.protocol == "ASGI"
        kind: type[Contestant] = AsgiContestant if is_asgi else WsgiContestant
        gc.collect()
        gc.freeze()  # so that nobody starts with the garbage of others
        began = time.process_time()
        try:
            app = self.make(peer, build)
            if isinstance(app, Call):
                kind = CallContestant
            contestant = kind(self.runner, job, peer, app)
        except Exception as exc:
            say(f"- {peer} is left out of “{job.title}”: {exc!r}")
            return

        self.contestants.append(contestant)
        if job.name == "rules_10000":
            self.results["start", peer] = (contestant.answered - began) * 1e6

    def make(self, peer: str, build: Callable[[], Any]) -> Any:
        """Make and start an application, once, in a context of its own."""
        if (peer, build) in self._apps:
            return self._apps[peer, build]

        context = contextvars.copy_context()
        app = context.run(build)
        if inspect.iscoroutine(app):
            app = self.runner.run(app, context=context)
        if self.protocol == "ASGI" and peer != "floor" and not isinstance(app, Call):
            self.runner.run(start_up(app))
        self._apps[peer, build] = app
        return app

    def play(self, rounds: int) -> None:
        """Play the rounds, each in another order, and keep the best."""
        gc.collect()
        gc.freeze()  # what is there by now stays
        for turn in range(rounds):
            jobs = " ".join({c.job.name: "" for c in self.contestants})
            show_progress(f"{self.protocol}, {jobs}: round {turn + 1} of {rounds}")
            at = turn % max(1, len(self.contestants))
            for contestant in self.contestants[at:] + self.contestants[:at]:
                contestant.play()
        show_progress("")
        for contestant in self.contestants:
            key = contestant.job.name, contestant.peer
            self.results[key] = contestant.best * 1e6


def print_results(jobs: list[Job], results: Results) -> None:
    """Print the table: a row for each job, a column for each peer."""
    peers = [peer for peer in PEERS if any(key[1] == peer for key in results)]
    rivals = [peer for peer in peers if peer not in ("asyncflask", "floor")]
    against = ["to the best", "to Starlette" if "starlette" in peers else "to Flask"]
    rows = []
    for name, title in [*((job.name, job.title) for job in jobs), START]:
        row = {peer: results.get((name, peer)) for peer in peers}
        if not any(row.values()):
            continue

        best = min((row[peer] or math.inf for peer in rivals), default=math.inf)
        ours = row.get("asyncflask")
        other = row.get("starlette") or row.get("flask")
        cells = [number(row[peer]) for peer in peers]
        rows.append([title, *cells, ratio(ours, best), ratio(ours, other)])
    table(["µs of CPU per request", *peers, *against], rows)


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and the threads it will start, on one core; Linux only."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def run(only: set[str], rounds: int, quick: bool) -> None:
    """Measure everything, or only some jobs, and print the tables."""
    jobs = [job for job in JOBS if not only or job.name in only]
    if quick:
        jobs = [job for job in jobs if job.name != "rules_10000"]  # slow to start
    say("## In process\n")
    say(describe_run() + "\n")
    for protocol in ("ASGI", "WSGI"):
        results: Results = {}
        for group in grouped([job.name for job in jobs]):
            results |= in_fresh_process(compete, protocol, group, rounds)
        say(f"### {protocol}\n")
        print_results(jobs, results)
        if protocol == "ASGI":
            print_marks(IN_PROCESS, results)


def in_fresh_process(function: Callable[..., Results], *args: Any) -> Results:
    """Call a function where no other job has been done before.

    An interpreter fits itself to what it does. One that has served many different
    applications serves none of them as it would on its own.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def grouped(names: list[str]) -> list[list[str]]:
    """Return the names of jobs in groups: those together that are compared."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        together = next((group for group in TOGETHER if name in group), name)
        groups.setdefault(together, []).append(name)
    return list(groups.values())


def compete(protocol: str, names: list[str], rounds: int) -> Results:
    """Measure some jobs."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        contest = Contest(runner, protocol)
        for job in JOBS:
            for peer in PEERS if job.name in names else ():
                contest.enter(job, peer)
        contest.play(rounds)
        return contest.results
