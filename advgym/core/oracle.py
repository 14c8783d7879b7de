"""The metered victim: the only way from a proposal to an answer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advgym.core import keyed
from advgym.core.batch import Look, capped, take, within
from advgym.core.clean import unanswered
from advgym.core.edits import EditsBatch
from advgym.core.episodes import Episodes
from advgym.core.goals import SUCCESS
from advgym.core.task import Task
from advgym.core.victim import Victim
from advgym.errors import AdvgymError, BudgetExhausted, Malformed, VictimError


class Told(NamedTuple):
    """What the program itself knows of an answer: one wait for the device tells all of it."""

    valid: bool  # every row of the step was evaluated and is valid
    most: float  # the largest objective of all


class Oracle:
    """Asks the victim (the surrogate, under transfer) and charges the book for every answer and every gradient."""

    def __init__(self, task: Task, model: Victim) -> None:
        self.model, self.goal, self.queries = model, task.goal, task.threat.queries
        self.widen = task.threat.widen
        self.episodes: Episodes

    def ask(
        self,
        look: Look,
        weights: Tensor | None,
        lane: Tensor,
        rows: Tensor | None,
        index: Tensor | None,
        *,
        grad: bool,
    ) -> tuple[dict[str, Tensor], Told]:
        """One forward over the evaluated rows; every answer spread over all rows, zeros elsewhere.

        Args:
            lane: int64 (n,), ascending; rows: the same, or None when row i is lane i; index: the rows to evaluate, or
                None for all.
            weights: of relaxed edits; grad: keep the graph.
        """
        if index is not None and not len(index):
            source = (look.form if weights is None else weights) if grad else None
            return self._nothing(lane, source), Told(valid=False, most=-math.inf)
        at = lane if index is None else lane[index]
        where = rows if index is None else at
        form = look.form if index is None else look.form[index]
        batch = self.episodes.batch
        with torch.set_grad_enabled(grad):
            if weights is None:
                x = batch.inputs(form, where)
            else:
                assert isinstance(batch, EditsBatch)
                x = batch.relaxed(form, weights if index is None else weights[index], where)
            null = None
            if self.model.watch is not None:
                null = look.null if index is None else look.null[index]
            scores = self.forward(x, at, metered=grad, every=where is None, null=null)
            if grad and not scores.requires_grad and bool(unanswered(scores).all()):  # it raised on every row
                zero = (torch.nan_to_num(form if weights is None else weights) * 0).sum()
                scores = scores + zero
            if grad and not scores.requires_grad:
                raise VictimError(
                    f"victim {self.model.name!r} gives no gradient although its access is 'gradients'; "
                    "make it with access='scores', or give it a backward pass of its own"
                )
            valid = look.valid if index is None else look.valid[index]
            answer, told = self._judge(scores, at, where, valid)
            answer["objective"] = capped(batch, answer["objective"], form, where)
        if self.model.risk is not None:
            with torch.no_grad():
                answer["risk"] = torch.as_tensor(self.model.risk(x)).to(answer["objective"])
        if self.model.keyed and not self.model.retrains:
            self._confirm(answer, x, form, look.digest if index is None else look.digest[index], at)
        if index is None:
            return answer, told
        blank = self.blank(lane)
        answer = {k: blank[k].to(v.dtype).index_copy(0, index, v) for k, v in answer.items()}
        return answer, told._replace(valid=False)

    def _judge(self, scores: Tensor, at: Tensor, where: Tensor | None, valid: Tensor) -> tuple[dict[str, Tensor], Told]:
        """What scores are worth. Here the program waits for the device, and nowhere else after a forward."""
        now, every = self.episodes, where is None
        ref = now.ref if every else now.ref[at]
        target = now.target if every or now.target is None else now.target[at]
        objective, surrogate = self.goal.judge(scores, ref, target)
        least, most, good = torch.stack([*torch.aminmax(objective.detach()), valid.all()]).tolist()
        if not (math.isfinite(least) and math.isfinite(most)):
            broken = torch.isnan(objective)  # a victim driven to NaN: no success, and no gradient of its scores
            now.book.broken = now.book.broken.index_add(0, at, broken.long())
            safe = torch.where(broken.view(-1, *[1] * (scores.dim() - 1)), now.scores[at], scores)
            objective, surrogate = (torch.nan_to_num(v) for v in self.goal.judge(safe, ref, target))
            scores, most = torch.nan_to_num(scores), math.inf
        with torch.no_grad():
            output = self.goal.output(scores)
        answer = {"scores": scores, "objective": objective, "surrogate": surrogate, "output": output}
        return answer, Told(bool(good), most)

    @torch.no_grad()
    def _confirm(self, answer: dict[str, Tensor], x: Any, form: Tensor, digest: Tensor, at: Tensor) -> None:
        """Ask a randomised victim nine times more where it seems beaten.

        Where most draws deny it, the middle one of them stands in for the answer, whose gradient stays.
        """
        risky = answer["risk"] >= self.model.threshold if "risk" in answer else torch.zeros_like(at, dtype=torch.bool)
        index = ((answer["objective"].detach() > SUCCESS) & ~risky).nonzero().squeeze(1)
        if not len(index):
            return
        now, lane = self.episodes, at[index]
        members = now.batch.members
        nth = torch.arange(members, device=index.device)
        part = take(x, index if members == 1 else (index.unsqueeze(1) * members + nth).flatten())
        every = keyed.draw(
            self.model, part, members, now.batch.ids[lane], seed=now.seed, purpose=keyed.CONFIRM, nth=digest[index],
            draws=keyed.CONFIRMING,
        )  # fmt: skip
        fine = torch.ones_like(lane, dtype=torch.bool)
        found = [self._judge(scores, lane, lane, fine)[0] for scores in every]
        objective = torch.stack([capped(now.batch, f["objective"], form[index], lane) for f in found])
        middle, which = objective.median(0)
        denied = (middle <= SUCCESS).nonzero().squeeze(1)
        if not len(denied):
            return
        rows, which = index[denied], which[denied]
        for name in found[0]:
            value = torch.stack([f[name] for f in found])[which, denied]
            if name == "objective":
                value = middle[denied].clamp_max(0)
            if answer[name].requires_grad:  # straight through: an attack goes on along the answer that it asked for
                with torch.enable_grad():
                    shift = torch.zeros_like(answer[name]).index_copy(0, rows, value - answer[name].detach()[rows])
                    answer[name] = answer[name] + shift
            else:
                answer[name] = answer[name].index_copy(0, rows, value.to(answer[name].dtype))

    def forward(
        self, x: Any, lanes: Tensor, *, metered: bool = False, every: bool = False, null: Tensor | None = None
    ) -> Tensor:
        """Scores, with the meter of gradients on them; draws at random are keyed by (seed, sample, query)."""
        now = self.episodes
        nth: Tensor | int = 0
        if self.model.keyed:
            nth = torch.arange(len(lanes), device=lanes.device) - torch.searchsorted(lanes, lanes)
            nth = nth + (self.queries - now.book.queries_left[lanes]) * 2**20
        scores = keyed.answer(
            self.model, self.goal, x, now.batch.members, now.batch.ids if every else now.batch.ids[lanes],
            seed=now.seed, purpose=keyed.ANSWER, nth=nth, null=null,
        )  # fmt: skip
        want = tuple(self.goal.scores_shape)
        if tuple(scores.shape[1:]) != want:
            raise VictimError(
                f"victim {self.model.name!r} gives scores {tuple(scores.shape[1:])} per input, want {want}"
            )
        if metered and scores.requires_grad:
            scores.register_hook(partial(self._meter, None if every else lanes))  # type: ignore[no-untyped-call]
        return scores

    def _meter(self, lanes: Tensor | None, g: Tensor) -> Tensor:
        """A backward costs one gradient for every row whose scores it asks about; rows beyond the budget get zeros."""
        asked = g.reshape(g.shape[0], -1).any(1)
        granted = self.episodes.book.charge_gradients(lanes, asked)
        if granted is None:
            return g
        return torch.where(granted.view(-1, *[1] * (g.dim() - 1)), g, 0.0)

    def blank(self, lane: Tensor) -> dict[str, Tensor]:
        """The answer to rows that were not evaluated."""
        rows, device = len(lane), lane.device
        blank = {
            "scores": torch.zeros(rows, *self.goal.scores_shape, device=device),
            "objective": torch.zeros(rows, device=device),
            "surrogate": torch.zeros(rows, device=device),
            "output": torch.full((rows, *self.goal.output_shape), -1, device=device),
        }
        if self.model.risk is not None:
            blank["risk"] = torch.zeros(rows, device=device)
        return blank

    def _nothing(self, lane: Tensor, source: Tensor | None) -> dict[str, Tensor]:
        """The answer where no row was evaluated; with a graph to `source`, whose gradient is zero."""
        blank = self.blank(lane)
        if source is not None:
            zero = (torch.nan_to_num(source) * 0).sum()
            for name in ("scores", "objective", "surrogate"):
                blank[name] = blank[name] + zero
        return blank

    def rank(
        self, p: Tensor, lane: Tensor, cotangent: Tensor | None, k: int, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """First-order best edits on top of p (n, E, 2): int64 (n, k, 2), gains (n, k); a query and a gradient each."""
        now, batch = self.episodes, self.episodes.batch
        assert isinstance(batch, EditsBatch)
        look = batch.look(p, lane)
        # Weights belong to the rows of the proposal, which the form has sorted.
        form = torch.where(look.real.view(-1, 1, 1), look.form if weights is None else p, -1)
        with torch.enable_grad():
            x, leaves = batch.leaves(form, lane) if weights is None else batch.relaxed_leaves(form, weights, lane)
            scores = self.forward(x, lane)
            if cotangent is None:
                target = None if now.target is None else now.target[lane]
                loss = self.goal.judge(scores, now.ref[lane], target)[1].sum()
            else:
                loss = (scores * cotangent).sum()
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        self.fine(lane, look.digest)
        with torch.no_grad():
            return batch.rank_by(form, list(grads), k, lane)

    def fine(self, lane: Tensor, digest: Tensor) -> None:
        """Charge a proposal and a gradient to each of `lane`."""
        book, one = self.episodes.book, torch.ones(len(lane), dtype=torch.int64, device=lane.device)
        book.charge(lane, one * self.episodes.batch.price)
        book.charge_gradients(lane, one.bool())
        book.asked.append((lane, digest, None))

    def raw(self, x: Any, lane: Tensor, *, grad: bool) -> Tensor:
        """Scores of raw inputs, one query per row, charged to `lane` before anything is evaluated."""
        book, members = self.episodes.book, self.episodes.batch.members
        if len(lane) * members != len(x):
            each = f"{members} inputs for each lane" if members > 1 else "one input for each lane"
            raise Malformed(f"{len(x)} inputs and {len(lane)} lanes: want {each}")
        lane, order = lane.sort(stable=True)
        if self.widen is not None and not bool(book.live[lane].all()):
            raise BudgetExhausted(f"lane {int(lane[~book.live[lane]][0])} is over: raw inputs ask for a lane that runs")
        need = torch.bincount(lane, minlength=len(book.queries_left)) * book.price
        short = (need > book.queries_left).nonzero().squeeze(1)
        if len(short):
            i = int(short[0])
            raise BudgetExhausted(
                f"lane {i} has {int(book.queries_left[i])} queries left, {int(need[i])} were asked for"
            )
        book.charge(torch.arange(len(need), device=need.device), need)
        with torch.set_grad_enabled(grad):
            nth = torch.arange(members, device=order.device)
            rows = order if members == 1 else (order.unsqueeze(1) * members + nth).flatten()
            x = take(x, rows)
            if self.widen is None:
                return self.forward(x, lane, metered=grad)[order.argsort()]
            return self._bounded(x, lane, grad)[order.argsort()]

    def _bounded(self, x: Any, lane: Tensor, grad: bool) -> Tensor:
        """As `forward`, for those raw inputs that lie near enough to their lane's clean one; NaN for the others."""
        assert self.widen is not None
        batch, members = self.episodes.batch, self.episodes.batch.members
        size = batch.raw_distance(x, lane.repeat_interleave(members))
        if size is None:
            raise AdvgymError("raw inputs of this task have no distance from the clean ones, and this board bounds it")
        near = within(size, batch.reach[lane].repeat_interleave(members), self.widen).view(-1, members).all(1)
        if bool(near.all()):
            return self.forward(x, lane, metered=grad)
        index = near.nonzero().squeeze(1)
        nan = torch.full((len(lane), *self.goal.scores_shape), torch.nan, device=lane.device)
        if not len(index):
            return nan
        nth = torch.arange(members, device=index.device)
        part = take(x, (index.unsqueeze(1) * members + nth).flatten())
        return nan.index_copy(0, index, self.forward(part, lane[index], metered=grad))
