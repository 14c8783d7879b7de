"""Many perturbed adjacencies of one graph as one operator, and the gradient of every pair from one backward.

A model that reads the graph through `Adjacency.sum` alone (degrees are sums of ones) is evaluated on n perturbed graphs
at once: the clean sparse matrix meets all of them in one product, and the flips are added to it. If G is the cotangent
of a sum A'h, then for every pair of nodes, joined or not,

    dL/dA_ij = sum over all sums of (G_i . h_j + G_j . h_i)

so a `Tape` of (h, G) ranks all pairs without one of them in the forward pass. `sum` may be differentiated twice, which
is what an unrolled training run needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgym.envs.graph.inputs.graphs import Graph


class Tape:
    """What one forward and its backward leave behind for the ranking of pairs.

    Attributes:
        leaf: a zero that everything here depends on, so that a fully clean forward has a graph too: take gradients by
            it.
        entries: of every sum A'h the pair (h, G), node-first, of (N, n or 1, H).
        offered: of models that read edges otherwise, (pairs int64 (B, 2), gains (n, B)) of a block of pairs.
        alike: the similarity below which a defense drops edges, or None.
        seed: what blocks are drawn from.
    """

    def __init__(self, device: torch.device | str = "cpu", seed: int = 0) -> None:
        self.entries: list[tuple[Tensor, Tensor]] = []
        self.offered: list[tuple[Tensor, Tensor]] = []
        self.alike: float | None = None
        self.leaf, self.seed = torch.zeros((), device=device, requires_grad=True), seed

    def offer(self, pairs: Tensor, n: int) -> Tensor:
        """Weights (n, B), zero, of flips of a block of pairs; their gradient ranks them."""
        weights = self.leaf.expand(n, len(pairs)) * 1.0
        at = len(self.offered)
        self.offered.append((pairs, torch.zeros(n, len(pairs), device=pairs.device)))

        def keep(g: Tensor) -> None:
            self.offered[at] = pairs, g.detach()

        weights.register_hook(keep)
        return weights

    def factors(self, row: int) -> tuple[Tensor, Tensor]:
        """(U, V), both (N, K): the gradient of row's pair (i, j) is U_i . V_j + U_j . V_i."""
        left = [g[:, row] for _, g in self.entries]
        right = [h[:, row if h.shape[1] > 1 else 0] for h, _ in self.entries]
        return torch.cat(left, 1), torch.cat(right, 1)


class Adjacency:
    """The adjacencies A' of n graphs, the clean one with flips; symmetric, no self-loops.

    Args:
        graph: the clean graph.
        flips: int64 (n, E, 2) undirected pairs, rows of -1 are padding.
        weights: float (n, E) in [0, 1], how much of each flip is applied, or None for all of it.
        tape: records the sums that a backward pass reaches.
        probe, probe_nodes: zeros (n, G, N) whose gradient is that of the pairs of `probe_nodes` int64 (n, G) (-1 is
            padding) with every node.
    """

    def __init__(
        self, graph: Graph, flips: Tensor, weights: Tensor | None = None, *, tape: Tape | None = None,
        probe: Tensor | None = None, probe_nodes: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.n, self.size, self.tape = graph, len(flips), graph.size, tape
        self.probe_nodes = probe_nodes
        self._degree: Tensor | None = None
        self.leaf = tape.leaf if tape is not None else probe
        self.row, e = (flips[..., 0] >= 0).nonzero(as_tuple=True)
        self.a, self.b = flips[self.row, e].unbind(1)
        dtype = torch.float32 if weights is None else weights.dtype
        sign = 1 - 2 * graph.has(self.a, self.b).to(dtype)
        self.change = sign if weights is None else sign * weights[self.row, e]  # (flips,), of A_ab and of A_ba

    def sum(self, h: Tensor) -> Tensor:
        """A' h: sums over neighbours, (N, n, H) from node-first h (N, n, H), or (N, 1, H) shared by all rows."""
        out: Tensor = _Sum.apply(h, self.change.to(h.dtype), self.leaf, self)
        return out

    @property
    def degree(self) -> Tensor:
        """Weighted degrees, (N, n); differentiable."""
        if self._degree is not None:
            return self._degree
        ones = torch.ones(self.size, 1, 1, dtype=self.change.dtype, device=self.graph.device)
        degree = self.sum(ones).squeeze(2)
        if not degree.requires_grad:  # one with a graph, kept here, would keep the whole forward alive in a cycle
            self._degree = degree
        return degree

    def flipped(self, h: Tensor, change: Tensor, out: Tensor) -> Tensor:
        """`out` (N, n, H) with the flips' part of A' h added."""
        at = self.row if h.shape[1] > 1 else torch.zeros_like(self.row)
        value = change.unsqueeze(1)
        out = out.index_put((self.a, self.row), value * h[self.b, at], accumulate=True)
        return out.index_put((self.b, self.row), value * h[self.a, at], accumulate=True)

    def pair_gradients(self, h: Tensor, g: Tensor) -> Tensor:
        """What one sum A' h with cotangent g gives to the pairs of the probe nodes: (n, G, N)."""
        assert self.probe_nodes is not None
        at, row = self.probe_nodes.clamp_min(0), torch.arange(self.n, device=h.device).unsqueeze(1)
        g_at, h_at = g[at, row], h[at, row if h.shape[1] > 1 else torch.zeros_like(row)]  # (n, G, H)
        every = h.expand(-1, self.n, -1).permute(1, 2, 0)
        out = g_at @ every + h_at @ g.permute(1, 2, 0)
        return out * (self.probe_nodes >= 0).unsqueeze(2)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, change: Tensor, leaf: Tensor | None, adjacency: Adjacency) -> Tensor:
        ctx.save_for_backward(h, change, leaf)
        ctx.adjacency = adjacency
        clean = (adjacency.graph.matrix(h.dtype) @ h.reshape(len(h), -1)).view(h.shape)
        clean = clean.expand(-1, adjacency.n, -1)
        return adjacency.flipped(h, change, clean) if len(adjacency.row) else clean.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        h, change, leaf = ctx.saved_tensors
        adjacency: Adjacency = ctx.adjacency
        g_h = g_change = g_leaf = None
        if adjacency.tape is not None:
            adjacency.tape.entries.append((h.detach(), g.detach()))
        if ctx.needs_input_grad[0]:
            g_h = _Sum.apply(g.contiguous(), change, leaf, adjacency)
            g_h = g_h if h.shape[1] == adjacency.n else g_h.sum(1, keepdim=True)
        if ctx.needs_input_grad[1]:
            a, b, row = adjacency.a, adjacency.b, adjacency.row
            at = row if h.shape[1] > 1 else torch.zeros_like(row)
            g_change = (g[a, row] * h[b, at] + g[b, row] * h[a, at]).sum(1)
        if ctx.needs_input_grad[2]:
            g_leaf = torch.zeros_like(leaf) if adjacency.tape is not None else adjacency.pair_gradients(h, g).to(leaf)
        return g_h, g_change, g_leaf, None
