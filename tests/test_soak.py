"""The soak itself: a short one, and that it finds what it is there to find."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .soak.load import Report, check_latency, check_memory, check_what_is_left, soak
from .soak.server import Sample, unexpected
from .soak.stops import (
    BROKEN,
    COMPLETE,
    REFUSED,
    Outcome,
    Stop,
    check_requests,
    stopped,
)

LOG = """INFO:     Started server process [1]
ERROR:    Exception in ASGI application
Traceback (most recent call last):
  File "a.py", line 1, in a
    raise KeyError
KeyError

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "site.py", line 1, in boom
    raise Boom("on purpose")
site.Boom: on purpose
INFO:     Finished server process [1]
"""


@pytest.mark.process
def test_a_server_holds_nothing_after_clients_of_all_sorts(tmp_path: Path):
    report = asyncio.run(soak("uvicorn httptools", tmp_path / "site", 2, 1))
    assert not report.faults
    assert {"slow", "unreliable", "hostile"} <= {
        name.partition(":")[0] for name in report.loud.kinds
    }


@pytest.mark.process
@pytest.mark.parametrize("server", ["uvicorn httptools", "gunicorn gthread"])
def test_SIGTERM_lets_what_was_begun_be_completed(server: str, tmp_path: Path):
    stop = asyncio.run(stopped(server, tmp_path / "site", "1", with_endless=False))
    assert not stop.faults
    assert stop.ended(COMPLETE)
    assert stop.events["open"]


@pytest.mark.process
def test_SIGTERM_breaks_off_what_does_not_end(tmp_path: Path):
    stop = asyncio.run(stopped("uvicorn httptools", tmp_path / "site", "1", True))
    assert not stop.faults
    assert stop.ended(BROKEN)


@pytest.mark.process
def test_the_command_line_prints_a_table():
    command = [sys.executable, "-m", "tests.soak", "--seconds", "0", "--stops", "0"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "seed 1, uvicorn httptools, 0 seconds" in done.stdout
    assert "0 faults" in done.stdout


def test_tracebacks_are_expected_only_of_what_fails_on_purpose():
    assert unexpected(LOG, "site.Boom") == []
    assert "Boom" in unexpected(LOG, "site.Bang")[0]
    assert unexpected("sys:1: ResourceWarning: unclosed\n") != []


def held(**changes: Any) -> dict[str, Any]:
    """Return what a server may hold."""
    pool = {"lent": 0, "idle": 1, "waiting": 0}
    names = ("before", "stream", "stream-end", "connect", "disconnect")
    counts = {**dict.fromkeys(names, 5), "teardown": 4}
    same = {"tasks": 2, "contexts": 1, "files": ["a"], "threads": ["MainThread"]}
    return {**same, "workers": [pool], "counts": counts, **changes}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"tasks": 3}, "tasks"),
        ({"contexts": 2}, "contexts"),
        ({"files": ["a", "socket:[1]"]}, "socket"),
        ({"threads": ["MainThread", "lost"]}, "lost"),
        ({"workers": [{"lent": 1, "idle": 0, "waiting": 0}]}, "lent"),
        ({"counts": {**held()["counts"], "stream": 6}}, "stream-end"),
    ],
)
def test_what_is_left_is_a_fault(changes: dict[str, Any], what: str):
    report = Report("", 1, 1, before=held(), after=held(**changes))
    check_what_is_left(report)
    (fault,) = report.faults
    assert what in fault
    report = Report("", 1, 1, before=held(), after=held())
    check_what_is_left(report)
    assert not report.faults


@pytest.mark.parametrize(("each", "faults"), [(0, 0), (10, 0), (1000, 1)])
def test_memory_that_grows_is_a_fault(each: int, faults: int):
    report = Report("", 1, 1)
    report.samples = [Sample(n, 50_000 + n * each, 1, 1, 1, 0, 0, 0) for n in range(40)]
    check_memory(report)
    assert len(report.faults) == faults


def test_good_clients_that_wait_long_are_a_fault():
    report = Report("", 1, 1)
    report.quiet.latencies, report.loud.latencies = [0.01] * 100, [0.02] * 100
    check_latency(report)
    assert not report.faults
    report.loud.latencies[:2] = [3.0, 6.0]
    check_latency(report)
    assert [fault[:6] for fault in report.faults] == ["p99 is", "the sl"]


@pytest.mark.parametrize(
    ("what", "begun", "faults"),
    [(COMPLETE, True, 0), (REFUSED, False, 0), (REFUSED, True, 1), (BROKEN, True, 1)],
)
def test_a_request_that_began_is_to_be_completed(what: str, begun: bool, faults: int):
    stop = Stop("", False, outcomes=[Outcome("plain view", "a-1", what, False)])
    check_requests(stop, [("begin", "a-1")] if begun else [])
    assert len(stop.faults) == faults
