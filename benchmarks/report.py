"""Print Markdown tables."""

import sys
from collections.abc import Sequence


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def number(value: float | None) -> str:
    """Write a number with three digits that mean something; a dash for None."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value: float | None, other: float | None) -> str:
    """Write how many times the other value a value is."""
    return "-" if value is None or not other else f"{value / other:.2f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are of numbers."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows)]
    lines = [columns, *rows]
    written = [
        [
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths))
        ]
        for line in lines
    ]
    rule = [
        "-" * width if at == 0 else "-" * (width - 1) + ":"
        for at, width in enumerate(widths)
    ]
    written.insert(1, rule)
    for line in written:
        say("| " + " | ".join(line) + " |")
    say()


def show_progress(text: str) -> None:
    """Show how far things are, on a terminal only; nothing for an empty text."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:<60}\r")
