"""The development server: uvicorn, here or in a child that reloads."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import socket
import sys
from asyncio import CancelledError
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import uvicorn

from . import reloading
from .debug.debugger import ENVIRONMENT, LOCAL, Debugger, new_credentials
from .loops import in_loop

if TYPE_CHECKING:
    from .app import Flask

#: what uvicorn does with more than one process, and what run() says itself
NOT_HERE = {"app", "host", "port", "reload", "workers"}
#: seconds that open requests get to finish after Ctrl-C; in a child of the
#: reloader, which keeps nobody waiting
GRACE, CHILD_GRACE = 3, 0
#: seconds that requests cut short there may clean up; plain code may be stuck
CHILD_CLEANUP_GRACE = 0.1


class Server(uvicorn.Server):
    """A uvicorn server that leaves it to us to say where it listens."""

    def _log_started_message(self, listeners: Any) -> None:
        pass


def run(
    app: Flask,
    host: str,
    port: int,
    use_reloader: bool,
    use_debugger: bool,
    extra_files: Iterable[str],
    options: dict[str, Any],
) -> None:
    """Serve an application until Ctrl-C; see :meth:`Flask.run`."""
    check_options(options)
    if in_loop():
        raise RuntimeError(
            "app.run() starts an event loop, and one runs here already. Await"
            " uvicorn.Server(uvicorn.Config(app)).serve() instead."
        )
    trusted = {*LOCAL, _bracketed(host).lower()}
    if use_debugger:
        os.environ.setdefault(ENVIRONMENT, new_credentials())
    if reloading.is_child() and use_reloader:
        sockets = reloading.adopt_sockets()
        options.setdefault("timeout_graceful_shutdown", CHILD_GRACE)
        app.cleanup_grace = min(app.cleanup_grace, CHILD_CLEANUP_GRACE)
        options.setdefault("use_colors", os.environ[reloading.COLORS] == "1")
    else:
        if use_reloader:
            reloading.check_that_it_can_reload()
        sockets = listen(host, port, options)
        supervisor = reloading.Supervisor(sockets, trusted) if use_reloader else None
        announce(app, host, sockets, use_reloader, use_debugger)
        options.setdefault("timeout_graceful_shutdown", GRACE)
        if supervisor is not None:
            sys.exit(supervisor.run(reloading.Watched(app, extra_files)))

    if use_debugger:
        app.asgi_app = Debugger(app, trusted_hosts=trusted)
    serve(app, sockets, options)


def serve(app: Flask, sockets: list[socket.socket], options: dict[str, Any]) -> None:
    """Serve an application here."""
    config = uvicorn.Config(app, **options)
    logging.getLogger("uvicorn.error").addFilter(is_news)
    try:
        Server(config).run(sockets=sockets or None)
    except KeyboardInterrupt:
        pass
    finally:
        for listener in sockets:
            listener.close()


def is_news(record: logging.LogRecord) -> bool:
    """Say whether a log record is worth reading.

    That a request was cut short by the end of the server is no failure of its own.
    """
    if record.exc_info is not None and record.exc_info[0] is CancelledError:
        return False

    # Without any grace, uvicorn says that it cancels even where nothing runs.
    return not str(record.msg).startswith("Cancel") or record.args != (0,)


def listen(host: str, port: int, options: dict[str, Any]) -> list[socket.socket]:
    """Return sockets that listen; ``localhost`` has one for each IP version.

    Nothing is opened where the options name a socket of their own.
    """
    if options.get("uds") or options.get("fd") is not None:
        return []

    sockets: list[socket.socket] = []
    for name in ("127.0.0.1", "::1") if host == "localhost" else (host,):
        try:
            family, *_, address = socket.getaddrinfo(
                name, port, type=socket.SOCK_STREAM
            )[0]
            if sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sockets.append(_listener(family, address))
        except OSError as exc:
            if not sockets:  # without IPv6, IPv4 will do
                sys.exit(f"Cannot listen on {host}:{port}: {exc.strerror or exc}.")
    return sockets


def _listener(family: int, address: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def announce(
    app: Flask,
    host: str,
    sockets: list[socket.socket],
    use_reloader: bool,
    use_debugger: bool,
) -> None:
    """Print where the application is served, and how."""
    state = "on" if app.debug else "off"
    print(f" * Serving {app.package_name!r}, debug is {state}")
    for port in sorted({listener.getsockname()[1] for listener in sockets}):
        print(f" * Running on http://{_bracketed(host)}:{port}/ (Press CTRL+C to quit)")
    if use_debugger:
        pin = os.environ[ENVIRONMENT].partition(":")[0]
        print(f" * The debugger's PIN is {pin}")
    if use_reloader:
        print(" * Reloading when files change")
    sys.stdout.flush()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def check_options(options: dict[str, Any]) -> None:
    """Refuse options that uvicorn does not know, by name.

    :raises TypeError: when there is one.
    """
    known = set(inspect.signature(uvicorn.Config).parameters) - NOT_HERE
    for name in options.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see uvicorn.Config for those."
        raise TypeError(
            f"app.run() got {name}=…, which is no option of uvicorn; {hint}"
        )
