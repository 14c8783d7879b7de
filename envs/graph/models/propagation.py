"""Models that read a graph through sums over neighbours: how they answer the rows of every task on nodes.

A model writes `scores(adjacency, features)` once, for all nodes of n graphs. Its answers to targeted rows, global rows
and candidates of an attack, with their gradients, follow from that.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from advgym.envs.graph.inputs import ego
from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.edges import SweepTape
from advgym.envs.graph.inputs.features import Features, features_of
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.inputs.rows import GraphRows

ELEMENTS = 1 << 23  # entries of one hidden layer of one forward


class Propagation(nn.Module):
    """The base of such models.

    Attributes:
        takes_rows: read by the tasks.
        width: the widest layer, for the size of a forward.
        hops: scores of a node read its neighbourhood of so many hops alone, 0 for no such bound: targeted rows are then
            evaluated on receptive fields (`ego`).
    """

    takes_rows = True
    width = 64
    hops = 0

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """Scores of all nodes of n graphs, node-first: (N, n, C)."""
        raise NotImplementedError

    def full(self, graph: Any) -> Tensor:
        """Scores of every node of one clean `Graph`, (N, C)."""
        none = torch.empty(1, 0, 2, dtype=torch.int64, device=graph.device)
        return self.scores(Adjacency(graph, none), Features(graph, 1)).squeeze(1)

    def forward(self, rows: GraphRows | GlobalRows | RawGraph) -> Tensor:
        """Scores of every row's target (n, C); of global rows, of every member (n * M, C)."""
        if not isinstance(rows, GraphRows):
            return whole_global(self, rows)
        return tied(ego.near_targets(self, rows), rows) if ego.pays(self, rows) else whole_targets(self, rows)


def step_of(model: Any, size: int) -> int:
    """How many graphs of `size` nodes go through one forward."""
    return max(1, ELEMENTS // max(size * getattr(model, "width", 64), 1))


def whole_global(model: Any, rows: GlobalRows | RawGraph) -> Tensor:
    """Scores of the members of n whole perturbed graphs: (n * M, C)."""
    parts = []
    runs = rows.runs(rows.many if rows.tape is not None else step_of(model, rows.graph.size))
    for some in runs:
        adjacency, features = some.adjacency(), some.features()
        if isinstance(some.tape, SweepTape) and getattr(model, "listed", False):
            some.tape.again.append(partial(model.scores, features=features))
        scores = model.scores(adjacency, features)  # (N, n, C)
        parts.append(scores[some.nodes].expand(-1, some.many, -1).transpose(0, 1).flatten(0, 1))
    return tied(torch.cat(parts) if len(parts) != 1 else parts[0], rows)


def whole_targets(model: Any, rows: GraphRows) -> Tensor:
    """Scores of each row's target by whole graphs: (n, C)."""
    every = torch.arange(len(rows), device=rows.target.device)
    parts = []
    for run in every.split(step_of(model, rows.graph.size)):
        some = rows if len(run) == len(rows) else rows.take(run)
        scores = model.scores(adjacency_of(some), features_of(some))
        lane = torch.arange(len(some), device=run.device)
        parts.append(scores[some.target, lane if scores.shape[1] > 1 else torch.zeros_like(lane)])
    return tied(torch.cat(parts) if len(parts) != 1 else parts[0], rows)


def tied(scores: Tensor, rows: Any) -> Tensor:
    """The scores, with a gradient of zero to the rows' weights where the model did not read them (no flip is there)."""
    weights = getattr(rows, "weights", None)
    if weights is None or not weights.requires_grad or scores.requires_grad:
        return scores
    return scores + 0.0 * weights.sum()


def adjacency_of(rows: GraphRows) -> Adjacency:
    """The perturbed graphs of targeted rows."""
    pairs = rows.probe is not None and rows.probes == "pairs"
    return Adjacency(
        rows.graph, rows.flips, rows.weights, probe=rows.probe if pairs else None,
        probe_nodes=rows.probe_nodes if pairs else None,
    )  # fmt: skip
