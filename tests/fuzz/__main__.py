"""The command line: ``python -m tests.fuzz --count 1000 --seed 7 --target asgi``."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random

from asyncflask.loops import process_loop

from .targets import TARGETS, Target, check

#: seconds that one input may take, and after which the whole run is given up
SLOW, HUNG = 5.0, 60.0
#: what may grow over a run: blocks of memory, and those for each input
MORE_BLOCKS, BLOCKS_EACH = 4000, 0.05
#: faults that are shown of each target
SHOWN = 5


class Watch(threading.Thread):
    """Gives the run up when one input never ends, and says which."""

    def __init__(self) -> None:
        super().__init__(name="watch", daemon=True)
        self.name_of_input = ""
        self.since = time.monotonic()

    def start_input(self, name: str) -> None:
        """Take note of what runs now."""
        self.name_of_input, self.since = name, time.monotonic()

    def run(self) -> None:
        """Look at the clock every second."""
        while True:
            time.sleep(1)
            if time.monotonic() - self.since > HUNG:
                print(f"{self.name_of_input} HANGS; here is where:", flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(3)


class Run:
    """Many inputs for one target."""

    def __init__(self, name: str, target: Target, seed: int, watch: Watch) -> None:
        self.name = name
        self.target = target
        self.seed = seed
        self.watch = watch
        self.faults = 0
        self.slowest = 0.0, ""

    def one(self, number: int) -> None:
        """Try one input."""
        name = f"{self.name}:{self.seed}:{number}"
        given = self.target.input(Random(name))
        self.watch.start_input(name)
        start = time.perf_counter()
        try:
            self.target.run(given)
        except Exception as exc:
            self.report(name, exc)
        taken = time.perf_counter() - start
        self.slowest = max(self.slowest, (taken, name))
        if taken > SLOW:
            self.report(name, TimeoutError(f"it took {taken:.1f} s"))

    def report(self, name: str, exc: Exception) -> None:
        """Show a fault, and how to see it again."""
        self.faults += 1
        if self.faults <= SHOWN:
            what = f"{type(exc).__name__}: {exc}"
            print(f"FAULT {what}\n      replay it with: nox -s fuzz -- --replay {name}")

    def many(self, count: int) -> None:
        """Try many, and see that nothing has been left behind by them."""
        warm_up = count // 4
        for number in range(warm_up):
            self.one(number)
        before = left_behind()
        for number in range(warm_up, count):
            self.one(number)
        after = left_behind()
        grown = after["blocks"] - before["blocks"]
        try:
            limit = MORE_BLOCKS + BLOCKS_EACH * count
            check(grown <= limit, "memory grows: blocks", grown, "limit", limit)
            check(after["files"] <= before["files"], "open files", before, after)
        except AssertionError as exc:
            self.report(f"{self.name}:{self.seed}:{count - 1}", exc)


def left_behind() -> dict[str, int]:
    """Count what a request could leave behind."""
    gc.collect()
    files = Path("/proc/self/fd")
    return {
        "blocks": sys.getallocatedblocks(),
        "files": len(list(files.iterdir())) if files.exists() else 0,
    }


def try_target(name: str, count: int, seed: int, watch: Watch) -> int:
    """Try a target, and return the number of faults."""
    start = time.perf_counter()
    threads = set(threading.enumerate())
    with tempfile.TemporaryDirectory() as folder:
        target = TARGETS[name][0](Path(folder))
        run = Run(name, target, seed, watch)
        run.many(count)
        try:
            target.close()
            check_threads(threads)
        except AssertionError as exc:
            run.report(f"{name}:{seed}:{count - 1}", exc)
    taken = time.perf_counter() - start
    slowest, which = run.slowest
    print(
        f"{name:11} {count:7} inputs in {taken:6.1f} s, {count / taken:6.0f}/s,"
        f" {run.faults} faults; the slowest took {slowest * 1000:.0f} ms ({which})",
        flush=True,
    )
    return run.faults


def check_threads(before: set[threading.Thread]) -> None:
    """Check that no thread is left but those that stay for the whole process."""
    deadline = time.monotonic() + 5
    while left := [
        thread
        for thread in set(threading.enumerate()) - before
        if not thread.name.startswith(("AnyIO", "asyncflask-loop"))
    ]:
        check(time.monotonic() < deadline, "threads were left behind", left)
        time.sleep(0.01)


def replay(name: str, watch: Watch) -> int:
    """Try one input once more, and let its fault through."""
    target, seed, number = name.split(":")
    with tempfile.TemporaryDirectory() as folder:
        tried = TARGETS[target][0](Path(folder))
        given = tried.input(Random(name))
        print("\n".join(f"{k}: {v!r}" for k, v in described(given)))
        watch.start_input(name)
        tried.run(given)
        tried.close()
    print(f"{target}:{seed}:{number} is fine")
    return 0


def described(given: object) -> list[tuple[str, object]]:
    """Return the parts of an input."""
    parts = given if isinstance(given, tuple) else (given,)
    return [
        (type(part).__name__, getattr(part, "__dict__", None) or part) for part in parts
    ]


def main(arguments: list[str], watch: Watch | None = None) -> int:
    """Run what the command line says; return what the shell is to get.

    :param watch: what keeps the time; it need not be started.
    """
    parser = argparse.ArgumentParser(prog="nox -s fuzz --")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--count", type=int, help="inputs, of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", metavar="NAME", help="try one input once more")
    options = parser.parse_args(arguments)
    watch = watch or Watch()
    if options.replay:
        return replay(options.replay, watch)

    disabled = logging.root.manager.disable
    logging.disable()
    try:
        return try_all(options.target, options.count, options.seed, watch)
    finally:
        logging.disable(disabled)


def try_all(only: str | None, count: int | None, seed: int, watch: Watch) -> int:
    """Try all targets, or one, and say how it went."""
    process_loop()  # it stays as long as the process
    chosen = [only] if only else list(TARGETS)
    usual = sum(TARGETS[name][1] for name in chosen)
    share = 1.0 if count is None else count / usual
    counts = {name: max(1, round(TARGETS[name][1] * share)) for name in chosen}
    whole = sum(counts.values())
    print(f"seed {seed}, {whole} inputs", flush=True)
    start = time.perf_counter()
    faults = sum(try_target(name, n, seed, watch) for name, n in counts.items())
    taken = time.perf_counter() - start
    print(f"{whole} inputs in {taken:.0f} s, {whole / taken:.0f}/s, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    started = Watch()
    started.start()
    sys.exit(main(sys.argv[1:], started))
