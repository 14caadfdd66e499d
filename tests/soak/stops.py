"""SIGTERM in the middle of it all: what becomes of each request."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from .exchanges import Exchange, Visitor, as_json, digest, lines, text
from .limits import STOP_GRACE
from .server import Server, serving, unexpected
from .wire import Answer, Broken, Connection, Malformed, Refused, chunked

#: seconds over its grace that the server may take, and a client may wait
MARGIN, PATIENCE = 2.0, STOP_GRACE + 15.0

COMPLETE, REFUSED, BROKEN, FAILED = "complete", "refused", "broken off", "a 500"


@dataclass
class Outcome:
    """What became of a request.

    :ivar endless: True for one that no grace is long enough for.
    """

    kind: str
    name: str
    what: str
    endless: bool


@dataclass
class Stop:
    """What came of one SIGTERM."""

    server: str
    #: True with requests that no grace is long enough for
    with_endless: bool
    seconds: float = 0.0
    code: int | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def check(self, right: bool, what: str) -> None:
        """Take down what is not right."""
        if not right:
            self.faults.append(what)

    def ended(self, what: str) -> int:
        """Return how many requests ended so."""
        return sum(outcome.what == what for outcome in self.outcomes)


class Caller:
    """Sends requests, one after the other, until one is refused.

    :param exchanges: gives the requests.
    :param endless: True if the server must break them off.
    :param dribble: a body that is sent byte by byte.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        stop: Stop,
        exchanges: Callable[[], Iterable[Exchange]],
        endless: bool = False,
        dribble: bytes = b"",
    ) -> None:
        self.name = name
        self._server = server
        self._stop = stop
        self._exchanges = exchanges
        self._endless = endless
        self._dribble = dribble
        self._count = 0
        #: set when the first response, or its start, is there
        self.is_under_way = asyncio.Event()

    async def run(self) -> None:
        """Go on until the server is gone."""
        connection = Connection(self._server.address)
        while True:
            for exchange in self._exchanges():
                self._count += 1
                name = f"{self.name}-{self._count}"
                try:
                    what = await self._ask(connection, exchange, name)
                except AssertionError as exc:
                    what = COMPLETE
                    self._stop.faults.append(f"{name}, {exchange.path}: {exc}")
                outcome = Outcome(exchange.kind, name, what, self._endless)
                self._stop.outcomes.append(outcome)
                self.is_under_way.set()
                if what != COMPLETE:
                    connection.close()
                    return

    async def _ask(self, connection: Connection, exchange: Exchange, name: str) -> str:
        """Do an exchange, and say what became of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                if not connection.is_open:
                    await connection.open()
                answer = await self._answer(connection, exchange, name)
        except TimeoutError:
            self._stop.faults.append(f"{name}, {exchange.path}: no end in {PATIENCE} s")
            return BROKEN
        except Refused:
            return REFUSED
        except (Broken, Malformed):
            return BROKEN

        if answer.status == 500 and self._endless:
            return FAILED

        exchange.check(answer)
        return COMPLETE

    async def _answer(
        self, connection: Connection, exchange: Exchange, name: str
    ) -> Answer:
        await connection.send(exchange.data(name))
        for byte in self._dribble:
            self.is_under_way.set()
            await connection.send(bytes([byte]))
            await asyncio.sleep(0.01)
        if exchange.kind == "wait":
            self.is_under_way.set()
        return await connection.answer(exchange.method)


async def stopped(kind: str, folder: Path, seed: str, with_endless: bool) -> Stop:
    """Stop a server in the middle of its work, and see what becomes of it.

    :param with_endless: also with requests that no grace is long enough for.
    """
    stop = Stop(kind, with_endless)
    random = Random(f"{kind} {seed}")
    with serving(kind, folder) as server:
        callers = people(server, stop, random)
        if with_endless:
            callers += endless(server, stop)
        tasks = [asyncio.create_task(caller.run()) for caller in callers]
        async with asyncio.timeout(30):
            for caller in callers:
                await caller.is_under_way.wait()
        await asyncio.sleep(random.uniform(0, 0.5))
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*tasks)
        try:
            stop.code, stop.seconds = await asyncio.to_thread(server.wait, start)
        except TimeoutError as exc:
            stop.faults.append(str(exc))
        check(stop, server)
    return stop


def people(server: Server, stop: Stop, random: Random) -> list[Caller]:
    """Return those who ask while the server is stopped."""

    def of(exchange: Exchange) -> Callable[[], Iterable[Exchange]]:
        return lambda: [exchange]

    found = []
    for number in range(6):
        name = f"good{number}"
        visitor = Visitor(Random(f"{random.random()}"), name)
        found.append(Caller(name, server, stop, visitor.next))
    for number in range(2):
        for path, word in (("/stream", "async"), ("/stream/plain", "plain")):
            right = text(lines(40))
            stream = Exchange("stream", "GET", f"{path}/40/0.02", right)
            found.append(Caller(f"{word}-stream{number}", server, stop, of(stream)))
        for path, word in (("/wait", "async"), ("/wait/plain", "plain")):
            wait = Exchange("wait", "GET", f"{path}/0.5", text("waited"))
            found.append(Caller(f"{word}-wait{number}", server, stop, of(wait)))
    body = chunked(b"x" * 20, 2)
    chunks = {"Transfer-Encoding": "chunked"}
    upload = Exchange("upload", "POST", "/upload", as_json(digest(b"x" * 20)), chunks)
    found.append(Caller("upload", server, stop, of(upload), dribble=body))
    return found


def endless(server: Server, stop: Stop) -> list[Caller]:
    """Return those whom no grace is long enough for."""

    def must_not_end(answer: Answer) -> None:
        raise AssertionError(f"ended as if complete: {answer.status}")

    found = []
    for kind, method, path, headers in (
        ("endless stream", "GET", "/stream/1000000/0.02", {}),
        ("endless stream", "GET", "/stream/plain/1000000/0.02", {}),
        ("wait", "GET", "/wait/600.0", {}),
        ("wait", "POST", "/echo", {"Content-Length": "10"}),
        ("wait", "POST", "/upload/plain", {"Content-Length": "10"}),
    ):
        exchange = Exchange(kind, method, path, must_not_end, headers)
        name = f"endless{len(found)}"
        found.append(Caller(name, server, stop, partial(list, [exchange]), True))
        if "stream" in kind:
            found[-1].is_under_way.set()
    return found


# -------------------------------------------------------------------- afterwards


def check(stop: Stop, server: Server) -> None:
    """See whether all is as it should be."""
    events = server.events()
    stop.events = Counter(what for what, _ in events)
    check_requests(stop, events)
    check_cleanup(stop, events)
    check_process(stop, server)


def check_requests(stop: Stop, events: list[tuple[str, str]]) -> None:
    """Each request is answered, refused before it began, or visibly broken off."""
    begun = {name for what, name in events if what == "begin"}
    for outcome in stop.outcomes:
        if outcome.endless:
            continue
        right = outcome.what == COMPLETE or (
            outcome.what == REFUSED and outcome.name not in begun
        )
        state = "begun" if outcome.name in begun else "not begun"
        stop.check(right, f"{outcome.name}, {outcome.kind}, {state}: {outcome.what}")


def check_cleanup(stop: Stop, events: list[tuple[str, str]]) -> None:
    """Each request and stream that began has been told of its end.

    Where gunicorn's grace is over, it kills its workers, and nobody is told.
    """
    if stop.with_endless and stop.server.startswith("gunicorn"):
        return

    for begin, end in (("begin", "teardown"), ("open", "close")):
        begun = Counter(name for what, name in events if what == begin)
        ended = Counter(name for what, name in events if what == end)
        left = begun - ended
        stop.check(not left, f"{begin} without {end}: {sorted(left)}")
    last = [f"{what} {name}" for what, name in events]
    ends = last.count("serving-end -")
    stop.check(ends == 1, f"the while_serving function ended {ends} times")
    if ends:
        later = last[last.index("serving-end -") + 1 :]
        stop.check(not later, f"after the end of while_serving: {later}")


#: what gunicorn leaves open itself when it ends, and what it says where its worker
#: and its patience end at the same moment
GUNICORNS_OWN = re.compile(
    r"sys:1: ResourceWarning: unclosed file <_io.FileIO .*>"
    r"|.* \[ERROR\] Worker \(pid:\d+\) was sent SIGKILL!.*"
)
#: the code with which a server ends that nothing kept from it
CODES = {"uvicorn httptools": -15, "uvicorn h11": -15, "gunicorn gthread": 0}


def check_process(stop: Stop, server: Server) -> None:
    """See whether the process ended as it should, and said no more than it should."""
    right = CODES[stop.server]
    stop.check(stop.code == right, f"exit code {stop.code}, not {right}")
    stop.check(
        stop.seconds <= STOP_GRACE + MARGIN,
        f"it took {stop.seconds:.1f} s, over {STOP_GRACE} + {MARGIN}",
    )
    log = server.log.read_text(errors="replace")
    left = unexpected(log, "asyncio.exceptions.CancelledError")
    left = [line for line in left if not GUNICORNS_OWN.fullmatch(line)]
    stop.check(not left, f"{len(left)} lines in the log: {left[:5]}")
