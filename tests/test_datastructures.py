"""The containers: multi-dicts, header fields, choices, credentials, files."""

from __future__ import annotations

import base64
import io
from uuid import UUID

import pytest

from asyncflask import Request, Response
from asyncflask.datastructures import (
    Accept,
    Authorization,
    FileStorage,
    LanguageAccept,
    MIMEAccept,
    MultiDict,
    RequestHeaders,
    ResponseHeaders,
)
from asyncflask.exceptions import BadRequest

# ----------------------------------------------------------------- multi-dicts

PAIRS = [("a", "1"), ("b", "x"), ("a", "2"), ("a", "x"), ("empty", "")]


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda d: d["a"], "1"),
        (lambda d: d.get("a"), "1"),
        (lambda d: d.get("none"), None),
        (lambda d: d.get("none", "x"), "x"),
        (lambda d: d.get("none", "x", int), "x"),
        (lambda d: d.get("a", type=int), 1),
        (lambda d: d.get("b", type=int), None),
        (lambda d: d.get("b", 7, int), 7),
        (lambda d: d.get("b", 7, type=UUID), 7),
        (lambda d: d.get("empty", 7), ""),
        (lambda d: d.getlist("a"), ["1", "2", "x"]),
        (lambda d: d.getlist("a", int), [1, 2]),
        (lambda d: d.getlist("a", type=int), [1, 2]),
        (lambda d: d.getlist("none"), []),
        (lambda d: d.to_dict(), {"a": "1", "b": "x", "empty": ""}),
        (
            lambda d: d.to_dict(flat=False),
            {"a": ["1", "2", "x"], "b": ["x"], "empty": [""]},
        ),
        (lambda d: dict(d.lists())["a"], ["1", "2", "x"]),
        (lambda d: list(d), ["a", "b", "empty"]),
        (lambda d: list(d.keys()), ["a", "b", "empty"]),
        (lambda d: list(d.values()), ["1", "x", ""]),
        (lambda d: list(d.items()), [("a", "1"), ("b", "x"), ("empty", "")]),
        (lambda d: d.multi_items()[:3], [("a", "1"), ("a", "2"), ("a", "x")]),
        (lambda d: len(d), 3),
        (lambda d: bool(d), True),
        (lambda d: "a" in d, True),
        (lambda d: "none" in d, False),
        (lambda d: 5 in d, False),
        (lambda d: d == MultiDict(PAIRS), True),
        (lambda d: d == MultiDict(), False),
        (lambda d: {**d}, {"a": "1", "b": "x", "empty": ""}),
    ],
)
def test_the_first_value_of_a_key_counts(ask, answer):
    assert ask(MultiDict(PAIRS)) == answer


def test_an_empty_multi_dict_is_false():
    assert not MultiDict()
    assert repr(MultiDict([("a", 1)])) == "MultiDict([('a', 1)])"


def test_lists_that_are_given_out_are_copies():
    data = MultiDict(PAIRS)
    data.getlist("a").clear()
    data.to_dict(flat=False)["a"].clear()
    dict(data.lists())["a"].clear()
    assert data.getlist("a") == ["1", "2", "x"]


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (MultiDict(source="form"), "form"),
        (MultiDict(PAIRS, "query"), "query"),
        (RequestHeaders(raw=[]), "header fields"),
    ],
)
def test_a_missing_key_is_a_key_error_and_a_400_that_names_it(mapping, says):
    with pytest.raises(KeyError) as caught:
        mapping["x<y"]
    assert isinstance(caught.value, BadRequest)
    assert caught.value.code == 400
    assert str(caught.value) == (
        f"400 Bad Request: The request has no 'x<y' in its {says}."
    )
    assert "x&lt;y" in caught.value.get_body()


def test_only_a_refused_conversion_falls_back_to_the_default():
    def broken(value):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        MultiDict(PAIRS).get("a", type=broken)


def test_request_headers_are_case_blind_and_convert():
    headers = RequestHeaders(raw=[(b"x-n", b"5"), (b"x-s", b"\xfc"), (b"x-n", b"6")])
    assert headers["X-N"] == "5"
    assert headers.get("X-N", type=int) == 5
    assert headers.get("X-S", 7, int) == 7
    assert headers.get("X-S") == "ü"
    assert headers.get("none", "d") == "d"
    assert headers.getlist("X-n") == ["5", "6"]
    assert "X-n" in headers


def test_a_copy_of_request_headers_can_be_changed():
    """ASGI promises no more than an iterable."""
    request = Request({"headers": ((b"x-n", b"5"),)})
    copied = request.headers.mutablecopy()
    copied["X-M"] = "6"
    assert (copied["x-n"], copied["x-m"]) == ("5", "6")
    assert "x-m" not in request.headers


@pytest.mark.parametrize("key", ["none", "", "é", "€", "?", "\ud800", "a\nb"])
def test_what_is_no_field_name_is_just_not_there(key):
    """It may be what a client has said."""
    headers = RequestHeaders(raw=[(b"x-n", b"5")])
    assert headers.get(key) is None
    assert headers.getlist(key) == []
    assert key not in headers
    with pytest.raises(KeyError):
        headers[key]


@pytest.mark.parametrize("key", ["none", "", "é", "€", "?", "\ud800", "a\nb"])
def test_what_is_no_field_name_is_not_there_in_a_response_either(key):
    headers = ResponseHeaders({"X-N": "5"})
    assert key not in headers
    assert headers.pop(key, None) is None
    headers.remove(key)
    with pytest.raises(KeyError):
        headers[key]
    assert headers.raw == [(b"x-n", b"5")]


# ------------------------------------------------------------- response headers

WAYS_IN = {
    "[]=": lambda h, k, v: h.__setitem__(k, v),
    "append": lambda h, k, v: h.append(k, v),
    "add": lambda h, k, v: h.add(k, v),
    "setdefault": lambda h, k, v: h.setdefault(k, v),
    "extend dict": lambda h, k, v: h.extend({k: v}),
    "extend dict of lists": lambda h, k, v: h.extend({k: ["fine", v]}),
    "extend pairs": lambda h, k, v: h.extend([(k, v)]),
    "update": lambda h, k, v: h.update({k: v}),
    "|=": lambda h, k, v: h.__ior__({k: v}),
    "response, dict": lambda h, k, v: Response("", headers={k: v}),
    "response, pairs": lambda h, k, v: Response("", headers=[(k, v)]),
}


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nB: c"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\x00b"),
        ("X", "a\x7fb"),
        ("X", "\r\n"),
        ("X", "ü€"),
        ("X", "\udcff"),
        ("X y", "a"),
        ("X:", "a"),
        ("", "a"),
        ("X\r\nY", "a"),
        ("Ü", "a"),
        ("X\n", "a"),
    ],
    ids=repr,
)
def test_a_field_that_would_split_the_response_is_refused(way, name, value):
    headers = ResponseHeaders()
    with pytest.raises(ValueError, match=r"header|Header"):
        way(headers, name, value)
    assert [pair for pair in headers.raw if pair[1] != b"fine"] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda fields: ResponseHeaders(fields),
        lambda fields: ResponseHeaders() | fields,
    ],
    ids=["constructor", "|"],
)
def test_a_new_mapping_is_checked_as_well(make):
    assert make({"X": "ü"}).raw == [(b"x", b"\xfc")]
    with pytest.raises(ValueError, match="control character"):
        make({"X": "a\r\nB: c"})


@pytest.mark.parametrize(
    "change",
    [
        lambda response: setattr(response, "location", "/a\r\nX: y"),
        lambda response: setattr(response, "content_type", "text/html\r\nX: y"),
        lambda response: setattr(response, "mimetype", "text/html\r\nX: y"),
        lambda response: response.vary("Cookie\r\nX: y"),
        lambda response: Response("", mimetype="text/html\r\nX: y"),
        lambda response: Response("", content_type="text/html\r\nX: y"),
    ],
    ids=["location", "content_type", "mimetype", "vary", "new mimetype", "new type"],
)
def test_an_attribute_that_would_split_the_response_is_refused(change):
    with pytest.raises(ValueError, match="control character"):
        change(Response(""))


@pytest.mark.parametrize("value", ["a", "", "a\tb", "ü", " a ", 'a, b; c="d"', 5, 1.5])
@pytest.mark.parametrize("way", ["[]=", "append", "setdefault", "extend pairs"])
def test_a_fine_value_goes_in_as_text(way, value):
    headers = ResponseHeaders()
    WAYS_IN[way](headers, "X-Y", value)
    assert headers.raw == [(b"x-y", str(value).encode("latin-1"))]
    assert headers["x-Y"] == str(value)


def test_response_headers_are_a_multi_mapping():
    headers = ResponseHeaders()
    headers.extend({"A": "1", "B": ["2", "3"]})
    headers.add("a", "4")
    assert headers.getlist("A") == ["1", "4"]
    assert headers.get("b", type=int) == 2
    assert headers.get("none", "d", int) == "d"
    assert headers.to_wsgi_list() == [("a", "1"), ("b", "2"), ("b", "3"), ("a", "4")]
    headers["A"] = "5"
    assert headers.getlist("a") == ["5"]
    assert headers.setdefault("A", "6") == "5"
    assert headers.setdefault("C", "7") == "7"
    assert headers.pop("B") == "2"
    assert headers.pop("B", None) is None
    with pytest.raises(KeyError):
        headers.pop("B")
    headers.remove("a")
    headers.remove("a")
    assert headers.raw == [(b"c", b"7")]


# ------------------------------------------------------------------ Accept…


@pytest.mark.parametrize(
    ("field", "offers", "best"),
    [
        (None, ["text/html"], None),
        ("", ["text/html"], None),
        ("text/html", ["text/html"], "text/html"),
        ("text/html", ["application/json"], None),
        ("text/html", [], None),
        ("TEXT/html", ["text/HTML"], "text/HTML"),
        ("text/html;q=0.5, application/json", ["text/html", "application/json"], 1),
        ("text/html, application/json", ["application/json", "text/html"], 0),
        ("*/*", ["a/b", "c/d"], 0),
        ("text/*, application/json;q=0.9", ["application/json", "text/plain"], 1),
        ("text/*;q=0.1, text/html;q=0.9, */*;q=0.5", ["text/x", "a/b", "text/html"], 2),
        ("text/*;q=0.1, text/html;q=0.9, */*;q=0.5", ["text/x", "a/b"], 1),
        ("text/html;q=0, */*", ["text/html", "a/b"], 1),
        ("text/html;q=0", ["text/html"], None),
        ("*/*;q=0", ["text/html"], None),
        ("text/*;q=0, text/html", ["text/plain", "text/html"], 1),
        ("text/html;level=1;q=0.2, a/b;q=0.1", ["a/b", "text/html"], 1),
        ("text/html; Q=0.2, a/b ;q=0.1", ["a/b", "text/html"], 1),
        ("text/html;q=x, a/b", ["text/html", "a/b"], 1),
        ("text/html;q=nan, a/b", ["text/html", "a/b"], 1),
        ("text/html;q=-1, a/b;q=0.1", ["text/html", "a/b"], 1),
        ("text/html;q=9, a/b", ["a/b", "text/html"], 0),
        (",, ;q=1, a/b,", ["a/b"], 0),
        ("garbage", ["text/html"], None),
        ("*", ["text/html"], None),
    ],
)
def test_the_best_type_is_the_one_the_client_likes_most(field, offers, best):
    expected = offers[best] if isinstance(best, int) else best
    assert MIMEAccept(field).best_match(offers) == expected
    assert MIMEAccept(field).best_match(offers, "x/y") == (expected or "x/y")


@pytest.mark.parametrize(
    ("field", "offers", "best"),
    [
        ("de", ["en", "de"], "de"),
        ("en", ["en-GB"], "en-GB"),
        ("EN-gb", ["en-GB"], "en-GB"),
        ("en", ["english"], None),
        ("de-AT", ["de"], "de"),
        ("de-AT, en;q=0.9", ["en", "de"], "en"),
        ("de-AT;q=0.9, en-US;q=0.8", ["en", "de"], "de"),
        ("de-AT;q=0", ["de"], None),
        ("*", ["en"], "en"),
        ("en;q=0, *", ["en", "de"], "de"),
        ("en, en-GB;q=0", ["en-GB", "en-US"], "en-US"),
        (None, ["en"], None),
    ],
)
def test_the_best_language_covers_its_regions(field, offers, best):
    assert LanguageAccept(field).best_match(offers) == best


@pytest.mark.parametrize(
    ("field", "offers", "best"),
    [
        ("utf-8, latin-1;q=0.5", ["latin-1", "UTF-8"], "UTF-8"),
        ("*;q=0.1, utf-8", ["ascii", "utf-8"], "utf-8"),
        ("*;q=0.1, utf-8;q=0", ["ascii", "utf-8"], "ascii"),
        ("gzip;q=0, br", ["gzip"], None),
    ],
)
def test_the_best_charset_or_encoding_is_the_same_word(field, offers, best):
    assert Accept(field).best_match(offers) == best


def test_choices_are_listed_best_first():
    accept = MIMEAccept("a/b;q=0.1, c/d, e/f;q=0.5, g/h")
    assert list(accept.values()) == ["c/d", "g/h", "e/f", "a/b"]
    assert list(accept)[2] == ("e/f", 0.5)
    assert accept.best == "c/d"
    assert (len(accept), bool(accept), bool(Accept(None))) == (4, True, False)
    assert "a/b" in accept
    assert "x/y" not in accept
    assert (accept.accept_html, accept.accept_json) == (False, False)
    assert MIMEAccept("text/*").accept_html
    assert MIMEAccept("*/*").accept_json
    assert Accept(None).best is None


# ------------------------------------------------------------- authorization


def basic(text: str | bytes) -> str:
    octets = text.encode() if isinstance(text, str) else text
    return "Basic " + base64.b64encode(octets).decode()


@pytest.mark.parametrize(
    ("field", "read"),
    [
        (basic("joe:secret"), ("basic", "joe", "secret", None)),
        (basic("joe:a:b"), ("basic", "joe", "a:b", None)),
        (basic("ü:€"), ("basic", "ü", "€", None)),
        (basic(":"), ("basic", "", "", None)),
        (basic("u:p").replace("Basic", "bASIC"), ("basic", "u", "p", None)),
        (basic("u:p").replace(" ", "   "), ("basic", "u", "p", None)),
        ("Bearer abc.def==", ("bearer", None, None, "abc.def==")),
        ("BEARER  x y ", ("bearer", None, None, "x y")),
        ('Digest nonce="y"', ("digest", None, None, 'nonce="y"')),
    ],
)
def test_credentials_are_read(field, read):
    found = Authorization.from_header(field)
    assert (found.type, found.username, found.password, found.token) == read
    assert repr(found) == f"<Authorization {found.type}>"


@pytest.mark.parametrize(
    "field",
    [
        *(None, "", " ", "Basic", "Basic ", "Bearer", "Basic x", "Basic !!!!"),
        *("Basic é", "Basic \xff\xfe", "Basic ====", "Basic dTpw\x00", "Basic dT pw"),
        *(basic("nocolon"), basic(b"\xff:\xff")),
    ],
)
def test_credentials_that_cannot_be_read_are_none(field):
    assert Authorization.from_header(field) is None


def test_an_odd_space_in_a_quality_is_as_good_as_any():
    assert Accept("a;q=\x1f0.5")["a"] == 0.5
    assert Accept("a;q=0.5\x1c")["a"] == 0.5


# --------------------------------------------------------------------- files


def test_a_file_is_read_saved_and_closed(tmp_path):
    headers = {"Content-Type": "Text/Plain; charset=utf-8"}
    file = FileStorage(io.BytesIO(b"one\ntwo"), "../x.txt", "upload", headers)
    assert (file.filename, file.name) == ("../x.txt", "upload")
    assert file.content_type == "Text/Plain; charset=utf-8"
    assert file.mimetype == "text/plain"
    assert (file.read(3), file.tell(), file.read()) == (b"one", 3, b"\ntwo")
    file.seek(0)
    assert list(file) == [b"one\n", b"two"]
    file.seek(0)
    file.save(tmp_path / "a")
    file.seek(4)
    file.save(str(tmp_path / "b"), buffer_size=1)
    kept = io.BytesIO()
    file.seek(0)
    file.save(kept)
    assert (tmp_path / "a").read_bytes() == kept.getvalue() == b"one\ntwo"
    assert (tmp_path / "b").read_bytes() == b"two"
    file.close()
    assert file.stream.closed


@pytest.mark.parametrize(("name", "sent"), [("a", True), ("", False), (None, False)])
def test_a_file_without_a_name_is_false(name, sent):
    file = FileStorage(io.BytesIO(), name)
    assert bool(file) is sent
    assert (file.content_type, file.mimetype) == ("", "")


def test_a_file_may_have_any_name():
    headers = {"Content-Disposition": 'form-data; filename="€.txt"'}
    file = FileStorage(io.BytesIO(), "€.txt", "f", headers)
    assert repr(file) == "<FileStorage '€.txt' ('')>"
