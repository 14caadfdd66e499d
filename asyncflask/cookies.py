"""Cookies, in and out (RFC 6265).

Reading is lenient and linear: a malformed pair is skipped. Writing is strict:
what could break out of the header field is quoted in the value and refused
everywhere else.
"""

from __future__ import annotations

import functools
import re
import time
from datetime import date, datetime, timedelta

from .dates import http_date, parse_http_date

#: what may stand around a pair; str.strip() alone would take other things for blanks
_BLANKS = " \t"
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2}|.)", re.DOTALL)
#: RFC 6265, section 4.1.1: what a value may hold without quotes
_PLAIN_VALUE = re.compile(r"[\w!#$%&'()*+\-./:<=>?@\[\]^`{|}~]*", re.ASCII)
_NAME = re.compile(r"[\w!#$%&'*+\-.^`|~]+", re.ASCII)
_ATTRIBUTE = re.compile(r"[^\x00-\x1f\x7f;,\\\"]*")


def parse_cookies(field: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a ``Cookie`` field, in order.

    :param field: the value as it came, several fields joined by ``"; "``; it is
        read as UTF-8.
    """
    cookies = []
    for pair in field.decode("utf-8", "replace").split(";"):
        name, equals, value = pair.partition("=")
        name = name.strip(_BLANKS)
        if equals and name:
            value = value.strip(_BLANKS)
            cookies.append((name, _unquote(value) if value[:1] == '"' else value))
    return cookies


def _unquote(value: str) -> str:
    if len(value) < 2 or value[-1] != '"':
        return value

    octets = _ESCAPED.sub(_unescape, value[1:-1].encode())
    return octets.decode("utf-8", "replace")


def _unescape(found: re.Match[bytes]) -> bytes:
    text = found[1]
    return bytes((int(text, 8),)) if len(text) == 3 else text


def _quote(value: str) -> str:
    if _PLAIN_VALUE.fullmatch(value):
        return value

    octets = (
        chr(byte) if 32 <= byte < 127 and byte not in b'",;\\' else f"\\{byte:03o}"
        for byte in value.encode()
    )
    return '"' + "".join(octets) + '"'


def parse_set_cookie(field: str) -> tuple[str, str, bool]:
    """Return name, value and whether it is to be forgotten, of a ``Set-Cookie``
    field. The value is what goes back into ``Cookie``: still quoted."""
    pair, *attributes = field.split(";")
    name, _, value = pair.strip().partition("=")
    said: dict[str, str] = {}
    for attribute in attributes:
        key, _, text = attribute.strip().partition("=")
        said[key.lower()] = text
    if "max-age" in said:  # which counts more (RFC 6265, section 5.3)
        return name, value, said["max-age"].startswith("-") or said["max-age"] == "0"

    moment = parse_http_date(said.get("expires"))
    return name, value, moment is not None and moment.timestamp() <= time.time()


def dump_cookie(
    name: str,
    value: str = "",
    max_age: timedelta | float | None = None,
    expires: datetime | date | float | str | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = False,
    httponly: bool = False,
    samesite: str | None = None,
) -> str:
    """Return the value of a ``Set-Cookie`` field.

    :param value: any text; what a cookie cannot hold is quoted.
    :param max_age: seconds, or a timedelta, until the browser forgets it.
    :param expires: the moment it forgets it: a date, or seconds since 1970.
        Worked out from ``max_age`` when that alone is given.
    :param samesite: ``"Lax"``, ``"Strict"`` or ``"None"``.
    :raises ValueError: when name, path or domain hold what would end them.
    """
    if isinstance(max_age, timedelta):
        max_age = max_age.total_seconds()
    if expires is None and max_age is not None:
        expires = time.time() + max_age if max_age > 0 else 0
    name = str.__str__(name)  # what is checked is what is written
    _check_name(name)
    cookie = f"{name}={_quote(value)}"
    if isinstance(expires, str):
        cookie += f"; Expires={_checked('Expires', expires)}"
    elif expires is not None:
        cookie += f"; Expires={http_date(expires)}"
    if max_age is not None:
        cookie += f"; Max-Age={int(max_age)}"
    return cookie + _scope(domain, path, secure, httponly, samesite)


@functools.lru_cache(maxsize=256)
def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no cookie name: use letters, digits and !#$%&'*+-.^_`|~"
            " only (RFC 6265, section 4.1.1), for example 'theme'."
        )


@functools.lru_cache(maxsize=64)
def _scope(
    domain: str | None,
    path: str | None,
    secure: bool,
    httponly: bool,
    samesite: str | None,
) -> str:
    """Return the attributes that say where a cookie goes: few, and often the same."""
    attributes = {"Domain": domain, "Path": path, "SameSite": _same_site(samesite)}
    parts = [
        f"; {key}={_checked(key, text)}"
        for key, text in attributes.items()
        if text is not None
    ]
    return "".join(parts) + "; Secure" * bool(secure) + "; HttpOnly" * bool(httponly)


def _same_site(value: str | None) -> str | None:
    if value is None:
        return None

    if value.title() not in ("Lax", "Strict", "None"):
        raise ValueError(
            f"samesite={value!r} is not known; write 'Lax', 'Strict' or 'None'."
        )
    return value.title()


def _checked(key: str, text: str) -> str:
    # The comma in a date is the one that does no harm.
    if not _ATTRIBUTE.fullmatch(text.replace(", ", "", key == "Expires")):
        raise ValueError(
            f"The {key} {text!r} of a cookie holds a character that would end it."
            " Leave out control characters, quotes, commas and semicolons."
        )
    return text
