"""The small blog once more, with every function that waits written ``async def``.

Templates, style sheet and schema are those of ``flaskr.py``, and so are the
tests. The connection is aiosqlite's: it keeps sqlite3 in a thread of its own, and
may be awaited from anywhere. So one connection per request does for all of it,
``/stats`` included, and no request takes a worker thread.

Run it from its folder, with ``aiosqlite`` installed::

    uvicorn flaskr_async:app
"""

from __future__ import annotations

import hmac
import os
from typing import Any

import aiosqlite

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


async def init_db(db: aiosqlite.Connection) -> None:
    """Make the tables; those that exist already stay as they are."""
    with app.open_resource("schema.sql") as schema:
        await db.executescript(schema.read().decode())


async def has_tables(db: aiosqlite.Connection) -> bool:
    """Say whether :func:`init_db` has been here."""
    query = "select 1 from sqlite_master where name = 'entries'"
    async with db.execute(query) as cursor:
        return await cursor.fetchone() is not None


@app.before_request
async def open_db() -> None:
    """Open a connection for this request; a writer waits for up to half a minute."""
    g.db = await aiosqlite.connect(DATABASE, timeout=30)
    g.db.row_factory = aiosqlite.Row
    if not await has_tables(g.db):
        await init_db(g.db)


@app.teardown_request
async def close_db(exc: BaseException | None) -> None:
    """Close the connection, also when the view failed."""
    if "db" in g:
        await g.db.close()


# ------------------------------------------------------------------------- views


@app.route("/")
async def show_entries() -> str:
    """Show all entries, the newest first."""
    query = "select title, text from entries order by id desc"
    async with g.db.execute(query) as cursor:
        return render_template("show_entries.html", entries=await cursor.fetchall())


@app.route("/add", methods=["POST"])
async def add_entry() -> Response:
    """Publish an entry, for those who are logged in."""
    if not session.get("logged_in"):
        abort(401)

    title = request.form["title"].strip()
    if not title:
        flash("An entry needs a title.", "error")
        return redirect(url_for("show_entries"))

    await g.db.execute(
        "insert into entries (title, text) values (?, ?)",
        (title, request.form["text"].strip()),
    )
    await g.db.commit()  # closing the connection without it rolls back
    flash("Your entry is online.")
    return redirect(url_for("show_entries"))


@app.route("/login", methods=["GET", "POST"])
async def login() -> Any:
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
async def logout() -> Response:
    """End the session, and say so once."""
    session.pop("logged_in", None)
    flash("See you soon.")
    return redirect(url_for("show_entries"))


@app.route("/stats")
async def stats() -> dict[str, int]:
    """Count the entries, for programs."""
    async with g.db.execute("select count(*) from entries") as cursor:
        return {"entries": (await cursor.fetchone())[0]}


if __name__ == "__main__":
    app.run()
