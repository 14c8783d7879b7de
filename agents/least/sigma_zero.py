"""Sigma-zero: few changed values, by a smooth count of them (Cina et al. 2024)."""

from __future__ import annotations

import math

import torch

from advgym import register_agent
from advgym.agents.shared.gradients.adam import Adam
from advgym.agents.shared.gradients.least import Least, unit
from advgym.lib.settings import COUNT, POSITIVE, SHARE


@register_agent(
    "sigma-zero", kind="field", knowledge="white-box", needs=("l0",),
    allowed={"steps": COUNT, "runs": COUNT, "eta": POSITIVE, "sigma": POSITIVE, "tau": SHARE, "tau_step": POSITIVE},
)  # fmt: skip
def attack(env, *, steps=1000, runs=2, eta=1.0, sigma=1e-2, tau=0.3, tau_step=0.01, seed=0):
    """Descent on a margin and a smooth count, small values set to 0 by a threshold that adapts (Cina et al. 2024).

    A run after the first begins at the nearest success, with half the step. That is our own; so is sigma (paper: .001).

    Args:
        steps: of all runs, a query and a gradient each.
        eta: the first step, over the width of the box; falls to a tenth by a cosine.
        sigma: of the count, sum of d^2 / (d^2 + sigma), in squared widths of the box.
        tau: the first threshold, over the width; tau_step: its change over the step, up by a success.
    """
    env.reset(seed=seed)
    least = Least(env)
    for run in range(min(runs, steps)):
        now = steps * (run + 1) // runs - steps * run // runs
        _run(env, least, now, eta if not run else eta / 2, sigma, tau, tau_step)
    return least.best


def _run(env, least: Least, steps: int, eta: float, sigma: float, tau: float, tau_step: float) -> None:
    """One descent, from the nearest success, or the clean sample without one."""
    width = (least.high - least.low).amax(1, keepdim=True)
    δ = least.best.flatten(1).clone()
    τ, adam, η = torch.full_like(least.distance, tau), Adam(δ), eta
    for k in range(steps):
        if env.done:
            break
        adv, _, g = least.ask(δ, lambda obs: obs["objective"].clamp_max(0))
        u = (δ.detach() / width).requires_grad_()
        count = (u.square() / (u.square() + sigma)).mean(1)
        (h,) = torch.autograd.grad(count.sum(), u)
        up = unit(g * width - h, torch.inf)  # towards success, and towards 0
        δ = least.clip(δ.detach() + width * η * adam.direction(up))
        η = eta * (0.1 + 0.45 * (1 + math.cos(math.pi * k / steps)))
        τ = (τ + torch.where(adv, tau_step * η, -tau_step * η)).clamp(0, 1)
        δ = torch.where(δ.abs() < τ.unsqueeze(1) * width, 0.0, δ)
