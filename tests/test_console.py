"""The console of the debugger: what is typed in, run in a frame that has failed."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import tracemalloc
from types import FrameType

import pytest

from asyncflask import Flask
from asyncflask.debug.console import MOST_OUTPUT, Console

LIMIT = 10


def stopped(number: int = 2, items: tuple[int, ...] = (1, 2, 3)) -> FrameType:
    def inner() -> int:
        return number

    return sys._getframe()


@pytest.fixture
def console() -> Console:
    return Console(stopped())


def typed(console: Console, *sources: str) -> str:
    """Type several inputs, and return what the last one shows."""
    shown = ""
    for source in sources:
        given = console.compile(source)
        assert not given.waits
        try:
            shown = given.run()
        except (SystemExit, KeyboardInterrupt) as exc:
            pytest.fail(f"{type(exc).__name__} came out", pytrace=False)
    return shown


async def awaited(console: Console, source: str) -> str:
    given = console.compile(source)
    assert given.waits
    try:
        return await given.run_async()
    except (SystemExit, KeyboardInterrupt) as exc:
        return pytest.fail(f"{type(exc).__name__} came out", pytrace=False)


# ------------------------------------------------------------------- what it does


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("number + LIMIT", "12\n"),
        ("inner()", "2\n"),
        ("len(items)", "3\n"),
        ("'<b>'", "'<b>'\n"),
        ("None", ""),
        ("", ""),
        ("# why", ""),
        ("a = 1", ""),
        ("a = 1; b = 2\na + b", "3\n"),
        ("1\n2", "2\n"),
        ("1;", "1\n"),
        ("for n in items:\n    print(n)", "1\n2\n3\n"),
        ("def double(n):\n    return n * 2\n\ndouble(21)", "42\n"),
        ("if number == 2:\n    word = 'two'\nword", "'two'\n"),
        ("print('out'); 'value'", "out\n'value'\n"),
        ("import sys; print('err', file=sys.stderr)", "err\n"),
        ("import math\nmath.floor(2.5)", "2\n"),
        ("(n := 5) + 1", "6\n"),
    ],
)
def test_an_input_shows_what_it_prints_and_its_last_value(console, source, shown):
    assert typed(console, source) == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("[item * number + LIMIT for item in items]", "[12, 14, 16]\n"),
        ("(lambda n: n + number + LIMIT)(1)", "13\n"),
        ("def f():\n    return number + LIMIT\nf()", "12\n"),
        ("sum(number for item in items if item < LIMIT)", "6\n"),
        ("def f():\n    def g(): return number\n    return g()\nf()", "2\n"),
        ("class A:\n    x = number\nA.x", "2\n"),
        ("class A:\n    x = LIMIT\nA.x", "10\n"),
        ("class A:\n    x = callable(url_for)\nA.x", "True\n"),
        ("class A:\n    def f(self): return LIMIT\nA().f()", "10\n"),
        ("eval('number + LIMIT')", "12\n"),
        ("'number' in locals(), callable(print)", "(True, True)\n"),
    ],
)
def test_what_is_defined_in_it_sees_the_names_of_the_frame(console, source, shown):
    assert typed(console, source) == shown


def test_what_is_assigned_stays_for_later_inputs(console):
    assert typed(console, "number = 5", "def f(): return number", "f()") == "5\n"
    assert typed(console, "import json", "json.dumps(number)") == "'5'\n"
    assert typed(console, "global added; added = 1", "added") == "1\n"
    assert "NameError" in typed(console, "del added", "added")


def test_neither_the_frame_nor_its_module_is_changed():
    frame = stopped()
    typed(Console(frame), "number = 5; LIMIT = 6; new = 7")
    assert frame.f_locals["number"] == 2
    assert (LIMIT, "new" in globals()) == (10, False)
    assert typed(Console(frame), "number, LIMIT") == "(2, 10)\n"


def test_the_last_value_is_kept_under_a_line(console):
    assert typed(console, "6 * 7", "None", "a = 5", "_ + 1") == "43\n"


def test_a_class_made_in_it_belongs_to_the_module_of_the_frame(console):
    source = "class A: pass\nA.__module__"
    assert typed(console, source) == f"{__name__!r}\n"


def test_long_values_are_broken_into_lines(console):
    shown = typed(console, "{'key %d' % n: 'value' * 3 for n in range(9)}")
    assert len(shown.splitlines()) == 9
    assert max(map(len, shown.splitlines())) < 90


@pytest.mark.parametrize("name", ["request", "session", "g", "current_app", "url_for"])
def test_what_everybody_looks_for_needs_no_import(console, name):
    app = Flask(__name__)
    app.add_url_rule("/here", "here", lambda: "")
    assert name not in globals()
    with app.test_request_context("/here"):
        assert "<" in typed(console, name)
        assert typed(console, "request.path, url_for('here')") == "('/here', '/here')\n"


def test_names_of_the_frame_win_over_those():
    def view(request: str = "my own") -> FrameType:
        return sys._getframe()

    assert typed(Console(view()), "request") == "'my own'\n"


# ------------------------------------------------------------------------- failures


@pytest.mark.parametrize("source", ["1 +", "def", "(", "x = = 1", "print 'x'", "\0"])
def test_what_is_not_python_is_refused(console, source):
    with pytest.raises((SyntaxError, ValueError)):
        console.compile(source)


@pytest.mark.parametrize(
    "source", ["-" * 100_000 + "1", "(" * 5000, "a" + ".a" * 50_000]
)
def test_what_is_nested_too_deep_is_refused_too(console, source):
    with pytest.raises((SyntaxError, ValueError)):
        console.compile(source)


def test_a_traceback_shows_the_input_and_what_it_called(console):
    shown = typed(console, "def f(n):\n    return 1 / n\n", "f(0)")
    assert shown.startswith("Traceback (most recent call last):\n")
    assert "    f(0)\n" in shown
    assert "    return 1 / n\n" in shown
    assert shown.endswith("ZeroDivisionError: division by zero\n")
    assert "asyncflask" not in shown


@pytest.mark.parametrize("source", ["1 / 0", "raise ValueError from KeyError()"])
def test_a_traceback_shows_nothing_of_the_console_itself(console, source):
    assert "asyncflask" not in typed(console, source)


def test_a_value_that_cannot_be_shown_is_a_failure_of_the_input(console):
    source = "class A:\n    def __repr__(self): return 1 / 0\nA()"
    shown = typed(console, source)
    assert shown.endswith("ZeroDivisionError: division by zero\n")
    assert "asyncflask" not in shown


def test_what_was_printed_before_a_failure_is_shown(console):
    shown = typed(console, "print('before'); 1 / 0")
    assert shown.startswith("before\nTraceback")


@pytest.mark.parametrize(
    "source", ["exit()", "raise SystemExit", "raise KeyboardInterrupt"]
)
async def test_an_input_ends_neither_thread_nor_server(console, source):
    name = "KeyboardInterrupt" if "Keyboard" in source else "SystemExit"
    assert name in typed(console, source)
    waiting = f"import asyncio\nawait asyncio.sleep(0)\n{source}"
    assert name in await awaited(console, waiting)


# ---------------------------------------------------------------------- its output


def test_prints_of_other_threads_are_not_its_own(capsys):
    def elsewhere() -> None:
        turn.wait(10)
        print("elsewhere")  # noqa: T201
        done.set()

    def meeting(turn: threading.Event, done: threading.Event) -> FrameType:
        return sys._getframe()

    turn, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    console = Console(meeting(turn, done))
    assert typed(console, "print(1); turn.set(); done.wait(10); print(2)") == "1\n2\n"
    thread.join()
    assert capsys.readouterr().out == "elsewhere\n"


def test_prints_after_an_input_go_to_the_terminal(console, capsys):
    typed(console, "print('inside')")
    print("outside")  # noqa: T201
    print("err", file=sys.stderr)  # noqa: T201
    assert capsys.readouterr() == ("outside\n", "err\n")


async def test_two_inputs_at_once_have_an_output_each(console):
    typed(console, "from asyncio import sleep")
    source = "for _ in range(3):\n    print({!r})\n    await sleep(0)"
    both = [awaited(console, source.format(name)) for name in ("one", "two")]
    assert await asyncio.gather(*both) == ["one\n" * 3, "two\n" * 3]


def test_what_stdout_can_do_besides_it_can_do_still(console):
    source = "import sys; sys.stdout.flush(); sys.stdout.isatty(); sys.stdout.encoding"
    assert "Traceback" not in typed(console, source)
    assert typed(console, "sys.stdout.writelines(['a', 'b'])") == "ab"


@pytest.mark.parametrize(
    "source",
    [
        "print('x' * 1_000_000)",
        "'x y ' * 1_000_000",
        "raise ValueError('x' * 1_000_000)",
    ],
)
def test_a_huge_output_is_cut_and_says_so(console, source):
    shown = typed(console, source)
    assert len(shown) < MOST_OUTPUT + 100
    assert int(re.fullmatch(r"(?s).*… and (\d+) characters more", shown)[1]) > 900_000


def test_an_endless_output_does_not_fill_the_memory(console):
    given = console.compile("for _ in range(100):\n    print('x' * 1_000_000)")
    tracemalloc.start()
    try:
        given.run()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 30_000_000


# --------------------------------------------------------------------------- await


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("await asyncio.sleep(0, number)", "2\n"),
        ("x = await asyncio.sleep(0, 'x')\nx + 'y'", "'xy'\n"),
        ("async def f():\n    return LIMIT\nawait f()", "10\n"),
        ("[n async for n in each()]", "[1, 2, 3]\n"),
        ("async with asyncio.timeout(5):\n    print('within')", "within\n"),
        ("print(await asyncio.sleep(0, 'x'))", "x\n"),
        ("(await asyncio.gather(asyncio.sleep(0, 1)))[0]", "1\n"),
    ],
)
async def test_what_waits_is_awaited(console, source, shown):
    typed(console, "import asyncio")
    typed(console, "async def each():\n    for item in items:\n        yield item")
    assert await awaited(console, source) == shown


async def test_what_was_awaited_is_kept_under_a_line_too(console):
    await awaited(console, "import asyncio; await asyncio.sleep(0, 5)")
    assert typed(console, "_ + number") == "7\n"


async def test_a_failure_of_what_waits_shows_the_input_alone(console):
    shown = await awaited(console, "import asyncio\nawait asyncio.sleep(0)\n1 / 0")
    assert "    1 / 0\n" in shown
    assert "asyncflask" not in shown


def test_a_coroutine_that_is_not_awaited_is_only_shown(console):
    typed(console, "async def f(): pass", "c = f()")
    assert "coroutine object f" in typed(console, "c")
    typed(console, "c.close()")
