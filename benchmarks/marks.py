"""The marks: what asyncflask is to reach, and where it stands.

Each is a ratio of two figures of the same run. None of them makes anything
fail: a machine that is busy says nothing about the library.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .report import say, table

#: a figure by job and peer
Results = dict[tuple[str, str], float]

US = "asyncflask"
#: those of the others that come nearest on the wire
RIVALS = ("blacksheep", "falcon")


class Figures:
    """The figures of a run, and the ratios that the marks are about.

    All methods raise :class:`KeyError` or :class:`ValueError` where a figure is
    missing.
    """

    def __init__(self, results: Results) -> None:
        self.results = results

    def ours(self, job: str) -> float:
        """Return asyncflask's figure."""
        return self.results[job, US]

    def others(self, job: str) -> list[float]:
        """Return the figures of the other frameworks."""
        return [
            figure
            for (name, peer), figure in self.results.items()
            if name == job and peer not in (US, "floor")
        ]

    def to_best(self, job: str) -> float:
        """Return the ratio to the lowest figure of the others."""
        return self.ours(job) / min(self.others(job))

    def to_peer(self, job: str, peer: str) -> float:
        """Return the ratio to a peer."""
        return self.ours(job) / self.results[job, peer]

    def to_job(self, job: str, other: str) -> float:
        """Return the ratio of two jobs of asyncflask."""
        return self.ours(job) / self.ours(other)

    def to_render(self) -> float:
        """Return the ratio of a template to its bare render and a hello world."""
        bare = self.results["template", "floor"] + self.ours("hello")
        return self.ours("template") / bare


@dataclass(frozen=True)
class Mark:
    """One mark.

    :ivar title: what is measured.
    :ivar limit: how much it may be at most.
    :ivar measure: finds it out.
    :ivar at_least: whether the limit is the least instead.
    """

    title: str
    limit: float
    measure: Callable[[Figures], float]
    at_least: bool = False

    def row(self, figures: Figures) -> list[str]:
        """Return what to print about it."""
        measured = self.measure(figures)
        holds = measured >= self.limit if self.at_least else measured <= self.limit
        wanted = f"{'≥' if self.at_least else '≤'} {self.limit:.2f}"
        return [self.title, wanted, f"{measured:.2f}", "yes" if holds else "**no**"]


def lowest(job: str) -> Mark:
    """Return the mark for having the lowest figure of all."""
    return Mark(f"{job}: to the best of the others", 1.0, lambda of: of.to_best(job))


def to_importing(unit: str, peer: str) -> Mark:
    """Return the mark for being imported faster, or with less memory."""
    job = f"import {unit}"
    return Mark(f"{job}: to {peer}", 1.0, lambda of: of.to_peer(job, peer))


def on_the_wire(job: str, peer: str, limit: float) -> list[Mark]:
    """Return the marks for serving so many times the requests of a peer.

    The second says what that would be by the server's CPU time alone, which
    others on the machine do not take away.
    """
    cpu = f"{job} cpu"
    return [
        Mark(f"{job}: to {peer}", limit, lambda of: of.to_peer(job, peer), True),
        Mark(
            f"{job}, by CPU time: to {peer}",
            limit,
            lambda of: 1 / of.to_peer(cpu, peer),
            True,
        ),
    ]


IN_PROCESS: list[Mark] = [
    lowest("hello"),
    Mark("hello: to Starlette", 0.45, lambda of: of.to_peer("hello", "starlette")),
    lowest("user"),
    lowest("same_user"),
    Mark("user: to Starlette", 0.45, lambda of: of.to_peer("user", "starlette")),
    lowest("json"),
    Mark("async_hooks: to hello", 1.5, lambda of: of.to_job("async_hooks", "hello")),
    lowest("not_found"),
    lowest("same_not_found"),
    lowest("not_allowed"),
    lowest("slash"),
    Mark(
        "rules_10000: to rules_10", 1.3, lambda of: of.to_job("rules_10000", "rules_10")
    ),
    lowest("rules_1000"),
    lowest("rules_10000"),
    lowest("same_rule_1000"),
    Mark("10,000 rules: seconds to start", 1.0, lambda of: of.ours("start") / 1e6),
    Mark("url_for: to Werkzeug", 1.0, lambda of: of.to_peer("url_for", "floor")),
    Mark("template: to bare render plus hello", 1.1, lambda of: of.to_render()),
    lowest("echo"),
    lowest("form"),
    lowest("multipart"),
    Mark("session: to Starlette", 0.5, lambda of: of.to_peer("session", "starlette")),
    Mark(
        "session: to bare itsdangerous", 1.0, lambda of: of.to_peer("session", "floor")
    ),
    Mark("unused: to hello", 1.05, lambda of: of.to_job("unused", "hello")),
    Mark("plain: to Starlette", 0.4, lambda of: of.to_peer("plain", "starlette")),
    Mark("plain_hooks: to plain", 1.3, lambda of: of.to_job("plain_hooks", "plain")),
    lowest("stream"),
    lowest("plain_stream"),
    lowest("static"),
    lowest("static_304"),
    lowest("static_big"),
]

#: of requests per second, where more is better, and of latencies
WIRE: list[Mark] = [
    *on_the_wire("hello", "floor", 0.85),
    *[mark for peer in RIVALS for mark in on_the_wire("hello", peer, 1)],
    *on_the_wire("plain", "starlette", 2),
    *on_the_wire("rules_1000", "floor", 0.82),
    *[mark for peer in RIVALS for mark in on_the_wire("rules_1000", peer, 1)],
    *on_the_wire("same_rule_1000", "blacksheep", 1),
    Mark("wait, p50: to the floor", 1.1, lambda of: of.to_peer("wait p50", "floor")),
    Mark("wait, p99: to the floor", 1.1, lambda of: of.to_peer("wait p99", "floor")),
]

MEMORY: list[Mark] = [
    *[
        to_importing(unit, peer)
        for unit in ("ms", "MB")
        for peer in ("flask", "quart", "fastapi")
    ],
    Mark(
        "upload, peak of the biggest: to 10 MB",
        1.1,
        lambda of: of.to_job("upload most", "upload 10 MB"),
    ),
    Mark("idle client: to Starlette", 1.0, lambda of: of.to_peer("idle", "starlette")),
]


def print_marks(marks: list[Mark], results: Results) -> None:
    """Print where each mark stands, if it was measured."""
    figures = Figures(results)
    rows = []
    for mark in marks:
        try:
            rows.append(mark.row(figures))
        except (KeyError, ValueError):  # not measured this time
            continue
    if rows:
        say("### Where the marks stand\n")
        table(["mark", "wanted", "measured", "holds"], rows)
