"""Label-only search: RayS on Fields (Chen and Gu 2020), draws and pruning on Edits."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import choose, hand_in, wide


@register_agent("decision-search", kind=("field", "edits"), knowledge="decision")
def attack(env, *, seed=0):
    """From the label alone: sign directions by their distance to the boundary; random sets of edits, pruned."""
    env.reset(seed=seed)
    return _rays(env, seed) if env.kind == "field" else _draw_and_prune(env, seed)


def _rays(env, seed: int):
    """RayS: flip ever smaller blocks of a sign vector, keep a flip when it brings the boundary nearer.

    Every lane runs its own state machine and asks one point a step: a check at the best radius, or a bisection.
    """
    shape, reach = env.shape, env.threat.reach
    n, size = len(reach), env.threat.null()[0].numel()
    r_max = 8 * reach
    sign = torch.ones(n, size, device=reach.device)
    best = r_max.clone()  # radius of the boundary along `sign`, or r_max while none is known
    known = torch.zeros(n, dtype=torch.bool, device=reach.device)
    block, level = (
        torch.zeros(n, dtype=torch.int64, device=reach.device),
        torch.zeros(n, dtype=torch.int64, device=reach.device),
    )
    low, high = torch.zeros_like(reach), best.clone()
    bisect = torch.zeros(n, dtype=torch.bool, device=reach.device)
    position = torch.arange(size, device=reach.device)
    trial, held, index = sign.clone(), env.threat.null(), 0
    while not env.done:
        radius = torch.where(bisect, (low + high) / 2, best)
        p = env.threat.steepest(trial.view(n, *shape)) * wide(radius, env.threat.null())
        p = torch.where(wide(radius <= reach, p), env.threat.project(p), p)
        obs, *_ = env.step(p)
        hit = obs["success"] & obs["evaluated"]
        held = choose(hit & obs["valid"], p, held)
        # A check that holds opens a bisection; a bisection closes when it is tight.
        high = torch.where(hit, radius, torch.where(bisect, high, best))
        low = torch.where(bisect & ~hit, radius, torch.where(bisect, low, torch.zeros_like(low)))
        done = torch.where(bisect, (high - low) < 0.05 * reach, ~hit)
        gained = bisect & done
        sign = torch.where(gained.unsqueeze(1), trial, sign)
        best, known = torch.where(gained, high, best), known | gained
        bisect = ~done
        # The next block: at level l the vector is cut into 2**l blocks.
        block = torch.where(done, block + 1, block)
        over = block >= 2**level
        level = torch.where(over, level + 1, level)
        level = torch.where(2**level > size, torch.zeros_like(level), level)
        block = torch.where(over, torch.zeros_like(block), block)
        inside = (position * (2**level).unsqueeze(1)) // size == block.unsqueeze(1)
        trial = torch.where((done & known).unsqueeze(1), torch.where(inside, -sign, sign), trial)
        # Until a first adversarial direction is known, try random ones: coarse ones first.
        index += 1
        fresh = torch.sign(_blocks(env, seed + index, size, 2 ** min(3 + index // 4, 12)) - 0.5)
        trial = torch.where((done & ~known).unsqueeze(1), fresh, trial)
        if env.knowledge == "transfer" and index >= env.threat.model.queries // 2:
            break
    return hand_in(env, held)


def _blocks(env, seed: int, size: int, parts: int) -> torch.Tensor:
    """Piecewise constant uniforms (lanes, size) of `parts` pieces."""
    parts = min(parts, size)
    value = env.draws(seed).uniform(parts)
    return value.repeat_interleave(-(-size // parts), 1)[:, :size]


def _draw_and_prune(env, seed: int):
    """Random sets until one succeeds; where the least distortion is wanted, edits are then dropped one by one."""
    held, found, t = env.threat.null(), None, 0
    while not env.done:
        p = env.threat.random(seed * 1_000_003 + t)
        if found is not None and bool(found.any()):
            used = (held[..., 0] >= 0).sum(1)
            row = t % held.shape[1]
            fewer = held.clone()
            fewer[:, row] = -1
            p = torch.where((found & (used > 1)).view(-1, 1, 1), fewer, p)
        obs, *_ = env.step(p)
        hit = obs["success"] & obs["valid"] & obs["evaluated"]
        fewer = (p[..., 0] >= 0).sum(1) < (held[..., 0] >= 0).sum(1)
        take = hit if found is None else hit & (~found | fewer)
        held = choose(take, p, held)
        found = hit if found is None else found | hit
        t += 1
        if env.knowledge == "transfer" and t >= env.threat.model.queries // 2:
            break
    return hand_in(env, held)
