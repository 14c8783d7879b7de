"""EvA: an evolutionary attack on many nodes at once (ICLR 2026), by its published description.

An individual is a set of edge flips, its fitness the number of members that turned: what is to be maximised itself, and
nothing that a gradient sees. What makes it strong is where mutation looks: at members that are still right.
"""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import hand_in
from advgym.agents._pairs_population import genes_of, tournament

POPULATION = 64


@register_agent("eva", kind="edits", knowledge="decision", proposals=POPULATION)
def attack(env, *, mutation=0.02, rivals=3, near=0.0, seed=0):
    """Tournament selection, uniform crossover, adaptive targeted mutation, elitism; answers alone, no scores.

    Parents and children compete for the next population, and of equals the younger stays. The budget is kept by
    construction. Tasks whose edits are not pairs of nodes against many members are played by "decision-search".

    Args:
        mutation: share of genes that are drawn anew: a pair with one end among the members that the mother's set has
            not turned.
        rivals: individuals in a tournament.
        near: share of new genes at a neighbour of such a member in its place.
    """
    obs, _ = env.reset(seed=seed)
    if "members" not in obs or env.table.key != "pair":
        from advgym.agents.decision_search import attack as decision_search

        return decision_search(env.view(), seed=seed)
    genes, draws, ref = genes_of(env, obs["members"]), env.draws(seed), obs["output"][:, :1].clone()
    lane = torch.arange(len(ref), device=env.device).unsqueeze(1)
    child = genes.distinct(genes.draw(draws, torch.ones_like(ref, dtype=torch.bool).expand(-1, POPULATION, -1), near))
    population, turned, value = child[:, :0], None, None
    while not env.done:
        obs, *_ = env.step(genes.proposals(child))
        won = obs["output"] != ref
        worth = torch.where(obs["evaluated"] & obs["valid"], won.sum(2), -1)
        if turned is None:
            population, turned, value = child, won, worth
        else:
            worth = torch.cat([worth, value], 1)
            at = worth.argsort(dim=1, descending=True, stable=True)[:, :POPULATION]
            value = worth.gather(1, at)
            population = torch.cat([child, population], 1)[lane, at]
            turned = torch.cat([won, turned], 1)[lane, at]
        mother, father = (tournament(draws, value, rivals) for _ in range(2))
        child = genes.cross(draws, population[lane, mother], population[lane, father])
        new = genes.draw(draws, ~turned[lane, mother], near)
        mutate = (draws.uniform(*child.shape[1:]) < mutation) | (child < 0)
        child = genes.distinct(torch.where(mutate, new, child))
        if env.knowledge == "transfer" and int(obs["queries_left"].max()) <= env.threat.model.queries // 2:
            break
    best = genes.proposals(population[:, :1])[:, 0] if turned is not None else env.threat.null()
    return hand_in(env, best)
