"""The caller's own graph as a dataset: networkx or PyG, checked node by node and edge by edge."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.envs.graph.data import NodeData, halves
from advgym.envs.graph.graphs import Graph, check_features, check_pairs
from advgym.errors import DataError

IDENTITY = 512  # graphs up to this many nodes get identity features when they have none
DEGREES = 64  # larger ones their degree one-hot, the last column for all above
SPLITS = ("train", "val", "test")
NAMED = 5  # nodes that an error lists


def own_graph(samples: Any) -> NodeData:
    """A networkx graph or a PyG `Data`, checked; or (graph, targets), the nodes to attack by name.

    networkx: node attributes `label` (whole numbers or words), optionally `x` (a row of numbers) and `split` (train,
    val or test); graph attributes `class_names` (the order of labels that are words) and `row_norm`. PyG: edge_index
    in both directions, y (-1 for no label), optionally x and the three masks.

    Without features, nodes get the identity (up to 512 nodes) or their degree one-hot. Without splits or targets every
    labelled node is a sample. Nodes without edges are fine.

    Raises:
        DataError: naming the node or edge, for self-loops, edges stored twice or in one direction or with weights,
            unknown nodes, features that are missing, ragged, not numbers or not finite, targets and splits that do
            not fit, and graphs without labels.
    """
    if isinstance(samples, NodeData):
        return samples
    if isinstance(samples, (list, tuple)) and len(samples) == 1:
        return own_graph(samples[0])
    if isinstance(samples, (list, tuple)) and len(samples) == 2:
        return _aim(own_graph(samples[0]), samples[1])
    splits: list[Any]
    options: dict[str, Any] = {}
    if hasattr(samples, "edge_index"):
        size = int(samples.num_nodes)
        names, pairs = None, check_pairs(samples.edge_index, size)
        x, labels = getattr(samples, "x", None), getattr(samples, "y", None)
        labels = [None] * size if labels is None else [None if v == -1 else v for v in labels.flatten().tolist()]
        if getattr(samples, "edge_weight", None) is not None or getattr(samples, "edge_attr", None) is not None:
            raise DataError("edge weights and attributes are not supported: pass x, edge_index and y alone")
        splits = _masks(samples, size)
    elif hasattr(samples, "is_directed") and hasattr(samples, "nodes"):
        names, pairs, x, labels = _networkx(samples)
        size, options = len(names), samples.graph
        splits = [samples.nodes[node].get("split") for node in samples.nodes]
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
    y, classes, class_names = _labels(labels, names, options.get("class_names"))
    graph = Graph(size, pairs, x, row_norm=bool(options.get("row_norm", False)), names=names)
    return NodeData(graph, y, classes, _splits(splits, y, names), class_names)


def unseen(data: NodeData) -> dict[str, Tensor]:
    """Splits to train a victim on: its training nodes are no samples. Halves of each class where none were named."""
    train, test = data.nodes["train"], data.nodes["test"]
    if torch.equal(train, test):
        return halves(data.labels)
    rest = train[~torch.isin(train, test)]
    if not len(rest):
        raise DataError("all labelled nodes are to be attacked, none is left to train a victim on: pass victim=")
    return {**data.nodes, "train": rest}


# -- networkx -------------------------------------------------------------------------------------------------------
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
    return names, pairs, _features(graph, nodes), [graph.nodes[node].get("label") for node in nodes]


def _features(graph: Any, nodes: list[Any]) -> Tensor | None:
    missing = [node for node in nodes if "x" not in graph.nodes[node]]
    if len(missing) == len(nodes):
        return None
    if missing:
        raise DataError(f"node {missing[0]} has no features 'x', others do")
    rows: list[np.ndarray] = []
    for node in nodes:
        try:
            rows.append(np.asarray(graph.nodes[node]["x"], dtype=np.float32).reshape(-1))
        except (TypeError, ValueError):
            raise DataError(f"features 'x' of node {node} are {graph.nodes[node]['x']!r}: want numbers") from None
        if len(rows[-1]) != len(rows[0]):
            raise DataError(f"node {node} has {len(rows[-1])} features, node {nodes[0]} has {len(rows[0])}")
    return torch.from_numpy(np.stack(rows))


# -- labels, splits, targets ----------------------------------------------------------------------------------------
def _name(names: list[str] | None, i: int) -> str:
    return names[i] if names else str(i)


def _labels(values: list[Any], names: list[str] | None, order: Any) -> tuple[Tensor, int, list[str] | None]:
    """Labels as integers (None becomes -1), the number of classes, and their names where they are words."""
    values = [v.item() if hasattr(v, "item") else v for v in values]
    given = [v for v in values if v is not None]
    if not given:
        raise DataError("no node has a label: set the node attribute 'label' (networkx) or y (PyG)")
    for i, v in enumerate(values):
        if v is not None and not isinstance(v, (numbers.Integral, str)):
            raise DataError(f"node {_name(names, i)} has label {v!r}: labels are whole numbers from 0, or words")
        if isinstance(v, numbers.Integral) and v < 0:
            raise DataError(f"node {_name(names, i)} has label {v}: labels count from 0")
    if all(isinstance(v, numbers.Integral) for v in given):
        return torch.tensor([-1 if v is None else int(v) for v in values]), max(2, int(max(given)) + 1), None
    words = sorted({str(v) for v in given}) if order is None else [str(v) for v in order]
    place = {word: i for i, word in enumerate(words)}
    for i, v in enumerate(values):
        if v is not None and str(v) not in place:
            raise DataError(f"node {_name(names, i)} has label {v!r}, which is not among class_names: {words}")
    return torch.tensor([-1 if v is None else place[str(v)] for v in values]), max(2, len(words)), words


def _masks(data: Any, size: int) -> list[Any]:
    """The split of every node of a PyG `Data` by its masks, None where it has none."""
    out: list[Any] = [None] * size
    for split in SPLITS:
        mask = getattr(data, f"{split}_mask", None)
        if mask is None:
            continue
        if tuple(mask.shape) != (size,):
            raise DataError(f"{split}_mask is {tuple(mask.shape)}; want ({size},): keep one split, mask[:, 0]")
        for i in mask.nonzero()[:, 0].tolist():
            if out[i] is not None:
                raise DataError(f"node {i} is in two splits, {out[i]} and {split}")
            out[i] = split
    return out


def _splits(splits: list[Any], labels: Tensor, names: list[str] | None) -> dict[str, Tensor]:
    labelled = (labels >= 0).nonzero()[:, 0]
    if all(split is None for split in splits):
        return {"train": labelled, "test": labelled}
    for i, split in enumerate(splits):
        if split is not None and split not in SPLITS:
            raise DataError(f"node {_name(names, i)} is in split {split!r}: want one of {', '.join(SPLITS)}")
    found = {s: torch.tensor([i for i in labelled.tolist() if splits[i] == s], dtype=torch.int64) for s in SPLITS}
    for split in ("train", "test"):
        if not len(found[split]):
            raise DataError(f"no labelled node is in split {split!r}: name train and test nodes, or none at all")
    return {split: nodes for split, nodes in found.items() if len(nodes)}


def _aim(data: NodeData, targets: Any) -> NodeData:
    """The data with the targets, nodes by the name their owner gave them, as the test split."""
    names = data.graph.names or [str(i) for i in range(data.graph.size)]
    place = {name: i for i, name in enumerate(names)}
    if isinstance(targets, str) or not hasattr(targets, "__iter__"):
        raise DataError(f"targets are a list of nodes, not {targets!r}")
    wanted = [str(t.item() if hasattr(t, "item") else t) for t in targets]
    outside = [name for name in wanted if name not in place]
    if outside or not wanted:
        raise DataError(f"targets {', '.join(outside[:NAMED]) or '(none)'}: not nodes of this graph of {len(names)}")
    at = torch.tensor([place[name] for name in wanted])
    bare = at[data.labels[at] < 0]
    if len(bare):
        raise DataError(f"target {names[int(bare[0])]} has no label: the victim could not be right about it")
    if len(at.unique()) < len(at):
        raise DataError(f"target {next(n for n in wanted if wanted.count(n) > 1)} is named twice")
    return NodeData(data.graph, data.labels, data.classes, {**data.nodes, "test": at}, data.class_names)
