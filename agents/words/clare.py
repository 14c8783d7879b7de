"""CLARE (Li et al. 2021)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.importance import best_choices, likelihood, put_in


@register_agent("clare", kind="edits", knowledge="score", proposals=16, needs=("insertions", "language-model"))
def attack(env, *, seed=0):
    """The best action of every place by itself, then put in from the most promising on (algorithm 1 of the paper).

    Replacements, insertions and merges are the sites of the insertion task; their words come from its table:
    `candidates="masked-lm:NAME"`. Places that an action has used up exclude the others there.
    """
    env.reset(seed=seed)
    some = env.table.site_mask()
    most = max(int(some.sum(1).max()), 1)
    sites = some.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    top, edits = best_choices(env, sites, some.gather(1, sites), likelihood)
    order = top.argsort(dim=1, descending=True, stable=True)
    edits = edits.gather(1, order.unsqueeze(2).expand(-1, -1, 2))
    return put_in(env, edits, top.gather(1, order).isfinite())
