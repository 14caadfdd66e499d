"""The marks: what asyncflask is to reach, and where it stands.

Each is a ratio of two figures of the same run. None of them makes anything
fail: a machine that is busy says nothing about the library.
"""

from collections.abc import Callable

from .report import say, table

#: figures by job and peer
Results = dict[tuple[str, str], float]

US = "asyncflask"


class Figures:
    """The figures of a run, and what the marks make of them.

    All methods raise :class:`KeyError` or :class:`ValueError` where a figure is
    missing.
    """

    def __init__(self, results: Results) -> None:
        self.results = results

    def ours(self, job: str) -> float:
        """Return asyncflask's figure."""
        return self.results[job, US]

    def of(self, job: str, peer: str) -> float:
        """Return a peer's figure."""
        return self.results[job, peer]

    def best(self, job: str) -> float:
        """Return the best figure of the other frameworks."""
        return min(
            value
            for (name, peer), value in self.results.items()
            if name == job and peer not in (US, "floor")
        )

    def to_best(self, job: str) -> float:
        """Return the ratio to the best of the others."""
        return self.ours(job) / self.best(job)

    def to_peer(self, job: str, peer: str) -> float:
        """Return the ratio to a peer."""
        return self.ours(job) / self.of(job, peer)

    def to_job(self, job: str, other: str) -> float:
        """Return the ratio of two jobs of asyncflask."""
        return self.ours(job) / self.ours(other)


#: what is measured, the most it may be, and how to find out
Mark = tuple[str, float, Callable[[Figures], float]]


def lowest(*jobs: str) -> list[Mark]:
    """Return the marks for being the fastest of all."""
    return [
        (f"{job}: to the best of the others", 1.0, lambda f, job=job: f.to_best(job))
        for job in jobs
    ]


MARKS: list[Mark] = [
    *lowest("hello", "user", "json"),
    ("hello: to Starlette", 0.45, lambda f: f.to_peer("hello", "starlette")),
    ("user: to Starlette", 0.45, lambda f: f.to_peer("user", "starlette")),
    ("hooks, async: to hello", 1.5, lambda f: f.to_job("async_hooks", "hello")),
    *lowest("not_found", "not_allowed", "slash", "rules_1000", "rules_10000"),
    ("10,000 rules: to 10", 1.3, lambda f: f.to_job("rules_10000", "rules_10")),
    ("10,000 rules: seconds to start", 1.0, lambda f: f.ours("start") / 1e6),
    ("url_for: to Werkzeug", 1.0, lambda f: f.to_peer("url_for", "floor")),
    (
        "template: to the bare render plus hello",
        1.1,
        lambda f: f.ours("template") / (f.of("template", "floor") + f.ours("hello")),
    ),
    *lowest("form", "multipart"),
    ("session: to Starlette", 0.5, lambda f: f.to_peer("session", "starlette")),
    ("session: to bare itsdangerous", 1.0, lambda f: f.to_peer("session", "floor")),
    ("unused cookies and query: to hello", 1.0, lambda f: f.to_job("unused", "hello")),
    ("def view: to Starlette", 0.4, lambda f: f.to_peer("plain", "starlette")),
    ("hooks, plain: to the def view", 1.3, lambda f: f.to_job("plain_hooks", "plain")),
    *lowest("stream", "plain_stream", "static", "static_304", "static_big"),
]


def print_marks(results: Results) -> None:
    """Print where each mark stands, if it was measured."""
    figures = Figures(results)
    rows = []
    for title, at_most, measure in MARKS:
        try:
            measured = measure(figures)
        except (KeyError, ValueError):
            continue

        holds = "yes" if measured <= at_most else "no"
        rows.append([title, f"{at_most:.2f}", f"{measured:.2f}", holds])
    if rows:
        say("### Where the marks stand\n")
        table(["mark", "at most", "measured", "holds"], rows)
