"""Scores of a vote, for every victim that answers by the majority of draws."""

from __future__ import annotations

from torch import Tensor


def log_shares(votes: Tensor, draws: int) -> Tensor:
    """Log shares (..., classes) of so many draws' votes; half a vote more for each class, so that none is -inf."""
    return ((votes + 0.5) / (draws + 0.5 * votes.shape[-1])).log()
