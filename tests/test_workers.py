"""The threads for plain callables: who gets one, when, and for how long."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from asyncflask import (
    Flask,
    _request_ctx_stack,
    moving,
    render_template_string_async,
)
from asyncflask.calling import Calling
from asyncflask.exceptions import ServiceUnavailable
from asyncflask.moving import TO_LOOP, FirstVisit
from asyncflask.testing import build_request
from asyncflask.workers import Desk, Worker, WorkerPool


class Claim:
    """One that does something, in a worker that it may keep."""

    def __init__(self, function, keeps: bool = False) -> None:
        self.function = function
        self.keeps = keeps
        self.worker: Worker | None = None
        self.told = threading.Event()

    def take(self, worker: Worker) -> bool:
        self.worker = worker
        self.function()
        return self.keeps

    def tell(self) -> None:
        self.told.set()


@pytest.fixture
def limit():
    return [40]


@pytest.fixture
def pool(limit: list[int]):
    pool = WorkerPool(lambda: limit[0], "test-worker")
    yield pool
    pool.close()


def nothing() -> None:
    pass


def keep_one(pool: WorkerPool) -> Claim:
    """Have a claim that keeps its worker."""
    keeper = Claim(nothing, keeps=True)
    pool.post(keeper)
    assert keeper.told.wait(10)
    return keeper


def test_a_worker_goes_on_with_what_waits_in_the_order_of_arrival(pool, limit):
    limit[0] = 1
    begun, gate, done = threading.Event(), threading.Event(), []

    def blocked():
        begun.set()
        gate.wait(30)

    first = Claim(blocked)
    pool.post(first)
    assert begun.wait(10)
    others = [Claim(partial(done.append, number)) for number in range(50)]
    for claim in others:
        pool.post(claim)
    assert pool.stats() == {"lent": 1, "idle": 0, "waiting": 50}
    gate.set()
    assert others[-1].told.wait(10)
    assert done == list(range(50))
    assert {claim.worker for claim in others} == {first.worker}
    assert pool.stats() == {"lent": 0, "idle": 1, "waiting": 0}


def test_no_claim_waits_for_another_while_there_are_workers(pool):
    everyone = threading.Barrier(40)
    claims = [Claim(partial(everyone.wait, 30)) for _ in range(40)]
    for claim in claims:
        pool.post(claim)
    assert all(claim.told.wait(30) for claim in claims)
    assert len({claim.worker for claim in claims}) == 40


def test_a_worker_is_free_before_anybody_is_told(pool):
    class Curious(Claim):
        def tell(self):
            self.stats = pool.stats()
            super().tell()

    claim = Curious(nothing)
    pool.post(claim)
    assert claim.told.wait(10)
    assert claim.stats == {"lent": 0, "idle": 1, "waiting": 0}


def test_a_kept_worker_takes_no_other_claim_until_it_is_released(pool, limit):
    limit[0] = 1
    keeper, other = keep_one(pool), Claim(nothing)
    pool.post(other)
    assert pool.stats() == {"lent": 1, "idle": 0, "waiting": 1}
    pool.release(keeper.worker)
    assert other.told.wait(10)
    assert other.worker is keeper.worker


def test_a_worker_released_for_good_is_replaced(pool, limit):
    limit[0] = 1
    keeper, other = keep_one(pool), Claim(nothing)
    pool.post(other)
    pool.release(keeper.worker, for_good=True)
    assert other.told.wait(10)
    assert other.worker is not keeper.worker
    keeper.worker.stop()


def test_a_claim_is_taken_back_unless_it_was_taken(pool, limit):
    limit[0] = 1
    keeper, other = keep_one(pool), Claim(nothing)
    assert not pool.withdraw(keeper)
    pool.post(other)
    assert pool.withdraw(other)
    assert not pool.withdraw(other)
    pool.release(keeper.worker)
    assert pool.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    assert other.worker is None


def test_who_cannot_wait_gets_a_worker_over_the_limit(pool, limit):
    limit[0] = 1
    begun, gate = threading.Event(), threading.Event()

    def blocked():
        begun.set()
        gate.wait(30)

    claim = Claim(blocked)
    pool.post(claim)  # whose worker may be on its way still
    worker, may_keep = pool.acquire_now()
    assert not may_keep
    pool.release(worker)
    assert begun.wait(10)
    gate.set()
    assert claim.told.wait(10)
    assert pool.stats()["lent"] == 0


def refuse(worker: Worker) -> None:
    """Be what starting a thread is where there are too many."""
    raise RuntimeError("can't start new thread")


def test_where_the_system_has_no_more_threads(pool, monkeypatch):
    other = Claim(nothing)
    monkeypatch.setattr(Worker, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        pool.post(other)
    assert pool.stats() == {"lent": 0, "idle": 0, "waiting": 0}
    monkeypatch.undo()
    keeper = keep_one(pool)
    monkeypatch.setattr(Worker, "start", refuse)
    pool.post(other)  # there will be one
    assert pool.stats()["waiting"] == 1
    pool.release(keeper.worker)
    assert other.told.wait(10)


# ------------------------------------------------------------- in an application


async def ask(app: Flask, path: str, on_message=None) -> tuple[int, bytes]:
    """Ask for a page; a function may be awaited at each message of the response."""
    scope, _ = build_request(path)
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)
        if on_message is not None:
            await on_message()

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def lent_while_sending(app: Flask, path: str) -> list[int]:
    """Ask for a page, and note at each message how many workers are lent."""
    lent = []

    async def note():
        lent.append(app.workers.stats()["lent"])

    await ask(app, path, note)
    await until_nothing_is_lent(app)  # tasks may have it a little longer
    return lent


async def test_a_worker_is_free_as_soon_as_no_plain_code_is_left():
    app = Flask(__name__)

    @app.before_request
    def before():
        pass

    @app.after_request
    async def after(response):
        return response

    app.route("/plain", endpoint="plain")(lambda: "x")
    app.route("/stream", endpoint="stream")(lambda: iter(["a", "b"]))
    assert await lent_while_sending(app, "/plain") == [1, 1]  # it is back on the loop
    app.after_request_funcs.clear()
    assert await lent_while_sending(app, "/plain") == [0, 0]

    @app.before_request
    async def before_on_the_loop():
        pass

    assert await lent_while_sending(app, "/plain") == [1, 1]  # there may be tasks
    app.before_request_funcs.pop()
    assert (await lent_while_sending(app, "/stream"))[0] == 1
    app.teardown_request(lambda exc: None)
    assert await lent_while_sending(app, "/plain") == [1, 1]
    app.workers.close()


def handing(monkeypatch, condition) -> threading.Event:
    """Return an event that is set once a job is handed over while a condition holds."""
    handed, submit = threading.Event(), Desk.submit

    def noted(desk, job):
        submit(desk, job)
        if condition():
            handed.set()

    monkeypatch.setattr(Desk, "submit", noted)
    return handed


async def test_a_worker_stays_for_what_a_task_of_the_request_has_for_it(monkeypatch):
    app = Flask(__name__)
    begun, threads = asyncio.Event(), []
    loop, tasks = asyncio.get_running_loop(), []
    handed = handing(monkeypatch, begun.is_set)

    @app.context_processor
    def processor():
        threads.append(threading.get_ident())
        return {}

    async def render():
        await begun.wait()
        return await render_template_string_async("text")

    @app.before_request
    async def start():
        tasks.append(asyncio.ensure_future(render()))

    @app.route("/")
    def view():
        threads.append(threading.get_ident())
        loop.call_soon_threadsafe(begun.set)
        assert handed.wait(10)
        return "x"

    assert await lent_while_sending(app, "/") == [1, 1]
    assert await tasks[0] == "text"
    assert threads == [threads[0]] * 2
    app.workers.close()


async def test_a_worker_stays_for_a_task_that_plain_code_has_started(monkeypatch):
    app = Flask(__name__)
    loop = asyncio.get_running_loop()
    threads: list[int] = []
    tasks: list[asyncio.Task[str]] = []
    handed = handing(monkeypatch, lambda: tasks)

    @app.context_processor
    def processor():
        threads.append(threading.get_ident())
        return {}

    def start(context):
        rendered = render_template_string_async("text")
        tasks.append(loop.create_task(rendered, context=context))

    @app.route("/")
    def view():
        threads.append(threading.get_ident())
        loop.call_soon_threadsafe(start, contextvars.copy_context())
        assert handed.wait(10)
        return "x"

    assert await lent_while_sending(app, "/") == [1, 1]
    assert await tasks[0] == "text"
    assert threads == [threads[0]] * 2
    app.workers.close()


class Hesitant:
    """A lock for whose taking a function is called first, once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.first = nothing

    def __enter__(self) -> None:
        first, self.first = self.first, nothing
        first()
        self.lock.acquire()

    def __exit__(self, *args: object) -> None:
        self.lock.release()


async def test_a_worker_stays_for_a_context_that_takes_it_over_as_it_leaves(
    monkeypatch,
):
    app, leaving = Flask(__name__), Hesitant()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(moving, "leaving", leaving)

    @app.route("/")
    def view():
        inner = app.test_request_context("/")
        inner._outer = (_request_ctx_stack.top, ())  # as one entered in here has it

        async def take_over():
            return inner._known_desk()

        leaving.first = lambda: asyncio.run_coroutine_threadsafe(
            take_over(), loop
        ).result(10)
        return "x"

    assert await lent_while_sending(app, "/") == [1, 1]
    app.workers.close()


def app_of_one_thread() -> tuple[Flask, threading.Event, threading.Event, list[int]]:
    """An application whose one thread a slow view may block; and what tells that it
    does, what lets it go on, and how often the quick view was called."""
    app = Flask(__name__)
    app.worker_threads = 1
    begun, gate, called = threading.Event(), threading.Event(), []

    @app.route("/slow", view_timeout=None)
    def slow():
        begun.set()
        gate.wait(30)
        return "slow"

    @app.route("/quick")
    def quick():
        called.append(1)
        return "quick"

    return app, begun, gate, called


async def test_the_handler_for_503_answers_who_was_still_in_line():
    app, begun, gate, called = app_of_one_thread()
    app.view_timeout = 0.05

    @app.errorhandler(ServiceUnavailable)
    async def busy(exc):
        return "come again", 503

    first = asyncio.ensure_future(ask(app, "/slow"))
    assert await anyio.to_thread.run_sync(begun.wait, 10)
    assert await ask(app, "/quick") == (503, b"come again")
    assert app.workers.stats() == {"lent": 1, "idle": 0, "waiting": 0}
    gate.set()
    assert await first == (200, b"slow")
    assert called == []
    assert await ask(app, "/quick") == (200, b"quick")
    app.workers.close()


@pytest.mark.parametrize("where", ["in the request", "in a context of its own"])
async def test_tasks_of_a_request_find_its_thread_while_it_is_sent(where):
    app = Flask(__name__)
    app.worker_threads = 2
    begun, gate, sending = threading.Event(), threading.Event(), asyncio.Event()
    threads, tasks = [], []

    @app.context_processor
    def processor():
        threads.append(threading.get_ident())
        return {}

    async def render():
        if where == "in the request":
            await sending.wait()
            return await render_template_string_async("x")

        async with app.test_request_context("/"):
            await sending.wait()
            return await render_template_string_async("x")

    @app.before_request
    async def start():
        if not tasks:
            tasks.append(asyncio.ensure_future(render()))

    @app.route("/")
    def view():
        threads.append(threading.get_ident())
        return "x"

    @app.route("/slow")
    def slow():
        begun.set()
        gate.wait(30)
        return "slow"

    async def meanwhile():
        if sending.is_set():
            return
        slow = asyncio.ensure_future(ask(app, "/slow"))
        assert await anyio.to_thread.run_sync(begun.wait, 10)
        sending.set()
        assert await tasks[0] == "x"
        gate.set()
        await slow

    assert await ask(app, "/", meanwhile) == (200, b"x")
    assert threads == [threads[0]] * 2
    assert app.workers.stats()["lent"] == 0
    app.workers.close()


async def test_plain_code_that_outlives_its_request_holds_up_nobody():
    app = Flask(__name__)
    begun, gate, tasks = threading.Event(), threading.Event(), []

    @app.context_processor
    def processor():
        begun.set()
        gate.wait(30)
        return {}

    @app.route("/task")
    async def task():
        tasks.append(asyncio.ensure_future(render_template_string_async("x")))
        assert await anyio.to_thread.run_sync(begun.wait, 10)
        return "x"

    app.route("/", endpoint="plain")(lambda: "plain")
    await ask(app, "/task")
    with anyio.fail_after(20):
        answers = await asyncio.gather(*(ask(app, "/") for _ in range(10)))
    assert answers == [(200, b"plain")] * 10
    assert app.workers.stats()["lent"] == 1
    gate.set()
    assert await tasks[0] == "x"
    await until_nothing_is_lent(app)
    app.workers.close()


async def until_nothing_is_lent(app: Flask) -> None:
    with anyio.fail_after(20):
        while (stats := app.workers.stats())["lent"] or not stats["idle"]:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("register", ["errorhandler", "teardown_request"])
async def test_a_request_that_gets_no_thread_fails_at_once(monkeypatch, register):
    app = Flask(__name__)
    app.route("/", endpoint="plain")(lambda: "plain")
    if register == "errorhandler":
        app.errorhandler(500)(lambda exc: ("failed", 500))
    else:
        app.teardown_request(lambda exc: None)
    monkeypatch.setattr(Worker, "start", refuse)
    with anyio.fail_after(20), pytest.raises(RuntimeError, match="new thread"):
        await ask(app, "/")
    monkeypatch.undo()
    assert await ask(app, "/") == (200, b"plain")
    app.workers.close()


async def test_a_worker_whose_request_has_lost_its_loop_comes_back():
    class Unheard:
        def set(self):
            return False

        async def wait(self):
            raise AssertionError("nobody waits")

    app = Flask(__name__)
    visit = FirstVisit(Calling(app, build_request("/")[0]), lambda: TO_LOOP)
    visit.signal = Unheard()
    app.workers.post(visit)
    await until_nothing_is_lent(app)
    app.workers.close()


def test_a_request_thrown_away_in_line_is_not_begun():
    app, begun, gate, called = app_of_one_thread()
    loop = asyncio.new_event_loop()
    first, second = loop.create_task(ask(app, "/slow")), ask(app, "/quick")

    async def go():
        assert await anyio.to_thread.run_sync(begun.wait, 10)
        second.send(None)
        assert app.workers.stats() == {"lent": 1, "idle": 0, "waiting": 1}

    loop.run_until_complete(go())
    second.close()
    assert app.workers.stats() == {"lent": 1, "idle": 0, "waiting": 0}
    gate.set()
    assert loop.run_until_complete(first) == (200, b"slow")
    assert called == []
    assert app.workers.stats() == {"lent": 0, "idle": 1, "waiting": 0}
    app.workers.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
