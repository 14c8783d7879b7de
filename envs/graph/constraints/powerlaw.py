"""Nettack's degree test: does a perturbed graph still look drawn from the power law of the clean one?

Zuegner, Akbarnejad & Guennemann, "Adversarial Attacks on Neural Networks for Graph Data" (KDD 2018), section 4.1. With
d_min = 2 and, over the n nodes of at least that degree, S = sum of log d,

    alpha = 1 + n / (S - n log(d_min - 1/2)),    l = n log alpha + n alpha log d_min - (alpha + 1) S,
    Lambda = -2 l(clean and perturbed degrees together) + 2 (l(clean) + l(perturbed)),

and a perturbation is unnoticeable while Lambda < 0.004, which a chi-square variable of one degree of freedom exceeds
with probability 0.95. All of it depends on n and S alone, so a flip changes it in constant time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from advgym.envs.graph.inputs.graphs import Graph

D_MIN = 2
THRESHOLD = 0.004


def log_likelihood(n: Tensor, s: Tensor) -> Tensor:
    """The l of degree sequences given by their n and S, float64; 0 where no node has degree d_min."""
    many = n.clamp_min(1)
    alpha = 1 + n / torch.where(n > 0, s - n * math.log(D_MIN - 0.5), 1.0)
    value = many * alpha.log() + many * alpha * math.log(D_MIN) - (alpha + 1) * s
    return torch.where(n > 0, value, 0.0)


def terms(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """What each node adds to (n, S): float64, of the shape of `degrees`."""
    d = degrees.to(torch.float64)
    counts = d >= D_MIN
    return counts.to(torch.float64), torch.where(counts, d.clamp_min(1).log(), 0.0)


def signs(graph: Graph, flips: Tensor) -> Tensor:
    """+1 where a flip adds an edge, -1 where it removes one, 0 at padding: int64 (n, E)."""
    a, b = flips.clamp_min(0).unbind(2)
    return torch.where(flips[..., 0] < 0, 0, 1 - 2 * graph.has(a, b).long())


def degree_changes(graph: Graph, flips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes that flips touch, and by how much their degree changes: (row, node, change), int64 (m,) each.

    Every (row, node) comes once, in that order; several flips at one node add up, possibly to 0.

    Args:
        graph: the clean graph, N nodes.
        flips: int64 (n, E, 2) undirected pairs, each once in a row; -1 is padding.
    """
    row, e = (flips[..., 0] >= 0).nonzero(as_tuple=True)
    sign = signs(graph, flips)[row, e]
    ends = torch.cat([row * graph.size + flips[row, e, 0], row * graph.size + flips[row, e, 1]])
    key, at = ends.unique(return_inverse=True)
    change = torch.zeros_like(key).index_add(0, at, sign.repeat(2))
    return key // graph.size, key % graph.size, change


@dataclass(frozen=True)
class DegreeState:
    """n rows of flips, ready for one more: n and S float64 (n,), and what was flipped as sorted keys."""

    graph: Graph
    n: Tensor
    s: Tensor
    touched: Tensor  # row * N + node, sorted
    change: Tensor
    flipped: Tensor  # (row * N + low) * N + high, sorted


class DegreeTest:
    """Lambda between the degrees of a clean graph and those of its perturbations.

    Args:
        degrees: (N,) degrees of the clean graph, whole numbers in any dtype.
    """

    def __init__(self, degrees: Tensor) -> None:
        if degrees.dim() != 1:
            raise ValueError(f"degrees are one number per node, (N,), not {tuple(degrees.shape)}")
        n, s = terms(degrees)
        self.n, self.s = n.sum(), s.sum()
        self.ll = log_likelihood(self.n, self.s)

    def of_sums(self, n: Tensor, s: Tensor) -> Tensor:
        """Lambda of perturbed graphs by their n and S, float64 of any shape."""
        together = log_likelihood(self.n + n, self.s + s)
        return -2 * together + 2 * (self.ll + log_likelihood(n, s))

    def statistic(self, degrees: Tensor) -> Tensor:
        """Lambda from whole degree sequences (n, N): float64 (n,)."""
        n, s = terms(degrees)
        return self.of_sums(n.sum(-1), s.sum(-1))

    def incremental(self, flips: Tensor, graph: Graph) -> Tensor:
        """Lambda of rows of flips, int64 (n, E, 2), from the touched nodes alone: float64 (n,)."""
        n, s, *_ = self._sums(flips, graph)
        return self.of_sums(n, s)

    def state(self, flips: Tensor, graph: Graph) -> DegreeState:
        """What `after` needs to know of rows of flips, int64 (n, E, 2)."""
        n, s, touched, change = self._sums(flips, graph)
        row, e = (flips[..., 0] >= 0).nonzero(as_tuple=True)
        return DegreeState(graph, n, s, touched, change, _pair_keys(graph, row, *flips[row, e].unbind(1)).sort().values)

    def after(self, state: DegreeState, pairs: Tensor) -> Tensor:
        """Lambda after one more flip, for many candidates: float64 (n, C). Constant time each, but for a binary search.

        Args:
            state: n rows, see `state`.
            pairs: int64 (n, C, 2); a pair that its row holds is taken back. Padding (-1) and self-pairs change nothing.
        """
        graph = state.graph
        a, b = pairs.clamp_min(0).unbind(2)
        row = torch.arange(len(pairs), device=pairs.device).unsqueeze(1).expand_as(a)
        real = (pairs[..., 0] >= 0) & (a != b)
        held = _find(state.flipped, _pair_keys(graph, row, a, b))[1]
        sign = torch.where(real, 1 - 2 * (graph.has(a, b) ^ held).long(), 0)
        n, s = state.n.unsqueeze(1), state.s.unsqueeze(1)
        for node in (a, b):
            at, known = _find(state.touched, row * graph.size + node)
            degree = graph.count[node]
            if len(state.change):
                degree = degree + torch.where(known, state.change[at], 0)
            (n0, s0), (n1, s1) = terms(degree), terms(degree + sign)
            n, s = n + (n1 - n0), s + (s1 - s0)
        return self.of_sums(n, s)

    def _sums(self, flips: Tensor, graph: Graph) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row, node, change = degree_changes(graph, flips)
        degree = graph.count[node]
        (n0, s0), (n1, s1) = terms(degree), terms(degree + change)
        base = self.n.expand(len(flips)).clone(), self.s.expand(len(flips)).clone()
        n, s = base[0].index_add(0, row, n1 - n0), base[1].index_add(0, row, s1 - s0)
        return n, s, row * graph.size + node, change


def _pair_keys(graph: Graph, row: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (row * graph.size + torch.minimum(a, b)) * graph.size + torch.maximum(a, b)


def _find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where each wanted key is among sorted keys, and whether it is there."""
    if not len(keys):
        return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
    at = torch.searchsorted(keys, wanted.contiguous()).clamp_max(len(keys) - 1)
    return at, keys[at] == wanted


_tests: WeakKeyDictionary[Graph, DegreeTest] = WeakKeyDictionary()


def degree_test_of(graph: Graph) -> DegreeTest:
    """The test against a graph, kept as long as the graph is."""
    if graph not in _tests:
        _tests[graph] = DegreeTest(graph.count)
    return _tests[graph]
