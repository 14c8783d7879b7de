"""The edges of n perturbed graphs as lists, for models whose edge weights depend on both ends (attention, distances).

Such a model does not read the graph by sums of one node's values alone, so `Tape` cannot rank its pairs. Here every
directed edge is an entry with a differentiable weight, and candidate edges of weight zero are entries too: those of the
probed nodes of targeted rows, or a block of pairs of a whole graph (`BlockTape`). A model has to be linear in a pair's
weight where it is zero: an edge of weight zero changes no score, and two entries of one pair count as their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advgym.envs.graph.adjacency import Adjacency, Tape
from advgym.envs.graph.graphs import Graph
from advgym.envs.graph.pairs import gains_of

SPREAD = 60.0  # exponents of a softmax above the largest of the real edges are cut here, below float32's limit


class BlockTape(Tape):
    """A tape whose leaf holds the weights, zero, of a block of candidate pairs: what ranks models of explicit edges.

    Args:
        block: int64 (B, 2) undirected pairs of different nodes, joined or not.
        n: graphs of the forward; the leaf is (n, B).
    """

    def __init__(self, block: Tensor, n: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(block.device)
        self.block = block
        self.leaf = torch.zeros(n, len(block), dtype=dtype, device=block.device, requires_grad=True)

    def gains(self, graph: Graph, row: int, gradient: Tensor | None) -> Tensor:
        """First-order gains of flipping the block's pairs in a row's graph, (B,), given the leaf's gradient (n, B)."""
        a, b = self.block.unbind(1)
        out = torch.zeros(len(self.block), dtype=self.leaf.dtype, device=self.block.device)
        if gradient is not None:
            out = gradient[row] * (1 - 2 * graph.has(a, b).to(out.dtype))
        return out + gains_of(graph, *self.factors(row), self.block).to(out) if self.entries else out


@dataclass(frozen=True)
class Edges:
    """All directed edges of n graphs of N nodes.

    Attributes:
        size, n: N and the number of graphs.
        row, source, target: int64 (m,); an edge hands what its source has to its target.
        weight: float (m,), 1 for an edge that is there, 0 for a candidate.
    """

    size: int
    n: int
    row: Tensor
    source: Tensor
    target: Tensor
    weight: Tensor

    @cached_property
    def into(self) -> Tensor:
        """Places of the targets in node-first values (N, n, ...) with the first two axes as one."""
        return self.target * self.n + self.row

    @cached_property
    def out_of(self) -> Tensor:
        """Places of the sources."""
        return self.source * self.n + self.row

    def at_source(self, h: Tensor) -> Tensor:
        """What the sources have: (m, ...) from node-first h (N, n or 1, ...)."""
        shared = h.shape[1] == 1
        return h.flatten(0, 1).index_select(0, self.source if shared else self.out_of)

    def at_target(self, h: Tensor) -> Tensor:
        """What the targets have: (m, ...) from node-first h (N, n or 1, ...)."""
        shared = h.shape[1] == 1
        return h.flatten(0, 1).index_select(0, self.target if shared else self.into)

    def sum(self, value: Tensor) -> Tensor:
        """Sums over each node's incoming edges, (N, n, ...), of values (m, ...). Weights are the caller's."""
        out = value.new_zeros(self.size * self.n, *value.shape[1:]).index_add(0, self.into, value)
        return out.view(self.size, self.n, *value.shape[1:])

    def softmax(self, score: Tensor) -> Tensor:
        """Shares w exp(score) of the sum at each target, of scores (m, heads)."""
        seen = torch.where((self.weight > 0).unsqueeze(1), score.detach(), -torch.inf)
        most = seen.new_full((self.size * self.n, score.shape[1]), -torch.inf)
        index = self.into.unsqueeze(1).expand_as(seen)
        most = most.scatter_reduce(0, index, seen, "amax").clamp_min(-1e30)
        value = self.weight.unsqueeze(1) * (score - most[self.into]).clamp_max(SPREAD).exp()
        total = self.sum(value).flatten(0, 1)
        total = torch.where(total > 0, total, 1.0)  # a node with candidates alone hears nothing
        return value / total.index_select(0, self.into)

    def with_loops(self) -> Edges:
        """The same with an edge of weight 1 from every node to itself."""
        place = torch.arange(self.size * self.n, device=self.row.device)
        node, row = place // self.n, place % self.n
        source, target = torch.cat([self.source, node]), torch.cat([self.target, node])
        weight = torch.cat([self.weight, self.weight.new_ones(len(place))])
        return Edges(self.size, self.n, torch.cat([self.row, row]), source, target, weight)


def edges(adjacency: Any) -> Edges:
    """The directed edges of perturbed graphs, with candidates of weight zero where a probe or a block asks for them."""
    own = getattr(adjacency, "edges", None)
    return own() if own is not None else _listed(adjacency)


def _listed(adjacency: Adjacency) -> Edges:
    graph, n, size = adjacency.graph, adjacency.n, adjacency.size
    device, many = graph.device, len(graph.keys)
    lane = torch.arange(n, device=device)
    base_source, base_target = graph.edge_index()
    parts = [(lane.repeat_interleave(many), base_source.repeat(n), base_target.repeat(n))]
    more = [(adjacency.row, adjacency.a, adjacency.b, adjacency.change), *_candidates(adjacency)]
    dtype = torch.promote_types(adjacency.change.dtype, more[-1][3].dtype)
    weight = torch.ones(n * many, dtype=dtype, device=device)
    extra = []
    for row, a, b, change in more:
        row, a, b, change = row.repeat(2), torch.cat([a, b]), torch.cat([b, a]), change.repeat(2).to(weight)
        there = graph.find(a, b)
        old = there >= 0
        weight = weight.index_add(0, row[old] * many + there[old], change[old])
        parts.append((row[~old], a[~old], b[~old]))
        extra.append(change[~old])
    weight = torch.cat([weight, *extra])
    row, source, target = (torch.cat(p) for p in zip(*parts, strict=True))
    if not weight.requires_grad:
        keep = weight != 0
        row, source, target, weight = row[keep], source[keep], target[keep], weight[keep]
    return Edges(size, n, row, source, target, weight)


def _candidates(adjacency: Adjacency) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(row, a, b, zero) of the pairs that a probe or a block asks about."""
    leaf = adjacency.leaf
    if isinstance(adjacency.tape, BlockTape):
        n, many = adjacency.tape.leaf.shape
        row = torch.arange(n, device=adjacency.graph.device).repeat_interleave(many)
        return [(row, *adjacency.tape.block.repeat(n, 1).unbind(1), adjacency.tape.leaf.flatten())]
    if adjacency.tape is not None or leaf is None or adjacency.probe_nodes is None:
        return []
    nodes = adjacency.probe_nodes
    every = torch.arange(adjacency.size, device=nodes.device)
    row, g, other = ((nodes >= 0).unsqueeze(2) & (nodes.unsqueeze(2) != every)).nonzero(as_tuple=True)
    return [(row, nodes[row, g], other, leaf[row, g, other])]


def dense(adjacency: Any) -> Tensor:
    """The adjacencies as matrices (n, N, N), for models that need inverses or spectra; differentiable."""
    e = edges(adjacency)
    out = e.weight.new_zeros(e.n * e.size * e.size)
    return out.index_add(0, (e.row * e.size + e.target) * e.size + e.source, e.weight).view(e.n, e.size, e.size)
