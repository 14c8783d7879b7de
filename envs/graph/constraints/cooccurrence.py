"""Nettack's feature test: a word may join a node only if it keeps company with the words that the node has.

Zuegner, Akbarnejad & Guennemann (KDD 2018), section 4.1: on the graph of words that occur together in some node, one
step of a random walk from the node's words must reach the new word with a probability above half of what is possible,

    sum over the node's words j that co-occur with i of 1 / deg(j)  >  1/2 * sum over the node's words j of 1 / deg(j).

All of it is of the clean features; taking a word away is always allowed.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from advgym.envs.graph.inputs.graphs import GATHER, Graph, ragged

SHARE = 0.5
TIE = 1e-9  # relative: exactly half is refused, however the sum was rounded
BLOCK = 512  # nodes whose words are paired at once


class Cooccurrence:
    """The words that may be added to each node, by the clean features.

    Args:
        x: (N, F) binary features (anything above 0 counts as present), on any device.
    """

    def __init__(self, x: Tensor) -> None:
        if x.dim() != 2:
            raise ValueError(f"features are (nodes, features), not {tuple(x.shape)}")
        present = x > 0
        self.size, self.features = x.shape
        node, self.word = present.nonzero(as_tuple=True)  # by node
        self.count = torch.bincount(node, minlength=self.size)
        self.start = self.count.cumsum(0) - self.count
        self.present = present
        self.words = Graph(self.features, _together(present), torch.zeros(self.features, 0, device=x.device))
        # A word that meets no other is alone in its nodes, which nothing may join: any weight will do.
        self.inverse = 1.0 / self.words.count.clamp_min(1).double()
        self.bound = torch.zeros(self.size, dtype=torch.float64, device=x.device)
        self.bound.index_add_(0, node, self.inverse[self.word])

    def score(self, node: Tensor) -> Tensor:
        """The left side of the test for every word, float64 (m, F), at nodes int64 (m,)."""
        owner, at = ragged(self.start[node], self.count[node])
        word = self.word[at]
        entry, other = self.words.neighbours(word)
        out = torch.zeros(len(node) * self.features, dtype=torch.float64, device=node.device)
        out.index_add_(0, owner[entry] * self.features + other, self.inverse[word[entry]])
        return out.view(len(node), self.features)

    def allowed(self, node: Tensor) -> Tensor:
        """Which features may be flipped at nodes int64 (m,): bool (m, F). Present ones always (a removal)."""
        step = max(1, GATHER // (8 * max(self.features, 1)))
        parts = [self.present[part] | (self.score(part) > self._least(part).unsqueeze(1)) for part in node.split(step)]
        return torch.cat(parts) if parts else self.present[:0]

    def check(self, cells: Tensor) -> Tensor:
        """Whether all flips of a row pass: bool (n,), for cells int64 (n, K, 2) of (node, feature), -1 is padding."""
        return ~self.refused(cells).any(1)

    def refused(self, cells: Tensor) -> Tensor:
        """Which flips add a word that the test does not allow: bool (n, K)."""
        row, k = (cells[..., 0] >= 0).nonzero(as_tuple=True)
        node, feature = cells[row, k].unbind(1)
        owner, at = ragged(self.start[node], self.count[node])
        word = self.word[at]
        met = (word != feature[owner]) & self.words.has(word, feature[owner])
        score = torch.zeros(len(node), dtype=torch.float64, device=node.device)
        score.index_add_(0, owner, self.inverse[word] * met)
        out = torch.zeros(cells.shape[:2], dtype=torch.bool, device=cells.device)
        out[row, k] = ~self.present[node, feature] & ~(score > self._least(node))
        return out

    def _least(self, node: Tensor) -> Tensor:
        return SHARE * (1 + TIE) * self.bound[node]


def _together(present: Tensor) -> Tensor:
    """Pairs of words that some node has both of, int64 (m, 2), each once."""
    width = present.shape[1]
    met = torch.zeros(width, width, dtype=torch.bool, device=present.device)
    for part in present.split(BLOCK):
        x = part.float()
        met |= (x.T @ x) > 0.5
    return met.triu(1).nonzero()


_tests: WeakKeyDictionary[Graph, Cooccurrence] = WeakKeyDictionary()


def cooccurrence(graph: Graph) -> Cooccurrence:
    """The test of a graph's clean features, kept as long as the graph is."""
    if graph not in _tests:
        _tests[graph] = Cooccurrence(graph.x)
    return _tests[graph]
