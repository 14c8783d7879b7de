"""Retraining on stored adversarial examples (Szegedy et al. 2014)."""

from __future__ import annotations

from torch import Tensor

from advgym.agents.defenses.lessons import Lesson
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import SHARE


@trained(allowed={"clean": SHARE})
def loss(lesson: Lesson, *, clean: float = 0.5) -> Tensor:
    """L(θ, x) and L(θ, x + δ), weighted; δ is found once for each sample, against the victim before training."""
    δ = lesson.kept("stored", lambda: lesson.attacked(lesson.given))
    return clean * lesson.loss(lesson.scores()) + (1 - clean) * lesson.loss(lesson.scores(δ))
