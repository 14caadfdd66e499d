"""What is fuzzed: each target makes an input, and checks what comes of it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlencode

from asyncflask import Flask, Request, Response, _request_ctx_stack
from asyncflask.context import RequestContext
from asyncflask.cookies import dump_cookie, parse_cookies, parse_set_cookie
from asyncflask.dates import parse_http_date
from asyncflask.exceptions import (
    BadRequest,
    BuildError,
    HTTPException,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
)
from asyncflask.forms import Limits, new_body
from asyncflask.routing import Map, SlashRequired
from asyncflask.rules import Rule
from asyncflask.sessions import open_session
from asyncflask.static import respond as static_response

from . import site
from .mutation import TOKENS, corpus, cut, mutated

#: seconds that the application may wait for anything
PATIENCE = 20


class Fault(AssertionError):
    """What must not come of any input."""


def check(holds: Any, what: str, *details: Any) -> None:
    """Raise a fault unless something holds."""
    if not holds:
        raise Fault(" ".join([what, *map(repr, details)])[:2000])


class Target:
    """One door of the library.

    :param folder: a folder of its own, for files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def input(self, random: Random) -> Any:
        """Return the next input."""
        raise NotImplementedError

    def run(self, given: Any) -> None:
        """Take an input in, and raise for whatever must not happen."""
        raise NotImplementedError

    def close(self) -> None:
        """End all that was started."""


# ------------------------------------------------------------- whole requests


class Raw:
    """A request as it came from the wire, taken apart leniently."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        method, _, rest = line.partition(b" ")
        target = rest.rpartition(b" ")[0] or rest
        path, _, self.query = target.partition(b"?")
        self.method = method.decode("latin-1").upper() or "GET"
        self.path = unquote_to_bytes(path.decode("latin-1"))
        self.raw_path = path
        self.headers = []
        for field in fields:
            name, colon, value = field.partition(b":")
            if colon:
                self.headers.append((name.strip().lower(), value.strip()))


def requests() -> list[bytes]:
    """Return the decent requests."""
    entries = corpus("requests.http")
    return [entry.replace(b"SESSION", site.signed_session()) for entry in entries]


class Requests(Target):
    """Whole requests at one of the two doors of the site."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        site.write_files(folder)
        self.corpus = requests()
        self.sites = [site.build(folder, plain) for plain in (False, True)]

    def input(self, random: Random) -> Any:
        """Return which site, a request, how its body is cut, and where it ends."""
        raw = Raw(mutated(random, random.choice(self.corpus), self.corpus))
        chunks = cut(random, raw.body)
        ends_at = random.randrange(len(chunks) + 1) if random.random() < 0.05 else None
        return random.random() < 0.2, raw, chunks, ends_at

    def close(self) -> None:
        """End the workers."""
        inner = [mount.app for app in self.sites for mount in app.mounts]
        for app in [*self.sites, *(app for app in inner if isinstance(app, Flask))]:
            stats = app.workers.stats()
            check((stats["lent"], stats["waiting"]) == (0, 0), "workers", stats)
            app.workers.close()


def check_header(status: int, fields: list[tuple[bytes, bytes]]) -> None:
    """Check what goes out in front of a body."""
    check(100 <= status < 500, "the status is", status)
    for name, value in fields:
        check(type(name) is bytes and type(value) is bytes, "no bytes", name, value)
        check(not set(name + value) & set(b"\r\n\0"), "a line break", name, value)
        check(name == name.lower() and name, "the field's name is", name)


def check_length(method: str, fields: list[tuple[bytes, bytes]], length: int) -> None:
    """Check that a body is as long as the header says."""
    if method == "HEAD":
        check(length == 0, "a body for HEAD, of length", length)
        return
    said = [int(value) for name, value in fields if name == b"content-length"]
    check(said in ([], [length]), "Content-Length", said, length)


class Asgi(Requests):
    """The site as a server of the one protocol calls it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runner = asyncio.Runner()

    def run(self, given: Any) -> None:
        """Send a request and read the whole response."""
        self.runner.run(self.request(*given))

    async def request(
        self, plain: bool, raw: Raw, chunks: list[bytes], ends_at: int | None
    ) -> None:
        """Send one request."""
        pending = [
            {"type": "http.request", "body": chunk, "more_body": n < len(chunks) - 1}
            for n, chunk in enumerate(chunks)
        ][:ends_at]
        over = asyncio.Event()
        if ends_at is not None:
            over.set()
        sent: list[Any] = []

        async def receive() -> Any:
            if pending:
                return pending.pop(0)
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                over.set()

        try:
            async with asyncio.timeout(PATIENCE):
                await self.sites[plain](asgi_scope(raw), receive, send)
        except site.Boom:
            check(not sent, "something was sent before it went boom", sent)
        else:
            check(sent or ends_at is not None, "no response")
            check_messages(raw.method, sent, ends_at is not None)
        check(_request_ctx_stack.top is None, "a context was left bound")
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:  # those that were cancelled need one turn to end
            await asyncio.sleep(0)
            tasks = {task for task in tasks if not task.done()}
        check(not tasks, "tasks were left behind", tasks)

    def close(self) -> None:
        """End the loop too."""
        super().close()
        self.runner.close()


def asgi_scope(raw: Raw) -> dict[str, Any]:
    """Return what a server makes of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": raw.method,
        "scheme": "http",
        "path": raw.path.decode("utf-8", "replace"),
        "raw_path": raw.raw_path,
        "query_string": raw.query,
        "root_path": "",
        "headers": raw.headers,
        "client": ("127.0.0.1", 123),
        "server": ("127.0.0.1", 80),
    }


def check_messages(method: str, sent: list[Any], is_partial: bool) -> None:
    """Check that messages are one response."""
    if is_partial and not sent:
        return
    start, *bodies = sent
    check(start["type"] == "http.response.start", "it starts with", start)
    check_header(start["status"], start["headers"])
    check(
        all(message["type"] == "http.response.body" for message in bodies),
        "messages",
        sent,
    )
    more = [message.get("more_body", False) for message in bodies]
    if is_partial and not (more and not more[-1]):
        return
    check(more == [True] * (len(more) - 1) + [False], "it ends like", more)
    length = sum(len(message.get("body", b"")) for message in bodies)
    check_length(method, start["headers"], length)


class Wsgi(Requests):
    """The site as a server of the other protocol calls it."""

    def run(self, given: Any) -> None:
        """Send a request and read the whole response, or the beginning of it."""
        plain, raw, chunks, ends_at = given
        said: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            check(not said, "start_response was called twice", said)
            said.extend([status, headers])

        environ = wsgi_environ(raw, b"".join(chunks[:ends_at]))
        try:
            body = self.sites[plain].wsgi_app(environ, start_response)
        except site.Boom:
            check(not said, "something was said before it went boom", said)
        else:
            try:
                data = [
                    chunk for n, chunk in enumerate(body) if ends_at is None or not n
                ]
            finally:
                if hasattr(body, "close"):
                    body.close()
            self.check_answer(raw.method, said, data, is_partial=ends_at is not None)
        check(_request_ctx_stack.top is None, "a context was left bound")

    def check_answer(
        self, method: str, said: list[Any], data: list[bytes], is_partial: bool
    ) -> None:
        """Check that it is one response, as PEP 3333 wants it."""
        check(len(said) == 2, "start_response was not called")
        status, headers = said
        check(status[:3].isdigit() and status[3] == " ", "the status is", status)
        check(not set(status) & set("\r\n\0"), "the status is", status)
        fields = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers
        ]
        check_header(int(status[:3]), fields)
        check(all(type(chunk) is bytes for chunk in data), "chunks", data)
        if not is_partial:
            check_length(method, fields, sum(map(len, data)))


def wsgi_environ(raw: Raw, body: bytes) -> dict[str, Any]:
    """Return what a server makes of a request."""
    environ = {
        "REQUEST_METHOD": raw.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": raw.path.decode("latin-1"),
        "QUERY_STRING": raw.query.decode("latin-1"),
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in raw.headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = value.decode("latin-1")
    if "HTTP_TRANSFER_ENCODING" in environ:
        environ["wsgi.input_terminated"] = True
    return environ


# ------------------------------------------------------------------ the parsers


class Rules(Target):
    """Rules of any text: refused with a word of explanation, or good for use."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.corpus = corpus("rules.txt")
        self.paths = [Raw(data).path for data in requests()]

    def input(self, random: Random) -> Any:
        """Return rules, and paths to look up."""
        rules = [
            mutated(random, random.choice(self.corpus), self.corpus)[:500]
            for _ in range(random.choice((1, 1, 1, 2, 4)))
        ]
        paths = [
            mutated(random, random.choice(self.paths), self.paths)[:500]
            for _ in range(3)
        ]
        return [r.decode("utf-8", "replace") for r in rules], [
            p.decode("utf-8", "replace") for p in paths + rules
        ]

    def run(self, given: Any) -> None:
        """Add the rules, look the paths up, and build URLs of what was found."""
        texts, paths = given
        url_map = Map()
        for number, text in enumerate(texts):
            try:
                url_map.add(Rule(text, endpoint=str(number)))
            except (ValueError, LookupError) as exc:
                check(len(str(exc)) > 20, "no word of explanation", exc)
                check(repr(text) in str(exc), "it names no rule", text, exc)
        check(len(str(url_map).splitlines()) > len(url_map), "not printed")
        for path in paths:
            self.look_up(url_map, f"/{path.lstrip('/')}")

    def look_up(self, url_map: Map, path: str) -> None:
        """Find a path, and find the same again by the URL made of what was found."""
        quick: Any
        try:
            quick = url_map.find(path, "GET")
        except HTTPException as exc:
            quick = type(exc)
        try:
            found = url_map.match(path, "GET")
        except (HTTPException, SlashRequired) as exc:
            expected = None if isinstance(exc, SlashRequired) else type(exc)
            check(quick is expected, "the quick way says", quick, "of", path)
            return

        check(quick in (None, found), "the quick way finds another", quick, found)
        rule, values = found
        try:
            url = url_map.build(rule.endpoint, values)[1]
        except BuildError as exc:
            raise Fault(f"no URL for {values!r}, found at {path!r}") from exc
        check(url.isascii() and url.isprintable(), "the URL is", url)
        again = url_map.match(unquote(url), "GET")
        check(again == found, "found", found, "then", again, "by", url)


class Cookies(Target):
    """Fields with cookies."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        signed = site.signed_session()
        self.signed = signed
        self.corpus = [c.replace(b"SESSION", signed) for c in corpus("cookies.txt")]
        self.app = Flask("nowhere")
        self.app.secret_key = site.SECRET
        self.session = self.opened(b"session=" + signed)

    def opened(self, field: bytes) -> Any:
        """Return the session that a field brings."""
        return open_session(self.app, Request({"headers": [(b"cookie", field)]}))

    def input(self, random: Random) -> bytes:
        """Return a field."""
        return mutated(random, random.choice(self.corpus), self.corpus)

    def run(self, given: bytes) -> None:
        """Read it as both kinds of field, and open the session in it."""
        pairs = parse_cookies(given)
        check(all(name for name, _ in pairs), "a cookie without a name", pairs)
        parse_set_cookie(given.decode("latin-1"))
        for name, value in pairs:
            try:
                field = dump_cookie(name, value)
            except ValueError as exc:
                check(repr(name) in str(exc), "no word of explanation", exc)
                continue
            check(not set(field) & set("\r\n\0"), "a line break", field)
            check(
                parse_cookies(field.partition("; ")[0].encode()) == [(name, value)],
                field,
            )
        session = self.opened(given)
        check(
            session.new or session == self.session,
            "an altered session is",
            session,
        )


class Forms(Target):
    """Bodies, most of them forms of several parts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        raws = [Raw(data) for data in requests()]
        self.bodies = [raw.body for raw in raws if raw.body]
        self.kinds = [
            *(dict(raw.headers).get(b"content-type", b"") for raw in raws if raw.body),
            *[b"multipart/form-data; boundary=line"] * 20,
        ]

    def input(self, random: Random) -> Any:
        """Return a content type, a body in pieces, and limits."""
        kind = random.choice(self.kinds)
        if random.random() < 0.1:
            kind = mutated(random, kind, self.kinds)
        body = mutated(random, random.choice(self.bodies), self.bodies)
        limits = [random.choice((None, None, 5, 500)) for _ in range(3)]
        return kind.decode("latin-1"), cut(random, body), Limits(*limits)

    def run(self, given: Any) -> None:
        """Take the body apart, or refuse it as the client's fault."""
        kind, chunks, limits = given
        try:
            with closing(new_body(kind, limits)) as body:
                for chunk in chunks:
                    body.feed(chunk)
                body.end()
                size = sum(len(file.read()) for _, file in body.files)
                size += sum(len(value) for _, value in body.fields)
        except (BadRequest, RequestEntityTooLarge) as exc:
            check(exc.description, "no word of explanation")
        else:
            length = sum(map(len, chunks))
            check(size <= length, "there is more in it than came", size)
            limit = limits.content_length
            check(limit is None or length <= limit, "it is over the limit", length)


class Conditions(Target):
    """Fields that ask for a part, or on a condition, or for a kind."""

    names = (
        *("range", "if-range", "if-none-match", "if-modified-since", "accept", "host"),
        *("accept-language", "accept-encoding", "accept-charset", "authorization"),
        *("content-type", "content-length", "cookie"),
    )
    asked = (
        *("accept_mimetypes", "accept_languages", "accept_encodings", "authorization"),
        *("accept_charsets", "content_length", "mimetype_params", "is_json", "cookies"),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        site.write_files(folder)
        self.app = Flask(__name__)
        self.app.root_path = str(folder)
        self.corpus = corpus("fields.txt")
        self.files = {
            name: (folder / "static" / name).read_bytes()
            for name in ("small.txt", "big.bin", "empty", "sub/a.css")
        }

    def input(self, random: Random) -> Any:
        """Return the name of a file and header fields."""
        fields = [
            (
                random.choice(self.names).encode(),
                mutated(random, random.choice(self.corpus), self.corpus),
            )
            for _ in range(random.choice((1, 2, 3)))
        ]
        name = random.choice(["small.txt", "small.txt", "big.bin", "empty"])
        if random.random() < 0.1:
            tokens = TOKENS[:60]
            name = mutated(random, name.encode(), tokens).decode("utf-8", "replace")
        return name, fields, urlencode({"a": fields[0][1]}).encode()

    def run(self, given: Any) -> None:
        """Ask for the file, and for all that the fields say."""
        name, fields, query = given
        scope = {"method": "GET", "path": "/", "headers": fields, "query_string": query}
        ctx = RequestContext(self.app, scope)
        request = ctx.request
        for attribute in self.asked:
            getattr(request, attribute)
        request.accept_mimetypes.best_match(["text/html", "application/json"])
        request.accept_languages.best_match(["en", "de-AT"])
        check(len(request.args) == 1, "the query is", request.args)
        for _, value in fields:
            parse_http_date(value.decode("latin-1"))
        ctx.view_args = {"filename": name}
        try:
            response = static_response(ctx)
        except RequestedRangeNotSatisfiable:
            check(any(name == b"range" for name, _ in fields), "no range was asked for")
        except HTTPException as exc:
            check(exc.code == 404 and name not in self.files, "refused", name, exc)
        else:
            self.check_file(response)

    def check_file(self, response: Response) -> None:
        """Check that a response is a slice of a file of the site."""
        body = response.body
        if not isinstance(body, bytes):
            with body.file as file:
                body = file.read(body.length)
        check(response.status_code in (200, 206, 304), response.status_code)
        check(any(body in content for content in self.files.values()), "it sent", body)


TARGETS: dict[str, tuple[Callable[[Path], Target], int]] = {
    "asgi": (Asgi, 250_000),
    "wsgi": (Wsgi, 250_000),
    "rules": (Rules, 150_000),
    "cookies": (Cookies, 100_000),
    "forms": (Forms, 150_000),
    "conditions": (Conditions, 100_000),
}
