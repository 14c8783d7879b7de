"""Columns: what a task measures of every final perturbation besides success. No agent sees one, no objective has one.

A column may have a bar: a success counts as valid in its sense only where the column reaches it, and the result then
states that rate beside the success rate. The verifier computes every column again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from advgym.errors import AdvgymError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from advgym.batch import Batch
    from advgym.results import Result, Sample
    from advgym.task import Task

Compute = Callable[["Batch", "Tensor"], Mapping[str, Sequence[float]]]


class Column(msgspec.Struct, kw_only=True):
    """One column of a result: means over the attacked and over the successes, and what its bar leaves of the successes.

    `success_rate` counts successes whose value is at least `bar`, over all attacked samples, with Wilson's interval.
    """

    mean: float
    mean_success: float | None = None  # None without a success
    bar: float | None = None
    success_rate: float | None = None
    success_ci: tuple[float, float] | None = None


@dataclass(frozen=True)
class Columns:
    """What a domain measures.

    Attributes:
        compute: (batch, canonical form) -> one finite number per row for every column; deterministic.
        about: what the figures are made with and how far they can be trusted, beyond the task and its samples; said
            where a column with a bar is shown, compared when a result is verified.
        bars: the least value of a column with which a success is a valid one.
        models: further columns that need a model: name -> (the model's name or folder -> compute).
    """

    compute: Compute
    about: Callable[[], dict[str, str]] = field(default=dict)
    bars: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, Callable[[str], Compute]] = field(default_factory=dict)


class Meter:
    """The columns of a task, with the models that were named.

    Args:
        task: any task; one without columns measures nothing.
        models: column -> the model's name or folder.

    Raises:
        AdvgymError: for a column that the task does not offer.
    """

    def __init__(self, task: Task, models: Mapping[str, str] | None = None) -> None:
        self.columns, self.models = task.columns, dict(models or {})
        offered = {} if self.columns is None else self.columns.models
        for name in self.models:
            if name not in offered:
                raise unknown("measure", name, offered, f"{task.name} measures what its domain offers.")
        self._computes = [] if self.columns is None else [self.columns.compute]
        self._computes += [offered[name](model) for name, model in self.models.items()]

    def __bool__(self) -> bool:
        return bool(self._computes)

    @property
    def about(self) -> dict[str, str]:
        """What the figures are made with."""
        return {} if self.columns is None else {**self.columns.about(), **self.models}

    def rows(self, batch: Batch, form: Tensor) -> list[dict[str, float]]:
        """The columns of every row of `form`; empty dicts where the task has none."""
        found: dict[str, list[float]] = {}
        for compute in self._computes:
            for name, values in compute(batch, form).items():
                found[name] = [float(v) for v in values]
                if len(found[name]) != len(form) or not all(map(math.isfinite, found[name])):
                    raise AdvgymError(f"column {name!r} is one finite number for each of {len(form)} rows")
        return [{name: values[i] for name, values in found.items()} for i in range(len(form))]


def summarise(rows: Sequence[Sample], bars: Mapping[str, float]) -> dict[str, Column]:
    """The block of a result; empty where the rows have no columns."""
    from advgym.results import mean, wilson

    out: dict[str, Column] = {}
    for name in rows[0].columns if rows else ():
        values = [row.columns[name] for row in rows]
        won = [v for v, row in zip(values, rows, strict=True) if row.success]
        column = Column(mean=mean(values), mean_success=mean(won) if won else None)
        if name in bars:
            many = sum(v >= bars[name] for v in won)
            column.bar, column.success_rate = bars[name], many / len(rows)
            column.success_ci = wilson(many, len(rows))
        out[name] = column
    return out


def barred(result: Result) -> list[tuple[str, Column]]:
    """The columns of a result that have a bar: valid successes in their sense."""
    return [(name, column) for name, column in result.columns.items() if column.bar is not None]


def check(result: Result, task: Task, device: Any, tolerance: float) -> list[str]:
    """Disagreements of a result's columns with those computed again, in words."""
    from advgym.clean import CHUNK

    if not result.columns and not any(s.columns for s in result.samples):
        return []
    models = {k: v for k, v in result.columns_about.items() if task.columns is not None and k in task.columns.models}
    meter = Meter(task, models)
    if meter.about != result.columns_about:
        return [f"columns were made with {result.columns_about}, here they are made with {meter.about}"]
    wrong: list[str] = []
    for start in range(0, len(result.samples), CHUNK):
        part = result.samples[start : start + CHUNK]
        batch = task.samples(result.split, [s.id for s in part], device)
        form = batch.look(batch.load([s.perturbation for s in part])).form
        for sample, found in zip(part, meter.rows(batch, form), strict=True):
            wrong += _differences(sample, found, tolerance)
    bars = {} if task.columns is None else task.columns.bars
    if not wrong and not _same(summarise(result.samples, bars), result.columns):
        wrong.append("the summary of the columns does not follow from the samples")
    return wrong


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
