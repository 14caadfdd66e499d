"""URLs, hosts and redirects against what has gone wrong in the field.

The letters and numbers in the names of the tests are the project's own catalogue
of faults and attacks that its field has seen.
"""

from __future__ import annotations

import uuid
from urllib.parse import unquote

import pytest

from asyncflask import Flask, redirect, request, url_for
from asyncflask.converters import BaseConverter
from asyncflask.debug import Debugger
from asyncflask.exceptions import BuildError

from ..server import served
from .raw import PROTOCOLS, ask, get, talk

UUID = uuid.UUID("a8098c1a-f86e-11da-bd1a-00112444be1e")
MANY = "9" * 5000


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    "host",
    [
        *("evil.com/../x?y#", "a@b", "a b", "a\\b", "a\x00", "a\tb", "\xe9", "<x>"),
        *("[::1", "::1", "[::1]x", "x:99999", "x:-1", "h:1:2"),
    ],
)
def test_H1_H2_H3_a_malformed_host_is_400_where_it_is_read(protocol, host):
    """CVE-2026-48710, GHSA-86qp-5c8j-p5mr."""
    app = Flask(__name__)

    @app.route("/host")
    def read():
        return request.host

    @app.route("/path")
    def path():
        return f"{request.path} {request.query_string.decode()}"

    headers = [(b"host", host.encode("latin-1"))]
    assert ask(app, protocol, "/host", headers=headers).status_code == 400
    got = ask(app, protocol, "/path", b"q", headers=headers)
    assert got.status_code == 400 or got.text == "/path q"


@pytest.mark.parametrize(
    ("server", "url"),
    [
        (("example.com", 80), "http://example.com/"),
        (("10.0.0.1", 8080), "http://10.0.0.1:8080/"),
        (("::1", 8080), "http://[::1]:8080/"),
        (("fe80::1%eth0", 8080), "http://localhost:8080/"),
        (("/run/app.sock", None), "http://localhost/"),
        (("", 0), "http://localhost/"),
        (None, "http://localhost/"),
    ],
)
def test_H5_without_a_host_the_servers_address_counts(server, url):
    """HTTP/1.0 has no Host, and a server may listen on the path of a socket."""
    app = Flask(__name__)

    @app.route("/x")
    def view():
        return [request.url, url_for("view", _external=True)]

    got = ask(app, "asgi", "/x", headers=[], server=server)
    assert got.json == [f"{url}x", f"{url}x"]


@pytest.mark.parametrize("server", [("/run/app.sock", None), ("", 0), ("fe80::1%e", 1)])
def test_H5_for_the_debugger_that_is_no_trusted_host(server):
    app = Flask(__name__)
    app.debug = True
    app.wsgi_app = Debugger(app, pin="1")
    app.add_url_rule("/", "view")  # which fails
    got = ask(app, "wsgi", "/", headers=[], server=server)
    assert got.status_code == 500
    assert "Traceback" not in got.text
    got = ask(app, "wsgi", "/", headers=[], server=("127.0.0.1", 80))
    assert "Traceback" in got.text


@pytest.mark.parametrize("name", ["/run/app.sock", "", "vm"])
def test_H5_a_wsgi_server_may_have_a_name_that_is_no_host(name):
    """gunicorn on a socket puts its path into SERVER_NAME."""
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: request.url)
    environ = {"PATH_INFO": "/", "SERVER_NAME": name, "REQUEST_METHOD": "GET"}
    status = []
    (body,) = app.wsgi_app(environ, lambda line, _: status.append(line))
    host = "vm" if name == "vm" else "localhost"
    assert (status, body.decode()) == (["200 OK"], f"http://{host}/")


# --------------------------------------------------------------------- redirects

FOREIGN = ["//evil.com", "///evil.com", "/\\evil.com", "\\\\evil.com", "/\t/evil.com"]
FOREIGN += ["//evil.com/a", "//user@evil.com", "/ /evil.com", "//evil.com//"]
RULES = ["/<path:p>/", "/<x>/", "/<x>/<path:p>/", "/<x>/<y>/", "/<x>/<y>/<z>/"]


def leaves(url: str) -> bool:
    """Say whether a browser would go to another host (WHATWG URL, section 4.4)."""
    url = "".join(c for c in url if c not in "\t\r\n").strip().replace("\\", "/")
    return not url.startswith("/") or url.startswith("//")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("root", ["", "/app", "/app/", "//evil.com"])
def test_H8_the_redirect_to_the_slash_stays_on_this_host(protocol, rule, root):
    """streamlit#9754, simple-login#1096, flask#1639."""
    app = Flask(__name__)
    app.add_url_rule(rule, "view", lambda **values: "")
    for path in (*FOREIGN, *(root.rstrip("/") + path for path in FOREIGN)):
        got = ask(app, protocol, path, root_path=root)
        assert got.status_code in (200, 308, 404)
        assert got.location is None or not leaves(got.location), path


@pytest.mark.parametrize("rule", [*RULES, "/<path:p>", "/<path:p>/edit"])
@pytest.mark.parametrize("root", ["", "/app"])
def test_H8_a_built_url_stays_on_this_host(rule, root):
    """The same fault by another door: redirect(url_for("page", p=what_a_user_said))."""
    app = Flask(__name__)
    app.add_url_rule(rule, "page")
    (names,) = [rule.names for rule in app.url_map.iter_rules("page")]
    with app.test_request_context(base_url=f"http://localhost{root}"):
        for value in FOREIGN:
            values = {"p": value, "x": "", "y": value, "z": value}
            values = {name: values[name] for name in names}
            url = url_for("page", **values)
            assert not leaves(url), url
            assert url_for("page", _external=True, **values) == f"http://localhost{url}"
            assert url.startswith(f"{root}/")


@pytest.mark.parametrize("path", ["/list/1", "//evil.com/1", "///1", "/\\evil.com/1"])
def test_H8_the_redirect_to_a_default_stays_on_this_host(protocol, path):
    app = Flask(__name__)
    app.add_url_rule("/<path:x>/", "view", lambda x, n: x, defaults={"n": 1})
    app.add_url_rule("/<path:x>/<int:n>", "view")
    url = ask(app, protocol, path).location
    assert url is None or not leaves(url)


@pytest.mark.parametrize(
    "query", ["x=%2F&x=1", "?", "a=b?c", "x=%zz&%", "&&", "q=%0d%0aX:%20y", "x=a+b%20c"]
)
async def test_H10_query_is_kept_byte_for_byte_in_a_slash_redirect(app, client, query):
    """Quart 0.6.7, starlette#464."""

    @app.route("/a/")
    def view():
        return request.query_string

    got = await client.get("/a", query_string=query)
    assert (got.status_code, got.headers["location"]) == (308, f"/a/?{query}")
    assert (await client.get(got.headers["location"])).text == query


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"x=\xff\xe9", b"x=\xff\xe9"),
        (b"x=\r\nSet-Cookie: a=b", b"x=%0D%0ASet-Cookie:%20a=b"),
        (b"x=\x0c", b"x=%0C"),
        (b"x=\x7f\x00\t", b"x=%7F%00%09"),
    ],
)
def test_H10_what_a_field_cannot_hold_is_encoded(protocol, query, kept):
    """waitress, uWSGI and wsgiref let control characters through."""
    app = Flask(__name__)
    app.add_url_rule("/a/", "view", lambda: "")
    app.add_url_rule("/n/", "n", defaults={"n": 1})
    app.add_url_rule("/n/<int:n>", "n")
    app.add_url_rule("/old", "old", redirect_to="/a/")
    for path, target in (("/a", "/a/"), ("/n/1", "/n/"), ("/old", "/a/")):
        got = ask(app, protocol, path, query)
        assert got.status_code == 308
        assert got.location == f"{target}?{kept.decode('latin-1')}"


async def test_H10_the_redirect_of_a_head_request_keeps_it_too(app, client):
    app.add_url_rule("/a/", "view", lambda: "")
    got = await client.head("/a?x=%2F")
    assert (got.status_code, got.headers["location"]) == (308, "/a/?x=%2F")
    assert got.data == b""


@pytest.mark.parametrize(
    ("base", "asked", "url"),
    [
        ("http://h:8080/app", "/a", "/app/a/"),
        ("http://h:8080/app/", "/a", "/app/a/"),
        ("http://h:8080/app", "/app", "/app/app/"),
        ("http://h:8080/ä b", "/a", "/%C3%A4%20b/a/"),
        ("http://h:8080", "/a", "/a/"),
    ],
)
async def test_H11_a_redirect_names_the_script_root_once(app, client, base, asked, url):
    """Werkzeug#1342, Calibre-Web-NextGen#1255; the port is the client's to keep."""

    @app.route("/<word>/")
    def view(word):
        here = url_for("view", word=word, _external=True)
        return [request.path, request.host, here, request.url]

    got = await client.get(asked, base_url=base)
    assert (got.status_code, got.headers["location"]) == (308, url)
    got = await client.get(f"{asked}/", base_url=base)
    whole = f"http://h:8080{url}"
    assert got.json == [f"{asked}/", "h:8080", whole, whole]


@pytest.mark.parametrize(
    ("root", "path", "seen"),
    [
        ("/app", "/app", "/"),
        ("/app", "/app/", "/"),
        ("/app", "/app/x", "/x"),
        ("/app/", "/app/x", "/x"),
        ("/app", "/application", "/application"),
        ("/app", "/app2/x", "/app2/x"),
        ("/app", "/ap", "/ap"),
        ("/app", "/app/app/x", "/app/x"),
        ("/app", "/app/app", "/app"),
        ("/app", "/x/app/y", "/x/app/y"),
        ("/app", "//app/x", "//app/x"),
        ("/app", "/APP/x", "/APP/x"),
        ("/a/b", "/a/bc", "/a/bc"),
        ("/a/b", "/a/b/c", "/c"),
        ("/ü", "/ü/x", "/x"),
        ("", "/app/x", "/app/x"),
        ("/", "/app/x", "/app/x"),
    ],
)
def test_H12_H14_only_a_whole_prefix_in_front_is_taken_away(root, path, seen):
    """Quart 0.21 and Litestar 2.25 split at the root path, wherever it stands."""
    app = Flask(__name__)

    @app.errorhandler(404)
    def missing(error):
        return request.path

    app.add_url_rule("/lication", "wrong", lambda: "the prefix was cut inside a word")
    got = ask(app, "asgi", path, root_path=root)
    assert got.text == seen


@pytest.mark.parametrize("path", ["/shopping", "/shop2/x", "/sho", "//shop/x", "/SHOP"])
def test_H12_a_mount_ends_where_a_segment_does(protocol, path):
    async def shop(scope, receive, send):
        raise AssertionError(f"{scope['path']} is not below the mount")

    app = Flask(__name__)
    app.mount("/shop", shop)
    assert ask(app, protocol, path).status_code == 404


# ----------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("target", "code", "seen"),
    [
        ("http://h/x", 200, "/x"),
        ("https://user@h:8443/x", 200, "/x"),
        ("HTTP://H/x", 200, "/x"),
        ("http://h/", 200, "/"),
        ("http://h", 200, "/"),
        ("http://h/http://i/x", 404, ""),
        ("http:/x", 404, ""),
        ("x", 404, ""),
        ("*", 404, ""),
        ("h:443", 404, ""),
    ],
)
def test_H17_a_target_in_absolute_form_has_the_path_in_it(protocol, target, code, seen):
    """RFC 9112, section 3.2.2. Half of the servers hand it on as it came."""
    app = Flask(__name__)

    @app.route("/")
    @app.route("/x")
    def view():
        return request.path

    got = ask(app, protocol, target)
    assert got.status_code == code
    if code == 200:
        assert got.text == seen


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
@pytest.mark.parametrize("automatic", [False, True])
def test_H17_an_asterisk_is_404_and_nothing_worse(protocol, method, automatic):
    """Quart 0.7.2."""
    app = Flask(__name__)
    app.provide_automatic_options = automatic
    app.add_url_rule("/", "index", lambda: "")
    app.add_url_rule("/<path:p>", "rest", lambda p: p)
    assert ask(app, protocol, "*", method=method).status_code == 404


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_H5_H17_the_same_on_a_real_socket(http):
    app = Flask(__name__)

    @app.route("/x")
    async def view():
        return request.path if "p" in request.args else url_for("view", _external=True)

    with served(app, http=http, lifespan="off") as url:
        assert talk(url, get(b"http://localhost/x?p"))[::2] == (200, b"/x")
        assert talk(url, get(b"*", method=b"OPTIONS"))[0] == 404
        assert talk(url, b"GET /x HTTP/1.0\r\n\r\n")[2] == f"{url}/x".encode()


# ------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nSet-Cookie: x=y", "\n", "a\x00b", "\x7f"]
)
async def test_H19_a_control_character_in_a_path_is_data(app, client, text):
    """Werkzeug 2.1: a newline does not end the match, nor the header built from it."""

    @app.route("/user/<name>", methods=["GET", "POST"])
    def user(name):
        assert name == text
        if request.method == "POST":
            return redirect(url_for("user", name=name))
        return {"is": request.view_args["name"]}

    @app.route("/folder/<name>/")
    def folder(name):
        return {"is": name}

    encoded = url_encoded(text)
    assert (await client.get(f"/user/{encoded}")).json == {"is": text}
    got = await client.post(f"/user/{encoded}")
    assert (got.status_code, got.headers["location"]) == (302, f"/user/{encoded}")
    got = await client.get(f"/folder/{encoded}")
    assert (got.status_code, got.headers["location"]) == (308, f"/folder/{encoded}/")
    assert (await client.get(got.headers["location"])).json == {"is": text}
    assert "set-cookie" not in got.headers


def url_encoded(text: str) -> str:
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "!$&'()*+,:;=@-._~") else hexed(c)
        for c in text
    )


def hexed(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


@pytest.mark.parametrize("path", ["/static/%00", "/static/a%00.css", "/static/%00/.."])
async def test_H21_a_nul_byte_names_no_file(client, path):
    assert (await client.get(path)).status_code == 404


async def test_H21_a_nul_byte_in_a_value_is_data(app, client):
    app.add_url_rule("/<path:x>", "view", lambda x: x.encode())
    assert (await client.get("/a%00/b")).data == b"a\x00/b"
    assert (await client.get("/%00")).data == b"\x00"


ODD = ["{x}", "{0}", "{", "%", "%2F", "a%2Bb", "a+b", "a b", ".*", "[a-z]+", "(?P<x>)"]
ODD += ["$", "^", "|", "<x>", "<int:x>", "\\", "\\d", "ü€", "\U0001f600", "a?b", "a#b"]
ODD += ["a&b=c", "a;b", "'", '"', "..", ".", "~", "None", "%(x)s", "\u200b", "e\u0301"]


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("<x>", ODD),
        ("<string:x>", ODD),
        ("<string(minlength=1, maxlength=20):x>", ODD),
        ("<path:x>", [*ODD, "a/{x}/b", "a/%2F/b", "a//b", "a/.*/", "a/"]),
        ("<any('{x}', '.*', 'a%2Bb', 'a+b', 'ü', '%'):x>", ["{x}", ".*", "a%2Bb", "%"]),
        ("<int:x>", [0, 7, 10**4299]),
        ("<int(signed=True):x>", [-7, 0, 7]),
        ("<int(fixed_digits=4):x>", [0, 42]),
        ("<float:x>", [0.5, 1e300, 5e-324, 1.7976931348623157e308]),
        ("<float(signed=True):x>", [-0.5, -1e300]),
        ("<uuid:x>", [UUID]),
        ("{y}.*<x>%2F", ODD),
        ("(<int:x>)", [5]),
        ("<x>+<y>", ["{x}", "%", ".*", "ü"]),
        ("<odd:x>", ODD),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_H22_a_value_comes_back_from_its_own_url(rule, values):
    """Werkzeug and Starlette have taken braces, percent and plus signs for more."""
    app = Flask(__name__)
    app.url_map.converters["odd"] = Odd
    seen = []

    def view(**values):
        seen.append(values)
        return ""

    app.add_url_rule(f"/v/{rule}", "view", view)
    client = app.test_client()
    expected = []
    for value in values:
        given = {"x": value, **({"y": "y"} if "<y>" in rule else {})}
        expected.append(given)
        with app.test_request_context():
            url = url_for("view", q="a+b &%", **given)
        assert client.get(url).status_code == 200, url
    assert seen == expected
    assert [type(got["x"]) for got in seen] == [type(value) for value in values]


class Odd(BaseConverter):
    """Writes its values backwards, with what has a meaning elsewhere around them."""

    regex = "%\\{.+\\}"

    def to_python(self, value):
        return value[2:-1][::-1]

    def to_url(self, value):
        return super().to_url(f"%{{{value[::-1]}}}")


@pytest.mark.parametrize("value", [*ODD, "a/b", "a\nb", "", "\x00"])
async def test_H22_a_value_in_the_query_comes_back_too(app, client, value):
    @app.route("/")
    def view():
        return {"args": request.args.getlist("q{x}"), "path": request.path}

    with app.test_request_context():
        url = url_for("view", **{"q{x}": [value, value]})
    assert (await client.get(url)).json == {"args": [value, value], "path": "/"}


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/<int:x>f", "/2df"),
        ("/<int:x>f", "/f2f"),
        ("/<int:x>f", "/2"),
        ("/<int:x>f", "/2ff"),
        ("/<int:x>", "/2\n"),
        ("/<int:x>/e", "/2d/e"),
        ("/<int(signed=True):x>", "/-"),
        ("/<int(signed=True):x>", "/1-1"),
        ("/<int(fixed_digits=2):x>", "/123"),
        ("/<float:x>", "/1.5.5"),
        ("/<float:x>", "/1.5e5"),
        ("/<float:x>f", "/1.5"),
        ("/<any(a, ab):x>", "/abc"),
        ("/<any(a, ab):x>c", "/abcc"),
        ("/<uuid:x>", f"/{UUID}0"),
        ("/<uuid:x>", f"/0{UUID}"),
        ("/<string(length=2):x>", "/abc"),
        ("/<string(maxlength=2):x>.html", "/abc.html"),
        ("/<path:x>.html", "/a/b.html/"),
        ("/<path:x>/edit", "/a/edits"),
    ],
)
def test_H23_a_converter_takes_the_whole_part_or_nothing(protocol, rule, path):
    """Werkzeug 2.2.1."""
    app = Flask(__name__)
    app.add_url_rule(rule, "view", lambda x: f"{x!r} matched")
    assert ask(app, protocol, path).status_code == 404


@pytest.mark.parametrize("rule", ["/a/", "/<x>/", "/<path:x>/", "/<x>/<y>/", "/a"])
def test_H24_many_slashes_lead_to_one_redirect_at_most(protocol, rule):
    """Werkzeug 3.1.7."""
    app = Flask(__name__)
    app.add_url_rule(rule, "view", lambda **values: "")
    paths = ["////a", "/a//", "/a////", "//", "////", "/a//b", "/" * 500, "/a/" * 200]
    for path in paths:
        got = ask(app, protocol, path)
        if got.status_code == 308:
            assert not leaves(got.location)
            got = ask(app, protocol, unquote(got.location))
        assert got.status_code in (200, 404), path


@pytest.mark.parametrize(
    "rule",
    [
        *("int", "int(signed=True)", "int(max=5)", "int(min=5)", "int(fixed_digits=9)"),
        *("float", "float(signed=True)", "float(max=5)", "uuid", "any(9, 99)"),
        *("string(length=9)", "string(maxlength=9)"),
    ],
)
@pytest.mark.parametrize("text", [MANY, f"-{MANY}", f"{MANY}.{MANY}", f"-{MANY}.5"])
def test_H25_a_huge_number_is_404(protocol, rule, text):
    """CVE-2020-10735: int() refuses thousands of digits, and float() says infinity."""
    app = Flask(__name__)
    app.add_url_rule(f"/<{rule}:x>", "view", lambda x: f"got {x!r}"[:50])
    app.add_url_rule(f"/n/<{rule}:x>.html", "part", lambda x: f"got {x!r}"[:50])
    for path in (f"/{text}", f"/n/{text}.html"):
        got = ask(app, protocol, path)
        assert got.status_code == 404, got.text


@pytest.mark.parametrize("rule", ["<x>", "<path:x>", "<string(minlength=9):x>"])
def test_H25_where_it_is_text_it_is_data(protocol, rule):
    app = Flask(__name__)
    app.add_url_rule(f"/{rule}", "view", lambda x: str(len(x)))
    assert ask(app, protocol, f"/{MANY}").text == "5000"


def test_H25_a_huge_argument_falls_back_to_the_default(protocol):
    app = Flask(__name__)
    app.add_url_rule("/", "v", lambda: str(request.args.get("n", 5, type=int)))
    assert ask(app, protocol, "/", f"n={MANY}".encode()).text == "5"


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("int", 10**5000),
        ("int", MANY),
        ("int", float("inf")),
        ("int", float("nan")),
        ("int", None),
        ("float", float("inf")),
        ("float", float("-inf")),
        ("float", float("nan")),
        ("float", 10**5000),
        ("any(a, b)", MANY),
        ("string", "\ud800"),
        ("path", "\ud800"),
    ],
    ids=lambda value: repr(value) if isinstance(value, float) else type(value).__name__,
)
def test_H25_what_makes_no_url_is_a_build_error(rule, value):
    app = Flask(__name__)
    app.add_url_rule(f"/<{rule}:x>", "view")
    with app.test_request_context():
        with pytest.raises(BuildError) as caught:
            url_for("view", x=value)
        assert "'view'" in str(caught.value)


@pytest.mark.parametrize("debug", [False, True])
async def test_H26_a_post_without_the_slash_keeps_method_and_body(app, client, debug):
    """werkzeug#2351: 308 and not 301, which turns a POST into a GET."""
    app.debug = debug

    @app.route("/a/", methods=["POST"])
    def view():
        return request.form["field"]

    got = await client.post("/a?x=1", data={"field": "kept"})
    assert (got.status_code, got.headers["location"]) == (308, "/a/?x=1")
    again = await client.post(got.headers["location"], data={"field": "kept"})
    assert again.text == "kept"
    followed = app.test_client().post(
        "/a?x=1", data={"field": "kept"}, follow_redirects=True
    )
    assert (followed.status_code, followed.text) == (200, "kept")


async def test_H26_a_method_that_the_folder_does_not_have_is_405(app, client):
    app.add_url_rule("/a/", "view", lambda: "", methods=["POST"])
    got = await client.get("/a")
    assert (got.status_code, got.headers["allow"]) == (405, "POST")


async def test_H26_a_body_over_the_limit_is_redirected_as_well(app, client):
    app.max_content_length = 10
    app.add_url_rule("/a/", "view", lambda: "", methods=["POST"])
    assert (await client.post("/a", data=b"x" * 50)).status_code == 308
    assert (await client.post("/a/", data=b"x" * 50)).status_code == 413


@pytest.mark.parametrize(
    ("to", "location"),
    [
        ("https://evil.example/x?y#z", "https://evil.example/x?y#z"),
        ("//evil.example", "//evil.example"),
        ("/a b", "/a%20b"),
        ("/ü?q=€", "/%C3%BC?q=%E2%82%AC"),
        ("/%0d%0aX:y", "/%0d%0aX:y"),
        ("/\\evil.example", "/%5Cevil.example"),
        ("/\x7f\x85\u2028", "/%7F%C2%85%E2%80%A8"),
        ("", ""),
    ],
)
async def test_H27_a_redirect_goes_where_the_view_says(app, client, to, location):
    """flask#1639: whether that is wise is for the view to know."""
    app.add_url_rule("/", "view", lambda: redirect(to))
    got = await client.get("/")
    assert (got.status_code, got.headers["location"]) == (302, location)


@pytest.mark.parametrize("to", ["a\r\nb", "\r\nSet-Cookie: a=b", "/\n", "\0", "/\x1f"])
async def test_H27_a_redirect_with_a_line_break_is_an_error(app, client, to):
    """Werkzeug 0.8.2."""
    app.add_url_rule("/", "view", lambda: redirect(to))
    app.errorhandler(ValueError)(lambda error: ("refused", 500))
    got = await client.get("/")
    assert (got.status_code, got.text) == (500, "refused")
    assert not {"location", "set-cookie"} & set(got.headers)


async def test_H27_the_page_of_a_redirect_is_escaped(app, client):
    script = "/<script>alert(1)</script>'\"&"
    app.add_url_rule("/", "view", lambda: redirect(script))
    app.add_url_rule("/f/<x>/", "folder", lambda x: "")
    for path in ("/", "/f/%3Cscript%3E%22'&"):
        got = await client.get(path)
        assert got.status_code in (302, 308)
        assert "<script" not in got.text
        assert "\"'" not in got.text
        assert "&#x27;" in got.text
        assert "&amp;" in got.text
