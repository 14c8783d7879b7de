"""A PyG `Data`, or anything with its attributes, as checked tensors: sparse or dense, `edge_index` or `adj_t`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.envs.graph.inputs.graphs import check_pairs
from advgym.errors import DataError

SPLITS = ("train", "val", "test")


def one_of(samples: Any) -> Any:
    """The only graph of a PyG dataset (`Planetoid(...)` without `[0]`), anything else as it is."""
    if not (hasattr(samples, "get") and hasattr(samples, "indices") and hasattr(samples, "__len__")):
        return samples
    if len(samples) != 1:
        raise DataError(f"a dataset of {len(samples)} graphs: these tasks are about one, pass dataset[i]")
    return samples[0]


def is_pyg(samples: Any) -> bool:
    """Whether this has the attributes of a PyG `Data`."""
    return hasattr(samples, "edge_index") or hasattr(samples, "adj_t")


def read_pyg(data: Any) -> tuple[int, Tensor, Any, list[Any], list[Any]]:
    """(size, pairs (m, 2), features or None, labels with None for none, split of each node or None)."""
    edges, size = _edges(data)
    pairs = check_pairs(edges, size)
    for name in ("edge_weight", "edge_attr"):
        weight = getattr(data, name, None)
        if weight is not None and not _ones(weight):
            raise DataError(f"{name}: edge weights and attributes are not supported: pass x, edge_index and y alone")
    return size, pairs, getattr(data, "x", None), _labels(getattr(data, "y", None), size), _masks(data, size)


def dense(x: Any, what: str = "features") -> Tensor:
    """A real tensor from a dense or sparse tensor, a `SparseTensor`, an array or a scipy matrix."""
    if hasattr(x, "toarray"):
        x = x.toarray()
    elif hasattr(x, "to_dense"):
        x = x.to_dense()
    try:
        x = x if isinstance(x, Tensor) else torch.from_numpy(np.ascontiguousarray(x))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are {type(x).__name__}; want numbers: {error}") from None
    if x.is_complex():
        raise DataError(f"{what} are complex numbers; want real ones")
    return x.detach().cpu()


def _edges(data: Any) -> tuple[Tensor, int]:
    """(edge_index int64 (2, e), number of nodes)."""
    edges, adjacency = getattr(data, "edge_index", None), getattr(data, "adj_t", None)
    if edges is not None and not _is_index(edges):
        edges, adjacency = None, edges
    size = getattr(data, "num_nodes", None)
    if edges is not None:
        edges = dense(edges, "edges")
    elif adjacency is not None:
        edges, many = entries(adjacency)
        size = many if size is None else size
    else:
        raise DataError("the graph has neither edge_index nor adj_t")
    if size is None:
        x, y = getattr(data, "x", None), getattr(data, "y", None)
        size = len(dense(x)) if x is not None else len(y) if y is not None else int(edges.max()) + 1
    return edges, int(size)


def _is_index(edges: Any) -> bool:
    """Whether this is a list of edges, no matrix."""
    plain = isinstance(edges, Tensor) and edges.layout == torch.strided
    return plain or isinstance(edges, (np.ndarray, list, tuple))


def entries(adjacency: Any) -> tuple[Tensor, int]:
    """(edge_index of the entries, nodes) of a square matrix without weights: torch, `SparseTensor`, scipy or dense."""
    if hasattr(adjacency, "coo") and not isinstance(adjacency, Tensor):  # of torch_sparse
        row, column, value = adjacency.coo()
        shape = tuple(adjacency.sizes())
    elif isinstance(adjacency, Tensor):
        matrix = adjacency.detach().cpu().to_sparse_coo().coalesce()
        (row, column), value, shape = matrix.indices(), matrix.values(), tuple(matrix.shape)
    elif hasattr(adjacency, "tocoo"):
        matrix = adjacency.tocoo()
        row, column = (torch.from_numpy(np.asarray(v, dtype=np.int64)) for v in (matrix.row, matrix.col))
        value, shape = torch.from_numpy(np.asarray(matrix.data)), matrix.shape
    else:
        raise DataError(f"an adjacency is a sparse matrix, not {type(adjacency).__name__}")
    if len(shape) != 2 or shape[0] != shape[1]:
        raise DataError(f"an adjacency of {shape}; want (nodes, nodes)")
    if value is not None:
        if value.dim() != 1:
            raise DataError("an adjacency with attributes of edges; want one without values")
        row, column, value = (v[value != 0] for v in (row, column, value))
        if not _ones(value):
            raise DataError("an adjacency with weights: weighted edges are not supported, pass one of zeros and ones")
    return torch.stack([row, column]).to(torch.int64), shape[0]


def _ones(value: Any) -> bool:
    value = dense(value, "edge weights")
    return value.numel() == 0 or bool((value == 1).all())


def _labels(y: Any, size: int) -> list[Any]:
    if y is None:
        return [None] * size
    if isinstance(y, (list, tuple)):
        return [None if _is_none(v) else v for v in y]
    if isinstance(y, np.ndarray) and y.dtype.kind not in "biuf":
        if y.dtype == object:
            raise DataError("y is an array of Python objects; want numbers or words (y.astype(str))")
        return list(y.reshape(-1).tolist())
    y = dense(y, "labels")
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() != 1:
        raise DataError(f"y is {tuple(y.shape)}; want one label per node, ({size},): for one-hot rows pass y.argmax(1)")
    return [None if _is_none(v) else v for v in y.tolist()]


def _is_none(value: Any) -> bool:
    return value is None or (not isinstance(value, (str, bytes, bool)) and value == -1)


def _masks(data: Any, size: int) -> list[Any]:
    """The split of every node of a PyG `Data` by its masks, None where it has none."""
    out: list[Any] = [None] * size
    for split in SPLITS:
        mask = getattr(data, f"{split}_mask", None)
        if mask is None:
            continue
        mask = dense(mask, f"{split}_mask")
        if tuple(mask.shape) != (size,):
            raise DataError(f"{split}_mask is {tuple(mask.shape)}; want ({size},): keep one split, mask[:, 0]")
        if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
            raise DataError(f"{split}_mask holds other values than 0 and 1: a mask says of each node whether it is in")
        for i in mask.nonzero()[:, 0].tolist():
            if out[i] is not None:
                raise DataError(f"node {i} is in two splits, {out[i]} and {split}")
            out[i] = split
    return out
