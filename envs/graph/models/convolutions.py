"""Message passing by sums of one node's values: GCN, SAGE, GIN, APPNP; and an MLP, which reads no graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.edges import Edges
from advgym.envs.graph.inputs.ego import narrow
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.models.propagation import Propagation


class Map(nn.Module):
    """A matrix (in, out), the form that `Features.linear` takes."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inside, outside)))

    def forward(self, h: Tensor | Features) -> Tensor:
        """(..., in) or the features themselves -> (..., out)."""
        return h @ self.weight if isinstance(h, Tensor) else h.linear(self.weight)


class Dense(Map):
    """A matrix and a bias (out,)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside)
        self.bias = nn.Parameter(self.weight.new_zeros(outside))

    def forward(self, h: Tensor | Features) -> Tensor:
        """(..., in) or the features themselves -> (..., out)."""
        return super().forward(h) + self.bias


def normaliser(adjacency: Adjacency, h: Tensor) -> Tensor:
    """(degree + 1)^-1/2 of every node, (N, n, 1), in the dtype of h."""
    return (adjacency.degree.to(h.dtype) + 1).rsqrt().unsqueeze(2)


def convolve(adjacency: Adjacency, h: Tensor) -> Tensor:
    """D^-1/2 (A' + I) D^-1/2 h, D the degrees of A' + I (Kipf & Welling, 2017)."""
    scale = normaliser(adjacency, h)
    sent = scale * h
    return scale * (adjacency.sum(sent) + sent)


def convolve_edges(e: Edges, weight: Tensor, h: Tensor) -> Tensor:
    """As `convolve`, by the listed edges with weights (m,) of a model's own."""
    scale = (e.sum(weight) + 1).rsqrt().unsqueeze(2)
    sent = scale * h
    return scale * (e.sum(weight.unsqueeze(1) * e.at_source(sent)) + sent)


class GCN(Propagation):
    """Two graph convolutions with a ReLU between (Kipf & Welling, 2017), for the zoo's trainer and what builds on it.

    `victims.recipes.GCN` is the same function of a graph. Its parameters have the names and shapes of PyG's layers, its
    trainer decays the first layer alone, and it answers targeted rows by tables: docs/decisions.md, "two GCNs".
    """

    hops = 2

    def __init__(self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5) -> None:
        super().__init__()
        self.layer1, self.layer2 = Dense(features, hidden), Dense(hidden, classes)
        self.dropout, self.width = dropout, hidden

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        h = convolve(adjacency, features.linear(self.layer1.weight))
        adjacency, h = narrow(adjacency, h)
        h = (h + self.layer1.bias).relu()
        h = F.dropout(h, self.dropout, self.training) @ self.layer2.weight
        return convolve(adjacency, h) + self.layer2.bias


class SAGE(Propagation):
    """GraphSAGE with the mean of all neighbours (Hamilton, Ying & Leskovec, 2017): W h_v + W' mean_u h_u + b."""

    hops = 2

    def __init__(self, features: int, classes: int, hidden: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.own1, self.near1 = Dense(features, hidden), Map(features, hidden)
        self.own2, self.near2 = Dense(hidden, classes), Map(hidden, classes)
        self.dropout, self.width = dropout, hidden

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        count = adjacency.degree.to(self.own1.weight.dtype).clamp_min(1).unsqueeze(2)
        h = self.own1(features) + adjacency.sum(self.near1(features)) / count
        adjacency, h, count = narrow(adjacency, h, count)
        h = h.relu()
        h = F.dropout(h, self.dropout, self.training)
        return self.own2(h) + adjacency.sum(self.near2(h)) / count


class GIN(Propagation):
    """Graph isomorphism network, GIN-0 (Xu et al., 2019): an MLP of h_v + sum_u h_u, twice."""

    hops = 2

    def __init__(self, features: int, classes: int, hidden: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.in1, self.out1 = Dense(features, hidden), Dense(hidden, hidden)
        self.in2, self.out2 = Dense(hidden, hidden), Dense(hidden, classes)
        self.dropout, self.width = dropout, hidden

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        # A sum followed by a matrix is the matrix followed by the sum, which is narrower.
        h = features.linear(self.in1.weight)
        adjacency, h = narrow(adjacency, h + adjacency.sum(h))
        h = self.out1((h + self.in1.bias).relu()).relu()
        h = F.dropout(h, self.dropout, self.training) @ self.in2.weight
        return self.out2((h + adjacency.sum(h) + self.in2.bias).relu())


class MLP(Propagation):
    """Two layers on each node's own features: what the graph is worth is measured against it."""

    hops = 1

    def __init__(self, features: int, classes: int, hidden: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.layer1, self.layer2 = Dense(features, hidden), Dense(hidden, classes)
        self.dropout, self.width = dropout, hidden

    def own(self, features: Features) -> Tensor:
        """Scores of every node without its neighbours, (N, n or 1, C)."""
        return self.layer2(F.dropout(self.layer1(features).relu(), self.dropout, self.training))

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`; the gradient of every pair is zero."""
        out = self.own(features)
        return out + 0 * adjacency.degree.to(out.dtype).unsqueeze(2)


class APPNP(MLP):
    """Predict, then propagate by personalised PageRank (Gasteiger, Bojchevski & Guennemann, 2019).

    Args:
        alpha: the share that restarts; steps: power iterations.
    """

    def __init__(
        self, features: int, classes: int, hidden: int = 64, dropout: float = 0.5, alpha: float = 0.1, steps: int = 10
    ) -> None:
        super().__init__(features, classes, hidden, dropout)
        self.alpha, self.steps, self.hops = alpha, steps, steps

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        start = self.own(features)
        h = start
        for _ in range(self.steps):
            h = (1 - self.alpha) * convolve(adjacency, h) + self.alpha * start
        return h
