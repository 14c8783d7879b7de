"""A light Pro-GNN: the graph itself is learned with the classifier (Jin et al., 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.edges import edges
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.models.convolutions import Dense, convolve_edges
from advgym.envs.graph.models.gnnguard import likeness
from advgym.envs.graph.models.propagation import Propagation


class ProGNN(Propagation):
    """A GCN on S, the graph that is nearest to A' while it is sparse and smooth in the features.

    Of ||S - A'||^2 + 2 smooth sum S_ij (1 - cos(x_i, x_j)) + 2 sparse sum S_ij the minimum over S in [0, A'] is edge by
    edge S_ij = A'_ij relu(1 - smooth (1 - cos) - sparse). Both weights are learned with the layers. The paper learns
    one free S for one training graph, with a low rank besides; here S follows whatever graph is asked about, so
    evasion meets it too, and the rank is left alone: that is what is light about it.
    """

    hops = 3  # the degrees of the furthest nodes are those of S
    listed = True

    def __init__(
        self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5, smooth: float = 0.3,
        sparse: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer1, self.layer2 = Dense(features, hidden), Dense(hidden, classes)
        self.smooth, self.sparse = (nn.Parameter(torch.tensor(v).expm1().log()) for v in (smooth, sparse))
        self.dropout, self.width = dropout, 8 * hidden

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        e = edges(adjacency)
        dtype = self.layer1.weight.dtype
        rough = F.softplus(self.smooth) * (1 - likeness(e, features, dtype))
        weight = e.weight.to(dtype) * (1 - rough - F.softplus(self.sparse)).relu()
        h = (convolve_edges(e, weight, features.linear(self.layer1.weight)) + self.layer1.bias).relu()
        h = F.dropout(h, self.dropout, self.training) @ self.layer2.weight
        return convolve_edges(e, weight, h) + self.layer2.bias
