"""One clean graph on one device, with what every evaluation reads of it computed once."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.errors import DataError

BITMAP = 4096  # graphs up to this many nodes keep their adjacency as bits (16 MB at most)
DENSITY = 8  # features with fewer than one entry in so many are multiplied as a sparse matrix
GATHER = 1 << 24  # most elements of one gathered block
_serial = itertools.count()


@contextlib.contextmanager
def quiet_sparse() -> Iterator[None]:
    """Sparse matrices of our own making: no checks of their indices, no word about their beta state."""
    with torch.sparse.check_sparse_tensor_invariants(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        yield


def ragged(start: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Runs of integers: (run of each entry, entry), for runs start[i] ... start[i] + count[i] - 1."""
    owner = torch.repeat_interleave(torch.arange(len(start), device=start.device), count)
    shift = start - (count.cumsum(0) - count)
    return owner, torch.arange(len(owner), device=start.device) + shift[owner]


class Graph:
    """A simple undirected graph with node features.

    Args:
        size: number of nodes N.
        pairs: int64 (edges, 2), each undirected edge once; see `check_pairs`.
        x: float32 (N, F) node features as stored (binary ones stay binary).
        row_norm: the model sees each feature row divided by its sum (the convention of GCN; Kipf & Welling 2017).
        names: what the owner of the graph calls the nodes.
    """

    def __init__(
        self, size: int, pairs: Tensor, x: Tensor, *, row_norm: bool = False, names: list[str] | None = None
    ) -> None:
        self.size, self.x, self.row_norm, self.names = size, x, row_norm, names
        self.serial = next(_serial)
        low, high = pairs.amin(1), pairs.amax(1)
        self.pairs = torch.stack([low, high], 1)[(low * size + high).argsort()]
        a, b = self.pairs[:, 0], self.pairs[:, 1]
        self.keys = torch.cat([a * size + b, b * size + a]).sort().values  # directed edges, by source
        self.idx = self.keys % size
        self.count = torch.bincount(self.keys // size, minlength=size)
        self.start = self.count.cumsum(0) - self.count
        self.degree = self.count.to(torch.float32)
        self._bits: Tensor | None = None
        if size <= BITMAP:
            self._bits = torch.zeros(size * size, dtype=torch.bool, device=pairs.device)
            self._bits[self.keys] = True
        self._matrix: dict[torch.dtype, Tensor] = {}
        self._features: dict[torch.dtype, Tensor] = {}
        self._pruned: dict[float, Graph] = {}
        self._alike: dict[float, Tensor] = {}
        self._moved: dict[str, Graph] = {}

    def public(self) -> dict[str, Any]:
        """The arguments that make this graph again, in another process."""
        return {"size": self.size, "pairs": self.pairs, "x": self.x, "row_norm": self.row_norm, "names": self.names}

    @property
    def features(self) -> int:
        """F."""
        return self.x.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the graph lives."""
        return self.x.device

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on a device; one copy is kept for each."""
        where = torch.device(device)
        if where == self.device or where.type == self.device.type == "cpu":
            return self
        if str(where) not in self._moved:
            self._moved[str(where)] = Graph(
                self.size, self.pairs.to(where), self.x.to(where), row_norm=self.row_norm, names=self.names
            )
        return self._moved[str(where)]

    def edge_index(self) -> Tensor:
        """Both directions of every edge, int64 (2, 2 * edges), as PyG writes a graph."""
        return torch.stack([self.keys // self.size, self.idx])

    def inputs_x(self) -> Tensor:
        """The features as a model sees them, (N, F)."""
        return self.x / self.x.sum(1, keepdim=True).clamp_min(1) if self.row_norm else self.x

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The adjacency as a sparse CSR matrix, without self-loops; kept."""
        if dtype not in self._matrix:
            start = torch.cat([self.start, self.start.new_tensor([len(self.keys)])])
            ones = torch.ones(len(self.keys), dtype=dtype, device=self.device)
            with quiet_sparse():
                self._matrix[dtype] = torch.sparse_csr_tensor(start, self.idx, ones, (self.size, self.size))
        return self._matrix[dtype]

    def product(self, weight: Tensor) -> Tensor:
        """The stored features times weight (F, H): (N, H), by a sparse product where few of them are on."""
        dtype = weight.dtype
        if dtype not in self._features:
            x = self.x.to(dtype)
            few = int((x != 0).sum()) * DENSITY < x.numel()
            with quiet_sparse():
                self._features[dtype] = x.to_sparse_csr() if few else x
        return self._features[dtype] @ weight

    def total(self, dtype: torch.dtype) -> Tensor:
        """Sums of the stored features of each node, (N,)."""
        return self.x.to(dtype).sum(1)

    def find(self, a: Tensor, b: Tensor) -> Tensor:
        """The place of directed edges a -> b in `keys`, -1 where there is none; any shape."""
        wanted = (a * self.size + b).contiguous()
        if not len(self.keys):
            return torch.full_like(wanted, -1)
        at = torch.searchsorted(self.keys, wanted).clamp_max(len(self.keys) - 1)
        return torch.where(self.keys[at] == wanted, at, -1)

    def has(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether edges a - b exist; any shape, broadcast."""
        if self._bits is not None:
            return self._bits[a * self.size + b]
        return self.find(*torch.broadcast_tensors(a, b)) >= 0

    def neighbours(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours of a list of nodes: (entry of the list, neighbour), int64 (m,) each."""
        owner, place = ragged(self.start[node], self.count[node])
        return owner, self.idx[place]

    # -- similarity of features, for defenses that prune by it ---------------------------------------------------------
    def alike(self, a: Tensor, b: Tensor, threshold: float) -> Tensor:
        """Whether the Jaccard similarity of two nodes' features (x > 0) is at least `threshold`; any shape, broadcast.

        Two nodes without features have similarity 0.
        """
        if self._bits is not None:
            if threshold not in self._alike:
                every = torch.arange(self.size, device=self.device)
                rows = [jaccard(self.x, self.x[part], threshold) for part in every.split(512)]
                self._alike[threshold] = torch.cat(rows).flatten()
            return self._alike[threshold][a * self.size + b]
        a, b = torch.broadcast_tensors(a, b)
        step = max(1, GATHER // max(self.features, 1))
        parts = [
            similar(self.x[i] > 0, self.x[j] > 0, threshold)
            for i, j in zip(a.flatten().split(step), b.flatten().split(step), strict=True)
        ]
        return torch.cat(parts).view(a.shape) if parts else torch.zeros(a.shape, dtype=torch.bool, device=self.device)

    def pruned(self, threshold: float) -> Graph:
        """The graph without the edges between nodes whose Jaccard similarity is below `threshold`; kept."""
        if threshold not in self._pruned:
            keep = self.alike(self.pairs[:, 0], self.pairs[:, 1], threshold)
            self._pruned[threshold] = Graph(
                self.size, self.pairs[keep], self.x, row_norm=self.row_norm, names=self.names
            )
        return self._pruned[threshold]


def similar(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """Jaccard similarity of boolean rows (m, F) at least `threshold`: bool (m,)."""
    both, either = (a & b).sum(1), (a | b).sum(1)
    return both.double() >= threshold * either.clamp_min(1).double()


def jaccard(x: Tensor, part: Tensor, threshold: float) -> Tensor:
    """Like `similar`, all rows of `part` (m, F) against all of x (N, F): bool (m, N)."""
    p, q = (part > 0).float(), (x > 0).float()
    both = p @ q.T
    either = p.sum(1, keepdim=True) + q.sum(1) - both
    return both.double() >= threshold * either.clamp_min(1).double()


def check_pairs(edges: Tensor, size: int, names: list[str] | None = None) -> Tensor:
    """The undirected edges (m, 2) of a PyG `edge_index` (2, 2m), or a DataError that names what is wrong.

    Refused: nodes that do not exist, self-loops, an edge stored twice, an edge stored in one direction only.
    """
    if edges.dim() != 2 or edges.shape[0] != 2 or edges.is_floating_point():
        raise DataError(f"edge_index is {tuple(edges.shape)} {edges.dtype}; want integers of shape (2, edges)")
    edges = edges.to(torch.int64)

    def name(node: int) -> str:
        return names[node] if names else str(node)

    def refuse(bad: Tensor, why: str) -> None:
        if bool(bad.any()):
            a, b = edges[:, bad.nonzero()[0, 0]].tolist()
            a, b = (name(a), name(b)) if min(a, b) >= 0 and max(a, b) < size else (a, b)
            raise DataError(f"edge ({a}, {b}) {why}")

    refuse(((edges < 0) | (edges >= size)).any(0), f"names an unknown node: there are {size}")
    refuse(edges[0] == edges[1], "is a self-loop: remove it (models add their own)")
    forward, backward = edges[0] * size + edges[1], edges[1] * size + edges[0]
    _, inverse, count = forward.unique(return_inverse=True, return_counts=True)
    refuse(count[inverse] > 1, "is stored twice: coalesce the graph")
    refuse(~torch.isin(forward, backward), "is stored in one direction only: make the graph undirected")
    return edges[:, edges[0] < edges[1]].T


def check_features(x: Tensor, names: list[str] | None = None) -> Tensor:
    """Finite float32 features (N, F), or a DataError that names the node."""
    if x.dim() != 2:
        raise DataError(f"features are {tuple(x.shape)}; want (nodes, features)")
    bad = ~torch.isfinite(x.to(torch.float32)).all(1)
    if bool(bad.any()):
        node = int(bad.nonzero()[0])
        raise DataError(f"features of node {names[node] if names else node} hold NaN or infinity")
    return x.to(torch.float32)


def check_binary(x: Tensor, names: list[str] | None = None) -> None:
    """Refuse features other than 0 and 1, naming the node."""
    bad = ((x != 0) & (x != 1)).any(1)
    if bool(bad.any()):
        node = int(bad.nonzero()[0])
        value = float(x[node][(x[node] != 0) & (x[node] != 1)][0])
        name = names[node] if names else node
        raise DataError(f"node {name} has the feature value {value:g}: feature flips need features of 0 and 1")


def content_hash(graph: Graph, labels: Tensor) -> str:
    """SHA-256 of edges, features and labels: the identity of a dataset."""
    import hashlib

    digest = hashlib.sha256(np.int64(graph.size).tobytes())
    for part in (graph.pairs, graph.x, labels):
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
