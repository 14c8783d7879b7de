"""`advgym compare`: two results on the same samples, side by side, with paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from advgym.judge.compare import Comparison


def compare(
    first: Annotated[Path, typer.Argument(help="A result file.", metavar="A.JSON")],
    second: Annotated[Path, typer.Argument(help="Another, on the same task and samples.", metavar="B.JSON")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON alone on stdout.")] = False,
    show: Annotated[int, typer.Option(help="Samples where they differ, to print.", min=0, metavar="K")] = 10,
) -> int:
    """Compare two agents (or two defenses) on the same samples: paired tests of success and of queries."""
    import msgspec

    from advgym.judge import results
    from advgym.judge.compare import compare as paired

    found = paired(results.load(first), results.load(second), names=(str(first), str(second)))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        print_comparison(found, show)
    return 0


def print_comparison(c: Comparison, show: int) -> None:
    """The 2 x 2 table, the tests, and samples where the two differ."""
    from rich.table import Table

    from advgym.cli.printing import escape, number, out, percent

    console = out()
    guard = "" if c.defenses == ("none", "none") else f"  [dim]behind {escape(' and '.join(c.defenses))}[/]"
    what = f"victim {escape(c.victim)}, {c.attacked} samples attacked by both"
    console.print(f"[bold]{escape(c.task)}[/]  {what}{guard}\n", soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "agent", "success", "95 %", "queries of common successes", "distinct queries"):
        table.add_column(column, justify="left" if column in ("", "agent") else "right")
    for letter, side in zip("AB", c.sides, strict=True):
        low, high = side.success_ci
        table.add_row(letter, f"[cyan]{escape(side.agent)}[/]", percent(side.success_rate, 1),
                      f"{100 * low:.0f}–{100 * high:.0f}", number(side.queries_both),
                      number(side.queries_distinct_mean))  # fmt: skip
    console.print(table)
    low, high = c.difference_ci
    console.print(
        f"\nboth {c.both}, A alone {c.only_first}, B alone {c.only_second}, neither {c.neither}\n"
        f"A - B: {100 * c.difference:+.1f} points (95 % {100 * low:+.1f} to {100 * high:+.1f}; Newcombe, paired), "
        f"McNemar's exact p = {c.mcnemar_p:.3g}",
        soft_wrap=True,
    )
    low, high = c.queries_ci
    console.print(
        f"queries of the {c.both} samples that both win: A needs fewer on {c.fewer_first}, B on {c.fewer_second}; sign "
        f"test p = {c.sign_p:.3g}; mean of A - B {number(c.queries_difference)} "
        f"(95 % {number(low)} to {number(high)}; bootstrap over samples)",
        soft_wrap=True,
    )
    for note in c.notes:
        console.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)
    differ = [row for row in c.samples if row.winner in ("A", "B")][:show]
    if differ:
        console.print(f"\n[bold]{'samples that one of them alone beats'}[/]")
        for row in differ:
            console.print(f"[cyan]#{row.id}[/] {row.winner}  queries {row.queries[0]} and {row.queries[1]}")
