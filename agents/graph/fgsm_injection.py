"""Fast gradient sign on the features of injected nodes (Goodfellow et al. 2015, as in GRB: Zheng et al. 2021)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import choose, fitness
from advgym.agents.shared.injecting import by_gain, joined, plan_of
from advgym.lib.settings import COUNT


@register_agent("fgsm-injection", kind="edits", knowledge="white-box", needs=("injection",), allowed={"tries": COUNT})
def attack(env, *, tries=10, seed=0):
    """Random edges to target nodes, then the features whose gradient is positive and largest, in one step.

    Binary features have no step size: what the sign of the gradient would turn on is turned on, the largest first, up
    to the budget of each node. Two queries and a gradient a try; the best try is handed in.

    Args:
        env: Edits that inject nodes.
        tries: how often edges are drawn.
    """
    obs, _ = env.reset(seed=seed)
    plan = plan_of(env, obs, "fgsm-injection")
    draws, best = env.draws(seed), env.threat.null()
    value = torch.full((len(best),), -torch.inf, device=best.device)
    for _ in range(tries):
        if env.done:
            break
        order = draws.uniform(plan.members.shape[1]).argsort(1)
        edges = joined(env, plan.deal(order, 0, plan.many))
        state = joined(env, edges, by_gain(env, plan, edges, 0, plan.many, plan.features))
        state = env.threat.project(state)
        if env.done:
            return choose(value > -torch.inf, best, state)
        obs, *_ = env.step(state)
        now = fitness(obs)
        best, value = choose(now > value, state, best), torch.maximum(now, value)
    return best
