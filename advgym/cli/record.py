"""`advgym verify` on a board's record, and `advgym board rerun | export | baseline`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from advgym.cli.board import HERE, Boards, Data, Name, Phase
from advgym.cli.printing import say_notes
from advgym.cli.serve import Db, database
from advgym.cli.shared.command import Device, Json
from advgym.cli.shared.completion import agents
from advgym.cli.shared.tables import emit
from advgym.errors import AdvgymError
from advgym.judge import contract


def is_entry(path: Path) -> bool:
    """Whether a file says that it is an entry of a board."""
    try:
        with path.open("rb") as file:
            return b'"advgym-entry/' in file.read(1 << 22)
    except OSError:
        return False


def verify_record(root: Path, as_json: bool = False) -> int:
    """The chain and every file of a data folder."""
    from advgym.leaderboards.store import ledger
    from advgym.leaderboards.store.record import check_record

    if not ledger.path(root).is_file():
        raise AdvgymError(f"{root} holds no ledger.jsonl: give a server's data folder, an entry or a result file")
    wrong, head = check_record(root), ledger.head(root)
    lines = 0 if head is None else head.seq + 1
    return told(f"{root}, {lines} lines, head {head.hash[:16] if head else 'none'}", wrong, as_json=as_json)


def verify_entry_file(path: Path, device: str, as_json: bool = False) -> int:
    """Every row of an entry judged again."""
    from advgym.leaderboards.entries.recheck import read_entry_file, recheck

    entry, rows = read_entry_file(path)
    count = sum(len(s.samples) for s in rows.sets)
    wrong = recheck(path, device=device)
    what = f"{entry.name} on {entry.board}/{entry.phase}, {count} rows judged again"
    return told(what, wrong, contract.notes(entry.contract, bool(wrong)), as_json=as_json)


def look(
    data: Data = HERE,
    db: Db = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="The ledger was restored on purpose: forget that it was another.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Check a server's whole record: ledger, entries, rows, phase cards, the database's copies; exit 1 for a fault."""
    from advgym.leaderboards.store import ledger, rebuild
    from advgym.leaderboards.store.db import open_store, quick_check
    from advgym.leaderboards.store.health import examine

    if not ledger.path(data).is_file():
        raise AdvgymError(f"{data} holds no ledger.jsonl: name a server's data folder with --data")
    store = open_store(database(data, db))
    try:
        quick_check(store)
        if accept:
            rebuild.accept(store)
        faults = examine(store, data)
    finally:
        store.close()
    return told(f"record in {data}", [fault.text for fault in faults], as_json=as_json)


def told(what: str, wrong: list[str], notes: Sequence[str] = (), *, as_json: bool) -> int:
    """A verdict on a file or a record; 1 where something in it does not hold."""
    if as_json:
        emit(verdict(what, wrong, notes))
        return 1 if wrong else 0
    code = _verdict(what, wrong)
    say_notes(list(notes))
    return code


def verdict(what: str, wrong: list[str], notes: Sequence[str] = ()) -> dict[str, Any]:
    """The same as values: what was checked, whether all of it holds, what does not."""
    return {"what": what, "true": not wrong, "wrong": list(wrong), "notes": list(notes)}


def _verdict(what: str, wrong: list[str]) -> int:
    from advgym.cli.printing import escape, out

    colour, word = ("red", "false") if wrong else ("green", "true")
    out().print(f"[{colour}]{word}[/] {escape(what)}", soft_wrap=True)
    for line in wrong:
        out().print(f"  {escape(line)}", soft_wrap=True)
    return 1 if wrong else 0


def rerun(
    name: Name,
    entry: Annotated[str | None, typer.Option(help="One entry; every one without it.", metavar="ID")] = None,
    data: Data = HERE,
    boards: Boards = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> int:
    """Run submissions of a board again and compare score, rows and transcript; exit 1 where one differs."""
    from advgym.leaderboards.entries.recheck import rerun as again
    from advgym.leaderboards.store import record

    found = [e for e in record.read_entries(data, name) if e.submission and not e.supersedes]
    chosen = [e for e in found if entry in (None, e.id)]
    if not chosen:
        raise AdvgymError(
            f"{name} has no entry {entry or 'to run'} in {data}; entries: {', '.join(e.id for e in found)}"
        )
    worst, told_all = 0, []
    for e in chosen:
        path = data / "entries" / name / f"{e.id}.json"
        wrong = again(path, boards=None if boards is None else str(boards), device=device)
        what, notes = f"{e.id} {e.name}, run again", contract.notes(e.contract, bool(wrong))
        told_all.append(verdict(what, wrong, notes))
        worst = max(worst, int(bool(wrong)) if as_json else told(what, wrong, notes, as_json=False))
    if as_json:
        emit(told_all)
    return worst


def export_(
    out_: Annotated[Path, typer.Argument(help="A folder for the pages; may exist.", metavar="OUT")],
    data: Data = HERE,
    boards: Boards = None,
) -> int:
    """Write every board's pages and data as plain HTML and JSON, for any file host."""
    from advgym.cli.printing import escape, out
    from advgym.leaderboards.rules.board import known, load
    from advgym.leaderboards.service.export import export

    table = {name: load(path) for name, path in known(boards).items()}
    written = export(data, table, out_)
    out().print(f"wrote {len(written)} files; open {escape(out_ / 'index.html')}", soft_wrap=True)
    return 0


def baseline(
    name: Name,
    agent: Annotated[
        list[str], typer.Option("--agent", help="An agent that ships.", metavar="NAME", autocompletion=agents)
    ],
    phase: Phase = "dev",
    data: Data = HERE,
    boards: Boards = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> int:
    """Score agents that ship, as entries to compare with; they run in sandboxes like all others."""
    from advgym.cli.printing import escape, out, percent
    from advgym.leaderboards.rules.board import load
    from advgym.leaderboards.runs.baseline import run_baseline
    from advgym.leaderboards.runs.stage import Stage

    stage, made = Stage(load(name, boards), phase, data, device), []
    for one in agent:
        entry = run_baseline(stage, data, one)
        if as_json:
            made.append({"agent": one, "entry": entry.id, "headline": entry.headline})
            continue
        out().print(
            f"{escape(one)}: {percent(entry.headline.value, 1)} on {name}/{phase}, entry {entry.id}", soft_wrap=True
        )
    if as_json:
        emit(made)
    return 0
