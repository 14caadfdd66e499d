"""Sessions as requests see them, on every driver."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from asyncflask import (
    Flask,
    Response,
    _request_ctx_stack,
    flash,
    get_flashed_messages,
    session,
)
from asyncflask.helpers import MAX_FLASHES
from asyncflask.sessions import Session


async def test_a_session_that_is_not_touched_costs_no_header(app: Flask, client):
    @app.route("/none")
    def none():
        return ""

    @app.route("/read")
    def read():
        return str(session.get("x"))

    @app.route("/write")
    def write():
        session["x"] = 1
        return ""

    @app.route("/is-there")
    def is_there():
        return "in" if session else "out"

    assert (await client.get("/is-there")).headers["vary"] == "Cookie"
    got = await client.get("/none")
    assert "vary" not in got.headers
    got = await client.get("/read")
    assert got.headers["vary"] == "Cookie"
    assert "set-cookie" not in got.headers
    got = await client.get("/write")
    assert got.headers["vary"] == "Cookie"
    assert got.headers["set-cookie"].endswith("; Path=/; SameSite=Lax; HttpOnly")
    assert (await client.get("/read")).text == "1"


async def test_vary_is_merged(app: Flask, client):
    @app.route("/")
    def view():
        session.get("x")
        return "", {"Vary": "Accept, cookie"}

    @app.route("/two")
    def two():
        session.get("x")
        return "", [("Vary", "Accept"), ("Vary", "Origin")]

    assert (await client.get("/")).headers["vary"] == "Accept, cookie"
    assert (await client.get("/two")).headers["vary"] == "Accept, Origin, Cookie"


async def test_new_and_modified_tell(app: Flask, client):
    @app.route("/")
    def view():
        state = f"{session.new} {session.modified}"
        session["list"] = [*session.get("list", ()), 1]
        return f"{state} {session.modified} {len(session['list'])}"

    @app.route("/inside")
    def inside():
        session["list"].append(1)
        before = session.modified
        session.modified = True
        return str(before)

    assert (await client.get("/")).text == "True False True 1"
    assert (await client.get("/")).text == "False False True 2"
    assert (await client.get("/inside")).text == "False"
    assert (await client.get("/")).text == "False False True 4"


async def test_an_emptied_session_is_deleted(app: Flask, client):
    app.session_cookie_domain = None
    app.session_cookie_secure = False

    @app.route("/set")
    def set():
        session["x"] = 1
        return ""

    @app.route("/clear")
    def clear():
        session.clear()
        return ""

    assert "set-cookie" not in (await client.get("/clear")).headers
    await client.get("/set")
    gone = (await client.get("/clear")).headers["set-cookie"]
    assert gone.startswith("session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
    assert gone.endswith("Max-Age=0; Path=/; SameSite=Lax; HttpOnly")


async def test_cookie_settings_are_followed(driver: str):
    from .conftest import Caller

    class Strict(Flask):
        secret_key = b"bytes are fine"
        session_cookie_name = "sid"
        session_cookie_secure = True
        session_cookie_httponly = False
        session_cookie_samesite = "Strict"
        session_cookie_domain = "example.com"
        permanent_session_lifetime = timedelta(hours=1)

    app = Strict(__name__)
    app.session_cookie_path = "/app"

    @app.route("/")
    async def view():
        session["x"] = 1
        session.permanent = True
        return ""

    cookie = (await Caller(app, driver).get("/")).headers["set-cookie"]
    assert cookie.startswith("sid=")
    assert "; Expires=" in cookie
    assert cookie.endswith("; Path=/app; SameSite=Strict; Secure")


async def test_a_tampered_cookie_is_an_empty_session(app: Flask, client):
    @app.route("/")
    def view():
        return str(dict(session))

    for value in ("", "a.b.c.d", "garbage", "e30.Zm9v.AAAA", '"quoted"'):
        got = await client.get("/", headers={"Cookie": f"session={value}"})
        assert (got.status_code, got.text) == (200, "{}")


async def test_without_a_secret_key_writing_says_what_to_do(app: Flask, client):
    app.secret_key = None

    @app.route("/read")
    def read():
        return f"{session.get('x')} {'x' in session} {len(session)}"

    @app.route("/write")
    def write():
        session["x"] = 1

    assert (await client.get("/read")).text == "None False 0"
    with pytest.raises(RuntimeError, match=r"Set app\.secret_key"):
        await client.get("/write")


async def test_a_cookie_that_is_too_long_names_its_biggest_keys(app, client):
    @app.route("/ok")
    def ok():
        session["small"] = "1"
        return ""

    @app.route("/read")
    def read():
        return str(dict(session))

    @app.route("/")
    def view():
        import random

        rng = random.Random(1)  # not to be compressed away
        session["big"] = "".join(chr(rng.randrange(33, 126)) for _ in range(6000))
        return ""

    await client.get("/ok")
    with pytest.raises(ValueError, match=r"over 4093.*'big' \(\d+ bytes\)"):
        await client.get("/")
    assert (await client.get("/read")).text == "{'small': '1'}"


async def test_a_value_that_cannot_be_kept_says_so(app: Flask, client):
    @app.route("/")
    def view():
        session["thing"] = object()
        return ""

    with pytest.raises(TypeError, match=r"session\['thing'\]: .* cannot keep <object"):
        await client.get("/")


async def test_what_after_request_changes_is_saved_too(app: Flask, client):
    @app.after_request
    def late(response):
        session["late"] = session.get("late", 0) + 1
        return response

    @app.route("/write")
    def write():
        session["x"] = 1
        return ""

    @app.route("/read")
    def read():
        return f"{session.get('x')} {session.get('late')}"

    got = await client.get("/write")
    assert len(got.headers.get_list("set-cookie")) == 1
    assert (await client.get("/read")).text == "1 1"
    assert (await client.get("/read")).text == "1 2"


async def test_a_response_class_of_ones_own_sets_the_cookie(app: Flask, client):
    class Hidden(Response):
        def set_cookie(self, key, value="", **options):
            super().set_cookie(key, value, **{**options, "domain": "a.example"})

    app.response_class = Hidden

    @app.route("/")
    def write():
        session["x"] = 1
        return ""

    @app.after_request
    def write_again(response):
        session["y"] = 2
        return response

    got = await client.get("/")
    [cookie] = got.headers.get_list("set-cookie")
    assert "; Domain=a.example; " in cookie


async def test_rotated_keys_are_accepted(app: Flask, client):
    @app.route("/")
    def view():
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    app.secret_key = "old"
    assert (await client.get("/")).text == "1"
    app.secret_key, app.secret_key_fallbacks = "new", ["older", "old"]
    assert (await client.get("/")).text == "2"
    app.secret_key_fallbacks = []
    assert (await client.get("/")).text == "3"
    app.secret_key = "another"
    assert (await client.get("/")).text == "1"


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_an_overridden_session_is_opened_and_saved_each_time(driver, kind):
    from .conftest import Caller

    store: dict[str, dict[str, int]] = {}
    calls = []

    class Plain(Flask):
        def open_session(self, request):
            calls.append("open")
            return store.setdefault("s", {})

        def save_session(self, session, response):
            calls.append("save")
            response.headers["X-Saved"] = str(len(session))

    class Async(Flask):
        async def open_session(self, request):
            calls.append("open")
            return store.setdefault("s", {})

        async def save_session(self, session, response):
            calls.append("save")
            response.headers["X-Saved"] = str(len(session))

    app = {"plain": Plain, "async": Async}[kind](__name__)

    @app.route("/")
    async def untouched():
        return ""

    @app.route("/count")
    async def count():
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    client = Caller(app, driver)
    assert (await client.get("/")).headers["x-saved"] == "0"
    assert calls == ["open", "save"]
    assert (await client.get("/count")).text == "1"
    assert (await client.get("/count")).text == "2"
    assert store == {"s": {"n": 2}}
    app.workers.close()


async def test_no_session_is_not_saved(driver: str):
    from .conftest import Caller

    class None_(Flask):
        def open_session(self, request):
            return None

        def save_session(self, session, response):
            raise AssertionError("saved")

    app = None_(__name__)

    @app.route("/")
    def view():
        return str(session.get("x"))

    assert (await Caller(app, driver).get("/")).text == "None"
    app.workers.close()


async def test_a_session_that_could_not_be_opened_is_not_saved(driver: str):
    from asyncflask import abort

    from .conftest import Caller

    class Failing(Flask):
        async def open_session(self, request):
            abort(503)

        def save_session(self, session, response):
            raise AssertionError("saved")

    app = Failing(__name__)
    app.add_url_rule("/", "v", lambda: "")
    assert (await Caller(app, driver).get("/")).status_code == 503
    app.workers.close()


async def test_flashes_are_bounded(app: Flask, client, caplog):
    @app.route("/")
    def view():
        for number in range(MAX_FLASHES + 2):
            flash(str(number))
        assert [m for _, m in session["_flashes"]][:1] == ["2"]
        session.clear()
        return ""

    with caplog.at_level(logging.WARNING, "asyncflask"):
        await client.get("/")
    assert "oldest is dropped" in caplog.text


async def test_flashed_messages_never_fill_the_cookie(app, client, caplog):
    @app.route("/flash")
    def add():
        flash("x" * 400, "note")
        return str(len(session["_flashes"]))

    @app.route("/show")
    def show():
        return str([len(text) for text in get_flashed_messages()])

    cookie = {}
    for number in range(8):
        got = await client.get("/flash", headers=cookie)
        assert got.text == str(min(number + 1, 5))
        value = got.headers["set-cookie"].partition(";")[0]
        cookie = {"Cookie": value}
    assert "the oldest is dropped" in caplog.text
    got = await client.get("/show", headers=cookie)
    assert got.text == str([400] * 5)


@pytest.mark.parametrize("touch", [None, "first"])
async def test_a_session_put_into_the_context_by_hand_is_saved(
    app: Flask, client, touch
):
    @app.before_request
    def replace():
        if touch:
            session.get(touch)
        _request_ctx_stack.top.session = Session(a=1)
        session.modified = True

    app.route("/")(lambda: f"{session['a']}")
    got = await client.get("/")
    assert (got.text, got.headers["vary"]) == ("1", "Cookie")
    assert "session=" in got.headers["set-cookie"]


async def test_no_session_put_into_the_context_by_hand_is_an_empty_one(
    app: Flask, client
):
    @app.before_request
    def replace():
        _request_ctx_stack.top.session = None

    app.route("/")(lambda: repr(session))
    assert (await client.get("/")).text == "<Session {}>"
