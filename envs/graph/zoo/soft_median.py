"""Soft Median on a diffused graph: a robust mean over neighbours by personalised PageRank (Geisler et al., 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.graph.adjacency import Adjacency
from advgym.envs.graph.edges import dense
from advgym.envs.graph.features import Features
from advgym.envs.graph.propagation import Propagation
from advgym.envs.graph.zoo.convolutions import Dense


class SoftMedian(Propagation):
    """Two layers of soft medians over the `top` nodes of largest PageRank from each node (GDC; Gasteiger et al. 2019).

    With a the PageRank weights and m the weighted median of the neighbours' features, coordinate by coordinate,
    s_u ~ exp(-|x_u - m| / (T sqrt(H))) a_u, and the answer is sum_u s_u x_u: neighbours far from the middle go unheard.
    The PageRank is exact (a dense inverse for every graph, so N up to a few thousand), gradients are autograd's.

    Args:
        temperature: T; alpha: the restart of PageRank; top: neighbours kept.
    """

    listed = True

    def __init__(
        self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5, temperature: float = 0.5,
        alpha: float = 0.15, top: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer1, self.layer2 = Dense(features, hidden), Dense(hidden, classes)
        self.dropout, self.temperature, self.alpha, self.top = dropout, temperature, alpha, top
        self.width = 1 << 14  # graphs go one by one when they are large
        self._clean: tuple[tuple[int, torch.dtype], Tensor, Tensor] | None = None

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        weight, near = self._diffused(adjacency)
        h = self._median(features.linear(self.layer1.weight), weight, near) + self.layer1.bias
        h = F.dropout(h.relu(), self.dropout, self.training) @ self.layer2.weight
        return self._median(h, weight, near) + self.layer2.bias

    def _diffused(self, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
        """Weights and nodes of each node's diffused neighbours, (n, N, top) both."""
        dtype = self.layer1.weight.dtype
        key = None
        if isinstance(adjacency, Adjacency) and adjacency.n == 1 and adjacency.leaf is None and not len(adjacency.row):
            key = adjacency.graph.serial, dtype  # a clean graph, as in training
            if self._clean is not None and self._clean[0] == key:
                return self._clean[1:]
        a = dense(adjacency).to(dtype)
        loop = torch.eye(adjacency.size, dtype=dtype, device=a.device)
        a = a + loop
        scale = a.sum(2).rsqrt()
        a = scale.unsqueeze(2) * a * scale.unsqueeze(1)
        rank = self.alpha * torch.linalg.inv(loop - (1 - self.alpha) * a)
        weight, near = rank.topk(min(self.top, adjacency.size), 2)
        weight = weight / weight.sum(2, keepdim=True)
        if key is not None:
            self._clean = key, weight, near
        return weight, near

    def _median(self, h: Tensor, weight: Tensor, near: Tensor) -> Tensor:
        """The soft median of each node's neighbours, (N, n, H) from (N, n or 1, H)."""
        n, _, top = near.shape
        h = h.expand(-1, n, -1).transpose(0, 1)  # (n, N, H)
        lane = torch.arange(n, device=h.device).view(n, 1, 1)
        x = h[lane, near]  # (n, N, top, H)
        with torch.no_grad():
            order = x.argsort(2)
            heavy = weight.unsqueeze(3).expand_as(x).gather(2, order).cumsum(2)
            middle = order.gather(2, (heavy < 0.5 * heavy[:, :, -1:]).sum(2, keepdim=True).clamp_max(top - 1))
        m = x.gather(2, middle)
        far = ((x - m).square().sum(3) + 1e-12).sqrt() / (self.temperature * h.shape[2] ** 0.5)
        s = torch.softmax(-far, 2) * weight
        s = s / s.sum(2, keepdim=True)
        return (s.unsqueeze(2) @ x).squeeze(2).transpose(0, 1)
