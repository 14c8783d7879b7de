"""Input gradient regularisation (Ross and Doshi-Velez 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import AdvgymError
from advgym.agents.defenses.lessons import Lesson
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import NATURAL


@trained(allowed={"weight": NATURAL})
def loss(lesson: Lesson, *, weight: float = 10.0) -> Tensor:
    """L(θ, x) + λ |∇δ L(θ, x + δ)|² at δ = 0, with λ = `weight`: a double backward pass."""
    lesson.needs_field("input-gradients")
    δ = lesson.null.requires_grad_()
    found = lesson.loss(lesson.scores(δ))
    try:
        (g,) = torch.autograd.grad(found.sum(), δ, create_graph=True)
        steep = g.flatten(1).square().sum(1)
        if lesson.step == 0 and lesson.victim.module is not None:  # whether there is something to learn from
            wanted = [p for p in lesson.victim.module.parameters() if p.requires_grad]
            torch.autograd.grad(steep.sum(), wanted, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise AdvgymError(f"{lesson.task.name} offers no second derivative of its loss: {error}") from None
    return found + weight * steep
