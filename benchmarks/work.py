"""The work that the applications of all peers do alike."""

import os
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

#: what ``/json`` answers
RECORD = {"id": 42, "name": "Ada Lovelace", "tags": ["math", "poetry"], "active": True}

#: what the template shows; each row has something to escape
ROWS = [
    {"id": n, "name": f"<Name & {n}>", "text": f"“{n}” is > {n - 1}"} for n in range(20)
]

SECRET = "a long random value, the same one for every peer"

#: how many chunks a stream has
CHUNKS = 1000

#: how often hooks were called; the proof that they were
hooks_called = {"before": 0, "after": 0}


def chunks() -> Iterator[bytes]:
    """Yield many small chunks."""
    for n in range(CHUNKS):
        yield b"line %d\n" % n


async def async_chunks() -> AsyncIterator[bytes]:
    """Yield the same chunks on the loop."""
    for n in range(CHUNKS):
        yield b"line %d\n" % n


def rules(count: int) -> Iterator[str]:
    """Yield paths as a big site has them, in Flask's notation.

    There are five for each resource, and resources stand at the top, in an
    admin area, or in a versioned API. Each path is yielded once.
    """
    for n in range(count // 5):
        resource = f"{('', '/admin', '/api/v2')[n % 3]}/r{n}"
        yield resource
        yield f"{resource}/new"
        yield f"{resource}/<int:id>"
        yield f"{resource}/<int:id>/tags/<name>"
        yield f"{resource}/<int:id>/edit"


def last_rule(count: int) -> str:
    """Return the last of so many rules, with ``{}`` where the number goes."""
    *_, last = rules(count)
    return last.replace("<int:id>", "{}")


def tail(file: BinaryIO) -> str:
    """Return length and end of an uploaded file: the proof that it is there."""
    file.seek(-8, os.SEEK_END)
    end = file.read()
    return f"{file.tell()} bytes up to {end.hex()}"


@cache
def site() -> Path:
    """Return the folder with ``templates`` and ``static``; fill the latter."""
    folder = Path(__file__).parent / "site"
    static = folder / "static"
    static.mkdir(exist_ok=True)
    files: dict[str, Any] = {
        "style.css": b"p { margin: 0 }\n" * 640,
        "film.mp4": bytes(range(256)) * 40_000,
    }
    for name, content in files.items():
        path = static / name
        if not path.exists() or path.stat().st_size != len(content):
            path.write_bytes(content)
    return folder
