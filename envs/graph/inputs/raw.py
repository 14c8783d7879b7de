"""One graph as foreign libraries write it, with a weight on every edge: what `env.victim` is asked by bridges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from advgym.envs.graph.inputs.features import Features
from advgym.envs.graph.inputs.graphs import Graph
from advgym.errors import AdvgymError, DataError


class EdgeList:
    """An adjacency of (edge_index, edge_weight), with the interface of `Adjacency` for one graph."""

    n = 1

    def __init__(self, size: int, edge_index: Tensor, edge_weight: Tensor) -> None:
        self.size, self.edge_index, self.edge_weight = size, edge_index, edge_weight

    def sum(self, h: Tensor) -> Tensor:
        """Weighted sums over in-neighbours, (N, 1, H); differentiable in the weights."""
        source, target = self.edge_index
        sent = self.edge_weight.view(-1, 1, 1).to(h.dtype) * h[source]
        return torch.zeros_like(h).index_add(0, target, sent)

    @property
    def degree(self) -> Tensor:
        """Weighted in-degrees, (N, 1)."""
        zero = torch.zeros(self.size, dtype=self.edge_weight.dtype, device=self.edge_weight.device)
        return zero.index_add(0, self.edge_index[1], self.edge_weight).unsqueeze(1)


@dataclass(frozen=True)
class RawGraph:
    """A whole graph of the caller's own making, asked about some nodes: one row for each of them.

    Attributes:
        graph: the clean graph of the task, whose nodes and features these are.
        nodes: int64 (M,).
        edge_index: int64 (2, e), both directions of every edge, none twice.
        edge_weight: float (e,), finite.
    """

    graph: Graph
    nodes: Tensor
    edge_index: Tensor
    edge_weight: Tensor

    def __post_init__(self) -> None:
        index, weight, size = self.edge_index, self.edge_weight, self.graph.size
        if index.dim() != 2 or index.shape[0] != 2 or index.dtype != torch.int64 or weight.shape != index.shape[1:]:
            raise DataError(
                f"a raw graph is edge_index int64 (2, e) and edge_weight (e,), not {tuple(index.shape)} {index.dtype} "
                f"and {tuple(weight.shape)}"
            )
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise DataError(f"edge_index names node {int(index.max())}; this graph has nodes 0 to {size - 1}")
        if not bool(torch.isfinite(weight).all()):
            raise DataError("edge_weight holds NaN or infinity")

    def __len__(self) -> int:
        return len(self.nodes)

    def parts(self) -> tuple[Tensor, Tensor]:
        """What the caller made, as the clean rows' `raw` takes it again; gradients are of the last."""
        return self.edge_index, self.edge_weight

    def distance(self) -> Tensor:
        """Weighted pairs in which it differs from the clean graph, for each of its rows, float32 (M,)."""
        size = self.graph.size
        key = torch.cat([self.edge_index[0] * size + self.edge_index[1], self.graph.keys])
        value = torch.cat([self.edge_weight.detach().float(), -torch.ones_like(self.graph.keys, dtype=torch.float32)])
        pair, owner = key.unique(return_inverse=True)
        total = torch.zeros(len(pair), device=value.device).index_add(0, owner, value)
        return (total.abs().sum() / 2).expand(len(self.nodes))

    def take(self, index: Tensor) -> RawGraph:
        """The rows at `index`: all of them, in order."""
        if not torch.equal(index, torch.arange(len(self), device=index.device)):
            raise AdvgymError("a raw graph answers for all of its nodes at once")
        return self

    many: ClassVar[int] = 1
    tape: ClassVar[None] = None

    def runs(self, step: int) -> Iterator[RawGraph]:
        """The graph itself."""
        yield self

    def adjacency(self) -> EdgeList:
        """The edges as an operator."""
        return EdgeList(self.graph.size, self.edge_index, self.edge_weight)

    def features(self) -> Features:
        """The clean features."""
        return Features(self.graph, 1)
