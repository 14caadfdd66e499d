"""Falcon, its ASGI side."""

import asyncio
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any

import falcon
import jinja2
from falcon.asgi import App, Request, Response

from .. import work


class Hello:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.text = "Hello World"


class User:
    async def on_get(self, req: Request, resp: Response, id: int) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.text = str(id)


class Json:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = work.RECORD


class Rows:
    """Falcon has no templates of its own; this is Jinja itself."""

    def __init__(self) -> None:
        loader = jinja2.FileSystemLoader(work.site() / "templates")
        self.env = jinja2.Environment(loader=loader, autoescape=True)

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.text = self.env.get_template("rows.html").render(rows=work.ROWS)


class Echo:
    async def on_post(self, req: Request, resp: Response) -> None:
        resp.media = await req.get_media()


class Form:
    async def on_post(self, req: Request, resp: Response) -> None:
        fields = await req.get_media()
        resp.content_type = falcon.MEDIA_HTML
        resp.text = f"{fields['name']}, {fields['email']}, {fields['text']}"


class Upload:
    """Falcon leaves it to the view to keep a file; this keeps it as others do."""

    async def on_post(self, req: Request, resp: Response) -> None:
        fields = {}
        with SpooledTemporaryFile(max_size=1 << 20) as file:
            async for part in await req.get_media():
                if part.filename:
                    async for chunk in part.stream:
                        file.write(chunk)
                else:
                    fields[part.name] = await part.text
            resp.content_type = falcon.MEDIA_HTML
            resp.text = f"{len(fields)} fields, {work.tail(file)}"


class Plain:
    """Falcon calls only coroutines; plain code is sent to a thread by hand."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.text = await falcon.util.sync_to_async(self.plain)

    def plain(self) -> str:
        return "Hello World"


class Lines:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.stream = work.async_chunks()


class Wait:
    async def on_get(self, req: Request, resp: Response) -> None:
        await asyncio.sleep(0.01)
        resp.content_type = falcon.MEDIA_HTML
        resp.text = "Hello World"


def main(**options: Any) -> App:
    """Return the application for most jobs."""
    app = App(**options)
    app.add_route("/", Hello())
    app.add_route("/user/{id:int}", User())
    app.add_route("/json", Json())
    app.add_route("/rows", Rows())
    app.add_route("/echo", Echo())
    app.add_route("/form", Form())
    app.add_route("/upload", Upload())
    app.add_route("/plain", Plain())
    app.add_route("/lines", Lines())
    app.add_route("/wait", Wait())
    app.add_static_route("/static", work.site() / "static")
    return app


class Hooks:
    """One function before and one after."""

    async def process_request(self, req: Request, resp: Response) -> None:
        work.hooks_called["before"] += 1

    async def process_response(
        self, req: Request, resp: Response, resource: object, req_succeeded: bool
    ) -> None:
        work.hooks_called["after"] += 1


def async_hooks() -> App:
    """Return the application with two async functions before and two after."""
    return main(middleware=[Hooks(), Hooks()])


def rules(count: int) -> App:
    """Return an application with many rules."""

    class View:
        async def on_get(
            self,
            req: Request,
            resp: Response,
            id: int | None = None,
            name: str | None = None,
        ) -> None:
            resp.content_type = falcon.MEDIA_HTML
            resp.text = f"{id} {name}"

    app = App()
    for rule in work.rules(count):
        path = rule.replace("<int:id>", "{id:int}").replace("<name>", "{name}")
        app.add_route(path, View())
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
    "plain": main,
    "stream": main,
    "static": main,
    "static_304": main,
    "static_big": main,
    "wait": main,
}
