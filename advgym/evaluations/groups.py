"""Robust accuracy by what samples are: their class, and what the task tells of them (length, degree, speaker)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from advgym.core.task import Task
from advgym.evaluations.report import Group
from advgym.lib.rates import wilson

MOST = 12  # groups of one kind; more are left to samples.csv
CLASS = "class"
PARTS = 3  # that numbers are cut into


def groups(task: Task, split: str, ids: list[int], right: set[int], held: set[int]) -> list[Group]:
    """Groups of the assigned samples.

    Args:
        right: those that the victim has right; held: those of them that nothing broke.
    """
    found: list[Group] = []
    for by, values in kinds(task, split, ids).items():
        named, order = _parts(values, numbers=by != CLASS and all(isinstance(v, int | float) for v in values))
        if by == CLASS:
            named, order = ([task.goal.describe(torch.tensor(int(v))) for v in some] for some in (named, order))
        if not 2 <= len(order) <= MOST:
            continue
        for value in order:
            of = [i for i, v in zip(ids, named, strict=True) if v == value]
            many = sum(i in held for i in of)
            found.append(
                Group(by=by, value=value, samples=len(of), right=sum(i in right for i in of), held=many,
                      held_ci=wilson(many, len(of)))
            )  # fmt: skip
    return found


def kinds(task: Task, split: str, ids: list[int]) -> Mapping[str, Sequence[Any]]:
    """What is known of samples: name -> one value each."""
    batch = task.samples(split, ids)
    out: dict[str, Sequence[Any]] = {}
    if batch.labels.dim() == 1:
        out[CLASS] = batch.labels.tolist()
    return {**out, **(task.tells(split, ids) if task.tells is not None else {})}


def _parts(values: Sequence[Any], *, numbers: bool) -> tuple[list[str], list[str]]:
    """(the group of each value, the groups in order): of numbers the third that they lie in, written "low to high".

    >>> _parts([1, 2, 3, 4, 5, 6], numbers=True)[1]
    ['1 to 2', '3 to 4', '5 to 6']
    """
    if not numbers:
        return list(map(str, values)), list(map(str, sorted(set(values))))
    array = np.asarray(values, dtype=np.float64)
    edges = np.unique(np.quantile(array, np.linspace(0, 1, PARTS + 1)))
    part = np.clip(np.searchsorted(edges, array, side="right") - 1, 0, max(len(edges) - 2, 0))
    spans = {i: array[part == i] for i in sorted(set(part.tolist()))}
    names = {i: f"{v.min():.4g}" + (f" to {v.max():.4g}" if v.max() > v.min() else "") for i, v in spans.items()}
    return [names[i] for i in part.tolist()], list(names.values())
