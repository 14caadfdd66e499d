"""Behind a reverse proxy: what is believed, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from asyncflask import Flask, jsonify, request, url_for
from asyncflask.proxies import ProxyFix

from .cases.raw import PROTOCOLS, ask

HEADERS = {
    "X-Forwarded-For": "6.6.6.6, 192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "example.com",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/app",
}
ALL = {"x_for": 1, "x_proto": 1, "x_host": 1, "x_port": 1, "x_prefix": 1}


@pytest.fixture
def app():
    app = Flask(__name__)

    @app.route("/where")
    async def where():
        return jsonify(
            addr=request.remote_addr,
            secure=request.is_secure,
            host=request.host,
            root=request.script_root,
            path=request.path,
            url=url_for("where", _external=True),
        )

    @app.route("/folder/")
    async def folder():
        return "x"

    yield app
    app.workers.close()


def told(
    app: Flask, protocol: str, headers: dict[str, str], path: str = "/where"
) -> Any:
    fields = [(b"host", b"inside:8000")]
    fields += [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]
    client = ("10.0.0.1", 1234)
    return ask(app, protocol, path, headers=fields, client=client)


def fixed(app: Flask, **counts: int) -> Flask:
    app.asgi_app = ProxyFix(app.asgi_app, **counts)
    app.wsgi_app = ProxyFix(app.wsgi_app, **counts)
    return app


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_H15_without_it_nothing_is_believed(app, protocol):
    got = told(app, protocol, HEADERS).json
    assert got == {
        "addr": "10.0.0.1",
        "secure": False,
        "host": "inside:8000",
        "root": "",
        "path": "/where",
        "url": "http://inside:8000/where",
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_everything_that_is_counted_is_believed(app, protocol):
    got = told(fixed(app, **ALL), protocol, HEADERS).json
    assert got == {
        "addr": "192.0.2.7",
        "secure": True,
        "host": "example.com:8443",
        "root": "/app",
        "path": "/where",
        "url": "https://example.com:8443/app/where",
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_address_and_scheme_are_believed_by_default(app, protocol):
    got = told(fixed(app), protocol, HEADERS).json
    assert (got["addr"], got["secure"]) == ("192.0.2.7", True)
    assert (got["host"], got["root"]) == ("inside:8000", "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("count", "field", "address"),
    [
        (0, "1.1.1.1", "10.0.0.1"),
        (1, "1.1.1.1", "1.1.1.1"),
        (1, "6.6.6.6,1.1.1.1", "1.1.1.1"),
        (2, "6.6.6.6, 2.2.2.2 ,1.1.1.1", "2.2.2.2"),
        (2, "1.1.1.1", "10.0.0.1"),
        (3, "2.2.2.2,1.1.1.1", "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "1.1.1.1,", "10.0.0.1"),
        (1, "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_value_that_counts_is_the_nth_from_the_right(
    app, protocol, count, field, address
):
    headers = {"X-Forwarded-For": field}
    assert told(fixed(app, x_for=count), protocol, headers).json["addr"] == address


def test_several_fields_of_a_name_are_one_list(app):
    fields = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"1.1.1.1")]
    got = ask(fixed(app), "asgi", "/where", headers=fields).json
    assert got["addr"] == "1.1.1.1"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scheme", ["gopher", "javascript", "https://x", "", "ht tps"])
def test_a_scheme_that_is_none_of_http_is_ignored(app, protocol, scheme):
    got = told(fixed(app), protocol, {"X-Forwarded-Proto": scheme}).json
    assert got["url"] == "http://inside:8000/where"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("host", "port", "wanted"),
    [
        ("example.com", None, "example.com"),
        ("example.com:81", None, "example.com:81"),
        ("example.com:81", "82", "example.com:82"),
        ("example.com", "80", "example.com"),
        ("[::1]:81", None, "[::1]:81"),
        ("[::1]", "82", "[::1]:82"),
        (None, "82", "inside:82"),
        ("example.com", "x", "example.com"),
    ],
)
def test_host_and_port(app, protocol, host, port, wanted):
    headers = {"X-Forwarded-Host": host, "X-Forwarded-Port": port}
    sent = {name: value for name, value in headers.items() if value is not None}
    assert told(fixed(app, **ALL), protocol, sent).json["host"] == wanted


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", ["a b", "evil.com/x", "a@b", "h:99999", "[::1"])
def test_a_forwarded_host_that_is_malformed_is_refused_like_any_other(
    app, protocol, host
):
    headers = {"X-Forwarded-Host": host}
    assert told(fixed(app, x_host=1), protocol, headers).status_code == 400


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_forwarded_host_is_the_one_to_be_trusted(app, protocol):
    fixed(app, x_host=1).trusted_hosts = ["example.com"]
    assert told(app, protocol, HEADERS).status_code == 200
    assert told(app, protocol, {}).status_code == 400
    assert told(app, protocol, {"X-Forwarded-Host": "evil.com"}).status_code == 400


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("prefix", "root"),
    [
        *(("/app", "/app"), ("/app/", "/app"), ("/a/b", "/a/b"), ("/", ""), ("", "")),
        *(("//evil.com", ""), ("app", ""), ("https://evil.com", ""), ("/a//b", "")),
        ("/a b", ""),
    ],
)
def test_a_prefix_stands_in_front_of_every_url(app, protocol, prefix, root):
    headers = {"X-Forwarded-Prefix": prefix}
    got = told(fixed(app, x_prefix=1), protocol, headers).json
    assert (got["root"], got["path"]) == (root, "/where")
    assert got["url"] == f"http://inside:8000{root}/where"
    moved = told(app, protocol, headers, "/folder")
    assert (moved.status_code, moved.headers["location"]) == (308, f"{root}/folder/")


async def test_a_websocket_gets_its_own_scheme_and_the_lifespan_nothing():
    seen = []

    async def inside(scope, receive, send):
        seen.append(scope)

    fix = ProxyFix(inside, **ALL)
    fields = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": "/x",
        "headers": fields,
        "server": ("inside", 80),
        "client": None,
    }
    before = dict(scope)
    await fix(scope, None, bool)
    await fix({"type": "lifespan"}, None, bool)
    assert scope == before
    assert seen[0]["scheme"] == "wss"
    assert seen[0]["client"] == ("192.0.2.7", 0)
    assert seen[0]["path"] == "/app/x"
    assert seen[0]["server"] == ("example.com", 8443)
    assert seen[1] == {"type": "lifespan"}
