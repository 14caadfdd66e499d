"""What the debugger sees of an exception: values, places, chains and groups."""

from __future__ import annotations

import json
import linecache
import os
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import MultiDict

import asyncflask
from asyncflask.debug.inspection import (
    MASK,
    MOST_EXCEPTIONS,
    MOST_FRAMES,
    Fault,
    Frame,
    Inspection,
    Viewer,
    is_own,
    plain_traceback,
)

HIDDEN = "what nobody must see"


def caught(function: Callable[..., Any], *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as exc:
        return exc
    raise AssertionError("it was to raise")


def inspected(exc: BaseException) -> list[Fault]:
    return safely(Inspection, exc, Viewer()).faults


def shown(value: Any, name: str = "") -> str:
    return safely(Viewer().show, value, name)


def safely(function: Callable[..., Any], *args: Any) -> Any:
    """Call what must not raise, with values that pytest could not show either."""
    try:
        return function(*args)
    except BaseException as exc:
        came_out = type(exc).__name__
    return pytest.fail(f"{came_out} came out", pytrace=False)


# ------------------------------------------------------------------------ values


class Raising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError(), RecursionError(), SystemExit(), KeyboardInterrupt()]
)
def test_a_repr_that_raises_is_told_of(error):
    name = type(error).__name__
    assert shown(Raising(error)) == f"<Raising, whose repr() raised {name}>"
    assert name in shown([1, {"deep": Raising(error)}])


def test_a_repr_that_is_no_string_is_told_of():
    class Wrong:
        def __repr__(self):
            return 5

    assert shown(Wrong()) == "<Wrong, whose repr() raised TypeError>"


def test_a_class_without_a_name_does_no_harm():
    class Meta(type):
        __name__ = property(lambda cls: 1 / 0)

    class Nameless(metaclass=Meta):
        pass

    assert shown(Nameless())


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        b"x" * 1_000_000,
        10**4000,
        10**100_000,
        list(range(100_000)),
        {n: n for n in range(100_000)},
        set(range(100_000)),
        [[[["x" * 1000] * 100] * 100] * 100] * 100,
        OrderedDict.fromkeys(range(100_000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_huge_value_is_cut(value):
    length = len(shown(value))
    assert length < 50_000


def test_a_value_in_itself_is_cut():
    around: list[Any] = []
    around.append({"around": around})
    assert len(shown(around)) < 200
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert len(shown(deep)) < 200


def test_a_class_named_like_a_builtin_one_is_shown_by_its_own_repr():
    own = type("list", (), {"__repr__": lambda self: "my list"})
    assert shown(own()) == "my list"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWD",
        "user_pwd",
        "secret",
        "SECRET_KEY",
        "token",
        "access_token",
        "api_key",
        "apikey",
        "X-Api-Key",
        "private_key",
        "signing_key",
        "authorization",
        "Proxy-Authorization",
        "credentials",
        "cookies",
        "set-cookie",
        "csrf_token",
    ],
)
def test_what_a_name_promises_to_be_secret_is_masked(name):
    assert shown(HIDDEN, name) == MASK
    for value in (
        {name: HIDDEN},
        {"deep": [{name: HIDDEN}]},
        {name.encode(): HIDDEN},
        [(name, HIDDEN)],
        [(name.encode(), HIDDEN.encode())],
    ):
        assert HIDDEN not in shown(value)


@pytest.mark.parametrize("name", ["author", "keyboard", "monkey", "passenger", "n"])
def test_other_names_are_shown(name):
    assert shown("seen", name) == "'seen'"


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(password=HIDDEN),
        defaultdict(str, password=HIDDEN),
        MultiDict({"password": HIDDEN}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_mappings_are_masked_as_a_dict_is(value):
    assert HIDDEN not in shown(value)


def test_known_secrets_are_masked_wherever_they_stand():
    viewer = Viewer([HIDDEN, f"{HIDDEN} and more"])
    assert viewer.show([f"<{HIDDEN}>"]) == f"['<{MASK}>']"
    assert viewer.mask(f"{HIDDEN} and more") == MASK


def test_a_short_secret_masks_nothing_else():
    assert Viewer(["dev", ""]).show("a device") == "'a device'"


# ------------------------------------------------------------------------ places


def run_file(folder: Path, source: str) -> Frame:
    """Run a file that fails, and return its last frame."""
    file = folder / "module.py"
    file.write_text(source, encoding="utf-8")
    code = compile(source, str(file), "exec")
    return inspected(caught(exec, code, {}))[0].frames[-1]


@pytest.mark.parametrize(
    ("source", "marked"),
    [
        ("x = {'a': None}\ny = 1, x['a']['b'], 2", "x['a']['b']"),
        ("def f():\n\tif True:\n\t\treturn 1 + None.x + 2\nf()", "None.x"),
        ("größe = 'äöü'; größe.fehlt; 1", "größe.fehlt"),
        ("s = '🦄🦄'; t = s + 5", "s + 5"),
        ("x = (1 +\n    None)", "1 +"),
        ("x = [\n    1,\n    int('a'),\n]", "int('a')"),
        ("raise ValueError(  # why\n    'multi'\n)", "raise ValueError(  # why"),
    ],
)
def test_what_failed_is_marked_in_its_line(tmp_path, source, marked):
    frame = run_file(tmp_path, source)
    (current,) = [line for line in frame.lines if line.is_current]
    assert current.number == frame.line
    assert current.parts[1] == marked
    assert "".join(current.parts) == current.text == source.split("\n")[frame.line - 1]


def test_some_lines_around_are_shown_with_their_numbers(tmp_path):
    frame = run_file(tmp_path, "a = 1\n" * 20 + "1 / 0\n" + "b = 2\n" * 20)
    assert [line.number for line in frame.lines] == list(range(16, 27))
    assert [line.text for line in frame.lines].count("1 / 0") == 1


def test_a_file_that_has_changed_or_gone_is_no_failure(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("\n" * 50 + "1 / 0")
    code = compile(file.read_text(), str(file), "exec")
    exc = caught(exec, code, {})
    file.write_text("# shorter")
    assert all(not line.is_current for line in inspected(exc)[0].frames[-1].lines)
    file.unlink()
    assert inspected(exc)[0].frames[-1].lines == []


def test_code_without_a_file_has_a_frame_without_lines():
    code = compile("x = 1\nx / 0", "<nowhere>", "exec")
    frame = inspected(caught(exec, code, {}))[0].frames[-1]
    assert (frame.file, frame.line, frame.lines) == ("<nowhere>", 2, [])
    assert not frame.is_own


def test_the_locals_are_shown_without_those_of_python_itself():
    def fails(number, password, __hidden__=1):
        _own = [number]
        raise ValueError(_own)

    frame = inspected(caught(fails, 5, HIDDEN))[0].frames[-1]
    assert dict(frame.variables) == {"number": "5", "password": MASK, "_own": "[5]"}
    assert frame.name.endswith("fails")


def test_a_frame_that_wants_to_be_hidden_is():
    def hidden():
        __traceback_hide__ = True
        if __traceback_hide__:
            raise ValueError

    names = [frame.name for frame in inspected(caught(hidden))[0].frames]
    assert names == ["caught"]


def test_a_syntax_error_is_shown_where_it_stands(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("fine = 1\nx = (1 +* 2)\n")
    (fault,) = inspected(caught(compile, file.read_text(), str(file), "exec"))
    frame = fault.frames[-1]
    assert (frame.file, frame.line, frame.number) == (str(file), 2, -1)
    (current,) = [line for line in frame.lines if line.is_current]
    assert current.parts == ("x = (1 +", "*", " 2)")


def test_a_syntax_error_without_a_file_shows_its_text():
    (fault,) = inspected(caught(compile, "1 +", "<typed in>", "exec"))
    assert [line.text for line in fault.frames[-1].lines] == ["1 +"]


@pytest.mark.parametrize(
    "details", [("f", "2", 1, "x"), ("f", 2, "x", None), (None, None, None, None)]
)
def test_a_syntax_error_made_by_hand_does_no_harm(details):
    assert inspected(SyntaxError("by hand", details))[0].message.startswith("by hand")


def test_of_ten_thousand_frames_the_first_and_the_last_are_shown():
    def down(n):
        return down(n + 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        exc = caught(down, 0)
        inspection = Inspection(exc, Viewer())
        text = plain_traceback(exc, Viewer())
    finally:
        sys.setrecursionlimit(limit)
    (fault,) = inspection.faults
    assert fault.type == "RecursionError"
    assert len(fault.frames) == len(inspection.live) == MOST_FRAMES
    assert fault.frames[0].name == "caught"
    assert dict(fault.frames[1].variables)["n"] == "0"
    assert int(dict(fault.frames[-1].variables)["n"]) > 9000
    assert "Previous line repeated" in text


def test_own_files_are_told_from_those_of_libraries(tmp_path):
    file = tmp_path / "application.py"
    file.touch()
    assert is_own(str(file))
    assert is_own(__file__)
    for library in (json, os, pytest, asyncflask):
        assert not is_own(library.__file__)
    for missing in ("<string>", "<frozen importlib._bootstrap>", str(tmp_path / "no")):
        assert not is_own(missing)


# -------------------------------------------------------------- chains and groups


def cause() -> None:
    try:
        raise KeyError("first")
    except KeyError as exc:
        raise ValueError("second") from exc


def context() -> None:
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("second")  # noqa: B904


def suppressed() -> None:
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("second") from None


def cyclic() -> None:
    first, second = KeyError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise second


@pytest.mark.parametrize(
    ("function", "types", "relation"),
    [
        (cause, ["ValueError", "KeyError"], "cause"),
        (context, ["ValueError", "KeyError"], "handled"),
        (suppressed, ["ValueError"], ""),
        (cyclic, ["ValueError", "KeyError"], "cause"),
    ],
)
def test_the_chain_is_followed_from_the_last_exception(function, types, relation):
    faults = inspected(caught(function))
    assert [fault.type for fault in faults] == types
    assert faults[0].relation == ""
    assert relation in faults[-1].relation


def test_a_long_chain_and_a_big_group_are_cut():
    exc: Exception = ValueError(0)
    for n in range(10_000):
        outer = ValueError(n)
        outer.__cause__, exc = exc, outer
    assert len(inspected(exc)) == MOST_EXCEPTIONS
    (fault,) = inspected(ExceptionGroup("many", [ValueError(n) for n in range(1000)]))
    assert len(fault.members) == MOST_EXCEPTIONS - 1


def test_groups_are_a_tree_whose_members_have_chains():
    inner = ExceptionGroup("inner", [caught(cause), TypeError("third")])
    (fault,) = inspected(ExceptionGroup("outer", [inner, OSError("fourth")]))
    assert fault.type == "ExceptionGroup"
    ((nested,), (other,)) = fault.members
    assert (nested.message, other.type) == ("inner (2 sub-exceptions)", "OSError")
    assert [[f.type for f in chain] for chain in nested.members] == [
        ["ValueError", "KeyError"],
        ["TypeError"],
    ]


def test_every_frame_has_its_own_number():
    group = ExceptionGroup("all", [caught(cause), caught(context)])
    inspection = Inspection(group, Viewer())
    numbers = [
        frame.number
        for chain in inspection.faults[0].members
        for fault in chain
        for frame in fault.frames
    ]
    assert sorted(numbers) == list(range(len(inspection.live)))


def test_the_module_of_an_exception_is_named():
    assert inspected(json.JSONDecodeError("m", "", 0))[0].type == (
        "json.decoder.JSONDecodeError"
    )


# -------------------------------------------------------------------- what is odd


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize("cls", [Mute, Exiting])
def test_a_message_that_raises_is_told_of(cls):
    assert "str() raised" in inspected(cls())[0].message


class Note:
    def __str__(self) -> str:
        return "an object"


@pytest.mark.parametrize(
    ("notes", "seen"),
    [
        (["one", "<two>"], ["one", "<two>"]),
        ([Note(), 5, None], ["an object", "5", "None"]),
        (5, None),
        ("text", None),
        ([Mute()], None),
        ({"a": 1}, None),
    ],
)
def test_notes_may_be_anything(notes, seen):
    exc = ValueError("noted")
    exc.__notes__ = notes
    (fault,) = inspected(exc)
    assert seen is None or fault.notes == seen


def test_a_huge_message_is_cut():
    exc = ValueError("x" * 5_000_000)
    exc.add_note("y" * 5_000_000)
    (fault,) = inspected(exc)
    lengths = [len(fault.message), len(fault.notes[0])]
    assert max(lengths) < 100_000


def test_secrets_are_masked_in_messages_and_notes():
    exc = ValueError(f"bad key {HIDDEN!r}")
    exc.add_note(f"it is {HIDDEN}")
    viewer = Viewer([HIDDEN])
    (fault,) = Inspection(exc, viewer).faults
    assert (fault.message, fault.notes) == (f"bad key '{MASK}'", [f"it is {MASK}"])
    assert HIDDEN not in plain_traceback(exc, viewer)


def test_the_source_of_a_loader_is_found():
    source = "def fails():\n    return 1 / 0\n"

    class Loader:
        def get_source(self, name):
            return source

    names: dict[str, Any] = {"__name__": "zipped", "__loader__": Loader()}
    exec(compile(source, "<zipped module>.py", "exec"), names)
    linecache.clearcache()
    frame = inspected(caught(names["fails"]))[0].frames[-1]
    assert [line.text for line in frame.lines] == source.splitlines()
