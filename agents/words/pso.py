"""Particle swarm optimisation over words (Zang et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness
from advgym.agents.shared.slots import Memory, Slots
from advgym.lib.settings import COUNT, NATURAL

V_MAX = 3.0


@register_agent(
    "pso", kind="edits", knowledge="score", proposals=32, allowed={"particles": COUNT, "iterations": NATURAL}
)
def attack(env, *, particles=60, iterations=20, seed=0):
    """Particles are texts; they turn word by word towards their own best and the swarm's, and mutate.

    Velocities, inertia (0.8 to 0.2) and turning probabilities (0.8 to 0.2 and back) as in the paper; a mutation asks
    for every single edit on top of a particle and draws one by its gain, with probability 1 - 2 * share of words
    changed. Particles beyond the limit lose random edits; no text is asked twice.
    """
    obs, _ = env.reset(seed=seed)
    draws, clean = env.draws(seed), clean_fitness(obs)
    slots = Slots(env, draws)
    memory = Memory(slots)
    lane = torch.arange(len(clean), device=clean.device)
    shape = (particles, slots.slots)
    start, first = mutate(env, slots, memory, draws, slots.clean(1), clean.unsqueeze(1), copies=particles)
    x, value = start, first
    own, own_value = x, value
    best_value, at = value.max(1)
    best = x[lane, at]
    speed = ((draws.uniform(particles) * 2 - 1) * V_MAX).unsqueeze(2).expand(-1, *shape)
    words = slots.count.gt(0).sum(1).clamp_min(1).view(-1, 1)
    for i in range(iterations):
        if env.done:
            break
        inertia = 0.6 * (iterations - i) / iterations + 0.2
        pull = [torch.where(x == goal, -V_MAX, V_MAX) for goal in (own, best.unsqueeze(1))]
        speed = inertia * speed + (1 - inertia) * (pull[0] + pull[1])
        turn = torch.sigmoid(speed)
        for goal, probability in ((own, 0.8 - 0.6 * i / iterations), (best.unsqueeze(1), 0.2 + 0.6 * i / iterations)):
            turned = torch.where(draws.uniform(*shape) < turn, goal.expand_as(x), x)
            x = torch.where((draws.uniform(particles) < probability).unsqueeze(2), turned, x)
        x = slots.trim(x, draws.uniform(*shape))
        changed = (x >= 0).any(2)
        now = memory.ask(env, memory.key(x), changed, lambda at, x=x: slots.edits(x[lane.unsqueeze(1), at]))
        value = torch.where(changed, now, clean.unsqueeze(1))
        share = (x >= 0).sum(2) / words
        some = draws.uniform(particles) < 1 - 2 * share
        x, value = mutate(env, slots, memory, draws, x, value, some)
        better = value > own_value
        own, own_value = torch.where(better.unsqueeze(2), x, own), torch.where(better, value, own_value)
        top, at = value.max(1)
        better = top > best_value
        best, best_value = choose(better, x[lane, at], best), torch.where(better, top, best_value)
    return choose(best_value > clean, slots.edits(best.unsqueeze(1))[:, 0], env.threat.null())


def mutate(
    env, slots: Slots, memory: Memory, draws, x: Tensor, value: Tensor, some: Tensor | None = None, copies: int = 0
) -> tuple[Tensor, Tensor]:
    """Each particle (lanes, N, slots) takes the best choice of a slot drawn by what that choice gains.

    Args:
        some: bool (lanes, N), which mutate; the others stay.
        copies: draw that many mutants of the one particle given.
    """
    lanes, members, _ = x.shape
    want = slots.free(x)
    want = want if some is None else want & some.unsqueeze(2)
    many = want.shape[2]
    row = torch.arange(lanes, device=x.device).unsqueeze(1)

    def make(index: Tensor) -> Tensor:
        return slots.edits(slots.put(x[row, index // many], index % many))

    key = (memory.key(x).unsqueeze(2) + memory.names[:-1]).flatten(1)
    found = memory.ask(env, key, want.flatten(1), make).view(lanes, members, many)
    slot = slots.slot.unsqueeze(1).expand(-1, members, -1)
    top = found.new_full((lanes, members, slots.slots + 1), -torch.inf).scatter_reduce(2, slot, found, "amax")
    wins = (found == top.gather(2, slot)) & found.isfinite()
    index = torch.where(wins, torch.arange(many, device=x.device), -1)
    cell = index.new_full(top.shape, -1).scatter_reduce(2, slot, index, "amax")[..., :-1]
    top = top[..., :-1]
    gain = torch.where(top.isfinite(), (top - value.unsqueeze(2)).clamp_min(0), 0.0)
    if copies:
        gain, cell, top = (t.expand(-1, copies, -1) for t in (gain, cell, top))
        x, value, members = x.expand(-1, copies, -1), value.expand(-1, copies), copies
    # Where nothing gains, any slot may be drawn, as in the paper's code.
    gain = torch.where(gain.sum(2, keepdim=True) > 0, gain, (cell >= 0).float())
    at = slots.pick(gain, draws.uniform(members))
    chosen = torch.where(at >= 0, cell.gather(2, at.clamp_min(0).unsqueeze(2)).squeeze(2), -1)
    after = top.gather(2, at.clamp_min(0).unsqueeze(2)).squeeze(2)
    return slots.put(x, chosen), torch.where(chosen >= 0, after, value)
