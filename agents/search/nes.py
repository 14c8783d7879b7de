"""Natural evolution strategies (Ilyas et al. 2018; on speech FakeBob, Chen et al. 2021)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import best_of, choose, clean_fitness, fitness
from advgym.agents.shared.once import wide
from advgym.lib.settings import POSITIVE, Range

PAIRS = 25


@register_agent(
    "nes",
    kind="field",
    knowledge="score",
    proposals=2 * PAIRS + 1,
    allowed={"sigma": POSITIVE, "step_size": Range(0, 2, above=True), "momentum": Range(0, 0.999)},
)
def attack(env, *, sigma=0.1, step_size=0.1, momentum=0.9, seed=0):
    """Gradients of the score from antithetic Gaussian pairs, with momentum, in sign steps (Ilyas et al. 2018).

    ĝ = Σ_i [f(x + σ u_i) - f(x - σ u_i)] u_i / (2 n σ), n = 25 pairs a step, and the point itself asked beside them.
    f is the objective where it has no plateaus, so the surrogate is added to it as everywhere here (`fitness`); points
    of the search may lie outside the ball, where they are evaluated but do not count.

    Args:
        sigma: σ, as a share of the radius (of a coordinate's share of it under l2).
        step_size: as a share of the radius.
    """
    obs, _ = env.reset(seed=seed)
    draws, reach = env.draws(seed), env.threat.reach
    best, held = clean_fitness(obs), env.threat.null()
    x, m = held, torch.zeros_like(held)
    scale = reach if env.threat.norm == "linf" else reach / held[0].numel() ** 0.5
    σ, α = wide(sigma * scale, held).unsqueeze(1), wide(step_size * reach, held)
    while not env.done:
        u = draws.normal(PAIRS, *env.shape)
        asked = torch.cat([x.unsqueeze(1), x.unsqueeze(1) + σ * u, x.unsqueeze(1) - σ * u], 1)
        obs, *_ = env.step(asked)
        top, winner = best_of(fitness(obs), asked)
        best, held = torch.maximum(best, top), choose(top > best, winner, held)
        f = torch.where(obs["evaluated"], obs["objective"] + 1e-4 * obs["surrogate"], torch.nan)
        gain = torch.nan_to_num(f[:, 1 : 1 + PAIRS] - f[:, 1 + PAIRS :])  # pairs of which one was not answered
        g = (wide(gain, u) * u).sum(1)
        size = g.abs().flatten(1).mean(1).clamp_min(1e-20)
        m = momentum * m + (1 - momentum) * g / wide(size, g)
        x = env.threat.project(x + α * env.threat.steepest(m))
    return held
