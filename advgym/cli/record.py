"""`advgym verify` on a board's record, and `advgym board rerun | export | baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgym.cli.board import HERE, Boards, Data, Name, Phase
from advgym.cli.printing import say_notes
from advgym.cli.serve import Db, database
from advgym.errors import AdvgymError
from advgym.judge import contract


def is_entry(path: Path) -> bool:
    """Whether a file says that it is an entry of a board."""
    try:
        with path.open("rb") as file:
            return b'"advgym-entry/' in file.read(1 << 22)
    except OSError:
        return False


def verify_record(root: Path) -> int:
    """The chain and every file of a data folder."""
    from advgym.leaderboards.store import ledger
    from advgym.leaderboards.store.record import check_record

    if not ledger.path(root).is_file():
        raise AdvgymError(f"{root} holds no ledger.jsonl: give a server's data folder, an entry or a result file")
    wrong, head = check_record(root), ledger.head(root)
    lines = 0 if head is None else head.seq + 1
    return _verdict(f"{root}, {lines} lines, head {head.hash[:16] if head else 'none'}", wrong)


def verify_entry_file(path: Path, device: str) -> int:
    """Every row of an entry judged again."""
    from advgym.leaderboards.entries.recheck import read_entry_file, recheck

    entry, rows = read_entry_file(path)
    count = sum(len(s.samples) for s in rows.sets)
    wrong = recheck(path, device=device)
    code = _verdict(f"{entry.name} on {entry.board}/{entry.phase}, {count} rows judged again", wrong)
    say_notes(contract.notes(entry.contract, bool(wrong)))
    return code


def look(
    data: Data = HERE,
    db: Db = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="The ledger was restored on purpose: forget that it was another.")
    ] = False,
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
    return _verdict(f"record in {data}", [fault.text for fault in faults])


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
    device: Annotated[str, typer.Option(help="cpu, or cuda:0 ...", metavar="D")] = "cpu",
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
    worst = 0
    for e in chosen:
        path = data / "entries" / name / f"{e.id}.json"
        wrong = again(path, boards=None if boards is None else str(boards), device=device)
        worst = max(worst, _verdict(f"{e.id} {e.name}, run again", wrong))
        say_notes(contract.notes(e.contract, bool(wrong)))
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
    agent: Annotated[list[str], typer.Option("--agent", help="An agent that ships.", metavar="NAME")],
    phase: Phase = "dev",
    data: Data = HERE,
    boards: Boards = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda:0 ...", metavar="D")] = "cpu",
) -> int:
    """Score agents that ship, as entries to compare with; they run in sandboxes like all others."""
    from advgym.cli.printing import escape, out, percent
    from advgym.leaderboards.rules.board import load
    from advgym.leaderboards.runs.baseline import run_baseline
    from advgym.leaderboards.runs.stage import Stage

    stage = Stage(load(name, boards), phase, data, device)
    for one in agent:
        entry = run_baseline(stage, data, one)
        out().print(
            f"{escape(one)}: {percent(entry.headline.value, 1)} on {name}/{phase}, entry {entry.id}", soft_wrap=True
        )
    return 0
