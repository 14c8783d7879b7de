"""Projected gradient descent (Madry et al. 2018)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.lib.settings import COUNT, POSITIVE


@register_agent("pgd", kind="field", knowledge="white-box", allowed={"steps": COUNT, "step_size": POSITIVE})
def attack(env, *, steps=40, step_size=0.05, random_start=True, seed=0):
    """Projected gradient descent from a random start (Madry et al. 2018); the step is relative to the radius."""
    env.reset(seed=seed)
    delta = env.threat.random(seed) if random_start else env.threat.null()
    α = step_size * env.threat.reach.view(-1, *[1] * len(env.shape))
    for _ in range(steps):
        if env.done:
            return delta
        obs, *_ = env.step(delta.requires_grad_())
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), delta)
        delta = env.threat.project(delta.detach() + α * env.threat.steepest(g, delta))
    if not env.done:
        env.step(delta)
    return delta
