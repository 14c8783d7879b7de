"""EvA: an evolutionary attack on many nodes at once (ICLR 2026), by its published description.

An individual is a set of edge flips, its fitness the number of members that turned: what is to be maximised itself, and
nothing that a gradient sees. What makes it strong is where mutation looks: at members that are still right.
"""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import hand_in
from advgym.agents._coverage import margins
from advgym.agents._pairs_population import genes_of, tournament

POPULATION = 64
NEAR = 0.2  # margins of this size count as near


@register_agent("eva", kind="edits", knowledge="decision", proposals=POPULATION)
def attack(env, *, mutation=0.75, rivals=5, near=0.0, focus=0.5, seed=0):
    """Tournament selection, uniform crossover, adaptive targeted mutation, elitism; answers alone will do.

    Parents and children compete for the next population, and of equals the younger stays. The budget is kept by
    construction. Tasks whose edits are not pairs of nodes against many members are played by "decision-search".

    Args:
        mutation: genes of a child that are drawn anew, on average: a pair with one end among the members that the
            mother's set has not turned.
        rivals: individuals in a tournament.
        near: share of new genes at a neighbour of such a member in its place.
        focus: where scores are shown, members whose margin is nearer to turning than this are drawn more often, and
            near ones break ties of the fitness; 0 to draw them evenly.
    """
    obs, _ = env.reset(seed=seed)
    if "members" not in obs or env.table.key != "pair":
        from advgym.agents.decision_search import attack as decision_search

        return decision_search(env.view(), seed=seed)
    genes, draws, ref = genes_of(env, obs["members"]), env.draws(seed), obs["output"][:, :1].clone()
    lane = torch.arange(len(ref), device=env.device).unsqueeze(1)
    rate = mutation / env.table.limit.view(-1, 1, 1)
    child = genes.distinct(genes.draw(draws, torch.ones_like(ref, dtype=torch.bool).expand(-1, POPULATION, -1), near))
    population, aim, value = child[:, :0], None, None
    while not env.done:
        obs, *_ = env.step(genes.proposals(child))
        won = obs["output"] != ref
        left = _left(obs, won, ref, focus)
        worth = torch.where(obs["evaluated"] & obs["valid"], _worth(obs, won, ref), -1.0)
        if aim is None:
            population, aim, value = child, left, worth
        else:
            worth = torch.cat([worth, value], 1)
            at = worth.argsort(dim=1, descending=True, stable=True)[:, :POPULATION]
            value = worth.gather(1, at)
            population = torch.cat([child, population], 1)[lane, at]
            aim = torch.cat([left, aim], 1)[lane, at]
        mother, father = (tournament(draws, value, rivals) for _ in range(2))
        child = genes.cross(draws, population[lane, mother], population[lane, father])
        new = genes.draw(draws, aim[lane, mother], near)
        mutate = (draws.uniform(*child.shape[1:]) < rate) | (child < 0)
        child = genes.distinct(torch.where(mutate, new, child))
        if env.knowledge == "transfer" and int(obs["queries_left"].max()) <= env.threat.model.queries // 2:
            break
    best = genes.proposals(population[:, :1])[:, 0] if aim is not None else env.threat.null()
    return hand_in(env, best)


def _left(obs: dict, won: torch.Tensor, ref: torch.Tensor, focus: float) -> torch.Tensor:
    """Weights of members as ends of new genes, (lanes, P, M): 0 where turned; with scores, more near turning."""
    if "scores" not in obs or not focus:
        return (~won).float()
    margin = margins(obs["scores"].detach(), ref.expand_as(won))
    return torch.where(won, 0.0, (margin / focus).clamp(-8, 0).exp())


def _worth(obs: dict, won: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """Members turned, (lanes, P); where scores are shown, and less than half of one for how near the others are."""
    if "scores" not in obs:
        return won.sum(2).float()
    margin = margins(obs["scores"].detach(), ref.expand_as(won))
    return won.sum(2) + 0.5 * torch.sigmoid(margin / NEAR).mean(2)
