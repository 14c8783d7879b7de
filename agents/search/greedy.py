"""Greedy edits by importance: which sites matter, then the best choice at each (Jin et al. 2020; Ren et al. 2019)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.shared.common import clean_fitness, fitness
from advgym.agents.shared.importance import answered, order_sites, walk
from advgym.lib.settings import NATURAL


@register_agent("greedy", kind="edits", knowledge="score", proposals=16, allowed={"again": NATURAL})
def attack(env, *, again=16, seed=0):
    """Sites in the order of their importance (by deletion, or a random choice where no word is), the best at each.

    `wir` with deletion and the objective in place of the probability. Where several edits may share a site (edges of a
    node), a site is visited again with the `again` best choices of its first visit.
    """
    obs, _ = env.reset(seed=seed)
    order = order_sites(env, "delete", seed, fitness, answered, stand_in=True)
    return walk(env, order, fitness, again=again, start=clean_fitness(obs))
