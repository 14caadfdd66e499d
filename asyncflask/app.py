"""The application: its settings, its tables, and the decorators that fill them.

What happens to a request stands in :mod:`asyncflask.pipeline`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    MutableMapping,
)
from contextvars import copy_context
from datetime import timedelta
from types import MethodType
from typing import IO, TYPE_CHECKING, Any, TypeVar, overload

from starlette.types import ASGIApp, Receive, Scope, Send

from . import asgi, pipeline, sessions, templating, wsgi
from .calling import Calling, KindTable, answer
from .context import current_context
from .environ import build_scope
from .lazy import cached_property
from .lifespan import Outstanding, ProcessLifespan
from .mounting import Mount
from .pipeline import Stages, stage
from .routing import Map
from .rules import Rule
from .workers import WorkerPool
from .wrappers import Request, Response

if TYPE_CHECKING:
    import jinja2

    from .testing import Client

F = TypeVar("F", bound=Callable[..., Any])
Lifespan = TypeVar("Lifespan", bound=Callable[[], AsyncIterator[Any]])


#: the settings of the application or a rule that may break a view off
_GUARDS = frozenset(("view_timeout", "cancel_on_disconnect"))


def _folder_of(name: str) -> str:
    """Return the folder of a module or package, or the current one."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return os.path.dirname(os.path.abspath(file)) if file else os.getcwd()


class Flask:
    """An application: a registry of views, rules, hooks and settings.

    Make one in your main module, or in the ``__init__`` of your package::

        from asyncflask import Flask
        app = Flask(__name__)

    It is an ASGI 3 application: ``uvicorn module:app`` serves it.

    Settings are class attributes. Set them on the instance, or on a subclass.
    Views, hooks, error handlers, context processors and body generators may
    each be ``def`` or ``async def``; see :mod:`asyncflask.calling` for what
    runs where.

    :param package_name: the name of the module or package of the application,
        usually ``__name__``; templates, static files and resources are looked
        up beside it.
    """

    #: show errors and reload templates; never on where strangers come by
    debug: bool = False
    #: what ``request`` is an instance of
    request_class: type[Request] = Request
    #: what views' return values are turned into
    response_class: type[Response] = Response
    #: where the files of the folder ``static`` are served; None turns it off
    static_path: str | None = "/static"
    #: what sessions are signed with; without it they cannot be written
    secret_key: str | bytes | None = None
    #: older secret keys that sessions may still be signed with, oldest first
    secret_key_fallbacks: tuple[str | bytes, ...] | list[str | bytes] = ()
    #: options for :class:`jinja2.Environment`
    jinja_options: dict[str, Any] = {"autoescape": True}  # noqa: RUF012

    #: the host (and port) that subdomains stand in front of, and that external
    #: URLs name; None for what the client asked
    server_name: str | None = None
    #: the hosts that the application answers for, a 400 for every other; a name
    #: with a dot in front stands for itself and all its subdomains; None for any
    trusted_hosts: list[str] | tuple[str, ...] | None = None
    #: answer OPTIONS for every rule added from now on
    provide_automatic_options: bool = False

    #: the most bytes a request body may have; None for no limit
    max_content_length: int | None = 16 * 1024 * 1024
    #: the most bytes all fields of a form may have together, files left out
    max_form_memory_size: int | None = 500_000
    #: the most fields and files a form may have
    max_form_parts: int | None = 1000
    #: seconds that a client may go without sending any of a body that it owes us,
    #: before it gets a 408 (ASGI; WSGI servers have clocks of their own)
    body_timeout: float | None = None
    #: seconds until the response must be there, or at least its start: async code
    #: is cancelled then; plain code runs on, but the client gets a 503 (ASGI)
    view_timeout: float | None = None
    #: cancel async views and hooks when the client leaves before the response is
    #: there; plain code runs on. Teardown functions get the exception (ASGI)
    cancel_on_disconnect: bool = False
    #: seconds that requests may still take to clean up when the server ends, before
    #: the functions of :meth:`while_serving` end (ASGI)
    cleanup_grace: float = 10.0

    #: the most threads for plain callables, and so the most requests that may
    #: be in plain code at once; the others wait in line
    worker_threads: int = 40

    #: the name of the session's cookie
    session_cookie_name: str = "session"
    #: the path below which the browser sends it
    session_cookie_path: str = "/"
    #: the domain it is for, with its subdomains; None for this very host
    session_cookie_domain: str | None = None
    #: whether it is sent over HTTPS only
    session_cookie_secure: bool = False
    #: whether it is kept from JavaScript
    session_cookie_httponly: bool = True
    #: whether other sites' requests bring it: "Lax", "Strict", "None", or None
    session_cookie_samesite: str | None = "Lax"
    #: how long a session is accepted, and a permanent one kept by the browser
    permanent_session_lifetime: timedelta = timedelta(days=31)

    def __init__(self, package_name: str) -> None:
        #: the name the application was made with
        self.package_name = package_name
        #: the folder of that module or package
        self.root_path: str = _folder_of(package_name)
        #: view functions by endpoint; filled by :meth:`route`
        self.view_functions: dict[str, Callable[..., Any]] = {}
        #: handlers by status code or exception class; filled by
        #: :meth:`errorhandler`
        self.error_handlers: dict[int | type[Exception], Callable[..., Any]] = {}
        #: called without arguments before each view; filled by
        #: :meth:`before_request`
        self.before_request_funcs: list[Callable[..., Any]] = []
        #: called with the response after each view; filled by
        #: :meth:`after_request`
        self.after_request_funcs: list[Callable[..., Any]] = []
        #: called with the exception, or None, at the very end; filled by
        #: :meth:`teardown_request`
        self.teardown_request_funcs: list[Callable[..., Any]] = []
        #: called without arguments for each template, return what it gets;
        #: filled by :meth:`context_processor`
        self.template_context_processors: list[Callable[..., Any]] = [
            templating.default_context_processor
        ]
        #: applications below a prefix; filled by :meth:`mount`
        self.mounts: list[Mount] = []
        #: called around the serving of each process; filled by
        #: :meth:`while_serving`
        self.while_serving_funcs: list[Callable[[], AsyncGenerator[Any]]] = []
        #: all rules: iterate over it, print it, add converters to it
        self.url_map: Map = Map()
        #: the rule of the static files; it stands in the map if they are served
        self.static_rule: Rule = Rule("/")
        self._route_static()
        self._prepare_to_serve()

    def _prepare_to_serve(self) -> None:
        #: the threads for plain callables
        self.workers: WorkerPool = WorkerPool(
            lambda: self.worker_threads, "asyncflask-worker"
        )
        #: the requests that an ASGI server waits for
        self.outstanding: Outstanding = Outstanding()
        #: whether each callable is plain or async, as far as known
        self.kinds: KindTable = KindTable()
        #: the ASGI application; wrap it to put middleware around:
        #: ``app.asgi_app = Middleware(app.asgi_app)``
        self.asgi_app: ASGIApp = MethodType(asgi.serve, self)
        #: the WSGI application (PEP 3333); wrap it likewise:
        #: ``app.wsgi_app = Middleware(app.wsgi_app)``
        self.wsgi_app: Callable[..., Iterable[bytes]] = MethodType(wsgi.serve, self)
        #: the lifespan under WSGI, if there is anything in it
        self.process_lifespan: ProcessLifespan | None = None
        #: what to call at each stage: the default, or what overrides it
        self.stages: Stages = Stages(self)
        #: True if the time of views is limited, or they mind their client leaving
        self.guarded: bool = self.view_timeout is not None or self.cancel_on_disconnect
        self.__call__ = self._serve_asgi  # type: ignore[method-assign, assignment]

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "static_path":
            self._route_static()
        elif name in pipeline.DEFAULTS:
            self.stages = Stages(self)
        elif name in _GUARDS:
            self.guarded = True

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        if name in pipeline.DEFAULTS:
            self.stages = Stages(self)

    def _route_static(self) -> None:
        if self.static_rule in self.url_map:
            self.url_map.remove(self.static_rule)
        path = f"{(self.static_path or '').rstrip('/')}/<path:filename>"
        self.static_rule = Rule(path, endpoint="static", methods=["GET"])
        self.static_rule.aside = True
        if self.static_path is not None:
            self.url_map.add(self.static_rule)

    @property
    def static_folder(self) -> str:
        """The folder whose files are served below :attr:`static_path`."""
        return f"{self.root_path}{os.sep}static"

    # ------------------------------------------------------------ registration

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        """Connect a rule to an endpoint, as :meth:`route` does.

        ::

            app.add_url_rule("/", "index")
            app.view_functions["index"] = index

        :param rule: the rule, such as ``/user/<int:id>``; see :meth:`route`.
        :param endpoint: its name for ``url_for``; the name of the view by
            default.
        :param view_func: the view, if it is to be registered as well.
        :param options: what :class:`~asyncflask.rules.Rule` takes.
        :raises ValueError: when the endpoint has another view, or the rule is
            malformed.
        :raises LookupError: when the rule wants an unknown converter.
        """
        if endpoint is None:
            if view_func is None:
                raise TypeError(
                    f"add_url_rule({rule!r}) got neither endpoint nor view_func, so"
                    " the rule leads nowhere. Pass the endpoint as second argument."
                )
            endpoint = getattr(view_func, "__name__", None)
        if endpoint is None:
            raise TypeError(
                f"{view_func!r} has no name to serve as the endpoint of {rule!r}. Pass"
                " one: endpoint='…'."
            )
        options = {"methods": ("GET",), **options}
        self._add_options(options)
        if view_func is not None:
            self._add_view(endpoint, view_func)
        self.url_map.add(Rule(rule, endpoint=endpoint, **options))
        self.guarded = self.guarded or not _GUARDS.isdisjoint(options)

    def _add_options(self, options: dict[str, Any]) -> None:
        methods = options["methods"]
        if methods is None or isinstance(methods, str):
            return

        methods = options["methods"] = [method.upper() for method in methods]
        if "OPTIONS" in methods:
            return

        automatic = options.get("provide_automatic_options")
        if automatic or (automatic is None and self.provide_automatic_options):
            options["provide_automatic_options"] = True
            options["methods"] = [*methods, "OPTIONS"]

    def _add_view(self, endpoint: str, view: Callable[..., Any]) -> None:
        known = self.view_functions.get(endpoint)
        if known is not None and known is not view:
            raise ValueError(
                f"The endpoint {endpoint!r} leads to {known!r} already, so {view!r}"
                " would never be called. Rename one, pass endpoint='…' to route, or"
                " put functools.wraps into the decorator that renamed it."
            )
        self.view_functions[endpoint] = view

    def route(self, rule: str, **options: Any) -> Callable[[F], F]:
        """Register a view for a rule::

            @app.route("/user/<int:id>")
            async def user(id):
                ...

        A variable part is written ``<name>`` or ``<converter:name>`` and passed
        to the view by name. The converters:

        ==================  =====================================================
        ``string``          text without a slash, the default; takes ``length``,
                            ``minlength``, ``maxlength``
        ``int``             a whole number; ``min``, ``max``, ``signed``,
                            ``fixed_digits``
        ``float``           a number with a point; ``min``, ``max``, ``signed``
        ``path``            text with slashes
        ``any(a, b)``       one of these words
        ``uuid``            a UUID
        ==================  =====================================================

        A rule that ends in a slash redirects there from the URL without it; one
        that does not is not found with one.

        :param methods: the methods it answers to, GET by default; HEAD comes
            with GET.
        :param endpoint: the name for ``url_for``; that of the view by default.
        :param defaults: values for the view that the URL does not say.
        :param strict_slashes: False to accept the URL with and without a slash.
        :param redirect_to: where to go instead of calling the view.
        :param subdomain: the subdomain it belongs to.
        :param stream_body: True to leave the body unread; the view iterates
            over ``request.stream``.
        :param max_content_length: the limit for the body of this rule. As with
            the next three, the application has a setting of this name.
        :param body_timeout: seconds that the client may keep the body back.
        :param view_timeout: seconds until the response must be there.
        :param cancel_on_disconnect: True to end the view when the client leaves.
        :param options: what else :class:`~asyncflask.rules.Rule` takes.
        """

        endpoint = options.pop("endpoint", None)

        def decorator(function: F) -> F:
            self.add_url_rule(rule, endpoint, function, **options)
            return function

        return decorator

    def errorhandler(
        self, code_or_exception: int | type[Exception]
    ) -> Callable[[F], F]:
        """Register a handler for a status code or a class of exceptions::

            @app.errorhandler(404)
            def not_found(error):
                return "This page does not exist", 404

        It gets the exception and returns what a view may return; the status is
        200 unless it says another. The handler for the most specific class is
        called; that for 500 gets any exception without one, but not in debug mode.

        :param code_or_exception: a status code, or a class of exceptions.
        :raises TypeError: for anything else.
        """
        if not isinstance(code_or_exception, int) and not (
            isinstance(code_or_exception, type)
            and issubclass(code_or_exception, Exception)
        ):
            raise TypeError(
                f"errorhandler({code_or_exception!r}): that is neither a status code"
                " nor a class of exceptions. Write errorhandler(404) or"
                " errorhandler(ValueError)."
            )

        def decorator(function: F) -> F:
            self.error_handlers[code_or_exception] = function
            return function

        return decorator

    def before_request(self, f: F) -> F:
        """Register a function to call before each view, also when there is none.

        It is called without arguments, in the order of registration, for a 404 too;
        not for static files and mounted applications. If it returns a value, that
        is the response, and neither the next one nor the view is called.
        """
        self.before_request_funcs.append(f)
        return f

    def after_request(self, f: F) -> F:
        """Register a function to call with each response.

        It returns the response to send: the same one, or another. They run in the
        order they were registered, behind the saving of the session; also for the
        response of an error handler, but not for an exception that leaves the
        application.
        """
        self.after_request_funcs.append(f)
        return f

    def teardown_request(self, f: F) -> F:
        """Register a function to call at the very end of each request.

        It runs when the body has been sent, or the request has failed, in the
        same thread as the other plain functions; the last registered first. It
        gets the exception that nothing handled, or None.
        """
        self.teardown_request_funcs.append(f)
        return f

    def context_processor(self, f: F) -> F:
        """Register a function that returns a dict of names for every template::

            @app.context_processor
            def user():
                return {"user": g.user}

        It is called without arguments for each template that is rendered. Such a
        name wins over one passed to ``render_template``, as in 0.1.
        """
        self.template_context_processors.append(f)
        return f

    def while_serving(self, f: Lifespan) -> Lifespan:
        """Register an async generator to run around the serving of each process::

            @app.while_serving
            async def database():
                app.pool = await asyncpg.create_pool(...)
                yield
                await app.pool.close()

        What stands before its ``yield`` is done at the start, what follows at the
        end. Under WSGI the first request starts it, on the loop that all async
        views of the process run on.

        :raises TypeError: for anything but an ``async def`` with a ``yield``.
        """
        function: Callable[[], Any] = f
        if not inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{f!r} cannot be run around the serving: it is not an async generator"
                " function. Write async def, with one yield in it."
            )
        self.while_serving_funcs.append(function)
        self.process_lifespan = self.process_lifespan or ProcessLifespan(self)
        return f

    def mount(self, prefix: str, app: ASGIApp | Callable[..., Any]) -> None:
        """Let another application answer below a prefix.

        ::

            app.mount("/old", the_flask_application)
            app.mount("/", the_django_application)  # what no rule here matches

        Rules with more literal text in front win over it, so that an old site can
        be moved over view by view. Our hooks and handlers do not run; the prefix
        is its ``root_path`` or ``SCRIPT_NAME``. WSGI applications run in our
        worker threads; the lifespan of ASGI ones is part of ours.

        :param prefix: a path; it ends with a segment, so ``/old`` is not ``/older``.
        :param app: an ASGI or WSGI application.
        :raises ValueError: when the prefix is not a path.
        :raises TypeError: when the application is neither.
        """
        mount = Mount(prefix, app)
        for path in filter(None, (mount.prefix, f"{mount.prefix}/<_rest:rest>")):
            rule = Rule(path, endpoint=f"mount {mount.prefix}")
            rule.aside = mount
            self.url_map.add(rule)
        self.mounts.append(mount)
        if not mount.is_wsgi:
            self.process_lifespan = self.process_lifespan or ProcessLifespan(self)

    # ------------------------------------------- the stages: override what you need

    @stage
    def match_request(self) -> Any:
        """Return endpoint and values for the current request, and remember them.

        Override it to match in another way. Called by hand it gives plain code
        the value and a coroutine an awaitable, like every stage.

        :raises HTTPException: when nothing matches.
        """
        ctx = self._context("match_request")
        found = ctx.url_adapter.match_rule()
        ctx.matched(*found)
        return answer((found[0].endpoint, found[1]))

    @stage
    def open_session(self, request: Request) -> Any:
        """Return the session for a request; None if there is to be none.

        The default reads the signed cookie, and is only called when something
        touches the session. An overridden one is called for every request.
        """
        return answer(sessions.open_session(self, request))

    @stage
    def save_session(self, session: Any, response: Response) -> Any:
        """Put the session into a response, if it needs to be.

        Called before the after_request functions, and again behind them if one
        of them has used the session. An overridden one is called for every
        session that is not None.
        """
        sessions.save_session(self, session, response)
        return answer(None)

    @stage
    def preprocess_request(self) -> Any:
        """Call the before_request functions until one returns a value.

        That value, or None, is what it returns. Override it to do something in
        front of all hooks or behind them.
        """
        ctx = self._context("preprocess_request")
        return ctx.by_hand(pipeline.preprocess_request(ctx))

    @stage
    def dispatch_request(self) -> Any:
        """Call the view for the current request and return what it returns.

        Errors are handled, and what their handler returned is the value; pass it
        on to :meth:`make_response`. Override it to do something around each view.

        :raises Exception: whatever nothing handles.
        """
        ctx = self._context("dispatch_request")
        if ctx.endpoint is None and ctx.routing_exception is None:
            pipeline.begin(ctx)
        return ctx.by_hand(pipeline.dispatch_request(ctx))

    @stage
    def make_response(self, rv: Any) -> Any:
        """Turn what a view may return into a response.

        ====================  ===================================================
        a response            is returned as it is
        str, bytes            is the body
        dict, list            is sent as JSON
        tuple                 ``(body, status, headers, mimetype)``, or
                              ``(body, headers)``
        generator, iterator   plain or async, is streamed
        Starlette response    keeps its status, header fields and way of sending
        ASGI application      is called
        WSGI application      is called in the request's worker, and buffered
        ====================  ===================================================

        :param rv: what the view, hook or handler returned.
        :raises TypeError: for anything else, None included.
        """
        made = pipeline.to_response(self, rv)
        if isinstance(made, Response):
            return made

        return self._context("make_response").by_hand(made)

    @stage
    def process_response(self, response: Response) -> Any:
        """Save the session, call the after_request functions, and return the
        response to send.

        Override it to change all responses, before the hooks or after them.

        :raises TypeError: when one of the functions returns no response.
        """
        ctx = self._context("process_response")
        return ctx.by_hand(pipeline.process_response(ctx, response))

    @stage
    def update_template_context(self, context: dict[str, Any]) -> Any:
        """Add to a template's context, in place, what the processors return.

        Called before each template is rendered.

        :param context: the names that the template will have at hand.
        """
        ctx = self._context("update_template_context")
        return ctx.by_hand(templating.update_context(ctx, context))

    def create_jinja_loader(self) -> Any:
        """Return what loads templates: those of the folder ``templates``.

        Called once, before the first one is rendered. Override it to look elsewhere:
        it returns a :class:`jinja2.BaseLoader`.
        """
        return templating.folder_loader(self)

    def _context(self, wanted: str) -> Calling:
        ctx = current_context(f"app.{wanted}()")
        if not isinstance(ctx, Calling):
            raise TypeError(f"{ctx!r} was not made by app.request_context()")

        return ctx

    # --------------------------------------------------------------- resources

    @cached_property
    def jinja_env(self) -> jinja2.Environment:
        """The Jinja environment, made when it is first used."""
        return templating.new_environment(self)

    def open_resource(self, resource: str) -> IO[bytes]:
        """Open a file that lies beside the application's module, for reading::

            with app.open_resource("schema.sql") as f:
                db.executescript(f.read().decode())

        :param resource: its path below :attr:`root_path`, with forward slashes.
        :raises OSError: when there is no such file.
        """
        return open(os.path.join(self.root_path, resource), "rb")

    # ---------------------------------------------------------------- contexts

    def request_context(self, scope_or_environ: MutableMapping[str, Any]) -> Calling:
        """Return a context for a request, to be entered by hand.

        ::

            with app.request_context(scope):
                url_for("index")

        :param scope_or_environ: an ASGI HTTP scope, or a WSGI environ.
        """
        is_environ = "REQUEST_METHOD" in scope_or_environ
        scope = build_scope(scope_or_environ) if is_environ else scope_or_environ
        ctx = Calling(self, scope)
        copy_context().run(pipeline.begin, ctx)
        length = str(scope_or_environ.get("CONTENT_LENGTH"))
        if is_environ and length.isdecimal():
            body = scope_or_environ["wsgi.input"].read(int(length))
            pipeline.take_body(ctx, [body])
        return ctx

    def test_request_context(
        self,
        path: str = "/",
        base_url: str | None = None,
        query_string: Any = None,
        **options: Any,
    ) -> Calling:
        """Return a context for a made-up request, to be entered by hand.

        ::

            with app.test_request_context("/?page=2"):
                print(request.args["page"])

        No hook is called but those of the teardown, at the end.

        :param path: the path, with or without a query.
        :param base_url: scheme, host and prefix.
        :param query_string: the query, if it is not in the path.
        :param options: what :func:`asyncflask.testing.build_request` takes
            besides: ``method data headers json content_type``.
        """
        from .testing import build_request

        scope, body = build_request(path, base_url, query_string, **options)
        ctx = self.request_context(scope)
        pipeline.take_body(ctx, [body])
        return ctx

    def test_client(self) -> Client:
        """Return a client for tests: it talks to the application directly::

            assert app.test_client().get("/").status_code == 200

        Each has cookies of its own.
        """
        from .testing import Client

        return Client(self)

    # ----------------------------------------------------------------- serving

    def run(
        self,
        host: str = "localhost",
        port: int = 5000,
        debug: bool | None = None,
        *,
        use_reloader: bool | None = None,
        use_debugger: bool | None = None,
        extra_files: Iterable[str] = (),
        **options: Any,
    ) -> None:
        """Serve the application for its developer, with uvicorn, until Ctrl-C.

        In debug mode the server reloads when a module or template changes, and
        an unhandled exception is shown by the debugger. For production start a
        server from outside: ``uvicorn module:app``.

        :param host: the name or address to listen on; ``"0.0.0.0"`` for all.
        :param port: the port; 0 for any that is free.
        :param debug: sets :attr:`debug`.
        :param use_reloader: reload on changes; by default as :attr:`debug` says.
        :param use_debugger: show failures; by default as :attr:`debug` says.
        :param extra_files: more files to reload for.
        :param options: what :class:`uvicorn.Config` takes.
        :raises TypeError: for an option that it does not know.
        :raises RuntimeError: where an event loop runs already, and where the
            program cannot be run once more for the reloader.
        """
        from .serving import run

        if debug is not None:
            self.debug = debug
        reloads = self.debug if use_reloader is None else use_reloader
        debugs = self.debug if use_debugger is None else use_debugger and self.debug
        run(self, host, port, reloads, debugs, extra_files, options)

    @overload
    def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]: ...

    @overload
    def __call__(
        self, scope: dict[str, Any], receive: Callable[..., Any]
    ) -> Iterable[bytes]: ...

    def __call__(self, scope: Any, receive: Any, send: Any = None) -> Any:
        """Serve a request: ``(scope, receive, send)`` as an ASGI 3 application,
        ``(environ, start_response)`` as a WSGI application (PEP 3333)."""
        if send is None:
            return self.wsgi_app(scope, receive)

        serve = self.asgi_app
        return serve(scope, receive, send)

    async def _serve_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Servers look at ``app.__call__`` to tell an ASGI application; they call
        # the method of the class, which takes both protocols.
        await self.asgi_app(scope, receive, send)
