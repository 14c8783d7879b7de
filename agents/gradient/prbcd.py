"""Projected gradient descent on relaxed edits: PRBCD (Geisler et al. 2021), over all pairs where no block is asked for.

The topology attack of Xu et al. (2019) is this method on every edit at once. What made that impossible on larger graphs
was a dense weight for each pair; here only edits whose weight is above 0 are kept, and `env.rank` finds which others
would rise above it, exactly. What random blocks did besides is kept: the best edits of all help the same few nodes, and
an epoch that is offered a tenth of them spreads the budget over more.
"""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.common import fitness
from advgym.agents.shared.relaxed import compact, loss_of, project, strongest
from advgym.errors import AdvgymError
from advgym.lib.settings import NATURAL, POSITIVE, SHARE, Range


@register_agent(
    "prbcd",
    kind="edits",
    knowledge="white-box",
    needs=("weights",),
    allowed={
        "epochs": NATURAL,
        "rate": POSITIVE,
        "settle": SHARE,
        "share": Range(0, 1, above=True),
        "samples": NATURAL,
        "loss": ("tanh", "surrogate"),
    },
)
def attack(env, *, epochs=125, rate=0.3, settle=0.6, samples=20, loss="tanh", share=0.1, start=(), seed=0):
    """Ascend a loss in the weights of edits, project to the budget, and try the largest weights in every epoch.

    Args:
        epochs: gradient steps; with 0 `start` alone is tried.
        rate: length of a step: the share of the budget that the best edits together would gain by it, whatever the
            loss's scale (PRBCD's own learning rates are per dataset).
        settle: the share of the epochs after which the steps shrink as 1 / sqrt(epochs since).
        samples: sets drawn from the final weights besides (Bernoulli, as PRBCD does).
        share: of the pairs that each epoch may take edits from, drawn anew; 1 for all of them.
        loss: "tanh" of the margin (Geisler et al. 2021), or "surrogate", the task's own.
        start: edits [(site, choice), ...] to descend from, of an attack on another model say: they are tried first, so
            that the outcome is no weaker than theirs.

    Costs two gradients and three queries an epoch. It needs edits that are ranked on top of relaxed ones
    (`env.table.weighted`).
    """
    obs, _ = env.reset(seed=seed)
    if not env.table.weighted:
        raise AdvgymError("prbcd descends on the weights of edits: play tasks such as graph/sbm-global")
    ref, draws, budget = obs["output"].clone(), env.draws(seed), env.table.limit
    p, w = env.threat.null(), torch.zeros(env.shape[0], device=env.device).expand(len(budget), -1)
    if len(start):
        given = torch.as_tensor(start, dtype=torch.int64, device=env.device).view(-1, 2)[: env.shape[0]]
        p[:, : len(given)] = given
        w = project((p[..., 0] >= 0).float(), budget)
        env.step(env.threat.project(strongest(p, w, budget)))
    for epoch in range(epochs):
        if env.done:
            return env.threat.project(strongest(p, w, budget))
        w = w.detach().requires_grad_()
        obs, *_ = env.step((p, w))
        if env.done:
            break
        along = loss_of(obs, ref, loss)
        (slope,) = torch.autograd.grad(obs["scores"], w, along, allow_unused=True)
        slope = torch.zeros_like(w) if slope is None else slope
        found, gains = env.rank(p, cotangent=along, k=round(env.shape[0] / share), weights=w.detach())
        if share < 1:
            offered = env.draws(seed + 7919 * epoch).uniform(found.shape[1]) < share
            gains = torch.where(offered, gains, -torch.inf)
            gains, at = gains.topk(min(env.shape[0], gains.shape[1]), 1)
            found = found.gather(1, at.unsqueeze(2).expand(-1, -1, 2))
        uphill = torch.cat([torch.where(p[..., 0] >= 0, slope.abs(), 0.0), gains.clamp_min(0)], 1)
        best = uphill.topk(int(budget.max()), 1).values.sum(1).clamp_min(1e-20)
        step = rate * budget / best / max(1.0, epoch - settle * epochs) ** 0.5
        p = torch.cat([p, found], 1)
        w = torch.cat([w.detach() + step.unsqueeze(1) * slope, step.unsqueeze(1) * gains.clamp_min(0)], 1)
        w = project(torch.where(p[..., 0] >= 0, w, 0.0), budget)
        p, w = compact(p, w, env.shape[0])
        w = project(w, budget)
        if not env.done:
            env.step(env.threat.project(strongest(p, w, budget)))
    best, value = env.threat.null(), torch.full((len(budget),), -torch.inf, device=env.device)
    for nth in range(samples + 1):
        if env.done:
            break
        drawn = w if nth == 0 else torch.where(draws.uniform(w.shape[1]) < w, 1.0 + w, 0.0)
        proposal = env.threat.project(strongest(p, drawn, budget))
        obs, *_ = env.step(proposal)
        found = fitness(obs)
        best = torch.where((found > value).view(-1, 1, 1), proposal, best)
        value = torch.maximum(value, found)
    return best
