"""Populations of sets of pairs of nodes. A gene is an int64 key, a * N + b with a < b, or -1 for none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Genes:
    """What genes of an environment look like: pairs with an end among the members, as many as the budget allows.

    Attributes:
        size: nodes N; most: genes of an individual; budget: int64 (lanes,); rows: of a proposal.
        members: int64 (lanes, M); start, end: the clean neighbours of node v are end[start[v] : start[v + 1]].
    """

    size: int
    most: int
    budget: Tensor
    rows: int
    members: Tensor
    start: Tensor
    end: Tensor

    def draw(self, draws, right: Tensor, near: float) -> Tensor:
        """New genes (lanes, P, most): one end a member, drawn by weights `right` (lanes, P, M), the other any node.

        A share `near` of them is at a clean neighbour of that member in its place. -1 where both ends fall together or
        no member is left.
        """
        many = right.shape[1]
        u = draws.uniform(many, self.most, 4)
        total = right.float().cumsum(2)
        nth = u[..., 0] * total[..., -1:]
        at = torch.searchsorted(total.contiguous(), nth, right=True).clamp_max(right.shape[2] - 1)
        a = self.members.unsqueeze(1).expand(-1, many, -1).gather(2, at)
        degree = self.start[a + 1] - self.start[a]
        place = self.start[a] + (u[..., 2] * degree).long()
        beside = (u[..., 3] < near) & (degree > 0)
        if len(self.end):
            a = torch.where(beside, self.end[place.clamp_max(len(self.end) - 1)], a)
        b = (u[..., 1] * self.size).long().clamp_max(self.size - 1)
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        real = (low < high) & (total[..., -1:] > 0) & self.room
        return torch.where(real, low * self.size + high, -1)

    @property
    def room(self) -> Tensor:
        """Bool (lanes, 1, most): places of an individual that the budget leaves open."""
        return torch.arange(self.most, device=self.budget.device) < self.budget.view(-1, 1, 1)

    def proposals(self, genes: Tensor) -> Tensor:
        """The individuals (lanes, P, most) as edits (lanes, P, rows, 2)."""
        out = torch.full((*genes.shape[:2], self.rows, 2), -1, dtype=torch.int64, device=genes.device)
        pair = torch.stack([genes // self.size, genes % self.size], 3)
        out[:, :, : genes.shape[2]] = torch.where((genes >= 0).unsqueeze(3), pair, -1)
        return out

    def fit(self, genes: Tensor) -> Tensor:
        """Keys (P, n <= most) as individuals (P, most)."""
        return torch.nn.functional.pad(genes, (0, self.most - genes.shape[1]), value=-1)

    def distinct(self, genes: Tensor) -> Tensor:
        """Every gene once, in descending order, -1 last."""
        genes = genes.sort(dim=2, descending=True).values
        return torch.where(_again(genes), -1, genes).sort(dim=2, descending=True).values

    def cross(self, draws, a: Tensor, b: Tensor) -> Tensor:
        """Uniform crossover of individuals: shared genes stay, the others fill the budget by chance."""
        both = torch.cat([a, b], 2).sort(dim=2, descending=True).values
        second = _again(both)
        shared = torch.zeros_like(second)
        shared[..., :-1] = second[..., 1:]
        order = draws.uniform(*both.shape[1:]) - 2.0 * shared + 4.0 * (second | (both < 0))
        at = order.argsort(dim=2)[..., : self.most]
        return torch.where((order.gather(2, at) < 2) & self.room, both.gather(2, at), -1)


def genes_of(env, members: Tensor) -> Genes:
    """The genes of an environment whose edits are pairs of nodes of one public graph."""
    source, end = (v.to(env.device) for v in env.context["edge_index"])
    order = source.argsort(stable=True)
    size, budget = env.table.sites, env.table.limit
    start = torch.zeros(size + 1, dtype=torch.int64, device=env.device)
    start[1:] = torch.bincount(source, minlength=size).cumsum(0)
    return Genes(size, int(budget.max()), budget, env.shape[0], members, start, end[order])


def tournament(draws, fitness: Tensor, rivals: int) -> Tensor:
    """The winner of `rivals` drawn individuals, for as many as there are: int64 (lanes, P) from (lanes, P)."""
    many = fitness.shape[1]
    drawn = draws.integers(many, many, rivals)
    value = fitness.unsqueeze(1).expand(-1, many, -1).gather(2, drawn)
    return drawn.gather(2, value.argmax(2, keepdim=True)).squeeze(2)


def _again(genes: Tensor) -> Tensor:
    """Where a sorted gene equals the one before."""
    out = torch.zeros_like(genes, dtype=torch.bool)
    out[..., 1:] = (genes[..., 1:] == genes[..., :-1]) & (genes[..., 1:] >= 0)
    return out
