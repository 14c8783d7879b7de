"""What a graph task measures of every final perturbation: how noticeable it is. No agent sees any of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advgym.core.columns import Columns
from advgym.envs.graph.constraints.components import clean_components, component_count
from advgym.envs.graph.constraints.cooccurrence import cooccurrence
from advgym.envs.graph.constraints.powerlaw import degree_test_of
from advgym.envs.graph.constraints.stealth import degree_move, singletons_made
from advgym.envs.graph.inputs.graphs import Graph

if TYPE_CHECKING:
    from advgym.core.batch import Batch
    from advgym.envs.graph.data.labelled import NodeData


def edge_columns(graph: Graph, flips: Tensor) -> dict[str, list[float]]:
    """Columns of edge flips, int64 (n, E, 2), one number per row each.

    `flips` undirected pairs; `degree_test` Nettack's Lambda, unnoticeable below 0.004 (Zuegner et al., 2018);
    `degree_max` the largest change of one node's degree; `singletons` nodes that lost their last edge; `components`
    connected components more than the clean graph has (negative where the attack joined some).
    """
    found = {
        "flips": (flips[..., 0] >= 0).sum(1),
        "degree_test": degree_test_of(graph).incremental(flips, graph),
        "degree_max": degree_move(graph, flips),
        "singletons": singletons_made(graph, flips),
        "components": component_count(graph, flips) - clean_components(graph),
    }
    return {name: [float(v) for v in values.tolist()] for name, values in found.items()}


def feature_columns(graph: Graph, cells: Tensor) -> dict[str, list[float]]:
    """Columns of feature flips, int64 (n, K, 2) of (node, feature).

    `added` and `removed` features, and `unlikely`: those of the added that the co-occurrence test refuses.
    """
    real = cells[..., 0] >= 0
    node, feature = cells.clamp_min(0).unbind(2)
    present = graph.x[node, feature] > 0
    found = {
        "added": (real & ~present).sum(1),
        "removed": (real & present).sum(1),
        "unlikely": cooccurrence(graph).refused(cells).sum(1),
    }
    return {name: [float(v) for v in values.tolist()] for name, values in found.items()}


def compute(batch: Batch, form: Tensor) -> dict[str, list[float]]:
    """The columns of every row of a canonical form, for batches of edge flips or of feature flips of one graph."""
    rows: Any = batch.inputs(form)
    if rows.cells is not None:
        return feature_columns(rows.graph, rows.cells)
    return edge_columns(rows.graph, rows.flips)


def columns() -> Columns:
    """What a node task measures, see `edge_columns` and `feature_columns`."""
    return Columns(compute)


def tells(data: NodeData, nodes: Mapping[str, Tensor], split: str, ids: list[int]) -> dict[str, list[Any]]:
    """What target nodes are: their degree, and their homophily, the share of neighbours of their own class."""
    target = nodes[split][torch.tensor(ids, dtype=torch.int64)]
    owner, near = data.graph.neighbours(target)
    alike = torch.zeros(len(target)).index_add_(0, owner, (data.labels[near] == data.labels[target[owner]]).float())
    degree = data.graph.degree[target]
    share = alike / degree.clamp_min(1)
    return {"degree": degree.long().tolist(), "homophily": [round(v, 3) for v in share.tolist()]}
