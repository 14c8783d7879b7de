"""Soft Median on a diffused graph: a robust mean over neighbours by personalised PageRank (Geisler et al., 2021)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.envs.graph.inputs.adjacency import Adjacency
from advgym.envs.graph.inputs.features import Features, features_of
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.convolutions import Dense
from advgym.envs.graph.models.pagerank import columns
from advgym.envs.graph.models.propagation import Propagation, adjacency_of, step_of, tied

WORTH = 8  # targets are answered on their own neighbours in graphs of more than so many times `top` nodes


class SoftMedian(Propagation):
    """Two layers of soft medians over the `top` nodes of largest PageRank from each node (GDC; Gasteiger et al. 2019).

    With a the PageRank weights and m the weighted median of the neighbours' features, coordinate by coordinate,
    s_u ~ exp(-|x_u - m| / (T sqrt(H))) a_u, and the answer is sum_u s_u x_u: neighbours far from the middle go unheard.

    Backward, the cut at `top` is passed straight through: a node beyond it gets the gradient that its weight would have
    if it were heard. Without that, no edge to a far node gains anything, and the attack is blind, not the model robust.

    Args:
        temperature: T; alpha: the restart of PageRank; top: neighbours kept; steps: of the iteration for PageRank.
    """

    def __init__(
        self, features: int, classes: int, hidden: int = 16, dropout: float = 0.5, temperature: float = 0.5,
        alpha: float = 0.15, top: int = 64, steps: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer1, self.layer2 = Dense(features, hidden), Dense(hidden, classes)
        self.dropout, self.temperature, self.alpha, self.top, self.steps = dropout, temperature, alpha, top, steps
        self.width = 2 * top * hidden
        self._near: tuple[Any, Tensor, Tensor] | None = None
        self._held: tuple[Any, Tensor] | None = None

    def scores(self, adjacency: Adjacency, features: Features) -> Tensor:
        """See `Propagation`."""
        heard = self._everywhere(adjacency)
        h = self._hidden(features.linear(self.layer1.weight).expand(-1, adjacency.n, -1).transpose(0, 1), *heard)
        weight, near, beyond = heard
        return (self._median(_members(h, near), weight, beyond, h) + self.layer2.bias).transpose(0, 1)

    def forward(self, rows: GraphRows | GlobalRows | RawGraph) -> Tensor:
        """See `Propagation`."""
        if not isinstance(rows, GraphRows) or rows.graph.size <= WORTH * self.top:
            return super().forward(rows)
        every = torch.arange(len(rows), device=rows.target.device)
        runs = every.split(8 * step_of(self, rows.graph.size))
        parts = [self._at_targets(rows if len(run) == len(rows) else rows.take(run)) for run in runs]
        return tied(torch.cat(parts), rows)

    def _hidden(self, first: Tensor, weight: Tensor, near: Tensor, beyond: Tensor | None) -> Tensor:
        """What the second layer takes the median of, (n, m, C), from x W of the first (n, N, H)."""
        h = self._median(_members(first, near), weight, beyond, first) + self.layer1.bias
        return F.dropout(h.relu(), self.dropout, self.training) @ self.layer2.weight

    def _at_targets(self, rows: GraphRows) -> Tensor:
        """Scores of each row's target (n, C), from the PageRank of the target and of the nodes that it hears.

        Nodes that it does not hear are known by what they hold in the clean graph, which only gradients read.
        """
        adjacency, features = adjacency_of(rows), features_of(rows)
        weight, near, beyond = self._heard(adjacency, rows.target.unsqueeze(1))
        inner = self._heard(adjacency, near.squeeze(1))
        first = features.linear(self.layer1.weight).expand(-1, adjacency.n, -1).transpose(0, 1)
        h = self._hidden(first, *inner).unsqueeze(1)
        others = None if beyond is None else self._clean(rows.graph).expand(adjacency.n, -1, -1)
        return (self._median(h, weight, beyond, others) + self.layer2.bias).squeeze(1)

    @torch.no_grad()
    def _clean(self, graph: Graph) -> Tensor:
        """`_hidden` of the clean graph (1, N, C), kept while the parameters stay as they are."""
        key = graph.serial, *((p.data_ptr(), p._version) for p in self.parameters())
        if self._held is None or self._held[0] != key:
            none = Adjacency(graph, torch.empty(1, 0, 2, dtype=torch.int64, device=graph.device))
            first = Features(graph, 1).linear(self.layer1.weight).transpose(0, 1)
            self._held = key, self._hidden(first, *self._everywhere(none))
        return self._held[1]

    # -- PageRank ------------------------------------------------------------------------------------------------------
    def _everywhere(self, adjacency: Adjacency) -> tuple[Tensor, Tensor, Tensor | None]:
        """`_heard` for all nodes; that of a clean graph, which training asks for in every epoch, is kept."""
        every = torch.arange(adjacency.size, device=self.layer1.weight.device).expand(adjacency.n, -1)
        if not isinstance(adjacency, Adjacency) or adjacency.n > 1 or adjacency.leaf is not None or len(adjacency.row):
            return self._heard(adjacency, every)
        key = adjacency.graph.serial, self.layer1.weight.dtype
        if self._near is None or self._near[0] != key:
            weight, near, _ = self._heard(adjacency, every)
            self._near = key, weight, near
        return *self._near[1:], None

    def _heard(self, adjacency: Adjacency, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weights and places (n, m, top) of the nodes that nodes (n, m) hear, and what gradients by the others need.

        That is zeros (n, m, N), or None where no gradient is asked for.
        """
        rank = columns(adjacency, nodes, self.alpha, self.steps, self.layer1.weight).permute(1, 2, 0).contiguous()
        weight, near = rank.topk(min(self.top, adjacency.size), 2)
        if not rank.requires_grad:
            return weight, near, None
        return weight, near, (rank - rank.detach()).scatter(2, near, 0.0)

    # -- the median ----------------------------------------------------------------------------------------------------
    def _median(self, x: Tensor, weight: Tensor, beyond: Tensor | None, others: Tensor | None) -> Tensor:
        """Soft medians (n, m, H) of x (n, m, top, H) by weights (n, m, top); `others` (n, N, H) with `beyond`."""
        with torch.no_grad():
            order = x.argsort(2)
            heavy = weight.unsqueeze(3).expand_as(x).gather(2, order).cumsum(2)
            middle = order.gather(2, (heavy < 0.5 * heavy[:, :, -1:]).sum(2, keepdim=True).clamp_max(x.shape[2] - 1))
        m = x.gather(2, middle)
        scale = self.temperature * x.shape[3] ** 0.5
        far = ((x - m).square().sum(3) + 1e-12).sqrt() / scale
        s = (-far).exp() * weight
        total = s.sum(2, keepdim=True)
        out = (s.unsqueeze(2) @ x).squeeze(2) / total
        if beyond is None:
            return out
        assert others is not None
        with torch.no_grad():
            near = (-torch.cdist(m.squeeze(2), others) / scale).exp() / total
        s = beyond * near
        return out + s @ others.detach() - s.sum(2, keepdim=True) * out.detach()


def _members(h: Tensor, near: Tensor) -> Tensor:
    """What each node's neighbours (n, m, top) hold, (n, m, top, H), of all nodes' (n, N, H)."""
    n, size, width = h.shape
    place = near + size * torch.arange(n, device=h.device).view(n, 1, 1)
    return h.reshape(n * size, width).index_select(0, place.flatten()).view(*near.shape, width)
