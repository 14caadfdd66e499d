"""The small containers that requests and responses are made of.

Header fields live in Starlette's classes, a list of byte pairs as ASGI has
them; the subclasses here add the methods that Flask users know and refuse
what would split a response. The multi-dict answers with the *first* value of
a key, as Flask's does (Starlette's answers with the last).
"""

from __future__ import annotations

import base64
import functools
import re
import shutil
from collections.abc import (
    Callable,
    Collection,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
)
from os import PathLike, fspath
from typing import IO, Any, Generic, Literal, NamedTuple, TypeVar, overload

from starlette.datastructures import Headers, MutableHeaders

from .exceptions import BadRequestKeyError

V = TypeVar("V")
T = TypeVar("T")
D = TypeVar("D")


class MultiDict(Mapping[str, V], Generic[V]):
    """A read-only mapping in which a key may have several values, in order.

    Indexing answers with the first value; a key that is missing raises a
    ``KeyError`` that becomes a 400 which names it, if nobody catches it.

    :param pairs: the keys and values in their order.
    :param source: what it holds, for the message about a missing key.
    """

    __slots__ = ("_lists", "_source")

    def __init__(
        self, pairs: Iterable[tuple[str, V]] = (), source: str = "data"
    ) -> None:
        lists: dict[str, list[V]] = {}
        for key, value in pairs:
            lists.setdefault(key, []).append(value)
        self._lists = lists
        self._source = source

    def __getitem__(self, key: str) -> V:
        try:
            return self._lists[key][0]
        except KeyError:
            raise BadRequestKeyError(key, self._source) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def __contains__(self, key: object) -> bool:
        return key in self._lists

    @overload
    def get(self, key: str, default: None = None, type: None = None) -> V | None: ...
    @overload
    def get(self, key: str, default: D, type: None = None) -> V | D: ...
    @overload
    def get(
        self, key: str, default: None = None, *, type: Callable[[V], T]
    ) -> T | None: ...
    @overload
    def get(self, key: str, default: D, type: Callable[[V], T]) -> T | D: ...
    def get(self, key: str, default: Any = None, type: Any = None) -> Any:
        """Return the first value of a key, converted if a type is given.

        :param default: the answer when the key is missing or ``type`` refuses
            the value with ``ValueError`` or ``TypeError``.
        :param type: called with the value, such as ``int``.
        """
        values = self._lists.get(key)
        if values is None:
            return default

        return values[0] if type is None else _convert(values[0], default, type)

    @overload
    def getlist(self, key: str, type: None = None) -> list[V]: ...
    @overload
    def getlist(self, key: str, type: Callable[[V], T]) -> list[T]: ...
    def getlist(self, key: str, type: Any = None) -> list[Any]:
        """Return every value of a key; those that ``type`` refuses are left out."""
        values = self._lists.get(key, [])
        if type is None:
            return list(values)

        converted = (_convert(value, _MISSING, type) for value in values)
        return [value for value in converted if value is not _MISSING]

    def lists(self) -> Iterator[tuple[str, list[V]]]:
        """Iterate over the keys, each with the list of its values."""
        return ((key, list(values)) for key, values in self._lists.items())

    @overload
    def items(self, multi: Literal[False] = False) -> ItemsView[str, V]: ...
    @overload
    def items(self, multi: bool) -> Collection[tuple[str, V]]: ...
    def items(self, multi: bool = False) -> Any:
        """Return keys with their first values, or with every one if ``multi``."""
        return self.multi_items() if multi else self.to_dict().items()

    def multi_items(self) -> list[tuple[str, V]]:
        """Return every pair; a key of several values stands several times."""
        return [(key, v) for key, values in self._lists.items() for v in values]

    @overload
    def to_dict(self, flat: Literal[True] = True) -> dict[str, V]: ...
    @overload
    def to_dict(self, flat: Literal[False]) -> dict[str, list[V]]: ...
    @overload
    def to_dict(self, flat: bool) -> dict[str, V] | dict[str, list[V]]: ...
    def to_dict(self, flat: bool = True) -> dict[str, Any]:
        """Return a plain dict: of first values, or of lists if not ``flat``."""
        if flat:
            return {key: values[0] for key, values in self._lists.items()}

        return dict(self.lists())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MultiDict):
            return self._lists == other._lists

        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.multi_items()!r})"


_MISSING: Any = object()


def _convert(value: Any, default: Any, type: Callable[[Any], Any]) -> Any:
    try:
        return type(value)
    except (ValueError, TypeError):
        return default


def _wanted(key: str) -> bytes:
    """Return a name to look for; there is a "?" in none, so odd ones are not found."""
    return key.lower().encode("ascii", "replace")


class _Fields(Headers):
    """What the header fields of requests and of responses have in common."""

    @overload
    def get(self, key: str, default: None = None, type: None = None) -> str | None: ...
    @overload
    def get(self, key: str, default: D, type: None = None) -> str | D: ...
    @overload
    def get(
        self, key: str, default: None = None, *, type: Callable[[str], T]
    ) -> T | None: ...
    @overload
    def get(self, key: str, default: D, type: Callable[[str], T]) -> T | D: ...
    def get(self, key: str, default: Any = None, type: Any = None) -> Any:
        """Return a field's value, converted if a type is given; else the default."""
        wanted = _wanted(key)
        for name, octets in self._list:
            if name == wanted:
                value = octets.decode("latin-1")
                return value if type is None else _convert(value, default, type)

        return default

    def getlist(self, key: str) -> list[str]:
        """Return every value of a field, in order."""
        wanted = _wanted(key)
        return [
            octets.decode("latin-1") for name, octets in self._list if name == wanted
        ]

    def __contains__(self, key: Any) -> bool:
        return self.get(key) is not None

    def __getitem__(self, key: str) -> str:
        value = self.get(key)
        if value is None:
            raise KeyError(key)

        return value


class RequestHeaders(_Fields):
    """The header fields of a request: a read-only, case-blind mapping."""

    def __getitem__(self, key: str) -> str:
        try:
            return super().__getitem__(key)
        except KeyError:
            raise BadRequestKeyError(key, "header fields") from None


#: RFC 9110, section 5.1: a field name is a token
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: RFC 9110, section 5.5: what must never stand in a field value
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@functools.lru_cache(maxsize=256)
def field_name(name: str) -> bytes:
    """Return a name as ASGI sends it.

    :raises ValueError: when it is no token (RFC 9110, section 5.1).
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(
            f"{name!r} is no header name: a name is made of letters, digits and"
            " !#$%&'*+-.^_`|~ only. Write it like 'X-Request-Id'."
        )
    return str.lower(name).encode("ascii")  # of what was checked


def header_field(name: str, value: Any) -> tuple[bytes, bytes]:
    """Return a header field as ASGI sends it.

    :raises ValueError: when it could split the response or confuse a peer: the
        name is no token, or the value holds a line break, another control
        character, or a character that is not in Latin-1 (RFC 9110, section 5.5).
    """
    text = str(value)
    if not (text.isascii() and text.isprintable()):
        _check_value(name, text)
    return field_name(name), text.encode("latin-1")


def header_fields(
    fields: Mapping[str, Any] | Iterable[tuple[str, Any]],
) -> list[tuple[bytes, bytes]]:
    """Return many fields as ASGI sends them; a list as value gives one for each item.

    :raises ValueError: for one that :func:`header_field` refuses.
    """
    # dict is a Mapping, but found to be one much sooner
    pairs = fields.items() if isinstance(fields, (dict, Mapping)) else fields
    made = []
    for name, value in pairs:
        if isinstance(value, (list, tuple)):
            made += [header_field(name, item) for item in value]
        else:
            made.append(header_field(name, value))
    return made


def mimetype_of(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _check_value(name: str, value: str) -> None:
    if _CONTROL.search(value):
        raise ValueError(
            f"The value {value!r} for header {name!r} holds a control character,"
            " which could split the response. Remove line breaks or quote them."
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"The value {value!r} for header {name!r} has characters outside"
            " Latin-1. Percent-encode it with urllib.parse.quote first."
        ) from None


def check_raw_headers(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Check fields that somebody else has made, as :func:`header_field` does.

    :raises ValueError: for the first one that must not go out.
    """
    for name, value in fields:
        header_field(name.decode("latin-1"), value.decode("latin-1"))


class ResponseHeaders(_Fields, MutableHeaders):
    """The header fields of a response: a mutable, case-blind multi-mapping.

    Every way in checks name and value, so that neither can hold a line break; except
    ``raw``, the list that ASGI sends, which is taken as it is.
    """

    def __init__(
        self,
        fields: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        raw: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        super().__init__(raw=[] if raw is None else raw)
        if fields:
            self.extend(fields)

    def mutablecopy(self) -> ResponseHeaders:
        """Return a copy, to be changed apart."""
        return ResponseHeaders(raw=self.raw[:])

    def __setitem__(self, key: str, value: Any) -> None:
        field = header_field(key, value)
        if field[0] in dict(self.raw):
            super().__setitem__(key, field[1].decode("latin-1"))
        else:
            self.raw.append(field)

    def __delitem__(self, key: str) -> None:
        wanted = _wanted(key)
        self.raw[:] = [field for field in self.raw if field[0] != wanted]

    def setdefault(self, key: str, value: Any) -> str:
        """Set a field unless it is there, and return what stands there."""
        name, text = header_field(key, value)
        return super().setdefault(name.decode("ascii"), text.decode("latin-1"))

    def append(self, key: str, value: Any) -> None:
        """Add a field without touching others of its name."""
        self.raw.append(header_field(key, value))

    add = append

    def set(self, key: str, value: Any) -> None:
        """Set a field in place of all others of its name."""
        self[key] = value

    def update(
        self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), **more: Any
    ) -> None:
        """Set many fields, each in place of the others of its name."""
        pairs = other.items() if isinstance(other, Mapping) else other
        for key, value in [*pairs, *more.items()]:
            self[key] = value

    def extend(self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add many fields; a list as value adds one field for each item."""
        self.raw.extend(header_fields(fields))

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove a field and return its value.

        :raises KeyError: when it is not there and no default is given.
        """
        value = self.get(key, default)
        if value is _MISSING:
            raise KeyError(key)

        del self[key]
        return value

    def remove(self, key: str) -> None:
        """Remove every field of a name; it need not be there."""
        del self[key]

    def to_wsgi_list(self) -> list[tuple[str, str]]:
        """Return the fields as PEP 3333 wants them: a list of native strings."""
        return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in self.raw]


class AcceptItem(NamedTuple):
    """One choice of an ``Accept`` field."""

    value: str
    quality: float


class Accept:
    """What a client would like to get, best first (RFC 9110, section 12.5).

    :param field: the value of the header field; None when it was not sent.
    """

    def __init__(self, field: str | None) -> None:
        items = [] if field is None else map(_parse_choice, field.split(","))
        found = [item for item in items if item is not None]
        self._items = sorted(found, key=lambda item: item.quality, reverse=True)

    def matches(self, choice: str, offer: str) -> bool:
        """Say whether a choice of the client covers what the server offers."""
        return choice == "*" or choice.lower() == offer.lower()

    def quality(self, offer: str) -> float:
        """Return how much the client likes an offer, from 0.0 to 1.0."""
        covering = [item for item in self._items if self.matches(item.value, offer)]
        if not covering:
            return 0.0

        exact = max(covering, key=lambda item: self.specificity(item.value))
        return exact.quality

    def specificity(self, choice: str) -> int:
        """Return the rank of a choice: the more exact one overrules wildcards."""
        return 0 if choice == "*" else 1 + choice.count("-")

    def best_match(
        self, offers: Iterable[str], default: str | None = None
    ) -> str | None:
        """Return the offer the client likes most; the first one of equals.

        :param default: the answer when the client wants none of them.
        """
        offers = list(offers)
        if not offers:
            return default

        best = max(offers, key=self.quality)
        return best if self.quality(best) > 0 else default

    @property
    def best(self) -> str | None:
        """The client's first choice."""
        return self._items[0].value if self._items else None

    def values(self) -> Iterator[str]:
        """Iterate over the choices, best first."""
        return (item.value for item in self._items)

    def __getitem__(self, offer: str) -> float:
        return self.quality(offer)

    def __contains__(self, offer: str) -> bool:
        return self.quality(offer) > 0

    def __iter__(self) -> Iterator[AcceptItem]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return bool(self._items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({[tuple(item) for item in self._items]!r})"


#: RFC 9110, section 12.4.2
_QUALITY = re.compile(r"0(\.[0-9]*)?|1(\.0*)?|\.[0-9]+")


def _parse_choice(text: str) -> AcceptItem | None:
    value, *parameters = (part.strip() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.lower().startswith("q="):
            text = parameter[2:].strip()
            if not _QUALITY.fullmatch(text):
                return None

            quality = float(text)

    return AcceptItem(value, quality) if value else None


class MIMEAccept(Accept):
    """Accepted media types: ``text/*`` and ``*/*`` cover what they name."""

    def matches(self, choice: str, offer: str) -> bool:
        """Say whether a media range covers a media type."""
        kind, _, subtype = choice.lower().partition("/")
        offered_kind, _, offered_subtype = offer.lower().partition("/")
        return kind in ("*", offered_kind) and subtype in ("*", offered_subtype)

    def specificity(self, choice: str) -> int:
        """Return 2 for a whole type, 1 for ``text/*``, 0 for ``*/*``."""
        return 2 - choice.count("*")

    @property
    def accept_html(self) -> bool:
        """True if the client takes HTML."""
        return "text/html" in self

    @property
    def accept_json(self) -> bool:
        """True if the client takes JSON."""
        return "application/json" in self


class LanguageAccept(Accept):
    """Accepted languages: ``en`` covers ``en-GB`` (RFC 4647, section 3.3.1)."""

    def matches(self, choice: str, offer: str) -> bool:
        """Say whether a language range covers a language tag."""
        choice, offer = choice.lower(), offer.lower()
        return choice == "*" or offer == choice or offer.startswith(f"{choice}-")

    def best_match(
        self, offers: Iterable[str], default: str | None = None
    ) -> str | None:
        """Return the offered language the client likes most.

        When none is covered, a region is given up: a client that asks for
        ``de-AT`` is content with ``de``.
        """
        offers = list(offers)
        found = super().best_match(offers)
        if found is not None:
            return found

        primary = Accept(None)
        primary._items = [
            item._replace(value=item.value.split("-")[0]) for item in self._items
        ]
        return primary.best_match(offers, default)


class Authorization:
    """The credentials of a request (RFC 9110, section 11.4).

    :ivar type: the scheme in lower case, such as ``basic`` or ``bearer``.
    :ivar username: the user name, with the Basic scheme (RFC 7617).
    :ivar password: the password, with the Basic scheme.
    :ivar token: everything behind the scheme, with any other one.
    """

    def __init__(
        self,
        type: str,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
    ) -> None:
        self.type = type
        self.username = username
        self.password = password
        self.token = token

    @classmethod
    def from_header(cls, field: str | None) -> Authorization | None:
        """Read an ``Authorization`` field; None if there is none or it is bad."""
        scheme, _, rest = (field or "").strip().partition(" ")
        rest = rest.strip()
        if not scheme or not rest:
            return None

        if scheme.lower() != "basic":
            return cls(scheme.lower(), token=rest)

        try:
            decoded = base64.b64decode(rest, validate=True).decode()
        except ValueError:  # neither base64 nor UTF-8
            return None

        username, colon, password = decoded.partition(":")
        return cls("basic", username, password) if colon else None

    def __repr__(self) -> str:
        return f"<Authorization {self.type}>"


class FileStorage:
    """One uploaded file: a thin hull around the open file that holds it.

    Small files lie in memory, big ones in an unnamed temporary file. Both are
    closed when the request ends; :meth:`save` what is to stay.

    :ivar stream: the open binary file.
    :ivar filename: the name the client gave, unchecked: never use it as a path.
    :ivar name: the name of the form field.
    :ivar headers: the part's own header fields, by their names in lower case.
    """

    def __init__(
        self,
        stream: IO[bytes],
        filename: str | None = None,
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.stream = stream
        self.filename = filename
        self.name = name
        fields = headers or {}
        self.headers: dict[str, str] = {
            field.lower(): value for field, value in fields.items()
        }

    @property
    def content_type(self) -> str:
        """The type the client gave, with its parameters; ``''`` if none."""
        return self.headers.get("content-type", "")

    @property
    def mimetype(self) -> str:
        """The type without parameters, in lower case."""
        return mimetype_of(self.content_type)

    def read(self, size: int = -1) -> bytes:
        """Read from where the last read stopped; everything by default."""
        return self.stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place in the file, as :meth:`io.IOBase.seek` does."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file, in bytes from its start."""
        return self.stream.tell()

    def save(
        self, dst: str | PathLike[str] | IO[bytes], buffer_size: int = 1 << 16
    ) -> None:
        """Copy the file from where it stands to a path or an open binary file.

        :param buffer_size: bytes copied at a time.
        :raises OSError: when the path cannot be written.
        """
        if isinstance(dst, (str, PathLike)):
            with open(fspath(dst), "wb") as file:
                shutil.copyfileobj(self.stream, file, buffer_size)
        else:
            shutil.copyfileobj(self.stream, dst, buffer_size)

    def close(self) -> None:
        """Close the file; the end of the request does it too."""
        self.stream.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.stream)

    def __bool__(self) -> bool:
        return bool(self.filename)

    def __repr__(self) -> str:
        return f"<FileStorage {self.filename!r} ({self.content_type!r})>"
