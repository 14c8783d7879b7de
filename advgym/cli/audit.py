"""`advgym audit`: how robust a model is, and whether the figure can be trusted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advgym.cli.printing import err, escape, heat, number, out, percent, progress
from advgym.cli.pulse import keeps
from advgym.cli.shared.command import Device, Guards, Json, Seed
from advgym.cli.shared.completion import tasks
from advgym.cli.shared.tables import emit, print_table
from advgym.errors import AdvgymError
from advgym.lib.extras import need

if TYPE_CHECKING:
    from advgym.evaluations.report import Audit

MARKS = {"void": "bold red", "doubt": "yellow", "note": "dim"}


def audit(
    model: Annotated[
        str,
        typer.Argument(
            help="A registered victim, transformers:NAME|FOLDER, torchaudio:NAME, http://..., or module:object.",
            metavar="MODEL",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="A data set's name, a file or folder, or module:object.", metavar="DATA")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Where it cannot be told: what stands before a task's slash.", metavar="D")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="As `advgym list tasks` names it.", metavar="TASK", autocompletion=tasks)
    ] = None,
    budget: Annotated[
        str, typer.Option(help="quick, standard, thorough: 100, 400, 2000 propagations a sample.", metavar="B")
    ] = "standard",
    episodes: Annotated[int, typer.Option(help="Samples of the split.", min=1, metavar="N")] = 100,
    fail_under: Annotated[
        float | None,
        typer.Option(
            "--fail-under", min=0, max=1, metavar="X",
            help="Exit 1 when the lower end of robust accuracy's interval is below X, 2 when the figure is void.",
        ),
    ] = None,
    point: Annotated[bool, typer.Option("--point", help="--fail-under compares the point, not the lower end.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="A folder; an interrupted audit goes on from it.", metavar="DIR")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Of the task: eps=8/255. May be repeated.")
    ] = None,
    defense: Guards = None,
    device: Device = "cpu",
    seed: Seed = 0,
    split: Annotated[str, typer.Option(metavar="S", help="Which samples.")] = "test",
    json: Json = False,
) -> int:  # fmt: skip
    """How robust is a model? The suite, the checks, and a verdict with its interval."""
    err().print(f"audit of {escape(model)}: loading", soft_wrap=True)
    from advgym.cli.values import pair, read_defense
    from advgym.evaluations.audit import audit as run
    from advgym.evaluations.audit import check_place

    if out is not None:
        check_place(out)
        need("jinja2", "the page of an audit (there is none without --out)")
    options = dict(pair(text) for text in settings or [])
    with progress() as bar:
        line = bar.add_task("clean pass", total=None, note="")

        def tick(row: str, done: int, total: int, broken: int) -> None:
            bar.update(line, description=row, completed=done, total=total, note=f"{broken} broken")

        keeps(lambda: _kept(out))
        found = run(
            model, data, domain=domain, task=task, budget=budget, episodes=episodes, out=out, device=device,
            seed=seed, split=split, defenses=[read_defense(text) for text in defense or []], progress=tick,
            told=lambda text: err().print(f"[dim]{escape(text)}[/]", soft_wrap=True),
            command="advgym " + shlex.join(sys.argv[1:]), **options,
        )  # fmt: skip
    if json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        show(found, out)
    return code(found, fail_under, point=point)


def _kept(folder: Path | None) -> str:
    """What of an interrupted audit is on disk."""
    from advgym.judge.checkpoint import finished

    if folder is None:
        return "nothing was kept (with --out the same command would go on)"
    rows = len(list((folder / "rows").glob("*.json")))
    begun = sum(finished(path) for path in (folder / "rows").glob("*.partial"))
    if not rows and not begun:
        return "no batch was finished, so nothing was kept"
    parts = [f"{rows} finished rows"] * bool(rows) + [f"{begun} samples of another"] * bool(begun)
    return f"{' and '.join(parts)} are in {folder}/rows; the same command goes on from them"


def code(found: Audit, fail_under: float | None, *, point: bool = False) -> int:
    """0: it holds, or nothing was asked; 1: below; 2: the figure rests on nothing."""
    if found.void:
        void = next((f.says for f in found.findings if f.severity == "void"), "nothing was attacked")
        err().print(f"[bold red]advgym:[/] the figure is void: {escape(void)}", soft_wrap=True)
        return 2
    value = found.robust_accuracy if point else found.robust_ci[0]
    if fail_under is not None and value < fail_under:
        what = "robust accuracy" if point else "the lower end of robust accuracy"
        err().print(f"[bold red]advgym:[/] {what} is {value:.3f}, below {fail_under:g}", soft_wrap=True)
        return 1
    return 0


def show(found: Audit, folder: Path | None) -> None:
    """The verdict, the rows, the flags; a few lines."""
    from rich.table import Table

    from advgym.evaluations.page import verdict

    console = out()
    low, high = found.robust_ci
    console.print(
        f"\n[bold]{escape(found.model)}[/] on [bold]{escape(found.task)}[/]: robust accuracy "
        f"[bold]{'none' if found.void else percent(found.robust_accuracy, 1)}[/] (95 %: {percent(low)} to "
        f"{percent(high)}), clean accuracy {percent(found.clean_accuracy, 1)}", soft_wrap=True,
    )  # fmt: skip
    console.print(escape(verdict(found)), soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("attack", "told", "success", "95 %", "alone", "queries", "control"):
        table.add_column(name, justify="left" if name in ("attack", "told") else "right", no_wrap=True)
    for r in found.rows:
        table.add_row(
            f"[cyan]{escape(r.agent)}[/]", r.knowledge, f"[{heat(r.success_rate)}]{percent(r.success_rate, 1)}[/]",
            f"{100 * r.success_ci[0]:.0f}–{100 * r.success_ci[1]:.0f}", str(r.alone), number(r.queries_median),
            percent(r.control_rate, 1),
        )  # fmt: skip
    print_table(table)
    console.print("[dim]alone: samples no other row breaks; queries: median; control: one random perturbation[/]")
    for f in found.findings:
        console.print(f"[{MARKS[f.severity]}]{f.severity}[/] {escape(f.says)}", soft_wrap=True)
        if f.do and f.severity != "note":
            console.print(f"      [dim]{escape(f.do)}[/]", soft_wrap=True)
    if found.groups:
        worst = min(found.groups, key=lambda g: (g.held / g.samples, -g.samples))
        console.print(f"weakest group: {worst.by} {escape(worst.value)}, {worst.held} of {worst.samples} robust")
    console.print(f"[dim]{found.seconds:.0f} s[/]")
    if folder is not None:
        err().print(f"page, table, card and rows: {escape(folder)}", soft_wrap=True)


def run_verify_audit(path: Path, device: str, as_json: bool = False) -> int:
    """Re-check every row of an audit and what was summed up of them; 1 on any disagreement."""
    from advgym.evaluations.again import check

    found, wrong = check(path, device)
    if as_json:
        emit(
            {"what": f"audit of {found.model}, {len(found.rows)} rows", "true": not wrong, "wrong": wrong, "notes": []}
        )
        return 1 if wrong else 0
    if not wrong:
        out().print(
            f"[green]true[/] {escape(path)}: audit of {escape(found.model)}, {len(found.rows)} rows re-applied and "
            f"re-scored, robust accuracy {percent(found.robust_accuracy, 1)}", soft_wrap=True,
        )  # fmt: skip
        return 0
    out().print(f"[red]false[/] {escape(path)}: {len(wrong)} disagreement{'s' * (len(wrong) > 1)}", soft_wrap=True)
    for line in wrong:
        out().print(f"  {escape(line)}", soft_wrap=True)
    return 1


def is_audit(path: Path) -> bool:
    """Whether a file says that it is an audit."""
    try:
        with path.open("rb") as file:
            return b'"advgym-audit/' in file.read(400)
    except OSError as error:
        raise AdvgymError(f"cannot read {path}: {error.strerror}") from None
