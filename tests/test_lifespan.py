"""Start-up and shut-down: in order, there and back, under both protocols."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asyncflask import Flask, _request_ctx_stack
from asyncflask.lifespan import lifespan
from asyncflask.testing import build_request

from .server import served

both = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
careful = pytest.mark.parametrize("is_careful", [False, True], ids=["bare", "finally"])


async def serve(app, log, state=None, meanwhile=None):
    """Start and stop an application as a server does; log what it says."""
    asked = ["startup", "shutdown"]

    async def receive():
        if asked == ["shutdown"] and meanwhile is not None:
            await meanwhile()
        return {"type": f"lifespan.{asked.pop(0)}"}

    async def send(message):
        log.append(message["type"].removeprefix("lifespan."))
        if "message" in message:
            log.append(message["message"])

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    with anyio.fail_after(20):
        await app(scope, receive, send)


def function(log, name, fails=None, is_careful=False):
    """Return something to run around the serving.

    It is written as the documentation has it, or with try and finally.
    """

    def note(word):
        log.append(f"{name} {word}")
        if fails == word:
            raise LookupError(f"{name} is broken")

    async def documented():
        note("up")
        yield
        await anyio.lowlevel.checkpoint()
        note("down")

    async def careful():
        note("up")
        try:
            yield
        finally:
            await anyio.lowlevel.checkpoint()
            note("down")

    return careful if is_careful else documented


def site(log, name, fails=None):
    """Return an application to mount, with a lifespan."""

    async def run(scope, receive, send):
        assert scope["type"] == "lifespan"
        for phase, word in (("startup", "up"), ("shutdown", "down")):
            assert await receive() == {"type": f"lifespan.{phase}"}
            await anyio.lowlevel.checkpoint()
            log.append(f"{name} {word}")
            if fails == word:
                message = f"{name} is broken"
                await send({"type": f"lifespan.{phase}.failed", "message": message})
                return
            await send({"type": f"lifespan.{phase}.complete"})

    return run


def wsgi_site(environ, start_response):
    raise AssertionError("this was not to be called")


def application(log, is_careful=False, **fails):
    """Return one with two functions and two mounted sites, which may fail."""
    app = Flask(__name__)
    app.while_serving(function(log, "a", fails.get("a"), is_careful))
    app.mount("/c", site(log, "c", fails.get("c")))
    app.mount("/wsgi", wsgi_site)
    app.while_serving(function(log, "b", fails.get("b"), is_careful))
    app.mount("/d", site(log, "d", fails.get("d")))
    return app


UP = ["a up", "b up", "c up", "d up"]
DOWN = ["d down", "c down", "b down", "a down"]

# ----------------------------------------------------------------- under an ASGI server


@both
async def test_all_parts_are_nested_in_each_other():
    log = []
    await serve(application(log), log)
    assert log == [*UP, "startup.complete", *DOWN, "shutdown.complete"]


@both
@careful
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
async def test_a_failing_start_leaves_what_was_started(name, is_careful):
    log = []
    await serve(application(log, is_careful, **{name: "up"}), log)
    count = "abcd".index(name)
    assert log[:-1] == [*UP[: count + 1], *DOWN[4 - count :], "startup.failed"]


@both
@careful
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
async def test_a_failing_stop_does_not_keep_the_others_from_theirs(name, is_careful):
    log = []
    await serve(application(log, is_careful, **{name: "down"}), log)
    assert log[:-1] == [*UP, "startup.complete", *DOWN, "shutdown.failed"]


@both
@pytest.mark.parametrize("phase", ["up", "down"])
@pytest.mark.parametrize("name", ["b", "c", "d"])
async def test_the_server_is_told_what_failed(name, phase, caplog):
    log = []
    await serve(application(log, **{name: phase}), log)
    assert f"{name} is broken" in log[-1]
    assert f"{name} is broken" in caplog.text


@both
@pytest.mark.parametrize("fails", ["up", "down"])
async def test_a_starlette_site_that_fails_is_named(fails):
    """It says so, and then raises as well."""

    @asynccontextmanager
    async def lifespan(star):
        if fails == "up":
            raise LookupError("no database")
        yield
        raise LookupError("no database")

    app, log = Flask(__name__), []
    app.mount("/star", Starlette(lifespan=lifespan))
    await serve(app, log)
    *_, said, message = log
    assert said == ("startup.failed" if fails == "up" else "shutdown.failed")
    assert "no database" in message


@both
async def test_a_site_that_knows_no_lifespan_is_left_alone(caplog):
    app, log = Flask(__name__), []

    async def refuses(scope, receive, send):
        raise NotImplementedError(scope["type"])

    async def reads_first(scope, receive, send):
        await receive()
        raise KeyError("method")

    async def returns(scope, receive, send):
        pass

    async def returns_early(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})

    for number, other in enumerate((refuses, reads_first, returns, returns_early)):
        app.mount(f"/{number}", other)
    app.mount("/d", site(log, "d"))
    await serve(app, log)
    assert log == ["d up", "startup.complete", "d down", "shutdown.complete"]
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


@both
async def test_one_of_ours_in_another_has_its_own_functions():
    app, log = Flask(__name__), []
    app.while_serving(function(log, "outer"))
    inner = Flask(__name__)
    inner.while_serving(function(log, "inner"))
    app.mount("/in", inner)
    await serve(app, log)
    up, down = ["outer up", "inner up"], ["inner down", "outer down"]
    assert log == [*up, "startup.complete", *down, "shutdown.complete"]


@both
async def test_the_state_is_the_servers():
    app, state = Flask(__name__), {"server": 1}

    async def store(scope, receive, send):
        scope["state"]["site"] = 2

    app.mount("/", store)
    await serve(app, [], state)
    assert state == {"server": 1, "site": 2}


def starlette_site():
    @asynccontextmanager
    async def lifespan(star):
        yield {"loop": asyncio.get_running_loop()}

    async def view(request):
        same = request.state.loop is asyncio.get_running_loop()
        return PlainTextResponse(str(same))

    return Starlette(routes=[Route("/", view)], lifespan=lifespan)


def test_a_site_finds_the_state_of_its_lifespan_in_its_requests():
    app = Flask(__name__)
    app.mount("/star", starlette_site())
    with served(app) as url:
        assert httpx.get(f"{url}/star/").text == "True"


def test_under_wsgi_a_site_finds_the_state_of_its_lifespan_as_well():
    app = Flask(__name__)
    app.mount("/star", starlette_site())
    assert ask(app, "/star/") == "True"


@pytest.mark.parametrize("fails", [None, "down"])
async def test_the_workers_end_with_the_server(fails):
    app = Flask(__name__)
    app.while_serving(function([], "a", fails))
    app.add_url_rule("/", "view", lambda: threading.current_thread().name)
    names = []

    async def request():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://h") as http:
            names.append((await http.get("/")).text)
        assert names[0] in {thread.name for thread in threading.enumerate()}

    await serve(app, [], meanwhile=request)
    alive = app.workers.stats()["idle"]
    app.workers.close()
    assert len(names) == 1
    assert alive == 0


async def test_without_sites_any_task_may_leave_it():
    """Tests with fixtures in tasks of their own do so, such as unittest's."""
    events = []
    app = Flask(__name__)

    @app.while_serving
    async def part():
        events.append("start")
        yield
        events.append("stop")

    around = lifespan(app)
    await asyncio.create_task(around.__aenter__())
    assert events == ["start"]
    await asyncio.create_task(around.__aexit__(None, None, None))
    assert events == ["start", "stop"]


def test_only_async_generator_functions_run_around_the_serving():
    app = Flask(__name__)

    def plain():
        yield

    async def no_yield():
        pass

    @asynccontextmanager
    async def context_manager():
        yield

    for wrong in (plain, no_yield, lambda: None, None, context_manager):
        with pytest.raises(TypeError, match="not an async generator function"):
            app.while_serving(wrong)
    assert app.while_serving_funcs == []
    right = function([], "a")
    assert app.while_serving(right) is right


# ------------------------------------------------------------------------- under WSGI


def ask(app, path="/"):
    """Return what a WSGI server gets."""
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    chunks = app.wsgi_app(environ, lambda *args: None)
    try:
        return b"".join(chunks).decode()
    finally:
        getattr(chunks, "close", int)()


def test_W22_under_wsgi_the_first_of_many_threads_starts_it_once():
    app, log = Flask(__name__), []
    everyone = threading.Barrier(30)

    @app.while_serving
    async def start():
        log.append("begun")
        await asyncio.sleep(0.05)  # so that the others come while it starts
        log.append("ready")
        yield

    app.mount("/site", site(log, "site"))
    app.add_url_rule("/", "view", lambda: " ".join(log))

    def one(number):
        everyone.wait(20)
        return ask(app)

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(one, range(30)))
    assert answers == ["begun ready site up"] * 30


def pooled_app():
    """Return one whose view needs a task that was started with the server."""
    app = Flask(__name__)

    @app.while_serving
    async def pool():
        app.loop = asyncio.get_running_loop()
        app.queue = asyncio.Queue()

        async def work():
            while True:
                number, future = await app.queue.get()
                future.set_result(2 * number)

        worker = asyncio.create_task(work())
        yield
        worker.cancel()

    @app.route("/<int:number>")
    async def double(number):
        assert asyncio.get_running_loop() is app.loop
        future = app.loop.create_future()
        await app.queue.put((number, future))
        return str(await future)

    @app.route("/plain/<int:number>")
    def plain(number):
        return str(number)

    return app


def test_W22_under_wsgi_async_views_use_what_was_opened():
    app = pooled_app()
    with ThreadPoolExecutor(10) as pool:
        paths = [f"/{number}" for number in range(50)]
        answers = list(pool.map(lambda path: ask(app, path), paths))
    assert answers == [str(2 * number) for number in range(50)]
    assert ask(app, "/plain/5") == "5"


def test_under_uvicorn_async_views_use_what_was_opened():
    with served(pooled_app()) as url:
        assert httpx.get(f"{url}/21").text == "42"
        assert httpx.get(f"{url}/plain/5").text == "5"


@pytest.mark.parametrize("part", [function, site])
def test_W22_under_wsgi_each_request_says_that_the_start_failed(part, caplog):
    app, log = Flask(__name__), []
    app.while_serving(function(log, "a"))
    if part is function:
        app.while_serving(function(log, "b", "up"))
    else:
        app.mount("/b", site(log, "b", "up"))
    app.add_url_rule("/", "view", lambda: "served")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="failed at its startup") as caught:
            ask(app)
        assert "b is broken" in str(caught.value.__cause__)
    assert log[:2] == ["a up", "b up"]
    assert log.count("b up") == 1
    assert caplog.text.count("The application failed") == 1


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("v", default="clean")


def test_under_wsgi_nothing_of_the_first_request_is_in_it():
    app, seen = Flask(__name__), []

    @app.while_serving
    async def look():
        seen.extend([VARIABLE.get(), _request_ctx_stack.top])
        yield

    app.add_url_rule("/", "view", lambda: "served")

    def first():
        VARIABLE.set("of the request")
        with app.test_request_context("/"):
            return ask(app)

    assert contextvars.copy_context().run(first) == "served"
    assert seen == ["clean", None]


# -------------------------------------------------------------- in processes of theirs

SCRIPT = """
import asyncio, os, sys, warnings
from wsgiref.util import setup_testing_defaults
from asyncflask import Flask

def say(text):
    print(text, flush=True)

app = Flask(__name__)

@app.while_serving
async def a():
    say("a up")
    yield
    await asyncio.sleep(0)
    say("a down")

@app.while_serving
async def b():
    say("b up")
    yield
    await asyncio.sleep(0)
    say("b down")

async def site(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    say("site up")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("site down")
    await send({"type": "lifespan.shutdown.complete"})

app.mount("/site", site)

@app.route("/")
async def index():
    return "served"

def ask():
    environ = {}
    setup_testing_defaults(environ)
    say(b"".join(app(environ, lambda *args: None)).decode())

"""
UP_AND_DOWN = ["a up", "b up", "site up", "served", "site down", "b down", "a down"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


def run_script(code: str) -> list[str]:
    command = [sys.executable, "-c", SCRIPT + code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=40, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_W22_under_wsgi_the_end_of_the_interpreter_is_the_end():
    twice = [*UP_AND_DOWN[:4], *UP_AND_DOWN[3:]]
    assert run_script("ask()\nask()") == twice
    assert run_script("ask()\nsys.exit(0)") == UP_AND_DOWN
    assert run_script("") == []


def test_under_wsgi_a_failing_stop_does_not_hold_up_the_others():
    failing = """
@app.while_serving
async def c():
    yield
    raise LookupError("c is broken")

import logging
logging.disable()
ask()
"""
    assert run_script(failing) == UP_AND_DOWN


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_W22_under_wsgi_each_process_starts_its_own():
    forking = """
ask()
warnings.simplefilter("ignore")
pid = os.fork()
if pid == 0:
    ask()
    sys.exit()
os.waitpid(pid, 0)
"""
    expected = [*UP_AND_DOWN[:4], *UP_AND_DOWN, *UP_AND_DOWN[4:]]
    assert run_script(forking) == expected


@pytest.mark.parametrize("part", ["function", "site"])
def test_uvicorn_ends_when_the_start_fails(tmp_path, part):
    code = {
        "function": """
@app.while_serving
async def broken():
    raise LookupError("it is broken")
    yield
""",
        "site": """
async def broken(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "it is broken"})

app.mount("/broken", broken)
""",
    }
    (tmp_path / "application.py").write_text(SCRIPT + code[part])
    command = [sys.executable, "-m", "uvicorn", "application:app", "--port", "0"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=40,
    )
    assert done.returncode not in (0, None)
    assert "it is broken" in done.stderr
    up, down = ["a up", "b up"], ["b down", "a down"]
    if part == "site":
        up, down = [*up, "site up"], ["site down", *down]
    assert done.stdout.splitlines() == [*up, *down]


def test_threads_for_blocking_calls_are_kept_from_request_to_request():
    """anyio keeps its threads as long as the task that its loop was started for."""
    app = Flask(__name__)

    @app.route("/")
    async def view():
        return str(await anyio.to_thread.run_sync(threading.get_ident))

    client = app.test_client()
    assert len({client.get("/").data for _ in range(20)}) <= 2


async def serve_and_cancel(app, log, is_open):
    """Serve an application that ends while a request of it is being cancelled."""
    scope = anyio.CancelScope()
    app.while_serving(function(log, "a"))

    async def send(message):
        if message.get("body"):
            is_open.set()

    async def request():
        with scope:
            await app(build_request("/")[0], anyio.sleep_forever, send)

    async def cancel_it():
        await is_open.wait()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await serve(app, log, meanwhile=cancel_it)
    assert app.outstanding.count == 0


@both
@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_what_was_cancelled_is_torn_down_before_the_end(anyio_backend, is_async):
    log, is_open = [], anyio.Event()
    app = Flask(__name__)

    @app.route("/")
    async def index():
        is_open.set()
        await anyio.sleep_forever()

    async def torn_down(exception):
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        log.append("torn down")

    def plain(exception):
        log.append("torn down")

    app.teardown_request(torn_down if is_async else plain)
    await serve_and_cancel(app, log, is_open)
    said = ["a up", "startup.complete", "torn down", "a down", "shutdown.complete"]
    assert log == said


async def test_a_late_page_is_sent_before_the_application_ends():
    """The server has cancelled the request, and the client takes its page slowly."""
    log, is_late, is_sent = [], asyncio.Event(), asyncio.Event()
    app, go = Flask(__name__), threading.Event()
    app.view_timeout = 0.02
    app.while_serving(function(log, "a"))

    @app.route("/")
    def index():
        go.wait(10)
        return ""

    @app.teardown_request
    def torn_down(exception):
        log.append("torn down")

    async def send(message):
        is_late.set()
        await is_sent.wait()

    async def cancel_it():
        await is_late.wait()
        request.cancel()
        go.set()
        asyncio.get_running_loop().call_later(0.2, is_sent.set)

    scope = build_request("/")[0]
    request = asyncio.create_task(app(scope, anyio.sleep_forever, send))
    await serve(app, log, meanwhile=cancel_it)
    await asyncio.wait([request])
    said = ["a up", "startup.complete", "torn down", "a down", "shutdown.complete"]
    assert log == said


@both
async def test_a_plain_body_ends_before_the_application_does(anyio_backend):
    """Its code cannot be cancelled, and may need what is about to be closed."""
    log, is_open = [], anyio.Event()
    app = Flask(__name__)

    @app.route("/")
    def index():
        def chunks():
            yield "first"
            threading.Event().wait(0.2)
            log.append("second")
            yield "second"

        return chunks()

    await serve_and_cancel(app, log, is_open)
    said = ["a up", "startup.complete", "second", "a down", "shutdown.complete"]
    assert log == said
