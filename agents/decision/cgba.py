"""CGBA, the curvature-aware geometric boundary attack (Reza et al. 2023), with the normals of earlier rounds kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.frequencies import low_noise
from advgym.agents.shared.labels import Labels, bisect, length, normal, settled, start, unit, visible
from advgym.agents.shared.once import wide
from advgym.lib.settings import COUNT, POSITIVE, SHARE, Range


@register_agent(
    "cgba", kind="field", knowledge="decision", proposals=32,
    allowed={"evaluations": COUNT, "growth": SHARE, "radius": POSITIVE, "frequencies": Range(0, 1, above=True),
             "widening": POSITIVE, "memory": SHARE},
)  # fmt: skip
def attack(env, *, evaluations=30, growth=0.25, radius=0.1, frequencies=0.5, widening=50.0, memory=0.9, seed=0):
    """Along a semicircle from the boundary to the clean sample, turned to the boundary's normal (Reza et al. 2023).

    From the boundary point x_b with v its direction from the clean sample and n the normal, the points of the circle
    whose diameter is the way between the two, in the plane of v and n, are adversarial up to where the boundary comes
    nearest if it is flat; the last one of them is the next x_b.

    Args:
        evaluations: N0, probes of the normal in the first round; round t has N0 t^growth of them (the paper: 0.5).
        radius: how far probes go, as a share of the distance.
        frequencies, widening: probes are made of this share of the cosines of each axis, the lowest; after `widening`
            rounds of twice the share, and so on to all of them.
        memory: weight that the normal of earlier rounds keeps; 0 is as published.
    """
    env.reset(seed=seed)
    ask, draws = Labels(env), env.draws(seed)
    p, found = start(ask, draws)
    p = settled(env, p)
    one = torch.ones_like(ask.best)
    α, _ = bisect(ask, lambda α: wide(α, p) * p, one, 0 * one, 0.02 * one, found)
    p = settled(env, wide(α, p) * p)
    n, turn, t = torch.zeros_like(p), 0.2 * one, 0
    while not env.done and bool((ask.left() * found).any()):
        t += 1
        N = min(int(evaluations * t**growth), int(ask.left().max()))
        probe = unit(low_noise(draws, N, tuple(env.shape), min(1.0, frequencies * (1 + t / widening))), 2)
        δ = visible(env, p, probe[:, 0], radius * length(p))
        n = memory * n + normal(ask, p, probe, δ, (found & env.live).unsqueeze(1).expand(-1, N))
        p, turn = _semicircle(ask, p, n, turn, found)
    return ask.held


def _semicircle(ask: Labels, p: Tensor, n: Tensor, turn: Tensor, able: Tensor) -> tuple[Tensor, Tensor]:
    """(the adversarial point of largest angle, that angle): `turn` is about where it is expected."""
    r, v = length(p), unit(p)
    side = unit(n - wide((n * v).flatten(1).sum(1), p) * v)

    def path(θ: Tensor) -> Tensor:
        return wide(r * θ.cos(), p) * (wide(θ.cos(), p) * v + wide(θ.sin(), p) * side)

    hit, miss = torch.zeros_like(turn), torch.full_like(turn, math.pi / 2)
    trial, open_ = (1.5 * turn).clamp(0.01, 1.2), able & (length(side) > 0.5)
    for _ in range(6):  # further out until one misses
        open_ = open_ & (ask.left() > 0)
        if not bool(open_.any()):
            break
        got = ask.one(path(trial), open_)
        hit, miss = torch.where(open_ & got, trial, hit), torch.where(open_ & ~got, trial, miss)
        open_ = open_ & got
        trial = torch.minimum(2 * trial, (trial + math.pi / 2) / 2)
    near = (0.1 * miss).clamp_min(0.004)
    hit, miss = bisect(ask, path, hit, miss, near, able & (length(side) > 0.5))
    return settled(ask.env, path(hit)), hit.clamp_min(0.01)
