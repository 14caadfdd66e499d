"""What views learn about the request, on every driver."""

from __future__ import annotations

import io

import pytest

from asyncflask import Flask, Request, request
from asyncflask.exceptions import BadRequest
from asyncflask.forms import SPOOL_SIZE


async def test_the_target_is_taken_apart(app: Flask, client):
    @app.route("/a b/<path:rest>", methods=["POST"])
    def view(rest):
        return {
            name: getattr(request, name)
            for name in (
                *("method", "path", "script_root", "url", "base_url", "url_root"),
                *("host", "host_url", "scheme", "full_path", "is_secure"),
                *("endpoint", "view_args"),
            )
        }

    got = await client.post("/a%20b/ü/x?q=1&q=2", base_url="https://h:8443/app")
    assert got.json == {
        "method": "POST",
        "path": "/a b/ü/x",
        "script_root": "/app",
        "url": "https://h:8443/app/a%20b/%C3%BC/x?q=1&q=2",
        "base_url": "https://h:8443/app/a%20b/%C3%BC/x",
        "url_root": "https://h:8443/app/",
        "host": "h:8443",
        "host_url": "https://h:8443/",
        "scheme": "https",
        "full_path": "/a b/ü/x?q=1&q=2",
        "is_secure": True,
        "endpoint": "view",
        "view_args": {"rest": "ü/x"},
    }


async def test_args_form_and_values_are_multi_dicts(app: Flask, client):
    @app.route("/", methods=["POST"])
    async def view():
        return {
            "args": request.args.to_dict(flat=False),
            "form": request.form.to_dict(flat=False),
            "first": request.values["x"],
            "all": request.values.getlist("x"),
            "number": request.args.get("n", type=int),
            "no number": request.args.get("x", -1, type=int),
            "data": request.data.decode(),
            "raw": request.get_data(as_text=True),
        }

    got = await client.post("/?x=a&x=b&n=5&e=", data={"x": ["c", "d"], "ü": "€"})
    assert got.json == {
        "args": {"x": ["a", "b"], "n": ["5"], "e": [""]},
        "form": {"x": ["c", "d"], "ü": ["€"]},
        "first": "a",
        "all": ["a", "b", "c", "d"],
        "number": 5,
        "no number": -1,
        "data": "",
        "raw": "x=c&x=d&%C3%BC=%E2%82%AC",
    }


@pytest.mark.parametrize("source", ["args", "form", "files", "cookies", "headers"])
async def test_a_missing_key_is_a_400_that_names_it(app: Flask, client, source):
    @app.route("/", methods=["GET", "POST"])
    def view():
        with pytest.raises(KeyError):
            getattr(request, source)["the-key"]
        return getattr(request, source)["the-key"]

    got = await client.post("/")
    assert got.status_code == 400
    assert "the-key" in got.text


async def test_files_arrive_with_the_fields(app: Flask, client, tmp_path):
    target = tmp_path / "saved"

    @app.route("/", methods=["POST"])
    def view():
        file = request.files["f"]
        file.save(target)
        again = request.files.getlist("f")[1]
        return {
            "name": [file.name, file.filename, file.content_type, file.mimetype],
            "field": request.form["text"],
            "data": len(request.data),
            "second": again.read().decode(),
        }

    files = [(b"\0\xff\r\n--", 'a "b".png'), (io.BytesIO(b"two"), "c", "x/y; z=1")]
    got = await client.post("/", data={"f": files, "text": "ü"})
    assert got.json == {
        "name": ["f", 'a "b".png', "image/png", "image/png"],
        "field": "ü",
        "data": 0,
        "second": "two",
    }
    assert target.read_bytes() == b"\0\xff\r\n--"


@pytest.mark.parametrize("exit", ["return", "raise", "abort"])
async def test_big_files_are_on_disk_and_closed_on_every_exit(app, client, exit):
    kept = []

    @app.route("/", methods=["POST"])
    def view():
        file = request.files["f"]
        kept.append(file.stream)
        assert file.stream._rolled  # it lies on disk
        assert len(file.read()) == SPOOL_SIZE + 10
        if exit == "raise":
            raise LookupError("on purpose")
        return ("", 400) if exit == "abort" else ""

    body = {"f": (b"x" * (SPOOL_SIZE + 10), "big")}
    if exit == "raise":
        with pytest.raises(LookupError):
            await client.post("/", data=body)
    else:
        await client.post("/", data=body)
    assert [stream.closed for stream in kept] == [True]


async def test_a_big_raw_body_is_a_file_too(app: Flask, client):
    @app.route("/", methods=["POST"])
    def view():
        stream = request.stream
        assert not isinstance(stream, io.BytesIO)
        head = stream.read(3)
        return head + b" %d" % len(request.data)

    body = b"abc" + b"x" * SPOOL_SIZE
    got = await client.post("/", data=body)
    assert got.data == b"abc %d" % len(body)


async def test_the_stream_is_read_on_from_where_it_stands(app: Flask, client):
    @app.route("/", methods=["POST"])
    def view():
        chunks = []
        while chunk := request.stream.read(3):
            chunks.append(chunk.decode())
        return chunks

    assert (await client.post("/", data=b"abcdefg")).json == ["abc", "def", "g"]


async def test_the_first_of_two_content_types_counts(app: Flask, client):
    @app.route("/", methods=["POST"])
    def view():
        return f"{request.mimetype} {request.form.to_dict()}"

    form = "application/x-www-form-urlencoded"
    fields = [("Content-Type", "application/json"), ("Content-Type", form)]
    got = await client.post("/", data=b"a=1", headers=fields)
    assert got.text == "application/json {}"


async def test_a_body_over_the_limit_is_413_and_hooks_run(app: Flask, client):
    app.max_content_length = 10
    seen = []
    app.before_request(lambda: seen.append(request.endpoint))

    @app.errorhandler(413)
    def too_large(error):
        assert request.environ["wsgi.input"].read() == b""
        return f"handled: {error.description}", 413

    @app.route("/", methods=["POST"])
    def view():
        return str(len(request.data))

    @app.route("/more", methods=["POST"], max_content_length=20)
    def more():
        return str(len(request.data))

    assert (await client.post("/", data=b"x" * 10)).text == "10"
    got = await client.post("/", data=b"x" * 11)
    assert got.status_code == 413
    assert got.text == "handled: The request's body is over the limit of 10 bytes."
    assert (await client.post("/more", data=b"x" * 20)).text == "20"
    assert (await client.post("/more", data=b"x" * 21)).status_code == 413
    assert seen == ["view", "view", "more", "more"]


@pytest.mark.parametrize(
    ("limit", "data"),
    [
        ({"max_form_memory_size": 9}, {"a": "x" * 10}),
        ({"max_form_memory_size": 9}, {"a": "x" * 10, "f": (b"", "f")}),
        ({"max_form_parts": 2}, {"a": "1", "b": "2", "c": "3"}),
        ({"max_form_parts": 2}, {"a": "1", "b": "2", "f": (b"", "f")}),
    ],
    ids=["memory", "memory-multipart", "parts", "parts-multipart"],
)
async def test_form_limits_are_413(app: Flask, client, limit, data):
    for name, value in limit.items():
        setattr(app, name, value)

    @app.route("/", methods=["POST"])
    def view():
        return request.form.to_dict()

    assert (await client.post("/", data=data)).status_code == 413


async def test_a_malformed_form_is_400(app: Flask, client):
    @app.route("/", methods=["POST"])
    def view():
        return request.form.to_dict()

    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        got = await client.post("/", data=b"--x\r\nnonsense", content_type=kind)
        assert got.status_code == 400


async def test_json_is_parsed_and_its_type_checked(app: Flask, client):
    @app.route("/", methods=["POST"])
    def view():
        return {"got": request.json}

    @app.route("/silent", methods=["POST"])
    def silent():
        return {"got": [request.get_json(silent=True), request.is_json]}

    assert (await client.post("/", json={"a": [1, None]})).json == {
        "got": {"a": [1, None]}
    }
    assert (await client.post("/", json=None)).json == {"got": None}
    bad = await client.post("/", data=b"{", content_type="application/json")
    assert bad.status_code == 400
    wrong = await client.post("/", data=b"{}", content_type="text/plain")
    assert wrong.status_code == 415
    kind = "application/vnd.api+json; charset=utf-8"
    assert (await client.post("/", data=b"1", content_type=kind)).json == {"got": 1}
    assert (await client.post("/silent", data=b"{")).json == {"got": [None, False]}


async def test_what_a_hook_has_read_the_view_reads_as_well(app: Flask, client):
    read = []

    @app.before_request
    def look():
        read.append(request.form["a"])

    @app.route("/", methods=["POST"])
    async def view():
        return request.form["a"]

    assert (await client.post("/", data={"a": "1"})).text == "1"
    assert read == ["1"]


async def test_header_fields_are_read(app: Flask, client):
    @app.route("/", methods=["POST"])
    def view():
        return {
            "xhr": request.is_xhr,
            "agent": [request.user_agent, request.user_agent.string],
            "referrer": request.referrer,
            "type": [request.mimetype, request.mimetype_params, request.content_type],
            "length": request.content_length,
            "auth": [request.authorization.username, request.authorization.password],
            "mime": request.accept_mimetypes.best_match(["text/html", "text/plain"]),
            "language": request.accept_languages.best_match(["de", "en"]),
            "encoding": "gzip" in request.accept_encodings,
            "charset": request.accept_charsets.best,
            "cookies": request.cookies.to_dict(),
            "header": request.headers.get("x-number", type=int),
            "client": request.remote_addr,
        }

    got = await client.post(
        "/",
        data=b"abc",
        headers={
            "X-Requested-With": "XMLHttpRequest",
            "User-Agent": "Browser/1",
            "Referer": "http://elsewhere/",
            "Content-Type": "Text/Plain; charset=x",
            "Authorization": "Basic YW5uOnM6ZWNyZXQ=",
            "Accept": "text/*;q=0.5, text/plain",
            "Accept-Language": "en-GB, de;q=0.5",
            "Accept-Encoding": "gzip, br",
            "Accept-Charset": "utf-8",
            "Cookie": 'a=1; bad; b="x\\054y"; a=2',
            "X-Number": "7",
        },
    )
    assert got.json == {
        "xhr": True,
        "agent": ["Browser/1", "Browser/1"],
        "referrer": "http://elsewhere/",
        "type": ["text/plain", {"charset": "x"}, "Text/Plain; charset=x"],
        "length": 3,
        "auth": ["ann", "s:ecret"],
        "mime": "text/plain",
        "language": "de",
        "encoding": True,
        "charset": "utf-8",
        "cookies": {"a": "1", "b": "x,y"},
        "header": 7,
        "client": "127.0.0.1",
    }


async def test_the_environ_is_made_on_demand(app: Flask, client):
    @app.route("/<path:x>", methods=["POST"])
    def view(x):
        environ = request.environ
        assert environ is request.environ
        keys = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
        more = ("HTTP_X_A", "CONTENT_TYPE", "CONTENT_LENGTH", "wsgi.url_scheme")
        found = {key: environ[key] for key in keys + more}
        return {**found, "body": environ["wsgi.input"].read().decode()}

    got = await client.post(
        "/ü?q=%20",
        base_url="http://h/app",
        data=b"body",
        headers={"X-A": "1"},
        content_type="text/x",
    )
    assert got.json == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/ü".encode().decode("latin-1"),
        "QUERY_STRING": "q=%20",
        "HTTP_X_A": "1",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "4",
        "wsgi.url_scheme": "http",
        "body": "body",
    }


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.com", "example.com"),
        ("example.com:80", "example.com"),
        ("example.com:8080", "example.com:8080"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("evil.com/../x?y#", None),
        ("a@b", None),
        ("a b", None),
        ("[::1", None),
        ("x:99999", None),
    ],
)
def test_a_malformed_host_is_refused(host, expected):
    app = Flask(__name__)
    with app.test_request_context("/", headers={"Host": host}):
        if expected is None:
            with pytest.raises(BadRequest):
                _ = request.url
        else:
            assert request.host == expected
        assert request.path == "/"


async def test_a_streamed_body_is_iterated_unread(app: Flask, client):
    @app.route("/plain", methods=["POST"], stream_body=True)
    def plain():
        with pytest.raises(RuntimeError, match="stream_body=True"):
            _ = request.data
        return str(sum(len(chunk) for chunk in request.stream))

    @app.route("/async", methods=["POST"], stream_body=True)
    async def asynchronous():
        return str(sum([len(chunk) async for chunk in request.stream]))

    for path in "/async", "/plain":
        if path == "/plain" and client.driver == "loop":
            continue  # there are no plain views on this one
        assert (await client.post(path, data=b"x" * 5000)).text == "5000"


async def test_a_request_class_of_ones_own_is_used(app: Flask, client):
    from asyncflask import Request

    class Mine(Request):
        def __init__(self, scope):
            super().__init__(scope)
            self.mark = "mine"

        @property
        def shout(self):
            return self.path.upper()

    app.request_class = Mine

    @app.route("/x")
    def view():
        return f"{request.mark} {request.shout} {isinstance(request, Mine)}"

    assert (await client.get("/x")).text == "mine /X True"


async def test_a_class_of_ones_own_may_build_on_what_is_worked_out_late(
    app: Flask, client
):
    class Own(Request):
        def adopt(self, ctx):
            super().adopt(ctx)
            self.is_current = request._get_current_object() is self

        @property
        def args(self):
            return {**super().args, "more": "1"}

    app.request_class = Own

    @app.route("/")
    def view():
        assert request.is_current
        return dict(request.args)

    assert (await client.get("/?a=b")).json == {"a": "b", "more": "1"}
