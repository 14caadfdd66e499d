"""What views may return, and what becomes of it, on every driver."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import starlette.responses
from starlette.background import BackgroundTask

from asyncflask import Flask, Response, jsonify, redirect, request
from asyncflask.exceptions import NotFound


def outcome(got):
    return got.status_code, got.text, got.headers.get("content-type")


HTML = "text/html; charset=utf-8"
JSON = "application/json"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: "text ü", (200, "text ü", HTML)),
        (lambda: b"bytes", (200, "bytes", HTML)),
        (lambda: bytearray(b"array"), (200, "array", HTML)),
        (lambda: {"a": 1}, (200, '{"a":1}\n', JSON)),
        (lambda: [1, "b"], (200, '[1,"b"]\n', JSON)),
        (lambda: jsonify(a=1), (200, '{"a":1}\n', JSON)),
        (lambda: ("made", 201), (201, "made", HTML)),
        (lambda: ("made", "201 CREATED"), (201, "made", HTML)),
        (lambda: ("x", 200, {"X-A": "1"}, "text/plain"), None),
        (lambda: ("x", {"Content-Type": "text/x"}), (200, "x", "text/x")),
        (lambda: ("x", [("X-A", "1")]), (200, "x", HTML)),
        (lambda: ({"a": 1}, 202), (202, '{"a":1}\n', JSON)),
        (lambda: (["a"], 200, {"X-A": "1"}), (200, '["a"]\n', JSON)),
        (lambda: ({}, 200, {"Content-Type": "text/x"}), (200, "{}\n", "text/x")),
        (lambda: (Response("r"), 404), (404, "r", HTML)),
        (lambda: Response("r", 418, mimetype="text/plain"), None),
        (lambda: iter(["a", b"b"]), (200, "ab", HTML)),
        (lambda: (c for c in "xyz"), (200, "xyz", HTML)),
        (lambda: ((c for c in "xyz"), 206), (206, "xyz", HTML)),
        (lambda: NotFound("gone"), None),
        (lambda: starlette.responses.JSONResponse({"s": 1}, 201), None),
        (
            lambda: starlette.responses.StreamingResponse(
                iter("st"), media_type="text/x"
            ),
            (200, "st", "text/x; charset=utf-8"),
        ),
    ],
)
async def test_what_a_view_may_return(app: Flask, client, make, expected):
    @app.after_request
    def mark(response):
        assert isinstance(response, Response)
        response.headers["X-Mark"] = "1"
        return response

    @app.route("/")
    def view():
        return make()

    got = await client.get("/")
    assert got.headers["x-mark"] == "1"
    if expected is not None:
        assert outcome(got) == expected
    if expected is None or expected[0] != 200 or "xyz" not in expected[1]:
        assert "content-length" in got.headers or expected is not None


async def test_positional_tuples_are_those_of_0_1(app: Flask, client):
    @app.route("/")
    def view():
        return "body", 400, [("X-Foo", "Testing"), ("X-Foo", "Twice")], "text/plain"

    @app.route("/json")
    def json():
        return {"a": 1}, 200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]

    got = await client.get("/")
    assert outcome(got) == (400, "body", "text/plain; charset=utf-8")
    assert got.headers.get_list("x-foo") == ["Testing", "Twice"]
    got = await client.get("/json")
    assert got.headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "None"), (5, "int"), (object, "type"), (1.5, "float"), ({1}, "set")],
)
async def test_a_wrong_value_names_the_endpoint_and_the_type(app, client, value, kind):
    @app.route("/", endpoint="the_endpoint")
    def view():
        return value

    with pytest.raises(TypeError, match=f"'the_endpoint' returned .*{kind}"):
        await client.get("/")


@pytest.mark.parametrize("code", [204, 304, 200])
async def test_some_responses_have_no_body(app: Flask, client, code):
    closed = []

    @app.route("/bytes")
    def view():
        return "body", code

    @app.route("/stream")
    def stream():
        def body():
            try:
                yield "body"
            finally:
                closed.append(1)

        chunks = body()
        return chunks, code

    method = "HEAD" if code == 200 else "GET"
    for path in "/bytes", "/stream":
        got = await client.open(path, method=method)
        assert got.data == b""
        if code != 200:
            assert "content-length" not in got.headers


async def test_content_length_is_right_whatever_was_set(app: Flask, client):
    @app.route("/")
    def view():
        return Response("four", headers={"Content-Length": "99"})

    assert (await client.get("/")).headers["content-length"] == "4"


async def test_data_can_be_assigned_in_after_request(app: Flask, client):
    @app.after_request
    def shout(response):
        response.data = response.data.upper() + "ü".encode()
        return response

    @app.route("/")
    def view():
        return "quiet"

    got = await client.get("/")
    assert (got.text, got.headers["content-length"]) == ("QUIETü", "7")


async def test_after_request_must_return_a_response(app: Flask, client):
    @app.after_request
    def forgetful(response):
        pass

    app.add_url_rule("/", "i", lambda: "")
    with pytest.raises(TypeError, match=r"forgetful.* returned None; it\s+must return"):
        await client.get("/")


async def test_cookies_are_set_and_deleted(app: Flask, client):
    @app.route("/")
    def view():
        response = Response("")
        flags = {"secure": True, "httponly": True, "samesite": "strict"}
        response.set_cookie("a", "x;y", max_age=timedelta(hours=1), path="/p", **flags)
        response.delete_cookie("b", domain="d.org")
        return response

    first, second = (await client.get("/")).headers.get_list("set-cookie")
    assert first.startswith('a="x\\073y"; Expires=')
    assert first.endswith(
        "GMT; Max-Age=3600; Path=/p; SameSite=Strict; Secure; HttpOnly"
    )
    assert second == (
        "b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Domain=d.org; Path=/"
    )


@pytest.mark.parametrize(
    "break_it",
    [
        lambda r: r.headers.__setitem__("X-A", "a\r\nSet-Cookie: b=c"),
        lambda r: r.headers.add("X-A", "a\nb"),
        lambda r: r.headers.extend({"X\r\nB: c": "a"}),
        lambda r: r.set_cookie("a", "b", path="/\r\nX: y"),
        lambda r: setattr(r, "location", "/a\r\nX: y"),
        lambda r: setattr(r, "content_type", "text/html\r\nX: y"),
        lambda r: setattr(r, "mimetype", "text/html\r\nX: y"),
        lambda r: Response("", headers={"X": "a\r\nb"}),
        lambda r: Response("", mimetype="a\r\nb"),
        lambda r: redirect("/a\r\nb"),
    ],
)
def test_nothing_can_split_a_response(break_it):
    with pytest.raises(ValueError, match=r"control|end it|no header name"):
        break_it(Response(""))


async def test_redirect_is_302_and_keeps_what_it_got(app: Flask, client):
    @app.route("/")
    def view():
        return redirect(request.args["to"], int(request.args.get("code", 302)))

    got = await client.get("/", query_string={"to": "/ü?a=%20&b=<>"})
    assert got.status_code == 302
    assert got.headers["location"] == "/%C3%BC?a=%20&b=%3C%3E"
    assert "<>" not in got.text
    got = await client.get("/", query_string={"to": "//x", "code": "308"})
    assert (got.status_code, got.headers["location"]) == (308, "//x")
    with pytest.raises(ValueError, match="no redirect"):
        await client.get("/?to=/&code=200")


def test_the_attributes_of_a_response():
    response = Response("ü", "404 NOT FOUND", {"X-A": "1"}, "application/xml")
    assert response.status == "404 NOT FOUND"
    assert response.content_type == "application/xml; charset=utf-8"
    assert response.mimetype == "application/xml"
    assert (response.data, response.get_data(as_text=True)) == ("ü".encode(), "ü")
    response.set_data("new")
    response.status = 201
    response.status_code = 202
    response.mimetype = "text/plain"
    assert (response.data, response.status) == (b"new", "202 ACCEPTED")
    assert response.content_type == "text/plain; charset=utf-8"
    assert (response.charset, response.content_length) == ("utf-8", 3)
    with pytest.raises(ValueError, match="no status"):
        response.status = "fine"
    streamed = Response(iter(["a", b"b"]))
    assert streamed.is_streamed
    assert (streamed.data, streamed.is_streamed) == (b"ab", False)
    with pytest.raises(TypeError, match="must give"):
        _ = Response(iter([5])).data


async def test_a_response_class_of_ones_own_is_used(app: Flask, client):
    class Plain(Response):
        default_mimetype = "text/plain"
        default_status = 203

    app.response_class = Plain

    @app.route("/")
    def view():
        return "x"

    got = await client.get("/")
    assert got.status_code == 203
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    missing = await client.get("/missing")
    assert missing.status_code == 404


async def test_starlette_responses_keep_their_own_ways(app, client, tmp_path):
    done = []
    file = tmp_path / "file.txt"
    file.write_text("file")

    @app.after_request
    async def change(response):
        response.headers["X-Mark"] = "1"
        response.status_code = 202
        return response

    @app.route("/file")
    def send():
        return starlette.responses.FileResponse(file)

    @app.route("/task")
    async def task():
        background = BackgroundTask(done.append, threading.get_ident())
        return starlette.responses.HTMLResponse("task", background=background)

    got = await client.get("/file")
    assert (got.status_code, got.text) == (202, "file")
    assert got.headers["x-mark"] == "1"
    got = await client.get("/task")
    assert (got.status_code, got.text, len(done)) == (202, "task", 1)
    head = await client.head("/task")
    assert head.data == b""


async def test_a_starlette_file_answers_ranges(app: Flask, client, tmp_path):
    file = tmp_path / "file.txt"
    file.write_bytes(b"0123456789")
    app.add_url_rule("/", "v", lambda: starlette.responses.FileResponse(file))
    got = await client.get("/", headers={"Range": "bytes=2-4"})
    assert (got.status_code, got.text) == (206, "234")
    assert (await client.get("/", headers={"Range": "bytes=50-"})).status_code == 416


async def test_an_unread_body_may_be_handed_on(app: Flask, client):
    async def other(scope, receive, send):
        received, more = b"", True
        while more:
            message = await receive()
            received += message["body"]
            more = message["more_body"]
        fields = [(b"content-type", b"text/plain")]
        start = {"type": "http.response.start", "status": 200, "headers": fields}
        await send(start)
        await send({"type": "http.response.body", "body": received})

    @app.route("/unread", methods=["POST"], stream_body=True)
    def unread():
        return other

    @app.route("/form", methods=["POST"])
    def form():
        return other

    assert (await client.post("/unread", data=b"abc")).data == b"abc"
    with pytest.raises(RuntimeError, match="Add stream_body=True to its rule"):
        await client.post("/form", data={"f": (b"x", "f")})


async def test_a_custom_iterable_is_closed(app: Flask, client):
    closed = []

    class Chunks:
        def __iter__(self):
            yield "a"

        def close(self):
            closed.append(1)

    app.add_url_rule("/", "v", lambda: Response(Chunks()))
    assert (await client.get("/")).text == "a"
    assert closed == [1]
    assert (await client.head("/")).text == ""
    assert closed == [1, 1]


async def test_a_custom_async_iterable_is_closed(app: Flask, client):
    closed = []

    class Chunks:
        async def __aiter__(self):
            yield "a"

        async def aclose(self):
            closed.append(1)

    app.add_url_rule("/", "v", lambda: Response(Chunks()))
    assert (await client.get("/")).text == "a"
    assert closed == [1]
    assert (await client.head("/")).text == ""
    assert closed == [1, 1]


async def test_bytes_of_a_subclass_are_sent(app: Flask, client):
    class Mine(bytes):
        pass

    app.add_url_rule("/", "v", lambda: Mine(b"mine"))
    assert (await client.get("/")).data == b"mine"


async def test_an_asgi_application_may_answer(app: Flask, client):
    async def other(scope, receive, send):
        body = (await receive())["body"]
        await send(
            {
                "type": "http.response.start",
                "status": 203,
                "headers": [
                    (b"content-type", b"text/plain"),
                    (b"x-other", scope["path"].encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body * 2})

    @app.after_request
    def change(response):
        response.headers["X-Mark"] = "1"
        return response

    @app.route("/x", methods=["POST"])
    def view():
        return other

    got = await client.post("/x", data=b"ab")
    assert (got.status_code, got.data) == (203, b"abab")
    assert (got.headers["x-other"], got.headers["x-mark"]) == ("/x", "1")
