"""Starlette."""

import asyncio
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from .. import work
from ..driving import Call


async def hello(request: Request) -> Response:
    return HTMLResponse("Hello World")


async def user(request: Request) -> Response:
    return HTMLResponse(str(request.path_params["id"]))


async def json(request: Request) -> Response:
    return JSONResponse(work.RECORD)


async def about(request: Request) -> Response:
    return HTMLResponse("About")


async def echo(request: Request) -> Response:
    return JSONResponse(await request.json())


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return HTMLResponse(f"{fields['name']}, {fields['email']}, {fields['text']}")


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        file: Any = fields["file"]
        return HTMLResponse(f"{len(fields) - 1} fields, {work.tail(file.file)}")


async def visits(request: Request) -> Response:
    session = request.session
    session["visits"] = session.get("visits", 0) + 1
    return HTMLResponse(str(session["visits"]))


def plain(request: Request) -> Response:
    return HTMLResponse("Hello World")


async def lines(request: Request) -> Response:
    return StreamingResponse(work.async_chunks(), media_type="text/html")


async def plain_lines(request: Request) -> Response:
    return StreamingResponse(work.chunks(), media_type="text/html")


async def wait(request: Request) -> Response:
    await asyncio.sleep(0.01)
    return HTMLResponse("Hello World")


async def idle(request: Request) -> Response:
    async def body():
        yield "hello\n"
        await asyncio.Event().wait()

    return StreamingResponse(body(), media_type="text/html")


def main(middleware: list[Middleware] | None = None) -> Starlette:
    """Return the application for most jobs."""
    templates = Jinja2Templates(directory=work.site() / "templates")

    async def rows(request: Request) -> Response:
        return templates.TemplateResponse(request, "rows.html", {"rows": work.ROWS})

    routes = [
        Route("/", hello),
        Route("/user/{id:int}", user),
        Route("/json", json),
        Route("/about/", about),
        Route("/rows", rows),
        Route("/echo", echo, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/visits", visits),
        Route("/plain", plain),
        Route("/lines", lines),
        Route("/plain-lines", plain_lines),
        Route("/wait", wait),
        Route("/idle", idle),
        Mount("/static", StaticFiles(directory=work.site() / "static")),
    ]
    return Starlette(routes=routes, middleware=middleware)


class Hooks(BaseHTTPMiddleware):
    """One function before and one after, as the documentation writes them."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        work.hooks_called["before"] += 1
        response: Response = await call_next(request)
        work.hooks_called["after"] += 1
        return response


def async_hooks() -> Starlette:
    """Return the application with two async functions before and two after."""
    return main(middleware=[Middleware(Hooks), Middleware(Hooks)])


def session() -> Starlette:
    """Return the application with sessions."""
    return main(middleware=[Middleware(SessionMiddleware, secret_key=work.SECRET)])


def rules(count: int) -> Starlette:
    """Return an application with many rules."""

    async def view(request: Request) -> Response:
        values = request.path_params
        return HTMLResponse(f"{values.get('id')} {values.get('name')}")

    paths = [
        rule.replace("<int:id>", "{id:int}").replace("<name>", "{name}")
        for rule in work.rules(count)
    ]
    routes = [Route(path, view, name=f"view{n}") for n, path in enumerate(paths)]
    return Starlette(routes=routes)


def build_url() -> Call:
    """Return the building of a path."""
    app = Starlette(routes=[Route("/user/{id:int}/posts/{slug}", hello, name="post")])
    return Call(lambda: app.url_path_for("post", id=42, slug="hello"))


ASGI: dict[str, Any] = {
    "hello": main,
    "unused": main,
    "user": main,
    "json": main,
    "async_hooks": async_hooks,
    "not_found": main,
    "not_allowed": main,
    "slash": main,
    "rules_10": partial(rules, 10),
    "rules_1000": partial(rules, 1000),
    "rules_10000": partial(rules, 10_000),
    "url_for": build_url,
    "template": main,
    "echo": main,
    "form": main,
    "multipart": main,
    "session": session,
    "plain": main,
    "stream": main,
    "plain_stream": main,
    "static": main,
    "static_304": main,
    "static_big": main,
    "wait": main,
    "idle": main,
}
