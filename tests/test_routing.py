"""From a path to a rule: who wins, who redirects, and who is not found."""

from __future__ import annotations

import itertools
import random
import re
import time
from dataclasses import dataclass

import pytest

from asyncflask.converters import BaseConverter
from asyncflask.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestRedirect,
)
from asyncflask.routing import Map, MapAdapter, SlashRequired
from asyncflask.rules import Rule


def table(*rules: Rule | str, **options) -> Map:
    """Return a map; a rule that is only a string is for GET, and its endpoint."""
    url_map = Map(**options)
    for rule in rules:
        if isinstance(rule, str):
            rule = Rule(rule, endpoint=rule, methods=["GET"])
        url_map.add(rule)
    return url_map


def outcome(url_map: Map, path: str, method: str = "GET", subdomain: str | None = ""):
    """Return endpoint and values, the methods allowed, or the error."""
    try:
        rule, values = url_map.match(path, method, subdomain)
    except MethodNotAllowed as exc:
        return exc.allowed
    except (NotFound, SlashRequired) as exc:
        return type(exc)
    return rule.endpoint, values


def quick_outcome(url_map: Map, path: str, method: str = "GET"):
    """Return what :func:`outcome` does, the quick way; None if that leaves it open."""
    try:
        found = url_map.find(path, method)
    except MethodNotAllowed as exc:
        return exc.allowed
    except NotFound as exc:
        return type(exc)
    return None if found is None else (found[0].endpoint, found[1])


@dataclass
class At:
    """A request, as far as a map needs to know it."""

    path: str = "/"
    method: str = "GET"
    host: str = "localhost"
    script_root: str = ""
    query_string: bytes = b""
    scheme: str = "http"


def answer(url_map: Map, at: At, server_name: str | None = None):
    """Return endpoint and values; or where a redirect goes, or the code."""
    try:
        return MapAdapter(url_map, at, server_name).match()
    except RequestRedirect as exc:
        return exc.new_url
    except HTTPException as exc:
        return exc.code


def location(url_map: Map, at: At, server_name: str | None = None) -> str:
    with pytest.raises(RequestRedirect) as caught:
        MapAdapter(url_map, at, server_name).match()
    assert caught.value.code == 308
    assert caught.value.headers == {"Location": caught.value.new_url}
    return caught.value.new_url


# ------------------------------------------------------------------ who wins


@pytest.mark.parametrize(
    ("rules", "winners"),
    [
        (["/<x>", "/a"], {"/a": "/a", "/b": "/<x>"}),
        (["/<x>", "/<int:n>"], {"/1": "/<int:n>", "/a": "/<x>"}),
        (["/<path:p>", "/<x>"], {"/a": "/<x>", "/a/b": "/<path:p>"}),
        (["/<path:p>", "/<x>/<y>"], {"/a/b": "/<x>/<y>", "/a/b/c": "/<path:p>"}),
        (["/<path:p>", "/a/<x>"], {"/a/b": "/a/<x>", "/b/a": "/<path:p>"}),
        (["/<x>/b", "/a/<x>"], {"/a/b": "/a/<x>", "/c/b": "/<x>/b"}),
        (["/<x>/b", "/a/<int:n>"], {"/a/b": "/<x>/b", "/a/1": "/a/<int:n>"}),
        (["/<x>/b", "/<int:n>/c"], {"/1/b": "/<x>/b", "/1/c": "/<int:n>/c"}),
        (
            ["/<int:n>", "/<float:f>", "/<uuid:u>", "/<x>"],
            {
                "/1": "/<int:n>",
                "/1.5": "/<float:f>",
                "/a8098c1a-f86e-11da-bd1a-00112444be1e": "/<uuid:u>",
                "/-1": "/<x>",
            },
        ),
        (["/<any(a,b):x>", "/<x>"], {"/a": "/<any(a,b):x>", "/c": "/<x>"}),
        (
            ["/<x>", "/<string(length=2):x>"],
            {"/ab": "/<string(length=2):x>", "/abc": "/<x>"},
        ),
        (
            ["/<x>", "/<int(max=9):n>", "/<int(min=20):n>"],
            {"/9": "/<int(max=9):n>", "/10": "/<x>", "/20": "/<int(min=20):n>"},
        ),
        (
            ["/<x>", "/<x>.html", "/p<x>.html"],
            {"/a": "/<x>", "/a.html": "/<x>.html", "/pa.html": "/p<x>.html"},
        ),
        (
            ["/<path:p>", "/<path:p>/edit", "/<path:p>/"],
            {"/a/edit": "/<path:p>/edit", "/a/b": "/<path:p>", "/a/b/": "/<path:p>/"},
        ),
        (
            ["/a/", "/<x>/", "/<x>/<y>/"],
            {"/a/": "/a/", "/b/": "/<x>/", "/a/b/": "/<x>/<y>/"},
        ),
        (
            ["/<a>/x/<b>", "/<a>/<int:n>/y", "/z/<path:p>"],
            {"/z/x/1": "/z/<path:p>", "/q/1/y": "/<a>/<int:n>/y"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_most_specific_rule_wins_in_any_order(rules, winners):
    for order in itertools.permutations(rules):
        url_map = table(*order)
        got = {path: url_map.match(path, "GET")[0].rule for path in winners}
        assert got == winners, order


PIECES = ("a", "b", "1", "<v>", "<int:v>", "<any(a,c):v>", "<int:v>f", "x<v>")
TAILS = ("", "", "/", "/<path:t>", "/<path:t>/", "/<path:t>/a")
TEXTS = ("a", "b", "c", "1", "22", "2f", "xa", "ü", "a.b", "")


def random_rule(rng: random.Random) -> str:
    pieces = rng.choices(PIECES, k=rng.randint(0, 3))
    named = [piece.replace("v>", f"v{i}>") for i, piece in enumerate(pieces)]
    return "/" + "/".join(named) + rng.choice(TAILS if named else ("", "<path:t>"))


def random_path(rng: random.Random, rules: list[str]) -> str:
    """Return a path made of pieces, or one that looks like one of the rules."""
    if rng.random() < 0.5:
        return "/" + "/".join(rng.choices(TEXTS, k=rng.randint(1, 5)))

    path = rng.choice(rules).replace("<path:t>", "/".join(rng.choices(TEXTS, k=2)))
    return re.sub("<.*?>", lambda m: rng.choice(TEXTS), path)


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_registration_changes_nothing(seed):
    rng = random.Random(seed)
    rules = sorted({random_rule(rng) for _ in range(5)})
    paths = [random_path(rng, rules) for _ in range(60)]
    maps = [table(*order) for order in itertools.permutations(rules)]
    for path in paths:
        assert len({str(outcome(url_map, path)) for url_map in maps}) == 1, path


METHODS = (None, ["GET"], ["GET"], ["POST"], ["GET", "POST"])


@pytest.mark.parametrize("seed", range(60))
def test_find_gives_what_match_gives_unless_a_slash_is_missing(seed):
    rng = random.Random(seed)
    rules = sorted({random_rule(rng) for _ in range(rng.randint(8, 25))})
    url_map = table(
        *(
            Rule(
                rule,
                endpoint=str(number),
                methods=rng.choice(METHODS),
                strict_slashes=rng.random() < 0.7,
                build_only=rng.random() < 0.1,
            )
            for number, rule in enumerate(rules)
        )
    )
    hits = 0
    for path in [random_path(rng, rules) for _ in range(150)]:
        for method in ("GET", "HEAD", "POST", "DELETE"):
            found = quick_outcome(url_map, path, method)
            hits += isinstance(found, tuple)
            expected = outcome(url_map, path, method)
            assert (found or SlashRequired) == expected, (path, method)
    assert hits


def test_each_request_gets_values_of_its_own():
    url_map = table(Rule("/", defaults={"page": 1}), Rule("/<x>", defaults={"page": 1}))
    for path in ("/", "/a"):
        url_map.match(path, "GET")[1]["page"] = 2
        assert url_map.match(path, "GET")[1]["page"] == 1


# ----------------------------------------------------------- 404, 405, methods


@pytest.mark.parametrize(
    ("path", "method", "result"),
    [
        ("/get", "GET", ("get", {})),
        ("/get", "HEAD", ("get", {})),
        ("/get", "POST", ["GET", "HEAD"]),
        ("/get", "OPTIONS", ["GET", "HEAD"]),
        ("/get", "FOO", ["GET", "HEAD"]),
        ("/get", "get", ["GET", "HEAD"]),
        ("/post", "HEAD", ["POST"]),
        ("/both", "GET", ("both.get", {})),
        ("/both", "POST", ("both.post", {})),
        ("/both", "PUT", ["GET", "HEAD", "POST"]),
        ("/any", "FOO", ("any", {})),
        ("/n/1", "GET", ("n.int", {"n": 1})),
        ("/n/1", "PUT", ("n.text", {"x": "1"})),
        ("/n/1", "POST", ["GET", "HEAD", "PUT"]),
        ("/n/a", "POST", ["PUT"]),
        ("/mixed/a", "GET", ("mixed.get", {"x": "a"})),
        ("/mixed/a", "POST", ("mixed.post", {"y": "a"})),
        ("/static/a", "POST", ["GET", "HEAD"]),
        ("/static/b", "POST", NotFound),
        ("/tail/a/b", "GET", ["POST"]),
        ("/tail/a", "GET", ("tail.one", {"x": "a"})),
        ("/tail/a", "POST", ("tail", {"p": "a"})),
        ("/folder/", "POST", ["GET", "HEAD"]),
        ("/lenient/", "POST", ["GET", "HEAD"]),
        ("/lenient/", "HEAD", ("lenient", {})),
        ("/none", "GET", NotFound),
        ("/get/", "GET", NotFound),
        ("/build/only", "GET", NotFound),
    ],
)
def test_a_known_path_with_a_wrong_method_says_what_is_allowed(path, method, result):
    url_map = table(
        Rule("/get", endpoint="get", methods=["GET"]),
        Rule("/post", endpoint="post", methods=["POST"]),
        Rule("/both", endpoint="both.get", methods=["GET"]),
        Rule("/both", endpoint="both.post", methods=["POST"]),
        Rule("/any", endpoint="any"),
        Rule("/n/<int:n>", endpoint="n.int", methods=["GET"]),
        Rule("/n/<x>", endpoint="n.text", methods=["PUT"]),
        Rule("/mixed/<x>", endpoint="mixed.get", methods=["GET"]),
        Rule("/mixed/<y>", endpoint="mixed.post", methods=["POST"]),
        Rule("/static/a", endpoint="static", methods=["GET"]),
        Rule("/folder/", endpoint="folder", methods=["GET"]),
        Rule("/tail/<path:p>", endpoint="tail", methods=["POST"]),
        Rule("/tail/<x>", endpoint="tail.one", methods=["GET"]),
        Rule("/build/only", endpoint="build", build_only=True),
        Rule("/lenient", endpoint="lenient", methods=["GET"], strict_slashes=False),
    )
    assert outcome(url_map, path, method) == result


def test_the_allow_field_lists_the_methods():
    with pytest.raises(MethodNotAllowed) as caught:
        table("/a", Rule("/a", methods=["PUT"])).match("/a", "POST")
    assert caught.value.headers == {"Allow": "GET, HEAD, PUT"}


# -------------------------------------------------------------------- slashes


@pytest.mark.parametrize(
    ("rule", "strict", "path", "result"),
    [
        ("/a", True, "/a", {}),
        ("/a", True, "/a/", NotFound),
        ("/a", False, "/a/", {}),
        ("/a", False, "/a//", NotFound),
        ("/a/", True, "/a/", {}),
        ("/a/", True, "/a", SlashRequired),
        ("/a/", False, "/a", {}),
        ("/a/", True, "/a//", NotFound),
        ("/<x>", True, "/a/", NotFound),
        ("/<x>", False, "/a/", {"x": "a"}),
        ("/<x>/", True, "/a", SlashRequired),
        ("/<x>/", False, "/a", {"x": "a"}),
        ("/<int:x>/", True, "/a", NotFound),
        ("/f/<path:p>/", True, "/f/a/b", SlashRequired),
        ("/f/<path:p>/", True, "/f/a/b/", {"p": "a/b"}),
        ("/f/<path:p>/", False, "/f/a/b", {"p": "a/b"}),
        ("/f/<path:p>", True, "/f/a/b", {"p": "a/b"}),
        ("/f/<path:p>/edit/", True, "/f/a/b/edit", SlashRequired),
        ("/f/<path:p>/edit", True, "/f/a/b/edit/", NotFound),
        ("/f/<path:p>/<int:q>", True, "/f/a/b/5", {"p": "a/b", "q": 5}),
        ("/f/<path:p>/<int:q>", True, "/f/a/b/c", NotFound),
        ("/", True, "/", {}),
    ],
)
def test_only_a_folder_is_found_without_its_slash(rule, strict, path, result):
    url_map = table(Rule(rule, endpoint="it", strict_slashes=strict))
    expected = ("it", result) if isinstance(result, dict) else result
    assert outcome(url_map, path) == expected


@pytest.mark.parametrize(
    ("rule", "at", "url"),
    [
        ("/a/", At("/a"), "/a/"),
        ("/a/", At("/a", query_string=b"x=%2F&x=1"), "/a/?x=%2F&x=1"),
        ("/a/", At("/a", query_string=b"\xff?&%"), "/a/?\xff?&%"),
        ("/a/", At("/a", query_string=b"a\r\nb\0 \x7f"), "/a/?a%0D%0Ab%00%20%7F"),
        ("/a/", At("/a", script_root="/app", host="h:8080"), "/app/a/"),
        ("/app/", At("/app", script_root="/app"), "/app/app/"),
        ("/a/", At("/a", script_root="/ä p"), "/%C3%A4%20p/a/"),
        ("/<x>/", At("/ü%?#"), "/%C3%BC%25%3F%23/"),
        ("/<x>/", At("/a\nb"), "/a%0Ab/"),
        ("/<x>/", At("/a\r\nLocation: b"), "/a%0D%0ALocation:%20b/"),
        ("/<x>/", At("/\\evil.com"), "/%5Cevil.com/"),
        ("/<path:p>/", At("/evil.com"), "/evil.com/"),
        ("/<path:p>/", At("/\\\\evil.com/a"), "/%5C%5Cevil.com/a/"),
        ("/<path:p>/", At("/a//b"), "/a//b/"),
    ],
    ids=repr,
)
def test_the_redirect_to_the_slash_stays_here_and_keeps_the_query(rule, at, url):
    assert location(table(rule), at) == url


@pytest.mark.parametrize("rule", ["/<path:p>/", "/<x>/<path:p>/", "/<x>/<y>/", "/<x>/"])
@pytest.mark.parametrize("path", ["//evil.com", "///evil.com", "////a", "//evil.com/b"])
@pytest.mark.parametrize("root", ["", "/", "//evil.com"])
def test_no_redirect_leads_to_another_host(rule, path, root):
    got = answer(table(rule), At(path, script_root=root))
    assert got == 404 or (got[0] == "/" and got[1:2] != "/")


# ------------------------------------------------------- defaults, redirect_to


@pytest.mark.parametrize(
    ("at", "url"),
    [
        (At("/list/1"), "/list/"),
        (At("/list/1", query_string=b"q=1"), "/list/?q=1"),
        (At("/list/1", script_root="/app"), "/app/list/"),
        (At("/list/2"), None),
        (At("/list/"), None),
        (At("/other/1"), None),
    ],
    ids=repr,
)
def test_a_value_that_is_the_default_redirects_to_the_shorter_url(at, url):
    rules = (
        Rule("/list/", endpoint="list", defaults={"page": 1}, methods=["GET"]),
        Rule("/list/<int:page>", endpoint="list", methods=["GET"]),
        Rule("/other/<int:page>", endpoint="other", methods=["GET"]),
    )
    for order in itertools.permutations(rules):
        if url is not None:
            assert location(table(*order), at) == url
        else:
            assert MapAdapter(table(*order), at, None).match()[1]["page"] in (1, 2)


def test_the_redirect_goes_where_the_url_is_built_in_any_order():
    rules = (
        Rule("/", endpoint="it", defaults={"lang": "en", "page": 1}),
        Rule("/<lang>/", endpoint="it", defaults={"page": 1}),
        Rule("/<lang>/<int:page>", endpoint="it"),
    )
    for order in itertools.permutations(rules):
        url_map = table(*order)
        for path, url in (("/en/1", "/"), ("/en/", "/"), ("/de/1", "/de/")):
            assert url_map.build("it", url_map.match(path, "GET")[1]) == ("", url)
            assert answer(url_map, At(path)) == url, order


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/new/<name>", "/app/new/a%20b/c?q=1"),
        ("/new/<int:name>/<name>", "/app/new/a%20b/c/a%20b/c?q=1"),
        ("https://example.com/<name>", "https://example.com/a%20b/c"),
        (lambda adapter, name: f"/called/{name.upper()}", "/called/A B/C"),
        (lambda adapter, name: adapter.build("new", {"x": name}), "/app/new/a%20b%2Fc"),
    ],
    ids=["path", "twice", "url", "callable", "callable that builds"],
)
def test_a_rule_may_redirect(target, url):
    url_map = table(
        Rule("/old/<path:name>", redirect_to=target),
        Rule("/new/<x>", endpoint="new"),
    )
    at = At("/old/a b/c", script_root="/app", query_string=b"q=1")
    assert location(url_map, at) == url


# ----------------------------------------------------------------- subdomains


@pytest.mark.parametrize(
    ("host", "path", "result"),
    [
        ("example.com", "/", ("index", {})),
        ("example.com:5000", "/", ("index", {})),
        ("EXAMPLE.com", "/", ("index", {})),
        ("www.example.com", "/", ("www", {})),
        ("WWW.example.com:80", "/", ("www", {})),
        ("joe.example.com", "/", ("user", {"user": "joe"})),
        ("joe.example.com", "/5", ("page", {"user": "joe", "n": 5})),
        ("v1.api.example.com", "/", ("api", {"n": 1})),
        ("a.b.example.com", "/none", 404),
        ("example.org", "/", 404),
        ("badexample.com", "/", 404),
        ("example.com.evil.org", "/", 404),
        ("", "/", 404),
        # the next domain that suits is tried
        ("www.example.com", "/5", ("page", {"user": "www", "n": 5})),
        ("joe.example.com", "/other", ("other", {"account": "joe"})),
    ],
)
def test_the_subdomain_is_a_part_of_the_rule(host, path, result):
    rules = (
        Rule("/", endpoint="index"),
        Rule("/", endpoint="www", subdomain="www"),
        Rule("/", endpoint="user", subdomain="<user>"),
        Rule("/<int:n>", endpoint="page", subdomain="<user>"),
        Rule("/other", endpoint="other", subdomain="<account>"),
        Rule("/", endpoint="api", subdomain="v<int:n>.api"),
    )
    for url_map in (table(*rules), table(*reversed(rules))):
        assert answer(url_map, At(path, host=host), "example.com") == result


@pytest.mark.parametrize("host", ["localhost", "www.example.com", "anything"])
def test_without_a_server_name_every_host_is_ours(host):
    url_map = table("/", Rule("/", endpoint="www", subdomain="www"))
    assert MapAdapter(url_map, At(host=host), None).match() == ("/", {})


# ---------------------------------------------------------------- odd requests


class Refuses(BaseConverter):
    """Looks like much, and takes nothing."""

    regex = ".*"

    def to_python(self, value):
        raise ValueError(value)


ODD_PATHS = {
    **{repr(path): path for path in ("/", "//", "///", "////a", "/a//b", "/a/b//")},
    **{repr(path): path for path in ("/\x00", "/a\nb", "/\n", "/\x7f", "/\ud800")},
    **{repr(path): path for path in ("/.", "/..", "/../../a", "/\\", "/ ", "/-")},
    **{repr(path): path for path in ("/%", "/%2F", "/?", "/#", "/{x}", "/.*", "/<x>")},
    **{repr(path): path for path in ("/ü€", "/\U0001f600", "/٣", "/²")},
    "long segment": "/" + "a" * 100_000,
    "many digits": "/" + "1" * 5_000,
    "many signed digits": "/-" + "1" * 5_000,
    "many digits and a point": f"/{'1' * 5_000}.{'1' * 5_000}",
    "many segments": "/a" * 20_000,
    "many slashes": "/" * 20_000,
}


@pytest.mark.parametrize("path", ODD_PATHS.values(), ids=ODD_PATHS)
def test_an_odd_path_raises_nothing_but_what_is_documented(path):
    rules = ["/", "/a", "/a/", "/a/<x>/", "/<int(signed=True):n>", "/<float:f>"]
    rules += ["/<no:x>", "/x<no:x>", "/n/<int:n>/", "/<uuid:u>", "/<any(a,b):w>"]
    rules += ["/<path:p>/edit/", "/<x>/<y>/<path:p>", "/<string(length=2):s>/"]
    url_map = Map()
    url_map.converters["no"] = Refuses
    for rule in rules:
        url_map.add(Rule(rule, endpoint=rule, methods=["GET"]))
    for method in ("GET", "POST", "", "ü"):
        found = quick_outcome(url_map, path, method)
        assert (found or SlashRequired) == outcome(url_map, path, method)
        if path.isprintable():
            got = answer(url_map, At(path, method))
            assert isinstance(got, tuple | str) or got in (404, 405)


@pytest.mark.parametrize("path", ["", "*", "x", "xa", "http://h/a", "a/"])
def test_a_path_that_does_not_start_with_a_slash_is_not_found(path):
    url_map = table("/", "/a", "/a/", "/<x>")
    assert url_map.find(path, "GET") is None
    assert outcome(url_map, path) is NotFound


# ------------------------------------------------------------- the map itself


def test_a_map_is_iterated_in_the_order_of_registration():
    first, second = Rule("/b", endpoint="x"), Rule("/a", endpoint="y")
    url_map = table(first, second)
    assert list(url_map) == [first, second]
    assert len(url_map) == 2
    assert list(url_map.iter_rules("y")) == [second]
    assert list(url_map.iter_rules("none")) == []
    assert repr(url_map) == f"Map([{first!r}, {second!r}])"


def test_a_map_may_grow_while_it_is_iterated():
    url_map = table("/a")
    for rule in url_map:
        url_map.add(Rule(f"{rule.rule}b"))
    assert len(url_map) == 2


def test_a_map_prints_as_a_table():
    url_map = table(
        Rule("/user/<int:id>", endpoint="user", methods=["GET", "POST"]),
        Rule("/", endpoint="index", methods=["GET"]),
        Rule("/", endpoint="api", subdomain="api"),
    )
    assert str(url_map).splitlines() == [
        "Rule            Methods          Endpoint",
        "/               GET, HEAD        index",
        "/user/<int:id>  GET, HEAD, POST  user",
        "api:/           any              api",
    ]
    assert str(Map()) == "Rule  Methods  Endpoint"


def test_a_rule_can_be_removed():
    gone = Rule("/<int:n>", endpoint="n", methods=["GET"])
    kept = Rule("/<x>", endpoint="x", methods=["GET"])
    url_map = table(gone, kept, "/a", strict_slashes=False)
    url_map.remove(gone)
    assert [rule.rule for rule in url_map] == ["/<x>", "/a"]
    assert outcome(url_map, "/1") == ("x", {"x": "1"})
    assert outcome(url_map, "/a/") == ("/a", {})
    assert list(url_map.iter_rules("n")) == []
    url_map.add(Rule("/<int:n>", endpoint="again"))
    assert outcome(url_map, "/1") == ("again", {"n": 1})


def test_the_converters_of_a_map_know_it_after_a_removal():
    gone, kept = Rule("/a"), Rule("/<x>")
    url_map = table(gone, kept)
    url_map.remove(gone)
    assert kept.parts[1].converter.map is url_map


def test_a_map_takes_rules_after_it_has_matched():
    url_map = table("/<x>")
    assert outcome(url_map, "/a") == ("/<x>", {"x": "a"})
    url_map.add(Rule("/a", endpoint="a", methods=["GET"]))
    assert url_map.find("/a", "GET")[0].endpoint == "a"
    assert outcome(url_map, "/a") == ("a", {})


def test_the_cost_of_a_match_does_not_grow_with_the_number_of_rules():
    url_map = table(*(f"/r{n}/<int:x>/{n}" for n in range(5_000)))
    assert len(url_map._tree.root.static) == 5_000
    for n in range(0, 5_000, 50):
        assert outcome(url_map, f"/r{n}/7/{n}") == (f"/r{n}/<int:x>/{n}", {"x": 7})


@pytest.mark.parametrize(
    ("rule", "piece"),
    [
        ("/<a>-<b>.html", "-"),
        ("/<a>-<b>-<c>.html", "-"),
        ("/<a>-<b>-<c>-<d>-<e>.html", "-"),
        ("/<int:a><int:b><int:c>.html", "1"),
        ("/<int:a><int:b>x", "1"),
        ("/<a>-<int:b>x", "-1"),
        ("/<path:a>/<b>/x", "a/"),
        ("/<string(minlength=2):a>.<b>.<c>/x", "."),
        ("/<path:a>/x/<path:b>/x/<path:c>/y", "x/"),
        ("/<path:a>-<path:b>-<path:c>/y", "-"),
    ],
)
@pytest.mark.parametrize("length", [100, 300, 4000, 60_000])
def test_no_path_takes_long_to_be_refused(rule, piece, length):
    """Each variable more is one power more of the length, and a path may be long."""
    url_map = table(Rule(rule, endpoint="it"))
    path = "/" + piece * (length // len(piece))
    start = time.process_time()
    with pytest.raises(NotFound):
        url_map.match(path, "GET")
    assert time.process_time() - start < 2


def test_texts_of_a_usual_length_are_told_apart():
    url_map = table(
        Rule("/<a>-<b>.html", endpoint="two"),
        Rule("/<int:y>-<int:m>-<int:d>-<slug>", endpoint="date"),
        Rule("/of/<path:x>/<y>", endpoint="path"),
    )
    slug = "s" * 50_000
    assert url_map.match(f"/{'a' * 2000}-{'b' * 2000}.html", "GET")[0].endpoint == "two"
    found = url_map.match(f"/2025-01-02-{slug}", "GET")
    assert (found[0].endpoint, found[1]["slug"]) == ("date", slug)
    assert url_map.match(f"/of/{'a/' * 1000}b", "GET")[1]["y"] == "b"
