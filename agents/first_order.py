"""First-order edits: rank all single edits by one gradient, try the best (Ebrahimi et al. 2018; Chen et al. 2018)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import choose, clean_fitness, hand_in, sweep


@register_agent("first-order", kind="edits", knowledge="white-box", proposals=8)
def attack(env, *, seed=0):
    """HotFlip and FGA in one: take the edit of largest first-order gain, checked among the best few, and go on.

    Costs one gradient and 1 + proposals queries per edit. The best candidate is taken even where it does not help yet:
    the next gradient is read from there.
    """
    obs, _ = env.reset(seed=seed)
    state, best = env.threat.null(), clean_fitness(obs)
    held, lane = state, torch.arange(len(best), device=best.device)
    for _ in range(int(env.table.limit.max())):
        if env.done:
            break
        edits, gains = env.rank(state, k=env.proposals)
        room = (state[..., 0] >= 0).sum(1) < env.table.limit
        edits = torch.where((gains.isfinite() & room.unsqueeze(1)).unsqueeze(2), edits, -1)
        if not bool((edits >= 0).any()):
            break
        value, at = sweep(env, state, edits).max(1)
        state = choose(value.isfinite(), env.threat.compose(state, edits[lane, at]), state)
        better = value > best
        held, best = choose(better, state, held), torch.where(better, value, best)
    return hand_in(env, held)
