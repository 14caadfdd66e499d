"""Believing a reverse proxy what it says about the client.

Whoever connects may send ``X-Forwarded-*`` fields, so nothing here believes
them. Behind a proxy that sets them, and only there, wrap the application::

    from asyncflask.proxies import ProxyFix

    app.asgi_app = ProxyFix(app.asgi_app, x_for=1, x_proto=1)

Some servers do the same by themselves for proxies that they trust, such as
uvicorn with ``--proxy-headers``; let one of the two do it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from typing import Any

#: RFC 9110, section 4.2; what else a host is made of is looked at with the request
_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{1,5}))?")
_SCHEMES = {
    "http": {"http": "http", "https": "https", "ws": "http", "wss": "https"},
    "websocket": {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"},
}


class ProxyFix:
    """An ASGI or WSGI application around another one, behind reverse proxies.

    Each proxy adds a value to a field, so the one that counts is the n-th from
    the right, ``n`` being how many proxies that you run set the field. What
    stands further to the left may have been made up by the client. Zero leaves
    a field alone; so does a field with fewer values than that.

    :param app: the application, ASGI or WSGI.
    :param x_for: values of ``X-Forwarded-For``: the client's address.
    :param x_proto: values of ``X-Forwarded-Proto``: ``http`` or ``https``.
    :param x_host: values of ``X-Forwarded-Host``: what the client asked for.
    :param x_port: values of ``X-Forwarded-Port``: the port it asked at.
    :param x_prefix: values of ``X-Forwarded-Prefix``: the path that the proxy has
        taken away.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        x_for: int = 1,
        x_proto: int = 1,
        x_host: int = 0,
        x_port: int = 0,
        x_prefix: int = 0,
    ) -> None:
        self.app = app
        self._counts = {
            "for": x_for,
            "proto": x_proto,
            "host": x_host,
            "port": x_port,
            "prefix": x_prefix,
        }

    def __call__(self, scope: Any, receive: Any, send: Any = None) -> Any:
        """Serve a request: ``(scope, receive, send)`` as an ASGI 3 application,
        ``(environ, start_response)`` as a WSGI application (PEP 3333)."""
        if send is None:
            return self.app(self._fixed_environ(scope), receive)

        if scope["type"] in _SCHEMES:
            scope = self._fixed_scope(scope)
        return self.app(scope, receive, send)

    def _said(self, fields: Callable[[str], str]) -> dict[str, str]:
        """Return what the proxies say, by the last word of the field's name."""
        said = {}
        for name, count in self._counts.items():
            values = fields(name).split(",") if count else []
            if len(values) >= count > 0 and (value := values[-count].strip()):
                said[name] = value
        if not re.fullmatch(r"(/[^/\s]+)+", said.get("prefix", "").rstrip("/")):
            said.pop("prefix", None)
        return said

    def _fixed_scope(self, scope: MutableMapping[str, Any]) -> dict[str, Any]:
        headers = scope["headers"]

        def field(name: str) -> str:
            wanted = f"x-forwarded-{name}".encode()
            return b",".join(v for k, v in headers if k == wanted).decode("latin-1")

        said, fixed = self._said(field), dict(scope)
        if "for" in said:
            fixed["client"] = (said["for"], 0)
        scheme = _SCHEMES[scope["type"]].get(said.get("proto", "").lower())
        if scheme is not None:
            fixed["scheme"] = scheme
        if "host" in said or "port" in said:
            now = dict(reversed(headers)).get(b"host", b"").decode("latin-1")
            host, server = _place(said, now, scope.get("server"))
            others = [pair for pair in headers if pair[0] != b"host"]
            fixed["headers"] = [(b"host", host.encode("latin-1")), *others]
            fixed["server"] = server
        if "prefix" in said:
            prefix = said["prefix"].rstrip("/")
            fixed["root_path"] = prefix + scope.get("root_path", "")
            fixed["path"] = prefix + scope["path"]
            if scope.get("raw_path"):
                fixed["raw_path"] = prefix.encode("latin-1") + scope["raw_path"]
        return fixed

    def _fixed_environ(self, environ: MutableMapping[str, Any]) -> dict[str, Any]:
        def field(name: str) -> str:
            return str(environ.get(f"HTTP_X_FORWARDED_{name.upper()}", ""))

        said, fixed = self._said(field), dict(environ)
        if "for" in said:
            fixed["REMOTE_ADDR"] = said["for"]
        scheme = _SCHEMES["http"].get(said.get("proto", "").lower())
        if scheme is not None:
            fixed["wsgi.url_scheme"] = scheme
        if "host" in said or "port" in said:
            server = environ.get("SERVER_NAME", ""), environ.get("SERVER_PORT")
            host, (name, port) = _place(said, environ.get("HTTP_HOST", ""), server)
            fixed["HTTP_HOST"], fixed["SERVER_NAME"] = host, name
            fixed["SERVER_PORT"] = str(port or "")
        if "prefix" in said:
            fixed["SCRIPT_NAME"] = said["prefix"].rstrip("/") + environ["SCRIPT_NAME"]
        return fixed


def _place(
    said: dict[str, str], now: str, server: Any
) -> tuple[str, tuple[str, int | None]]:
    """Return the Host field, and the server's name and port, that proxies speak of.

    :param now: the Host field as it came.
    :param server: the server's name and port as it knows them.
    """
    host = said.get("host", now) or str((server or ("localhost",))[0])
    found = _HOST.fullmatch(host)
    if found is None:  # it will be refused, like one that came so
        return host, ("", None)

    port = said.get("port", found["port"] or "")
    if not re.fullmatch("[0-9]{1,5}", port):
        return found["name"], (found["name"], None)

    return f"{found['name']}:{port}", (found["name"], int(port))
