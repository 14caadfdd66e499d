"""The debugger: who gets to see what, who may type, and what is kept for it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import html
import json
import linecache
import logging
import re
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from asyncflask import (
    Flask,
    abort,
    g,
    render_template,
    render_template_string,
    request,
    session,
)
from asyncflask.debug import Debugger, failures
from asyncflask.debug.debugger import COOKIE, ENVIRONMENT, MOST_TRIES
from asyncflask.debug.failures import KEPT
from asyncflask.testing import build_request

from .conftest import WSGITransport
from .server import served

PIN = "123-456-789"
KEY = "the key that signs sessions"
HIDDEN = "what nobody must see"
EVIL = "<script>alert('x')</script>"
PLAIN = {"Accept": "*/*"}

variable: contextvars.ContextVar[str] = contextvars.ContextVar("v", default="unset")


class OneProcess(WSGITransport):
    """A WSGI server that is the only one."""

    def environ(self, request: httpx.Request, body: bytes) -> dict[str, Any]:
        return {**super().environ(request, body), "wsgi.multiprocess": False}


class Page:
    """The page of the debugger, as its own script and its reader see it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.text = response.text
        body = re.sub(r"(?s)<(style|script).*?</\1>", "", self.text)
        self.seen = html.unescape(re.sub(r"<[^>]*>", "", body))
        data = dict(re.findall(r'data-(\w+)="([^"]*)"', self.text))
        self.failure, self.secret, self.root = (
            data.get(name, "") for name in ("failure", "secret", "root")
        )
        consoles = re.findall(
            r'data-frame="(\d+)" aria-label="Console in (.*?)"', self.text
        )
        self.frames = {
            html.unescape(name).rpartition(".")[2]: int(n) for n, name in consoles
        }


class Developer:
    """Somebody with a browser in front of an application in debug mode."""

    def __init__(
        self, app: Flask, protocol: str, root_path: str = "", **options: Any
    ) -> None:
        app.debug = True
        self.debugger = Debugger(app, **{"pin": PIN, **options})
        app.asgi_app = app.wsgi_app = self.debugger
        self.transport: Any
        if protocol == "asgi":
            self.transport = httpx.ASGITransport(
                app, raise_app_exceptions=False, root_path=root_path
            )
        else:
            several = protocol == "wsgi of several processes"
            self.transport = WSGITransport(app) if several else OneProcess(app)
            self.transport.root_path = root_path
        self.browser = self.new_browser()

    def new_browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=self.transport,
            base_url="http://localhost",
            headers={"Accept": "text/html,*/*;q=0.8"},
        )

    async def get(self, path: str = "/", **options: Any) -> httpx.Response:
        return await self.browser.get(path, **options)

    async def page(self, path: str = "/", **options: Any) -> Page:
        page = Page(await self.get(path, **options))
        assert page.response.status_code == 500
        assert page.failure
        return page

    async def post(
        self, endpoint: str, page: Page, data: Any, **headers: str
    ) -> httpx.Response:
        fields = {"X-Debugger-Secret": page.secret, "Content-Type": "application/json"}
        return await self.browser.post(
            f"{page.root}/__debugger__/{endpoint}",
            content=data if isinstance(data, str) else json.dumps(data),
            headers={k: v.encode("latin-1") for k, v in {**fields, **headers}.items()},
        )

    async def unlock(self, page: Page, pin: Any = PIN) -> httpx.Response:
        return await self.post("pin", page, {"pin": pin})

    async def run(self, page: Page, source: str, frame: str = "view") -> httpx.Response:
        data = {"failure": page.failure, "frame": page.frames[frame], "source": source}
        return await self.post("console", page, data)

    async def type(self, page: Page, source: str, frame: str = "view") -> str:
        if COOKIE not in self.browser.cookies:
            assert (await self.unlock(page)).status_code == 200
        answer = await self.run(page, source, frame)
        assert answer.status_code == 200, answer.text
        return answer.text


@asynccontextmanager
async def developing(
    app: Flask, protocol: str = "asgi", **options: Any
) -> AsyncIterator[Developer]:
    developer = Developer(app, protocol, **options)
    yield developer
    await developer.browser.aclose()
    developer.debugger.failures.clear()


@pytest.fixture
def app() -> Any:
    app = Flask(__name__)
    app.secret_key = KEY
    yield app
    app.workers.close()


@pytest.fixture(params=["asgi", "wsgi"])
async def developer(app: Flask, request: Any) -> AsyncIterator[Developer]:
    async with developing(app, request.param) as developer:
        yield developer


@pytest.fixture
async def on_asgi(app: Flask) -> AsyncIterator[Developer]:
    async with developing(app) as developer:
        yield developer


def fails(app: Flask) -> None:
    @app.route("/", methods=["GET", "POST"])
    def view():
        raise ZeroDivisionError("it has failed")


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it has not come to that"
        await asyncio.sleep(0.01)


def threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("asyncflask-")}


# -------------------------------------------------------------- when there is a page


@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
async def test_D1_without_debug_there_is_nothing_of_it(app, protocol):
    fails(app)
    async with developing(app, protocol) as developer:
        page = await developer.page()
        app.debug = False
        assert (await developer.unlock(page)).status_code == 404
        assert (await developer.run(page, "1")).status_code == 404
        if protocol == "wsgi":
            with pytest.raises(ZeroDivisionError):
                await developer.get()
        else:
            got = await developer.get()
            assert (got.status_code, got.content) == (500, b"")


@pytest.mark.parametrize(
    "path", ["/", "/console", "/__debugger__/", "/?__debugger__=1"]
)
@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
async def test_D1_an_application_has_no_debugger_by_itself(app, protocol, path):
    """Quart up to 0.21 showed tracebacks to everybody."""
    fails(app)
    assert app.debug is False
    cls = WSGITransport if protocol == "wsgi" else httpx.ASGITransport
    browser = httpx.AsyncClient(transport=cls(app), base_url="http://localhost")
    async with browser:
        if path.startswith(("/__", "/console")):
            assert (await browser.get(path)).status_code == 404
        else:
            with pytest.raises(ZeroDivisionError):  # for the server to log
                await browser.get(path, headers={"Accept": "text/html"})


@pytest.mark.parametrize("debug", [True, False])
def test_D1_under_a_server_nothing_is_shown_without_the_debugger(debug):
    """A server of its own sends a plain 500, also if somebody left debug on."""
    app = Flask(__name__)
    app.debug = debug
    fails(app)
    with served(app) as url:
        got = httpx.get(url, headers={"Accept": "text/html"})
        assert (got.status_code, got.text) == (500, "Internal Server Error")
        assert httpx.post(f"{url}/__debugger__/console").status_code == 404


async def test_a_handler_for_500_answers_without_debug(app, developer):
    fails(app)
    app.errorhandler(500)(lambda error: ("sorry", 500))
    assert "it has failed" in (await developer.page()).seen
    app.debug = False
    assert (await developer.get()).text == "sorry"


async def test_the_exception_is_raised_on_for_the_server_to_log(app, on_asgi):
    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    fails(app)
    sent: list[Any] = []
    scope, _ = build_request("/", headers={"Accept": "text/html"})
    with pytest.raises(ZeroDivisionError):
        await app(scope, receive, send)
    assert [message["type"] for message in sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert b"it has failed" in sent[1]["body"]


async def test_under_wsgi_it_is_logged(app, caplog):
    fails(app)
    async with developing(app, "wsgi") as developer:
        await developer.page()
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("*/*", False),
        ("application/json", False),
        ("text/plain", False),
        ("", False),
    ],
)
async def test_who_takes_no_html_gets_the_plain_traceback(
    app, developer, accept, is_page
):
    fails(app)
    got = await developer.get(headers={"Accept": accept})
    assert got.status_code == 500
    if is_page:
        assert got.headers["content-type"] == "text/html; charset=utf-8"
    else:
        assert got.headers["content-type"] == "text/plain; charset=utf-8"
        assert got.text.startswith("Traceback (most recent call last):\n")
        assert got.text.endswith("ZeroDivisionError: it has failed\n")


async def test_a_head_request_gets_no_body(app, developer):
    fails(app)
    got = await developer.browser.head("/")
    assert (got.status_code, got.content) == (500, b"")


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("before", "/plain"),
        ("plain", "/plain"),
        ("after", "/plain"),
        ("asynchronous", "/asynchronous"),
        ("after", "/asynchronous"),
        ("handler", "/handled"),
        ("processor", "/template"),
        ("in template", "/template"),
    ],
)
async def test_a_failure_anywhere_has_a_page_and_a_console(app, developer, place, path):
    def fail(here):
        if here == place:
            raise ZeroDivisionError(f"in {here}")

    @app.before_request
    def before():
        g.user = "anna"
        fail("before")

    @app.after_request
    def after(response):
        fail("after")
        return response

    @app.errorhandler(KeyError)
    def handler(error):
        fail("handler")
        return "handled"

    @app.context_processor
    def processor():
        fail("processor")
        return {}

    @app.teardown_request
    def teardown(exc):
        raise OSError("it is only logged")

    @app.route("/plain")
    def plain():
        fail("plain")
        return ""

    @app.route("/asynchronous")
    async def asynchronous():
        await asyncio.sleep(0)
        fail("asynchronous")
        return ""

    @app.route("/handled")
    async def handled():
        raise KeyError

    @app.route("/template")
    def template():
        return render_template_string("{{ fail('in template') }}", fail=fail)

    page = await developer.page(path)
    assert f"ZeroDivisionErrorin {place}" in page.seen
    assert place.removeprefix("in ") in page.frames
    shown = await developer.type(page, "here, request.path, g.user", "fail")
    assert shown == f"({place!r}, {path!r}, 'anna')\n"


async def test_a_view_that_returns_nothing_has_a_page(app, developer):
    app.add_url_rule("/", "view", lambda: None)
    assert "'view' returned None" in (await developer.page()).seen


async def test_an_http_error_is_no_failure(app, developer):
    app.add_url_rule("/", "view", lambda: abort(403))
    for path, status in (("/", 403), ("/nowhere", 404)):
        got = await developer.get(path)
        assert got.status_code == status
        assert "__debugger__" not in got.text


async def test_lines_of_a_template_are_frames(app, developer, tmp_path):
    app.root_path = str(tmp_path)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "outer.html").write_text(
        "{% extends 'base.html' %}\n\n{% block body %}{{ user.name }}{% endblock %}"
    )
    (tmp_path / "templates" / "base.html").write_text(
        "<title>\n{% block body %}{% endblock %}"
    )
    app.add_url_rule("/", "view", lambda: render_template("outer.html"))
    page = await developer.page()
    assert "outer.html:3" in page.seen
    assert "base.html:2" in page.seen
    assert "{% block body %}{{ user.name }}{% endblock %}" in page.seen


async def test_a_template_that_is_malformed_is_shown_where(app, developer, tmp_path):
    app.root_path = str(tmp_path)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "bad.html").write_text("fine\n{% if %}\n")
    app.add_url_rule("/", "view", lambda: render_template("bad.html"))
    page = await developer.page()
    assert "bad.html:2" in page.seen
    assert "{% if %}" in page.seen


def test_a_response_that_has_begun_is_broken_off():
    app = Flask(__name__)
    app.debug = True

    @app.route("/")
    async def view():
        yield "begun"
        raise ValueError("midway")

    app.asgi_app = Debugger(app, pin=PIN)
    before = threads()
    with served(app) as url, httpx.Client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(url, headers={"Accept": "text/html"})
        assert threads() <= before


def test_who_asks_on_at_once_is_not_cut_off():
    app = Flask(__name__)
    app.debug = True
    fails(app)
    app.asgi_app = Debugger(app, pin=PIN)
    with served(app) as url:
        for _ in range(20):
            with httpx.Client(base_url=url, headers={"Accept": "text/html"}) as client:
                assert client.get("/").status_code == 500
                assert client.post("/__debugger__/pin").status_code == 403


async def test_what_middleware_raises_has_a_page_without_a_request(app):
    async def middleware(scope, receive, send):
        raise ValueError("by middleware")

    app.asgi_app = middleware
    async with developing(app) as developer:
        page = await developer.page("/path?a=1")
        assert "by middleware" in page.seen
        assert "/path?a=1" in page.seen
        assert await developer.type(page, "scope['path']", "middleware") == "'/path'\n"
        shown = await developer.type(page, "request.path", "middleware")
        assert "no request is being handled here" in shown


async def test_a_group_and_a_chain_are_all_there(app, developer):
    @app.route("/")
    async def view():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one())
            tasks.create_task(two())

    async def one():
        try:
            raise KeyError("the cause")
        except KeyError as exc:
            raise ValueError("the first") from exc

    async def two():
        raise OSError("the second")

    page = await developer.page()
    for text in ("ExceptionGroup", "the first", "the cause", "OSError the second"):
        assert text in page.seen
    assert "was the direct cause" in page.seen
    assert await developer.type(page, "request.path", "one") == "'/'\n"


async def test_the_request_is_shown(app, developer):
    @app.before_request
    def user():
        g.user = "anna of g"

    @app.route("/in")
    def log_in():
        session["name"] = "anna of the session"
        return ""

    @app.route("/order/<int:number>", methods=["POST"])
    def view(number):
        raise ValueError

    await developer.get("/in")
    got = await developer.browser.post(
        "/order/5?colour=red&colour=blue", data={"amount": "7 pieces"}
    )
    page = Page(got)
    for text in (
        "POST /order/5?colour=red&colour=blue",
        "/order/<int:number>",
        "red",
        "blue",
        "7 pieces",
        "anna of g",
        "anna of the session",
        "application/x-www-form-urlencoded",
        f"Python{sys.version.split()[0]}",
    ):
        assert text in page.seen


# ---------------------------------------------------------------- what is in the page


async def test_the_page_lets_nothing_in_but_its_own(app, developer):
    fails(app)
    first, second = await developer.page(), await developer.page()
    policy = first.response.headers["content-security-policy"]
    (nonce,) = set(re.findall(r"'nonce-([\w-]{16,})'", policy))
    assert policy.startswith("default-src 'none';")
    for part in ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert nonce not in second.text
    assert re.findall(r"<(?:script|style)[^>]*>", first.text) == [
        f'<style nonce="{nonce}">',
        f'<script nonce="{nonce}">',
    ]
    assert not re.search(r'<[^>]+\s(on\w+|style)="', first.text)
    assert not re.search(r'\s(src|href)="(?!data:)', first.text)


async def test_the_page_is_neither_stored_nor_told_of(app, developer):
    fails(app)
    headers = (await developer.page()).response.headers
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in headers


async def test_D6_everything_shown_is_escaped(app, developer):
    @app.route("/<path:rest>", methods=["POST"])
    def view(rest):
        evil = session["evil"] = g.evil = EVIL
        error = ValueError(evil)
        error.add_note(evil)
        raise error

    got = await developer.browser.post(
        f"/{EVIL}",
        params={EVIL: EVIL},
        data={EVIL: EVIL},
        headers={"X-Evil": EVIL},
    )
    page = Page(got)
    assert page.failure
    assert "<script>" not in page.text
    assert page.text.count("<script") == page.text.count("</script>") == 1
    assert page.seen.count("alert(") >= 6


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        ValueError(""),
        ValueError("\n"),
        ValueError("x" * 100_000),
        ValueError("a lone \udcff surrogate"),
        KeyError({1: 2}),
        SyntaxError("by hand", ("file", "2", 1, "text")),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
    ],
    ids=lambda error: ascii(error)[:40],
)
async def test_an_odd_exception_has_a_page_all_the_same(app, developer, error):
    @app.route("/")
    def view():
        raise error

    assert type(error).__name__ in (await developer.page()).seen
    got = await developer.get(headers=PLAIN)
    assert type(error).__name__ in got.text


@pytest.mark.parametrize("notes", [5, [None], "text"])
async def test_odd_notes_have_a_page_all_the_same(app, developer, notes):
    @app.route("/")
    def view():
        error = ValueError("noted")
        error.__notes__ = notes
        raise error

    assert "noted" in (await developer.page()).seen


async def test_locals_that_cannot_be_shown_have_a_page_all_the_same(app, developer):
    class Broken:
        def __repr__(self):
            raise RecursionError

    @app.route("/")
    def view():
        name, broken, around = "\udcff", Broken(), []
        around.append(around)
        raise ValueError(name.isascii(), len([broken, around]))

    assert "whose repr() raised RecursionError" in (await developer.page()).seen


async def test_a_repr_without_end_does_not_hide_the_exception(
    app, on_asgi, monkeypatch
):
    class Slow:
        def __repr__(self):
            gate.wait(20)
            return "at last"

    @app.route("/")
    def view():
        slow = Slow()
        raise ZeroDivisionError(bool(slow))

    gate = threading.Event()
    monkeypatch.setattr(failures, "PATIENCE", 0.3)
    try:
        transport = httpx.ASGITransport(app)
        browser = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        with pytest.raises(ZeroDivisionError):
            await browser.get("/", headers={"Accept": "text/html"})
    finally:
        gate.set()


# -------------------------------------------------------------------------- secrets


def holds_secrets(app: Flask) -> None:
    @app.route("/", methods=["GET", "POST"])
    def view():
        password = api_token = HIDDEN
        settings = {"deep": [{"db_password": HIDDEN}], "headers": [("Cookie", HIDDEN)]}
        session["token"] = g.secret = HIDDEN
        error = ValueError(f"{app.secret_key} does not fit", len(password + api_token))
        error.add_note(f"that is {app.secret_key}")
        raise error from KeyError(app.secret_key, len(settings))


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
async def test_D8_secrets_are_masked(app, developer, accept):
    holds_secrets(app)
    await developer.unlock(Page(await developer.get()))
    got = await developer.browser.post(
        "/",
        data={"password": HIDDEN},
        headers={
            "Accept": accept,
            "Authorization": "Bearer token-of-the-header",
            "X-Auth-Token": HIDDEN,
            "Cookie": "other=token-of-the-cookie",
        },
    )
    assert "does not fit" in got.text
    for secret in (
        HIDDEN,
        KEY,
        "token-of-the-header",
        "token-of-the-cookie",
        PIN,
        developer.browser.cookies[COOKIE],
    ):
        assert secret not in html.unescape(got.text)


async def test_D8_a_form_held_in_a_variable_is_masked_too(app, developer):
    @app.route("/", methods=["POST"])
    def view():
        form, headers = request.form, request.headers
        raise ValueError(len(form), len(headers))

    got = await developer.browser.post("/", data={"password": HIDDEN, "user": "anna"})
    assert "anna" in got.text
    assert HIDDEN not in got.text


async def test_D8_a_secret_in_the_query_is_masked(app, developer):
    fails(app)
    page = await developer.page("/?token=secret-of-the-query&page=2")
    assert "page=2" in page.seen
    assert "secret-of-the-query" not in page.seen


async def test_a_cookie_does_not_mask_words_of_the_traceback(app, developer):
    fails(app)
    page = await developer.page(headers={"Cookie": "consent=true; tab=view"})
    assert "in view" in page.seen.partition("Traceback as text")[2]


# ---------------------------------------------------------------------- trusted hosts

TRUSTED = [
    "localhost",
    "localhost:5000",
    "LOCALHOST",
    "127.0.0.1:5000",
    "[::1]",
    "[::1]:5000",
    "app.localhost:5000",
]
REFUSED = [
    "evil.com",
    "evil.com:5000",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "evil-localhost",
    "evil.com.",
    "[::2]:5000",
    "0.0.0.0",
    "local host",
    "localhost:5000:80",
    "localhost:99999",
    "localhost@evil.com",
    "localhost/evil.com",
    "localhost,evil.com",
    "[::1",
    "",
]


@pytest.mark.parametrize("host", TRUSTED)
async def test_this_machine_is_trusted_by_any_of_its_names(app, developer, host):
    fails(app)
    page = await developer.page(headers={"Host": host})
    answer = await developer.post("pin", page, {"pin": PIN}, Host=host)
    assert answer.status_code == 200


@pytest.mark.parametrize("host", REFUSED)
async def test_a_host_of_elsewhere_sees_nothing_and_may_nothing(app, developer, host):
    fails(app)
    page = await developer.page()
    for accept in ("text/html", "text/plain"):
        got = await developer.get(headers={"Host": host, "Accept": accept})
        assert got.status_code in (400, 500)
        for word in ("Traceback", "ZeroDivisionError", "it has failed", page.secret):
            assert word not in got.text
    await developer.unlock(page)
    for endpoint in ("pin", "console"):
        answer = await developer.post(endpoint, page, {"pin": PIN}, Host=host)
        assert answer.status_code in (400, 403)


async def test_without_a_host_the_address_of_the_server_counts(app, developer):
    fails(app)
    for address, is_trusted in (("127.0.0.1", True), ("192.0.2.1", False)):
        asked = developer.browser.build_request("GET", f"http://{address}:5000/")
        del asked.headers["Host"]
        got = await developer.browser.send(asked)
        assert ("it has failed" in got.text) is is_trusted


async def test_other_hosts_may_be_trusted(app):
    fails(app)
    trusted = ["Dev.Example", ".example.org"]
    async with developing(app, trusted_hosts=trusted) as developer:
        for host in ("dev.example", "dev.example:80", "a.example.org"):
            await developer.page(headers={"Host": host})
        for host in ("localhost", "example.com", "evilexample.org", "sub.dev.example"):
            got = await developer.get(headers={"Host": host})
            assert "it has failed" not in got.text


# ----------------------------------------------------------------------- who may type


async def ask_both(developer: Developer, page: Page, **headers: str) -> list[int]:
    return [
        (await developer.post(endpoint, page, {}, **headers)).status_code
        for endpoint in ("pin", "console")
    ]


async def test_the_secret_of_the_page_is_wanted(app, developer):
    fails(app)
    page = await developer.page()
    await developer.unlock(page)
    for wrong in ("", "x", page.secret[:-1], page.secret + "x", "\xe4"):
        page.secret = wrong
        assert await ask_both(developer, page) == [403, 403]
    answer = await developer.browser.post("/__debugger__/console", json={})
    assert answer.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "x"])
async def test_requests_of_other_sites_are_refused(app, developer, site):
    fails(app)
    page = await developer.page()
    headers = {"Sec-Fetch-Site": site}
    assert await ask_both(developer, page, **headers) == [403, 403]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_only_post_is_answered(app, developer, method):
    fails(app)
    page = await developer.page()
    for path, status in (("pin", 405), ("console", 405), ("nowhere", 404), ("", 404)):
        answer = await developer.browser.request(
            method,
            f"/__debugger__/{path}",
            headers={"X-Debugger-Secret": page.secret},
        )
        assert answer.status_code == status


async def test_the_console_wants_the_pin_first(app, developer):
    fails(app)
    page = await developer.page()
    answer = await developer.run(page, "1 + 1")
    assert (answer.status_code, answer.text) == (
        401,
        "The console is locked. Type in the PIN.",
    )
    assert (await developer.unlock(page)).status_code == 200
    assert (await developer.run(page, "1 + 1")).text == "2\n"


@pytest.mark.parametrize("value", ["", "x", "0" * 64, "\xe4", "unlocked", PIN])
async def test_a_forged_cookie_opens_nothing(app, developer, value):
    fails(app)
    cookie = f"{COOKIE}={value}"
    page = await developer.page(headers={"Cookie": cookie.encode("latin-1")})
    assert "data-pinned" not in page.text
    data = {"failure": page.failure, "frame": 0, "source": "1"}
    answer = await developer.post("console", page, data, Cookie=cookie)
    assert answer.status_code == 401


async def test_a_cookie_of_another_process_opens_nothing(app, developer):
    fails(app)
    page = await developer.page()
    await developer.unlock(page)
    async with developing(Flask("other")) as other:
        fails(other.debugger._app)
        other.browser.cookies = developer.browser.cookies
        page = await other.page()
        assert (await other.run(page, "1")).status_code == 401


async def test_D4_the_cookie_is_for_this_site_and_not_for_scripts(app, developer):
    fails(app)
    page = await developer.page()
    cookie = (await developer.unlock(page)).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert PIN not in cookie
    assert PIN.replace("-", "") not in cookie
    assert "data-pinned" in (await developer.page()).text


@pytest.mark.parametrize("pin", [PIN, "123456789", " 123 456 789\n"])
async def test_the_pin_may_be_typed_with_and_without_hyphens(app, developer, pin):
    fails(app)
    assert (await developer.unlock(await developer.page(), pin)).status_code == 200


@pytest.mark.parametrize(
    ("pin", "wrong"), [("open sesame", ""), ("tea4two", "4"), ("1", "-")]
)
async def test_a_pin_of_ones_own_may_be_any_text(app, pin, wrong):
    fails(app)
    async with developing(app, pin=pin) as developer:
        page = await developer.page()
        assert (await developer.unlock(page, wrong)).status_code == 403
        assert (await developer.unlock(page, pin)).status_code == 200


@pytest.mark.parametrize("value", ["", ":", ":key"])
def test_an_empty_variable_makes_no_empty_pin(app, monkeypatch, value):
    monkeypatch.setenv(ENVIRONMENT, value)
    assert len(Debugger(app).pin) >= 9


def test_a_pin_of_its_own_is_logged(app, monkeypatch, caplog):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    debugger, other = Debugger(app), Debugger(app)
    assert re.fullmatch(r"\d{3}-\d{3}-\d{3}", debugger.pin)
    assert debugger.pin != other.pin
    assert debugger.pin in caplog.text


async def test_ten_wrong_pins_over_all_connections_lock_it(app, developer):
    fails(app)
    page = await developer.page()
    answers = []
    for n in range(MOST_TRIES):
        async with developer.new_browser() as developer.browser:
            answers.append(await developer.unlock(page, f"000-000-00{n}"))
    assert [answer.status_code for answer in answers] == [403] * 10
    async with developer.new_browser() as developer.browser:
        answer = await developer.unlock(page)
    assert answer.status_code == 429
    assert "Restart the server" in answer.text
    assert "set-cookie" not in answer.headers


async def test_who_is_in_already_is_not_locked_out(app, developer):
    fails(app)
    page = await developer.page()
    assert await developer.type(page, "1") == "1\n"
    for _ in range(MOST_TRIES):
        await developer.unlock(page, "wrong")
    assert await developer.type(page, "1") == "1\n"


async def test_the_right_pin_starts_the_count_anew(app, developer):
    fails(app)
    page = await developer.page()
    for _ in range(3):
        for _ in range(MOST_TRIES - 1):
            assert (await developer.unlock(page, "wrong")).status_code == 403
        assert (await developer.unlock(page)).status_code == 200


async def test_fifty_guesses_at_once_are_ten_tries(app, developer):
    fails(app)
    page = await developer.page()
    guesses = [developer.unlock(page, f"{n:09}") for n in range(50)]
    answers = await asyncio.gather(*guesses)
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(403), statuses.count(429)) == (10, 40)


@pytest.mark.parametrize("pin", [None, [], {}, 0, True, "", "١٢٣٤٥٦٧٨٩", "\udcff"])
async def test_an_odd_pin_is_a_wrong_one(app, developer, pin):
    fails(app)
    page = await developer.page()
    assert (await developer.unlock(page, pin)).status_code == 403


# ------------------------------------------------------------ more than one process


@pytest.mark.parametrize(
    ("protocol", "environ", "words"),
    [
        ("asgi", {"WEB_CONCURRENCY": "4"}, []),
        ("wsgi", {"WEB_CONCURRENCY": "4"}, []),
        ("wsgi of several processes", {}, []),
        ("asgi", {}, ["--workers", "4", "module:app"]),
        ("asgi", {}, ["module:app", "--workers=4"]),
        ("asgi", {}, ["-w", "2"]),
        ("asgi", {}, ["-w4"]),
    ],
    ids=str,
)
async def test_D5_with_several_processes_the_console_is_off(
    app, protocol, environ, words, monkeypatch
):
    fails(app)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["server", *words])
    async with developing(app, protocol) as developer:
        page = await developer.page()
        assert "it has failed" in page.seen
        assert page.frames == {}
        assert "more than one worker process" in page.seen
        assert (await developer.unlock(page)).status_code in range(400, 500)
        assert COOKIE not in developer.browser.cookies


@pytest.mark.parametrize("number", ["1", "0", ""])
async def test_with_one_process_it_is_on(app, developer, number, monkeypatch):
    fails(app)
    monkeypatch.setenv("WEB_CONCURRENCY", number)
    page = await developer.page()
    assert "worker process" not in page.seen
    assert await developer.type(page, "1") == "1\n"


# ------------------------------------------------------------------------ the console


async def test_it_runs_in_the_thread_of_the_request(app, on_asgi):
    @app.before_request
    def connect():
        g.thread = threading.get_ident()
        g.db = sqlite3.connect(":memory:")

    @app.route("/plain")
    def plain():
        raise ValueError

    @app.route("/async")
    async def asynchronous():
        raise ValueError

    for path, frame in (("/plain", "plain"), ("/async", "asynchronous")):
        page = await on_asgi.page(path)
        source = "import threading; threading.get_ident() == g.thread"
        assert await on_asgi.type(page, source, frame) == "True\n"
        source = "g.db.execute('select 42').fetchall()"
        assert await on_asgi.type(page, source, frame) == "[(42,)]\n"
        await on_asgi.type(page, "g.db.close()", frame)


async def test_it_runs_after_the_teardown(app, developer):
    closed = []

    @app.teardown_request
    def close(exc):
        closed.append(exc)

    @app.route("/")
    def view():
        g.closed = closed
        raise ZeroDivisionError

    page = await developer.page()
    assert await developer.type(page, "g.closed") == "[ZeroDivisionError()]\n"


async def test_what_waits_runs_on_the_loop_of_the_server(app, on_asgi):
    fails(app)
    app.loop = asyncio.get_running_loop()
    page = await on_asgi.page()
    source = "import asyncio\nloop = await asyncio.sleep(0, asyncio.get_running_loop())"
    await on_asgi.type(page, source)
    assert await on_asgi.type(page, "loop is current_app.loop, _") != ""
    assert await on_asgi.type(page, "loop is current_app.loop") == "True\n"
    assert await on_asgi.type(page, "await asyncio.sleep(0, request.path)") == "'/'\n"


async def test_what_a_request_can_do_it_can_do_still(app, developer):
    fails(app)

    @app.context_processor
    async def processor():
        return {"name": "anna"}

    page = await developer.page()
    await developer.type(page, "import asyncflask as a")
    for source in (
        "a.render_template_string('{{ name }}')",
        "await a.render_template_string_async('{{ name }}')",
        "current_app.test_client().get('/nowhere').status_code and 'anna'",
    ):
        assert await developer.type(page, source) == "'anna'\n"


def test_it_works_on_trio(app):
    async def main() -> None:
        async with developing(app) as developer:
            page = await developer.page()
            assert await developer.type(page, "request.path") == "'/'\n"
            await developer.type(page, "import trio")
            assert await developer.type(page, "await trio.sleep(0); 5") == "5\n"

    fails(app)
    trio.run(main)


async def test_names_belong_to_one_frame_of_one_failure(app, developer):
    def inner():
        raise ValueError

    @app.route("/")
    def view():
        inner()

    first, second = await developer.page(), await developer.page()
    await developer.type(first, "mine = 1")
    assert await developer.type(first, "mine") == "1\n"
    assert "NameError" in await developer.type(first, "mine", "inner")
    assert "NameError" in await developer.type(second, "mine")


async def test_each_failure_answers_for_its_own_request(app, developer):
    @app.route("/<name>")
    def view(name):
        g.name = name
        raise ValueError

    pages = {name: await developer.page(f"/{name}") for name in ("anna", "bert")}
    for name, page in pages.items():
        shown = await developer.type(page, "g.name, name, request.path")
        assert shown == f"({name!r}, {name!r}, '/{name}')\n"


@pytest.mark.parametrize(
    "source",
    ["1 +", "(", "\0", "'\ud800'", "-" * 100_000 + "1", "print('\\udcff')", "exit()"],
    ids=lambda source: ascii(source)[:20],
)
async def test_no_input_is_a_failure_of_the_server(app, developer, source):
    fails(app)
    page = await developer.page()
    assert await developer.type(page, source)
    assert await developer.type(page, "1 + 1") == "2\n"


@pytest.mark.parametrize(
    "which",
    [
        {"failure": "unknown"},
        {"failure": None},
        {"failure": {}},
        {"frame": -1},
        {"frame": 10**30},
        {"frame": True},
        {"frame": "0"},
        {"frame": 0.0},
        {"frame": None},
        {"frame": [0]},
    ],
    ids=str,
)
async def test_D5_a_frame_that_is_not_there_is_gone(app, developer, which):
    fails(app)
    page = await developer.page()
    await developer.unlock(page)
    data = {"failure": page.failure, "frame": 0, "source": "1", **which}
    answer = await developer.post("console", page, data)
    assert answer.status_code == 410
    assert "Ask for the page that failed once more" in answer.text


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", "5", '"text"', "[" * 100_000, "{}x", '"\\ud800"', "NaN"],
    ids=lambda body: body[:10],
)
@pytest.mark.parametrize("endpoint", ["pin", "console"])
async def test_a_malformed_question_is_the_fault_of_who_asks(
    app, developer, endpoint, body
):
    fails(app)
    page = await developer.page()
    await developer.unlock(page)
    for kind in ("application/json", "text/plain"):
        answer = await developer.post(endpoint, page, body, **{"Content-Type": kind})
        assert 400 <= answer.status_code < 500


async def test_an_input_without_end_is_left_to_itself(app, developer, monkeypatch):
    @app.route("/")
    def view():
        g.gate = gate
        raise ValueError

    gate = threading.Event()
    stuck, other = await developer.page(), await developer.page()
    await developer.unlock(stuck)
    await developer.type(stuck, "import asyncio")
    try:
        monkeypatch.setattr(failures, "PATIENCE", 0.5)
        for source in ("g.gate.wait(30)", "await asyncio.sleep(30)"):
            shown = await developer.type(stuck, source)
            assert shown == "It has not come to its end within 0.5 seconds.\n"
        monkeypatch.undo()
        assert await developer.type(other, "1 + 1") == "2\n"
        await developer.page()
    finally:
        gate.set()
    assert await developer.type(stuck, "1 + 1") == "2\n"


@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
async def test_it_works_below_a_prefix(app, protocol):
    fails(app)
    async with developing(app, protocol, root_path="/pre fix") as developer:
        page = await developer.page("/pre fix/")
        assert page.root == "/pre%20fix"
        assert await developer.type(page, "request.script_root") == "'/pre fix'\n"


async def test_it_works_in_an_application_that_is_mounted(app):
    fails(app)
    outer = Flask("outer")
    outer.mount("/sub", app)
    async with developing(app) as developer:
        developer.transport.app = outer
        page = await developer.page("/sub/")
        assert page.root == "/sub"
        shown = await developer.type(page, "request.path, request.script_root")
        assert shown == "('/', '/sub')\n"


async def test_of_two_applications_the_inner_one_answers(app, on_asgi):
    inner = Flask("inner")
    inner.debug = True
    before = threads()

    @inner.route("/")
    def view():
        g.name = "inner"
        raise ValueError

    app.before_request(lambda: setattr(g, "name", "outer"))
    app.mount("/sub", inner)
    page = await on_asgi.page("/sub/")
    assert await on_asgi.type(page, "g.name, current_app.package_name") == (
        "('inner', 'inner')\n"
    )
    on_asgi.debugger.failures.clear()
    await until(lambda: threads() <= before)


# -------------------------------------------------------------------- what is kept


class Connection:
    """Something of a request that must not live on."""


def connects(app: Flask) -> list[weakref.ref[Connection]]:
    @app.before_request
    def connect():
        g.connection = Connection()
        made.append(weakref.ref(g.connection))

    @app.route("/")
    def view():
        connection = g.connection
        raise ValueError(connection)

    @app.route("/fine")
    def fine():
        return variable.get()

    made: list[weakref.ref[Connection]] = []
    return made


def alive(made: list[weakref.ref[Connection]]) -> int:
    gc.collect()
    return sum(reference() is not None for reference in made)


async def test_D7_of_100_failures_the_latest_few_are_kept(app, on_asgi):
    app.worker_threads = 1
    before = threads()
    made = connects(app)
    pages = [await on_asgi.page() for _ in range(100)]
    assert app.workers.stats()["lent"] == app.workers.stats()["waiting"] == 0
    await until(lambda: len(threads() - before) <= KEPT + 1)
    await until(lambda: alive(made) <= KEPT)
    assert (await on_asgi.get("/fine")).text == "unset"
    await on_asgi.unlock(pages[-1])
    answers = [(await on_asgi.run(page, "g.connection")).status_code for page in pages]
    assert answers == [410] * (100 - KEPT) + [200] * KEPT


async def test_D7_failures_that_are_forgotten_leave_nothing(app, on_asgi):
    made = connects(app)
    before, inputs = threads(), set(linecache.cache)
    page = await on_asgi.page()
    await on_asgi.type(page, "kept = g.connection; kept")
    for _ in range(KEPT):
        await on_asgi.page()
    on_asgi.debugger.failures.clear()
    app.workers.close()
    await until(lambda: threads() <= before)
    await until(lambda: alive(made) == 0)
    left = set(linecache.cache) - inputs
    assert not [name for name in left if name.startswith("<")]


async def test_for_who_takes_text_nothing_is_kept(app, on_asgi):
    before = threads()
    made = connects(app)
    for _ in range(10):
        assert (await on_asgi.get(headers=PLAIN)).status_code == 500
    await until(lambda: len(threads() - before) <= 1)  # one that stands and waits
    await until(lambda: alive(made) == 0)


async def test_for_a_host_of_elsewhere_nothing_is_kept(app, on_asgi):
    before = threads()
    made = connects(app)
    for _ in range(10):
        await on_asgi.get(headers={"Host": "evil.com"})
    await until(lambda: len(threads() - before) <= 1)
    await until(lambda: alive(made) == 0)


async def test_middleware_that_answers_for_a_failure_leaves_nothing(app):
    async def middleware(scope, receive, send):
        try:
            await inside(scope, receive, send)
        except ValueError:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"saved"})

    inside, app.asgi_app = app.asgi_app, middleware
    before, made = threads(), connects(app)
    async with developing(app) as developer:
        for _ in range(10):
            assert (await developer.get()).text == "saved"
        await until(lambda: len(threads() - before) <= 1)
        await until(lambda: alive(made) == 0)


async def test_middleware_that_raises_something_else_leaves_nothing(app):
    async def middleware(scope, receive, send):
        try:
            await inside(scope, receive, send)
        except ValueError:
            raise KeyError("something else") from None

    inside, app.asgi_app = app.asgi_app, middleware
    before, made = threads(), connects(app)
    async with developing(app) as developer:
        for _ in range(10):
            assert "something else" in (await developer.page()).seen
        developer.debugger.failures.clear()
        await until(lambda: len(threads() - before) <= 1)
        await until(lambda: alive(made) == 0)


def test_the_threads_are_gone_when_the_server_has_stopped():
    app = Flask(__name__)
    app.debug = True
    fails(app)
    app.asgi_app = Debugger(app, pin=PIN)
    before = threads()
    with served(app) as url:
        got = httpx.get(url, headers={"Accept": "text/html"})
        assert "it has failed" in got.text
        kept = threads() - before
    for thread in kept:
        thread.join(5)
    assert threads() <= before


async def test_the_next_request_sees_nothing_of_one_that_failed(app, developer):
    @app.route("/")
    async def view():
        g.name = "failed"
        variable.set("failed")
        raise ValueError

    @app.route("/next")
    async def following():
        return f"{g.get('name')} {variable.get()}"

    page = await developer.page()
    assert (await developer.get("/next")).text == "None unset"
    await developer.type(page, "g.name")
    assert (await developer.get("/next")).text == "None unset"
    assert await developer.type(page, "g.name") == "'failed'\n"


async def test_a_wrong_pin_is_told_in_the_terminal(app, developer, caplog):
    fails(app)
    caplog.set_level(logging.WARNING)
    await developer.unlock(await developer.page(), "wrong")
    assert "A wrong PIN" in caplog.text
