"""Checks of what a victim answers to clean samples: the order of its classes, its skill, how fine its scores are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core.clean import Clean, assigned
from advgym.core.field import FieldBatch
from advgym.core.task import Task
from advgym.judge.checks import flag
from advgym.judge.results import Result

CLASSES = 100  # up to which an order is looked for
FEW = 30  # samples
STEPS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001)  # that scores may be rounded to
PAIRS = 400  # samples whose distances are measured


@torch.no_grad()
def checks(task: Task, split: str, ids: list[int], right: list[int], result: Result, device: Any) -> list[str]:
    """The flags of one victim."""
    over = assigned(task.sizes[split], result.clean_of or len(ids))
    clean = Clean(task, split, torch.device(device), task.victim.on(device))
    scores = clean.of(over)[0]
    labels = torch.cat([task.samples(split, part).labels for part in _chunks(over)])
    found = [flag("few", attacked=result.attacked, width=_width(result))] if 0 < result.attacked < FEW else []
    if labels.dim() == 1 and scores.dim() == 2:
        said = task.goal.output(torch.nan_to_num(scores)).cpu()
        found += _order(said.numpy(), labels.numpy(), scores.shape[1], result.clean_accuracy)
        found += _skill(said, labels)
        found += _others(task, split, over[:PAIRS], device)
    if task.victim.access != "labels":
        found += _rounded(scores)
    return found + _claimed(result)


def _chunks(ids: list[int], size: int = 512) -> list[list[int]]:
    return [ids[i : i + size] for i in range(0, len(ids), size)]


def _width(result: Result) -> str:
    low, high = result.success_ci
    return f"{high - low:.2f}"


def _order(said: np.ndarray, labels: np.ndarray, classes: int, accuracy: float) -> list[str]:
    """Another order of the classes under which the victim would be far better: the best assignment of answers."""
    if not 2 <= classes <= CLASSES or len(labels) < 8 or (labels >= classes).any():
        return []
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (said, labels), 1)
    rows, columns = linear_sum_assignment(-table)
    most = float(table[rows, columns].sum()) / len(labels)
    common = np.bincount(labels).max() / len(labels)
    if not (most >= accuracy + 0.2 and most > common + 0.1):
        return []
    moved = [f"{a} for {b}" for a, b in zip(rows.tolist(), columns.tolist(), strict=True) if a != b and table[a, b]]
    return [flag("shuffled-labels", accuracy=f"{accuracy:.3f}", most=f"{most:.3f}", order=", ".join(moved[:8]))]


def _skill(said: Tensor, labels: Tensor) -> list[str]:
    top = float(torch.bincount(said).max()) / len(said)
    true = float(torch.bincount(labels).max()) / len(labels)
    return [flag("no-skill", share=f"{top:.0%}")] if len(said) >= 8 and top > 0.99 and true < 0.9 else []


def _rounded(scores: Tensor) -> list[str]:
    """Scores that are whole multiples of a step, all of them."""
    flat = scores.double().flatten()
    if len(flat) < 32:
        return []
    for step in STEPS:
        if bool(((flat / step - (flat / step).round()).abs() < 1e-4).all()):
            return [flag("rounded", step=f"{step:g}")]
    return []


def _claimed(result: Result) -> list[str]:
    claimed, where = result.victim.get("clean_accuracy"), result.victim.get("split", result.split)
    if not isinstance(claimed, int | float) or where != result.split or result.clean_ci is None:
        return []
    if result.options.get("dataset") is not None:  # the card is about other data
        return []
    if claimed <= result.clean_ci[1] + 0.02:
        return []
    return [flag("claimed-accuracy", accuracy=f"{result.clean_accuracy:.3f}", claimed=f"{claimed:.3f}")]


def _others(task: Task, split: str, ids: list[int], device: Any) -> list[str]:
    """Samples in whose ball another sample of another class lies."""
    batch = task.samples(split, ids, device)
    if type(batch).__name__ == "Batch" or not isinstance(batch, FieldBatch) or len(ids) < 8 or batch.members > 1:
        return []
    flat = batch.x.flatten(1)
    power = {"linf": float("inf"), "l2": 2.0, "l1": 1.0, "l0": 0.0}.get(batch.norm)
    if power is None:
        return []
    apart = torch.cdist(flat, flat, p=power)
    other = batch.labels.unsqueeze(0) != batch.labels.unsqueeze(1)
    near = (apart <= batch.reach.unsqueeze(1)) & other
    share = float(near.any(1).float().mean())
    return [flag("covers-others", share=f"{share:.0%}")] if share > 0.05 else []
