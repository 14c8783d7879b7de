"""Topological defective graph injection (Zou et al. 2021)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents._common import choose, fitness, hand_in
from advgym.agents._graph import no_graph
from advgym.agents._injection import Plan, by_gain, joined, plan_of
from advgym.agents._relaxed import strongest

SPARE = 2  # candidate features for each one that may be on


@register_agent("tdgia", kind="edits", knowledge="white-box")
def attack(env, *, stages=5, epochs=20, lr=0.3, k1=0.9, k2=0.1, margin=4.0, seed=0):
    """Inject in stages: connect new nodes to defective ones, then optimise their features smoothly (Zou et al. 2021).

    A target v of degree d is the more defective the larger (p_v + 2) (k1 / d + k2 / sqrt(b d)), where p_v is the
    probability of its clean label now and b the edges of a new node; the best are dealt so that each new node has
    targets of all classes in proportion. Features are binary here: the weights of the candidates of largest gradient
    follow (1 + sin theta) / 2, the smooth loss sum_v max(margin + log p_v, 0)^2 is descended by Adam, and the largest
    weights become features.

    Args:
        env: Edits that inject nodes; independent draws elsewhere.
        stages: batches of injected nodes; epochs: steps of Adam in each; lr: its step, in theta.

    A stage costs epochs + 2 queries and epochs + 1 gradients.
    """
    obs, _ = env.reset(seed=seed)
    plan = plan_of(env, obs)
    if plan is None or "scores" not in obs:
        return no_graph(env, seed)
    ref, state = obs["output"].clone(), env.threat.null()
    best, value = state, torch.full((len(state),), -torch.inf, device=state.device)
    bounds = [plan.many * s // stages for s in range(stages + 1)]
    for first, last in pairwise(bounds):
        if first == last or env.done:
            continue
        edges = plan.deal(_defective(plan, obs, ref, state, last - first, k1, k2), first, last)
        state = joined(env, state, edges)
        cells = by_gain(env, plan, state, first, last, SPARE * plan.features)
        if env.done:
            break
        weights = _optimised(env, ref, state, cells, epochs, lr, margin)
        state = env.threat.project(joined(env, state, _largest(plan, cells, weights)))
        if env.done:
            break
        obs, *_ = env.step(state)
        now = fitness(obs)
        best, value = choose(now > value, state, best), torch.maximum(now, value)
    return hand_in(env, choose(value > -torch.inf, best, env.threat.project(state)))


def _log_of_clean(scores: Tensor, ref: Tensor) -> Tensor:
    """The log-probability of each member's clean label, (lanes, M)."""
    return torch.log_softmax(scores, -1).gather(-1, ref.clamp_min(0).unsqueeze(-1)).squeeze(-1)


def _defective(plan: Plan, obs: dict, ref: Tensor, state: Tensor, nodes: int, k1: float, k2: float) -> Tensor:
    """Members by place in the order that edges are dealt in, (lanes, M): the chosen ones, classes in turn, first."""
    sure = _log_of_clean(obs["scores"].detach(), ref).exp() + 2
    degree = plan.degrees(state).gather(1, plan.members) + 1
    worth = sure * (k1 / degree + k2 / (degree * plan.degree).sqrt())
    rank = worth.argsort(1, descending=True).argsort(1)
    chosen = rank < nodes * plan.degree
    same = (ref.unsqueeze(2) == ref.unsqueeze(1)) & chosen.unsqueeze(1)  # (lanes, M, M)
    ahead = (same & (rank.unsqueeze(1) < rank.unsqueeze(2))).sum(2)
    share = (ahead + 0.5) / same.sum(2).clamp_min(1)
    return torch.where(chosen, share, 2.0 + rank).argsort(dim=1, stable=True)


def _optimised(env, ref: Tensor, state: Tensor, cells: Tensor, epochs: int, lr: float, margin: float) -> Tensor:
    """Weights (lanes, K) of candidate cells after descending the smooth loss."""
    p = joined(env, state, cells)
    start = (state[..., 0] >= 0).sum(1, keepdim=True)
    place = torch.arange(p.shape[1], device=p.device) - start  # of each row among the cells
    free = (place >= 0) & (place < cells.shape[1])
    at = place.clamp(0, cells.shape[1] - 1)
    theta = torch.full(cells.shape[:2], -0.5, device=p.device, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=lr)
    for _ in range(epochs):
        if env.done:
            break
        w = torch.where(free, ((1 + theta.sin()) / 2).gather(1, at), 1.0)
        w = torch.where(p[..., 0] >= 0, w, 0.0)
        obs, *_ = env.step((p, w))
        if not obs["scores"].requires_grad:
            break
        loss = (margin + _log_of_clean(obs["scores"], ref)).clamp_min(0).square().sum(1).sum()
        adam.zero_grad()
        (theta.grad,) = torch.autograd.grad(loss, theta)
        adam.step()
    return ((1 + theta.detach().sin()) / 2) * (cells[..., 0] >= 0)


def _largest(plan: Plan, cells: Tensor, weights: Tensor) -> Tensor:
    """The cells in order of weight: `project` keeps the first of each site."""
    return strongest(cells, weights, torch.full((len(cells),), cells.shape[1], device=cells.device))
