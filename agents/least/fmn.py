"""Fast minimum-norm attack, in L0, L1, L2 and Linf (Pintor et al. 2021)."""

from __future__ import annotations

import math

import torch

from advgym import register_agent
from advgym.agents.shared.gradients.least import Least, linear_distance, objective, onto_ball, size, unit
from advgym.lib.settings import COUNT, POSITIVE, SHARE


@register_agent(
    "fmn", kind="field", knowledge="white-box", needs=("l0-l1-l2-linf",),
    allowed={"steps": COUNT, "alpha": POSITIVE, "gamma": SHARE},
)  # fmt: skip
def attack(env, *, steps=200, alpha=1.0, gamma=0.05, seed=0):
    """A ball that shrinks by a success and grows by a failure, and a gradient step within it (Pintor et al. 2021).

    Until a lane has a success, its ball reaches to where the linearised objective is zero.

    Args:
        steps: a query and a gradient each.
        alpha: the first step, over the distance of the clean sample's linear zero; falls to a hundredth by a cosine.
        gamma: the first relative change of the radius; falls to a fiftieth.
    """
    env.reset(seed=seed)
    least = Least(env)
    norm = least.norm
    δ = torch.zeros_like(least.low)
    ε = torch.full_like(least.distance, torch.inf)
    α0 = None
    for k in range(steps):
        if env.done:
            break
        adv, f, g = least.ask(δ, objective)
        δ = δ.detach()
        g = least.inward(δ, g)
        cosine = (1 + math.cos(math.pi * k / steps)) / 2
        γ = gamma * (0.02 + 0.98 * cosine)
        if α0 is None:  # the scale of the problem
            α0 = alpha * _scale(norm, f, g, least)
        zero = size(norm, δ) + linear_distance(norm, f, g)
        grown = torch.where(least.found, ε * (1 + γ), zero)
        shrunk = torch.minimum(ε * (1 - γ), least.distance)
        if norm == "l0":
            grown = torch.where(least.found, torch.maximum(ε + 1, grown.floor()), grown.ceil())
            shrunk = torch.minimum(torch.minimum(ε - 1, shrunk.floor()), least.distance).clamp_min(1)
        ε = torch.where(adv, shrunk, grown)
        δ = δ + (α0 * (0.01 + 0.99 * cosine)).unsqueeze(1) * unit(g)
        δ = onto_ball(norm, δ, ε, least.low, least.high)
    return least.best


def _scale(norm: str, f, g, least: Least):
    """The length in L2 of a first step: to the zero of the linearised objective, at most across the box."""
    across = torch.linalg.vector_norm(least.high - least.low, dim=1)
    length = linear_distance("linf" if norm == "linf" else "l2", f, g)
    length = length * math.sqrt(g.shape[1]) if norm == "linf" else length  # so many values move by that
    return torch.minimum(length, across)
