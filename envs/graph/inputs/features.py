"""The features of n perturbed graphs, as the first layer of a model reads them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from advgym.envs.graph.inputs.graphs import Graph


class Features:
    """Node features of one graph in n versions: shared by all, but for a few changed entries.

    Args:
        graph: holds the clean features x (N, F), and whether a model sees their rows normalised.
        n: versions.
        cells: (row, node, feature, change), (m,) each: x[node, feature] + change in version `row`.
        added: (row, node, change) with change (m, F), added to whole rows of x.
    """

    def __init__(
        self, graph: Graph, n: int, cells: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
        added: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.n, self.added = graph, n, added
        self.cells = cells if cells is not None and len(cells[0]) else None

    @property
    def shared(self) -> bool:
        """Whether all versions are the clean one."""
        return self.cells is None and self.added is None

    def linear(self, weight: Tensor) -> Tensor:
        """X W without a bias, weight (F, H), node-first: (N, 1, H) where all versions agree, else (N, n, H)."""
        graph = self.graph
        out = graph.product(weight).unsqueeze(1)
        total = graph.total(weight.dtype).view(-1, 1, 1) if graph.row_norm else None
        if not self.shared:
            out = out.expand(-1, self.n, -1)
            total = total if total is None else total.expand(-1, self.n, -1)
        if self.cells is not None:
            row, node, feature, change = self.cells
            change = change.to(weight.dtype).unsqueeze(1)
            out = out.index_put((node, row), change * weight[feature], accumulate=True)
            total = total if total is None else total.index_put((node, row), change, accumulate=True)
        if self.added is not None:
            row, node, more = self.added
            more = more.to(weight.dtype)
            out = out.index_put((node, row), more @ weight, accumulate=True)
            total = total if total is None else total.index_put((node, row), more.sum(1, keepdim=True), accumulate=True)
        return out if total is None else out / total.clamp_min(1)

    def dense(self) -> Tensor:
        """The features themselves as a model sees them, (N, 1 or n, F): for models that need more than a product."""
        x = self.graph.x.unsqueeze(1)
        if not self.shared:
            x = x.expand(-1, self.n, -1)
        if self.cells is not None:
            row, node, feature, change = self.cells
            x = x.to(change.dtype).index_put((node, row, feature), change, accumulate=True)
        if self.added is not None:
            row, node, more = self.added
            x = x.to(more.dtype).index_put((node, row), more, accumulate=True)
        return x / x.sum(2, keepdim=True).clamp_min(1) if self.graph.row_norm else x


def features_of(rows: Any) -> Features:
    """The perturbed features of `GraphRows` or `GlobalRows`."""
    cells, added, n = None, None, len(rows.flips)
    if rows.cells is not None and rows.cells.shape[1]:
        row, k = (rows.cells[..., 0] >= 0).nonzero(as_tuple=True)
        node, feature = rows.cells[row, k].unbind(1)
        sign = 1 - 2 * rows.graph.x[node, feature]
        cells = row, node, feature, sign if rows.cell_weights is None else sign * rows.cell_weights[row, k]
    if getattr(rows, "probe", None) is not None and rows.probes == "cells":
        row, g = (rows.probe_nodes >= 0).nonzero(as_tuple=True)
        added = row, rows.probe_nodes[row, g], rows.probe[row, g]
    return Features(rows.graph, n, cells, added)
