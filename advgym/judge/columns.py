"""Columns of a result: what was measured of its rows, summed up, and measured again by whoever verifies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from advgym.core.clean import CHUNK
from advgym.core.columns import Columns, Meter, Said
from advgym.lib.rates import mean, wilson

if TYPE_CHECKING:
    from advgym.core.task import Task
    from advgym.judge.results import Result, Sample


class Column(msgspec.Struct, kw_only=True):
    """One column of a result: means over the attacked and over the successes, and what its bar leaves of the successes.

    A ratio's means are sums over sums. `success_rate` counts successes whose value is at least `bar`, over all attacked
    samples, with Wilson's interval.
    """

    mean: float
    mean_success: float | None = None  # None without a success
    bar: float | None = None
    success_rate: float | None = None
    success_ci: tuple[float, float] | None = None
    ratio: tuple[str, str] | None = None  # the columns whose sums it is the ratio of


def summarise(rows: Sequence[Sample], columns: Columns | None) -> dict[str, Column]:
    """The block of a result; empty where the rows have no columns."""
    out: dict[str, Column] = {}
    bars, ratios = ({}, {}) if columns is None else (columns.bars, columns.ratios)
    for name in rows[0].columns if rows else ():
        values = [row.columns[name] for row in rows]
        won = [v for v, row in zip(values, rows, strict=True) if row.success]
        column = Column(mean=mean(values), mean_success=mean(won) if won else None)
        if name in bars:
            many = sum(v >= bars[name] for v in won)
            column.bar, column.success_rate = bars[name], many / len(rows)
            column.success_ci = wilson(many, len(rows))
        out[name] = column
    for name, (top, base) in ratios.items():
        if top in out and base in out:
            won_rows = [row for row in rows if row.success]
            share = over(rows, top, base)
            out[name] = Column(mean=share, mean_success=over(won_rows, top, base) if won_rows else None,
                               ratio=(top, base))  # fmt: skip
    return out


def over(rows: Sequence[Sample], top: str, base: str) -> float:
    """The sum of one column over that of another: a micro-average; 0 where there is nothing to count."""
    total = sum(row.columns[base] for row in rows)
    return sum(row.columns[top] for row in rows) / total if total else 0.0


def barred(result: Result) -> list[tuple[str, Column]]:
    """The columns of a result that have a bar: valid successes in their sense."""
    return [(name, column) for name, column in result.columns.items() if column.bar is not None]


def check(result: Result, task: Task, device: Any, tolerance: float) -> list[str]:
    """Disagreements of a result's columns with those computed again, in words."""
    if not result.columns and not any(s.columns for s in result.samples):
        return []
    models = {k: v for k, v in result.columns_about.items() if task.columns is not None and k in task.columns.models}
    meter = Meter(task, models)
    if meter.about != result.columns_about:
        return [f"columns were made with {result.columns_about}, here they are made with {meter.about}"]
    wrong: list[str] = []
    for start in range(0, len(result.samples), CHUNK):
        part = result.samples[start : start + CHUNK]
        batch = task.judged(result.split, [s.id for s in part], device)
        form = batch.look(batch.load([s.perturbation for s in part])).form
        for sample, found in zip(part, meter.rows(batch, form, said_of(part, task, device)), strict=True):
            wrong += _differences(sample, found, tolerance)
    if not wrong and not _same(summarise(result.samples, task.columns), result.columns):
        wrong.append("the summary of the columns does not follow from the samples")
    return wrong


def said_of(samples: Sequence[Sample], task: Task, device: Any) -> Said:
    """What rows hold of the victim's answers; the verifier asks for them again, and compares."""
    label, before, after = (
        torch.tensor([getattr(s, name) for s in samples], device=device) for name in ("label", "before", "after")
    )
    target = None
    if task.goal.needs_target:  # a file that names none is told so by the verifier
        aims = [
            b.cpu() if s.target is None else task.goal.parse_target(s.target)
            for s, b in zip(samples, before, strict=True)
        ]
        target = torch.stack(aims).to(device)
    return Said(label, before, after, target)


def _differences(sample: Sample, found: dict[str, float], tolerance: float) -> list[str]:
    if set(found) != set(sample.columns):
        return [f"sample {sample.id}: columns are {sorted(found)}, the file has {sorted(sample.columns)}"]
    return [
        f"sample {sample.id}: {name} is {value:.6g}, the file says {sample.columns[name]:.6g}"
        for name, value in found.items()
        if not abs(sample.columns[name] - value) <= tolerance * max(1.0, abs(value))
    ]


def _same(one: dict[str, Column], other: dict[str, Column]) -> bool:
    """Equal up to rounding."""

    def flat(columns: dict[str, Column]) -> list[float | None]:
        return [v for name in sorted(columns) for c in [columns[name]]
                for v in (c.mean, c.mean_success, c.bar, c.success_rate, *(c.success_ci or (None, None)))]  # fmt: skip

    a, b = flat(one), flat(other)
    return sorted(one) == sorted(other) and len(a) == len(b) and all(
        (x is None and y is None) or (x is not None and y is not None and abs(x - y) <= 1e-9)
        for x, y in zip(a, b, strict=True)
    )  # fmt: skip
