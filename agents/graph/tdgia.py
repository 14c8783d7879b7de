"""Topological defective graph injection (Zou et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import choose, fitness
from advgym.agents.shared.injecting import Plan, by_gain, joined, plan_of
from advgym.agents.shared.relaxed import strongest
from advgym.lib.settings import COUNT, NATURAL, POSITIVE

SPARE = 2  # candidate features for each one that may be on
START = -0.5  # theta of a new candidate: a weight of 0.26


@register_agent(
    "tdgia",
    kind="edits",
    knowledge="white-box",
    needs=("injection",),
    allowed={"stages": COUNT, "epochs": COUNT, "lr": POSITIVE, "k1": NATURAL, "k2": NATURAL, "margin": NATURAL},
)
def attack(env, *, stages=5, epochs=40, lr=0.3, k1=0.9, k2=0.1, margin=4.0, seed=0):
    """Inject in stages: connect new nodes to defective ones, then optimise all features smoothly (Zou et al. 2021).

    A target v of degree d is the more defective the larger (p_v + 2) (k1 / d + k2 / sqrt(b d)), where p_v is the
    probability of its clean label now and b the edges of a new node; the best are dealt so that each new node has
    targets of all classes in proportion. Features are binary here: the weights of the candidates of largest gradient
    follow (1 + sin theta) / 2, and those of a node share its budget of features where they would exceed it. The smooth
    loss sum_v max(margin + log p_v, 0)^2 is descended by Adam, and the largest weights become features. Later stages go
    on with the features of earlier ones.

    Args:
        env: Edits that inject nodes.
        stages: batches of injected nodes; epochs: steps of Adam in each; lr: its step, in theta.

    A stage costs epochs + 2 queries and epochs + 1 gradients. The whole is played in one stage first: stages adapt, but
    where edges are fewer than members they come back to the same ones. The better of both is handed in.
    """
    obs, _ = env.reset(seed=seed)
    plan = plan_of(env, obs, "tdgia")
    ref, best = obs["output"].clone(), env.threat.null()
    value = torch.full((len(best),), -torch.inf, device=best.device)
    for parts in dict.fromkeys((1, stages)):
        for state, now in _staged(env, plan, obs, ref, parts, epochs, lr, (k1, k2), margin):
            best, value = choose(now > value, state, best), torch.maximum(now, value)
    return best


def _staged(
    env, plan: Plan, obs: dict, ref: Tensor, stages: int, epochs: int, lr: float, k: tuple[float, float], margin: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """One injection from `obs`, the clean answers, on: (perturbation, fitness) after every stage."""
    state = env.threat.null()
    edges, cells = state, state[:, :0]
    theta = torch.zeros(cells.shape[:2], device=state.device)
    bounds = [plan.many * s // stages for s in range(stages + 1)]
    for first, last in pairwise(bounds):
        if first == last or env.done:
            continue
        more = plan.deal(_defective(plan, obs, ref, state, last - first, *k), first, last)
        edges = env.threat.project(joined(env, edges, more))
        fresh = by_gain(env, plan, joined(env, state, more), first, last, SPARE * plan.features)
        cells = torch.cat([cells, fresh], 1)
        theta = torch.cat([theta, torch.full(fresh.shape[:2], START, device=theta.device)], 1)
        theta = _optimised(env, plan, ref, edges, cells, theta, epochs, lr, margin)
        state = env.threat.project(joined(env, edges, _largest(plan, cells, theta)))
        if env.done:
            # Nothing can be asked any more: it counts for less than anything that was.
            yield state, torch.full((len(state),), torch.finfo(torch.float32).min, device=state.device)
            return
        obs, *_ = env.step(state)
        yield state, fitness(obs)


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


def _weights(plan: Plan, cells: Tensor, theta: Tensor) -> Tensor:
    """Weights (lanes, K) of candidate cells; those of a node sum up to its budget of features at most."""
    real = cells[..., 0] >= 0
    free, node = (1 + theta.sin()) / 2 * real, torch.where(real, cells[..., 0] - plan.many, plan.many)
    total = torch.zeros(len(cells), plan.many + 1, device=cells.device).scatter_add(1, node, free)
    return free * (plan.features / total.clamp_min(plan.features)).gather(1, node)


def _optimised(
    env, plan: Plan, ref: Tensor, edges: Tensor, cells: Tensor, theta: Tensor, epochs: int, lr: float, margin: float
) -> Tensor:
    """Theta (lanes, K), of the weights of candidate cells, after descending the smooth loss."""
    p = joined(env, edges, cells)
    start = (edges[..., 0] >= 0).sum(1, keepdim=True)
    real = cells[..., 0] >= 0
    # `joined` packs the real cells behind the edges, in their order: the nth row there is the nth real cell.
    order = (~real).to(torch.int8).argsort(dim=1, stable=True)
    place = torch.arange(p.shape[1], device=p.device) - start
    free = (place >= 0) & (p[..., 0] >= 0)
    at = order.gather(1, place.clamp(0, cells.shape[1] - 1))
    theta = theta.clone().requires_grad_()
    adam = torch.optim.Adam([theta], lr=lr)
    for _ in range(epochs):
        if env.done:
            break
        w = torch.where(free, _weights(plan, cells, theta).gather(1, at), (p[..., 0] >= 0).float())
        obs, *_ = env.step((p, w))
        if not obs["scores"].requires_grad:
            break
        loss = (margin + _log_of_clean(obs["scores"], ref)).clamp_min(0).square().sum(1).sum()
        adam.zero_grad()
        (theta.grad,) = torch.autograd.grad(loss, theta)
        adam.step()
    return theta.detach()


def _largest(plan: Plan, cells: Tensor, theta: Tensor) -> Tensor:
    """The cells in order of weight: `project` keeps the first of each site."""
    many = torch.full((len(cells),), cells.shape[1], device=cells.device)
    return strongest(cells, _weights(plan, cells, theta), many)
