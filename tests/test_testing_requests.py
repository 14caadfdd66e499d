"""Made-up requests: what a test passes, and the scope and body it becomes."""

from __future__ import annotations

import io
import json
import uuid

import pytest

from asyncflask.datastructures import FileStorage
from asyncflask.forms import Limits, new_body
from asyncflask.testing import build_request, encode_body


def scope_of(*args, **options):
    return build_request(*args, **options)[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"path": "/", "raw_path": b"/", "query_string": b"", "root_path": ""}),
        ({}, {"method": "GET", "scheme": "http", "type": "http"}),
        ({}, {"server": ("localhost", 80), "headers": [(b"host", b"localhost")]}),
        ({"path": ""}, {"path": "/"}),
        ({"path": "/a/b"}, {"path": "/a/b", "raw_path": b"/a/b"}),
        ({"path": "/a%20b%2Fc"}, {"path": "/a b/c", "raw_path": b"/a%20b%2Fc"}),
        ({"path": "/%C3%BC"}, {"path": "/ü", "raw_path": b"/%C3%BC"}),
        ({"path": "/ü b"}, {"path": "/ü b", "raw_path": b"/%C3%BC%20b"}),
        ({"path": "/%FF"}, {"path": "/\ufffd", "raw_path": b"/%FF"}),
        ({"path": "/a?x=1&y=%2F"}, {"path": "/a", "query_string": b"x=1&y=%2F"}),
        ({"path": "/a?"}, {"path": "/a", "query_string": b""}),
        ({"path": "/a%3Fb"}, {"path": "/a?b", "query_string": b""}),
        ({"path": "?x=1"}, {"path": "/", "query_string": b"x=1"}),
        ({"path": "/a:b"}, {"path": "/a:b"}),
        ({"path": "a"}, {"path": "/a"}),
        (
            {"path": "//evil.com/x"},
            {"path": "//evil.com/x", "raw_path": b"//evil.com/x"},
        ),
        ({"path": "///a"}, {"path": "///a"}),
        ({"path": "//"}, {"path": "//"}),
        ({"query_string": "x=1"}, {"query_string": b"x=1"}),
        ({"query_string": b"\xff"}, {"query_string": b"\xff"}),
        (
            {"query_string": {"a": "x y", "b": [1, 2]}},
            {"query_string": b"a=x+y&b=1&b=2"},
        ),
        ({"query_string": ""}, {"query_string": b""}),
        ({"method": "post"}, {"method": "POST"}),
        ({"path": "http://h:81/a?x=1"}, {"path": "/a", "server": ("h", 81)}),
        ({"path": "http://h:81/a"}, {"headers": [(b"host", b"h:81")], "root_path": ""}),
        ({"path": "https://h/"}, {"scheme": "https", "server": ("h", 443)}),
        ({"base_url": "https://h:8443"}, {"server": ("h", 8443), "scheme": "https"}),
        ({"base_url": "http://h/app"}, {"path": "/app/", "root_path": "/app"}),
        ({"base_url": "http://h/app/", "path": "/x"}, {"path": "/app/x"}),
        (
            {"base_url": "http://h/%C3%A4", "path": "/x"},
            {"path": "/ä/x", "root_path": "/ä", "raw_path": b"/%C3%A4/x"},
        ),
        ({"base_url": "http://[::1]:81/"}, {"server": ("::1", 81)}),
        ({"base_url": "http://[::1]:81/"}, {"headers": [(b"host", b"[::1]:81")]}),
    ],
    ids=lambda value: repr(value) if value == {} or "path" in value else "",
)
def test_options_become_a_scope(options, expected):
    scope = scope_of(**options)
    assert {key: scope[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"headers": {"X-Y": "ü"}}, [(b"x-y", b"\xfc"), (b"host", b"localhost")]),
        (
            {"headers": [("A", "1"), ("A", 2)]},
            [(b"a", b"1"), (b"a", b"2"), (b"host", b"localhost")],
        ),
        ({"headers": {"Host": "h"}}, [(b"host", b"h")]),
        ({"method": "POST"}, [(b"host", b"localhost"), (b"content-length", b"0")]),
        ({"method": "HEAD"}, [(b"host", b"localhost")]),
        (
            {"method": "POST", "data": "ü", "content_type": "text/plain"},
            [
                (b"host", b"localhost"),
                (b"content-type", b"text/plain"),
                (b"content-length", b"2"),
            ],
        ),
        (
            {"json": 1, "headers": {"Content-Type": "a/b", "Content-Length": "9"}},
            [
                (b"content-type", b"a/b"),
                (b"content-length", b"9"),
                (b"host", b"localhost"),
            ],
        ),
        (
            {"data": {"a": 1}, "content_type": "a/b", "method": "PUT"},
            [
                (b"host", b"localhost"),
                (b"content-type", b"a/b"),
                (b"content-length", b"3"),
            ],
        ),
    ],
)
def test_header_fields_are_added_where_they_are_missing(options, fields):
    assert scope_of(**options)["headers"] == fields


UUID = uuid.UUID("a8098c1a-f86e-11da-bd1a-00112444be1e")
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("options", "body", "kind"),
    [
        ({}, b"", ""),
        ({"data": None}, b"", ""),
        ({"data": b"\xff"}, b"\xff", ""),
        ({"data": "ü"}, "ü".encode(), ""),
        ({"data": {}}, b"", FORM),
        ({"data": {"a": "x y", "b": 5}}, b"a=x+y&b=5", FORM),
        ({"data": {"a": [1, 2], "ü": "&"}}, b"a=1&a=2&%C3%BC=%26", FORM),
        ({"json": None}, b"null", "application/json"),
        ({"json": {"a": [1, "ü"]}}, b'{"a":[1,"\\u00fc"]}', "application/json"),
        ({"json": UUID}, f'"{UUID}"'.encode(), "application/json"),
        ({"json": ""}, b'""', "application/json"),
    ],
)
def test_data_and_json_become_a_body(options, body, kind):
    options = {"data": None, **options}
    assert encode_body(**options) == (body, kind)
    assert build_request(**options)[1] == body


def open_file(content=b"x", name="/some/where/there.txt"):
    file = io.BytesIO(content)
    file.name = name
    return file


@pytest.mark.parametrize(
    ("data", "fields", "files"),
    [
        ({"f": (b"x", "a.txt")}, [], [("f", "a.txt", "text/plain", b"x")]),
        (
            {"f": (io.BytesIO(b"x"), "a.bin", "a/b"), "n": 5},
            [("n", "5")],
            [("f", "a.bin", "a/b", b"x")],
        ),
        (
            {"f": (b"", "none")},
            [],
            [("f", "none", "application/octet-stream", b"")],
        ),
        ({"f": open_file()}, [], [("f", "there.txt", "text/plain", b"x")]),
        (
            {"f": io.BytesIO(b"x")},
            [],
            [("f", "file", "application/octet-stream", b"x")],
        ),
        (
            {"f": FileStorage(io.BytesIO(b"x"), "c.html")},
            [],
            [("f", "c.html", "text/html", b"x")],
        ),
        (
            {"f": FileStorage(io.BytesIO(b"x"), "c", headers={"Content-Type": "a/b"})},
            [],
            [("f", "c", "a/b", b"x")],
        ),
        (
            {"f": [(b"1", "a.txt"), (b"2", "b.txt")], "t": ["x", "ü"]},
            [("t", "x"), ("t", "ü")],
            [("f", "a.txt", "text/plain", b"1"), ("f", "b.txt", "text/plain", b"2")],
        ),
        (
            {"ü": (b"\r\n--\x00\xff", "€ ü.txt")},
            [],
            [("ü", "€ ü.txt", "text/plain", b"\r\n--\x00\xff")],
        ),
        ({"f": (b"x", "")}, [], [("f", "", "application/octet-stream", b"x")]),
    ],
    ids=[
        *("bytes", "type given", "empty", "open file", "nameless file", "storage"),
        *("storage with a type", "lists", "odd text", "no filename"),
    ],
)
def test_files_arrive_as_they_were_sent(data, fields, files):
    body, kind = encode_body(data)
    parsed = new_body(kind, Limits())
    try:
        parsed.feed(body)
        parsed.end()
        assert parsed.fields == fields
        assert [
            (name, file.filename, file.content_type, file.read())
            for name, file in parsed.files
        ] == files
    finally:
        parsed.close()


@pytest.mark.parametrize("name", ['a"b', "a\r\nX: y", "a\\b", "a;b", "%22"])
def test_an_odd_name_does_not_break_out_of_its_part(name):
    body, kind = encode_body({name: "1", "f": (b"x", name + ".txt"), "last": "2"})
    parsed = new_body(kind, Limits())
    parsed.feed(body)
    parsed.end()
    assert [value for _, value in parsed.fields] == ["1", "2"]
    assert [file.read() for _, file in parsed.files] == [b"x"]
    parsed.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"data": {}, "json": {}}, "either data= or json="),
        ({"data": "", "json": None}, "either data= or json="),
        ({"data": 5}, "data=5 is a int; pass a dict"),
        ({"data": [("a", 1)]}, "is a list; pass a dict"),
        ({"json": object()}, "JSON has no form for"),
    ],
)
def test_a_body_of_a_wrong_type_is_a_type_error(options, says):
    with pytest.raises(TypeError, match=says):
        build_request(**options)


def test_a_json_body_says_its_length_and_type():
    scope, body = build_request("/", method="POST", json={"a": 1})
    headers = dict(scope["headers"])
    assert json.loads(body) == {"a": 1}
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == str(len(body)).encode()
