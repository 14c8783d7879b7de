"""The matrices of a report and of the terminal: attacks on tasks, attacks on defenses, and what to flag in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from advgym.judge.results import Result
from advgym.lib.rates import median

CONTROL = "noise"  # the agent that stands for no attack at all
GROUPS = {
    "white-box": "White-box: gradients",
    "score": "Score: no gradients",
    "decision": "Decision: labels only",
    "transfer": "Transfer: no answers",
    "control": "Control",
}


@dataclass
class Cell:
    """One attack in a matrix."""

    rate: float
    queries: float
    low: float
    high: float
    attacked: int
    marks: str = ""
    agent: str = ""
    ref: str = ""  # where the page tells what stands behind it

    @property
    def percent(self) -> str:
        """Whole percent."""
        return f"{100 * self.rate:.0f}"


@dataclass
class Row:
    """A row header and its cells; None where the attack does not fit."""

    name: str
    cells: list[Cell | str | None]


@dataclass
class Group:
    """Rows under one heading."""

    title: str
    rows: list[Row]


@dataclass
class Matrix:
    """A heat map table."""

    caption: str
    columns: list[str]
    groups: list[Group]
    domains: list[tuple[str, int]] = field(default_factory=list)  # (name, columns)
    foot: list[Row] = field(default_factory=list)


def domains_of(names: Any) -> list[str]:
    """The domains of some tasks, in their order."""
    return list(dict.fromkeys(name.split("/")[0] for name in names))


def _cell(r: Result, marks: str = "") -> Cell:
    if r.agent != CONTROL and r.success_rate <= r.control_rate:
        marks += "†"
    if any(f.startswith("agent crashed") for f in r.flags):
        marks += "✕"
    spent = median([s.queries for s in r.samples if s.success])
    return Cell(r.success_rate, spent, *r.success_ci, r.attacked, marks, r.agent, ref_of(r))


def agents_by_tasks(results: Sequence[Result], names: list[str], missing: Mapping[tuple[str, str, str], str]) -> Matrix:
    """Success rates: a row per agent, by knowledge; a column per task, by domain."""
    names = [name for domain in domains_of(names) for name in names if name.split("/")[0] == domain]
    by = {(r.agent, r.task): r for r in results}
    marked = {name for name in names if beaten([r for r in results if r.task == name])}
    groups = []
    for knowledge in GROUPS:
        agents = sorted({r.agent for r in results if group_of(r) == knowledge})
        rows = []
        for agent in agents:
            cells: list[Cell | str | None] = []
            for name in names:
                r = by.get((agent, name))
                mark = (
                    "▲"
                    if r is not None and name in marked and r in beaten([x for x in results if x.task == name])
                    else ""
                )
                cells.append(_cell(r, mark) if r is not None else missing.get((agent, name, "none")))
            rows.append(Row(agent, cells))
        if not rows and knowledge == "control":
            rates = [max(r.control_rate for r in results if r.task == name) for name in names]
            rows = [Row("random", [Cell(rate, 0, rate, rate, 0, agent=CONTROL) for rate in rates])]
        if rows:
            rows.sort(key=lambda row: -_mean(row))
            groups.append(Group(GROUPS[knowledge], rows))
    domains = [(d, sum(name.split("/")[0] == d for name in names)) for d in domains_of(names)]
    return Matrix(
        "Success rate in per cent, and the median number of queries that a success took (q)", names, groups, domains
    )


def group_of(r: Result) -> str:
    """Under which heading of the matrix an attack stands."""
    return "control" if r.agent == CONTROL else str(r.threat["knowledge"])


def ref_of(r: Result) -> str:
    """Where on the page an attack is told; the same agent may stand there with two budgets."""
    parts = (r.task, r.agent, r.defense, r.threat["queries"], r.episodes)
    return "cell-" + re.sub(r"[^A-Za-z0-9]+", "-", " ".join(str(p) for p in parts))


def _mean(row: Row) -> float:
    rates = [c.rate for c in row.cells if isinstance(c, Cell)]
    return sum(rates) / len(rates) if rates else -1.0


def beaten(results: Sequence[Result]) -> list[Result]:
    """The black-box attacks on one victim that succeed more often than every white-box one."""
    white = [r.success_rate for r in results if group_of(r) == "white-box"]
    return [r for r in results if white and group_of(r) not in ("white-box", "control") and r.success_rate > max(white)]


def attack_by_defense(
    results: Sequence[Result], defended: Sequence[Result], domain: str, missing: Mapping[tuple[str, str, str], str]
) -> tuple[str, Matrix]:
    """Of one domain: a row per attack, a column per defense, `none` first; below it what the defense costs."""
    inside = [r for r in defended if r.task.split("/")[0] == domain]
    guards = ["none", *dict.fromkeys(r.defense for r in inside if r.defense != "none")]
    for _, task, guard in missing:
        if task.split("/")[0] == domain and guard not in guards and guard != "none":
            guards.append(guard)
    played = {(r.agent, r.task) for r in inside}
    first = [r for r in results if (r.agent, r.task) in played]  # stands in where `none` was not attacked again
    everything = {(r.agent, r.task, r.defense): r for r in (*first, *inside)}
    groups = []
    foot = []
    for task in dict.fromkeys(r.task for r in inside):
        order = {k: i for i, k in enumerate(GROUPS)}
        agents = sorted(
            {r.agent for r in inside if r.task == task},
            key=lambda a: min(order[group_of(r)] for r in everything.values() if r.agent == a),
        )
        rows = []
        for agent in agents:
            cells: list[Cell | str | None] = []
            for guard in guards:
                r = everything.get((agent, task, guard))
                rivals = [x for (_, t, g), x in everything.items() if t == task and g == guard]
                cells.append(
                    _cell(r, "▲" if r in beaten(rivals) else "") if r is not None else missing.get((agent, task, guard))
                )
            rows.append(Row(agent, cells))
        groups.append(Group(task, rows))
        clean: list[Cell | str | None] = []
        for guard in guards:
            found = next((r for (_, t, g), r in everything.items() if t == task and g == guard), None)
            clean.append(None if found is None else f"{100 * found.clean_accuracy:.0f}")
        foot.append(Row(f"clean accuracy, {task.split('/')[-1]}", clean))
    return domain, Matrix(
        f"{domain}: success rate in per cent of attacks (rows) against defenses (columns)", guards, groups, foot=foot
    )


def gather_flags(results: Sequence[Result], extra: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(where, what) of everything that a reader should know before believing a number."""
    found = [("", text) for text in extra]
    for (task, defense), rows in by_victim(results).items():
        where = task + (f" behind {defense}" if defense != "none" else "")
        above = beaten(rows)
        if above:
            white = max((x for x in rows if group_of(x) == "white-box"), key=lambda x: x.success_rate)
            names = ", ".join(f"{r.agent} ({group_of(r)}, {_of(r)})" for r in above)
            best = f"{white.agent} ({_of(white)})"
            text = f"Black-box attacks succeed more often than the best white-box one, {best}: {names}."
            found.append((where, f"{text} Gradients may be masked, or the white-box attacks are weak here."))
        weak = [r for r in rows if r.agent != CONTROL and r.success_rate <= r.control_rate]
        if weak:
            control = f"{100 * weak[0].control_rate:.0f} %"
            found.append(
                (where, f"No better than the random control ({control}): {', '.join(sorted(r.agent for r in weak))}.")
            )
        own: dict[str, list[str]] = {}
        for r in rows:
            for flag in r.flags:
                if not flag.startswith("no better than"):
                    own.setdefault(flag, []).append(r.agent)
        for flag, agents in own.items():
            found.append((where, flag if len(agents) == len(rows) else f"{', '.join(sorted(agents))}: {flag}"))
    return found


def by_victim(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """Results by (task, defense)."""
    out: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        out.setdefault((r.task, r.defense), []).append(r)
    return out


def _of(r: Result) -> str:
    return f"{sum(s.success for s in r.samples)} of {r.attacked}"
