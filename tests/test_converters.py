"""Converters: from a part of a path to a value, and back."""

from __future__ import annotations

import math
import uuid
from urllib.parse import unquote

import pytest

from asyncflask.converters import BaseConverter, UnicodeConverter, ValidationError
from asyncflask.exceptions import BuildError, NotFound
from asyncflask.routing import Map
from asyncflask.rules import Rule

UUID = uuid.UUID("a8098c1a-f86e-11da-bd1a-00112444be1e")
MANY = "9" * 5000


def one_rule(rule: str, **converters: type[BaseConverter]) -> Map:
    url_map = Map()
    url_map.converters.update(converters)
    url_map.add(Rule(rule, endpoint="it", methods=["GET"]))
    return url_map


def read(url_map: Map, path: str):
    return url_map.match(path, "GET")[1]["x"]


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        ("<x>", "a", "a"),
        ("<x>", "ü €", "ü €"),
        ("<x>", "a\nb", "a\nb"),
        ("<x>", ".*", ".*"),
        ("<string:x>", "a", "a"),
        ("<string(length=2):x>", "ab", "ab"),
        ("<string(2):x>", "ab", "ab"),
        ("<string(minlength=2):x>", "abc", "abc"),
        ("<string(maxlength=2):x>", "ab", "ab"),
        ("<string(minlength=1, maxlength=2):x>", "a", "a"),
        ("<int:x>", "0", 0),
        ("<int:x>", "007", 7),
        ("<int(fixed_digits=3):x>", "007", 7),
        ("<int(3):x>", "007", 7),
        ("<int(min=5):x>", "5", 5),
        ("<int(max=5):x>", "5", 5),
        ("<int(signed=True):x>", "-5", -5),
        ("<int(signed=True):x>", "5", 5),
        ("<int(min=-5, signed=True):x>", "-5", -5),
        ("<float:x>", "1.5", 1.5),
        ("<float:x>", "01.50", 1.5),
        ("<float(min=1.5, max=2):x>", "2.0", 2.0),
        ("<float(signed=True):x>", "-0.5", -0.5),
        ("<path:x>", "a", "a"),
        ("<path:x>", "a/b/c.txt", "a/b/c.txt"),
        ("<path:x>", "a//b", "a//b"),
        ("<path:x>", "a\n/b", "a\n/b"),
        ("<any(about, help):x>", "help", "help"),
        ("<any(a, ab):x>", "ab", "ab"),
        ("<any('a.b', 'c|d'):x>", "c|d", "c|d"),
        ("<any(1, 2):x>", "1", "1"),
        ("<uuid:x>", str(UUID), UUID),
        ("<uuid:x>", str(UUID).upper(), UUID),
        ("pre-<int:x>.html", "pre-5.html", 5),
        ("<x>.html", "a.b.html", "a.b"),
    ],
)
def test_a_part_becomes_a_value(rule, path, value):
    got = read(one_rule(f"/{rule}"), f"/{path}")
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("<x>", ""),
        ("<x>", "a/b"),
        ("<string(length=2):x>", "a"),
        ("<string(length=2):x>", "abc"),
        ("<string(minlength=2):x>", "a"),
        ("<string(maxlength=2):x>", "abc"),
        ("<int:x>", ""),
        ("<int:x>", "a"),
        ("<int:x>", "1.5"),
        ("<int:x>", "-5"),
        ("<int:x>", "+5"),
        ("<int:x>", " 5"),
        ("<int:x>", "5\n"),
        ("<int:x>", "1_000"),
        ("<int:x>", "٣"),
        ("<int:x>", "²"),
        ("<int:x>", "0x1f"),
        ("<int(signed=True):x>", "--5"),
        ("<int(signed=True):x>", "-"),
        ("<int(signed=True):x>", "٣"),
        ("<int(fixed_digits=3):x>", "07"),
        ("<int(fixed_digits=3):x>", "0007"),
        ("<int(min=5):x>", "4"),
        ("<int(max=5):x>", "6"),
        ("<float:x>", "1"),
        ("<float:x>", "1."),
        ("<float:x>", ".5"),
        ("<float:x>", "-1.5"),
        ("<float:x>", "1e5"),
        ("<float:x>", "nan"),
        ("<float:x>", "inf"),
        ("<float:x>", "9" * 400 + ".0"),
        ("<float(min=1.5):x>", "1.4"),
        ("<float(max=1.5):x>", "1.6"),
        ("<path:x>", ""),
        ("<path:x>", "/a"),
        ("<any(about, help):x>", "hel"),
        ("<any(about, help):x>", "Help"),
        ("<any(about, help):x>", "aboutx"),
        ("<any('a.b'):x>", "axb"),
        ("<uuid:x>", UUID.hex),
        ("<uuid:x>", f"{{{UUID}}}"),
        ("<uuid:x>", str(UUID)[:-1] + "g"),
        ("<int:x>f", "2df"),
        ("<int:x>f", "2f\n"),
    ],
)
def test_a_part_that_does_not_suit_is_not_found(rule, path):
    with pytest.raises(NotFound):
        read(one_rule(f"/{rule}"), f"/{path}")


@pytest.mark.parametrize(
    "rule",
    [
        "<int:x>",
        "<int(signed=True):x>",
        "<int(max=5):x>",
        "<int(fixed_digits=3):x>",
        "<float:x>",
        "n<int:x>",
        "<string(maxlength=9):x>",
        "<uuid:x>",
    ],
)
def test_thousands_of_digits_are_not_found_and_nothing_worse(rule):
    url_map = one_rule(f"/{rule}")
    for path in (f"/{MANY}", f"/n{MANY}", f"/-{MANY}"):
        with pytest.raises(NotFound):
            read(url_map, path)


def test_any_takes_a_word_with_a_slash():
    assert read(one_rule("/<any('a/b', c):x>"), "/a/b") == "a/b"


def test_a_path_keeps_the_slash_at_its_end():
    assert read(one_rule("/<path:x>"), "/a/b/") == "a/b/"


@pytest.mark.parametrize(
    ("rule", "value", "path"),
    [
        ("<x>", "a b", "a%20b"),
        ("<x>", "a/b", "a%2Fb"),
        ("<x>", "ü", "%C3%BC"),
        ("<x>", "100%", "100%25"),
        ("<x>", 5, "5"),
        ("<x>", "a?b#c", "a%3Fb%23c"),
        ("<x>", "~!$&'()*+,:;=@-._", "~!$&'()*+,:;=@-._"),
        ("<int:x>", 5, "5"),
        ("<int:x>", "5", "5"),
        ("<int(fixed_digits=3):x>", 7, "007"),
        ("<int(signed=True):x>", -7, "-7"),
        ("<float:x>", 1.5, "1.5"),
        ("<float:x>", 2, "2.0"),
        ("<path:x>", "a/b c", "a/b%20c"),
        ("<any(a, b):x>", "b", "b"),
        ("<uuid:x>", UUID, str(UUID)),
    ],
)
def test_a_value_becomes_a_part(rule, value, path):
    assert one_rule(f"/{rule}").build("it", {"x": value}) == ("", f"/{path}")


@pytest.mark.parametrize(
    ("rule", "value"),
    [("<int:x>", "a"), ("<float:x>", "a"), ("<any(a, b):x>", "c")],
)
def test_a_value_that_makes_no_part_cannot_be_built(rule, value):
    with pytest.raises(BuildError, match=r"does not suit its rule: .*'[ac]'"):
        one_rule(f"/{rule}").build("it", {"x": value})


ODD_TEXT = ["a b", "ü€日", "100%", "a+b", "a?b", "a#b", "{x}", "a;b=c", "a&b", "%2F"]
ODD_TEXT += ["..", ".", "a\\b", '"', "'", "<b>", "a\nb", "\x7f", ":", "@", "~", "%zz"]


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("<x>", [*ODD_TEXT, "a"]),
        ("<string(minlength=1):x>", ODD_TEXT),
        ("<string(length=3):x>", ["ü€日", "a b", "%2F"]),
        ("<path:x>", [*ODD_TEXT, "a/b", "a//b", "ü/%/?"]),
        ("<int:x>", [0, 7, 10**30]),
        ("<int(signed=True):x>", [0, -7, 7]),
        ("<int(fixed_digits=3):x>", [0, 7, 999]),
        ("<int(fixed_digits=3, signed=True):x>", [7, -7, -999]),
        ("<float:x>", [0.0, 1.5, 1e22, 0.1, 1e16, 123456.789]),
        ("<float:x>", [1e-7, 1.5e-10]),
        ("<float(signed=True):x>", [-0.5]),
        ("<any('a b', 'ü/', '%'):x>", ["a b", "%"]),
        ("<uuid:x>", [UUID]),
        ("<x>.html", ODD_TEXT),
        ("pre <int:x> ü%", [5]),
    ],
)
def test_what_is_built_matches_the_same_value(rule, values):
    url_map = one_rule(f"/{rule}")
    built = {value: url_map.build("it", {"x": value})[1] for value in values}
    assert all(url.isascii() and "?" not in url for url in built.values())
    assert {v: read(url_map, unquote(url)) for v, url in built.items()} == {
        value: value for value in values
    }


class ListConverter(BaseConverter):
    """Words with a separator; the example everybody writes."""

    def __init__(self, map, separator="+"):
        super().__init__(map)
        self.separator = separator

    def to_python(self, value):
        return value.split(self.separator)

    def to_url(self, value):
        return self.separator.join(BaseConverter.to_url(self, v) for v in value)


@pytest.mark.parametrize(
    ("rule", "path"), [("<list:x>", "/a+b"), ("<list(';'):x>", "/a;b")]
)
def test_a_converter_of_ones_own_works_both_ways(rule, path):
    url_map = one_rule(f"/{rule}", list=ListConverter)
    assert read(url_map, path) == ["a", "b"]
    assert url_map.build("it", {"x": ["a", "b"]})[1] == path


@pytest.mark.parametrize("error", [ValueError, ValidationError])
@pytest.mark.parametrize("rule", ["<even:n>", "n<even:n>"])
def test_a_converter_that_refuses_lets_the_next_rule_try(error, rule):
    class Even(BaseConverter):
        regex = "[0-9]+"

        def to_python(self, value):
            if int(value) % 2:
                raise error(value)
            return int(value)

    url_map = Map()
    url_map.converters["even"] = Even
    url_map.add(Rule(f"/{rule}", endpoint="even"))
    url_map.add(Rule("/<text>", endpoint="text"))
    prefix = rule.partition("<")[0]
    for number, endpoint in (("2", "even"), ("3", "text")):
        assert url_map.match(f"/{prefix}{number}", "GET")[0].endpoint == endpoint


@pytest.mark.parametrize(
    ("path", "value"),
    [("/a/1", "a/1"), ("/a/1/edit", None), ("/a", None), ("/a/x", None)],
)
def test_a_regex_may_hold_a_slash(path, value):
    class Pair(BaseConverter):
        regex = "[a-z]/[0-9]"

    url_map = one_rule("/<pair:x>", pair=Pair)
    if value is None:
        with pytest.raises(NotFound):
            read(url_map, path)
    else:
        assert read(url_map, path) == value


def test_converters_of_the_same_name_from_a_factory_are_told_apart():
    def made(pattern):
        class Made(BaseConverter):
            regex = pattern

        return Made

    url_map = Map()
    url_map.converters.update(letters=made("[a-z]+"), digits=made("[0-9]+"))
    url_map.add(Rule("/<letters:x>", endpoint="letters"))
    url_map.add(Rule("/<digits:x>", endpoint="digits"))
    got = [url_map.match(path, "GET")[0].endpoint for path in ("/ab", "/12")]
    assert got == ["letters", "digits"]


@pytest.mark.parametrize(
    ("rule", "path"),
    [("<re('[a-c]{2,3}'):x>", "/abc"), (r'<re("\d{2}"):x>', "/12")],
)
def test_a_converter_may_take_its_regex_from_the_rule(rule, path):
    class RegexConverter(BaseConverter):
        def __init__(self, map, regex):
            super().__init__(map)
            self.regex = regex

    url_map = one_rule(f"/{rule}", re=RegexConverter)
    assert read(url_map, path) == path[1:]
    with pytest.raises(NotFound):
        read(url_map, "/xyz")


def test_a_converter_may_take_the_place_of_the_default():
    class Upper(UnicodeConverter):
        def to_python(self, value):
            return value.upper()

    assert read(one_rule("/<x>", default=Upper), "/ab") == "AB"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_without_digits_makes_no_url(value):
    with pytest.raises(BuildError, match="cannot stand in a URL"):
        one_rule("/<float(signed=True):x>").build("it", {"x": value})
