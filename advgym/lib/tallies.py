"""What counts tell: scores of a vote and what it proves; risks, the ROC curve and the area under it."""

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


def roc(clean: Tensor, attacked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(thresholds, false positives, true positives), float64, from none taken for an attack to all.

    A threshold is a risk that occurs, and an input whose risk reaches it is taken for an attack; the first is infinite.

    Args:
        clean, attacked: risks (n,) and (m,), both at least one.

    >>> [v.tolist() for v in roc(torch.tensor([0.1, 0.4]), torch.tensor([0.4, 0.9]))[1:]]
    [[0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0]]
    """
    clean, attacked = _told(clean, "clean"), _told(attacked, "attacked")
    at = torch.cat([clean, attacked]).unique().flip(0)  # type: ignore[no-untyped-call]
    at = torch.cat([torch.full_like(at[:1], torch.inf), at])
    share = [1 - torch.searchsorted(values.sort().values, at).double() / len(values) for values in (clean, attacked)]
    return at, share[0], share[1]


def auc(clean: Tensor, attacked: Tensor) -> float:
    """The area under the ROC curve: the chance that an attacked input has the larger risk, equals half.

    >>> auc(torch.tensor([0.1, 0.4]), torch.tensor([0.4, 0.9]))
    0.875
    """
    _, false, true = roc(clean, attacked)
    return float(torch.trapezoid(true, false))


def _told(values: Tensor, what: str) -> Tensor:
    values = torch.as_tensor(values).double().flatten()
    if not len(values) or not bool(torch.isfinite(values).all()):
        raise ValueError(f"{what} risks: want at least one, all finite; got {len(values)}")
    return values
