"""Other applications inside ours: mounted below a prefix, or returned by a view.

Both protocols are welcome, whichever serves us: the drivers call an ASGI
application on a loop and a WSGI application in a thread. What both of them need
for it stands here, and waits for nothing.
"""

from __future__ import annotations

import inspect
import io
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from inspect import iscoroutinefunction
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from .datastructures import check_raw_headers, header_fields
from .environ import ENVIRON
from .exceptions import ClientDisconnected
from .forms import Body, MultipartBody, UnreadBody
from .target import application_path
from .wrappers import Response, as_bytes

WSGIApp = Callable[..., Any]

# ---------------------------------------------------------------- the protocols


def speaks_asgi(app: Any) -> bool:
    """Say whether something can be called as an ASGI 3 application.

    What takes any number of arguments must be async for that.
    """
    if not _takes(app, 3):
        return False

    call = getattr(app, "__call__", None)  # noqa: B004
    return not _takes(app, 2) or iscoroutinefunction(app) or iscoroutinefunction(call)


def speaks_wsgi(app: Any) -> bool:
    """Say whether something can be called as a WSGI application, and no other."""
    return _takes(app, 2) and not speaks_asgi(app)


def _takes(app: Any, count: int) -> bool:
    if not callable(app) or isinstance(app, type):
        return False

    try:
        inspect.signature(app).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


# ------------------------------------------------------------------------ mounts


class Mount:
    """An application below a prefix of ours.

    :param prefix: the path it is mounted at, without a slash behind; ``''`` for
        all that our own rules do not answer.
    :param app: an ASGI or WSGI application.
    :raises ValueError: when the prefix is not a path.
    :raises TypeError: when the application is neither.
    """

    def __init__(self, prefix: str, app: ASGIApp | WSGIApp) -> None:
        self.prefix: str = prefix.rstrip("/")
        self.app: Any = app
        self.is_wsgi: bool = speaks_wsgi(app)
        if self.prefix and (not prefix.startswith("/") or "<" in prefix):
            raise ValueError(
                f"The prefix {prefix!r} is no place to mount at: it starts with a"
                " slash and has no variable parts. Write '/old', or '/' for whatever"
                " the rules of the application leave over."
            )
        if not self.is_wsgi and not speaks_asgi(app):
            raise TypeError(
                f"{app!r} cannot be mounted: it takes neither (scope, receive, send),"
                " as ASGI applications do, nor (environ, start_response), as WSGI"
                " ones do. Pass the application object itself."
            )

    def holds(self, path: str) -> bool:
        """Say whether a path is below the prefix, which ends with a segment."""
        return path.startswith(self.prefix) and path[len(self.prefix) :][:1] in "/"

    def scope(self, scope: Scope) -> Scope:
        """Return the scope for the application: its root is one prefix longer."""
        root = scope.get("root_path", "").rstrip("/")
        below = {
            **scope,
            "root_path": root + self.prefix,
            "path": root + application_path(scope),
        }
        if ENVIRON in scope:
            below[ENVIRON] = self.environ(scope[ENVIRON])
        return below

    def environ(self, environ: MutableMapping[str, Any]) -> dict[str, Any]:
        """Return the environ for the application, its prefix moved over."""
        prefix = self.prefix.encode().decode("latin-1")
        return {
            **environ,
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "").rstrip("/") + prefix,
            "PATH_INFO": environ.get("PATH_INFO", "").removeprefix(prefix),
        }

    def __repr__(self) -> str:
        return f"<Mount {self.prefix or '/'!r} of {self.app!r}>"


# -------------------------------------------------------- calling a WSGI application


class Hosted:
    """A WSGI application's answer to one request: iterate over its body.

    The application is called at once, and asked for chunks until its header is
    final (PEP 3333: with the first chunk that is not empty). Whoever made this
    must call :meth:`close`.

    :ivar status_code: the status.
    :ivar headers: the header fields, as ASGI sends them.
    """

    def __init__(self, app: WSGIApp, environ: MutableMapping[str, Any]) -> None:
        self.status_code: int = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._is_final = False
        #: chunks that have been written, or asked for before their time
        self._pending: deque[bytes] = deque()
        self._iterable = app(environ, self._start_response)
        try:
            self._chunks = iter(self._iterable)
            while not any(self._pending) and self._fetch():
                pass
            if not self.status_code:
                raise RuntimeError(
                    f"The WSGI application {app!r} has not called start_response,"
                    " as it must before its first chunk (PEP 3333)."
                )
        except BaseException:
            self.close()
            raise
        self._is_final = True

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._is_final:
            raise exc_info[1].with_traceback(exc_info[2])

        if exc_info is None and self.status_code:
            raise RuntimeError(
                "start_response was called twice. It may be once, and again only"
                " with exc_info while an exception is handled (PEP 3333)."
            )
        self.status_code = int(status[:3])
        self.headers = header_fields(headers)
        return self._pending.append

    def _fetch(self) -> bool:
        """Take the next chunk behind those that are pending, if there is one."""
        for chunk in self._chunks:
            self._pending.append(as_bytes(chunk))
            return True

        return False

    def __iter__(self) -> Hosted:
        return self

    def __next__(self) -> bytes:
        if not self._pending and not self._fetch():
            raise StopIteration

        return self._pending.popleft()

    def close(self) -> None:
        """Tell the application that nobody wants more."""
        if hasattr(self._iterable, "close"):
            self._iterable.close()

    def response(self, cls: type[Response]) -> Response:
        """Return a response that streams the body."""
        response = cls(self)
        response.status_code = self.status_code
        response.raw_headers[:] = self.headers
        return response


def buffered_response(
    cls: type[Response], app: WSGIApp, environ: MutableMapping[str, Any]
) -> Response:
    """Return the response of a WSGI application, its whole body in memory."""
    hosted = Hosted(app, environ)
    try:
        response = hosted.response(cls)
        response.body = b"".join(hosted)
        return response
    finally:
        hosted.close()


class ClientGone(ClientDisconnected, ConnectionResetError):
    """The client left before its body was complete, as files say that."""


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            self._rest = self._rest or next(self._chunks, b"")
        except ClientDisconnected:
            raise ClientGone() from None
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def as_file(chunks: Iterator[bytes]) -> io.BufferedReader:
    """Return chunks as an open file, for ``wsgi.input``; none may be empty."""
    return io.BufferedReader(_Chunks(chunks))


# ------------------------------------------------------ calling an ASGI application


def body_once_more(body: Body | None, endpoint: str | None) -> list[bytes]:
    """Return the body that was taken in, if it was, for an application to read.

    :raises RuntimeError: when it was taken apart as a form.
    """
    if isinstance(body, UnreadBody):
        return []

    if isinstance(body, MultipartBody):
        raise RuntimeError(
            f"The endpoint {endpoint!r} hands a multipart form on to another"
            " application, but the form was taken apart already. Add"
            " stream_body=True to its rule, so that the body is left unread."
        )
    return [b"" if body is None else body.data]


def is_last(message: Message) -> bool:
    """Say whether a message completes a response."""
    is_body = message["type"] == "http.response.body"
    return is_body and not message.get("more_body", False)


def merged_start(start: Message, response: Response) -> Message:
    """Return the start of an application's response with what hooks changed."""
    status = response.body.status
    if status is not None:
        changed = response.status_code != status
        return {**start, "status": response.status_code} if changed else start

    fields = [*start.get("headers", ()), *response.raw_headers]
    check_raw_headers(fields)
    return {**start, "headers": fields}
