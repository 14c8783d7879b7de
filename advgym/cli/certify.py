"""`advgym certify`: what a defended victim proves about its own answers, as accuracy by radius."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advgym.cli.printing import BLOCKS, err, escape, number, out, percent, progress
from advgym.cli.shared.command import Device, Guards, Json, Seed, TaskName
from advgym.cli.shared.tables import print_table
from advgym.errors import AdvgymError

if TYPE_CHECKING:
    from advgym.evaluations.certify import Certified


def certify(
    task: TaskName,
    defense: Guards = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="Of the certificate (draws, alpha) or the task (eps, victim)."),
    ] = None,
    episodes: Annotated[int, typer.Option(help="Samples of the split.", min=1, metavar="N")] = 100,
    radii: Annotated[
        str, typer.Option(help="Radii of the table, as 0,0.25,0.5; else some that span what is found.", metavar="R,R")
    ] = "",
    out_file: Annotated[Path | None, typer.Option("--out", help="The result as JSON.", metavar="FILE")] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    split: Annotated[str, typer.Option(metavar="S", help="Which samples.")] = "test",
    json: Json = False,
) -> int:  # fmt: skip
    """What does a defense prove? Certified accuracy by radius, as a table and a curve."""
    from advgym.cli.values import pair, read_defense, task_keys
    from advgym.core.victim import resolve_device
    from advgym.evaluations.certify import certify as run
    from advgym.evaluations.certify import save

    keys = task_keys(task)
    options: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for text in settings or []:
        key, value = pair(text)
        (options if key in keys else own)[key] = value
    with progress() as bar:
        line = bar.add_task("samples", total=None, note="")
        found = run(
            task, defenses=[read_defense(text) for text in defense or []], episodes=episodes, split=split, seed=seed,
            device=resolve_device(device), radii=_numbers(radii), settings=own,
            progress=lambda done, total: bar.update(line, completed=done, total=total), **options,
        )  # fmt: skip
    if out_file is not None:
        save(found, out_file)
    if json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        show(found)
    if out_file is not None:
        err().print(f"result: {escape(out_file)}", soft_wrap=True)
    return 0


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [-1.0]
    if any(not 0 <= r < float("inf") for r in found):
        raise AdvgymError(f"--radii is numbers of at least 0 with commas between, not {text!r}")
    return found


def show(found: Certified) -> None:
    """The accuracies by radius, a line each with a bar."""
    from rich.table import Table

    console = out()
    console.print(
        f"\n[bold]{escape(found.victim['name'])}[/] on [bold]{escape(found.task)}[/]: clean accuracy "
        f"{percent(found.clean_accuracy, 1)}, abstained {percent(found.abstained, 1)}, {found.episodes} samples",
        soft_wrap=True,
    )  # fmt: skip
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in (f"radius ({found.unit})", "certified", "95 %", ""):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for p in found.curve:
        low, high = p.ci
        table.add_row(
            "all allowed" if p.radius is None else number(p.radius), percent(p.accuracy, 1),
            f"{100 * low:.0f}–{100 * high:.0f}", BLOCKS[-1] * round(30 * p.accuracy),
        )  # fmt: skip
    print_table(table)
    said = ", ".join(f"{k} = {v}" for k, v in found.settings.items())
    console.print(f"[dim]{escape(said + '; ' if said else '')}{found.seconds:.1f} s[/]", soft_wrap=True)
