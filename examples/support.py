"""What the tests of the examples share: a browser for each way in, and a server.

A test written against :class:`Browser` runs once through the application's own
test client, and once through httpx on the ASGI interface. :func:`serving` puts
an application behind real uvicorn on a real socket.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, Protocol

import httpx
import uvicorn

from asyncflask import Flask
from asyncflask.testing import Client, ClientResponse

#: how a :class:`Browser` may reach an application
WAYS = ("test_client", "httpx", "httpx-trio")


class Page(NamedTuple):
    """What a browser shows, redirects followed."""

    status: int
    text: str
    mimetype: str

    @property
    def json(self) -> Any:
        """The value of a JSON page."""
        return json.loads(self.text)


class Browser(Protocol):
    """Fetches pages, keeps cookies and follows redirects."""

    async def get(self, path: str) -> Page:
        """Follow a link."""

    async def post(self, path: str, **fields: str) -> Page:
        """Send a form."""


class ClientBrowser:
    """Browses through ``app.test_client()``; plain views run in the test's thread."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def get(self, path: str) -> Page:
        return self._page(self.client.get(path, follow_redirects=True))

    async def post(self, path: str, **fields: str) -> Page:
        return self._page(self.client.post(path, data=fields, follow_redirects=True))

    def _page(self, response: ClientResponse) -> Page:
        return Page(response.status_code, response.text, response.mimetype)


class HttpxBrowser:
    """Browses through httpx; plain views run in the application's workers."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str) -> Page:
        return self._page(await self.client.get(path))

    async def post(self, path: str, **fields: str) -> Page:
        return self._page(await self.client.post(path, data=fields))

    def _page(self, response: httpx.Response) -> Page:
        mimetype, _, _ = response.headers.get("content-type", "").partition(";")
        return Page(response.status_code, response.text, mimetype)


@asynccontextmanager
async def browsing(app: Flask, way: str) -> AsyncIterator[Browser]:
    """Give a browser without cookies that reaches an application in one way."""
    if way == "test_client":
        yield ClientBrowser(app.test_client())
        return

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", follow_redirects=True
    ) as client:
        yield HttpxBrowser(client)


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an application with uvicorn in a thread, and give its URL.

    The socket listens before the thread starts, so the first request simply
    waits in the backlog until the server is up.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
