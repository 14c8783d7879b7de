"""Whole perturbed graphs that answer for many nodes at once: the inputs of global attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advgym.envs.graph.inputs.adjacency import Adjacency, Tape
from advgym.envs.graph.inputs.features import Features, features_of
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.errors import AdvgymError


@dataclass(frozen=True)
class GlobalRows:
    """n versions of one graph, each asked about the same M nodes: n * M rows, the members of a graph side by side.

    Attributes:
        graph: the clean graph.
        nodes: int64 (M,) the nodes that are asked about.
        flips, weights, cells, cell_weights: as in `GraphRows`.
        tape: records what ranks all pairs.
    """

    graph: Graph
    nodes: Tensor
    flips: Tensor
    weights: Tensor | None = None
    cells: Tensor | None = None
    cell_weights: Tensor | None = None
    tape: Tape | None = None

    @property
    def many(self) -> int:
        """How many graphs: n."""
        return len(self.flips)

    def __len__(self) -> int:
        return self.many * len(self.nodes)

    @property
    def together(self) -> int:
        """Rows that are one answer: a graph's members."""
        return len(self.nodes)

    def graphs(self, index: Tensor) -> GlobalRows:
        """The graphs at `index`, int64 (m,), with all their members."""
        flips, weights, cells, cell_weights = (
            None if v is None else v[index] for v in (self.flips, self.weights, self.cells, self.cell_weights)
        )
        assert flips is not None
        return replace(self, flips=flips, weights=weights, cells=cells, cell_weights=cell_weights)

    def take(self, index: Tensor) -> GlobalRows:
        """The rows at `index`, int64 (m,): whole graphs, their members in order."""
        m = len(self.nodes)
        first = index.view(-1, m)[:, 0] // m if len(index) % m == 0 else None
        if first is None or not torch.equal(index, (first.unsqueeze(1) * m + torch.arange(m).to(index)).flatten()):
            raise AdvgymError(f"a global graph answers for all of its {m} nodes: its rows are taken together")
        return self.graphs(first)

    def runs(self, step: int) -> Iterator[GlobalRows]:
        """The same graphs, at most `step` at a time."""
        every = torch.arange(self.many, device=self.flips.device)
        for index in every.split(max(step, 1)):
            yield self if len(index) == self.many else self.graphs(index)

    def prune(self, threshold: float) -> GlobalRows:
        """Drop the edges between nodes of Jaccard feature similarity below `threshold`; see `GraphRows.prune`."""
        one = GraphRows(
            self.graph, self.nodes[:1].expand(self.many), self.flips, self.weights, self.cells, self.cell_weights
        ).prune(threshold)  # fmt: skip
        if self.tape is not None:
            self.tape.alike = float(threshold)
        return replace(self, graph=one.graph, flips=one.flips, weights=one.weights)

    @property
    def asked(self) -> Tensor:
        """The nodes that one graph is asked about, int64 (M,)."""
        return self.nodes

    def of_lane(self, lane: int) -> GlobalRows:
        """One graph alone."""
        return self.graphs(torch.tensor([lane], device=self.flips.device))

    def raw(self, edge_index: Tensor, edge_weight: Tensor) -> RawGraph:
        """A graph of the caller's own making, asked about the same nodes."""
        return RawGraph(self.graph, self.nodes, edge_index, edge_weight)

    def adjacency(self) -> Adjacency:
        """The perturbed adjacencies."""
        return Adjacency(self.graph, self.flips, self.weights, tape=self.tape)

    def features(self) -> Features:
        """The perturbed features."""
        return features_of(self)
