"""Coverage search: the edits that turn the most members, by a linear model of every member's margin. Our own.

The gradient of one loss over all members says which edits help the sum, and spends many of them on the same easy
members; a genetic search sees how many turned, and has to find everything by chance. Here every member gets a ranking
of its own: all edits by first order, for one query and one gradient. That makes a sparse table of what an edit does to
whose margin, and choosing a set becomes a problem of coverage that is searched free of charge: a set loses the edits
that carry least and is filled up by the table (large neighbourhood search; Shaw 1998). A population of such sets is
asked at a time. Their true margins correct the table, since first-order gains are too large, by a factor that differs
by member, and now and then the members that are left are ranked again from where the best set stands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.margins import PAD, Table, margins, rebuild
from advgym.errors import AdvgymError
from advgym.lib.settings import COUNT, NATURAL, POSITIVE, SHARE

POPULATION = 64
LEAST = 0.05  # gains below that teach nothing about their factor


@register_agent(
    "coverage",
    kind="edits",
    knowledge="white-box",
    proposals=POPULATION,
    needs=("edges", "members"),
    allowed={
        "listed": COUNT,
        "pool": COUNT,
        "drop": SHARE,
        "trust": POSITIVE,
        "every": NATURAL,
        "again": COUNT,
        "patience": COUNT,
    },
)
def attack(env, *, listed=256, pool=6144, drop=0.12, trust=0.5, every=12, again=48, patience=30, seed=0):
    """Rank all edits for each member, build sets by the table, ask a population of them, correct, and go on.

    Args:
        listed: edits that are ranked for a member; pool: edits that the table keeps.
        drop: the largest share of a set that is exchanged at once.
        trust: how much of a first-order gain is real, before it is measured.
        every: steps after which the `again` members nearest to turning are ranked anew; 0 for never.
        patience: steps without a better set after which a lane ends.
    """
    obs, _ = env.reset(seed=seed)
    if "members" not in obs or env.table.key != "pair" or obs["scores"].dim() != 4:
        raise AdvgymError("coverage flips edges against many nodes at once: play tasks such as graph/sbm-global")
    draws, ref, budget = env.draws(seed), obs["output"][:, 0].clone(), env.table.limit
    scores, lanes, many = obs["scores"][:, 0].detach(), len(ref), ref.shape[1]
    lane = torch.arange(lanes, device=env.device).unsqueeze(1)
    clean = margins(scores, ref)
    table = Table(lanes, env.table.sites, pool, env.device)
    sets = torch.full((lanes, POPULATION, env.shape[0]), PAD, device=env.device)[..., : int(budget.max())]
    affordable = max(1, min(many, env.threat.model.queries // 3, env.threat.model.gradients))
    table.learn(env, env.threat.null(), scores, ref, clean.topk(affordable).indices, listed, sets[:, 0])
    margin = clean.unsqueeze(1).expand(-1, POPULATION, -1)
    answers = scores.unsqueeze(1).expand(-1, POPULATION, -1, -1)
    value = torch.full(margin.shape[:2], -torch.inf, device=env.device)
    learned = [trust * torch.ones_like(clean), torch.ones_like(clean)]  # sums of (table x truth) and (table squared)
    idle = torch.zeros(lanes, dtype=torch.int64, device=env.device)
    step = 0
    while not env.done and bool((idle < patience).any()):
        if every and step and step % every == 0:
            left = torch.where(margin[:, 0] > 0, -torch.inf, margin[:, 0]).topk(min(again, many)).indices
            table.learn(env, proposals(env, sets[:, :1])[:, 0], answers[:, 0], ref, left, listed, sets.flatten(1))
            if env.done:
                break
        chosen = draws.integers(POPULATION, POPULATION, 4).amin(2)  # of four the best: the population is sorted
        share = draws.uniform(POPULATION) ** 2
        gone = 0 * chosen if step == 0 else (1 + drop * budget.unsqueeze(1) * share).long()
        parent, before = sets[lane, chosen], margin[lane, chosen]
        factor = ((learned[0] + trust) / (learned[1] + 1)).clamp(0.15, 1.2).unsqueeze(1)
        factor = factor * (0.7 + 0.6 * draws.uniform(POPULATION, 1))  # the children trust the table differently
        children, change = rebuild(table, parent, before, factor, budget, gone, draws)
        asked = torch.where((idle < patience).view(-1, 1, 1, 1), proposals(env, children), -1)
        obs, *_ = env.step(asked)
        counts = obs["evaluated"] & obs["valid"]
        after = margins(obs["scores"].detach(), ref.unsqueeze(1).expand(-1, POPULATION, -1))
        use = (counts.unsqueeze(2) & (change.abs() > LEAST)).float()
        learned = [
            0.9 * old + (use * change * new).sum(1) for old, new in zip(learned, (after - before, change), strict=True)
        ]
        best = value[:, 0]
        worth = torch.cat([value, torch.where(counts, merit(after), -torch.inf)], 1)
        at, value = survivors(worth)
        sets, margin, answers = (
            torch.cat(pair, 1)[lane, at]
            for pair in ((sets, children), (margin, after), (answers, obs["scores"].detach()))
        )
        idle = torch.where(value[:, 0] > best + 1e-4, 0, idle + 1)
        step += 1
    return proposals(env, sets[:, :1])[:, 0]


def merit(margin: Tensor) -> Tensor:
    """Members turned, and less than half of one for how near the others are: (..., M) to (...)."""
    return (margin > 1e-6).float().sum(-1) + 0.5 * torch.sigmoid(margin / 0.2).mean(-1)


def survivors(worth: Tensor) -> tuple[Tensor, Tensor]:
    """The better half of (lanes, 2 P), sorted, without repeats as far as there are others: (places, worth)."""
    value, order = worth.sort(dim=1, descending=True, stable=True)
    twin = torch.zeros_like(value, dtype=torch.bool)
    twin[:, 1:] = value[:, 1:] == value[:, :-1]  # the same set again
    value = torch.where(twin, -torch.inf, value)
    value, at = value.sort(dim=1, descending=True, stable=True)
    half = worth.shape[1] // 2
    return order.gather(1, at)[:, :half], value[:, :half]


def proposals(env, sets: Tensor) -> Tensor:
    """Keys (lanes, P, E) as edits."""
    out = torch.full((*sets.shape[:2], *env.shape), -1, device=sets.device)
    size, real = env.table.sites, sets < PAD
    out[:, :, : sets.shape[2]] = torch.where(real.unsqueeze(3), torch.stack([sets // size, sets % size], 3), -1)
    return out
