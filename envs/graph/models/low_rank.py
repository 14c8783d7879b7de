"""GCN-SVD: a GCN on the best low-rank approximation of the graph it is given (Entezari et al., 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.models.convolutions import Dense
from advgym.envs.graph.models.propagation import Propagation

SPARE = 16  # vectors beyond the rank that the iteration carries
ZERO = 1e-6  # the degree of a node outside the subspace is 0 to rounding, and may rise


class LowRank(Propagation):
    """Two graph convolutions on V V' A V V', V the `rank` eigenvectors of A of largest absolute eigenvalue.

    V comes from a fixed number of steps of subspace iteration from a fixed start (Halko, Martinsson & Tropp, 2011), on
    the perturbed graph alone. For dA the best approximation moves by dA - Q dA Q, Q = I - V V', where the eigenvalues
    left out are small beside those kept: the backward pass takes that, and ranks all pairs by it. (With V held, as BPDA
    would, it is V V' dA V V', blind to every edge that makes the subspace turn; Athalye et al., 2018.)

    Args:
        rank: 50 in the paper; steps: of the iteration.
    """

    def __init__(
        self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5, rank: int = 50, steps: int = 40
    ) -> None:
        super().__init__()
        self.layer1, self.layer2 = Dense(features, hidden), Dense(hidden, classes)
        self.dropout, self.rank, self.steps, self.width = dropout, rank, steps, 4 * (rank + SPARE)
        self._clean: tuple[tuple[int, torch.dtype], Tensor] | None = None

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        dtype = self.layer1.weight.dtype
        v = self._subspace(adjacency, self.layer1.weight)

        def project(h: Tensor) -> Tensor:
            return torch.einsum("inr,nrh->inh", v, torch.einsum("inr,inh->nrh", v, h.expand(-1, adjacency.n, -1)))

        asked = adjacency.leaf is not None or adjacency.change.requires_grad if hasattr(adjacency, "leaf") else True

        def low(h: Tensor) -> Tensor:
            inside = project(h)
            out = project(adjacency.sum(inside))
            if not (asked and torch.is_grad_enabled()):
                return out
            free = inside.detach()
            turn = project(adjacency.sum(h.detach() - 2 * free)) + adjacency.sum(free)
            return out + (turn - turn.detach())

        degree = low(torch.ones(adjacency.size, 1, 1, dtype=dtype, device=v.device))
        degree = torch.where(degree < -ZERO, 0.0, degree)  # it may be negative
        scale = (degree + 1).rsqrt()

        def convolve(h: Tensor) -> Tensor:
            return scale * (low(scale * h) + scale * h)

        h = (convolve(features.linear(self.layer1.weight)) + self.layer1.bias).relu()
        return convolve(F.dropout(h, self.dropout, self.training) @ self.layer2.weight) + self.layer2.bias

    @torch.no_grad()
    def _subspace(self, adjacency: Adjacency, like: Tensor) -> Tensor:
        """That of a clean graph, where training and every clean forward need it, is computed once."""
        if not isinstance(adjacency, Adjacency) or adjacency.n > 1 or len(adjacency.row):
            return subspace(adjacency, self.rank, self.steps, like)
        key = adjacency.graph.serial, like.dtype
        if self._clean is None or self._clean[0] != key:
            self._clean = key, subspace(adjacency, self.rank, self.steps, like)
        return self._clean[1]


def subspace(adjacency: Adjacency, rank: int, steps: int, like: Tensor) -> Tensor:
    """Orthonormal eigenvectors (N, n, rank) of n adjacencies, of the largest absolute eigenvalues; keyed start.

    `like` gives the dtype and the device.
    """
    size = adjacency.size
    many = min(size, rank + SPARE)
    q = rng.normal(0, torch.arange(size, device=like.device), (many,), 61).to(like.dtype)
    q = torch.linalg.qr(q).Q.expand(adjacency.n, -1, -1)  # (n, N, many)

    def times(q: Tensor) -> Tensor:
        return adjacency.sum(q.transpose(0, 1).contiguous()).transpose(0, 1)

    if many < size:
        for _ in range(steps):
            q = torch.linalg.qr(times(q)).Q
    small = q.transpose(1, 2) @ times(q)
    value, vector = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
    best = value.abs().argsort(dim=1, descending=True, stable=True)[:, : min(rank, many)]
    v = q @ vector.gather(2, best.unsqueeze(1).expand(-1, many, -1))
    return v.transpose(0, 1)
