"""How the command line writes: consoles, numbers, curves as one line of text."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from advgym.cli.pulse import Bar, spoke

if TYPE_CHECKING:
    from advgym.judge.results import Result

BLOCKS = "▁▂▃▄▅▆▇█"
WIDE = 140  # columns of a table that goes to a file or a pipe


def out() -> Console:
    """Standard output; wide enough for tables where nobody looks."""
    return _console(sys.stdout)


def err() -> Console:
    """Standard error, one console per stream, so that notices appear above a progress bar."""
    return _console(sys.stderr)


@cache
def _console(stream: IO[str]) -> Console:
    fixed = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
    return _Console(file=stream, width=fixed, highlight=False)


class _Console(Console):
    """One that tells the pulse when it wrote."""

    def print(self, *objects: Any, **options: Any) -> None:
        spoke()
        super().print(*objects, **options)


class Notices(logging.Handler):
    """Log records as one quiet line each."""

    def emit(self, record: logging.LogRecord) -> None:
        err().print(f"[dim]·[/] {escape(record.getMessage())}", soft_wrap=True)


def notice(text: str) -> None:
    """One quiet line on stderr."""
    err().print(f"[dim]· {escape(text)}[/]", soft_wrap=True)


def progress() -> Bar:
    """A progress bar on stderr, drawn only where that is a terminal; elsewhere the pulse says it in lines."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        TimeElapsedColumn(),
        console=err(),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def percent(rate: float, digits: int = 0) -> str:
    """A rate as a percentage.

    >>> percent(0.667)
    '67 %'
    """
    return f"{100 * rate:.{digits}f} %"


def number(value: float) -> str:
    """Three digits, no more.

    >>> number(150.0), number(0.125), number(3.14159)
    ('150', '0.125', '3.14')
    """
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def spark(curve: Sequence[tuple[int, float]]) -> str:
    """Rates in [0, 1] as a line of blocks.

    >>> spark([(1, 0.0), (10, 0.5), (100, 1.0)])
    '▁▅█'
    """
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(rate * (len(BLOCKS) - 1) + 0.5))] for _, rate in curve)


def column_lines(r: Result) -> list[str]:
    """What a result's columns say, a line each: the rate that each bar leaves, and the means over the successes."""
    lines = []
    if r.members_rate is not None:
        lines.append(f"success counts the members of bundles: {percent(r.members_rate, 1)} reached the goal")
    for name, c in r.columns.items():
        if c.success_rate is not None and c.success_ci is not None and c.bar is not None:
            low, high = c.success_ci
            lines.append(
                f"success with {name} of at least {number(c.bar)}: {percent(c.success_rate, 1)} "
                f"({100 * low:.0f}–{100 * high:.0f}) of the {r.attacked} attacked"
            )
            if r.columns_about.get(name):
                lines.append(f"  {name}: {r.columns_about[name]}")
    parts = {name for c in r.columns.values() for name in c.ratio or ()}  # counts, of which the ratio is told
    shown = {name: c for name, c in r.columns.items() if name not in parts}
    means = [f"{name} {number(c.mean if c.mean_success is None else c.mean_success)}" for name, c in shown.items()]
    if means:
        of = "successes" if any(s.success for s in r.samples) else "final perturbations"
        lines.append(f"means over the {of}: {', '.join(means)}")
    return lines


def heat(rate: float) -> str:
    """A colour of the terminal for a success rate."""
    return "dim" if rate <= 0 else "green" if rate < 0.25 else "yellow" if rate < 0.6 else "red"


def escape(value: Any) -> str:
    """Text that rich prints as it is."""
    from rich.markup import escape as plain

    return plain(str(value))


def say_notes(notes: list[str]) -> None:
    """What a reader should know beside a verdict."""
    for line in notes:
        out().print(f"[yellow]note[/] {escape(line)}", soft_wrap=True)
