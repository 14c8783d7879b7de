"""The caller's own graph as a dataset: networkx or PyG, checked node by node and edge by edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.envs.graph.data import NodeData
from advgym.envs.graph.graphs import Graph, check_features, check_pairs
from advgym.errors import DataError

IDENTITY = 512  # graphs up to this many nodes get identity features when they have none
DEGREES = 64  # larger ones their degree one-hot, the last column for all above


def own_graph(samples: Any) -> NodeData:
    """A networkx graph (node attributes `label`, optional `x`) or a PyG `Data` (y, optional x), checked.

    Without features, nodes get the identity (up to 512 nodes) or their degree one-hot. Every labelled node is a sample
    of both splits. Bad graphs are refused with the node or edge named.
    """
    if isinstance(samples, NodeData):
        return samples
    if isinstance(samples, (list, tuple)) and len(samples) == 1:
        return own_graph(samples[0])
    if hasattr(samples, "edge_index"):
        size = int(samples.num_nodes)
        names, pairs = None, check_pairs(samples.edge_index, size)
        x, labels = getattr(samples, "x", None), getattr(samples, "y", None)
        labels = [None] * size if labels is None else [None if v == -1 else v for v in labels.flatten().tolist()]
        if getattr(samples, "edge_weight", None) is not None or getattr(samples, "edge_attr", None) is not None:
            raise DataError("edge weights and attributes are not supported: pass x, edge_index and y alone")
    elif hasattr(samples, "is_directed") and hasattr(samples, "nodes"):
        names, pairs, x, labels = _networkx(samples)
        size = len(names)
    else:
        raise DataError(f"samples= is a networkx graph or a PyG Data, not {type(samples).__name__}")
    if len(labels) != size:
        raise DataError(f"{len(labels)} labels for {size} nodes; use -1 for a node without one")
    degree = torch.bincount(pairs.flatten(), minlength=size)
    if x is None:
        x = torch.eye(size) if size <= IDENTITY else torch.nn.functional.one_hot(degree.clamp_max(DEGREES - 1), DEGREES)
    x = check_features(torch.as_tensor(x), names)
    if len(x) != size:
        raise DataError(f"{len(x)} feature rows for {size} nodes")
    y, classes, class_names = _labels(labels, names)
    nodes = (y >= 0).nonzero()[:, 0]
    return NodeData(Graph(size, pairs, x, names=names), y, classes, {"train": nodes, "test": nodes}, class_names)


def _networkx(graph: Any) -> tuple[list[str], Tensor, Tensor | None, list[Any]]:
    nodes = list(graph.nodes)
    place, names = {node: i for i, node in enumerate(nodes)}, [str(node) for node in nodes]
    seen = set()
    for a, b, data in graph.edges(data=True):
        if a == b:
            raise DataError(f"edge ({a}, {b}) is a self-loop: remove it (models add their own)")
        if graph.is_directed():
            if not graph.has_edge(b, a):
                raise DataError(f"edge ({a}, {b}) is directed: pass an undirected graph (G.to_undirected())")
            if (b, a) in seen and (a, b) not in seen:
                continue
        if (a, b) in seen or (not graph.is_directed() and (b, a) in seen):
            raise DataError(f"edge ({a}, {b}) is stored twice: use a simple graph")
        if data.get("weight", 1) != 1:
            raise DataError(f"edge ({a}, {b}) has weight {data['weight']}: weighted edges are not supported")
        seen.add((a, b))
    pairs = torch.tensor([(place[a], place[b]) for a, b in seen], dtype=torch.int64).reshape(-1, 2)
    have = [node for node in nodes if "x" in graph.nodes[node]]
    x = None
    if have:
        missing = [node for node in nodes if "x" not in graph.nodes[node]]
        if missing:
            raise DataError(f"node {missing[0]} has no features 'x', others do")
        rows = [np.asarray(graph.nodes[node]["x"], dtype=np.float32).reshape(-1) for node in nodes]
        for node, row in zip(nodes, rows, strict=True):
            if len(row) != len(rows[0]):
                raise DataError(f"node {node} has {len(row)} features, node {nodes[0]} has {len(rows[0])}")
        x = torch.from_numpy(np.stack(rows))
    return names, pairs, x, [graph.nodes[node].get("label") for node in nodes]


def _labels(values: list[Any], names: list[str] | None) -> tuple[Tensor, int, list[str] | None]:
    """Labels as integers (None becomes -1), the number of classes, and their names where they are words."""
    given = [v for v in values if v is not None]
    if not given:
        raise DataError("no node has a label: set the node attribute 'label' (networkx) or y (PyG)")
    if all(isinstance(v, (int, np.integer)) for v in given):
        bad = [i for i, v in enumerate(values) if v is not None and v < 0]
        if bad:
            raise DataError(
                f"node {names[bad[0]] if names else bad[0]} has label {values[bad[0]]}: labels count from 0"
            )
        return torch.tensor([-1 if v is None else int(v) for v in values]), max(2, int(max(given)) + 1), None
    words = sorted({str(v) for v in given})
    return torch.tensor([-1 if v is None else words.index(str(v)) for v in values]), max(2, len(words)), words
