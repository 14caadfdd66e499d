"""The debugger in a real browser: Chromium, against a real uvicorn."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from asyncflask import Flask, abort, g, request, session
from asyncflask.debug import Debugger

from .server import served

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
expect = playwright.expect
expect.set_options(timeout=20_000)

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

PIN = "123-456-789"
EVIL = "<script>document.title = 'run'</script>"
LONG = "averylongwordwithoutabreak" * 20


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    # To this browser evil.test is a host of elsewhere that resolves to this machine.
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP evil.test 127.0.0.1"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "a secret for the tests"
    app.debug = True
    app.asgi_app = Debugger(app, pin=PIN)

    @app.route("/")
    def view():
        raise ValueError("it has failed")

    return app


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    with served(app) as url:
        yield url


class Tab:
    """A tab of the browser that shows a page of the debugger.

    :ivar complaints: what the browser had to say of script and policy.
    """

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.complaints: list[str] = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message: Any) -> None:
        # It tells of every answer that is an error, and these are meant to be.
        if "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def frame(self, name: str) -> Any:
        heading = self.page.locator("summary b", has_text=re.compile(rf"\b{name}$"))
        return self.page.locator("details.frame", has=heading).first

    def unfold(self, name: str) -> Any:
        frame = self.frame(name)
        if frame.get_attribute("open") is None:
            frame.locator("summary").first.click()
        return frame

    def unlock(self, pin: str = PIN) -> None:
        self.page.locator("dialog input").fill(pin)
        self.page.get_by_role("button", name="Unlock").click()

    def type(self, name: str, source: str) -> str:
        """Type an input into the console of a frame, and return what it shows."""
        frame = self.unfold(name)
        with self.page.expect_response("**/console"):
            frame.locator("textarea").fill(source)
            frame.locator("textarea").press("Enter")
            if self.page.locator("dialog").is_visible():
                self.unlock()
        expect(frame.locator(".busy")).to_have_count(0)
        last = frame.locator(".log pre").last
        return last.text_content() if "output" in last.get_attribute("class") else ""


@pytest.fixture
def tab(chromium: Any) -> Iterator[Tab]:
    context = chromium.new_context()
    tab = Tab(context)
    yield tab
    context.close()
    assert tab.complaints == []


def test_a_failed_request_is_looked_into(app: Flask, url: str, tab: Tab):
    @app.before_request
    def connect():
        g.user = "anna"
        g.db = sqlite3.connect(":memory:")
        session["basket"] = ["tea"]

    @app.teardown_request
    def close(exc):
        g.db.close()

    @app.route("/order/<int:number>")
    def order(number):
        kept = sqlite3.connect(":memory:")
        kept.execute("create table item (name)")
        kept.execute("insert into item values ('tea')")
        return divided(number, 0, threading.get_ident())

    def divided(number, by, thread):
        return number / by

    tab.page.goto(f"{url}/order/7?page=2")
    assert tab.page.title() == "ZeroDivisionError: division by zero"
    assert tab.page.locator("mark").last.text_content() == "number / by"
    assert tab.frame("divided").get_attribute("open") is not None

    frame = tab.frame("order")
    expect(frame.locator(".source")).to_be_hidden()
    frame.locator("summary").first.click()
    expect(frame.locator(".source")).to_be_visible()
    expect(frame.locator(".current")).to_contain_text("return divided(number, 0")

    frame.locator("textarea").fill("request.path")
    frame.locator("textarea").press("Enter")
    expect(tab.page.locator("dialog")).to_be_visible()
    tab.unlock("000-000-000")
    expect(tab.page.locator(".wrong")).to_have_text("That is not the PIN.")
    expect(tab.page.locator("dialog")).to_be_visible()
    expect(frame.locator(".log pre")).to_have_count(0)
    tab.unlock()
    expect(tab.page.locator("dialog")).to_be_hidden()
    expect(frame.locator(".output")).to_have_text("'/order/7'\n")
    expect(frame.locator(".typed")).to_have_text(">>> request.path")

    assert tab.type("order", "request.args['page'], g.user") == "('2', 'anna')\n"
    assert tab.type("order", "session['basket'], number") == "(['tea'], 7)\n"
    assert tab.type("order", "url_for('order', number=8)") == "'/order/8'\n"
    assert tab.type("order", "kept.execute('select * from item').fetchall()") == (
        "[('tea',)]\n"
    )
    assert tab.type("order", "kept.close()") == ""
    assert "closed database" in tab.type("order", "g.db.execute('select 1')")
    source = "import threading; threading.get_ident() == thread"
    assert tab.type("divided", source) == "True\n"
    assert "NameError" in tab.type("order", "thread")

    shown = tab.type("divided", "number / by")
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.endswith("ZeroDivisionError: division by zero\n")
    assert tab.type("divided", "import asyncio") == ""
    assert tab.type("divided", "await asyncio.sleep(0, 'x')") == "'x'\n"
    assert tab.type("divided", "print('<b>printed</b>')") == "<b>printed</b>\n"


def test_an_input_may_have_several_lines(url: str, tab: Tab):
    tab.page.goto(url)
    assert tab.type("view", "def f(n):\n    return n * 2\nf(21)") == "42\n"
    typed = tab.frame("view").locator(".typed").last.text_content()
    assert typed == ">>> def f(n):\n...     return n * 2\n... f(21)"
    assert tab.type("view", "f(2)") == "4\n"


def test_enter_goes_on_where_an_input_is_not_complete(url: str, tab: Tab):
    tab.page.goto(url)
    tab.type("view", "1")
    area = tab.frame("view").locator("textarea")
    for line in ("def f(n):", "    return n", "", "[", "1]"):
        area.press_sequentially(line)
        area.press("Enter")
    expect(tab.frame("view").locator(".typed")).to_have_text(
        [">>> 1", ">>> def f(n):\n...     return n\n... ", ">>> [\n... 1]"]
    )
    area.press_sequentially("1")
    area.press("Shift+Enter")
    area.press_sequentially("2")
    expect(area).to_have_value("1\n2")
    assert area.get_attribute("rows") == "2"


def test_the_arrow_keys_go_through_the_history(url: str, tab: Tab):
    tab.page.goto(url)
    area = tab.unfold("view").locator("textarea")
    for source in ("first = 1", "second = 2"):
        tab.type("view", source)
    for key, value in (
        ("ArrowUp", "second = 2"),
        ("ArrowUp", "first = 1"),
        ("ArrowUp", "first = 1"),
        ("ArrowDown", "second = 2"),
        ("ArrowDown", ""),
        ("ArrowUp", "second = 2"),
    ):
        area.press(key)
        expect(area).to_have_value(value)


def test_history_is_at_hand_in_every_frame(app: Flask, url: str, tab: Tab):
    @app.route("/two")
    def outer():
        inner()

    def inner():
        raise ValueError

    tab.page.goto(f"{url}/two")
    tab.type("inner", "1 + 1")
    area = tab.unfold("outer").locator("textarea")
    area.press("ArrowUp")
    expect(area).to_have_value("1 + 1")


def test_the_pin_is_asked_for_once(url: str, tab: Tab, chromium: Any):
    tab.page.goto(url)
    tab.type("view", "1")
    for page in (tab.page, tab.page.context.new_page()):
        page.goto(f"{url}/?again")
        area = page.locator(".frame[open] textarea")
        area.fill("2")
        area.press("Enter")
        expect(page.locator(".output")).to_have_text("2\n")
        expect(page.locator("dialog")).to_be_hidden()
    other = chromium.new_context().new_page()
    other.goto(url)
    other.locator(".frame[open] textarea").press_sequentially("3")
    other.locator(".frame[open] textarea").press("Enter")
    expect(other.locator("dialog")).to_be_visible()
    other.context.close()


def test_the_dialog_may_be_left_again(url: str, tab: Tab):
    tab.page.goto(url)
    area = tab.frame("view").locator("textarea")
    for leave in ("Cancel", "Escape"):
        area.fill("1 + 1")
        area.press("Enter")
        if leave == "Cancel":
            tab.page.get_by_role("button", name="Cancel").click()
        else:
            tab.page.keyboard.press("Escape")
        expect(tab.page.locator("dialog")).to_be_hidden()
        expect(area).to_have_value("1 + 1")
        expect(area).to_be_focused()
    assert tab.frame("view").locator(".log pre").count() == 0


def test_the_keyboard_alone_will_do(url: str, tab: Tab):
    tab.page.goto(url)
    tab.frame("view").locator("textarea").focus()
    tab.page.keyboard.type("1 + 1\n")
    expect(tab.page.locator("dialog input")).to_be_focused()
    tab.page.keyboard.type(f"{PIN}\n")
    expect(tab.page.locator(".output")).to_have_text("2\n")
    expect(tab.frame("view").locator("textarea")).to_be_focused()


def test_ten_wrong_pins_lock_the_console(url: str, tab: Tab):
    tab.page.goto(url)
    tab.frame("view").locator("textarea").fill("1")
    tab.frame("view").locator("textarea").press("Enter")
    for _ in range(10):
        with tab.page.expect_response("**/pin"):
            tab.unlock("wrong")
    tab.unlock()
    expect(tab.page.locator(".wrong")).to_contain_text("have locked the console")


def test_a_server_that_is_gone_is_told_of(url: str, tab: Tab):
    tab.page.goto(url)
    tab.type("view", "1")
    tab.page.route("**/__debugger__/*", lambda route: route.abort())
    tab.frame("view").locator("textarea").fill("2")
    tab.frame("view").locator("textarea").press("Enter")
    expect(tab.page.locator(".output").last).to_have_text(
        "The server does not answer. Is it running?"
    )


def test_a_server_that_is_gone_before_the_pin_is_told_of(url: str, tab: Tab):
    tab.page.goto(url)
    tab.page.route("**/__debugger__/*", lambda route: route.abort())
    tab.frame("view").locator("textarea").fill("2")
    tab.frame("view").locator("textarea").press("Enter")
    tab.unlock()
    expect(tab.page.locator(".wrong")).to_contain_text("The server does not answer")


def test_a_page_of_a_server_that_was_restarted_says_so(app: Flask, url: str, tab: Tab):
    tab.page.goto(url)
    app.asgi_app._secret = "another"
    tab.frame("view").locator("textarea").fill("2")
    tab.frame("view").locator("textarea").press("Enter")
    tab.unlock()
    expect(tab.page.locator(".wrong")).to_contain_text("Ask for the page")


def test_nothing_of_the_request_is_run(app: Flask, url: str, tab: Tab):
    @app.route("/<path:rest>")
    def evil(rest):
        session["evil"] = g.evil = mine = request.headers["X-Evil"]
        error = ValueError(f"{mine}{EVIL}")
        error.add_note(EVIL)
        raise error

    tab.page.set_extra_http_headers({"X-Evil": EVIL})
    tab.page.goto(f"{url}/{EVIL}?{EVIL}={EVIL}")
    assert tab.page.title().startswith("ValueError: <script>document")
    assert tab.page.locator("script").count() == 1
    expect(tab.page.locator("h1")).to_contain_text(EVIL)
    expect(tab.page.locator(".note")).to_have_text(EVIL)
    assert tab.page.content().count("&lt;script&gt;") >= 8
    shown = tab.type("evil", "from markupsafe import Markup; print(mine); Markup(mine)")
    assert shown == f"{EVIL}\nMarkup({EVIL!r})\n"
    assert tab.page.locator("script").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_window(app: Flask, url: str, chromium: Any, scheme: str):
    @app.route("/<path:rest>")
    async def view_with_a_name_that_is_quite_long_for_a_small_window(rest):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails(LONG))
            tasks.create_task(fails("short"))

    async def fails(text, a_variable_with_a_long_name="", **others):
        try:
            abort(404)
        except Exception as exc:
            exc.add_note(text)
            raise ValueError(text) from exc

    context = chromium.new_context(color_scheme=scheme)
    tab = Tab(context)
    tab.page.set_extra_http_headers({"X-Long": LONG, f"X-{LONG[:100]}": "1"})
    tab.page.goto(f"{url}/{LONG}?{LONG}={LONG}")
    tab.page.evaluate(
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    tab.type("fails", "print(text); text, 1 / 0")
    for width in (1400, 768, 390, 320):
        tab.page.set_viewport_size({"width": width, "height": 800})
        widths = "[document.documentElement.scrollWidth, innerWidth]"
        needed, given = tab.page.evaluate(widths)
        assert needed <= given == width
    ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3]))
    assert (brightness > 384) == (scheme == "light")
    assert tab.complaints == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(url: str, chromium, scheme):
    """At least 4.5 to 1, as WCAG 2 wants it for text."""
    context = chromium.new_context(color_scheme=scheme)
    tab = Tab(context)
    tab.page.goto(url)
    tab.page.evaluate(
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    tab.type("view", "1 / 0")
    faint = tab.page.evaluate(FAINT)
    context.close()
    assert faint == []


FAINT = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Map();
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].find((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !element.checkVisibility()) continue;
    let [ground, opacity, at] = [null, 1, element];
    for (; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      opacity *= style.opacity;
      const color = numbers(style.backgroundColor);
      if (color[3] !== 0) { ground = color; break; }
    }
    const ink = numbers(getComputedStyle(element).color).slice(0, 3)
      .map((c, i) => c * opacity + ground[i] * (1 - opacity));
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const name = element.tagName.toLowerCase() + "." + element.className;
    if (contrast < 4.5) found.set(name, contrast.toFixed(2));
  }
  return [...found];
}"""


def test_a_name_that_was_bound_to_this_machine_shows_nothing(url: str, tab: Tab):
    tab.page.goto(url.replace("127.0.0.1", "evil.test"))
    body = tab.page.locator("body").text_content()
    assert "trusted_hosts" in body
    assert "it has failed" not in body
    assert tab.page.locator("textarea").count() == 0


def test_another_site_cannot_reach_the_console(app: Flask, url: str, tab: Tab):
    app.add_url_rule("/other", "other", lambda: "<title>other</title>")
    tab.page.goto(url)
    secret = tab.page.locator("body").get_attribute("data-secret")
    tab.type("view", "1")
    tab.page.goto(url.replace("127.0.0.1", "evil.test") + "/other")
    ask = """async ([url, secret]) => {
      const reached = [];
      for (const mode of ["cors", "no-cors"])
        for (const headers of [{}, { "X-Debugger-Secret": secret }])
          await fetch(`${url}/__debugger__/console`,
            { method: "POST", mode, headers, credentials: "include" })
            .then((answer) => answer.status, () => "refused")
            .then((outcome) => reached.push(outcome));
      return reached;
    }"""
    assert 200 not in tab.page.evaluate(ask, [url, secret])
    tab.complaints.clear()


def test_the_traceback_may_be_copied(url: str, chromium: Any):
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    tab = Tab(context)
    tab.page.goto(url)
    tab.page.get_by_text("Traceback as text").click()
    tab.page.get_by_role("button", name="Copy").click()
    expect(tab.page.get_by_role("button", name="Copied")).to_be_visible()
    text = tab.page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ValueError: it has failed\n")
    context.close()
    assert tab.complaints == []
