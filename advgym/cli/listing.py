"""`advgym list`: what there is, as a table or as JSON."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.table import Table

from advgym import registry
from advgym.cli.printing import escape, out
from advgym.errors import AdvgymError, unknown
from advgym.lib.settings import described

LISTS = ("tasks", "agents", "defenses", "victims", "boards", "runtime")


def show_list(what: str, pattern: str, *, as_json: bool, task: str = "") -> int:
    """Print the rows whose names match; of agents those alone that play a task, where one is named."""
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    if task and what != "agents":
        raise AdvgymError(f"--task says which agents play it: `advgym list agents --task {task}`, not list {what}")
    if what == "victims" and ":" in pattern:
        return show_rows(what, card_rows(pattern), "*", as_json=as_json)
    found = rows(what)
    return show_rows(
        what, [r for r in found if r["name"] in players(task)] if task else found, pattern, as_json=as_json
    )


def players(task: str) -> list[str]:
    """Names of the agents that play a task as its row has it."""
    from advgym.core.offers import fits
    from advgym.core.task import make_task

    made = make_task(task)
    batch = made.samples(next(iter(made.sizes)), [0])
    return [name for name, entry in registry.agents().items() if fits(entry, made, batch)]


def show_rows(what: str, every: list[dict[str, Any]], pattern: str, *, as_json: bool) -> int:
    """Print those of `every` whose names match."""
    found = [row for row in every if fnmatchcase(row["name"], pattern)]
    if as_json:
        print(json.dumps(found, indent=1))  # noqa: T201
        return 0
    if not found:
        out().print(f"no {what} yet" if not every else f"no {what} match {escape(pattern)!r}; there are {len(every)}")
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    shown = [column for column in found[0] if column != "settings"]
    for i, column in enumerate(shown):
        last = column in ("title", "summary")
        table.add_column(
            column, style="cyan" if i == 0 else None, no_wrap=i == 0, overflow="fold", ratio=1 if last else None
        )
    for row in found:
        table.add_row(*(escape(_words(row[column])) for column in shown))
    out().print(table)
    return 0


def rows(what: str) -> list[dict[str, Any]]:
    """One dict per name, all with the same keys, in order."""
    makers = {"tasks": _tasks, "agents": _agents, "defenses": _defenses, "victims": _victims, "boards": board_rows,
              "runtime": _runtime}  # fmt: skip
    return makers[what]()


def _tasks() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "title": row.get("title", ""),
            "dataset": row.get("dataset", ""),
            "victim": row.get("victim", ""),
            "knowledge": row.get("knowledge", "white-box"),
            "goals": row.get("goals", []),
            "queries": row.get("queries", 500),
            "constraint": row.get("constraint", {}),
        }
        for name, row in registry.tasks().items()
    ]


def _agents() -> list[dict[str, Any]]:
    return [
        {
            "name": a.name,
            "kind": list(a.kinds),
            "knowledge": a.knowledge,
            "proposals": a.proposals,
            "needs": list(a.needs),
            "settings": described(a.attack, a.allowed),
            "summary": a.summary,
        }
        for a in registry.agents().values()
    ]


def _defenses() -> list[dict[str, Any]]:
    return [
        {
            "name": d.name,
            "domains": list(d.domains),
            "kind": list(d.kinds),
            "settings": described(d.defend, d.allowed),
            "adaptive": d.adaptive,
            "summary": d.summary,
        }
        for d in registry.defenses().values()
    ]


def _victims() -> list[dict[str, Any]]:
    used: dict[str, list[str]] = {}
    for task, row in registry.tasks().items():
        for role in ("victim", "surrogate"):
            if role in row:
                used.setdefault(row[role], []).append(task if role == "victim" else f"{task} (surrogate)")
    return [
        {
            "name": name,
            "title": row.get("title", ""),
            "dataset": row.get("dataset", row.get("corpus", "")),
            "tasks": used.get(name, []),
        }
        for name, row in registry.victims().items()
    ]


def card_rows(name: str) -> list[dict[str, Any]]:
    """What the card of a victim that is named with its source says: rate, alphabet, classes ..., a row each."""
    from advgym.core.task import load_victim

    victim = load_victim(name)
    said = {"name": victim.name, "access": victim.access, **victim.card}
    edged = {k: repr(v) for k, v in said.items() if isinstance(v, str) and v != v.strip()}  # a space is seen
    return [{"name": key, "value": value} for key, value in {**said, **edged}.items()]


def board_rows(boards: Path | None = None) -> list[dict[str, Any]]:
    """Every board that ships or lies in `boards` ($ADVGYM_BOARDS): phases with their sizes, public data marked."""
    from advgym.leaderboards.rules.board import known, load

    found = []
    for name, path in known(boards).items():
        board = load(path)
        found.append(
            {
                "name": name,
                "tracks": board.tracks,
                "phases": [f"{p} {row.samples}x{row.seeds}" for p, row in board.phases.items()],
                "public-data": [p for p, row in board.phases.items() if not row.hidden],
                "tasks": [f"{row.id} ({row.knowledge})" for row in board.tasks],
                "title": board.title,
            }
        )
    return found


def _runtime() -> list[dict[str, Any]]:
    from advgym.leaderboards.runs.runtime import runtime

    return [dict(row) for row in runtime()]


def _words(cell: Any) -> str:
    if cell is None or cell == []:
        return "–"
    if isinstance(cell, dict):
        return " ".join(f"{k}={json.dumps(v) if isinstance(v, bool) else v}" for k, v in cell.items())
    return ", ".join(str(c) for c in cell) if isinstance(cell, list) else str(cell)
