"""SirenAttack: particle swarm optimisation of a Field (Du et al. 2020)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import best_of, choose, clean_fitness, fitness
from advgym.agents.shared.once import wide
from advgym.lib.settings import POSITIVE, Range

PARTICLES = 25


@register_agent(
    "siren",
    kind="field",
    knowledge="score",
    proposals=PARTICLES,
    allowed={"inertia": Range(0, 1), "own": POSITIVE, "swarm": POSITIVE, "speed": Range(0, 2, above=True)},
)
def attack(env, *, inertia=0.9, own=1.4, swarm=1.4, speed=0.3, seed=0):
    """Particles fly on, towards their own best point and towards the swarm's (SirenAttack, Du et al. 2020).

    v <- w v + c1 r1 (p - x) + c2 r2 (g - x), clipped to `speed` of the radius in each coordinate; x <- x + v.
    The inertia w falls from `inertia` to 0.1 over the budget; r1 and r2 are drawn for each particle and coordinate.

    Args:
        own, swarm: c1 and c2.
    """
    obs, _ = env.reset(seed=seed)
    draws, reach = env.draws(seed), env.threat.reach
    best, held = clean_fitness(obs), env.threat.null()
    scale = reach if env.threat.norm == "linf" else reach / held[0].numel() ** 0.5
    fastest = wide(speed * scale, held).unsqueeze(1)
    x = env.threat.random(seed, PARTICLES)
    v = (draws.uniform(PARTICLES, *env.shape) * 2 - 1) * fastest
    p, value = x, torch.full((len(best), PARTICLES), -torch.inf, device=best.device)
    rounds = max(env.threat.model.queries // PARTICLES, 1)
    for t in range(rounds + 1):
        if env.done:
            break
        obs, *_ = env.step(x)
        now = fitness(obs)
        p, value = choose(now > value, x, p), torch.maximum(now, value)
        top, winner = best_of(value, p)
        best, held = torch.maximum(best, top), choose(top > best, winner, held)
        w = 0.1 + (inertia - 0.1) * max(1 - t / rounds, 0)
        r1, r2 = draws.uniform(PARTICLES, *env.shape), draws.uniform(PARTICLES, *env.shape)
        v = w * v + own * r1 * (p - x) + swarm * r2 * (winner.unsqueeze(1) - x)
        v = torch.maximum(torch.minimum(v, fastest), -fastest)
        x = env.threat.project(x + v)
    return held
