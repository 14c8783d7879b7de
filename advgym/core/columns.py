"""Columns: what a task measures of every final perturbation besides success. No agent sees one, no objective has one.

A column may have a bar: a success counts as valid in its sense only where the column reaches it, and the result then
states that rate beside the success rate. The verifier computes every column again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from advgym.errors import AdvgymError, unknown

if TYPE_CHECKING:
    from advgym.core.batch import Batch
    from advgym.core.task import Task

Compute = Callable[["Batch", "Tensor"], Mapping[str, Sequence[float]]]


class Said(NamedTuple):
    """What the victim said of some rows, beside the truth and the target: a judged row has it, an attack never.

    Attributes:
        label: int64 (n, ...), the truth; before, after: (n, *output_shape), the clean and the final answer.
        target: (n, ...) of goals that have one, else None.
    """

    label: Tensor
    before: Tensor
    after: Tensor
    target: Tensor | None


Answers = Callable[["Batch", Said], Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Columns:
    """What a domain measures.

    Attributes:
        compute: (batch, canonical form) -> one finite number per row for every column; deterministic.
        about: what the figures are made with and how far they can be trusted, beyond the task and its samples; said
            where a column with a bar is shown, compared when a result is verified.
        bars: the least value of a column with which a success is a valid one.
        models: further columns that need a model: name -> (the model's name or folder -> compute).
        answers: (batch, what was said) -> further columns, of what the victim answered: as `compute`.
        ratios: name -> (a column, another): a figure of the summary alone, the sum of the one over that of the other
            (a word error rate is all edits over all words, not the mean of the rows' rates).
    """

    compute: Compute
    about: Callable[[], dict[str, str]] = field(default=dict)
    bars: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, Callable[[str], Compute]] = field(default_factory=dict)
    answers: Answers | None = None
    ratios: Mapping[str, tuple[str, str]] = field(default_factory=dict)


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

    def rows(self, batch: Batch, form: Tensor, said: Said | None = None) -> list[dict[str, float]]:
        """The columns of every row of `form`; empty dicts where the task has none.

        Args:
            said: what the victim answered; without it the columns of answers are left out.
        """
        found: dict[str, list[float]] = {}
        parts = [compute(batch, form) for compute in self._computes]
        if said is not None and self.columns is not None and self.columns.answers is not None:
            parts.append(self.columns.answers(batch, said))
        for part in parts:
            for name, values in part.items():
                found[name] = [float(v) for v in values]
                if len(found[name]) != len(form) or not all(map(math.isfinite, found[name])):
                    raise AdvgymError(f"column {name!r} is one finite number for each of {len(form)} rows")
        return [{name: values[i] for name, values in found.items()} for i in range(len(form))]
