"""The life of a request. Read this first.

:func:`respond` is the table of contents: each of its lines is a stage, and
each stage is a function below it. The stages decide; they never wait for
anything but the user's own callables, and those they reach only through
``ctx.call``. What that does is the driver's business: awaiting on the event
loop, moving to the request's worker thread, or calling right here. So the
same text serves ASGI, WSGI and code that calls a stage by hand.

Stages
------
1. *match* (before the body is read): which rule? An error is kept and raised
   in dispatch, so that hooks run for a 404 too and may look at
   ``request.endpoint``.
2. *opening*: only for applications that override ``match_request`` or
   ``open_session``. The default session is opened by whoever touches it.
3. *preprocess_request*: the before_request functions; a value that one of
   them returns is the response, and the view is not called.
4. *dispatch_request*: the view.
5. *make_response*: whatever came back becomes a response.
6. *process_response*: the session is saved, then the after_request functions
   run in the order they were registered.

An exception on the way goes to :func:`rescue`, the one door for errors, and
comes back as a response; or, without a handler, it leaves the application,
for the server to log and to answer with a plain 500. The response is
*returned*: sending it, and calling :func:`teardown` after that, is the
driver's part.

A stage that the application overrides, plain or async, stands in
:class:`Stages` in place of the default one.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import starlette.exceptions

from .context import _current, current_context, make_current
from .environ import ENVIRON
from .exceptions import HTTPException, MethodNotAllowed, RequestRedirect
from .forms import Body, Limits, limits_of, new_body, too_large
from .helpers import json_response
from .mounting import Mount, WSGIApp, buffered_response, speaks_asgi, speaks_wsgi
from .rules import Rule
from .sessions import NullSession, Session
from .sessions import save_session as default_save_session
from .target import application_path, look_over
from .wrappers import AppBody, Response, adopt_starlette

if TYPE_CHECKING:
    from starlette.types import Scope

    from .app import Flask
    from .calling import Calling

logger: logging.Logger = logging.getLogger("asyncflask")

#: methods whose requests rarely have a body, so that it must be announced
BODILESS = frozenset(("GET", "HEAD", "OPTIONS", "DELETE", "TRACE"))
#: the fields that announce a body (RFC 9112, section 6.3)
ANNOUNCING = frozenset((b"content-length", b"transfer-encoding"))
#: the fields of a body that is announced, and of no length
EMPTY_BODY = {b"content-length": b"0"}
#: digits of a length that is still a number to us
MOST_DIGITS = 18
#: where a scope, or the environ behind it, brings along who is told of a failure
WITNESS = "asyncflask.witness"
#: bytes at least that are still read of a body that was refused
DRAIN = 1 << 20

F = TypeVar("F", bound=Callable[..., Any])


async def respond(ctx: Calling, failure: Exception | None = None) -> None:
    """Lead a request that has been matched to its response.

    :param failure: why it was broken off, if it was; so that only its error is
        left to be handled.
    """
    app, stages = ctx.app, ctx.app.stages
    rv = None
    try:
        if failure is not None:
            raise failure
        if stages.opening:
            await opening(ctx)
        if stages.preprocesses:
            rv = await stages.preprocess_request(ctx)
        else:
            for function in app.before_request_funcs:
                rv = await ctx.call(function)
                if rv is not None:
                    break
        if rv is None:
            endpoint: Any = ctx.endpoint if ctx.is_clear else None
            view = app.view_functions.get(endpoint)
            if view is None or stages.dispatches:
                rv = await stages.dispatch_request(ctx)
            else:  # what the default of the stage comes to
                rv = await ctx.call(view, (), ctx.view_args)  # type: ignore[arg-type]
        if type(rv) is str and not stages.makes:  # as most are, made soonest
            response = app.response_class(rv)
        else:
            response = await stages.make_response(app, rv)
    except Exception as exc:
        response = await rescue(ctx, exc)
    try:
        if app.after_request_funcs or ctx.has_session or stages.processes:
            if type(response.body) is not bytes:
                ctx.hold(response.body)
            response = await stages.process_response(ctx, response)
    except Exception as exc:
        response = await rescue(ctx, exc)
    ctx.response = response


# ----------------------------------------------------------- the table of stages


#: the default of each stage, a method of the application
DEFAULTS: dict[str, Callable[..., Any]] = {}


def stage(method: F) -> F:
    """Register a method of the application as the default of its stage."""
    DEFAULTS[method.__name__] = method
    return method


def is_overridden(app: Flask, name: str) -> bool:
    """Say whether an application has a stage of its own in place of the default."""
    return getattr(getattr(app, name), "__func__", None) is not DEFAULTS[name]


class Stages:
    """What to call at each stage: looked up once for each application."""

    def __init__(self, app: Flask) -> None:
        self.opening: bool = is_overridden(app, "match_request") or is_overridden(
            app, "open_session"
        )
        self.opens_sessions: bool = is_overridden(app, "open_session")
        self.saves_sessions: bool = is_overridden(app, "save_session")
        self.matches: bool = is_overridden(app, "match_request")
        # True where the stage has work to do even without hooks.
        self.preprocesses: bool = is_overridden(app, "preprocess_request")
        self.processes: bool = self.saves_sessions or is_overridden(
            app, "process_response"
        )
        # True where it has another way to do so.
        self.dispatches: bool = is_overridden(app, "dispatch_request")
        self.makes: bool = is_overridden(app, "make_response")
        self.updates_templates: bool = is_overridden(app, "update_template_context")
        self.preprocess_request: Callable[..., Awaitable[Any]] = _stage_of(
            app, "preprocess_request", preprocess_request
        )
        self.dispatch_request: Callable[..., Awaitable[Any]] = _stage_of(
            app, "dispatch_request", dispatch
        )
        self.make_response: Callable[[Flask, Any], Any] = to_response
        if self.makes:
            self.make_response = _overridden_make_response
        self.process_response: Callable[[Calling, Response], Awaitable[Response]] = (
            process_response
        )
        if is_overridden(app, "process_response"):
            self.process_response = _overridden_process_response


def _stage_of(app: Flask, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    if not is_overridden(app, name):
        return default

    method = getattr(app, name)

    async def overridden(ctx: Calling, *args: Any) -> Any:
        return await ctx.call(method, args)

    return overridden


async def _overridden_make_response(app: Flask, rv: Any) -> Any:
    ctx: Any = current_context()
    try:
        return await ctx.call(app.make_response, (rv,))
    except BaseException:
        _keep_body(rv[0] if isinstance(rv, tuple) and rv else rv)
        raise


async def _overridden_process_response(ctx: Calling, response: Response) -> Response:
    method = ctx.app.process_response
    processed = await ctx.call(method, (response,))
    if not isinstance(processed, Response):
        raise TypeError(_not_returned(method, processed))

    return processed


# ------------------------------------------------------------ matching, opening


def begin(ctx: Calling) -> None:
    """Make a request the current one, and find its rule, or keep the error that says
    there is none, or that the request is not for us."""
    make_current(ctx)
    app, scope = ctx.app, ctx.scope
    method = scope["method"]
    path = application_path(scope) if scope.get("root_path") else scope["path"]
    try:
        fields = look_over(scope, app.trusted_hosts)
        if fields:
            ctx.body_fields = fields
        if fields and not ANNOUNCING.isdisjoint(fields):
            ctx.may_have_body = fields != EMPTY_BODY
        else:  # none has to be announced in HTTP/2
            ctx.may_have_body = (
                method not in BODILESS or scope.get("http_version", "1.1") >= "2"
            )
        find = app.url_map.find
        found = find(path, method) or ctx.url_adapter.match_rule()
    except HTTPException as exc:
        ctx.unmatched(without_traceback(exc))
        return
    except Exception as exc:  # a converter's own
        ctx.unmatched(exc)
        return

    rule, ctx.view_args = found
    ctx.rule, ctx.endpoint = rule, rule.endpoint
    ctx.is_clear = method != "OPTIONS"  # which may be answered for the view
    if rule.stream_body:  # whose view iterates, be there a body or not
        ctx.may_have_body = True
    if ctx.known_request is not None:  # a converter has asked for it
        ctx.known_request.adopt(ctx)


def find_mount(app: Flask, scope: Scope) -> Mount | None:
    """Return the application mounted at the longest prefix of a path."""
    path = application_path(scope)
    mounts = [mount for mount in app.mounts if mount.holds(path)]
    return max(mounts, key=lambda mount: len(mount.prefix), default=None)


def take_body(ctx: Calling, chunks: Iterable[bytes]) -> None:
    """Take in a body that is there already; an error is kept for dispatch."""
    try:
        ctx.body = expected_body(ctx)
        for chunk in chunks:
            ctx.body.feed(chunk)
        ctx.body.end()
    except HTTPException as exc:
        ctx.refuse_body(exc)


def expected_body(ctx: Calling) -> Body:
    """Return the kind of body that the header announces, ready to be fed.

    :raises RequestEntityTooLarge: when it announces too much.
    :raises BadRequest: when it cannot be read.
    """
    fields, limits = ctx.body_fields, limits_for(ctx)
    length = fields.get(b"content-length", b"")
    limit = limits.content_length
    if limit is not None and length.isdigit():
        is_huge = len(length) > MOST_DIGITS  # too long for int() to take it
        if is_huge or int(length) > limit:
            raise too_large(limit)

    return new_body(fields.get(b"content-type", b"").decode("latin-1"), limits)


def limits_for(ctx: Calling) -> Limits:
    """Return the limits for the body: the application's, or the rule's own."""
    app, length = ctx.app, setting(ctx, "max_content_length")
    return limits_of(length, app.max_form_memory_size, app.max_form_parts)


def setting(ctx: Calling, name: str) -> Any:
    """Return a setting of the rule, or where that says nothing, of the application."""
    value = ... if ctx.rule is None else getattr(ctx.rule, name)
    return getattr(ctx.app, name) if value is ... else value


async def opening(ctx: Calling) -> None:
    """Match and open the session, where the application does so itself."""
    app = ctx.app
    if app.stages.matches:
        try:
            endpoint, values = await ctx.call(app.match_request)
        except HTTPException as exc:
            ctx.rule = ctx.endpoint = ctx.view_args = None
            ctx.unmatched(exc)
        else:
            ctx.routed(endpoint, values)
    if app.stages.opens_sessions:
        ctx.session = None  # which it stays if opening it fails
        ctx.session = await ctx.call(app.open_session, (ctx.request,))


# --------------------------------------------------------------- hooks and view


async def preprocess_request(ctx: Calling) -> Any:
    """Run the before_request functions, until one of them returns a value."""
    for function in ctx.app.before_request_funcs:
        rv = await ctx.call(function)
        if rv is not None:
            return rv

    return None


def dispatch(ctx: Calling) -> Awaitable[Any]:
    """Call the view, or raise what kept the request from being one for a view."""
    if ctx.routing_exception is not None:
        raise ctx.routing_exception

    if ctx.body_error is not None:
        raise ctx.body_error

    if ctx.scope["method"] == "OPTIONS" and is_automatic(ctx.rule):
        return automatic_options(ctx)

    view = ctx.app.view_functions.get(ctx.endpoint)  # type: ignore[arg-type]
    if view is None:
        raise LookupError(
            f"The endpoint {ctx.endpoint!r} has a rule, but no view function. Add"
            f" one: app.view_functions[{ctx.endpoint!r}] = function."
        )
    return ctx.call(view, (), ctx.view_args)  # type: ignore[arg-type]


def is_automatic(rule: Rule | None) -> bool:
    """Say whether a rule wants OPTIONS to be answered for it."""
    return rule is not None and bool(rule.provide_automatic_options)


def automatic_options(ctx: Calling) -> Response:
    """Answer OPTIONS with the methods of the URL (RFC 9110, section 9.3.7)."""
    adapter, methods = ctx.url_adapter, set(ctx.rule.methods or () if ctx.rule else ())
    try:
        adapter.map.match(application_path(ctx.scope), "", adapter.subdomain())
    except MethodNotAllowed as exc:
        methods.update(exc.allowed)
    return ctx.app.response_class("", headers={"Allow": ", ".join(sorted(methods))})


async def dispatch_request(ctx: Calling) -> Any:
    """Dispatch as one who calls the stage by hand expects: errors handled."""
    try:
        return await dispatch(ctx)
    except Exception as exc:
        handled, rv = await handle_exception(ctx, exc)
        if not handled:
            raise

        return rv


# ------------------------------------------------------------- the door for errors


async def rescue(ctx: Calling, exc: Exception) -> Response:
    """Return the response for an exception; raise it if it is to leave the app."""
    app, rv = ctx.app, exc
    if app.error_handlers or not isinstance(exc, HTTPException):
        handled, rv = await handle_exception(ctx, exc)
        if not handled:
            raise exc

    if isinstance(exc, HTTPException):
        without_traceback(exc)
    made = app.stages.make_response(app, rv)
    return made if isinstance(made, Response) else await made


def without_traceback(exc: HTTPException) -> HTTPException:
    """Return an error that is an answer and no failure, less where it came from.

    The frames in there hold the request, which may hold the error. Such rings
    stay in memory until the garbage collector comes by, and 404s come in swarms.
    """
    exc.__traceback__ = exc.__context__ = None
    return exc


async def handle_exception(ctx: Calling, exc: Exception) -> tuple[bool, Any]:
    """Say whether anything handles an exception, and what it returned.

    The handler registered for the most specific class, or for the code, gets
    the exception. An HTTP error without a handler is its own page. Anything
    else goes to the handler for 500, except in debug mode.
    """
    if isinstance(exc, starlette.exceptions.HTTPException):
        exc = from_starlette(ctx.app, exc)
    if isinstance(exc, HTTPException) and exc.response is not None:
        return True, exc

    handler = find_handler(ctx.app, exc)
    if handler is not None and not isinstance(exc, RequestRedirect):
        return True, await ctx.call(handler, (exc,))

    if isinstance(exc, HTTPException):
        return True, exc

    ctx.exception = exc
    handler = ctx.app.error_handlers.get(500)
    if handler is None or ctx.app.debug:
        return False, None

    log_exception(ctx, exc)
    return True, await ctx.call(handler, (exc,))


def find_handler(app: Flask, exc: Exception) -> Callable[..., Any] | None:
    """Return the handler for an exception's code or class, nearest class first."""
    handlers = app.error_handlers
    if not handlers:
        return None

    if isinstance(exc, HTTPException) and exc.code in handlers:
        return handlers[exc.code]

    for cls in type(exc).__mro__:
        if cls in handlers:
            return handlers[cls]

    return None


def from_starlette(app: Flask, exc: starlette.exceptions.HTTPException) -> Exception:
    """Return Starlette's HTTP error as one of ours, unless its class is handled."""
    if any(cls in app.error_handlers for cls in type(exc).__mro__[:-3]):
        return exc

    ours = HTTPException(exc.detail, code=exc.status_code, headers=exc.headers)
    ours.__cause__ = exc
    return ours


def log_exception(ctx: Calling, exc: BaseException) -> None:
    """Log an exception that goes no further than this."""
    logger.error("%s failed", describe(ctx), exc_info=exc)


def report_failure(ctx: Calling, exc: BaseException) -> None:
    """Log an exception that leaves the application; the server logs the rest.

    In debug mode, whoever wants to keep the request is told.
    """
    if not isinstance(exc, Exception):
        return

    logger.error("%s failed: %s", describe(ctx), escaped(named(exc)))
    witness = ctx.scope.get(WITNESS) or ctx.scope.get(ENVIRON, {}).get(WITNESS)
    if witness is not None and ctx.app.debug:
        witness(ctx, exc)


def named(exc: BaseException) -> str:
    """Return class and text of an exception, as far as it has one."""
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception as failure:
        return f"{type(exc).__name__}, whose text raises {type(failure).__name__}"


def describe(ctx: Calling) -> str:
    """Return method and path for the log, control characters escaped."""
    return escaped(f"{ctx.scope['method']} {ctx.scope['path']}")


def escaped(text: str) -> str:
    """Return a text as one line of the log."""
    return text.encode("unicode_escape").decode("ascii")


# ------------------------------------------------------- what views may return


def to_response(app: Flask, rv: Any) -> Any:
    """Turn what a view, hook or handler returned into a response.

    The default of the stage never waits; the pipeline awaits an overridden one.

    :raises TypeError: for a value that is none; the message names the endpoint.
    """
    cls = app.response_class
    if isinstance(rv, (dict, list)):
        return json_response(cls, rv)

    if isinstance(rv, tuple):
        return _from_tuple(app, rv)

    if isinstance(rv, Response):
        return rv

    if isinstance(rv, HTTPException):
        return _from_error(app, rv)

    if isinstance(rv, _TEXT):
        return cls(rv)

    if isinstance(rv, (Iterator, AsyncIterator)):
        return cls(rv)

    adopted = adopt_starlette(rv, cls)
    if adopted is not None:
        return adopted

    if speaks_wsgi(rv):
        return run_wsgi(current_context("a WSGI application"), rv)

    if speaks_asgi(rv):
        return _from_app(cls, rv)

    raise TypeError(_not_a_response(rv))


_TEXT = (str, bytes, bytearray, memoryview)


def _from_error(app: Flask, exc: HTTPException) -> Response:
    if exc.response is not None:
        response: Response = to_response(app, exc.response)
        return response

    if type(exc).get_response is not HTTPException.get_response:
        return exc.get_response()

    return app.response_class(exc.get_body(), exc.code, exc.get_headers())


def _from_tuple(app: Flask, rv: tuple[Any, ...]) -> Response:
    """Take (body, status, headers, mimetype, content_type) apart, as 0.1 does.

    The second of two may be the header fields, as in later Flask.
    """
    if not 1 <= len(rv) <= 5:
        raise TypeError(
            f"{_culprit()} returned a tuple of {len(rv)}. It may have one to"
            " five items: (body, status, headers, mimetype, content_type)."
        )
    body, *rest = rv
    if len(rest) == 1 and isinstance(rest[0], (dict, list)):
        rest.insert(0, None)
    if isinstance(body, (str, bytes)):
        return app.response_class(body, *rest)

    response: Response = to_response(app, body)
    try:
        _add_to(response, *rest)
    except Exception:
        _keep_body(response)
        raise
    return response


def _add_to(
    response: Response,
    status: Any = None,
    headers: Any = None,
    mimetype: str | None = None,
    content_type: str | None = None,
) -> None:
    if status is not None:
        response.status = status
    if headers is not None:
        response.replace_headers(headers)
    if mimetype is not None:
        response.mimetype = mimetype
    if content_type is not None:
        response.content_type = content_type


def _keep_body(rv: Any) -> None:
    """Remember the body of what has become no response, for it to be closed."""
    body = rv.body if isinstance(rv, Response) else rv
    ctx = _current.get()
    if ctx is not None and (hasattr(body, "close") or hasattr(body, "aclose")):
        ctx.hold(body)


async def run_wsgi(ctx: Any, app: WSGIApp) -> Response:
    """Return the response of a WSGI application that a view returned."""
    args = ctx.app.response_class, app, ctx.request.environ
    response: Response = await ctx.call(buffered_response, args)
    return response


def _from_app(cls: type[Response], app: Any) -> Response:
    response = cls()
    response.raw_headers.clear()
    response.body = AppBody(app)
    return response


def _culprit() -> str:
    ctx = _current.get()
    if ctx is None or ctx.endpoint is None:
        return "An error handler or hook"

    return f"The view {ctx.endpoint!r}"


def _not_a_response(rv: Any) -> str:
    who = _culprit()
    if rv is None:
        return (
            f"{who} returned None, which is no response. Did it end without a return"
            " statement? Return text, a dict, a response, or a tuple of them."
        )
    return (
        f"{who} returned {rv!r}, of type {type(rv).__name__}. A view returns str,"
        " bytes, dict, list, a tuple, a generator, a response or an ASGI application."
    )


# ------------------------------------------------------------ after the response


async def process_response(ctx: Calling, response: Response) -> Response:
    """Save the session and run the after_request functions.

    The session is saved before them, as in 0.1, and once more at the end if
    one of them has used it.
    """
    app = ctx.app
    saved = None
    if ctx.has_session or app.stages.saves_sessions:
        rest = save_session(ctx, response)
        if rest is not None:
            await rest
        if not app.after_request_funcs:
            return response

        saved = _state(ctx.session)
    for function in app.after_request_funcs:
        response = await ctx.call(function, (response,))
        if not isinstance(response, Response):
            raise TypeError(_not_returned(function, response))
        if type(response.body) is not bytes:  # the next one may replace it
            ctx.hold(response.body)
    if ctx.has_session and _state(ctx.session) != saved:
        rest = save_session(ctx, response)
        if rest is not None:
            await rest
    return response


def _not_returned(function: Callable[..., Any], value: Any) -> str:
    return (
        f"{function!r} returned {value!r}; it must return a response. End it with:"
        " return response"
    )


def save_session(ctx: Calling, response: Response) -> Awaitable[Any] | None:
    """Save the session; return what is left to be awaited, if anything is."""
    session = ctx.session
    if not ctx.app.stages.saves_sessions:
        default_save_session(ctx.app, session, response)
    elif not isinstance(session, NullSession):
        return ctx.call(ctx.app.save_session, (session, response))
    return None


def _state(session: Any) -> tuple[bool, int] | None:
    if isinstance(session, Session):
        return session.accessed, session.changes

    return None


async def teardown(ctx: Calling, exc: BaseException | None) -> None:
    """Run the teardown functions, the last registered first, come what may."""
    interruption: BaseException | None = None
    for function in reversed(ctx.app.teardown_request_funcs):
        try:
            await ctx.call(function, (exc,))
        except GeneratorExit:
            raise
        except BaseException as failure:
            if not isinstance(failure, Exception):
                interruption = interruption or failure
            logger.error(
                "The teardown function %r failed after %s",
                function,
                describe(ctx),
                exc_info=failure,
            )
    if interruption is not None:
        raise interruption
