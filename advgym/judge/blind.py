"""Whether a victim reads what its task perturbs: one whose scores never move looks robust and tells nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.edits import EditsBatch
from advgym.core.field import FieldBatch
from advgym.core.keyed import CLEAN
from advgym.core.norms import largest
from advgym.core.rng import mix, veiled
from advgym.core.task import Task
from advgym.core.victim import ask

FEW = 6  # samples that are looked at
INPUTS = 64  # about as many inputs are asked about, bundles apart
SMALL = 32  # sets of up to so many edits are filled one by one
RATE = 0.9  # of the random variation beyond the budget
RELATIVE, ABSOLUTE = 2e-6, 1e-7  # a score that moved less did not: stacked forwards round


@torch.no_grad()
def blind_flag(task: Task, split: str, ids: list[int], device: Any) -> str | None:
    """A sentence where no score of the victim moved under random perturbations of a few samples, else None.

    Valid ones first, the whole budget next, then far beyond it where the task can. A victim that sees stops this at its
    first answer. Keyed victims are compared under the same keys; poisoning, where a query is a training run, is left
    out. An honest model that does not read the perturbed part (an MLP on a graph whose edges are flipped) gets the same
    sentence: its rates say nothing of the attack.

    Args:
        ids: samples of the split, of which the first few are taken.
    """
    victim = task.victim.on(device)
    if victim.retrains or not ids:
        return None
    batch = task.samples(split, ids[:1], device)
    many = max(1, min(FEW, len(ids), INPUTS // 4 // max(1, batch.members)))
    batch = task.samples(split, ids[:many], device)
    keys = veiled(0, CLEAN, batch.ids)
    try:
        clean_input = batch.inputs(batch.look(batch.null()).form)
        clean = ask(victim, clean_input, batch.members, keys)
        asked = wide = 0
        for rows, x, beyond in _variations(task, batch, clean_input):
            if victim.access == "labels" and not beyond:
                continue  # a label that stays under little says nothing of what was read
            scores = ask(victim, x, batch.members, keys if rows is None else keys[rows])
            before = clean if rows is None else clean[rows]
            if scores.shape != before.shape or _moved(before, scores):
                return None
            asked, wide = asked + len(scores), wide + beyond
    except Exception:  # a victim that cannot answer such an input reads it
        return None
    if not asked:
        return None
    how = "some far beyond the budget" if wide else "all within the budget"
    return (
        f"no score moved under {asked} random perturbations of {many} samples, {how}: the victim does not read what "
        "this task perturbs, so no rate here tells how robust it is"
    )


def _moved(before: Tensor, after: Tensor) -> bool:
    """Whether any score differs by more than rounding; NaN differs."""
    before, after = before.double(), after.double()
    same = (before - after).abs() <= ABSOLUTE + RELATIVE * torch.maximum(before.abs(), after.abs())
    return not bool((same | (before == after)).all())


def _variations(task: Task, batch: Batch, clean: Any) -> Iterator[tuple[Tensor | None, Any, bool]]:
    """(rows or None for all, inputs, whether beyond the budget)."""
    for p in _within(batch):
        yield from _inputs(batch, p)
    if isinstance(batch, FieldBatch):
        span = batch.high - batch.low
        factor = float(span / batch.radius.clamp_min(1e-12).min())
        wide = batch.widened(max(factor * largest(batch.norm, batch.size, 1.0), 4.0))
        for p in (wide.random(5), wide.random(6), torch.full_like(batch.x, span), torch.full_like(batch.x, -span)):
            yield from ((rows, x, True) for rows, x, _ in _inputs(wide, p))
    if task.randomise is not None:
        for seed in (7, 8, 9):
            keys = mix(batch.ids * 16 + seed)
            yield None, task.randomise(clean, RATE, keys.repeat_interleave(batch.members)), True


def _within(batch: Batch) -> Iterator[Tensor]:
    """Two random valid perturbations of every sample, and two that spend the budget."""
    yield batch.random(1)
    yield batch.random(2)
    for seed in (3, 4):
        p = batch.random(seed)
        if isinstance(batch, FieldBatch):
            p = batch.project(p.sign() * (batch.high - batch.low))
        elif isinstance(batch, EditsBatch) and batch.rows_max <= SMALL:
            for more in range(4):
                for edit in batch.random(16 * seed + more).unbind(1):
                    wider = batch.compose(p, edit)
                    p = torch.where(batch.check(wider).view(-1, 1, 1), wider, p)
        yield p


def _inputs(batch: Batch, p: Tensor) -> Iterator[tuple[Tensor | None, Any, bool]]:
    """The inputs of those perturbations that are real and change the sample."""
    look = batch.look(p)
    rows = (look.real & ~look.null).nonzero()[:, 0]
    if len(rows):
        yield rows, batch.inputs(look.form[rows], rows), False
