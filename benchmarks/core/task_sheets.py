"""A sheet of every task for the documentation: spaces, an example, success against queries of cheap agents.

`python -m benchmarks.core.task_sheets [PATTERN]` plays the tasks whose data are there and writes `docs/sheets/*.json`;
`make docs` makes the pages of tasks from the registry and these files. What is played: `task_sheets.toml`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

import advgym
from advgym import registry
from advgym.core.offers import lacking, offers
from advgym.core.task import Task, make_task
from advgym.errors import AdvgymError
from advgym.judge.results import Result
from advgym.judge.run import attack
from advgym.lib.machine import versions
from advgym.report.examples import examples
from advgym.report.svg import curve

SHEETS = Path(__file__).parents[2] / "docs" / "sheets"
PLAN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def sizes_of(name: str) -> dict[str, int]:
    """Episodes and queries of a task; the first pattern that matches says less."""
    plain = {"episodes": PLAN["episodes"], "queries": PLAN["queries"]}
    return next((plain | less for pattern, less in PLAN["less"].items() if fnmatchcase(name, pattern)), plain)


def options_of(name: str) -> dict[str, Any] | None:
    """What a task is made with; None for one that has no data and is given none."""
    own = PLAN["own"].get(name)
    return own or ({} if "dataset" in registry.tasks()[name] else None)


def spaces_of(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The spaces of one lane in words: of proposals, and of the edit view as Gymnasium makes it."""
    from advgym.clients.single import make_single

    core = advgym.make(name, lanes=1, **options)
    view = make_single(name, **options)
    found = {
        "proposal": str(core.single_action_space),
        "action": str(view.action_space),
        "observation": {key: str(space) for key, space in view.observation_space.spaces.items()},
    }
    core.close()
    view.close()
    return found


def players(task: Task, kind: str, offered: frozenset[str]) -> list[str]:
    """Of each line of the plan the first agent that plays the task."""
    found = []
    for line in PLAN["baselines"]:
        for name in line:
            entry = registry.agent(name)
            if kind in entry.kinds and not lacking(entry, offered):
                found.append(name)
                break
    return found


def line_of(r: Result) -> dict[str, Any]:
    """One agent's curve: [queries, rate, low, high] wherever it rises."""
    points = [[q, *(round(v, 4) for v in rest)] for q, *rest in curve(r)]
    return {
        "agent": r.agent, "knowledge": r.threat["knowledge"], "attacked": r.attacked, "success": r.success_rate,
        "interval": [round(v, 4) for v in r.success_ci], "queries": r.queries_median, "points": points,
    }  # fmt: skip


def digest_of(row: dict[str, Any]) -> str:
    """Of the row that a sheet is about: a page says so where the row has changed since."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def example_of(task: Task, results: list[Result]) -> dict[str, Any] | None:
    """The nearest success of the strongest agent, as the task shows it; where none succeeded, a failure."""
    found = examples(task, results, 1)
    if found or not results:
        return vars(found[0]) | {"success": True} if found else None
    last = results[-1]
    tried = [replace(last, samples=[replace(s, success=True)]) for s in last.samples[:1]]
    return next((vars(e) | {"success": False} for e in examples(task, tried, 1)), None)


def sheet(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Everything that a page needs of a task and that only playing it can say."""
    made = make_task(name, **options)
    split = "test" if "test" in made.sizes else next(iter(made.sizes))
    batch = made.samples(split, [0])
    offered, size = offers(made, batch), sizes_of(name)
    size["episodes"] = min(size["episodes"], made.sizes[split])
    results = []
    for agent in players(made, batch.kind, offered):
        try:
            results.append(attack(name, agent, split=split, lanes=size["episodes"], **size, **options))
        except AdvgymError as error:
            print(f"  {agent}: {error}")
    return {
        "task": name, "row": digest_of(registry.tasks()[name]), "made_with": options, "kind": batch.kind,
        "offers": sorted(offered), "sizes": dict(made.sizes),
        "split": split, **size, "seed": 0, "versions": versions(), "spaces": spaces_of(name, options),
        "example": example_of(make_task(name, **options), results), "curves": [line_of(r) for r in results],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="names of tasks, * for any letters")
    parser.add_argument("--new", action="store_true", help="leave sheets that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    SHEETS.mkdir(exist_ok=True)
    for name in registry.tasks():
        path, options = SHEETS / f"{name.replace('/', '.')}.json", options_of(name)
        if not fnmatchcase(name, arguments.pattern) or options is None or (arguments.new and path.exists()):
            continue
        started = time.process_time()
        try:
            found = sheet(name, options)
        except AdvgymError as error:
            print(f"{name}: left out: {error}")
            continue
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        rates = ", ".join(f"{c['agent']} {100 * c['success']:.0f} % of {c['attacked']}" for c in found["curves"])
        print(f"{name}: {rates} ({time.process_time() - started:.1f} CPU s)", flush=True)


if __name__ == "__main__":
    main()
