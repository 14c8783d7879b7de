"""`advgym demo`: the agents that a task's row names for it, then the strongest behind every defense that fits."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advgym import registry
from advgym.cli.printing import err, escape, out, progress
from advgym.cli.pulse import keeps
from advgym.cli.shared.tables import emit
from advgym.cli.values import keywords
from advgym.core.offers import lacking, offers
from advgym.errors import AdvgymError
from advgym.lib.extras import need

if TYPE_CHECKING:
    from advgym.core.task import Task
    from advgym.judge.results import Result

FULL = ({"episodes": 24, "queries": 100}, {"episodes": 16, "queries": 50})  # undefended; behind defenses
QUICK = ({"episodes": 12, "queries": 50}, {"episodes": 8, "queries": 30})
SMALL = {"draws": 4, "samples": 256, "epochs": 1}  # settings of a defense that has them, so that it is quick


@dataclass
class Run:
    """What a demo gathered."""

    results: list[Result] = field(default_factory=list)
    defended: list[Result] = field(default_factory=list)
    missing: dict[tuple[str, str, str], str] = field(default_factory=dict)  # (agent, task, defense): why
    problems: list[str] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    seed: int = 0


def run_demo(folder: Path, *, quick: bool, device: str = "cpu", seed: int = 0, as_json: bool = False) -> int:
    """Run it all, print the matrices, write the report; 1 where something failed that should not."""
    names = [name for name, row in registry.tasks().items() if row.get("demo")]
    if not names:
        raise AdvgymError("no task's row names agents in `demo = [...]`; `advgym list tasks` shows what there is")
    if folder.exists() and not folder.is_dir():
        raise AdvgymError(f"{folder} is a file; name a folder with --out")
    need("jinja2", "the demo's report")
    _one_thread()
    from advgym.core.victim import resolve_device

    started, (size, less) = time.perf_counter(), QUICK if quick else FULL
    found = Run(device=device, seed=seed)
    keeps(lambda: f"{len(found.results) + len(found.defended)} results are in {folder}/results; the demo starts over")
    resolve_device(device)
    with progress() as bar:
        _prepare(found, names, size, bar)
        _first_matrix(found, size, bar, folder)
        _behind_defenses(found, less, bar, folder)
    if not found.results:
        raise AdvgymError("no attack could be run:\n" + "\n".join(found.problems))
    seconds = time.perf_counter() - started
    if not as_json:
        _print(found)
    place = _write(found, folder, seconds, size, less)
    if as_json:
        emit(_told(found, place, seconds))
    else:
        out().print(f"\n[bold]report[/]  {escape(place)}  [dim]({seconds:.0f} s)[/]", soft_wrap=True)
    for problem in found.problems:
        err().print(f"[bold red]advgym:[/] {escape(problem)}", soft_wrap=True)
    return 1 if found.problems else 0


def _told(found: Run, place: Path, seconds: float) -> dict[str, Any]:
    """The rates of every cell, and why the others are empty."""
    cells = [
        {"task": r.task, "agent": r.agent, "defense": r.defense, "success_rate": r.success_rate,
         "queries_median": r.queries_median, "attacked": r.attacked}
        for r in (*found.results, *(r for r in found.defended if r.defense != "none"))
    ]  # fmt: skip
    missing = [{"agent": a, "task": t, "defense": d, "why": why} for (a, t, d), why in found.missing.items()]
    return {"report": str(place), "seconds": seconds, "cells": cells, "missing": missing, "problems": found.problems}


def _one_thread() -> None:
    """Threads only spin on models this small."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _prepare(found: Run, names: list[str], size: dict[str, int], bar: Any) -> None:
    """Load victims and data of every task."""
    from advgym.core.task import make_task

    line = bar.add_task("victims and data", total=len(names), note="")
    for name in names:
        bar.update(line, note=name)
        try:
            task = make_task(name, queries=size["queries"])
            found.kinds[name] = task.samples("test", [0]).kind
            found.tasks[name] = task
        except AdvgymError as error:
            found.problems.append(f"{name}: {error}")
        bar.advance(line)
    bar.remove_task(line)


def _first_matrix(found: Run, size: dict[str, int], bar: Any, folder: Path) -> None:
    pairs = [(agent, task) for task in found.kinds for agent in registry.tasks()[task]["demo"]]
    have = {(r.agent, r.task) for r in found.results}
    line = bar.add_task("agents × tasks", total=len(pairs), note="")
    for agent, task in pairs:
        bar.update(line, note=f"{agent} on {task}")
        result = None if (agent, task) in have else _attack(found, agent, task, "none", size)
        if result is not None:
            found.results.append(result)
            _save(result, folder)
        bar.advance(line)
    for agent in sorted({agent for agent, _ in pairs} & set(registry.agents())):
        entry = registry.agent(agent)
        for task, kind in found.kinds.items():
            why = "not shown here" if kind in entry.kinds else f"plays {' and '.join(entry.kinds)}, this is {kind}"
            if kind in entry.kinds and (missing := lacking(entry, offers(found.tasks[task]))):
                why = f"needs {', '.join(missing)}"
            if (agent, task) not in pairs:
                found.missing[agent, task, "none"] = why
    bar.remove_task(line)


def _behind_defenses(found: Run, size: dict[str, int], bar: Any, folder: Path) -> None:
    triples: list[tuple[str, str, str]] = []  # (task, defense, agent)
    for task, kind in found.kinds.items():
        domain = task.split("/")[0]
        if any(t.split("/")[0] == domain for t, _, _ in triples):
            continue  # the first task of each domain
        fit = [
            g.name for g in registry.defenses().values() if (not g.domains or domain in g.domains) and kind in g.kinds
        ]
        triples += [(task, guard, agent) for guard in ("none", *fit) if fit for agent in strongest(found.results, task)]
    line = bar.add_task("attacks × defenses", total=len(triples), note="")
    for task, guard, agent in triples:
        bar.update(line, note=f"{agent} on {task} behind {guard}")
        result = _attack(found, agent, task, guard, size)
        if result is not None:
            found.defended.append(result)
            if guard != "none":
                _save(result, folder)
        bar.advance(line)
    bar.remove_task(line)


def strongest(results: list[Result], task: str) -> list[str]:
    """The control, and of the white-box and of the score agents the one that succeeds most, with fewest queries."""
    from advgym.report.matrix import CONTROL, group_of

    inside = [r for r in results if r.task == task]
    chosen = [r.agent for r in inside if r.agent == CONTROL]
    for knowledge in ("white-box", "score"):
        ranked = sorted(
            (r for r in inside if group_of(r) == knowledge), key=lambda r: (-r.success_rate, r.queries_mean)
        )
        chosen += [r.agent for r in ranked[:1]]
    return chosen


def small_settings(guard: str) -> dict[str, int]:
    """What of `SMALL` the defense understands."""
    known = keywords(registry.defense(guard).defend) or []
    return {key: value for key, value in SMALL.items() if key in known}


def _attack(found: Run, agent: str, task: str, guard: str, size: dict[str, int]) -> Result | None:
    """One cell; None where the threat model does not allow it or where it failed."""
    from advgym.judge.run import attack

    try:
        return attack(
            task, agent, episodes=size["episodes"], lanes=size["episodes"], queries=size["queries"],
            device=found.device, seed=found.seed,
            defenses=[] if guard == "none" else [(guard, small_settings(guard))],
        )  # fmt: skip
    except AdvgymError as error:
        found.missing[agent, task, guard] = str(error)
    except Exception as error:
        found.missing[agent, task, guard] = f"failed: {error}"
        behind = "" if guard == "none" else f" behind {guard}"
        found.problems.append(f"{agent} on {task}{behind} failed: {type(error).__name__}: {error}")
    return None


def _guarded(found: Run) -> list[Result]:
    """Those behind a defense; of the others the first matrix has the file."""
    return [r for r in found.defended if r.defense != "none"]


def _file(r: Result) -> str:
    return "--".join((r.task.replace("/", "."), r.agent, r.defense)) + ".json"


def _save(result: Result, folder: Path) -> None:
    from advgym.judge.results import save

    save(result, folder / "results" / _file(result))


# -- what is shown ---------------------------------------------------------------------------------------------------
def _print(found: Run) -> None:
    from advgym.cli.matrix import print_matrix
    from advgym.report.matrix import agents_by_tasks, attack_by_defense

    names = list(dict.fromkeys(r.task for r in found.results))
    print_matrix(agents_by_tasks(found.results, names, found.missing), "agents × tasks")
    for domain in dict.fromkeys(r.task.split("/")[0] for r in found.defended):
        matrix = attack_by_defense(found.results, found.defended, domain, found.missing)[1]
        print_matrix(matrix, f"{domain}: attacks × defenses")


def _write(found: Run, folder: Path, seconds: float, size: dict[str, int], less: dict[str, int]) -> Path:
    from advgym.report.page import write_report

    place = folder / "index.html"
    used = ", ".join(f"{k} = {v}" for k, v in SMALL.items())
    notes = [
        f"A demonstration: {size['episodes']} samples and at most {size['queries']} queries per attack, so that it "
        "ends within a minute or two. Intervals are wide; settings are each agent's defaults.",
        f"Behind defenses: the first task of each domain, {less['episodes']} samples, {less['queries']} queries; and "
        f"{used} where a defense has such settings.",
    ]
    write_report(
        place, found.results, found.tasks, title="Agents against tasks", defended=found.defended, missing=found.missing,
        flags=found.problems, notes=notes, seconds=seconds,
        files={(r.agent, r.task, r.defense): f"results/{_file(r)}" for r in [*found.results, *_guarded(found)]},
    )  # fmt: skip
    return place
