"""Labelled graphs as datasets hold them: the nodes of one graph, or many whole graphs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.perturb.dense import DenseRows
from advgym.lib.content import digest


@dataclass(frozen=True)
class NodeData:
    """One graph with node labels.

    Attributes:
        labels: int64 (N,), -1 where a node has none.
        nodes: split -> int64 node ids; a sample id indexes its split's list.
        notes: what reading it changed of it, in words.
    """

    graph: Graph
    labels: Tensor
    classes: int
    nodes: dict[str, Tensor]
    class_names: list[str] | None = None
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """Of all that a victim learns from or is measured on: edges, features, labels and every split."""
        return digest(self.graph.size, self.graph.pairs, self.graph.x, self.graph.row_norm, self.labels, self.classes,
                      self.nodes)  # fmt: skip


@dataclass(frozen=True)
class WholeData:
    """Many small graphs, padded to the largest: x (n, M, T), adjacency (n, M, M), count and labels (n,)."""

    x: Tensor
    adjacency: Tensor
    count: Tensor
    labels: Tensor
    classes: int
    split: dict[str, Tensor]
    class_names: list[str] | None = field(default=None)
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """As `NodeData.digest`."""
        return digest(self.x, self.adjacency, self.count, self.labels, self.classes, self.split)

    def rows(self, index: Tensor) -> DenseRows:
        """Clean graphs as a model takes them."""
        mask = torch.arange(self.x.shape[1]) < self.count[index].unsqueeze(1)
        return DenseRows(self.x[index], self.adjacency[index], mask)


def halves(labels: Tensor) -> dict[str, Tensor]:
    """Every other labelled node of each class for training, the rest for testing."""
    train, test = [], []
    for label in labels[labels >= 0].unique().tolist():
        nodes = (labels == label).nonzero()[:, 0].tolist()
        train += nodes[::2]
        test += nodes[1::2]
    return {"train": torch.tensor(sorted(train)), "test": torch.tensor(sorted(test or train))}
