"""Litestar.

It takes minutes to start with 10,000 rules, so it is left out of that job.
"""

import asyncio
from functools import partial
from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Stream, Template
from litestar.static_files import create_static_files_router
from litestar.template.config import TemplateConfig

from .. import work
from ..driving import Call


def main(**options: Any) -> Litestar:
    """Return the application for most jobs."""

    @get("/", media_type=MediaType.HTML)
    async def hello() -> str:
        return "Hello World"

    @get("/user/{id:int}", media_type=MediaType.HTML)
    async def user(id: int) -> str:
        return str(id)

    @get("/json")
    async def json() -> dict[str, Any]:
        return work.RECORD

    @get("/about/", media_type=MediaType.HTML)
    async def about() -> str:
        return "About"

    @get("/rows")
    async def rows() -> Template:
        return Template(template_name="rows.html", context={"rows": work.ROWS})

    @post("/echo", status_code=200)
    async def echo(data: dict[str, Any]) -> dict[str, Any]:
        return data

    @post("/form", media_type=MediaType.HTML, status_code=200)
    async def form(
        data: Annotated[
            dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)
        ],
    ) -> str:
        return f"{data['name']}, {data['email']}, {data['text']}"

    @post("/upload", media_type=MediaType.HTML, status_code=200)
    async def upload(
        data: Annotated[
            dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)
        ],
    ) -> str:
        return f"{len(data) - 1} fields, {work.tail(data['file'].file)}"

    @get("/plain", media_type=MediaType.HTML, sync_to_thread=True)
    def plain() -> str:
        return "Hello World"

    @get("/lines")
    async def lines() -> Stream:
        return Stream(work.async_chunks(), media_type="text/html")

    @get("/plain-lines")
    async def plain_lines() -> Stream:
        return Stream(work.chunks(), media_type="text/html")

    @get("/wait", media_type=MediaType.HTML)
    async def wait() -> str:
        await asyncio.sleep(0.01)
        return "Hello World"

    static = create_static_files_router("/static", [work.site() / "static"])
    return Litestar(
        [
            hello,
            user,
            json,
            about,
            rows,
            echo,
            form,
            upload,
            plain,
            lines,
            plain_lines,
            wait,
            static,
        ],
        template_config=TemplateConfig(
            directory=work.site() / "templates", engine=JinjaTemplateEngine
        ),
        **options,
    )


def without_limit() -> Litestar:
    """Return the application that takes uploads of any size."""
    return main(request_max_body_size=None)


def async_hooks() -> Litestar:
    """Return the application with one async function before and one after.

    There can be only one of each in a layer, so each does the work of two.
    """

    async def before(request: Request[Any, Any, Any]) -> None:
        work.hooks_called["before"] += 2

    async def after(response: Response[Any]) -> Response[Any]:
        work.hooks_called["after"] += 2
        return response

    return main(before_request=before, after_request=after)


def rules(count: int) -> Litestar:
    """Return an application with many rules."""

    async def plain_view() -> str:
        return "None None"

    async def view_with_id(id: int) -> str:
        return f"{id} None"

    async def view_with_both(id: int, name: str) -> str:
        return f"{id} {name}"

    handlers = []
    for n, rule in enumerate(work.rules(count)):
        path = rule.replace("<int:id>", "{id:int}").replace("<name>", "{name:str}")
        view: Any = view_with_id if "{id:int}" in path else plain_view
        if "{name:str}" in path:
            view = view_with_both
        handlers.append(get(path, name=f"view{n}", media_type=MediaType.HTML)(view))
    return Litestar(handlers)


def build_url() -> Call:
    """Return the building of a path."""

    @get("/user/{id:int}/posts/{slug:str}", name="post")
    async def view(id: int, slug: str) -> str:
        return ""

    app = Litestar([view])
    return Call(lambda: app.route_reverse("post", id=42, slug="hello"))


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
    "url_for": build_url,
    "template": main,
    "echo": main,
    "form": main,
    "multipart": without_limit,
    "plain": main,
    "stream": main,
    "plain_stream": main,
    "static": main,
    "static_304": main,
    "static_big": main,
    "wait": main,
}
