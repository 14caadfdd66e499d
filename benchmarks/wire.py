"""Requests per second, and latency, over the wire.

Each peer is served by uvicorn with uvloop and httptools: one worker, on a core
of its own. ``wrk`` asks from another core. The peers take turns, and the median
of the rounds counts. What counts of that are the ratios to the floor, a bare
ASGI callable that does the same. Beside the rate stands the CPU time that the
server spent on a request: on a busy machine that is the figure to look at.
"""

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass

from . import work
from .driving import NUMBER
from .marks import WIRE, Results, print_marks
from .peers import PEERS, describe_run, factory
from .report import number, ratio, say, show_progress, table
from .servers import Server, serving


@dataclass
class WireJob:
    """What is asked for over the wire.

    :ivar name: the job in the tables of :mod:`benchmarks.apps`.
    :ivar path: where; ``{}`` in it stands for a number, another one each time.
    :ivar floor: the job of the floor to compare with.
    :ivar app: the job whose applications it is asked of, if that is another.
    """

    name: str
    title: str
    path: str
    answer: bytes
    connections: int = 64
    floor: str = "hello"
    app: str = ""


JOBS = [
    WireJob("hello", "hello world", "/", b"Hello World"),
    WireJob("plain", "`def` view", "/plain", b"Hello World", floor="plain"),
    WireJob("rules_1000", "the last of 1,000 rules", work.last_rule(1000), b"42 None"),
    WireJob(
        "same_rule_1000",
        "the last of 1,000 rules, one id again and again",
        work.last_rule(1000).format(NUMBER),
        b"42 None",
        app="rules_1000",
    ),
    WireJob("wait", "10 ms of waiting", "/wait", b"Hello World", 1000, "wait"),
]

#: how wrk is told to ask for another number each time
_SCRIPT = """
request = function()
  return wrk.format(nil, string.format("{}", math.random(0, 999999)))
end
"""
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass
class Figures:
    """What was measured in a round, or the medians of all.

    :ivar rate: requests per second.
    :ivar cpu: microseconds of the server's CPU time for each.
    :ivar p50: latency in milliseconds; half of the requests took longer.
    :ivar p99: latency in milliseconds; one of a hundred took longer.
    """

    rate: float
    cpu: float
    p50: float
    p99: float


def cores() -> tuple[int | None, int | None]:
    """Return a core for the server and one for wrk, if there are two."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None

    mine = sorted(os.sched_getaffinity(0))
    return (mine[-1], mine[0]) if len(mine) > 1 else (None, None)


def run_wrk(server: Server, job: WireJob, seconds: int, core: int | None) -> Figures:
    """Ask a server for some seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if "{}" in job.path:
            script.write(_SCRIPT.format(job.path.replace("{}", "%d")))
            script.flush()
        return _run_wrk(server, job, seconds, core, script.name)


def _run_wrk(
    server: Server, job: WireJob, seconds: int, core: int | None, script: str
) -> Figures:
    command = [
        "wrk",
        "--latency",
        "--threads=1",
        f"--connections={job.connections}",
        f"--duration={seconds}s",
        "--timeout=30s",
        f"--script={script}",
        f"http://127.0.0.1:{server.port}{job.path}",
    ]
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    before = server.cpu_time()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    spent = server.cpu_time() - before
    trouble = re.search("Non-2xx.*|Socket errors.*", done.stdout)
    if trouble is not None:
        raise AssertionError(trouble[0])

    requests = int(_find(r"(\d+) requests in", done.stdout))
    latencies = {
        percent: float(value) * _UNITS[unit]
        for percent, value, unit in re.findall(
            r"(\d+)%\s+([\d.]+)(us|ms|s|m)\b", done.stdout
        )
    }
    return Figures(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", done.stdout)),
        cpu=spent / max(1, requests) * 1e6,
        p50=latencies["50"],
        p99=latencies["99"],
    )


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise AssertionError(f"wrk does not say {pattern}: {text}")

    return found[1]


def measure(
    job: WireJob, peers: list[str], rounds: int, seconds: int
) -> dict[str, Figures]:
    """Measure the peers that have the job; return the medians."""
    server_core, wrk_core = cores()
    found: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        servers = []
        for peer in peers:
            name = job.floor if peer == "floor" else job.app or job.name
            if factory(peer, name) is not None:
                servers.append(stack.enter_context(serving(peer, name, server_core)))
        servers = [server for server in servers if is_right(server, job)]
        for turn in range(-1 if rounds > 1 else 0, rounds):
            show_progress(f"{job.name}: round {turn + 1} of {rounds}")
            for server in servers:
                try:
                    figures = run_wrk(server, job, seconds, wrk_core)
                except AssertionError as exc:
                    say(f"- {server.peer} misses a round of “{job.title}”: {exc}")
                    continue

                if turn >= 0:  # the first seconds are not like the others
                    found.setdefault(server.peer, []).append(figures)
        show_progress("")
    return {peer: median(figures) for peer, figures in found.items()}


def is_right(server: Server, job: WireJob) -> bool:
    """Say whether a server gives the right answer, and what it gives if not."""
    body = server.get(job.path.format(NUMBER))
    if body == job.answer or server.peer == "floor":
        return True

    say(f"- {server.peer} is left out of “{job.title}”: it answers {body[:60]!r}")
    return False


def median(figures: list[Figures]) -> Figures:
    """Return the median of each figure."""
    return Figures(
        statistics.median(f.rate for f in figures),
        statistics.median(f.cpu for f in figures),
        statistics.median(f.p50 for f in figures),
        statistics.median(f.p99 for f in figures),
    )


def run(only: set[str], rounds: int, quick: bool) -> None:
    """Measure all jobs, or only some, and print the tables."""
    say("## On the wire\n")
    say(describe_run() + "\n")
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        say("Not measured: there is no wrk, or no taskset, on this machine.\n")
        return

    peers = ["asyncflask", "starlette", "floor"] if quick else PEERS
    found = {}
    for job in JOBS:
        if not only or job.name in only:
            found[job.name] = measure(job, peers, rounds, 1 if quick else 2)
            print_job(job, found[job.name])
    results: Results = {}
    for name, by_peer in found.items():
        for peer, figures in by_peer.items():
            results[name, peer] = figures.rate
            results[f"{name} cpu", peer] = figures.cpu
            results[f"{name} p50", peer] = figures.p50
            results[f"{name} p99", peer] = figures.p99
    print_marks(WIRE, results)


def print_job(job: WireJob, found: dict[str, Figures]) -> None:
    """Print the table of a job, the cheapest first."""
    floor = found.get("floor", Figures(0, 0, 0, 0))
    rows = [
        [
            peer,
            number(figures.rate),
            ratio(figures.rate, floor.rate),
            number(figures.cpu),
            ratio(floor.cpu, figures.cpu),
            number(figures.p50),
            ratio(figures.p50, floor.p50),
            number(figures.p99),
            ratio(figures.p99, floor.p99),
        ]
        for peer, figures in sorted(found.items(), key=lambda item: item[1].cpu)
    ]
    say(f"### {job.title}, {job.connections:,} connections\n")
    columns = ["", "req/s", "of the floor's", "CPU µs", "so of the floor's"]
    columns += ["p50 ms", "to the floor", "p99 ms", "to the floor"]
    table(columns, rows)
