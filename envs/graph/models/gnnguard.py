"""GNNGuard: neighbours count by how alike they are (Zhang & Zitnik, 2020)."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.edges import Edges, edges
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.models.convolutions import Dense
from advgym.envs.graph.models.propagation import Propagation

BLOCK = 1 << 23  # entries of gathered features held at once
TABLE = 4096  # graphs up to this many nodes keep the likeness of all pairs (64 MB at most)


class GNNGuard(Propagation):
    """A GCN whose edges are weighted, layer by layer, by the cosine similarity of what their ends hold.

    s_vu = cos(h_v, h_u) where that is at least `cut`; alpha_vu = s_vu / sum_u s_vu * N_v / (N_v + 1), with N_v the
    neighbours left; a node keeps 1 / (N_v + 1) of itself; layers remember: w_k = memory w_(k-1) + (1 - memory) alpha_k.
    Without the learned pruning of the paper, as Mujkanovic et al. (2022) keep it out: it takes no gradient anyway.
    """

    hops = 2
    listed = True

    def __init__(
        self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5, cut: float = 0.1,
        memory: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer1, self.layer2 = Dense(features, hidden), Dense(hidden, classes)
        self.dropout, self.cut, self.memory, self.width = dropout, cut, memory, 8 * hidden

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        e = edges(adjacency)
        weight, own = self._defend(e, likeness(e, features, self.layer1.weight.dtype))
        bias1, bias2 = self.layer1.bias, self.layer2.bias
        h = (_pass(e, features.linear(self.layer1.weight), weight, own) + bias1).relu()
        again, own2 = self._defend(e, cosine(e, h))
        weight, own = (self.memory * old + (1 - self.memory) * new for old, new in ((weight, again), (own, own2)))
        return _pass(e, F.dropout(h, self.dropout, self.training) @ self.layer2.weight, weight, own) + bias2

    def _defend(self, e: Edges, likeness: Tensor) -> tuple[Tensor, Tensor]:
        """Defended weights of the edges (m,) and of the nodes themselves (N, n, 1)."""
        kept = ((likeness >= self.cut) & (likeness > 0)).to(likeness.dtype)  # so that nobody divides by nothing
        s = e.weight.to(likeness.dtype) * kept * likeness
        count = e.sum(e.weight.to(likeness.dtype) * kept)
        share = count / (count + 1) / e.sum(s).clamp_min(1e-12)
        return s * e.at_target(share), (1 / (count + 1)).unsqueeze(2)


_tables: WeakKeyDictionary[Graph, Tensor] = WeakKeyDictionary()


def likeness(e: Edges, features: Features, dtype: torch.dtype) -> Tensor:
    """Cosine similarity of the ends of every edge by their features, (m,)."""
    graph = features.graph
    if not features.shared or graph.size > TABLE:
        return cosine(e, features.dense().to(dtype))
    if graph not in _tables or _tables[graph].dtype != dtype:
        unit = F.normalize(graph.x.to(dtype), dim=1)
        _tables[graph] = unit @ unit.T
    node = getattr(features, "node", None)  # of a receptive field
    a, b = (e.source, e.target) if node is None else (node[e.source], node[e.target])
    return _tables[graph][a, b]


def cosine(e: Edges, h: Tensor) -> Tensor:
    """Cosine similarity of the ends of every edge, (m,), of node-first values h; 0 where an end holds nothing."""
    h = h / (h.square().sum(2, keepdim=True) + 1e-12).sqrt()
    if h.requires_grad:
        return (e.at_source(h) * e.at_target(h)).sum(1)
    flat = h.flatten(0, 1)
    ends = (e.source, e.target) if h.shape[1] == 1 else (e.out_of, e.into)
    step = max(1, BLOCK // flat.shape[1])
    parts = [(flat[a] * flat[b]).sum(1) for a, b in zip(*(v.split(step) for v in ends), strict=True)]
    return torch.cat(parts) if parts else flat.new_zeros(0)


def _pass(e: Edges, h: Tensor, weight: Tensor, own: Tensor) -> Tensor:
    return e.sum(weight.unsqueeze(1) * e.at_source(h)) + own * h
