"""Tables that fit: where a terminal is too narrow for the columns, each row is a few lines, and no cell is broken."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from advgym.cli.printing import out

NONE = "–"
LEAST = 24  # columns that a text which wraps between words may shrink to


def table(*columns: str, text: tuple[str, ...] = (), left: tuple[str, ...] = ()) -> Table:
    """A table as all commands print them: headings bold, no lines, numbers to the right.

    Args:
        columns: headings; the first is a name, in cyan.
        text: those that may wrap between words.
        left: those that are words and stand to the left, beside the first and the texts.
    """
    found = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        wraps = name in text
        plain = not i or wraps or name in left
        found.add_column(name, justify="left" if plain else "right", no_wrap=not wraps, style="" if i else "cyan")
    return found


def print_table(found: Table) -> None:
    """The table, or its rows one below the other where it does not fit."""
    console = out()
    wide = [
        max((line.cell_len for cell in (column.header, *column.cells) for line in _text(cell).split()), default=0)
        for column in found.columns
    ]
    for column, w in zip(found.columns, wide, strict=True):
        column.no_wrap = column.no_wrap or w <= LEAST  # numbers and names are never broken
    least = [w if column.no_wrap else LEAST for w, column in zip(wide, found.columns, strict=True)]
    if sum(least) + 2 * (len(least) - 1) <= console.width:
        console.print(found)
        return
    if found.title:
        console.print(Text.from_markup(str(found.title), style="bold"))
    heads = [" ".join(_text(column.header).plain.split()) for column in found.columns]
    for cells in zip(*(column.cells for column in found.columns), strict=True):
        first, *rest = (_text(cell) for cell in cells)
        console.print(first.copy() if first.style else Text.assemble((first.plain, "bold cyan")))
        for head, cell in zip(heads[1:], rest, strict=True):
            if cell.plain.strip():
                told = Text.assemble((f"  {head} " if head else "  ", "dim"), cell)
                console.print(told, overflow="fold")


def _text(cell: object) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text.from_markup(str(cell))


def emit(value: object) -> None:
    """A result as one JSON document on stdout, where `--json` asks for it; nothing else is printed there."""
    import sys

    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=1).decode() + "\n")


def legend(signs: dict[str, str], shown: str) -> None:
    """What the signs mean that are in `shown`, in one dim line; nothing where there are none."""
    told = "; ".join(f"{sign} {means}" for sign, means in signs.items() if sign in shown)
    if told:
        out().print(Text(told, style="dim"))
