"""Sessions that Redis keeps, while the browser has nothing but a random number.

What it is good for: a session may be big, it can be ended from the server's side,
and nobody can read it. What it costs: a round trip to Redis for each request that
brings the cookie.

The two stages ``open_session`` and ``save_session`` are overridden, once by
``async def`` methods and once by plain ones; take the class that suits your views.
Below stands an application of either kind with the same views. Run it from its
folder, with a Redis server at hand::

    uvicorn redis_sessions:app          # the async one
    uvicorn redis_sessions:plain_app    # the plain one; WSGI servers take it too

``REDIS_URL`` says where Redis is; ``redis://localhost:6379/0`` by default.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import redis
import redis.asyncio

from asyncflask import Flask, Request, Response, abort, request, session
from asyncflask.sessions import Session
from asyncflask.signing import TaggedJSON

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class RedisSession(Session):
    """A session with the number that its browser knows it by.

    :ivar id: that number; None until the session is first saved.
    :ivar old_id: the number that :meth:`renew` has taken away.
    """

    def __init__(self, *args: Any, id: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.id = id
        self.old_id: str | None = None

    def renew(self) -> None:
        """Give the session another number, as whenever somebody logs in.

        Who has slipped the old one to the browser is left with nothing.
        """
        self.old_id, self.id = self.old_id or self.id, None
        self.modified = True


class Sessions(Flask):
    """What both kinds share: everything but the talk with Redis."""

    redis: Any = None

    def asked_id(self, request: Request) -> str | None:
        """Return the number that a request brings, if it may be one."""
        cookie = request.cookies.get(self.session_cookie_name, "")
        return cookie if _ID.fullmatch(cookie) else None

    def key(self, id: str) -> str:
        """Return what a session is kept under.

        It is hashed: whoever reads the database cannot send the cookies.
        """
        return f"session:{hashlib.sha256(id.encode()).hexdigest()}"

    def lifetime(self) -> int:
        """Return the seconds that an unused session is kept."""
        return int(self.permanent_session_lifetime.total_seconds())

    def opened(self, id: str | None, value: Any) -> RedisSession:
        """Return the session for what Redis had.

        A number that Redis does not know is not taken over: it may come from
        somebody who waits for the browser to log in under it.
        """
        if id is None or value is None:
            return RedisSession(new=True)

        return RedisSession(TaggedJSON.loads(value), id=id)

    def orders(self, session: Any, response: Response) -> list[tuple[Any, ...]]:
        """Set or delete the cookie; return what is to be told to Redis."""
        if session.accessed:
            response.vary("Cookie")
        if not session.modified:
            used = session.accessed and session.id is not None
            return [("EXPIRE", self.key(session.id), self.lifetime())] if used else []

        response.drop_cookie(self.session_cookie_name)
        gone = [("DEL", self.key(id)) for id in self.forget(session) if id]
        if not dict.copy(session):
            if not session.new:
                response.delete_cookie(self.session_cookie_name, **self.flags())
            return gone

        session.id = session.id or secrets.token_urlsafe(32)
        age = self.permanent_session_lifetime if session.permanent else None
        response.set_cookie(
            self.session_cookie_name, session.id, max_age=age, **self.flags()
        )
        value = TaggedJSON.dumps(dict.copy(session))
        return [*gone, ("SET", self.key(session.id), value, "EX", self.lifetime())]

    def forget(self, session: RedisSession) -> list[str | None]:
        """Return the numbers that are not valid any more."""
        ended = None if dict.copy(session) else session.id
        old, session.old_id = session.old_id, None
        return [old, ended]

    def flags(self) -> dict[str, Any]:
        """Return what the cookie is restricted to."""
        return {
            "path": self.session_cookie_path,
            "domain": self.session_cookie_domain,
            "secure": self.session_cookie_secure,
            "httponly": self.session_cookie_httponly,
            "samesite": self.session_cookie_samesite,
        }


class AsyncRedisFlask(Sessions):
    """For applications of ``async def`` views: no request takes a thread for it.

    :attr:`redis` is a :class:`redis.asyncio.Redis`, made on the loop that the
    views run on: in a function of :meth:`while_serving`.
    """

    redis: redis.asyncio.Redis

    async def open_session(self, request: Request) -> RedisSession:
        """Ask Redis for what the cookie names."""
        id = self.asked_id(request)
        return self.opened(id, id and await self.redis.get(self.key(id)))

    async def save_session(self, session: RedisSession, response: Response) -> None:
        """Tell Redis what has changed, in one round trip."""
        orders = self.orders(session, response)
        if orders:
            async with self.redis.pipeline() as pipeline:
                for order in orders:
                    pipeline.execute_command(*order)
                await pipeline.execute()


class RedisFlask(Sessions):
    """For applications of plain views, under ASGI and WSGI.

    :attr:`redis` is a :class:`redis.Redis`; all threads may share it.
    """

    redis: redis.Redis

    def open_session(self, request: Request) -> RedisSession:
        """Ask Redis for what the cookie names, in the request's thread."""
        id = self.asked_id(request)
        return self.opened(id, id and self.redis.get(self.key(id)))

    def save_session(self, session: RedisSession, response: Response) -> None:
        """Tell Redis what has changed, in one round trip."""
        orders = self.orders(session, response)
        if orders:
            with self.redis.pipeline() as pipeline:
                for order in orders:
                    pipeline.execute_command(*order)  # type: ignore[no-untyped-call]
                pipeline.execute()


# ------------------------------------------------------------- the applications

app = AsyncRedisFlask(__name__)
plain_app = RedisFlask(__name__)
plain_app.redis = redis.Redis.from_url(REDIS_URL)  # connects when it is used


@app.while_serving
async def connect() -> AsyncIterator[None]:
    """Keep connections to Redis as long as the server runs."""
    async with redis.asyncio.Redis.from_url(REDIS_URL) as app.redis:
        yield


@app.errorhandler(redis.ConnectionError)
@plain_app.errorhandler(redis.ConnectionError)
def without_redis(error: redis.ConnectionError) -> Any:
    """Say that it is not the visitor's fault."""
    return "Sessions are out of order for the moment.", 503, {"Retry-After": "10"}


@app.route("/")
async def index() -> Any:
    """Count visits."""
    return count()


@plain_app.route("/", endpoint="index")
def plain_index() -> Any:
    """Count visits."""
    return count()


def count() -> dict[str, Any]:
    """Count a visit; what both kinds of view do."""
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"], "name": session.get("name")}


@app.route("/look")
@plain_app.route("/look")
def look() -> dict[str, Any]:
    """Show the session as it is, and change nothing."""
    return {"visits": session.get("visits", 0)}


@app.route("/about")
@plain_app.route("/about")
def about() -> str:
    """Leave the session alone."""
    return "Visits are counted here."


@app.route("/login", methods=["POST"])
@plain_app.route("/login", methods=["POST"])
def login() -> dict[str, str]:
    """Take everyone who says a name: what passwords need is in the guide."""
    name = request.form["name"].strip() or abort(400)
    session.renew()  # type: ignore[attr-defined]
    session["name"] = name
    return {"hello": name}


@app.route("/logout", methods=["POST"])
@plain_app.route("/logout", methods=["POST"])
def logout() -> str:
    """End the session, in Redis as well."""
    session.clear()
    return "Good bye."
