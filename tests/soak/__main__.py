"""The command line: ``python -m tests.soak --seconds 60 --seed 3 --http h11``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from .clients import Record
from .limits import STOP_GRACE
from .load import (
    AND_SECONDS,
    MORE_MEMORY,
    MORE_MEMORY_PART,
    SLOWER,
    SLOWEST,
    Report,
    percentile,
    soak,
    standing,
)
from .stops import BROKEN, COMPLETE, FAILED, MARGIN, REFUSED, Stop, stopped

#: lines of the table of samples at most
MOST_ROWS = 30


def main(arguments: list[str]) -> int:
    """Run what the command line says; return what the shell is to get."""
    parser = argparse.ArgumentParser(prog="nox -s soak --")
    parser.add_argument("--seconds", type=float, default=300, help="of the load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--http", choices=["httptools", "h11"], default="httptools")
    parser.add_argument(
        "--stops", type=int, default=3, help="SIGTERMs of each kind, for each server"
    )
    options = parser.parse_args(arguments)
    start = time.monotonic()
    uvicorn = f"uvicorn {options.http}"
    print(f"seed {options.seed}, {uvicorn}, {options.seconds:g} seconds", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        faults = 0
        if options.seconds:
            load = soak(uvicorn, folder / "load", options.seconds, options.seed)
            report = asyncio.run(load)
            show_load(report)
            faults += len(report.faults)
        stops = stop_all(uvicorn, folder, options.stops, options.seed)
        faults += sum(len(stop.faults) for stop in stops)
    print(f"\n{faults} faults in {time.monotonic() - start:.0f} s")
    return 1 if faults else 0


def stop_all(uvicorn: str, folder: Path, count: int, seed: int) -> list[Stop]:
    """Stop servers in the middle of their work, and say how it went."""
    stops = []
    for number in range(count):
        for server in (uvicorn, "gunicorn gthread"):
            for with_endless in (False, True):
                place = folder / f"stop{len(stops)}"
                name = f"{seed}-{number}"
                stops.append(asyncio.run(stopped(server, place, name, with_endless)))
    show_stops(stops)
    return stops


# ---------------------------------------------------------------------- the load


def show_load(report: Report) -> None:
    """Print what the load has come to."""
    print(
        "\n   time     memory   files  threads  tasks  workers lent (waited for)"
        "  loop lag"
    )
    rows = report.samples[:: max(1, -(-len(report.samples) // MOST_ROWS))]
    for row in rows:
        print(
            f"{row.seconds:6.0f} s {row.memory:7} KiB {row.files:6} {row.threads:7}"
            f" {row.tasks:6} {row.lent:7} ({row.waiting}) {row.lag * 1000:20.0f} ms"
        )
    allowed = MORE_MEMORY + MORE_MEMORY_PART * report.samples[-1].memory
    print(
        f"The memory grows by {report.growth:.0f} KiB over the second half"
        f" (allowed: {allowed:.0f})."
    )
    show_before_and_after(report)
    show_latencies(report)
    show_kinds(report.loud)
    show_faults(report.faults)


def show_before_and_after(report: Report) -> None:
    """Print what was held in the beginning, and in the end."""
    print("\n                   in the beginning   in the end")
    before, after = report.before, report.after
    for name, get in (
        ("memory, KiB", lambda held: held["memory"]),
        ("memory blocks", lambda held: held["blocks"]),
        ("open files", lambda held: len(held["files"])),
        ("threads", lambda held: len(standing(held["threads"]))),
        ("tasks", lambda held: held["tasks"]),
        ("contexts", lambda held: held["contexts"]),
        ("workers lent", lambda held: sum(p["lent"] for p in held["workers"])),
    ):
        print(f"{name:18} {get(before):16} {get(after):12}")


def show_latencies(report: Report) -> None:
    """Print how long good clients have waited."""
    print("\ngood clients       requests      p50      p99     max")
    for name, record in (("alone", report.quiet), ("among others", report.loud)):
        known = record.latencies or [0.0]
        values = percentile(known, 0.5), percentile(known, 0.99), max(known)
        milliseconds = " ".join(f"{value * 1000:5.0f} ms" for value in values)
        print(f"{name:18} {len(known):8} {milliseconds}")
    worst = ", ".join(
        f"{name} {seconds * 1000:.0f} ms"
        for name, seconds in report.loud.slowest.most_common(5)
    )
    print(f"the slowest among others: {worst}")
    print(
        f"(allowed: a p99 of {SLOWER} times that alone and {AND_SECONDS} s,"
        f" and {SLOWEST} s for the slowest)"
    )


def show_kinds(record: Record) -> None:
    """Print what the clients have done."""
    print("\nso often")
    names = sorted(record.kinds, key=lambda name: (":" in name, name))
    for first, second in zip(names[::2], [*names[1::2], ""]):
        left, right = (f"{record.kinds[n] or '':7} {n:40}" for n in (first, second))
        print(f"{left}{right}".rstrip())
    codes = ", ".join(f"{c}: {n}" for c, n in sorted(record.statuses.items()))
    print(f"responses by status: {codes}")


# --------------------------------------------------------------------- the stops


def show_stops(stops: list[Stop]) -> None:
    """Print what SIGTERM has come to."""
    if not stops:
        return

    print(f"\nSIGTERM, with a grace of {STOP_GRACE} s and {MARGIN} s to clean up")
    print(
        "                    endless      ended  exit  requests                streams"
    )
    print("                    requests?    after  code  ", end="")
    print("complete refused broken 500  opened closed")
    for stop in stops:
        ended = [stop.ended(what) for what in (COMPLETE, REFUSED, BROKEN, FAILED)]
        print(
            f"{stop.server:20}{'yes' if stop.with_endless else 'no':8}"
            f" {stop.seconds:7.1f} s {stop.code!s:>5}"
            f"  {ended[0]:8} {ended[1]:7} {ended[2]:6} {ended[3]:3}"
            f"  {stop.events['open']:6} {stop.events['close']:6}"
        )
    for stop in stops:
        show_faults(stop.faults)


def show_faults(faults: list[str]) -> None:
    """Print what is not as it should be."""
    for fault in faults:
        print(f"FAULT {fault}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
