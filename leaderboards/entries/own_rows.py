"""Checking an entry against its own rows: every perturbation judged again, every figure summed up again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgspec

from advgym.judge.results import Sample
from advgym.leaderboards.entries.entry import Entry, Rows, RowSet, rows_bytes
from advgym.leaderboards.rules.reasons import table
from advgym.leaderboards.scoring.headline import headline_attack, headline_defense
from advgym.leaderboards.scoring.measured import measure_rows
from advgym.leaderboards.scoring.outcome import DISPUTE, Facts
from advgym.leaderboards.scoring.task_scores import score_task

if TYPE_CHECKING:
    from advgym.core.task import Task
    from advgym.leaderboards.rules.board_tables import Board

TaskOf = Callable[[RowSet], AbstractContextManager["Task"]]


def verify_entry(
    entry: Entry, rows: Rows, board: Board, facts: Sequence[Facts], task_of: TaskOf, *, device: Any = "cpu",
    tolerance: float = 1e-3,
) -> list[str]:  # fmt: skip
    """The disagreements, in words. None: the entry follows from its rows, and its rows are true.

    Not checked here is what only another run can tell: meters within their budgets, and which shards failed.

    Args:
        facts: of every (task, attack) with the entry's seeds, measured anew.
        task_of: the task that a set of rows was played on, behind the entry's defense on the defense track.
        tolerance: of objectives and distances (batching and devices round differently).
    """
    wrong = (
        []
        if hashlib.sha256(rows_bytes(rows, entry.rows)).hexdigest() == entry.rows
        else ["the rows are not the entry's: other hash"]
    )
    about = {f.task: f.columns_about for f in facts}  # where columns are made with other tables, `_figures` says so
    alike = {s.task for s in entry.tasks if s.columns_about == about.get(s.task)}
    for rs in rows.sets:
        with task_of(rs) as task:
            found = _rows(entry, rs, task, device, tolerance)
            found += _columns(rs, task, device, tolerance) if rs.task in alike else []
            wrong += [f"{rs.task}{f' ({rs.attack})' * bool(rs.attack)}: {w}" for w in found]
    return wrong + _figures(entry, rows, board, facts)


def _rows(entry: Entry, rs: RowSet, task: Task, device: Any, tolerance: float) -> list[str]:
    """What the verifier sees otherwise."""
    from advgym.judge.verdict import judge

    told = [s for s in rs.samples if not (entry.track == "defense" and _failed(s))]  # no answer, nothing to judge
    if not told:
        return []
    targets = [s.target for s in told] if task.goal.needs_target else None
    found = judge(
        task, rs.split, [s.id for s in told], [s.perturbation for s in told], device=device, seed=rs.seed,
        targets=targets,
    )  # fmt: skip
    wrong = []
    for i, s in enumerate(told):
        success = bool(found.success[i]) and bool(found.right[i])
        if s.success != success and not (success and _failed(s)):  # an unfinished episode is no success
            wrong.append(f"sample {s.id}: success is {success}, the rows say {s.success}")
        pairs = [
            ("valid", s.valid, bool(found.valid[i])), ("label", s.label, found.labels[i].tolist()),
            ("before", s.before, found.before[i].tolist()), ("after", s.after, found.after[i].tolist()),
        ]  # fmt: skip
        wrong += [f"sample {s.id}: {name} is {new!r}, the rows say {old!r}" for name, old, new in pairs if old != new]
        if found.already[i] and found.right[i]:
            wrong.append(f"sample {s.id}: the target {s.target!r} is what the victim says already, and no target")
        for name, claimed, value in (
            ("objective", s.objective, float(found.objective[i])),
            ("distance", s.distance, float(found.distance[i])),
        ):
            if not abs(claimed - value) <= tolerance * max(1.0, abs(claimed)):
                wrong.append(f"sample {s.id}: {name} is {value:.6g}, the rows say {claimed:.6g}")
    return wrong


def _columns(rs: RowSet, task: Task, device: Any, tolerance: float) -> list[str]:
    """What the task measures otherwise; nothing to compare with in rows from before there were columns."""
    if not any(s.columns for s in rs.samples):
        return []
    wrong = []
    for s, now in zip(rs.samples, measure_rows(task, rs.split, rs.samples, device), strict=True):
        if set(now.columns) != set(s.columns):
            wrong.append(f"sample {s.id}: columns are {sorted(now.columns)}, the rows say {sorted(s.columns)}")
            continue
        wrong += [
            f"sample {s.id}: {name} is {value:.6g}, the rows say {s.columns[name]:.6g}"
            for name, value in now.columns.items()
            if not abs(s.columns[name] - value) <= tolerance * max(1.0, abs(value))
        ]
    return wrong


def _failed(s: Sample) -> bool:
    """Whether the submission's process, not the attack, ended this episode."""
    return s.reason in table()


def _figures(entry: Entry, rows: Rows, board: Board, facts: Sequence[Facts]) -> list[str]:
    """What does not follow from the rows."""
    played = {(f.task, f.attack): [rs for rs in rows.sets if (rs.task, rs.attack) == (f.task, f.attack)] for f in facts}
    strange = {(rs.task, rs.attack) for rs in rows.sets if not rs.attack.startswith(DISPUTE)} - set(played)
    wrong = [f"there are rows of {task} {attack}, which the board does not have" for task, attack in sorted(strange)]
    scores = [score_task(sets, f) for f, sets in zip(facts, played.values(), strict=True)]
    head = (
        headline_attack(board, scores)
        if entry.track == "attack"
        else headline_defense(board, rows.sets, scores, entry.run_seeds)
    )
    old, new = ({(s.task, s.attack): msgspec.to_builtins(s) for s in some} for some in (entry.tasks, scores))
    for key in sorted({*old, *new}):
        was, now = old.get(key, {}), new.get(key, {})
        wrong += [
            f"{' '.join(filter(None, key))}: {name} is {now.get(name)!r}, the entry says {was.get(name)!r}"
            for name in dict.fromkeys([*was, *now])
            if was.get(name) != now.get(name)
        ]
    for name, said, is_ in (
        ("headline", entry.headline, head.interval), ("eligible", entry.eligible, head.eligible),
        ("columns", entry.columns, head.columns),
    ):  # fmt: skip
        if said != is_:
            wrong.append(f"{name} is {is_!r}, the entry says {said!r}")
    return wrong
