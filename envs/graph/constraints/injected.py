"""What keeps injected nodes unnoticeable: how many hang on one old node, degrees, words that keep company.

All of it reads the edits alone, for all rows at once, and each has a projection: the subset that comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advgym.core.columns import Columns
from advgym.envs.graph.constraints.components import clean_components, component_count
from advgym.envs.graph.constraints.cooccurrence import SHARE, TIE, cooccurrence
from advgym.envs.graph.constraints.powerlaw import degree_changes, degree_test_of, terms
from advgym.envs.graph.constraints.stealth import most_of
from advgym.envs.graph.inputs.graphs import GATHER, Graph

if TYPE_CHECKING:
    from advgym.core.batch import Batch


def nth(values: Tensor) -> Tensor:
    """How many equal values each entry of a row has before it: int64, of the shape of `values` (n, m)."""
    order = values.argsort(dim=1, stable=True)
    ordered = values.gather(1, order)
    place = torch.arange(values.shape[1], device=values.device).expand_as(values)
    return torch.zeros_like(place).scatter(1, order, place - torch.searchsorted(ordered, ordered.contiguous()))


# -- edges ------------------------------------------------------------------------------------------------------------
def busiest_old(flips: Tensor, first: int) -> Tensor:
    """Most injected edges at one node below `first`, those of the clean graph: int64 (n,); flips int64 (n, E, 2)."""
    row, e, end = ((flips >= 0) & (flips < first)).nonzero(as_tuple=True)
    key, count = (row * max(first, 1) + flips[row, e, end]).unique(return_counts=True)
    return most_of(key // max(first, 1), count, len(flips))


def first_at_old(flips: Tensor, first: int, most: int) -> Tensor:
    """Which edges stay if only the first `most` at each old node do: bool (n, E). An edge has at most one old end."""
    old = torch.where(flips < first, flips, -1).amax(2)
    return (old < 0) | (nth(old) < most)


def degree_prefix(graph: Graph, flips: Tensor, bar: float) -> Tensor:
    """Which added edges are in the longest run from the first with Lambda below `bar`: bool (n, E).

    Args:
        graph: the enlarged graph; nodes without edges count for nothing.
        flips: int64 (n, E, 2) pairs that the graph does not have, none twice; -1 is padding.
    """
    test, on = degree_test_of(graph), flips[..., 0] >= 0
    ends = flips.flatten(1)  # both ends of an edge side by side; they differ, so neither counts for the other
    before = graph.count[ends.clamp_min(0)] + nth(ends)
    sums = []
    for start, old, new in zip((test.n, test.s), terms(before), terms(before + 1), strict=True):
        gain = (new - old).view(*flips.shape).sum(2)
        sums.append(start + torch.where(on, gain, 0.0).cumsum(1))
    fine = test.of_sums(*sums) < bar
    place = torch.arange(1, flips.shape[1] + 1, device=flips.device)
    return on & (place <= (fine * place).amax(1, keepdim=True))


# -- words ------------------------------------------------------------------------------------------------------------
class Words:
    """The words put into each node of each row, and what Nettack's test says of them (Zuegner et al., 2018).

    Injected nodes have no words of their own to compare with, so each word is held against the others of its node:
    with j the other words, sum over those that co-occur with it in some clean node of 1 / deg(j) has to be above half
    of the sum over all. One word alone passes; the order of words does not matter.

    Args:
        graph: the enlarged graph.
        cells: int64 (n, K, 2) of (node, feature), nodes without clean features; -1 is padding.
    """

    def __init__(self, graph: Graph, cells: Tensor) -> None:
        self.shape, test = cells.shape[:2], cooccurrence(graph)
        self.row, self.k = (cells[..., 0] >= 0).nonzero(as_tuple=True)
        node, word = cells[self.row, self.k].unbind(1)
        self.group = torch.unique(self.row * graph.size + node, return_inverse=True)[1]
        self.place = nth(self.group.unsqueeze(0))[0]
        groups = int(self.group.max()) + 1 if len(self.group) else 0
        wide = int(self.place.max()) + 1 if len(self.place) else 0
        self.word = torch.full((groups, wide), -1, dtype=torch.int64, device=cells.device)
        self.word[self.group, self.place] = word
        self.words, self.weights = test.words, test.inverse

    def _parts(self) -> list[Tensor]:
        """Groups in runs whose pairs of words fit in memory."""
        every = torch.arange(len(self.word), device=self.word.device)
        return list(every.split(max(1, GATHER // max(self.word.shape[1] ** 2, 1)))) if len(every) else []

    def _table(self, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(which places hold a word (g, W), their weights (g, W), weight of j where it meets i (g, j, i))."""
        word = self.word[groups]
        on, some = word >= 0, word.clamp_min(0)
        weight = torch.where(on, self.weights[some], 0.0)
        met = self.words.has(some.unsqueeze(2), some.unsqueeze(1)) & on.unsqueeze(2) & on.unsqueeze(1)
        return on, weight, met * weight.unsqueeze(2)

    def _spread(self, found: Tensor) -> Tensor:
        """From (groups, W) to the entries of the cells: bool (n, K), False at padding."""
        out = torch.zeros(self.shape, dtype=torch.bool, device=found.device)
        out[self.row, self.k] = found[self.group, self.place]
        return out

    def refused(self) -> Tensor:
        """Words that do not keep company with the others of their node: bool (n, K)."""
        found = torch.zeros(self.word.shape, dtype=torch.bool, device=self.word.device)
        for part in self._parts():
            found[part] = self._alien(*self._table(part))
        return self._spread(found)

    @staticmethod
    def _alien(on: Tensor, weight: Tensor, met: Tensor) -> Tensor:
        """Words (g, W) that fail beside all others of their group."""
        others = weight.sum(1, keepdim=True) - weight
        return on & (on.sum(1, keepdim=True) > 1) & ~(met.sum(1) > SHARE * (1 + TIE) * others)

    def kept(self) -> Tensor:
        """A subset that passes, bool (n, K): all words of a node, else each in turn if those before it still pass."""
        found = torch.zeros(self.word.shape, dtype=torch.bool, device=self.word.device)
        for part in self._parts():
            on, weight, met = self._table(part)
            stay, near, total = torch.zeros_like(on), torch.zeros_like(weight), weight.new_zeros(len(part), 1)
            for i in range(on.shape[1]):
                more, mass = near + met[:, i], total + weight[:, i : i + 1]
                asked = stay.clone()
                asked[:, i] = True
                passed = more > SHARE * (1 + TIE) * (mass - weight)
                good = on[:, i] & ((passed | ~asked).all(1) | ~stay.any(1))
                stay[:, i] = good
                near, total = (torch.where(good.unsqueeze(1), a, b) for a, b in ((more, near), (mass, total)))
            whole = ~self._alien(on, weight, met).any(1, keepdim=True)
            found[part] = torch.where(whole, on, stay)
        return self._spread(found)


# -- figures of a result ----------------------------------------------------------------------------------------------
def compute(batch: Batch, form: Tensor) -> dict[str, list[float]]:
    """Columns of rows of injected nodes, see `columns`."""
    rows: Any = batch.inputs(form)
    graph, flips, cells, first = rows.graph, rows.flips, rows.cells, batch.first  # type: ignore[attr-defined]
    if cells is None:
        cells = flips[:, :0]
    new = graph.size - first
    used, linked = (torch.zeros(len(form), graph.size + 1, dtype=torch.bool, device=form.device) for _ in range(2))
    linked.scatter_(1, torch.where(flips >= 0, flips, graph.size).flatten(1), True)
    used.scatter_(1, torch.where(cells[..., 0] >= 0, cells[..., 0], graph.size), True)
    idle = (~(used | linked)[:, first : graph.size]).sum(1)
    row, node, change = degree_changes(graph, flips)
    old = node < first
    found = {
        "nodes": new - idle,
        "edges": (flips[..., 0] >= 0).sum(1),
        "features": (cells[..., 0] >= 0).sum(1),
        "degree_test": degree_test_of(graph).incremental(flips, graph),
        "degree_max": most_of(row[old], change[old], len(form)),
        "components": component_count(graph, flips) - idle - (clean_components(graph) - new),
        "unlikely": Words(graph, cells).refused().sum(1),
    }
    return {name: [float(v) for v in values.tolist()] for name, values in found.items()}


def columns() -> Columns:
    """What an injection task measures of every final perturbation.

    `nodes` injected with an edge or a feature, and their `edges` and `features`; `degree_test` Nettack's Lambda between
    the clean graph and the enlarged one; `degree_max` most injected edges at one old node; `components` connected
    components more than the clean graph has, nodes without anything not counted; `unlikely` words that `Words` refuses.
    """
    return Columns(compute)
