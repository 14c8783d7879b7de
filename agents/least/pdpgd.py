"""Primal-dual proximal gradient descent, in L0, L1, L2 and Linf (Matyasko and Chau 2021)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.gradients.adam import Adam
from advgym.agents.shared.gradients.least import TINY, Least, objective
from advgym.lib.settings import COUNT, POSITIVE, SHARE

LEAST_RATIO = 1e-6
INNER = 20


@register_agent(
    "pdpgd", kind="field", knowledge="white-box", needs=("l0-l1-l2-linf",),
    allowed={"steps": COUNT, "primal": POSITIVE, "dual": POSITIVE, "ratio": POSITIVE, "ema": SHARE},
)  # fmt: skip
def attack(env, *, steps=500, primal=0.1, dual=0.1, ratio=0.01, ema=0.9, seed=0):
    """The saddle point of distance and constraint: Adam and a proximal step on δ, ascent on λ (Matyasko and Chau 2021).

    Args:
        steps: a query and a gradient each.
        primal: the first step of δ, over the width of the box; falls to a hundredth.
        dual: the first step of log λ; falls to a tenth. ema: of λ.
        ratio: the first weight of the distance over that of the constraint.
    """
    env.reset(seed=seed)
    least = Least(env)
    width = (least.high - least.low).amax(1, keepdim=True).clamp_min(TINY)
    δ = torch.zeros_like(least.low)
    adam = Adam(δ)
    λ = torch.zeros(len(δ), 2, device=δ.device)
    λ[:, 1] = -math.log(ratio)
    mean = λ.softmax(1)
    for k in range(steps):
        if env.done:
            break
        adv, _, g = least.ask(δ, lambda obs: -F.softplus(-objective(obs)))
        α = primal * 0.01 ** (k / steps)
        v = least.clip(δ.detach() + width * α * adam.direction(g * width))
        ψ = adam.metric()
        most = ψ.amax(1, keepdim=True)
        η = (α * mean[:, 0] / mean[:, 1].clamp_min(TINY)).unsqueeze(1) / most
        u = v / width
        for _ in range(INNER):  # the proximal point in Adam's metric (Melchior et al. 2019)
            u = proximal(least.norm, u - ψ / most * (u - v / width), η)
        δ = width * u
        θ = dual * (0.1 + 0.9 * (1 - k / max(steps - 1, 1)))
        λ[:, 1] = (λ[:, 1] + θ * torch.where(adv, -1.0, 1.0)).clamp(math.log(LEAST_RATIO), -math.log(LEAST_RATIO))
        mean = torch.lerp(mean, λ.softmax(1), 1 - ema)
    return least.best


def proximal(norm: str, v: Tensor, η: Tensor) -> Tensor:
    """The x that minimises |x - v|^2 / 2 + η |x|, each row of v (n, d) with its own η (n, 1)."""
    if norm == "l0":
        return torch.where(v.square() >= 2 * η, v, 0.0)
    if norm == "l1":
        return (v.abs() - η).clamp_min(0) * v.sign()
    if norm == "l2":
        return v * (1 - η / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(TINY)).clamp_min(0)
    # Linf (Moreau): v less its projection onto the L1 ball of radius η.
    a = v.abs().sort(1, descending=True).values
    many = torch.arange(1, v.shape[1] + 1, device=v.device)
    level = (a.cumsum(1) - η) / many
    last = (a > level).sum(1, keepdim=True).clamp_min(1) - 1
    top = level.gather(1, last).clamp_min(0)  # what is above is cut
    return torch.minimum(torch.maximum(v, -top), top)
