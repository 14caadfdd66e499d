"""HTTP errors as data, and ``abort`` to raise them.

An :class:`HTTPException` knows a status code, a name and a description; it
is a plain Python exception, so it can be raised anywhere below a view or a
hook. The pipeline turns one that nobody caught into a response: through the
application's error handlers when there is one for it, as a small
black-and-white page otherwise.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from .wrappers import Response

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{code} {name}</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 36rem;
         margin: 18vh auto 0; padding: 0 1.5rem }}
  h1 {{ font-size: 1.6rem; margin: 0; border-bottom: 2px solid }}
  h1 small {{ font-weight: 400; padding-right: .4em }}
</style>
<h1><small>{code}</small>{name}</h1>
<p>{description}</p>
</html>
"""


class HTTPException(Exception):
    """An error that has an HTTP status code (RFC 9110, section 15).

    Raise it, or let :func:`abort` raise it; a view may also return one. To
    answer with something of your own register a handler with
    :meth:`Flask.errorhandler`, or subclass and override
    :meth:`get_description`.

    :param description: one sentence for the person who reads the page; the
        standard's own words for the code when it is left out. It is escaped.
    :param response: answer with this response instead of a page.
    :param code: the status code, for codes that have no class of their own.
    :param headers: header fields the answer needs besides its type.
    """

    #: the status code; set by each subclass
    code: int = 500

    def __init__(
        self,
        description: str | None = None,
        response: Any = None,
        *,
        code: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(description)
        if code is not None:
            self.code = code
        if description is None:
            description = _standard_description(self.code)
        #: the sentence that the page shows, not escaped
        self.description = description
        self.response = response
        self.headers: dict[str, str] = dict(headers) if headers else {}

    @property
    def name(self) -> str:
        """The standard name of the code, such as ``Not Found``."""
        return _phrase(self.code)

    def get_description(self) -> str:
        """Return the sentence that the page shows, not yet escaped."""
        return self.description

    def get_body(self) -> str:
        """Return the page: HTML, everything in it escaped."""
        return _page(self.code, self.name, self.get_description())

    def get_headers(self) -> dict[str, str]:
        """Return the header fields that belong to the error itself."""
        return self.headers

    def get_response(self) -> Response:
        """Return the error as a response: the given one, or the page."""
        # Responses are built on this module, so it cannot import them at load.
        from .wrappers import Response

        if self.response is not None:
            response: Response = self.response
            return response

        return Response(self.get_body(), self.code, self.get_headers())

    def __str__(self) -> str:
        return f"{self.code} {self.name}: {self.get_description()}"


@functools.lru_cache(maxsize=64)
def _page(code: int, name: str, description: str) -> str:
    return _PAGE.format(code=code, name=escape(name), description=escape(description))


@functools.lru_cache(maxsize=64)
def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "Unknown Error"


@functools.lru_cache(maxsize=64)
def _standard_description(code: int) -> str:
    try:
        status = HTTPStatus(code)
    except ValueError:
        return "The server answered with a status of its own."

    return f"{status.description or status.phrase}.".replace("..", ".")


class BadRequest(HTTPException):
    """400: the client sent something that cannot be understood."""

    code = 400


class BadRequestKeyError(BadRequest, KeyError):
    """400: a form field or query argument that the view asked for is missing.

    It is a ``KeyError`` as well, so ``except KeyError`` around
    ``request.form["name"]`` works as with any dictionary.
    """

    def __init__(self, key: str, source: str) -> None:
        super().__init__(f"The request has no {key!r} in its {source}.")
        self.args: tuple[Any, ...] = (key, source)  # what a copy is made with
        self.key = key


class ClientDisconnected(BadRequest):
    """400: the client left before its request was complete; nobody sees it."""


class Unauthorized(HTTPException):
    """401: the client must say who it is (RFC 9110, section 15.5.2)."""

    code = 401


class Forbidden(HTTPException):
    """403: the client may not have this."""

    code = 403


class NotFound(HTTPException):
    """404: nothing is at this URL."""

    code = 404


class MethodNotAllowed(HTTPException):
    """405: the URL exists, but not for this method.

    :param allowed: the methods it does exist for; they become the ``Allow``
        field that RFC 9110, section 15.5.6 asks for.
    """

    code = 405

    def __init__(
        self, description: str | None = None, allowed: Iterable[str] = ()
    ) -> None:
        self.allowed: list[str] = sorted(allowed)
        headers = {"Allow": ", ".join(self.allowed)} if self.allowed else None
        super().__init__(description, headers=headers)


class RequestTimeout(HTTPException):
    """408: the body did not arrive in time.

    The connection is closed (RFC 9110, section 15.5.9).
    """

    code = 408

    def __init__(self, description: str | None = None) -> None:
        super().__init__(description, headers={"Connection": "close"})


class LengthRequired(HTTPException):
    """411: nothing says where the body ends, so it cannot be read."""

    code = 411


class RequestEntityTooLarge(HTTPException):
    """413: the body, or a part of it, is over a limit of the application.

    The rest of the body is not read, so the connection is closed.
    """

    code = 413

    def __init__(self, description: str | None = None) -> None:
        super().__init__(description, headers={"Connection": "close"})


class UnsupportedMediaType(HTTPException):
    """415: the body is not of the type that the view asked for."""

    code = 415


class RequestedRangeNotSatisfiable(HTTPException):
    """416: the file has no such bytes.

    :param length: the size of the file in bytes, for ``Content-Range``.
    """

    code = 416

    def __init__(
        self, description: str | None = None, length: int | None = None
    ) -> None:
        headers = None if length is None else {"Content-Range": f"bytes */{length}"}
        super().__init__(description, headers=headers)


class InternalServerError(HTTPException):
    """500: the application failed."""

    code = 500


class ServiceUnavailable(HTTPException):
    """503: the application cannot answer now, or not in time."""

    code = 503


class RequestRedirect(HTTPException):
    """308: the routing table knows a better URL for this request.

    308 keeps method and body (RFC 9110, section 15.4.9).

    :param new_url: where to go, ready to be sent.
    """

    code = 308

    def __init__(self, new_url: str) -> None:
        super().__init__(f"The page is at {new_url}.", headers={"Location": new_url})
        self.new_url = new_url


class BuildError(LookupError):
    """No rule gives a URL for this endpoint with these values.

    The message is worked out when it is read: it names the endpoint that was
    probably meant, or the values that are missing.

    :param endpoint: the name asked for.
    :param values: the values given.
    :param method: the method asked for, if any.
    :param rules: every rule of the application, to look for near misses.
    :param refusal: why a converter would not take a value.
    """

    def __init__(
        self,
        endpoint: str,
        values: Mapping[str, Any],
        method: str | None,
        rules: Sequence[Any],
        refusal: str | None = None,
    ) -> None:
        super().__init__(endpoint, values, method)
        self._refusal = refusal
        self.endpoint = endpoint
        self.values = values
        self.method = method
        self._rules = rules

    def __str__(self) -> str:
        asked = f"Could not build a URL for endpoint {self.endpoint!r}"
        if self.values:
            asked += f" with the values {sorted(self.values)}"
        own = [rule for rule in self._rules if rule.endpoint == self.endpoint]
        return f"{asked}. {self._reason(own)}"

    def _reason(self, own: list[Any]) -> str:
        if self._refusal is not None:
            return f"A value does not suit its rule: {self._refusal}"

        if not own:
            return self._unknown_endpoint()

        if self.method and not any(rule.allows(self.method) for rule in own):
            methods = sorted({m for rule in own for m in rule.methods or ()})
            return f"Its rules do not allow {self.method}; use one of {methods}."

        missing = min((rule.missing(self.values) for rule in own), key=len)
        if missing:
            return f"Its rule needs values for {missing}; pass them by name."

        return "Its defaults differ from the values given; pass other values."

    def _unknown_endpoint(self) -> str:
        known = sorted({rule.endpoint for rule in self._rules})
        near = difflib.get_close_matches(self.endpoint, known, n=1)
        if near:
            return f"There is none of that name; did you mean {near[0]!r}?"

        return f"There is none of that name; the application has {known}."


#: the class for each status code that has one of its own
default_exceptions: dict[int, type[HTTPException]] = {
    cls.code: cls
    for cls in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        RequestTimeout,
        RequestEntityTooLarge,
        UnsupportedMediaType,
        RequestedRangeNotSatisfiable,
        InternalServerError,
        ServiceUnavailable,
    )
}


def abort(code: int | Any, description: str | None = None) -> NoReturn:
    """Leave the view or hook now, with an error or with a given response.

    ``abort(404)`` raises the exception for that code, which goes through the
    application's error handlers; ``abort(response)`` answers with exactly
    that response.

    :param code: a status code from 400 to 599, or a response object.
    :param description: one sentence for the page, in place of the standard's.
    :raises HTTPException: always, unless the code is not one.
    :raises LookupError: for a number that is no error code.
    """
    if hasattr(code, "status_code"):
        raise HTTPException(description, code, code=code.status_code)

    if not isinstance(code, int):
        raise TypeError(
            f"abort({code!r}) was called; it takes an error code or a response. Write"
            " abort(404), or abort(response)."
        )

    if not 400 <= code <= 599:
        raise LookupError(
            f"abort({code}) was called; only 400 to 599 are errors. Return a"
            " response with that status, or pass a response object to abort."
        )
    cls = default_exceptions.get(code)
    if cls is None:
        raise HTTPException(description, code=code)

    raise cls(description)
