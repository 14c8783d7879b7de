"""Full greedy search (as TextAttack's GreedySearch; Yoo et al. 2020 compare it with the others)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.search import beam


@register_agent("greedy-search", kind="edits", knowledge="score", proposals=32)
def attack(env, *, seed=0):
    """Full greedy search: every site and choice at each step, the best one is taken, until the limit of edits."""
    return beam.attack(env, width=1, seed=seed)
