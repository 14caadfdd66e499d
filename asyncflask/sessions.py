"""The session: a dict that the browser keeps in a signed cookie.

The cookie is Flask 3's, byte for byte: tagged JSON, compressed when that is
shorter, signed with a time stamp by itsdangerous. So a site can move over
without logging anyone out, or run beside Flask on the same secret key. It is
never pickle. What the cookie says can be read by the browser's owner; it
cannot be changed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from itsdangerous import BadData

from .signing import Signer, TaggedJSON, signer

if TYPE_CHECKING:
    from .app import Flask
    from .wrappers import Request, Response

#: RFC 6265, section 6.1: browsers take cookies of at least this many bytes
MAX_COOKIE_SIZE = 4093


class Session(dict[str, Any]):
    """A dict that knows whether it was read and whether it was changed.

    A change inside a value is not seen: after
    ``session["cart"].append(item)`` set ``session.modified = True``.

    :ivar new: True if the request brought no session that could be read.
    :ivar accessed: True if anything has looked into it.
    :ivar changes: how often it was changed.
    """

    accessed: bool = False
    changes: int = 0

    def __init__(self, *args: Any, new: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.new = new

    @property
    def modified(self) -> bool:
        """Whether it was changed, so that the response must bring it along."""
        return self.changes > 0

    @modified.setter
    def modified(self, value: bool) -> None:
        self.changes = self.changes + 1 if value else 0

    @property
    def permanent(self) -> bool:
        """Whether it outlives the browser's run; False by default.

        A permanent one ends :attr:`Flask.permanent_session_lifetime` after
        the last response that renewed it.
        """
        return bool(self.get("_permanent", False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self["_permanent"] = bool(value)

    # Sessions are mostly read with these two; the other methods follow below.
    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        return dict.__getitem__(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default when there is none."""
        self.accessed = True
        return dict.get(self, key, default)

    def __repr__(self) -> str:
        self.accessed = True  # a page may show it
        return f"<Session {dict.__repr__(self)}>"


class NullSession(Session):
    """The session of an application without a secret key: empty for good."""

    def refuse(self) -> None:
        """Say why it cannot be written to."""
        raise RuntimeError(
            "The session was written to, but the application has no secret key to"
            " sign it with. Set app.secret_key to a long random value, for example"
            " the output of: python -c 'import secrets; print(secrets.token_hex())'"
        )


def _reader(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    @functools.wraps(plain)
    def read(self: Session, *args: Any) -> Any:
        self.accessed = True
        return plain(self, *args)

    return read


def _writer(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    @functools.wraps(plain)
    def write(self: Session, *args: Any, **kwargs: Any) -> Any:
        self.accessed = True
        self.changes += 1
        return plain(self, *args, **kwargs)

    return write


def _refuser(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(dict, name))
    def refuse(self: NullSession, *args: Any, **kwargs: Any) -> Any:
        self.refuse()

    return refuse


for _name in (
    "__eq__",
    "__len__",
    "__ne__",
    "__or__",
    "__reversed__",
    "copy",
    "__contains__",
    "__iter__",
    "items",
    "keys",
    "values",
):
    setattr(Session, _name, _reader(_name))
for _name in (
    "__setitem__",
    "__delitem__",
    "__ior__",
    "clear",
    "pop",
    "popitem",
    "setdefault",
    "update",
):
    setattr(Session, _name, _writer(_name))
    setattr(NullSession, _name, _refuser(_name))


# ---------------------------------------------------------- opening and saving


def signer_for(app: Flask) -> Signer | None:
    """Return what signs an application's sessions; None without a secret key.

    The newest key signs; the fallbacks are accepted as well.
    """
    if not app.secret_key:
        return None

    older = app.secret_key_fallbacks
    return signer(app.secret_key, *reversed(older)) if older else signer(app.secret_key)


def open_session(app: Flask, request: Request) -> Session | None:
    """Return the session that the request's cookie holds.

    Empty if there is no cookie, or it is too old, altered, or not ours; None
    if the application has no secret key.
    """
    signer = signer_for(app)
    if signer is None:
        return None

    cookie = request.cookies.get(app.session_cookie_name)
    if not cookie:
        return Session(new=True)

    lifetime = int(app.permanent_session_lifetime.total_seconds())
    try:
        return Session(signer.loads(cookie, lifetime))
    except (BadData, ValueError, TypeError):
        return Session(new=True)


def save_session(app: Flask, session: Session, response: Response) -> None:
    """Put the session into the response, if it was changed.

    :raises ValueError: when the cookie would be too long for a browser.
    :raises TypeError: when it holds what cannot be kept.
    """
    if not isinstance(session, Session):
        raise TypeError(
            f"open_session returned {session!r}, which the default save_session does"
            " not know. Override save_session as well, or return a Session."
        )
    if session.accessed:
        response.vary("Cookie")
    if isinstance(session, NullSession) or not (
        session.modified or (session.accessed and session.permanent)
    ):
        return

    name = app.session_cookie_name
    response.drop_cookie(name)
    is_empty = not session
    if is_empty and session.new:
        return

    value = "" if is_empty else _signed(app, session)
    max_age = 0 if is_empty else None  # an empty one is to be forgotten
    expires = None
    if not is_empty and session.permanent:
        expires = time.time() + app.permanent_session_lifetime.total_seconds()
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        expires=expires,
        path=app.session_cookie_path,
        domain=app.session_cookie_domain,
        secure=app.session_cookie_secure,
        httponly=app.session_cookie_httponly,
        samesite=app.session_cookie_samesite,
    )


def _signed(app: Flask, session: Session) -> str:
    signer = signer_for(app)
    if signer is None:
        raise RuntimeError("app.secret_key was taken away while a session was open")

    try:
        value = signer.dumps(dict.copy(session))
    except TypeError:
        _check_each(session)
        raise
    if len(value) + len(app.session_cookie_name) + 1 > MAX_COOKIE_SIZE:
        raise ValueError(_too_long(session, len(value)))

    return value


def _check_each(session: Session) -> None:
    """Say which key holds what cannot be kept, if one alone does."""
    for key, value in session.items():
        try:
            TaggedJSON.dumps(value)
        except TypeError as exc:
            raise TypeError(f"session[{key!r}]: {exc}") from None


def _too_long(session: Session, size: int) -> str:
    sizes = {key: len(TaggedJSON.dumps(item)) for key, item in session.items()}
    biggest = sorted(sizes, key=lambda key: sizes[key], reverse=True)[:3]
    named = ", ".join(f"{key!r} ({sizes[key]} bytes)" for key in biggest)
    return (
        f"The session makes a cookie of {size} bytes, and browsers drop those over"
        f" {MAX_COOKIE_SIZE}. Its biggest keys are {named}. Keep big things on the"
        " server and only their ids in the session."
    )
