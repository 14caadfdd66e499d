"""Requests that no client would build, and bytes on a real socket."""

from __future__ import annotations

import io
import socket
from typing import Any

from asyncflask import Flask
from asyncflask.environ import build_environ
from asyncflask.target import application_path
from asyncflask.testing import ClientResponse, Exchange, build_request

PROTOCOLS = ("asgi", "wsgi")


def ask(
    app: Flask, protocol: str, path: str, query: bytes = b"", **changes: Any
) -> ClientResponse:
    """Have an application answer a scope, or the environ that stands for it."""
    scope, _ = build_request("/", method=changes.pop("method", "GET"))
    scope = {**scope, "path": path, "query_string": query, "raw_path": None, **changes}
    if protocol == "asgi":
        return Exchange(scope, b"").run(app)

    said: list[Any] = []
    environ = build_environ(scope, application_path(scope), io.BytesIO())
    chunks: Any = app.wsgi_app(dict(environ), lambda *args: said.extend(args))
    try:
        data = b"".join(chunks)
    finally:
        getattr(chunks, "close", lambda: None)()
    fields = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in said[1]]
    return ClientResponse(int(said[0][:3]), fields, data)


def talk(url: str, request: bytes) -> tuple[int, bytes, bytes]:
    """Send bytes to a server; return status, header and body of what comes back.

    The status is 0 if nothing does.
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(request)
        try:
            while chunk := connection.recv(1 << 16):
                received += chunk
        except ConnectionResetError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head[9:12] or 0), head, body


def get(target: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    """Return a request whose response ends with its connection."""
    lines = [b"%s %s HTTP/1.1" % (method, target), b"Connection: close", *fields]
    if not any(field.lower().startswith(b"host:") for field in fields):
        lines.append(b"Host: localhost")
    return b"\r\n".join([*lines, b"", b""])
