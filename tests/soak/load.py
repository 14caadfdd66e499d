"""The load: everybody at once for a while, and what is left when they have gone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from .clients import Client, Good, Hostile, Record, Slow, Unreliable
from .limits import WORKERS
from .server import Sample, Server, sample, serving, unexpected
from .wire import Connection, request

#: how many there are of each kind
CROWD: tuple[tuple[type[Client], int], ...] = ((Slow, 8), (Unreliable, 8), (Hostile, 4))
GOOD = 8
#: the part of the time that good clients have the server to themselves
QUIET = 0.15
#: seconds between two looks at the server, and after which it must have settled
EVERY, SETTLE = 2.0, 15.0
#: what the memory may grow by over the second half: KiB, and part of it all
MORE_MEMORY, MORE_MEMORY_PART = 4096, 0.03
#: what the latency of good clients may be among the others: that many times the
#: quiet one's p99, and some seconds; and seconds for the slowest of all
SLOWER, AND_SECONDS, SLOWEST = 10, 0.5, 5.0


@dataclass
class Report:
    """What came of a load."""

    server: str
    seed: int
    seconds: float
    quiet: Record = field(default_factory=Record)
    loud: Record = field(default_factory=Record)
    samples: list[Sample] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def check(self, right: bool, what: str) -> None:
        """Take down what is not right."""
        if not right:
            self.faults.append(what)

    @property
    def second_half(self) -> list[Sample]:
        """The samples of the second half of the time with everybody."""
        return self.samples[len(self.samples) // 2 :]

    @property
    def growth(self) -> float:
        """KiB that the memory grows by over the second half, as a line through it."""
        return slope(self.second_half) * (
            self.second_half[-1].seconds - self.second_half[0].seconds
        )


def slope(samples: list[Sample]) -> float:
    """Return KiB per second: the line of least squares."""
    if len(samples) < 2:
        return 0.0

    xs, ys = [s.seconds for s in samples], [s.memory for s in samples]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / sum(
        (a - x) ** 2 for a in xs
    )


def percentile(values: list[float], part: float) -> float:
    """Return the value that such a part of all are below."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


async def soak(kind: str, folder: Path, seconds: float, seed: int) -> Report:
    """Put a server under load, and look at it before, meanwhile and after."""
    report = Report(kind, seed, seconds)
    with serving(kind, folder) as server:
        await warm_up(server, seed)
        report.before = await look(server)
        quiet = seconds * QUIET
        await good_alone(server, report, quiet)
        await everybody(server, report, seconds - quiet)
        await settle(server, report)
        check_what_is_left(report)
        try:
            server.stop()
        except TimeoutError as exc:
            report.faults.append(f"at the end {exc}")
        check_log(report, server)
    check_latency(report)
    check_memory(report)
    check_clients(report)
    return report


# ------------------------------------------------------------------- the phases


async def warm_up(server: Server, seed: int) -> None:
    """Have all threads started that ever will be, and everything imported."""

    async def meet(path: str) -> None:
        connection = Connection(server.address)
        await connection.open()
        await connection.send(request("GET", path))
        await connection.answer()
        connection.close()

    paths = ["/meet/0.3", "/db/meet/0.3"] * (WORKERS * 2)
    await asyncio.gather(*(meet(path) for path in paths))
    everyone = crowd(server, Record(), Record(), f"warm {seed}")
    await for_a_while(everyone, 1.0)
    await has_settled(server, None)


async def look(server: Server) -> dict[str, Any]:
    """Return what the server holds while nothing happens."""
    state = await server.state(deep=True)
    return {**state, "files": sorted(server.files()), "memory": server.memory()}


def crowd(server: Server, good: Record, others: Record, seed: str) -> list[Client]:
    """Return everybody."""
    found: list[Client] = goods(server, good, seed)
    for kind, count in CROWD:
        found += [
            kind(server.address, Random(f"{seed} {kind.__name__} {n}"), others)
            for n in range(count)
        ]
    return found


def goods(server: Server, record: Record, seed: str) -> list[Client]:
    """Return the good clients."""
    names = [f"{seed.replace(' ', '-')}-{n}" for n in range(GOOD)]
    return [Good(server.address, Random(n), record, name=n) for n in names]


async def for_a_while(clients: list[Client], seconds: float) -> None:
    """Let clients do what they do."""
    end = time.monotonic() + seconds

    def is_over() -> bool:
        return time.monotonic() >= end

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(is_over))


async def good_alone(server: Server, report: Report, seconds: float) -> None:
    """Let good clients have the server to themselves."""
    await for_a_while(goods(server, report.quiet, f"quiet {report.seed}"), seconds)


async def everybody(server: Server, report: Report, seconds: float) -> None:
    """Let everybody in, and look at the server every few seconds."""
    others = report.loud
    clients = crowd(server, report.loud, others, f"loud {report.seed}")
    watching = asyncio.create_task(watch(server, report, min(EVERY, seconds / 8)))
    try:
        await for_a_while(clients, seconds)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    if watching.done() and not watching.cancelled():
        watching.result()


async def watch(server: Server, report: Report, every: float) -> None:
    """Take samples until cancelled."""
    start = time.monotonic()
    while True:
        report.samples.append(await sample(server, time.monotonic() - start))
        await asyncio.sleep(every)


# ---------------------------------------------------------------------- the end


async def settle(server: Server, report: Report) -> None:
    """Wait until the server holds no more than in the beginning, for a while."""
    await has_settled(server, report.before)
    report.after = await look(server)


async def has_settled(server: Server, before: dict[str, Any] | None) -> None:
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        state = await server.state()
        counts = state["counts"]
        is_quiet = not any(pool["lent"] for pool in state["workers"])
        is_quiet &= counts["before"] == counts["teardown"] + 1  # this very request
        if is_quiet and (before is None or not leftovers(before, state, server)):
            return
        await asyncio.sleep(0.1)


def leftovers(before: dict[str, Any], state: dict[str, Any], server: Server) -> bool:
    """Say whether there is more of anything than in the beginning."""
    more_files = len(server.files()) > len(before["files"])
    return more_files or state["tasks"] > before["tasks"]


#: what the threads are called that anyio and the loop start for single calls
SPARE = ("AnyIO", "asyncio_", "uvloop_")


def standing(names: list[str]) -> list[str]:
    """Return the threads that are not of a pool which has a bound of its own."""
    return [name for name in names if not name.startswith(SPARE)]


def check_what_is_left(report: Report) -> None:
    """Compare what the server holds in the end with the beginning."""
    before, after, check = report.before, report.after, report.check
    for name in ("tasks", "contexts"):
        check(
            after[name] <= before[name],
            f"{name}: {before[name]} in the beginning, {after[name]} in the end",
        )
    more = [file for file in after["files"] if file not in before["files"]]
    check(
        len(after["files"]) <= len(before["files"]),
        f"open files: {len(before['files'])}, then {len(after['files'])}: {more}",
    )
    threads = standing(before["threads"]), standing(after["threads"])
    check(len(threads[1]) <= len(threads[0]), f"threads: {threads[0]}, {threads[1]}")
    for pool in after["workers"]:
        check(not pool["lent"] and not pool["waiting"], f"workers: {pool}")
    counts = after["counts"]
    pairs = (("before", "teardown", 1), ("stream", "stream-end", 0))
    for opened, ended, alive in (*pairs, ("connect", "disconnect", 0)):
        check(
            counts[opened] == counts[ended] + alive,
            f"{opened}: {counts[opened]}, but {ended}: {counts[ended]}",
        )


def check_log(report: Report, server: Server) -> None:
    """Look for what does not belong into the log."""
    lines = unexpected(server.log.read_text(errors="replace"), "tests.soak.site.Boom")
    report.check(not lines, f"{len(lines)} lines in the log: {lines[:5]}")


def check_latency(report: Report) -> None:
    """See whether good clients are still served."""
    if not report.quiet.latencies or not report.loud.latencies:
        report.faults.append("no good client was served")
        return

    bound = SLOWER * percentile(report.quiet.latencies, 0.99) + AND_SECONDS
    p99, most = percentile(report.loud.latencies, 0.99), max(report.loud.latencies)
    report.check(p99 <= bound, f"p99 is {p99:.3f} s, over {bound:.3f} s")
    report.check(most <= SLOWEST, f"the slowest took {most:.3f} s, over {SLOWEST} s")


def check_memory(report: Report) -> None:
    """See whether the memory is flat."""
    allowed = MORE_MEMORY + MORE_MEMORY_PART * report.samples[-1].memory
    report.check(
        report.growth <= allowed,
        f"the memory grows by {report.growth:.0f} KiB over the second half,"
        f" over {allowed:.0f}",
    )


def check_clients(report: Report) -> None:
    """Take over what the clients found."""
    for record in (report.quiet, report.loud):
        report.faults += record.faults
        left = record.fault_count - len(record.faults)
        report.check(not left, f"and {left} more of these")
