"""Graphs in and out: networkx, text formats, and the `.npz` of Nettack and others. Nothing here unpickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.envs.graph.data.labelled import NodeData
from advgym.envs.graph.inputs.graphs import Graph
from advgym.errors import DataError

READERS = {".graphml": "read_graphml", ".edgelist": "read_edgelist", ".adjlist": "read_adjlist"}


# -- out ------------------------------------------------------------------------------------------------------------
def to_networkx(data: NodeData | Graph, labels: Tensor | None = None, *, x: bool = True) -> Any:
    """A `networkx.Graph` that `samples=` reads again as the same graph.

    Nodes are called as their owner called them (as text), else 0 ... N - 1. They have `label` (the class's name where
    classes have names), `split` where the data has splits, and the features as `x`.

    Args:
        data: a dataset, or a graph alone.
        labels: int64 (N,), -1 for none, for a graph alone.
        x: whether to attach features, float32 (F,) each.
    """
    import networkx as nx

    graph = data if isinstance(data, Graph) else data.graph
    class_names, splits = None, {}
    if isinstance(data, NodeData):
        labels, class_names = data.labels, data.class_names
        if not torch.equal(data.nodes["train"], data.nodes["test"]):
            splits = {int(node): split for split, nodes in data.nodes.items() for node in nodes}
    names = _names(graph)
    out = nx.Graph(row_norm=graph.row_norm)
    if class_names is not None:
        out.graph["class_names"] = list(class_names)
    rows = graph.x.cpu().numpy()
    marks = [-1] * graph.size if labels is None else labels.tolist()
    for i, name in enumerate(names):
        attributes: dict[str, Any] = {"x": rows[i]} if x else {}
        if marks[i] >= 0:
            attributes["label"] = class_names[marks[i]] if class_names is not None else marks[i]
        if i in splits:
            attributes["split"] = splits[i]
        out.add_node(name, **attributes)
    out.add_edges_from((names[a], names[b]) for a, b in graph.pairs.tolist())
    return out


def attacked_networkx(
    data: NodeData | Graph, flips: Tensor | None, cells: Tensor | None = None, *, labels: Tensor | None = None
) -> tuple[Any, Any]:
    """(clean, attacked) as networkx graphs: what an attack takes and what it puts is marked.

    Edges of the clean graph that go have `flip="removed"`, edges of the attacked one that are new `flip="added"`. Nodes
    whose features were flipped have `flipped`, a list of feature numbers, in both.

    Args:
        data: a dataset, or a graph alone, with `labels`.
        flips: int64 (E, 2) undirected pairs, -1 is padding, or None.
        cells: int64 (K, 2) of (node, feature), -1 is padding, or None.
    """
    graph = data if isinstance(data, Graph) else data.graph
    clean, attacked = to_networkx(data, labels), to_networkx(data, labels)
    names = _names(graph)
    for a, b in [] if flips is None else flips.tolist():
        if a < 0:
            continue
        pair = names[a], names[b]
        if clean.has_edge(*pair):
            clean.edges[pair]["flip"] = "removed"
            attacked.remove_edge(*pair)
        else:
            attacked.add_edge(*pair, flip="added")
    for node, feature in [] if cells is None else cells.tolist():
        if node < 0:
            continue
        mine = attacked.nodes[names[node]]
        if "flipped" not in mine:
            mine["x"] = mine["x"].copy()
            mine["flipped"] = clean.nodes[names[node]]["flipped"] = []
        mine["flipped"].append(feature)
        mine["x"][feature] = 1 - mine["x"][feature]
    return clean, attacked


def perturbed_networkx(task: Any, sample: Any, *, split: str = "test", data: NodeData | None = None) -> tuple[Any, Any]:
    """(clean, attacked) of a row of a result file or of `advgym.attack(...).samples`, see `attacked_networkx`.

    Args:
        task: the `Task` that was attacked (`advgym.make_task`), one on nodes of a graph.
        sample: a row with `id` and `perturbation`.
        split: the result's split.
        data: the dataset, for labels; without it nodes have none.
    """
    batch = task.samples(split, [sample.id])
    if not hasattr(batch, "graph"):
        raise DataError(f"{task.name} is not about one graph: networkx graphs are made of tasks on nodes")
    rows = batch.inputs(batch.look(batch.load([sample.perturbation])).form)
    cells = None if rows.cells is None else rows.cells[0]
    pair = attacked_networkx(batch.graph if data is None else data, rows.flips[0], cells)
    if hasattr(batch, "target"):
        for out in pair:
            out.graph["target"] = _names(batch.graph)[int(batch.target[0])]
    return pair


def _names(graph: Graph) -> list[Any]:
    if graph.names is not None and len(set(graph.names)) == graph.size:
        return list(graph.names)
    return list(range(graph.size))


# -- in -------------------------------------------------------------------------------------------------------------
Parts = tuple[int, Tensor, Tensor | None, Tensor, tuple[str, ...]]  # size, pairs, features, labels, what was changed


def read_npz(path: str | Path, *, largest_component: bool = False) -> tuple[int, Tensor, Tensor | None, Tensor]:
    """A graph as Nettack, Metattack and Pro-GNN store it: (size, pairs (m, 2), x (N, F) or None, labels (N,)).

    The adjacency is CSR (`adj_data`, `adj_indices`, `adj_indptr`, `adj_shape`), features likewise (`attr_*`), and
    `labels` one number per node. As those programs do, an edge in either direction counts as undirected, weights are
    dropped, and so are self-loops and repeated edges. Features keep their values.

    Args:
        path: the file; arrays of Python objects in it (names) are never opened.
        largest_component: keep the largest connected component alone, its nodes in their order: 2,485 nodes and 5,069
            edges of cora.npz, 2,810 nodes of cora_ml.npz.

    Raises:
        DataError: for a file that is missing or not of this form.
    """
    return read_csr(path, largest_component=largest_component)[:4]


def read_csr(path: str | Path, *, largest_component: bool = False) -> Parts:
    """As `read_npz`, and what it changed, in words."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    def matrix(held: Any, stem: str) -> Any:
        parts = [held[f"{stem}_{part}"] for part in ("data", "indices", "indptr")]
        out = csr_array(tuple(parts), shape=tuple(held[f"{stem}_shape"].tolist()))
        out.check_format(full_check=True)
        return out

    try:
        with np.load(path, allow_pickle=False) as held:
            adjacency, marks = matrix(held, "adj"), held["labels"]
            labels = torch.from_numpy(marks.astype(np.int64))
            if not (marks == labels.numpy()).all():
                raise ValueError("labels are not whole numbers")
            x = None
            if "attr_data" in held.files:
                x = torch.from_numpy(matrix(held, "attr").toarray().astype(np.float32))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a graph in CSR parts (adj_*, attr_*, labels): {error}") from None
    size = adjacency.shape[0]
    if adjacency.shape != (size, size) or labels.shape != (size,) or (x is not None and len(x) != size):
        raise DataError(f"{path}: an adjacency of {adjacency.shape}, {len(labels)} labels: want one of each per node")
    adjacency = adjacency.tocoo()
    keep = np.ones(size, dtype=bool)
    if largest_component:
        _, label = connected_components(adjacency, directed=False)
        keep = label == np.bincount(label).argmax()
    many, pairs, notes = undirected(adjacency, keep)
    if many < size:
        notes = (*notes, f"{size - many} of {size} nodes lie outside the largest component: left out")
    at = torch.from_numpy(keep)
    return many, pairs, None if x is None else x[at], labels[at], notes


def undirected(matrix: Any, keep: np.ndarray) -> tuple[int, Tensor, tuple[str, ...]]:
    """(nodes kept, pairs (m, 2) of a scipy COO matrix as a simple undirected graph, what that changed)."""
    place = keep.cumsum() - 1
    a, b = matrix.row.astype(np.int64), matrix.col.astype(np.int64)
    there = (matrix.data != 0) & keep[a] & keep[b]
    loops, weighted = int((there & (a == b)).sum()), int((there & (matrix.data != 1)).sum())
    use = there & (a != b)
    a, b = place[a[use]], place[b[use]]
    many = int(keep.sum())
    directed = np.unique(a * many + b)
    key = np.unique(np.minimum(a, b) * many + np.maximum(a, b))
    one_way = len(key) - (len(directed) - len(key))
    counts = {"self-loops are dropped": loops, "weights are dropped": weighted,
              "edges stored in one direction count as undirected": one_way,
              "entries stored twice count once": len(a) - len(directed)}  # fmt: skip
    notes = tuple(f"{number} {words}" for words, number in counts.items() if number)
    return many, torch.from_numpy(np.stack([key // max(many, 1), key % max(many, 1)], 1)), notes


def read_graph(
    path: str | Path, labels: str | Path | Mapping[Any, Any] | None = None, *, largest_component: bool = False
) -> Any:
    """A graph from a file, for `samples=`: GraphML, edge list, adjacency list (read by networkx), or `.npz`.

    A GraphML node has `label`, and features as text under `x` ("0 1 0"). The other text formats know neither: labels
    come from `labels`, features are made (see `own_graph`). Nodes of text formats are called by their text.

    Args:
        path: ends in .graphml, .edgelist, .adjlist (a further .gz is fine) or .npz (see `read_npz`).
        labels: node -> label, or the path of a text file with a line `node label` each.
        largest_component: keep the largest connected component alone.

    Raises:
        DataError: for a file that is missing or malformed, labels of unknown nodes, features that are not numbers.
    """
    import networkx as nx

    path = Path(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".npz":
        size, pairs, x, y = read_npz(path, largest_component=largest_component)
        graph = to_networkx(Graph(size, pairs, torch.zeros(size, 0) if x is None else x), y, x=x is not None)
    elif suffix in READERS:
        try:
            graph = getattr(nx, READERS[suffix])(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from None
        except Exception as error:  # the readers raise whatever their parsers do
            raise DataError(f"{path} is not what its ending says, {suffix}: {error}") from None
        for node, x in graph.nodes(data="x"):
            if isinstance(x, str):
                graph.nodes[node]["x"] = _numbers(x, node)
        if largest_component and len(graph):
            parts = nx.connected_components(graph.to_undirected(as_view=True))
            graph = graph.subgraph(max(parts, key=len)).copy()
    else:
        raise DataError(f"cannot tell the format of {path}: want {', '.join([*READERS, '.npz'])}")
    for node, label in _read_labels(labels).items():
        if node in graph:
            graph.nodes[node]["label"] = label
        elif not largest_component:
            raise DataError(f"a label for node {node}, which {path} does not have")
    return graph


def _numbers(text: str, node: Any) -> list[float]:
    try:
        return [float(v) for v in text.replace(",", " ").split()]
    except ValueError:
        raise DataError(f"features 'x' of node {node} are {text[:40]!r}: want numbers") from None


def _read_labels(labels: str | Path | Mapping[Any, Any] | None) -> Mapping[Any, Any]:
    if labels is None or isinstance(labels, Mapping):
        return labels or {}
    out: dict[str, Any] = {}
    try:
        lines = Path(labels).read_text().splitlines()
    except OSError as error:
        raise DataError(f"cannot read {labels}: {error.strerror}") from None
    for at, line in enumerate(lines, 1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        if len(words) != 2 or words[0] in out:
            raise DataError(f"{labels}, line {at}: want 'node label', each node once, not {line!r}")
        out[words[0]] = int(words[1]) if words[1].strip().isdigit() else words[1].strip()
    return out
