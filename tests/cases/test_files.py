"""Static files, and files that a view returns, against what has gone wrong.

The letters and numbers in the names of the tests are the project's own catalogue
of faults and attacks that its field has seen.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import starlette.responses

from asyncflask import Flask, Response, session
from asyncflask.dates import parse_http_date
from asyncflask.static import is_special_on_windows
from asyncflask.testing import build_request

from ..server import served
from .raw import PROTOCOLS, ask, get

MODIFIED = 1_000_000_000
DATE = "Sun, 09 Sep 2001 01:46:40 GMT"
posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")


@pytest.fixture
def folder(app: Flask, tmp_path):
    """The static folder: a small file, one that is sent in pieces, an empty one."""
    folder = tmp_path / "static"
    (folder / "sub").mkdir(parents=True)
    for name, content in (
        ("ten.txt", b"0123456789"),
        ("empty.txt", b""),
        ("big.bin", os.urandom(700_000)),
        ("sub/index.html", b"index"),
    ):
        (folder / name).write_bytes(content)
        os.utime(folder / name, (MODIFIED, MODIFIED))
    app.root_path = str(tmp_path)
    return folder


def is_open(path) -> bool:
    """Say whether this process has a file open."""
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return str(path) in [os.readlink(link) for link in links if os.path.islink(link)]


needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="nothing says which files are open"
)


# ------------------------------------------------------------------------- names


OUTSIDE = [
    *("../static-secret/x", "..%2fstatic-secret%2fx", "%2e%2e/static-secret/x"),
    *("sub/../../static-secret/x", "./../static-secret/x", "../static-secret"),
    *("..%5cstatic-secret%5cx", "%2e%2e%5cstatic-secret/x", "-secret/x"),
    *("sub/..%2f..%2fstatic-secret/x", "..//static-secret/x", "../secret", ".."),
    *("....//static-secret/x", "..;/static-secret/x", "%252e%252e/static-secret/x"),
    *("..%c0%afstatic-secret/x", "%c0%ae%c0%ae/static-secret/x", "../static/../x"),
]


async def test_S2_a_sibling_with_the_same_prefix_is_not_served(
    client, folder, tmp_path
):
    """GHSA-v5gw-mw7f-84px: commonprefix() took /srv/static-secret for /srv/static."""
    (tmp_path / "static-secret").mkdir()
    (tmp_path / "static-secret" / "x").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x").write_text("secret")
    for path in OUTSIDE:
        got = await client.get(f"/static/{path}")
        assert got.status_code == 404, path
        assert "secret" not in got.text


def test_S2_not_by_an_absolute_name_either(tmp_path):
    app = Flask(__name__)
    app.root_path = str(tmp_path)
    (tmp_path / "static").mkdir()
    (tmp_path / "secret").write_text("secret")
    for protocol in PROTOCOLS:
        for path in (f"/static/{tmp_path}/secret", f"/static{tmp_path}/secret"):
            assert ask(app, protocol, path).status_code == 404


DEVICES = ["CON", "con", "NUL.txt", "nul.tar.gz", "COM1 .x", "LPT9", "aux ", "PRN."]
DEVICES += ["COM\xb9", "CONIN$", "a/COM1 .x", "CON/x", "a/b/prn.css", "Lpt1.ü"]
ALIASES = ["a:b", "C:x", "D:/x", "x.txt:stream", "x.txt::$DATA", "x.txt.", "x.txt "]
ALIASES += [".. /x", "sub./x", "..."]
ORDINARY = ["CONSOLE", "console.log", "COM", "COM10", "a.CON", "x/.nul", "lpt.txt", "ü"]


@pytest.mark.parametrize("name", DEVICES + ALIASES)
def test_S4_windows_has_names_that_are_no_files(name):
    """GHSA-hgf8-39gv-g3f2, GHSA-87hc-h4r5-73f7, GHSA-29vq-49wr-vm6x."""
    assert is_special_on_windows(name)


@pytest.mark.parametrize("name", ORDINARY)
def test_S4_and_names_that_only_look_so(name):
    assert not is_special_on_windows(name)


@posix_only
@pytest.mark.parametrize("name", ["CON", "NUL.txt", "COM1 .x", "a:b", "x.", "C:x"])
async def test_S4_elsewhere_they_are_ordinary(client, folder, name):
    (folder / name).write_text("ordinary")
    got = await client.get(f"/static/{name}")
    assert (got.status_code, got.text) == (200, "ordinary")


@pytest.mark.skipif(os.name != "nt", reason="it is about Windows")
async def test_S4_on_windows_they_are_not_found(client, folder):
    for name in DEVICES + ALIASES:
        assert (await client.get(f"/static/{name}")).status_code == 404, name


@pytest.mark.parametrize(
    "path", ["", "/", "/sub", "/sub/", "/.", "/sub/.", "/sub/..", "//", "/sub//"]
)
async def test_S6_a_folder_is_neither_listed_nor_redirected_to(client, folder, path):
    got = await client.get(f"/static{path}")
    assert got.status_code == 404
    assert "index" not in got.text


async def test_S6_without_the_folder_nothing_is_served(app, client, tmp_path):
    app.root_path = str(tmp_path)
    assert (await client.get("/static/x")).status_code == 404
    (tmp_path / "static").write_text("a file in place of the folder")
    for path in ("/static/x", "/static/", "/static/."):
        assert (await client.get(path)).status_code == 404


@posix_only
async def test_S6_what_is_no_ordinary_file_is_not_opened(client, folder):
    """A FIFO would keep whoever opens it waiting for ever."""
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "directory").symlink_to("sub")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
        for name in ("fifo", "loop", "dangling", "device", "directory", "socket"):
            got = await client.get(f"/static/{name}")
            assert got.status_code == 404, name
    (folder / "link").symlink_to("ten.txt")
    assert (await client.get("/static/link")).text == "0123456789"


@pytest.mark.parametrize(
    "path",
    ["x" * 256, "x" * 300, "ü" * 200, "x/" * 3000, "../" * 3000, "sub/" * 2000, "."],
    ids=["256", "300", "unicode", "deep", "up", "down", "dot"],
)
async def test_S7_a_name_that_is_too_long_is_404(client, folder, path):
    """Starlette 0.38: ENAMETOOLONG is an OSError like any other."""
    assert (await client.get(f"/static/{path}")).status_code == 404


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_S7_a_name_that_no_file_can_have_is_404(protocol, tmp_path):
    app = Flask(__name__)
    app.root_path = str(tmp_path)
    (tmp_path / "static").mkdir()
    names = ["\udcff", "\U0010ffff", "\x7f", " ", "\n"]
    if protocol == "asgi":  # an environ holds bytes, and these are none
        names += ["\ud800", "a\ud800/b"]
    for name in names:
        assert ask(app, protocol, f"/static/{name}").status_code == 404, repr(name)


# ------------------------------------------------------------- files that change


class Meddling(Response):
    """Does something between the look at a file and its opening."""

    meddle = staticmethod(lambda: None)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.meddle()


def meddling(app: Flask, meddle) -> None:
    app.response_class = type("Mine", (Meddling,), {"meddle": staticmethod(meddle)})


@pytest.mark.parametrize("name", ["ten.txt", "big.bin"])
async def test_S9_a_file_that_vanishes_is_sent_once_it_is_open(
    app, client, folder, name
):
    before = (folder / name).read_bytes()
    meddling(app, lambda: (folder / name).unlink(missing_ok=True))
    assert (await client.get(f"/static/{name}")).data == before
    assert (await client.get(f"/static/{name}")).status_code == 404


@pytest.mark.parametrize("name", ["ten.txt", "big.bin"])
async def test_S9_a_file_that_is_replaced_is_one_or_the_other(
    app, client, folder, name
):
    def replace():
        (folder / "new").write_bytes(b"another one")
        os.replace(folder / "new", folder / name)

    before = await client.get(f"/static/{name}")
    meddling(app, replace)
    got = await client.get(f"/static/{name}")
    assert (got.data, got.headers["etag"]) == (before.data, before.headers["etag"])
    got = await client.get(f"/static/{name}")
    assert (got.data, got.headers["content-length"]) == (b"another one", "11")
    assert got.headers["etag"] != before.headers["etag"]


@pytest.mark.parametrize("name", ["ten.txt", "big.bin"])
@pytest.mark.parametrize("size", [0, 3])
async def test_S9_a_file_that_shrinks_is_never_sent_as_if_it_were_whole(
    app, client, folder, caplog, name, size
):
    meddling(app, lambda: os.truncate(folder / name, size))
    torn_down = []
    app.teardown_request(torn_down.append)
    for headers in ({}, {"Range": "bytes=1-8"}, {"Range": "bytes=-9"}):
        (folder / name).write_bytes(b"x" * (10 if name == "ten.txt" else 700_000))
        with pytest.raises(RuntimeError, match="while it was sent"):
            await client.get(f"/static/{name}", headers=headers)
    assert torn_down == []
    assert "while it was sent" in caplog.text


@pytest.mark.parametrize("name", ["ten.txt", "big.bin"])
async def test_S9_a_file_that_grows_is_sent_as_far_as_it_was_announced(
    app, client, folder, name
):
    before = (folder / name).read_bytes()

    def grow():
        with open(folder / name, "ab") as file:
            file.write(b"more")

    meddling(app, grow)
    got = await client.get(f"/static/{name}")
    assert got.data == before
    assert got.headers["content-length"] == str(len(before))


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@needs_proc
async def test_S9_a_file_that_shrinks_while_it_is_sent_breaks_off(
    anyio_backend, tmp_path
):
    app = Flask(__name__)
    app.root_path = str(tmp_path)
    (tmp_path / "static").mkdir()
    path = tmp_path / "static" / "big"
    path.write_bytes(b"x" * 1_000_000)
    sent = []

    async def receive():
        await never.wait()

    async def send(message):
        sent.append(message)
        if len(sent) == 2:
            os.truncate(path, 300_000)

    never = anyio.Event()
    scope, _ = build_request("/static/big")
    with pytest.raises(RuntimeError, match="lost 700000 bytes"):
        await app(scope, receive, send)
    assert sum(len(message["body"]) for message in sent[1:]) == 300_000
    assert all(message["more_body"] for message in sent[1:])
    assert not is_open(path)
    app.workers.close()


@needs_proc
def test_S9_under_wsgi_too(tmp_path):
    app = Flask(__name__)
    app.root_path = str(tmp_path)
    (tmp_path / "static").mkdir()
    path = tmp_path / "static" / "big"
    path.write_bytes(b"x" * 1_000_000)
    environ = {"PATH_INFO": "/static/big", "REQUEST_METHOD": "GET"}
    chunks: Any = app.wsgi_app(environ, lambda status, headers: None)
    read = [next(chunks)]
    os.truncate(path, 300_000)
    with pytest.raises(RuntimeError, match="lost 700000 bytes"):
        read.extend(chunks)
    chunks.close()
    assert len(b"".join(read)) == 300_000
    assert not is_open(path)


@pytest.mark.process
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_S9_the_client_of_a_real_server_is_not_left_waiting(tmp_path, http):
    app = Flask(__name__)
    app.root_path = str(tmp_path)
    (tmp_path / "static").mkdir()
    path, size = tmp_path / "static" / "big", 100_000_000
    path.touch()
    os.truncate(path, size)  # a sparse file: it takes no place
    with served(app, http=http, lifespan="off") as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(get(b"/static/big"))
            head, _, rest = connection.recv(1 << 16).partition(b"\r\n\r\n")
            assert f"content-length: {size}".encode() in head.lower()
            os.truncate(path, 0)
            received = len(rest)
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
        assert received < size


# ------------------------------------------------------------------------ ranges


ATTACKS = {
    "many open": "bytes=" + "0-," * 10_000,
    "many closed": "bytes=" + ",".join(["0-0"] * 10_000),
    "many suffixes": "bytes=" + ",".join(["-1"] * 10_000),
    "dashes": "bytes=" + "-" * 60_000,
    "digits": "bytes=" + "9" * 60_000 + "-",
    "more digits": "bytes=0-" + "9" * 60_000,
    "spaces": "bytes=" + " " * 60_000 + "0-0",
    "commas": "bytes=" + "," * 60_000,
    "units": "bytes=" * 10_000,
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_S10_many_ranges_take_no_time(app, client, folder, attack):
    """CVE-2025-62727: putting ranges together was quadratic."""
    big = str(folder / "big.bin")
    app.add_url_rule("/view", "view", lambda: starlette.responses.FileResponse(big))
    for path in ("/static/ten.txt", "/static/big.bin", "/view"):
        begun = time.process_time()
        got = await client.get(path, headers={"Range": ATTACKS[attack]})
        assert got.status_code in (200, 206, 400, 416)
        assert len(got.data) <= 700_000 + 200
        assert time.process_time() - begun < 1


@pytest.mark.parametrize("name", ["ten.txt", "big.bin"])
@pytest.mark.parametrize("field", ["bytes={0}-", "bytes=9{0}-", "bytes={0}-{0}"])
async def test_S12_a_range_behind_the_end_is_416(client, folder, name, field):
    size = (folder / name).stat().st_size
    headers = {"Range": field.format(size)}
    got = await client.get(f"/static/{name}", headers=headers)
    assert got.status_code == 416
    assert got.headers["content-range"] == f"bytes */{size}"
    assert "etag" not in got.headers


async def test_S12_the_last_byte_can_be_asked_for(client, folder):
    for field in ("bytes=9-", "bytes=9-9", "bytes=-1", "bytes=9-999999999999999999"):
        got = await client.get("/static/ten.txt", headers={"Range": field})
        assert (got.status_code, got.text) == (206, "9")
        assert got.headers["content-range"] == "bytes 9-9/10"


MALFORMED = [
    *("bytes=a-b", "items=0-1", "bytes=5-2", "bytes=", "bytes", "", "=", "0-1"),
    "bytes=-",
    "bytes=--1",
    "bytes=-1-",
    "bytes=1-2-3",
    "bytes=0x1-2",
    "bytes 0-1",
    *("bytes=+1-2", "bytes=1.0-2", "bytes=1e1-", "bytes:0-1", "bytes=\xb2-\xb3"),
    *("bytes=0-1;", "bytes=0-1,x", "bytes==0-1", "none", "\xff", "bytes=-\t"),
    *("bytes=" + "9" * 5000 + "-", "bytes=-" + "9" * 5000, "bytes=0-" + "9" * 19),
]


async def test_S13_a_malformed_range_is_ignored(client, folder):
    """Flask 0.12.3; RFC 9110, section 14.2."""
    for field in MALFORMED:
        got = await client.get("/static/ten.txt", headers={"Range": field})
        assert (got.status_code, got.text) == (200, "0123456789"), field
        assert got.headers["content-length"] == "10"
        assert "content-range" not in got.headers


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("bytes=0-", 416),
        ("bytes=0-0", 416),
        ("bytes=-1", 416),
        ("bytes=-0", 416),
        ("bytes=5-2", 200),
        ("bytes=0-0,1-1", 200),
    ],
)
async def test_S14_an_empty_file_has_no_range(client, folder, field, status):
    got = await client.get("/static/empty.txt", headers={"Range": field})
    assert got.status_code == status
    if status == 200:
        assert (got.data, got.headers["content-length"]) == (b"", "0")
    else:
        assert got.headers["content-range"] == "bytes */0"


@pytest.mark.parametrize("name", ["ten.txt", "big.bin", "empty.txt"])
async def test_S16_head_answers_a_range_as_get_does(client, folder, name):
    for field in (None, "bytes=2-5", "bytes=900000-", "bytes=x"):
        headers = {} if field is None else {"Range": field}
        got = await client.get(f"/static/{name}", headers=headers)
        head = await client.head(f"/static/{name}", headers=headers)
        assert head.status_code == got.status_code, field
        assert dict(head.headers) == dict(got.headers), field
        assert head.data == b""


async def test_S16_a_range_is_for_no_other_method_and_no_error(app, client, folder):
    headers = {"Range": "bytes=0-1"}
    got = await client.post("/static/ten.txt", headers=headers)
    assert (got.status_code, got.headers["allow"]) == (405, "GET, HEAD")
    whole = await client.get("/static/nothing")
    part = await client.get("/static/nothing", headers=headers)
    assert (part.status_code, part.data) == (404, whole.data)

    @app.route("/", methods=["GET", "POST"])
    def view():
        return "a view has ranges of its own"

    for method in ("GET", "POST"):
        got = await client.open("/", method=method, headers=headers)
        assert (got.status_code, got.text) == (200, "a view has ranges of its own")


async def test_S16_what_is_not_modified_has_no_range(client, folder):
    """RFC 9110, section 13.2.2: If-None-Match comes before Range."""
    etag = (await client.get("/static/ten.txt")).headers["etag"]
    for field in ("bytes=0-1", "bytes=50-"):
        headers = {"Range": field, "If-None-Match": etag}
        got = await client.get("/static/ten.txt", headers=headers)
        assert got.status_code == 304
        assert "content-range" not in got.headers


# -------------------------------------------------------------------- conditions


TAGS = [
    ("{0}", 304),
    ("W/{0}", 304),
    ("*", 304),
    (" * ", 304),
    ('"a", {0}', 304),
    ('"a",{0},"b"', 304),
    ('W/"a" , W/{0}', 304),
    ("," * 10_000 + "{0}", 304),
    ('"a"', 200),
    ("", 200),
    (",", 200),
    ('"', 200),
    ('""', 200),
    ("w/{0}", 200),
    ('W/"*"', 200),
    ("{0}x", 200),
    ("\xff", 200),
    ('"' * 60_000, 200),
    (", W/" * 15_000, 200),
]


async def test_S17_if_none_match_beats_if_modified_since(client, folder):
    """Starlette 0.49.2; RFC 9110, section 13.1.2: the comparison is the weak one."""
    fresh = await client.get("/static/ten.txt")
    for field, status in TAGS:
        headers = {"If-None-Match": field.format(fresh.headers["etag"])}
        # by the date it would be the other way round
        new = DATE if status == 200 else "Sun, 09 Sep 2001 01:46:39 GMT"
        for method in ("GET", "HEAD"):
            headers["If-Modified-Since"] = new
            got = await client.open("/static/ten.txt", method=method, headers=headers)
            assert got.status_code == status, field
            for name in ("etag", "last-modified", "cache-control"):
                assert got.headers[name] == fresh.headers[name]
            if status == 304:
                assert got.data == b""
                assert not {"content-length", "content-type"} & set(got.headers)


async def test_S17_a_changed_file_has_another_tag(client, folder):
    tags = set()
    for content, moment in ((b"0123456789", 1), (b"012345678", 1), (b"0123456789", 2)):
        (folder / "ten.txt").write_bytes(content)
        os.utime(folder / "ten.txt", (moment, moment))
        tags.add((await client.get("/static/ten.txt")).headers["etag"])
    assert len(tags) == 3


async def test_S17_a_304_of_a_view_keeps_what_caches_need(app, client):
    """RFC 9110, section 15.4.5."""
    fields = {"ETag": '"1"', "Cache-Control": "max-age=9", "Vary": "Accept, Cookie"}
    fields |= {"Content-Location": "/x", "Expires": DATE, "Last-Modified": DATE}

    @app.route("/")
    def view():
        return "never sent", 304, {**fields, "Content-Length": "5"}

    got = await client.get("/")
    assert (got.status_code, got.data) == (304, b"")
    assert {name: got.headers.get(name) for name in fields} == fields
    assert not {"content-length", "content-type"} & set(got.headers)


NO_DATES = [
    "garbage",
    "",
    "0",
    "-1",
    "Sun",
    "Sun, 32 Sep 2001 01:46:40 GMT",
    "\xff",
    "*",
    *("Fri, 31 Dec 9999 23:59:59 -0100", "Sun, 09 Sep 2001 01:46:40 +99999"),
    *("Sun, 09 Sep 99999 01:46:40 GMT", "9" * 5000, "Sun, 0 Xyz 1 1:1:1 GMT"),
    *("Mon, 01 Jan 0100 00:00:00 +0100", "Sun Sep 9 01:46:40", "1000000001"),
]


async def test_S18_an_invalid_date_is_ignored(client, folder):
    for field in NO_DATES:
        for name, status in (("If-Modified-Since", 206), ("If-Range", 200)):
            headers = {name: field, "Range": "bytes=0-1"}
            got = await client.get("/static/ten.txt", headers=headers)
            assert got.status_code == status, field


@pytest.mark.parametrize(
    "field", [DATE, "Sunday, 09-Sep-01 01:46:40 GMT", "Sun Sep  9 01:46:40 2001"]
)
async def test_S18_each_form_of_a_date_is_read(client, folder, field):
    """RFC 9110, section 5.6.7: the obsolete ones too."""
    headers = {"If-Modified-Since": field}
    assert (await client.get("/static/ten.txt", headers=headers)).status_code == 304


@pytest.fixture
def wide_folder(app: Flask):
    """A static folder where files may be of any year: ext4 ends in 2446."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=place) as root:
        app.root_path = root
        folder = Path(root) / "static"
        folder.mkdir()
        yield folder


@pytest.mark.parametrize(
    ("seconds", "year"), [(1e12, None), (4e9, None), (-1e11, "1970"), (-1.5, "1970")]
)
async def test_S18_a_file_may_be_of_any_year(client, wide_folder, seconds, year):
    """RFC 9110, section 8.8.2.1: no Last-Modified lies in the future."""
    (wide_folder / "x").write_text("0123456789")
    os.utime(wide_folder / "x", (seconds, seconds))
    got = await client.get("/static/x")
    assert got.status_code == 200
    modified = got.headers["last-modified"]
    said = parse_http_date(modified)
    assert said is not None
    assert said <= datetime.now(UTC)
    assert year is None or modified.split()[3] == year
    headers = {"If-None-Match": got.headers["etag"]}
    assert (await client.get("/static/x", headers=headers)).status_code == 304
    headers = {"If-Modified-Since": modified}
    got = await client.get("/static/x", headers=headers)
    assert got.status_code == (304 if year else 200)


# ------------------------------------------------------------- handles and hooks


@needs_proc
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", ["ten.txt", "big.bin"])
async def test_S20_no_file_is_left_open(client, folder, method, name):
    """falcon#1963."""
    fields = [{}, {"Range": "bytes=1-5"}, {"Range": "bytes=1-600000"}]
    fields += [{"Range": "bytes=900000-"}, {"If-None-Match": "*"}]
    for headers in fields:
        got = await client.open(f"/static/{name}", method=method, headers=headers)
        assert got.status_code in (200, 206, 304, 416)
        assert not is_open(folder / name)


@needs_proc
async def test_S20_head_on_a_file_of_a_view_opens_nothing_for_long(app, client, folder):
    path = str(folder / "big.bin")
    app.add_url_rule("/", "view", lambda: starlette.responses.FileResponse(path))
    got, head = await client.get("/"), await client.head("/")
    assert head.data == b""
    assert head.headers["content-length"] == got.headers["content-length"] == "700000"
    assert not is_open(path)


async def test_S21_a_static_file_wakes_nothing_of_the_application(app, client, folder):
    """As in 0.1, where a middleware answered: no hook, no session, no view thread."""
    ran, threads = [], set()
    app.before_request(lambda: ran.append("before"))
    app.teardown_request(lambda exc: ran.append("teardown"))
    app.errorhandler(404)(lambda error: ("custom", 404))
    app.errorhandler(416)(lambda error: ("custom", 416))
    meddling(app, lambda: threads.add(threading.current_thread().name))

    @app.after_request
    def after(response):
        ran.append("after")
        return response

    @app.route("/login")
    def login():
        session["user"] = "ann"
        return ""

    cookie = (await client.get("/login")).headers["set-cookie"].partition(";")[0]
    assert ran == ["before", "after", "teardown"]
    ran.clear()
    threads.clear()
    for name in ("ten.txt", "big.bin", "empty.txt"):
        for method in ("GET", "HEAD"):
            got = await client.open(
                f"/static/{name}", method=method, headers={"Cookie": cookie}
            )
            assert got.status_code == 200
            assert not {"set-cookie", "vary"} & set(got.headers)
    assert ran == []
    assert not [name for name in threads if name.startswith("asyncflask-worker")]


@pytest.mark.parametrize("name", ["open_session", "save_session", "match_request"])
async def test_S21_nor_a_stage_that_it_overrides(app, client, folder, name):
    def never(*args):
        raise AssertionError(f"{name} was called")

    setattr(app, name, never)
    assert (await client.get("/static/ten.txt")).text == "0123456789"
