"""One test body, every driver.

A test that asks for ``app`` and ``client`` runs once for each driver:

``loop``
    every plain callable is made ``async def``, so nothing leaves the loop;
``thread``
    callables stay as the test wrote them, so plain ones go to a worker;
``client``
    the same, through ``app.test_client()``;
``trio``
    the same as ``thread``, on trio;
``wsgi``
    the same, as a WSGI server calls it, with ``wsgiref.validate`` in between.
"""

from __future__ import annotations

import functools
import inspect
import io
import json
import os
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any
from wsgiref.validate import validator

import anyio.to_thread
import httpx
import pytest
from hypothesis import HealthCheck, settings

from asyncflask import Flask, _request_ctx_stack
from asyncflask.environ import build_environ
from asyncflask.target import application_path
from asyncflask.testing import build_request

# The same examples each time, so that a change is judged by its own merits;
# HYPOTHESIS_PROFILE=long looks for new ones.
settings.register_profile(
    "short",
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "long", settings.get_profile("short"), max_examples=20_000, derandomize=False
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

DRIVERS = ("loop", "thread", "client", "trio", "wsgi")


class LoopFlask(Flask):
    """Turns every plain callable that a decorator registers into an async one."""

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        if view_func is not None:
            endpoint = endpoint or view_func.__name__
            view_func = self.made_async(view_func)
        super().add_url_rule(rule, endpoint, view_func, **options)

    def made_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        known: dict[Any, Any] = self.__dict__.setdefault("_made", {})
        if function not in known:
            known[function] = make_async(function)
        made: Callable[..., Any] = known[function]
        return made

    def errorhandler(self, code: Any) -> Any:
        register = super().errorhandler(code)
        return lambda f: (register(make_async(f)), f)[1]

    def before_request(self, f: Any) -> Any:
        super().before_request(make_async(f))
        return f

    def after_request(self, f: Any) -> Any:
        super().after_request(make_async(f))
        return f

    def teardown_request(self, f: Any) -> Any:
        super().teardown_request(make_async(f))
        return f


def make_async(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return function

    @functools.wraps(function)
    async def made(*args: Any, **kwargs: Any) -> Any:
        rv = function(*args, **kwargs)
        return await rv if inspect.iscoroutine(rv) else rv

    return made


class Answer:
    """What came back, whatever brought it."""

    def __init__(
        self, status_code: int, headers: list[tuple[str, str]], data: bytes
    ) -> None:
        self.status_code = status_code
        self.headers = httpx.Headers(headers)
        self.data = data

    @property
    def text(self) -> str:
        return self.data.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class WSGITransport(httpx.AsyncBaseTransport):
    """Calls an application as a WSGI server does, and checks that both keep to it."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.root_path = ""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        return await anyio.to_thread.run_sync(self.call, request, body)

    def environ(self, request: httpx.Request, body: bytes) -> dict[str, Any]:
        scope = {
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "root_path": self.root_path,
            "query_string": request.url.query,
            "headers": [(k.lower(), v) for k, v in request.headers.raw],
            "server": (request.url.host, request.url.port),
            "client": ("127.0.0.1", 123),
        }
        return dict(build_environ(scope, application_path(scope), io.BytesIO(body)))

    def call(self, request: httpx.Request, body: bytes) -> httpx.Response:
        said: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            assert not said, "start_response was called twice"
            said.extend([status, headers])
            return refuse_to_write

        checked = validator(self.app.wsgi_app)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Unknown REQUEST_METHOD")
            chunks = checked(self.environ(request, body), start_response)
        try:
            data = b"".join(chunks)
        finally:
            chunks.close()
        status, headers = said
        stream = httpx.ByteStream(data)
        return httpx.Response(int(status[:3]), headers=headers, stream=stream)


def refuse_to_write(chunk: bytes) -> None:
    raise AssertionError(f"write({chunk!r}) was used")


class Caller:
    """The same few methods in front of every driver."""

    def __init__(self, app: Flask, driver: str) -> None:
        self.app = app
        self.driver = driver
        transport: Any = WSGITransport if driver == "wsgi" else httpx.ASGITransport
        self.httpx = httpx.AsyncClient(
            transport=transport(app=app), base_url="http://localhost", timeout=30
        )
        self.client = app.test_client()

    async def open(self, path: str = "/", **options: Any) -> Answer:
        if self.driver == "client":
            got = self.client.open(path, **options)
            return Answer(got.status_code, list(got.headers.items()), got.data)

        scope, body = build_request(path, **options)
        self.httpx._transport.root_path = scope["root_path"]
        query = scope["query_string"].decode()
        headers = dict(scope["headers"])
        host = headers.pop(b"host").decode()
        response = await self.httpx.request(
            scope["method"],
            f"{scope['scheme']}://{host}{scope['raw_path'].decode()}"
            + (f"?{query}" if query else ""),
            content=body,
            headers=[(k, v) for k, v in scope["headers"] if k != b"host"],
        )
        fields = [(k, v) for k, v in response.headers.multi_items()]
        return Answer(response.status_code, fields, response.content)

    async def get(self, path: str = "/", **options: Any) -> Answer:
        return await self.open(path, method="GET", **options)

    async def post(self, path: str = "/", **options: Any) -> Answer:
        return await self.open(path, method="POST", **options)

    async def put(self, path: str = "/", **options: Any) -> Answer:
        return await self.open(path, method="PUT", **options)

    async def head(self, path: str = "/", **options: Any) -> Answer:
        return await self.open(path, method="HEAD", **options)

    async def options(self, path: str = "/", **options: Any) -> Answer:
        return await self.open(path, method="OPTIONS", **options)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> str:
    if "driver" not in request.fixturenames:
        return "asyncio"

    return "trio" if request.getfixturevalue("driver") == "trio" else "asyncio"


@pytest.fixture
def app(driver: str) -> Iterator[Flask]:
    cls = LoopFlask if driver == "loop" else Flask
    app = cls(__name__)
    app.secret_key = "a secret for the tests"
    yield app
    app.workers.close()


@pytest.fixture
async def client(app: Flask, driver: str) -> AsyncIterator[Caller]:
    caller = Caller(app, driver)
    yield caller
    await caller.httpx.aclose()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Spell out what is no UTF-8 in captured output: xdist cannot pass it on."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def no_context_left() -> Iterator[None]:
    """Fail a test that leaves a request context bound."""
    yield
    left = _request_ctx_stack.top
    while _request_ctx_stack.top is not None:
        _request_ctx_stack.pop()
    assert left is None, f"the test left {left!r} bound"
