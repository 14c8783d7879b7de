"""`advgym list`: what there is, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advgym import registry
from advgym.catalogue import names
from advgym.catalogue.describe import describe, kind_of
from advgym.catalogue.facts import facts
from advgym.cli.printing import escape, out
from advgym.cli.shared.completion import LISTS
from advgym.cli.shared.tables import NONE, emit, legend, print_table, table
from advgym.errors import AdvgymError, unknown
from advgym.lib.settings import described

if TYPE_CHECKING:
    from advgym.catalogue.cards import Card


SHOWN = {  # columns of the table; --json has them all. The last of each list wraps between words
    "tasks": ("name", "perturbation", "queries", "title"),
    "agents": ("name", "kind", "knowledge", "needs", "summary"),
    "defenses": ("name", "domains", "kind", "summary"),
    "victims": ("name", "dataset", "title"),
    "boards": ("name", "tracks", "phases", "public-data", "title"),
}
NUMBERS = ("queries",)


def show_list(what: str, pattern: str, *, as_json: bool, task: str | None = None, domain: str | None = None) -> int:
    """Print the rows whose names match; of one name its card; of agents those that play the task, if one is named."""
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    if task and what != "agents":
        raise AdvgymError(f"--task says which agents play it: `advgym list agents --task {task}`, not list {what}")
    if domain and what not in ("tasks", "agents", "defenses", "victims"):
        raise AdvgymError(f"--domain is of tasks, agents, defenses and victims; {what} have none")
    if what == "victims" and ":" in pattern:
        return show_rows(what, card_rows(pattern), "*", as_json=as_json)
    if what in ("tasks", "agents", "defenses", "victims"):
        if pattern in _known(what):
            return show_card(describe(pattern, what[:-1]), as_json=as_json, several=True)
        found, every = _listed(what, domain, task), rows(what)
        return show_rows(what, [r for r in every if r["name"] in found], pattern, as_json=as_json)
    return show_rows(what, rows(what), pattern, as_json=as_json)


def _known(what: str) -> Collection[str]:
    """Every name of a list; nothing of theirs is imported."""
    return {"tasks": registry.tasks, "victims": registry.victims}.get(what, lambda: registry.names(what[:-1]))()


def players(task: str) -> list[str]:
    """Names of the agents that play a task as its row has it."""
    return names.list_agents(task=task)


def _listed(what: str, domain: str | None, task: str | None) -> set[str]:
    """The names in a domain, and of agents those that play a task."""
    if what == "agents":
        return set(names.list_agents(domain=domain, task=task))
    lists = {"tasks": names.list_tasks, "defenses": names.list_defenses, "victims": names.list_victims}
    return set(lists[what](domain=domain))


def show_one(name: str, sample: int, device: str, *, as_json: bool) -> int:
    """The card of any name; of a task that has data of its own with a sample."""
    from advgym.core.victim import resolve_device

    resolve_device(device)
    if kind_of(name) != "task":
        return show_card(describe(name), as_json=as_json)
    row = registry.task_row(name)[1]
    own = "victim" in row and "dataset" in row
    return show_card(describe(name, "task", sample=sample if own else None), as_json=as_json)


def show_card(card: Card, *, as_json: bool, several: bool = False) -> int:
    """A card in the terminal, or as JSON: a list of one where a list was asked for."""
    if as_json:
        emit([card.to_dict()] if several else card.to_dict())
        return 0
    console = out()
    console.print(f"[bold]{escape(card.name)}[/]  {escape(card.summary)}")
    for title, lines in card.sections():
        if not lines:
            continue
        console.print(f"\n[bold]{escape(title)}[/]" if title else "")
        found = table("", "", text=("",))
        found.show_header = False
        found.columns[0].no_wrap, found.columns[1].overflow = True, "fold"
        for word, text in lines:
            found.add_row(escape(word), escape(text))
        print_table(found)
    return 0


def show_rows(what: str, every: list[dict[str, Any]], pattern: str, *, as_json: bool) -> int:
    """Print those of `every` whose names match."""
    chosen = set(names.matching([row["name"] for row in every], pattern))
    found = [row for row in every if row["name"] in chosen]
    if as_json:
        emit(found)
        return 0
    if not found:
        out().print(f"no {what} yet" if not every else f"no {what} match {escape(pattern)!r}; there are {len(every)}")
        return 0
    columns = [c for c in SHOWN.get(what, tuple(found[0])) if c in found[0]]
    left = tuple(c for c in columns if c not in NUMBERS)
    made = table(*columns, text=(columns[-1],), left=left)
    for row in found:
        made.add_row(*(escape(_words(row[column])) for column in columns))
    print_table(made)
    legend({NONE: "none"}, "".join(_words(row[c]) for row in found for c in columns if row[c] in (None, [])))
    if what == "tasks" and len(found) > 1:
        shown = "`advgym show NAME` for one of them; patterns ('image/*-linf') and --domain show fewer"
        out().print(f"[dim]{len(found)} tasks. {shown}[/]")
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
            "perturbation": known.kind if (known := facts(name)) else None,
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
        return NONE
    if isinstance(cell, dict):
        return " ".join(f"{k}={json.dumps(v) if isinstance(v, bool) else v}" for k, v in cell.items())
    return ", ".join(str(c) for c in cell) if isinstance(cell, list) else str(cell)
