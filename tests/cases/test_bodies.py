"""Bodies, forms and multipart: what is sent to break them, and what becomes of it.

The letters and numbers in the names are the project's own catalogue of faults and
attacks that its field has seen.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import socket
import time
import tracemalloc
import zlib
from contextlib import closing
from typing import Any

import httpx
import pytest

from asyncflask import Flask, receiving, request, session
from asyncflask.calling import Calling
from asyncflask.exceptions import BadRequest, RequestEntityTooLarge
from asyncflask.forms import SPOOL_SIZE, Limits, new_body
from asyncflask.receiving import Intake, unread_body
from asyncflask.testing import build_request

from ..server import served

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=line"
DISPOSITION = b"--line\r\nContent-Disposition: form-data"
END = b"--line--\r\n"


def field(name: str, value: bytes = b"", fields: bytes = b"") -> bytes:
    return DISPOSITION + f'; name="{name}"\r\n'.encode() + fields + b"\r\n" + value


def file(name: str, filename: bytes, data: bytes = b"") -> bytes:
    start = DISPOSITION + f'; name="{name}"; filename="'.encode() + filename
    return start + b'"\r\n\r\n' + data + b"\r\n"


def form_app(app: Flask) -> Flask:
    """Add a view that says what it finds in a form, and one that does not look."""

    @app.route("/", methods=["POST", "PUT", "PATCH", "DELETE", "GET"])
    def form():
        return {
            "form": request.form.to_dict(flat=False),
            "files": [
                [name, upload.filename, upload.read().decode("latin-1")]
                for name, upload in request.files.multi_items()
            ],
        }

    @app.route("/blind", methods=["POST"])
    async def blind():
        return "the view was called"

    return app


class Sender:
    """A client that sends pieces for as long as somebody takes them."""

    def __init__(self, app, kind, pieces, *, method="POST", path="/", after=None):
        self.app = app
        self.scope, _ = build_request(path, method=method, content_type=kind)
        self.scope["headers"] = [
            *(pair for pair in self.scope["headers"] if pair[0] != b"content-length"),
            (b"transfer-encoding", b"chunked"),
        ]
        self.pieces = iter(pieces)
        self.after = after
        self.taken = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self):
        piece = next(self.pieces, None)
        if piece is None and self.after is not None:
            return self.after
        self.taken += len(piece or b"")
        more = piece is not None
        return {"type": "http.request", "body": piece or b"", "more_body": more}

    async def send(self, message):
        self.sent.append(message)

    async def run(self):
        await asyncio.wait_for(self.app(self.scope, self.receive, self.send), 30)
        return self.sent[0]["status"] if self.sent else None


def endless(start: bytes, piece: bytes):
    """Give a start and then the same piece, a gigabyte of it."""
    yield start
    for _ in range((1 << 30) // len(piece)):
        yield piece


# ------------------------------------------------------------------- M1: memory

FLOODS = {
    "text field": (MULTIPART, field("a"), b"x" * 65_536),
    "urlencoded value": (URLENCODED, b"a=", b"x" * 65_536),
    "urlencoded name": (URLENCODED, b"", b"x" * 65_536),
    "field with a type": (
        MULTIPART,
        field("a", fields=b"Content-Type: application/octet-stream\r\n"),
        b"x" * 65_536,
    ),
    "field with filename*": (
        MULTIPART,
        DISPOSITION + b"; name=a; filename*=utf-8''x\r\n\r\n",
        b"x" * 65_536,
    ),
    "many fields": (
        MULTIPART,
        b"",
        field("a", b"x" * 65_536 + b"\r\n"),
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_M1_a_gigabyte_in_fields_is_413_and_takes_no_memory(kind):
    """GHSA-f96h-pmfr-66vw, GHSA-q34m-jh98-gwm2: fields that are no files."""
    app = form_app(Flask(__name__))
    app.max_content_length = None
    content_type, start, piece = FLOODS[kind]
    sender = Sender(app, content_type, endless(start, piece))
    tracemalloc.start()
    try:
        assert await sender.run() == 413
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
    assert sender.taken < 3_000_000
    app.workers.close()


@pytest.mark.parametrize("path", ["/", "/blind", "/missing"])
@pytest.mark.parametrize("kind", ["text/plain", "", "application/json", MULTIPART])
async def test_M1_a_gigabyte_of_anything_is_not_read_to_its_end(kind, path):
    """The limit holds whether or not anybody looks at the body, or answers at all."""
    app = form_app(Flask(__name__))
    app.max_content_length = 2_000_000
    start = file("f", b"x")[:-2] if kind == MULTIPART else b""
    sender = Sender(app, kind, endless(start, b"x" * 65_536), path=path)
    assert await sender.run() == (404 if path == "/missing" else 413)
    assert sender.taken < 2 * 2_000_000 + 200_000
    app.workers.close()


async def test_M1_a_hook_that_reads_the_form_gets_the_413_as_well(app, client):
    form_app(app)
    app.max_form_memory_size = 100
    seen = []

    @app.before_request
    def csrf():
        seen.append("before")
        seen.append(request.form.get("token"))

    @app.after_request
    def after(response):
        seen.append(response.status_code)
        return response

    for data in ({"a": "x" * 200}, {"a": "x" * 200, "f": (b"", "f")}):
        assert (await client.post("/", data=data)).status_code == 413
    assert seen == ["before", 413, "before", 413]


async def test_M1_big_files_are_no_fields(app, client):
    """The limit for fields is for fields; a file goes to disk."""
    form_app(app)
    app.max_form_memory_size = 100
    data = file("f", b"x", b"y" * (2 * SPOOL_SIZE)) + field("a", b"1\r\n") + END
    got = (await client.post("/", data=data, content_type=MULTIPART)).json
    assert got["form"] == {"a": ["1"]}
    assert len(got["files"][0][2]) == 2 * SPOOL_SIZE


# ---------------------------------------------------------------- M2, M3: counts


@pytest.mark.parametrize(
    "part",
    [field("a", b"\r\n"), file("f", b"x"), file("f", b"")],
    ids=["fields", "files", "empty file fields"],
)
async def test_M2_too_many_parts_are_413(app, client, part):
    """GHSA-74m5-2c7w-9w3x, GHSA-xg9f-g7g7-2323: each part costs, also an empty one."""
    form_app(app)
    for count, code in ((1000, 200), (1001, 413), (20_000, 413)):
        body = part * count + END
        got = await client.post("/", data=body, content_type=MULTIPART)
        assert got.status_code == code


async def test_M2_too_many_parts_end_the_reading():
    app = form_app(Flask(__name__))
    app.max_content_length = None
    sender = Sender(app, MULTIPART, endless(b"", file("f", b"x") * 100))
    assert await sender.run() == 413
    assert sender.taken < 2_000_000
    app.workers.close()


@pytest.mark.parametrize("text", [b"a&", b"a=1&", b"&", b"=&", b"a;", b"%26&"])
async def test_M3_too_many_urlencoded_fields_are_413(app, client, text):
    """Only & separates fields; a ; is part of the value (WHATWG URL, section 5)."""
    form_app(app)
    got = await client.post("/", data=text * 1000, content_type=URLENCODED)
    assert got.status_code == (200 if text == b"a;" else 413)
    if text == b"a;":
        assert got.json["form"] == {"a;" * 1000: [""]}


@pytest.mark.parametrize("text", [b"a&", b";", b"a;", b"%", b"%2", b"+", b"=", b"&"])
def test_M3_urlencoded_fields_take_linear_time(text):
    """GHSA-5rvq-cxj2-64vf: a ; cost the square of what stood behind it."""

    def cost(size: int) -> float:
        with closing(new_body(URLENCODED, Limits())) as body:
            body.feed(text * (size // len(text)))
            body.end()
            start = time.process_time()
            assert isinstance(body.fields, list)
            return time.process_time() - start

    assert cost(400_000) < 12 * (cost(100_000) + 0.05)


async def test_M3_the_query_has_the_same_separators(app, client):
    @app.route("/")
    def view():
        return request.args.to_dict(flat=False)

    got = await client.get("/?" + "a;b=1" * 500)
    assert len(got.json) == 1
    assert len((await client.get("/?" + "a&" * 5000)).json["a"]) == 5000


# ---------------------------------------------- M6: boundaries, pieces, linear time


def lines(piece: bytes, size: int) -> list[bytes]:
    flood = piece * (size // len(piece))
    return [flood[n : n + 65_536] for n in range(0, len(flood), 65_536)]


PREAMBLES = [
    *(b"\r\n", b"\r", b"\n", b"-", b"--", b"--lin", b"\r\n--lin", b"--line-", b"\r\n-"),
    *(b"\0", b"--line\r", b"--line \r\n"),
]


@pytest.mark.parametrize("piece", PREAMBLES, ids=repr)
async def test_M6_what_stands_before_the_first_boundary_is_bounded(piece):
    """GHSA-mj87-hwqh-73pj, GHSA-59g5-xgcq-4qw3: megabytes before the first part."""
    app = form_app(Flask(__name__))
    app.max_content_length = 2_000_000
    sender = Sender(app, MULTIPART, lines(piece, 10_000_000))
    assert await sender.run() in (400, 413)
    assert sender.taken < 4_200_000
    app.workers.close()


class Counted(bytes):
    """Bytes that count how often anybody asks for their length."""

    asked = 0

    def __len__(self) -> int:
        Counted.asked += 1
        return super().__len__()


def counted(count: int, size: int = 1) -> list[Counted]:
    Counted.asked = 0
    return [Counted(b"x" * size) for _ in range(count)]


async def messages_from(pieces):
    messages = iter(pieces)

    async def receive():
        piece = next(messages, None)
        body = b"" if piece is None else piece
        return {"type": "http.request", "body": body, "more_body": piece is not None}

    return receive


@pytest.mark.parametrize("kind", ["text/plain", MULTIPART])
async def test_M6_a_big_body_in_tiny_pieces_is_looked_at_once(kind):
    """Bytes that dribble in must not each be counted again with every other."""
    start = file("f", b"x", b"y" * SPOOL_SIZE)[:-2]
    pieces = counted(5000)
    receive = await messages_from([start, *pieces, *([b"\r\n" + END])])
    with closing(new_body(kind, Limits(1 << 30))) as body:
        await Intake(receive).fill(body)
        assert body.received > SPOOL_SIZE
    assert Counted.asked <= 10 * len(pieces)


@pytest.mark.parametrize("pieces", [[b""], [b"ab"], [b"a", b"b"], [b"", b"ab"]])
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_M6_a_body_that_no_field_tells_of_is_taken_in(version, pieces):
    """HTTP/2 needs no length: its messages tell where a body ends."""
    app = Flask(__name__)
    app.add_url_rule("/", "index", lambda: request.data, methods=["GET", "POST"])
    for method in ("POST", "GET") if version == "2" else ("POST",):
        scope = {**build_request("/")[0], "method": method, "http_version": version}
        left, sent = list(pieces), []

        async def receive(left=left):
            body = left.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(left)}

        async def send(message, sent=sent):
            sent.append(message)

        await app(scope, receive, send)
        assert sent[1]["body"] == b"".join(pieces)


@pytest.mark.parametrize("kind", ["multipart/form-data", MULTIPART, "text/plain"])
async def test_M6_a_type_alone_announces_no_body(app, client, kind):
    """Programs that send the same fields with every request send it with GET."""
    app.add_url_rule("/", "index", lambda: f"{len(request.form)} {request.data!r}")
    got = await client.get("/", headers={"Content-Type": kind})
    assert (got.status_code, got.text) == (200, "0 b''")


@pytest.mark.parametrize("body_timeout", [None, 0.01])
async def test_M1_a_refused_body_that_pauses_gets_its_413(monkeypatch, body_timeout):
    """The rest is waited for to no purpose but the client's, however long."""
    monkeypatch.setattr(receiving, "DRAIN_PAUSE", 0.05)
    app, sent, pieces = Flask(__name__), [], [b"x" * 20]
    app.max_content_length, app.body_timeout = 10, body_timeout
    app.add_url_rule("/", "index", pytest.fail, methods=["POST"])

    async def receive():
        if not pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(message):
        sent.append(message)

    await app({**build_request("/")[0], "method": "POST"}, receive, send)
    assert sent[0]["status"] == 413


async def test_M6_what_a_view_leaves_unread_is_looked_at_once():
    """While a response streams, the unread rest of the body is taken in ahead."""
    pieces = counted(5000)
    receive = await messages_from(pieces)
    app = Flask(__name__)
    ctx = Calling(app, build_request("/")[0])
    ctx.body = unread_body(ctx, Limits(), receive)
    await asyncio.wait_for(ctx.body.stream.read_ahead(), 30)
    assert Counted.asked <= 10 * len(pieces)
    assert b"".join([chunk async for chunk in ctx.body.stream]) == b"x" * 5000


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_M6_a_form_in_tiny_pieces_arrives_whole(size):
    app = form_app(Flask(__name__))
    text = field("a", b"\r\n--lin\r\n") + file("f", b"x", b"\r\r\n--lin") + END
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    sender = Sender(app, MULTIPART, pieces)
    assert await sender.run() == 200
    assert b'"a":["\\r\\n--lin"]' in sender.sent[1]["body"]
    assert b'["f","x","\\r\\r\\n--lin"]' in sender.sent[1]["body"]
    app.workers.close()


@pytest.mark.parametrize("piece", [b"\r\n--lin", b"\r", b"\r\n-", b"\r\n--linx"])
def test_M6_what_looks_like_a_boundary_takes_linear_time(piece):
    """A long boundary, and data that is full of its beginnings."""
    boundary = "lin" + "e" * 60

    def cost(size: int) -> float:
        kind = f"multipart/form-data; boundary={boundary}"
        with closing(new_body(kind, Limits())) as body:
            head = file("f", b"x")[:-2]
            body.feed(head.replace(b"--line", b"--" + boundary.encode()))
            start = time.process_time()
            for chunk in lines(piece, size):
                body.feed(chunk)
            return time.process_time() - start

    assert cost(2_000_000) < 12 * (cost(500_000) + 0.05)


@pytest.mark.parametrize("length", [70, 71, 500, 20_000])
def test_M6_a_boundary_may_be_longer_than_the_rfc_says(length):
    """RFC 2046 allows 70 characters; a longer one is read, or a 400."""
    boundary = "b" * length
    text = file("f", b"x", b"y" * 100_000) + END
    text = text.replace(b"--line", b"--" + boundary.encode())
    with closing(new_body(f"multipart/form-data; boundary={boundary}", Limits())) as b:
        for n in range(0, len(text), 1000):
            b.feed(text[n : n + 1000])
        b.end()
        assert b.files[0][1].read() == b"y" * 100_000


# ------------------------------------------------------------- M7: fields of a part

HEADS = {
    "a million fields": b"X: y\r\n" * 1_000_000,
    "one of 10 MB": b"X: " + b"y" * 10_000_000,
    "a name of 10 MB": b"X" * 10_000_000,
    "continued for ever": b"X: y\r\n" + b" y\r\n" * 1_000_000,
    "lines of blanks": b"X: y\r\n" + b" \r\n" * 1_000_000,
    "disposition, again and again": b"Content-Disposition: form-data\r\n" * 300_000,
    "parameters": b"Content-Disposition: form-data" + b"; a=b" * 1_000_000,
    "an open quote": b'Content-Disposition: form-data; name="' + b"\\" * 5_000_000,
}


@pytest.mark.parametrize("head", HEADS)
async def test_M7_the_header_of_a_part_is_bounded(head):
    """CVE-2026-42561: fields of one part without end."""
    app = form_app(Flask(__name__))
    text = b"--line\r\n" + HEADS[head]
    pieces = [text[n : n + 65_536] for n in range(0, len(text), 65_536)]
    sender = Sender(app, MULTIPART, pieces)
    start = time.process_time()
    assert await sender.run() in (400, 413)
    assert time.process_time() - start < 5
    app.workers.close()


# -------------------------------------------------------- M8: parameters, smuggling


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (b'; name="a"; name*0="x"; name*1="y"', "a"),
        (b"; name*0=x; name=a", "a"),
        (b"; name*=utf-8''x; name=a", "a"),
        (b"; name=a; name*=utf-8''x", "a"),
        (b"; name*=utf-8''x", None),
        (b"; name*0=x; name*1=y", None),
        (b'; NAME="a"', "a"),
        (b'; name="b"; name="a"', "a"),
        (b"; name=\"a\"; filename*=utf-8''x", "a"),
        (b'; name="a;b=c\\"; name=\\"x"', 'a;b=c"; name="x'),
    ],
)
async def test_M8_one_parameter_is_the_name_and_no_continued_one(
    app, client, parameters, name
):
    """PYSEC-2026-3041: ``name*0`` in place of the ``name`` that a filter has seen.

    RFC 7578, section 4.2, forbids ``filename*``, and RFC 2231 is for mail. Of two of
    the same name the last counts.
    """
    form_app(app)
    body = DISPOSITION + parameters + b"\r\n\r\n1\r\n" + END
    got = await client.post("/", data=body, content_type=MULTIPART)
    if name is None:
        assert got.status_code == 400
    else:
        assert got.json == {"form": {name: ["1"]}, "files": []}


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary*0=oth; boundary*1=er; boundary=line",
        "multipart/form-data; boundary*=utf-8''other; boundary=line",
        'multipart/form-data; x="; boundary=other"; boundary=line',
        "multipart/form-data; boundary=other; boundary=line",
    ],
)
async def test_M8_one_parameter_is_the_boundary(app, client, kind):
    form_app(app)
    inner = b'--other\r\nContent-Disposition: form-data; name="b"\r\n\r\n2\r\n'
    body = field("a", inner + b"\r\n") + END
    got = await client.post("/", data=body, content_type=kind)
    assert got.json["form"] == {"a": [inner.decode()]}


# --------------------------------------------------- M9, M10: malformed, cut off

MALFORMED = {
    "no boundary said": ("multipart/form-data", field("a", b"1\r\n") + END),
    "an empty one": ("multipart/form-data; boundary=", field("a", b"1\r\n") + END),
    "a line in it": ('multipart/form-data; boundary="li\nne"', END),
    "another one": ("multipart/form-data; boundary=x", field("a", b"1\r\n") + END),
    "no name": (MULTIPART, DISPOSITION + b"\r\n\r\n1\r\n" + END),
    "an empty name": (MULTIPART, field("", b"1\r\n") + END),
    "no disposition": (MULTIPART, b"--line\r\nX: y\r\n\r\n1\r\n" + END),
    "no header": (MULTIPART, b"--line\r\n\r\n1\r\n" + END),
    "no colon": (MULTIPART, b"--line\r\nnonsense\r\n\r\n1\r\n" + END),
    "bytes": (MULTIPART, b"--line\r\n\xff\xfe: \xff\r\n\r\n1\r\n" + END),
    "a bare newline": (MULTIPART, field("a", b"1\r\n").replace(b"\r\n", b"\n") + END),
    "nothing": (MULTIPART, b""),
    "no form": (MULTIPART, b'{"a": 1}'),
    "no end": (MULTIPART, field("a", b"1\r\n")),
    "half an end": (MULTIPART, field("a", b"1\r\n") + b"--line-"),
    "cut off in a file": (MULTIPART, file("f", b"x", b"yyy")[:-3]),
    "cut off in a header": (MULTIPART, field("a")[:-6]),
    "a length that lies": (
        MULTIPART,
        field("a", b"12345\r\n", b"Content-Length: 2\r\n") + END,
    ),
    "a length that is none": (
        MULTIPART,
        field("a", b"12345\r\n", b"Content-Length: -2\r\n") + END,
    ),
}


@pytest.mark.parametrize("bad", MALFORMED)
async def test_M9_M10_a_malformed_or_truncated_form_is_400(app, client, bad):
    form_app(app)
    kind, body = MALFORMED[bad]
    for path in ("/", "/blind"):
        got = await client.post(path, data=body, content_type=kind)
        assert got.status_code == 400
        assert "Traceback" not in got.text
    fine = await client.post("/", data=b"a=1", content_type=URLENCODED)
    assert fine.json["form"] == {"a": ["1"]}


@pytest.mark.parametrize(
    "end",
    [b"--line--", b"--line--\r\n", b"--line--epilogue", b"--line--\r\n--line\r\nX"],
    ids=repr,
)
@pytest.mark.parametrize("split", [False, True], ids=["one piece", "two pieces"])
async def test_M10_what_comes_behind_the_end_is_ignored(end, split):
    """undici ends without a line break (falcon#2364); others write an epilogue."""
    app = form_app(Flask(__name__))
    text = field("a", b"1\r\n") + end
    at = len(text) - len(end) + 8
    pieces = [text[:at], text[at:]] if split else [text]
    sender = Sender(app, MULTIPART, [piece for piece in pieces if piece])
    assert await sender.run() == 200
    assert sender.sent[1]["body"] == b'{"form":{"a":["1"]},"files":[]}\n'
    app.workers.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
async def test_M9_every_method_may_bring_a_form(app, client, method):
    form_app(app)
    length = {"Content-Length": "3"}
    got = await client.open(
        "/", method=method, data=b"a=1", content_type=URLENCODED, headers=length
    )
    assert got.json["form"] == {"a": ["1"]}


@pytest.mark.parametrize("seed", range(60))
async def test_M9_a_form_of_random_bytes_is_never_a_500(seed):
    rng = random.Random(seed)
    words = [b"--line", b"\r\n", b"--", b'name="a"', b"; ", b"\xff", b"a", b"\0", b'"']
    words += [
        b"Content-Disposition: form-data",
        b'filename="',
        b"\\",
        b":",
        b"\r",
        b"=",
    ]
    text = b"--line\r\n" + b"".join(rng.choices(words, k=60)) + b"\r\n" + END
    app = form_app(Flask(__name__))
    sender = Sender(app, MULTIPART, [text[:40], text[40:]])
    assert await sender.run() in (200, 400)
    app.workers.close()


# ------------------------------------------------- M11, M14, M25: what is inside


@pytest.mark.parametrize(
    "charset", ["foo", "utf-7", "utf-16", "hex", "rot13", "", '"', "\xfc", "x" * 5000]
)
async def test_M11_an_unknown_charset_is_no_error(app, client, charset):
    """Forms are UTF-8, whatever they say (WHATWG URL; RFC 7578, section 5.1.2)."""
    form_app(app)

    @app.route("/raw", methods=["POST"])
    def raw():
        return {"data": request.data.decode(), "text": request.get_data(as_text=True)}

    text = "a=ü".encode()
    kind = f"{URLENCODED}; charset={charset}"
    assert (await client.post("/", data=text, content_type=kind)).json["form"] == {
        "a": ["ü"]
    }
    kind = f"text/plain; charset={charset}"
    got = await client.post("/raw", data="ü".encode(), content_type=kind)
    assert got.json == {"data": "ü", "text": "ü"}
    part = field(
        "a", "ü\r\n".encode(), f"Content-Type: x; charset={charset}\r\n".encode()
    )
    kind = f"multipart/form-data; charset={charset}; boundary=line"
    if charset != '"':
        got = await client.post("/", data=part + END, content_type=kind)
        assert got.status_code == (200 if len(charset) < 4000 else 413)


async def test_M11_the_charset_field_of_a_form_changes_nothing(app, client):
    """``_charset_`` (RFC 7578, section 4.6) names a codec that the client chooses."""
    form_app(app)
    body = field("_charset_", b"rot13\r\n") + field("a", b"uryyb\r\n") + END
    got = await client.post("/", data=body, content_type=MULTIPART)
    assert got.json["form"] == {"_charset_": ["rot13"], "a": ["uryyb"]}


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        (b"../../x", "../../x"),
        (b"/etc/passwd", "/etc/passwd"),
        (b"..", ".."),
        (b"a\\b", "a\\b"),
        (b"..\\..\\x", "..\\..\\x"),
        (b"C:\\a\\b", "b"),  # what old browsers sent; the parser takes the end
        (b"con", "con"),
        (b".htaccess", ".htaccess"),
        (b"a%00b", "a%00b"),
        (b"a%22b%0D%0A", 'a"b\r\n'),
        ("ü/€".encode(), "ü/€"),
    ],
)
async def test_M14_a_filename_is_what_the_client_wrote(
    app, client, tmp_path, monkeypatch, sent, filename
):
    """It is data, which nothing here ever takes for a path."""
    monkeypatch.chdir(tmp_path)

    @app.route("/", methods=["POST"])
    def view():
        upload = request.files["f"]
        target = io.BytesIO()
        upload.save(target)
        upload.seek(0)
        upload.save(tmp_path / "saved")
        return [upload.filename, target.getvalue().decode()]

    body = file("f", sent, b"data") + END
    got = await client.post("/", data=body, content_type=MULTIPART)
    assert got.json == [filename, "data"]
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("sent", [b"a\0b", b"a\rb", b"a\x1b[31m"])
async def test_M14_control_characters_in_a_filename_stay_or_are_400(app, client, sent):
    form_app(app)
    body = file("f", sent, b"data") + END
    got = await client.post("/", data=body, content_type=MULTIPART)
    if got.status_code != 400:
        assert got.json["files"] == [["f", sent.decode(), "data"]]


BOMB = gzip.compress(b"a=" + b"x" * 20_000_000)


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "x-gzip, gzip", "nonsense"]
)
async def test_M25_a_compressed_body_is_left_as_it_is(app, client, coding):
    """A small body that would be a big one: nothing here unpacks it."""
    form_app(app)

    @app.route("/raw", methods=["POST"])
    def raw():
        return str(len(request.data))

    fields = {"Content-Encoding": coding}
    got = await client.post(
        "/raw", data=BOMB, headers=fields, content_type="text/plain"
    )
    assert got.text == str(len(BOMB))
    got = await client.post("/", data=BOMB, headers=fields, content_type=URLENCODED)
    assert sum(map(len, got.json["form"])) <= len(BOMB)
    got = await client.post("/", data=BOMB, headers=fields, content_type=MULTIPART)
    assert got.status_code == 400


def unpacking(app):
    """Wrap an application in middleware that unpacks what comes in."""

    async def unpack(scope, receive, send):
        unpacker = zlib.decompressobj(31)
        rest = b""

        async def unpacked():
            nonlocal rest
            more = True
            if not rest:
                message = await receive()
                if message["type"] != "http.request":
                    return message
                rest, more = message["body"], message.get("more_body", False)
            chunk = unpacker.decompress(rest, 65_536)
            rest = unpacker.unconsumed_tail
            more = more or bool(rest)
            return {"type": "http.request", "body": chunk, "more_body": more}

        await app(scope, unpacked, send)

    return unpack


@pytest.mark.parametrize("path", ["/", "/stream"])
async def test_M25_the_limit_is_for_what_middleware_unpacks(path):
    """litestar#4690: the length that was announced is that of the packed bytes."""
    app = Flask(__name__)

    @app.route("/", methods=["POST"])
    async def view():
        return str(len(request.data))

    @app.route("/stream", methods=["POST"], stream_body=True)
    async def stream():
        return str(sum([len(chunk) async for chunk in request.stream]))

    app.asgi_app = unpacking(app.asgi_app)
    app.max_content_length = 1_000_000
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
        packed = gzip.compress(b"x" * 900_000)
        got = await client.post(path, content=packed)
        assert (got.status_code, got.text) == (200, "900000")
        assert (await client.post(path, content=BOMB)).status_code == 413


# -------------------------------------------------- M18, M21: clients that leave


def talk(url: str, *said: bytes) -> bytes:
    """Say something, and hear what comes until the connection is closed."""
    port = int(url.rpartition(":")[2])
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for text in said:
                connection.sendall(text)
        except OSError:  # it has been closed, with an answer hopefully
            pass
        try:
            while data := connection.recv(65_536):
                heard += data
        except ConnectionResetError:
            pass
    return heard


CHUNK = b"x" * 65_536
FRAMINGS = {
    "length": [b"Content-Length: 60000000\r\n\r\n", *[CHUNK] * 900],
    "chunked": [
        b"Transfer-Encoding: chunked\r\n\r\n",
        *[b"10000\r\n" + CHUNK + b"\r\n"] * 900,
    ],
}


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_M18_413_reaches_a_client_that_goes_on_sending(http, framing):
    app = form_app(Flask(__name__))
    app.max_content_length = 300_000

    @app.route("/stream", methods=["POST"], stream_body=True)
    async def stream():
        return str(sum([len(chunk) async for chunk in request.stream]))

    with served(app, http=http) as url:
        for path in ("/", "/blind", "/stream"):
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\n"
            heard = talk(url, head.encode(), *FRAMINGS[framing])
            if heard:  # a reset may overtake it, where the client does not listen
                assert heard.startswith(b"HTTP/1.1 413 ")
                assert heard.count(b"HTTP/1.1 ") == 1
        assert httpx.post(url, data={"a": "1"}).json()["form"] == {"a": ["1"]}


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_M18_who_asks_first_gets_413_without_sending(http):
    """``Expect: 100-continue`` (RFC 9110, section 10.1.1): no 100 comes."""
    app = form_app(Flask(__name__))
    head = (
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nConnection: close\r\n"
    )
    with served(app, http=http) as url:
        heard = talk(url, head + b"Content-Length: 60000000\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("rule", ["taken in", "unread", "unread, plain", "in a hook"])
@pytest.mark.parametrize("sent", [0, 1, 3])
async def test_M21_a_client_that_leaves_in_its_body_is_no_error(rule, sent, caplog):
    """The view of a body that is taken in is not called; the teardown runs."""
    app = Flask(__name__)
    app.secret_key = "k"
    log = []
    app.teardown_request(lambda exc: log.append("teardown"))
    unread = rule.startswith("unread")

    @app.after_request
    def after(response):
        log.append(response.status_code)
        return response

    if rule == "in a hook":

        @app.before_request
        def before():
            log.append(len(request.data))

    if rule == "unread, plain":

        @app.route("/", methods=["POST"], stream_body=True)
        def plain():
            session["x"] = sum(map(len, request.stream))
            log.append("read")

    else:

        @app.route("/", methods=["POST"], stream_body=unread)
        async def view():
            if unread:
                session["x"] = [chunk async for chunk in request.stream]
            log.append("read")

    gone = {"type": "http.disconnect"}
    sender = Sender(app, "text/plain", [b"x"] * sent, after=gone)
    await sender.run()
    assert log == ([400, "teardown"] if unread else ["teardown"])
    assert len(sender.sent) == (2 if unread else 0)
    assert not [r for r in caplog.records if r.levelname in ("ERROR", "WARNING")]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


@pytest.mark.parametrize("size", [10, SPOOL_SIZE + 10])
async def test_M21_files_of_an_upload_that_breaks_off_are_closed(size):
    app = form_app(Flask(__name__))
    kept = []

    @app.teardown_request
    def keep(exc):
        kept.extend(upload.stream for _, upload in request._body.files)

    start = [file("f", b"x", b"y" * size), file("g", b"z", b"")[:-2]]
    gone = {"type": "http.disconnect"}
    assert await Sender(app, MULTIPART, start, after=gone).run() is None
    assert kept
    assert all(stream.closed for stream in kept)
    app.workers.close()


# -------------------------------------------------------- M24, M26: read twice


@pytest.mark.parametrize("data", [{"a": "1"}, {"a": "1", "f": (b"x", "x.txt")}])
async def test_M24_what_a_hook_has_read_the_view_reads_as_well(app, client, data):
    """starlette#495, #847: the second one to read waited for ever."""
    seen = []

    @app.before_request
    async def before():
        seen.append(
            (request.form.to_dict(), [u.read() for u in request.files.values()])
        )

    @app.before_request
    def again():
        for upload in request.files.values():
            upload.seek(0)

    @app.after_request
    def after(response):
        seen.append(request.form.to_dict())
        return response

    @app.teardown_request
    def teardown(exc):
        seen.append(request.values.to_dict())

    @app.route("/", methods=["POST"])
    def view():
        return [request.form["a"], *(u.read().decode() for u in request.files.values())]

    files = [b"x"] if "f" in data else []
    got = await client.post("/", data=data)
    assert got.json == ["1", *(one.decode() for one in files)]
    assert seen == [({"a": "1"}, files), {"a": "1"}, {"a": "1"}]


async def test_M24_an_unread_body_that_was_read_is_at_its_end(app, client):
    """A second look at it ends at once; it does not wait for more."""

    @app.route("/", methods=["POST"], stream_body=True)
    async def view():
        first = [len(chunk) async for chunk in request.stream]
        second = [chunk async for chunk in request.stream]
        return [sum(first), second]

    assert (await client.post("/", data=b"x" * 100_000)).json == [100_000, []]


@pytest.mark.parametrize("multipart", [False, True], ids=["urlencoded", "multipart"])
async def test_M26_a_form_is_not_data_as_well(app, client, multipart):
    """As in 0.1: what was taken apart as a form is no raw data, before and after."""
    text = field("a", b"1\r\n") + END if multipart else b"a=1"
    kind = MULTIPART if multipart else URLENCODED

    @app.route("/", methods=["POST"])
    def view():
        before = request.data
        assert request.form["a"] == "1"
        raw = request.get_data()
        assert raw == (b"" if multipart else b"a=1")
        return before + request.data + request.stream.read()[:0]

    assert (await client.post("/", data=text, content_type=kind)).data == b""


async def test_M26_data_may_be_read_beside_everything_else(app, client):
    @app.route("/", methods=["POST"])
    def view():
        assert request.form.to_dict() == {}
        assert request.files.to_dict() == {}
        assert request.stream.read() == b'{"a": 1}'
        return [request.data.decode(), request.json, request.values.to_dict()]

    got = await client.post("/", data=b'{"a": 1}', content_type="application/json")
    assert got.json == ['{"a": 1}', {"a": 1}, {}]


# ------------------------------------------------------ the same by the JSON door

BAD_JSON = {
    "deep": b"[" * 200_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a long number": b"1" * 10_000,
    "bytes": b"\xff\xfe\xfd",
    "half a character": b'"\xc3"',
    "cut off": b'{"a": ',
    "nothing": b"",
    "nul": b"\0" * 100,
    "utf-16 cut off": "é".encode("utf-16")[:-1],
}


@pytest.mark.parametrize("bad", BAD_JSON)
async def test_M9_json_that_is_none_is_400(app, client, bad):
    """Nesting and long numbers raise RecursionError and ValueError of their own."""

    @app.route("/", methods=["POST"])
    def view():
        return {"got": request.json}

    kind = "application/json"
    got = await client.post("/", data=BAD_JSON[bad], content_type=kind)
    assert got.status_code == 400


def test_M1_limits_hold_for_each_kind_of_body_fed_at_once():
    """A server may hand over a whole body in one piece."""
    for kind, text in (
        (URLENCODED, b"x" * 600_000),
        (MULTIPART, field("a", b"x" * 600_000)),
        ("text/plain", b"x" * 2_000_001),
    ):
        with closing(new_body(kind, Limits(2_000_000, 500_000, 10))) as body:
            with pytest.raises(RequestEntityTooLarge):
                body.feed(text)
    with closing(new_body(MULTIPART, Limits())) as body, pytest.raises(BadRequest):
        body.feed(b"--line\r\nX\r\n")
