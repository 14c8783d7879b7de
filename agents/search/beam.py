"""Beam search over sets of edits (as TextAttack's BeamSearch; Ebrahimi et al. 2018 use one with gradients)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import best_of, choose, clean_fitness
from advgym.agents.shared.slots import Memory, Slots
from advgym.lib.settings import COUNT


@register_agent("beam", kind="edits", knowledge="score", proposals=32, allowed={"width": COUNT})
def attack(env, *, width=4, seed=0):
    """Beam search: every single edit on top of each of the `width` best sets, until the limit of edits.

    The best extensions are kept even where they do not help, as in TextAttack's BeamSearch; the same set reached
    twice is asked once. Tables of more than 2**16 cells are sampled.
    """
    obs, _ = env.reset(seed=seed)
    slots = Slots(env, env.draws(seed))
    memory = Memory(slots)
    best, held = clean_fitness(obs), env.threat.null()
    beam, here = slots.clean(1), torch.ones(len(best), 1, dtype=torch.bool, device=best.device)
    for _ in range(int(slots.limit.max())):
        if env.done:
            break
        value, key = _extensions(env, slots, memory, beam, here)
        top, at = _first(value, key).topk(min(width, value.shape[1]), 1)
        parent, cell = at // slots.cells.shape[1], at % slots.cells.shape[1]
        here = top.isfinite()
        if not bool(here.any()):
            break
        grown = slots.put(beam.gather(1, parent.unsqueeze(2).expand(-1, -1, slots.slots)), cell)
        beam = torch.where(here.unsqueeze(2), grown, -1)
        first, winner = best_of(top, slots.edits(beam))
        better = first > best
        best, held = torch.where(better, first, best), choose(better, winner, held)
    return held


def _extensions(env, slots: Slots, memory: Memory, beam: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
    """Fitness of each cell on top of each set: (lanes, W * M), -inf where there is no such extension; and its key."""
    want = slots.free(beam) & here.unsqueeze(2)
    many = want.shape[2]
    key = (memory.key(beam).unsqueeze(2) + memory.names[:-1]).flatten(1)

    def make(index: Tensor) -> Tensor:
        base = beam.gather(1, (index // many).unsqueeze(2).expand(-1, -1, slots.slots))
        return slots.edits(slots.put(base, index % many))

    return memory.ask(env, key, want.flatten(1), make), key


def _first(value: Tensor, key: Tensor) -> Tensor:
    """The values with -inf for sets that stand earlier in the row already."""
    name = torch.where(value.isfinite(), key, -1)
    order = name.argsort(dim=1, stable=True)
    ordered = name.gather(1, order)
    same = torch.zeros_like(ordered, dtype=torch.bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return value.masked_fill(torch.zeros_like(same).scatter(1, order, same), -torch.inf)
