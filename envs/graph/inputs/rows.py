"""Many perturbed views of one graph: what the victims of node tasks are given."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import take
from advgym.envs.graph.inputs.graphs import GATHER, Graph, similar
from advgym.envs.graph.inputs.raw import RawGraph


@dataclass(frozen=True)
class GraphRows:
    """n rows, each one shared graph with its own few flips and one node to classify.

    Attributes:
        graph: the clean graph, shared and cached.
        target: int64 (n,) the node that each row asks about.
        flips: int64 (n, E, 2) undirected pairs to flip; rows of -1 are padding; no pair twice in a row.
        weights: float (n, E) in [0, 1], how much of each flip is applied (an edge keeps 1 - w, a new one has w), or
            None for all of it.
        cells: int64 (n, K, 2) (node, feature) entries of binary features to flip, or None.
        cell_weights: like `weights`, for `cells`.
        probe: zeros whose gradient ranks candidates: (n, G, N) added to the adjacency between `probe_nodes` and all
            nodes when `probes` is "pairs"; (n, G, F) added to the features of `probe_nodes` when it is "cells".
        probe_nodes: int64 (n, G), -1 is padding.
    """

    graph: Graph
    target: Tensor
    flips: Tensor
    weights: Tensor | None = None
    cells: Tensor | None = None
    cell_weights: Tensor | None = None
    probe: Tensor | None = None
    probe_nodes: Tensor | None = None
    probes: str = "pairs"

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: Tensor) -> GraphRows:
        """The rows at `index`, int64 (m,)."""
        index = index.to(self.target.device)

        def rows(value: Tensor | None) -> Tensor | None:
            return None if value is None else take(value, index)

        return replace(
            self, target=self.target[index], flips=self.flips[index], weights=rows(self.weights),
            cells=rows(self.cells), cell_weights=rows(self.cell_weights), probe=rows(self.probe),
            probe_nodes=rows(self.probe_nodes),
        )  # fmt: skip

    @property
    def asked(self) -> Tensor:
        """The node that each row asks about, int64 (n,)."""
        return self.target

    def of_lane(self, lane: int) -> GraphRows:
        """One row alone."""
        return self.take(torch.tensor([lane], device=self.target.device))

    def raw(self, edge_index: Tensor, edge_weight: Tensor) -> RawGraph:
        """A graph of the caller's own making, asked about the targets of these rows."""
        return RawGraph(self.graph, self.target, edge_index, edge_weight)

    def probing(self, probes: str) -> tuple[Tensor, Tensor] | None:
        """(`probe`, `probe_nodes`) where candidates of this kind, "pairs" or "cells", are ranked; else None."""
        if self.probe is None or self.probes != probes:
            return None
        assert self.probe_nodes is not None
        return self.probe, self.probe_nodes

    # -- what the perturbed graphs look like ------------------------------------------------------------------------
    def changes(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, d): endpoints (n, E) and the signed change of each pair's adjacency; 0 at padding."""
        pad = self.flips[..., 0] < 0
        a, b = self.flips.clamp_min(0).unbind(2)
        sign = 1 - 2 * self.graph.has(a, b).to(dtype)
        d = sign if self.weights is None else sign * self.weights.to(dtype)
        return a, b, torch.where(pad, 0.0, d)

    def feature_changes(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """(node, feature, d): (n, K) and the signed change of each entry; node -1 and d 0 at padding."""
        if self.cells is None:
            none = self.target.new_zeros(len(self), 0)
            return none, none, none.to(dtype)
        node, feature = self.cells.unbind(2)
        pad = node < 0
        sign = 1 - 2 * self.graph.x[node.clamp_min(0), feature.clamp_min(0)].to(dtype)
        d = sign if self.cell_weights is None else sign * self.cell_weights.to(dtype)
        return node, feature.clamp_min(0), torch.where(pad, 0.0, d)

    def edges_near(self, node: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Perturbed neighbours of (row, node) lists: (entry of the list, neighbour). Half-applied flips round."""
        owner, other = self.graph.neighbours(node)
        a, b, d = self.changes(torch.float32)
        hard = d.abs() > 0.5
        gone = ((a[row] == node.unsqueeze(1)) | (b[row] == node.unsqueeze(1))) & hard[row]  # flips at the entry's node
        far = torch.where(a[row] == node.unsqueeze(1), b[row], a[row])  # and their other ends
        if gone.shape[1]:
            keep = ~(gone[owner] & (far[owner] == other.unsqueeze(1))).any(1)
            owner, other = owner[keep], other[keep]
            entry, e = (gone & (d[row] > 0)).nonzero(as_tuple=True)
            owner, other = torch.cat([owner, entry]), torch.cat([other, far[entry, e]])
        return owner, other

    def flip_more(self, row: Tensor, a: Tensor, b: Tensor) -> GraphRows:
        """The rows with further pairs flipped, given as lists (row, a, b); flipping twice restores, exactly."""
        size = self.graph.size
        key = torch.minimum(a, b) * size + torch.maximum(a, b)
        flips, weights = _flip_more(len(self), self.flips, self.weights, row, key, size, undirected=True)
        return replace(self, flips=flips, weights=weights)

    def flip_cells(self, row: Tensor, node: Tensor, feature: Tensor) -> GraphRows:
        """The rows with further (node, feature) entries flipped; flipping twice restores, exactly."""
        width = self.graph.features
        cells = self.target.new_full((len(self), 0, 2), -1) if self.cells is None else self.cells
        cells, weights = _flip_more(
            len(self), cells, self.cell_weights, row, node * width + feature, width, undirected=False
        )
        return replace(self, cells=cells, cell_weights=weights)

    # -- pruning ----------------------------------------------------------------------------------------------------
    def prune(self, threshold: float) -> GraphRows:
        """Drop, in every perturbed graph, the edges between nodes of Jaccard feature similarity below `threshold`.

        Clean edges go too (Wu et al. 2019). Exact, and differentiable like the rows themselves: a candidate edge that
        would be pruned has gradient zero.
        """
        threshold = float(threshold)
        base = self.graph.pruned(threshold)
        probe, pairs = self.probe, self.probing("pairs")
        if pairs is not None:
            probe, nodes = pairs[0], pairs[1].clamp_min(0).unsqueeze(2)
            every = torch.arange(self.graph.size, device=nodes.device).view(1, 1, -1)
            probe = probe * self.graph.alike(nodes, every, threshold).to(probe.dtype)
        if self.cells is not None and self.cells.shape[1]:
            row, a, b = self._pruned_pairs(threshold)
            none = self.target.new_full((len(self), 0, 2), -1)
            return replace(self, graph=base, flips=none, weights=None, probe=probe).flip_more(row, a, b)
        a, b = self.flips.clamp_min(0).unbind(2)
        keep = (self.flips[..., 0] >= 0) & self.graph.alike(a, b, threshold)
        return replace(self, graph=base, flips=torch.where(keep.unsqueeze(2), self.flips, -1), probe=probe)

    def _pruned_pairs(self, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs (row, a, b) whose edge differs between the pruned clean graph and the pruned perturbed graph.

        Only for rows with feature flips: similarity moves at the nodes whose features move.
        """
        graph, size = self.graph, self.graph.size
        assert self.cells is not None
        row, k = (self.cells[..., 0] >= 0).nonzero(as_tuple=True)
        node = self.cells[row, k, 0]
        owner, other = graph.neighbours(node)
        a, b, d = self.changes(torch.float32)
        rows_f, e = (d.abs() > 0.5).nonzero(as_tuple=True)
        r = torch.cat([row[owner], rows_f])
        i, j = torch.cat([node[owner], a[rows_f, e]]), torch.cat([other, b[rows_f, e]])
        key = ((r * size + torch.minimum(i, j)) * size + torch.maximum(i, j)).unique()
        r, i, j = key // (size * size), key // size % size, key % size
        low, high = torch.minimum(a, b)[rows_f, e], torch.maximum(a, b)[rows_f, e]
        flipped = torch.isin(key, (rows_f * size + low) * size + high)
        exists = graph.has(i, j) ^ flipped
        step = max(1, GATHER // max(graph.features, 1))
        parts = [
            similar(self._row_features(rr, ii), self._row_features(rr, jj), threshold)
            for rr, ii, jj in zip(r.split(step), i.split(step), j.split(step), strict=True)
        ]
        state = exists & torch.cat(parts)
        differs = state != graph.pruned(threshold).has(i, j)
        return r[differs], i[differs], j[differs]

    def _row_features(self, row: Tensor, node: Tensor) -> Tensor:
        """Perturbed features of (row, node) lists: bool (m, F)."""
        x = self.graph.x[node] > 0
        own, feature, d = self.feature_changes(torch.float32)
        entry, k = ((own[row] == node.unsqueeze(1)) & (d[row].abs() > 0.5)).nonzero(as_tuple=True)
        x[entry, feature[row[entry], k]] ^= True
        return x


def _flip_more(
    n: int, old: Tensor, weights: Tensor | None, row: Tensor, key: Tensor, base: int, *, undirected: bool
) -> tuple[Tensor, Tensor | None]:
    """Merge a padded set (n, E, 2) with a list of keys (high * base + low); equal keys cancel (weight 1 - w)."""
    r, e = (old[..., 0] >= 0).nonzero(as_tuple=True)
    first, second = old[r, e].unbind(1)
    if undirected:
        first, second = torch.minimum(first, second), torch.maximum(first, second)
    rows, keys = torch.cat([r, row]), torch.cat([first * base + second, key])
    w = torch.ones(len(row), device=row.device) if weights is None else row.new_ones(len(row), dtype=weights.dtype)
    w = torch.cat([w.new_ones(len(r)) if weights is None else weights[r, e], w])
    order = keys.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    rows, keys, w = rows[order], keys[order], w[order]
    opens, repeats = (torch.zeros(len(rows), dtype=torch.bool, device=rows.device) for _ in range(2))
    twin = (rows[1:] == rows[:-1]) & (keys[1:] == keys[:-1])
    opens[:-1], repeats[1:] = twin, twin
    w = torch.where(opens, 1 - w, w)  # the later of two flips has weight 1: w and then 1 leaves 1 - w
    keep = ~repeats & (~opens if weights is None else torch.ones_like(opens))
    rows, keys, w = rows[keep], keys[keep], w[keep]
    count = torch.bincount(rows, minlength=n)
    width = int(count.max()) if n else 0
    place = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
    out = old.new_full((n, width, 2), -1)
    out[rows, place] = torch.stack([keys // base, keys % base], 1)
    if weights is None:
        return out, None
    return out, w.new_zeros(n, width).index_put((rows, place), w)


def randomise_edges(inputs: GraphRows, rate: float, keys: Tensor) -> GraphRows:
    """Delete each edge around the target with probability `rate` and add as many random ones, on average.

    The edges are those of the perturbed graph with an end at the target or at one of its neighbours, all that a
    two-layer model reads; an added edge joins such an end to any node. Draws are keyed by `keys` int64 (n,).
    """
    graph, n = inputs.graph, len(inputs)
    lane = torch.arange(n, device=inputs.target.device)
    owner, near = inputs.edges_near(inputs.target, lane)
    row, node = torch.cat([lane, owner]), torch.cat([inputs.target, near])
    owner, other = inputs.edges_near(node, row)
    row, node = row[owner], node[owner]
    low, high = torch.minimum(node, other), torch.maximum(node, other)
    key = ((row * graph.size + low) * graph.size + high).unique()  # an edge between two neighbours is met twice
    row, low, high = key // (graph.size * graph.size), key // graph.size % graph.size, key % graph.size
    seed = rng.mix(keys[row]) ^ (low * graph.size + high)
    u = rng.uniform(0, seed, (2,), 41)
    pick = rng.bits(0, seed, (2,), 42)
    drop = u[:, 0] < rate
    end = torch.where(pick[:, 0] % 2 == 0, low, high)
    new = pick[:, 1] % graph.size
    add = (u[:, 1] < rate) & (end != new)
    r, i, j = row[add], end[add], new[add]
    extra = ((r * graph.size + torch.minimum(i, j)) * graph.size + torch.maximum(i, j)).unique()
    r, i, j = extra // (graph.size * graph.size), extra // graph.size % graph.size, extra % graph.size
    fresh = ~_present(inputs, r, i, j)
    return inputs.flip_more(
        torch.cat([row[drop], r[fresh]]), torch.cat([low[drop], i[fresh]]), torch.cat([high[drop], j[fresh]])
    )


def _present(inputs: GraphRows, row: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Whether edges (row, i, j) exist in the perturbed graphs."""
    a, b, d = inputs.changes(torch.float32)
    low, high = torch.minimum(a, b)[row], torch.maximum(a, b)[row]
    flipped = (low == torch.minimum(i, j).unsqueeze(1)) & (high == torch.maximum(i, j).unsqueeze(1))
    return inputs.graph.has(i, j) ^ (flipped & (d[row].abs() > 0.5)).any(1)


def randomise_cells(inputs: GraphRows, rate: float, keys: Tensor) -> GraphRows:
    """Turn each feature of the target off with probability `rate`, and as many others on, on average; keyed."""
    lane = torch.arange(len(inputs), device=inputs.target.device)
    x = inputs._row_features(lane, inputs.target)
    on = x.sum(1, keepdim=True)
    gain = rate * on / (x.shape[1] - on).clamp_min(1)
    u = rng.uniform(0, keys, (x.shape[1],), 43)
    row, feature = (u < torch.where(x, torch.full_like(gain, rate), gain)).nonzero(as_tuple=True)
    return inputs.flip_cells(row, inputs.target[row], feature)
