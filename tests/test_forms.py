"""Bodies: fed in pieces, held to limits, taken apart as forms."""

from __future__ import annotations

import random
from contextlib import closing

import pytest

from asyncflask.exceptions import BadRequest, RequestEntityTooLarge
from asyncflask.forms import SPOOL_SIZE, Limits, new_body

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=line"


def part(name: str, data: bytes | str = b"", more: str = "", fields: str = "") -> bytes:
    data = data if isinstance(data, bytes) else data.encode()
    head = f'Content-Disposition: form-data; name="{name}"{more}\r\n{fields}\r\n'
    return b"--line\r\n" + head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--line--\r\n"


def file(name: str, filename: str, data: bytes | str = b"", kind: str = "") -> bytes:
    fields = f"Content-Type: {kind}\r\n" if kind else ""
    return part(name, data, f'; filename="{filename}"', fields)


def parse(kind: str, *chunks: bytes, limits: Limits = Limits()):  # noqa: B008
    """Return all that is in a body; it is closed again in any case."""
    with closing(new_body(kind, limits)) as body:
        for chunk in chunks:
            body.feed(chunk)
        body.end()
        files = [(n, f.filename, f.content_type, f.read()) for n, f in body.files]
        return body.fields, files, body.data


MIXED = form(
    part("a", "1"),
    part("a", "2"),
    part("ü €", "日本 & =\r\n-- --line \r\n--lin"),
    file("f", "a.txt", b"\x00\xff\r\n\r\n--", "text/plain; charset=utf-8"),
    part("empty"),
    file("f", "b\u00fc.bin", b"--line--", "application/octet-stream"),
    file("none", ""),
    file("bare", "c"),
)
MIXED_FIELDS = [
    ("a", "1"),
    ("a", "2"),
    ("ü €", "日本 & =\r\n-- --line \r\n--lin"),
    ("empty", ""),
]
MIXED_FILES = [
    ("f", "a.txt", "text/plain; charset=utf-8", b"\x00\xff\r\n\r\n--"),
    ("f", "bü.bin", "application/octet-stream", b"--line--"),
    ("none", "", "", b""),
    ("bare", "c", "", b""),
]


def test_a_multipart_form_is_fields_and_files():
    assert parse(MULTIPART, MIXED) == (MIXED_FIELDS, MIXED_FILES, b"")


@pytest.mark.parametrize("cut", range(1, len(MIXED)))
def test_a_form_may_be_cut_into_chunks_anywhere(cut):
    got = parse(MULTIPART, MIXED[:cut], MIXED[cut:])
    assert got == (MIXED_FIELDS, MIXED_FILES, b"")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 16, 64])
def test_a_form_may_come_in_small_pieces(size):
    chunks = [MIXED[i : i + size] for i in range(0, len(MIXED), size)]
    assert parse(MULTIPART, *chunks) == (MIXED_FIELDS, MIXED_FILES, b"")


@pytest.mark.parametrize("cut", [0, 1, 50, len(MIXED) - 1, len(MIXED)])
def test_an_empty_chunk_changes_nothing(cut):
    got = parse(MULTIPART, MIXED[:cut], b"", MIXED[cut:], b"")
    assert got == (MIXED_FIELDS, MIXED_FILES, b"")
    assert parse(URLENCODED, b"", b"a", b"", b"=1", b"")[0] == [("a", "1")]


@pytest.mark.parametrize("end", range(len(MIXED) - 2))
def test_a_form_that_is_cut_off_is_a_bad_request(end):
    with pytest.raises(BadRequest, match=r"cut off|malformed"):
        parse(MULTIPART, MIXED[:end])


@pytest.mark.parametrize("end", [b"--line--\r\n", b"--line--", b"--line--\r\nepilogue"])
def test_the_last_line_may_lack_its_end(end):
    assert parse(MULTIPART, part("a", "1") + end)[0] == [("a", "1")]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (b"", []),
        (b"a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"a", [("a", "")]),
        (b"a=&=b", [("a", ""), ("", "b")]),
        (b"a=b=c", [("a", "b=c")]),
        (b"a=x+y%20z%2B", [("a", "x y z+")]),
        (b"&&a=1&&", [("a", "1")]),
        (b"a=1;b=2", [("a", "1;b=2")]),
        ("ü=€".encode(), [("ü", "€")]),
        (b"%C3%BC=%E2%82%AC", [("ü", "€")]),
        (b"a=\xff%FF", [("a", "\ufffd\ufffd")]),
        (b"a=%zz%", [("a", "%zz%")]),
        (b"a=\r\n", [("a", "\r\n")]),
        (b"\x00=\x00", [("\x00", "\x00")]),
    ],
)
def test_an_ordinary_form_is_fields(text, fields):
    for cut in range(len(text) + 1):
        assert parse(URLENCODED, text[:cut], text[cut:]) == (fields, [], text)


@pytest.mark.parametrize(
    ("kind", "is_form", "fields"),
    [
        (URLENCODED, True, [("a", "1")]),
        (URLENCODED.upper(), True, [("a", "1")]),
        (f" {URLENCODED} ; charset=utf-8", True, [("a", "1")]),
        (f"{URLENCODED}; charset=foo", True, [("a", "1")]),
        (f"{URLENCODED};;;=", True, [("a", "1")]),
        ("", False, []),
        ("text/plain", False, []),
        ("application/json", False, []),
        ("garbage\xff", False, []),
        ("multipart/mixed; boundary=x", False, []),
    ],
)
def test_the_type_decides_how_a_body_is_taken(kind, is_form, fields):
    assert new_body(kind, Limits()).is_form is is_form
    assert parse(kind, b"a=1") == (fields, [], b"a=1")


@pytest.mark.parametrize(
    "kind",
    [
        MULTIPART,
        'Multipart/Form-Data; Boundary="line"',
        "multipart/form-data;boundary=line;charset=foo",
        "multipart/form-data; charset=utf-8; boundary=line",
        "multipart/form-data ; x=y ; boundary=line ;",
    ],
)
def test_a_boundary_may_be_written_in_many_ways(kind):
    assert parse(kind, form(part("a", "ü")))[0] == [("a", "ü")]


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data;",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; bound=line",
    ],
)
def test_a_form_without_a_boundary_is_a_bad_request(kind):
    with pytest.raises(BadRequest, match="boundary"):
        new_body(kind, Limits())


DISPOSITION = b"--line\r\nContent-Disposition: form-data"
BAD_PARTS = {
    "no name": DISPOSITION + b"\r\n\r\nx\r\n",
    "empty name": part("", "x"),
    "no disposition": b"--line\r\nContent-Type: text/plain\r\n\r\nx\r\n",
    "no fields": b"--line\r\n\r\nx\r\n",
    "other disposition": b"--line\r\nContent-Disposition: x\r\n\r\nx\r\n",
    "no colon": b"--line\r\nContent-Disposition\r\n\r\nx\r\n",
    "bytes in a field": b"--line\r\n\xff\xfe: \xff\r\n\r\nx\r\n",
    "bytes in the name": DISPOSITION + b'; name="\xff"\r\n\r\nx\r\n',
    "nul in a field": DISPOSITION + b'; name="a"\r\n\x00\r\n\r\nx\r\n',
}


@pytest.mark.parametrize("bad", BAD_PARTS.values(), ids=BAD_PARTS)
def test_a_malformed_form_is_a_bad_request(bad):
    for text in (form(bad), form(part("a", "1"), bad)):
        with pytest.raises(BadRequest):
            parse(MULTIPART, text)


@pytest.mark.parametrize("text", [b"garbage", b"--other\r\n\r\n", b"\r\n" * 9, b"--"])
def test_a_body_that_is_no_form_is_a_bad_request(text):
    with pytest.raises(BadRequest):
        parse(MULTIPART, text)


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_form_is_a_4xx_and_nothing_worse(seed):
    rng = random.Random(seed)
    damaged = bytearray(MIXED)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged))
        if rng.random() < 0.5:
            damaged[at] = rng.choice(b'\x00\xff\r\n-=";: a\\*\x80')
        else:
            del damaged[at : at + rng.randint(1, 12)]
    try:
        fields, files, _ = parse(MULTIPART, bytes(damaged), limits=Limits(form_parts=9))
    except (BadRequest, RequestEntityTooLarge):
        return
    assert fields or files


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (part("a", b"\xff"), [("a", "\ufffd")]),
        (
            part("a", "ü", fields="Content-Type: a/b; charset=foo\r\n"),
            [("a", "ü")],
        ),
        (part('a\\"b', "1"), [('a"b', "1")]),
        (part("a%22b", "1"), None),
        (part("a", "1", fields="X-Other: y\r\n"), [("a", "1")]),
        (part("a", "x" * 70_000), [("a", "x" * 70_000)]),
    ],
    ids=["bytes", "unknown charset", "quoted", "percent", "other field", "long"],
)
def test_an_odd_part_is_a_field(text, fields):
    got = parse(MULTIPART, form(text))[0]
    assert got == (fields or got)
    assert len(got) == 1


@pytest.mark.parametrize(
    "filename",
    ["a.txt", "ü.txt", "€.txt", "日本.txt", "\U0001f600", "a b;c=d", "../../x", "a/b"],
)
def test_a_filename_comes_as_the_client_wrote_it(filename):
    got = parse(MULTIPART, form(file("f", filename, "x", "text/plain")))[1]
    assert got == [("f", filename, "text/plain", b"x")]


@pytest.mark.parametrize(
    "parameters",
    [
        b'; name*0="x"; name="a"',
        b'; name="a"; name*0="x"',
        b"; name*=utf-8''x; name=a",
        b"; name=a; name*=utf-8''x",
    ],
)
def test_a_continued_parameter_takes_no_other_ones_place(parameters):
    try:
        got = parse(MULTIPART, form(DISPOSITION + parameters + b"\r\n\r\n1\r\n"))[0]
    except BadRequest:
        return
    assert got == [("a", "1")]


# --------------------------------------------------------------------- limits

TWO = form(part("a", "12345"), file("f", "x", b"x" * 100))


@pytest.mark.parametrize(
    ("kind", "text", "limits", "says"),
    [
        ("text/plain", b"12345", Limits(5), None),
        ("text/plain", b"123456", Limits(5), "limit of 5 bytes"),
        ("text/plain", b"", Limits(0), None),
        ("text/plain", b"1", Limits(0), "limit of 0 bytes"),
        ("text/plain", b"x" * 99, Limits(None, 5, 1), None),
        (URLENCODED, b"a=345", Limits(5), None),
        (URLENCODED, b"a=3456", Limits(5), "limit of 5 bytes"),
        (URLENCODED, b"a=345", Limits(None, 5), None),
        (URLENCODED, b"a=3456", Limits(None, 5), "fields are over the limit of 5"),
        (URLENCODED, b"a&a&a", Limits(None, None, 3), None),
        (URLENCODED, b"a&a&a&a", Limits(None, None, 3), "more than the 3 fields"),
        (URLENCODED, b"&" * 10_000, Limits(None, None, 3), "more than the 3 fields"),
        (URLENCODED, b"a&" * 500_000, Limits(None, None, 1000), "more than the 1000"),
        (MULTIPART, TWO, Limits(len(TWO)), None),
        (MULTIPART, TWO, Limits(len(TWO) - 1), "limit of"),
        (MULTIPART, TWO, Limits(None, 5), None),
        (MULTIPART, TWO, Limits(None, 4), "fields are over the limit of 4 bytes"),
        (MULTIPART, form(*[part("a", "123")] * 2), Limits(None, 5), "limit of 5 bytes"),
        (MULTIPART, TWO, Limits(None, None, 2), None),
        (MULTIPART, TWO, Limits(None, None, 1), "more than the 1 fields and files"),
        (MULTIPART, form(*[part("a")] * 2000), Limits(None, None, 1000), "more than"),
        (MULTIPART, form(*[file("f", "x")] * 5), Limits(None, None, 4), "more than"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_body_over_a_limit_is_too_large(kind, text, limits, says):
    for chunks in ([text], [text[:3], text[3:]]):
        if says is None:
            parse(kind, *chunks, limits=limits)
        else:
            with pytest.raises(RequestEntityTooLarge, match=says):
                parse(kind, *chunks, limits=limits)


@pytest.mark.parametrize("kind", ["text/plain", URLENCODED, MULTIPART])
def test_a_body_that_is_too_long_is_not_read_to_its_end(kind):
    fed: list[int] = []

    def flood(body):
        for chunk in [part("a"), *[b"x" * 10_000] * 1000]:
            fed.append(len(chunk))
            body.feed(chunk)

    with closing(new_body(kind, Limits(content_length=100_000))) as body:
        with pytest.raises(RequestEntityTooLarge):
            flood(body)
    assert sum(fed) <= 111_000


def many_fields(count: int) -> str:
    return "".join(f"X-{n}: y\r\n" for n in range(count))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "chunks",
    [
        [part("a", "1", fields=many_fields(100_000))],
        [b"--line\r\nX: " + b"y" * 10_000_000],
        [b"--line\r\n", *[b"X: y\r\n"] * 100_000],
        [b"--line\r\nContent-Disposition: form-data; name=a", *[b"a" * 999] * 9_000],
        [b"--line\r\nContent-Disposition: form-data" + b';name="' * 500_000],
    ],
    ids=["100k fields", "10 MB field", "one by one", "long name", "many parameters"],
)
def test_the_fields_of_a_part_are_bounded(chunks):
    with pytest.raises((RequestEntityTooLarge, BadRequest)):
        parse(MULTIPART, *chunks, form())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "filler",
    [b"\r\n--lin", b"\r", b"\n", b"-", b"\r\n", b"--line", b"\r\n--linex", b"x"],
    ids=repr,
)
@pytest.mark.parametrize("inside", [True, False], ids=["in a part", "in front"])
def test_what_looks_like_a_boundary_takes_linear_time(filler, inside):
    flood = filler * (4_000_000 // len(filler))
    chunks = [flood[i : i + 65_536] for i in range(0, len(flood), 65_536)]
    if inside:
        chunks = [part("f", more='; filename="x"')[:-2], *chunks]
    try:
        parse(MULTIPART, *chunks, b"\r\n", form(part("a", "1")))
    except (BadRequest, RequestEntityTooLarge):
        pass


# ------------------------------------------------------------ memory and disk


@pytest.mark.parametrize(
    ("size", "on_disk"), [(10, False), (SPOOL_SIZE, False), (SPOOL_SIZE + 1, True)]
)
def test_a_big_file_lies_on_disk_and_is_closed(size, on_disk):
    data = b"x" * size
    with closing(new_body(MULTIPART, Limits(None, 10, 10))) as body:
        for chunk in (form(file("f", "big", data)), b""):
            body.feed(chunk)
        body.end()
        upload = body.files[0][1]
        assert upload.stream._rolled is on_disk
        assert body.in_memory is (size == 10)
        assert upload.read() == data
        upload.seek(0)
        assert upload.read(1) == data[:1]
    assert upload.stream.closed


@pytest.mark.parametrize("kind", ["text/plain", URLENCODED])
@pytest.mark.parametrize("size", [0, 10, SPOOL_SIZE, SPOOL_SIZE + 1, 3 * SPOOL_SIZE])
def test_a_big_raw_body_lies_on_disk_and_is_closed(kind, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with closing(new_body(kind, Limits())) as body:
        for at in range(0, size, 65_536):
            body.feed(data[at : at + 65_536])
        body.end()
        stream = body.stream
        assert hasattr(stream, "getbuffer") is (size <= SPOOL_SIZE)
        assert body.in_memory is (size <= SPOOL_SIZE)
        assert stream.read(5) == data[:5]
        assert body.data == body.data == data
        assert stream.read() == data[5:]
    assert stream.closed or size <= SPOOL_SIZE


def test_files_of_a_form_that_failed_are_closed():
    body = new_body(MULTIPART, Limits(form_parts=1))
    with pytest.raises(RequestEntityTooLarge):
        body.feed(form(file("f", "a", b"x" * 2 * SPOOL_SIZE), file("g", "b")))
    ((_, upload),) = body.files
    body.close()
    assert upload.stream.closed


def test_a_form_can_be_looked_at_twice():
    with closing(new_body(URLENCODED, Limits())) as body:
        body.feed(b"a=1")
        body.end()
        assert body.fields == body.fields == [("a", "1")]
        assert body.stream.read() == body.data == b"a=1"
    with closing(new_body(MULTIPART, Limits())) as body:
        body.feed(form(part("a", "1"), file("f", "x")))
        body.end()
        assert body.fields == body.fields == [("a", "1")]
        assert body.files is body.files
        assert body.stream.read() == body.data == b""


@pytest.mark.parametrize("size", [1, 1000])
def test_a_stray_line_break_is_refused_however_the_body_is_cut(size):
    """The parser below sees it only where a chunk ends within the line."""
    data = form(file("f", "a\nb.txt", b"content"))
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    with pytest.raises(BadRequest, match="line break"):
        parse(MULTIPART, *chunks)
