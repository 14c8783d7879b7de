"""Nodes of one graph as samples: edge flips and feature flips, direct and by influence."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.edits import FLAT, EditsBatch
from advgym.envs.graph.constraints.limits import Limits
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.perturb.dense import best_pairs
from advgym.envs.graph.perturb.view import node_summary, site_features

EGO = 64  # most nodes around a target that the ranking of influence attacks starts edits from
PROBES = 1 << 19  # most candidates ranked per lane
VIEW = 16384  # largest site_features of a lane


class NodeBatch(EditsBatch):
    """B target nodes of one graph.

    Args:
        graph: the clean graph.
        target: int64 (B,) node ids.
        known: int64 (N,) the labels an attacker knows, -1 elsewhere; only for `view`.
        edits: most flips.
        influence: edits may not touch the target; without it they must.
        limits: what keeps an attack unnoticeable.
    """

    shown = "graph target classes influence limits summary site_features"

    def __init__(
        self, ids: Tensor, labels: Tensor, graph: Graph, target: Tensor, known: Tensor, classes: int, *, edits: int,
        influence: bool = False, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.labels, self.graph, self.target = ids, labels, graph, target
        self.classes, self.influence, self.rows_max = classes, influence, edits
        self.sites, self.limits = graph.size, limits or Limits()
        self.narrow = self.limits.narrow
        self.limit = torch.full_like(ids, edits)
        self.summary = node_summary(graph, target, known, classes)
        width = 6 + classes
        if graph.size * width <= VIEW:
            self.site_features = site_features(graph, target, known, classes)

    def _rows(self, rows: Tensor | None) -> Tensor:
        return pick(self.target, rows)

    def mask(self, rows: Tensor | None = None) -> Tensor:
        if self.sites * self.choices > FLAT:
            return super().mask(rows)
        n = len(self._rows(rows))
        cell = torch.arange(self.sites * self.choices, device=self.target.device).expand(n, -1)
        return self.legal(cell // self.choices, cell % self.choices, rows).view(n, self.sites, self.choices)

    def _ego(self, form: Tensor, rows: Tensor | None) -> Tensor:
        """Nodes that ranked edits start from, int64 (n, G): the target, or its perturbed neighbours, smallest first."""
        target = self._rows(rows)
        if not self.influence:
            return target.unsqueeze(1)
        view = GraphRows(self.graph, target, form if self.key == "pair" else form[:, :0])
        owner, near = view.edges_near(target, torch.arange(len(target), device=target.device))
        n, size = len(target), self.graph.size
        order = (owner * (2 * size) + self.graph.count[near]).argsort()
        owner, near = owner[order], near[order]
        count = torch.bincount(owner, minlength=n)
        place = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
        cap = max(1, min(EGO, PROBES // self.choices, int(count.max()) if n else 1))
        keep = place < cap
        out = torch.full((n, cap), -1, dtype=torch.int64, device=target.device)
        out[owner[keep], place[keep]] = near[keep]
        return out

    def _probed(self, form: Tensor, rows: Tensor | None, probes: str) -> tuple[GraphRows, list[Tensor]]:
        ego = self._ego(form, rows)
        leaf = torch.zeros(*ego.shape, self.choices, dtype=self.graph.x.dtype, device=ego.device, requires_grad=True)
        inputs = self.inputs(form, rows)
        return GraphRows(
            self.graph, inputs.target, inputs.flips, cells=inputs.cells, probe=leaf, probe_nodes=ego, probes=probes
        ), [leaf]

    def view(self) -> dict[str, Tensor]:
        """The target's summary and, for small graphs, features of every node as seen from the target."""
        out = {"node": self.summary}
        if hasattr(self, "site_features"):
            out["site_features"] = self.site_features
        return out


def trim(form: Tensor) -> Tensor:
    """The form without columns that are padding in every row."""
    used = (form[..., 0] >= 0).any(0).nonzero()
    return form[:, : int(used[-1]) + 1 if len(used) else 0]


class EdgeBatch(NodeBatch):
    """Edits are edge flips: site and choice are nodes, the key is the unordered pair.

    Direct: site is the target. Influence: site < choice, neither the target.
    """

    key = "pair"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.choices = self.graph.size

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        target = self._rows(rows).unsqueeze(1)
        if self.influence:
            return (site < choice) & (site != target) & (choice != target)
        return (site == target) & (choice != target)

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        target = self._rows(rows).unsqueeze(1)
        node = torch.arange(self.sites, device=target.device)
        if not self.influence:
            return node == target
        last = self.sites - 1 - (target == self.sites - 1).long()  # the largest node that is not the target
        return (node != target) & (node < last)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        node = torch.arange(self.choices, device=sites.device).expand(len(sites), -1)
        return self.legal(sites.unsqueeze(1), node, rows)

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        return self.limits.admits(self.graph, form)

    def raw_distance(self, x: RawGraph, rows: Tensor) -> Tensor | None:
        """Weighted pairs that differ from the clean graph's."""
        return x.distance() if isinstance(x, RawGraph) and x.graph is self.graph else None

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> GraphRows:
        return GraphRows(self.graph, self._rows(rows), trim(form))

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> GraphRows:
        return GraphRows(self.graph, self._rows(rows), form, weights)

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[GraphRows, list[Tensor]]:
        return self._probed(form, rows, "pairs")

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ego, target = self._ego(form, rows), self._rows(rows)
        n, many = ego.shape
        node = ego.clamp_min(0).unsqueeze(2)
        every = torch.arange(self.sites, device=node.device).view(1, 1, -1)
        gain = torch.zeros(n, many, self.sites, device=node.device) if grads[0] is None else grads[0]
        gain = gain * (1 - 2 * self.graph.has(node, every).to(gain.dtype))
        closed = (ego < 0).unsqueeze(2) | (every == node)
        if self.influence:
            closed = closed | (every == target.view(-1, 1, 1))
            # A pair with both ends around the target is met twice: keep the one from its smaller end.
            inside = torch.zeros(n, self.sites + 1, dtype=torch.bool, device=node.device)
            inside.scatter_(1, torch.where(ego >= 0, ego, self.sites), True)
            closed = closed | (inside[:, : self.sites].unsqueeze(1) & (every < node))
        lane, e = (form[..., 0] >= 0).nonzero(as_tuple=True)
        for one, other in ((0, 1), (1, 0)):  # pairs that the form holds already
            a, b = form[lane, e, one], form[lane, e, other]
            hit, g = (ego[lane] == a.unsqueeze(1)).nonzero(as_tuple=True)
            closed = closed.index_put((lane[hit], g, b[hit]), torch.ones_like(g, dtype=torch.bool))
        edits, value = best_pairs(gain.masked_fill(closed, -torch.inf).flatten(1), self.sites, k)
        a = ego.gather(1, edits[..., 0].clamp(0, many - 1))
        b = edits[..., 1]
        if self.influence:
            a, b = torch.minimum(a, b), torch.maximum(a, b)
        return torch.where((edits[..., :1] >= 0), torch.stack([a, b], 2), -1), value


class FeatureBatch(NodeBatch):
    """Edits are flips of binary features: site is a node, choice a feature, the key is the cell.

    Direct: site is the target. Influence: site is any other node.
    """

    key = "cell"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.choices = self.graph.features
        self.limit = self.limit.clamp_max(self.choices)

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        own = site == self._rows(rows).unsqueeze(1)
        return ~own if self.influence else own

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        target = self._rows(rows).unsqueeze(1)
        node = torch.arange(self.sites, device=target.device)
        return (node != target) if self.influence else (node == target)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.legal(sites.unsqueeze(1), sites.unsqueeze(1), rows).expand(-1, self.choices)

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        return self.limits.admits(self.graph, cells=form)

    def _no_flips(self, form: Tensor) -> Tensor:
        return form[:, :0]

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> GraphRows:
        return GraphRows(self.graph, self._rows(rows), self._no_flips(form), cells=trim(form))

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> GraphRows:
        return GraphRows(self.graph, self._rows(rows), self._no_flips(form), cells=form, cell_weights=weights)

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[GraphRows, list[Tensor]]:
        return self._probed(form, rows, "cells")

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ego = self._ego(form, rows)
        many = ego.shape[1]
        x = self.graph.x[ego.clamp_min(0)]
        gain = torch.zeros_like(x) if grads[0] is None else grads[0]
        gain = gain * (1 - 2 * x)
        closed = (ego < 0).unsqueeze(2).expand_as(gain)
        lane, e = (form[..., 0] >= 0).nonzero(as_tuple=True)
        hit, g = (ego[lane] == form[lane, e, 0].unsqueeze(1)).nonzero(as_tuple=True)
        closed = closed.index_put((lane[hit], g, form[lane, e, 1][hit]), torch.ones_like(g, dtype=torch.bool))
        edits, value = best_pairs(gain.masked_fill(closed, -torch.inf).flatten(1), self.choices, k)
        site = ego.gather(1, edits[..., 0].clamp(0, many - 1))
        return torch.where(edits[..., :1] >= 0, torch.stack([site, edits[..., 1]], 2), -1), value

    def view(self) -> dict[str, Tensor]:
        out = super().view()
        if self.choices <= 2048:
            out["x"] = self.graph.x[self.target]
        return out
