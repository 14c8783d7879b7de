"""`advgym compare`: results on the same samples: two side by side with paired tests, many by the least distortion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advgym.cli.shared.command import Json

if TYPE_CHECKING:
    from advgym.judge.compare import Comparison
    from advgym.judge.distortion import Distortion


def compare(
    files: Annotated[list[Path], typer.Argument(help="Results on the same task and samples.", metavar="R.JSON...")],
    as_json: Json = False,
    show: Annotated[int, typer.Option(help="Of two: samples where they differ, to print.", min=0, metavar="K")] = 10,
) -> int:
    """Compare agents (or two defenses) on the same samples: two by paired tests, all by curves of distance.

    With two files: paired tests of success and of queries. With two or more of one victim: robust accuracy against
    distance, its area and local optimality (AttackBench, Cina et al. 2024), for results made with least=true.
    """
    import msgspec

    from advgym.errors import AdvgymError
    from advgym.judge import results
    from advgym.judge.compare import compare as paired
    from advgym.judge.distortion import distortion

    if len(files) < 2:
        raise AdvgymError("compare takes two result files or more, on the same task and samples")
    loaded, names = [results.load(f) for f in files], [str(f) for f in files]
    two = paired(loaded[0], loaded[1], names=(names[0], names[1])) if len(files) == 2 else None
    same = two is None or two.defenses[0] == two.defenses[1]
    curves = distortion(loaded, names) if same else None
    if as_json:
        found = {} if two is None else msgspec.to_builtins(two)
        more = {} if curves is None else {"distortion": msgspec.to_builtins(curves)}
        typer.echo(msgspec.json.format(msgspec.json.encode({**found, **more}), indent=1).decode())
        return 0
    if two is not None:
        print_comparison(two, show)
    if curves is not None and (two is None or not curves.notes):
        print_distortion(curves)
    return 0


def print_distortion(d: Distortion) -> None:
    """A row an attack: success, median distance, area, optimality, and robust accuracy at some distances."""
    from rich.table import Table

    from advgym.cli.printing import escape, out, percent
    from advgym.cli.shared.tables import print_table

    console = out()
    guard = "" if d.defense == "none" else f"  [dim]behind {escape(d.defense)}[/]"
    console.print(
        f"\n[bold]{escape(d.task)}[/]  victim {escape(d.victim)}, {d.attacked} of {d.samples} samples{guard}\n",
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    step = max(1, (len(d.curves[0].curve) - 1) // 5)
    at = [i for i in range(len(d.curves[0].curve)) if i % step == 0 and i][:5]
    marks = [f"at {d.curves[0].curve[i][0]:.3g}" for i in at]
    for column in ("agent", "success", "median distance", "area", "optimality", "nearest", *marks):
        table.add_column(column, justify="left" if column == "agent" else "right")
    for c in sorted(d.curves, key=lambda c: -c.optimality):
        middle = "-" if c.distance_median is None else f"{c.distance_median:.4g}"
        table.add_row(f"[cyan]{escape(c.agent)}[/]", percent(c.success_rate, 1), middle, f"{c.area:.4g}",
                      f"{c.optimality:.3f}", percent(c.nearest, 0),
                      *(percent(c.curve[i][1], 0) for i in at))  # fmt: skip
    print_table(table)
    console.print(
        f"\narea: under robust accuracy against distance, from 0 to {d.farthest:.4g}; the nearest success of any "
        f"attack on each sample has {d.area_best:.4g}. optimality: local (AttackBench). nearest: samples on which no "
        f"other attack is nearer. at: robust accuracy there; -: no success",
        soft_wrap=True,
    )
    for note in d.notes:
        console.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)


def print_comparison(c: Comparison, show: int) -> None:
    """The 2 x 2 table, the tests, and samples where the two differ."""
    from rich.table import Table

    from advgym.cli.printing import escape, number, out, percent
    from advgym.cli.shared.tables import print_table

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
    print_table(table)
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
