"""Random search: independent draws until the budget is spent."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.once import once


@register_agent("random-search", kind=("field", "edits"), knowledge="decision", proposals=8)
def attack(env, *, seed=0):
    """Independent random perturbations until one succeeds, the queries are spent, or nothing new is drawn."""
    env.reset(seed=seed)
    best, found, t = env.threat.null(), None, 0
    asked = once(env)
    while not asked.done:
        p = env.threat.random(seed * 1_000_003 + t, env.proposals)
        obs, *_ = asked.step(p)
        good = obs["success"] & obs["valid"] & obs["evaluated"]
        first = good.to(torch.int8).argmax(1)
        new = good.any(1) if found is None else good.any(1) & ~found
        best = torch.where(new.view(-1, *[1] * len(env.shape)), p[torch.arange(len(p)), first], best)
        found = new if found is None else found | new
        t += 1
        if env.knowledge == "transfer" and t * env.proposals >= min(env.threat.model.queries // 2, 256):
            break  # nothing says when to stop
    return best
