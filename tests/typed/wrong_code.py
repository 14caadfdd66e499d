"""Code that type checkers must refuse: nothing imports or runs it.

Each ``type: ignore`` names the error that mypy has to find there; one that finds
none is an error itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from asyncflask import (
    Flask,
    Request,
    Response,
    abort,
    g,
    get_flashed_messages,
    redirect,
    request,
    session,
    url_for,
)

Flask()  # type: ignore[call-arg]
app = Flask(__name__)
app.debug = "yes"  # type: ignore[assignment]
app.secret_key = 1  # type: ignore[assignment]
app.request_class = Response  # type: ignore[assignment]
app.worker_threads = "40"  # type: ignore[assignment]
app.unknown()  # type: ignore[attr-defined]
app.wsgi_app = 1  # type: ignore[assignment]
app.mount("/a", 1)  # type: ignore[arg-type]
app.before_request(1)  # type: ignore[type-var]
app.errorhandler("404")  # type: ignore[arg-type]
app.errorhandler(str)  # type: ignore[arg-type]
app.route(1)  # type: ignore[arg-type]


@app.while_serving  # type: ignore[type-var]
async def no_generator() -> None: ...


@app.while_serving  # type: ignore[type-var]
async def with_argument(argument: int) -> AsyncIterator[None]:
    yield


@app.route("/<int:id>")
def view(id: int) -> str:
    return str(id)


view("1")  # type: ignore[arg-type]


def body() -> None:
    number: int = request.args["n"]  # type: ignore[assignment]
    number = request.args.get("n", type=int)  # type: ignore[assignment]
    text: str = request.data  # type: ignore[assignment]
    text = request.headers.get("Accept")  # type: ignore[assignment]
    text = request.remote_addr  # type: ignore[assignment]
    request.files["photo"].upper()  # type: ignore[attr-defined]
    request.args["n"] = "1"  # type: ignore[index]
    request.unknown  # type: ignore[attr-defined]  # noqa: B018
    session[1] = "one"  # type: ignore[index]
    session.permanent = "yes"  # type: ignore[assignment]
    "db" in g and g.get(1)  # type: ignore[arg-type]
    pairs: list[tuple[str, str]] = get_flashed_messages()  # type: ignore[assignment]
    url_for("view", _external="yes")  # type: ignore[arg-type]
    url_for(view)  # type: ignore[arg-type]
    redirect("/", code="302")  # type: ignore[arg-type]
    Response(status=[200])  # type: ignore[arg-type]
    Response(headers=1)  # type: ignore[arg-type]
    Response().set_cookie("a", 1)  # type: ignore[arg-type]
    raise ValueError(number, text, pairs)


def after_abort() -> str:
    abort(404)
    return "never"  # type: ignore[unreachable]


class Site(Flask):
    def process_response(self) -> Response:  # type: ignore[override]
        return Response()

    def open_session(self, request: int) -> None:  # type: ignore[override]
        return None


class OwnRequest(Request):
    method = 1  # type: ignore[assignment]
