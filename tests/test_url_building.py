"""From an endpoint and values to a URL."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from asyncflask.exceptions import BuildError
from asyncflask.routing import Map, MapAdapter
from asyncflask.rules import Rule
from asyncflask.target import Target


def table(*rules: Rule) -> Map:
    url_map = Map()
    for rule in rules:
        url_map.add(rule)
    return url_map


SITE = (
    Rule("/", endpoint="index"),
    Rule("/user/<name>", endpoint="user"),
    Rule("/post/<int:id>/", endpoint="post"),
    Rule("/files/<path:name>", endpoint="files"),
    Rule("/ü b/", endpoint="odd"),
    Rule("/list/", endpoint="list", defaults={"page": 1}),
    Rule("/list/<int:page>", endpoint="list"),
    Rule("/item", endpoint="item", methods=["GET"]),
    Rule("/item/new", endpoint="item", methods=["POST"]),
    Rule("/hidden/<x>", endpoint="hidden", build_only=True),
    Rule("/only", endpoint="only", defaults={"page": 1}),
)


@pytest.mark.parametrize(
    ("endpoint", "values", "url"),
    [
        ("index", {}, "/"),
        ("user", {"name": "joe"}, "/user/joe"),
        ("user", {"name": "a/b c"}, "/user/a%2Fb%20c"),
        ("user", {"name": "100%?#"}, "/user/100%25%3F%23"),
        ("user", {"name": "{x}"}, "/user/%7Bx%7D"),
        ("user", {"name": 0}, "/user/0"),
        ("post", {"id": 5}, "/post/5/"),
        ("files", {"name": "a/b c"}, "/files/a/b%20c"),
        ("odd", {}, "/%C3%BC%20b/"),
        ("hidden", {"x": "y"}, "/hidden/y"),
        # unknown values go to the query
        ("index", {"a": 1, "b": "x y&z"}, "/?a=1&b=x+y%26z"),
        ("index", {"ü": "€"}, "/?%C3%BC=%E2%82%AC"),
        ("user", {"name": "joe", "tab": "x"}, "/user/joe?tab=x"),
        ("index", {"a": None}, "/"),
        ("index", {"a": None, "b": 2}, "/?b=2"),
        ("index", {"a": ""}, "/?a="),
        ("index", {"a": 0, "b": False}, "/?a=0&b=False"),
        ("index", {"a": [1, 2]}, "/?a=1&a=2"),
        ("index", {"a": ("x", "y")}, "/?a=x&a=y"),
        ("index", {"a": []}, "/"),
        ("index", {"a": [None, 1]}, "/?a=1"),
        # defaults
        ("list", {}, "/list/"),
        ("list", {"page": 1}, "/list/"),
        ("list", {"page": 2}, "/list/2"),
        ("list", {"page": None}, "/list/"),
        ("list", {"page": 2, "q": "x"}, "/list/2?q=x"),
        ("only", {}, "/only"),
    ],
)
def test_a_url_is_built_from_values(endpoint, values, url):
    assert table(*SITE).build(endpoint, values) == ("", url)


@pytest.mark.parametrize(
    ("method", "url"), [(None, "/item"), ("GET", "/item"), ("POST", "/item/new")]
)
def test_the_method_chooses_the_rule(method, url):
    assert table(*SITE).build("item", {}, method) == ("", url)


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))], ids=str)
def test_the_rule_with_most_values_in_its_path_wins_in_any_order(order):
    rules = ("/a/<x>", "/a/<x>/<y>", "/a", "/a/<x>/<y>/<z>")
    url_map = table(*(Rule(rules[i], endpoint="a") for i in order))
    given = [{}, {"x": 1}, {"x": 1, "y": 2}, {"x": 1, "y": 2, "z": 3}, {"y": 2}]
    assert [url_map.build("a", values)[1] for values in given] == [
        "/a",
        "/a/1",
        "/a/1/2",
        "/a/1/2/3",
        "/a?y=2",
    ]


@pytest.mark.parametrize(
    ("endpoint", "values", "method", "says"),
    [
        ("usr", {}, None, ["'usr'", "did you mean 'user'?"]),
        ("nothing.like.it", {}, None, ["'nothing.like.it'", "the application has"]),
        ("user", {}, None, ["'user'", "needs values for ['name']"]),
        ("user", {"nam": "x"}, None, ["['nam']", "needs values for ['name']"]),
        ("user", {"name": None}, None, ["needs values for ['name']"]),
        ("item", {}, "DELETE", ["do not allow DELETE", "['GET', 'HEAD', 'POST']"]),
        ("only", {"page": 2}, None, ["defaults differ", "['page']"]),
    ],
)
def test_an_error_names_the_near_miss_or_what_is_missing(
    endpoint, values, method, says
):
    with pytest.raises(BuildError) as caught:
        table(*SITE).build(endpoint, values, method)
    assert [part for part in says if part not in str(caught.value)] == []
    assert isinstance(caught.value, LookupError)
    assert (caught.value.endpoint, caught.value.method) == (endpoint, method)


def test_an_error_about_a_map_without_rules_can_be_read():
    with pytest.raises(BuildError, match=r"has \[\]"):
        Map().build("index", {})


@dataclass
class At:
    """Where a request is, as a map needs to know it."""

    path: str = "/"
    host: str = "localhost"
    script_root: str = ""
    scheme: str = "http"
    method: str = "GET"
    query_string: bytes = b""


HOSTS = (
    Rule("/", endpoint="index"),
    Rule("/", endpoint="api", subdomain="api"),
    Rule("/<page>", endpoint="user", subdomain="<user>"),
)


@pytest.mark.parametrize(
    ("at", "server_name", "endpoint", "values", "options", "url"),
    [
        (At(), None, "index", {}, {}, "/"),
        (At(script_root="/app"), None, "index", {}, {}, "/app/"),
        (At(script_root="/ä p"), None, "index", {}, {}, "/%C3%A4%20p/"),
        (At(), None, "index", {}, {"force_external": True}, "http://localhost/"),
        (
            At(host="h:8080", script_root="/app", scheme="https"),
            None,
            "index",
            {"q": 1},
            {"force_external": True},
            "https://h:8080/app/?q=1",
        ),
        (
            At(),
            None,
            "index",
            {},
            {"force_external": True, "scheme": "ftp"},
            "ftp://localhost/",
        ),
        (At(host="example.com"), "example.com", "index", {}, {}, "/"),
        (
            At(host="example.com"),
            "example.com",
            "api",
            {},
            {},
            "http://api.example.com/",
        ),
        (At(host="api.example.com"), "example.com", "api", {}, {}, "/"),
        (At(host="API.Example.com"), "example.com", "api", {}, {}, "/"),
        (
            At(host="api.example.com"),
            "example.com",
            "index",
            {},
            {},
            "http://example.com/",
        ),
        (
            At(host="example.com:5000"),
            "example.com:5000",
            "user",
            {"user": "joe", "page": "a"},
            {},
            "http://joe.example.com:5000/a",
        ),
        (
            At(host="joe.example.com"),
            "example.com",
            "user",
            {"user": "joe", "page": "a"},
            {},
            "/a",
        ),
    ],
)
def test_a_url_names_the_host_where_it_must(
    at, server_name, endpoint, values, options, url
):
    adapter = MapAdapter(table(*HOSTS), at, server_name)
    assert adapter.build(endpoint, values, **options) == url


@pytest.mark.parametrize("name", ["/evil.example", "//evil.example/x", "/"])
def test_slashes_in_front_of_a_path_name_no_other_host(name):
    """//evil.example is a URL without a scheme, and leads off the site."""
    target = Target({"path": "/", "method": "GET", "headers": []})
    url_map = table(Rule("/<path:name>", endpoint="files"))
    url = MapAdapter(url_map, target, None).build("files", {"name": name})
    assert url == "/" + name.lstrip("/")
