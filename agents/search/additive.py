"""A search of our own: small sets first, as far as a model of what edits do, learnt in the lane, says they may do."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.beliefs import COUNTS, Effects, known_words
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.slots import Slots
from advgym.lib.settings import COUNT, NATURAL, POSITIVE

CELLS = 1024  # of a lane at most; larger tables are sampled
SPREAD = (-0.5, 0.0, 0.5, 1.0, 2.0, 4.0)  # the bounds, mean + s * deviation, that rank cells
NEIGHBOURS = 64  # of the best set so far
VALUE = 20.0  # of a success, in edits
NEAR = 12  # queries: with more than that left, none is missed
FLOOR = -16.0  # of a log-chance: the model's tails are thinner than a victim's


@register_agent(
    "additive", kind="edits", knowledge="score", allowed={"price": POSITIVE, "last": NATURAL, "most": COUNT}
)
def attack(env, *, price=0.01, last=20, most=100, prior=True, seed=0):
    """The smallest sets of edits that are worth a query, by a Gaussian process over sets (advgym's own).

    The objective of a set is modelled as a sum of its edits' effects and of interactions of pairs; where a binary text
    task shows class log-odds (`site_features`), they are the prior mean, shrunk by how seldom a word was seen. Asked
    are prefixes of rankings of sites, by several bounds of their effects, and sets one cell away from the best so far.
    A set is worth a query where chance * (what going on without it would cost - its edits) exceeds `price` and, where
    few queries are left, what this one will be missed for. Of those the smallest is asked, of equally small ones the
    likeliest; where there are none, the likeliest of all, `last` times. No set is asked twice, and nothing passes
    between lanes.

    Args:
        env: Edits, score knowledge.
        price: of a query, in edits; larger asks larger sets earlier.
        last: queries of a lane in which no set is worth its price.
        most: queries of a lane.
        prior: use the log-odds.
        seed: of the cells that stand for a table too large to hold.
    """
    obs, _ = env.reset(seed=seed)
    slots = Slots(env, env.draws(seed), CELLS)
    hope, seen = known_words(obs, slots, COUNTS)
    model = Effects(slots, obs, hope if prior else torch.zeros_like(hope), seen if prior else torch.ones_like(seen))
    best, held, active = clean_fitness(obs), env.threat.null(), env.live
    lanes, found = torch.arange(len(best), device=best.device), held.clone()  # of the whole environment
    value, idle = torch.full_like(best, VALUE), torch.zeros_like(best)  # value falls to the edits of a success in hand
    for _ in range(most):
        running = active & env.live
        if 0 < 2 * int(running.sum()) < len(running) and env.knowledge != "transfer":  # drop those that are over
            env, rows = env.view(running), running.nonzero().squeeze(1)
            model, lanes, best, held = model.take(rows), lanes[rows], best[rows], held[rows]
            value, idle, active = value[rows], idle[rows], active[rows]
        x, able, worth = chosen(model, price, value, env.asks_left)
        idle = idle + (~worth).to(idle)
        active = active & able & (worth | ((value == VALUE) & (idle <= last)))
        p = torch.where((active & env.live).view(-1, 1, 1), model.slots.edits(x.unsqueeze(1))[:, 0], -1)
        if env.done or not bool((p >= 0).any()):
            break
        p = env.threat.project(p)  # where a task allows less than its table and limit say
        obs, *_ = env.step(p)
        now = fitness(obs)
        best, held = torch.maximum(best, now), choose(now > best, p, held)
        found[lanes] = held
        won = obs["success"] & obs["valid"] & obs["evaluated"]
        value = torch.where(won, torch.minimum(value, (p[..., 0] >= 0).sum(1).to(value)), value)
        model.learn(x, model.slots.position(x, p), obs["objective"].detach(), obs["evaluated"])
    return firmest(env, model, best, found) if env.knowledge == "transfer" else found


def hopes(obs: dict, slots: Slots) -> Tensor:
    """Change of class log-odds against the victim's clean output by each cell, float32 (lanes, M); 0 where unknown."""
    return known_words(obs, slots)[0]


def chosen(model: Effects, price: float, value: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What each lane asks next, positions (lanes, slots); whether it may be asked; whether it is worth its price.

    Args:
        value: what a success is worth, in edits, (lanes,); left: queries, (lanes,).
    """
    mean, deviation = model.cells()
    first = 1e-4 * model.slots.cells[..., 1]  # of equal ones that which a table lists first
    score = torch.stack([mean + s * deviation for s in SPREAD], 1) - first.unsqueeze(1)
    x = prefixes(model.slots, score)
    chains, many = x.shape[1], x.shape[1] * x.shape[2]
    x = x.flatten(1, 2)
    if model.answers.shape[1]:
        x = torch.cat([x, neighbours(model, mean, deviation)], 1)
    fresh, edits = ~model.known(x), (x >= 0).sum(2).to(mean)
    log = torch.where(fresh, model.log_chance(x), -torch.inf)
    chance = log.exp()
    split = (len(x), chains, -1)
    cost = going_on(chance[:, :many].view(split), edits[:, :many].view(split), price, value)
    one = (left - 1).clamp(0, NEAR).unsqueeze(1)
    less, cost = cost.gather(1, one)[:, 0], cost.gather(1, (one + 1).clamp_max(NEAR))[:, 0]
    missed = price + less - cost  # a query costs its price and what it will be missed for
    worth = fresh & (chance * (less.unsqueeze(1) - edits) > missed.unsqueeze(1))
    some = worth.any(1)
    at = torch.where(some, torch.where(worth, edits - chance, torch.inf).argmin(1), log.argmax(1))
    able = some | (log.amax(1) > FLOOR)
    return x[torch.arange(len(x), device=x.device), at], able, some


def prefixes(slots: Slots, score: Tensor) -> Tensor:
    """Positions (lanes, Q, K, slots) by scores (lanes, Q, M): the best cells of the best slots, in K sizes.

    Cells with a score of 0 or less stay out, but for the best one. The last size is the whole limit of each lane.
    """
    queries, largest = score.shape[1], max(int(slots.limit.max()), 1)
    sizes = [1]
    while sizes[-1] < largest:
        sizes.append(min(largest, max(sizes[-1] + 1, 5 * sizes[-1] // 4)))
    score = torch.where(slots.some.unsqueeze(1), score, -torch.inf)
    slot = slots.slot.unsqueeze(1).expand(-1, queries, -1)
    top = score.new_full((len(score), queries, slots.slots + 1), -torch.inf).scatter_reduce(2, slot, score, "amax")
    wins = (score == top.gather(2, slot)) & slots.some.unsqueeze(1)
    index = torch.where(wins, torch.arange(score.shape[2], device=score.device), -1)
    cell = index.new_full(top.shape, -1).scatter_reduce(2, slot, index, "amax")[..., :-1]
    top = top[..., :-1]
    rank = top.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    kept = (rank < slots.limit.view(-1, 1, 1)) & ((top > 0) | (rank == 0))
    inside = rank.unsqueeze(2) < torch.tensor(sizes, device=score.device).view(1, 1, -1, 1)
    return torch.where(kept.unsqueeze(2) & inside, cell.unsqueeze(2), -1)


def neighbours(model: Effects, mean: Tensor, deviation: Tensor) -> Tensor:
    """Positions (lanes, n, slots) one cell away from the best answered set, the most hopeful cells first.

    Beyond the limit the weakest of the set's own cells goes.
    """
    slots = model.slots
    x = model.real[torch.arange(len(mean), device=mean.device), model.answers.argmax(1)]
    bound = torch.where(slots.some, mean + deviation, -torch.inf)
    top, cell = bound.topk(min(NEIGHBOURS, bound.shape[1]), 1)
    near = slots.put(x.unsqueeze(1).expand(-1, cell.shape[1], -1), torch.where(top.isfinite(), cell, -1))
    own = torch.where(x >= 0, mean.gather(1, x.clamp_min(0)), torch.inf)
    weakest = torch.arange(slots.slots, device=x.device) == own.argmin(1, keepdim=True)
    over = (near >= 0).sum(2) > slots.limit.unsqueeze(1)
    return torch.where(over.unsqueeze(2) & weakest.unsqueeze(1), -1, near)


def going_on(chance: Tensor, edits: Tensor, price: float, value: Tensor) -> Tensor:
    """The least cost, in edits, of going up one of the chains of nested sets until a success, giving up where due.

    What fails at one size fails below: the chance of a size that another has failed before is (p - q) / (1 - q).

    Args:
        chance, edits: of each set, (lanes, Q, K), sizes rising.
        value: the cost of ending without a success, (lanes,).

    Returns:
        with 0, 1, ... NEAR queries, (lanes, NEAR + 1).
    """
    p = chance.cummax(2).values.clamp_max(1 - 1e-6)
    stop = value.view(-1, 1, 1, 1).expand(len(p), NEAR + 1, p.shape[1], 1)
    none = stop[:, :1]
    after = stop  # (lanes, NEAR + 1, Q, K - i): the costs once sizes i + 1, ... K have failed; the last column gives up
    for i in range(p.shape[2] - 1, -1, -1):
        before = p[..., i - 1 : i] if i else torch.zeros_like(p[..., :1])
        win = ((p[..., i:] - before) / (1 - before)).unsqueeze(1)
        cost = price + win * edits[..., i:].unsqueeze(1) + (1 - win) * after[:, :-1]
        best = torch.cat([none, torch.minimum(cost.amin(3, keepdim=True), stop[:, 1:])], 1)
        after = torch.cat([best, after], 3)
    return after[..., 0].amin(2)


def firmest(env, model: Effects, best: Tensor, found: Tensor) -> Tensor:
    """Under transfer the last word counts, and a margin with it: the full set by the mean, where that is better."""
    if not env.done:
        mean, _ = model.cells()
        p = env.threat.project(model.slots.edits(prefixes(model.slots, mean.unsqueeze(1))[:, 0, -1:])[:, 0])
        obs, *_ = env.step(p)
        found = choose(fitness(obs) > best, p, found)
    return found
