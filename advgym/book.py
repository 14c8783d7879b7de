"""What the evaluator keeps for every lane: meters, best so far, potential. Views of an environment share one book."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.batch import Batch
from advgym.task import ThreatModel

REASONS = ("", "success", "queries", "steps", "not attacked")


class Book:
    """State of B lanes. Tensors that leave the environment are replaced, never written again.

    Attributes:
        queries_left, gradients_left, steps: int64 (B,).
        held: the perturbation that the verdict would be on, (B, *shape), as its canonical proposal.
        objective, distance: of `held`; potential: of the lane; success: whether `held` succeeds.
        first_success: queries spent at the first success, -1 before.
        reason: index into REASONS, 0 while the lane runs.
    """

    def __init__(self, batch: Batch, threat: ThreatModel, clean_objective: Tensor, attacked: Tensor) -> None:
        self.threat = threat
        device, lanes = batch.ids.device, len(batch)
        self.queries_left = torch.full((lanes,), threat.queries, device=device)
        self.gradients_left = torch.full((lanes,), threat.gradients, device=device)
        self.steps = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.held = batch.null()
        self.objective = clean_objective.clone()
        self.distance = torch.zeros(lanes, device=device)
        self.success = torch.zeros(lanes, dtype=torch.bool, device=device)
        self.first_success = torch.full((lanes,), -1, device=device)
        self.reason = torch.where(attacked, 0, 4)
        self.broken = torch.zeros(lanes, dtype=torch.int64, device=device)  # answers that were not finite
        self.reach = batch.reach
        self.potential = self._potential()
        self.asked: list[tuple[Tensor, Tensor]] = []  # (lane, digest) of every query, for the distinct count

    def put(self, lanes: Tensor, other: Book) -> None:
        """Start new episodes in some lanes."""
        self._forget(lanes)
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                value = value.clone()
                value[lanes] = getattr(other, name)
                self.__dict__[name] = value

    def _forget(self, lanes: Tensor) -> None:
        gone = torch.zeros(len(self.steps), dtype=torch.bool, device=lanes.device)
        gone[lanes] = True
        kept = []
        for lane, digest in self.asked:
            stay = ~gone[lane]
            kept.append((lane[stay], digest[stay]))
        self.asked = [(lane, digest) for lane, digest in kept if len(lane)]

    def _potential(self) -> Tensor:
        """min(best objective, 0) + 1[success] + (1 - d / d_ref) where the least distortion is wanted."""
        value = self.success.to(torch.float32)
        if self.threat.knowledge != "decision":
            value = value + self.objective.clamp_max(0)
        if self.threat.least:
            value = value + torch.where(self.success, 1 - self.distance / self.reach.clamp_min(1e-12), 0.0)
        return value

    def charge(self, lanes: Tensor | None, count: Tensor) -> None:
        """Take queries from the meters: int64 counts for each of `lanes` (None: all)."""
        if lanes is None:
            self.queries_left = self.queries_left - count
        else:
            self.queries_left = self.queries_left.index_add(0, lanes, count, alpha=-1)

    def charge_gradients(self, lanes: Tensor, asked: Tensor) -> Tensor:
        """Take a gradient for every asked row, in order, while its lane has any; the rows that were granted.

        `lanes` is ascending, with repeats where a lane has several rows.
        """
        start = torch.searchsorted(lanes, lanes)
        total = asked.long().cumsum(0)
        nth = total - (total - asked.long())[start]
        granted = asked & (nth <= self.gradients_left[lanes])
        self.gradients_left = self.gradients_left.index_add(0, lanes, granted.long(), alpha=-1)
        return granted

    def note(
        self, lanes: Tensor | None, better: Tensor, keep: Tensor, held: Tensor, objective: Tensor, distance: Tensor,
        success: Tensor,
    ) -> Tensor:  # fmt: skip
        """Take over what is better, hold what is to be kept; the reward of each lane, float32 (lanes,)."""
        self.held = self._take(self.held, lanes, keep, held)
        self.objective = self._take(self.objective, lanes, better, objective)
        self.distance = self._take(self.distance, lanes, better, distance)
        self.success = self._take(self.success, lanes, better, success)
        before, self.potential = self.potential, self._potential()
        gain = self.potential - before
        return gain if lanes is None else gain[lanes]

    @staticmethod
    def _take(old: Tensor, lanes: Tensor | None, where: Tensor, new: Tensor) -> Tensor:
        where = where.view(-1, *[1] * (new.dim() - 1))
        if lanes is None:
            return torch.where(where, new, old)
        return old.index_copy(0, lanes, torch.where(where, new, old[lanes]))

    def finish(self) -> None:
        """Close the lanes whose episode is over."""
        used = self.threat.queries - self.queries_left
        self.first_success = torch.where(self.success & (self.first_success < 0), used, self.first_success)
        running = self.reason == 0
        out = torch.where(self.queries_left <= 0, 2, torch.where(self.steps >= self.threat.queries, 3, 0))
        if not self.threat.least and self.threat.knowledge != "transfer":
            out = torch.where(self.success, 1, out)
        self.reason = torch.where(running, out, self.reason)

    def queries_distinct(self) -> Tensor:
        """Different perturbations asked about, per lane, int64 (B,)."""
        count = torch.zeros_like(self.queries_left)
        if self.asked:
            lane = torch.cat([a for a, _ in self.asked])
            digest = torch.cat([d for _, d in self.asked])
            pairs = torch.unique(torch.stack([lane, digest], 1), dim=0)
            count.index_add_(0, pairs[:, 0], torch.ones_like(pairs[:, 0]))
        return count
