"""What holds for all data that comes in: sessions, cookies, forms, ranges."""

from __future__ import annotations

import io
import os
import re
import string
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface
from hypothesis import assume, example, given
from hypothesis import strategies as st
from markupsafe import Markup
from werkzeug.formparser import FormDataParser

from asyncflask import Flask, Request, Response
from asyncflask.context import RequestContext
from asyncflask.cookies import dump_cookie, parse_cookies
from asyncflask.dates import http_date, parse_http_date
from asyncflask.exceptions import (
    BadRequest,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
)
from asyncflask.forms import Body, Limits, new_body
from asyncflask.sessions import open_session, signer_for
from asyncflask.static import SMALL
from asyncflask.static import respond as static_response

TEXT = st.text(st.characters(exclude_categories=["Cs"]))

# ------------------------------------------------------------------ sessions

KEY = "a secret for the tests"
_TAGS = [" t", " b", " m", " u", " d", " di", " t__", " di__", "", "_permanent"]
_KEYS = st.text() | st.sampled_from(_TAGS)
_MOMENTS = st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
_SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(), st.binary()),
    *(st.floats(allow_nan=False), st.uuids(), st.text().map(Markup), _MOMENTS),
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(_KEYS, inner, max_size=3)
    ),
    max_leaves=10,
)
SESSIONS = st.dictionaries(_KEYS, VALUES, max_size=4)

OURS = Flask(__name__)
OURS.secret_key = KEY
THEIRS = flask.Flask(__name__)
THEIRS.secret_key = KEY


def typed(value: Any) -> Any:
    """Return a value so that what is equal is of the same type as well."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}

    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]

    return type(value), value


def their_serializer() -> Any:
    return SecureCookieSessionInterface().get_signing_serializer(THEIRS)


@given(SESSIONS)
def test_a_session_comes_back_as_it_went_in(values):
    signer = signer_for(OURS)
    assert typed(signer.loads(signer.dumps(values), 60)) == typed(values)


@given(SESSIONS)
def test_flask_reads_what_we_write_and_we_read_what_flask_writes(values):
    signer = signer_for(OURS)
    with THEIRS.app_context():
        theirs = their_serializer()
        assert typed(theirs.loads(signer.dumps(values))) == typed(values)
        assert typed(signer.loads(theirs.dumps(values), 60)) == typed(values)


def opened(cookie: str | bytes, app: Flask = OURS) -> dict[str, Any] | None:
    """Return the session of a request that brings a cookie; None for a new one."""
    raw = cookie if isinstance(cookie, bytes) else cookie.encode("latin-1")
    fields = [(b"cookie", b"session=" + raw)]
    session = open_session(app, Request({"headers": fields}))
    return None if session is None or session.new else dict(session)


SIGNED = signer_for(OURS).dumps({"user": "admin", "id": 1})
LONG = signer_for(OURS).dumps({"text": "compressed " * 50})


@st.composite
def alterations(draw) -> tuple[bytes, bytes]:
    """Return a signed cookie, and the same with some bytes changed."""
    cookie = draw(st.sampled_from([SIGNED, LONG])).encode()
    altered = bytearray(cookie)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(altered)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "replace", "swap"]))
        if how == "flip" and place < len(altered):
            altered[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del altered[place : place + draw(st.integers(1, len(altered)))]
        elif how == "insert":
            altered[place:place] = draw(st.binary(min_size=1, max_size=4))
        elif how == "replace" and place < len(altered):
            altered[place] = draw(st.sampled_from(b'AZaz09-_.=!;" \\\0\n\xff'))
        else:
            altered[:] = altered[place:] + altered[:place]
    assume(altered != cookie)
    return cookie, bytes(altered)


@given(alterations())
def test_no_altered_session_is_accepted(pair):
    cookie, altered = pair
    if opened(altered) is not None:  # only something around it was altered
        assert altered.partition(b";")[0].strip(b" \t") == cookie


@given(key=st.text(min_size=1) | st.binary(min_size=1), values=SESSIONS)
def test_no_session_of_another_key_or_salt_is_accepted(key, values):
    assume(key not in (KEY, KEY.encode()))
    try:
        other = Flask(__name__)
        other.secret_key = key
        cookie = signer_for(other).dumps(values)
    except UnicodeEncodeError:  # a key with half a character in it
        return
    assert opened(cookie) is None
    assert opened(signer_for(OURS).dumps(values), other) is None


@given(salt=st.text(st.characters(max_codepoint=127)), values=SESSIONS)
def test_no_session_of_another_salt_is_accepted(salt, values):
    assume(salt != "cookie-session")
    interface = SecureCookieSessionInterface()
    interface.salt = salt
    with THEIRS.app_context():
        cookie = interface.get_signing_serializer(THEIRS).dumps(values)
    assert opened(cookie) is None


@given(st.binary())
def test_any_cookie_opens_a_session(cookie):
    assert opened(cookie) is None


# ------------------------------------------------------------------- cookies

_NAMES = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1)


@given(st.dictionaries(_NAMES, TEXT, min_size=1))
def test_a_cookie_that_was_written_is_read_back(cookies):
    fields = [dump_cookie(name, value) for name, value in cookies.items()]
    sent = "; ".join(field.partition("; ")[0] for field in fields)
    assert parse_cookies(sent.encode()) == list(cookies.items())


@given(_NAMES, TEXT)
def test_werkzeug_reads_the_cookies_that_we_write(name, value):
    from werkzeug.http import parse_cookie

    sent = dump_cookie(name, value).partition("; ")[0]
    assert parse_cookie(sent).to_dict() == {name: value}


_COOKIE_BYTES = st.binary() | st.lists(
    st.sampled_from([b"a", b"=", b";", b" ", b'"', b"\\", b"377", b"\\400", b"\xc3"])
).map(b"".join)


@given(_COOKIE_BYTES)
def test_no_cookie_field_is_too_odd_to_be_read(field):
    pairs = parse_cookies(field)
    assert all(name and name.encode() and value is not None for name, value in pairs)
    assert len(pairs) <= field.count(b"=")


# --------------------------------------------------------------------- forms


@contextmanager
def fed(
    kind: str,
    chunks: list[bytes],
    limits: Limits = Limits(),  # noqa: B008
) -> Iterator[Body]:
    with closing(new_body(kind, limits)) as body:
        for chunk in chunks:
            body.feed(chunk)
        body.end()
        yield body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return bytes in pieces, empty ones included."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)])]


def each_byte(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


_PLACES = st.lists(st.integers(0, 1 << 16), max_size=8)
URLENCODED = "application/x-www-form-urlencoded"
_URLENCODED = st.binary() | st.lists(
    st.sampled_from(
        b"a|b|=|&|;|+|%|%41|%zz|%e2%82%ac|\xc3\xbc|%C3|%00|\r\n".split(b"|")
    )
).map(b"".join)


@given(data=_URLENCODED, places=_PLACES)
def test_an_urlencoded_form_says_what_the_standard_library_says(data, places):
    text = data.decode("utf-8", "replace")
    said = parse_qsl(text, keep_blank_values=True, errors="replace")
    for chunks in ([data], each_byte(data), cut(data, places)):
        with fed(URLENCODED, chunks) as body:
            assert body.fields == said
            assert body.data == data


BOUNDARY = "b0undary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
#: content that looks like what stands around it
_CONTENT = st.one_of(
    st.binary(),
    st.lists(
        st.sampled_from(
            b"\r\n|\r|\n|--|-|b0undary|b0|\0|x|\r\n--b0undar|: |"
            b"Content-Disposition: form-data; name=x".split(b"|")
        )
    ).map(b"".join),
).filter(lambda data: f"--{BOUNDARY}".encode() not in b"\r\n" + data)
_PART_NAMES = st.text(
    st.characters(
        exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters='"\\%'
    ),
    min_size=1,
)
_PARTS = st.lists(
    st.tuples(
        _PART_NAMES,
        st.none() | _PART_NAMES,
        st.none() | st.sampled_from(["text/plain", "image/png; x=y", "a/b"]),
        _CONTENT,
    ),
    max_size=4,
)


def multipart(parts: list[tuple[str, str | None, str | None, bytes]]) -> bytes:
    out = io.BytesIO()
    for name, filename, kind, content in parts:
        more = "" if filename is None else f'; filename="{filename}"'
        out.write(f"--{BOUNDARY}\r\n".encode())
        out.write(f'Content-Disposition: form-data; name="{name}"{more}\r\n'.encode())
        if kind is not None:
            out.write(f"Content-Type: {kind}\r\n".encode())
        out.write(b"\r\n" + content + b"\r\n")
    out.write(f"--{BOUNDARY}--\r\n".encode())
    return out.getvalue()


def of_werkzeug(data: bytes) -> tuple[list[Any], list[Any]]:
    parser = FormDataParser(silent=False)
    options = {"boundary": BOUNDARY}
    kind = "multipart/form-data"
    _, form, files = parser.parse(io.BytesIO(data), kind, len(data), options)
    found = []
    for name, file in files.items(multi=True):
        with closing(file):
            found.append((name, file.filename, file.content_type or "", file.read()))
    return list(form.items(multi=True)), found


def contents(body: Body) -> tuple[list[Any], list[Any]]:
    return list(body.fields), [
        (name, file.filename, file.content_type, file.read())
        for name, file in body.files
    ]


def by_name(pairs: list[Any]) -> list[Any]:
    return sorted(pairs, key=lambda pair: pair[0])  # stable: order within a name


@given(parts=_PARTS, places=_PLACES)
def test_a_multipart_form_says_what_werkzeug_says(parts, places):
    data = multipart(parts)
    fields, files = of_werkzeug(data)
    for chunks in ([data], each_byte(data), cut(data, places)):
        with fed(MULTIPART, chunks) as body:
            got_fields, got_files = contents(body)
        assert by_name(got_fields) == by_name(fields)
        assert by_name(got_files) == by_name(files)


@st.composite
def broken_forms(draw) -> bytes:
    """Return a multipart form with something wrong in it, or pure noise."""
    data = bytearray(multipart(draw(_PARTS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        noise = st.binary(max_size=6) | st.sampled_from(
            b"\r\n|--|--b0undary|\r\n\r\n|\"|;|:|filename*=utf-8''%ff|"
            b"Content-Disposition: |\xff|\0".split(b"|")
        )
        data[place : place + draw(st.integers(0, 20))] = draw(noise)
    return bytes(data)


@given(data=broken_forms() | st.binary(), places=_PLACES)
def test_a_broken_form_is_the_fault_of_the_client(data, places):
    outcomes = []
    for chunks in ([data], each_byte(data), cut(data, places)):
        try:
            with fed(MULTIPART, chunks) as body:
                outcomes.append(contents(body))
        except (BadRequest, RequestEntityTooLarge) as exc:
            assert exc.description  # noqa: PT017
            outcomes.append(exc.code)
    if data.startswith(f"--{BOUNDARY}".encode()):  # nothing to be passed over
        assert outcomes[1:] == outcomes[:1] * 2, "it depends on how the body is cut"


@given(
    kind=st.sampled_from(
        [
            *("multipart/form-data; boundary={}", "multipart/form-data; {}", "{}"),
            *('multipart/form-data; boundary="{}"', URLENCODED + "; charset={}"),
            "{};{}",
        ]
    ),
    text=st.text(st.characters(max_codepoint=255)),
    data=st.binary(),
)
def test_any_content_type_is_understood_or_refused(kind, text, data):
    try:
        with fed(kind.format(text, text), [data]) as body:
            contents(body)
    except (BadRequest, RequestEntityTooLarge) as exc:
        assert exc.code in (400, 413)  # noqa: PT017


@given(
    parts=_PARTS,
    size=st.integers(0, 400),
    memory=st.integers(0, 100),
    count=st.integers(0, 4),
)
def test_a_form_is_refused_exactly_when_it_is_over_a_limit(parts, size, memory, count):
    data = multipart(parts)
    held = sum(len(part[3]) for part in parts if part[1] is None)
    over = len(data) > size or held > memory or len(parts) > count
    limits = Limits(size, memory, count)
    try:
        with fed(MULTIPART, each_byte(data), limits):
            pass
    except RequestEntityTooLarge:
        assert over
    else:
        assert not over


# ------------------------------------------------- ranges and other conditions

MODIFIED = 1_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "static"
    folder.mkdir()
    for size in (0, 1, 10, 1000, SMALL + 5000):
        path = folder / f"f{size}"
        path.write_bytes(bytes(place * 7919 % 251 for place in range(size)))
        os.utime(path, (MODIFIED, MODIFIED))
    return folder


SIZES = st.sampled_from([0, 1, 10, 1000, SMALL + 5000])


def served(folder, size: int, **fields: str) -> tuple[Response, bytes]:
    """Return the response for a file, and its body."""
    headers = [
        (name.replace("_", "-").encode(), text.encode("latin-1"))
        for name, text in fields.items()
    ]
    app = Flask(__name__)
    app.root_path = str(folder.parent)
    ctx = RequestContext(app, {"headers": headers})
    ctx.view_args = {"filename": f"f{size}"}
    response = static_response(ctx)
    if isinstance(response.body, bytes):
        return response, response.body

    with response.body.file as file:
        return response, file.read(response.body.length)


def wanted(field: str, size: int) -> tuple[int, int] | None:
    """Return start and end of the one range that a field asks for, if it is one.

    :raises RequestedRangeNotSatisfiable: when there are no such bytes.
    """
    found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", field.replace(" ", ""))
    if found is None or found[0] == "bytes=-":
        return None

    if found[1] and found[2] and int(found[2]) < int(found[1]):
        return None

    start = int(found[1]) if found[1] else max(0, size - int(found[2]))
    end = min(int(found[2]) + 1, size) if found[1] and found[2] else size
    if start >= size:
        raise RequestedRangeNotSatisfiable(length=size)

    return start, end


_OFFSETS = st.integers(0, 12) | st.integers(0, SMALL * 2)
_SINGLE = st.builds(
    "bytes={}-{}".format, _OFFSETS | st.just(""), _OFFSETS | st.just("")
)
_SEVERAL = st.lists(_SINGLE.map(lambda text: text[6:]), min_size=2, max_size=5).map(
    lambda ranges: "bytes=" + ", ".join(ranges)
)
_LATIN = st.text(st.characters(max_codepoint=255))
_RANGES = _SINGLE | _SEVERAL | st.builds("bytes={}".format, _LATIN) | _LATIN


@given(size=SIZES, field=_RANGES)
@example(size=10, field="bytes=0-9")
@example(size=0, field="bytes=-5")
def test_a_range_is_that_slice_of_the_file(folder, size, field):
    whole = (folder / f"f{size}").read_bytes()
    try:
        expected = wanted(field, size)
    except RequestedRangeNotSatisfiable:
        with pytest.raises(RequestedRangeNotSatisfiable) as caught:
            served(folder, size, range=field)
        assert caught.value.headers == {"Content-Range": f"bytes */{size}"}
        return

    response, body = served(folder, size, range=field)
    if expected in (None, (0, size)):
        assert (response.status_code, body) == (200, whole)
        assert "content-range" not in response.headers
        return

    start, end = expected
    assert (response.status_code, body) == (206, whole[start:end])
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    assert response.headers["content-length"] == str(end - start)


_DATES = st.one_of(
    st.sampled_from([http_date(MODIFIED), http_date(MODIFIED + 1), http_date(0)]),
    st.builds(
        "{}, {} {} {} {}:{}:{} {}".format,
        st.sampled_from(["Sun", "Xyz", ""]),
        st.integers(-1, 40),
        st.sampled_from(["Sep", "Dec", "Jan", "Foo"]),
        st.sampled_from([0, 1, 69, 99, 1969, 2001, 9999, 10000, -5]),
        *(st.integers(-1, 61),) * 3,
        st.sampled_from(["GMT", "-0100", "+0100", "+2359", "-9999", "X", "", "+99999"]),
    ),
    _LATIN,
)
_ETAGS = st.sampled_from(['"x"', 'W/"x"', "*", '"e8d4a51000-a"', 'W/"e8d4a51000-a"'])


@given(text=_DATES)
@example(text="Fri, 31 Dec 9999 23:59:59 -0100")
@example(text="Mon, 01 Jan 100 00:00:00 +2359")
def test_any_text_is_a_date_or_none(text):
    moment = parse_http_date(text)
    if moment is not None:
        assert parse_http_date(http_date(moment)) == moment or moment.year < 1000


@given(
    size=SIZES,
    if_range=_DATES | _ETAGS,
    field=_SINGLE,
)
def test_a_range_of_another_state_of_the_file_is_not_given(
    folder, size, if_range, field
):
    etag = served(folder, size)[0].headers["etag"]
    holds = if_range in (etag, http_date(MODIFIED))
    try:
        status = served(folder, size, range=field, if_range=if_range)[0].status_code
    except RequestedRangeNotSatisfiable:
        status = 416
    assert holds or status == 200


@given(size=SIZES, fields=st.data())
def test_conditions_never_fail(folder, size, fields):
    names = ["if_none_match", "if_modified_since", "if_match", "if_unmodified_since"]
    drawn = fields.draw(st.dictionaries(st.sampled_from(names), _DATES | _ETAGS))
    response, body = served(folder, size, **drawn)
    assert response.status_code in (200, 304)
    assert len(body) == (size if response.status_code == 200 else 0)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "accept",
                "accept-charset",
                "accept-encoding",
                "accept-language",
                "authorization",
                "content-type",
                "content-length",
                "cookie",
                "host",
                "user-agent",
                "referer",
                "x-requested-with",
            ]
        ),
        _LATIN
        | st.lists(
            st.sampled_from(
                [
                    "text",
                    "/",
                    "*",
                    ";",
                    "q=",
                    "0.5",
                    "1.0",
                    ",",
                    " ",
                    "=",
                    '"',
                    "\\",
                    "Basic ",
                    "Og==",
                    "bytes",
                    "en",
                    "-",
                    "é",
                    "\x00",
                    "boundary",
                    "123",
                ]
            )
        ).map("".join),
    )
)
def test_no_header_field_is_too_odd_to_be_asked_for(fields):
    request = Request(
        {
            "method": "GET",
            "path": "/",
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in fields.items()],
        }
    )
    refused = []
    for name in (
        *("accept_mimetypes", "accept_charsets", "accept_encodings", "content_length"),
        *("accept_languages", "authorization", "cookies", "content_type", "mimetype"),
        *("mimetype_params", "user_agent", "referrer", "is_xhr", "is_json", "host"),
        *("url", "base_url", "url_root", "headers", "environ", "args", "values"),
    ):
        try:
            getattr(request, name)
        except BadRequest:
            refused.append(name)
    request.accept_mimetypes.best_match(["text/html", "application/json"])
    request.accept_languages.best_match(["en", "de-AT"])
    assert set(refused) <= {"host", "url", "base_url", "url_root"}
