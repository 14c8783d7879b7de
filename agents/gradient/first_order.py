"""First-order edits: rank all single edits by one gradient, try the best (Ebrahimi et al. 2018; Chen et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness, sweep
from advgym.agents.shared.once import once


@register_agent("first-order", kind="edits", knowledge="white-box", proposals=8)
def attack(env, *, exchange=True, classes=True, seed=0):
    """HotFlip and FGA in one: take the edit of largest first-order gain, checked among the best few, and go on.

    Costs one gradient and 1 + proposals queries per edit. The best candidate is taken even where it does not help yet:
    the next gradient is read from there. When the set is full, edits are exchanged one by one while that helps; then
    each other class is aimed at by itself, the likeliest first (as multi-targeted PGD does, Gowal et al. 2019).
    """
    obs, _ = env.reset(seed=seed)
    env = once(env)
    scores, ref = obs["scores"][:, 0].detach(), obs["output"][:, 0]
    state, best, most = env.threat.null(), clean_fitness(obs), int(env.table.limit.max())
    held, best, state = _fill(env, state, state, best, most)
    idle, row = 0, 0
    while exchange and not env.done and idle < most:
        dropped = held.clone()
        dropped[:, row % most] = -1
        before = best
        held, best, _ = _fill(env, dropped, held, best, 1)
        idle = 0 if bool(((best > before) & env.live).any()) else idle + 1
        row += 1
    if classes and scores.dim() == 2 and scores.shape[1] > 2 and ref.dim() == 1:
        own = torch.nn.functional.one_hot(ref.clamp_min(0), scores.shape[1]).bool()
        order = scores.masked_fill(own, -torch.inf).argsort(dim=1, descending=True)
        for nth in range(scores.shape[1] - 1):
            aim = torch.nn.functional.one_hot(order[:, nth], scores.shape[1]).float() - own.float()
            held, best, _ = _fill(env, env.threat.null(), held, best, most, aim)
    return held


def _fill(env, state: Tensor, held: Tensor, best: Tensor, edits: int, aim: Tensor | None = None):
    """Up to `edits` more edits on top of `state`, each the best of the first-order candidates.

    `aim` (lanes, classes) ranks and picks by a combination of scores in place of the objective.

    Returns:
        (the best set seen so far, its fitness, the last set).
    """
    lane = torch.arange(len(state), device=state.device)
    for _ in range(edits):
        if env.done:
            break
        found, gains = env.rank(state, cotangent=aim, k=env.proposals)
        room = (state[..., 0] >= 0).sum(1) < env.table.limit
        found = torch.where((gains.isfinite() & room.unsqueeze(1)).unsqueeze(2), found, -1)
        if not bool((found >= 0).any()):
            break
        value, merit = sweep(env, state, found, _merit(aim))
        at = merit.argmax(1)
        state = choose(merit.isfinite().any(1), env.threat.compose(state, found[lane, at]), state)
        better = value[lane, at] > best
        held, best = choose(better, state, held), torch.where(better, value[lane, at], best)
    return held, best, state


def _merit(aim: Tensor | None):
    """What a candidate is picked by: its fitness, or the scores along `aim`."""
    if aim is None:
        return fitness

    def along(obs: dict) -> Tensor:
        value = (obs["scores"].detach() * aim.unsqueeze(1)).sum(2)
        return torch.where(fitness(obs).isfinite(), value, -torch.inf)

    return along
