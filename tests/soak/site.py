"""What the soak serves: run as ``tests.soak.site:app``.

It fails only where it means to, and writes down what it opens and what it ends,
so that who runs it can compare the two.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from asyncflask import Flask, g, render_template_string_async, request, session
from asyncflask.context import RequestContext

from .limits import BODY_TIMEOUT, MOST_BYTES, MOST_PARTS, VIEW_TIMEOUT, WORKERS

#: where the database, the static files and the list of events are
FOLDER = Path(os.environ["SOAK_FOLDER"])
logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")

#: what was opened and ended, so many times
counts: Counter[str] = Counter()
lock = threading.Lock()
#: seconds that the loop kept a task waiting, since somebody last asked
PAUSE = 0.02
lags: list[float] = [0.0]
events = os.open(FOLDER / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def count(name: str) -> None:
    """Count something, in whichever thread it happens."""
    with lock:
        counts[name] += 1


def note(what: str) -> None:
    """Write an event of this request down, at once and in one piece."""
    name = request.headers.get("X-Name")
    if name:
        os.write(events, f"{what} {name}\n".encode())


class Boom(Exception):
    """What the site raises on purpose."""


def new_app(name: str) -> Flask:
    """Return an application with the limits of the soak."""
    app = Flask(name)
    app.root_path = str(FOLDER)
    app.secret_key = "a secret for the soak"
    app.worker_threads = WORKERS
    app.max_content_length = MOST_BYTES
    app.max_form_parts = MOST_PARTS
    return app


# ------------------------------------------------- the one that is mostly async

app = new_app(__name__)


async def measure() -> None:
    """Measure how long the loop keeps a task waiting."""
    while True:
        start = time.perf_counter()
        await asyncio.sleep(PAUSE)
        lags.append(time.perf_counter() - start - PAUSE)


@app.while_serving
async def serving():
    os.write(events, b"serving-start -\n")
    measuring = asyncio.create_task(measure())
    yield
    measuring.cancel()
    os.write(events, b"serving-end -\n")


@app.before_request
async def before():
    count("before")
    g.is_begun = True  # not where the body never came
    note("begin")


@app.teardown_request
async def after(exception):
    if "is_begun" in g:
        count("teardown")
    await asyncio.sleep(0)  # cleaning up may wait, as closing a connection does
    note("teardown")


@app.route("/")
async def index():
    return "hello"


@app.route("/plain/<int:number>")
def plain(number):
    return f"plain {number}"


@app.route("/args/<path:rest>")
async def args(rest):
    return {"rest": rest, "args": request.args.multi_items()}


@app.route("/template")
async def template():
    text = "{% for n in range(count) %}<b>{{ n }}&{{ word }}</b>{% endfor %}"
    word = request.args.get("word", "")
    return await render_template_string_async(text, count=20, word=word)


@app.route("/echo", methods=["POST"])
async def echo():
    return request.data


@app.route("/echo/plain", methods=["POST"])
def echo_plain():
    return request.data


@app.route("/slow-body", methods=["POST"], body_timeout=BODY_TIMEOUT)
async def slow_body():
    return request.data


def described_form() -> dict[str, Any]:
    """Return what a form holds; of files, name, size and digest."""
    return {
        "fields": request.form.multi_items(),
        "files": [
            [name, file.filename, *digest(file.read())]
            for name, file in request.files.multi_items()
        ],
    }


def digest(data: bytes) -> tuple[int, str]:
    """Return size and digest of some bytes."""
    return len(data), hashlib.sha1(data, usedforsecurity=False).hexdigest()


@app.route("/form", methods=["POST"])
async def form():
    return described_form()


@app.route("/form/plain", methods=["POST"])
def form_plain():
    return described_form()


@app.route("/upload", methods=["POST"], stream_body=True)
async def upload():
    chunks = [chunk async for chunk in request.stream]
    return list(digest(b"".join(chunks)))


@app.route("/upload/plain", methods=["POST"], stream_body=True)
def upload_plain():
    return list(digest(b"".join(request.stream)))


@app.route("/visit")
async def visit():
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])


@app.route("/stream/<int:lines>/<float:pause>")
async def stream(lines, pause):
    count("stream")
    note("open")
    try:
        for number in range(lines):
            yield f"{number} {'x' * 1000}\n"
            await asyncio.sleep(pause)
    finally:
        await asyncio.sleep(0)
        count("stream-end")
        note("close")


@app.route("/stream/plain/<int:lines>/<float:pause>")
def stream_plain(lines, pause):
    count("stream")
    note("open")
    try:
        for number in range(lines):
            yield f"{number} {'x' * 1000}\n"
            time.sleep(pause)
    finally:
        count("stream-end")
        note("close")


@app.route("/wait/<float:seconds>", cancel_on_disconnect=True)
async def wait(seconds):
    await asyncio.sleep(seconds)
    note("waited")
    return "waited"


@app.route("/wait/plain/<float:seconds>")
def wait_plain(seconds):
    time.sleep(seconds)
    note("waited")
    return "waited"


@app.route("/late", view_timeout=VIEW_TIMEOUT)
async def late():
    await asyncio.sleep(60)


@app.route("/late/plain", view_timeout=VIEW_TIMEOUT)
def late_plain():
    time.sleep(VIEW_TIMEOUT * 2)
    return "nobody waits for this"


@app.route("/boom")
async def boom():
    raise Boom("on purpose")


@app.route("/boom/stream")
def boom_in_stream():
    yield "x" * 1000
    raise Boom("on purpose, in a stream")


# ------------------------------------------------- the one that is as in 2010

old = new_app("tests.soak.old")
old.static_path = None
DATABASE = str(FOLDER / "soak.db")


@old.before_request
def connect():
    count("connect")
    g.db = sqlite3.connect(DATABASE, timeout=20)
    note("begin")


@old.teardown_request
def disconnect(exception):
    if hasattr(g, "db"):
        g.db.close()
        count("disconnect")
    note("teardown")


@old.route("/entry/<name>", methods=["POST"])
def add(name):
    g.db.execute("insert into entries values (?, ?)", (name, request.form["text"]))
    g.db.commit()
    return "added", 201


@old.route("/entry/<name>")
def entry(name):
    query = "select text from entries where name = ?"
    return g.db.execute(query, (name,)).fetchone()[0]


@old.route("/entry/<name>", methods=["DELETE"], endpoint="remove")
async def remove(name):
    await asyncio.sleep(0)  # plain hooks around an async view: there and back
    return await asyncio.to_thread(remove_entry, name)


def remove_entry(name: str) -> str:
    with closing(sqlite3.connect(DATABASE, timeout=20)) as db:
        db.execute("delete from entries where name = ?", (name,))
        db.commit()
    return "removed"


@old.route("/numbers/<int:lines>")
def numbers(lines):
    count("stream")
    note("open")
    query = "with recursive n(i) as (select 0 union all select i + 1 from n) "
    cursor = g.db.execute(query + "select i from n limit ?", (lines,))
    try:
        for (number,) in cursor:
            yield f"{number}\n"
    finally:
        cursor.close()
        count("stream-end")
        note("close")


app.mount("/db", old)


# ------------------------------------------------------------------- the guests


async def guest(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what came in, as an ASGI application does."""
    if scope["type"] != "http":
        return

    chunks, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await send({"type": "http.response.body", "body": b"".join(chunks)})


def wsgi_guest(environ: Any, start_response: Any) -> list[bytes]:
    """Answer with what came in, as a WSGI application does."""
    try:
        body = environ["wsgi.input"].read()
    except OSError:
        body = b"lost"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body[:10], body[10:]]


app.mount("/asgi", guest)
app.mount("/wsgi", wsgi_guest)


# --------------------------------------------------------------- looking inside


@app.route("/meet/<float:seconds>")
def meet(seconds):
    time.sleep(seconds)  # all who meet here hold a thread each
    return "met"


@old.route("/meet/<float:seconds>", endpoint="old_meet")
def old_meet(seconds):
    time.sleep(seconds)
    return "met"


@app.route("/state")
async def state():
    """Say what the process holds; with ``deep``, also what the collector sees."""
    is_asgi = "asyncflask.environ" not in request.scope
    said = {
        "tasks": len(asyncio.all_tasks()) if is_asgi else 0,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "workers": [app.workers.stats(), old.workers.stats()],
        "counts": dict(counts),
        "blocks": sys.getallocatedblocks(),
        "lag": max(lags),
    }
    lags[:] = [0.0]
    if request.args.get("deep"):
        gc.collect()
        said["blocks"] = sys.getallocatedblocks()
        said["contexts"] = sum(
            issubclass(type(thing), RequestContext) for thing in gc.get_objects()
        )
    return said


def prepare() -> None:
    """Make what the site serves."""
    static = FOLDER / "static"
    static.mkdir(exist_ok=True)
    (static / "small.txt").write_bytes(b"0123456789" * 10)
    (static / "big.bin").write_bytes(bytes(range(256)) * 4000)
    (FOLDER / "secret").write_bytes(b"nobody is to see this")
    with closing(sqlite3.connect(DATABASE)) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = off")
        db.execute("create table if not exists entries (name primary key, text)")
        db.commit()


prepare()
