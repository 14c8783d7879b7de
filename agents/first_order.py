"""First-order edits: rank all single edits by one gradient, try the best (Ebrahimi et al. 2018; Chen et al. 2018)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import choose, clean_fitness, hand_in, sweep


@register_agent("first-order", kind="edits", knowledge="white-box", proposals=8)
def attack(env, *, exchange=True, seed=0):
    """HotFlip and FGA in one: take the edit of largest first-order gain, checked among the best few, and go on.

    Costs one gradient and 1 + proposals queries per edit. The best candidate is taken even where it does not help yet:
    the next gradient is read from there. When the set is full, edits are exchanged one by one while that helps.
    """
    obs, _ = env.reset(seed=seed)
    state, best = env.threat.null(), clean_fitness(obs)
    held, most = state, int(env.table.limit.max())
    for _ in range(most):
        state, value, moved = _extend(env, state)
        if not moved:
            break
        better = value > best
        held, best = choose(better, state, held), torch.where(better, value, best)
    idle, row = 0, 0
    while exchange and not env.done and idle < most:
        dropped = held.clone()
        dropped[:, row % most] = -1
        state, value, moved = _extend(env, dropped)
        better = value > best
        held, best = choose(better, state, held), torch.where(better, value, best)
        idle = 0 if moved and bool((better & env.live).any()) else idle + 1
        row += 1
    return hand_in(env, held)


def _extend(env, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """(the set with one more edit, its fitness, whether any lane moved): the best of the first-order candidates."""
    value = torch.full((len(state),), -torch.inf, device=state.device)
    if env.done:
        return state, value, False
    edits, gains = env.rank(state, k=env.proposals)
    room = (state[..., 0] >= 0).sum(1) < env.table.limit
    edits = torch.where((gains.isfinite() & room.unsqueeze(1)).unsqueeze(2), edits, -1)
    if not bool((edits >= 0).any()):
        return state, value, False
    value, at = sweep(env, state, edits).max(1)
    lane = torch.arange(len(at), device=at.device)
    return choose(value.isfinite(), env.threat.compose(state, edits[lane, at]), state), value, True
