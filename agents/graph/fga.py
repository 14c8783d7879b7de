"""Fast gradient attack on edges (Chen et al. 2018)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.targets import advance

SPARE = 8  # further down the ranking than this no edit is looked for when the threat model refuses the best


@register_agent("fga", kind="edits", knowledge="white-box")
def attack(env, *, seed=0):
    """Edit by edit the one of largest gradient, unseen: one gradient a step, and no candidate is tried (Chen 2018).

    Costs two queries and a gradient per edit (the gradient's, and the answer to the set so far); under transfer one
    of each, and the full set is handed in. `first-order` tries the best few and exchanges edits besides.
    """
    env.reset(seed=seed)
    state = env.threat.null()
    for _ in range(int(env.table.limit.max())):
        if env.done:
            break
        found, gains = env.rank(state, k=SPARE)
        new = advance(env, state, torch.where(gains.isfinite().unsqueeze(2), found, -1))
        if new is None:
            break
        state = new
    return state
