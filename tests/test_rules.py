"""Rules: what a pattern may say, and what is said about one that is wrong."""

from __future__ import annotations

import pytest

from asyncflask.converters import BaseConverter
from asyncflask.routing import Map
from asyncflask.rules import Rule, parse_arguments, parse_rule


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        ("/", ["/"]),
        ("/a/b/", ["/a/b/"]),
        ("/<x>", ["/", ("default", "", "x")]),
        ("/<int:x>", ["/", ("int", "", "x")]),
        ("/<int(2):x>/", ["/", ("int", "2", "x"), "/"]),
        ("/<any(a, b):x>", ["/", ("any", "a, b", "x")]),
        ("/<a><b>", ["/", ("default", "", "a"), ("default", "", "b")]),
        ("/<a>-<b>", ["/", ("default", "", "a"), "-", ("default", "", "b")]),
        ("/<_x1>", ["/", ("default", "", "_x1")]),
        ('/<re("[a-z]{2,3}"):x>', ["/", ("re", '"[a-z]{2,3}"', "x")]),
        ("/ü %{}(|/<x>", ["/ü %{}(|/", ("default", "", "x")]),
    ],
)
def test_a_rule_is_literal_text_and_variables(rule, parts):
    assert list(parse_rule(rule)) == parts


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("", (), {}),
        ("  ", (), {}),
        ("2", (2,), {}),
        ("-2", (-2,), {}),
        ("1.5", (1.5,), {}),
        ("a", ("a",), {}),
        ("a,b , c", ("a", "b", "c"), {}),
        ('"a, b", c', ("a, b", "c"), {}),
        ("'it', \"o'clock\"", ("it", "o'clock"), {}),
        ("a-b, 01, a.b", ("a-b", "01", "a.b"), {}),
        ("length=2", (), {"length": 2}),
        ("min = 1 , max=-5", (), {"min": 1, "max": -5}),
        ("a, k='v'", ("a",), {"k": "v"}),
        ("True, False, None", (True, False, None), {}),
        ("signed=True", (), {"signed": True}),
        ('""', ("",), {}),
        ('"[a-z]{2,3}"', ("[a-z]{2,3}",), {}),
    ],
)
def test_arguments_are_numbers_quoted_strings_constants_or_words(text, args, kwargs):
    assert parse_arguments(text) == (args, kwargs)


@pytest.mark.parametrize("regex", [r"\d+", r"\w{2}", r"a\.b", r"\bx"])
def test_a_backslash_in_a_quoted_argument_stands_for_itself(regex):
    assert parse_arguments(f'"{regex}"') == ((regex,), {})


BROKEN = {
    "no slash in front": (
        lambda: Rule("a/b"),
        ValueError,
        ["'a/b'", "start with a slash", "Write '/a/b'"],
    ),
    "methods as one string": (
        lambda: Rule("/", methods="GET"),
        TypeError,
        ["methods='GET'", "list", "Write methods=['GET']"],
    ),
    **{
        f"stray bracket {rule}": (
            lambda rule=rule: Map().add(Rule(rule)),
            ValueError,
            [repr(rule), "stray bracket", "written <name>"],
        )
        for rule in (
            "/<",
            "/>",
            "/<>",
            "/<x",
            "/x>",
            "/<int:>",
            "/<:x>",
            "/<1x>",
            "/<a-b>",
            "/<<x>>",
            "/<int(1:x>",
            "/<a b>",
        )
    },
    "stray bracket in the subdomain": (
        lambda: Map().add(Rule("/", subdomain="<x")),
        ValueError,
        ["'<x'", "stray bracket", "written <name>"],
    ),
    "a name twice": (
        lambda: Map().add(Rule("/<x>/<int:x>")),
        ValueError,
        ["'/<x>/<int:x>'", "same name twice", "Rename one"],
    ),
    "a name in path and subdomain": (
        lambda: Map().add(Rule("/<x>", subdomain="<x>")),
        ValueError,
        ["'/<x>'", "same name twice", "Rename one"],
    ),
    "unknown converter": (
        lambda: Map().add(Rule("/<list:x>")),
        LookupError,
        ["'/<list:x>'", "'list'", "'int'", "app.url_map.converters['list'] ="],
    ),
}


@pytest.mark.parametrize(("make", "error", "says"), BROKEN.values(), ids=BROKEN)
def test_an_error_says_what_happened_which_rule_and_what_to_write(make, error, says):
    with pytest.raises(error) as caught:
        make()
    message = str(caught.value)
    assert [part for part in says if part not in message] == []


@pytest.mark.parametrize("regex", ["(a|b)", "(?P<n>a)", "x(y)?"])
def test_a_converter_whose_regex_captures_is_refused(regex):
    class Capturing(BaseConverter):
        pass

    Capturing.regex = regex
    url_map = Map()
    url_map.converters["bad"] = Capturing
    with pytest.raises(ValueError, match="capturing group") as caught:
        url_map.add(Rule("/<bad:x>", endpoint="x"))
    assert repr(regex) in str(caught.value)
    assert "(?:" in str(caught.value)


def test_a_rule_that_was_refused_is_not_in_the_map():
    class Capturing(BaseConverter):
        regex = "(a)"

    url_map = Map()
    url_map.converters["bad"] = Capturing
    for rule in ("/<", "/<x>/<x>", "/<none:x>", "/<bad:x>"):
        with pytest.raises((ValueError, LookupError)):
            url_map.add(Rule(rule, endpoint="x"))
    assert list(url_map) == []
    assert list(url_map.iter_rules("x")) == []


@pytest.mark.parametrize(
    ("methods", "kept"),
    [
        (None, None),
        ([], set()),
        (["GET"], {"GET", "HEAD"}),
        (("get", "post"), {"GET", "HEAD", "POST"}),
        ({"POST"}, {"POST"}),
        (iter(["PUT", "OPTIONS"]), {"PUT", "OPTIONS"}),
    ],
)
def test_methods_are_in_upper_case_and_head_goes_with_get(methods, kept):
    assert Rule("/", methods=methods).methods == kept


@pytest.mark.parametrize(
    ("rule", "arguments", "is_static", "is_branch"),
    [
        (Rule("/"), set(), True, True),
        (Rule("/a"), set(), True, False),
        (Rule("/<x>"), {"x"}, False, False),
        (Rule("/<x>/<y>/"), {"x", "y"}, False, True),
        (Rule("/", defaults={"p": 1}), {"p"}, True, True),
        (Rule("/<x>", defaults={"p": 1}, subdomain="<u>"), {"x", "p", "u"}, 0, 0),
    ],
    ids=lambda value: value.rule if isinstance(value, Rule) else "",
)
def test_a_rule_in_a_map_knows_its_arguments(rule, arguments, is_static, is_branch):
    Map().add(rule)
    assert rule.arguments == arguments
    assert (rule.is_static, rule.is_branch) == (is_static, is_branch)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule("/a", endpoint="a", methods=["GET"]), "<Rule '/a' (GET, HEAD) -> a>"),
        (Rule("/<x>", endpoint="b"), "<Rule '/<x>' (any method) -> b>"),
    ],
)
def test_a_rule_prints_pattern_methods_and_endpoint(rule, text):
    assert repr(rule) == text


@pytest.mark.parametrize(("own", "of_map"), [(True, False), (False, True)])
def test_a_rule_that_does_not_say_gets_the_strictness_of_its_map(own, of_map):
    said, unsaid = Rule("/a", strict_slashes=own), Rule("/b")
    url_map = Map(strict_slashes=of_map)
    url_map.add(said)
    url_map.add(unsaid)
    assert (said.strict_slashes, unsaid.strict_slashes) == (own, of_map)


def test_defaults_are_a_copy():
    defaults = {"page": 1}
    rule = Rule("/", defaults=defaults)
    defaults["page"] = 2
    assert rule.defaults == {"page": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("int(foo=1)", "int(1, 2, 3, True, 5)", "int(3, fixed_digits=3)"),
        *("int(min=a)", "int(fixed_digits=a)", "float(max='1')", "any()"),
        *("string(minlength=a)", "string(minlength=5, maxlength=2)"),
        *("string(minlength=99999999999999999999)", "string(length=-1)"),
    ],
)
def test_arguments_that_a_converter_does_not_take_are_refused_with_the_rule(text):
    with pytest.raises(ValueError, match="does not take") as caught:
        Map().add(Rule(f"/<{text}:x>"))
    assert repr(f"/<{text}:x>") in str(caught.value)
