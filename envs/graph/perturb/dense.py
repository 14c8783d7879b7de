"""Whole small graphs as samples: dense batched adjacency, padded to the largest graph of the dataset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import pick
from advgym.core.edits import FLAT, EditsBatch


@dataclass(frozen=True)
class DenseRows:
    """n whole graphs: x float (n, M, F), adjacency float (n, M, M), symmetric, zero diagonal, mask bool (n, M)."""

    x: Tensor
    adjacency: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> DenseRows:
        """The rows at `index`, int64 (m,)."""
        index = index.to(self.x.device)
        return DenseRows(self.x[index], self.adjacency[index], self.mask[index])

    def prune(self, threshold: float) -> DenseRows:
        """Drop the edges between nodes of Jaccard feature similarity below `threshold` (x > 0)."""
        on = (self.x > 0).to(self.x.dtype)
        both = on @ on.transpose(1, 2)
        size = on.sum(2)
        either = (size.unsqueeze(2) + size.unsqueeze(1) - both).clamp_min(1)
        keep = both.double() >= threshold * either.double()
        return replace(self, adjacency=self.adjacency * keep.to(self.adjacency.dtype))


class WholeBatch(EditsBatch):
    """B graphs, edited by flips of undirected edges (site < choice).

    Args:
        x: float32 (B, M, F); adjacency: float32 (B, M, M); count: int64 (B,) nodes of each graph.
        edits: most flips.
    """

    shown = "x adjacency count"

    key = "pair"

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, adjacency: Tensor, count: Tensor, edits: int) -> None:
        self.ids, self.labels, self.x, self.adjacency, self.count = ids, labels, x, adjacency, count
        self.sites = self.choices = x.shape[1]
        self.rows_max = edits
        cells = count * (count - 1) // 2
        self.limit = cells.clamp_max(edits)

    @property
    def present(self) -> Tensor:
        """Bool (B, M): which nodes are not padding."""
        return torch.arange(self.sites, device=self.count.device) < self.count.unsqueeze(1)

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        return (site < choice) & (choice < pick(self.count, rows).unsqueeze(1))

    def mask(self, rows: Tensor | None = None) -> Tensor:
        if self.sites * self.choices > FLAT:
            return super().mask(rows)
        present = pick(self.present, rows)
        return (present.unsqueeze(2) & present.unsqueeze(1)).triu(1)

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        node = torch.arange(self.sites, device=self.count.device)
        return node < pick(self.count, rows).unsqueeze(1) - 1

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        node = torch.arange(self.sites, device=self.count.device)
        return (node > sites.unsqueeze(1)) & (node < pick(self.count, rows).unsqueeze(1))

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> DenseRows:
        return self.relaxed(form, torch.ones(form.shape[:2], device=form.device), rows)

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> DenseRows:
        clean = pick(self.adjacency, rows)
        a, b = form.clamp_min(0).unbind(2)
        lane = torch.arange(len(form), device=form.device).unsqueeze(1).expand_as(a)
        d = (1 - 2 * clean[lane, a, b]) * weights.to(clean.dtype) * (form[..., 0] >= 0)
        at = torch.cat([lane, lane], 1), torch.cat([a, b], 1), torch.cat([b, a], 1)
        adjacency = clean.index_put(at, torch.cat([d, d], 1), accumulate=True)
        return DenseRows(pick(self.x, rows), adjacency, pick(self.present, rows))

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[DenseRows, list[Tensor]]:
        x = self.inputs(form, rows)
        leaf = x.adjacency.detach().requires_grad_()
        return replace(x, adjacency=leaf), [leaf]

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        present = pick(self.present, rows)
        open_ = (present.unsqueeze(2) & present.unsqueeze(1)).triu(1)
        lane = torch.arange(len(form), device=form.device).unsqueeze(1).expand(form.shape[:2])
        used = form[..., 0] >= 0
        open_[lane[used], form[..., 0][used], form[..., 1][used]] = False
        g = grads[0]
        gain = torch.zeros(open_.shape, device=form.device) if g is None else g + g.transpose(1, 2)
        gain = gain * (1 - 2 * pick(self.adjacency, rows))
        return best_pairs(torch.where(open_, gain, -torch.inf).flatten(1), self.choices, k)

    def view(self) -> dict[str, Tensor]:
        """Of each graph: its size and density; of each node: whether it exists, its degree, its tag."""
        size = self.count.float()
        degree = self.adjacency.sum(2)
        summary = torch.stack([size / self.sites, degree.sum(1) / size / 8, degree.amax(1) / 8], 1)
        out = {"graph": summary}
        nodes = torch.cat([self.present.unsqueeze(2).float(), degree.unsqueeze(2) / 8, self.x], 2)
        if nodes[0].numel() <= 16384:
            out["site_features"] = nodes
        return out


def best_pairs(gain: Tensor, width: int, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of (n, sites * width) as (edits int64 (n, k, 2), gains float32 (n, k)), -1 padded."""
    take = min(k, gain.shape[1])
    value, at = gain.topk(take, 1)
    some = value > -torch.inf
    edits = torch.where(some.unsqueeze(2), torch.stack([at // width, at % width], 2), -1)
    edits = torch.nn.functional.pad(edits, (0, 0, 0, k - take), value=-1)
    return edits, torch.nn.functional.pad(value.float(), (0, k - take), value=-torch.inf)


def randomise_dense(inputs: Any, rate: float, keys: Tensor) -> DenseRows:
    """Delete each edge with probability `rate` and add as many random ones, on average; keyed by int64 (n,)."""
    a, mask = inputs.adjacency, inputs.mask
    n, m = mask.shape
    slots = (mask.unsqueeze(2) & mask.unsqueeze(1)).triu(1)
    exists = (a.detach() > 0.5) & slots
    edges = exists.sum((1, 2))
    gain = (rate * edges / (slots.sum((1, 2)) - edges).clamp_min(1)).view(n, 1, 1)
    u = rng.uniform(0, keys, (m, m), 44)
    flip = (u < torch.where(exists, torch.full_like(gain, rate), gain)) & slots
    flip = (flip | flip.transpose(1, 2)).to(a.dtype)
    return replace(inputs, adjacency=a * (1 - flip) + (1 - a) * flip)
