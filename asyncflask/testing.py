"""The test client, and made-up requests.

The client is an ASGI server for one request at a time. The application runs
on the loop of the process, in another thread, just as under uvicorn; only its
plain callables run in the thread that calls the client, so that what a test
has opened (an in-memory sqlite database, say) is theirs as well. That works
in any test, whether an event loop runs there or not.
"""

from __future__ import annotations

import io
import mimetypes
import os
import secrets
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import SplitResult, quote, unquote, urlencode, urljoin, urlsplit

import anyio
from starlette.types import Message, Scope

from .cookies import parse_set_cookie
from .datastructures import FileStorage, ResponseHeaders
from .json import dumps, loads
from .lazy import cached_property
from .loops import process_loop
from .moving import DESK
from .workers import Desk

if TYPE_CHECKING:
    from .app import Flask

_REDIRECTS = (301, 302, 303, 307, 308)
#: how many redirects in a row are followed
MAX_REDIRECTS = 20
#: what stands for itself in a path that a test passes, percent signs included
_PATH_SAFE = "%!$&'()*+,/:;=@~"


# ------------------------------------------------------------- made-up requests


def build_request(
    path: str = "/",
    base_url: str | None = None,
    query_string: Mapping[str, Any] | str | bytes | None = None,
    method: str = "GET",
    data: Any = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    json: Any = ...,
    content_type: str | None = None,
) -> tuple[Scope, bytes]:
    """Return the ASGI scope and the body of a made-up request.

    :param path: the path, with a query if you like; or a whole URL.
    :param base_url: scheme, host and prefix: ``"https://example.com/app"``.
    :param query_string: the query, if it is not in the path.
    :param method: the method.
    :param data: the body: bytes or text; or a dict of form fields, in which
        files are ``(open file or bytes, filename)``, with a type behind it if
        you like; lists give a field several times.
    :param headers: header fields, a mapping or pairs; they win over those made here.
    :param json: a value to send as JSON.
    :param content_type: the type, where the body does not say it.
    """
    base, root, raw_path, query = _target(path, base_url, query_string)
    body, guessed = encode_body(data, json)
    said = {"host": base.netloc, "content-type": content_type or guessed}
    if body or method not in ("GET", "HEAD"):
        said["content-length"] = str(len(body))
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": base.scheme,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query,
        "root_path": root,
        "headers": _fields(headers or (), said),
        "client": ("127.0.0.1", 50000),
        "server": (
            base.hostname or "localhost",
            base.port or (443 if base.scheme == "https" else 80),
        ),
    }
    return scope, body


def _target(
    path: str, base_url: str | None, query_string: Any
) -> tuple[SplitResult, str, str, bytes]:
    """Return base, prefix, percent-encoded path and query."""
    base = urlsplit(base_url or "http://localhost/")
    root = unquote(base.path).rstrip("/")
    if "://" in path.partition("?")[0]:
        base, root = urlsplit(path), ""
        path = f"{base.path}?{base.query}"
    path, _, query = path.partition("#")[0].partition("?")
    if isinstance(query_string, Mapping):
        query_string = urlencode(query_string, doseq=True)
    if isinstance(query_string, bytes):
        query_string = query_string.decode("utf-8", "surrogateescape")
    raw_path = quote(root) + quote("/" + path.removeprefix("/"), safe=_PATH_SAFE)
    whole = "&".join(filter(None, [query, query_string]))
    return base, root, raw_path, whole.encode("utf-8", "surrogateescape")


def _fields(
    given: Mapping[str, str] | Iterable[tuple[str, str]], said: dict[str, str]
) -> list[tuple[bytes, bytes]]:
    """Return header fields as ASGI has them: the given ones count more."""
    pairs = list(given.items() if isinstance(given, Mapping) else given)
    names = {name.lower() for name, _ in pairs}
    pairs += [(name, text) for name, text in said.items() if text and name not in names]
    return [
        (name.lower().encode("latin-1"), str(text).encode("latin-1"))
        for name, text in pairs
    ]


def encode_body(data: Any, json: Any = ...) -> tuple[bytes, str]:
    """Return a body and its content type for what a test passes.

    :raises TypeError: with both data and JSON, or for data of a wrong type.
    """
    if json is not ...:
        if data is not None:
            raise TypeError("Pass either data= or json=; a request has one body.")
        return dumps(json).encode(), "application/json"

    if data is None:
        return b"", ""

    if isinstance(data, (str, bytes)):
        return data.encode() if isinstance(data, str) else data, ""

    if not isinstance(data, Mapping):
        raise TypeError(
            f"data={data!r} is a {type(data).__name__}; pass a dict of form fields,"
            " or the body itself as bytes or text."
        )
    fields = [
        (name, value)
        for name, values in data.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    if any(_is_file(value) for _, value in fields):
        return _encode_multipart(fields)

    form = urlencode([(name, str(value)) for name, value in fields])
    return form.encode(), "application/x-www-form-urlencoded"


def _is_file(value: Any) -> bool:
    return isinstance(value, (tuple, FileStorage)) or hasattr(value, "read")


def _encode_multipart(fields: list[tuple[str, Any]]) -> tuple[bytes, str]:
    boundary = secrets.token_hex(16)
    out = io.BytesIO()
    for name, value in fields:
        content, filename, kind = _part(value)
        disposition = f'form-data; name="{_escaped(name)}"'
        if filename is not None:
            disposition += f'; filename="{_escaped(filename)}"'
        out.write(f"--{boundary}\r\nContent-Disposition: {disposition}\r\n".encode())
        if kind:
            out.write(f"Content-Type: {kind}\r\n".encode())
        out.write(b"\r\n" + content + b"\r\n")
    out.write(f"--{boundary}--\r\n".encode())
    return out.getvalue(), f"multipart/form-data; boundary={boundary}"


def _escaped(text: str) -> str:
    # How browsers escape names and filenames (RFC 7578 leaves it to them).
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _part(value: Any) -> tuple[bytes, str | None, str | None]:
    """Return content, filename and type of a form field's value."""
    if not _is_file(value):
        return str(value).encode(), None, None

    if isinstance(value, FileStorage):
        value = value, value.filename or "file", *filter(None, [value.content_type])
    elif not isinstance(value, tuple):
        name = getattr(value, "name", None)
        value = value, os.path.basename(str(name or "file"))
    source, filename, *rest = value
    content = source if isinstance(source, bytes) else source.read()
    guessed = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return content, filename, rest[0] if rest else guessed


# -------------------------------------------------------------------- the client


class ClientResponse:
    """What a client got.

    :ivar status_code: the code.
    :ivar headers: the header fields, a case-blind mapping.
    :ivar data: the body.
    :ivar history: the redirects that led here.
    """

    def __init__(
        self, status_code: int, raw_headers: list[tuple[bytes, bytes]], data: bytes
    ) -> None:
        self.status_code = status_code
        self.headers: ResponseHeaders = ResponseHeaders(raw=list(raw_headers))
        self.data = data
        self.history: list[ClientResponse] = []

    @property
    def status(self) -> str:
        """The status as a line."""
        from .wrappers import Response

        return Response(status=self.status_code).status

    @property
    def text(self) -> str:
        """The body as text."""
        return self.data.decode("utf-8", "replace")

    @overload
    def get_data(self, as_text: Literal[False] = False) -> bytes: ...
    @overload
    def get_data(self, as_text: Literal[True]) -> str: ...
    @overload
    def get_data(self, as_text: bool) -> str | bytes: ...
    def get_data(self, as_text: bool = False) -> str | bytes:
        """Return the body as bytes, or as text."""
        return self.text if as_text else self.data

    @cached_property
    def json(self) -> Any:
        """The value of a JSON body."""
        return loads(self.data)

    def get_json(self) -> Any:
        """Return the value of a JSON body."""
        return self.json

    @property
    def content_type(self) -> str:
        """The type with its parameters."""
        return str(self.headers.get("content-type", ""))

    @property
    def mimetype(self) -> str:
        """The type without parameters."""
        return self.content_type.partition(";")[0].strip()

    @property
    def location(self) -> str | None:
        """Where a redirect goes."""
        location: str | None = self.headers.get("location")
        return location

    def __repr__(self) -> str:
        return f"<ClientResponse {self.status}>"


class Client:
    """A client that talks to an application without a server in between.

    Cookies are kept from request to request. An exception that leaves the
    application is raised here. The body of a response is collected to its end,
    so a stream that never ends is for httpx on a real server. As a context
    manager it does nothing but read well.
    """

    def __init__(self, app: Flask, use_cookies: bool = True) -> None:
        self.app = app
        #: the cookies by name, to look at or to change; None if none are kept
        self.cookies: dict[str, str] | None = {} if use_cookies else None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def get(self, path: str = "/", **options: Any) -> ClientResponse:
        """Send a GET request; see :meth:`open`."""
        return self.open(path, method="GET", **options)

    def post(self, path: str = "/", **options: Any) -> ClientResponse:
        """Send a POST request; see :meth:`open`."""
        return self.open(path, method="POST", **options)

    def put(self, path: str = "/", **options: Any) -> ClientResponse:
        """Send a PUT request; see :meth:`open`."""
        return self.open(path, method="PUT", **options)

    def patch(self, path: str = "/", **options: Any) -> ClientResponse:
        """Send a PATCH request; see :meth:`open`."""
        return self.open(path, method="PATCH", **options)

    def delete(self, path: str = "/", **options: Any) -> ClientResponse:
        """Send a DELETE request; see :meth:`open`."""
        return self.open(path, method="DELETE", **options)

    def head(self, path: str = "/", **options: Any) -> ClientResponse:
        """Send a HEAD request; see :meth:`open`."""
        return self.open(path, method="HEAD", **options)

    def options(self, path: str = "/", **options: Any) -> ClientResponse:
        """Send an OPTIONS request; see :meth:`open`."""
        return self.open(path, method="OPTIONS", **options)

    def open(
        self, path: str = "/", *, follow_redirects: bool = False, **options: Any
    ) -> ClientResponse:
        """Send a request and return the response.

        :param follow_redirects: go where redirects lead, on this application.
        :param options: what :func:`build_request` takes: ``method data json
            query_string headers base_url content_type``.
        :raises Exception: whatever leaves the application.
        """
        history: list[ClientResponse] = []
        while True:
            scope, body = build_request(path, **options)
            response = self._send(scope, body)
            response.history = list(history)
            if not follow_redirects or response.status_code not in _REDIRECTS:
                return response

            history.append(response)
            if len(history) > MAX_REDIRECTS:
                raise RuntimeError(
                    f"{path!r} redirected {MAX_REDIRECTS} times in a row, the last"
                    f" time to {response.location!r}; that looks like a loop."
                )
            path, options = _next_request(scope, response, options)

    def _send(self, scope: Scope, body: bytes) -> ClientResponse:
        if self.cookies:
            field = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            scope["headers"].append((b"cookie", field.encode("latin-1")))
        response = Exchange(scope, body).run(self.app)
        if self.cookies is not None:
            for cookie in response.headers.getlist("set-cookie"):
                self._keep(cookie)
        return response

    def _keep(self, field: str) -> None:
        name, value, expired = parse_set_cookie(field)
        if self.cookies is not None and expired:
            self.cookies.pop(name, None)
        elif self.cookies is not None:
            self.cookies[name] = value


def _next_request(
    scope: Scope, response: ClientResponse, options: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return path and options of the request that a redirect asks for."""
    host = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1")
    here = f"{scope['scheme']}://{host}{quote(scope['path'])}"
    target = urlsplit(urljoin(here, response.location or ""))
    if target.netloc != host:
        raise RuntimeError(
            f"The redirect to {response.location!r} leaves the application; the"
            " client cannot follow it there. Test its location instead."
        )
    kept = {"headers": options.get("headers")}
    if response.status_code in (307, 308):
        kept = {**options, "query_string": None}
    elif options.get("method") == "HEAD":
        kept["method"] = "HEAD"
    root = scope["root_path"]
    path = target.path
    if root and (path + "/").startswith(quote(root) + "/"):
        path = path[len(quote(root)) :] or "/"
    kept["base_url"] = f"{target.scheme}://{target.netloc}{quote(root)}"
    return f"{path}?{target.query}" if target.query else path, kept


class Exchange:
    """One request and its response, as a server sees them."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.scope = scope
        self.pending: list[bytes] = [body]
        self.status: int = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.is_complete: bool = False
        #: set when the response is complete, for who waits for that
        self.news: anyio.Event | None = None

    def run(self, app: Flask) -> ClientResponse:
        """Have the application answer, its plain callables in this thread."""
        desk = self.scope[DESK] = Desk()
        answering = partial(app, self.scope, self._receive, self._send)
        desk.wait_for(answering, process_loop())
        if not self.status:
            raise RuntimeError("The application ended without a response.")

        if not self.is_complete:
            raise RuntimeError("The application ended in mid-response.")

        return ClientResponse(self.status, self.headers, b"".join(self.chunks))

    async def _receive(self) -> Message:
        if self.pending:
            return {
                "type": "http.request",
                "body": self.pending.pop(),
                "more_body": False,
            }

        while not self.is_complete:  # the client leaves when it has it all
            self.news = anyio.Event()
            await self.news.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.chunks.append(bytes(message.get("body", b"")))
            self.is_complete = not message.get("more_body", False)
            if self.is_complete and self.news is not None:
                self.news.set()
