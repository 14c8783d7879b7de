"""EvA: an evolutionary attack on many nodes at once (ICLR 2026), by its published description, and with a memory.

An individual is a set of edge flips, its fitness the number of members that turned: what is to be maximised itself, and
nothing that a gradient sees. What makes it strong is where mutation looks: at members that are still right.

The paper's search forgets what it was told of sets that died out. Where scores are shown, ours keeps all of it in a
linear model of messages (`_messages`), and a second kind of mutation asks that model which flips would turn whom.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.eva_memory import LARGEST, Memory
from advgym.agents.shared.margins import margins
from advgym.agents.shared.pairs_population import genes_of, tournament
from advgym.errors import AdvgymError
from advgym.lib.settings import COUNT, NATURAL, SHARE

POPULATION = 64
NEAR = 0.2  # margins of this size count as near
LEAST, FADE = 1 / 16, 0.9  # share of children that either mutation keeps; how fast its merits are forgotten


@register_agent(
    "eva",
    kind="edits",
    knowledge="decision",
    proposals=POPULATION,
    needs=("edges", "members"),
    allowed={"mutation": NATURAL, "rivals": COUNT, "near": SHARE, "focus": NATURAL},
)
def attack(env, *, mutation=0.75, rivals=5, near=0.0, focus=0.5, memory=True, seed=0):
    """Tournament selection, uniform crossover, adaptive targeted mutation, elitism; answers alone will do.

    Parents and children compete for the next population, and of equals the younger stays. The budget is kept by
    construction.

    Args:
        mutation: genes of a child that are drawn anew, on average: a pair with one end among the members that the
            mother's set has not turned.
        rivals: individuals in a tournament.
        near: share of new genes at a neighbour of such a member in its place.
        focus: where scores are shown, members whose margin is nearer to turning than this are drawn more often, and
            near ones break ties of the fitness; 0 to draw them evenly.
        memory: where scores are shown, learn from all of them what flips do, and mutate by that too. How many children
            come from it depends on how many of them lived.
    """
    obs, _ = env.reset(seed=seed)
    if "members" not in obs or env.table.key != "pair":
        raise AdvgymError("eva flips edges against many nodes at once: play tasks such as graph/sbm-global")
    genes, draws, ref = genes_of(env, obs["members"]), env.draws(seed), obs["output"][:, :1].clone()
    small = ref.shape[2] * env.table.sites <= LARGEST
    known = memory and "scores" in obs and obs["scores"].dim() == 4 and small
    minds = [Memory(env, obs, lane) for lane in range(len(ref))] if known else []
    lane = torch.arange(len(ref), device=env.device).unsqueeze(1)
    rate = mutation / env.table.limit.view(-1, 1, 1)
    child = genes.distinct(genes.draw(draws, torch.ones_like(ref, dtype=torch.bool).expand(-1, POPULATION, -1), near))
    population, aim, value, answers = child[:, :0], None, None, obs["output"][:, :0]
    guided = torch.zeros(child.shape[:2], dtype=torch.bool, device=env.device)
    merits = torch.ones(len(ref), 2, device=env.device)  # children that lived, of those drawn and of those guided
    while not env.done:
        obs, *_ = env.step(genes.proposals(child))
        won = obs["output"] != ref
        left = _left(obs, won, ref, focus)
        counts = obs["evaluated"] & obs["valid"]
        worth = torch.where(counts, _worth(obs, won, ref), -1.0)
        told = obs["scores"].detach() if minds else obs["output"]
        for mind, *of in zip(minds, child, told, obs["evaluated"], strict=False):
            mind.note(*of)
        if aim is None:
            population, aim, value, answers = child, left, worth, told
        else:
            worth = torch.cat([worth, value], 1)
            if minds:
                worth = _without_twins(worth)
            at = worth.argsort(dim=1, descending=True, stable=True)[:, :POPULATION]
            merits = _merits(merits, guided, counts, at)
            value = worth.gather(1, at)
            population = torch.cat([child, population], 1)[lane, at]
            aim = torch.cat([left, aim], 1)[lane, at]
            answers = torch.cat([told, answers], 1)[lane, at] if minds else answers
        mother, father = (tournament(draws, value, rivals) for _ in range(2))
        child = genes.cross(draws, population[lane, mother], population[lane, father])
        new = genes.draw(draws, aim[lane, mother], near)
        mutate = (draws.uniform(*child.shape[1:]) < rate) | (child < 0)
        child = genes.distinct(torch.where(mutate, new, child))
        if minds:
            share = (merits[:, 1] / merits.sum(1)).clamp(LEAST, 1 - LEAST)
            guided = draws.uniform(POPULATION) < share.unsqueeze(1)
            by_chance = draws.uniform(POPULATION, Memory.CHANCES)
            for i, mind in enumerate(minds):
                guided[i] &= mind.ready
                if mind.ready and bool(env.live[i]):
                    better = mind.children(population[i], answers[i], mother[i], father[i], by_chance[i])
                    child[i] = torch.where(guided[i].unsqueeze(1), genes.fit(better), child[i])
    best = genes.proposals(population[:, :1])[:, 0] if aim is not None else env.threat.null()
    return best


def _left(obs: dict, won: Tensor, ref: Tensor, focus: float) -> Tensor:
    """Weights of members as ends of new genes, (lanes, P, M): 0 where turned; with scores, more near turning."""
    if "scores" not in obs or not focus:
        return (~won).float()
    margin = margins(obs["scores"].detach(), ref.expand_as(won))
    return torch.where(won, 0.0, (margin / focus).clamp(-8, 0).exp())


def _worth(obs: dict, won: Tensor, ref: Tensor) -> Tensor:
    """Members turned, (lanes, P); where scores are shown, and less than half of one for how near the others are."""
    if "scores" not in obs:
        return won.sum(2).float()
    margin = margins(obs["scores"].detach(), ref.expand_as(won))
    return won.sum(2) + 0.5 * torch.sigmoid(margin / NEAR).mean(2)


def _without_twins(worth: Tensor) -> Tensor:
    """Worths (lanes, n), those that were there before (the same set again, as scores show) at the end."""
    value, order = worth.sort(dim=1, descending=True, stable=True)
    twin = torch.zeros_like(value, dtype=torch.bool)
    twin[:, 1:] = (value[:, 1:] == value[:, :-1]) & (value[:, 1:] >= 0)
    return worth.scatter(1, order, torch.where(twin, -1.0, value))


def _merits(merits: Tensor, guided: Tensor, counts: Tensor, at: Tensor) -> Tensor:
    """The share of the drawn and of the guided children that lived, (lanes, 2), older ones fading."""
    lived = torch.zeros(len(at), 2 * guided.shape[1], dtype=torch.bool, device=at.device).scatter(1, at, True)
    lived = lived[:, : guided.shape[1]] & counts
    kinds = torch.stack([~guided, guided], 1)
    now = ((lived.unsqueeze(1) & kinds).sum(2) + 0.25) / (kinds.sum(2) + 0.5)
    return torch.where(guided.any(1, keepdim=True), FADE * merits + (1 - FADE) * now, merits)
