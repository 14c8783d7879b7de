"""BadNets: training rows with a trigger and a wrong label (Gu, Dolan-Gavitt & Garg 2017)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.lib.settings import COUNT


@register_agent("badnets", kind="edits", knowledge="decision", needs=("relabelled",), allowed={"draws": COUNT})
def attack(env, *, draws=1, seed=0):
    """Rows of other classes, drawn at random, get the trigger and the target's label; the whole budget is used.

    Args:
        draws: of rows, a query each; the attack ends with the first that succeeds.
    """
    obs, _ = env.reset(seed=seed)
    known, draw = env.context["labels"].to(env.device), env.draws(seed)
    limit, held = env.table.limit, env.threat.null()
    for _ in range(draws):
        if env.done:
            break
        target = obs["target"].unsqueeze(1)
        key = torch.where(known == target, torch.inf, draw.uniform(len(known)))
        k = held.shape[1]
        value, row = key.topk(k, dim=1, largest=False)
        some = (torch.arange(k, device=row.device) < limit.unsqueeze(1)) & (value < torch.inf)
        held = torch.where(some.unsqueeze(2), torch.stack([row, target.expand_as(row)], 2), -1)
        obs, *_ = env.step(held)
    return held
