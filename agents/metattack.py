"""Metattack: greedy flips by the gradient of a whole training run (Zuegner & Guennemann 2019)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import choose, hand_in


@register_agent("metattack", kind="edits", knowledge="transfer")
def attack(env, *, flips=1, seed=0):
    """Flip by flip the pair of largest meta-gradient of the loss on self-training labels (Meta-Self).

    On poisoning tasks `env.rank` differentiates the surrogate's training, and the loss is against the surrogate's own
    clean predictions, which is what the paper's self-training labels are. A surrogate that differentiates only its last
    step makes this A-Meta-Self. One gradient and one query a step; the budget is used up.

    Args:
        env: Edits.
        flips: how many of the best pairs each gradient chooses; 1 in the paper.
        seed: unused, the attack draws nothing.
    """
    env.reset(seed=seed)
    state, limit = env.threat.null(), env.table.limit
    for _ in range(int(limit.max())):
        room = limit - (state[..., 0] >= 0).sum(1)
        if env.done or not bool(((room > 0) & env.live).any()):
            break
        found, gains = env.rank(state, k=flips)
        found = torch.where(gains.isfinite().unsqueeze(2), found, -1)
        new = state
        for nth in range(flips):
            more = env.threat.compose(new, found[:, nth])
            longer = (more[..., 0] >= 0).sum(1) > (new[..., 0] >= 0).sum(1)
            new = choose(longer & env.threat.check(more), more, new)
        if torch.equal(new, state):
            break
        state = new
    return hand_in(env, state) if env.knowledge == "transfer" or env.done else _propose(env, state)


def _propose(env, state: torch.Tensor) -> torch.Tensor:
    """Ask the victim about the whole set, once."""
    if env.proposals is not None:
        wide = env.threat.null().unsqueeze(1).repeat(1, env.proposals, 1, 1)
        wide[:, 0] = state
        env.step(wide)
    else:
        env.step(state)
    return state
