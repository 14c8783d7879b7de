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
        if not g.requires_grad:  # no second derivative, and so nothing to learn from
            raise RuntimeError("the gradient has none")
    except RuntimeError as error:
        raise AdvgymError(f"{lesson.task.name} offers no second derivative of its loss: {error}") from None
    return found + weight * g.flatten(1).square().sum(1)
