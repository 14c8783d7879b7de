"""The edges of n perturbed graphs as lists, for models whose edge weights depend on both ends (attention, distances).

Such a model does not read the graph by sums of one node's values alone, so a `Tape` of sums cannot rank its pairs.
Here every directed edge is an entry with a differentiable weight, and candidates of weight zero are entries too: the
pairs of the probed nodes of targeted rows, or a block of pairs of whole graphs (a random one, or a `BlockTape`'s). A
model has to be linear in a pair's weight: an edge of weight zero changes no score, and two entries of one pair count as
their sum. Then a `SweepTape` ranks many more pairs than a forward could hold (`Replay`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advgym.envs.graph.inputs.adjacency import Adjacency, Tape
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.pairs import gains_of, random_block
from advgym.envs.graph.inputs.raw import EdgeList

BLOCK = 100_000  # random candidates that the graphs of one forward are asked about, together
SWEPT = 600_000  # pairs that a sweep looks at
STEP = 1 << 17  # directed candidates of one replay
PILOT = 64  # random partners of every node, by which a sweep chooses its rows
SPREAD = 60.0  # exponents of a softmax above the largest of the real edges are cut here, below float32's limit


class BlockTape(Tape):
    """A tape for a block of candidates that the caller names, instead of a random one.

    Args:
        block: int64 (B, 2) undirected pairs of different nodes, joined or not, none twice.
    """

    def __init__(self, block: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(block.device)
        self.block, self.leaf = block, self.leaf.detach().to(dtype).requires_grad_()

    def gains(self, graph: Graph, row: int) -> Tensor:
        """First-order gains of flipping the block's pairs in a row's graph, (B,), after the backward pass."""
        out = torch.zeros(len(self.block), dtype=self.leaf.dtype, device=self.block.device)
        if self.offered:
            out = self.offered[0][1][row].to(out)
        return out + gains_of(graph, *self.factors(row), self.block).to(out) if self.entries else out


class SweepTape(Tape):
    """A tape that ranks all pairs of whole graphs under models of edges, or the most promising `many` of them.

    The forward holds the real edges alone. `Replay` then reads the gains of any pairs off what forward and backward
    left, without gradients: the pairs of a few random partners of every node, and of the rows of the matrix where
    those gained most with every other node.
    """

    def __init__(self, device: torch.device | str = "cpu", seed: int = 0, many: int = SWEPT) -> None:
        super().__init__(device, seed)
        self.many = many
        self.heard: list[tuple[Adjacency, Recorded]] = []
        self.again: list[Callable[[Any], Tensor]] = []

    def gains_of(self, graph: Graph, row: int, pairs: Tensor) -> Tensor:
        """First-order gains of flipping pairs int64 (B, 2) in a row's graph, (B,), after the backward pass."""
        a, b = pairs.unbind(1)
        out = torch.zeros(len(a), dtype=self.leaf.dtype, device=a.device)
        for (adjacency, recorded), again in zip(self.heard, self.again, strict=True):
            for part in torch.arange(len(a), device=a.device).split(max(STEP // 2, 1)):
                both = Replay.of(recorded, row, torch.cat([a[part], b[part]]), torch.cat([b[part], a[part]]))
                out[part] += both.through(adjacency, again).view(2, -1).sum(0)
        out = out * (1 - 2 * graph.has(a, b).to(out.dtype))
        if self.alike is not None:
            out = out.masked_fill(~graph.alike(a, b, self.alike), 0.0)
        return out + gains_of(graph, *self.factors(row), pairs).to(out) if self.entries else out

    def best(self, graph: Graph, row: int) -> tuple[Tensor, Tensor]:
        """(pairs int64 (B, 2), gains (B,)) of all that a row's sweep looked at, each pair once."""
        size, device = graph.size, self.leaf.device
        if size * (size - 1) // 2 <= self.many:
            pairs = torch.triu_indices(size, size, 1, device=device).T
            return pairs, self.gains_of(graph, row, pairs)
        pairs = torch.cat([graph.pairs, random_block(graph, PILOT * size // 2, self.seed)])
        pairs = _distinct(pairs, size)
        gain = self.gains_of(graph, row, pairs)
        worth = torch.full((size,), -torch.inf, device=device, dtype=gain.dtype)
        worth = worth.scatter_reduce(0, pairs.flatten(), gain.repeat_interleave(2), "amax")
        rows = worth.topk(min(size, max(1, (self.many - len(pairs)) // size))).indices
        more = torch.cartesian_prod(rows, torch.arange(size, device=device))
        more = _distinct(more[more[:, 0] != more[:, 1]].sort(1).values, size)
        keys = more[:, 0] * size + more[:, 1]
        more = more[~torch.isin(keys, pairs[:, 0] * size + pairs[:, 1])]
        return torch.cat([pairs, more]), torch.cat([gain, self.gains_of(graph, row, more)])


def _distinct(pairs: Tensor, size: int) -> Tensor:
    keys = (pairs[:, 0] * size + pairs[:, 1]).unique()
    return torch.stack([keys // size, keys % size], 1)


@dataclass(frozen=True)
class Edges:
    """All directed edges of n graphs of N nodes.

    Attributes:
        size, n: N and the number of graphs.
        row, source, target: int64 (m,); an edge hands what its source has to its target.
        weight: float (m,), 1 for an edge that is there, 0 for a candidate.
        asked: int64, the places (node * n + row) whose sums are read, all of them without it.
    """

    size: int
    n: int
    row: Tensor
    source: Tensor
    target: Tensor
    weight: Tensor
    asked: Tensor | None = None

    @cached_property
    def into(self) -> Tensor:
        """Places of the targets in node-first values (N, n, ...) with the first two axes as one."""
        return self.target * self.n + self.row

    @cached_property
    def out_of(self) -> Tensor:
        """Places of the sources."""
        return self.source * self.n + self.row

    def at_source(self, h: Tensor) -> Tensor:
        """What the sources have: (m, ...) from node-first h (N, n or 1, ...)."""
        shared = h.shape[1] == 1
        return h.flatten(0, 1).index_select(0, self.source if shared else self.out_of)

    def at_target(self, h: Tensor) -> Tensor:
        """What the targets have: (m, ...) from node-first h (N, n or 1, ...)."""
        shared = h.shape[1] == 1
        return h.flatten(0, 1).index_select(0, self.target if shared else self.into)

    def sum(self, value: Tensor) -> Tensor:
        """Sums over each node's incoming edges, (N, n, ...), of values (m, ...). Weights are the caller's."""
        out = value.new_zeros(self.size * self.n, *value.shape[1:]).index_add(0, self.into, value)
        return out.view(self.size, self.n, *value.shape[1:])

    def highest(self, score: Tensor) -> Tensor:
        """The largest of scores (m, heads) over each node's incoming edges that are there, (N * n, heads)."""
        seen = torch.where((self.weight > 0).unsqueeze(1), score, -torch.inf)
        most = seen.new_full((self.size * self.n, score.shape[1]), -torch.inf)
        index = self.into.unsqueeze(1).expand_as(seen)
        return most.scatter_reduce(0, index, seen, "amax").clamp_min(-1e30)

    def softmax(self, score: Tensor) -> Tensor:
        """Shares w exp(score) of the sum at each target, of scores (m, heads)."""
        most = self.highest(score.detach())
        value = self.weight.unsqueeze(1) * (score - most[self.into]).clamp_max(SPREAD).exp()
        total = self.sum(value).flatten(0, 1)
        total = torch.where(total > 0, total, 1.0)  # a node with candidates alone hears nothing
        return value / total.index_select(0, self.into)

    def with_loops(self) -> Edges:
        """The same with an edge of weight 1 from every node to itself."""
        place = torch.arange(self.size * self.n, device=self.row.device) if self.asked is None else self.asked
        node, row = place // self.n, place % self.n
        source, target = torch.cat([self.source, node]), torch.cat([self.target, node])
        weight = torch.cat([self.weight, self.weight.new_ones(len(place))])
        return self._like(torch.cat([self.row, row]), source, target, weight)

    def _like(self, row: Tensor, source: Tensor, target: Tensor, weight: Tensor) -> Edges:
        return Edges(self.size, self.n, row, source, target, weight)


@dataclass(frozen=True)
class Recorded(Edges):
    """Edges that remember every sum over them, with its cotangent after a backward pass, and every maximum."""

    sums: list[list[Tensor | None]] = field(default_factory=list)
    maxima: list[Tensor] = field(default_factory=list)

    def sum(self, value: Tensor) -> Tensor:
        """See `Edges`."""
        out = super().sum(value)
        entry: list[Tensor | None] = [out.detach(), None]
        self.sums.append(entry)
        if out.requires_grad:
            out.register_hook(lambda g: entry.__setitem__(1, g.detach()))
        return out

    def highest(self, score: Tensor) -> Tensor:
        """See `Edges`."""
        out = super().highest(score)
        self.maxima.append(out)
        return out

    def _like(self, row: Tensor, source: Tensor, target: Tensor, weight: Tensor) -> Edges:
        return Recorded(self.size, self.n, row, source, target, weight, None, self.sums, self.maxima)


@dataclass(frozen=True)
class Replay(Recorded):
    """Candidates, seen by a model that runs again: sums are those of the recorded run, and candidates gain by them.

    A candidate of weight w adds w f(h_u, h_v) to a sum at v; with G the cotangent of that sum its gain is the sum over
    all sums of <G_v, f(h_u, h_v)>. The second run makes the f of all candidates; nothing that a node holds changes.
    """

    gain: list[Tensor] = field(default_factory=list)
    at: list[int] = field(default_factory=lambda: [0, 0])  # sums and maxima that the second run has passed

    @staticmethod
    def of(recorded: Recorded, row: int, source: Tensor, target: Tensor) -> Replay:
        """Directed candidates (m,) in one of the graphs."""
        weight = torch.ones(len(source), dtype=recorded.weight.dtype, device=source.device)
        rows = torch.full_like(source, row)
        return Replay(
            recorded.size, recorded.n, rows, source, target, weight, None, recorded.sums, recorded.maxima,
            [torch.zeros_like(weight)],
        )  # fmt: skip

    @torch.no_grad()
    def through(self, adjacency: Adjacency, again: Callable[[Any], Tensor]) -> Tensor:
        """The gains (m,) of the candidates' weights, by a second run."""
        same = copy.copy(adjacency)
        same.tape = same.leaf = None
        same.listed = self  # type: ignore[attr-defined]
        again(same)
        return self.gain[0]

    def sum(self, value: Tensor) -> Tensor:
        """See `Edges`."""
        out, cotangent = self.sums[self.at[0]]
        self.at[0] += 1
        assert out is not None
        if cotangent is not None:
            heard = cotangent.flatten(0, 1).index_select(0, self.into)
            self.gain[0] += (heard * value).flatten(1).sum(1) if value.dim() > 1 else heard * value
        return out

    def highest(self, score: Tensor) -> Tensor:
        """See `Edges`."""
        self.at[1] += 1
        return self.maxima[self.at[1] - 1]

    def with_loops(self) -> Edges:
        """Itself: loops are no candidates, and the recorded sums have them."""
        return self


def edges(adjacency: Any) -> Edges:
    """The directed edges of perturbed graphs, with candidates of weight zero where a probe or a block asks for them."""
    own = getattr(adjacency, "edges", None)
    if own is not None:
        out: Edges = own()
        return out
    if isinstance(adjacency, EdgeList):
        source, target = adjacency.edge_index
        return Edges(adjacency.size, 1, torch.zeros_like(source), source, target, adjacency.edge_weight)
    if not hasattr(adjacency, "listed"):  # once for each forward: a block is offered once
        adjacency.listed = _listed(adjacency)
    return adjacency.listed


def _listed(adjacency: Adjacency) -> Edges:
    graph, n, size = adjacency.graph, adjacency.n, adjacency.size
    device, many = graph.device, len(graph.keys)
    lane = torch.arange(n, device=device)
    base_source, base_target = graph.edge_index()
    parts = [(lane.repeat_interleave(many), base_source.repeat(n), base_target.repeat(n))]
    more = [(adjacency.row, adjacency.a, adjacency.b, adjacency.change), *_candidates(adjacency)]
    dtype = torch.promote_types(adjacency.change.dtype, more[-1][3].dtype)
    weight = torch.ones(n * many, dtype=dtype, device=device)
    extra = []
    for row, a, b, change in more:
        row, a, b, change = row.repeat(2), torch.cat([a, b]), torch.cat([b, a]), change.repeat(2).to(weight)
        there = graph.find(a, b)
        old = there >= 0
        weight = weight.index_add(0, row[old] * many + there[old], change[old])
        parts.append((row[~old], a[~old], b[~old]))
        extra.append(change[~old])
    weight = torch.cat([weight, *extra])
    row, source, target = (torch.cat(p) for p in zip(*parts, strict=True))
    sweep = adjacency.tape if isinstance(adjacency.tape, SweepTape) else None
    if not weight.requires_grad or (sweep is not None and not adjacency.change.requires_grad):
        keep = weight != 0
        row, source, target, weight = row[keep], source[keep], target[keep], weight[keep]
    if sweep is None:
        return Edges(size, n, row, source, target, weight)
    recorded = Recorded(size, n, row, source, target, weight + sweep.leaf.to(weight))
    sweep.heard.append((adjacency, recorded))
    return recorded


def _candidates(adjacency: Adjacency) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(row, a, b, zero) of the pairs that a probe or a block asks about."""
    leaf = adjacency.leaf
    if isinstance(adjacency.tape, SweepTape):
        return []
    if (tape := adjacency.tape) is not None:
        graph, n = adjacency.graph, adjacency.n
        block = tape.block if isinstance(tape, BlockTape) else _block(graph, BLOCK // n, tape.seed)
        a, b = block.unbind(1)
        flip = tape.offer(block, n) * (1 - 2 * graph.has(a, b).to(tape.leaf.dtype))
        row = torch.arange(n, device=graph.device).repeat_interleave(len(block))
        return [(row, a.repeat(n), b.repeat(n), flip.flatten())]
    if leaf is None or adjacency.probe_nodes is None:
        return []
    nodes = adjacency.probe_nodes
    every = torch.arange(adjacency.size, device=nodes.device)
    row, g, other = ((nodes >= 0).unsqueeze(2) & (nodes.unsqueeze(2) != every)).nonzero(as_tuple=True)
    return [(row, nodes[row, g], other, leaf[row, g, other])]


def _block(graph: Graph, many: int, seed: int) -> Tensor:
    """Random pairs, and the edges of the graph where they are no more than these."""
    pairs = random_block(graph, max(many, 1), seed)
    if len(graph.pairs) > many:
        return pairs
    a, b = torch.cat([pairs, graph.pairs]).unbind(1)
    keys = (a * graph.size + b).unique()
    return torch.stack([keys // graph.size, keys % graph.size], 1)


def dense(adjacency: Any) -> Tensor:
    """The adjacencies as matrices (n, N, N), for models that need inverses or spectra; differentiable."""
    e = edges(adjacency)
    out = e.weight.new_zeros(e.n * e.size * e.size)
    return out.index_add(0, (e.row * e.size + e.target) * e.size + e.source, e.weight).view(e.n, e.size, e.size)
