"""Static files, on every driver."""

from __future__ import annotations

import io
import os
import sys

import pytest

from asyncflask import Flask, request, url_for
from asyncflask.files import FileBody, read_cached

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell")


@pytest.fixture
def folder(app: Flask, tmp_path):
    (tmp_path / "static" / "sub").mkdir(parents=True)
    (tmp_path / "static" / "style.css").write_text("0123456789")
    (tmp_path / "static" / "sub" / "ü.js").write_text("js")
    (tmp_path / "static" / "empty").write_text("")
    (tmp_path / "static-secret").mkdir()
    (tmp_path / "static-secret" / "x").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    os.utime(tmp_path / "static" / "style.css", (1_000_000_000, 1_000_000_000))
    app.root_path = str(tmp_path)
    return tmp_path / "static"


async def test_a_file_is_served_before_hooks_and_session(app, client, folder):
    app.before_request_funcs.append(lambda: "a hook ran")
    app.teardown_request_funcs.append(lambda exc: pytest.fail("a hook ran"))
    got = await client.get("/static/style.css")
    assert (got.status_code, got.text) == (200, "0123456789")
    assert got.headers["content-type"] == "text/css; charset=utf-8"
    assert got.headers["content-length"] == "10"
    assert got.headers["last-modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert got.headers["accept-ranges"] == "bytes"
    head = await client.head("/static/style.css")
    assert (head.data, head.headers["content-length"]) == (b"", "10")
    assert (await client.get("/static/sub/%C3%BC.js")).text == "js"
    assert (await client.get("/static/empty")).data == b""


async def test_what_is_no_file_is_a_404_like_any_other(app, client, folder):
    app.errorhandler(404)(lambda error: ("custom", 404))
    for path in (
        *("nothing", "", "sub", "sub/", "style.css/", "%00", "x" * 300),
        *("../secret", "%2e%2e/secret", "..%2fsecret", "sub/../../secret"),
        *("..\\secret", "..%5csecret", "../static-secret/x", "/etc/passwd"),
        *("//etc/passwd", "%2fetc%2fpasswd", "~root", "a" * 5000),
    ):
        got = await client.get(f"/static/{path}")
        assert (got.status_code, got.text) == (404, "custom"), path
    got = await client.post("/static/style.css")
    assert (got.status_code, got.headers["allow"]) == (405, "GET, HEAD")


async def test_no_view_stands_in_for_a_file_that_is_missing(app, client, folder):
    app.add_url_rule("/elsewhere", "static", lambda: "the view")
    assert (await client.get("/elsewhere")).text == "the view"
    assert (await client.get("/static/nothing")).status_code == 404


async def test_what_the_browser_has_is_not_sent_again(client, folder):
    etag = (await client.get("/static/style.css")).headers["etag"]
    for name, value, status in (
        ("If-None-Match", etag, 304),
        ("If-None-Match", f'"x", W/{etag}', 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", '"x"', 200),
        ("If-Modified-Since", "Sun, 09 Sep 2001 01:46:40 GMT", 304),
        ("If-Modified-Since", "Sun, 09 Sep 2001 01:46:39 GMT", 200),
        ("If-Modified-Since", "garbage", 200),
    ):
        got = await client.get("/static/style.css", headers={name: value})
        assert got.status_code == status, (name, value)
        assert got.headers["etag"] == etag
        assert got.headers["cache-control"] == "no-cache"
        if status == 304:
            assert got.data == b""
            assert "content-length" not in got.headers
    since = "Sun, 09 Sep 2011 01:46:40 GMT"
    both = {"If-None-Match": '"x"', "If-Modified-Since": since}
    assert (await client.get("/static/style.css", headers=both)).status_code == 200


@pytest.mark.parametrize(
    ("field", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=4-", 206, "456789", "bytes 4-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=-30", 200, "0123456789", None),
        ("bytes=0-", 200, "0123456789", None),
        ("bytes=5-500", 206, "56789", "bytes 5-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=50-60", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-2", 200, "0123456789", None),
        ("bytes=a-b", 200, "0123456789", None),
        ("bytes=-", 200, "0123456789", None),
        ("items=0-1", 200, "0123456789", None),
        ("bytes=0-0,2-3", 200, "0123456789", None),
        ("bytes=" + "0-," * 10_000, 200, "0123456789", None),
        ("bytes=0-" + "9" * 500, 200, "0123456789", None),
    ],
)
async def test_a_part_can_be_asked_for(
    client, folder, field, status, body, content_range
):
    got = await client.get("/static/style.css", headers={"Range": field})
    assert got.status_code == status
    assert got.headers.get("content-range") == content_range
    if body is not None:
        assert got.text == body
        assert got.headers["content-length"] == str(len(body))


async def test_a_range_is_only_for_the_state_it_names(client, folder):
    etag = (await client.get("/static/style.css")).headers["etag"]
    for condition, status in (
        (etag, 206),
        ('"old"', 200),
        (f"W/{etag}", 200),
        ("Sun, 09 Sep 2001 01:46:40 GMT", 206),
        ("Sun, 09 Sep 2002 01:46:40 GMT", 200),
    ):
        headers = {"Range": "bytes=0-1", "If-Range": condition}
        got = await client.get("/static/style.css", headers=headers)
        assert got.status_code == status, condition
    got = await client.get("/static/empty", headers={"Range": "bytes=0-"})
    assert got.status_code == 416


async def test_a_big_file_is_streamed(client, folder):
    content = os.urandom(1_000_000)
    (folder / "big").write_bytes(content)
    got = await client.get("/static/big")
    assert got.data == content
    assert got.headers["content-length"] == "1000000"
    got = await client.get("/static/big", headers={"Range": "bytes=10-900000"})
    assert got.data == content[10:900_001]
    head = await client.head("/static/big")
    assert (head.data, head.headers["content-length"]) == (b"", "1000000")


async def test_urls_of_static_files_are_built(app, client, folder):
    @app.route("/x")
    def view():
        return url_for("static", filename="sub/ü.js")

    assert (await client.get("/x")).text == "/static/sub/%C3%BC.js"
    got = await client.get("/x", base_url="http://h/app")
    assert got.text == "/app/static/sub/%C3%BC.js"


async def test_the_path_can_be_moved_and_turned_off(app, client, folder):
    app.static_path = "/assets"
    assert (await client.get("/assets/style.css")).status_code == 200
    assert (await client.get("/static/style.css")).status_code == 404
    with app.test_request_context():
        assert url_for("static", filename="a") == "/assets/a"
    app.static_path = None
    assert (await client.get("/assets/style.css")).status_code == 404

    class Off(Flask):
        static_path = None

    assert list(Off(__name__).url_map) == []


async def test_a_rule_below_the_static_path_is_more_specific(app, client, folder):
    @app.route("/static/special")
    def special():
        return request.path

    assert (await client.get("/static/special")).text == "/static/special"
    assert (await client.get("/static/style.css")).text == "0123456789"


# ------------------------------------------------------------ reading at once


def forget(path) -> None:
    """Have the system forget what it keeps of a file in memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@linux
def test_what_is_in_memory_is_read_at_once(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    with open(tmp_path / "x", "rb", buffering=0) as file:
        assert read_cached(file, 4) == b"0123"
        assert file.read(2) == b"45"
        assert FileBody(file, 3).read_at_once() == b"678"
        assert read_cached(file, 4) == b"9"
        assert read_cached(file, 4) == b""


@linux
async def test_a_file_that_is_only_on_the_disk_is_served_as_well(client, folder):
    for name, size in ("small", 10_000), ("big", 1_000_000):
        content = os.urandom(size)
        (folder / name).write_bytes(content)
        forget(folder / name)
        assert (await client.get(f"/static/{name}")).data == content


@linux
def test_where_nobody_can_tell_nothing_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    with open("/proc/version", "rb", buffering=0) as file:
        assert read_cached(file, 4) is None
        assert FileBody(file, 4).read_at_once() is None
        assert len(FileBody(file, 4).read()) == 4
    with open(tmp_path / "x", "rb") as file:
        assert read_cached(file, 4) is None
        assert file.tell() == 0
    assert read_cached(io.BytesIO(b"x"), 1) is None


@linux
def test_a_file_that_is_in_memory_in_part_is_left_where_it_was(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    with open(tmp_path / "x", "rb", buffering=0) as file:
        file.seek(4)
        assert FileBody(file, 100).read_at_once() is None
        assert file.tell() == 4
