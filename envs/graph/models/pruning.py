"""GCN-Jaccard: a GCN that does not see edges between unlike nodes (Wu et al., 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.edges import Edges, edges
from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.graphs import similar
from advgym.envs.graph.models.convolutions import GCN, convolve_edges

BLOCK = 1 << 23  # entries of gathered features held at once


class Jaccard(GCN):
    """A GCN on the edges between nodes whose binary features have a Jaccard similarity of at least `threshold`.

    A part of the model, in training as in its answers, where the wrapper `jaccard` is a step before any victim. What
    is alike is said once for both (`Graph.alike`), and in both flips of unlike pairs have gradient zero, relaxed or as
    candidates.
    """

    hops = 3  # the degrees of the furthest nodes are those of the pruned graph
    listed = True

    def __init__(
        self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5, threshold: float = 0.01
    ) -> None:
        super().__init__(features, classes, hidden, dropout)
        self.threshold, self.width = float(threshold), 8 * hidden

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        e = edges(adjacency)
        weight = e.weight.to(self.layer1.weight.dtype) * alike(e, features, self.threshold)
        h = (convolve_edges(e, weight, features.linear(self.layer1.weight)) + self.layer1.bias).relu()
        h = F.dropout(h, self.dropout, self.training) @ self.layer2.weight
        return convolve_edges(e, weight, h) + self.layer2.bias


@torch.no_grad()
def alike(e: Edges, features: Features, threshold: float) -> Tensor:
    """Whether the ends of every edge are alike by their (perturbed) features, bool (m,)."""
    if features.shared:
        node = getattr(features, "node", None)  # of a receptive field
        a, b = (e.source, e.target) if node is None else (node[e.source], node[e.target])
        return features.graph.alike(a, b, threshold)
    x = features.dense() > 0
    flat = x.flatten(0, 1)
    a, b = (e.source, e.target) if x.shape[1] == 1 else (e.out_of, e.into)
    step = max(1, BLOCK // flat.shape[1])
    parts = [similar(flat[i], flat[j], threshold) for i, j in zip(a.split(step), b.split(step), strict=True)]
    return torch.cat(parts) if parts else a.new_zeros(0, dtype=torch.bool)
