"""Static files: from a URL path to a response, conditional and in part.

Nothing outside the folder is ever served, and no folder is listed. The
answer to ``If-None-Match`` and ``If-Modified-Since`` (RFC 9110, section 13)
is 304; to a single ``Range`` (section 14) it is 206. Several ranges at once
are answered with the whole file, as section 14.2 allows: putting many small
ones together is what attacks are made of.
"""

from __future__ import annotations

import mimetypes
import os
import re
import stat
import time
from dataclasses import dataclass
from os.path import join, normpath

from .dates import http_date, parse_http_date
from .exceptions import NotFound, RequestedRangeNotSatisfiable
from .wrappers import FileBody, Request, Response

#: seconds that browsers may use a file without asking; they ask each time
_CACHE_CONTROL = "no-cache"
#: bytes up to which a file is sent in one piece
SMALL = 1 << 18
#: what Windows has in place of files
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{kind}{n}" for kind in ("COM", "LPT") for n in "0123456789¹²³"
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class StaticFile:
    """A file that may be served.

    :ivar path: where it is.
    :ivar size: its length in bytes.
    :ivar modified: when it was changed, in seconds since 1970.
    """

    path: str
    size: int
    modified: float

    @property
    def etag(self) -> str:
        """A name for this state of the file (RFC 9110, section 8.8.3)."""
        return f'"{int(self.modified * 1000):x}-{self.size:x}"'

    @property
    def last_modified(self) -> str:
        """When it was changed: never later than now (RFC 9110, section 8.8.2.1).

        A file system may hold years that a date cannot.
        """
        return http_date(min(max(self.modified, 0.0), time.time()))


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

    path = join(folder, relative)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None

    if not stat.S_ISREG(status.st_mode) or filename.endswith("/"):
        return None

    return StaticFile(path, status.st_size, status.st_mtime)


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


def respond(request: Request, folder: str, cls: type[Response]) -> Response:
    """Return the response for a static file: all of it, a part, or nothing new.

    It reads, so it belongs in a thread. Small files are read here; of a big
    one the response gets the open file.

    :raises NotFound: when there is no such file.
    :raises RequestedRangeNotSatisfiable: when it has no such bytes.
    """
    file = find(folder, (request.view_args or {})["filename"])
    if file is None:
        raise NotFound()

    response = cls(content_type=_type_of(file.path))
    response.headers.extend(
        {
            "Last-Modified": file.last_modified,
            "ETag": file.etag,
            "Cache-Control": _CACHE_CONTROL,
            "Accept-Ranges": "bytes",
        }
    )
    if _is_known(request, file):
        response.status_code = 304
        del response.headers["content-type"]
        return response

    start, length = _part(request, file)
    if (start, length) != (0, file.size):
        response.status_code = 206
        end = start + length - 1
        response.headers["Content-Range"] = f"bytes {start}-{end}/{file.size}"
    response.headers["Content-Length"] = str(length)
    response.body = _open(file.path, start, length)
    return response


def _open(path: str, start: int, length: int) -> bytes | FileBody:
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError:  # it has gone since, or may not be read
        raise NotFound() from None

    file.seek(start)
    if length > SMALL:
        return FileBody(file, length)

    with file:
        content = file.read(length)
    if len(content) < length:
        lost = length - len(content)
        raise RuntimeError(f"{path!r} lost {lost} bytes while it was sent")

    return content


def _type_of(path: str) -> str:
    guessed, encoding = mimetypes.guess_type(path)
    if guessed is None or encoding is not None:
        return "application/octet-stream"

    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


def _is_known(request: Request, file: StaticFile) -> bool:
    """Say whether the client has this state of the file already."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        known = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
        return "*" in known or file.etag in known

    since = parse_http_date(request.headers.get("if-modified-since"))
    return since is not None and int(file.modified) <= since.timestamp()


def _part(request: Request, file: StaticFile) -> tuple[int, int]:
    """Return first byte and length of what the client wants.

    :raises RequestedRangeNotSatisfiable: when it starts behind the end.
    """
    whole = 0, file.size
    field = request.headers.get("range")
    if field is None or not _range_applies(request, file):
        return whole

    found = _RANGE.fullmatch(field.replace(" ", ""))
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


def _range_applies(request: Request, file: StaticFile) -> bool:
    """Say whether ``If-Range`` (RFC 9110, section 13.1.5), if there, holds."""
    condition = request.headers.get("if-range")
    if condition is None:
        return True

    if condition.startswith('"'):
        return bool(condition == file.etag)

    return bool(condition == file.last_modified)
