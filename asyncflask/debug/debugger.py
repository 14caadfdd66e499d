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
import re
import secrets
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote_plus

from starlette.types import Message, Receive, Scope, Send

from ..app import Flask
from ..calling import Calling
from ..context import request
from ..environ import ENVIRON, build_scope
from ..exceptions import BadRequest, HTTPException
from ..pipeline import WITNESS, escaped
from ..target import Target, application_path, is_one_of
from ..wrappers import Request, Response
from ..wsgi import say
from .failures import Failure, Failures
from .inspection import (
    Viewer,
    is_secret,
    plain_traceback,
    printable,
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
#: characters from which on the value of a cookie is no word of the language
LONG = 12
LOCAL = ("localhost", ".localhost", "127.0.0.1", "[::1]")

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
        handed_on = os.environ.get(ENVIRONMENT, "")
        if not re.fullmatch(r"[^:]+:[^:]+", handed_on):
            handed_on = new_credentials()
        given, _, key = handed_on.partition(":")
        #: what unlocks the console
        self.pin = pin or given
        self.trusted_hosts = tuple(host.lower() for host in trusted_hosts)
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
            try:
                await self._asgi_app(scope, receive, send)
            finally:
                if scope["type"] == "lifespan":
                    self.failures.clear()
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
                await _send(await self._shown(witness.failure(exc), scope), scope, send)
            raise
        finally:
            witness.forget(unless=self.failures)

    async def _shown(self, failure: Failure, scope: Scope) -> Response:
        show = partial(self._show, failure, scope, _is_many_processes())
        try:
            response: Response = await failure.call(show)
        except Exception as exc:
            logger.error("The debugger could not show a failure.", exc_info=exc)
            return _text("The application failed; its terminal says how.\n", 500)

        return response

    def _serve_wsgi(self, environ: dict[str, Any], start_response: Any) -> Any:
        if not self._app.debug:
            return self._wsgi_app(environ, start_response)

        scope = build_scope(environ)
        if application_path(scope).startswith(PREFIX):
            return self._own(environ, start_response)

        witness = environ[WITNESS] = Witness()
        try:
            return self._wsgi_app(environ, start_response)
        except Exception as exc:
            what = escaped(f"{scope['method']} {scope['path']}")
            logger.error("%s", what, exc_info=exc)
            failure = witness.failure(exc)
            many = bool(environ.get("wsgi.multiprocess")) or _is_many_processes()
            response = failure.call_here(partial(self._show, failure, scope, many))
            start, body = response.on_wire(scope["method"])
            failed = sys.exc_info()
            say(start, lambda status, fields: start_response(status, fields, failed))
            return [body]
        finally:
            witness.forget(unless=self.failures)

    # --------------------------------------------------------------------- the page

    def _show(self, failure: Failure, scope: Scope, many: bool) -> Response:
        """Return the page for a failure, or its traceback as text."""
        if not is_trusted(scope, self.trusted_hosts):
            return _text(
                "The application failed. The debugger does not show how, because this"
                " host name is not one of its trusted_hosts.\n",
                500,
            )
        viewer = Viewer(self._secrets(scope))
        if not wants_html(scope):
            return _text(plain_traceback(failure.error, viewer), 500)

        self.failures.add(failure)
        return render_failure(
            failure,
            scope,
            viewer,
            self._secret,
            is_pinned=self._is_unlocked(scope),
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
                values = (part.partition("=")[2].strip() for part in text.split(";"))
                yield from (value for value in values if len(value) >= LONG)
        for piece in scope["query_string"].decode("latin-1").split("&"):
            name, _, value = piece.partition("=")
            if is_secret(name):
                yield from (value, unquote_plus(value))
        yield from (self.pin, self._secret, self._proof)

    # ------------------------------------------------------------------ the console

    def _is_unlocked(self, scope: Scope) -> bool:
        """Say whether the browser has shown the PIN."""
        return _is_same(str(Request(scope).cookies.get(COOKIE, "")), self._proof)

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
        if not is_trusted(request.scope, self.trusted_hosts):
            return _text("This host name is not one of the trusted_hosts.", 403)

        environ = request.scope.get(ENVIRON, {})
        if environ.get("wsgi.multiprocess") or _is_many_processes():
            return _text(_MANY, 409)

        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _text("The console takes no requests from other sites.", 403)

        given = request.headers.get("x-debugger-secret", "")
        if not _is_same(given, self._secret):
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
        if not _is_same(_bare(_question().get("pin")), _bare(self.pin)):
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
        if not self._is_unlocked(request.scope):
            return _text("The console is locked. Type in the PIN.", 401)

        asked = _question()
        failure = self.failures.get(str(asked.get("failure")))
        number = asked.get("frame")
        if (
            failure is None
            or type(number) is not int
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
        if self._error is None:  # else an application inside has told already
            self._ctx, self._context, self._error = ctx, ctx.context, exc
            ctx.is_kept = True

    def failure(self, exc: BaseException) -> Failure:
        """Return an exception as a failure, with its request if that is known."""
        if exc is self._error:
            self._failure = Failure(exc, self._ctx, self._context)
        else:
            self._failure = Failure(exc)
            if self._ctx is not None:
                self._ctx.forget()
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

        if re.fullmatch(r"-w\d+", word):
            return word not in ("-w0", "-w1")

    return False


def is_trusted(scope: Scope, hosts: Collection[str]) -> bool:
    """Say whether a request names a host that is trusted.

    One without a Host names the server's address, unless that is no host either.
    """
    address = (scope.get("server") or ("localhost", None))[0]
    if not re.fullmatch(r"[\w.:-]+", address) and b"host" not in dict(scope["headers"]):
        return False

    try:
        return is_one_of(Target(scope).host, hosts)
    except HTTPException:
        return False


def wants_html(scope: Scope) -> bool:
    """Say whether a client takes HTML."""
    return any(k == b"accept" and b"text/html" in v for k, v in scope["headers"])


def _question() -> dict[str, Any]:
    """Return what the page asks.

    :raises BadRequest: when it is no JSON object.
    """
    asked = request.get_json()
    if not isinstance(asked, dict):
        raise BadRequest("The body is not a JSON object.")

    return asked


def _bare(pin: object) -> str:
    return re.sub(r"[\s-]", "", str(pin))


def _is_same(given: str, expected: str) -> bool:
    """Compare two texts in a time that does not tell where they differ."""
    return hmac.compare_digest(
        given.encode("utf-8", "backslashreplace"), expected.encode()
    )


def _text(text: str, status: int = 200) -> Response:
    return Response(printable(text), status, mimetype="text/plain")


async def _send(response: Response, scope: Scope, send: Send) -> None:
    if scope.get("http_version", "1.1") < "2":
        # The exception is raised on, and a server closes the connection for it.
        response.headers["connection"] = "close"
    start, body = response.on_wire(scope["method"])
    await send(start)
    await send({"type": "http.response.body", "body": body})
