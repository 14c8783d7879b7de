"""Jaccard pruning of the graph in front of any victim (the step before the GCN in GCN-Jaccard: Wu et al. 2019)."""

from __future__ import annotations

from advgym import Victim, register_defense
from advgym.agents.defenses.wrapping import before
from advgym.lib.settings import SHARE


@register_defense("jaccard", domains=("graph",), kinds=("edits",), allowed={"threshold": SHARE})
def defend(victim: Victim, task, *, threshold: float = 0.01) -> Victim:
    """Drop the edges of the graph that arrives whose ends share too few features (Wu et al. 2019).

    The victim was trained without it; the victims `*-jaccard` are GCNs that prune inside, from their first epoch on.
    Useful where features are informative sets; with identity features no two nodes share any, and every edge goes.
    """
    return before(victim, lambda rows: rows.prune(threshold), f"jaccard({threshold})")
