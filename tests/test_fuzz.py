"""The fuzzer itself: a short run, and the same inputs each time."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import pytest

from .fuzz.__main__ import main
from .fuzz.mutation import corpus, cut, mutated
from .fuzz.targets import TARGETS, Target


def test_two_thousand_inputs_find_nothing(capsys):
    assert main(["--count", "2000", "--seed", "1"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_made_anew_from_its_name(name, tmp_path):
    target = TARGETS[name][0](tmp_path)
    first, second = (target.input(Random(f"{name}:1:5")) for _ in range(2))
    target.close()
    if name in ("asgi", "wsgi"):
        first, second = ((*i[:1], vars(i[1]), *i[2:]) for i in (first, second))
    assert first == second


class Failing(Target):
    """Fails for one input in ten."""

    def input(self, random):
        return random.randrange(10)

    def run(self, given):
        assert given, "it was nought"


def test_a_fault_is_shown_with_what_replays_it(monkeypatch, capsys):
    monkeypatch.setitem(TARGETS, "failing", (Failing, 100))
    assert main(["--target", "failing", "--count", "100"]) == 1
    said = capsys.readouterr().out
    name = said.partition("--replay ")[2].split()[0]
    assert "FAULT AssertionError: it was nought" in said
    with pytest.raises(AssertionError, match="it was nought"):
        main(["--replay", name])


class Growing(Target):
    """Leaves something behind for each input."""

    def __init__(self, folder):
        super().__init__(folder)
        self.kept = []

    def input(self, random):
        return None

    def run(self, given):
        self.kept.append([object()])


def test_memory_that_grows_is_a_fault(monkeypatch, capsys):
    monkeypatch.setitem(TARGETS, "growing", (Growing, 100))
    assert main(["--target", "growing", "--count", "10000"]) == 1
    assert "memory grows" in capsys.readouterr().out


@pytest.mark.process
def test_the_command_line_runs_one_target():
    command = [sys.executable, "-m", "tests.fuzz", "--target", "cookies"]
    done = subprocess.run(
        [*command, "--count", "100", "--seed", "7"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "seed 7, 100 inputs" in done.stdout
    assert "cookies" in done.stdout


def test_pieces_make_the_whole_and_nothing_grows_without_bound():
    random = Random(1)
    entries = corpus("requests.http")
    for _ in range(200):
        data = mutated(random, random.choice(entries), entries)
        assert len(data) <= 50_000
        assert b"".join(cut(random, data)) == data
