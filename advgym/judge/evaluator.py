"""What an evaluator may read of an environment, and nobody else: the one way for referee, run and checker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.clean import Clean
from advgym.core.env import AttackEnv
from advgym.core.episodes import Episodes
from advgym.core.meters import Book
from advgym.core.oracle import Oracle
from advgym.core.task import Task
from advgym.errors import AdvgymError


@dataclass(frozen=True)
class Evaluator:
    """The evaluator's side of an environment's lanes. `evaluator(env)` makes one; it holds no state of its own."""

    env: AttackEnv

    @property
    def task(self) -> Task:
        """The task as it is played."""
        return self.env._task

    @property
    def episodes(self) -> Episodes:
        """The dealt samples with the victim's clean answers, targets and meters."""
        return self.env._now

    @property
    def batch(self) -> Batch:
        """The clean samples, labels and all."""
        return self.env._now.batch

    @property
    def book(self) -> Book:
        """Meters, what is held, and how each lane ended."""
        return self.env._now.book

    @property
    def clean(self) -> Clean:
        """The true victim's answers to the clean samples of the split, each asked once."""
        return self.env._truth

    @property
    def oracle(self) -> Oracle:
        """The metered model behind the environment."""
        return self.env._oracle

    @property
    def targets(self) -> list[Any] | None:
        """Of targeted goals, as files hold them."""
        target = self.env._now.target
        return None if target is None else [t.tolist() for t in target]

    def deal(self, ids: list[int], targets: list[Any], seed: int) -> None:
        """New episodes on these samples in every lane, with targets of the evaluator's choice."""
        self.env._deal(torch.arange(len(ids), device=self.env.device), ids, targets, seed)

    def hand_in(self, returned: Any) -> None:
        """Take what an attack returned: its last word under transfer, without effect elsewhere.

        Raises:
            Malformed: for anything but None or one perturbation per lane.
        """
        self.env._hand_in(returned)

    def stored(self) -> list[Any]:
        """What is held, lane by lane, as a result file holds it."""
        form = self.form()
        return [self.batch.dump(form[i], i) for i in range(len(self.batch))]

    def form(self) -> Tensor:
        """What is held, in canonical form."""
        return self.batch.look(self.book.held).form


def evaluator(env: Any) -> Evaluator:
    """The evaluator's side of an environment made in this process.

    Raises:
        AdvgymError: for one behind the process boundary, or anything else that has none.
    """
    if not isinstance(env, AttackEnv):
        raise AdvgymError(f"{type(env).__name__} has no evaluator's side: that is where `advgym.make` made it")
    return Evaluator(env)
