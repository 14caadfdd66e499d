"""Flask 3, and whatever else has its API: the same lines serve asyncflask."""

from functools import partial
from typing import Any

import flask

from .. import work
from ..driving import Call


def main(framework: Any) -> Any:
    """Return the application for most jobs."""
    app = framework.Flask(__name__)
    app.root_path = str(work.site())
    app.secret_key = work.SECRET
    request, session = framework.request, framework.session

    @app.route("/")
    def hello():
        return "Hello World"

    @app.route("/user/<int:id>")
    def user(id):
        return str(id)

    @app.route("/json")
    def json():
        return work.RECORD

    @app.route("/about/")
    def about():
        return "About"

    @app.route("/rows")
    def rows():
        return framework.render_template("rows.html", rows=work.ROWS)

    @app.route("/echo", methods=["POST"])
    def echo():
        return request.get_json()

    @app.route("/form", methods=["POST"])
    def form():
        fields = request.form
        return f"{fields['name']}, {fields['email']}, {fields['text']}"

    @app.route("/upload", methods=["POST"])
    def upload():
        return f"{len(request.form)} fields, {work.tail(request.files['file'])}"

    @app.route("/visits")
    def visits():
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    @app.route("/plain")
    def plain():
        return "Hello World"

    @app.route("/plain-lines")
    def plain_lines():
        return work.chunks()

    return app


def add_plain_hooks(app: Any) -> Any:
    """Add two functions before and two after to an application; return it."""

    @app.before_request
    def first_before():
        work.hooks_called["before"] += 1

    @app.before_request
    def second_before():
        work.hooks_called["before"] += 1

    @app.after_request
    def first_after(response):
        work.hooks_called["after"] += 1
        return response

    @app.after_request
    def second_after(response):
        work.hooks_called["after"] += 1
        return response

    return app


def plain_hooks(framework: Any) -> Any:
    """Return the application with two plain functions before and two after."""
    return add_plain_hooks(main(framework))


def rules(framework: Any, count: int) -> Any:
    """Return an application with many rules."""
    app = framework.Flask(__name__)

    def view(id=None, name=None):
        return f"{id} {name}"

    for n, rule in enumerate(work.rules(count)):
        app.add_url_rule(rule, f"view{n}", view)
    return app


def build_url(framework: Any) -> Call:
    """Return ``url_for``, called in a request's context."""
    app = framework.Flask(__name__)
    app.add_url_rule("/user/<int:id>/posts/<slug>", "post")
    app.test_request_context("/").__enter__()
    return Call(lambda: framework.url_for("post", id=42, slug="hello"))


def table(framework: Any) -> dict[str, Any]:
    """Return the table of jobs for a module with Flask's API."""
    same = partial(main, framework)
    return {
        "hello": same,
        "unused": same,
        "user": same,
        "json": same,
        "not_found": same,
        "not_allowed": same,
        "slash": same,
        "rules_10": partial(rules, framework, 10),
        "rules_1000": partial(rules, framework, 1000),
        "rules_10000": partial(rules, framework, 10_000),
        "url_for": partial(build_url, framework),
        "template": same,
        "echo": same,
        "form": same,
        "multipart": same,
        "session": same,
        "plain": same,
        "plain_hooks": partial(plain_hooks, framework),
        "plain_stream": same,
        "static": same,
        "static_304": same,
        "static_big": same,
    }


WSGI = table(flask)
