"""Constraints that keep an attack on a graph unnoticeable, each exact and for all rows at once."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.envs.graph.constraints.components import components_grow
from advgym.envs.graph.constraints.cooccurrence import Cooccurrence
from advgym.envs.graph.constraints.powerlaw import degree_changes, degree_test_of
from advgym.envs.graph.inputs.graphs import Graph


def admissible(
    graph: Graph, flips: Tensor | None, cells: Tensor | None = None, *, degree_test: float | None = None,
    singletons: bool = True, connected: bool = False, per_node: int | None = None,
    cooccurrence: Cooccurrence | None = None,
) -> Tensor:  # fmt: skip
    """Which rows of changes to one graph meet every constraint asked for: bool (n,).

    Args:
        graph: the clean graph.
        flips: int64 (n, E, 2) undirected pairs, each once in a row, -1 is padding; or None.
        cells: int64 (n, K, 2) flips of binary features as (node, feature), -1 is padding; or None.
        degree_test: the degree test's Lambda stays below this (Nettack has 0.004; Zuegner et al., 2018).
        singletons: nodes may lose their last edge.
        connected: the graph may not fall into more connected components than it had.
        per_node: most flips at any one node, added and removed alike (a local budget).
        cooccurrence: features may be added only where this test allows it.

    Raises:
        ValueError: without flips and cells.
    """
    given = flips if flips is not None else cells
    if given is None:
        raise ValueError("pass flips=, cells= or both")
    ok = torch.ones(len(given), dtype=torch.bool, device=given.device)
    if flips is not None and flips.shape[1]:
        if per_node is not None:
            ok &= busiest(graph, flips) <= per_node
        if not singletons:
            ok &= singletons_made(graph, flips) == 0
        if degree_test is not None:
            ok &= degree_test_of(graph).incremental(flips, graph) < degree_test
        if connected:
            left = ok.nonzero()[:, 0]  # the dearest check, for rows that passed the others
            ok[left] = ~components_grow(graph, flips[left])
    if cells is not None and cooccurrence is not None:
        ok &= cooccurrence.check(cells)
    return ok


def busiest(graph: Graph, flips: Tensor) -> Tensor:
    """Most flips at one node: int64 (n,); 0 without flips."""
    row, e = (flips[..., 0] >= 0).nonzero(as_tuple=True)
    ends = torch.cat([row * graph.size + flips[row, e, 0], row * graph.size + flips[row, e, 1]])
    key, count = ends.unique(return_counts=True)
    return most_of(key // graph.size, count, len(flips))


def degree_move(graph: Graph, flips: Tensor) -> Tensor:
    """Largest change of one node's degree, up or down: int64 (n,); 0 without flips."""
    row, _, change = degree_changes(graph, flips)
    return most_of(row, change.abs(), len(flips))


def singletons_made(graph: Graph, flips: Tensor) -> Tensor:
    """Nodes that had edges and have none left: int64 (n,)."""
    row, node, change = degree_changes(graph, flips)
    gone = (graph.count[node] > 0) & (graph.count[node] + change == 0)
    return torch.bincount(row[gone], minlength=len(flips))


def most_of(row: Tensor, value: Tensor, n: int) -> Tensor:
    """The largest of the values (m,) of each row, int64 (n,); 0 without any."""
    return torch.zeros(n, dtype=torch.int64, device=row.device).scatter_reduce(0, row, value, "amax")
