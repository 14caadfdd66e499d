"""The chat room behind a real server, full of people.

Nothing here waits for time to pass. The room itself tells its listeners who
comes and goes, so a test waits until it hears what it is waiting for.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from chat import chat
from support import Browser, browsing, serving

CROWD = 60


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> chat.Room:
    """Give each test an empty room."""
    room = chat.Room()
    monkeypatch.setattr(chat, "room", room)
    return room


@pytest.fixture
async def browser(way: str) -> AsyncIterator[Browser]:
    async with browsing(chat.app, way) as browser:
        yield browser


@pytest.fixture
def url() -> Iterator[str]:
    with serving(chat.app) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        yield client


class Ear:
    """Somebody who listens."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def hear(self) -> tuple[str, Any, int | None]:
        """Return kind, data and number of the next event."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line and fields:
                number = int(fields["id"]) if "id" in fields else None
                return fields["event"], json.loads(fields["data"]), number

            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
        raise EOFError("the stream has ended")

    async def wait_for(self, kind: str, data: Any = ...) -> tuple[Any, int | None]:
        """Let events pass until one is of a kind, and says a thing."""
        while True:
            heard, told, number = await self.hear()
            if heard == kind and data in (..., told):
                return told, number


@asynccontextmanager
async def listening(
    client: httpx.AsyncClient, seen: int | None = None
) -> AsyncIterator[Ear]:
    headers = {} if seen is None else {"Last-Event-ID": str(seen)}
    async with client.stream("GET", "/events", headers=headers) as response:
        assert response.status_code == 200
        yield Ear(response)


async def say(client: httpx.AsyncClient, text: str, name: str = "ada") -> None:
    response = await client.post("/say", data={"name": name, "text": text})
    assert (response.status_code, response.content) == (204, b"")


async def count(client: httpx.AsyncClient) -> int:
    return int((await client.get("/count")).json()["listeners"])


# ----------------------------------------------------------------- without a crowd


async def test_the_page_knows_the_name_that_was_used_last(browser: Browser) -> None:
    page = await browser.get("/")
    assert (page.status, page.mimetype) == (200, "text/html")
    assert (await browser.post("/say", name="<ada>", text="hello")).status == 204
    assert 'value="&lt;ada&gt;"' in (await browser.get("/")).text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "ada"},
        {"name": "ada", "text": "  "},
        {"name": "  ", "text": "hello"},
        {"name": "x" * 31, "text": "hello"},
        {"name": "ada", "text": "x" * 501},
    ],
)
async def test_a_message_has_a_name_and_a_text(
    browser: Browser, fields: dict[str, str], room: chat.Room
) -> None:
    assert (await browser.post("/say", **fields)).status == 400
    assert room.said == 0


@pytest.mark.parametrize("path", ["/static/style.css", "/static/chat.js"])
async def test_the_page_brings_its_own_assets(browser: Browser, path: str) -> None:
    assert path in (await browser.get("/")).text
    assert (await browser.get(path)).status == 200


async def test_no_request_takes_a_thread(client: httpx.AsyncClient) -> None:
    async with listening(client) as ear:
        await say(client, "hello")
        await ear.wait_for("message")
        stats = chat.app.workers.stats()
        assert (stats["lent"], stats["idle"]) == (0, 0)


# --------------------------------------------------------------------- with a crowd


async def test_everybody_hears_everything_in_the_same_order(
    client: httpx.AsyncClient,
) -> None:
    heard: list[list[tuple[Any, int | None]]] = []

    async def listen(ear: Ear) -> None:
        heard.append([await ear.wait_for("message") for _ in range(CROWD)])

    async with AsyncExitStack() as stack:
        ears = [
            await stack.enter_async_context(listening(client)) for _ in range(CROWD)
        ]
        await ears[-1].wait_for("listeners", CROWD)
        async with anyio.create_task_group() as group:
            for number, ear in enumerate(ears):
                group.start_soon(listen, ear)
                group.start_soon(say, client, f"message {number}", f"user {number}")

    assert len(heard) == CROWD
    assert all(one == heard[0] for one in heard)
    assert [number for _, number in heard[0]] == list(range(1, CROWD + 1))
    expected = {f"message {number}" for number in range(CROWD)}
    assert {message["text"] for message, _ in heard[0]} == expected


async def test_those_who_leave_are_removed(client: httpx.AsyncClient) -> None:
    async with listening(client) as stays:
        async with AsyncExitStack() as stack:
            for _ in range(CROWD - 1):
                await stack.enter_async_context(listening(client))
            await stays.wait_for("listeners", CROWD)
            assert await count(client) == CROWD

        await stays.wait_for("listeners", 1)
        assert await count(client) == 1
        await say(client, "alone at last")
        message, _ = await stays.wait_for("message")
        assert message["text"] == "alone at last"


async def test_the_stream_is_one_of_events_and_not_to_be_cached(
    client: httpx.AsyncClient,
) -> None:
    async with listening(client) as ear:
        headers = ear.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store"


async def test_what_was_said_before_is_told_first(client: httpx.AsyncClient) -> None:
    await say(client, "one")
    await say(client, "two\nlines, ünïcödé")
    async with listening(client) as ear:
        assert await ear.hear() == ("message", {"name": "ada", "text": "one"}, 1)
        message, number = await ear.wait_for("message")
        assert (message["text"], number) == ("two\nlines, ünïcödé", 2)


async def test_one_who_comes_back_is_told_what_it_missed(
    client: httpx.AsyncClient,
) -> None:
    for text in ("one", "two", "three"):
        await say(client, text)
    async with listening(client, seen=2) as ear:
        kind, message, number = await ear.hear()
        assert (kind, message["text"], number) == ("message", "three", 3)


async def test_silence_is_broken_by_a_sign_of_life(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "HEARTBEAT", 0)
    async with client.stream("GET", "/events") as response:
        async for line in response.aiter_lines():
            if line == ": still here":
                return

    pytest.fail("the stream ended in silence")


# ------------------------------------------------------------------- the slow ones


async def test_a_listener_whose_queue_is_full_is_sent_away(
    room: chat.Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "QUEUE_SIZE", 3)
    slow = room.enter(seen=0)  # "listeners" is the first event in its queue
    for text in ("one", "two", "three"):
        room.say("ada", text)
    assert room.listeners == set()

    heard = [await slow.next_event() for _ in range(3)]
    assert [event.kind for event in heard if event] == [
        "listeners",
        "message",
        "message",
    ]
    with pytest.raises(anyio.EndOfStream):
        await slow.next_event()
    room.leave(slow)


async def test_one_who_was_sent_away_comes_back_for_the_rest(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "QUEUE_SIZE", 2)
    for text in ("one", "two", "three"):
        await say(client, text)

    async with listening(client) as ear:
        assert [(await ear.hear())[2] for _ in range(2)] == [1, 2]
        with pytest.raises(EOFError):
            await ear.hear()

    async with listening(client, seen=2) as ear:
        message, number = await ear.wait_for("message")
        assert (message["text"], number) == ("three", 3)


async def test_one_who_never_reads_is_given_up(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs what the operating system and a short queue hold, and no more."""
    monkeypatch.setattr(chat, "QUEUE_SIZE", 3)
    monkeypatch.setattr(chat, "MAX_TEXT", 400_000)
    async with client.stream("GET", "/events"):
        assert await count(client) == 1
        for _ in range(200):
            await say(client, "x" * 400_000)
            if await count(client) == 0:
                return

    pytest.fail("the server keeps everything for one who never reads")
