"""The session's cookie: the one that Flask writes and reads, both ways."""

from __future__ import annotations

import base64
import hashlib
import hmac
import pickle
import uuid
from collections import namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from markupsafe import Markup

from asyncflask import Flask, Request, Response
from asyncflask.sessions import Session, open_session, save_session, signer_for
from asyncflask.signing import TaggedJSON
from asyncflask.testing import build_request

KEY = "a secret for the tests"
UUID = uuid.UUID("a8098c1a-f86e-11da-bd1a-00112444be1e")
WHEN = datetime(2030, 1, 2, 3, 4, 5)
Point = namedtuple("Point", "x y")


def our_app(key=KEY, fallbacks=()) -> Flask:
    app = Flask(__name__)
    app.secret_key = key
    app.secret_key_fallbacks = list(fallbacks)
    return app


def ours(key=KEY, fallbacks=()):
    return signer_for(our_app(key, fallbacks))


class Theirs:
    """What Flask signs with, and its settings at hand while it does."""

    def __init__(self, key=KEY, fallbacks=()) -> None:
        self.app = flask.Flask(__name__)
        self.app.secret_key = key
        self.app.config["SECRET_KEY_FALLBACKS"] = list(fallbacks)
        interface = SecureCookieSessionInterface()
        self.serializer = interface.get_signing_serializer(self.app)

    def dumps(self, value) -> str:
        with self.app.app_context():
            return self.serializer.dumps(value)

    def loads(self, text):
        with self.app.app_context():
            return self.serializer.loads(text)


def read(cookie: str, app: Flask | None = None) -> Session | None:
    scope, _ = build_request(headers={"Cookie": f"session={cookie}"})
    return open_session(app or our_app(), Request(scope))


def payload(signed: str) -> str:
    return signed.rsplit(".", 2)[0]


VALUES = {
    "empty": {},
    "numbers": {"a": 1, "b": -1.5, "c": 10**30, "d": True, "e": False},
    "none": {"a": None},
    "text": {"a": "x", "ü€": "日本\U0001f600", "": "", "html": "<&>"},
    "list": {"a": [1, [2, []], "x"]},
    "tuple": {"a": (1, (2, ()), [3])},
    "named tuple": {"a": Point(1, 2)},
    "bytes": {"a": b"\x00\xff", "b": b""},
    "uuid": {"a": UUID},
    "datetime": {"a": WHEN},
    "aware datetime": {"a": WHEN.replace(tzinfo=timezone(timedelta(hours=5)))},
    "microseconds": {"a": WHEN.replace(microsecond=999_999)},
    "markup": {"a": Markup("<b>"), "b": "<b>"},
    "html": {"a": SimpleNamespace(__html__=lambda: "<i>")},
    "dict": {"a": {"b": {"c": {}}}},
    "flashes": {"_flashes": [("message", "hi"), ("error", Markup("<b>"))]},
    "permanent": {"_permanent": True, "user": 5},
    "all in each": {"a": [{"b": ({"c": b"x"}, UUID, WHEN)}]},
    "one key that is a tag": {"a": {" t": [1]}},
    "the session is one": {" t": [1, 2]},
    **{f"tag {tag!r}": {"a": {tag: "x"}} for tag in (" b", " m", " u", " d", " di")},
    "tag of a tag": {"a": {" di": {" t__": [1]}}},
    "tag in a tag": {"a": {" t": {" t": (1,)}}},
    "tag and more": {"a": {" t": 1, "b": 2}},
    "tag with underscores": {"a": {" t__": [1]}},
    "tuple of a tag": {"a": ({" t": [1]},)},
    "not a tag": {"a": {" x": 1}},
    "sorted": {"b": 1, "a": 2, "c": {"z": 1, "y": 2}},
    "int keys": {"a": {1: 2, 2: 3}},
    "long and compressible": {"a": "x" * 3_000},
    "long and not": {"a": "".join(chr(33 + i * i % 90) for i in range(300))},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_flask_and_we_write_and_read_the_same(value):
    our, their = ours(), Theirs()
    our_text, their_text = our.dumps(value), their.dumps(value)
    assert payload(our_text) == payload(their_text)
    texts = our_text, their_text
    read_back = [our.loads(text, 60) for text in texts]
    read_back += [their.loads(text) for text in texts]
    assert len({repr(one) for one in read_back}) == 1
    assert all(one == read_back[0] for one in read_back)


@pytest.mark.parametrize(
    "value",
    [v for k, v in VALUES.items() if k not in ("html", "int keys", "named tuple")],
    ids=[k for k in VALUES if k not in ("html", "int keys", "named tuple")],
)
def test_a_value_comes_back_as_it_was(value):
    got = TaggedJSON.loads(TaggedJSON.dumps(value))
    if isinstance(value.get("a"), datetime):
        moment = value["a"].replace(tzinfo=value["a"].tzinfo or UTC, microsecond=0)
        assert got == {"a": moment}
    elif "all in each" in VALUES and value is VALUES["all in each"]:
        assert got == {"a": [{"b": ({"c": b"x"}, UUID, WHEN.replace(tzinfo=UTC))}]}
    else:
        assert got == value


@pytest.mark.parametrize("key", ["text", b"bytes \xff", "ü€"])
def test_the_key_may_be_text_or_bytes(key):
    assert Theirs(key).loads(ours(key).dumps({"a": 1})) == {"a": 1}
    assert ours(key).loads(Theirs(key).dumps({"a": 1}), 60) == {"a": 1}


@pytest.mark.parametrize("fallbacks", [["old"], ["older", "old"], ("x", b"old")])
def test_a_key_that_was_replaced_still_reads_and_the_new_one_signs(fallbacks):
    old = Theirs("old").dumps({"a": 1})
    assert read(old, our_app("new", fallbacks)) == {"a": 1}
    assert Theirs("new", fallbacks).loads(old) == {"a": 1}
    fresh = ours("new", fallbacks).dumps({"a": 1})
    assert Theirs("new").loads(fresh) == {"a": 1}
    assert read(fresh, our_app("old")) == {}


def test_without_a_key_there_is_no_session():
    app = our_app(None)
    assert signer_for(app) is None
    assert read("x", app) is None


@pytest.mark.parametrize("value", [object(), {1}, 1j, len, Point])
@pytest.mark.parametrize("place", ["{}", "[]", "()"])
def test_what_cannot_be_kept_is_a_type_error_that_says_so(value, place):
    held = {"{}": {"x": value}, "[]": [value], "()": (value,)}[place]
    with pytest.raises(TypeError, match="The session cannot keep"):
        ours().dumps({"a": held})


# ------------------------------------------------------------- foreign cookies

GOOD = Theirs().dumps({"user": 5})


class OldSigner(TimestampSigner):
    """Signs as if it were last year."""

    def get_timestamp(self) -> int:
        return super().get_timestamp() - 365 * 24 * 3600


def signed(value, serializer=TaggedJSON, signer=TimestampSigner, **options) -> str:
    options = {"key_derivation": "hmac", "digest_method": hashlib.sha1, **options}
    salt = options.pop("salt", "cookie-session")
    return URLSafeTimedSerializer(
        KEY, salt, serializer, signer=signer, signer_kwargs=options
    ).dumps(value)


LOADED: list[str] = []


def note_that_it_was_loaded(word: str) -> None:
    LOADED.append(word)


class Bomb:
    def __reduce__(self):
        return note_that_it_was_loaded, ("a pickle was loaded",)


def old_secure_cookie() -> str:
    """Return what the cookie of 0.1 looked like: a signature, then pickles."""
    pair = "user=" + base64.b64encode(pickle.dumps(Bomb())).decode()
    mac = hmac.new(KEY.encode(), f"|{pair}".encode(), hashlib.sha1).digest()
    return f'"{base64.b64encode(mac).decode()}?{pair}"'


class Pickle:
    dumps = staticmethod(lambda value: pickle.dumps(value))
    loads = staticmethod(lambda text: pickle.loads(text))


BAD = {
    "empty": "",
    "dots": "...",
    "parts": "a.b.c.d",
    "garbage": "\xfc{}",
    "first byte flipped": chr(ord(GOOD[0]) ^ 1) + GOOD[1:],
    "in the time stamp": GOOD[:-30] + ("A" if GOOD[-30] != "A" else "B") + GOOD[-29:],
    "signature flipped": GOOD[:-2] + ("A" if GOOD[-2] != "A" else "B") + GOOD[-1],
    "no signature": GOOD.rpartition(".")[0],
    "no payload": GOOD[GOOD.index(".") :],
    "twice": GOOD + GOOD,
    "compressed garbage": signed({}).replace("e30", ".e30"),
    "other key": Theirs("other").dumps({"user": 5}),
    "other salt": signed({"user": 5}, salt="other"),
    "default salt": signed({"user": 5}, salt="itsdangerous"),
    "other derivation": signed({"user": 5}, key_derivation="django-concat"),
    "other digest": signed({"user": 5}, digest_method=hashlib.sha256),
    "too old": signed({"user": 5}, signer=OldSigner),
    "a list": signed([1, 2]),
    "a string": signed("ab"),
    "null": signed(None),
    "a number": signed(5),
    "tag of a wrong type": signed({" u": 5}, serializer=flask.json),
    "tag of a bad value": signed({" d": "!"}, serializer=flask.json),
    "pickle of 0.1": old_secure_cookie(),
    "pickle, signed": signed(Bomb(), serializer=Pickle),
}


@pytest.mark.parametrize("cookie", BAD.values(), ids=BAD)
def test_a_cookie_that_is_not_ours_is_an_empty_new_session(cookie):
    session = read(cookie)
    assert session == {}
    assert session.new
    assert not session.modified
    assert LOADED == []


def test_the_bomb_would_have_been_heard():
    pickle.loads(pickle.dumps(Bomb()))
    assert LOADED.pop() == "a pickle was loaded"


@pytest.mark.parametrize("end", range(len(GOOD)))
def test_a_cookie_that_is_cut_off_is_an_empty_session(end):
    assert read(GOOD[:end]) == {}


def test_a_good_cookie_is_not_new():
    session = read(GOOD)
    assert (session, session.new, session.modified) == ({"user": 5}, False, False)


def test_the_lifetime_of_the_application_decides_what_is_too_old():
    app = our_app()
    app.permanent_session_lifetime = timedelta(days=400)
    assert read(signed({"user": 5}, signer=OldSigner), app) == {"user": 5}


# --------------------------------------------------------------------- saving


def saved(session: Session, **settings) -> list[str]:
    app = our_app()
    for name, value in settings.items():
        setattr(app, name, value)
    response = Response("")
    save_session(app, session, response)
    return response.headers.getlist("set-cookie")


@pytest.mark.parametrize(
    ("session", "change", "count"),
    [
        (Session(new=True), lambda s: None, 0),
        (Session(a=1), lambda s: s.get("a"), 0),
        (Session(a=1), lambda s: s.update(b=2), 1),
        (Session(a=1), lambda s: setattr(s, "modified", True), 1),
        (Session(a=1), lambda s: s.clear(), 1),
        (Session(new=True), lambda s: (s.update(a=1), s.clear()), 0),
        (Session(_permanent=True), lambda s: s.get("a"), 1),
        (Session(_permanent=True), lambda s: None, 0),
    ],
    ids=["new", "read", "changed", "said", "cleared", "undone", "renewed", "permanent"],
)
def test_a_cookie_is_set_only_if_something_changed(session, change, count):
    change(session)
    assert len(saved(session)) == count


def test_flask_reads_the_cookie_that_was_saved():
    session = Session(new=True)
    session["user"] = (1, UUID)
    (field,) = saved(session)
    value = field.partition("=")[2].partition(";")[0]
    assert Theirs().loads(value) == {"user": (1, UUID)}
    assert field.removeprefix(f"session={value}; ") == "Path=/; SameSite=Lax; HttpOnly"


def test_an_emptied_session_is_deleted_with_its_own_flags():
    session = Session(a=1)
    session.clear()
    assert saved(
        session,
        session_cookie_path="/x",
        session_cookie_domain="example.com",
        session_cookie_secure=True,
        session_cookie_samesite="Strict",
    ) == [
        "session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0;"
        " Domain=example.com; Path=/x; SameSite=Strict; Secure; HttpOnly"
    ]


def test_a_cookie_that_is_too_long_names_the_biggest_keys():
    session = Session(new=True)
    noise = hashlib.shake_256(b"x").hexdigest(4_000)
    session.update(small="x", big=noise, bigger=noise + noise[:99], user=5)
    with pytest.raises(
        ValueError, match=r"'bigger' \(8101 bytes\), 'big' \(8002 bytes"
    ):
        saved(session)


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s["a"],
        lambda s: "a" in s,
        lambda s: s.get("a"),
        lambda s: list(s),
        lambda s: list(s.items()),
        lambda s: list(s.keys()),
        lambda s: list(s.values()),
        lambda s: len(s),
        lambda s: bool(s),
        lambda s: s == {},
        lambda s: s != {},
        lambda s: str(s),
        lambda s: list(reversed(s)),
        lambda s: dict(s),
        lambda s: {**s},
        lambda s: s | {},
        lambda s: s.copy(),
        lambda s: s.permanent,
    ],
    ids=[
        *("[]", "in", "get", "iter", "items", "keys", "values", "len", "bool", "=="),
        *("!=", "str", "reversed", "dict()", "**", "|", "copy", "permanent"),
    ],
)
def test_looking_into_a_session_is_noticed(act):
    session = Session(a=1)
    act(session)
    assert session.accessed
    assert not session.modified


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.__setitem__("b", 1),
        lambda s: s.__delitem__("a"),
        lambda s: s.pop("a"),
        lambda s: s.popitem(),
        lambda s: s.setdefault("b", 1),
        lambda s: s.update(b=1),
        lambda s: s.__ior__({"b": 1}),
        lambda s: s.clear(),
        lambda s: setattr(s, "permanent", True),
    ],
    ids=[
        *("[]=", "del", "pop", "popitem", "setdefault", "update", "|=", "clear"),
        "permanent",
    ],
)
def test_changing_a_session_is_noticed(act):
    session = Session(a=1)
    act(session)
    assert session.accessed
    assert session.modified


def test_what_has_no_tag_is_kept_as_json_would_show_it():
    text = TaggedJSON.dumps({"a": date(2030, 1, 2)})
    assert TaggedJSON.loads(text) == {"a": "Wed, 02 Jan 2030 00:00:00 GMT"}
    with pytest.raises(TypeError, match="cannot keep <object"):
        TaggedJSON.dumps({"a": object()})
