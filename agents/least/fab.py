"""Fast adaptive boundary, in L1, L2 and Linf (Croce and Hein 2020, "Minimally distorted adversarial examples")."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.gradients.class_losses import Aim
from advgym.agents.shared.gradients.least import Least, onto_plane, size
from advgym.lib.settings import COUNT, SHARE, Range


@register_agent(
    "fab", kind="field", knowledge="white-box", needs=("l1-l2-linf",),
    allowed={"steps": COUNT, "restarts": COUNT, "alpha_max": SHARE, "beta": SHARE, "eta": Range(1)},
)  # fmt: skip
def attack(env, *, steps=100, restarts=2, alpha_max=0.1, beta=0.9, eta=1.05, seed=0):
    """Onto the linearised boundary within the box, drawn towards the clean sample; a success steps back (2020).

    The first run looks at the strongest other class of each point; run k goes towards the k-th strongest of the clean
    answer (FAB-T) from a random point within half of the nearest success.

    Args:
        steps: of a run, a query and a gradient each.
        alpha_max: the most that the clean sample's own projection weighs; beta: what a success keeps of its change.
        eta: how far a step goes beyond the boundary.
    """
    obs, _ = env.reset(seed=seed)
    least, aim = Least(env), Aim(obs, "margin")
    ranked = aim.ranked(obs["scores"]) if aim.classes and aim.goal is None else None
    for run in range(restarts):
        δ = torch.zeros_like(least.low)
        if run:
            if ranked is not None:
                aim.towards = ranked[:, (run - 1) % ranked.shape[1]]
            δ = _start(env, least, seed + 7_919 * run)
        for _ in range(steps):
            if env.done:
                return least.best
            adv, f, g = least.ask(δ, aim)
            onward = _forward(least, δ.detach(), f, g, alpha_max, eta)
            δ = torch.where(adv.unsqueeze(1), beta * δ.detach(), onward)
    return least.best


def _forward(least: Least, δ: Tensor, f: Tensor, g: Tensor, alpha_max: float, eta: float) -> Tensor:
    """Between the projections of this point and of the clean sample onto the plane f + <g, v - δ> = 0."""
    near = onto_plane(least.norm, g, -f, least.low - δ, least.high - δ)
    far = onto_plane(least.norm, g, (g * δ).sum(1) - f, least.low, least.high)
    a, b = size(least.norm, near), size(least.norm, far)
    α = (a / (a + b).clamp_min(1e-12)).clamp_max(alpha_max).unsqueeze(1)
    return least.clip((1 - α) * (δ + eta * near) + α * eta * far)


def _start(env, least: Least, seed: int) -> Tensor:
    """A random point at half the distance of the nearest success, or of the radius."""
    p = env.threat.random(seed).flatten(1)
    far = torch.minimum(least.distance, env.threat.reach) / 2
    return least.clip(p * (far / size(least.norm, p).clamp_min(1e-12)).unsqueeze(1))
