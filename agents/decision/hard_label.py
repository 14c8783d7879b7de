"""A hard-label attack: random start, search-space reduction, substitution (after Maheshwary et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import PATIENCE, first_new, known_of, names
from advgym.agents.shared.slots import Slots

TRIES = 8  # sets that are drawn where the first one was asked before


@register_agent("hard-label", kind="edits", knowledge="decision")
def attack(env, *, seed=0):
    """From labels alone: random full sets until one succeeds, then fewer edits, one query a step.

    The start is a random set of as many edits as are allowed. While it succeeds, edits are taken back one by one;
    when none can go alone, two are exchanged for one other. Where the first success ends the episode (`least=False`)
    the start is all there is. No set is asked twice; a lane that draws nothing new any more asks nothing.
    """
    env.reset(seed=seed)
    draws = env.draws(seed)
    slots = Slots(env, draws)
    x = slots.clean(1)[:, 0]
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    turn = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # edits tried without success since the last gain
    known, idle, step = known_of(env), torch.zeros_like(turn), 0
    while not env.done:
        fewer = torch.where((turn < (x >= 0).sum(1)).unsqueeze(1), _without(x, turn), _exchange(slots, draws, x))
        trial = torch.where(found.unsqueeze(1), fewer, _full(slots, draws))
        able = env.live & (idle < PATIENCE) & (~found | ((x >= 0).sum(1) > 1))
        if not bool(able.any()):
            break
        p, key = _named(env, slots, trial.unsqueeze(1))
        new = first_new(known, key, able.unsqueeze(1))[1]
        if bool((able & ~new).any()):  # draws of their own, so that no other lane's draws move on
            others = _others(slots, env.draws(seed + 7_919 * (step + 1)), x, found, turn)
            more, keys = _named(env, slots, others)
            at, some = first_new(known, keys, (able & ~new).unsqueeze(1))
            trial, p = choose(some, _at(others, at), trial), choose(some, _at(more, at), p[:, 0]).unsqueeze(1)
            key = torch.where(some.unsqueeze(1), keys.gather(1, at.unsqueeze(1)), key)
            # The edits that were passed over are known not to go; where nothing is new they all are.
            turn = torch.where(found & able & ~new, torch.where(some, turn + at, turn + slots.rows), turn)
            new = new | some
        idle, step = torch.where(new, 0, idle + 1), step + 1
        obs, *_ = env.step(torch.where(new.view(-1, 1, 1), p[:, 0], -1))
        answered = new & obs["evaluated"]
        known.add(key, answered.unsqueeze(1))
        hit = obs["success"] & obs["valid"] & answered
        turn = torch.where(hit, 0, torch.where(found & new, turn + 1, turn))
        x, found = choose(hit, trial, x), found | hit
    return slots.edits(x.unsqueeze(1))[:, 0]


def _named(env, slots: Slots, x: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (lanes, Q, slots) as valid perturbations, and their names."""
    p = env.threat.project(slots.edits(x))
    return p, names(env, p)


def _at(values: Tensor, at: Tensor) -> Tensor:
    """Of values (lanes, Q, ...) the one at a place for each lane."""
    return values[torch.arange(len(at), device=at.device), at]


def _others(slots: Slots, draws, x: Tensor, found: Tensor, turn: Tensor) -> Tensor:
    """What else may be tried, (lanes, Q, slots): every other edit taken back, then exchanges; or full sets."""
    parts, many = [], slots.rows + TRIES
    if bool(found.any()):
        back = [torch.where((turn + i < (x >= 0).sum(1)).unsqueeze(1), _without(x, turn + i), -1)
                for i in range(slots.rows)]  # fmt: skip
        parts.append(torch.stack(back + [_exchange(slots, draws, x) for _ in range(TRIES)], 1))
    if not parts or not bool(found.all()):
        full = torch.stack([_full(slots, draws) for _ in range(TRIES)], 1)
        parts.append(torch.cat([full, full[:, :1].expand(-1, many - TRIES, -1)], 1))
    return torch.where(found.view(-1, 1, 1), parts[0], parts[-1])


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
