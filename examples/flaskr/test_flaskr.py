"""flaskr as its visitors see it: one by one, and a hundred at a time.

The plain application and the async one pass the same tests.
"""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import anyio
import httpx
import pytest
from flaskr import flaskr, flaskr_async
from support import WAYS, Browser, Page, browsing, serving

WRITERS = 120
BLOGS = [flaskr, flaskr_async]
#: aiosqlite knows asyncio only
CASES = [(blog, way) for blog in BLOGS for way in WAYS]
CASES.remove((flaskr_async, "httpx-trio"))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[ModuleType, str]:
    case: tuple[ModuleType, str] = request.param
    return case


@pytest.fixture
def way(case: tuple[ModuleType, str]) -> str:
    return case[1]


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give each test a database of its own, which does not exist yet."""
    path = str(tmp_path / "flaskr.db")
    for blog in BLOGS:
        monkeypatch.setattr(blog, "DATABASE", path)
    return path


@pytest.fixture
async def browser(case: tuple[ModuleType, str]) -> AsyncIterator[Browser]:
    blog, way = case
    async with browsing(blog.app, way) as browser:
        yield browser


async def log_in(
    browser: Browser,
    username: str = flaskr.USERNAME,
    password: str = flaskr.PASSWORD,
) -> Page:
    return await browser.post("/login", username=username, password=password)


def stored_titles(database: str) -> list[str]:
    with closing(sqlite3.connect(database)) as db:
        return [title for (title,) in db.execute("select title from entries")]


async def test_the_first_request_makes_the_database(browser: Browser) -> None:
    page = await browser.get("/")
    assert page.status == 200
    assert "Nothing has been written" in page.text


def test_making_the_tables_twice_keeps_the_entries(database: str) -> None:
    flaskr.init_db()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("insert into entries (title, text) values ('kept', '')")
    flaskr.init_db()
    assert stored_titles(database) == ["kept"]


async def test_logging_in_and_out_shows_a_message_once(browser: Browser) -> None:
    page = await log_in(browser)
    assert "Welcome back." in page.text
    assert "Log out" in page.text
    assert "Welcome back." not in (await browser.get("/")).text
    page = await browser.get("/logout")
    assert "See you soon." in page.text
    assert "Log in" in page.text


@pytest.mark.parametrize(
    ("username", "password"),
    [("admin", "wrong"), ("wrong", "default"), ("ädmin", "défault"), ("", "")],
)
async def test_a_wrong_name_or_password_is_refused(
    browser: Browser, username: str, password: str
) -> None:
    page = await log_in(browser, username, password)
    assert "do not match" in page.text
    assert "Log out" not in (await browser.get("/")).text


async def test_a_login_without_a_field_is_a_bad_request(browser: Browser) -> None:
    page = await browser.post("/login", username="admin")
    assert page.status == 400


async def test_a_stranger_may_not_write(browser: Browser, database: str) -> None:
    await browser.get("/")
    page = await browser.post("/add", title="spam", text="spam")
    assert page.status == 401
    assert stored_titles(database) == []


async def test_adding_needs_a_post(browser: Browser) -> None:
    assert (await browser.get("/add")).status == 405


async def test_entries_are_shown_newest_first_and_escaped(browser: Browser) -> None:
    await log_in(browser)
    await browser.post("/add", title="First", text="1 < 2 & ünïcödé")
    page = await browser.post("/add", title="<b>Second</b>", text="")
    assert "Your entry is online." in page.text
    assert "&lt;b&gt;Second&lt;/b&gt;" in page.text
    assert "1 &lt; 2 &amp; ünïcödé" in page.text
    assert page.text.index("Second") < page.text.index("First")


async def test_an_entry_without_title_is_not_stored(
    browser: Browser, database: str
) -> None:
    await log_in(browser)
    page = await browser.post("/add", title="   ", text="no head")
    assert "needs a title" in page.text
    assert stored_titles(database) == []


async def test_the_async_view_counts_what_plain_views_stored(
    browser: Browser,
) -> None:
    await log_in(browser)
    assert (await browser.get("/stats")).json == {"entries": 0}
    await browser.post("/add", title="One", text="")
    assert (await browser.get("/stats")).json == {"entries": 1}


async def test_the_style_sheet_is_served(browser: Browser) -> None:
    page = await browser.get("/static/style.css")
    assert (page.status, page.mimetype) == (200, "text/css")


@pytest.mark.parametrize("blog", BLOGS, ids=lambda blog: blog.__name__)
async def test_many_writers_at_once_store_every_entry_once(
    blog: ModuleType, database: str
) -> None:
    """All log in, wait for each other, and then post at the same moment.

    None of them may fail, not even those who find no tables yet.
    """
    waiting = 0
    everyone_is_in = anyio.Event()
    tls = ssl.create_default_context()  # costly, and not used: one for all

    async def write(url: str, number: int) -> None:
        nonlocal waiting
        async with httpx.AsyncClient(base_url=url, verify=tls, timeout=60) as client:
            form = {"username": flaskr.USERNAME, "password": flaskr.PASSWORD}
            assert (await client.post("/login", data=form)).status_code == 302
            waiting += 1
            if waiting == WRITERS:
                everyone_is_in.set()
            await everyone_is_in.wait()
            entry = {"title": f"entry {number}", "text": "by one of many"}
            assert (await client.post("/add", data=entry)).status_code == 302
            assert (await client.get("/stats")).status_code == 200
            page = await client.get("/")
            assert page.status_code == 200
            assert f"<h2>entry {number}</h2>" in page.text

    with serving(blog.app) as url:
        async with anyio.create_task_group() as group:
            for number in range(WRITERS):
                group.start_soon(write, url, number)

    expected = sorted(f"entry {number}" for number in range(WRITERS))
    assert sorted(stored_titles(database)) == expected
