"""A microblog: register, write short messages, follow others.

It shows a larger plain application: a hook that knows who is asking, a
decorator for pages that need a login, template filters, a page for 404, and
passwords kept as salted hashes by the standard library alone. Everything is
plain ``def`` code over one sqlite3 connection per request.

Run it from its folder::

    uvicorn minitwit:app        # or: python minitwit.py

The database is made with the first request. ``MINITWIT_DATABASE`` says where,
and ``MINITWIT_SECRET_KEY`` what sessions are signed with.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

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
app.secret_key = os.environ.get("MINITWIT_SECRET_KEY", "only for development")

#: where everything is kept
DATABASE = os.environ.get(
    "MINITWIT_DATABASE", os.path.join(app.root_path, "minitwit.db")
)
#: messages on a page
PER_PAGE = 30
#: characters in a message
MAX_LENGTH = 280
#: what scrypt costs: N (memory and time), r and p; 16 MiB here
SCRYPT_COST = (2**14, 8, 1)

_USERNAME = re.compile(r"\w{2,30}")
_TIMELINE = """
    select user.username, user.email, message.text, message.pub_date
    from message join user on user.user_id = message.author_id
    where {condition}
    order by message.pub_date desc, message.message_id desc
    limit {limit}
"""


# ------------------------------------------------------------------ the database


def connect_db() -> sqlite3.Connection:
    """Open the database; a writer waits in line for up to half a minute."""
    db = sqlite3.connect(DATABASE, timeout=30)
    db.row_factory = sqlite3.Row
    db.execute("pragma foreign_keys = on")
    return db


def init_db() -> None:
    """Make the tables; those that exist already stay as they are."""
    with closing(connect_db()) as db, app.open_resource("schema.sql") as schema:
        db.executescript(schema.read().decode())


def query_one(query: str, *args: Any) -> sqlite3.Row | None:
    """Return the first row that a query finds, or None."""
    row: sqlite3.Row | None = g.db.execute(query, args).fetchone()
    return row


def execute(statement: str, *args: Any) -> None:
    """Change something, for good."""
    with g.db:
        g.db.execute(statement, args)


def timeline(condition: str, *args: Any) -> list[sqlite3.Row]:
    """Return the newest messages that a condition is true of.

    :param condition: SQL that stands in this file; what users typed goes into
        the arguments, never in here.
    """
    query = _TIMELINE.format(condition=condition, limit=PER_PAGE)
    rows: list[sqlite3.Row] = g.db.execute(query, args).fetchall()
    return rows


def find_user(username: str) -> sqlite3.Row:
    """Return a user by name, in whatever case; or answer 404."""
    user = query_one("select * from user where username = ?", username)
    if user is None:
        abort(404)

    return user


# -------------------------------------------------------------------- passwords


def hash_password(password: str) -> str:
    """Return what to store of a password: cost, random salt and hash.

    The cost is stored too, so that it can be raised one day while the old
    hashes can still be checked.
    """
    salt = secrets.token_bytes(16)
    n, r, p = SCRYPT_COST
    key = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p)
    return f"scrypt:{n}:{r}:{p}:{salt.hex()}:{key.hex()}"


def check_password(stored: str, password: str) -> bool:
    """Say whether a password is the one that was stored."""
    _, n, r, p, salt, expected = stored.split(":")
    key = hashlib.scrypt(
        password.encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p)
    )
    return hmac.compare_digest(key, bytes.fromhex(expected))


# ------------------------------------------------------------- hooks and filters


@app.before_request
def open_db() -> None:
    """Open a connection, and find out who is asking."""
    g.db = connect_db()
    if query_one("select 1 from sqlite_master where name = 'message'") is None:
        init_db()
    user_id = session.get("user_id")
    g.user = query_one("select * from user where user_id = ?", user_id)


@app.teardown_request
def close_db(exc: BaseException | None) -> None:
    """Close the connection, also when the view failed."""
    if "db" in g:
        g.db.close()


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Answer 401 to those who are not logged in, in place of the view."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if g.user is None:
            abort(401)

        return view(*args, **kwargs)

    return guarded


def gravatar_url(email: str, size: int = 96) -> str:
    """Return the address of a user's picture, or of a pattern in its place."""
    digest = hashlib.sha256(email.strip().lower().encode()).hexdigest()
    return f"https://www.gravatar.com/avatar/{digest}?d=identicon&s={size}"


def format_datetime(timestamp: int) -> str:
    """Return a time for people to read."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def iso_datetime(timestamp: int) -> str:
    """Return a time for programs to read."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat()


app.jinja_env.filters.update(
    gravatar=gravatar_url, datetime=format_datetime, isodatetime=iso_datetime
)


@app.errorhandler(404)
def not_found(error: Exception) -> tuple[str, int]:
    """Show a page that still looks like ours."""
    return render_template("not_found.html"), 404


# --------------------------------------------------------------------- timelines


@app.route("/")
def my_timeline() -> Any:
    """Show what the user and those they follow wrote; strangers see it all."""
    if g.user is None:
        return redirect(url_for("public_timeline"))

    followed = "select whom_id from follower where who_id = ?"
    condition = f"message.author_id = ? or message.author_id in ({followed})"
    me = g.user["user_id"]
    return render_template(
        "timeline.html", title="My timeline", messages=timeline(condition, me, me)
    )


@app.route("/public")
def public_timeline() -> str:
    """Show the newest messages of everybody."""
    return render_template(
        "timeline.html", title="Public timeline", messages=timeline("true")
    )


@app.route("/<username>")
def user_timeline(username: str) -> str:
    """Show what one user wrote."""
    author = find_user(username)
    messages = timeline("message.author_id = ?", author["user_id"])
    return render_template(
        "timeline.html",
        title=author["username"],
        messages=messages,
        author=author,
        followed=is_followed(author),
    )


def is_followed(author: sqlite3.Row) -> bool:
    """Say whether whoever is asking follows a user."""
    if g.user is None:
        return False

    query = "select 1 from follower where who_id = ? and whom_id = ?"
    return query_one(query, g.user["user_id"], author["user_id"]) is not None


# ---------------------------------------------------- writing; all of it by POST


@app.route("/add_message", methods=["POST"])
@login_required
def add_message() -> Response:
    """Publish a message."""
    text = request.form["text"].strip()
    if not 1 <= len(text) <= MAX_LENGTH:
        flash(f"A message has 1 to {MAX_LENGTH} characters.", "error")
        return redirect(url_for("my_timeline"))

    execute(
        "insert into message (author_id, text, pub_date) values (?, ?, ?)",
        g.user["user_id"],
        text,
        int(time.time()),
    )
    flash("Your message is out.")
    return redirect(url_for("my_timeline"))


@app.route("/<username>/follow", methods=["POST"])
@login_required
def follow_user(username: str) -> Response:
    """Add a user to those whose messages are on one's timeline."""
    author = find_user(username)
    if author["user_id"] == g.user["user_id"]:
        abort(400, "You are on your own timeline anyway.")

    execute(
        "insert or ignore into follower (who_id, whom_id) values (?, ?)",
        g.user["user_id"],
        author["user_id"],
    )
    flash(f"You follow {author['username']} now.")
    return redirect(url_for("user_timeline", username=author["username"]))


@app.route("/<username>/unfollow", methods=["POST"])
@login_required
def unfollow_user(username: str) -> Response:
    """Take a user off one's timeline."""
    author = find_user(username)
    execute(
        "delete from follower where who_id = ? and whom_id = ?",
        g.user["user_id"],
        author["user_id"],
    )
    flash(f"You no longer follow {author['username']}.")
    return redirect(url_for("user_timeline", username=author["username"]))


# ---------------------------------------------------------------------- accounts


@app.route("/register", methods=["GET", "POST"])
def register() -> Any:
    """Show the form, or open an account."""
    if request.method == "GET":
        return render_template("register.html")

    username, email = request.form["username"].strip(), request.form["email"].strip()
    password = request.form["password"]
    error = reason_against(username, email, password, request.form["password2"])
    if error is None and not add_user(username, email, password):
        error = "Somebody has that name already."
    if error is not None:
        flash(error, "error")
        return render_template("register.html", username=username, email=email)

    flash("Your account is open; log in to write.")
    return redirect(url_for("login"))


def reason_against(
    username: str, email: str, password: str, repeated: str
) -> str | None:
    """Return what is wrong with an application for an account, if anything."""
    if not _USERNAME.fullmatch(username):
        return "A name has 2 to 30 letters, digits or underscores."

    if username.lower() in page_names():
        return "That name is taken by one of our own pages."

    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        return "That is no e-mail address."

    if len(password) < 8:
        return "A password has at least 8 characters."

    if not hmac.compare_digest(password.encode(), repeated.encode()):
        return "The two passwords differ."

    return None


def page_names() -> set[str]:
    """Return the first words of our own URLs, where no user can live."""
    return {rule.rule.split("/")[1] for rule in app.url_map}


def add_user(username: str, email: str, password: str) -> bool:
    """Open an account; False if another one has the name.

    The database decides, because two may ask for the same name at once.
    """
    statement = "insert into user (username, email, pw_hash) values (?, ?, ?)"
    try:
        execute(statement, username, email, hash_password(password))
    except sqlite3.IntegrityError:
        return False
    return True


@app.route("/login", methods=["GET", "POST"])
def login() -> Any:
    """Show the form, or let a user in."""
    if request.method == "GET":
        return render_template("login.html")

    username = request.form["username"].strip()
    user = query_one("select * from user where username = ?", username)
    if user is None or not check_password(user["pw_hash"], request.form["password"]):
        flash("Name and password do not match.", "error")
        return render_template("login.html", username=username)

    session["user_id"] = user["user_id"]
    flash(f"Hello {user['username']}.")
    return redirect(url_for("my_timeline"))


@app.route("/logout", methods=["POST"])
def logout() -> Response:
    """End the session."""
    session.pop("user_id", None)
    flash("You are logged out.")
    return redirect(url_for("public_timeline"))


if __name__ == "__main__":
    app.run()
