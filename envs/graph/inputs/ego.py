"""Targeted rows on their exact receptive fields: the k-hop neighbourhoods of many targets as one small graph.

After k sums over neighbours the answer for a node reads nothing beyond k hops. The (row, node) pairs that a batch of
rows reaches in its perturbed graphs are numbered anew as the nodes of one graph: nodes at the border have no incoming
edges, but their true perturbed degrees, so every value that reaches a target is that of the whole graph.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advgym.envs.graph.inputs.edges import Edges
from advgym.envs.graph.inputs.graphs import Graph, ragged
from advgym.envs.graph.inputs.rows import GraphRows

ELEMENTS = 1 << 22  # entries of one hidden layer of one forward
WORTH = 3  # receptive fields of more than a third of the graph are no saving


class EgoAdjacency:
    """The receptive fields of rows as one graph of M nodes; answers what an `Adjacency` of n = 1 does.

    Args:
        rows: without a probe of pairs.
        hops: k.

    Attributes:
        key: int64 (M,), row * N + node, ascending.
        node: int64 (M,), the node of the clean graph.
        source, target: int64 (m,), the directed edges into nodes closer than k; weight: float (m,).
    """

    n = 1
    tape = probe_nodes = leaf = None

    def __init__(self, rows: GraphRows, hops: int) -> None:
        self.rows, self.graph = rows, rows.graph
        self.dtype = torch.float32 if rows.weights is None else rows.weights.dtype
        self._flips = _Flips(rows, self.dtype)
        frontier = torch.arange(len(rows), device=rows.target.device) * rows.graph.size + rows.target
        self._keys, self._edges = [frontier], []
        for _ in range(hops):
            target, source, weight = self._flips.edges_into(frontier)
            new = source.unique()
            frontier = new[~_member(new, self._keys[-1])]
            self._edges.append((source, target, weight))
            self._keys.append(torch.cat([self._keys[-1], frontier]).sort().values)
        self._number()

    def _number(self) -> None:
        """Number the nodes of the outermost hop left."""
        self.key = self._keys[-1]
        self.size, self.node = len(self.key), self.key % self.graph.size
        source, target, weight = zip(*self._edges, strict=True)
        self.source, self.target = (torch.searchsorted(self.key, torch.cat(v)) for v in (source, target))
        self.weight = torch.cat(weight)
        self.hard = not self.weight.requires_grad and self.rows.weights is None

    def narrow(self, *values: Tensor) -> tuple[Any, ...]:
        """(the fields of one hop less, the values (M, 1, ...) of their nodes): all that the layers to come read."""
        if len(self._edges) < 2:
            return self, *values
        inner = copy.copy(self)
        inner.__dict__.pop("degree", None)
        inner._keys, inner._edges = self._keys[:-1], self._edges[:-1]
        inner._number()
        place = torch.searchsorted(self.key, inner.key)
        return inner, *(v.index_select(0, place) for v in values)

    def answers(self, scores: Tensor) -> Tensor:
        """The scores of the rows' targets (n, C), of scores of all nodes (M, 1, C) or of those that were left."""
        key = next(k for k in self._keys if len(k) == len(scores))  # fields of one size are the same
        return scores[torch.searchsorted(key, self._keys[0]), 0]

    def sum(self, h: Tensor) -> Tensor:
        """Sums over neighbours, (M, 1, H) from (M, 1, H); true for nodes closer than k hops."""
        flat = h.squeeze(1).index_select(0, self.source)
        if not self.hard:
            flat = flat * self.weight.unsqueeze(1).to(h.dtype)
        return flat.new_zeros(self.size, flat.shape[1]).index_add(0, self.target, flat).unsqueeze(1)

    @cached_property
    def degree(self) -> Tensor:
        """True weighted degrees in the perturbed graphs, (M, 1), border nodes included."""
        key, _, change = self._flips.key, self._flips.other, self._flips.change
        place = torch.searchsorted(self.key, key).clamp_max(self.size - 1)
        hit = self.key[place] == key
        return self.graph.degree[self.node].to(self.dtype).index_add(0, place[hit], change[hit]).unsqueeze(1)

    def edges(self) -> Edges:
        """The edges as lists; a node at the border has none."""
        row = torch.zeros_like(self.source)
        inner = torch.searchsorted(self.key, self._keys[-2])
        return Edges(self.size, 1, row, self.source, self.target, self.weight, inner)


class _Flips:
    """The flips of all rows by their ends, both directions: which edges a list of (row, node) has."""

    def __init__(self, rows: GraphRows, dtype: torch.dtype) -> None:
        graph, size = rows.graph, rows.graph.size
        a, b, d = rows.changes(dtype)
        row, e = (rows.flips[..., 0] >= 0).nonzero(as_tuple=True)
        a, b, d = a[row, e], b[row, e], d[row, e]
        row, d = row.repeat(2), d.repeat(2)
        a, b = torch.cat([a, b]), torch.cat([b, a])
        order = ((row * size + a) * size + b).argsort()
        row, a, b, self.change = row[order], a[order], b[order], d[order]
        self.graph, self.key, self.other = graph, row * size + a, row * size + b
        self.pair, self.new = self.key * size + b, ~graph.has(a, b)

    def edges_into(self, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(target key, source key, weight) of the edges into the nodes `key` of the perturbed graphs."""
        size = self.graph.size
        row, node = key // size, key % size
        owner, near = self.graph.neighbours(node)
        target, source = key[owner], row[owner] * size + near
        weight = torch.ones(len(target), dtype=self.change.dtype, device=key.device)
        if not len(self.key):
            return target, source, weight
        pair = target * size + near
        place = torch.searchsorted(self.pair, pair).clamp_max(len(self.pair) - 1)
        hit = self.pair[place] == pair
        weight = weight.index_add(0, hit.nonzero()[:, 0], self.change[place[hit]])
        low = torch.searchsorted(self.key, key)
        owner, entry = ragged(low, torch.searchsorted(self.key, key, right=True) - low)
        fresh = self.new[entry]
        owner, entry = owner[fresh], entry[fresh]
        target, source = torch.cat([target, key[owner]]), torch.cat([source, self.other[entry]])
        weight = torch.cat([weight, self.change[entry]])
        if weight.requires_grad:
            return target, source, weight
        keep = weight != 0
        return target[keep], source[keep], weight[keep]


class EgoFeatures:
    """The features of the nodes of an `EgoAdjacency`; answers what `Features` of n = 1 does."""

    n = 1

    def __init__(self, ego: EgoAdjacency) -> None:
        rows = ego.rows
        self.ego, self.graph, self.node = ego, rows.graph, ego.node
        size = self.graph.size
        self.cells: tuple[Tensor, Tensor, Tensor] | None = None
        self.added: tuple[Tensor, Tensor] | None = None
        if rows.cells is not None and rows.cells.shape[1]:
            dtype = self.graph.x.dtype if rows.cell_weights is None else rows.cell_weights.dtype
            node, feature, change = rows.feature_changes(dtype)
            row, k = (node >= 0).nonzero(as_tuple=True)
            place, hit = self._places(row * size + node[row, k])
            self.cells = place[hit], feature[row, k][hit], change[row, k][hit]
        if rows.probe is not None and rows.probes == "cells":
            assert rows.probe_nodes is not None
            row, g = (rows.probe_nodes >= 0).nonzero(as_tuple=True)
            place, hit = self._places(row * size + rows.probe_nodes[row, g])
            self.added = place[hit], rows.probe[row, g][hit]

    @property
    def shared(self) -> bool:
        """Whether all are those of the clean graph, at `node`."""
        return self.cells is None and self.added is None

    def _places(self, key: Tensor) -> tuple[Tensor, Tensor]:
        place = torch.searchsorted(self.ego.key, key).clamp_max(self.ego.size - 1)
        return place, self.ego.key[place] == key

    def linear(self, weight: Tensor) -> Tensor:
        """The product x W without a bias: (M, 1, H)."""
        graph, dtype, node = self.graph, weight.dtype, self.ego.node
        out, total = graph.product(weight), graph.total(dtype).unsqueeze(1)
        if self.shared:
            return (out / total.clamp_min(1) if graph.row_norm else out).index_select(0, node).unsqueeze(1)
        out, total = out.index_select(0, node), total[node]
        if self.cells is not None:
            place, feature, change = self.cells
            change = change.to(dtype).unsqueeze(1)
            out, total = out.index_add(0, place, change * weight[feature]), total.index_add(0, place, change)
        if self.added is not None:
            place, more = self.added
            more = more.to(dtype)
            out = out.index_add(0, place, more @ weight)
            total = total.index_add(0, place, more.sum(1, keepdim=True))
        return (out / total.clamp_min(1) if graph.row_norm else out).unsqueeze(1)

    def dense(self) -> Tensor:
        """The features themselves, (M, 1, F)."""
        x = self.graph.x[self.ego.node]
        if self.cells is not None:
            place, feature, change = self.cells
            x = x.to(change.dtype).index_put((place, feature), change, accumulate=True)
        if self.added is not None:
            place, more = self.added
            x = x.to(more.dtype).index_add(0, place, more)
        return (x / x.sum(1, keepdim=True).clamp_min(1) if self.graph.row_norm else x).unsqueeze(1)


def narrow(adjacency: Any, *values: Tensor) -> tuple[Any, ...]:
    """Between two layers of a model with `hops`: the adjacency and values that the layers to come read."""
    return adjacency.narrow(*values) if isinstance(adjacency, EgoAdjacency) else (adjacency, *values)


def near_targets(model: Any, rows: GraphRows) -> Tensor:
    """Scores of each row's target (n, C), by a model whose answers reach `model.hops` hops and no further."""
    parts = []
    for run in _runs(rows, reach(rows, model.hops) * getattr(model, "width", 64)):
        some = rows if len(run) == len(rows) else rows.take(run)
        ego = EgoAdjacency(some, model.hops)
        parts.append(ego.answers(model.scores(ego, EgoFeatures(ego))))
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def pays(model: Any, rows: GraphRows) -> bool:
    """Whether receptive fields serve these rows, and are small beside whole graphs."""
    hops = getattr(model, "hops", 0)
    if not hops or not len(rows) or (rows.probe is not None and rows.probes == "pairs"):
        return False
    return WORTH * float(reach(rows, hops).mean()) < rows.graph.size


def reach(rows: GraphRows, hops: int) -> Tensor:
    """About how many nodes are read for each row, float (n,): by walks from the target and from the flips' ends."""
    graph, size = rows.graph, rows.graph.size
    out = _walks(graph, hops)[rows.target]
    if rows.flips.shape[1]:
        ends = rows.flips.flatten(1)
        out = out + (_walks(graph, hops - 1)[ends.clamp_min(0)] * (ends >= 0)).sum(1)
    return out.clamp_max(size)


def _walks(graph: Graph, hops: int) -> Tensor:
    """Walks of at most `hops` steps from each node, (N,), cut at the number of nodes."""
    out = torch.ones(graph.size, 1, dtype=torch.float32, device=graph.device)
    for _ in range(hops):
        out = (1 + graph.matrix() @ out).clamp_max(graph.size)
    return out.squeeze(1)


def _runs(rows: GraphRows, cost: Tensor) -> list[Tensor]:
    """Indices of rows in runs that cost at most ELEMENTS each (a single row may cost more)."""
    total = cost.double().cumsum(0)
    part = ((total - cost) // ELEMENTS).long().cpu()
    every = torch.arange(len(rows), device=rows.target.device)
    return list(every.split(torch.unique_consecutive(part, return_counts=True)[1].tolist()))


def _member(value: Tensor, among: Tensor) -> Tensor:
    """Whether values are among ascending ones."""
    place = torch.searchsorted(among, value).clamp_max(len(among) - 1)
    return among[place] == value
