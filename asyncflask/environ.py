"""Between the two protocols: ASGI scopes and PEP 3333 environs.

Both functions are pure. A scope made from an environ remembers it, so
``request.environ`` answers with the very dict that a WSGI server or a
middleware filled.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.types import Scope

#: where a scope remembers the environ that it was made from
ENVIRON = "asyncflask.environ"


def _bytes(text: str) -> bytes:
    # PEP 3333: native strings carry bytes as Latin-1.
    return text.encode("latin-1", "replace")


def _text(text: str) -> str:
    return text if text.isascii() else _bytes(text).decode("utf-8", "replace")


@functools.lru_cache(maxsize=512)
def _field_name(key: str) -> bytes:
    return _bytes(key.replace("_", "-").lower())


def build_scope(environ: MutableMapping[str, Any]) -> Scope:
    """Return the ASGI scope for a WSGI environ."""
    script = _text(environ.get("SCRIPT_NAME", "")).rstrip("/")
    path = script + _text(environ.get("PATH_INFO", ""))
    headers = [
        (_field_name(key[5:]), value.encode("latin-1", "replace"))
        for key, value in environ.items()
        if key[:5] == "HTTP_"
    ]
    headers += [
        (_field_name(key), _bytes(environ[key]))
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        if environ.get(key)
    ]
    client = environ.get("REMOTE_ADDR")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").partition("/")[2],
        "method": environ.get("REQUEST_METHOD", "GET").upper(),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "path": path or "/",
        "raw_path": None,
        "query_string": _bytes(environ.get("QUERY_STRING", "")),
        "root_path": script,
        "headers": headers,
        "client": (client, _port(environ.get("REMOTE_PORT"))) if client else None,
        "server": (environ.get("SERVER_NAME", ""), _port(environ.get("SERVER_PORT"))),
        ENVIRON: environ,
    }


def _port(text: Any) -> int:
    return int(text) if str(text or "").isdecimal() else 0


def build_environ(scope: Scope, path: str, stream: Any) -> MutableMapping[str, Any]:
    """Return the WSGI environ for an ASGI scope.

    :param path: the path without the prefix that the application is mounted at.
    :param stream: the body as an open file, for ``wsgi.input``; None to leave it
        to the server's, where the scope was made from an environ.
    """
    if ENVIRON in scope:
        known: MutableMapping[str, Any] = scope[ENVIRON]
        if stream is not None:
            known["wsgi.input"] = stream
        return known

    host, port = scope.get("server") or ("localhost", None)
    client = scope.get("client") or (None, None)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": _native(scope.get("root_path", "").rstrip("/")),
        "PATH_INFO": _native(path),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or (443 if scope.get("scheme") == "https" else 80)),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": stream,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if client[0]:
        environ["REMOTE_ADDR"] = client[0]
    environ.update(_header_variables(scope["headers"]))
    return environ


def _native(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _header_variables(headers: list[tuple[bytes, bytes]]) -> Mapping[str, str]:
    variables: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            variables.setdefault(key, value.decode("latin-1"))
            continue

        key = f"HTTP_{key}"
        text = value.decode("latin-1")
        if key in variables:
            # RFC 9110, section 5.3; cookies are joined as RFC 9113, 8.2.3 says
            text = variables[key] + ("; " if key == "HTTP_COOKIE" else ", ") + text
        variables[key] = text
    return variables
