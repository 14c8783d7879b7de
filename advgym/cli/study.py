"""`advgym study`: a grid of attacks as tables, plots and tests, every cell verifiable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgym.cli.printing import err, escape, out, percent, progress
from advgym.cli.pulse import keeps
from advgym.cli.shared.command import Device, Json
from advgym.cli.shared.tables import emit
from advgym.lib.extras import need


def study(
    file: Annotated[Path, typer.Argument(help="The grid; `benchmarks/studies/` has some.", metavar="FILE.TOML")],
    folder: Annotated[Path, typer.Option("--out", help="Where it goes; the same folder resumes it.", metavar="DIR")],
    engine: Annotated[str, typer.Option(help="local or ray.", metavar="E")] = "local",
    workers: Annotated[int, typer.Option(help="Processes of the local engine.", min=1, max=1024, metavar="N")] = 1,
    device: Device = "cpu",
    plan: Annotated[bool, typer.Option("--plan", help="Print the cells' commands and stop.")] = False,
    as_json: Json = False,
) -> int:
    """Play a grid of tasks x victims x defenses x agents x seeds; what was played is kept."""
    from advgym.evaluations import grid, tables, union
    from advgym.evaluations.study import run

    if plan:
        commands = [cell.command for cell in grid.read(file).cells]
        if as_json:
            emit(commands)
        else:
            typer.echo("\n".join(commands))
        return 0
    need("jinja2", "the page of a study")
    need("matplotlib", "the plots of a study")
    with progress() as bar:
        line = bar.add_task("cells", total=None, note="")

        def tick(done: int, total: int, cell: grid.Cell, error: str) -> None:
            bar.update(line, completed=done, total=total, note=f"{cell.agent} on {cell.task}")
            what = f"{cell.agent} on {cell.task}" + (f", {cell.victim}" if cell.victim else "")
            err().print(
                f"[dim]{done}/{total} {escape(what)}[/]" + (f" [red]{escape(error)}[/]" if error else ""),
                soft_wrap=True,
            )

        keeps(
            lambda: (
                f"{len(list((folder / 'cells').glob('*.json')))} finished cells are in {folder}/cells; the same "
                "command goes on"
            )
        )
        found, have, failed = run(file, folder, engine=engine, workers=workers, device=device, told=tick)
    tables.write(folder, found, have, failed)
    if as_json:
        ranks = [{"agent": name, "mean_rank": rank, "groups": many} for name, rank, many in tables.ranks(found, have)]
        emit({"title": found.title, "cells": len(have), "failed": failed, "ranks": ranks,
              "pairs": tables.pairs(found, have), "folder": folder})  # fmt: skip
        return 1 if failed else 0
    console = out()
    console.print(f"[bold]{escape(found.title)}[/]: {len(have)} cells, {len(failed)} failed", soft_wrap=True)
    for name, rank, many in tables.ranks(found, have):
        console.print(f"  mean rank {rank:.2f}  {escape(name)} [dim]({many} groups)[/]")
    for row in union.table(found, have):
        who = ", ".join(str(v) for v in row.values() if isinstance(v, str)) or "all"
        short = {k: row[k] for k in ("clean", "union", "unseen_mean")}
        told = ", ".join(f"{k.replace('_', ' ')} {'-' if v is None else percent(v)}" for k, v in short.items())
        console.print(f"  {escape(who)}: {told}", soft_wrap=True)
    for row in union.curves(found, have):
        who = ", ".join(str(v) for k, v in row.items() if k not in ("points", "zero")) or "all"
        end = "something stands at the largest" if row["zero"] is None else f"nothing stands at {row['zero']:.4g}"
        console.print(f"  {escape(who)}: {found.curve} {end}", soft_wrap=True)
    best = [p for p in tables.pairs(found, have) if p.p_holm < 0.05]
    console.print(f"{len(best)} of {len(tables.pairs(found, have))} pairs differ at 5 % after Holm's correction")
    for p in sorted(best, key=lambda p: p.p_holm)[:5]:
        names = f"{escape(p.first)} against {escape(p.second)}"
        console.print(f"  {names}: {100 * p.difference:+.1f} points [dim]{escape(p.where)}[/]")
    err().print(f"tables and page: {escape(folder)}", soft_wrap=True)
    if have:
        mean = sum(r.success_rate for r in have.values()) / len(have)
        console.print(f"[dim]mean success {percent(mean)}[/]")
    return 1 if failed else 0
