"""Both kinds of sessions, on a real Redis server that each run starts itself."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis
from redis_sessions import redis_sessions
from redis_sessions.redis_sessions import RedisFlask, RedisSession, Sessions
from support import serving

BINARY = shutil.which("redis-server")
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(BINARY is None, reason="there is no redis-server binary here"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server that keeps nothing on the disk, until it answers a ping."""
    command = [str(BINARY), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        with redis.Redis(port=port) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline, (folder / "log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with redis_server(tmp_path_factory.mktemp("redis"), port):
        yield port


class Site(NamedTuple):
    """An application that is served, and the database behind it."""

    app: Sessions
    url: str
    database: redis.Redis

    def client(self) -> httpx.Client:
        """Return a browser without cookies."""
        return httpx.Client(base_url=self.url, timeout=30)

    def kept(self) -> list[dict[str, Any]]:
        """Return all sessions in the database."""
        values: list[Any] = [
            self.database.get(key) for key in self.database.scan_iter()
        ]
        return [json.loads(value) for value in values]


@contextmanager
def site(kind: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    url = f"redis://127.0.0.1:{port}/0"
    app: Sessions = redis_sessions.app
    if kind == "plain":
        app = redis_sessions.plain_app
        monkeypatch.setattr(app, "redis", redis.Redis.from_url(url))
    monkeypatch.setattr(redis_sessions, "REDIS_URL", url)
    with redis.Redis.from_url(url) as database, serving(app) as served:
        yield Site(app, served, database)
    if isinstance(app, RedisFlask):
        app.redis.close()


@pytest.fixture(params=["async", "plain"])
def here(
    request: pytest.FixtureRequest, port: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    with site(request.param, port, monkeypatch) as here:
        here.database.flushdb()
        yield here


def test_a_session_lasts_from_request_to_request(here: Site) -> None:
    with here.client() as ada, here.client() as bob:
        assert [ada.get("/").json()["visits"] for _ in range(3)] == [1, 2, 3]
        assert bob.get("/").json()["visits"] == 1
        assert ada.get("/look").json() == {"visits": 3}
    assert sorted(kept["visits"] for kept in here.kept()) == [1, 3]


def test_C27_the_browser_has_a_number_and_the_database_its_hash(here: Site) -> None:
    with here.client() as client:
        field = client.get("/").headers["set-cookie"]
        assert "HttpOnly" in field
        assert "SameSite=Lax" in field
        number = client.cookies["session"]
        assert len(number) == 43
        assert [number in key.decode() for key in here.database.scan_iter()] == [False]


def test_who_does_not_use_the_session_gets_none(here: Site) -> None:
    with here.client() as client:
        response = client.get("/about")
        assert "set-cookie" not in response.headers
        assert "vary" not in response.headers
        response = client.get("/look")
        assert "set-cookie" not in response.headers
        assert response.headers["vary"] == "Cookie"
    assert here.kept() == []


@pytest.mark.parametrize("forged", ["x" * 43, "../../etc", "session:1", ""])
def test_a_number_that_nobody_has_given_out_is_not_taken_over(
    here: Site, forged: str
) -> None:
    with here.client() as client:
        cookie = {"Cookie": f"session={forged}"}
        response = client.get("/", headers=cookie)
        assert response.json()["visits"] == 1
        assert response.cookies["session"] != forged


def test_login_changes_the_number_and_keeps_what_was_there(here: Site) -> None:
    with here.client() as client, here.client() as thief:
        client.get("/")
        before = client.cookies["session"]
        assert client.post("/login", data={"name": "ada"}).status_code == 200
        assert client.cookies["session"] != before
        assert client.get("/").json() == {"visits": 2, "name": "ada"}
        thief.cookies.set("session", before, domain="127.0.0.1")
        assert thief.get("/").json() == {"visits": 1, "name": None}


def test_logout_ends_the_session_on_both_sides(here: Site) -> None:
    with here.client() as client:
        client.post("/login", data={"name": "ada"})
        number = client.cookies["session"]
        client.post("/logout")
        assert "session" not in client.cookies
        assert here.kept() == []
        client.cookies.set("session", number, domain="127.0.0.1")
        assert client.get("/").json() == {"visits": 1, "name": None}


def test_the_database_forgets_what_nobody_uses(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with here.client() as client:
        client.get("/")
        (key,) = here.database.keys()
        left = here.database.ttl(key)
        assert 0 < here.app.lifetime() - left < 60 or left == here.app.lifetime()
        monkeypatch.setattr(
            here.app, "permanent_session_lifetime", timedelta(seconds=100)
        )
        client.get("/look")  # using it is enough to start its time anew
        assert 0 < here.database.ttl(key) <= 100
        here.database.delete(key)
        assert client.get("/").json()["visits"] == 1


def test_a_session_may_be_bigger_than_any_cookie(here: Site) -> None:
    name = "x" * 50_000
    with here.client() as client:
        client.post("/login", data={"name": name})
        assert client.get("/").json()["name"] == name


def test_it_keeps_whatever_a_cookie_would_keep() -> None:
    app = redis_sessions.plain_app
    values = {"when": datetime(2026, 1, 2, tzinfo=UTC), "pair": (1, 2), "raw": b"\0"}
    with app.test_request_context():
        session = RedisSession(values)
        session.modified = True
        (order,) = app.orders(session, app.make_response(""))
    assert order[0] == "SET"
    assert dict(app.opened("id", order[2].encode())) == values


def test_many_browsers_at_once_each_have_their_own(here: Site) -> None:
    def visit(number: int) -> list[object]:
        with here.client() as client:
            client.post("/login", data={"name": str(number)})
            pages = [client.get("/").json() for _ in range(5)]
        assert [page["visits"] for page in pages] == [1, 2, 3, 4, 5]
        return [page["name"] for page in pages]

    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(visit, range(32)))
    assert seen == [[str(number)] * 5 for number in range(32)]


def test_the_plain_one_is_served_by_wsgi_as_well(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = redis.Redis(port=port)
    monkeypatch.setattr(redis_sessions.plain_app, "redis", database)
    transport = httpx.WSGITransport(app=redis_sessions.plain_app.wsgi_app)
    with database, httpx.Client(transport=transport, base_url="http://test") as client:
        assert [client.get("/").json()["visits"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_without_redis_the_visitor_is_told_to_come_back(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with redis_server(tmp_path, port) as process:
        with site(kind, port, monkeypatch) as here, here.client() as client:
            assert client.get("/").status_code == 200
            process.terminate()
            process.wait(20)
            response = client.get("/")
            assert response.status_code == 503
            assert response.headers["retry-after"] == "10"
            # Who brings no cookie and uses no session needs no Redis.
            assert httpx.get(f"{here.url}/about").status_code == 200
