"""The genetic attack of Alzantot et al. (2018) on words."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness
from advgym.agents.shared.slots import Memory, Slots
from advgym.lib.settings import NATURAL, POSITIVE, Range


@register_agent(
    "alzantot",
    kind="edits",
    knowledge="score",
    proposals=32,
    allowed={"population": Range(2), "generations": NATURAL, "temperature": POSITIVE},
)
def attack(env, *, population=60, generations=20, temperature=0.3, seed=0):
    """A population of texts: words picked by their number of substitutes, the best substitute, crossover word by word.

    `Perturb` picks an unchanged site by weight and asks for all its choices; the best replaces the member if it helps.
    Parents are drawn by the softmax of their scores, a child takes every site from either; the elite stays. As in the
    paper, but for children beyond the limit, which lose random edits; no text is asked twice.
    """
    obs, _ = env.reset(seed=seed)
    draws, clean = env.draws(seed), clean_fitness(obs)
    slots = Slots(env, draws)
    memory = Memory(slots)
    x = slots.clean(population)
    x, value = perturb(env, slots, memory, draws, x, clean.unsqueeze(1).repeat(1, population))
    lane = torch.arange(len(x), device=x.device).unsqueeze(1)
    for _ in range(generations):
        if env.done:
            break
        elite = value.argmax(1, keepdim=True)
        weight = torch.softmax(value.nan_to_num(neginf=-1e9) / temperature, 1)
        mother, father = (_draw(weight, draws.uniform(population - 1)) for _ in range(2))
        a, b = x[lane, mother], x[lane, father]
        child = torch.where(draws.uniform(population - 1, slots.slots) < 0.5, a, b)
        child = slots.trim(child, draws.uniform(population - 1, slots.slots))
        some = (child >= 0).any(2)
        now = memory.ask(env, memory.key(child), some, lambda at, child=child: slots.edits(child[lane, at]))
        now = torch.where(some, now, clean.unsqueeze(1))
        child, now = perturb(env, slots, memory, draws, child, now)
        x, value = torch.cat([x[lane, elite], child], 1), torch.cat([value[lane, elite], now], 1)
    top, at = value.max(1)
    found = slots.edits(x[lane[:, 0], at].unsqueeze(1))[:, 0]
    return choose(top > clean, found, env.threat.null())


def perturb(env, slots: Slots, memory: Memory, draws, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Each member (lanes, N, slots) with the best choice of one unchanged site, where it helps; and its fitness."""
    lanes, members, _ = x.shape
    room = (x >= 0).sum(2, keepdim=True) < slots.limit.view(-1, 1, 1)
    weight = torch.where((x < 0) & room, slots.count.unsqueeze(1), 0).float()
    at = slots.pick(weight, draws.uniform(members))
    many = torch.where(at >= 0, slots.count.gather(1, at.clamp_min(0)), 0)
    most = max(int(many.max()), 1)
    nth = torch.arange(most, device=x.device)
    cell = torch.where(nth < many.unsqueeze(2), slots.start.gather(1, at.clamp_min(0)).unsqueeze(2) + nth, -1)
    row = torch.arange(lanes, device=x.device).unsqueeze(1)

    def make(index: Tensor) -> Tensor:
        member = index // most
        return slots.edits(slots.put(x[row, member], cell[row, member, index % most]))

    key = (memory.key(x).unsqueeze(2) + memory.names[cell]).flatten(1)
    found = memory.ask(env, key, (cell >= 0).flatten(1), make).view(lanes, members, most)
    top, best = found.max(2)
    better = top > value
    moved = slots.put(x, cell.gather(2, best.unsqueeze(2)).squeeze(2))
    return torch.where(better.unsqueeze(2), moved, x), torch.where(better, top, value)


def _draw(weight: Tensor, u: Tensor) -> Tensor:
    return torch.searchsorted(weight.cumsum(1), u).clamp_max(weight.shape[1] - 1)
