"""Broken bytes at real servers' sockets, while a good client is being answered."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from .fuzz.mutation import corpus, mutated
from .test_servers import GUNICORN, HERE, Served, serving

pytestmark = pytest.mark.process

UVICORN = "{python} -m uvicorn --port {port} --log-level warning --http "
SERVERS = {
    "uvicorn h11": UVICORN + "h11 {module}:app",
    "uvicorn httptools": UVICORN + "httptools {module}:app",
    "gunicorn gthread": GUNICORN + "-k gthread --threads 8 {module}:app",
}

V, END = b" HTTP/1.1\r\n", b"\r\n\r\n"
GET = b"GET /loops HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /echo-async HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = POST + b"Content-Length: "

REQUEST_LINES = [
    *(END, b"\n\n", b"\0", b"\xff" * 50, b"GET" + END, b"GET /" + END, b"GET"),
    *(b"GET  /" + V + END, b" GET /" + V + END, b"GET / HTTP/1.1 x" + END),
    *(b"GET / HTTP/9.9" + END, b"GET / http/1.1" + END, b"GET / HTTP/1.1\n\n"),
    *(b"G\0T /" + V + END, b"GET /\0" + V + END, b"\x16\x03\x01\x02\0\x01"),
    *(b"GET /\xff\xfe" + V + END, b"GET /%00%ff%zz" + V + END, b"GET *" + V + END),
    *(b"OPTIONS *" + V + b"Host: a" + END, b"PRI * HTTP/2.0" + END + b"SM" + END),
    *(b"CONNECT a:80" + V + b"Host: a" + END, b"GET a" + V + END, b"PRI * HTTP"),
    *(b"GET http://b/loops" + V + b"Host: a" + END, b"GET /" + b"a" * 100_000 + V),
    *(b"A" * 100_000, b"\r" * 10_000, b"GET ?q" + V + END, b"GET #" + V + END),
    *(b"GET //b/" + V + END, b"get /loops" + V + b"Host: a" + END),
    *(b"<>! /loops" + V + b"Host: a" + END, b"GET /loops?" + b"&=" * 30_000 + V + END),
]
HEADER_FIELDS = [
    *(b"no colon", b": no name", b"Na me: x", b"Name : x", b"X: a\0b", b"X: a\rb"),
    *(b"X: a\nY: b", b" folded: x", b"X: a\r\n folded", b"X\xff: a", b"X: \xff\xfe"),
    *(b"X: " + b"a" * 200_000, b"\r\n".join([b"X: y"] * 5000), b"Host: b", b"Host:"),
    *(b"Host: a b", b"Host: a/b?c", b"Cookie: session=\xff;;;=", b"Range: bytes=-"),
    *(b"Connection: close, upgrade", b"Upgrade: websocket\r\nConnection: upgrade"),
    *(b"Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: \xff",),
    *(b"Expect: nothing", b"Expect: 100-continue", b"TE: trailers", b"X-\r\nY: z"),
    *(b"Content-Length", b"Transfer-Encoding:", b"Connection: \0", b"\x85: \xa0"),
]
LENGTHS = [
    *(b"-1", b"+5", b"5_0", b"5 5", b"0x5", b"five", b"", b"5, 5", b"5, 6", b"\xb2"),
    *(b"9" * 30, b"9" * 5000, b"5\r\nContent-Length: 6", b"1e3", b"5.0", b"5;"),
    *(b"\t5", b"999999", b"5\r\nTransfer-Encoding: chunked"),
    b"0\r\nTransfer-Encoding: chunked",
]
CODINGS = [
    *(b"x", b"chunked, chunked", b"gzip, chunked", b"chunked\0", b"\x0bchunked", b""),
]
CHUNKS = [
    *(b"zz\r\n", b"-1\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"\0\r\n"),
    *(b"5\nhello\n0\n\n", b"5\r\nhelloXX0" + END, b"5;a=b\r\nhello\r\n0" + END),
    *(b"5\r\nhel", b"5", END, b"5;" + b"x" * 100_000, b"0\r\nBad trailer" + END),
    *(b"0\r\nX: y" + END, b"5 \r\nhello\r\n0" + END, b"5\r\nhello\r\n0\r\n"),
    *(
        b"1\r\na\r\n" * 2000,
        b"5_0\r\n" + b"x" * 50 + b"\r\n0" + END,
        b" 5\r\nhello\r\n",
    ),
    b"f" * 20 + b"\r\n",
]
BY_HAND = [
    *REQUEST_LINES,
    *(GET + field + b"\r\n\r\n" for field in HEADER_FIELDS),
    *(SIZED + length + b"\r\n\r\nhello" for length in LENGTHS),
    *(
        POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in CODINGS
    ),
    *(CHUNKED + chunks for chunks in CHUNKS),
    *(GET + b"\r\n" + line for line in REQUEST_LINES),  # behind a good one
    *(SIZED + b"5\r\n\r\nhello" + line for line in REQUEST_LINES),
]


def broken_strings() -> list[bytes]:
    """Return what is sent to each server."""
    random = Random(1)
    base = [
        GET + b"\r\n",
        SIZED + b"5\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    ]
    base += [data.replace(b" /", b" /loops/", 1) for data in corpus("requests.http")]
    return BY_HAND + [mutated(random, random.choice(base), base) for _ in range(200)]


class GoodClient(threading.Thread):
    """Asks, over and over, and expects to be answered."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.count = 0
        self.error: Exception | None = None
        self.is_done = threading.Event()

    def run(self) -> None:
        try:
            with httpx.Client(base_url=self.url, timeout=20) as client:
                while not self.is_done.is_set():
                    assert client.get("/protocol").status_code == 200
                    assert client.post("/echo", content=b"hello").text == "hello"
                    self.count += 1
        except Exception as exc:
            self.error = exc


@contextmanager
def good_client(url: str) -> Iterator[GoodClient]:
    client = GoodClient(url)
    client.start()
    try:
        yield client
    finally:
        client.is_done.set()
        client.join(30)
    assert client.error is None
    assert not client.is_alive()


def connected(server: Served) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), 20)


def send(server: Served, data: bytes) -> bytes:
    """Send bytes and the end of them; return all that comes back."""
    answer = bytearray()
    with connected(server) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(1 << 16):
                answer += chunk
        except OSError:  # it need not listen to the end
            pass
    return bytes(answer)


def send_and_reset(server: Served, data: bytes) -> None:
    """Send bytes, and have the connection end like one that was cut."""
    with connected(server) as connection:
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        try:
            connection.sendall(data)
        except OSError:
            pass


def processes(pid: int) -> list[int]:
    """Return a process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in processes(int(child)))]


def holdings(server: Served) -> dict[int, tuple[int, int]]:
    """Return how many threads and file descriptors each process has."""
    return {
        pid: (
            len(list(Path(f"/proc/{pid}/task").iterdir())),
            len(list(Path(f"/proc/{pid}/fd").iterdir())),
        )
        for pid in processes(server.process.pid)
    }


def bombard(server: Served, strings: list[bytes]) -> list[bytes]:
    """Send every string, some of them cut off or left open; return the answers."""
    answers = []
    with ExitStack() as left_open:
        for number, data in enumerate(strings):
            if number % 10 == 3:
                send_and_reset(server, data)
            elif number % 100 == 7:  # few: each may hold a thread of the server's
                half = left_open.enter_context(connected(server))
                half.sendall(SIZED + b"10\r\n\r\nhalf")
            else:
                answers.append(send(server, data))
    return answers


def need_all_threads(server: Served) -> None:
    """Have all threads started that stay once they have been needed."""
    with ThreadPoolExecutor(8) as pool:
        urls = [f"{server.url}/meet"] * 8
        assert [got.text for got in pool.map(httpx.get, urls)] == ["met"] * 8


def is_better(after: dict[int, tuple[int, int]], before: dict[int, tuple[int, int]]):
    """Say whether nothing was added, and no process replaced."""
    return after.keys() == before.keys() and all(
        after[pid][0] <= before[pid][0] and after[pid][1] <= before[pid][1]
        for pid in before
    )


@pytest.mark.parametrize("name", SERVERS)
def test_broken_bytes_harm_nobody_but_their_sender(name: str, tmp_path: Path):
    with serving(SERVERS[name], HERE, "served", tmp_path) as server:
        strings = broken_strings()
        need_all_threads(server)
        with good_client(server.url):
            bombard(server, strings[::5])
        before = settled(server)
        with good_client(server.url) as client:
            answers = bombard(server, strings)
        assert client.count > 10
        deadline = time.monotonic() + 20
        while not is_better(after := holdings(server), before):
            assert time.monotonic() < deadline, (before, after, said(server))
            time.sleep(0.05)
        assert "Traceback" not in said(server)
    statuses = [answer[9:12] for answer in answers if answer]
    assert {answer[:5] for answer in answers} <= {b"HTTP/", b""}
    assert {b"200", b"400"} <= set(statuses)
    assert b"500" not in statuses


def said(server: Served) -> str:
    return server.log.read_text()


def settled(server: Served) -> dict[int, tuple[int, int]]:
    """Return what a server holds once that does not change any more."""
    counts = [holdings(server)]
    while len(counts) < 10 or counts[-10:] != counts[-1:] * 10:
        time.sleep(0.02)
        counts.append(holdings(server))
    return counts[-1]


# With httptools, uvicorn refuses all that came in one piece with the garbage.
@pytest.mark.parametrize("name", ["uvicorn h11", "gunicorn gthread"])
@pytest.mark.parametrize("garbage", [b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"x" * 100])
def test_what_came_before_the_garbage_is_answered(
    name: str, garbage: bytes, tmp_path: Path
):
    with serving(SERVERS[name], HERE, "served", tmp_path) as server:
        with connected(server) as connection:
            connection.sendall(SIZED + b"5\r\n\r\nhello" + garbage)
            answer = b""
            while b"hello" not in answer:
                chunk = connection.recv(1 << 16)
                assert chunk, answer
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")
