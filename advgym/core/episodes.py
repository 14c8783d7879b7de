"""The running episodes: the dealt samples, the victim's clean answers to them, and the evaluator's book."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch, capped
from advgym.core.clean import Clean, reached
from advgym.core.goals import Goal
from advgym.core.meters import Book
from advgym.core.task import Task
from advgym.errors import AdvgymError


@dataclass
class Episodes:
    """One per environment; its views share it.

    Attributes:
        batch, book: the clean samples and the meters.
        scores, ref: the victim's clean answer, raw and as the goal's output; objective, surrogate: what it is worth.
        target: of targeted goals, else None.
        seed: of the dealing, which a randomised victim's draws are keyed by.
    """

    batch: Batch
    book: Book
    scores: Tensor
    ref: Tensor
    target: Tensor | None
    objective: Tensor
    surrogate: Tensor
    seed: int = 0

    def put(self, lanes: Tensor, other: Episodes) -> None:
        """New episodes in some lanes. What was handed out before is replaced, never written."""
        self.batch = self.batch.put(lanes, other.batch)
        self.book.put(lanes, other.book)
        self.book.reach = self.batch.reach
        for name in ("scores", "ref", "target", "objective", "surrogate"):
            new = getattr(other, name)
            if new is not None:
                value = getattr(self, name).clone()
                value[lanes] = new
                setattr(self, name, value)


def deal(task: Task, clean: Clean, split: str, ids: list[int], targets: Any, seed: int, device: Any) -> Episodes:
    """Episodes on these samples; those that the victim has wrong arrive finished."""
    scores, truth, right = clean.of(ids)
    batch = task.samples(split, ids, device)
    ref = task.goal.output(scores)
    said = task.goal.output(truth)  # the verdict is the true victim's, and so is what it must not say already
    target = _targets(task.goal, targets, batch, said, truth, seed)
    with torch.no_grad():
        form = batch.look(batch.null()).form
        objective, surrogate = task.goal.judge(scores, ref, target)
        objective = capped(batch, objective, form)
        already = reached(task.goal, batch, truth, target)
    # Where the clean answer already is what the attacker wants there is nothing to attack.
    told = objective if task.threat.knowledge != "decision" else task.goal.progress(ref, ref)
    book = Book(batch, task.threat, told, right & ~already)
    return Episodes(batch, book, scores, ref, target, objective, surrogate, seed)


def _targets(goal: Goal, given: Any, batch: Batch, ref: Tensor, scores: Tensor, seed: int) -> Tensor | None:
    if not goal.needs_target:
        if given is not None:
            raise AdvgymError(f"goal {goal.name!r} takes no targets")
        return None
    if given is None:
        return goal.aimed(seed, batch.ids, ref, scores)
    if len(given) != len(batch):
        raise AdvgymError(f"{len(batch)} lanes need {len(batch)} targets, not {len(given)}")
    return torch.stack([goal.parse_target(t) for t in given]).to(ref.device)
