"""The jobs: what is asked for, and how to tell the right answer.

An answer is checked by a function that raises :class:`AssertionError` for a
wrong one, so that nobody wins a row by doing less.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from . import work
from .driving import NUMBER, Answer, Request

Check = Callable[[Answer], None]


@dataclass
class Job:
    """One row of the table.

    :ivar name: what it is called in the tables of :mod:`benchmarks.apps`.
    :ivar title: what it is called in the report.
    :ivar request: what to ask for.
    :ivar check: raises for a wrong answer.
    :ivar number: how many requests a round has at most.
    :ivar hooks: how many functions must have been called before, and after.
    :ivar follow_up: makes header fields for the request out of the answer to
        one without them, as a browser does.
    :ivar app: the job whose applications it is asked of, if that is another.
    """

    name: str
    title: str
    request: Request
    check: Check
    number: int = 1000
    hooks: int = 0
    follow_up: Callable[[Answer], dict[str, str]] | None = field(default=None)
    app: str = ""


# ----------------------------------------------------------------------- checks


def expect(condition: bool, answer: Answer) -> None:
    """Raise for a wrong answer, and show it."""
    if not condition:
        raise AssertionError(f"it answers {answer.status}, {answer.body[:60]!r}")


def says(text: str) -> Check:
    """Expect a page with a text."""

    def check(answer: Answer) -> None:
        is_html = answer.headers.get("content-type", "").startswith("text/html")
        expect(answer.status == 200 and is_html, answer)
        expect(answer.body == text.encode(), answer)

    return check


def has_status(status: int, *headers: str) -> Check:
    """Expect a status, and header fields that must be there."""

    def check(answer: Answer) -> None:
        expect(answer.status == status, answer)
        expect(all(name in answer.headers for name in headers), answer)

    return check


def is_record(answer: Answer) -> None:
    """Expect the record as JSON."""
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    expect(answer.status == 200 and is_json, answer)
    expect(json.loads(answer.body) == work.RECORD, answer)


def is_redirect(answer: Answer) -> None:
    """Expect a redirect to the path with a slash."""
    expect(answer.status in (301, 302, 307, 308), answer)
    expect(answer.headers["location"].endswith("/about/"), answer)


def has_rows(answer: Answer) -> None:
    """Expect all rows, escaped."""
    text = answer.body.decode()
    expect(answer.status == 200 and text.count("<tr>") == len(work.ROWS), answer)
    expect(text.count("&lt;Name &amp; ") == len(work.ROWS), answer)


def is_file(name: str) -> Check:
    """Expect a static file."""

    def check(answer: Answer) -> None:
        content = (work.site() / "static" / name).read_bytes()
        expect(answer.status == 200 and answer.body == content, answer)

    return check


def is_not_modified(answer: Answer) -> None:
    """Expect that the browser's file is still good."""
    expect(answer.status == 304 and not answer.body, answer)


def revalidate(answer: Answer) -> dict[str, str]:
    """Return what a browser sends that has the file."""
    fields = {"if-none-match": "etag", "if-modified-since": "last-modified"}
    return {k: answer.headers[v] for k, v in fields.items() if v in answer.headers}


def keep_cookie(answer: Answer) -> dict[str, str]:
    """Return what a browser sends that has got a cookie."""
    return {"cookie": answer.headers.get("set-cookie", "").partition(";")[0]}


# --------------------------------------------------------------------- requests


def build_multipart() -> Request:
    """Return an upload: ten fields and a file."""
    start, end = multipart_frame()
    return Request("/upload", "POST", headers=MULTIPART, body=start + FILE + end)


def multipart_frame() -> tuple[bytes, bytes]:
    """Return what stands around the file: ten fields before it, the end behind."""
    fields = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="field{n}"\r\n\r\n'
        f"value {n}\r\n"
        for n in range(10)
    )
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="film.mp4"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    )
    return (fields + head).encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


BOUNDARY = "----geckoformboundary7d1f0c2b9e8a4d55"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}

#: 10 MB that are not all alike, line ends and dashes included
FILE = os.urandom(1_000_000) * 10

RECORD = Request(
    "/echo",
    "POST",
    headers={"content-type": "application/json"},
    body=json.dumps(work.RECORD).encode(),
)

URLENCODED = Request(
    "/form",
    "POST",
    headers={"content-type": "application/x-www-form-urlencoded"},
    body=b"name=Ada+Lovelace&email=ada%40example.com&text=Caf%C3%A9+au+lait",
)

SESSION_COOKIE = "session=eyJ2aXNpdHMiOjF9.aP0000.3qXBcN-tJHvKpY2wQxg5Zr0uE8o"

STREAMED = b"".join(work.chunks()).decode()

JOBS = [
    Job("hello", "hello world", Request("/"), says("Hello World")),
    Job(
        "unused",
        "the same with cookies and a query that nobody reads",
        Request("/", query="a=1&b=2&c=3", headers={"cookie": SESSION_COOKIE}),
        says("Hello World"),
    ),
    Job("user", "`/user/<int:id>`", Request("/user/{}"), says("42")),
    Job(
        "same_user",
        "the same, one id again and again",
        Request("/user/42"),
        says("42"),
        app="user",
    ),
    Job("json", "JSON of a small dict", Request("/json"), is_record),
    Job(
        "async_hooks",
        "two async functions before, two after",
        Request("/"),
        says("Hello World"),
        hooks=2,
    ),
    Job("not_found", "404", Request("/no/such/page/{}"), has_status(404)),
    Job(
        "same_not_found",
        "the same, one path again and again",
        Request("/no/such/page"),
        has_status(404),
        app="not_found",
    ),
    Job(
        "not_allowed",
        "405",
        Request("/json", "POST"),
        has_status(405, "allow"),
    ),
    Job("slash", "redirect to the slash", Request("/about"), is_redirect),
    *[
        Job(
            f"rules_{count}",
            f"the last of {count:,} rules",
            Request(work.last_rule(count)),
            says("42 None"),
        )
        for count in (10, 1000, 10_000)
    ],
    Job(
        "same_rule_1000",
        "the last of 1,000 rules, one id again and again",
        Request(work.last_rule(1000).format(NUMBER)),
        says("42 None"),
        app="rules_1000",
    ),
    Job("url_for", "`url_for` with two values", Request("/"), says("")),
    Job("template", "template of 20 rows", Request("/rows"), has_rows, 200),
    Job("echo", "JSON in, the same JSON out", RECORD, is_record),
    Job(
        "form",
        "form of three fields",
        URLENCODED,
        says("Ada Lovelace, ada@example.com, Café au lait"),
    ),
    Job(
        "multipart",
        "upload: ten fields, 10 MB",
        build_multipart(),
        says(f"10 fields, {len(FILE)} bytes up to {FILE[-8:].hex()}"),
        3,
    ),
    Job(
        "session",
        "session read and written",
        Request("/visits"),
        says("2"),
        500,
        follow_up=keep_cookie,
    ),
    Job("plain", "`def` view", Request("/plain"), says("Hello World"), 300),
    Job(
        "plain_hooks",
        "`def` view, two plain functions before, two after",
        Request("/plain"),
        says("Hello World"),
        300,
        hooks=2,
    ),
    Job(
        "stream",
        "1,000 chunks, async generator",
        Request("/lines"),
        says(STREAMED),
        20,
    ),
    Job(
        "plain_stream",
        "1,000 chunks, plain generator",
        Request("/plain-lines"),
        says(STREAMED),
        10,
    ),
    Job(
        "static",
        "static file of 10 kB",
        Request("/static/style.css"),
        is_file("style.css"),
        200,
    ),
    Job(
        "static_304",
        "304 for it",
        Request("/static/style.css"),
        is_not_modified,
        200,
        follow_up=revalidate,
    ),
    Job(
        "static_big",
        "static file of 10 MB",
        Request("/static/film.mp4"),
        is_file("film.mp4"),
        3,
    ),
]
