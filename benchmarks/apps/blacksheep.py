"""BlackSheep.

It has no jobs for ``def`` views: it calls them on the event loop, which is the
job "hello" again, and blocks every other request meanwhile.
"""

import asyncio
from functools import partial
from typing import Any

import jinja2
from blacksheep import (
    Application,
    Request,
    Response,
    Router,
    StreamedContent,
    html,
    json,
)
from blacksheep.server.rendering.jinja2 import JinjaRenderer
from blacksheep.server.responses import view
from blacksheep.settings.html import html_settings

from .. import work


def main() -> Application:
    """Return the application for most jobs."""
    loader = jinja2.FileSystemLoader(work.site() / "templates")
    html_settings.use(JinjaRenderer(loader=loader))
    app = Application(router=Router())
    get, post = app.router.get, app.router.post

    @get("/")
    async def hello():
        return html("Hello World")

    @get("/user/{int:id}")
    async def user(id: int):
        return html(str(id))

    @get("/json")
    async def record():
        return json(work.RECORD)

    @get("/rows")
    async def rows():
        return view("rows", {"rows": work.ROWS})

    @post("/echo")
    async def echo(request: Request):
        return json(await request.json())

    @post("/form")
    async def form(request: Request):
        fields: Any = await request.form()
        return html(f"{fields['name']}, {fields['email']}, {fields['text']}")

    @post("/upload")
    async def upload(request: Request):
        fields: Any = await request.form()
        file = fields["file"][0].file
        return html(f"{len(fields) - 1} fields, {work.tail(file)}")

    @get("/lines")
    async def lines():
        return Response(200, content=StreamedContent(b"text/html", work.async_chunks))

    @get("/wait")
    async def wait():
        await asyncio.sleep(0.01)
        return html("Hello World")

    app.serve_files(work.site() / "static", root_path="static")
    return app


def async_hooks() -> Application:
    """Return the application with two async functions around the view."""
    app = main()

    async def first(request: Request, handler: Any) -> Response:
        work.hooks_called["before"] += 1
        response: Response = await handler(request)
        work.hooks_called["after"] += 1
        return response

    async def second(request: Request, handler: Any) -> Response:
        work.hooks_called["before"] += 1
        response: Response = await handler(request)
        work.hooks_called["after"] += 1
        return response

    app.middlewares.append(first)
    app.middlewares.append(second)
    return app


def rules(count: int) -> Application:
    """Return an application with many rules."""
    app = Application(router=Router())

    async def plain_view():
        return html("None None")

    async def view_with_id(id: int):
        return html(f"{id} None")

    async def view_with_both(id: int, name: str):
        return html(f"{id} {name}")

    for rule in work.rules(count):
        path = rule.replace("<int:id>", "{int:id}").replace("<name>", "{name}")
        handler: Any = view_with_id if "{int:id}" in path else plain_view
        if "{name}" in path:
            handler = view_with_both
        app.router.add_get(path, handler)
    return app


ASGI: dict[str, Any] = {
    "hello": main,
    "unused": main,
    "user": main,
    "json": main,
    "async_hooks": async_hooks,
    "not_found": main,
    "not_allowed": main,
    "rules_10": partial(rules, 10),
    "rules_1000": partial(rules, 1000),
    "rules_10000": partial(rules, 10_000),
    "template": main,
    "echo": main,
    "form": main,
    "multipart": main,
    "stream": main,
    "static": main,
    "static_304": main,
    "static_big": main,
    "wait": main,
}
