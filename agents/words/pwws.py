"""Probability weighted word saliency (Ren et al. 2019)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.importance import best_choices, chance, clean_surrogate, likelihood, probed, put_in
from advgym.agents.shared.once import once


@register_agent("pwws", kind="edits", knowledge="score", proposals=16, needs=("unknown",))
def attack(env, *, seed=0):
    """The best choice of every site by itself, put in by the order of softmax(saliency) times its gain.

    Saliency is the loss of probability when a word is unknown, the gain that of the word's best choice on the clean
    text; the choices found there are put in one after the other, a query each, as in the paper. (`wir` with
    importance="pwws" is TextAttack's variant, which asks for all choices again.)
    """
    obs, _ = env.reset(seed=seed)
    env = once(env)
    some = env.table.site_mask()
    most = max(int(some.sum(1).max()), 1)
    sites = some.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    some = some.gather(1, sites)
    clean = chance(clean_surrogate(obs)).unsqueeze(1)
    saliency = probed(env, sites, some, "unknown", seed)
    saliency = torch.where(some & saliency.isfinite(), chance(saliency) - clean, -torch.inf)
    top, edits = best_choices(env, sites, some, likelihood)
    gain = torch.where(top.isfinite(), chance(top) - clean, -torch.inf)
    value = (torch.softmax(saliency, 1).nan_to_num(0.0) * gain).nan_to_num(nan=-torch.inf)
    order = value.argsort(dim=1, descending=True, stable=True)
    edits = edits.gather(1, order.unsqueeze(2).expand(-1, -1, 2))
    return put_in(env, edits, gain.gather(1, order).isfinite())
