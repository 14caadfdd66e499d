"""From decent inputs to odd ones."""

from __future__ import annotations

from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"

#: bytes that mean something to somebody
TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b"\x7f",
        b"\xff",
        b"\xc3\xbc",
        b"\xed",
    ),
    *(b"%", b"%00", b"%2F", b"%2e%2e", b"%0d%0a", b"%ff", b"%25", b"%E2%82%AC", b"+"),
    *(b"/", b"//", b"/../", b"/./", b"?", b"#", b"&", b"=", b";", b",", b":", b"@"),
    *(b'"', b"'", b"\\", b"<", b">", b"(", b")", b"{", b"}", b"[", b"]", b"*", b"-"),
    *(
        b"--",
        b"..",
        b"0",
        b"-1",
        b"1.5",
        b"1e9",
        b"nan",
        b"inf",
        b"9" * 20,
        b"9" * 5000,
    ),
    *(b"bytes=", b"q=", b"W/", b"GMT", b"9999", b"-0100", b"chunked", b"gzip", b"100-"),
    *(b"multipart/form-data; boundary=", b"application/json", b"\r\n--line\r\n"),
    *(b"Content-Disposition: form-data; ", b'name="a"', b"filename*=utf-8''%ff"),
    *(b"--line--", b"[" * 3000, b'{"a":', b"\xef\xbb\xbf", b"\xff\xfe", b"\\u0000"),
    *(
        b"A" * 300,
        b"9" * 20,
        b"\xed",
        b"a" * 5000,
        b"session=",
        b"<int:a>",
        b"<path:b>",
        b"signed=True",
    ),
]


def corpus(name: str) -> list[bytes]:
    """Return the decent inputs in a file; a line of ``%%`` stands between two.

    A line of text ends in CR LF, as it does on the wire, where the file's name says so.
    """
    data = (CORPUS / name).read_bytes()
    if name.endswith(".http"):
        data = data.replace(b"\n", b"\r\n")
        return [entry for entry in data.split(b"%%\r\n") if entry]
    return [entry for entry in data.split(b"\n") if entry]


def mutated(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """Return an input with a few things changed."""
    out = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 5, 8))):
        place = random.randrange(len(out) + 1)
        size = random.choice((1, 1, 2, 4, 10, 50))
        kind = random.randrange(8)
        if kind == 0 and out:
            out[place - 1] ^= 1 << random.randrange(8)
        elif kind == 1:
            del out[place : place + size]
        elif kind == 2:
            out[place:place] = random.choice(TOKENS)
        elif kind == 3:
            out[place : place + size] = random.choice(TOKENS)
        elif kind == 4:
            out[place:place] = out[place : place + size] * random.choice((1, 2, 50))
        elif kind == 5:
            out[place:place] = random.randbytes(size)
        elif kind == 6 and out:
            other = random.choice(others)
            start = random.randrange(len(other) + 1)
            out[place : place + size] = other[start : start + size * 2]
        else:
            out[place:] = out[place : place + 200]
    return bytes(out[:50_000])


def cut(random: Random, data: bytes) -> list[bytes]:
    """Return bytes in pieces, some of which may be empty."""
    count = random.choice((0, 0, 1, 2, 5))
    ends = sorted(random.randrange(len(data) + 1) for _ in range(count))
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)])]
