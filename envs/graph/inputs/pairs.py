"""The best of all pairs of nodes by first order, in tiles: nothing of size N x N is ever made."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core import rng
from advgym.envs.graph.inputs.adjacency import Tape
from advgym.envs.graph.inputs.graphs import Graph, ragged

TILE = 1 << 20  # gains held at once: small enough to stay in cache
SAMPLE = 1 << 14  # pairs that a first threshold is guessed from
WIDE = 512  # factors wider than that are multiplied for the most promising rows alone
PARTNERS = 64  # nodes by which rows are compared
PART = 6  # one row in so many is ranked


def top_pairs(
    graph: Graph, left: Tensor, right: Tensor, k: int, *, closed: Tensor | None = None, rows: Tensor | None = None,
    columns: Tensor | None = None, alike: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The k flips of largest first-order gain: int64 (k, 2) pairs a < b, float (k,) gains; fewer where fewer exist.

    The gain of flipping (i, j) is left_i . right_j + left_j . right_i, negated where the clean graph has the edge.

    Args:
        left, right: (N, K), a row of `Tape.factors`.
        closed: int64 (m, 2) pairs not to propose.
        rows: int64 (r,), ascending; one end of every pair is among them. All nodes without it.
        columns: bool (N,), nodes that may be the other end.
        alike: flips of pairs whose Jaccard similarity is below it gain nothing.
    """
    guess = _guess(graph, left, right, k, rows) if alike is None else float("-inf")
    found = _above(graph, left, right, k, guess, closed, rows, columns, alike)
    if len(found[1]) < k and guess > -torch.inf:  # too high a guess: the exact way
        found = _above(graph, left, right, k, float("-inf"), closed, rows, columns, alike)
    return found


def _guess(graph: Graph, left: Tensor, right: Tensor, k: int, rows: Tensor | None) -> float:
    """A threshold that about three times k gains exceed, from a fixed sample of pairs; -inf where too few are drawn."""
    many = graph.size if rows is None else len(rows)
    total = many * graph.size // (2 if rows is None else 1)
    sample = min(SAMPLE, (1 << 24) // max(left.shape[1], 1))
    expected = 3 * k * sample // max(total, 1)
    if not 12 <= expected < sample // 2:
        return float("-inf")
    nth = rng.bits(0, torch.arange(sample, device=left.device), (2,), 45)
    a = nth[:, 0] % many
    pairs = torch.stack([a if rows is None else rows[a], nth[:, 1] % graph.size], 1)
    pairs[pairs[:, 0] == pairs[:, 1]] = 0
    return float(gains_of(graph, left, right, pairs).kthvalue(sample - expected).values)


def _above(
    graph: Graph, left: Tensor, right: Tensor, k: int, least: float, closed: Tensor | None, rows: Tensor | None,
    columns: Tensor | None, alike: float | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The k largest gains that are above `least`."""
    size = graph.size
    p, q = torch.cat([left, right], 1), torch.cat([right, left], 1)
    every = rows is None
    nodes = torch.arange(size, device=p.device) if rows is None else rows
    shut = _directed(closed, size)
    inside = torch.zeros(size, dtype=torch.bool, device=p.device)
    inside[nodes] = True
    best = _Running(k, least)
    at, step = 0, 64  # a small first tile gives a first threshold
    while at < len(nodes):
        some = nodes[at : at + step]
        first = int(some[0]) if every else 0  # of a symmetric table the upper half is enough
        tile = p[some] @ q[first:].T
        owner, place = ragged(graph.start[some], graph.count[some])
        far = graph.idx[place] - first
        there = far >= 0
        tile[owner[there], far[there]] *= -1
        node = torch.arange(first, size, device=p.device)
        if alike is not None:
            tile.masked_fill_(~graph.alike(some.unsqueeze(1), node, alike), 0.0)
        if every:
            tile[:, : len(some)].masked_fill_(node[: len(some)] <= some.unsqueeze(1), -torch.inf)
        else:  # a pair with both ends among the rows is met twice: keep the one from its smaller end
            tile.masked_fill_(inside & (node <= some.unsqueeze(1)), -torch.inf)
        if columns is not None:
            tile.masked_fill_(~columns[first:], -torch.inf)
        if len(shut):
            low, high = torch.searchsorted(shut, torch.stack([some[0] * size, (some[-1] + 1) * size])).tolist()
            a, b = shut[low:high] // size, shut[low:high] % size - first
            line = torch.searchsorted(some, a).clamp_max(len(some) - 1)
            hit = (some[line] == a) & (b >= 0)
            tile[line[hit], b[hit]] = -torch.inf
        best.add(tile, some, first)
        at += step
        step = max(64, TILE // max(size - first, 1))
    pair, gain = best.result()
    return pair.sort(1).values, gain


def ranked(graph: Graph, tape: Tape, row: int, k: int, closed: Tensor) -> tuple[Tensor, Tensor]:
    """The best k flips of a row by what its tape holds: of all pairs, or of the block that its model looked at.

    Args:
        closed: int64 (E, 2), pairs not to propose; padding is ignored.
    """
    swept = getattr(tape, "heard", None)
    if not tape.offered and not swept:
        if not tape.entries:
            none = closed[:0]
            return none, torch.zeros(0, device=closed.device)
        left, right = tape.factors(row)
        rows = busiest(graph, left, right, tape.seed) if left.shape[1] > WIDE else None
        return top_pairs(graph, left, right, k, closed=closed, alike=tape.alike, rows=rows)
    if swept:
        pairs, gain = tape.best(graph, row)  # type: ignore[attr-defined]
    else:
        pairs, gains = tape.offered[row % len(tape.offered)]
        gain = gains[row if len(gains) > 1 else 0]
        if tape.entries:
            gain = gain + gains_of(graph, *tape.factors(row), pairs)
    a, b = pairs.unbind(1)
    keys = _directed(closed, graph.size)
    gain = gain.masked_fill(torch.isin(a * graph.size + b, keys), -torch.inf)
    value, at = gain.topk(min(k, len(gain)))
    keep = value > -torch.inf
    return pairs[at[keep]], value[keep]


def busiest(graph: Graph, left: Tensor, right: Tensor, seed: int) -> Tensor:
    """The nodes with the largest gains among pairs with a few random partners and among the edges, ascending.

    Nearly all of the best pairs have an end among them: 0.993 of the best 1,000 on Cora, with a sixth of the nodes.
    """
    size, device = graph.size, left.device
    some = rng.bits(seed, torch.arange(min(PARTNERS, size), device=device), (), 48) % size
    worth = (left @ right[some].T + right @ left[some].T).amax(1)
    gain = gains_of(graph, left, right, graph.pairs)
    worth = worth.scatter_reduce(0, graph.pairs.flatten(), gain.repeat_interleave(2), "amax")
    return worth.topk(max(size // PART, min(size, WIDE))).indices.sort().values


def random_block(graph: Graph, many: int, seed: int) -> Tensor:
    """About `many` different random pairs a < b, int64 (B, 2): all of them where there are no more."""
    size, device = graph.size, graph.device
    if size * (size - 1) // 2 <= many:
        return torch.triu_indices(size, size, 1, device=device).T
    ends = rng.bits(seed, torch.arange(many, device=device), (2,), 46) % size
    low, high = ends.amin(1), ends.amax(1)
    keys = (low * size + high)[low < high].unique()
    return torch.stack([keys // size, keys % size], 1)


def gains_of(graph: Graph, left: Tensor, right: Tensor, pairs: Tensor) -> Tensor:
    """The gains of named pairs int64 (m, 2), as `top_pairs` counts them: float (m,)."""
    a, b = pairs.clamp_min(0).unbind(1)
    gain = (left[a] * right[b]).sum(1) + (left[b] * right[a]).sum(1)
    return gain * (1 - 2 * graph.has(a, b).to(gain.dtype))


def _directed(pairs: Tensor | None, size: int) -> Tensor:
    """Both directions of pairs as sorted keys; padding rows go."""
    if pairs is None:
        return torch.empty(0, dtype=torch.int64)
    a, b = pairs[pairs[:, 0] >= 0].unbind(1)
    return torch.cat([a * size + b, b * size + a]).sort().values


class _Running:
    """The k largest entries of tiles that come one after the other."""

    def __init__(self, k: int, least: float) -> None:
        self.k, self.least, self.many = k, least, 0
        self.values: list[Tensor] = []
        self.pairs: list[Tensor] = []

    def add(self, tile: Tensor, rows: Tensor, first: int) -> None:
        if self.least == float("-inf"):
            value, at = tile.flatten().topk(min(self.k, tile.numel()))
            i, j = at // tile.shape[1], at % tile.shape[1]
        else:
            line = (tile.amax(1) > self.least).nonzero().squeeze(1)
            some = tile[line]
            i, j = (some > self.least).nonzero(as_tuple=True)
            value, i = some[i, j], line[i]
        self.values.append(value)
        self.pairs.append(torch.stack([rows[i], j + first], 1))
        self.many += len(value)
        if self.many > 2 * self.k or self.least == float("-inf"):
            self._shrink()

    def _shrink(self) -> None:
        value, pair = torch.cat(self.values), torch.cat(self.pairs)
        if len(value) > self.k:
            value, at = value.topk(self.k)
            pair, self.least = pair[at], float(value[-1])
        self.values, self.pairs, self.many = [value], [pair], len(value)

    def result(self) -> tuple[Tensor, Tensor]:
        value, at = torch.cat(self.values).sort(descending=True, stable=True)
        pair = torch.cat(self.pairs)[at]
        keep = value[: self.k] > -torch.inf
        return pair[: self.k][keep], value[: self.k][keep]
