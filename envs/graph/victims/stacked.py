"""Any PyG-style model as a victim of node tasks: whole perturbed graphs, stacked block-diagonally."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.cached import Remembering
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.pairs import random_block
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.propagation import adjacency_of, tied
from advgym.envs.graph.victims import summed
from advgym.envs.graph.victims.modules import accepts_weights, agree, alone_as_together, call
from advgym.errors import AdvgymError, VictimError

ELEMENTS = 1 << 25  # most feature entries of one stacked forward
BLOCK = 1 << 17  # pairs that global attacks rank at once on a model that is not ours
EDGES = 1 << 20  # most directed edges of one stacked forward
TRIED = 64  # flips of the graph on which sums are compared with the module itself
WATCHED = 8  # stacked forwards of which one row is asked about alone, too


class Stacked(nn.Module):
    """Answers `GraphRows` with a model of (x, edge_index, edge_weight=None) -> scores (N, C).

    Every row is one full forward of its own graph, several to a batch: right for any model, slower than the local
    evaluation of our own. Where flips are relaxed or ranked, a module of known convolutions is read through sums
    (`summed`), any other one is passed `edge_weight`, so one without it can be attacked with up to score knowledge on
    edges. A model whose answer for one graph depends on the others of a stack (global pooling, statistics over nodes)
    or that takes so many nodes and no others is noticed, before it is used and on rows of its first forwards, and gets
    one graph at a time. So does one whose answers are kept (`cache=`): a graph is met again, a stack of several hardly
    ever. See `modules` for how it is asked.
    """

    takes_rows = True

    def __init__(self, model: Callable[..., Any], name: str = "own") -> None:
        super().__init__()
        self.model, self.name = model, name
        self.weighted = accepts_weights(model)
        self._summed: bool | None = None if summed.convolutions(model) else False
        self._stackable: bool | None = False if isinstance(model, Remembering) else None
        self._watched = 0

    def forward(self, rows: GraphRows | GlobalRows | RawGraph) -> Tensor:
        """Scores of every row's target (n, C); of global rows, of every member (n * M, C)."""
        graph = rows.graph
        if isinstance(rows, RawGraph):
            return self._call(graph.inputs_x(), rows.edge_index, rows.edge_weight)[rows.nodes]
        if isinstance(rows, GlobalRows):
            if rows.tape is not None and self.sums(graph):  # a tape is of all graphs of one forward
                return self._by_sums(rows)
            return torch.cat([self._members(some) for some in rows.runs(1)])
        step = max(1, min(ELEMENTS // max(graph.x.numel(), 1), EDGES // max(len(graph.keys), 1)))
        if rows.probe is not None and rows.probes == "pairs":
            step = max(1, min(step, EDGES // max(2 * rows.probe[0].numel(), 1)))
        if self._stackable is None and len(rows) > 1 and step > 1:
            # Judged by the answers alone: a caller's gradients are not our concern here.
            self._stackable = alone_as_together(
                lambda x, edges: self._call(x, edges, None), graph.inputs_x(), graph.edge_index()
            )
        scores = self._in_steps(rows, step if self._stackable else 1)
        if self._stackable and len(rows) > 1 and self._watched < WATCHED and not self._as_alone(rows, scores):
            self._stackable = False
            scores = self._in_steps(rows, 1)
        return scores

    def sums(self, graph: Graph) -> bool:
        """Whether it is read through sums: on the clean graph and on a flipped one they answer as the module itself."""
        if self._summed is None:
            self._summed = self._agrees(graph)
        return self._summed

    @torch.no_grad()
    def _agrees(self, graph: Graph) -> bool:
        some = torch.cat([random_block(graph, TRIED, 0), graph.pairs[:: max(1, len(graph.pairs) // TRIED)]])
        keys = (some[:, 0] * graph.size + some[:, 1]).unique()
        some = torch.stack([keys // graph.size, keys % graph.size], 1)
        both = GlobalRows(
            graph, torch.arange(graph.size, device=graph.device), torch.stack([-torch.ones_like(some), some])
        )
        try:
            return agree(self._by_sums(both), torch.cat([self._members(one) for one in both.runs(1)]))
        except (summed.OtherEdgesError, AdvgymError):
            return False

    def _by_sums(self, rows: GraphRows | GlobalRows) -> Tensor:
        """As `forward`, by sums over neighbours, of all rows at once."""
        assert isinstance(self.model, nn.Module)
        if isinstance(rows, GlobalRows):
            some = rows.nodes[:1].expand(rows.many)
            whole = GraphRows(rows.graph, some, rows.flips, cells=rows.cells, cell_weights=rows.cell_weights)
            found = summed.scores(self.model, stack_features(whole), rows.adjacency(), self.name)
            found = found.view(rows.many, rows.graph.size, -1)[:, rows.nodes]
            return tied(found.flatten(0, 1), rows)
        lane = torch.arange(len(rows), device=rows.target.device)
        found = summed.scores(self.model, stack_features(rows), adjacency_of(rows), self.name)
        return tied(found[lane * rows.graph.size + rows.target], rows)

    def _in_steps(self, rows: GraphRows, step: int) -> Tensor:
        every = torch.arange(len(rows), device=rows.target.device)
        return torch.cat([self._answer(rows.take(run)) for run in every.split(step)])

    @torch.no_grad()
    def _as_alone(self, rows: GraphRows, scores: Tensor) -> bool:
        """Whether one row, another for each forward, has the answer that it has alone."""
        at = torch.tensor([self._watched * 7 % len(rows)], device=rows.target.device)
        self._watched += 1
        return agree(self._answer(rows.take(at)), scores[at])

    def _answer(self, rows: GraphRows) -> Tensor:
        n, size = len(rows), rows.graph.size
        if (rows.weights is not None or rows.probing("pairs") is not None) and self.sums(rows.graph):
            return self._by_sums(rows)
        edges, weight = stack(rows)
        scores = self._call(stack_features(rows), edges, weight)
        lane = torch.arange(n, device=rows.target.device)
        return scores[lane * size + rows.target]

    def _members(self, rows: GlobalRows) -> Tensor:
        """Scores of the members of one whole graph, (M, C)."""
        flips, weights = rows.flips, rows.weights
        if (rows.tape is not None or weights is not None) and self.sums(rows.graph):
            return self._by_sums(rows)
        if rows.tape is not None:  # no sums to read the pairs from: a random block of them, weight 0, is looked at
            block = random_block(rows.graph, BLOCK, rows.tape.seed)
            kept = torch.ones(1, flips.shape[1], device=flips.device) if weights is None else weights
            weights = torch.cat([kept, rows.tape.offer(block, 1).to(kept)], 1)
            flips = torch.cat([flips, block.unsqueeze(0)], 1)
        one = GraphRows(rows.graph, rows.nodes[:1], flips, weights, cells=rows.cells, cell_weights=rows.cell_weights)
        return self._call(stack_features(one), *stack(one))[rows.nodes]

    def _call(self, x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
        if weight is not None and not self.weighted:
            raise VictimError("this model takes no edge_weight, so edges have no gradients: use knowledge='score'")
        return call(self.model, x, edges, weight, self.name)

    @torch.no_grad()
    def clean(self, graph: Graph) -> Tensor:
        """Scores of every node of the clean graph, (N, C)."""
        return self._call(graph.inputs_x(), graph.edge_index(), None)


def stack(rows: GraphRows) -> tuple[Tensor, Tensor | None]:
    """(edge_index, edge_weight or None) of all perturbed graphs, row i's nodes shifted by i * N."""
    graph, n = rows.graph, len(rows)
    size, many = graph.size, len(graph.keys)
    device = rows.target.device
    lane = torch.arange(n, device=device)
    base = graph.edge_index()
    edges = (base.unsqueeze(1) + (lane * size).view(1, n, 1)).reshape(2, n * many)
    probing = rows.probing("pairs")
    relaxed = rows.weights is not None or probing is not None
    dtype = rows.graph.x.dtype
    if rows.weights is not None:
        dtype = rows.weights.dtype
    elif probing is not None:
        dtype = probing[0].dtype
    a, b, d = rows.changes(dtype)
    r, e = (rows.flips[..., 0] >= 0).nonzero(as_tuple=True)
    # Both directions of every flip.
    r, s, z, d = r.repeat(2), torch.cat([a[r, e], b[r, e]]), torch.cat([b[r, e], a[r, e]]), d[r, e].repeat(2)
    there = graph.find(s, z)
    old = there >= 0
    new = torch.stack([s + r * size, z + r * size])[:, ~old]
    if not relaxed:
        keep = torch.ones(n * many, dtype=torch.bool, device=device)
        keep[r[old] * many + there[old]] = False
        return torch.cat([edges[:, keep], new], 1), None
    weight = torch.ones(n * many, dtype=dtype, device=device).index_add(0, r[old] * many + there[old], d[old])
    edges, weight = torch.cat([edges, new], 1), torch.cat([weight, d[~old]])
    if probing is None:
        return edges, weight
    probe, at = probing
    r, g, z = (at >= 0).unsqueeze(2).expand_as(probe).nonzero(as_tuple=True)
    s, p = at[r, g], probe[r, g, z]
    keep = s != z
    r, s, z, p = r[keep].repeat(2), torch.cat([s[keep], z[keep]]), torch.cat([z[keep], s[keep]]), p[keep].repeat(2)
    there = graph.find(s, z)
    old = there >= 0
    weight = weight.index_add(0, r[old] * many + there[old], p[old])
    new = torch.stack([s + r * size, z + r * size])[:, ~old]
    return torch.cat([edges, new], 1), torch.cat([weight, p[~old]])


def stack_features(rows: GraphRows) -> Tensor:
    """Features of all perturbed graphs as the model sees them, (n * N, F)."""
    graph, n = rows.graph, len(rows)
    x = graph.x
    node, feature, d = rows.feature_changes(rows.cell_weights.dtype if rows.cell_weights is not None else x.dtype)
    probing = rows.probing("cells")
    if not node.shape[1] and probing is None:
        return graph.inputs_x().repeat(n, 1)
    x = x.to(d.dtype).repeat(n, 1)
    r, k = (node >= 0).nonzero(as_tuple=True)
    x = x.index_put((node[r, k] + r * graph.size, feature[r, k]), d[r, k], accumulate=True)
    if probing is not None:
        probe, at = probing
        r, g = (at >= 0).nonzero(as_tuple=True)
        x = x.index_add(0, at[r, g] + r * graph.size, probe[r, g].to(x.dtype))
    return x / x.sum(1, keepdim=True).clamp_min(1) if graph.row_norm else x
