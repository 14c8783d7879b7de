"""The HTML report: one self-contained file of results, for a demo's many attacks or for one."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advgym import registry
from advgym.core.task import Task
from advgym.errors import AdvgymError
from advgym.judge.columns import barred
from advgym.judge.results import Result
from advgym.lib.files import write_atomic
from advgym.lib.machine import versions
from advgym.report.cells import Key, address, as_csv, sources
from advgym.report.examples import Example, examples
from advgym.report.matrix import CONTROL, GROUPS, agents_by_tasks, attack_by_defense, domains_of, gather_flags, group_of
from advgym.report.reasons import reasons
from advgym.report.svg import SLOTS, Line, curve, figure


def write_report(
    path: Path | None,
    results: Sequence[Result],
    tasks: Mapping[str, Task],
    *,
    title: str,
    defended: Sequence[Result] = (),
    missing: Mapping[tuple[str, str, str], str] | None = None,
    flags: Sequence[str] = (),
    notes: Sequence[str] = (),
    command: str | None = None,
    seconds: float | None = None,
    files: Mapping[Key, str] | None = None,
) -> str:
    """Write one HTML file; the text is also returned.

    Args:
        results: the attacks of the first matrix.
        tasks: the tasks by name, for the examples.
        defended: the attacks against defended victims.
        missing: why a cell (agent, task, defense) is empty.
        flags: what a reader should know besides the results' own flags.
        notes: lines for "what was run".
        files: result files by (agent, task, defense), as the page names them: relative to its folder.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if not results:
        raise AdvgymError("a report needs at least one result")
    missing = missing or {}
    names = list(dict.fromkeys(r.task for r in results))
    first = results[0]
    spent = seconds if seconds is not None else sum(r.seconds for r in (*results, *defended))
    env = Environment(
        loader=FileSystemLoader(registry.HOME / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shows = [(name, _title(name), _examples(tasks.get(name), [r for r in results if r.task == name])) for name in names]
    behind = sources([*results, *defended], files or {}, [name for name, _, found in shows if found])
    page = env.get_template("report.html.j2").render(
        title=title,
        single=len(results) == 1 and not defended,
        first=first,
        tiles=_tiles(results, defended, names, spent),
        when=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command or "advgym " + shlex.join(sys.argv[1:]),
        facts=_facts(results, defended, notes),
        versions=versions(),
        matrix=agents_by_tasks(results, names, missing),
        defenses=[
            attack_by_defense(results, defended, domain, missing) for domain in domains_of(r.task for r in defended)
        ],
        figures=[curves(results, name) for name in names],
        shows=shows,
        cells=behind,
        sheet=address(as_csv(behind)),
        flags=gather_flags([*results, *(r for r in defended if r.defense != "none")], flags),
        control_agent=CONTROL,
        reasons=reasons(results, tasks, missing),
    )
    if path is not None:
        write_atomic(Path(path), page.encode())
    return page


def _title(task: str) -> str:
    return str(registry.tasks().get(task, {}).get("title", ""))


def _tiles(
    results: Sequence[Result], defended: Sequence[Result], names: list[str], seconds: float
) -> list[tuple[str, str]]:
    """(figure, what it counts)."""
    every = [*results, *defended]
    if len(every) == 1:
        r = every[0]
        return [
            (f"{100 * r.success_rate:.0f} %", f"success ({100 * r.success_ci[0]:.0f}–{100 * r.success_ci[1]:.0f})"),
            *((f"{100 * (c.success_rate or 0):.0f} %", f"success, {name} ≥ {c.bar:g}") for name, c in barred(r)),
            (f"{100 * r.control_rate:.0f} %", "random control"),
            (f"{100 * r.clean_accuracy:.0f} %", "clean accuracy"),
            (f"{100 * r.robust_accuracy:.0f} %", "robust accuracy"),
            (f"{r.queries_median:.0f}", "queries, median"),
            (f"{r.distance_median:.3g}", "distance, median"),
        ]
    guards = {d for r in defended for d in [r.defense] if d != "none"}
    tiles = [
        (_count(len(domains_of(names))), "domains"),
        (_count(len(names)), "tasks"),
        (_count(len({r.agent for r in results})), "agents"),
        (_count(len(guards)), "defenses"),
        (_count(len(every)), "attacks"),
        (_count(sum(r.attacked for r in every)), "episodes judged"),
        (f"{seconds:.0f} s", "in all"),
    ]
    return [(figure_, what) for figure_, what in tiles if figure_ != "0"]


def _count(n: int) -> str:
    return f"{n:,}"


def _facts(results: Sequence[Result], defended: Sequence[Result], notes: Sequence[str]) -> list[tuple[str, str]]:
    """What was run, as terms and their values; ranges where results differ."""
    every = [*results, *defended]

    def of(values: Any) -> str:
        found = sorted(set(values))
        return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"

    facts = [
        ("Samples per attack", of(r.episodes for r in every)),
        ("Query budget", of(r.threat["queries"] for r in every)),
        ("Gradient budget", of(r.threat["gradients"] for r in every)),
        ("Lanes", of(r.lanes for r in every)),
        ("Seed", of(r.seed for r in every)),
        ("Split", of(r.split for r in every)),
        ("Device", of(r.device for r in every)),
    ]
    if len(every) == 1:
        r = every[0]
        limit = ", ".join(f"{k} = {v}" for k, v in r.threat["constraint"].items())
        said = ", ".join(f"{k} = {v}" for k, v in r.settings.items())
        facts = [
            ("Task", f"{r.task}. {_title(r.task)}"),
            ("Victim", str(r.victim["name"])),
            ("Agent", r.agent + (f" ({said})" if said else "")),
            ("Defense", r.defense),
            ("Knowledge", str(r.threat["knowledge"])),
            ("Goal", str(r.threat["goal"])),
            ("Constraint", limit),
            *facts,
            *_measured(r),
        ]
    return [*facts, *(("Note", note) for note in notes)]


def _measured(r: Result) -> list[tuple[str, str]]:
    """Success at the customary numbers of queries, and the columns."""
    marks = ", ".join(f"{100 * rate:.0f} % at {q}" for q, rate in r.success_at)
    lines = [("Success within", f"{marks} queries")] if marks else []
    for name, c in r.columns.items():
        said = f"mean {c.mean:.3g}" + ("" if c.mean_success is None else f", of the successes {c.mean_success:.3g}")
        if c.bar is not None and c.success_rate is not None and c.success_ci is not None:
            low, high = c.success_ci
            said += (
                f"; successes of at least {c.bar:g}: {100 * c.success_rate:.1f} % ({100 * low:.0f}–{100 * high:.0f}) "
                "of the attacked"
            )
            said += f". {about[:1].upper()}{about[1:]}" if (about := r.columns_about.get(name)) else ""
        lines.append((name.replace("_", " ").capitalize(), said))
    return lines


def curves(results: Sequence[Result], name: str) -> dict[str, Any]:
    """The curves of one task, its legend, and the same numbers for those who cannot see it."""
    order = {k: i for i, k in enumerate(GROUPS)}
    rows = sorted((r for r in results if r.task == name), key=lambda r: (order[group_of(r)], r.agent))
    slots = colours(results)
    lines = [
        Line(r.agent, str(r.threat["knowledge"]), slots.get(r.agent, 0), curve(r), r.agent == CONTROL) for r in rows
    ]
    grid = [q for q, _ in rows[0].curve]
    table = [(r.agent, [f"{100 * rate:.0f}" for _, rate in r.curve]) for r in rows]
    keys = [
        (line, f"{100 * line.last:.0f}", f"{100 * line.points[-1][2]:.0f}–{100 * line.points[-1][3]:.0f}")
        for line in lines
    ]
    return {
        "task": name,
        "title": _title(name),
        "svg": figure(lines, name),
        "legend": keys,
        "grid": grid,
        "rows": table,
    }


def colours(results: Sequence[Result]) -> dict[str, int]:
    """A slot of the palette per agent, the same in every figure; agents that share a figure differ where they can."""
    slots: dict[str, int] = {}
    order = {k: i for i, k in enumerate(GROUPS)}
    plays: dict[str, set[str]] = {}
    for r in sorted((r for r in results if r.agent != CONTROL), key=lambda r: (order[group_of(r)], r.agent)):
        plays.setdefault(r.agent, set()).add(r.task)
    for agent, tasks in plays.items():
        used = {slot for other, slot in slots.items() if plays[other] & tasks}
        slots[agent] = next((i for i in range(SLOTS) if i not in used), len(slots) % SLOTS)
    return slots


def _examples(task: Task | None, results: list[Result]) -> list[Example]:
    return [] if task is None else examples(task, results)
