"""The boundary attack (Brendel, Rauber and Bethge 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.labels import Labels, bisect, length, settled, start, unit
from advgym.agents.shared.once import wide
from advgym.lib.settings import POSITIVE, Range

EVERY = 10  # steps between looks at the sphere alone
FULL, FEW = 100, 30  # looks after which the steps are adapted, both or the one inwards


@register_agent(
    "boundary", kind="field", knowledge="decision",
    allowed={"sphere": POSITIVE, "inwards": POSITIVE, "adaptation": Range(1, above=True)},
)  # fmt: skip
def attack(env, *, sphere=0.01, inwards=0.01, adaptation=1.5, seed=0):
    """A random walk along the boundary, inwards (Brendel, Rauber and Bethge 2018).

    A step is one on the sphere about the clean sample and one towards it, and is made where it stays adversarial and
    comes nearer. Both lengths are adapted lane by lane: by how often the sphere alone stays adversarial (every tenth
    step asks it, too; about half), and how often the whole step does.

    Args:
        sphere, inwards: first lengths, as shares of the distance; adaptation: their factor.
    """
    env.reset(seed=seed)
    ask, draws = Labels(env), env.draws(seed)
    p, found = start(ask, draws)
    one = torch.ones_like(ask.best)
    α, _ = bisect(ask, lambda α: wide(α, p) * p, one, 0 * one, 0.01 * one, found)
    p = settled(env, wide(α, p) * p)
    ε, δ = sphere * one, inwards * one
    looks = torch.zeros(4, len(one), device=one.device)  # at the sphere: how many, adversarial; at the whole step: same
    t = 0
    while not env.done and bool((ask.left() * found).any()):
        t += 1
        round_, whole = _candidates(env, p, draws.normal(*env.shape), ε, δ)
        hit = ask.one(whole, found)
        p = choose(hit & (length(whole) < length(p)), whole, p)
        if t % EVERY == 0:
            on = ask.one(round_, found)
            looks = looks + torch.stack([one, on.float(), one, hit.float()])
            ε, δ = _adapt(looks, ε, δ, adaptation)
    return ask.held


def _candidates(env, p: Tensor, η: Tensor, ε: Tensor, δ: Tensor) -> tuple[Tensor, Tensor]:
    """(a step on the sphere, that and one inwards): as in the paper's figure 2, within the box."""
    v, r = unit(p), length(p)
    η = η - wide((η * v).flatten(1).sum(1), p) * v
    round_ = (p + wide(ε * r, p) * unit(η)) / wide((1 + ε**2).sqrt(), p)
    round_ = settled(env, round_)
    now = length(round_)
    inward = (δ * r + now - r).clamp_min(0)
    return round_, settled(env, round_ * wide((1 - inward / now.clamp_min(1e-12)).clamp_min(0), p))


def _adapt(looks: Tensor, ε: Tensor, δ: Tensor, by: float) -> tuple[Tensor, Tensor]:
    """New lengths where enough was looked at; those counts begin anew (in place)."""
    for first, enough, low, high in ((0, FULL, 0.2, 0.5), (2, FEW, 0.1, 0.25)):
        full = looks[first] >= enough
        share = looks[first + 1] / looks[first].clamp_min(1)
        factor = torch.where(full & (share > high), by, torch.where(full & (share < low), 1 / by, 1.0))
        ε, δ = (ε * factor if first == 0 else ε), δ * factor
        looks[first : first + 2] *= ~full
    return ε, δ
