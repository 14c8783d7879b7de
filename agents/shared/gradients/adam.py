"""Adam for a batch of samples, each a problem of its own (Kingma and Ba 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

β1, β2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """First and second moments of n rows. Rows are independent: a row's step reads its own gradients alone."""

    def __init__(self, like: Tensor) -> None:
        self.m, self.v, self.k = torch.zeros_like(like), torch.zeros_like(like), 0

    def direction(self, g: Tensor) -> Tensor:
        """What a step of size 1 adds, to rise along g."""
        self.k += 1
        self.m = torch.lerp(self.m, g, 1 - β1)
        self.v = torch.lerp(self.v, g * g, 1 - β2)
        return self.m / (1 - β1**self.k) / self.metric()

    def metric(self) -> Tensor:
        """The diagonal that the step was divided by."""
        return (self.v / (1 - β2**self.k)).sqrt() + EPSILON

    def take(self, rows: Tensor) -> None:
        """Go on with some of the rows, int64 (m,)."""
        self.m, self.v = self.m[rows], self.v[rows]
