"""Virtual adversarial training (Miyato et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.agents.defenses.lessons import Lesson, divergence
from advgym.agents.defenses.loop import trained
from advgym.lib.settings import COUNT, NATURAL, POSITIVE


@trained(allowed={"alpha": NATURAL, "xi": POSITIVE, "power": COUNT})
def loss(lesson: Lesson, *, alpha: float = 1.0, xi: float = 0.1, power: int = 1) -> Tensor:
    """L(θ, x) + α KL(f(x) || f(x + r)), r the step of full size along d, found by `power` rounds from a random one.

    Args:
        xi: the size of the step at which the power method looks, relative to the radius.
    """
    lesson.needs_field("virtual-adversarial")
    batch = lesson.batch
    ε = batch.reach.view(-1, *[1] * len(batch.shape))
    clean = lesson.scores()
    r = batch.random(lesson.seed) * xi
    for _ in range(power):
        r = r.detach().requires_grad_()
        (g,) = torch.autograd.grad(divergence(clean.detach(), lesson.scores(r)).sum(), r)
        d = batch.steepest(g, None, r.detach())
        r = xi * ε * d
    r = batch.project(ε * d)
    return lesson.loss(clean) + alpha * divergence(clean.detach(), lesson.scores(r))
