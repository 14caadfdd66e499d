"""What holds for all URLs: they lead back to their rule, in whatever order."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from asyncflask import Request
from asyncflask.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestRedirect,
)
from asyncflask.routing import Map, MapAdapter, SlashRequired
from asyncflask.rules import Rule
from asyncflask.target import Target

SERVER = "example.com"

#: all of Unicode that can be sent at all
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
SEGMENT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1
)
#: text that looks like something else
ODD = st.sampled_from(["%", "%2F", "{x}", "<x>", "..", ".", "a?b#c", "\0", "\r\n", " "])
PATHS = st.one_of(TEXT, st.lists(SEGMENT, min_size=1).map("/".join), ODD).filter(
    lambda text: text[0] != "/"
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def fitting(low: int, high: int | None) -> st.SearchStrategy[str]:
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters="/")
    return st.text(alphabet, min_size=low, max_size=high)


WORDS = ["about", "a.b", "c|d", "100%", "ü €", "{x}", "a b"]

#: how a part is written, and the values it takes
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "": SEGMENT | ODD.filter(lambda text: "/" not in text),
    "string:": SEGMENT,
    "string(length=3):": fitting(3, 3),
    "string(minlength=2):": fitting(2, None),
    "string(maxlength=4):": fitting(1, 4),
    "string(minlength=2, maxlength=4):": fitting(2, 4),
    "path:": PATHS,
    "int:": st.integers(0, 10**40),
    "int(signed=True):": st.integers(-(10**40), 10**40),
    "int(min=-5, max=5, signed=True):": st.integers(-5, 5),
    "int(fixed_digits=4):": st.integers(0, 9999),
    "int(fixed_digits=4, signed=True):": st.integers(-9999, 9999),
    "float:": FINITE.map(abs),
    "float(signed=True):": FINITE,
    "float(min=-1.5, max=2, signed=True):": st.floats(-1.5, 2),
    "uuid:": st.uuids(),
    "any({}):".format(", ".join(f"'{word}'" for word in WORDS)): st.sampled_from(WORDS),
}


def table(*rules: Rule) -> Map:
    url_map = Map()
    for rule in rules:
        url_map.add(rule)
    return url_map


def adapter(url_map: Map, path: str, method: str = "GET", host: str = SERVER):
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"host", host.encode())],
    }
    return MapAdapter(url_map, Target(scope), SERVER)


def followed(url_map: Map, url: str, host: str = SERVER) -> tuple[str, dict[str, Any]]:
    """Match a URL as a client sends it and a server decodes it."""
    assert url.isascii()
    assert url.isprintable()
    assert url.startswith("/")
    assert not set(url) & set(' "<>\\^`{|}')
    return adapter(url_map, unquote(url.partition("?")[0]), host=host).match()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=settings.default.max_examples // 2)  # of each kind
@given(data=st.data())
def test_a_url_leads_back_to_its_rule_with_the_same_values(kind, data):
    rule = data.draw(
        st.sampled_from(["/{}", "/{}/", "/a/{}/b", "/{{b}} %/{}", "/x-{}.html"])
    ).format(f"<{kind}x>")
    value = data.draw(KINDS[kind])
    assume(not (kind == "path:" and rule.endswith("/") and value.endswith("/")))
    url_map = table(Rule(rule, endpoint="it"))
    url = adapter(url_map, "/").build("it", {"x": value})
    got = followed(url_map, url)[1]["x"]
    assert (got, type(got)) == (value, type(value))


#: kinds whose texts hold no hyphen
CLOSED = ["int:", "int(fixed_digits=4):", "float:"]
#: kinds whose texts hold only hyphens of their own
COUNTED = ["uuid:", "int(min=-5, max=5, signed=True):", *CLOSED]


@given(
    first=st.sampled_from(["", "string(minlength=2):", *COUNTED]),
    rest=st.lists(st.sampled_from(CLOSED), min_size=1, max_size=3),
    data=st.data(),
)
def test_several_values_in_one_segment_are_told_apart(first, rest, data):
    kinds = [first, *rest]
    names = [f"v{number}" for number in range(len(kinds))]
    parts = "-".join(f"<{kind}{name}>" for kind, name in zip(kinds, names))
    values = {name: data.draw(KINDS[kind]) for kind, name in zip(kinds, names)}
    url_map = table(Rule(f"/pre.{parts}.html", endpoint="it"))
    url = adapter(url_map, "/").build("it", values)
    assert followed(url_map, url) == ("it", values)


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(user=LABEL, path=PATHS, number=st.integers(0, 99))
def test_values_in_the_subdomain_lead_back_as_well(user, path, number):
    url_map = table(
        Rule("/<path:path>", endpoint="it", subdomain="<user>.n<int:number>"),
        Rule("/<path:path>", endpoint="other"),
    )
    values = {"user": user, "path": path, "number": number}
    url = adapter(url_map, "/").build("it", values)
    host, slash, rest = url.removeprefix("http://").partition("/")
    assert followed(url_map, slash + rest, host) == ("it", values)


@given(page=st.integers(1, 3), name=SEGMENT)
def test_a_value_that_is_the_default_leads_to_the_short_url(page, name):
    url_map = table(
        Rule("/<name>/", endpoint="it", defaults={"page": 1}),
        Rule("/<name>/page/<int:page>", endpoint="it"),
    )
    url = adapter(url_map, "/").build("it", {"name": name, "page": page})
    assert ("/page/" in url.removeprefix("/page/")) == (page != 1) or name == "page"
    assert followed(url_map, url) == ("it", {"name": name, "page": page})


@given(st.dictionaries(TEXT.filter(lambda key: key != "x"), TEXT | st.integers()))
def test_values_without_a_place_come_back_from_the_query(more):
    url_map = table(Rule("/<x>", endpoint="it"))
    url = adapter(url_map, "/").build("it", {"x": "v", **more})
    path, _, query = url.partition("?")
    assert followed(url_map, path) == ("it", {"x": "v"})
    scope = {"query_string": query.encode("ascii"), "headers": []}
    read = Request(scope).args.multi_items()
    assert read == [(key, str(value)) for key, value in more.items()]


@given(x=st.text(st.characters(exclude_categories=["Cs"])))
@example(x="/evil.example")
@example(x="//evil.example/")
@example(x="\\evil.example")
def test_no_value_makes_a_url_that_leads_off_the_site(x):
    url_map = table(Rule("/<path:x>", endpoint="it"), Rule("/<y>", endpoint="one"))
    for endpoint, values in [("it", {"x": x}), ("one", {"y": x})]:
        url = adapter(url_map, "/").build(endpoint, values)
        assert url.startswith("/")
        assert url[1:2] not in ("/", "\\")


# ------------------------------------------------------------------- the order

_LITERALS = ["a", "b", "ab", "page", "1", "1.5", "ü", "a.html"]
_VARIABLES = [
    *("<{}>", "<string(length=2):{}>", "<int:{}>", "<int(min=2):{}>", "<float:{}>"),
    *("<int(signed=True):{}>", "<uuid:{}>", "<any(a, page):{}>", "<{}>.html"),
    *("pre-<{}>", "<int:{}>-<string:{}>", "<string(minlength=2):{}>x"),
]
_TAILS = ["<path:{}>", "<path:{}>/edit", "pre<path:{}>"]


@st.composite
def rule_texts(draw) -> str:
    parts = draw(st.lists(st.sampled_from(_LITERALS + _VARIABLES), max_size=3))
    if draw(st.integers(0, 3)) == 0:
        parts = [*parts, draw(st.sampled_from(_TAILS))]
    names = (f"v{number}" for number in itertools.count())
    text = "/" + "/".join(
        part.format(*itertools.islice(names, part.count("{}"))) for part in parts
    )
    return text + "/" * (draw(st.booleans()) and text != "/")


@st.composite
def rule_sets(draw) -> list[dict[str, Any]]:
    """Return rules of which no two stand for the very same URLs and methods."""
    texts = draw(st.lists(rule_texts(), min_size=1, max_size=8, unique=True))
    methods = st.sampled_from([None, ["GET"], ["POST"], ["GET", "PUT"]])
    subdomains = st.sampled_from(["", "", "", "www", "<sub>"])
    return [
        {
            "string": text,
            "endpoint": f"e{number}",
            "methods": draw(methods),
            "subdomain": draw(subdomains),
            "strict_slashes": draw(st.booleans()),
        }
        for number, text in enumerate(texts)
    ]


_PIECES = st.sampled_from(
    [
        *_LITERALS,
        *("", "x", "2", "-3", "0.5", "2-b", "pre-q", "q.html", "abx", "edit", "%"),
        *("12345678-1234-5678-1234-567812345678", "\n", "prex", "pre-1-2.html"),
    ]
)
_REQUESTS = st.lists(
    st.tuples(
        st.lists(_PIECES, max_size=5).map(lambda parts: "/" + "/".join(parts)),
        st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
        st.sampled_from([SERVER, f"www.{SERVER}", f"x.{SERVER}", "other.example"]),
    ),
    min_size=1,
    max_size=20,
)


def answer(url_map: Map, path: str, method: str, host: str) -> Any:
    bound = adapter(url_map, path, method, host)
    try:
        rule, values = url_map.find(path, method) or bound.match_rule()
    except RequestRedirect as exc:
        return exc.code, exc.get_response().headers["location"]
    except MethodNotAllowed as exc:
        return exc.code, exc.allowed
    except NotFound as exc:
        return exc.code
    return rule.endpoint, values


@given(rules=rule_sets(), requests=_REQUESTS, data=st.data())
def test_the_order_of_registration_never_matters(rules, requests, data):
    shuffled = data.draw(st.permutations(rules))
    maps = [table(*(Rule(**rule) for rule in order)) for order in (rules, shuffled)]
    for request in requests:
        first, second = (answer(url_map, *request) for url_map in maps)
        assert first == second, request


@given(rules=rule_sets(), requests=_REQUESTS)
def test_the_quick_way_finds_what_the_thorough_one_finds(rules, requests):
    url_map = table(*(Rule(**{**rule, "subdomain": ""}) for rule in rules))
    for path, method, _ in requests:
        try:
            quick: Any = url_map.find(path, method)
        except (MethodNotAllowed, NotFound) as exc:
            quick = type(exc)
        try:
            thorough: Any = url_map.match(path, method)
        except (MethodNotAllowed, NotFound) as exc:
            thorough = type(exc)
        except SlashRequired:
            thorough = None
        assert quick == thorough or (quick is None and thorough[0].may_redirect)


@given(
    rules=rule_sets(),
    path=st.text(),
    method=st.text(max_size=8),
    host=st.text(st.characters(max_codepoint=255)),
)
def test_matching_raises_http_errors_only(rules, path, method, host):
    url_map = table(*(Rule(**rule) for rule in rules))
    bound = adapter(url_map, "/")
    bound.target = Target(
        {
            "path": path,
            "method": method,
            "headers": [(b"host", host.encode("latin-1"))],
        }
    )
    codes = []
    try:
        bound.match()
    except HTTPException as exc:
        codes.append(exc.code)
    assert codes in ([], [308], [400], [404], [405])
