"""Robust GCN: hidden features as Gaussians, of which uncertain ones are listened to less (Zhu et al., 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.ego import narrow
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.models.convolutions import Dense, normaliser
from advgym.envs.graph.models.propagation import Propagation


class RGCN(Propagation):
    """Two layers of means M and variances S; next are D^-1/2 A D^-1/2 (M a) and D^-1 A D^-1 (S a^2), a = exp(-gamma S).

    Attention a is of the sender alone, so all pairs have exact gradients. Training draws z = M + sqrt(S) eps; a trained
    model answers with M.

    Args:
        gamma: how fast attention falls with variance.
        beta: weight of the divergence of the first layer from a standard Gaussian, in training.
    """

    hops = 2

    def __init__(
        self, features: int, classes: int, hidden: int = 32, dropout: float = 0.6, gamma: float = 1.0,
        beta: float = 5e-4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mean1, self.var1 = Dense(features, hidden), Dense(features, hidden)
        self.mean2, self.var2 = Dense(hidden, classes), Dense(hidden, classes)
        self.dropout, self.gamma, self.beta, self.width = dropout, gamma, beta, 2 * hidden
        self.penalty: Tensor | float = 0.0

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        mean, variance = F.elu(self.mean1(features)), self.var1(features).relu()
        if self.training:
            divergence = mean.square() + variance - (variance + 1e-8).log() - 1
            self.penalty = 0.5 * self.beta * divergence.sum(2).mean()
        adjacency, mean, variance = narrow(adjacency, *self._listen(adjacency, mean, variance))
        mean, variance = (F.dropout(v, self.dropout, self.training) for v in (mean, variance))
        mean, variance = F.elu(self.mean2(mean)), self.var2(variance).relu()
        mean, variance = self._listen(adjacency, mean, variance)
        return mean + (variance + 1e-8).sqrt() * torch.randn_like(variance) if self.training else mean

    def _listen(self, adjacency: Adjacency, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        scale = normaliser(adjacency, mean)
        heard = (-self.gamma * variance).exp()
        mean, variance = scale * mean * heard, scale.square() * variance * heard.square()
        return scale * (adjacency.sum(mean) + mean), scale.square() * (adjacency.sum(variance) + variance)
