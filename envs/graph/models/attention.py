"""Graph attention: edge weights that both ends decide."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.edges import Edges, edges
from advgym.envs.graph.inputs.ego import narrow
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.models.convolutions import Map
from advgym.envs.graph.models.propagation import Propagation


class Head(nn.Module):
    """Heads of attention to neighbours and to itself: alpha_vu ~ w_vu exp(leaky(a . h_v + a' . h_u))."""

    def __init__(self, inside: int, outside: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.map = Map(inside, heads * outside)
        self.from_source = nn.Parameter(nn.init.xavier_uniform_(self.map.weight.new_empty(heads, outside).detach()))
        self.from_target = nn.Parameter(nn.init.xavier_uniform_(self.map.weight.new_empty(heads, outside).detach()))
        self.heads, self.dropout = heads, dropout

    def forward(self, e: Edges, h: Tensor | Features) -> Tensor:
        """(N, n, heads, out) from (N, n or 1, in) or features."""
        x = self.map(h)
        x = x.view(*x.shape[:2], self.heads, -1)
        score = e.at_source((x * self.from_source).sum(3)) + e.at_target((x * self.from_target).sum(3))
        share = F.dropout(e.softmax(F.leaky_relu(score, 0.2)), self.dropout, self.training)
        return e.sum(share.unsqueeze(2) * e.at_source(F.dropout(x, self.dropout, self.training)))


class GAT(Propagation):
    """Graph attention network (Velickovic et al., 2018): heads of attention, ELU, one head of scores.

    An edge of weight w counts in the softmax as w of an edge, so a flip's weight is as continuous as for a GCN.
    """

    hops = 2
    listed = True

    def __init__(self, features: int, classes: int, hidden: int = 8, heads: int = 8, dropout: float = 0.6) -> None:
        super().__init__()
        self.layer1, self.layer2 = Head(features, hidden, heads, dropout), Head(hidden * heads, classes, 1, dropout)
        self.bias1 = nn.Parameter(self.layer1.map.weight.new_zeros(hidden * heads))
        self.bias2 = nn.Parameter(self.layer1.map.weight.new_zeros(classes))
        self.dropout, self.width = dropout, 8 * hidden * heads  # about as many entries of edges for each node

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        e = edges(adjacency).with_loops()
        adjacency, h = narrow(adjacency, self.layer1(e, features).flatten(2))
        e = e if h.shape[0] == e.size else edges(adjacency).with_loops()
        h = F.elu(h + self.bias1)
        return self.layer2(e, F.dropout(h, self.dropout, self.training)).squeeze(2) + self.bias2
