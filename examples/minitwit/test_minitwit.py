"""minitwit as its users see it, in every way to reach it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest
from minitwit import minitwit
from support import Browser, Page, browsing, serving

EMAIL = "ada@example.com"
PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give each test a database of its own, and passwords that are cheap."""
    path = str(tmp_path / "minitwit.db")
    monkeypatch.setattr(minitwit, "DATABASE", path)
    monkeypatch.setattr(minitwit, "SCRYPT_COST", (2**4, 8, 1))
    return path


@pytest.fixture
async def browser(way: str) -> AsyncIterator[Browser]:
    async with browsing(minitwit.app, way) as browser:
        yield browser


async def register(browser: Browser, username: str, **changes: str) -> Page:
    fields = {
        "username": username,
        "email": EMAIL,
        "password": PASSWORD,
        "password2": PASSWORD,
    }
    return await browser.post("/register", **{**fields, **changes})


async def log_in(browser: Browser, username: str, password: str = PASSWORD) -> Page:
    return await browser.post("/login", username=username, password=password)


async def write_as(browser: Browser, username: str, *texts: str) -> None:
    """Register a user, log in and write."""
    await register(browser, username)
    await log_in(browser, username)
    for text in texts:
        page = await browser.post("/add_message", text=text)
        assert "Your message is out." in page.text


# ---------------------------------------------------------------------- accounts


async def test_registering_opens_an_account_that_can_log_in(browser: Browser) -> None:
    page = await register(browser, "ada")
    assert "Your account is open" in page.text
    page = await log_in(browser, "Ada")
    assert "Hello ada." in page.text
    assert "My timeline" in page.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"username": ""}, "2 to 30 letters"),
        ({"username": "a b"}, "2 to 30 letters"),
        ({"username": "Login"}, "our own pages"),
        ({"username": "static"}, "our own pages"),
        ({"email": "nowhere"}, "no e-mail address"),
        ({"password": "short", "password2": "short"}, "at least 8 characters"),
        ({"password2": "something else"}, "passwords differ"),
    ],
)
async def test_registering_says_what_is_wrong_and_keeps_the_form(
    browser: Browser, changes: dict[str, str], reason: str
) -> None:
    page = await register(browser, **{"username": "ada", **changes})
    assert reason in page.text
    assert f'value="{changes.get("email", EMAIL)}"' in page.text


async def test_a_name_is_given_once_whatever_its_case(browser: Browser) -> None:
    await register(browser, "ada")
    page = await register(browser, "ADA")
    assert "Somebody has that name already." in page.text


async def test_a_wrong_name_or_password_is_refused(browser: Browser) -> None:
    await register(browser, "ada")
    assert "do not match" in (await log_in(browser, "ada", "wrong horse")).text
    assert "do not match" in (await log_in(browser, "bob")).text


async def test_logging_out_needs_a_post(browser: Browser) -> None:
    await write_as(browser, "ada")
    assert (await browser.get("/logout")).status == 404
    page = await browser.post("/logout")
    assert "You are logged out." in page.text
    assert "Register" in page.text


async def test_a_session_of_a_deleted_account_is_nobody(
    browser: Browser, database: str
) -> None:
    await write_as(browser, "ada")
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("delete from user")
    assert (await browser.post("/add_message", text="boo")).status == 401


def test_passwords_are_salted_and_checked() -> None:
    stored = minitwit.hash_password("sécret")
    assert minitwit.check_password(stored, "sécret")
    assert not minitwit.check_password(stored, "secret")
    assert stored != minitwit.hash_password("sécret")
    assert "sécret" not in stored


def test_an_old_hash_is_checked_at_its_own_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = minitwit.hash_password("secret")
    monkeypatch.setattr(minitwit, "SCRYPT_COST", (2**5, 8, 2))
    assert minitwit.check_password(stored, "secret")


# --------------------------------------------------------------------- timelines


async def test_strangers_are_sent_to_the_public_timeline(browser: Browser) -> None:
    page = await browser.get("/")
    assert "Public timeline" in page.text
    assert "No messages here yet." in page.text


async def test_messages_are_shown_newest_first_and_escaped(browser: Browser) -> None:
    await write_as(browser, "ada", "first ünïcödé", "<i>second</i>")
    for path in ("/", "/public", "/ada"):
        text = (await browser.get(path)).text
        assert "first ünïcödé" in text
        assert minitwit.gravatar_url(EMAIL).replace("&", "&amp;") in text
        assert text.index("&lt;i&gt;second&lt;/i&gt;") < text.index("first")


async def test_only_users_write_and_follow(browser: Browser) -> None:
    await register(browser, "ada")
    for path in ("/add_message", "/ada/follow", "/ada/unfollow"):
        assert (await browser.post(path, text="hello")).status == 401


@pytest.mark.parametrize("text", ["", "   ", "x" * 281])
async def test_a_message_is_neither_empty_nor_long(browser: Browser, text: str) -> None:
    await write_as(browser, "ada")
    page = await browser.post("/add_message", text=text)
    assert "1 to 280 characters" in page.text
    assert "No messages here yet." in page.text


async def test_following_decides_what_is_on_the_timeline(browser: Browser) -> None:
    await write_as(browser, "ada", "a word of ada")
    await write_as(browser, "bob", "a word of bob")

    assert "a word of ada" not in (await browser.get("/")).text
    assert "Follow</button>" in (await browser.get("/ada")).text

    page = await browser.post("/ada/follow")
    assert "You follow ada now." in page.text
    assert "Unfollow</button>" in page.text
    text = (await browser.get("/")).text
    assert "a word of ada" in text
    assert "a word of bob" in text

    page = await browser.post("/ada/unfollow")
    assert "You no longer follow ada." in page.text
    assert "a word of ada" not in (await browser.get("/")).text


async def test_following_twice_is_following_once(browser: Browser) -> None:
    await write_as(browser, "ada", "just once")
    await write_as(browser, "bob")
    for _ in range(2):
        assert (await browser.post("/ada/follow")).status == 200
    assert (await browser.get("/")).text.count("just once") == 1


async def test_nobody_follows_themselves(browser: Browser) -> None:
    await write_as(browser, "ada")
    assert (await browser.post("/ada/follow")).status == 400
    assert "Follow</button>" not in (await browser.get("/ada")).text


async def test_a_page_holds_so_many_messages(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minitwit, "PER_PAGE", 2)
    await write_as(browser, "ada", "one", "two", "three")
    text = (await browser.get("/ada")).text
    assert text.count('class="text"') == 2
    assert ">one<" not in text


# ------------------------------------------------------------ pages and pictures


@pytest.mark.parametrize("path", ["/nobody", "/no/such/page"])
async def test_a_missing_page_has_a_page(browser: Browser, path: str) -> None:
    page = await browser.get(path)
    assert page.status == 404
    assert "Nobody lives here" in page.text
    assert path in page.text


async def test_following_nobody_is_not_found(browser: Browser) -> None:
    await write_as(browser, "ada")
    assert (await browser.post("/nobody/follow")).status == 404


async def test_the_style_sheet_is_served(browser: Browser) -> None:
    page = await browser.get("/static/style.css")
    assert (page.status, page.mimetype) == (200, "text/css")


def test_a_picture_depends_on_the_address_alone() -> None:
    url = minitwit.gravatar_url(" Ada@Example.com ", 80)
    assert url == minitwit.gravatar_url("ada@example.com", 80)
    assert url.startswith("https://www.gravatar.com/avatar/")
    assert url.endswith("?d=identicon&s=80")


def test_the_filters_are_at_hand_in_templates() -> None:
    template = minitwit.app.jinja_env.from_string(
        "{{ 0|datetime }} {{ 0|isodatetime }}"
    )
    assert template.render() == "1 January 1970, 00:00 UTC 1970-01-01T00:00:00+00:00"


async def test_a_name_wanted_by_many_at_once_goes_to_one() -> None:
    pages: list[str] = []

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        response = await client.post(
            "/register",
            data={
                "username": "ada",
                "email": f"{number}@example.com",
                "password": PASSWORD,
                "password2": PASSWORD,
            },
        )
        assert response.status_code in (200, 302)
        pages.append("taken" if response.status_code == 200 else "given")

    with serving(minitwit.app) as url:
        async with (
            httpx.AsyncClient(base_url=url, timeout=30) as client,
            anyio.create_task_group() as group,
        ):
            for number in range(40):
                group.start_soon(ask, client, number)

    assert pages.count("given") == 1
    assert pages.count("taken") == 39
