"""HopSkipJump (Chen, Jordan and Wainwright 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.labels import Labels, bisect, normal, settled, start, unit, visible
from advgym.agents.shared.once import wide
from advgym.lib.settings import COUNT, POSITIVE


@register_agent(
    "hopskipjump", kind="field", knowledge="decision", proposals=32,
    allowed={"evaluations": COUNT, "most": COUNT, "gamma": POSITIVE},
)  # fmt: skip
def attack(env, *, evaluations=100, most=10_000, gamma=1.0, seed=0):
    """Boundary, normal by Monte Carlo, geometric step, in turns (Chen, Jordan and Wainwright 2020, algorithm 2).

    Linf balls take signs and the clipping of the largest changes, all others Euclidean steps. Each lane stands where it
    stands; only the rounds are common.

    Args:
        evaluations: B0, probes of the first round; round t has B0 sqrt(t) of them, `most` at most.
        gamma: the probe radius and the bisection's width, in the paper's units; never below what the input's lattice
            can show.
    """
    env.reset(seed=seed)
    ask, draws, linf = Labels(env), env.draws(seed), env.threat.norm == "linf"
    p, found = start(ask, draws)
    d = p[0].numel()
    θ = gamma / d**2 if linf else gamma / d**1.5
    p = _to_boundary(ask, p, θ, found, linf)
    t = 0
    while not env.done and bool((ask.left() * found).any()):
        t += 1
        N = min(int(evaluations * t**0.5), most, int(ask.left().max()))
        able = (found & env.live).unsqueeze(1).expand(-1, N)
        size = env.threat.distance(p)
        probe = unit(2 * draws.uniform(N, *env.shape) - 1 if linf else draws.normal(N, *env.shape), 2)
        δ = visible(env, p, probe[:, 0], size * θ * (d if linf else d**0.5))
        v = normal(ask, p, probe, δ, able)
        v = v.sign() if linf else unit(v)
        p = _geometric(ask, p, v, size / t**0.5, found)
        p = _to_boundary(ask, p, θ, found, linf)
    return ask.held


def _to_boundary(ask: Labels, p: Tensor, θ: float, able: Tensor, linf: bool) -> Tensor:
    """The boundary on the way from p to the clean sample: along a line, or by clipping the largest changes."""
    p = settled(ask.env, p)
    size = ask.env.threat.distance(p)

    def path(α: Tensor) -> Tensor:
        α = wide(α, p)
        return p.clamp(-α * wide(size, p), α * wide(size, p)) if linf else α * p

    one = torch.ones_like(size)
    α, _ = bisect(ask, path, one, torch.zeros_like(one), torch.full_like(one, max(θ, 1e-4)), able)
    return path(α)


def _geometric(ask: Labels, p: Tensor, v: Tensor, ξ: Tensor, able: Tensor) -> Tensor:
    """The step ξ along v, halved until it lands on the adversarial side; where nothing does, p stays."""
    todo = able.clone()
    for _ in range(32):
        todo = todo & (ask.left() > 0)
        if not bool(todo.any()):
            break
        point = p + wide(ξ, p) * v
        got = ask.one(point, todo) & todo
        p, todo, ξ = choose(got, point, p), todo & ~got, ξ / 2
    return p
