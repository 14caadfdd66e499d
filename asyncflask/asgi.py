"""The ASGI driver: from the server's scope into the pipeline, and back out.

:func:`serve` is the way of a request: match it, take in its body, lead it
through the pipeline, send what comes back, clean up. The user's code runs in
a copy of the server's context variables that ends with the request. The
server's own ``receive`` and ``send`` are awaited outside of that copy, because
a server may start its work for the *next* request from in there.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from starlette.types import Receive, Scope, Send

from . import static
from .calling import Calling
from .exceptions import BadRequest, ClientDisconnected, HTTPException
from .files import FileBody
from .forms import Limits
from .lifespan import serve_lifespan
from .mounting import Hosted, Mount, as_file
from .pipeline import (
    begin,
    describe,
    escaped,
    find_mount,
    logger,
    report_failure,
    respond,
    teardown,
    without_traceback,
)
from .receiving import take_body, unread_body
from .sending import close_bodies, send_response
from .target import check_host
from .watching import guarded, to_the_end

if TYPE_CHECKING:
    from .app import Flask


async def serve(app: Flask, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection; a request, unless the server says otherwise."""
    if scope["type"] != "http":
        await serve_other(app, scope, receive, send)
        return

    ctx = Calling(app, scope)
    ctx.context = copy_context()
    try:
        ctx.context.run(begin, ctx)
        rule = ctx.rule
        if rule is None or not rule.aside or not await step_aside(ctx, receive, send):
            if ctx.may_have_body:
                await take_body(ctx, receive)
            if app.guarded:
                if not await guarded(ctx, receive, send):
                    return
            elif (rest := ctx.start(respond(ctx))) is not None:
                await rest
            response: Any = ctx.response
            if type(response.body) is bytes:
                start, body = response.on_wire(scope["method"])
                try:
                    await send(start)
                    await send({"type": "http.response.body", "body": body})
                except OSError:  # as ASGI servers may tell (HTTP spec 2.4)
                    raise ClientDisconnected() from None
            else:
                await send_response(ctx, receive, send)
    except ClientDisconnected:
        logger.info("%s: the client has gone", describe(ctx))
    except BaseException as exc:
        ctx.exception = exc
        report_failure(ctx, exc)
        raise
    finally:
        if ctx.is_laden or app.teardown_request_funcs:
            await finish(ctx)
        ctx.closed, ctx.context = True, None  # whose variable holds the request


async def finish(ctx: Calling) -> None:
    """Close what was not sent, tear the request down, close its files, and give
    its worker back."""
    try:
        if ctx.response is not None:
            ctx.hold(ctx.response.body)
        if ctx.bodies or ctx.has_teardown:
            await to_the_end(clean_up(ctx))
    finally:
        ctx.close()
        ctx.dismiss()


async def clean_up(ctx: Calling) -> None:
    """Close what was not sent, and tear the request down, come what may."""
    try:
        if ctx.bodies:
            await ctx.carry(close_bodies(ctx))
    except BaseException as exc:
        ctx.exception = ctx.exception or exc
        raise
    finally:
        if ctx.has_teardown:
            await ctx.carry(teardown(ctx, ctx.exception))


# ------------------------------------------------------- what is not the pipeline's


async def serve_other(app: Flask, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a connection that is no request."""
    kind = scope["type"]
    if kind == "lifespan":
        await serve_lifespan(app, scope, receive, send)
    elif kind == "websocket":
        await serve_websocket(app, scope, receive, send)
    else:
        raise ValueError(
            f"The server opened a connection of type {kind!r}, which asyncflask does"
            " not know. It serves 'http' and 'lifespan' (ASGI 3)."
        )


async def serve_websocket(
    app: Flask, scope: Scope, receive: Receive, send: Send
) -> None:
    """Hand a WebSocket to the mounted application it is for, or refuse it."""
    try:
        check_host(scope, app.trusted_hosts)
        mount = find_mount(app, scope)
    except BadRequest as exc:
        logger.info("A WebSocket is refused: %s", escaped(exc.description))
        mount = None
    if mount is None or mount.is_wsgi:
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
    else:
        await mount.app(mount.scope(scope), receive, send)


async def step_aside(ctx: Calling, receive: Receive, send: Send) -> bool:
    """Let the static folder or a mounted application answer.

    False if there is no such file; the request goes on as any other then.
    """
    mount, ctx.is_aside = ctx.rule.aside, True  # type: ignore[union-attr]
    if not isinstance(mount, Mount):
        if await is_static(ctx):
            await send_response(ctx, receive, send)
            return True

        mount = find_mount(ctx.app, ctx.scope)
    if mount is None:
        ctx.is_aside = False
        return False

    if mount.is_wsgi:
        if ctx.may_have_body:
            ctx.body = unread_body(ctx, Limits(), receive)
        await ctx.carry(open_hosted(ctx, mount))
        await send_response(ctx, receive, send)
    else:
        with ctx.app.outstanding:
            await mount.app(mount.scope(ctx.scope), receive, send)
    return True


async def is_static(ctx: Calling) -> bool:
    """Answer from the static folder, if it has such a file."""
    try:
        response = static.respond(ctx)
    except HTTPException as exc:
        ctx.unmatched(without_traceback(exc))
        return False

    ctx.response, body = response, response.body
    if isinstance(body, FileBody) and body.length <= static.SMALL:
        with body.file:
            response.body = body.read_at_once()
            if response.body is None:
                response.body = await anyio.to_thread.run_sync(body.read)
    return True


async def open_hosted(ctx: Calling, mount: Mount) -> None:
    """Call a mounted WSGI application in the request's worker."""
    await ctx.to_thread()
    environ = mount.environ(ctx.request.environ)
    if ctx.body is not None:
        environ["wsgi.input"] = as_file(iter(ctx.body.stream))
    ctx.response = Hosted(mount.app, environ).response(ctx.app.response_class)
