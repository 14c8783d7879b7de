"""Elastic-net attack, in L1 (Chen et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.least.pdpgd import proximal
from advgym.agents.shared.common import choose
from advgym.agents.shared.gradients.least import TINY, Least, Search, objective
from advgym.lib.settings import COUNT, NATURAL, POSITIVE


@register_agent(
    "ead", kind="field", knowledge="white-box", needs=("l1",),
    allowed={"steps": COUNT, "search": COUNT, "rate": POSITIVE, "beta": POSITIVE, "confidence": NATURAL},
)  # fmt: skip
def attack(env, *, steps=200, search=5, rate=0.01, beta=5.0, confidence=0.0, seed=0):
    """L2 squared, plus beta times L1, plus c times the margin, by FISTA and a search for c (Chen et al. 2018).

    c begins where the margin's steepest value outweighs L1, and each round of the search begins where the last one
    ended. What is asked are the extrapolated points, so a step is one query.

    Args:
        steps: of a run, a query and a gradient each.
        search: rounds of the search for c.
        rate: the first step, over the width of the box; falls by a square root to 0.
        beta: of L1, in widths. The threshold is rate times beta; the paper's is as with 1, from 5 on L1 alone counts.
        confidence: the objective that counts as reached.
    """
    env.reset(seed=seed)
    least = Least(env)
    width = (least.high - least.low).amax(1, keepdim=True).clamp_min(TINY)
    δ = torch.zeros_like(least.low)
    _, _, g = least.ask(δ, objective)
    c = 4 * beta / (g.abs().amax(1) * width.squeeze(1)).clamp_min(TINY)
    weight = Search(c)
    for _ in range(search):
        if env.done:
            break
        found, δ = fista(env, least, weight.c, width, δ.detach(), steps, rate, beta, confidence)
        weight.tell(found)
    return least.best


def fista(
    env, least: Least, c: Tensor, width: Tensor, start: Tensor, steps: int, rate: float, beta: float, confidence: float
) -> tuple[Tensor, Tensor]:
    """(whether each lane met the goal, its last success or last point (n, d)) of one run from `start`.

    Gradient steps from the extrapolated points y, then soft thresholds (Beck and Teboulle 2009).
    """
    met = torch.zeros_like(c, dtype=torch.bool)
    δ = y = last = start
    for k in range(steps):
        if env.done:
            break
        adv, _, g = least.ask(y, lambda obs: -(confidence - objective(obs)).clamp_min(0))
        y = y.detach()
        last = choose(adv | ~met, y, last)
        met = met | adv
        α = rate * (1 - k / steps) ** 0.5
        v = y / width
        v = proximal("l1", v + α * (c.unsqueeze(1) * g * width - 2 * v), torch.full_like(width, α * beta))
        new = least.clip(v * width)
        y, δ = least.clip(new + k / (k + 3) * (new - δ)), new
    return met, last
