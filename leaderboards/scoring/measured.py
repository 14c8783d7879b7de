"""The columns of a task on a board: measured by the evaluator, from the perturbations that it stores, and summed up.

No submission sees or states any of it. A column says how a perturbation changed the sample (does a text keep its
meaning, how far did a degree move); where it has a bar, a success that stays below it is no valid one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from advgym.judge.results import Sample
from advgym.leaderboards.entries.entry import Interval, Measured
from advgym.leaderboards.scoring.intervals import rate_interval
from advgym.leaderboards.scoring.outcome import Facts
from advgym.lib.rates import mean

if TYPE_CHECKING:
    from advgym.core.task import Task


def measure_rows(task: Task, split: str, rows: list[Sample], device: Any = "cpu") -> list[Sample]:
    """The rows with the task's columns, each made again from the stored perturbation; as they are where it has none."""
    from advgym.core.clean import CHUNK
    from advgym.core.columns import Meter
    from advgym.judge.columns import said_of

    meter = Meter(task)
    if not meter:
        return rows
    out: list[Sample] = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        batch = task.judged(split, [r.id for r in part], device)
        form = batch.look(batch.load([r.perturbation for r in part])).form
        found = zip(part, meter.rows(batch, form, said_of(part, task, device)), strict=True)
        out += [msgspec.structs.replace(r, columns=columns) for r, columns in found]
    return out


def valid(row: Sample, bars: Mapping[str, float], unknown: bool = False) -> bool:
    """Whether a success reaches every bar; `unknown` is said of a row that was not measured."""
    if not set(bars) <= set(row.columns):
        return unknown
    return all(row.columns[name] >= bar for name, bar in bars.items())  # False for NaN


def sum_up(rows: Sequence[Sample], wins: Sequence[Sample], facts: Facts, missing: int = 0) -> dict[str, Any]:
    """The fields of a `TaskScore` that columns fill; none of them where no row was measured.

    Args:
        rows: judged; wins: those of them that count as successes.
        missing: runs without a row that count as successes (defense track).
    """
    names = sorted({name for row in rows for name in row.columns})
    if not names:
        return {}
    attacked, runs, doubt = len(facts.right), len(facts.right) * len(facts.seeds), bool(facts.attack)

    def rate(bars: Mapping[str, float]) -> Interval:
        many = sum(valid(s, bars, doubt) for s in wins) + missing
        return rate_interval(many / runs if runs else 0.0, attacked)

    columns = {}
    for name in names:
        won = [s.columns[name] for s in wins if name in s.columns]
        barred = {name: facts.bars[name]} if name in facts.bars else {}
        columns[name] = Measured(
            mean=mean([s.columns[name] for s in rows if name in s.columns]), mean_success=mean(won) if won else None,
            bar=barred.get(name), success=rate(barred) if barred else None,
        )  # fmt: skip
    found: dict[str, Any] = {"columns": columns, "columns_about": dict(facts.columns_about)}
    return {**found, "valid_success": rate(facts.bars)} if facts.bars else found
