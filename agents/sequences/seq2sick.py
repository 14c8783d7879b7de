"""Projected gradient with group lasso on relaxed edits; a search for several keywords (Seq2Sick: Cheng et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared import keywords
from advgym.agents.shared.common import best_of, choose, clean_fitness, fitness, sweep
from advgym.lib.settings import COUNT, NATURAL, POSITIVE

START = 0.5  # weight of a new edit
GONE = 0.05  # rounded to nothing below


@register_agent(
    "seq2sick",
    kind="edits",
    knowledge="white-box",
    proposals=48,
    allowed={"steps": COUNT, "sets": COUNT, "rate": POSITIVE, "lasso": NATURAL, "ranked": COUNT, "width": COUNT},
)
def attack(env, *, steps=4, sets=2, rate=0.5, lasso=0.15, ranked=64, width=20, seed=0):
    """Projected gradient with group lasso on relaxed edits, rounded, repaired and pruned (Cheng et al. 2018).

    The variable is a weight in [0, 1] per site: how far its word has moved to a substitute (a word is the group). The
    nearest substitute along the gradient is the projection: it is ranked for all sites at the last rounding. A round
    ascends the goal's hinge surrogate over a few active sets of as many sites as a perturbation holds; the lasso
    empties most of them, and the largest weights are rounded to 1. A rounding that loses its success is repaired: its
    edits are exchanged one by one for the best that one more gradient proposes. The next round starts there, or from
    clean with other sites once that helps no more.

    Two and three keywords have the paper's loss, each at positions that no other holds, and a search of another kind
    (`_keywords`, after Zou et al. 2023): one edit goes, one gradient per keyword ranks what may come in its place, and
    the best of `width` that were asked comes.

    Args:
        env: of Edits.
        steps: of the gradient in a round, each a query and a gradient per set.
        sets: active sets of a round.
        rate: step size, relative to the largest slope.
        lasso: the penalty, in the same units.
        ranked: substitutes that active sets are drawn from, and those of each keyword's gradient.
        width: substitutes asked in a round of the search for several keywords.
        seed: of the draws.
    """
    obs, _ = env.reset(seed=seed)
    goal, wish = env.threat.model, env.threat.model.constraint.get("keywords", 1)
    if goal.goal == "keyword" and wish > 1 and env.knowledge == "white-box" and not goal.least:
        return keywords.search(env, width=width, ranked=ranked, seed=seed)
    best, held = clean_fitness(obs), env.threat.null()
    soft, draws = env.view(proposals=sets), env.draws(seed)
    state, local, idle = held, torch.full_like(best, -torch.inf), 0
    starts = 0
    while not env.done and bool((obs["gradients_left"] > 0).any()):
        found, gains = env.rank(state, k=ranked)
        found = torch.where(gains.isfinite().unsqueeze(2), found, -1)
        edits, weights = active_sets(state, found, sets, draws, starts)
        if not bool((edits >= 0).any()):
            break
        weights = ascend(soft, edits, weights, steps, rate, lasso)
        if env.done:
            break
        hard = rounded(soft, edits, weights)
        obs, *_ = soft.step(hard)
        value, pick = best_of(fitness(obs), hard)
        value, pick = repair(env, pick, value)
        better = value > local
        idle = 0 if bool((better & env.live).any()) else idle + 1
        local, state = torch.maximum(local, value), choose(better, pick, state)
        top = local > best
        best, held = torch.maximum(best, local), choose(top, state, held)
        if idle:  # elsewhere
            state, local, idle, starts = env.threat.null(), torch.full_like(best, -torch.inf), 0, starts + 1
    if env.threat.model.least:
        prune(env, held)
    return held


def repair(env, state: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Each edit in turn makes room for the best of those that a gradient proposes: (fitness, set)."""
    lane = torch.arange(len(state), device=state.device)
    for row in range(int(env.table.limit.max())):
        if env.done:
            break
        dropped = state.clone()
        dropped[:, row] = -1
        found, gains = env.rank(dropped, k=env.proposals)
        room = (dropped[..., 0] >= 0).sum(1) < env.table.limit
        found = torch.where((gains.isfinite() & room.unsqueeze(1)).unsqueeze(2), found, -1)
        tried, _ = sweep(env, dropped, found)
        top, at = tried.max(1)
        better = top > value
        state = choose(better, env.threat.compose(dropped, found[lane, at]), state)
        value = torch.maximum(value, top)
    return value, state


def active_sets(state: Tensor, found: Tensor, many: int, draws, starts: int = 0) -> tuple[Tensor, Tensor]:
    """`many` sets of E edits per lane with their first weights: int64 (lanes, P, E, 2), float32 (lanes, P, E).

    The first set holds all of `state` and the best of `found`; the others drop some of it and draw from further down,
    and so do all after `starts` starts from clean.
    """
    lanes, rows = state.shape[:2]
    pool = torch.cat([state, found], 1).unsqueeze(1).expand(-1, many, -1, -1)
    u = draws.uniform(many, pool.shape[2])
    bold = torch.arange(starts, starts + many, device=state.device).clamp_max(4).view(1, -1, 1)
    kept = torch.where((bold > 0) & (u[..., :rows] < 0.4), -2.0 * len(found[0]), 1.0)
    rank = -torch.arange(found.shape[1], device=state.device) - u[..., rows:] * bold * 6.0
    order = torch.cat([kept, rank], 2).argsort(dim=2, descending=True, stable=True)
    pool = pool.gather(2, order.unsqueeze(3).expand(-1, -1, -1, 2))
    weight = torch.where(order < rows, 1.0, START)
    site = pool[..., 0]
    again = ((site.unsqueeze(3) == site.unsqueeze(2)).tril(-1)).any(3) | (site < 0)
    front = again.to(torch.int8).argsort(dim=2, stable=True)[..., :rows]
    edits = torch.where(again.unsqueeze(3), -1, pool).gather(2, front.unsqueeze(3).expand(-1, -1, -1, 2))
    if edits.shape[2] < rows:
        edits = torch.cat([edits, edits.new_full((lanes, many, rows - edits.shape[2], 2), -1)], 2)
        front = torch.nn.functional.pad(front, (0, rows - front.shape[2]))
    return edits, torch.where(edits[..., 0] >= 0, weight.gather(2, front), 0.0)


def ascend(env, edits: Tensor, weights: Tensor, steps: int, rate: float, lasso: float) -> Tensor:
    """Proximal gradient steps on the surrogate minus the lasso, weights held in [0, 1]."""
    for _ in range(steps):
        if env.done:
            break
        w = weights.detach().requires_grad_()
        obs, *_ = env.step((edits, w))
        (g,) = torch.autograd.grad(obs["surrogate"].sum(), w)
        g = g / g.abs().amax(2, keepdim=True).clamp_min(1e-12)
        weights = (w.detach() + rate * (g - lasso)).clamp(0, 1)
    return weights


def rounded(env, edits: Tensor, weights: Tensor) -> Tensor:
    """The edits of largest weight as a valid set, null where none is left: (lanes, P, E, 2)."""
    order = weights.argsort(dim=2, descending=True, stable=True)
    some = (weights > GONE).gather(2, order).unsqueeze(3)
    return env.threat.project(torch.where(some, edits.gather(2, order.unsqueeze(3).expand(-1, -1, -1, 2)), -1))


def prune(env, held: Tensor) -> Tensor:
    """Edits of a success that it can do without are dropped, one by one; the environment holds the least set."""
    for row in range(held.shape[1]):
        if env.done:
            break
        fewer = held.clone()
        fewer[:, row] = -1
        used = (held[:, row, 0] >= 0) & ((held[..., 0] >= 0).sum(1) > 1) & env.live
        if not bool(used.any()):
            continue
        asked = env.threat.null().unsqueeze(1).repeat(1, env.proposals, 1, 1)
        asked[:, 0] = torch.where(used.view(-1, 1, 1), fewer, -1)
        obs, *_ = env.step(asked)
        held = choose(used & (obs["success"] & obs["valid"])[:, 0], fewer, held)
    return held
