"""The examples of ``docs/migrating`` answer the same before and after.

What stands in ``before`` runs under the real Flask 3 and the real Quart, what stands
in ``after`` under asyncflask. Both get the same requests.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import flask
import httpx
import pytest
import quart

from asyncflask import Flask
from asyncflask.lifespan import lifespan

PAGES = Path(__file__).parent.parent / "docs" / "migrating"


class Ask(NamedTuple):
    """A request, and whether its answer has a body of the application's own."""

    method: str
    path: str
    options: dict[str, Any]
    is_ours: bool

    def __repr__(self) -> str:
        return f"{self.method} {self.path} {self.options}"


def ask(line: str, is_ours: bool = True, **options: Any) -> Ask:
    method, path = line.split(" ", 1)
    return Ask(method, path, options, is_ours)


#: what the frameworks answer by themselves differs in its words
THEIRS = False

GUESTBOOK = [
    ask("GET /"),
    ask("GET /login"),
    ask("POST /add", THEIRS, data={"text": "too early"}),
    ask("POST /login", THEIRS),
    ask("POST /login", THEIRS, data={"name": "Ada <3"}),
    ask("POST /add", THEIRS, data={"text": "Hello & ünïcödé"}),
    ask("GET /by/Ada%20%3C3"),
    ask("GET /by/nobody"),
    ask("GET /"),
    ask("GET /nowhere"),
    ask("HEAD /"),
    ask("PUT /", THEIRS),
]

TASKS = [
    ask("GET /tasks/"),
    ask("GET /tasks", THEIRS),
    ask("POST /tasks/", json={"text": "mop"}),
    ask("POST /login", data={"name": "ada"}),
    ask("POST /tasks/", json={"text": "mop <b>"}),
    ask("POST /tasks/", json={"text": "dust"}),
    ask("GET /tasks/"),
    ask("GET /tasks/1"),
    ask("GET /tasks/7"),
    ask("GET /tasks/seven", THEIRS),
    ask("GET /tasks/export?mark=*"),
    ask("GET /tasks/slow"),
    ask("GET /files/a.txt"),
    ask("GET /files/..%2Fsecret.txt", THEIRS),
    ask("GET /files/none.txt", THEIRS),
    ask("GET /count"),
    ask("POST /tasks/", THEIRS, content=b"no JSON"),
]

NOTES = [
    ask("GET /"),
    ask("POST /notes", json={"text": "tea & <b>"}),
    ask("POST /notes", json={"text": "milk"}),
    ask("POST /login", THEIRS, data={"name": "ada"}),
    ask("POST /login", THEIRS, data={}),
    ask("GET /"),
    ask("GET /export?mark=*"),
    ask("POST /upload", files={"file": ("a.txt", b"12345")}),
    ask("POST /length", content=b"x" * 900),
    ask("POST /notes", THEIRS, json={"text": "x" * 2000}),
    ask("GET /nowhere"),
    ask("DELETE /notes", THEIRS),
]


class Answer(NamedTuple):
    """What has to be the same."""

    status: int
    location: str
    kind: str | None
    cookies: set[str]
    allow: set[str]
    body: Any

    @classmethod
    def of(cls, response: httpx.Response, asked: Ask) -> Answer:
        headers = response.headers
        kind = headers.get("content-type", "").partition(";")[0]
        body: Any = response.text if asked.is_ours else None
        if asked.is_ours and kind == "application/json":
            body = json.loads(response.content)
        allow = headers.get("allow", "").replace(" ", "").split(",")
        return cls(
            response.status_code,
            headers.get("location", "").removeprefix("http://localhost"),
            kind if asked.is_ours else None,
            {field.partition("=")[0] for field in headers.get_list("set-cookie")},
            set(allow) - {"OPTIONS"},  # which Flask answers unasked
            body,
        )


def load(name: str) -> Any:
    """Import an example afresh."""
    path = PAGES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def talk(app: Any, asked: list[Ask], cookies: dict[str, str]) -> list[Answer]:
    """Send all requests in turn, keeping cookies, and return the answers."""
    if isinstance(app, flask.Flask):
        transport = httpx.WSGITransport(app=app)
        with httpx.Client(transport=transport, base_url="http://localhost") as client:
            client.cookies.update(cookies)
            answers = [client.request(a.method, a.path, **a.options) for a in asked]
            cookies.update(client.cookies)
    else:
        answers = asyncio.run(talk_async(app, asked, cookies))
    return [Answer.of(*pair) for pair in zip(answers, asked, strict=True)]


async def talk_async(
    app: Any, asked: list[Ask], cookies: dict[str, str]
) -> list[httpx.Response]:
    around = app.test_app() if isinstance(app, quart.Quart) else lifespan(app)
    transport = httpx.ASGITransport(app=app)
    async with (
        around,
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        client.cookies.update(cookies)
        answers = [await client.request(a.method, a.path, **a.options) for a in asked]
        cookies.update(client.cookies)
        return answers


def guestbook(name: str) -> Any:
    module = load(name)
    Path(module.DATABASE).unlink(missing_ok=True)
    module.init_db()
    return module.app


def tasks(name: str) -> Any:
    Path("files").mkdir(exist_ok=True)
    Path("files/a.txt").write_text("the file")
    Path("secret.txt").write_text("a secret")
    setting = "FILES" if "flask" in name else "files"
    return load(name).create_app(**{setting: str(Path("files").absolute())})


def notes(name: str) -> Any:
    return load(name).app


EXAMPLES = [
    pytest.param(guestbook, "before/guestbook", "after/guestbook", GUESTBOOK, id="0.1"),
    pytest.param(tasks, "before/tasks_flask", "after/tasks", TASKS, id="Flask 3"),
    pytest.param(notes, "before/notes_quart", "after/notes", NOTES, id="Quart"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("make", "before", "after", "asked"), EXAMPLES)
def test_the_answers_are_the_same(make: Any, before: str, after: str, asked: list[Ask]):
    old = make(before)
    assert isinstance(old, flask.Flask | quart.Quart)
    expected = talk(old, asked, {})
    new = make(after)
    assert isinstance(new, Flask)
    answers = talk(new, asked, {})
    for answer, right, question in zip(answers, expected, asked, strict=True):
        assert answer == right, question


@pytest.mark.parametrize(
    ("make", "before", "after", "login", "look"),
    [
        pytest.param(*example.values[:3], login, look, id=example.id)
        for example, login, look in zip(
            EXAMPLES,
            ["POST /login"] * 3,
            ["GET /", "GET /tasks/slow", "GET /"],
            strict=True,
        )
    ],
)
def test_nobody_is_logged_out(
    make: Any, before: str, after: str, login: str, look: str
):
    for first, then in ((before, after), (after, before)):
        cookies: dict[str, str] = {}
        talk(make(first), [ask(login, THEIRS, data={"name": "ada"})], cookies)
        assert "session" in cookies
        (seen,) = talk(make(then), [ask(look)], cookies)
        assert "ada" in str(seen.body)


def test_the_guestbook_changes_in_one_line():
    before = (PAGES / "before" / "guestbook.py").read_text()
    after = (PAGES / "after" / "guestbook.py").read_text()
    assert before.replace("from flask import", "from asyncflask import") == after
