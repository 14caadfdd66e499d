"""Static files: from a URL path to a response, conditional and in part.

Nothing outside the folder is ever served, and no folder is listed. The
answer to ``If-None-Match`` and ``If-Modified-Since`` (RFC 9110, section 13)
is 304; to a single ``Range`` (section 14) it is 206. Several ranges at once
are answered with the whole file, as section 14.2 allows: putting many small
ones together is what attacks are made of.

Looking a file up and opening it is done at once, also on the event loop, as
servers such as nginx do it. Reading is left to the drivers.
"""

from __future__ import annotations

import functools
import mimetypes
import os
import re
import stat
import time
from io import FileIO
from os.path import normpath

from starlette.types import Scope

from .context import RequestContext
from .datastructures import header_fields
from .dates import http_date, parse_http_date
from .exceptions import NotFound, RequestedRangeNotSatisfiable
from .files import FileBody
from .wrappers import Response

#: seconds that browsers may use a file without asking; they ask each time
_CACHE_CONTROL = "no-cache"
#: bytes up to which a file is sent in one piece
SMALL = 1 << 18
#: what Windows has in place of files
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{kind}{n}" for kind in ("COM", "LPT") for n in "0123456789¹²³"
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class StaticFile:
    """A file that may be served, as it is now.

    :ivar path: where it is.
    :ivar size: its length in bytes.
    :ivar modified: when it was changed, in seconds since 1970.
    :ivar etag: a name for this state of the file (RFC 9110, section 8.8.3).
    :ivar fields: the header fields of its response.
    """

    def __init__(self, path: str, size: int, modified: float) -> None:
        self.path = path
        self.size = size
        self.modified = modified
        self.etag: str = f'"{int(modified * 1000):x}-{size:x}"'
        # Never later than now (RFC 9110, section 8.8.2.1); a file system may hold
        # years that a date cannot.
        self.last_modified: str = http_date(min(max(modified, 0.0), time.time()))
        self.fields: list[tuple[bytes, bytes]] = header_fields(
            {
                "Content-Type": _type_of(path),
                "Last-Modified": self.last_modified,
                "ETag": self.etag,
                "Cache-Control": _CACHE_CONTROL,
                "Accept-Ranges": "bytes",
            }
        )


_described = functools.lru_cache(maxsize=512)(StaticFile)


def find(folder: str, filename: str) -> StaticFile | None:
    """Return the file of that name below a folder, if there is one.

    The name is a URL path: slashes separate its segments, and it may not
    leave the folder, neither by ``..`` nor by a drive or a backslash. Links
    inside the folder are followed: whoever may write there has set them.
    """
    if "\0" in filename or "\\" in filename or filename.startswith("/"):
        return None

    if os.name == "nt" and is_special_on_windows(filename):
        return None

    relative = normpath(filename)
    if relative.startswith("..") and relative[2:3] in ("", os.sep):
        return None

    path = f"{folder}{os.sep}{relative}"
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None

    if not stat.S_ISREG(status.st_mode) or filename.endswith("/"):
        return None

    return _described(path, status.st_size, status.st_mtime)


def is_special_on_windows(filename: str) -> bool:
    """Say whether Windows takes a part of a name for something else.

    A colon names a drive or a stream, a space or dot at the end is dropped, and
    devices are in every folder, whatever ending they have.
    """
    return any(
        ":" in part
        or part.endswith((" ", "."))
        or part.partition(".")[0].rstrip(" ").upper() in _DEVICES
        for part in filename.split("/")
    )


def respond(ctx: RequestContext) -> Response:
    """Return the response for a static file: all of it, a part, or nothing new.

    The body is the open file, for the driver to read.

    :raises NotFound: when there is no such file.
    :raises RequestedRangeNotSatisfiable: when it has no such bytes.
    """
    filename = (ctx.view_args or {})["filename"]
    file, cls = find(ctx.app.static_folder, filename), ctx.app.response_class
    if file is None:
        raise NotFound()

    asked = _conditions(ctx.scope)
    if asked and _is_known(asked, file):
        response = cls(status=304)
        response.raw_headers[:] = file.fields
        return response

    opened = _open(file.path)
    try:
        return _content(opened, asked, cls)
    except BaseException:
        opened.close()
        raise


def _open(path: str) -> FileIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError:  # it has gone since, or may not be read
        raise NotFound() from None


def _content(opened: FileIO, asked: dict[str, str], cls: type[Response]) -> Response:
    """Return the response with what the client wants of a file.

    It is described anew: another one may have taken its place meanwhile.
    """
    status = os.fstat(opened.fileno())
    file = _described(str(opened.name), status.st_size, status.st_mtime)
    start, length = _part(asked, file) if "range" in asked else (0, file.size)
    response = cls()
    response.raw_headers[:] = file.fields
    if length != file.size:
        response.status_code = 206
        part = f"bytes {start}-{start + length - 1}/{file.size}"
        response.raw_headers += header_fields({"Content-Range": part})
    response.raw_headers.append((b"content-length", b"%d" % length))
    if start:
        opened.seek(start)
    response.body = FileBody(opened, length)
    return response


def _type_of(path: str) -> str:
    guessed, encoding = mimetypes.guess_type(path)
    if guessed is None or encoding is not None:
        return "application/octet-stream"

    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


_CONDITIONS = frozenset((b"if-none-match", b"if-modified-since", b"if-range", b"range"))


def _conditions(scope: Scope) -> dict[str, str]:
    """Return the fields of a request that ask for less than the file, by name."""
    return {
        name.decode("ascii"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
        if name in _CONDITIONS
    }


def _is_known(asked: dict[str, str], file: StaticFile) -> bool:
    """Say whether the client has this state of the file already."""
    tags = asked.get("if-none-match")
    if tags is not None:
        known = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
        return "*" in known or file.etag in known

    since = parse_http_date(asked.get("if-modified-since"))
    return since is not None and int(file.modified) <= since.timestamp()


def _part(asked: dict[str, str], file: StaticFile) -> tuple[int, int]:
    """Return first byte and length of what the client wants.

    :raises RequestedRangeNotSatisfiable: when it starts behind the end.
    """
    whole = 0, file.size
    if not _range_applies(asked, file):
        return whole

    found = _RANGE.fullmatch(asked["range"].replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return whole

    if not found[1]:  # the last bytes
        length = min(int(found[2]), file.size)
        if length == 0:
            raise RequestedRangeNotSatisfiable(length=file.size)
        return file.size - length, length

    start = int(found[1])
    end = min(int(found[2] or file.size), file.size - 1)
    if found[2] and int(found[2]) < start:
        return whole  # malformed, so ignored (RFC 9110, section 14.1.1)

    if start >= file.size:
        raise RequestedRangeNotSatisfiable(length=file.size)

    return start, end - start + 1


def _range_applies(asked: dict[str, str], file: StaticFile) -> bool:
    """Say whether ``If-Range`` (RFC 9110, section 13.1.5), if there, holds."""
    condition = asked.get("if-range")
    if condition is None:
        return True

    if condition.startswith('"'):
        return condition == file.etag

    return condition == file.last_modified
