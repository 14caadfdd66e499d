"""Which URL a request asks for: taken from the scope, and put together again."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import Scope

from .converters import PATH_SAFE
from .exceptions import BadRequest
from .lazy import cached_property

#: RFC 9110, section 4.2: host and port, no more; and of what RFC 3986 would let a
#: host be made of, what names are made of
_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9_~-][A-Za-z0-9._~-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
#: RFC 9112, section 3.2.2: a target in absolute form, which many servers hand on
_ABSOLUTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_PORT = re.compile(r":[0-9]+$")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def application_path(scope: Scope) -> str:
    """Return the path below the prefix that the application is mounted at.

    The prefix, ``root_path``, is taken away once, in front, and only where a
    segment ends; a path that does not start with it is left alone.
    """
    path: str = scope["path"]
    if path[:1] != "/":
        path = _ABSOLUTE.sub("", path)
    root: str = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]

    return path or "/"


def check_host(scope: Scope, trusted: Collection[str] | None) -> None:
    """Refuse a request whose host is malformed, or not one of those trusted.

    :param trusted: see :func:`is_one_of`; None for any host.
    :raises BadRequest: says which host it was.
    """
    host = Target(scope).host
    if trusted is not None and not is_one_of(host, trusted):
        raise BadRequest(f"The host {host!r} is not served here.")

    if len(_well_formed) > 1000:
        _well_formed.intersection_update(_NO_HOST)
    _well_formed.update(value for name, value in scope["headers"] if name == b"host")


#: no Host field; some servers make it an empty one
_NO_HOST: tuple[bytes | None, ...] = (None, b"")
#: what stands for several Host fields: none that is well-formed
_SEVERAL_HOSTS = b","
#: Host fields that have been found well-formed, so that each is looked at once
_well_formed = set(_NO_HOST)


def look_over(
    scope: Scope, trusted: Collection[str] | None
) -> dict[bytes, bytes] | None:
    """Check the host, and return the fields that are about the body, if there are any.

    Every request pays for looking at each of its fields, so it is done once. The
    first of a name counts.

    :raises BadRequest: as :func:`check_host` does.
    """
    host: bytes | None = None
    about_body: dict[bytes, bytes] | None = None
    for name, value in scope["headers"]:
        if name in {
            b"host",
            b"content-length",
            b"content-type",
            b"expect",
            b"transfer-encoding",
        }:
            if name == b"host":
                host = value if host is None else _SEVERAL_HOSTS
            elif about_body is None:
                about_body = {name: value}
            else:
                about_body.setdefault(name, value)
    if trusted is not None or host not in _well_formed:
        check_host(scope, trusted)
    return about_body


def is_one_of(host: str, hosts: Collection[str]) -> bool:
    """Say whether a host, its port left out, is one of those named.

    :param hosts: names; one with a dot in front stands for the name and all its
        subdomains.
    """
    name = _PORT.sub("", host).lower().rstrip(".")
    return any(
        name == pattern.lower().lstrip(".")
        or (pattern.startswith(".") and name.endswith(pattern.lower()))
        for pattern in hosts
    )


class Target:
    """The method and the URL of a request.

    :ivar scope: the ASGI connection scope.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    @property
    def method(self) -> str:
        """The method, in capitals."""
        method: str = self.scope["method"]
        return method

    @cached_property
    def path(self) -> str:
        """The path below the application's prefix, decoded; starts with a slash."""
        return application_path(self.scope)

    @property
    def script_root(self) -> str:
        """The prefix that the application is mounted at, without a slash behind."""
        root: str = self.scope.get("root_path", "")
        return root.rstrip("/")

    @property
    def query_string(self) -> bytes:
        """Everything behind the question mark, as it was sent."""
        query: bytes = self.scope.get("query_string", b"")
        return query

    @property
    def full_path(self) -> str:
        """The path with the query behind a question mark."""
        return f"{self.path}?{self.query_string.decode('utf-8', 'replace')}"

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        scheme: str = self.scope.get("scheme", "http")
        return scheme

    @property
    def is_secure(self) -> bool:
        """True if the request came through TLS, as far as the server knows."""
        return self.scheme == "https"

    @cached_property
    def host(self) -> str:
        """Host and, if it is not the scheme's own, port.

        The ``Host`` field, or the server's address when there is none.

        :raises BadRequest: when the field is not host and port
            (RFC 9110, section 7.2).
        """
        fields = Headers(scope=self.scope).getlist("host")
        if len(fields) > 1:
            raise BadRequest(f"There are several Host fields: {fields}.")

        host = fields[0] if fields else _address(self.scope)
        found = _HOST.fullmatch(host)
        if found is None or int(found["port"] or 0) > 65535:
            raise BadRequest(f"The Host field {host!r} is not a host name and port.")

        usual = found["port"] == str(_DEFAULT_PORTS.get(self.scheme))
        return found["name"] if usual else host

    @property
    def host_url(self) -> str:
        """Scheme and host, with a slash behind."""
        return f"{self.scheme}://{self.host}/"

    @property
    def url_root(self) -> str:
        """The URL of the application itself, with a slash behind."""
        return f"{self.scheme}://{self.host}{_quoted(self.script_root)}/"

    @property
    def base_url(self) -> str:
        """The URL of the request without its query."""
        return self.url_root[:-1] + _quoted(self.path)

    @property
    def url(self) -> str:
        """The URL of the request."""
        if not self.query_string:
            return self.base_url

        return f"{self.base_url}?{self.query_string.decode('latin-1')}"


def _address(scope: Scope) -> str:
    """Return where the server listens: host and port, if it knows them.

    It may be the path of a socket as well, or nothing.
    """
    name, port = scope.get("server") or ("", None)
    host = f"[{name}]" if ":" in name else name
    if not _HOST.fullmatch(host):
        host = "localhost"
    return f"{host}:{port}" if port else host


def _quoted(path: str) -> str:
    return quote(path, safe=PATH_SAFE)
