"""Request and response objects, as Flask users know them.

A :class:`Request` reads an ASGI scope and a body that the driver has fed;
every attribute is worked out when it is first asked for. A :class:`Response`
holds a status, header fields as ASGI sends them, and a body that is bytes,
an iterator, a file or another application. Nothing here waits or sends.
"""

from __future__ import annotations

import functools
import io
from collections.abc import (
    AsyncIterable,
    Generator,
    Iterable,
    Mapping,
    MutableMapping,
)
from datetime import date, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, overload

from multipart import parse_options_header
from starlette.types import ASGIApp, Message

from .cookies import dump_cookie, parse_cookies
from .datastructures import (
    Accept,
    Authorization,
    FileStorage,
    LanguageAccept,
    MIMEAccept,
    MultiDict,
    RequestHeaders,
    ResponseHeaders,
    check_raw_headers,
    header_field,
    header_fields,
    mimetype_of,
)
from .environ import build_environ
from .exceptions import BadRequest, UnsupportedMediaType
from .files import FileBody
from .forms import Body, UnreadBody, parse_urlencoded
from .json import loads
from .lazy import cached_property
from .rules import Rule
from .target import Target

if TYPE_CHECKING:
    from .context import RequestContext


class UserAgent(str):
    """The ``User-Agent`` field, a string that is also its own ``.string``."""

    __slots__ = ()

    @property
    def string(self) -> str:
        """The field as it was sent."""
        return str(self)


class Request(Target):
    """What the client sent.

    It is what ``request`` leads to. To have more on it, subclass it and set
    :attr:`Flask.request_class`; ``__init__`` gets the scope.

    :ivar scope: the ASGI connection scope.
    :ivar endpoint: the name of the matched view; None if nothing matched.
    :ivar view_args: the values in the URL that the view gets.
    :ivar url_rule: the matched :class:`~asyncflask.rules.Rule`.
    :ivar routing_exception: why nothing matched, if nothing did.
    """

    endpoint: str | None = None
    view_args: dict[str, Any] | None = None
    url_rule: Rule | None = None
    routing_exception: Exception | None = None
    _body: Body | None = None
    _body_error: Exception | None = None

    def adopt(self, ctx: RequestContext) -> None:
        """Take over what the driver knows: what matched, and the body."""
        self.endpoint = ctx.endpoint
        self.view_args = ctx.view_args
        self.url_rule = ctx.rule
        self.routing_exception = ctx.routing_exception
        self._body = ctx.body
        self._body_error = ctx.body_error

    @cached_property
    def args(self) -> MultiDict[str]:
        """The arguments in the query."""
        return MultiDict(parse_urlencoded(self.query_string), "query arguments")

    # ---------------------------------------------------------------- the body

    @property
    def body(self) -> Body:
        """The body as the driver took it in.

        :raises RequestEntityTooLarge: when it is over a limit.
        :raises BadRequest: when it is malformed.
        """
        if self._body_error is not None:
            raise self._body_error

        if self._body is None:
            self._body = Body()
        return self._body

    @cached_property
    def form(self) -> MultiDict[str]:
        """The fields of a form; empty if the body is none."""
        return MultiDict(self.body.fields, "form")

    @cached_property
    def files(self) -> MultiDict[FileStorage]:
        """The uploaded files, by the names of their form fields."""
        return MultiDict(self.body.files, "uploaded files")

    @cached_property
    def values(self) -> MultiDict[str]:
        """Query arguments and form fields together, the arguments first."""
        pairs = self.args.multi_items() + self.form.multi_items()
        return MultiDict(pairs, "query arguments and form")

    @cached_property
    def data(self) -> bytes:
        """The body, if it is not a form; a form's is empty, as in 0.1."""
        return b"" if self.body.is_form else self.body.data

    @overload
    def get_data(self, as_text: Literal[False] = False) -> bytes: ...
    @overload
    def get_data(self, as_text: Literal[True]) -> str: ...
    @overload
    def get_data(self, as_text: bool) -> str | bytes: ...
    def get_data(self, as_text: bool = False) -> str | bytes:
        """Return the body as it came, also that of an urlencoded form.

        :param as_text: decode it as UTF-8.
        """
        data = self.body.data
        return data.decode("utf-8", "replace") if as_text else data

    @property
    def stream(self) -> Any:
        """The body as an open file.

        In a view of a rule with ``stream_body=True`` it is the unread body:
        iterate over it, with ``async for`` in an async view and plain ``for``
        in a plain one.
        """
        return self.body.stream

    @property
    def json(self) -> Any:
        """The body as JSON; see :meth:`get_json`."""
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False) -> Any:
        """Return the value of a JSON body.

        :param force: do not look at the content type.
        :param silent: answer None instead of raising.
        :raises UnsupportedMediaType: when the type is not JSON.
        :raises BadRequest: when the body is not JSON.
        """
        if not force and not self.is_json:
            if silent:
                return None

            raise UnsupportedMediaType(
                f"The content type is {self.content_type or 'missing'!r}; JSON was"
                " expected. Send it as application/json."
            )
        try:
            return self._json
        except BadRequest:
            if silent:
                return None

            raise

    @cached_property
    def _json(self) -> Any:
        try:
            return loads(self.body.data)
        except ValueError as exc:
            raise BadRequest(f"The body is not JSON: {exc}.") from None

    @property
    def is_json(self) -> bool:
        """True if the content type says JSON (RFC 8259, RFC 6839)."""
        mimetype = self.mimetype
        return mimetype == "application/json" or mimetype.endswith("+json")

    # ----------------------------------------------------------- header fields

    @cached_property
    def headers(self) -> RequestHeaders:
        """The header fields, a case-blind mapping."""
        return RequestHeaders(raw=list(self.scope["headers"]))

    @cached_property
    def cookies(self) -> MultiDict[str]:
        """The cookies. Of several of one name the first counts: browsers send the one
        with the longest path first (RFC 6265, section 5.4)."""
        fields = [value for name, value in self.scope["headers"] if name == b"cookie"]
        return MultiDict(parse_cookies(b"; ".join(fields)), "cookies")

    @property
    def content_type(self) -> str:
        """The type of the body with its parameters; ``''`` if not said."""
        for name, value in self.scope["headers"]:
            if name == b"content-type":
                text: str = value.decode("latin-1")
                return text

        return ""

    @property
    def mimetype(self) -> str:
        """The type of the body without parameters, in lower case."""
        return mimetype_of(self.content_type)

    @cached_property
    def mimetype_params(self) -> dict[str, str]:
        """The parameters of the type, such as ``charset``."""
        parameters: dict[str, str] = parse_options_header(self.content_type)[1]
        return parameters

    @property
    def content_length(self) -> int | None:
        """The number of bytes that the client announced, if it did."""
        length: int | None = self.headers.get("content-length", type=int)
        return length

    @cached_property
    def authorization(self) -> Authorization | None:
        """The credentials, if there are any that can be read."""
        return Authorization.from_header(self.headers.get("authorization"))

    @cached_property
    def accept_mimetypes(self) -> MIMEAccept:
        """The media types that the client takes."""
        return MIMEAccept(self.headers.get("accept"))

    @cached_property
    def accept_charsets(self) -> Accept:
        """The character sets that the client takes."""
        return Accept(self.headers.get("accept-charset"))

    @cached_property
    def accept_encodings(self) -> Accept:
        """The content codings that the client takes."""
        return Accept(self.headers.get("accept-encoding"))

    @cached_property
    def accept_languages(self) -> LanguageAccept:
        """The languages that the person at the client reads."""
        return LanguageAccept(self.headers.get("accept-language"))

    @property
    def is_xhr(self) -> bool:
        """True if a JavaScript library says that it made the request."""
        return bool(
            self.headers.get("x-requested-with", "").lower() == "xmlhttprequest"
        )

    @property
    def user_agent(self) -> UserAgent:
        """The name of the client's program; ``''`` if not said."""
        return UserAgent(self.headers.get("user-agent", ""))

    @property
    def referrer(self) -> str | None:
        """The page that the request was made from, if the client says so."""
        referrer: str | None = self.headers.get("referer")
        return referrer

    @property
    def remote_addr(self) -> str | None:
        """The address of the client, or of the proxy in front of the server."""
        client = self.scope.get("client")
        return client[0] if client else None

    @cached_property
    def environ(self) -> MutableMapping[str, Any]:
        """The request as a WSGI environ (PEP 3333), made on demand.

        Under WSGI it is the server's own, with the body back in ``wsgi.input``.
        """
        stream: Any = io.BytesIO()
        if isinstance(self._body, UnreadBody):
            stream = None
        elif self._body_error is None:
            stream = self.body.stream
        return build_environ(self.scope, self.path, stream)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path!r}>"


# ----------------------------------------------------------------- responses


class AppBody(NamedTuple):
    """A body that is an ASGI application, which sends its own start.

    :ivar app: the application.
    :ivar status: the status the application itself has; None if it is not known
        before it starts. Its header fields are shared in the former case.
    """

    app: ASGIApp
    status: int | None = None


def _full_type(mimetype: str) -> str:
    """Return the content type for a mimetype: text says its charset."""
    textual = mimetype.startswith("text/") or mimetype.endswith(("/xml", "+xml"))
    if textual or mimetype in ("application/javascript", "application/ecmascript"):
        return f"{mimetype}; charset=utf-8"

    return mimetype


@functools.lru_cache(maxsize=128)
def _type_field(mimetype: str) -> tuple[bytes, bytes]:
    return header_field("content-type", _full_type(mimetype))


@functools.lru_cache(maxsize=128)
def _vary_field(names: tuple[str, ...]) -> tuple[bytes, bytes]:
    return header_field("vary", ", ".join(names))


class _LengthFields(dict[int, tuple[bytes, bytes]]):
    """The header fields for lengths; those of short bodies are made once."""

    def __missing__(self, length: int) -> tuple[bytes, bytes]:
        field = b"content-length", b"%d" % length
        if length < 1 << 12:
            self[length] = field
        return field


_LENGTH_FIELDS = _LengthFields()


def as_bytes(chunk: Any) -> bytes:
    """Return a chunk of a body as bytes.

    :raises TypeError: when it is neither text nor bytes.
    """
    if isinstance(chunk, str):
        return chunk.encode()

    if type(chunk) is bytes:
        return chunk

    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return bytes(chunk)

    raise TypeError(
        f"A response body gave {chunk!r}, a {type(chunk).__name__}; it must give"
        " str or bytes. Convert it first, for example with str()."
    )


class Response:
    """What the client gets; HTML unless something else is said.

    Views rarely make one: :meth:`Flask.make_response` does it for whatever
    they return. Subclass it and set :attr:`Flask.response_class` to change
    the defaults for a whole application.

    :param response: the body: text, bytes, a list of them, or an iterator or
        async iterator of them, which is then streamed.
    :param status: a code such as ``404``, or a line such as ``"404 NOT FOUND"``.
    :param headers: header fields, a mapping or a list of pairs.
    :param mimetype: the type; text types get the charset added.
    :param content_type: the type with its parameters, taken as it is.
    """

    #: how text is encoded; there is no other
    charset: ClassVar[str] = "utf-8"
    #: the type when none is given
    default_mimetype: ClassVar[str] = "text/html"
    #: the status when none is given
    default_status: ClassVar[int] = 200
    _default_type: ClassVar[tuple[bytes, bytes]] = _type_field(default_mimetype)

    def __init__(
        self,
        response: Any = None,
        status: int | str | None = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        mimetype: str | None = None,
        content_type: str | None = None,
    ) -> None:
        #: the header fields as ASGI sends them; ``headers`` is the way to them
        self.raw_headers: list[tuple[bytes, bytes]] = [
            self._default_type if mimetype is None else _type_field(mimetype)
        ]
        self.status_code: int = self.default_status
        if type(response) is str:
            self.body: Any = response.encode()
        else:
            self.response = response
        if type(status) is int and 100 <= status <= 999:
            self.status_code = status
        elif status is not None:
            self.status = status
        if headers:
            self._add_headers(headers, keep_type=mimetype is not None)
        if content_type is not None:
            self.headers["content-type"] = content_type

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._default_type = _type_field(cls.default_mimetype)

    def _add_headers(
        self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]], keep_type: bool
    ) -> None:
        new = header_fields(fields)
        if b"content-type" in dict(new):
            if keep_type:
                new = [field for field in new if field[0] != b"content-type"]
            else:
                self.raw_headers.clear()
        self.raw_headers += new

    def replace_headers(
        self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]]
    ) -> None:
        """Add header fields, all of a name in place of those that are there."""
        new = header_fields(fields)
        names = {name for name, _ in new}
        kept = [field for field in self.raw_headers if field[0] not in names]
        self.raw_headers[:] = kept + new

    # --------------------------------------------------------------- the body

    @property
    def response(self) -> Any:
        """The body as the driver will send it: bytes, iterator, file or app."""
        return self.body

    @response.setter
    def response(self, value: Any) -> None:
        if value is None:
            self.body = b""
        elif isinstance(value, (str, bytes, bytearray, memoryview)):
            self.body = as_bytes(value)
        elif isinstance(value, (list, tuple)) and not isinstance(
            value, (FileBody, AppBody)
        ):
            self.body = b"".join(map(as_bytes, value))
        elif isinstance(value, (Iterable, AsyncIterable, FileBody, AppBody)):
            self.body = value
        else:
            self.body = as_bytes(value)

    @property
    def is_streamed(self) -> bool:
        """True if the body is not there yet, but made while it is sent."""
        return not isinstance(self.body, bytes)

    @overload
    def get_data(self, as_text: Literal[False] = False) -> bytes: ...
    @overload
    def get_data(self, as_text: Literal[True]) -> str: ...
    @overload
    def get_data(self, as_text: bool) -> str | bytes: ...
    def get_data(self, as_text: bool = False) -> str | bytes:
        """Return the body; a plain iterator is exhausted and kept as bytes.

        :param as_text: decode it as UTF-8.
        :raises RuntimeError: for a body that plain code cannot read.
        """
        if isinstance(self.body, (FileBody, AppBody)) or not isinstance(
            self.body, bytes | Iterable
        ):
            raise RuntimeError(
                f"The body is a {type(self.body).__name__}, which is only made while"
                " it is sent. Look at response.is_streamed before reading its data."
            )
        if not isinstance(self.body, bytes):
            self.body = b"".join(map(as_bytes, self.body))
        data: bytes = self.body
        return data.decode("utf-8", "replace") if as_text else data

    def set_data(self, value: str | bytes) -> None:
        """Replace the body by text or bytes."""
        self.body = as_bytes(value)

    @property
    def data(self) -> bytes:
        """The body as bytes; assign text or bytes to replace it."""
        return self.get_data()

    @data.setter
    def data(self, value: str | bytes) -> None:
        self.set_data(value)

    # ------------------------------------------------------- status and headers

    @property
    def status(self) -> str:
        """The status as a line, such as ``"404 NOT FOUND"``; code or line can
        be assigned."""
        try:
            phrase = HTTPStatus(self.status_code).phrase
        except ValueError:
            phrase = "Unknown"
        return f"{self.status_code} {phrase.upper()}"

    @status.setter
    def status(self, value: int | str) -> None:
        code = value.split(None, 1)[0] if isinstance(value, str) and value else value
        try:
            number = int(code)
        except (TypeError, ValueError):
            number = 0
        if not 100 <= number <= 999:
            raise ValueError(
                f"{value!r} is no status: it starts with a code of three digits"
                " (RFC 9110, section 15). Write 404 or '404 Not Found'."
            )
        self.status_code = number

    @cached_property
    def headers(self) -> ResponseHeaders:
        """The header fields, a mutable case-blind mapping."""
        return ResponseHeaders(raw=self.raw_headers)

    @property
    def content_type(self) -> str | None:
        """The type with its parameters."""
        value: str | None = self.headers.get("content-type")
        return value

    @content_type.setter
    def content_type(self, value: str) -> None:
        self.headers["content-type"] = value

    @property
    def mimetype(self) -> str | None:
        """The type without parameters; assign one and a charset is added."""
        value = self.content_type
        return None if value is None else value.partition(";")[0].strip()

    @mimetype.setter
    def mimetype(self, value: str) -> None:
        self.content_type = _full_type(value)

    @property
    def content_length(self) -> int | None:
        """The length of the body in bytes, when it is known."""
        if isinstance(self.body, bytes):
            return len(self.body)

        length: int | None = self.headers.get("content-length", type=int)
        return length

    @property
    def location(self) -> str | None:
        """Where a redirect goes."""
        value: str | None = self.headers.get("location")
        return value

    @location.setter
    def location(self, value: str) -> None:
        self.headers["location"] = value

    def vary(self, *names: str) -> None:
        """Say that the response depends on these fields of the request.

        They are added to ``Vary`` (RFC 9110, section 12.5.5), each once.
        """
        if b"vary" not in dict(self.raw_headers):
            self.raw_headers.append(_vary_field(names))
            return

        there = [value for name, value in self.raw_headers if name == b"vary"]
        fields = [field.strip() for field in b",".join(there).decode().split(",")]
        known = {field.lower() for field in fields}
        fields += [name for name in names if name.lower() not in known]
        self.replace_headers({"vary": ", ".join(filter(None, fields))})

    def set_cookie(
        self,
        key: str,
        value: str = "",
        max_age: timedelta | float | None = None,
        expires: datetime | date | float | str | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = None,
    ) -> None:
        """Have the browser keep a cookie (RFC 6265).

        :param key: its name.
        :param value: its text; quoted where it has to be.
        :param max_age: seconds until it forgets it; None for when it is closed.
        :param expires: the moment it forgets it.
        :param path: where on the site it is sent: at this path and below.
        :param domain: the domain it is for, with its subdomains; None for this host.
        :param secure: send it over HTTPS only.
        :param httponly: keep it from JavaScript.
        :param samesite: ``"Lax"``, ``"Strict"`` or ``"None"``.
        :raises ValueError: when a part holds what would end it.
        """
        cookie = dump_cookie(
            key, value, max_age, expires, path, domain, secure, httponly, samesite
        )
        self.raw_headers.append((b"set-cookie", cookie.encode("latin-1")))

    def delete_cookie(
        self,
        key: str,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = None,
    ) -> None:
        """Have the browser forget a cookie; path and domain must be its own.

        The arguments are those of :meth:`set_cookie`.
        """
        self.set_cookie(
            key,
            max_age=0,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
        )

    def drop_cookie(self, key: str) -> None:
        """Take back what :meth:`set_cookie` has set in this response."""
        if b"set-cookie" not in dict(self.raw_headers):
            return

        start = f"{key}=".encode("latin-1")
        self.raw_headers[:] = [
            field
            for field in self.raw_headers
            if not (field[0] == b"set-cookie" and field[1].startswith(start))
        ]

    # ------------------------------------------------------------- on the wire

    def on_wire(self, method: str) -> tuple[Message, Any]:
        """Return the message that opens the response to a method, and the body.

        A body of bytes says its true length, whatever was set by hand. HEAD gets
        the same fields and no body; 204, 304 and 1xx have neither a body nor its
        length and type (RFC 9110, sections 6.4.1, 8.6 and 15.4.5).
        """
        fields, body, code = self.raw_headers, self.body, self.status_code
        if code != 200 and (code == 304 or code == 204 or code < 200):
            fields, body = without_content(fields), b""
        elif type(body) is bytes:
            length = _LENGTH_FIELDS[len(body)]
            fields = (
                [fields[0], length]
                if len(fields) == 1 and fields[0][0] == b"content-type"
                else [*without_framing(fields), length]
            )
        start = {"type": "http.response.start", "status": code, "headers": fields}
        return start, b"" if method == "HEAD" else body

    def __await__(self) -> Generator[None, None, Response]:
        """Return itself: :meth:`Flask.make_response` may be awaited or not."""
        return self
        yield

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.content_type!r}>"


_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


def without_framing(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return header fields less those that say where the body ends."""
    return [field for field in fields if field[0] not in _FRAMING]


def without_content(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return header fields less those that are about the content."""
    about = (b"content-length", b"content-type")
    return [field for field in fields if field[0] not in about]


def adopt_starlette(response: Any, cls: type[Response]) -> Response | None:
    """Return a Starlette response as one of ours, sharing its header fields.

    None for what is no such response.

    :raises ValueError: when a field holds a line break; Starlette looks at none.
    """
    # It brings along all that Starlette makes of requests; few applications need it.
    from starlette.responses import Response as StarletteResponse

    if not isinstance(response, StarletteResponse):
        return None

    check_raw_headers(response.raw_headers)
    ours = cls()
    ours.status_code = response.status_code
    ours.raw_headers = response.raw_headers
    is_simple = type(response).__call__ is StarletteResponse.__call__
    if is_simple and response.background is None:
        ours.body = bytes(response.body)
    else:
        ours.body = AppBody(response, response.status_code)
    return ours
