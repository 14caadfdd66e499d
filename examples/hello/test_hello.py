"""Both views of hello, in every way to reach them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hello.hello import app
from support import Browser, browsing


@pytest.fixture
async def browser(way: str) -> AsyncIterator[Browser]:
    async with browsing(app, way) as browser:
        yield browser


async def test_the_plain_view_greets_the_world(browser: Browser) -> None:
    page = await browser.get("/")
    assert (page.status, page.mimetype) == (200, "text/html")
    assert "Hello, World!" in page.text


async def test_the_plain_view_escapes_a_name(browser: Browser) -> None:
    page = await browser.get("/?name=%3Cb%3EAda%3C/b%3E")
    assert "Hello, &lt;b&gt;Ada&lt;/b&gt;!" in page.text


async def test_the_async_view_answers_in_json(browser: Browser) -> None:
    page = await browser.get("/later?name=Ada")
    assert (page.status, page.json) == (200, {"hello": "Ada"})


async def test_other_methods_are_refused(browser: Browser) -> None:
    assert (await browser.post("/")).status == 405
