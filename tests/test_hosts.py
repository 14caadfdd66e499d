"""Which hosts an application answers for: well-formed ones, and those it trusts."""

from __future__ import annotations

import io
from typing import Any

import pytest

from asyncflask import Flask, request, url_for

from .cases.raw import PROTOCOLS, ask

MALFORMED = [
    *("a b", "a@b", "a/b", "a?b", "a#b", "a\\b", "evil.com/../x?y#", "a\x00", "a\x7f"),
    *("ü.example", "h:99999", "h:a", "h:-1", "[::1", "[::1]x", "::1", "h:80:80"),
    *(
        ".",
        ".a",
        "a,b",
        "a;b",
        "<script>",
        "'a'",
        '"a"',
        "http://a",
        "a%2fb",
        " h",
        "h\t",
    ),
]
WELL_FORMED = [
    *("h", "H.Example", "h:80", "h:8080", "127.0.0.1", "[::1]", "[::1]:80", "a-b_c.d"),
    *("xn--bcher-kva.example", "h.", "localhost:65535"),
]


@pytest.fixture
def app():
    app = Flask(__name__)
    app.route("/")(lambda: "for anybody")
    app.route("/folder/", endpoint="folder")(lambda: "x")
    yield app
    app.workers.close()


def asked(app: Flask, protocol: str, *hosts: str, path: str = "/", **changes: Any):
    fields = [(b"host", host.encode("utf-8")) for host in hosts]
    return ask(app, protocol, path, headers=fields, **changes)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", MALFORMED)
def test_H2_a_malformed_host_is_400_wherever_it_asks(app, protocol, host, tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "file").write_text("x")
    app.root_path = str(tmp_path)

    async def other(scope, receive, send):
        raise AssertionError("it was asked")

    app.mount("/other", other)
    for path in "/", "/nowhere", "/folder", "/static/file", "/other/x":
        got = asked(app, protocol, host, path=path)
        assert got.status_code == 400, path
        assert "is not a host name and port" in got.text
        assert "<script>" not in got.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", WELL_FORMED)
def test_H3_a_host_is_a_name_or_an_address_and_a_port(app, protocol, host):
    for _ in range(2):
        assert asked(app, protocol, host).text == "for anybody"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_H5_a_request_needs_no_host(app, protocol):
    @app.route("/where")
    def where():
        return url_for("where", _external=True)

    server = ("192.0.2.1", 8000)
    assert asked(app, protocol).status_code == 200
    assert asked(app, protocol, "").status_code == 200
    got = asked(app, protocol, path="/where", server=server)
    assert got.text == "http://192.0.2.1:8000/where"


def test_H6_which_of_two_hosts_is_meant_nobody_can_tell(app):
    app.route("/host", endpoint="host")(lambda: request.host)
    for hosts in ("a", "b"), ("a", "a"):
        got = asked(app, "asgi", *hosts, path="/host")
        assert got.status_code == 400
        assert "several Host fields" in got.text
    for host in "c", "d":
        assert asked(app, "asgi", host).status_code == 200
    for hosts in ("c", "d"), ("c", "c"), ("", "c"):  # each of them is known by now
        assert asked(app, "asgi", *hosts).status_code == 400
    app.trusted_hosts = ["a"]
    assert asked(app, "asgi", "a", "evil.com").status_code == 400
    assert asked(app, "wsgi", "a,b", path="/host").status_code == 400


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        *(("example.com", True), ("EXAMPLE.com:8000", True), ("example.com.", True)),
        *(("www.example.com", False), ("badexample.com", False), ("evil.com", False)),
        *(("example.com.evil.com", False), ("example.com@evil.com", False)),
        *(("example.org", True), ("a.b.Example.org", True), ("[::1]:80", True)),
        *(("badexample.org", False), (".example.org", False), ("[::2]", False)),
        *(("", False), ("127.0.0.1", False)),
    ],
)
def test_only_trusted_hosts_are_served(app, protocol, host, is_trusted):
    app.trusted_hosts = ["example.com", ".example.org", "[::1]"]
    for _ in range(2):
        got = asked(app, protocol, host)
        assert got.status_code == (200 if is_trusted else 400)
    assert asked(app, protocol).status_code == 400  # the address of the server


def test_who_was_served_before_may_be_refused_now(app):
    assert asked(app, "asgi", "example.com").status_code == 200
    app.trusted_hosts = ["example.org"]
    got = asked(app, "asgi", "example.com")
    assert (got.status_code, "is not served here" in got.text) == (400, True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_class_may_work_out_what_every_request_looks_at(protocol):
    class Site(Flask):
        tenants = ["a.example"]  # noqa: RUF012

        @property
        def trusted_hosts(self):
            return self.tenants

    app = Site(__name__)
    app.route("/")(lambda: "x")
    assert asked(app, protocol, "a.example").status_code == 200
    assert asked(app, protocol, "b.example").status_code == 400
    app.tenants = ["b.example"]
    assert asked(app, protocol, "b.example").status_code == 200


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_class_may_be_told_later_whom_to_trust(protocol):
    class Site(Flask):
        pass

    app = Site(__name__)
    app.route("/")(lambda: "x")
    assert asked(app, protocol, "a.example").status_code == 200
    Site.trusted_hosts = ["b.example"]
    assert asked(app, protocol, "a.example").status_code == 400


async def test_hooks_and_handlers_see_a_refused_host(app):
    seen = []
    app.before_request(lambda: seen.append(request.endpoint))
    app.errorhandler(400)(lambda error: (f"no: {error.description}", 400))
    got = asked(app, "asgi", "a b")
    assert (got.status_code, got.text[:20]) == (400, "no: The Host field '")
    assert seen == [None]


@pytest.mark.parametrize("host", [b"a b", b"evil.com"])
async def test_a_websocket_of_such_a_host_is_refused(app, host):
    async def other(scope, receive, send):
        raise AssertionError("it was asked")

    app.mount("/ws", other)
    app.trusted_hosts = ["example.com"]
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/ws", "headers": [(b"host", host)]}
    await app(scope, receive, send)
    assert sent == ["websocket.close"]


def test_hosts_that_were_found_well_formed_take_no_memory_for_ever(app):
    from asyncflask import target

    for number in range(2500):
        assert asked(app, "asgi", f"h{number}").status_code == 200
    assert len(target._well_formed) < 1100
    assert asked(app, "asgi", "").status_code == 200


def test_wsgi_servers_may_say_the_host_in_their_own_words(app):
    said = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "HTTP_HOST": "a b",
        "wsgi.input": io.BytesIO(),
    }
    b"".join(app.wsgi_app(environ, lambda *args: said.extend(args)))
    assert said[0] == "400 Bad Request"
