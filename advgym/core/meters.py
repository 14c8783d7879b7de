"""What the evaluator keeps for every lane: meters, what is held, its worth, and how an answer changes them.

Views of an environment share one book. Nothing here waits for the device but the end of a budget: whether an answer
may have won is known by then (`Oracle.ask`), and `sure` says how long nothing can run out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.core.batch import Batch
from advgym.core.task import ThreatModel

REASONS = ("", "success", "queries", "steps", "not attacked")
NOT_ATTACKED = REASONS.index("not attacked")
SOLVED = 0.5  # a potential is at most 0 before a success, and at least 1 (up to rounding) after it


# Of a lane, and as it is in new episodes.
LANED = (
    "reserve", "queries_left", "gradients_left", "held", "reach", "potential", "first", "live", "reason",
    "broken",
)  # fmt: skip


class Book:
    """State of B lanes. Tensors that leave the environment are replaced, never written again.

    Attributes:
        live: bool (B,), lanes whose episode runs; reason: index into REASONS, 0 while it does.
        queries_left, gradients_left: int64 (B,); began: the step at which the lane's episode began.
        reserve: int64 (B,), queries kept beside those for what the attack returns: one under transfer, until paid.
        held: the perturbation that the verdict would be on, (B, *shape), as its canonical proposal.
        potential: float32 (B,), what the best so far is worth (see `worth`); rewards are its increase.
        first: int64 (B,), queries left at the first success, -1 before: the most of all successes.
        broken: int64 (B,), answers that were not finite.
        sure, granted: proposals and backwards by which no running lane can come to the end of anything.
        asked: (lane, digest, which of them) of every step, for the distinct count.
        untold: bool (B,), lanes that ended outside a step of theirs; None without any.
    """

    def __init__(
        self, batch: Batch, threat: ThreatModel, clean_objective: Tensor | None, attacked: Tensor
    ) -> None:  # fmt: skip
        """`clean_objective` is None where knowledge does not tell one failure from another."""
        self.threat, self.price, self.ordered = threat, batch.price, clean_objective is not None
        self.ends = not threat.least and threat.knowledge != "transfer"  # by success
        device, lanes = batch.ids.device, len(batch)
        self.kept = kept = min(batch.price, threat.queries) if threat.knowledge == "transfer" else 0
        self.reserve = torch.full((lanes,), kept, device=device)
        self.queries_left = torch.full((lanes,), threat.queries - kept, device=device)
        self.gradients_left = torch.full((lanes,), threat.gradients, device=device)
        self.sure, self.granted = (threat.queries - kept) // self.price, threat.gradients
        self.step = 0
        self.began = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.held = batch.null()
        self.reach = batch.reach.clamp_min(1e-12)
        self.one = torch.ones((), device=device)
        no = torch.zeros(lanes, dtype=torch.bool, device=device)
        nothing = torch.zeros(lanes, device=device)
        self.potential = self.worth(nothing if clean_objective is None else clean_objective, nothing, no)
        self.first = torch.full((lanes,), -1, device=device)
        asking = attacked & (self.queries_left >= self.price)  # nothing is left where the one query is kept
        self.live, self.reason = asking, torch.where(asking, 0, torch.where(attacked, 2, 4))
        self.broken = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.asked: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self.untold: Tensor | None = None

    @property
    def success(self) -> Tensor:
        """Lanes that hold a success (of the surrogate's, under transfer): bool (B,)."""
        return self.potential > SOLVED

    @property
    def first_success(self) -> Tensor:
        """Queries charged at the first success, -1 before, int64 (B,)."""
        return torch.where(self.first < 0, -1, self.threat.queries - self.kept - self.first)

    @property
    def used(self) -> Tensor:
        """Queries charged, int64 (B,)."""
        return self.threat.queries - self.queries_left - self.reserve

    def put(self, lanes: Tensor, other: Book) -> None:
        """Start new episodes in some lanes."""
        gone = torch.zeros_like(self.live).index_fill(0, lanes, True)
        self.asked = [
            (lane, digest, ~gone[lane] if some is None else some & ~gone[lane]) for lane, digest, some in self.asked
        ]
        for name in LANED:
            setattr(self, name, getattr(self, name).index_copy(0, lanes, getattr(other, name)))
        self.began = self.began.index_fill(0, lanes, self.step)
        self.untold = None if self.untold is None else self.untold & ~gone
        self.sure = 0

    def worth(self, objective: Tensor, distance: Tensor, success: Tensor | None, lanes: Tensor | None = None) -> Tensor:
        """The potential: min(objective, 0), or 1 on success, + 1 - d / d_ref where the least distortion is wanted.

        The objective is what the attacker's knowledge tells of it; where that orders no failures it is dropped.
        `success` is None where no objective is above 0.
        """
        before = objective if self.ordered else torch.zeros_like(distance)
        if success is None:
            return before
        before = before.clamp_max(0)
        if not self.threat.least:
            return torch.where(success, self.one, before)
        reach = self.reach if lanes is None else self.reach[lanes]
        return torch.where(success, 2 - distance / reach, before)

    def spend(self, lanes: Tensor | None, wanted: Tensor, lane: Tensor, digest: Tensor, *, every: bool) -> None:
        """Charge a step of `lanes` (None: all): `wanted` bool (lanes * P,), of lane `lane`; every: all are wanted."""
        self.step += 1
        if lanes is not None:  # the others have not stepped
            self.began = (self.began + 1).index_add(0, lanes, torch.ones_like(lanes), alpha=-1)
        rows = self.live.shape[0] if lanes is None else lanes.shape[0]
        count = wanted if wanted.shape[0] == rows else wanted.view(rows, -1).sum(1)
        self.sure -= wanted.shape[0] // rows
        if lanes is None:
            self.queries_left = self.queries_left.add(count, alpha=-self.price)
        else:
            self.queries_left = self.queries_left.index_add(0, lanes, count.long(), alpha=-self.price)
        self.asked.append((lane, digest, None if every else wanted))

    def charge(self, lanes: Tensor, count: Tensor) -> None:
        """Take queries from the meters: int64 counts for each of `lanes`."""
        self.queries_left = self.queries_left.index_add(0, lanes, count, alpha=-1)
        self.sure = 0  # to be looked up

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
        self.asked.append((torch.arange(len(paid), device=paid.device), digest, paid))

    def finish(self, lanes: Tensor | None = None, *, won: bool = False, tell: bool = True) -> Tensor | None:
        """Close the lanes whose episode is over (success, a spent budget, as many steps as queries were given).

        Args:
            lanes: those that are told of it (None: all); the others hear of it at their own next step.
            won: whether the last answer may have been a success.
            tell: False outside a step, where nobody can be told.

        Returns:
            bool (B,), the lanes that have ended since they were last told, or None.
        """
        if self.sure > 0 and self.untold is None and not (won and self.ends):
            return None
        spent = self.queries_left < self.price
        over = spent | (self.step - self.began >= self.threat.queries)
        if self.ends:
            over = over | self.success
        over = over & self.live
        live, waiting = self.live & ~over, over if self.untold is None else self.untold | over
        left = torch.minimum(self.queries_left // self.price, self.threat.queries + self.began - self.step)
        ended, told, sure = torch.stack(
            [over.any().long(), waiting.any().long(), torch.where(live, left, self.threat.queries).min()]
        ).tolist()
        self.sure = sure
        if ended:
            reason = torch.where(self.success & self.ends, 1, torch.where(spent, 2, 3))
            self.live, self.reason = live, torch.where(over, reason, self.reason)
        if not told:
            self.untold = None
            return None
        if tell and lanes is None:
            self.untold = None
            return waiting
        self.untold = waiting
        return self._tell(lanes) if tell else None

    def _tell(self, lanes: Tensor | None) -> Tensor | None:
        """Split all that ended into what `lanes` hear now and what waits."""
        assert lanes is not None and self.untold is not None
        waiting = self.untold
        mine = torch.zeros_like(waiting).index_put((lanes,), waiting[lanes])
        self.untold = waiting & ~mine
        now, later = torch.stack([mine.any(), self.untold.any()]).tolist()
        if not later:
            self.untold = None
        return mine if now else None

    def queries_distinct(self) -> Tensor:
        """Different perturbations asked about, per lane, int64 (B,)."""
        count = torch.zeros_like(self.queries_left)
        if self.asked:
            pairs = torch.unique(self.pairs(), dim=0)
            count.index_add_(0, pairs[:, 0], torch.ones_like(pairs[:, 0]))
        return count

    def pairs(self) -> Tensor:
        """(lane, digest) of every query, int64 (n, 2)."""
        found = [(lane, digest) if some is None else (lane[some], digest[some]) for lane, digest, some in self.asked]
        return torch.cat([torch.stack(pair, 1) for pair in found])


def settle(
    book: Book, lanes: Tensor | None, width: int, counts: Tensor | None, won: Tensor | None, objective: Tensor,
    distance: Tensor, candidate: Tensor,
) -> Tensor:  # fmt: skip
    """Enter n = lanes * width answered proposals into the book; the reward of each lane, float32 (lanes,).

    Args:
        counts: bool (n,), evaluated and valid: only such a proposal can be held; None where all are.
        won: bool (n,), the goal is reached; None where no objective is above 0.
        candidate: the proposals in canonical form, (n, *shape).
    """
    knowledge = book.threat.knowledge
    success = won if won is None or counts is None else won & counts
    keep, last = counts, candidate
    if not book.ordered:  # a label alone cannot say which failure is better
        counts = torch.zeros_like(distance, dtype=torch.bool) if success is None else success
    if width > 1:
        yes = torch.ones_like(distance, dtype=torch.bool)
        counts = yes if counts is None else counts
        if knowledge == "transfer":
            index = _last(counts, width)
            keep, last = counts[index], candidate[index]
        index = _best(counts, success, objective, distance, width)
        counts, success = counts[index], None if success is None else success[index]
        objective, distance, candidate = objective[index], distance[index], candidate[index]
    value = book.worth(objective, distance, success, lanes)
    before = book.potential if lanes is None else book.potential[lanes]
    better = value > before if counts is None else counts & (value > before)
    if knowledge != "transfer":  # under transfer the verdict is on the last one handed in
        keep, last = better, candidate
    after = torch.where(better, value, before)
    held = book.held if lanes is None else book.held[lanes]
    last = last.clone() if keep is None else torch.where(keep.view(-1, *[1] * (last.dim() - 1)), last, held)
    if lanes is None:
        book.potential, book.held = after, last
    else:
        book.potential = book.potential.index_copy(0, lanes, after)
        book.held = book.held.index_copy(0, lanes, last)
    if success is not None:
        left = torch.where(success, book.queries_left if lanes is None else book.queries_left[lanes], -1)
        if lanes is None:
            book.first = torch.maximum(book.first, left)
        else:
            book.first = book.first.index_copy(0, lanes, torch.maximum(book.first[lanes], left))
    return after - before


def _best(counts: Tensor, success: Tensor | None, objective: Tensor, distance: Tensor, width: int) -> Tensor:
    """The row of each lane that may be held: the nearest success, else the largest objective among what counts."""
    best = torch.where(counts, objective, -torch.inf).view(-1, width).argmax(1)
    if success is not None:
        won = success.view(-1, width)
        nearest = torch.where(won, -distance.view(-1, width), -torch.inf).argmax(1)
        best = torch.where(won.any(1), nearest, best)
    return best + torch.arange(len(best), device=best.device) * width


def _last(counts: Tensor, width: int) -> Tensor:
    """The last row of each lane that counts."""
    index = torch.arange(width, device=counts.device)
    last = torch.where(counts.view(-1, width), index, -1).amax(1).clamp_min(0)
    return last + torch.arange(len(last), device=last.device) * width
