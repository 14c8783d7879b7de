"""Misclassification-aware adversarial training (MART, Wang et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.agents.defenses.lessons import Lesson, divergence
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import NATURAL


@trained(allowed={"beta": NATURAL})
def loss(lesson: Lesson, *, beta: float = 5.0) -> Tensor:
    """BCE(p(x + δ), y) + β KL(p(x) || p(x + δ)) (1 - p(x)_y), BCE = -log p_y - log(1 - max over k != y of p_k)."""
    δ = lesson.attacked()
    clean, y = lesson.classes(lesson.scores(), "mart")
    moved, _ = lesson.classes(lesson.scores(δ), "mart")
    at = y.unsqueeze(1)
    log_p = moved.log_softmax(1)
    other = log_p.exp().scatter(1, at, 0.0).amax(1)
    bce = -log_p.gather(1, at).squeeze(1) - torch.log1p(-other.clamp_max(1 - 1e-6))
    unsure = 1 - clean.softmax(1).gather(1, at).squeeze(1)
    return bce + beta * divergence(clean, moved) * unsure
