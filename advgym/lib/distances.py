"""Edit distances of padded token sequences, all rows at once."""

from __future__ import annotations

import torch
from torch import Tensor


def levenshtein(a: Tensor, b: Tensor) -> Tensor:
    """The fewest insertions, deletions and replacements that turn a into b (Levenshtein 1966): int64 (n,).

    Args:
        a, b: int64 (n, S) and (n, T), padded with -1 from their ends on.

    >>> levenshtein(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 3, -1]])).tolist()
    [1]
    """
    n, wide = len(a), b.shape[1]
    long_a, long_b = (a >= 0).sum(1), (b >= 0).sum(1)
    places = torch.arange(wide + 1, device=a.device)
    row = places.expand(n, -1)
    found = [row]
    for i in range(a.shape[1]):
        replaced = row[:, :-1] + (b != a[:, i : i + 1]).long()
        least = torch.cat([row[:, :1] + 1, torch.minimum(replaced, row[:, 1:] + 1)], 1)
        # An insertion comes from the left: the least of all before, each so many steps further on.
        row = (least - places).cummin(1).values + places
        found.append(row)
    return torch.stack(found, 1)[torch.arange(n, device=a.device), long_a, long_b]
