"""Samples on their way back: what a perturbation made of each, as its owner's data are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from advgym import registry
from advgym.core.batch import Batch
from advgym.core.own.known import table
from advgym.core.task import Task
from advgym.errors import AdvgymError

Item = dict[str, Any]


def items(task: Task, batch: Batch, row: int, form: Tensor) -> list[Item]:
    """One canonical perturbation (*shape) put on its sample: a mapping of plain values for each member.

    Values are strings, numpy arrays and numbers, on the CPU; what keys there are is the domain's.

    Raises:
        AdvgymError: for a domain that does not say how its samples are handed back.
    """
    reader = table().back.get(task.name.split("/")[0])
    if reader is None:
        raise AdvgymError(f"{task.name} does not say how its samples are handed back: known: {', '.join(table().back)}")
    found: list[Item] = registry.load(reader)(batch, row, form)
    return found


def clean_items(task: Task, batch: Batch, row: int) -> list[Item]:
    """The same of the sample as it was."""
    return items(task, batch, row, batch.look(batch.null()).form[row])
