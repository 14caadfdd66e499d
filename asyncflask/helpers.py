"""What views and templates call by name: ``url_for``, ``redirect``, ``flash``…"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from html import escape
from typing import Any, Literal, overload
from urllib.parse import quote

from .context import _current, current_context
from .json import dumps
from .wrappers import Response

logger: logging.Logger = logging.getLogger("asyncflask")

#: flashed messages that wait in a session, and characters in all of them; older ones
#: are dropped
MAX_FLASHES = 50
MAX_FLASHED_TEXT = 2000
#: RFC 3986: everything that may stand in a URL, and the percent sign
_URL_SAFE = "%!#$&'()*+,/:;=?@[]~"
_CONTROL = re.compile(r"[\x00-\x1f]")


def url_for(
    endpoint: str,
    *,
    _external: bool = False,
    _scheme: str | None = None,
    _anchor: str | None = None,
    _method: str | None = None,
    **values: Any,
) -> str:
    """Return the URL of a view: a path, with the prefix the app is mounted at.

    :param endpoint: the name of the view function, or ``"static"``.
    :param _external: with scheme and host, for mails and the like.
    :param _scheme: the scheme of an external URL; implies ``_external``.
    :param _anchor: what to put behind ``#``.
    :param _method: build for the rule that answers to this method.
    :param values: the variable parts of the rule; what is left over becomes
        the query, None is left out, a list gives several arguments.
    :raises BuildError: when no rule of that endpoint suits.
    :raises RuntimeError: outside a request.
    """
    ctx = _current.get() or current_context("url_for")
    external = _external or _scheme is not None
    url = ctx.url_adapter.build(endpoint, values, _method, external, _scheme)
    return url if _anchor is None else f"{url}#{quote(_anchor, safe=_URL_SAFE)}"


def redirect(location: str, code: int = 302) -> Response:
    """Return a response that sends the client elsewhere.

    :param location: a path or URL; taken as given, so check what a user typed.
        Characters that cannot stand in a URL are percent-encoded.
    :param code: 302 by default; 303 after a form, 301 or 308 for good.
    :raises ValueError: for a code that is no redirect, or a control character
        in the location.
    """
    if code not in (300, 301, 302, 303, 305, 307, 308):
        raise ValueError(
            f"redirect(..., {code}): that is no redirect (RFC 9110, section 15.4)."
            " Use 302, 303, 301, 307 or 308."
        )
    if _CONTROL.search(location):
        raise ValueError(
            f"redirect({location!r}): a location holds no control characters, which"
            " could split the response. Percent-encode the parts first."
        )
    url = quote(location, safe=_URL_SAFE)
    text = escape(url)
    page = (
        "<!doctype html>\n<title>Redirecting</title>\n"
        f'<p>The page is at <a href="{text}">{text}</a>.\n'
    )
    ctx = _current.get()
    cls = Response if ctx is None else ctx.app.response_class
    return cls(page, code, {"Location": url})


def jsonify(*args: Any, **kwargs: Any) -> Response:
    """Return a JSON response of one value, of a list, or of keyword arguments.

    A view may as well return the dict or list itself. Dates become HTTP dates,
    UUIDs and decimals strings, dataclasses objects.

    :raises TypeError: with both kinds of arguments, or for a value that JSON
        has no form for.
    """
    if args and kwargs:
        raise TypeError(
            "jsonify() was called with values and keywords; it makes a list of the"
            " former or an object of the latter. Pass one dict instead."
        )
    value = kwargs if not args else args[0] if len(args) == 1 else list(args)
    return json_response(current_context("jsonify").app.response_class, value)


def json_response(cls: type[Response], value: Any) -> Response:
    """Return a value as a JSON response of a class."""
    return cls(f"{dumps(value)}\n", mimetype="application/json")


def flash(message: str, category: str = "message") -> None:
    """Keep a message for the next page that the user sees.

    The template gets it with :func:`get_flashed_messages`. Of more than 50
    messages, or of more than 2000 characters, the oldest are dropped, with a warning
    in the log, so that a page that never shows them does not fill the cookie.

    :param message: the text; templates escape it.
    :param category: a word for the template, such as ``"error"``.
    """
    session = current_context("flash").session
    messages = [*session.get("_flashes", ()), (category, message)]
    size = sum(len(str(text)) for _, text in messages)
    while len(messages) > 1 and (
        len(messages) > MAX_FLASHES or size > MAX_FLASHED_TEXT
    ):
        size -= len(str(messages.pop(0)[1]))
        logger.warning(
            "More than %d flashed messages, or %d characters of them, wait to be"
            " shown; the oldest is dropped",
            MAX_FLASHES,
            MAX_FLASHED_TEXT,
        )
    session["_flashes"] = messages


@overload
def get_flashed_messages(
    with_categories: Literal[False] = False, category_filter: Collection[str] = ()
) -> list[str]: ...
@overload
def get_flashed_messages(
    with_categories: Literal[True], category_filter: Collection[str] = ()
) -> list[tuple[str, str]]: ...
@overload
def get_flashed_messages(
    with_categories: bool, category_filter: Collection[str] = ()
) -> list[str] | list[tuple[str, str]]: ...
def get_flashed_messages(
    with_categories: bool = False, category_filter: Collection[str] = ()
) -> list[Any]:
    """Take the flashed messages out of the session and return them.

    Further calls in the same request return the same messages.

    :param with_categories: return pairs of category and message.
    :param category_filter: return only messages of these categories.
    """
    ctx = current_context("get_flashed_messages")
    if ctx.flashes is None:
        session = ctx.session
        ctx.flashes = session.pop("_flashes") if "_flashes" in session else []
    chosen = [
        (category, message)
        for category, message in ctx.flashes
        if not category_filter or category in category_filter
    ]
    return chosen if with_categories else [message for _, message in chosen]
