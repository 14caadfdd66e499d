"""The clients: good, slow, broken and hostile ones."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from .exchanges import (
    MULTIPART,
    URLENCODED,
    Exchange,
    Visitor,
    expect,
    lines,
    part,
    status,
    text,
)
from .limits import BODY_TIMEOUT, MOST_BYTES, MOST_PARTS
from .wire import (
    LOST,
    Address,
    Answer,
    Broken,
    Connection,
    Malformed,
    Refused,
    chunked,
    request,
)

#: seconds that anything may take before it counts as hanging
PATIENCE = 30.0
#: faults that are kept word for word
KEPT = 20


class Record:
    """What the clients have seen."""

    def __init__(self) -> None:
        #: seconds that good clients waited for each response
        self.latencies: list[float] = []
        #: how many exchanges there were of each kind
        self.kinds: Counter[str] = Counter()
        #: seconds of the slowest of each kind
        self.slowest: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: list[str] = []
        self.fault_count = 0

    def fault(self, what: str) -> None:
        """Take a fault down."""
        self.fault_count += 1
        if len(self.faults) < KEPT:
            self.faults.append(what)


class Client:
    """Somebody who sends one thing after the other until it is over.

    :param random: what decides about it all.
    """

    def __init__(self, address: Address, random: Random, record: Record) -> None:
        self.address = address
        self.random = random
        self.record = record
        self.connection = Connection(address)

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Go on until it is over."""
        try:
            while not is_over():
                await self.turn()
                await asyncio.sleep(self.random.uniform(0, 0.04))
        finally:
            self.connection.close()

    async def turn(self) -> None:
        """Do one thing, and take down what goes wrong with it."""
        (deed,) = self.random.choices(self.deeds, [d.weight for d in self.deeds])
        name = f"{type(self).__name__.lower()}: {deed.__name__.replace('_', ' ')}"
        self.record.kinds[name] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await deed(self)
        except TimeoutError:
            self.record.fault(f"{name}: nothing for {PATIENCE} s")
            self.connection.reset()
        except (AssertionError, Refused, Broken, Malformed) as exc:
            self.record.fault(f"{name}: {type(exc).__name__}: {exc}")
            self.connection.reset()

    deeds: list[Callable[[Client], Awaitable[None]]]

    def __init_subclass__(cls) -> None:
        cls.deeds = [deed for deed in vars(cls).values() if hasattr(deed, "weight")]

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Send a request on a connection of its own, and return the response."""
        await self.fresh(data)
        answer = await self.answer(method)
        self.connection.close()
        return answer

    async def fresh(self, data: bytes = b"") -> None:
        """Open a connection of its own, and send something."""
        self.connection.close()
        self.connection = Connection(self.address)
        await self.connection.open()
        await self.connection.send(data)

    async def answer(self, method: str = "GET") -> Answer:
        """Read a response, and count it."""
        answer = await self.connection.answer(method)
        self.record.statuses[answer.status] += 1
        return answer

    async def dribble(self, data: bytes, size: int = 1) -> None:
        """Send something in small pieces."""
        for start in range(0, len(data), size):
            await self.connection.send(data[start : start + size])
            await asyncio.sleep(self.random.uniform(0, 0.02))


often = Visitor.often


class Good(Client):
    """Asks as it should on a connection that it keeps, and checks what it gets."""

    def __init__(self, *args, name: str) -> None:
        super().__init__(*args)
        self.visitor = Visitor(self.random, name)

    @often(1)
    async def exchange(self) -> None:
        for exchange in self.visitor.next():
            self.record.kinds[exchange.kind] += 1
            start = time.perf_counter()
            if not self.connection.is_open:
                await self.connection.open()
            await self.connection.send(exchange.data())
            answer = await self.answer(exchange.method)
            self.record.latencies.append(time.perf_counter() - start)
            self.record.slowest[exchange.kind] = max(
                self.record.slowest[exchange.kind], self.record.latencies[-1]
            )
            try:
                exchange.check(answer)
            except AssertionError as exc:
                raise AssertionError(f"{exchange.kind}: {exc}") from None
            if self.random.random() < 0.02:
                self.connection.close()


class Slow(Client):
    """Keeps to the protocol, but takes its time."""

    @often(3)
    async def dribbles_its_header(self) -> None:
        await self.fresh()
        await self.dribble(request("GET", "/plain/5"))
        text("plain 5")(await self.answer())

    @often(3)
    async def dribbles_its_body(self) -> None:
        path = self.random.choice(["/echo", "/echo/plain", "/asgi/", "/wsgi/"])
        await self.fresh(request("POST", path, {"Content-Length": "400"}))
        await self.dribble(b"x" * 400, 10)
        text("x" * 400)(await self.answer())

    @often(3)
    async def dribbles_an_upload(self) -> None:
        path = self.random.choice(["/upload", "/upload/plain"])
        await self.fresh(request("POST", path, {"Transfer-Encoding": "chunked"}))
        await self.dribble(chunked(b"x" * 400, 20), 7)
        status(200)(await self.answer())

    @often(2)
    async def stops_in_its_body(self) -> None:
        await self.fresh(request("POST", "/slow-body", {"Content-Length": "100"}))
        await self.connection.send(b"x" * 50)
        start = time.perf_counter()
        status(408)(await self.answer())
        waited = time.perf_counter() - start
        if waited < BODY_TIMEOUT * 0.9:
            raise AssertionError(f"given up after {waited} s")

    @often(3)
    async def reads_slowly(self) -> None:
        path = self.random.choice(["/stream/300/0.0", "/stream/plain/300/0.0"])
        await self.fresh(request("GET", path))
        answer = await self.connection.start()
        try:
            async for chunk in self.connection.chunks(answer):
                answer.body += chunk
                await asyncio.sleep(self.random.uniform(0, 0.01))
        except LOST as exc:
            raise Broken(repr(exc)) from None
        text(lines(300))(answer)

    @often(2)
    async def waits_for_what_is_late(self) -> None:
        path = self.random.choice(["/late", "/late/plain"])
        status(503)(await self.ask(request("GET", path)))


class Unreliable(Client):
    """Leaves when it likes, in one of the ways to leave."""

    requests = (
        *(Exchange("", "GET", path, text("")) for path in ("/", "/plain/1", "/visit")),
        Exchange("", "GET", "/wait/0.5", text("")),
        Exchange("", "GET", "/wait/plain/0.05", text("")),
        Exchange("", "GET", "/stream/100000/0.0", text("")),
        Exchange("", "GET", "/stream/100000/0.01", text("")),
        Exchange("", "GET", "/stream/plain/100000/0.001", text("")),
        Exchange("", "GET", "/db/numbers/100000000", text("")),
        Exchange("", "GET", "/static/big.bin", text("")),
        *(
            Exchange("", "POST", path, text(""), {}, b"x" * 20_000)
            for path in ("/echo", "/echo/plain", "/upload", "/upload/plain", "/asgi/")
        ),
        Exchange("", "POST", "/wsgi/", text(""), {}, b"x" * 20_000),
        Exchange("", "POST", "/form", text(""), MULTIPART, part("f", b"x" * 9000, "f")),
    )

    async def leave(self) -> None:
        """Leave, in one of the ways to leave."""
        way = self.random.randrange(3)
        if way == 0:
            self.connection.reset()
            return

        if way == 1:
            self.connection.half_close()
            try:  # the server may answer, or take it as a farewell
                async with asyncio.timeout(1):
                    while await self.connection.reader.read(20_000):
                        pass
            except LOST:
                pass
        self.connection.close()

    @often(2)
    async def leaves_in_the_request(self) -> None:
        data = self.random.choice(self.requests).data()
        head = data.index(b"\r\n\r\n")
        cut = self.random.randrange(self.random.choice([head, len(data)]))
        await self.fresh(data[:cut])
        await asyncio.sleep(self.random.uniform(0, 0.02))
        await self.leave()

    @often(3)
    async def leaves_while_it_is_answered(self) -> None:
        await self.fresh(self.random.choice(self.requests).data())
        await asyncio.sleep(self.random.uniform(0, 0.1))
        await self.leave()

    @often(3)
    async def leaves_in_the_response(self) -> None:
        await self.fresh(self.random.choice(self.requests).data())
        try:
            async with asyncio.timeout(2):
                await self.connection.reader.read(1)
                for _ in range(self.random.randrange(10)):
                    await self.connection.reader.read(20_000)
        except LOST:
            pass
        await self.leave()

    @often(1)
    async def meets_a_view_that_fails(self) -> None:
        text("Internal Server Error", 500)(await self.ask(request("GET", "/boom")))
        try:
            answer = await self.ask(request("GET", "/boom/stream"))
        except Broken:
            return

        raise AssertionError(f"ended as if complete: {answer}")


class Hostile(Client):
    """Sends what nobody should, and is to be refused for it."""

    malformed = (
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Content-Length: 6\r\n\r\nhello!",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 4\r\n\r\n0\r\n\r\n",
        b"GET /\x00\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%ff%fe/%00?%zz=%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
        b"Connection: upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    )
    paths = (
        *("/static/../secret", "/static/..%2fsecret", "/static/%2e%2e/secret"),
        *("/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/..\\secret"),
        *("/static/%00", "/static/small.txt%00", "/static/" + "a/" * 2000),
        *("//evil.example/..", "/static/" + "%2e%2e%2f" * 50 + "etc/passwd"),
        *("/static/", "/" + "a" * 30_000, "/args/" + "%" * 1000),
    )

    async def refused(self, data: bytes, method: str = "GET") -> Answer | None:
        """Send something; return the response, if there is one.

        :raises AssertionError: when it is a failure of the server.
        """
        await self.fresh(data)
        self.connection.half_close()  # nothing more will come
        try:
            answer = await self.answer(method)
        except (Refused, Broken):
            return None
        finally:
            self.connection.close()
        if answer.status >= 500 and answer.status != 501:
            raise AssertionError(f"{data[:80]!r}: {answer}")

        return answer

    @often(5)
    async def sends_what_is_malformed(self) -> None:
        await self.refused(self.random.choice(self.malformed))

    @often(3)
    async def sends_rubbish(self) -> None:
        data = bytearray(self.random.choice(Unreliable.requests).data()[:3000])
        for _ in range(self.random.randrange(1, 10)):
            data[self.random.randrange(min(len(data), 200))] = self.random.randrange(
                256
            )
        try:
            async with asyncio.timeout(2):  # it may wait for more of a body
                await self.refused(bytes(data))
        except TimeoutError:
            pass
        except Malformed:  # a stream for ever, or nothing that has an end
            pass
        self.connection.reset()

    @often(2)
    async def announces_too_much(self) -> None:
        path = self.random.choice(["/echo", "/form", "/form/plain", "/db/entry/a"])
        length = self.random.choice(["1000001", "9" * 18, "9" * 400])
        await self.fresh(
            request("POST", path, {**URLENCODED, "Content-Length": length})
        )
        await self.connection.send(b"x" * 1000)
        try:
            status(413, 400)(await self.answer())
        except Refused:
            pass
        self.connection.reset()

    @often(1)
    async def sends_too_much(self) -> None:
        path = self.random.choice(["/echo", "/echo/plain", "/form", "/upload"])
        headers = {**URLENCODED, "Transfer-Encoding": "chunked"}
        body = chunked(b"x" * (MOST_BYTES + 500_000), 60_000)
        await self.fresh(request("POST", path, headers, body))
        try:
            status(413)(await self.answer())
        except (Refused, Broken):  # closed on us while we were sending
            pass

    @often(1)
    async def sends_too_many_parts(self) -> None:
        count = self.random.choice([MOST_PARTS + 1, 5000])
        body = b"".join(part(str(n), b"") for n in range(count)) + b"--edge--\r\n"
        headers = dict(MULTIPART)
        if self.random.random() < 0.5:
            headers, body = (
                dict(URLENCODED),
                b"&".join(b"%d=" % n for n in range(count)),
            )
        path = self.random.choice(["/form", "/form/plain"])
        status(413)(await self.ask(request("POST", path, headers, body), "POST"))

    @often(2)
    async def sends_a_broken_form(self) -> None:
        body = part("a", b"1") + self.random.choice(
            [b"--edge\r\n" + b"x" * 20_000, b"--edge", b"\x00" * 500, b"--edge\r\n\r\n"]
        )
        path = self.random.choice(["/form", "/form/plain"])
        status(400, 413)(await self.ask(request("POST", path, MULTIPART, body)))

    @often(2)
    async def asks_for_many_ranges(self) -> None:
        spans = ",".join(f"{n}-{n + 1000}" for n in range(self.random.randrange(1000)))
        value = self.random.choice(
            [spans, "0-,0-,0-", "-1", "9-1", f"{'9' * 500}-", "a"]
        )
        data = request("GET", "/static/big.bin", {"Range": f"bytes={value}"})
        answer = await self.ask(data)
        status(200, 206, 400, 416)(answer)
        if len(answer.body) > 2 * MOST_BYTES + 200_000:
            raise AssertionError(f"many ranges make {len(answer.body)} bytes")

    @often(3)
    async def asks_for_paths(self) -> None:
        answer = await self.refused(request("GET", self.random.choice(self.paths)))
        if answer is not None and (b"nobody" in answer.body or b"root:" in answer.body):
            raise AssertionError("the secret is out")

    @often(2)
    async def sends_huge_cookies(self) -> None:
        value = self.random.choice(["a=b; " * 9000, "session=" + "a" * 50_000])
        forged = ["session=e30.AAAA.BBBB", "session=.eJw.x.y", "session=" + "." * 9000]
        cookie = self.random.choice([value, *forged])
        answer = await self.refused(request("GET", "/visit", {"Cookie": cookie}))
        if answer is not None and answer.status == 200:
            expect(b"1", answer.body)

    @often(1)
    async def sends_many_fields(self) -> None:
        headers = {f"X-{n}": "y" * 10 for n in range(self.random.choice([100, 3000]))}
        await self.refused(request("GET", "/", headers))

    @often(1)
    async def keeps_many_idle_connections(self) -> None:
        crowd = [Connection(self.address) for _ in range(60)]
        try:
            for connection in crowd:
                await connection.open()
                await connection.send(self.random.choice([b"", b"GET / HTT"]))
            await asyncio.sleep(self.random.uniform(0, 1))
        finally:
            for connection in crowd:
                connection.close()

    @often(1)
    async def sends_many_requests_at_once(self) -> None:
        await self.fresh(b"".join(request("GET", f"/plain/{n}") for n in range(40)))
        for number in range(40):
            text(f"plain {number}")(await self.answer())
