"""After an answer: what each lane holds now, and the reward."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.book import Book


@torch.no_grad()
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
    if knowledge == "decision":
        counts = success  # the label alone cannot say which failure is better
    keep, last = counts, candidate
    if width > 1:
        if knowledge == "transfer":
            index = _last(counts, width)
            keep, last = counts[index], candidate[index]
        index = _best(counts, success, objective, distance, width)
        counts, success, objective, distance = counts[index], success[index], objective[index], distance[index]
        candidate = candidate[index]
    before = [v if lanes is None else v[lanes] for v in (book.success, book.distance, book.objective)]
    nearer = success & (~before[0] | (distance < before[1]))
    better = counts & (nearer | (~before[0] & ~success & (objective > before[2])))
    if knowledge != "transfer":  # under transfer the verdict is on the last one handed in
        keep, last = better, candidate
    return book.note(lanes, better, keep, last, objective, distance, success)


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
