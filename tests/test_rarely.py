"""What happens rarely, and what somebody relies on all the same when it does."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections import UserDict
from pathlib import Path

import pytest

from asyncflask import (
    Flask,
    HTTPException,
    Response,
    current_app,
    g,
    jsonify,
    request,
    session,
)
from asyncflask.context import RequestContext
from asyncflask.converters import FloatConverter
from asyncflask.datastructures import MultiDict
from asyncflask.exceptions import RequestTimeout, UnsupportedMediaType
from asyncflask.files import FileBody
from asyncflask.reloading import Watched
from asyncflask.sessions import Session


@pytest.fixture
def bare():
    app = Flask(__name__)
    app.secret_key = "a secret for the tests"
    yield app
    app.workers.close()


# --------------------------------------------------------------------- the application


def test_a_rule_must_lead_somewhere(bare):
    with pytest.raises(TypeError, match="neither endpoint nor view_func"):
        bare.add_url_rule("/")


def test_a_context_of_another_making_is_refused(bare):
    with bare.test_request_context() as ctx:
        other = RequestContext(bare, ctx.scope)
        other.push()
        try:
            with pytest.raises(TypeError, match="not made by app"):
                bare.preprocess_request()
            assert session == {}
        finally:
            other.pop()


def test_a_scope_of_an_unknown_type_is_refused(bare):
    async def nothing(*args):
        raise AssertionError("neither received nor sent")

    with pytest.raises(ValueError, match="teapot"):
        asyncio.run(bare({"type": "teapot"}, nothing, nothing))


def test_the_bound_call_serves_as_well(bare):
    """Some servers keep ``app.__call__`` rather than the application."""
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    bare.add_url_rule("/", "view", lambda: "served")
    with bare.test_request_context() as ctx:
        scope = dict(ctx.scope)
    asyncio.run(bare.__call__(scope, receive, send))
    assert b"".join(m.get("body", b"") for m in sent) == b"served"


async def test_a_failing_opening_leaves_no_context():
    class Site(Flask):
        def open_session(self, request):
            raise ZeroDivisionError

    site = Site(__name__)
    with pytest.raises(ZeroDivisionError), site.test_request_context():
        pass
    with pytest.raises(ZeroDivisionError):
        async with site.test_request_context():
            pass
    site.workers.close()
    with pytest.raises(RuntimeError, match="no request is being handled"):
        request.path  # noqa: B018


def test_a_match_of_its_own_may_find_nothing():
    class Site(Flask):
        def match_request(self):
            raise HTTPException("not on Sundays", code=404)

    site = Site(__name__)
    site.errorhandler(404)(lambda error: (f"{error.description}!", 404))
    got = site.test_client().get("/")
    assert (got.status_code, got.text) == (404, "not on Sundays!")
    site.workers.close()


def test_matching_by_hand_reaches_the_request_that_is_there(bare):
    bare.add_url_rule("/<int:id>", "view", lambda id: "")
    with bare.test_request_context("/7"):
        request.endpoint = request.view_args = None
        assert bare.match_request() == ("view", {"id": 7})
        found = request._get_current_object()
        assert (found.endpoint, found.view_args) == ("view", {"id": 7})


def test_dispatching_by_hand_raises_what_nothing_handles(bare):
    bare.add_url_rule("/", "view", lambda: 1 / 0)
    with bare.test_request_context("/"), pytest.raises(ZeroDivisionError):
        bare.dispatch_request()


def test_a_length_is_needed_for_a_body_by_hand(bare):
    environ = {
        **{"REQUEST_METHOD": "POST", "PATH_INFO": "/", "SCRIPT_NAME": ""},
        **{"SERVER_NAME": "localhost", "SERVER_PORT": "80"},
        **{"wsgi.url_scheme": "http", "wsgi.input": None},
    }
    with bare.request_context(environ):
        assert request.data == b""


# ------------------------------------------------------------------- errors, responses


async def test_an_error_may_be_a_response_of_its_own(app: Flask, client):
    class Redrawn(HTTPException):
        code = 418

        def get_response(self):
            return Response("its own", 418)

    @app.route("/own")
    def own():
        raise Redrawn()

    @app.route("/given")
    def given():
        return HTTPException(response=Response("given", 299))

    got = await client.get("/own")
    assert (got.status_code, got.text) == (418, "its own")
    got = await client.get("/given")
    assert (got.status_code, got.text) == (299, "given")


def test_an_error_with_a_response_gives_that():
    given = Response("given")
    assert HTTPException(response=given).get_response() is given


def test_a_code_that_nobody_knows_has_a_page():
    page = HTTPException(code=499).get_body()
    assert "499" in page
    assert "Unknown Error" in page
    assert Response(status=299).status == "299 UNKNOWN"


def test_a_timeout_closes_the_connection():
    assert RequestTimeout().get_response().headers["connection"] == "close"


def test_jsonify_takes_values_or_keywords(bare):
    with bare.test_request_context(), pytest.raises(TypeError, match="Pass one dict"):
        jsonify(1, a=2)


def test_any_mapping_is_a_json_object(bare):
    with bare.test_request_context():
        assert json.loads(jsonify(UserDict(a=1)).data) == {"a": 1}


def test_a_response_tells_what_it_holds(tmp_path):
    with (tmp_path / "file").open("wb+") as file:
        streamed = Response(FileBody(file, 0), headers={"Content-Length": "7"})
        assert streamed.content_length == 7
        assert streamed.response is streamed.body
        with pytest.raises(RuntimeError, match="only made while"):
            streamed.get_data()
    assert Response(headers={"Location": "/x"}).location == "/x"
    with pytest.raises(TypeError, match="must give"):
        Response(object())


def test_a_file_of_memory_has_no_end_to_compare_with():
    assert not FileBody(io.BytesIO(b"data"), 4).is_whole


def test_silent_json_says_none_for_what_is_none(bare):
    with bare.test_request_context(data="{", content_type="application/json"):
        assert request.get_json(silent=True) is None
    with bare.test_request_context(data="{}"):
        with pytest.raises(UnsupportedMediaType):
            request.get_json()
        assert request.get_json(silent=True) is None


@pytest.mark.parametrize("name", ["data", "form", "files"])
async def test_an_unread_body_is_not_to_be_had_whole(app: Flask, client, name):
    @app.route("/", methods=["POST"], stream_body=True)
    def view():
        with pytest.raises(RuntimeError, match="left unread"):
            getattr(request, name)
        return "refused"

    assert (await client.post("/", data={"a": "b"})).text == "refused"


# ---------------------------------------------------------------------------- sessions


def test_a_session_of_another_kind_needs_a_way_to_be_saved(bare):
    with bare.test_request_context(), pytest.raises(TypeError, match="save_session"):
        bare.save_session({"a": 1}, Response())


def test_a_key_that_goes_away_meanwhile_is_missed(bare):
    with bare.test_request_context():
        session["a"] = 1
        bare.secret_key = None
        with pytest.raises(RuntimeError, match="taken away"):
            bare.save_session(session._get_current_object(), Response())


def test_keys_that_cannot_be_kept_are_an_error(bare):
    opened = Session({(1, 2): "a key that is no text"})
    opened.modified = True
    with bare.test_request_context(), pytest.raises(TypeError):
        bare.save_session(opened, Response())


# ------------------------------------------------------------------------ small things


def test_proxies_without_a_request_name_themselves(bare):
    for use in (lambda: len(session), lambda: "x" in g, lambda: str(current_app)):
        with pytest.raises(RuntimeError, match="no request is being handled"):
            use()


def test_a_multi_dict_is_no_other_thing():
    assert MultiDict([("a", "1")]) != {"a": "1"}
    assert MultiDict([("a", "1")]) == MultiDict([("a", "1")])


def test_a_lazy_attribute_of_the_class_is_itself():
    assert type(RequestContext.url_adapter).__name__ == "cached_property"


def test_a_number_is_built_into_a_url_in_its_own_form(bare):
    assert FloatConverter(bare.url_map).to_url(2) == "2.0"


def test_the_client_keeps_head_on_a_redirect(bare):
    bare.add_url_rule("/a", "a", lambda: Response("", 302, {"Location": "/b"}))
    bare.add_url_rule("/b", "b", lambda: request.method)
    got = bare.test_client().head("/a", follow_redirects=True)
    assert (got.status_code, got.data, len(got.history)) == (200, b"", 1)
    assert got.headers["content-length"] == "4"
    assert repr(got) == "<ClientResponse 200 OK>"
    assert got.get_data() == b""
    assert got.get_data(as_text=True) == ""


def test_the_client_reads_json(bare):
    bare.add_url_rule("/", "view", lambda: {"a": [1]})
    assert bare.test_client().get("/").get_json() == {"a": [1]}


def test_without_watchfiles_the_files_are_looked_at(tmp_path: Path, monkeypatch):
    """watchfiles is an extra; its absence costs speed, and no change is missed."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    settings = tmp_path / "settings.ini"
    module = tmp_path / "module.py"
    for file in (settings, module, tmp_path / "other.txt"):
        file.write_text("old")
        os.utime(file, (1, 1))
    app = Flask(__name__)
    app.root_path = str(tmp_path)
    watched = Watched(app, [str(settings)])
    watched.folders = [str(tmp_path)]
    changes = watched.changes(0.001)
    assert next(changes) == set()
    for file in (settings, tmp_path / "other.txt"):
        os.utime(file, (2, 2))
    assert next(changes) == {str(settings)}
    os.utime(module, (2, 2))
    assert next(changes) == {str(module)}
    settings.unlink()
    assert str(settings) in next(changes)
    assert next(changes) == set()


def test_what_few_applications_need_is_not_imported_for_all():
    code = "import asyncflask, sys; print(*sys.modules)"
    names = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "asyncflask.wrappers" in names
    assert not {"starlette.responses", "jinja2", "uvicorn", "trio"} & set(names)
