"""Label-only search: RayS on Fields (Chen and Gu 2020), draws and pruning on Edits."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.decision import rays
from advgym.agents.shared.common import choose
from advgym.agents.shared.once import PATIENCE, first_new, known_of, names

ROUNDS = 16  # sets drawn in place of one that is known
Rays = rays.Rays  # where it was


@register_agent("decision-search", kind=("field", "edits"), knowledge="decision")
def attack(env, *, seed=0):
    """From the label alone: sign directions by their distance to the boundary; random sets of edits, pruned."""
    if env.kind == "field":
        return rays.attack(env, seed=seed)
    env.reset(seed=seed)
    return _draw_and_prune(env, seed)


def _draw_and_prune(env, seed: int):
    """Random sets until one succeeds; where the least distortion is wanted, edits are then dropped one by one.

    Nothing is asked twice: where a set is known already, the first new one of all other drops and more draws is asked.
    """
    held, t = env.threat.null(), 0
    known = known_of(env)
    found = torch.zeros(len(held), dtype=torch.bool, device=held.device)
    idle = torch.zeros(len(held), dtype=torch.int64, device=held.device)
    while not env.done and bool((env.live & (idle < PATIENCE)).any()):
        tries = env.threat.random(seed * 1_000_003 + t).unsqueeze(1)
        if bool(found.any()):
            tries = torch.cat([_drops(held, found, t), tries], 1)
        key = names(env, tries)
        at, new = first_new(known, key, env.live.unsqueeze(1))
        if bool((~new & env.live).any()):
            more = env.threat.random(seed * 1_000_003 + 2**40 + t, ROUNDS)
            key = torch.cat([key, names(env, more)], 1)
            tries = torch.cat([tries, more], 1)
            at, new = first_new(known, key, env.live.unsqueeze(1))
        idle = torch.where(new, 0, idle + 1)
        p = torch.where(new.view(-1, 1, 1), tries[torch.arange(len(at), device=at.device), at], -1)
        obs, *_ = env.step(p)
        known.add(key.gather(1, at.unsqueeze(1)), (new & obs["evaluated"]).unsqueeze(1))
        hit = obs["success"] & obs["valid"] & obs["evaluated"]
        fewer = (p[..., 0] >= 0).sum(1) < (held[..., 0] >= 0).sum(1)
        held = choose(hit & (~found | fewer), p, held)
        found = found | hit
        t += 1
        if env.knowledge == "transfer" and t >= env.threat.model.queries // 2:
            break
    return held


def _drops(held: torch.Tensor, found: torch.Tensor, t: int) -> torch.Tensor:
    """`held` (lanes, E, 2) without each of its rows, beginning with row t: (lanes, E, E, 2), null before a success."""
    rows = held.shape[1]
    row = torch.arange(rows, device=held.device)
    gone = row == ((row + t) % rows).unsqueeze(1)
    fewer = torch.where(gone.view(1, rows, rows, 1), -1, held.unsqueeze(1))
    return torch.where((found & ((held[..., 0] >= 0).sum(1) > 1)).view(-1, 1, 1, 1), fewer, -1)
