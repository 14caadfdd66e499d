"""Which thread, which loop: plain and async callables in one request."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sqlite3
import threading
import weakref

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from asyncflask import (
    Flask,
    g,
    render_template_string,
    render_template_string_async,
    request,
    session,
)
from asyncflask.calling import Kind, kind_of

from .server import served

LOCAL: contextvars.ContextVar[list[str]] = contextvars.ContextVar("local")


def asgi(app: Flask) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def plain_app() -> tuple[Flask, list[tuple[str, int]]]:
    """An application with a plain callable of every kind, and where each ran."""
    app = Flask(__name__)
    app.secret_key = "k"
    ran: list[tuple[str, int]] = []

    def note(what):
        ran.append((what, threading.get_ident()))

    @app.before_request
    def before():
        note("before")

    @app.before_request
    async def loop_before():
        await anyio.lowlevel.checkpoint()
        g.loop_thread = threading.get_ident()

    @app.context_processor
    def processor():
        note("processor")
        return {"x": 1}

    @app.after_request
    def after(response):
        note("after")
        return response

    @app.after_request
    async def loop_after(response):
        await anyio.lowlevel.checkpoint()
        assert threading.get_ident() == g.loop_thread
        return response

    @app.teardown_request
    def teardown(exc):
        note("teardown")

    @app.errorhandler(ValueError)
    def handler(error):
        note("handler")
        return "handled"

    @app.route("/plain")
    def plain():
        note("view")
        return render_template_string("{{ x }}")

    @app.route("/async")
    async def asynchronous():
        await anyio.lowlevel.checkpoint()
        assert threading.get_ident() == g.loop_thread
        return render_template_string("{{ x }}")

    @app.route("/error")
    async def error():
        raise ValueError

    @app.route("/stream")
    def stream():
        def body():
            note("body")
            yield request.path
            note("body")
            yield str(threading.get_ident() == ran[0][1])

        return body()

    return app, ran


@pytest.mark.parametrize("driver", ["thread", "trio"])
@pytest.mark.parametrize("path", ["/plain", "/async", "/error", "/stream"])
async def test_all_plain_callables_of_a_request_share_a_thread(driver, path):
    app, ran = plain_app()
    async with asgi(app) as client:
        assert (await client.get(path)).status_code == 200
    assert len({thread for _, thread in ran}) == 1
    assert threading.get_ident() not in dict.values(dict(ran))
    kinds = [what for what, _ in ran]
    assert kinds[0] == "before"
    assert kinds[-2 if path != "/stream" else -4] == "after"
    assert kinds[-1] == "teardown"
    assert app.workers.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    app.workers.close()


async def test_an_async_request_takes_no_thread():
    app = Flask(__name__)
    app.secret_key = "k"

    @app.before_request
    async def before():
        g.x = 1

    @app.teardown_request
    async def teardown(exc):
        pass

    @app.route("/")
    async def view():
        session["x"] = g.x
        return render_template_string("{{ g.x }}")

    before_threads = threading.active_count()
    async with asgi(app) as client:
        assert (await client.get("/")).text == "1"
        assert (await client.get("/missing")).status_code == 404
    assert app.workers.stats() == {"lent": 0, "idle": 0, "waiting": 0}
    assert threading.active_count() == before_threads


async def test_all_async_callables_run_on_the_one_loop():
    app = Flask(__name__)
    loops = []

    def note():
        loops.append(id(asyncio.get_running_loop()))

    @app.before_request
    async def before():
        note()

    @app.route("/")
    async def view():
        note()

        async def body():
            note()
            yield "x"

        return body()

    @app.teardown_request
    async def teardown(exc):
        note()

    app.after_request_funcs.append(lambda response: response)  # a hop in between
    async with asgi(app) as client:
        for _ in range(25):
            await client.get("/")
    assert len(loops) == 100
    assert set(loops) == {id(asyncio.get_running_loop())}
    app.workers.close()


@pytest.mark.parametrize("driver", ["thread", "trio"])
@pytest.mark.parametrize("flavour", ["plain first", "async first"])
async def test_context_variables_are_seen_both_ways(driver, flavour):
    app = Flask(__name__)
    plain_first = flavour == "plain first"

    def add(name):
        LOCAL.set([*LOCAL.get([]), name])

    def plain(*args, name):
        add(name)
        return args[0] if args and name == "after" else None

    async def asynchronous(*args, name):
        await anyio.lowlevel.checkpoint()
        add(name)
        return args[0] if args and name == "after" else None

    one, two = (plain, asynchronous) if plain_first else (asynchronous, plain)
    seen = []
    app.before_request(functools.partial(one, name="before"))
    app.before_request(functools.partial(two, name="before 2"))
    app.after_request(functools.partial(one, name="after"))
    app.teardown_request(lambda exc: seen.append(LOCAL.get()))
    app.context_processor(functools.partial(dict, x=1))

    @app.context_processor
    async def processor():
        add("processor")
        return {}

    @app.route("/")
    def view():
        add("view")
        render_template_string("")

        def body():
            add("body")
            yield ",".join(LOCAL.get())

        return body()

    async with asgi(app) as client:
        got = await client.get("/")
    expected = "before,before 2,view,processor,after,body"
    assert got.text == expected
    assert seen == [expected.split(",")]
    assert LOCAL.get(None) is None  # and nothing of it stays
    app.workers.close()


async def test_a_thousand_requests_keep_sqlite_in_its_thread():
    app = Flask(__name__)

    @app.before_request
    def connect():
        g.db = sqlite3.connect(":memory:")
        g.db.execute("create table t (x)")

    @app.after_request
    def close(response):
        g.db.close()
        return response

    @app.context_processor
    def count():
        return {"n": g.db.execute("select count(*) from t").fetchone()[0]}

    @app.route("/plain/<int:x>")
    def plain(x):
        g.db.execute("insert into t values (?)", [x])
        return render_template_string("{{ n }}")

    @app.route("/async/<int:x>")
    async def asynchronous(x):
        await asyncio.sleep(0)
        return render_template_string("{{ n }}")

    async with asgi(app) as client:
        paths = [f"/{kind}/{x}" for x in range(100) for kind in ("plain", "async")]
        for _ in range(5):
            answers = await asyncio.gather(*map(client.get, paths))
            assert [a.text for a in answers] == ["1", "0"] * 100
    assert app.workers.stats()["lent"] == 0
    assert 1 <= app.workers.stats()["idle"] <= app.worker_threads
    app.workers.close()


def connected(url: str, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=60)


async def test_500_requests_at_once_do_not_cross():
    app = Flask(__name__)
    app.secret_key = "k"
    app.worker_threads = 300
    everyone = asyncio.Event()
    arrived = 0

    @app.before_request
    async def loop_hook():
        g.id = request.args["id"]

    @app.before_request
    def plain_hook():
        session["id"] = g.id
        g.threads = [threading.get_ident()]

    @app.after_request
    def plain_after(response):
        g.threads.append(threading.get_ident())
        response.headers["X-Same"] = str(len(set(g.threads)))
        return response

    @app.route("/async")
    async def asynchronous():
        nonlocal arrived
        arrived += 1
        if arrived == 250:
            everyone.set()
        await everyone.wait()
        return f"{request.args['id']} {g.id} {session['id']}"

    @app.route("/plain")
    def plain():
        g.threads.append(threading.get_ident())
        return f"{request.args['id']} {g.id} {session['id']}"

    with served(app) as url:
        async with connected(url, 500) as client:
            paths = [f"/{('async', 'plain')[n % 2]}?id={n}" for n in range(500)]
            answers = await asyncio.gather(*map(client.get, paths))
    assert [a.text for a in answers] == [f"{n} {n} {n}" for n in range(500)]
    assert {a.headers["x-same"] for a in answers} == {"1"}


async def test_blocked_workers_block_nothing_else(tmp_path):
    app = Flask(__name__)
    app.worker_threads = 4
    app.root_path = str(tmp_path)
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "file").write_text("file")
    release, blocked = threading.Event(), threading.Semaphore(0)

    @app.route("/slow")
    def slow():
        blocked.release()
        release.wait(30)
        return "slow"

    @app.route("/quick")
    async def quick():
        return "quick"

    with served(app) as url:
        async with connected(url, 20) as client:
            waiting = [asyncio.ensure_future(client.get("/slow")) for _ in range(10)]
            for _ in range(4):
                await anyio.to_thread.run_sync(blocked.acquire)
            assert app.workers.stats()["lent"] == 4
            assert (await client.get("/quick")).text == "quick"
            assert (await client.get("/static/file")).text == "file"
            assert (await client.get("/missing")).status_code == 404
            release.set()
            assert [a.text for a in await asyncio.gather(*waiting)] == ["slow"] * 10
    assert app.workers.stats()["lent"] == 0


async def test_workers_are_named_reused_and_gone_when_closed():
    app = Flask(__name__)
    names = set()

    @app.route("/")
    def view():
        names.add(threading.current_thread().name)
        return ""

    async with asgi(app) as client:
        for _ in range(20):
            await client.get("/")
    assert names == {"asyncflask-worker-1"}
    app.workers.close()
    assert not [t for t in threading.enumerate() if t.name in names]


async def test_a_request_that_gives_up_its_place_in_line_leaves_no_hole():
    app = Flask(__name__)
    app.worker_threads = 1
    release, blocked = threading.Event(), threading.Event()

    @app.route("/slow")
    def slow():
        blocked.set()
        release.wait(30)
        return "slow"

    async with asgi(app) as client:
        first = asyncio.ensure_future(client.get("/slow"))
        await anyio.to_thread.run_sync(blocked.wait)
        second = asyncio.ensure_future(client.get("/slow"))
        third = asyncio.ensure_future(client.get("/slow"))
        while app.workers.stats()["waiting"] < 2:
            await asyncio.sleep(0)
        second.cancel()
        release.set()
        assert (await first).text == (await third).text == "slow"
        assert second.cancelled() or (await asyncio.wait([second]))
    assert app.workers.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    app.workers.close()


async def test_a_cancelled_request_is_torn_down_when_its_thread_is_done():
    app = Flask(__name__)
    log = []
    started, release = threading.Event(), threading.Event()

    @app.before_request
    def connect():
        g.db = sqlite3.connect(":memory:")

    @app.teardown_request
    def close(exc):
        log.append(f"closed {type(exc).__name__}")
        g.db.close()

    @app.teardown_request
    async def loop_close(exc):
        await asyncio.sleep(0)
        log.append("async closed")

    @app.route("/")
    def view():
        started.set()
        release.wait(30)
        g.db.execute("select 1")
        log.append("view done")
        return ""

    async with asgi(app) as client:
        task = asyncio.ensure_future(client.get("/"))
        await anyio.to_thread.run_sync(started.wait)
        task.cancel()
        await asyncio.sleep(0)
        assert log == []
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log == ["view done", "async closed", "closed CancelledError"]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


async def test_an_anyio_cancellation_does_not_spin_while_a_thread_works():
    app = Flask(__name__)
    log = []
    started, release = threading.Event(), threading.Event()

    @app.route("/")
    def view():
        started.set()
        release.wait(30)
        log.append("view done")
        return ""

    app.teardown_request(lambda exc: log.append("torn down"))
    async with asgi(app) as client, anyio.create_task_group() as group:
        group.start_soon(client.get, "/")
        await anyio.to_thread.run_sync(started.wait)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        release.set()
    assert log == ["view done", "torn down"]
    app.workers.close()


async def test_child_tasks_and_anyio_threads_see_the_request():
    app = Flask(__name__)

    @app.route("/<name>")
    async def view(name):
        def in_thread():
            return f"{request.path} {g.x}"

        async def in_task():
            await asyncio.sleep(0)
            return request.view_args["name"]

        g.x = "x"
        return [
            await anyio.to_thread.run_sync(in_thread),
            await asyncio.create_task(in_task()),
        ]

    async with asgi(app) as client:
        assert (await client.get("/a")).json() == ["/a x", "a"]


async def test_a_request_inside_a_request_completes_with_one_worker():
    app = Flask(__name__)
    app.worker_threads = 1

    @app.route("/inner")
    def inner():
        return f"inner {threading.get_ident()}"

    @app.route("/outer")
    def outer():
        path = request.path
        got = app.test_client().get("/inner").text
        assert request.path == path
        return f"{got} {threading.get_ident()}"

    async with asgi(app) as client:
        _, one, two = (await client.get("/outer")).text.split()
    assert one == two
    app.workers.close()


async def test_async_code_called_from_plain_code_may_call_plain_code():
    threads = []

    class Nested(Flask):
        async def update_template_context(self, context):
            await super().update_template_context(context)

    app = Nested(__name__)
    app.worker_threads = 1

    @app.context_processor
    def processor():
        threads.append(threading.get_ident())
        return {"x": "nested"}

    @app.route("/")
    def view():
        threads.append(threading.get_ident())
        return render_template_string("{{ x }}")

    async with asgi(app) as client:
        assert (await client.get("/")).text == "nested"
    assert len(threads) == 2
    assert len(set(threads)) == 1
    app.workers.close()


async def test_an_overridden_stage_may_await_the_default_in_a_task():
    class Timed(Flask):
        async def preprocess_request(self):
            return await asyncio.wait_for(super().preprocess_request(), 30)

    app = Timed(__name__)

    @app.before_request
    def plain():
        g.x = threading.get_ident()

    @app.route("/")
    def view():
        return str(g.x == threading.get_ident())

    async with asgi(app) as client:
        assert (await client.get("/")).text == "True"
    app.workers.close()


def test_applications_are_collectable():
    async def ask(app):
        async with asgi(app) as client:
            await client.get("/")
            await client.get("/async")

    dead = []
    for _ in range(20):
        app = Flask(__name__)
        app.secret_key = "k"
        app.before_request(lambda: None)
        app.route("/")(lambda: session.setdefault("x", "y"))

        @app.route("/async")
        async def view():
            return render_template_string("x")

        anyio.run(ask, app)
        dead.append(weakref.ref(app))
    del app, view
    gc.collect()
    assert [ref() for ref in dead] == [None] * 20


async def test_a_task_that_outlives_its_request_takes_no_worker():
    app = Flask(__name__)
    app.context_processor(lambda: {"x": 1})
    over = asyncio.Event()
    tasks = []

    @app.route("/")
    async def view():
        async def late(render):
            await over.wait()
            rendered = render("{{ x }}")
            return await rendered if asyncio.iscoroutine(rendered) else rendered

        renders = render_template_string, render_template_string_async
        tasks.extend(asyncio.ensure_future(late(render)) for render in renders)
        return "done"

    async with asgi(app) as client:
        assert (await client.get("/")).text == "done"
    over.set()
    for task in tasks:
        with pytest.raises(RuntimeError, match="the request was over"):
            await task
    assert app.workers.stats()["lent"] == 0


async def test_tasks_of_one_request_may_render_at_once():
    app = Flask(__name__)
    app.worker_threads = 1
    threads = set()

    @app.context_processor
    def processor():
        threads.add(threading.get_ident())
        return {"x": 1}

    @app.route("/")
    async def view():
        renderings = [render_template_string_async("{{ x }}") for _ in range(20)]
        return ",".join(await asyncio.gather(*renderings))

    async with asgi(app) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
    assert {a.text for a in answers} == {",".join("1" * 20)}
    assert len(threads) == 1
    assert app.workers.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    app.workers.close()


async def test_rendering_in_async_views_keeps_the_pool_bounded():
    app = Flask(__name__)
    app.worker_threads = 2
    app.context_processor(lambda: {"x": 1})
    everyone, arrived, lent = asyncio.Event(), [], []

    @app.route("/")
    async def view():
        text = render_template_string("{{ x }}")
        lent.append(app.workers.stats()["lent"])
        arrived.append(1)
        if len(arrived) == 50:
            everyone.set()
        await everyone.wait()
        return text

    async with asgi(app) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(50)))
    assert {a.text for a in answers} == {"1"}
    assert max(lent) == 2
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


async def test_a_context_inside_a_request_shares_its_thread():
    app = Flask(__name__)
    app.worker_threads = 1
    threads = []
    app.before_request(lambda: threads.append(threading.get_ident()))
    app.teardown_request(lambda exc: threads.append(threading.get_ident()))

    @app.route("/")
    async def view():
        async with app.test_request_context("/inner"):
            await app.preprocess_request()
            path = request.path
        return f"{path} {request.path}"

    async with asgi(app) as client:
        assert (await client.get("/")).text == "/inner /"
    assert len(threads) == 4
    assert len(set(threads)) == 1
    app.workers.close()


async def test_a_cancellation_reaches_what_plain_code_waits_for():
    app = Flask(__name__)
    waiting = asyncio.Event()
    ended = []

    @app.context_processor
    async def processor():
        waiting.set()
        try:
            await asyncio.Event().wait()  # for ever
        finally:
            ended.append("processor")

    app.teardown_request(lambda exc: ended.append("teardown"))

    @app.route("/")
    def view():
        return render_template_string("")

    async with asgi(app) as client:
        task = asyncio.ensure_future(client.get("/"))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended == ["processor", "teardown"]
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


async def test_a_thread_of_the_users_own_uses_the_requests_worker():
    app = Flask(__name__)
    threads = []
    app.before_request(lambda: threads.append(threading.get_ident()))

    @app.context_processor
    def processor():
        threads.append(threading.get_ident())
        return {"x": 1}

    @app.route("/")
    async def view():
        return await anyio.to_thread.run_sync(render_template_string, "{{ x }}")

    async with asgi(app) as client:
        assert (await client.get("/")).text == "1"
    assert len(set(threads)) == 1
    app.workers.close()


async def test_a_finished_request_is_freed_without_the_collector():
    app = Flask(__name__)
    alive = []

    @app.route("/async")
    async def view():
        from asyncflask import _request_ctx_stack

        alive.append(weakref.ref(_request_ctx_stack.top))
        return ""

    app.add_url_rule("/plain", view_func=lambda: "", endpoint="plain")
    app.before_request(lambda: None)
    async with asgi(app) as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await client.get("/async")
            assert [ref() for ref in alive[:4]] == [None] * 4
        finally:
            gc.enable()
    app.workers.close()


def test_a_worker_that_was_promised_to_a_dead_loop_is_not_lost():
    app = Flask(__name__)
    app.worker_threads = 1
    pool = app.workers

    async def take():
        return await pool.acquire()

    worker = asyncio.run(take())
    loop = asyncio.new_event_loop()
    waiting = pool.acquire()
    task = loop.create_task(waiting)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    pool.release(worker)
    waiting.close()
    assert asyncio.run(take()) is worker
    assert worker.is_alive()
    pool.release(worker)
    assert pool.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    pool.close()
    del task


async def test_a_users_own_timeout_works_in_any_view(app: Flask, client):
    @app.route("/")
    async def view():
        with anyio.move_on_after(0):
            await anyio.sleep(60)
        await anyio.lowlevel.checkpoint()
        return "timed out"

    @app.route("/stream")
    async def stream():
        with anyio.move_on_after(0):
            await anyio.sleep(60)
        yield "timed out"

    assert (await client.get("/")).text == "timed out"
    assert (await client.get("/stream")).text == "timed out"


class Callable_:
    async def __call__(self):
        return "async call"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: lambda: 1, Kind.PLAIN),
        (lambda: functools.partial(asyncio.sleep, 0), Kind.COROUTINE),
        (lambda: Callable_(), Kind.COROUTINE),
        (lambda: Callable_().__call__, Kind.COROUTINE),
        (lambda: str, Kind.PLAIN),
    ],
)
def test_kinds_are_told_apart(make, kind):
    assert kind_of(make()) is kind


async def test_an_unhashable_callable_is_fine(app: Flask, client):
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]
        __name__ = "unhashable"

        def __call__(self):
            return "called"

    app.view_functions["u"] = Unhashable()
    app.add_url_rule("/", "u")
    assert (await client.get("/")).text == "called"
