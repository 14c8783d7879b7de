"""Learning with adversarial neighbours (neural structured learning; Bui, Ravi and Ramavajjala 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.agents.defenses.lessons import Lesson
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import NATURAL


@trained(allowed={"alpha": NATURAL})
def loss(lesson: Lesson, *, alpha: float = 1.0) -> Tensor:
    """L(θ, x) + α Σ over layers of |h(x) - h(x + δ)|² / |h(x)|², the mean over layers; the scale of h is held fixed."""
    δ = lesson.attacked()
    scores, h = lesson.hidden()
    _, moved = lesson.hidden(δ)
    apart = []
    for a, b in zip(h, moved, strict=False):
        if a.shape == b.shape:
            size = a.detach().flatten(1).square().sum(1).mean().clamp_min(1e-12)
            apart.append((a - b).flatten(1).square().sum(1).view(len(lesson.ids), -1).mean(1) / size)
    return lesson.loss(scores) + alpha * torch.stack(apart).mean(0) if apart else lesson.loss(scores)
