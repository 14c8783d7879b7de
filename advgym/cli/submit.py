"""`advgym test | submit | status | cancel`: a participant's side of the leaderboards."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from advgym.cli.shared.command import Device, Json
from advgym.cli.shared.completion import boards as boards_known
from advgym.errors import AdvgymError

Server = Annotated[str, typer.Option(help="The server's address.", metavar="URL", envvar="ADVGYM_SERVER")]
Board = Annotated[
    str, typer.Option(help="A board's name, or the path of its TOML.", metavar="BOARD", autocompletion=boards_known)
]
HERE = "http://127.0.0.1:8000"
OVER = ("scored", "failed", "cancelled")


def test(
    submission: Annotated[Path, typer.Argument(help="A folder, or an archive of one.", metavar="SUBMISSION")],
    board: Board,
    phase: Annotated[str, typer.Option(help="A public phase.", metavar="P")] = "dev",
    sandbox: Annotated[str | None, typer.Option(help="bwrap, landlock or unsandboxed.", metavar="LEVEL")] = None,
    device: Device = "cpu",
    boards: Annotated[Path | None, typer.Option(help="A folder of boards.", metavar="DIR")] = None,
    out: Annotated[Path | None, typer.Option(help="The entry that this would be.", metavar="JSON")] = None,
    as_json: Json = False,
) -> int:
    """Try a submission in the server's own sandbox, on dev samples; exit 0 scored, 1 failed."""
    import msgspec

    from advgym.cli.printing import progress
    from advgym.leaderboards.rules.board import load
    from advgym.leaderboards.runs.trial import try_out
    from advgym.leaderboards.sandbox import LEVELS
    from advgym.lib.files import write_atomic

    if sandbox is not None and sandbox not in LEVELS:
        raise AdvgymError(f"a sandbox is one of {', '.join(LEVELS)}, not {sandbox!r}")
    if out is not None and out.is_dir():
        raise AdvgymError(f"{out} is a folder; name a file in it")
    with progress() as bar:
        line = bar.add_task(submission.name, total=None, note="starting")
        trial, entry, _ = try_out(
            submission, load(board, boards), phase=phase, level=sandbox, device=device,
            progress=lambda done, total: bar.update(line, completed=done, total=total, note="shards"),
        )  # fmt: skip
    if out is not None and entry is not None:
        write_atomic(out, msgspec.json.format(msgspec.json.encode(entry), indent=1) + b"\n")
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(trial), indent=1).decode() + "\n")
    else:
        _show_trial(trial)
    return 0 if trial.status == "scored" else 1


def _show_trial(trial: Any) -> None:
    from rich.table import Table

    from advgym.cli.printing import escape, out, percent
    from advgym.cli.shared.tables import NONE, legend, print_table

    if trial.status == "failed":
        out().print(f"[bold red]failed[/] {trial.reason} [dim](the {trial.blame}'s to fix)[/]", soft_wrap=True)
        out().print(escape(trial.message), soft_wrap=True)
        if trial.log:
            out().print(f"[dim]it wrote:[/]\n{escape(trial.log)}", soft_wrap=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    barred = any("valid_success" in t for t in trial.tasks)  # a task measures more than success: docs/scoring.md
    for name in ("task", "attack", "success", *(["valid"] if barred else []), "robust", "queries", "ended"):
        table.add_column(name)
    for t in trial.tasks:
        ended = ", ".join(f"{k} {v}" for k, v in t["reasons"].items())
        valid = [percent(t["valid_success"]["value"], 1) if "valid_success" in t else NONE] if barred else []
        numbers = (
            (percent(t["success_rate"], 1), *valid, percent(t["robust"], 1), f"{t['queries_mean']:.1f}")
            if t["status"] == "scored"
            else (t["status"], *("" for _ in valid), "", "")
        )
        table.add_row(t["task"], t["attack"] or "yours", *numbers, ended)
    print_table(table)
    legend({NONE: "not measured on this task"}, NONE * barred)
    out().print(
        "[dim]success: of the samples attacked; robust: of all samples; queries: mean; ended: why episodes ended[/]"
    )
    out().print(
        f"[bold green]scored[/] {trial.score:.4f} on {escape(trial.board)}/{trial.phase}  "
        f"success {percent(trial.success_rate, 1)}, invalid {percent(trial.invalid_rate, 1)}, sandbox {trial.sandbox}",
        soft_wrap=True,
    )
    for flag in trial.flags:
        out().print(f"[yellow]note[/] {escape(flag)}", soft_wrap=True)


def submit(
    what: Annotated[Path, typer.Argument(help="A folder; or a result file, with --against.", metavar="SUBMISSION")],
    board: Annotated[str | None, typer.Option(help="The board.", metavar="BOARD")] = None,
    server: Server = HERE,
    phase: Annotated[str, typer.Option(help="The board's first by default.", metavar="P")] = "",
    against: Annotated[
        str | None, typer.Option(help="The entry that the result's perturbations lower.", metavar="ENTRY")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is over; exit 1 when it failed.")] = False,
    as_json: Json = False,
) -> int:
    """Hand in an attack or a defense, or perturbations against an entry. The token is read from ADVGYM_TOKEN."""
    from advgym.leaderboards.entries import client

    if (board is None) == (against is None):
        raise AdvgymError("name --board to submit a folder, or --against ENTRY to dispute a score with a result file")
    if against is not None:
        found = client.dispute(server, what, against)
    else:
        assert board is not None
        found = client.submit(server, what, board, phase)
    return follow(server, found, as_json) if wait else _show(found, as_json)


def status(
    id: Annotated[
        str | None, typer.Argument(help="A submission; all of the team's without it.", metavar="[ID]")
    ] = None,
    server: Server = HERE,
    log: Annotated[bool, typer.Option("--log", help="What it wrote: the first and the last 4 KB.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is over.")] = False,
    as_json: Json = False,
) -> int:
    """How a submission is doing: its place in the queue, its progress, why it failed."""
    from advgym.leaderboards.entries import client

    if id is None:
        return _show_all(client.listing(server), as_json)
    found = client.status(server, id)
    if wait:
        return follow(server, found, as_json)
    if log and not as_json:
        kept = "(hidden until the phase closes)" if found["hidden"] else "(it wrote nothing)"
        sys.stdout.write((found["log"] or kept) + "\n")
        return 0
    return _show(found, as_json)


def cancel(id: Annotated[str, typer.Argument(metavar="ID")], server: Server = HERE, as_json: Json = False) -> int:
    """Withdraw a submission; one that has not started yet gives its quota back."""
    from advgym.leaderboards.entries import client

    return _show(client.cancel(server, id), as_json)


def follow(server: str, found: dict[str, Any], as_json: bool) -> int:
    """Wait until a submission is over."""
    from advgym.cli.printing import progress
    from advgym.leaderboards.entries import client

    with progress() as bar:
        line = bar.add_task(found["name"], total=None, note=found["state"])
        while found["state"] not in OVER:
            place = f"place {found['position']} in the queue" if found["state"] == "queued" else found["state"]
            bar.update(line, completed=found["done"], total=found["total"] or None, note=place)
            time.sleep(0.5)
            found = client.status(server, found["id"])
    _show(found, as_json)
    return 0 if found["state"] == "scored" else 1


def _show(found: dict[str, Any], as_json: bool) -> int:
    from advgym.cli.printing import escape, out

    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    colour = {"scored": "green", "failed": "red", "cancelled": "yellow"}.get(found["state"], "cyan")
    place = f", place {found['position']}" if found["position"] else ""
    steps = f", {found['done']} of {found['total']} shards" if found["state"] == "running" and found["total"] else ""
    out().print(
        f"[bold]{escape(found['id'])}[/] {escape(found['name'])} on {escape(found['board'])}/{escape(found['phase'])}: "
        f"[{colour}]{found['state']}[/]{place}{steps}",
        soft_wrap=True,
    )
    if found["reason"]:
        given = " The quota was given back." if not found["counted"] and found["blame"] != "platform" else ""
        out().print(f"  {found['reason']}: {escape(found['text'])}.{given}", soft_wrap=True)
    if found["entry"]:
        out().print(f"  entry {found['entry']}", soft_wrap=True)
    return 0


def _show_all(found: list[dict[str, Any]], as_json: bool) -> int:
    from advgym.cli.printing import out

    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    if not found:
        out().print("nothing was handed in with this token yet")
    for one in found:
        _show(one, False)
    return 0
