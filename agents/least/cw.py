"""Carlini and Wagner's attacks, in L2, L0 and Linf (2017)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.gradients.adam import Adam
from advgym.agents.shared.gradients.least import TINY, Least, Search, linear_distance, objective
from advgym.lib.settings import COUNT, NATURAL, POSITIVE

WAIT = 10  # a run is looked at so many times; one whose loss no longer falls is over
ROUNDS = 60  # at most, of L0 and Linf
CEILING = 16  # times the first c, beyond which a bound of Linf is given up


@register_agent(
    "cw", kind="field", knowledge="white-box", needs=("l0-l2-linf",),
    allowed={"steps": COUNT, "search": COUNT, "rate": POSITIVE, "confidence": NATURAL},
)  # fmt: skip
def attack(env, *, steps=200, search=5, rate=0.01, confidence=0.0, seed=0):
    """Distance plus c times the margin, within the box, by Adam and a search for c (Carlini and Wagner 2017).

    The box is kept by projection, which the paper has beside its change of variables: tanh has no slope at a black
    pixel, and 50 steps did not leave it. c begins where the linearised problem has it, and each round where the last
    one ended, so that five rounds do for the nine of the paper. A lane whose loss no longer falls stops its run and
    asks no more in it. L0 holds values fast that matter least, Linf lowers the bound beyond which a change costs.

    Args:
        steps: at most, of a run, a query and a gradient each.
        search: rounds of the search for c (L2).
        rate: the first step of Adam, over the width of the box; falls to a tenth by a cosine.
        confidence: the objective that counts as reached.
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
    """L2: each round begins where the last one ended."""
    search, start = Search(c), torch.zeros_like(least.low)
    for _ in range(rounds):
        if env.done:
            break
        found, start = minimise(env, least, run, search.c, torch.zeros_like(c), None, start)
        search.tell(found)
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
    """Linf: what of a change is above τ costs, which falls to a tenth below the nearest success.

    Where c was raised in vain, τ is the bound from below, and goes half way to the nearest success.
    """
    first, floor, start = c, torch.zeros_like(c), torch.zeros_like(least.low)
    τ = 0.9 * env.threat.reach
    for _ in range(ROUNDS):
        if env.done:
            break
        far = torch.minimum(least.distance, env.threat.reach)
        _, δ = minimise(env, least, run, c, τ, None, start)
        found = least.distance < (far + τ) / 2
        high = torch.minimum(least.distance, env.threat.reach)
        vain = ~found & (c >= CEILING * first)
        floor = torch.where(vain, torch.minimum(τ, high), floor)
        τ = torch.where(found | vain, torch.maximum(0.9 * high, (floor + high) / 2), τ)
        c = torch.where(found, c, torch.where(vain, first, 4 * c))
        start = torch.where(least.found.unsqueeze(1), least.best.flatten(1), δ)
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
    low, high, width = least.low, least.high, (least.high - least.low).amax(1, keepdim=True)
    δ = start
    adam, game, τ, c = Adam(δ), env, τ.unsqueeze(1), c.unsqueeze(1)
    before = torch.full((n,), torch.inf, device=c.device)
    lowest, over = before, torch.zeros_like(met)
    for k in range(run.steps):
        if game.done:
            break
        p = δ.view(-1, *least.shape[1:]).requires_grad_()
        obs, *_ = game.step(p)
        lack = (run.confidence - objective(obs)).clamp_min(0)
        (g,) = torch.autograd.grad(lack.sum(), p)
        δ, g = δ.detach(), torch.nan_to_num(g).flatten(1)
        cost = torch.where(τ > 0, (δ.abs() - τ).clamp_min(0), δ.square()).sum(1)
        slope = c * g + torch.where(τ > 0, δ.sign() * (δ.abs() > τ), 2 * δ)
        _keep(least, lanes, obs, p.detach())
        hit = obs["success"] & obs["evaluated"]
        fresh = hit | ~met[lanes]
        last[lanes[fresh]] = δ[fresh]
        met[lanes] = met[lanes] | hit
        step = run.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * k / run.steps)))
        δ = torch.minimum(torch.maximum(δ + step * width * adam.direction(-slope), low), high)
        δ = δ if free is None else δ * free
        lowest = torch.minimum(lowest, (cost + c.squeeze(1) * lack).detach())
        over = over | (hit & (τ.squeeze(1) > 0) & (obs["distance"] <= τ.squeeze(1)))  # below the bound: it may fall
        if (k + 1) % max(run.steps // WAIT, 1):
            continue
        stay = ((lowest < 0.9999 * before) & game.live & ~over).nonzero().squeeze(1)
        before = lowest
        if len(stay) < len(lanes):
            if not len(stay):
                break
            lanes, δ, c, τ, low, high = lanes[stay], δ[stay], c[stay], τ[stay], low[stay], high[stay]
            before, lowest, free = before[stay], lowest[stay], None if free is None else free[stay]
            width, over = width[stay], over[stay]
            adam.take(stay)
            game = env.view(lanes)
    return met, last


def _keep(least: Least, lanes: Tensor, obs: dict, p: Tensor) -> None:
    """Enter the answers to some lanes."""
    better = obs["success"] & obs["evaluated"] & (obs["distance"] < least.distance[lanes])
    at = lanes[better]
    least.best = least.best.index_copy(0, at, p[better])
    least.distance = least.distance.index_copy(0, at, obs["distance"][better])
