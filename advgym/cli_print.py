"""How the command line writes: consoles, numbers, curves as one line of text."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

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
    return Console(file=stream, width=fixed, highlight=False)


class Notices(logging.Handler):
    """Log records as one quiet line each."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich.markup import escape

        err().print(f"[dim]·[/] {escape(record.getMessage())}", soft_wrap=True)


def progress() -> Progress:
    """A progress bar on stderr, drawn only where that is a terminal."""
    return Progress(
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


def heat(rate: float) -> str:
    """A colour of the terminal for a success rate."""
    return "dim" if rate <= 0 else "green" if rate < 0.25 else "yellow" if rate < 0.6 else "red"


def escape(value: Any) -> str:
    """Text that rich prints as it is."""
    from rich.markup import escape as plain

    return plain(str(value))
