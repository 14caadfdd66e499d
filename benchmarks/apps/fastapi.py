"""FastAPI."""

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel

from .. import work
from ..driving import Call


class Upload(BaseModel):
    """The fields of the upload; pydantic checks them."""

    field0: str
    field1: str
    field2: str
    field3: str
    field4: str
    field5: str
    field6: str
    field7: str
    field8: str
    field9: str
    file: UploadFile


def main() -> FastAPI:
    """Return the application for most jobs."""
    app = FastAPI()
    templates = Jinja2Templates(directory=work.site() / "templates")

    @app.get("/", response_class=HTMLResponse)
    async def hello():
        return "Hello World"

    @app.get("/user/{id}", response_class=HTMLResponse)
    async def user(id: int):
        return str(id)

    @app.get("/json")
    async def json():
        return work.RECORD

    @app.get("/about/", response_class=HTMLResponse)
    async def about():
        return "About"

    @app.get("/rows", response_class=HTMLResponse)
    async def rows(request: Request):
        return templates.TemplateResponse(request, "rows.html", {"rows": work.ROWS})

    @app.post("/echo")
    async def echo(record: dict[str, Any]):
        return record

    @app.post("/form", response_class=HTMLResponse)
    async def form(
        name: Annotated[str, Form()],
        email: Annotated[str, Form()],
        text: Annotated[str, Form()],
    ):
        return f"{name}, {email}, {text}"

    @app.post("/upload", response_class=HTMLResponse)
    async def upload(data: Annotated[Upload, Form()]):
        fields = len(data.model_fields_set) - 1
        return f"{fields} fields, {work.tail(data.file.file)}"

    @app.get("/plain", response_class=HTMLResponse)
    def plain():
        return "Hello World"

    @app.get("/lines")
    async def lines():
        return StreamingResponse(work.async_chunks(), media_type="text/html")

    @app.get("/plain-lines")
    async def plain_lines():
        return StreamingResponse(work.chunks(), media_type="text/html")

    @app.get("/wait", response_class=HTMLResponse)
    async def wait():
        await asyncio.sleep(0.01)
        return "Hello World"

    app.mount("/static", StaticFiles(directory=work.site() / "static"))
    return app


def async_hooks() -> FastAPI:
    """Return the application with two async functions before and two after."""
    app = main()

    @app.middleware("http")
    async def first(request: Request, call_next: Any) -> Response:
        work.hooks_called["before"] += 1
        response: Response = await call_next(request)
        work.hooks_called["after"] += 1
        return response

    @app.middleware("http")
    async def second(request: Request, call_next: Any) -> Response:
        work.hooks_called["before"] += 1
        response: Response = await call_next(request)
        work.hooks_called["after"] += 1
        return response

    return app


def rules(count: int) -> FastAPI:
    """Return an application with many rules."""
    app = FastAPI()

    async def plain_view():
        return "None None"

    async def view_with_id(id: int):
        return f"{id} None"

    async def view_with_both(id: int, name: str):
        return f"{id} {name}"

    for n, rule in enumerate(work.rules(count)):
        path = rule.replace("<int:id>", "{id}").replace("<name>", "{name}")
        view = view_with_id if "{id}" in path else plain_view
        if "{name}" in path:
            view = view_with_both
        app.get(path, name=f"view{n}", response_class=HTMLResponse)(view)
    return app


def build_url() -> Call:
    """Return the building of a path."""
    app = FastAPI()

    @app.get("/user/{id}/posts/{slug}")
    async def post(id: int, slug: str):
        return ""

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
    "plain": main,
    "stream": main,
    "plain_stream": main,
    "static": main,
    "static_304": main,
    "static_big": main,
    "wait": main,
}
