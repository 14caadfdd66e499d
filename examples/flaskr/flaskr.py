"""A small blog: the tutorial application of Flask 0.1, on an ASGI server.

It shows that plain code stays plain. The sqlite3 connection is opened in a
``before_request`` function, used by plain views and closed at the end of the
request. A connection belongs to the thread that opened it; asyncflask runs all
plain functions of a request in one thread, so this works with hundreds of
requests in flight. There is one ``async def`` view among them, ``/stats``.

Run it from its folder::

    uvicorn flaskr:app        # or: python flaskr.py

and log in as ``admin`` with the password ``default``. The database is made with
the first request. Three environment variables change the defaults:
``FLASKR_DATABASE``, ``FLASKR_PASSWORD`` and ``FLASKR_SECRET_KEY``.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
from contextlib import closing
from typing import Any

import anyio.to_thread

from asyncflask import (
    Flask,
    Response,
    abort,
    flash,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)

app = Flask(__name__)
app.secret_key = os.environ.get("FLASKR_SECRET_KEY", "only for development")

#: where the entries are kept
DATABASE = os.environ.get("FLASKR_DATABASE", os.path.join(app.root_path, "flaskr.db"))
#: who may write
USERNAME = "admin"
PASSWORD = os.environ.get("FLASKR_PASSWORD", "default")


# ------------------------------------------------------------------ the database


def connect_db() -> sqlite3.Connection:
    """Open the database; a writer waits in line for up to half a minute."""
    db = sqlite3.connect(DATABASE, timeout=30)
    db.row_factory = sqlite3.Row
    return db


def init_db() -> None:
    """Make the tables; those that exist already stay as they are."""
    with closing(connect_db()) as db, app.open_resource("schema.sql") as schema:
        db.executescript(schema.read().decode())


def has_tables(db: sqlite3.Connection) -> bool:
    """Say whether :func:`init_db` has been here."""
    query = "select 1 from sqlite_master where name = 'entries'"
    return db.execute(query).fetchone() is not None


@app.before_request
def open_db() -> None:
    """Open a connection for this request, in the thread that its view runs in."""
    g.db = connect_db()
    if not has_tables(g.db):
        init_db()


@app.teardown_request
def close_db(exc: BaseException | None) -> None:
    """Close the connection, also when the view failed."""
    if "db" in g:
        g.db.close()


# ------------------------------------------------------------------------- views


@app.route("/")
def show_entries() -> str:
    """Show all entries, the newest first."""
    query = "select title, text from entries order by id desc"
    return render_template("show_entries.html", entries=g.db.execute(query).fetchall())


@app.route("/add", methods=["POST"])
def add_entry() -> Response:
    """Publish an entry, for those who are logged in."""
    if not session.get("logged_in"):
        abort(401)

    title = request.form["title"].strip()
    if not title:
        flash("An entry needs a title.", "error")
        return redirect(url_for("show_entries"))

    with g.db:  # commits, or rolls back if the insert fails
        g.db.execute(
            "insert into entries (title, text) values (?, ?)",
            (title, request.form["text"].strip()),
        )
    flash("Your entry is online.")
    return redirect(url_for("show_entries"))


@app.route("/login", methods=["GET", "POST"])
def login() -> Any:
    """Show the form, or check what was typed into it."""
    if request.method == "GET":
        return render_template("login.html")

    if not is_owner(request.form["username"], request.form["password"]):
        flash("Name and password do not match.", "error")
        return render_template("login.html", username=request.form["username"])

    session["logged_in"] = True
    flash("Welcome back.")
    return redirect(url_for("show_entries"))


def is_owner(username: str, password: str) -> bool:
    """Compare in constant time, so that the answer's delay tells nothing."""
    right_name = hmac.compare_digest(username.encode(), USERNAME.encode())
    right_password = hmac.compare_digest(password.encode(), PASSWORD.encode())
    return right_name and right_password


@app.route("/logout")
def logout() -> Response:
    """End the session, and say so once."""
    session.pop("logged_in", None)
    flash("See you soon.")
    return redirect(url_for("show_entries"))


@app.route("/stats")
async def stats() -> dict[str, int]:
    """Count the entries, for programs.

    An ``async def`` view among plain ones, and under the same plain hooks. It
    runs on the event loop, while ``g.db`` belongs to the worker thread of the
    hooks, and sqlite3 refuses to be used from another thread. So it leaves
    ``g.db`` alone and has a thread count, over a connection of that thread's
    own; meanwhile the loop is free for everybody else.
    """
    return {"entries": await anyio.to_thread.run_sync(count_entries)}


def count_entries() -> int:
    """Count over a connection of one's own, in whatever thread calls."""
    with closing(connect_db()) as db:
        count: int = db.execute("select count(*) from entries").fetchone()[0]
        return count


if __name__ == "__main__":
    app.run()
