"""The debugger around an application: it shows failures, and guards the console.

Who may type into the console could do anything this process can, so each of
these must hold: the application is in debug mode; the request names a trusted
host, which a rebound DNS name does not; it carries the secret of this process,
which only the page knows; it is no cross-site one; and the browser has shown
the PIN that the terminal printed. Wrong PINs are counted across all
connections, and ten of them lock the console.
"""

from __future__ import annotations

import contextvars
import hashlib
import hmac
import logging
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ..app import Flask
from ..calling import Calling
from ..context import request
from ..environ import build_scope
from ..exceptions import HTTPException
from ..pipeline import WITNESS
from ..target import Target, application_path
from ..wrappers import Request, Response
from ..wsgi import say
from .failures import Failure, Failures
from .inspection import (
    Viewer,
    plain_traceback,
)
from .page import render_failure

logger = logging.getLogger("asyncflask")

#: where the console's own requests go
PREFIX = "/__debugger__/"
#: wrong PINs after which the console is locked
MOST_TRIES = 10
#: seconds that a browser stays unlocked
UNLOCKED = 8 * 60 * 60
COOKIE = "asyncflask_debugger"
#: the variable that hands PIN and key on from the reloader to its children
ENVIRONMENT = "ASYNCFLASK_DEBUGGER"
LOCAL = ("localhost", "127.0.0.1", "[::1]")

_MANY = (
    "The console is off, because there is more than one worker process, and the next"
    " request may reach another. Serve with a single one to use it."
)


def new_credentials() -> str:
    """Return a new PIN and a new key for the cookie, as one text."""
    digits = f"{secrets.randbelow(10**9):09}"
    return f"{digits[:3]}-{digits[3:6]}-{digits[6:]}:{secrets.token_hex(32)}"


class Debugger:
    """An ASGI and WSGI application around yours, which shows its failures.

    ::

        app.asgi_app = Debugger(app)

    An exception that leaves the application becomes a page, for clients that
    take HTML, or a plain traceback. It is raised on afterwards, for the server to
    log. Where the response has begun already, that is all.

    :param app: the application; its :attr:`~Flask.debug` turns this on and off.
    :param pin: what unlocks the console; by default a new one, which is logged.
    :param trusted_hosts: host names that may ask for pages; those of this machine
        by default. ``".example.com"`` stands for its subdomains.
    """

    def __init__(
        self,
        app: Flask,
        pin: str | None = None,
        trusted_hosts: Iterable[str] = LOCAL,
    ) -> None:
        given, _, key = os.environ.get(ENVIRONMENT, new_credentials()).partition(":")
        #: what unlocks the console
        self.pin = pin or given
        self.trusted_hosts = tuple(trusted_hosts)
        self.failures = Failures()
        self._app = app
        self._asgi_app, self._wsgi_app = app.asgi_app, app.wsgi_app
        self._key = hashlib.sha256(f"{key}:{self.pin}".encode()).digest()
        self._secret = secrets.token_urlsafe(24)
        self._tries = 0
        self._own = self._own_application()
        if ENVIRONMENT not in os.environ and pin is None:
            logger.warning("The debugger is installed; its PIN is %s.", self.pin)

    # -------------------------------------------------------------- both protocols

    def __call__(self, scope: Any, receive: Any, send: Any = None) -> Any:
        """Serve a request: under ASGI, or with two arguments under WSGI."""
        if send is None:
            return self._serve_wsgi(scope, receive)

        return self._serve_asgi(scope, receive, send)

    async def _serve_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._app.debug:
            await self._asgi_app(scope, receive, send)
            return

        if application_path(scope).startswith(PREFIX):
            await self._own(scope, receive, send)
            return

        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        witness = Witness()
        try:
            await self._asgi_app({**scope, WITNESS: witness}, receive, watch)
        except Exception as exc:
            if not started:
                failure = witness.failure(exc)
                show = partial(self._show, failure, scope, _is_many_processes())
                await _send(await failure.call(show), scope, send)
            raise
        finally:
            witness.forget(unless=self.failures)

    def _serve_wsgi(self, environ: dict[str, Any], start_response: Any) -> Any:
        scope = build_scope(environ)
        if not self._app.debug:
            return self._wsgi_app(environ, start_response)

        if application_path(scope).startswith(PREFIX):
            return self._own(environ, start_response)

        witness = environ[WITNESS] = Witness()
        try:
            return self._wsgi_app(environ, start_response)
        except Exception as exc:
            logger.error("%s %s", scope["method"], scope["path"], exc_info=exc)
            failure = witness.failure(exc)
            many = environ.get("wsgi.multiprocess", False) or _is_many_processes()
            response = failure.call_here(partial(self._show, failure, scope, many))
            start, body = response.on_wire(scope["method"])
            say(start, partial(start_response, exc_info=sys.exc_info()))
            return [body]
        finally:
            witness.forget(unless=self.failures)

    # --------------------------------------------------------------------- the page

    def _show(self, failure: Failure, scope: Scope, many: bool) -> Response:
        """Return the page for a failure, or its traceback as text."""
        if not self._is_trusted(scope):
            return _text(
                "The application failed. The debugger does not show how, because this"
                " host name is not one of its trusted_hosts.\n",
                500,
            )
        viewer = Viewer(self._secrets(scope))
        if b"text/html" not in _field(scope, b"accept"):
            return _text(plain_traceback(failure.error, viewer), 500)

        self.failures.add(failure)
        return render_failure(
            failure,
            scope,
            viewer,
            self._secret,
            is_pinned=hmac.compare_digest(_cookie(scope), self._proof),
            console_off=_MANY if many else None,
        )

    def _secrets(self, scope: Scope) -> Iterator[str]:
        """Iterate over what must not be seen, whatever it is called."""
        app = self._app
        for key in (app.secret_key, *app.secret_key_fallbacks):
            if key:
                yield key if isinstance(key, str) else key.decode("latin-1")
        for name, value in scope["headers"]:
            text = value.decode("latin-1")
            if name in (b"authorization", b"proxy-authorization"):
                yield from (text, *text.split(None, 1)[1:])
            elif name == b"cookie":
                yield from (part.partition("=")[2].strip() for part in text.split(";"))
        yield from (self.pin, self._secret, self._proof)

    def _is_trusted(self, scope: Scope) -> bool:
        try:
            host = Target(scope).host
        except HTTPException:
            return False

        name = (
            host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        )
        return any(
            name.lower() == trusted
            or (trusted.startswith(".") and name.lower().endswith(trusted))
            for trusted in self.trusted_hosts
        ) or name.lower().endswith(".localhost")

    # ------------------------------------------------------------------ the console

    @property
    def _proof(self) -> str:
        """What a browser holds that has shown the PIN."""
        return hmac.new(self._key, b"unlocked", "sha256").hexdigest()

    def _own_application(self) -> Flask:
        own = Flask("asyncflask.debug")
        own.static_path = None
        own.before_request(self._guard)
        own.add_url_rule(f"{PREFIX}pin", "pin", self._check_pin, methods=["POST"])
        own.add_url_rule(f"{PREFIX}console", "console", self._run, methods=["POST"])
        return own

    async def _guard(self) -> Response | None:
        if not self._is_trusted(request.scope):
            return _text("This host name is not one of the trusted_hosts.", 403)

        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _text("The console takes no requests from other sites.", 403)

        given = request.headers.get("x-debugger-secret", "")
        if not hmac.compare_digest(given.encode(), self._secret.encode()):
            return _text(
                "This page is of another process, or of an earlier one that has been"
                " reloaded. Ask for the page that failed once more.",
                403,
            )
        return None

    async def _check_pin(self) -> Response:
        if self._tries >= MOST_TRIES:
            return _text(
                f"{MOST_TRIES} wrong PINs have locked the console. Restart the server.",
                429,
            )
        given = "".join(filter(str.isdigit, str(request.get_json().get("pin"))))
        expected = "".join(filter(str.isdigit, self.pin)) or self.pin
        if not hmac.compare_digest(given.encode(), expected.encode()):
            self._tries += 1
            logger.warning("A wrong PIN was given to the debugger's console.")
            return _text("That is not the PIN.", 403)

        self._tries = 0
        response = _text("unlocked")
        response.set_cookie(
            COOKIE,
            self._proof,
            max_age=UNLOCKED,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def _run(self) -> Response:
        if not hmac.compare_digest(_cookie(request.scope), self._proof):
            return _text("The console is locked. Type in the PIN.", 401)

        asked = request.get_json()
        failure = self.failures.get(str(asked.get("failure")))
        number = asked.get("frame")
        if (
            failure is None
            or not isinstance(number, int)
            or not (0 <= number < len(failure.frames))
        ):
            return _text(
                "This failure is kept no more; only the latest few are. Ask for the"
                " page that failed once more.",
                410,
            )
        return _text(await failure.run(number, str(asked.get("source", ""))))


class Witness:
    """Is told which request fails, and keeps it until it is known what for."""

    def __init__(self) -> None:
        self._ctx: Calling | None = None
        self._context: contextvars.Context | None = None
        self._error: BaseException | None = None
        self._failure: Failure | None = None

    def __call__(self, ctx: Calling, exc: BaseException) -> None:
        self._ctx, self._context, self._error = ctx, ctx.context, exc
        ctx.is_kept = True

    def failure(self, exc: BaseException) -> Failure:
        """Return an exception as a failure, with its request if that is known."""
        if exc is self._error:
            self._failure = Failure(exc, self._ctx, self._context)
        else:
            self._failure = Failure(exc)
        return self._failure

    def forget(self, unless: Failures) -> None:
        """Let go of what has failed, unless it is kept."""
        if self._failure is not None and unless.get(self._failure.id) is None:
            self._failure.forget()
        elif self._failure is None and self._ctx is not None:
            self._ctx.forget()


# ------------------------------------------------------------------- small parts


def _is_many_processes() -> bool:
    """Say whether the server was told to start several worker processes."""
    if os.environ.get("WEB_CONCURRENCY", "1") not in ("", "0", "1"):
        return True

    words = iter(sys.argv[1:])
    for word in words:
        name, _, value = word.partition("=")
        if name in ("--workers", "-w"):
            return (value or next(words, "")) not in ("", "0", "1")

    return False


def _field(scope: Scope, name: bytes) -> bytes:
    value: bytes
    for known, value in scope["headers"]:
        if known == name:
            return value

    return b""


def _cookie(scope: Scope) -> str:
    return str(Request(scope).cookies.get(COOKIE, ""))


def _text(text: str, status: int = 200) -> Response:
    return Response(text, status, mimetype="text/plain")


async def _send(response: Response, scope: Scope, send: Send) -> None:
    start, body = response.on_wire(scope["method"])
    await send(start)
    await send({"type": "http.response.body", "body": body})
