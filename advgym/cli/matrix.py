"""The matrices of a demo in the terminal."""

from __future__ import annotations

from rich.table import Table

from advgym.cli.printing import escape, heat, out
from advgym.cli.shared.tables import NONE, legend, print_table
from advgym.report.matrix import Cell, Matrix

WIDTH = 11  # of a column, at least
SIGNS = {
    "q": "median queries of a success",
    "†": "no better than the random control",
    "▲": "black-box, above every white-box attack",
    "✕": "the agent crashed on some samples",
    NONE: "not played here",
}


def print_matrix(matrix: Matrix, title: str) -> None:
    """A table, or several below each other where the terminal is narrow."""
    console = out()
    names = max(
        [len(row.name) for group in matrix.groups for row in group.rows] + [len(r.name) for r in matrix.foot] + [5]
    )
    fits = max(1, (console.width - names - 2) // (WIDTH + 2))
    console.print()
    for start in range(0, len(matrix.columns), fits):
        print_table(_table(matrix, slice(start, start + fits), title if not start else ""))
    cells = [cell for group in matrix.groups for row in group.rows for cell in row.cells]
    told = "".join(c.marks + "q" * bool(c.queries) if isinstance(c, Cell) else NONE for c in cells)
    legend(SIGNS, told)


def _table(matrix: Matrix, part: slice, title: str) -> Table:
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    table.add_column("", style="cyan", no_wrap=True)
    for column in matrix.columns[part]:
        domain, _, name = column.rpartition("/")
        head = f"[dim]{escape(domain)}[/]\n{escape(name)}" if domain else escape(name)
        table.add_column(head, justify="right", min_width=WIDTH, overflow="fold")
    for group in matrix.groups:
        table.add_row(f"[dim italic]{escape(group.title)}[/]", *[""] * len(matrix.columns[part]))
        for row in group.rows:
            table.add_row(escape(row.name), *(_cell(c) for c in row.cells[part]))
    for row in matrix.foot:
        table.add_row(
            f"[dim]{escape(row.name)}[/]", *(f"[dim]{c if c is not None else NONE}[/]" for c in row.cells[part])
        )
    return table


def _cell(cell: Cell | str | None) -> str:
    if not isinstance(cell, Cell):
        return f"[dim]{NONE}[/]"
    queries = f"{cell.queries:.0f}q" if cell.queries else ""
    return f"[{heat(cell.rate)}]{cell.percent} %{cell.marks}[/] [dim]{queries:>4}[/]"
