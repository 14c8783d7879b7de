"""What the evaluator keeps for every lane: meters, what is held, its worth. Views of an environment share one book."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.task import ThreatModel

REASONS = ("", "success", "queries", "steps", "not attacked")
NOT_ATTACKED = REASONS.index("not attacked")
SOLVED = 0.5  # a potential is at most 0 before a success, and at least 1 (up to rounding) after it


class Book:
    """State of B lanes. Tensors that leave the environment are replaced, never written again.

    Attributes:
        live: bool (B,), lanes whose episode runs; reason: index into REASONS, 0 while it does.
        queries_left, gradients_left: int64 (B,); began: the step at which the lane's episode began.
        reserve: int64 (B,), queries kept beside those for what the attack returns: one under transfer, until paid.
        held: the perturbation that the verdict would be on, (B, *shape), as its canonical proposal.
        potential: float32 (B,), what the best so far is worth (see `worth`); rewards are its increase.
        first_success: queries spent at the first success, -1 before.
    """

    def __init__(
        self, batch: Batch, threat: ThreatModel, clean_objective: Tensor | None, attacked: Tensor
    ) -> None:  # fmt: skip
        """`clean_objective` is None where knowledge does not tell one failure from another."""
        self.threat, self.price, self.ordered = threat, batch.price, clean_objective is not None
        device, lanes = batch.ids.device, len(batch)
        kept = min(batch.price, threat.queries) if threat.knowledge == "transfer" else 0
        self.reserve = torch.full((lanes,), kept, device=device)
        self.queries_left = torch.full((lanes,), threat.queries - kept, device=device)
        self.gradients_left = torch.full((lanes,), threat.gradients, device=device)
        self.granted = threat.gradients  # no lane has fewer gradients left: most backwards need no look
        self.floor = threat.queries - kept  # no running lane has fewer queries left: most steps need no look either
        self.step, self.earliest = 0, 0  # steps so far, and the least of `began`, for the same reason
        self.began = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.held = batch.null()
        self.reach = batch.reach.clamp_min(1e-12)
        no = torch.zeros(lanes, dtype=torch.bool, device=device)
        nothing = torch.zeros(lanes, device=device)
        self.potential = self.worth(nothing if clean_objective is None else clean_objective, nothing, no)
        self.first_success = torch.full((lanes,), -1, device=device)
        self.unsolved = True  # some lane has had no success
        asking = attacked & (self.queries_left >= self.price)  # nothing is left where the one query is kept
        self.live, self.reason = asking, torch.where(asking, 0, torch.where(attacked, 2, 4))
        self.broken = torch.zeros(lanes, dtype=torch.int64, device=device)  # answers that were not finite
        self.asked: list[tuple[Tensor, Tensor]] = []  # (lane, digest) of every query, for the distinct count
        self.untold, self.late = no, False  # lanes that ended outside a step of theirs; whether there are any

    @property
    def success(self) -> Tensor:
        """Lanes that hold a success (of the surrogate's, under transfer): bool (B,)."""
        return self.potential > SOLVED

    @property
    def used(self) -> Tensor:
        """Queries charged, int64 (B,)."""
        return self.threat.queries - self.queries_left - self.reserve

    def put(self, lanes: Tensor, other: Book) -> None:
        """Start new episodes in some lanes."""
        self._forget(lanes)
        self.unsolved = True
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                value = value.clone()
                value[lanes] = getattr(other, name)
                self.__dict__[name] = value
        self.began[lanes] = self.step
        self.earliest = int(self.began.min())

    def _forget(self, lanes: Tensor) -> None:
        gone = torch.zeros(len(self.live), dtype=torch.bool, device=lanes.device)
        gone[lanes] = True
        kept = []
        for lane, digest in self.asked:
            stay = ~gone[lane]
            kept.append((lane[stay], digest[stay]))
        self.asked = [(lane, digest) for lane, digest in kept if len(lane)]

    def worth(self, objective: Tensor, distance: Tensor, success: Tensor, lanes: Tensor | None = None) -> Tensor:
        """The potential: min(objective, 0), or 1 on success, + 1 - d / d_ref where the least distortion is wanted.

        The objective is what the attacker's knowledge tells of it; where that orders no failures it is dropped.
        """
        before = objective.clamp_max(0) if self.ordered else torch.zeros_like(distance)
        if not self.threat.least:
            return torch.where(success, 1.0, before)
        reach = self.reach if lanes is None else self.reach[lanes]
        return torch.where(success, 2 - distance / reach, before)

    def spend(self, lanes: Tensor | None, wanted: Tensor, lane: Tensor, digest: Tensor, *, every: bool) -> None:
        """Charge a step of `lanes` (None: all): `wanted` bool (lanes * P,), of lane `lane`; every: all are wanted."""
        self.step += 1
        if lanes is not None:  # the others have not stepped
            self.began = (self.began + 1).index_add(0, lanes, torch.ones_like(lanes), alpha=-1)
        rows = self.live.shape[0] if lanes is None else lanes.shape[0]
        count = wanted if wanted.shape[0] == rows else wanted.view(rows, -1).sum(1)
        self.floor -= wanted.shape[0] // rows * self.price
        if lanes is None:
            self.queries_left = self.queries_left.add(count, alpha=-self.price)
        else:
            self.queries_left = self.queries_left.index_add(0, lanes, count.long(), alpha=-self.price)
        self.asked.append((lane, digest) if every else (lane[wanted], digest[wanted]))

    def charge(self, lanes: Tensor, count: Tensor) -> None:
        """Take queries from the meters: int64 counts for each of `lanes`."""
        self.queries_left = self.queries_left.index_add(0, lanes, count, alpha=-1)
        self.floor = 0  # to be looked up

    def charge_gradients(self, lanes: Tensor | None, asked: Tensor) -> Tensor | None:
        """Take a gradient for every asked row, in order, while its lane has any.

        `lanes` is ascending, with repeats where a lane has several rows; None: one row for every lane.

        Returns:
            bool, the rows that were granted, or None where all are.
        """
        if lanes is None and self.granted > 0:
            self.granted -= 1
            self.gradients_left = self.gradients_left.add(asked, alpha=-1)
            return None
        if lanes is None:
            lanes = torch.arange(len(asked), device=asked.device)
        start = torch.searchsorted(lanes, lanes)
        total = asked.long().cumsum(0)
        nth = total - (total - asked.long())[start]
        granted = asked & (nth <= self.gradients_left[lanes])
        self.gradients_left = self.gradients_left.index_add(0, lanes, granted.long(), alpha=-1)
        self.granted = int(self.gradients_left.min())
        return None if torch.equal(granted, asked) else granted

    def hand_in(self, form: Tensor, taken: Tensor, paid: Tensor, digest: Tensor) -> None:
        """What an attack returned, as canonical proposals: held where `taken`, charged to the reserve where `paid`."""
        self.held = torch.where(taken.view(-1, *[1] * (form.dim() - 1)), form, self.held)
        self.reserve = torch.where(paid, 0, self.reserve)
        lane = paid.nonzero().squeeze(1)
        self.asked.append((lane, digest[lane]))

    def finish(self, lanes: Tensor | None = None, *, tell: bool = True) -> Tensor | None:
        """Close the lanes whose episode is over (success, a spent budget, as many steps as queries were given).

        Args:
            lanes: those that are told of it (None: all); the others hear of it at their own next step.
            tell: False outside a step, where nobody can be told.

        Returns:
            bool (B,), the lanes that have ended since they were last told, or None.
        """
        ends = not self.threat.least and self.threat.knowledge != "transfer"  # by success
        if not ends and self.floor >= self.price and self.step - self.earliest < self.threat.queries and not self.late:
            return None
        spent = over = self.queries_left < self.price
        if ends:
            over = over | self.success
        if self.step - self.earliest >= self.threat.queries:
            over = over | (self.step - self.began >= self.threat.queries)
        over = over & self.live
        if self.floor < self.price:
            self.floor = int(torch.where(self.live & ~over, self.queries_left, self.threat.queries).min())
        if not bool(over.any()):
            return self._tell(over, lanes) if self.late and tell else None
        reason = torch.where(self.success & ends, 1, torch.where(spent, 2, 3))
        self.live, self.reason = self.live & ~over, torch.where(over, reason, self.reason)
        if tell and lanes is None and not self.late:
            return over
        if tell:
            return self._tell(over, lanes)
        self.untold, self.late = self.untold | over, True
        return None

    def _tell(self, over: Tensor, lanes: Tensor | None) -> Tensor | None:
        """Split all that ended into what `lanes` hear now and what waits."""
        over = self.untold | over
        mine = over if lanes is None else torch.zeros_like(over).index_put((lanes,), over[lanes])
        self.untold = over & ~mine
        self.late = bool(self.untold.any())
        return mine if bool(mine.any()) else None

    def queries_distinct(self) -> Tensor:
        """Different perturbations asked about, per lane, int64 (B,)."""
        count = torch.zeros_like(self.queries_left)
        if self.asked:
            lane = torch.cat([a for a, _ in self.asked])
            digest = torch.cat([d for _, d in self.asked])
            pairs = torch.unique(torch.stack([lane, digest], 1), dim=0)
            count.index_add_(0, pairs[:, 0], torch.ones_like(pairs[:, 0]))
        return count
