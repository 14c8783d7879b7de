"""Greedy block coordinate descent: GRBCD (Geisler et al. 2021), over all pairs in place of random blocks."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import choose, clean_fitness, fitness
from advgym.agents.shared.relaxed import loss_of
from advgym.lib.settings import COUNT


@register_agent("grbcd", kind="edits", knowledge="white-box", allowed={"epochs": COUNT, "loss": ("tanh", "surrogate")})
def attack(env, *, epochs=125, loss="tanh", seed=0):
    """Flip the best few edits by first order, for good, and take the next gradient there, until the budget is used.

    Args:
        epochs: gradients at most; each flips budget / epochs edits (at least one).
        loss: "tanh" of the margin, or "surrogate", the task's own.

    Costs two queries (the gradient's, and the answer to the set so far) and one gradient an epoch.
    """
    obs, _ = env.reset(seed=seed)
    ref, budget = obs["output"].clone(), env.table.limit
    state, each = env.threat.null(), -(-int(budget.max()) // epochs)
    best, held = clean_fitness(obs), state
    weights = torch.ones(state.shape[:2], device=env.device)
    for _ in range(-(-int(budget.max()) // each)):
        if env.done:
            break
        obs, *_ = env.step((state, weights.clone().requires_grad_()))
        better = fitness(obs) > best
        held, best = choose(better, state, held), torch.where(better, fitness(obs), best)
        if env.done:
            break
        found, gains = env.rank(state, cotangent=loss_of(obs, ref, loss), k=each)
        room = budget - (state[..., 0] >= 0).sum(1)
        take = (gains > -torch.inf) & (torch.arange(each, device=env.device) < room.unsqueeze(1))
        if not bool(take.any()):
            break
        state = env.threat.project(_append(state, torch.where(take.unsqueeze(2), found, -1)))
    if not env.done:
        obs, *_ = env.step(state)
        held = choose(fitness(obs) > best, state, held)
    return held


def _append(state: torch.Tensor, edits: torch.Tensor) -> torch.Tensor:
    """Edits (lanes, k, 2) in the free rows of a set (lanes, E, 2)."""
    both = torch.cat([state, edits], 1)
    order = (both[..., 0] >= 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : state.shape[1]]
    return both.gather(1, order.unsqueeze(2).expand(-1, -1, 2))
