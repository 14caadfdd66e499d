"""The pages that the debugger shows; each is complete in itself.

Style and script stand in the page, and a Content-Security-Policy of its own
lets nothing else in.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from starlette.types import Scope

from ..calling import Calling
from ..target import Target
from ..wrappers import Response
from .failures import Failure
from .inspection import (
    MASK,
    Frame,
    Inspection,
    Viewer,
    is_secret,
    plain_traceback,
    printable,
    versions,
)

_FOLDER = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src"
    " 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


def render_failure(
    failure: Failure,
    scope: Scope,
    viewer: Viewer,
    secret: str,
    is_pinned: bool,
    console_off: str | None,
) -> Response:
    """Return the page for a failure.

    :param secret: what the console's requests must carry.
    :param is_pinned: True if the browser has shown the PIN already.
    :param console_off: why there is no console, if there is none.
    """
    inspection = Inspection(failure.error, viewer)
    failure.frames = inspection.live
    first = inspection.faults[0]
    frames = [frame for frame in first.frames if frame.is_own] or first.frames
    return _render(
        "page.html",
        failure=failure,
        faults=inspection.faults,
        first=first,
        place=frames[-1] if frames else None,
        method=scope["method"],
        url=_url(scope, viewer),
        tables=list(_tables(failure, scope, viewer)),
        text=plain_traceback(failure.error, viewer),
        console_off=console_off,
        is_pinned=is_pinned,
        secret=secret,
        root=quote(Target(scope).script_root),
    )


def render_notice(text: str) -> Response:
    """Return the page for a program that does not start, and says this."""
    return _render("notice.html", text=text)


def _render(name: str, **values: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    page = printable(_environment().get_template(name).render(nonce=nonce, **values))
    headers = {
        "Content-Security-Policy": _POLICY.format(nonce),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(page, 500, headers)


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True)
    environment.filters["folded"] = folded
    for name in ("css", "js"):
        environment.globals[name] = Markup((_FOLDER / f"page.{name}").read_text())
    return environment


# -------------------------------------------------------------- what it is made of


def _url(scope: Scope, viewer: Viewer) -> str:
    """Return path and query, less the values of secret arguments."""
    target = Target(scope)
    query = target.query_string.decode("latin-1")
    pieces = (piece.partition("=") for piece in query.split("&"))
    shown = (f"{k}{eq}{MASK if eq and is_secret(k) else v}" for k, eq, v in pieces)
    return viewer.mask(f"{target.path}?{'&'.join(shown)}" if query else target.path)


def _tables(
    failure: Failure, scope: Scope, viewer: Viewer
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Iterate over what there is to say besides the traceback."""
    ctx = failure.ctx
    target = Target(scope)
    rows = [("method", target.method), ("path", target.path)]
    if ctx is not None:
        rows += [
            ("rule", str(ctx.rule.rule) if ctx.rule else "none"),
            ("endpoint", str(ctx.endpoint)),
        ]
        rows += [
            (f"<{k}>", viewer.show(v, k)) for k, v in (ctx.view_args or {}).items()
        ]
    yield "Request", rows
    fields = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
    yield (
        "Header fields",
        [(k, MASK if is_secret(k) else viewer.mask(v)) for k, v in fields],
    )
    if ctx is not None:
        yield from _values(ctx, viewer)
    yield "Versions", versions()


def _values(
    ctx: Calling, viewer: Viewer
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    sources: list[tuple[str, Callable[[], Any]]] = [
        ("Query", lambda: ctx.request.args.items(multi=True)),
        ("Form", lambda: ctx.request.form.items(multi=True)),
        ("Session", lambda: ctx.session.items()),
        ("g", lambda: vars(ctx.g).items()),
    ]
    for title, source in sources:
        try:
            rows = [(str(k), viewer.show(v, str(k))) for k, v in source()]
        except Exception as exc:
            rows = [("not readable", viewer.mask(f"{type(exc).__name__}: {exc}"))]
        if rows:
            yield title, rows


class Fold(NamedTuple):
    """Frames that follow each other, all of libraries or all to be seen.

    :ivar opened: the frame that is unfolded from the start.
    """

    is_library: bool
    frames: list[Frame]
    opened: Frame | None


def folded(frames: list[Frame]) -> list[Fold]:
    """Group frames: those of libraries are folded away, but for the last of all."""
    last = frames[-1] if frames else None
    opened = next((f for f in reversed(frames) if f.is_own), last)
    groups = groupby(frames, lambda frame: not frame.is_own and frame is not last)
    return [Fold(is_library, list(group), opened) for is_library, group in groups]
