"""The caller's own graph as a dataset: networkx or PyG, checked node by node and edge by edge."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.envs.graph.data.labelled import NodeData, halves
from advgym.envs.graph.data.pyg import SPLITS, dense, is_pyg, one_of, read_pyg
from advgym.envs.graph.inputs.graphs import Graph, check_features
from advgym.errors import DataError

IDENTITY = 512  # graphs up to this many nodes get identity features when they have none
DEGREES = 64  # larger ones their degree one-hot, the last column for all above
NAMED = 5  # nodes that an error lists


def own_graph(samples: Any) -> NodeData:
    """A networkx graph or a PyG `Data`, checked; or (graph, targets), the nodes to attack by name.

    networkx: node attributes `label` (whole numbers or words), optionally `x` (a row of numbers) and `split` (train,
    val or test); graph attributes `class_names` (the order of labels that are words) and `row_norm`. PyG: edge_index
    in both directions or adj_t, y (-1 for no label; numbers or words), optionally x, dense or sparse, and the three
    masks; a dataset of one graph is that graph.

    Without features, nodes get the identity (up to 512 nodes) or their degree one-hot. Without splits or targets every
    labelled node is a sample. Nodes without edges are fine.

    Raises:
        DataError: naming the node or edge, for self-loops, edges stored twice or in one direction or with weights,
            unknown nodes, features that are missing, ragged, not numbers or not finite, targets and splits that do
            not fit, and graphs without labels.
    """
    samples = one_of(samples)
    if isinstance(samples, NodeData):
        return samples
    if isinstance(samples, (list, tuple)) and len(samples) == 1:
        return own_graph(samples[0])
    if isinstance(samples, (list, tuple)) and len(samples) == 2 and not is_pyg(samples):
        keys = list(samples[0].nodes) if hasattr(samples[0], "is_directed") and hasattr(samples[0], "nodes") else None
        return _aim(own_graph(samples[0]), samples[1], keys)
    splits: list[Any]
    options: dict[str, Any] = {}
    if hasattr(samples, "is_directed") and hasattr(samples, "nodes"):
        names, pairs, x, labels = _networkx(samples)
        size, options = len(names), samples.graph
        splits = [samples.nodes[node].get("split") for node in samples.nodes]
    elif is_pyg(samples):
        names = None
        size, pairs, x, labels, splits = read_pyg(samples)
    else:
        raise DataError(
            f"samples= is a networkx graph or a PyG Data, not {type(samples).__name__}; files go in as dataset=PATH"
        )
    return assemble(size, pairs, x, labels, splits, names, options)


def assemble(
    size: int, pairs: Tensor, x: Any, labels: list[Any], splits: list[Any], names: list[str] | None = None,
    options: Mapping[str, Any] | None = None, notes: tuple[str, ...] = (),
) -> NodeData:  # fmt: skip
    """The data of one graph from its checked parts; see `own_graph` for the rest.

    Args:
        pairs: int64 (m, 2), each edge once.
        x: (N, F) or None; labels and splits: one per node, None for none.
        names: of nodes.
        options: `class_names`, `row_norm`.
        notes: what was changed so far.
    """
    options = options or {}
    if len(labels) != size:
        raise DataError(f"{len(labels)} labels for {size} nodes; use -1 for a node without one")
    if x is None:
        degree = torch.bincount(pairs.flatten(), minlength=size)
        few = size <= IDENTITY
        x = torch.eye(size) if few else torch.nn.functional.one_hot(degree.clamp_max(DEGREES - 1), DEGREES)
        made = "the identity" if few else "their degree, one-hot"
        notes = (*notes, f"nodes have no features: {made} stands for them")
    given = dense(x)
    x = check_features(given, names)
    if given.dtype == torch.float64 and bool((x.double() != given).any()):
        notes = (*notes, "features are rounded to float32")
    if len(x) != size:
        raise DataError(f"{len(x)} feature rows for {size} nodes")
    y, classes, class_names = _labels(labels, names, options.get("class_names"))
    graph = Graph(size, pairs, x, row_norm=bool(options.get("row_norm", False)), names=names)
    return NodeData(graph, y, classes, _splits(splits, y, names), class_names, notes)


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
    place, names = {node: i for i, node in enumerate(nodes)}, called(nodes)
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


def called(nodes: list[Any]) -> list[str]:
    """Nodes as text, by `repr` where two would read alike: 1 and '1'."""
    plain = [str(node) for node in nodes]
    many = Counter(plain)
    return [repr(node) if many[text] > 1 else text for node, text in zip(nodes, plain, strict=True)]


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
    values = [_label(v, _name(names, i)) for i, v in enumerate(values)]
    given = [v for v in values if v is not None]
    if not given:
        raise DataError("no node has a label: set the node attribute 'label' (networkx) or y (PyG)")
    if all(isinstance(v, int) for v in given):
        return torch.tensor([-1 if v is None else v for v in values]), max(2, int(max(given)) + 1), None
    odd = next((i for i, v in enumerate(values) if isinstance(v, int)), None)
    if odd is not None and order is None:
        name = _name(names, odd)
        raise DataError(f"node {name} has label {values[odd]!r}, others have words: numbers or words, not both")
    words = sorted({str(v) for v in given}) if order is None else [str(v) for v in order]
    place = {word: i for i, word in enumerate(words)}
    for i, v in enumerate(values):
        if v is not None and str(v) not in place:
            raise DataError(f"node {_name(names, i)} has label {v!r}, which is not among class_names: {words}")
    return torch.tensor([-1 if v is None else place[str(v)] for v in values]), max(2, len(words)), words


def _label(value: Any, name: str) -> int | str | None:
    """A label as a whole number or a word: numpy, torch, bool and integral floats are numbers."""
    try:
        value = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):
        raise DataError(f"node {name} has {len(value)} labels; want one") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and not isinstance(value, (numbers.Integral, str)):
        raise DataError(f"node {name} has label {value!r}: labels are whole numbers from 0, or words")
    if isinstance(value, numbers.Integral):
        value = int(value)
        if value < 0:
            raise DataError(f"node {name} has label {value}: labels count from 0")
    return value


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


def _aim(data: NodeData, targets: Any, keys: list[Any] | None = None) -> NodeData:
    """The data with the targets, nodes as their owner calls them (or by their text), as the test split."""
    names = data.graph.names or [str(i) for i in range(data.graph.size)]
    if isinstance(targets, str) or not hasattr(targets, "__iter__"):
        raise DataError(f"targets are a list of nodes, not {targets!r}")
    wanted = [t.item() if hasattr(t, "item") else t for t in targets]
    exact = {(type(key), key): i for i, key in enumerate(keys or [])}
    place = {name: i for i, name in enumerate(names)}
    found = [exact.get((type(t), t)) if _hashable(t) else None for t in wanted]
    found = [place.get(str(t)) if i is None else i for i, t in zip(found, wanted, strict=True)]
    outside = [str(t) for i, t in zip(found, wanted, strict=True) if i is None]
    if outside or not wanted:
        raise DataError(f"targets {', '.join(outside[:NAMED]) or '(none)'}: not nodes of this graph of {len(names)}")
    at = torch.tensor(found)
    bare = at[data.labels[at] < 0]
    if len(bare):
        raise DataError(f"target {names[int(bare[0])]} has no label: the victim could not be right about it")
    if len(at.unique()) < len(at):
        twice = next(i for i in found if found.count(i) > 1)
        raise DataError(f"target {names[twice or 0]} is named twice")
    return replace(data, nodes={**data.nodes, "test": at})


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
