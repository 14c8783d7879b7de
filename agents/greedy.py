"""Greedy edits by importance: which sites matter, then the best choice at each (Jin et al. 2020; Ren et al. 2019)."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents._common import choose, clean_fitness, edits_at, hand_in, sweep


@register_agent("greedy", kind="edits", knowledge="score", proposals=16)
def attack(env, *, again=16, seed=0):
    """Sites in the order of their importance (by probes where the table has them), the best choice at each.

    Where several edits may share a site (edges of a node), a site is visited again with the `again` best choices of
    its first visit.
    """
    obs, _ = env.reset(seed=seed)
    state = held = env.threat.null()
    best = clean_fitness(obs)
    order = importance(env, state, seed)
    for i in range(order.shape[1]):
        if env.done:
            break
        site = torch.where(env.live, order[:, i], -1)
        if not bool((site >= 0).any()):
            continue
        candidates = edits_at(site, env.table.choice_mask(site.clamp_min(0)))
        rounds = 1 if env.table.key == "site" else int(env.table.limit.max())
        for _ in range(rounds):
            room = (state[..., 0] >= 0).sum(1) < env.table.limit
            asked = torch.where(room.view(-1, 1, 1), candidates, -1)
            if env.done or not bool((asked >= 0).any()):
                break
            value, _ = sweep(env, state, asked)
            top, at = value.max(1)
            better = top > best
            # A site is swapped only where that helps; edits that share a site may have to pile up first.
            go = better if env.table.key == "site" else top.isfinite()
            edit = candidates[torch.arange(len(at), device=at.device), at]
            state = choose(go, env.threat.compose(state, edit), state)
            held, best = choose(better, state, held), torch.where(better, top, best)
            if not bool(go.any()):
                break
            keep = value.topk(min(again, value.shape[1]), 1).indices
            left = candidates.gather(1, keep.unsqueeze(2).expand(-1, -1, 2))
            left = torch.where((left == edit.unsqueeze(1)).all(2, keepdim=True), -1, left)
            candidates = torch.where(go.view(-1, 1, 1), left, -1)
    return hand_in(env, held)


def importance(env, state: torch.Tensor, seed: int) -> torch.Tensor:
    """Sites of each lane, most important first, -1 where there are no more: int64 (lanes, sites)."""
    sites = env.table.site_mask()
    most = int(sites.sum(1).max())
    order = sites.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    some = sites.gather(1, order)
    if most <= 1:
        return torch.where(some, order, -1)
    if env.table.probe is not None and env.threat.model.probes:
        choice = torch.full_like(order, env.table.probe)
    else:  # without a probe, a random choice stands for the site
        u = env.draws(seed).uniform(most)
        columns = [_random_choice(env, order[:, j], u[:, j]) for j in range(most)]
        choice = torch.stack(columns, 1)
    asked = torch.where(some.unsqueeze(2), torch.stack([order, choice], 2), -1)
    value = _probe(env, state, asked)
    ranked = torch.where(some, value, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return torch.where(some.gather(1, ranked), order.gather(1, ranked), -1)


def _random_choice(env, site: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    mask = env.table.choice_mask(site)
    nth = (u * mask.sum(1)).long() + 1
    return torch.searchsorted(mask.cumsum(1), nth.unsqueeze(1)).squeeze(1).clamp_max(mask.shape[1] - 1)


def _probe(env, state: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Objective after each edit; probes are not valid, so validity is not asked for here."""
    out = torch.full(asked.shape[:2], -torch.inf, device=asked.device)
    width = env.proposals
    for start in range(0, asked.shape[1], width):
        if env.done:
            break
        part = asked[:, start : start + width]
        pad = width - part.shape[1]
        part = torch.cat([part, part.new_full((len(part), pad, 2), -1)], 1) if pad else part
        whole = env.threat.compose(state.unsqueeze(1).expand(-1, width, -1, -1), part)
        obs, *_ = env.step(torch.where((part[..., :1] >= 0).unsqueeze(3), whole, -1))
        value = torch.where(obs["evaluated"], obs["objective"] + 1e-4 * obs["surrogate"], -torch.inf)
        out[:, start : start + width] = value[:, : asked.shape[1] - start]
    return out
