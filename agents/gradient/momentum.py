"""Momentum and diverse inputs, which transfer better: MI-FGSM (Dong et al. 2018) and DI-FGSM (Xie et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym import AdvgymError, register_agent
from advgym.agents.shared.once import wide
from advgym.lib.settings import COUNT, NATURAL, SHARE

ALLOWED = {"steps": COUNT, "mu": NATURAL, "diversity": SHARE, "shrink": SHARE}


@register_agent("momentum", kind="field", knowledge="white-box", allowed=ALLOWED)
def attack(env, *, steps=10, mu=1.0, diversity=0.0, shrink=0.1, seed=0):
    """Steps along a running sum of normalised gradients (MI-FGSM, Dong et al. 2018); `steps` of 1/steps of the radius.

    Under `transfer(inner="momentum")` all gradients are the surrogate's.

    Args:
        steps: a query and a gradient each, and one query for the last point.
        mu: what is kept of the sum; 0 for none.
        diversity: the chance that a step's gradient is of a resized and moved input; shrink: the most by which it is
            smaller (Xie et al. 2019). Such a point lies outside the ball: it is charged and never counts, and where a
            board bounds what may be asked it has no gradient.
    """
    env.reset(seed=seed)
    draws = env.draws(seed)
    δ, total = env.threat.null(), torch.zeros_like(env.threat.null())
    x = env.threat.apply(δ) if diversity else None
    if diversity and not (isinstance(x, Tensor) and x.shape == δ.shape):
        raise AdvgymError("diversity= resizes what is added to the sample, and a victim's input here is no such array")
    α = wide(env.threat.reach / steps, δ)
    for _ in range(steps):
        if env.done:
            return δ
        δ.requires_grad_()
        asked = δ if x is None else _moved(x, δ, draws.uniform(4), diversity, shrink) - x
        obs, *_ = env.step(asked)
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), δ)
        total = mu * total + g / wide(g.flatten(1).abs().mean(1).clamp_min(1e-12), g)
        δ = env.threat.project(δ.detach() + α * env.threat.steepest(total))
    if not env.done:
        env.step(δ)
    return δ


def _moved(x: Tensor, δ: Tensor, u: Tensor, chance: float, shrink: float) -> Tensor:
    """X + δ, in some lanes made smaller by up to `shrink` and put at a random place, 0 around it.

    Over the last two axes of an image, the only one of a waveform. u: uniforms (lanes, 4).
    """
    y = x + δ
    if y.dim() not in (2, 4):
        return y
    planes = y if y.dim() == 4 else y[:, None, None]
    small = 1 - shrink * u[:, 1]
    room = (1 - small).unsqueeze(1)
    place = (2 * u[:, 2:] - 1) * room / small.unsqueeze(1)
    if y.dim() == 2:
        place = place * torch.tensor([1.0, 0.0], device=y.device)
    zoom = torch.stack([1 / small, 1 / small if y.dim() == 4 else torch.ones_like(small)], 1)
    theta = torch.cat([torch.diag_embed(zoom), place.unsqueeze(2)], 2)
    other = F.grid_sample(planes, F.affine_grid(theta, list(planes.shape), align_corners=False), align_corners=False)
    return torch.where(wide(u[:, 0] < chance, y), other.view_as(y), y)
