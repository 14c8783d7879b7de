"""The victim's answers to clean samples: asked once, kept, never metered against a lane."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from advgym.core import keyed
from advgym.core.batch import Batch, capped
from advgym.core.goals import SUCCESS, Goal
from advgym.core.task import Task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, VictimError

CHUNK = 64  # the verifier's fixed batching, and the clean pass's


def answer(victim: Victim, batch: Batch, goal: Goal, seed: int = 0) -> Tensor:
    """Scores of the clean samples of a batch; NaN or a wrong shape is the victim's error.

    Args:
        seed: of a randomised victim's draws.
    """
    x = batch.inputs(batch.look(batch.null()).form)
    before = victim.unanswered
    scores = keyed.answer(victim, goal, x, batch.members, batch.ids, seed=seed, purpose=keyed.CLEAN)
    if tuple(scores.shape[1:]) != tuple(goal.scores_shape):
        raise VictimError(
            f"victim {victim.name!r} gives scores of shape {tuple(scores.shape[1:])} per input; "
            f"this task wants {tuple(goal.scores_shape)}"
        )
    bad = unanswered(scores)
    if bool(bad.any()) and victim.unanswered == before:  # not one that raised there, which costs that sample alone
        raise VictimError(f"victim {victim.name!r} answers NaN to {int(bad.sum())} of {len(bad)} clean samples")
    return scores


def unanswered(scores: Tensor) -> Tensor:
    """Bool (n,): inputs that the victim had no answer to."""
    return torch.isnan(scores).reshape(len(scores), -1).any(1)


def right(goal: Goal, scores: Tensor, labels: Tensor) -> Tensor:
    """Whether the victim has each clean sample right, bool (n,); no answer is not right."""
    return goal.right(torch.nan_to_num(scores), labels) & ~unanswered(scores)


def reached(goal: Goal, batch: Batch, scores: Tensor, target: Tensor | None) -> Tensor:
    """Bool (n,): clean samples whose answer, and so the label of what is right, is what the attacker wants already."""
    ref = goal.output(torch.nan_to_num(scores))
    objective = capped(batch, goal.judge(scores, ref, target)[0], batch.look(batch.null()).form)
    there = objective > SUCCESS
    if target is None or target.shape != ref.shape:
        return there
    return there | (target.to(ref.device) == ref).reshape(len(ref), -1).all(1)  # by name, where two scores are a tie


class Clean:
    """Clean answers of one victim to one split, filled as samples are asked about: each is asked once.

    Args:
        victim: on the device.
        truth: the true victim's answers, where `victim` is another one; None where it is the same.
    """

    def __init__(
        self, task: Task, split: str, device: torch.device, victim: Victim, truth: Clean | None = None
    ) -> None:
        self.task, self.split, self.device, self.victim, self.truth = task, split, device, victim, truth
        size = task.sizes[task.check_split(split)]
        self.known = torch.zeros(size, dtype=torch.bool)
        self.right = torch.zeros(size, dtype=torch.bool)
        self.scores: Tensor | None = None

    @torch.no_grad()
    def learn(self, ids: list[int]) -> None:
        """Ask about the samples that are not known yet."""
        self.task.check_ids(self.split, ids)
        new = [i for i in dict.fromkeys(ids) if not self.known[i]]
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            batch = self.task.samples(self.split, part, self.device)
            scores = answer(self.victim, batch, self.task.goal)
            if self.scores is None:
                self.scores = scores.new_zeros((len(self.known), *scores.shape[1:]))
            self.scores[part] = scores
            if self.truth is None:
                self.right[part] = right(self.task.goal, scores, batch.labels).cpu()
            else:
                self.right[part] = self.truth.of(part)[2].cpu()
            self.known[part] = True

    def of(self, ids: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(scores (n, ...), the true victim's scores, whether that one has it right (n,)) of these samples."""
        self.learn(ids)
        if self.scores is None:
            raise AdvgymError("no samples were asked for")
        scores = self.scores[ids]
        return scores, scores if self.truth is None else self.truth.of(ids)[0], self.right[ids].to(self.device)


def assigned(size: int, episodes: int) -> list[int]:
    """The samples of an evaluation: the same for every agent and seed, so that rates can be compared."""
    return [int(i) for i in np.random.default_rng(0).permutation(size)[:episodes]]


class Deck:
    """Deals ids that the victim has right, in an order fixed by the seed, for ever."""

    def __init__(self, clean: Clean, seed: int) -> None:
        self.clean, self.seed, self.round = clean, seed, 0
        self.pile: list[int] = []
        self.found = True

    def _shuffle(self) -> None:
        if not self.found:
            raise AdvgymError(
                f"victim {self.clean.victim.name!r} has no sample of split {self.clean.split!r} of "
                f"{self.clean.task.name} right, so there is nothing to attack"
            )
        order = np.random.default_rng([self.seed & 0xFFFFFFFFFFFFFFFF, self.round]).permutation(len(self.clean.known))
        self.pile, self.round, self.found = order[::-1].tolist(), self.round + 1, False

    def deal(self, count: int) -> list[int]:
        """The next `count` ids."""
        out: list[int] = []
        while len(out) < count:
            if not self.pile:
                self._shuffle()
            # A few more than needed are asked about at once: most are right, and the answers are kept.
            ahead = self.pile[-max(count - len(out), 16) :]
            self.clean.learn(ahead)
            i = self.pile.pop()
            if self.clean.right[i]:
                out.append(i)
                self.found = True
        return out
