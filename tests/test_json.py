"""JSON: what goes out besides the usual, and what comes in."""

from __future__ import annotations

import dataclasses
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace

import flask
import pytest
from markupsafe import Markup

from asyncflask.json import dumps, loads, ready_encoder


@dataclasses.dataclass
class Point:
    x: int
    when: date


class Html:
    def __html__(self):
        return "<b>"


UUID = uuid.UUID("a8098c1a-f86e-11da-bd1a-00112444be1e")
TEXTS = {
    "none": (None, "null"),
    "compact": ({"a": [1, 2.5, True, None]}, '{"a":[1,2.5,true,null]}'),
    "order kept": ({"b": 1, "a": 2}, '{"b":1,"a":2}'),
    "ascii": ("ü€\u2028</script>", '"\\u00fc\\u20ac\\u2028</script>"'),
    "tuple": ((1, 2), "[1,2]"),
    "int keys": ({1: 2}, '{"1":2}'),
    "datetime": (datetime(2030, 1, 2, 3, 4, 5), '"Wed, 02 Jan 2030 03:04:05 GMT"'),
    "aware": (datetime(2030, 1, 2, tzinfo=UTC), '"Wed, 02 Jan 2030 00:00:00 GMT"'),
    "date": (date(2030, 1, 2), '"Wed, 02 Jan 2030 00:00:00 GMT"'),
    "decimal": (Decimal("1.50"), '"1.50"'),
    "uuid": (UUID, f'"{UUID}"'),
    "markup": (Markup("<b>"), '"<b>"'),
    "html": (Html(), '"<b>"'),
    "dataclass": (
        Point(1, date(2030, 1, 2)),
        '{"x":1,"when":"Wed, 02 Jan 2030 00:00:00 GMT"}',
    ),
    "nested": ([{"id": UUID}], f'[{{"id":"{UUID}"}}]'),
}


@pytest.mark.parametrize(("value", "text"), TEXTS.values(), ids=TEXTS)
def test_a_value_becomes_json(value, text):
    assert dumps(value) == text


@pytest.mark.parametrize("value", [v for v, _ in TEXTS.values()], ids=TEXTS)
def test_a_value_means_what_it_means_to_flask(value):
    with flask.Flask(__name__).app_context():
        assert json.loads(dumps(value)) == json.loads(flask.json.dumps(value))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        ({1}, "set"),
        (b"x", "bytes"),
        (1j, "complex"),
        ([{"a": SimpleNamespace()}], "SimpleNamespace"),
        (Point, "type"),
        (len, "builtin_function_or_method"),
    ],
    ids=["object", "set", "bytes", "complex", "nested", "dataclass type", "function"],
)
def test_a_type_that_json_has_no_form_for_is_named(value, kind):
    with pytest.raises(TypeError, match=f"is a {kind}, which JSON has no form for"):
        dumps(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        (b'{"a": [1, 2.5]}', {"a": [1, 2.5]}),
        (' "\\u00fc" ', "ü"),
        ('"ü"'.encode(), "ü"),
        ('"ü"'.encode("utf-16"), "ü"),
        ('"\\ud800"', "\ud800"),
        ("1" * 4_000, int("1" * 4_000)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_json_is_read(text, value):
    assert loads(text) == value


def test_a_line_end_behind_it_costs_no_second_look(monkeypatch):
    monkeypatch.setattr(json, "loads", pytest.fail)
    assert loads(b'\t{"a": 1}\r\n') == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("", b"", " ", "{", "{]", "'a'", "{a:1}", "[1,]", "nul", "\x00", "1 2", '"a'),
        *(b"\xff", b'"\xff"', b"\xff\xfe", "1" * 5_000, '"\x01"', "[" * 100_000),
        '{"a":' * 100_000,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.parametrize("sort_keys", [False, True])
@pytest.mark.parametrize(
    "value",
    [{"b": [1, 2.5, None, True], "a": "é"}, [], "text", 7, float("inf"), {2: {}}],
    ids=repr,
)
def test_an_encoder_that_is_set_up_once_says_the_same(monkeypatch, sort_keys, value):
    encoder = json.JSONEncoder(separators=(",", ":"), sort_keys=sort_keys)
    assert ready_encoder(encoder)(value) == encoder.encode(value)
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    assert ready_encoder(encoder)(value) == encoder.encode(value)


def test_a_list_that_holds_itself_is_an_error():
    endless = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        dumps(endless)
