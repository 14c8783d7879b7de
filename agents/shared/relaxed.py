"""Relaxed edits: weights in [0, 1] on a set of edits, their loss, and the projection to a budget."""

from __future__ import annotations

import torch
from torch import Tensor


def project(w: Tensor, budget: Tensor, steps: int = 40) -> Tensor:
    """The nearest weights in [0, 1] of sum <= budget: (lanes, n), budget (lanes,). By bisection of the shift."""
    clipped = w.clamp(0, 1)
    low, high = torch.zeros_like(w[:, 0]), w.amax(1).clamp_min(0)
    for _ in range(steps):
        middle = (low + high) / 2
        over = (w - middle.unsqueeze(1)).clamp(0, 1).sum(1) > budget
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return torch.where((clipped.sum(1) > budget).unsqueeze(1), (w - high.unsqueeze(1)).clamp(0, 1), clipped)


def compact(p: Tensor, w: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The `rows` edits of largest weight; those of weight 0 become padding."""
    value, at = w.topk(min(rows, w.shape[1]), 1)
    keep = value > 0
    return torch.where(keep.unsqueeze(2), p.gather(1, at.unsqueeze(2).expand(-1, -1, 2)), -1), value * keep


def strongest(p: Tensor, w: Tensor, budget: Tensor) -> Tensor:
    """The whole edits of largest weight, at most `budget` of them: (lanes, E, 2)."""
    order = w.argsort(dim=1, descending=True)
    rank = torch.arange(w.shape[1], device=w.device) < budget.unsqueeze(1)
    keep = rank & (w.gather(1, order) > 0)
    return torch.where(keep.unsqueeze(2), p.gather(1, order.unsqueeze(2).expand(-1, -1, 2)), -1)


def loss_of(obs: dict, ref: Tensor, name: str) -> Tensor:
    """The direction in the scores along which a loss rises, detached, in the shape of the scores.

    "tanh": the mean over members of tanh(margin) against `ref`, the clean answers, so that nodes far on either side of
    the boundary weigh little. "surrogate": the task's own.
    """
    scores = obs["scores"]
    if name == "tanh" and scores.dim() == ref.dim() + 1:
        free = scores.detach().requires_grad_()
        label = ref.clamp_min(0).unsqueeze(-1)
        other = free.scatter(-1, label, -torch.inf).amax(-1)
        value = torch.tanh(other - free.gather(-1, label).squeeze(-1))
        value = value.reshape(len(value), -1).mean(1).sum()
        return torch.autograd.grad(value, free)[0]
    return torch.autograd.grad(obs["surrogate"].sum(), scores, retain_graph=True)[0]
