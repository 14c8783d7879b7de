"""A search of our own: a Bayesian additive model of what each edit does, asked by whole sets."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym import register_agent
from advgym.agents import wir
from advgym.agents._common import choose, clean_fitness, fitness, hand_in
from advgym.agents._slots import Slots

CELLS = 1024  # of a lane at most; larger tables are sampled


@register_agent("additive", kind="edits", knowledge="score")
def attack(
    env, *, most=60, doubt=2.5, close=0.3, spread=(0.0, 0.5, 1.0, 2.0, 4.0), samples=8, prior=True, finish=0.0, seed=0
):
    """Full sets of edits by the posterior of a linear model of their effects, one query a step (advgym's own).

    The objective of a set is the clean one plus the sum of its edits' effects plus noise; effects of choices at one
    site are correlated, and follow the public change of class log-odds (`site_features`) where a binary text task shows
    one, by a factor learnt in the lane. Each query is the full set of largest upper confidence bound among those that
    the mean, some bounds and some posterior draws call best; no set is asked twice. A lane gives up after `most`
    queries, or when even its most hopeful set lies `doubt` standard deviations short; one that has come close goes on
    to twice as many. A lane that is left unbroken but within `finish` of a success is then walked by word importance,
    where effects need not add up: sites by what deleting each does, their choices one site after the other. Nothing
    passes between lanes.

    Args:
        env: Edits, score knowledge.
        most: queries of a lane.
        doubt: standard deviations.
        close: what is still missing, as a share of the clean objective.
        spread: the bounds, mean + s * deviation, that propose sets.
        samples: posterior draws that propose sets.
        prior: use the log-odds.
        finish: what may still be missing, as a share of the clean objective, for a lane to be walked; 0 for none.
        seed: of the draws.
    """
    obs, _ = env.reset(seed=seed)
    whole, draws = env, env.draws(seed)
    slots = Slots(env, draws, CELLS)
    model = Effects(
        slots, obs, hopes(obs, slots) if prior else torch.zeros_like(slots.cells[..., 0], dtype=torch.float)
    )
    best, held, active = clean_fitness(obs), env.threat.null(), env.live
    lanes, found = torch.arange(len(best), device=best.device), held.clone()  # of the whole environment
    top = -best / model.unit  # what is missing in each lane
    for t in range(2 * most):
        running = active & env.live
        if t and 0 < 2 * int(running.sum()) < len(running) and env.knowledge != "transfer":  # drop those that are over
            env, rows = env.view(running), running.nonzero().squeeze(1)
            model, draws.keys = model.take(rows), draws.keys[rows]
            slots, lanes, best, held, active = model.slots, lanes[rows], best[rows], held[rows], active[rows]
        drawn = [model.draw(draws) for _ in range(samples if t else 0)]
        proposals = torch.stack([*(model.mean + s * model.deviation for s in spread), *drawn], 1)
        x = full_sets(slots, proposals + 1e-5 * draws.uniform(*proposals.shape[1:]))
        value, deviation = model.predict(x)
        fresh = ~model.known(x)
        bound = torch.where(fresh, value + deviation, -torch.inf)
        hope = torch.where(fresh, (value - model.need.unsqueeze(1)) / deviation, -torch.inf).amax(1)
        at = bound.argmax(1) if t else torch.zeros_like(best, dtype=torch.int64)
        near = -best < close * model.unit
        active = active & fresh.any(1) & (near | ((hope > -doubt) & (t < most)) | (t < 4))
        x = x[torch.arange(len(x), device=x.device), at]
        p = torch.where((active & env.live).view(-1, 1, 1), slots.edits(x.unsqueeze(1))[:, 0], -1)
        if env.done or not bool((p >= 0).any()):
            break
        p = env.threat.project(p)  # where a task allows less than its table and limit say
        obs, *_ = env.step(p)
        now = fitness(obs)
        better = now > best
        best, held = torch.where(better, now, best), choose(better, p, held)
        found[lanes], top[lanes] = held, -best / model.unit
        model.learn(x, slots.position(x, p), obs["objective"].detach(), obs["evaluated"])
    if env.knowledge == "transfer":
        return hand_in(env, held)
    rest = whole.live & (top < finish)
    if bool(rest.any()):
        wir.attack(whole.view(rest, proposals=16), importance="delete", seed=seed)
    return found


def hopes(obs: dict, slots: Slots) -> Tensor:
    """Change of class log-odds against the victim's clean output by each cell, float32 (lanes, M); 0 where unknown."""
    features, scores = obs.get("site_features"), obs.get("scores")
    nothing = torch.zeros(slots.some.shape, device=slots.some.device)
    if features is None or "words" not in obs or scores is None or scores.dim() != 2 or scores.shape[1] != 2:
        return nothing
    closed = (features.shape[2] - 3) // 2  # open, odds, frequency; then the change of each of the two by every choice
    site, choice = slots.cells.unbind(2)
    lane = torch.arange(len(site), device=site.device).unsqueeze(1)
    change = features[lane, site.clamp_min(0), 3 + choice.clamp(0, closed - 1)]
    away = 1.0 - 2.0 * obs["output"].view(-1, 1)
    return torch.where(slots.some & (choice < closed), change * away, 0.0)


def full_sets(slots: Slots, score: Tensor) -> Tensor:
    """Positions (lanes, Q, slots): the best cell of each of the best slots by scores (lanes, Q, M), up to the limit.

    Cells with a score of 0 or less stay out, but for the best one.
    """
    many, queries = score.shape[2], score.shape[1]
    score = torch.where(slots.some.unsqueeze(1), score, -torch.inf)
    slot = slots.slot.unsqueeze(1).expand(-1, queries, -1)
    top = score.new_full((len(score), queries, slots.slots + 1), -torch.inf).scatter_reduce(2, slot, score, "amax")
    wins = (score == top.gather(2, slot)) & slots.some.unsqueeze(1)
    index = torch.where(wins, torch.arange(many, device=score.device), -1)
    cell = index.new_full(top.shape, -1).scatter_reduce(2, slot, index, "amax")[..., :-1]
    top = top[..., :-1]
    rank = top.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    return torch.where((rank < slots.limit.view(-1, 1, 1)) & ((top > 0) | (rank == 0)), cell, -1)


class Effects:
    """The posterior of the effects of all cells of each lane, given the sets asked so far.

    In units of the clean objective's size: effect = weight * hope + site + choice + noise, all normal with a mean of 0
    but for the weight's, 1; hopes are scaled so that the best full set is expected to just succeed. The variances of
    site and choice are such that a full set has `site` and `choice` of each; the common scale is learnt from the lane.
    The noise of an answer grows with its set's distance from the best one so far, for effects are additive nearby.
    """

    def __init__(self, slots: Slots, obs: dict, hope: Tensor, site=0.4, choice=0.4, noise=0.1) -> None:
        self.slots, self.noise = slots, noise
        self.clean = obs["objective"].detach().view(len(hope))
        self.unit = self.clean.abs().clamp_min(1e-3)
        self.need = -self.clean / self.unit  # what a set must add
        total = (self._indicator(full_sets(slots, hope.unsqueeze(1))) * hope.unsqueeze(1)).sum(2)
        self.hope = hope / total.clamp_min(0.5)  # hopes that promise next to nothing stay small
        limit = slots.limit.to(hope).view(-1, 1, 1)
        self.site, self.choice = site / limit, choice / limit
        self.asked = slots.clean(0)  # positions (lanes, n, slots)
        self.rows = hope.new_zeros(len(hope), 0, hope.shape[1])  # their indicators, A
        self.spread = self.rows  # A Sigma
        self.answers = hope.new_zeros(len(hope), 0)
        self.size = torch.ones_like(self.clean)
        self.prior_variance = self.hope.square() + (self.site + self.choice).squeeze(2)
        self.mean, self.deviation = self.hope, self.prior_variance.sqrt()

    def learn(self, wanted: Tensor, asked: Tensor, objective: Tensor, evaluated: Tensor) -> None:
        """Enter one answer per lane to positions (lanes, slots), as wanted and as asked; unanswered, a clean sample."""
        x = wanted.unsqueeze(1)
        row = self._indicator(torch.where(evaluated.unsqueeze(1), asked, -1).unsqueeze(1))
        answer = torch.where(evaluated, (objective - self.clean) / self.unit, 0.0)
        self.asked, self.rows = torch.cat([self.asked, x], 1), torch.cat([self.rows, row], 1)
        self.spread = torch.cat([self.spread, self._covary(row)], 1)
        self.answers = torch.cat([self.answers, answer.unsqueeze(1)], 1)
        n = self.answers.shape[1]
        gram = self.rows.double() @ self.spread.double().transpose(1, 2)
        best = self.asked[torch.arange(len(x), device=x.device), self.answers.argmax(1)].unsqueeze(1)
        away = (self.asked != best).sum(2) / self.slots.limit.unsqueeze(1)
        self.doubts = self.noise * (0.3 + 1.5 * away)
        self.root = torch.linalg.cholesky(gram + torch.diag_embed(self.doubts.double())).to(row.dtype)
        rest = self.answers - (self.rows @ self.hope.unsqueeze(2)).squeeze(2)
        self.load = torch.cholesky_solve(rest.unsqueeze(2), self.root)
        self.mean = self.hope + (self.spread.transpose(1, 2) @ self.load).squeeze(2)
        self.size = ((2 + (rest * self.load.squeeze(2)).sum(1)) / (2 + n)).sqrt()  # two answers' worth of size 1
        known = torch.linalg.solve_triangular(self.root, self.spread, upper=False).square().sum(1)
        self.deviation = (self.prior_variance - known).clamp_min(1e-9).sqrt() * self.size.unsqueeze(1)

    def take(self, rows: Tensor) -> Effects:
        """The model of some lanes alone, int64 (n,)."""
        twin = object.__new__(type(self))
        twin.__dict__.update({k: v[rows] if isinstance(v, Tensor) else v for k, v in self.__dict__.items()})
        twin.slots = self.slots.take(rows)
        return twin

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, deviation) of what positions (lanes, Q, slots) add, noise included: (lanes, Q) each."""
        row = self._indicator(x)
        value = (row * self.mean.unsqueeze(1)).sum(2)
        variance = (row * self._covary(row)).sum(2)
        if self.answers.shape[1]:
            cross = self.spread @ row.transpose(1, 2)
            variance = variance - torch.linalg.solve_triangular(self.root, cross, upper=False).square().sum(1)
        return value, (variance.clamp_min(0) + self.noise).sqrt() * self.size.unsqueeze(1)

    def draw(self, draws) -> Tensor:
        """One draw of all effects from the posterior, (lanes, M): a prior draw, moved by what it misses (Matheron)."""
        lanes, many = self.hope.shape
        site = torch.cat([draws.normal(self.slots.slots), self.hope.new_zeros(lanes, 1)], 1).gather(1, self.slots.slot)
        effect = self.hope * draws.normal(1) + site * self.site.squeeze(2).sqrt()
        effect = effect + draws.normal(many) * self.choice.squeeze(2).sqrt()
        miss = (self.rows @ effect.unsqueeze(2)).squeeze(2) + self.doubts.sqrt() * draws.normal(self.answers.shape[1])
        back = self.spread.transpose(1, 2) @ torch.cholesky_solve(miss.unsqueeze(2), self.root)
        return self.mean + self.size.unsqueeze(1) * (effect - back.squeeze(2))

    def known(self, x: Tensor) -> Tensor:
        """Bool (lanes, Q): empty, or asked before."""
        before = (x.unsqueeze(2) == self.asked.unsqueeze(1)).all(3).any(2)
        return before | (x < 0).all(2)

    def _indicator(self, x: Tensor) -> Tensor:
        many = self.slots.some.shape[1]
        out = torch.zeros(*x.shape[:2], many + 1, device=x.device)
        return out.scatter(2, torch.where(x >= 0, x, many), 1.0)[..., :many]

    def _covary(self, row: Tensor) -> Tensor:
        """Rows (lanes, Q, M) times the prior covariance of the effects."""
        slot = self.slots.slot.unsqueeze(1).expand(-1, row.shape[1], -1)
        sites = row.new_zeros(len(row), row.shape[1], self.slots.slots + 1).scatter_add(2, slot, row)
        hope = self.hope.unsqueeze(1)
        return hope * (row * hope).sum(2, keepdim=True) + self.site * sites.gather(2, slot) + self.choice * row
