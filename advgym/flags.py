"""Flags: what a reader of a result must know before believing a rate. They go into the result, not into a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from advgym.batch import Batch
from advgym.clean import answer
from advgym.field import FieldBatch
from advgym.results import Sample
from advgym.task import Task

WIDER = 4.0  # times the radius, where an attack that sees gradients should win more
FEW, MOST = 4, 16  # failures that are tried again


def victim_flags(task: Task, victim: Any, batch: Any, scores: torch.Tensor) -> list[str]:
    """What a reader should know of a victim before believing a rate (AutoAttack's checks, Croce & Hein 2020)."""
    flags = []
    if victim.keyed:
        flags.append("randomised victim: the verdict is a majority of fresh draws")
    elif float((answer(victim, batch, task.goal) - scores).abs().max()) > 1e-4:
        flags.append("non-deterministic victim: the same input twice gives different scores")
    flat = scores.reshape(len(scores), -1)
    shares = bool(((flat >= 0) & (flat <= 1)).all()) and bool(((flat.sum(1) - 1).abs() < 1e-3).all())
    if scores.dim() == 2 and victim.access != "labels" and shares:
        flags.append("scores are probabilities: gradients may vanish, use logits")
    return flags


def denied_flags(rows: Sequence[Sample]) -> list[str]:
    """Successes that ended a lane and that the verdict does not find again: the victim draws, or is not itself."""
    many = sum(s.reason == "success" and not s.success for s in rows)
    return [f"{many} successes that were told are denied by the verdict, and count as failures"] if many else []


def growth_flags(task: Task, rows: list[Sample], play: Callable[[Task, list[int]], list[Sample]]) -> list[str]:
    """A white-box attack whose failures fail in a much larger ball, too: masked gradients? (Carlini et al. 2019).

    Args:
        rows: the judged samples; up to sixteen failures are attacked again by `play(task, ids)`.
    """
    failed = [s.id for s in rows if not s.success][:MOST]
    if task.threat.knowledge != "white-box" or len(failed) < FEW:
        return []

    def deal(split: str, ids: list[int], device: Any) -> Batch:
        batch = task.deal(split, ids, device)
        return batch.widened(WIDER) if isinstance(batch, FieldBatch) else batch

    if not isinstance(task.samples(next(iter(task.sizes)), [0]), FieldBatch):
        return []
    if any(s.success for s in play(replace(task, deal=deal), failed)):
        return []
    return [f"success does not grow with the radius: {len(failed)} failures fail at {WIDER:g} times it, too"]
