"""`advgym list`: what there is, as a table or as JSON."""

from __future__ import annotations

import json
import tomllib
from fnmatch import fnmatchcase
from typing import Any

from rich.table import Table

from advgym import registry
from advgym.cli_print import escape, out
from advgym.errors import DataError, unknown

LISTS = ("tasks", "agents", "defenses", "victims", "boards")


def show_list(what: str, pattern: str, *, as_json: bool) -> int:
    """Print the rows whose names match."""
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    every = rows(what)
    found = [row for row in every if fnmatchcase(row["name"], pattern)]
    if as_json:
        print(json.dumps(found, indent=1))  # noqa: T201
        return 0
    if not found:
        out().print(f"no {what} yet" if not every else f"no {what} match {escape(pattern)!r}; there are {len(every)}")
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(found[0]):
        last = column in ("title", "summary")
        table.add_column(
            column, style="cyan" if i == 0 else None, no_wrap=i == 0, overflow="fold", ratio=1 if last else None
        )
    for row in found:
        table.add_row(*(escape(_words(cell)) for cell in row.values()))
    out().print(table)
    return 0


def rows(what: str) -> list[dict[str, Any]]:
    """One dict per name, all with the same keys, in order."""
    return {"tasks": _tasks, "agents": _agents, "defenses": _defenses, "victims": _victims, "boards": _boards}[what]()


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
            "summary": a.summary,
        }
        for a in registry.agents().values()
    ]


def _defenses() -> list[dict[str, Any]]:
    return [
        {"name": d.name, "domains": list(d.domains), "kind": list(d.kinds), "summary": d.summary}
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


def _boards() -> list[dict[str, Any]]:
    found = []
    for path in sorted(registry.HOME.glob("leaderboards/boards/*.toml")):
        try:
            board = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a board in TOML: {error}") from None
        head = board.get("board", board)
        tasks = head.get("tasks", board.get("tasks", []))
        found.append(
            {"name": str(head.get("name", path.stem)), "title": str(head.get("title", "")), "tasks": list(tasks)}
        )
    return found


def _words(cell: Any) -> str:
    if cell is None or cell == []:
        return "–"
    if isinstance(cell, dict):
        return " ".join(f"{k}={json.dumps(v) if isinstance(v, bool) else v}" for k, v in cell.items())
    return ", ".join(str(c) for c in cell) if isinstance(cell, list) else str(cell)
