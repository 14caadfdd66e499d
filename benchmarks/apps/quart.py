"""Quart."""

import asyncio
from functools import partial
from typing import Any

from quart import Quart, render_template, request, session, url_for

from .. import work
from ..driving import Call
from .flask import add_plain_hooks


def main() -> Quart:
    """Return the application for most jobs."""
    app = Quart(__name__, root_path=str(work.site()))
    app.secret_key = work.SECRET

    @app.route("/")
    async def hello():
        return "Hello World"

    @app.route("/user/<int:id>")
    async def user(id):
        return str(id)

    @app.route("/json")
    async def json():
        return work.RECORD

    @app.route("/about/")
    async def about():
        return "About"

    @app.route("/rows")
    async def rows():
        return await render_template("rows.html", rows=work.ROWS)

    @app.route("/echo", methods=["POST"])
    async def echo():
        return await request.get_json()

    @app.route("/form", methods=["POST"])
    async def form():
        fields = await request.form
        return f"{fields['name']}, {fields['email']}, {fields['text']}"

    @app.route("/upload", methods=["POST"])
    async def upload():
        fields = await request.form
        files = await request.files
        return f"{len(fields)} fields, {work.tail(files['file'])}"

    @app.route("/visits")
    async def visits():
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    @app.route("/plain")
    def plain():
        return "Hello World"

    @app.route("/lines")
    async def lines():
        return work.async_chunks()

    @app.route("/plain-lines")
    async def plain_lines():
        return work.chunks()

    @app.route("/wait")
    async def wait():
        await asyncio.sleep(0.01)
        return "Hello World"

    return app


def upload() -> Quart:
    """Return the application that takes uploads of any size."""
    app = main()
    app.config["MAX_CONTENT_LENGTH"] = None
    return app


def async_hooks() -> Quart:
    """Return the application with two async functions before and two after."""
    app = main()

    @app.before_request
    async def first_before():
        work.hooks_called["before"] += 1

    @app.before_request
    async def second_before():
        work.hooks_called["before"] += 1

    @app.after_request
    async def first_after(response):
        work.hooks_called["after"] += 1
        return response

    @app.after_request
    async def second_after(response):
        work.hooks_called["after"] += 1
        return response

    return app


def plain_hooks() -> Any:
    """Return the application with two plain functions before and two after."""
    return add_plain_hooks(main())


def rules(count: int) -> Quart:
    """Return an application with many rules."""
    app = Quart(__name__)

    async def view(id=None, name=None):
        return f"{id} {name}"

    for n, rule in enumerate(work.rules(count)):
        app.add_url_rule(rule, f"view{n}", view)
    return app


async def build_url() -> Call:
    """Return ``url_for``, called in a request's context."""
    app = Quart(__name__)
    app.add_url_rule("/user/<int:id>/posts/<slug>", "post")
    await app.test_request_context("/").push()
    return Call(lambda: url_for("post", id=42, slug="hello"))


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
    "multipart": upload,
    "session": main,
    "plain": main,
    "plain_hooks": plain_hooks,
    "stream": main,
    "plain_stream": main,
    "static": main,
    "static_304": main,
    "static_big": main,
    "wait": main,
}
