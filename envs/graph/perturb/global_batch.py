"""Global attacks on a graph: one set of edge flips against many target nodes at once."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.edits import EditsBatch
from advgym.core.goals import SUCCESS, BundleGoal
from advgym.envs.graph.constraints.limits import Limits
from advgym.envs.graph.inputs.adjacency import Tape
from advgym.envs.graph.inputs.edges import SweepTape
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.pairs import ranked
from advgym.envs.graph.inputs.raw import RawGraph
from advgym.envs.graph.perturb.batches import trim


class GlobalGoal(BundleGoal):
    """The share of members that turn. A graph counts as broken only when all of them do, so no budget is left unused.

    The objective is (share turned) - 1, plus a mean of tanh(margin) that weighs less than half a member.
    """

    def judge(self, scores: Tensor, ref: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        margin, cross = (self._by_member(v) for v in self.inner.judge(scores.flatten(0, 1), ref.flatten(0, 1), None))
        share = (margin > SUCCESS).to(margin.dtype).mean(1)
        return share - 1 + torch.tanh(margin).mean(1) / (2 * self.members), cross.mean(1)

    def right(self, scores: Tensor, labels: Tensor) -> Tensor:
        return torch.ones(len(scores), dtype=torch.bool, device=scores.device)  # members are nodes it has right


class GlobalBatch(EditsBatch):
    """B copies of one graph under attack: edits are edge flips anywhere, site < choice.

    Args:
        ids: int64 (B,), which seed each lane is; labels: int64 (B, M).
        graph: the clean graph; nodes: int64 (M,), the members.
        edits: most flips; support: most pairs that a relaxed perturbation may hold.
        limits: what keeps an attack unnoticeable.
    """

    shown = "graph nodes members limits"

    key = "pair"

    def __init__(
        self, ids: Tensor, labels: Tensor, graph: Graph, nodes: Tensor, *, edits: int, support: int,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.labels, self.graph, self.nodes = ids, labels, graph, nodes
        self.sites = self.choices = graph.size
        self.limit = torch.full_like(ids, edits)
        self.rows_max, self.members = max(edits, support), len(nodes)
        self.limits = limits or Limits()
        self.narrow = self.limits.narrow
        self._tape: Tape | None = None

    @property
    def price(self) -> int:
        """One: a graph answers for all of its nodes."""
        return 1

    def legal(self, site: Tensor, choice: Tensor, rows: Tensor | None = None) -> Tensor:
        return site < choice

    def site_mask(self, rows: Tensor | None = None) -> Tensor:
        n = len(pick(self.ids, rows))
        return (torch.arange(self.sites, device=self.ids.device) < self.sites - 1).expand(n, -1)

    def choice_mask(self, sites: Tensor, rows: Tensor | None = None) -> Tensor:
        return torch.arange(self.choices, device=sites.device) > sites.unsqueeze(1)

    def mask(self, rows: Tensor | None = None) -> Tensor:
        node = torch.arange(self.sites, device=self.ids.device)
        return (node.unsqueeze(1) < node).expand(len(pick(self.ids, rows)), -1, -1)

    def admissible(self, form: Tensor, rows: Tensor | None = None) -> Tensor | None:
        return self.limits.admits(self.graph, form)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> GlobalRows:
        return GlobalRows(self.graph, self.nodes, trim(form))

    def raw_distance(self, x: RawGraph, rows: Tensor) -> Tensor | None:
        """Weighted pairs that differ from the clean graph's."""
        return x.distance() if isinstance(x, RawGraph) and x.graph is self.graph else None

    def relaxed(self, form: Tensor, weights: Tensor, rows: Tensor | None = None) -> GlobalRows:
        kept = trim(form)
        return GlobalRows(self.graph, self.nodes, kept, weights[:, : kept.shape[1]])

    def leaves(self, form: Tensor, rows: Tensor | None = None) -> tuple[GlobalRows, list[Tensor]]:
        """The inputs with a tape; `rank_by` reads it."""
        state = self.look(form, rows).digest
        self._tape = SweepTape(form.device, seed=int(state.sum()))
        return GlobalRows(self.graph, self.nodes, trim(form), tape=self._tape), [self._tape.leaf]

    def relaxed_leaves(
        self, form: Tensor, weights: Tensor, rows: Tensor | None = None
    ) -> tuple[GlobalRows, list[Tensor]]:
        x, leaves = self.leaves(form, rows)
        return replace(x, weights=weights[:, : x.flips.shape[1]]), leaves

    def rank_by(
        self, form: Tensor, grads: list[Tensor | None], k: int, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        edits = torch.full((len(form), k, 2), -1, dtype=torch.int64, device=form.device)
        gains = torch.full((len(form), k), -torch.inf, device=form.device)
        tape, self._tape = self._tape, None
        assert tape is not None
        for i in range(len(form)):
            found, gain = ranked(self.graph, tape, i, k, form[i])
            edits[i, : len(found)], gains[i, : len(gain)] = found, gain.float()
        return edits, gains

    def view(self) -> dict[str, Tensor]:
        """`members` int64 (B, M): the target nodes."""
        return {"members": self.nodes.expand(len(self.ids), -1)}
