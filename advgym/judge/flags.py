"""Flags: what a reader of a result must know before believing a rate. They go into the result, not into a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from advgym.core.asking import moody
from advgym.core.batch import Batch, take
from advgym.core.cached import asked_anew
from advgym.core.clean import answer
from advgym.core.field import FieldBatch
from advgym.core.goals import BundleGoal, Goal
from advgym.core.task import Task
from advgym.core.victim import ask
from advgym.judge.checks import flag
from advgym.judge.results import SILENT, Sample

WIDER = 4.0  # times the radius, where an attack that sees gradients should win more
ALONE = 4  # rows that are asked about alone
FEW, MOST = 4, 16  # failures that are tried again


def victim_flags(task: Task, victim: Any, batch: Any, scores: torch.Tensor) -> list[str]:
    """What a reader should know of a victim before believing a rate (AutoAttack's checks, Croce & Hein 2020)."""
    with asked_anew(), victim.tally.during("flags"):
        return _victim_flags(task, victim, batch, scores)


def _victim_flags(task: Task, victim: Any, batch: Any, scores: torch.Tensor) -> list[str]:
    flags = alone_flags(task, victim, batch, scores)
    if victim.copies.writes:
        flags.append(flag("writes", name=repr(victim.name)))
    if moody(victim.model):
        flags.append(flag("training-mode", name=repr(victim.name)))
    if victim.keyed:
        flags.append(flag("randomised"))
    elif float((answer(victim, batch, task.goal) - scores).abs().max()) > 1e-4:
        flags.append(flag("non-deterministic"))
    flat = scores.reshape(len(scores), -1)
    shares = bool(((flat >= 0) & (flat <= 1)).all()) and bool(((flat.sum(1) - 1).abs() < 1e-3).all())
    if scores.dim() == 2 and victim.access != "labels" and shares:
        flags.append(flag("probabilities"))
    return flags


def alone_flags(task: Task, victim: Any, batch: Batch, scores: torch.Tensor) -> list[str]:
    """Rows that are answered otherwise alone than together: a batch's other rows are no part of the input."""
    if victim.retrains or victim.keyed or len(scores) < 2 or batch.members > 1:
        return []
    x = batch.inputs(batch.look(batch.null()).form)
    where = torch.linspace(0, len(scores) - 1, min(ALONE, len(scores))).long().to(batch.ids.device)
    alone = torch.cat([ask(victim, take(x, i.view(1))) for i in where])
    apart = (alone - scores[where]).abs() > 1e-4 * scores[where].abs().clamp_min(1.0)
    if not bool(apart.any()):
        return []
    return [flag("rows-alone")]


def chance_flags(goal: Goal, labels: torch.Tensor, right: np.ndarray) -> list[str]:
    """Clean accuracy that tells of no skill: nothing right, or no more than the commonest label would have."""
    if not right.any():
        return [flag("nothing-attacked")]
    if labels.dim() != 1 or goal.outputs < 2 or len(labels) < 8:
        return []
    most = float(torch.bincount(labels).max()) / len(labels)
    chance = max(most, 1 / goal.outputs)
    if float(right.mean()) > chance or most == 1:
        return []
    return [flag("chance", accuracy=f"{right.mean():.3f}", chance=f"{chance:.3f}")]


def silent_flags(rows: Sequence[Sample], episodes: int) -> list[str]:
    """Final perturbations without an answer, with both ways to count them."""
    many = sum(s.reason == SILENT for s in rows)
    if not many:
        return []
    held = sum(not s.success for s in rows)
    of = max(episodes, 1)
    return [flag("unanswered", many=many, less=f"{(held - many) / of:.3f}", held=f"{held / of:.3f}")]


def denied_flags(rows: Sequence[Sample]) -> list[str]:
    """Successes that ended a lane and that the verdict does not find again: the victim draws, or is not itself."""
    many = sum(s.reason == "success" and not s.success for s in rows)
    return [flag("denied", many=many)] if many else []


def growth_flags(task: Task, rows: list[Sample], play: Callable[[Task, list[int]], list[Sample]]) -> list[str]:
    """A white-box attack whose failures fail in a much larger ball, too: masked gradients? (Carlini et al. 2019).

    Args:
        rows: the judged samples; up to sixteen failures are attacked again by `play(task, ids)`.
    """
    failed = [s.id for s in rows if not s.success][:MOST]
    if task.threat.knowledge != "white-box" or len(failed) < FEW or isinstance(task.goal, BundleGoal):
        return []

    def wide(deal: Callable[..., Batch], split: str, ids: list[int], device: Any) -> Batch:
        batch = deal(split, ids, device)
        return batch.widened(WIDER) if isinstance(batch, FieldBatch) else batch

    if not isinstance(task.samples(next(iter(task.sizes)), [0]), FieldBatch):
        return []
    unseen = None if task.unseen is None else partial(wide, task.unseen)
    if any(s.success for s in play(replace(task, deal=partial(wide, task.deal), unseen=unseen), failed)):
        return []
    return [flag("no-growth", many=len(failed), wider=f"{WIDER:g}")]
