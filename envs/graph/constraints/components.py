"""Connected components of perturbed graphs: how many there are, and, fast, whether they became more.

A random circulation gives every edge 64 bits such that the bits of every cut XOR to 0: edges off a spanning forest draw
theirs, and an edge of the forest takes the XOR of those that cross it (cycle space sampling; Pritchard & Thurimella,
"Fast computation of small cuts via cycle space sampling", 2011). So removed edges whose words are linearly independent
over GF(2) hold no cut, and no component falls apart. That is certain; where they are dependent, components are counted.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from advgym.core import rng
from advgym.envs.graph.constraints.powerlaw import signs
from advgym.envs.graph.inputs.graphs import Graph

ENTRIES = 1 << 22  # directed edges whose components are counted at once
WORDS = 48  # more removals in a row go to the count: 64 bits would rarely tell them apart


def component_count(graph: Graph, flips: Tensor) -> Tensor:
    """Connected components of every perturbed graph, int64 (n,), lone nodes included; flips int64 (n, E, 2)."""
    cut = may_cut(graph, flips)
    out = _joined(graph, flips)
    if bool(cut.any()):
        step = max(1, ENTRIES // max(len(graph.keys) + graph.size, 1))
        out[cut] = torch.cat([_count(graph, part) for part in flips[cut].split(step)]).to(out)
    return out


def components_grow(graph: Graph, flips: Tensor) -> Tensor:
    """Whether a perturbed graph has more connected components than the clean one: bool (n,)."""
    cut = may_cut(graph, flips)
    out = torch.zeros(len(flips), dtype=torch.bool, device=flips.device)
    if bool(cut.any()):
        out[cut] = component_count(graph, flips[cut]) > clean_components(graph)
    return out


def may_cut(graph: Graph, flips: Tensor) -> Tensor:
    """Whether the removals of a row may hold a cut, bool (n,): never False for one that does."""
    removed = signs(graph, flips) < 0
    most = int(removed.sum(1).max()) if flips.numel() else 0
    if not most:
        return removed.any(1)
    order = (~removed).long().argsort(dim=1, stable=True)[:, : min(most, WORDS)]
    kept = removed.gather(1, order)
    pairs = flips.gather(1, order.unsqueeze(2).expand(-1, -1, 2)).clamp_min(0)
    word = torch.where(kept, _circulation(graph)[graph.find(pairs[..., 0], pairs[..., 1])], 0)
    independent = torch.zeros(len(flips), dtype=torch.int64, device=flips.device)
    for i in range(word.shape[1]):  # elimination over GF(2), all rows at once
        pivot = word[:, i : i + 1].clone()
        bit = pivot & -pivot
        word = torch.where((word & bit) != 0, word ^ pivot, word)
        independent += (pivot[:, 0] != 0).long()
    return (independent < kept.sum(1)) | (removed.sum(1) > WORDS)


_words: WeakKeyDictionary[Graph, Tensor] = WeakKeyDictionary()
_clean: WeakKeyDictionary[Graph, Tensor] = WeakKeyDictionary()


def clean_components(graph: Graph) -> int:
    """Connected components of the clean graph; kept."""
    return int(_labels(graph).max()) + 1 if graph.size else 0


def _labels(graph: Graph) -> Tensor:
    """The component of every node of the clean graph, int64 (N,); kept."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if graph not in _clean:
        a, b = graph.pairs.cpu().numpy().T
        whole = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(graph.size, graph.size)).tocsr()
        label = connected_components(whole, directed=False)[1]
        _clean[graph] = torch.from_numpy(label.astype(np.int64)).to(graph.device)
    return _clean[graph]


def _joined(graph: Graph, flips: Tensor) -> Tensor:
    """Components when the added edges join clean ones and no removal parts any: int64 (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    label, many = _labels(graph), clean_components(graph)
    row, e = (signs(graph, flips) > 0).nonzero(as_tuple=True)
    ends = row.unsqueeze(1) * many + label[flips[row, e]]
    key, place = ends.unique(return_inverse=True)
    a, b = place.cpu().numpy().reshape(-1, 2).T
    small = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(key), len(key))).tocsr()
    left = connected_components(small, directed=False)[1] if len(key) else np.empty(0, np.int64)
    first = np.unique(left, return_index=True)[1]  # every group lies in one row
    owner = key // max(many, 1)
    groups = torch.bincount(owner[torch.from_numpy(first).to(owner.device)], minlength=len(flips))
    return many - torch.bincount(owner, minlength=len(flips)) + groups


def _circulation(graph: Graph) -> Tensor:
    """The words of the directed edges, int64 in the order of `graph.keys`; both directions have the same."""
    if graph in _words:
        return _words[graph]
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    size = graph.size
    keys = graph.keys.cpu().numpy()
    a, b = keys // size, keys % size
    full = csr_array((np.ones(len(keys), np.int8), (a, b)), shape=(size + 1, size + 1))
    first = np.unique(connected_components(full[:size, :size], directed=False)[1], return_index=True)[1]
    full = full + csr_array((np.ones(len(first), np.int8), (np.full(len(first), size), first)), shape=full.shape)
    order, parent = breadth_first_order(full, size, directed=False)  # one tree: a root joins the components
    low, high = np.minimum(a, b), np.maximum(a, b)
    word = rng.bits(0, torch.from_numpy(low * size + high), (), 61).numpy().copy()
    tree = (parent[a] == b) | (parent[b] == a)
    word[tree] = 0
    total = np.zeros(size + 1, np.int64)  # of the drawn edges at each node, then of its whole subtree
    np.bitwise_xor.at(total, a, word)
    for node in order[:0:-1].tolist():
        total[parent[node]] ^= total[node]
    word[tree] = total[np.where(parent[a] == b, a, b)[tree]]
    _words[graph] = torch.from_numpy(word).to(graph.device)
    return _words[graph]


def _count(graph: Graph, flips: Tensor) -> Tensor:
    """All rows side by side in one sparse matrix, counted by SciPy."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, size, many = len(flips), graph.size, len(graph.pairs)
    lane = np.arange(n, dtype=np.int64)[:, None] * size
    clean = graph.pairs.cpu().numpy()
    at_row, e = (flips[..., 0] >= 0).nonzero(as_tuple=True)
    ends = flips[at_row, e].sort(1).values
    place = torch.searchsorted(graph.pairs[:, 0] * size + graph.pairs[:, 1], ends[:, 0] * size + ends[:, 1])
    removed = (signs(graph, flips)[at_row, e] < 0).cpu().numpy()
    row, pair, at = (v.cpu().numpy() for v in (at_row, ends, place))
    keep = np.ones((n, many), dtype=bool)
    keep[row[removed], at[removed]] = False
    a, b = ((clean[:, i][None] + lane)[keep] for i in (0, 1))
    a, b = (np.concatenate([v, (pair[:, i] + row * size)[~removed]]) for i, v in enumerate((a, b)))
    whole = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n * size, n * size)).tocsr()
    _, label = connected_components(whole, directed=False)
    first = np.unique(label, return_index=True)[1]  # every component lies in one row
    return torch.from_numpy(np.bincount(first // size, minlength=n))
