"""What several attacks share: reading feedback, moving best-so-far, sweeping candidate edits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advgym.agents.shared.once import wide


def fitness(obs: dict) -> Tensor:
    """Objective where the proposal counts, -inf elsewhere; the surrogate breaks ties (error rates have plateaus)."""
    value = obs["objective"] + 1e-4 * obs["surrogate"]
    return torch.where(obs["evaluated"] & obs["valid"], value, -torch.inf).detach()


def clean_fitness(obs: dict) -> Tensor:
    """The fitness of the clean sample, from the observation of a reset: (lanes,)."""
    value = (obs["objective"] + 1e-4 * obs["surrogate"]).detach()
    return value if value.dim() == 1 else value[:, 0]


def choose(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` in the lanes that are better, `old` elsewhere."""
    return torch.where(wide(better, new), new, old)


def best_of(values: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
    """(largest value, its proposal) over axis 1."""
    top, at = values.max(1)
    return top, proposals[torch.arange(len(at), device=at.device), at]


def sweep(
    env, state: Tensor, candidates: Tensor, merit: Callable[[dict], Tensor] = fitness, *, checked: bool = True
) -> tuple[Tensor, Tensor]:
    """Fitness and merit of each single edit on top of `state`: (lanes, M), -inf for padding and what was not evaluated.

    Args:
        state: (lanes, E, 2).
        candidates: edits int64 (lanes, M, 2), -1 for padding; asked `env.proposals` at a time.
        merit: another measure of an observation, (lanes, P).
        checked: ask only what the threat model's free check lets through; False for probes.
    """
    many, width = candidates.shape[1], env.proposals
    out = torch.full(candidates.shape[:2], -torch.inf, device=candidates.device)
    other = out.clone()
    for start in range(0, many, width):
        part = candidates[:, start : start + width]
        if part.shape[1] < width:
            part = torch.cat([part, part.new_full((len(part), width - part.shape[1], 2), -1)], 1)
        if env.done:
            break
        real = (part[..., 0] >= 0) & env.live.unsqueeze(1)
        if not bool(real.any()):
            continue
        whole = env.threat.compose(state.unsqueeze(1).expand(-1, width, -1, -1), part)
        if checked:
            real &= env.threat.check(whole)
        if not bool(real.any()):
            continue
        whole = torch.where(real.unsqueeze(2).unsqueeze(3), whole, -1)  # padding is free
        obs, *_ = env.step(whole)
        out[:, start : start + width] = fitness(obs)[:, : many - start]
        other[:, start : start + width] = merit(obs)[:, : many - start]
    return out, other


def edits_at(site: Tensor, mask: Tensor) -> Tensor:
    """Every choice of one site per lane as edits (lanes, M, 2), packed to the left: site (lanes,), mask (lanes, C)."""
    some = mask & (site >= 0).unsqueeze(1)
    most = max(int(some.sum(1).max()), 1)
    order = some.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    edits = torch.stack([site.unsqueeze(1).expand_as(order), order], 2)
    return torch.where(some.gather(1, order).unsqueeze(2), edits, -1)
