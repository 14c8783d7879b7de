"""Carlini and Wagner's attacks, in L2, L0 and Linf (2017)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.gradients.adam import Adam
from advgym.agents.shared.gradients.least import TINY, Least, linear_distance, objective
from advgym.lib.settings import COUNT, NATURAL, POSITIVE

EDGE = 0.999999  # of the box: tanh never reaches its ends
WAIT = 10  # a run is looked at so many times; one whose loss no longer falls is over
ROUNDS = 20  # of L0 and Linf


@register_agent(
    "cw", kind="field", knowledge="white-box", needs=("l0-l2-linf",),
    allowed={"steps": COUNT, "search": COUNT, "rate": POSITIVE, "confidence": NATURAL},
)  # fmt: skip
def attack(env, *, steps=200, search=5, rate=0.02, confidence=0.0, seed=0):
    """Distance plus c times the margin, in tanh space, by Adam and a search for c (Carlini and Wagner 2017).

    c begins where the linearised problem has it, so a few rounds of the search do for the nine of the paper. A lane
    whose loss no longer falls stops its run and asks no more in it. L0 holds values fast that matter least, Linf
    lowers the bound beyond which a change costs, both as the paper does, from where the last round ended.

    Args:
        steps: at most, of a run, a query and a gradient each.
        search: rounds of the search for c (L2).
        rate: of Adam. confidence: the objective that counts as reached.
    """
    env.reset(seed=seed)
    least = Least(env)
    _, f, g = least.ask(torch.zeros_like(least.low), objective)
    c = 2 * linear_distance("l2", f, g) / torch.linalg.vector_norm(g, dim=1).clamp_min(TINY)
    run = Run(steps, rate, confidence)
    return {"l2": _search, "l0": _fewer, "linf": _lower}[least.norm](env, least, run, c, search)


class Run(NamedTuple):
    """The settings of an inner minimisation."""

    steps: int
    rate: float
    confidence: float


def _search(env, least: Least, run: Run, c: Tensor, rounds: int) -> Tensor:
    """L2: c falls by a success and rises by a failure, by ten until both are known, then to their geometric mean."""
    low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
    for _ in range(rounds):
        if env.done:
            break
        found, _ = minimise(env, least, run, c, torch.zeros_like(c), None, torch.zeros_like(least.low))
        high = torch.where(found, torch.minimum(high, c), high)
        low = torch.where(found, low, torch.maximum(low, c))
        between = torch.where(low > 0, (low * high).sqrt(), c / 10)
        c = torch.where(high < torch.inf, between, c * 10)
    return least.best


def _fewer(env, least: Least, run: Run, c: Tensor, rounds: int) -> Tensor:
    """L0: after each success those values are held fast whose change helps the margin least."""
    c = 10 * c
    free = torch.ones_like(least.low)
    start = torch.zeros_like(least.low)
    for _ in range(ROUNDS):
        if env.done:
            break
        found, δ = minimise(env, least, run, c, torch.zeros_like(c), free, start)
        _, _, g = least.ask(δ * free, objective)
        gain = torch.where(free > 0, (g * δ).abs(), torch.inf)
        changed = ((δ != 0) & (free > 0)).sum(1)
        gain = torch.where(δ != 0, gain, 0.0) + torch.where(free > 0, 0.0, torch.inf)
        drop = (free.sum(1) - changed + (0.3 * changed).ceil()).unsqueeze(1)
        fewer = torch.where(gain.argsort(dim=1).argsort(dim=1) < drop, 0.0, free)
        free = torch.where(found.unsqueeze(1), fewer, free)
        c = torch.where(found, c, 4 * c)
        start = δ * free
    return least.best


def _lower(env, least: Least, run: Run, c: Tensor, rounds: int) -> Tensor:
    """Linf: what of a change is above τ costs; after each success τ falls to a tenth below the largest change."""
    τ = env.threat.reach.clone()
    start = torch.zeros_like(least.low)
    for _ in range(ROUNDS):
        if env.done:
            break
        found, δ = minimise(env, least, run, c, τ, None, start)
        τ = torch.where(found, 0.9 * torch.minimum(τ, least.distance), τ)
        c = torch.where(found, c, 2 * c)
        start = torch.where(found.unsqueeze(1), δ, start)
    return least.best


def minimise(
    env, least: Least, run: Run, c: Tensor, τ: Tensor, free: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor]:
    """(whether each lane met the goal, its last success or last point (n, d)) of one run of Adam from `start`.

    Args:
        τ: above 0 the penalty is the sum of what exceeds it, else the sum of squares.
        free: 1 where a value may change, None for all.
    """
    n = len(c)
    lanes = torch.arange(n, device=c.device)
    met, last = torch.zeros(n, dtype=torch.bool, device=c.device), start.clone()
    low, width = least.low, (least.high - least.low).clamp_min(TINY)
    w = torch.atanh(EDGE * (2 * (start - low) / width - 1))
    adam, game, τ, c = Adam(w), env, τ.unsqueeze(1), c.unsqueeze(1)
    before = torch.full((n,), torch.inf, device=c.device)
    lowest = before
    for k in range(run.steps):
        if game.done:
            break
        w.requires_grad_()
        δ = low + width * (torch.tanh(w) + 1) / 2
        δ = δ if free is None else δ * free
        p = δ.detach().view(-1, *least.shape[1:]).requires_grad_()
        obs, *_ = game.step(p)
        cost = torch.where(τ > 0, (δ.abs() - τ).clamp_min(0), δ.square()).sum(1)
        lack = (run.confidence - objective(obs)).clamp_min(0)
        (g,) = torch.autograd.grad(lack.sum(), p)
        total = cost + (c * (g.flatten(1) * δ)).sum(1)  # the gradient of c times what lacks, and of the cost
        (slope,) = torch.autograd.grad(total.sum(), w)
        _keep(least, lanes, obs, p.detach())
        hit = obs["success"] & obs["evaluated"]
        fresh = hit | ~met[lanes]
        last[lanes[fresh]] = p.detach().flatten(1)[fresh]
        met[lanes] = met[lanes] | hit
        w = w.detach() + run.rate * adam.direction(-slope)
        lowest = torch.minimum(lowest, (cost + c.squeeze(1) * lack).detach())
        if (k + 1) % max(run.steps // WAIT, 1):
            continue
        stay = ((lowest < 0.9999 * before) & game.live).nonzero().squeeze(1)
        before = lowest
        if len(stay) < len(lanes):
            if not len(stay):
                break
            lanes, w, c, τ, low, width = lanes[stay], w[stay], c[stay], τ[stay], low[stay], width[stay]
            before, lowest, free = before[stay], lowest[stay], None if free is None else free[stay]
            adam.take(stay)
            game = env.view(lanes)
    return met, last


def _keep(least: Least, lanes: Tensor, obs: dict, p: Tensor) -> None:
    """Enter the answers to some lanes."""
    better = obs["success"] & obs["evaluated"] & (obs["distance"] < least.distance[lanes])
    at = lanes[better]
    least.best = least.best.index_copy(0, at, p[better])
    least.distance = least.distance.index_copy(0, at, obs["distance"][better])
