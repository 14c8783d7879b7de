"""A hard-label attack: random start, search-space reduction, substitution (after Maheshwary et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents._common import choose, halfway, hand_in
from advgym.agents._slots import Slots


@register_agent("hard-label", kind="edits", knowledge="decision")
def attack(env, *, seed=0):
    """From labels alone: random full sets until one succeeds, then fewer edits, one query a step.

    The start is a random set of as many edits as are allowed. While it succeeds, edits are taken back one by one;
    when none can go alone, two are exchanged for one other. Where the first success ends the episode (`least=False`)
    the start is all there is.
    """
    env.reset(seed=seed)
    draws = env.draws(seed)
    slots = Slots(env, draws)
    x = slots.clean(1)[:, 0]
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    turn = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # edits tried without success since the last gain
    while not env.done:
        fewer = torch.where((turn < (x >= 0).sum(1)).unsqueeze(1), _without(x, turn), _exchange(slots, draws, x))
        trial = torch.where(found.unsqueeze(1), fewer, _full(slots, draws))
        p = slots.edits(trial.unsqueeze(1))[:, 0]
        go = env.live & (trial >= 0).any(1) & (~found | ((x >= 0).sum(1) > 1))
        if not bool(go.any()):
            break
        p = env.threat.project(torch.where(go.view(-1, 1, 1), p, -1))
        obs, *_ = env.step(p)
        hit = obs["success"] & obs["valid"] & obs["evaluated"] & go
        turn = torch.where(hit, 0, torch.where(found, turn + 1, turn))
        x, found = choose(hit, trial, x), found | hit
        if halfway(env, obs):
            break
    return hand_in(env, slots.edits(x.unsqueeze(1))[:, 0])


def _full(slots: Slots, draws) -> Tensor:
    """A random set of as many edits as are allowed: (lanes, slots)."""
    every = torch.arange(slots.slots, device=slots.cells.device).expand(len(slots.cells), -1)
    cell = slots.cell_of(every, draws.uniform(slots.slots))
    return slots.trim(cell.unsqueeze(1), draws.uniform(1, slots.slots))[:, 0]


def _without(x: Tensor, turn: Tensor) -> Tensor:
    """The set x with its edit number `turn` taken back, counted from the last one."""
    nth = (x >= 0).flip(1).cumsum(1).flip(1) - 1
    return torch.where(nth == turn.unsqueeze(1), -1, x)


def _exchange(slots: Slots, draws, x: Tensor) -> Tensor:
    """The set x with two random edits taken back and another one made."""
    used = x >= 0
    rank = torch.where(used, draws.uniform(x.shape[1]), 2.0).argsort(dim=1).argsort(dim=1)
    less = torch.where(rank < 2, -1, x).unsqueeze(1)
    free = slots.free(less).float()
    return slots.put(less, slots.pick(free, draws.uniform(1)))[:, 0]
