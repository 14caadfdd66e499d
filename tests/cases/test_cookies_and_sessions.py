"""Cookies, sessions and flashes: forged, broken, crossed, too big.

The letters and numbers in the names are the project's own catalogue of faults and
attacks that its field has seen.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import pickle
import random
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from uuid import UUID

import httpx
import pytest
from itsdangerous import BadSignature, TimestampSigner, URLSafeTimedSerializer
from markupsafe import Markup
from starlette.responses import PlainTextResponse

from asyncflask import (
    Flask,
    Response,
    abort,
    flash,
    get_flashed_messages,
    redirect,
    render_template_string,
    request,
    session,
)
from asyncflask.cookies import parse_cookies
from asyncflask.exceptions import HTTPException
from asyncflask.helpers import MAX_FLASHES
from asyncflask.sessions import Session, signer_for
from asyncflask.signing import SALT, TaggedJSON
from asyncflask.testing import Client, build_request

from ..server import served

KEY = "a secret for the tests"


def session_app(app: Flask) -> Flask:
    """Add views that show, change and clear the session."""

    @app.route("/show")
    def show():
        return dict(session)

    @app.route("/show-keys")
    def show_keys():
        return list(session)

    @app.route("/set/<name>/<value>")
    def put(name, value):
        session[name] = value
        return "set"

    @app.route("/clear")
    def clear():
        session.clear()
        return "cleared"

    return app


def cookie_of(answer, name: str = "session") -> str:
    """Return the value of the one cookie that an answer sets."""
    (header,) = answer.headers.get_list("set-cookie")
    start, _, rest = header.partition("=")
    assert start == name
    return rest.partition(";")[0]


def signed(value, salt=SALT, serializer=TaggedJSON, key=KEY) -> str:
    options = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    return URLSafeTimedSerializer(
        key, salt, serializer, signer=TimestampSigner, signer_kwargs=options
    ).dumps(value)


# ------------------------------------------------------------------------ C3: Vary

ENDS = {
    "text": lambda: "x",
    "a 304": lambda: ("", 304),
    "a 204": lambda: ("", 204),
    "a redirect": lambda: redirect("/"),
    "an error page": lambda: abort(404),
    "an error that is a response": lambda: abort(Response("x", 418)),
    "a stream": lambda: iter("x"),
    "Starlette's": lambda: PlainTextResponse("x"),
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("end", ENDS)
async def test_C3_whoever_looks_into_the_session_varies_by_cookie(
    app, client, end, method
):
    @app.route("/read")
    def read():
        session.get("user")
        return ENDS[end]()

    @app.route("/not")
    def not_read():
        return ENDS[end]()

    assert (await client.open("/read", method=method)).headers["vary"] == "Cookie"
    assert "vary" not in (await client.open("/not", method=method)).headers


@pytest.mark.parametrize("where", ["hook", "handler", "template", "after", "flashes"])
async def test_C3_also_where_it_is_no_view_that_looks(app, client, where):
    @app.before_request
    def before():
        if where == "hook":
            session.get("user")

    @app.errorhandler(404)
    def missing(error):
        if where == "handler":
            session.get("user")
        if where == "flashes":
            get_flashed_messages()
        source = "{{ session.user }}" if where == "template" else ""
        return render_template_string(source), 404

    @app.after_request
    def after(response):
        if where == "after":
            session.get("user")
        return response

    got = await client.get("/missing")
    assert (got.status_code, got.headers["vary"]) == (404, "Cookie")


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ([("Vary", "Accept")], "Accept, Cookie"),
        ([("Vary", "Accept, Cookie")], "Accept, Cookie"),
        ([("Vary", "cookie")], "cookie"),
        ([("vary", "Accept,COOKIE ,Origin")], "Accept, COOKIE, Origin"),
        ([("Vary", "Accept"), ("Vary", "Origin")], "Accept, Origin, Cookie"),
        ([("Vary", "Origin"), ("Vary", "Cookie")], "Origin, Cookie"),
        ([("Vary", "")], "Cookie"),
        ([("Vary", "Cookie-Consent")], "Cookie-Consent, Cookie"),
    ],
)
async def test_C3_the_names_of_the_view_are_kept(app, client, own, merged):
    @app.route("/")
    def view():
        session.get("user")
        return "", 200, own

    assert (await client.get("/")).headers.get_list("vary") == [merged]


@pytest.mark.parametrize(
    "look",
    [
        lambda s: s != {},
        lambda s: str(s),
        lambda s: repr(s),
        lambda s: f"{s}",
        lambda s: list(reversed(s)),
        lambda s: {} | s,
        lambda s: s == {},
        lambda s: sorted(s),
        lambda s: TaggedJSON.dumps(s),
    ],
    ids=["!=", "str", "repr", "f-string", "reversed", "|", "==", "sorted", "json"],
)
def test_C3_there_is_no_way_to_look_unnoticed(look):
    """What a page shows of the session belongs to one user, however it got there."""
    one = Session(user=1)
    look(one)
    assert one.accessed
    assert not one.modified


async def test_C3_a_template_that_prints_the_whole_session_is_noticed(app, client):
    app.add_url_rule("/", "v", lambda: render_template_string("{{ session }}"))
    assert (await client.get("/")).headers["vary"] == "Cookie"


# ----------------------------------------------- C4, C6, C7: cookies that are not ours


def test_C4_each_flipped_byte_makes_an_empty_session():
    app = session_app(Flask(__name__))
    app.secret_key = KEY
    good = signed({"user": "5"})
    reader = Client(app, use_cookies=False)
    ours = {"Cookie": f"session={good}"}
    assert reader.get("/show", headers=ours).json == {"user": "5"}
    rng = random.Random(4)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=\xff"
    for at in range(len(good)):
        other = rng.choice([c for c in alphabet if c != good[at]])
        forged = {"Cookie": f"session={good[:at]}{other}{good[at + 1 :]}"}
        got = reader.get("/show", headers=forged)
        # The last character of base64 has bits that nobody reads.
        assert (got.status_code, got.json) in [(200, {}), (200, {"user": "5"})]
        assert got.json == {} or at == len(good) - 1


@pytest.mark.parametrize(
    "value",
    [
        *("", ".", "..", "...", "a.b.c.d", "=", '""', '"', "null", "{}", "e30", "\x00"),
        *("e30.AAAA.AAAA", ".eJyrBQAAdgB5.AAAA.AAAA", "e30.////.AAAA", "-" * 4000),
        *("e30._____________w.AAAA", "\xff\xfe.\xfd.\xfc", "%00", "e30.AAAA.AAAA;x"),
        *(signed([1, 2]), signed("ab"), signed(None), signed(5)),
    ],
    ids=lambda value: value[:6].encode("unicode_escape").decode(),
)
async def test_C4_a_broken_cookie_is_an_empty_session_and_never_a_500(
    app, client, value
):
    session_app(app)
    got = await client.get("/show", headers={"Cookie": f"session={value}"})
    assert (got.status_code, got.json) == (200, {})
    assert (await client.get("/set/x/1", headers={"Cookie": "session=x"})).text == "set"


class Exploit:
    """Makes a folder when it is unpickled, to prove that it was."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickle_cookie(**values) -> str:
    """Return a session cookie as 0.1 wrote it: a MAC, then pickles in base64."""
    pairs = [
        f"{name}={base64.b64encode(pickle.dumps(value)).decode()}"
        for name, value in {**values, "_expires": int(time.time()) + 3600}.items()
    ]
    mac = hmac.new(KEY.encode(), digestmod=hashlib.sha1)
    for pair in pairs:
        mac.update(b"|" + pair.encode())
    return base64.b64encode(mac.digest()).decode() + "?" + "&".join(pairs)


class Pickle:
    """A serializer as careless as that of 0.1."""

    dumps = staticmethod(pickle.dumps)
    loads = staticmethod(pickle.loads)


@pytest.mark.parametrize("form", ["bare", "quoted", "signed as ours", "in the payload"])
async def test_C6_a_pickle_of_0_1_is_never_unpickled(app, client, tmp_path, form):
    """0.1 signed pickles: whoever knew the key ran code on the server."""
    session_app(app)
    proof = tmp_path / "unpickled"
    exploit = Exploit(proof)
    cookie = {
        "bare": pickle_cookie(user=exploit),
        "quoted": f'"{pickle_cookie(user=exploit)}"',
        "signed as ours": signed(exploit, serializer=Pickle),
        "in the payload": signed({"x": pickle.dumps(exploit)}),
    }[form]
    got = await client.get("/show-keys", headers={"Cookie": f"session={cookie}"})
    assert got.status_code == 200
    assert got.json == (["x"] if form == "in the payload" else [])
    assert not proof.exists()
    pickle.loads(pickle.dumps(exploit))  # it would have left this behind
    assert proof.exists()


@pytest.mark.parametrize(
    "salt",
    ["itsdangerous", "cookie-session ", "Cookie-Session", "session", "", "reset"],
)
async def test_C7_what_the_key_signed_for_another_purpose_is_no_session(
    app, client, salt
):
    """A token from a mail (reset, confirm) must not log anybody in."""
    session_app(app)
    token = signed({"user": "admin"}, salt=salt)
    got = await client.get("/show", headers={"Cookie": f"session={token}"})
    assert got.json == {}


def test_C7_a_session_is_no_token_for_another_purpose():
    app = Flask(__name__)
    app.secret_key = KEY
    cookie = signer_for(app).dumps({"user": "admin"})
    signers = [
        URLSafeTimedSerializer(KEY),
        URLSafeTimedSerializer(KEY, salt="reset"),
        URLSafeTimedSerializer(KEY, salt=SALT),
    ]
    for signer in signers:
        with pytest.raises(BadSignature):
            signer.loads(cookie)


async def test_C7_an_application_beside_has_its_own_key(app, client):
    session_app(app)
    cookie = cookie_of(await client.get("/set/user/5"))
    other = session_app(Flask(__name__))
    other.secret_key = f"{KEY}2"
    got = other.test_client().get("/show", headers={"Cookie": f"session={cookie}"})
    assert got.json == {}


# --------------------------------------------------------- C12, C14, C28: writing it


@pytest.mark.parametrize("way", ["clear", "pop", "del", "popitem"])
async def test_C12_an_emptied_session_is_deleted_with_its_own_attributes(
    app, client, way
):
    """A browser forgets a cookie only where path and domain are those it was set with;
    and a ``__Secure-`` one only if the deletion is secure, too."""
    app.session_cookie_name = "__Secure-sid"
    app.session_cookie_path = "/app"
    app.session_cookie_domain = "example.com"
    app.session_cookie_secure = True
    app.session_cookie_samesite = "None"

    @app.route("/set")
    def put():
        session["x"] = 1
        return ""

    @app.route("/empty")
    def empty():
        if way == "clear":
            session.clear()
        elif way == "pop":
            session.pop("x")
        elif way == "popitem":
            session.popitem()
        else:
            del session["x"]
        return ""

    made = await client.get("/set")
    (was_set,) = made.headers.get_list("set-cookie")
    cookie = {"Cookie": f"__Secure-sid={cookie_of(made, '__Secure-sid')}"}
    (deleted,) = (await client.get("/empty", headers=cookie)).headers.get_list(
        "set-cookie"
    )
    name, *attributes = was_set.split("; ")
    assert deleted.split("; ") == [
        "__Secure-sid=",
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "Max-Age=0",
        *attributes,
    ]
    assert name.startswith("__Secure-sid=ey")


async def test_C12_nothing_is_deleted_that_was_not_there(app, client):
    session_app(app)
    assert "set-cookie" not in (await client.get("/clear")).headers
    broken = {"Cookie": "session=broken"}
    assert "set-cookie" not in (await client.get("/clear", headers=broken)).headers


def noise(size: int) -> str:
    """Return text that cannot be compressed to less than three quarters."""
    return base64.b64encode(random.Random(1).randbytes(size)).decode()[:size]


async def test_C14_a_session_that_is_too_big_is_refused_and_the_old_one_stays(
    app, client, caplog
):
    """starlette#2412: browsers drop such a cookie, and nobody says a word."""
    session_app(app)

    @app.errorhandler(500)
    def broken(error):
        return f"sorry: {type(error).__name__}", 500

    @app.route("/grow")
    def grow():
        session["cart"] = noise(6000)
        session["small"] = "xy"
        return "grown"

    old = {"Cookie": f"session={cookie_of(await client.get('/set/user/5'))}"}
    got = await client.get("/grow", headers=old)
    assert (got.status_code, got.text) == (500, "sorry: ValueError")
    assert "set-cookie" not in got.headers
    assert (await client.get("/show", headers=old)).json == {"user": "5"}
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "'cart' (6002 bytes), 'small' (4 bytes)" in str(record.exc_info[1])


@pytest.mark.parametrize("name", ["session", "s" * 200])
async def test_C14_the_limit_is_that_of_browsers(app, client, name):
    """RFC 6265, section 6.1: 4096 bytes of name, value and attributes at least."""
    app.session_cookie_name = name

    @app.route("/<int:size>")
    def view(size):
        session["x"] = noise(6000)[:size]
        return ""

    sizes = []
    for size in range(2600, 4200, 25):
        try:
            got = await client.get(f"/{size}")
        except ValueError:
            continue
        sizes.append(len(name) + 1 + len(cookie_of(got, name)))
        if client.driver == "client":
            client.client.cookies.clear()
        client.httpx.cookies.clear()
    assert 4000 < max(sizes) <= 4093


async def test_C14_flashes_that_nobody_shows_do_not_fill_the_cookie(
    app, client, caplog
):
    """local-deep-research#5774: the backlog grew until users were signed out."""

    @app.route("/flash")
    def remind():
        session["user"] = 5
        flash("Please confirm your address", "warning")
        return ""

    @app.route("/show")
    def show():
        return [session.get("user"), get_flashed_messages()]

    with caplog.at_level(logging.WARNING, "asyncflask"):
        for _ in range(MAX_FLASHES + 5):
            assert (await client.get("/flash")).status_code == 200
    assert caplog.text.count("the oldest is dropped") == 5
    user, messages = (await client.get("/show")).json
    assert (user, len(messages)) == (5, MAX_FLASHES)
    assert (await client.get("/show")).json == [5, []]


KEPT = {
    "tuple": (1, (2,)),
    "bytes": b"\x00\xff",
    "uuid": UUID(int=5),
    "datetime": datetime(2030, 1, 2, tzinfo=UTC),
    "markup": Markup("<b>"),
    "tag": {" t": [1]},
    "text": "ü\ud800\x00",
    "number": 2**70,
}


@pytest.mark.parametrize("kind", KEPT)
async def test_C28_a_value_comes_back_as_it_went(app, client, kind):
    @app.route("/set")
    def put():
        session["x"] = KEPT[kind]
        return ""

    @app.route("/get")
    def get():
        return repr(type(session["x"])) + ascii(session["x"])

    await client.get("/set")
    assert (await client.get("/get")).text == repr(type(KEPT[kind])) + ascii(KEPT[kind])


@pytest.mark.parametrize(
    "value",
    [object(), {1}, 1j, lambda: 0, {"deep": [(object(),)]}, open],
    ids=["object", "set", "complex", "function", "deep", "builtin"],
)
async def test_C28_a_value_that_cannot_be_kept_is_a_500_that_names_the_key(
    app, client, caplog, value
):
    @app.errorhandler(500)
    def broken(error):
        return type(error).__name__, 500

    @app.route("/")
    def view():
        session["fine"] = 1
        session["basket"] = value
        return "not to be seen"

    got = await client.get("/")
    assert (got.status_code, got.text) == (500, "TypeError")
    assert "set-cookie" not in got.headers
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "'basket'" in str(record.exc_info[1])


# ------------------------------------------------------------ C18: many at once


@pytest.mark.process
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_C18_requests_with_one_cookie_do_not_share_a_session(kind):
    """The last to answer wins; none sees what another has written meanwhile."""
    app = session_app(Flask(__name__))
    app.secret_key = KEY
    app.worker_threads = 200
    count = 200
    everyone = asyncio.Event()
    barrier = threading.Barrier(count)

    if kind == "plain":

        @app.route("/write/<number>")
        def plain(number):
            session["number"] = number
            barrier.wait(30)
            return [session["number"], session["user"], session["list"]]

    else:
        arrived = 0

        @app.route("/write/<number>")
        async def asynchronous(number):
            nonlocal arrived
            session["number"] = number
            session["list"].append(number)
            arrived += 1
            if arrived == count:
                everyone.set()
            await everyone.wait()
            return [session["number"], session["user"], session["list"][1:] or [""]]

    shared = signed({"user": "both", "list": [""]})
    limits = httpx.Limits(max_connections=count)
    with served(app) as url:
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:

            async def one(number: int) -> str:
                cookie = {"Cookie": f"session={shared}"}
                got = await client.get(f"/write/{number}", headers=cookie)
                own = [""] if kind == "plain" else [str(number)]
                assert got.json() == [str(number), "both", own]
                return cookie_of(got)

            client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
            cookies = await asyncio.gather(*map(one, range(count)))
            for number in (0, count - 1):
                last = {"Cookie": f"session={cookies[number]}"}
                assert (await client.get("/show", headers=last)).json()[
                    "number"
                ] == str(number)


# ------------------------------------------------------- C20 to C24: reading cookies


@pytest.mark.parametrize(
    "text",
    [
        'a="' + "\\" * 65_536,
        'a="' + "\\" * 65_536 + '"',
        'a="' + '\\"' * 32_768 + '"',
        'a="' + "\\0" * 32_768 + '"',
        'a="' + "\\12" * 32_768 + '"',
        'a="' + '"' * 65_536,
        "a" * 65_536,
        ";" * 65_536,
        "=" * 65_536,
        " " * 65_536 + "=",
        "a=" + " " * 65_536 + "b",
        "a=1;" * 16_384,
        "; ".join(f"a{n}=1" for n in range(8000)),
    ],
    ids=lambda text: text[:8],
)
async def test_C20_reading_cookies_takes_linear_time(text):
    """CVE-2024-7592, CVE-2024-52804: backslashes cost the square of their number."""

    def cost(times: int) -> float:
        start = time.process_time()
        for _ in range(times):
            parse_cookies(text.encode())
        return time.process_time() - start

    # 64 KB of quadratic work is billions of steps; a linear pass is a few hundred
    # thousand.
    assert cost(1) < 0.5
    scope, _ = build_request("/", headers={"Cookie": text})
    app = Flask(__name__)
    with closing_workers(app):
        app.add_url_rule("/", "v", lambda: str(len(request.cookies)))
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            await asyncio.Event().wait()

        await app(scope, receive, send)
        assert sent[0]["status"] == 200


def closing_workers(app: Flask):
    return closing(app.workers)


async def test_C22_several_cookie_fields_are_one(app, client):
    """RFC 9113, section 8.2.3: HTTP/2 may send each cookie in a field of its own."""
    session_app(app)

    @app.route("/cookies")
    def cookies():
        return [request.cookies.to_dict(), dict(session)]

    value = signed({"user": 5})
    fields = [("Cookie", "a=1"), ("Cookie", f"session={value}"), ("cookie", "b=2; a=3")]
    got = (await client.get("/cookies", headers=fields)).json
    assert got == [{"a": "1", "session": value, "b": "2"}, {"user": 5}]


def wire(text: str) -> str:
    """Return text as a field carries it: UTF-8, each byte a character."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("field", "cookies"),
    [
        ("a=1; bad[]; b=2", {"a": "1", "b": "2"}),
        ("bad; a=1", {"a": "1"}),
        ('a=1; b="x; c=3', {"a": "1", "b": '"x', "c": "3"}),
        ("a=1; =x; b=2", {"a": "1", "b": "2"}),
        ('a=1; {"json": true}; b=2', {"a": "1", "b": "2"}),
        ('a={"x": 1}; b=2', {"a": '{"x": 1}', "b": "2"}),
        ("a=1, b=2", {"a": "1, b=2"}),
        ("a=1;\tb=2", {"a": "1", "b": "2"}),
        (wire("a=à; b=2"), {"a": "à", "b": "2"}),
        (wire("a=Å; b=2"), {"a": "Å", "b": "2"}),
        (wire("à=1; Å=2"), {"à": "1", "Å": "2"}),
        (wire("a= ünïcödé à "), {"a": "ünïcödé à"}),
        (wire("\u00a0a\u00a0=\u00a0"), {"\u00a0a\u00a0": "\u00a0"}),
        ("a=\x1c1\x1f; b=\x0b", {"a": "\x1c1\x1f", "b": "\x0b"}),
        ("a=\xff\xfe; b=2", {"a": "\ufffd\ufffd", "b": "2"}),
    ],
    ids=ascii,
)
async def test_C23_one_odd_pair_spoils_no_other(app, client, field, cookies):
    """starlette#898; and only blanks and tabs are space around a cookie (RFC 6265)."""

    @app.route("/")
    def view():
        return request.cookies.to_dict()

    assert dict(parse_cookies(field.encode("latin-1"))) == cookies
    if client.driver != "client" and field.strip(" ") == field:
        fields = [(b"Cookie", field.encode("latin-1"))]
        assert (await client.httpx.get("/", headers=fields)).json() == cookies


@pytest.mark.parametrize("order", [1, -1])
async def test_C24_the_first_cookie_of_a_name_counts(app, client, order):
    """Browsers send the one of the longest path first (RFC 6265, section 5.4): one that
    a neighbour has set for the whole domain does not replace it."""
    session_app(app)
    values = ["one", "two"][::order]
    cookies = [signed({"user": value}) for value in values]
    for fields in (
        [("Cookie", f"session={cookies[0]}; session={cookies[1]}")],
        [("Cookie", f"session={cookies[0]}"), ("Cookie", f"session={cookies[1]}")],
    ):
        got = await client.get("/show", headers=fields)
        assert got.json == {"user": values[0]}


# ------------------------------------------------------- C25: what breaks out


@pytest.mark.parametrize(
    "evil",
    ["\r\nX-Evil: 1", "\nX-Evil: 1", "\r", "\0", "; Domain=evil.com", ";", "\x7f"],
)
@pytest.mark.parametrize("part", ["key", "value", "path", "domain", "samesite"])
async def test_C25_no_part_of_a_cookie_breaks_out_of_its_field(app, client, part, evil):
    options = {"key": "a", "value": "b", "path": "/", "domain": "h"}

    @app.route("/<end>")
    def view(end):
        response = Response("said")
        try:
            if end == "set":
                response.set_cookie(**{**options, part: f"x{evil}"})
            else:
                kept = {key: one for key, one in options.items() if key != "value"}
                response.delete_cookie(**{**kept, part: f"x{evil}"})
        except ValueError:
            response.data = "refused"
        return response

    got = await client.get("/set")
    assert got.text == ("said" if part == "value" else "refused")
    assert "x-evil" not in got.headers
    for cookie in got.headers.get_list("set-cookie"):
        pair, *attributes = cookie.split("; ")
        assert attributes == ["Domain=h", "Path=/"]
        assert parse_cookies(pair.encode()) == [("a", f"x{evil}")]
    if part != "value":
        assert (await client.get("/delete")).text == "refused"
        assert "set-cookie" not in (await client.get("/delete")).headers


@pytest.mark.parametrize(
    "setting", ["session_cookie_name", "session_cookie_path", "session_cookie_domain"]
)
async def test_C25_nor_do_the_settings_of_the_session(app, client, setting):
    session_app(app)
    setattr(app, setting, "x; Domain=evil.com")
    with pytest.raises(ValueError, match="cookie"):
        await client.get("/set/a/b")


async def test_C25_a_session_holds_any_text(app, client):
    session_app(app)

    @app.route("/keep", methods=["POST"])
    def keep():
        session["x"] = request.form["x"]
        return ""

    text = '\r\nSet-Cookie: a=b; "\\,\0ü€'
    got = await client.post("/keep", data={"x": text})
    cookie = cookie_of(got)
    assert cookie.isascii()
    assert not set(cookie) & set(' ",;\\\r\n\0')
    got = await client.get("/show", headers={"Cookie": f"session={cookie}"})
    assert got.json == {"x": text}


# --------------------------------------------------------- across sites, and flashes


async def test_C12_a_session_cookie_is_not_for_scripts_nor_for_other_sites(app, client):
    """Without a word from the application: HttpOnly against the one, Lax against
    forged requests from the other."""
    session_app(app)
    attributes = (await client.get("/set/a/b")).headers["set-cookie"].split("; ")[1:]
    assert attributes == ["Path=/", "SameSite=Lax", "HttpOnly"]


async def test_C14_a_flash_outlives_a_redirect_and_is_shown_once(app, client):
    @app.route("/save", methods=["POST"])
    def save():
        flash("<saved>")
        flash("twice", "error")
        return redirect("/page")

    @app.route("/page")
    def page():
        return render_template_string(
            "{% for c, m in get_flashed_messages(true) %}{{ c }}:{{ m }} {% endfor %}"
            "{{ get_flashed_messages()|length }}"
        )

    @app.route("/fails")
    def fails():
        get_flashed_messages()
        raise HTTPException("no", code=409)

    def keep(answer):
        return {"Cookie": f"session={cookie_of(answer)}"}

    cookie = keep(await client.post("/save"))
    client.httpx.cookies.clear()
    client.client.cookies.clear()
    got = await client.get("/page", headers=cookie)
    assert got.text == "message:&lt;saved&gt; error:twice 2"
    assert "Max-Age=0" in got.headers["set-cookie"]
    assert (await client.get("/page")).text == "0"
    got = await client.get("/fails", headers=cookie)
    assert "Max-Age=0" in got.headers["set-cookie"]
