"""The one-pixel attack (Su, Vargas and Sakurai 2019): differential evolution of few edits."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents.shared.common import best_of, choose, fitness
from advgym.agents.shared.once import once
from advgym.lib.settings import COUNT, NATURAL, POSITIVE

SCALE = 0.5  # F, of a difference of two candidates


@register_agent(
    "one-pixel", kind="edits", knowledge="score", proposals=32,
    allowed={"population": COUNT, "generations": COUNT, "edits": NATURAL, "differential": POSITIVE, "width": NATURAL},
)  # fmt: skip
def attack(env, *, population=400, generations=100, edits=1, differential=SCALE, width=0, seed=0):
    """Differential evolution of a few edits, as numbers (Su, Vargas and Sakurai 2019).

    A candidate is a place and a level for each edit. Child i is a + F (b - c) of three random candidates, without
    crossover, and takes the place of parent i where its score is higher.

    Args:
        population, generations: 400 and 100 in the paper; a small budget cuts the generations, and then the population
            to a quarter of the queries.
        edits: of a candidate; 0 for as many as the task allows (the paper: 1, 3 and 5).
        differential: F.
        width: sites of a row, where sites are laid out in rows (pixels of an image), so that a place is a row and a
            column as in the paper; 0 for places in a line.
    """
    env.reset(seed=seed)
    env = once(env)
    draws, budget = env.draws(seed), int(env.asks_left.max())
    many = max(4, min(population, budget // 4))
    most = int(env.table.limit.max())
    rows = most if edits == 0 else min(edits, most)
    spans = _spans(env, width)
    x = _first(draws, many, rows, spans)
    value, held = torch.full(x.shape[:2], -torch.inf, device=x.device), env.threat.null()
    best = torch.full_like(env.threat.reach, -torch.inf)
    for generation in range(generations + 1):
        if env.done:
            break
        child = x if generation == 0 else _children(draws, x, differential, spans)
        now, p = _values(env, child, spans, rows)
        top, its = best_of(now, p)
        held, best = choose(top > best, its, held), torch.maximum(best, top)
        take = (now > value) | (generation == 0)
        x, value = torch.where(take[..., None, None], child, x), torch.where(take, now, value)
    return held


def _spans(env, width: int) -> Tensor:
    """How many values each number of an edit has: (row, column, level), or (site, level)."""
    sites = [env.table.sites] if not width else [-(-env.table.sites // width), width]
    return torch.tensor([*sites, env.table.choices], dtype=torch.float32, device=env.threat.reach.device)


def _first(draws, many: int, rows: int, spans: Tensor) -> Tensor:
    """Candidates (lanes, many, rows, numbers): uniform places, levels normal, sigma half their range."""
    place = draws.uniform(many, rows, len(spans) - 1)
    level = 0.5 + 0.5 * draws.normal(many, rows, 1)
    return _bounded(torch.cat([place, level], 3) * spans, spans)


def _bounded(x: Tensor, spans: Tensor) -> Tensor:
    return torch.minimum(x.clamp_min(0), spans - 1e-3)


def _children(draws, x: Tensor, f: float, spans: Tensor) -> Tensor:
    """Of each parent a + F (b - c), of three different candidates."""
    many = x.shape[1]
    picks = draws.uniform(many, many).topk(3, dim=2).indices  # three different ones for each parent
    a, b, c = (x.gather(1, picks[..., i, None, None].expand_as(x)) for i in range(3))
    return _bounded(a + f * (b - c), spans)


def _values(env, x: Tensor, spans: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(fitness (lanes, many), perturbations (lanes, many, E, 2)) of candidates."""
    whole = x.long()
    site = whole[..., 0] if x.shape[3] == 2 else whole[..., 0] * int(spans[1]) + whole[..., 1]
    null = env.threat.null()
    p = null.unsqueeze(1).expand(-1, x.shape[1], -1, -1).clone()
    p[:, :, :rows] = torch.stack([site.clamp_max(env.table.sites - 1), whole[..., -1]], 3)
    p = env.threat.project(p)
    out = torch.full(x.shape[:2], -torch.inf, device=x.device)
    for start in range(0, x.shape[1], env.proposals):
        if env.done:
            break
        part = p[:, start : start + env.proposals]
        count = part.shape[1]
        if count < env.proposals:
            part = torch.cat([part, torch.full_like(part[:, :1], -1).expand(-1, env.proposals - count, -1, -1)], 1)
        obs, *_ = env.step(part)
        out[:, start : start + count] = fitness(obs)[:, :count]
    return out, p
