"""After an answer: what each lane holds now, and the reward."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core.book import Book


def settle(
    book: Book, lanes: Tensor | None, width: int, counts: Tensor, won: Tensor, objective: Tensor, distance: Tensor,
    candidate: Tensor,
) -> Tensor:  # fmt: skip
    """Enter n = lanes * width answered proposals into the book; the reward of each lane, float32 (lanes,).

    Args:
        counts: bool (n,), evaluated and valid: only such a proposal can be held. won: bool (n,), the goal is reached.
        candidate: the proposals in canonical form, (n, *shape).
    """
    success, knowledge = won & counts, book.threat.knowledge
    keep, last = counts, candidate
    if not book.ordered:
        counts = success  # a label alone cannot say which failure is better
    if width > 1:
        if knowledge == "transfer":
            index = _last(counts, width)
            keep, last = counts[index], candidate[index]
        index = _best(counts, success, objective, distance, width)
        counts, success, objective, distance = counts[index], success[index], objective[index], distance[index]
        candidate = candidate[index]
    value = book.worth(objective, distance, success, lanes)
    before = book.potential if lanes is None else book.potential[lanes]
    better = counts & (value > before)
    if knowledge != "transfer":  # under transfer the verdict is on the last one handed in
        keep, last = better, candidate
    after = torch.where(better, value, before)
    keep = keep.view(-1, *[1] * (last.dim() - 1))
    if lanes is None:
        book.potential, book.held = after, torch.where(keep, last, book.held)
    else:
        book.potential = book.potential.index_copy(0, lanes, after)
        book.held = book.held.index_copy(0, lanes, torch.where(keep, last, book.held[lanes]))
    if book.unsolved and bool((better & success).any()):
        used = book.used
        book.first_success = torch.where(book.success & (book.first_success < 0), used, book.first_success)
        book.unsolved = bool((book.first_success < 0).any())
    return after - before


def _best(counts: Tensor, success: Tensor, objective: Tensor, distance: Tensor, width: int) -> Tensor:
    """The row of each lane that may be held: the nearest success, else the largest objective among what counts."""
    best = torch.where(counts, objective, -torch.inf).view(-1, width).argmax(1)
    won = success.view(-1, width)
    nearest = torch.where(won, -distance.view(-1, width), -torch.inf).argmax(1)
    return torch.where(won.any(1), nearest, best) + torch.arange(len(best), device=best.device) * width


def _last(counts: Tensor, width: int) -> Tensor:
    """The last row of each lane that counts."""
    index = torch.arange(width, device=counts.device)
    last = torch.where(counts.view(-1, width), index, -1).amax(1).clamp_min(0)
    return last + torch.arange(len(last), device=last.device) * width
