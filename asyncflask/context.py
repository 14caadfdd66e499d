"""The request context, and the proxies that lead to it.

One context variable holds one mutable :class:`RequestContext`. The drivers
bind it in a copy of the server's context that ends with the request, so that
neither it nor any other variable set meanwhile reaches the next request of
the connection; a task or thread started from a view inherits it.

Request, session and ``g`` are made when they are first touched: a view that
needs none of them pays for none of them.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from .lazy import cached_property
from .routing import MapAdapter
from .rules import Rule
from .sessions import NullSession, open_session
from .target import Target

if TYPE_CHECKING:
    from starlette.types import Scope

    from .app import Flask
    from .forms import Body
    from .sessions import Session
    from .wrappers import Request, Response

_current: ContextVar[RequestContext | None] = ContextVar(
    "asyncflask.request", default=None
)
#: make a context the current one, for as long as the :class:`contextvars.Context`
#: lasts; :meth:`RequestContext.push` is for others
make_current: Callable[[RequestContext | None], object] = _current.set

_MISSING: Any = object()


class Side(Enum):
    """Where a request is."""

    LOOP = "on the event loop"
    THREAD = "in its worker thread, carried there from the loop"
    DIRECT = "in plain code that drives it"


LOOP, THREAD, DIRECT = Side.LOOP, Side.THREAD, Side.DIRECT


class RequestGlobals:
    """A place for anything that is to last for one request; ``g`` leads to it."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default when it is not set."""
        return self.__dict__.get(name, default)

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        """Remove an attribute and return its value.

        :raises KeyError: when it is not set and no default is given.
        """
        if default is _MISSING:
            return self.__dict__.pop(name)

        return self.__dict__.pop(name, default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return an attribute; set it first if it is not set."""
        return self.__dict__.setdefault(name, default)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"g.{name} is not set in this request. Set it first, for example in a"
            f" before_request function, or read it with g.get({name!r})."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __repr__(self) -> str:
        return f"<g of {sorted(self.__dict__)}>"


class RequestContext:
    """Everything that belongs to one request.

    The drivers make one for each request. By hand, for a shell or a test,
    :meth:`Flask.request_context` and :meth:`Flask.test_request_context` do,
    and the result is used with ``with`` or ``async with``. Contexts nest.

    :ivar app: the application.
    :ivar scope: the ASGI connection scope.
    :ivar flashes: the messages once they have been taken from the session.
    :ivar rule: the matched rule, its endpoint and the values for the view;
        None when :attr:`routing_exception` says why there is none.
    """

    flashes: list[Any] | None = None
    routing_exception: Exception | None = None
    rule: Rule | None = None
    endpoint: str | None = None
    view_args: dict[str, Any] | None = None
    #: the header fields that are about the body
    body_fields: Mapping[bytes, bytes] = MappingProxyType({})
    #: False if there is none for certain
    may_have_body: bool = True
    body: Body | None = None
    #: True when the way to the view is clear: nothing is to be said in its place
    is_clear: bool = False
    #: why the body was refused
    body_error: Exception | None = None
    #: what has been made of the request, for the driver to send
    response: Response | None = None
    #: bodies of responses that are not of bytes, to be closed sent or not
    bodies: tuple[Any, ...] = ()
    #: True while the static folder or a mounted application answers; no hook runs then
    is_aside: bool = False
    #: what the request has failed with, or only the handler for 500 has handled
    exception: BaseException | None = None
    #: the contexts that were current before each push of this one
    _outer: Any = ()

    def __init__(self, app: Flask, scope: Scope) -> None:
        self.app = app
        self.scope = scope
        #: the request object, if it has been asked for
        self.known_request: Request | None = None
        #: True once anything has opened the session
        self.has_session: bool = False
        #: True once it holds what must be given back: a worker, a body
        self.is_laden: bool = False
        #: where it is
        self.side: Side = LOOP

    # ------------------------------------------------ made when first touched

    @cached_property
    def request(self) -> Request:
        """The request object, an instance of :attr:`Flask.request_class`."""
        request = self.app.request_class(self.scope)
        self.request = self.known_request = request
        request.adopt(self)
        return request

    @property
    def session(self) -> Session:
        """The session; opened when it is first touched."""
        return self._session

    @session.setter
    def session(self, session: Any) -> None:
        self.has_session = True
        self._session = NullSession(new=True) if session is None else session

    @cached_property
    def _session(self) -> Session:  # an attribute once it is open: quick to read
        self.session = self.open_session()
        return self._session

    def open_session(self) -> Any:
        """Return the session for :attr:`session`; None if there is to be none."""
        return open_session(self.app, self.request)

    @cached_property
    def g(self) -> RequestGlobals:
        """The namespace of this request."""
        return RequestGlobals()

    @cached_property
    def url_adapter(self) -> MapAdapter:
        """The routing table bound to this request: it matches and builds."""
        app = self.app
        return MapAdapter(app.url_map, Target(self.scope), app.server_name)

    # ------------------------------------------------------------ what matched

    def matched(self, rule: Rule, values: dict[str, Any]) -> None:
        """Remember the rule that the request belongs to, and its values."""
        self.rule = rule
        self.routed(rule.endpoint, values)

    def routed(self, endpoint: str, values: dict[str, Any]) -> None:
        """Remember the endpoint, here and on the request if there is one yet."""
        self.endpoint, self.view_args = endpoint, values
        self.routing_exception = None
        self._tell_request()

    def unmatched(self, error: Exception) -> None:
        """Keep the error that says why there is no view for the request."""
        self.routing_exception, self.is_clear = error, False
        self._tell_request()

    def _tell_request(self) -> None:
        if self.known_request is not None:
            self.known_request.adopt(self)

    def refuse_body(self, error: Exception) -> None:
        """Keep the error for which the view is not called."""
        self.body_error, self.is_clear = error, False

    @property
    def has_teardown(self) -> bool:
        """True if there is anything to be called when the request is over."""
        return not self.is_aside and bool(self.app.teardown_request_funcs)

    # ------------------------------------------------------------- binding it

    def push(self) -> None:
        """Make this the current context. :meth:`pop` undoes it."""
        self._outer = (_current.get(), self._outer)
        _current.set(self)

    def pop(self) -> None:
        """Make the context that was current before this one current again.

        :raises RuntimeError: when another context has been pushed meanwhile.
        """
        top = _current.get()
        if top is not self:
            raise RuntimeError(
                f"{self!r} was popped, but {top!r} is the current context."
                " Contexts nest: pop them in the reverse order of the pushes."
            )
        outer, self._outer = self._outer
        _current.set(outer)

    def hold(self, body: Any) -> None:
        """Remember the body of a response that may never be sent."""
        if type(body) is not bytes:
            self.release(body)
            self.bodies, self.is_laden = (*self.bodies, body), True

    def release(self, body: Any) -> None:
        """Leave a body to who sends it."""
        self.bodies = tuple(held for held in self.bodies if held is not body)

    def close(self) -> None:
        """Close the files that hold the body, if any."""
        if self.body is not None:
            self.body.close()

    def __repr__(self) -> str:
        return f"<RequestContext {self.scope['method']} {self.scope['path']!r}>"


class _RequestContextStack:
    """What ``_request_ctx_stack`` was in 0.1: the way to the current context."""

    @property
    def top(self) -> RequestContext | None:
        """The current context, or None."""
        return _current.get()

    def push(self, ctx: RequestContext) -> None:
        """Make a context the current one."""
        ctx.push()

    def pop(self) -> RequestContext | None:
        """Undo the last push, and return the context it was about."""
        ctx = _current.get()
        if ctx is not None:
            ctx.pop()
        return ctx


_request_ctx_stack = _RequestContextStack()


def current_context(wanted: str = "the request context") -> RequestContext:
    """Return the current context.

    :param wanted: the name to blame in the message.
    :raises RuntimeError: outside a request.
    """
    ctx = _current.get()
    if ctx is None:
        raise RuntimeError(
            f"{wanted} was used, but no request is being handled here. It works in"
            " views, hooks, templates and what they call. In a shell, script or"
            " test, enter a context first: with app.test_request_context('/'): ..."
        )
    return ctx


# ------------------------------------------------------------------- proxies


class _Proxy:
    """Stands for an attribute of the current context, whichever that is.

    Each name has a class of its own, made by :func:`_proxy`, which adds what is
    needed often.
    """

    __slots__ = ()
    _name: ClassVar[str]
    _read: ClassVar[Callable[[RequestContext], Any]]

    def _get_current_object(self) -> Any:
        """Return the object itself, to hand it to other threads or keep it."""
        cls = type(self)
        return cls._read(_current.get() or current_context(cls._name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __repr__(self) -> str:
        if _current.get() is None:
            return f"<{type(self)._name}, outside a request>"

        return repr(self._get_current_object())

    def __bool__(self) -> bool:
        return _current.get() is not None and bool(self._get_current_object())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)

    def __dir__(self) -> list[str]:
        return [] if _current.get() is None else dir(self._get_current_object())


#: what is the proxy's own inside a request
_OWN = frozenset(("_get_current_object",))

# Python looks special methods up on the type, so each needs a way of its own.
_SPECIAL: dict[str, Callable[..., Any]] = {
    "__str__": str,
    "__hash__": hash,
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "__len__": len,
    "__iter__": iter,
    "__contains__": operator.contains,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__or__": operator.or_,
    "__aiter__": lambda target: target.__aiter__(),
    "__copy__": copy.copy,
    "__reversed__": reversed,
}


def _proxy(name: str, attribute: str) -> Any:
    """Return a proxy for an attribute of the current context.

    :param name: what error messages call it.
    """
    read, current = operator.attrgetter(attribute), _current.get

    # Not __getattr__, before which Python looks here, and raises an AttributeError.
    def getattribute(self: _Proxy, wanted: str) -> Any:
        ctx = current()
        if ctx is None:
            # Only tools that look at modules ask for the names of Python's own.
            if not wanted.startswith("__") and wanted not in _OWN:
                current_context(name)
        elif wanted not in _OWN:
            return getattr(read(ctx), wanted)

        return object.__getattribute__(self, wanted)

    def forward(operation: Callable[..., Any]) -> Callable[..., Any]:
        def forwarded(self: _Proxy, *args: Any) -> Any:
            return operation(read(current() or current_context(name)), *args)

        return forwarded

    members = {
        "__slots__": (),
        "_name": name,
        "_read": read,
        "__getattribute__": getattribute,
    }
    for method, operation in _SPECIAL.items():
        members[method] = forward(operation)
    return type("_Proxy", (_Proxy,), members)()


if TYPE_CHECKING:
    current_app: Flask
    request: Request
    session: Session
    g: RequestGlobals
else:
    current_app = _proxy("current_app", "app")
    request = _proxy("request", "request")
    session = _proxy("session", "_session")
    g = _proxy("g", "g")
