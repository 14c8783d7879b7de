"""Scores of a vote, for every victim that answers by the majority of draws; and what a vote proves."""

from __future__ import annotations

import torch
from torch import Tensor


def log_shares(votes: Tensor, draws: int) -> Tensor:
    """Log shares (..., classes) of so many draws' votes; half a vote more for each class, so that none is -inf."""
    return ((votes + 0.5) / (draws + 0.5 * votes.shape[-1])).log()


def lower_bounds(counts: Tensor, draws: int, alpha: float) -> Tensor:
    """Clopper and Pearson's (1934) lower bounds of probabilities, each of confidence 1 - alpha: float64 like counts.

    Args:
        counts: in 0 .. draws, how many of the draws each class got.
    """
    from scipy.stats import beta

    k = counts.detach().cpu().double().numpy()
    low = torch.as_tensor(beta.ppf(alpha, k.clip(1), draws - k.clip(1) + 1), device=counts.device)
    return torch.where(counts > 0, low, 0.0)


def settles(counts: Tensor, others: Tensor, alpha: float) -> Tensor:
    """Whether the first of two classes leads, bool: the two-sided binomial test (Hung & Fithian 2019) at level alpha.

    Args:
        counts, others: votes of the class of most votes and of the next one.
    """
    from scipy.stats import binom

    top, both = (t.detach().cpu().double().numpy() for t in (counts, counts + others))
    p = 2 * binom.sf(top - 1, both, 0.5)
    found: Tensor = torch.as_tensor(p <= alpha, device=counts.device)
    return found
