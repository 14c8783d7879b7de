"""Decoupled direction and norm, in L2 (Rony et al. 2019)."""

from __future__ import annotations

import math

import torch

from advgym import register_agent
from advgym.agents.shared.gradients.class_losses import Aim
from advgym.agents.shared.gradients.least import Least, linear_distance, objective, unit
from advgym.lib.settings import COUNT, POSITIVE, SHARE


@register_agent(
    "ddn", kind="field", knowledge="white-box", needs=("l2",),
    allowed={"steps": COUNT, "alpha": POSITIVE, "gamma": SHARE},
)  # fmt: skip
def attack(env, *, steps=200, alpha=0.5, gamma=0.05, seed=0):
    """A step along the gradient of the cross-entropy, then onto a sphere that shrinks by a success (Rony et al. 2019).

    The first step follows the objective, whose linear zero sets the scale that the paper states in pixels.

    Args:
        steps: a query and a gradient each.
        alpha: the first step and sphere, over that distance; the step falls to a hundredth by a cosine.
        gamma: the relative change of the sphere.
    """
    obs, _ = env.reset(seed=seed)
    least, aim = Least(env), Aim(obs, "ce")
    δ = torch.zeros_like(least.low)
    ε = scale = least.distance
    for k in range(steps):
        if env.done:
            break
        adv, f, g = least.ask(δ, aim if k else objective)
        δ = δ.detach()
        g = least.inward(δ, g)
        if not k:
            scale = alpha * torch.minimum(linear_distance("l2", f, g), env.threat.reach)
            ε = scale
        α = scale * (0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2)
        δ = δ + α.unsqueeze(1) * unit(g)
        ε = ε * torch.where(adv, 1 - gamma, 1 + gamma)
        δ = least.clip(ε.unsqueeze(1) * unit(δ))
    return least.best
