"""What a good client asks, and what it must get for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .wire import Answer, chunked, request

Check = Callable[[Answer], None]


@dataclass
class Exchange:
    """A request, and what is right as its response."""

    kind: str
    method: str
    path: str
    check: Check
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    #: False for one that takes long on purpose
    timed: bool = True

    def data(self, name: str = "") -> bytes:
        """Return the request as bytes, named if it is to be found again."""
        named = {"X-Name": name} if name else {}
        return request(self.method, self.path, {**self.headers, **named}, self.body)


def expect(right: object, got: object) -> None:
    """Compare.

    :raises AssertionError: when it is not the same.
    """
    if right != got:
        raise AssertionError(f"expected {str(right)[:200]}, got {str(got)[:200]}")


def text(right: str | bytes, status: int = 200) -> Check:
    """Return what checks that a body is a text."""
    body = right.encode() if isinstance(right, str) else right

    def check(answer: Answer) -> None:
        expect((status, body), (answer.status, answer.body))

    return check


def as_json(right: Any) -> Check:
    """Return what checks that a body says something in JSON."""

    def check(answer: Answer) -> None:
        expect(200, answer.status)
        expect(right, json.loads(answer.body))

    return check


def status(*codes: int) -> Check:
    """Return what checks nothing but the status."""

    def check(answer: Answer) -> None:
        if answer.status not in codes:
            raise AssertionError(
                f"expected one of {codes}, got {answer.status} {answer.body[:80]!r}"
            )

    return check


def digest(data: bytes) -> list[Any]:
    """Return size and digest, as the site does."""
    return [len(data), hashlib.sha1(data, usedforsecurity=False).hexdigest()]


def lines(count: int) -> bytes:
    """Return what the streams of the site send."""
    return b"".join(b"%d %b\n" % (number, b"x" * 1000) for number in range(count))


MULTIPART = {"Content-Type": "multipart/form-data; boundary=edge"}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}


def part(name: str, data: bytes, filename: str = "") -> bytes:
    """Return a part of a multipart body."""
    file = f'; filename="{filename}"' if filename else ""
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


class Visitor:
    """One good client: it asks for anything, and keeps its cookies."""

    def __init__(self, random: Random, name: str) -> None:
        self.random = random
        self.name = name
        self._cookie = ""
        self._visits = 0
        self._entries = 0
        kinds = (getattr(type(self), name) for name in vars(type(self)))
        self.kinds = [kind for kind in kinds if hasattr(kind, "weight")]
        self._weights = [kind.weight for kind in self.kinds]

    def next(self) -> Iterator[Exchange]:
        """Give the exchanges of one errand, each after the one before is done."""
        (kind,) = self.random.choices(self.kinds, self._weights)
        yield from kind(self)

    @staticmethod
    def often(weight: int) -> Callable[[Any], Any]:
        """Say how often an errand is done, next to the others."""

        def mark(errand: Any) -> Any:
            errand.weight = weight
            return errand

        return mark

    @often(6)
    def hello(self) -> Iterator[Exchange]:
        yield Exchange("async view", "GET", "/", text("hello"))

    @often(6)
    def plain(self) -> Iterator[Exchange]:
        number = self.random.randrange(1000)
        right = text(f"plain {number}")
        yield Exchange("plain view", "GET", f"/plain/{number}", right)

    @often(2)
    def arguments(self) -> Iterator[Exchange]:
        right = {"rest": "a/ä", "args": [["x", "1"], ["x", "ü"]]}
        path = "/args/a/%C3%A4?x=1&x=%C3%BC"
        yield Exchange("arguments", "GET", path, as_json(right))

    @often(2)
    def template(self) -> Iterator[Exchange]:
        right = "".join(f"<b>{number}&&lt;i&gt;</b>" for number in range(20))
        yield Exchange("template", "GET", "/template?word=%3Ci%3E", text(right))

    @often(4)
    def echo(self) -> Iterator[Exchange]:
        body = self.random.randbytes(self.random.choice([0, 1, 1000, 200_000]))
        path = self.random.choice(["/echo", "/echo/plain", "/asgi/", "/wsgi/"])
        yield Exchange("echo", "POST", path, text(body), body=body)

    @often(3)
    def form(self) -> Iterator[Exchange]:
        number = str(self.random.randrange(1000))
        body = f"a={number}&b=%26&b=%C3%BC".encode()
        fields = [["a", number], ["b", "&"], ["b", "ü"]]
        right = as_json({"fields": fields, "files": []})
        path = self.random.choice(["/form", "/form/plain"])
        yield Exchange("form", "POST", path, right, URLENCODED, body)

    @often(3)
    def files(self) -> Iterator[Exchange]:
        data = self.random.randbytes(self.random.choice([10, 5000, 700_000]))
        body = part("a", b"1") + part("f", data, "f.bin") + b"--edge--\r\n"
        files = [["f", "f.bin", *digest(data)]]
        right = as_json({"fields": [["a", "1"]], "files": files})
        path = self.random.choice(["/form", "/form/plain"])
        yield Exchange("files", "POST", path, right, MULTIPART, body)

    @often(3)
    def upload(self) -> Iterator[Exchange]:
        data = self.random.randbytes(self.random.choice([0, 100, 300_000]))
        path = self.random.choice(["/upload", "/upload/plain"])
        right = as_json(digest(data))
        body, headers = data, {}
        if self.random.random() < 0.5:
            body, headers = chunked(data, 10_000), {"Transfer-Encoding": "chunked"}
        yield Exchange("upload", "POST", path, right, headers, body)

    @often(4)
    def visit(self) -> Iterator[Exchange]:
        def check(answer: Answer) -> None:
            text(str(self._visits + 1))(answer)
            self._visits += 1
            self._cookie = answer.get("set-cookie").partition(";")[0]

        headers = {"Cookie": self._cookie} if self._cookie else {}
        yield Exchange("session", "GET", "/visit", check, headers)

    @often(3)
    def stream(self) -> Iterator[Exchange]:
        count = self.random.choice([0, 1, 20, 200])
        path = self.random.choice(["/stream", "/stream/plain"])
        right = text(lines(count))
        yield Exchange("stream", "GET", f"{path}/{count}/0.0", right)

    @often(2)
    def numbers(self) -> Iterator[Exchange]:
        count = self.random.choice([0, 10, 500])
        right = text("".join(f"{number}\n" for number in range(count)))
        yield Exchange("sqlite3 stream", "GET", f"/db/numbers/{count}", right)

    @often(3)
    def entry(self) -> Iterator[Exchange]:
        self._entries += 1
        path = f"/db/entry/{self.name}-{self._entries}"
        word = str(self.random.random())
        body = f"text={word}".encode()
        added = text("added", 201)
        yield Exchange("sqlite3", "POST", path, added, URLENCODED, body)
        yield Exchange("sqlite3", "GET", path, text(word))
        yield Exchange("sqlite3", "DELETE", path, text("removed"))

    @often(3)
    def static(self) -> Iterator[Exchange]:
        def check(answer: Answer) -> None:
            text(b"0123456789" * 10)(answer)
            etags.append(answer.get("etag"))

        etags: list[str] = []
        path = "/static/small.txt"
        yield Exchange("static file", "GET", path, check)
        condition = {"If-None-Match": etags.pop()} if etags else {}
        yield Exchange("static file", "GET", path, text("", 304), condition)
        start = self.random.randrange(1_000_000)
        piece = (bytes(range(256)) * 4000)[start : start + 1001]
        span = {"Range": f"bytes={start}-{start + 1000}"}
        yield Exchange("static file", "GET", "/static/big.bin", text(piece, 206), span)

    @often(1)
    def nowhere(self) -> Iterator[Exchange]:
        yield Exchange("not found", "GET", "/nowhere", status(404))
        yield Exchange("not found", "PUT", "/", status(405))
        yield Exchange("not found", "HEAD", "/", text(""))
