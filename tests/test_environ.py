"""Between ASGI scopes and PEP 3333 environs."""

from __future__ import annotations

import io
import sys
from urllib.parse import unquote

import pytest

from asyncflask.environ import ENVIRON, build_environ, build_scope
from asyncflask.target import application_path
from asyncflask.testing import build_request

ENV = {
    "REQUEST_METHOD": "POST",
    "SCRIPT_NAME": "/app",
    "PATH_INFO": "/a b",
    "QUERY_STRING": "x=%2F&\xff",
    "SERVER_NAME": "example.com",
    "SERVER_PORT": "8080",
    "SERVER_PROTOCOL": "HTTP/1.0",
    "REMOTE_ADDR": "10.0.0.1",
    "REMOTE_PORT": "1234",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "5",
    "HTTP_HOST": "example.com:8080",
    "HTTP_X_Y": "\xfc",
    "wsgi.url_scheme": "https",
}


def test_an_environ_becomes_a_scope_that_remembers_it():
    scope = build_scope(ENV)
    assert scope.pop(ENVIRON) is ENV
    assert sorted(scope.pop("headers")) == [
        (b"content-length", b"5"),
        (b"content-type", b"text/plain"),
        (b"host", b"example.com:8080"),
        (b"x-y", b"\xfc"),
    ]
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0",
        "method": "POST",
        "scheme": "https",
        "path": "/app/a b",
        "raw_path": None,
        "query_string": b"x=%2F&\xff",
        "root_path": "/app",
        "client": ("10.0.0.1", 1234),
        "server": ("example.com", 8080),
    }


@pytest.mark.parametrize(
    ("environ", "key", "value"),
    [
        ({}, "method", "GET"),
        ({}, "path", "/"),
        ({}, "scheme", "http"),
        ({}, "http_version", "1.1"),
        ({}, "client", None),
        ({}, "headers", []),
        ({}, "query_string", b""),
        ({"REQUEST_METHOD": "put"}, "method", "PUT"),
        ({"REMOTE_ADDR": ""}, "client", None),
        ({"REMOTE_ADDR": "h", "REMOTE_PORT": "x"}, "client", ("h", 0)),
        ({"SERVER_NAME": "h", "SERVER_PORT": ""}, "server", ("h", 0)),
        ({"CONTENT_TYPE": "", "CONTENT_LENGTH": ""}, "headers", []),
        ({"SCRIPT_NAME": "/"}, "root_path", ""),
        ({"SCRIPT_NAME": "/app/"}, "root_path", "/app"),
        ({"SCRIPT_NAME": "/\xc3\xa4"}, "root_path", "/ä"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": ""}, "path", "/app"),
        ({"PATH_INFO": "/\xc3\xbc\xe2\x82\xac"}, "path", "/ü€"),
        ({"PATH_INFO": "/\xff"}, "path", "/\ufffd"),
        ({"PATH_INFO": "/€"}, "path", "/?"),
        ({"HTTP_X": "€"}, "headers", [(b"x", b"?")]),
    ],
)
def test_what_an_environ_does_not_say_has_a_default(environ, key, value):
    assert build_scope(environ)[key] == value


@pytest.mark.parametrize("byte", range(256), ids=hex)
def test_any_byte_may_stand_in_a_path(byte):
    for octets in (
        bytes([byte]),
        b"a" + bytes([byte]) + b"\xc3\xbc",
        bytes([byte]) * 3,
    ):
        native = "/" + octets.decode("latin-1")
        scope = build_scope({"PATH_INFO": native, "SCRIPT_NAME": native.rstrip("/")})
        text = octets.decode("utf-8", "replace")
        assert scope["path"].endswith(f"/{text}")
        assert application_path(scope) == f"/{text}" or not text.strip("/")
        del scope[ENVIRON]
        assert build_environ(scope, f"/{text}", None)["PATH_INFO"] == (
            f"/{text}".encode().decode("latin-1")
        )


SCOPES = {
    "small": build_request("/")[0],
    "whole": build_request(
        "/ü €?q=%2F&x=\xff",
        "https://example.com:8443/ä p",
        method="PUT",
        data=b"body",
        content_type="text/plain",
        headers=[("X-Y", "\xff"), ("Cookie", "a=1"), ("Accept", "*/*")],
    )[0],
    "http/1.0": {**build_request("/")[0], "http_version": "1.0"},
}


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_a_scope_comes_back_from_its_environ(scope):
    environ = build_environ(scope, application_path(scope), io.BytesIO())
    environ["REMOTE_PORT"] = str(scope["client"][1])
    back = build_scope(environ)
    assert back.pop(ENVIRON) is environ
    assert sorted(back.pop("headers")) == sorted(scope["headers"])
    expected = {**scope, "raw_path": None}
    del expected["headers"]
    assert back == expected


def test_an_environ_is_what_pep_3333_says():
    stream = io.BytesIO()
    scope = SCOPES["whole"]
    environ = build_environ(scope, "/ü €", stream)
    assert environ == {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "/\xc3\xa4 p",
        "PATH_INFO": "/\xc3\xbc \xe2\x82\xac",
        "QUERY_STRING": "q=%2F&x=\xc3\xbf",
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "4",
        "HTTP_HOST": "example.com:8443",
        "HTTP_X_Y": "\xff",
        "HTTP_COOKIE": "a=1",
        "HTTP_ACCEPT": "*/*",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": stream,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    assert all(type(environ[key]) is str for key in environ if key.isupper())


def test_an_environ_that_a_server_made_is_given_back():
    assert build_environ(build_scope(ENV), "/other", None) is ENV


@pytest.mark.parametrize(
    ("headers", "variables"),
    [
        ([(b"cookie", b"a=1"), (b"cookie", b"b=2")], {"HTTP_COOKIE": "a=1; b=2"}),
        ([(b"accept", b"a"), (b"accept", b"b")], {"HTTP_ACCEPT": "a, b"}),
        ([(b"X-y", b"1"), (b"x-Y", b"2")], {"HTTP_X_Y": "1, 2"}),
        ([(b"content-type", b"a/b")], {"CONTENT_TYPE": "a/b"}),
        ([(b"x", b"\xff")], {"HTTP_X": "\xff"}),
        ([], {}),
    ],
    ids=["cookies", "list", "case", "type", "bytes", "none"],
)
def test_W15_fields_of_one_name_are_joined(headers, variables):
    scope = {"method": "GET", "headers": headers}
    environ = build_environ(scope, "/", None)
    starts = ("HTTP_", "CONTENT_")
    assert {k: v for k, v in environ.items() if k.startswith(starts)} == variables


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({}, "SERVER_NAME", "localhost"),
        ({}, "SERVER_PORT", "80"),
        ({"scheme": "https"}, "SERVER_PORT", "443"),
        ({"server": ("h", None)}, "SERVER_PORT", "80"),
        ({"server": ("/run/app.sock", None)}, "SERVER_NAME", "/run/app.sock"),
        ({"server": None}, "SERVER_NAME", "localhost"),
        ({"client": None}, "REMOTE_ADDR", None),
        ({"client": ("::1", 5)}, "REMOTE_ADDR", "::1"),
        ({"root_path": "/app"}, "SCRIPT_NAME", "/app"),
        ({"root_path": "/app/"}, "SCRIPT_NAME", "/app"),
        ({"root_path": ""}, "SCRIPT_NAME", ""),
    ],
)
def test_what_a_scope_does_not_say_has_a_default(change, key, value):
    scope = {"method": "GET", "headers": [], **change}
    assert build_environ(scope, "/", None).get(key) == value


@pytest.mark.parametrize(
    ("root", "path", "below"),
    [
        ("", "/a", "/a"),
        ("/app", "/app/x", "/x"),
        ("/app", "/app", "/"),
        ("/app", "/app/", "/"),
        ("/app/", "/app/x", "/x"),
        ("/app", "/application", "/application"),
        ("/app", "/app/app/x", "/app/x"),
        ("/app", "/x/app/y", "/x/app/y"),
        ("/app", "/APP/x", "/APP/x"),
        ("/ä", "/ä/x", "/x"),
        ("/", "/x", "/x"),
        ("/app", "", "/"),
        ("/app", "/app//x", "//x"),
    ],
)
def test_the_prefix_is_taken_away_once_and_where_a_segment_ends(root, path, below):
    assert application_path({"path": path, "root_path": root}) == below
    assert unquote(below) == below
