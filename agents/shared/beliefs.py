"""What `additive` believes: a Gaussian process over sets of edits, told by public word counts and by the answers."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.agents.shared.slots import Slots
from advgym.core.rng import mix

# Fitted by marginal likelihood to sets on 200 Movie Reviews: three victims, two tables of candidates.
COUNTS = 7.0  # log-odds of a word seen n times are believed by n / (n + COUNTS)
TRUST, SITE, CHOICE, PAIR = 0.22, 0.3, 0.38, 0.125  # deviations, in units of log-odds
SCALE, WIDE, BLIND = 0.5, 0.7, 1.0  # the scale's median, its log's deviation, and that where nothing is hoped
JITTER = 0.02
STEPS = 21  # of the grid of scales


def known_words(obs: dict, slots: Slots, counts: float = 0.0) -> tuple[Tensor, Tensor]:
    """What is public of each cell: its hope, and how far its words were seen, n / (n + 1); float32 (lanes, M) twice.

    A hope is the change of class log-odds against the victim's clean output: 0 where a task shows none. Where nothing
    is known of training data (a sample all of whose words have a frequency of 0) all words count as seen.

    Args:
        counts: log-odds of a word seen n times are shrunk by n / (n + counts).
    """
    features, scores, some = obs.get("site_features"), obs.get("scores"), slots.some
    if features is None or "words" not in obs or scores is None or scores.dim() != 2 or scores.shape[1] != 2:
        return torch.zeros(some.shape, device=some.device), torch.ones(some.shape, device=some.device)
    closed = (features.shape[2] - 3) // 2  # open, odds, frequency; then the change of each of the two by every choice
    site, choice = slots.cells.unbind(2)
    lane = torch.arange(len(site), device=site.device).unsqueeze(1)
    site, at = site.clamp_min(0), choice.clamp(0, closed - 1)
    odds, often = features[lane, site, 1], features[lane, site, 2]
    change, more = features[lane, site, 3 + at], features[lane, site, 3 + closed + at]
    here = some & (choice < closed)
    seen = torch.where(here, torch.expm1((often + more).clamp_min(0)), torch.inf)
    nothing = ~(((often > 0) | (often + more > 0)) & here).any(1, keepdim=True)
    seen = torch.where(nothing, torch.inf, seen)
    if counts:
        before, after = torch.expm1(often.clamp_min(0)), torch.where(here & seen.isfinite(), seen, 0.0)
        change = (odds + change) * after / (after + counts) - odds * before / (before + counts)
    away = 1.0 - 2.0 * obs["output"].view(-1, 1)
    return torch.where(here, change * away, 0.0), 1 - 1 / (seen + 1)


class Effects:
    """The posterior over what sets of edits add to the clean objective, lane by lane, given the answers so far.

    A set adds scale * (the sum over its cells of (1 + trust) hope + site + choice, plus a sum over pairs of its
    sites), all but the hope normal with a mean of 0. Choices at one site share its part, and words that were never seen
    have none of their own: to a victim they are all the same. Pairs stand for interactions. The scale is the lane's,
    log-normal on a grid; all deviations are multiples of it, so that one linear solve does for the whole grid.

    Args:
        slots: the cells; obs: of the reset.
        hope, seen: float32 (lanes, M), as of `known_words`.
    """

    def __init__(self, slots: Slots, obs: dict, hope: Tensor, seen: Tensor) -> None:
        self.slots, self.hope, self.choice = slots, hope, CHOICE**2 * seen + JITTER**2
        self.clean = obs["objective"].detach().view(len(hope))
        self.need = -self.clean  # what a set must add
        told = (hope != 0).any(1)
        alone = self.need.clamp_min(1e-3) / slots.limit.to(hope).clamp_min(1).sqrt()  # a full set might just do
        grid = torch.linspace(-3.0, 3.0, STEPS, device=hope.device)
        centre, wide = torch.where(told, SCALE, alone), torch.where(told, WIDE, BLIND)
        self.scale = centre.unsqueeze(1) * (wide.unsqueeze(1) * grid).exp()  # (lanes, STEPS)
        self.prior = -0.5 * grid.square().expand(len(hope), -1)
        self.share = torch.softmax(self.prior, 1)
        self.real = slots.clean(0)  # positions (lanes, n, slots) that were answered
        self.keys = self.real[..., 0]  # of those that were asked for
        self.rows = hope.new_zeros(len(hope), 0, hope.shape[1])  # their indicators
        self.answers = hope.new_zeros(len(hope), 0)
        self.names = mix(torch.arange(1, hope.shape[1] + 2, device=hope.device))
        self.names[-1] = 0  # a clean slot, -1

    def learn(self, wanted: Tensor, asked: Tensor, objective: Tensor, evaluated: Tensor) -> None:
        """Enter one answer per lane to positions (lanes, slots), as wanted and as asked; unanswered, a clean sample."""
        asked = torch.where(evaluated.unsqueeze(1), asked, -1).unsqueeze(1)
        answer = torch.where(evaluated, objective - self.clean, 0.0)
        self.keys = torch.cat([self.keys, self.key(wanted).unsqueeze(1)], 1)
        self.real = torch.cat([self.real, asked], 1)
        self.rows = torch.cat([self.rows, self._indicator(asked)], 1)
        self.answers = torch.cat([self.answers, answer.unsqueeze(1)], 1)
        self.hopes = (self.rows * self.hope.unsqueeze(1)).sum(2)
        n = self.answers.shape[1]
        gram = self._covariance(self.real, self.rows, self.hopes).double()
        noise = JITTER**2 * torch.eye(n, dtype=torch.float64, device=gram.device)
        self.root = torch.linalg.cholesky(gram + noise)
        both = torch.stack([self.answers, self.hopes], 2).double()
        white = torch.linalg.solve_triangular(self.root, both, upper=False)
        self.load = torch.cholesky_solve(both, self.root).float()
        a, b, c = ((white[..., i] * white[..., j]).sum(1, keepdim=True) for i, j in ((0, 0), (0, 1), (1, 1)))
        w = self.scale.double()
        fit = -n * w.log() - (a - 2 * w * b + w * w * c) / (2 * w * w)
        self.share = torch.softmax(fit + self.prior, 1).float()

    def take(self, rows: Tensor) -> Effects:
        """The model of some lanes alone, int64 (n,)."""
        twin = object.__new__(type(self))
        moved = {k: v[rows] if isinstance(v, Tensor) and k != "names" else v for k, v in self.__dict__.items()}
        twin.__dict__.update(moved)
        twin.slots = self.slots.take(rows)
        return twin

    def cells(self) -> tuple[Tensor, Tensor]:
        """(mean, deviation) of every single cell's effect beside others, float32 (lanes, M) each."""
        scale = (self.share * self.scale).sum(1, keepdim=True)
        variance = (TRUST * self.hope).square() + SITE**2 + self.choice
        if not self.answers.shape[1]:
            return scale * self.hope, scale * variance.sqrt()
        slot = self.slots.slot.unsqueeze(1).expand(-1, self.rows.shape[1], -1)
        taken = torch.cat([self.real >= 0, torch.zeros_like(self.real[..., :1], dtype=torch.bool)], 2)
        cross = TRUST**2 * self.hopes.unsqueeze(2) * self.hope.unsqueeze(1) + SITE**2 * taken.gather(2, slot)
        told, rest, variance = self._given(cross + self.rows * self.choice.unsqueeze(1), self.hope, variance)
        return told + scale * rest, scale * variance.clamp_min(1e-6).sqrt()

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of positions (lanes, Q, slots): at scale w they add told + w * rest, with deviation w * sqrt(variance)."""
        row = self._indicator(x)
        hopes = (row * self.hope.unsqueeze(1)).sum(2)
        sites = (x >= 0).sum(2).to(row)
        variance = (TRUST * hopes).square() + SITE**2 * sites + PAIR**2 * sites * (sites - 1) / 2
        variance = variance + (row * self.choice.unsqueeze(1)).sum(2)
        if not self.answers.shape[1]:
            return torch.zeros_like(hopes), hopes, variance
        return self._given(self._covariance(x, row, hopes), hopes, variance)

    def log_chance(self, x: Tensor) -> Tensor:
        """The log-probability that positions (lanes, Q, slots) succeed, float32 (lanes, Q)."""
        told, rest, variance = (v.unsqueeze(2) for v in self.predict(x))
        w = self.scale.unsqueeze(1)
        z = (told + w * rest - self.need.view(-1, 1, 1)) / (w * (variance.clamp_min(0) + JITTER**2).sqrt())
        return torch.logsumexp(torch.special.log_ndtr(z) + self.share.unsqueeze(1).log(), 2)

    def known(self, x: Tensor) -> Tensor:
        """Bool (lanes, Q): empty, or asked before."""
        return (self.key(x).unsqueeze(2) == self.keys.unsqueeze(1)).any(2) | (x < 0).all(2)

    def key(self, x: Tensor) -> Tensor:
        """Names of positions (..., slots), int64 (...)."""
        return self.names[x].sum(-1)

    def _given(self, cross: Tensor, hopes: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Condition on the answers: covariances with them (lanes, n, Q), prior hopes and variances (lanes, Q)."""
        told, base = (cross.transpose(1, 2) @ self.load).unbind(2)
        less = torch.linalg.solve_triangular(self.root, cross.double(), upper=False).square().sum(1)
        return told, hopes - base, variance - less.float()

    def _indicator(self, x: Tensor) -> Tensor:
        many = self.slots.some.shape[1]
        out = torch.zeros(*x.shape[:2], many + 1, device=x.device)
        return out.scatter(2, torch.where(x >= 0, x, many), 1.0)[..., :many]

    def _covariance(self, x: Tensor, row: Tensor, hopes: Tensor) -> Tensor:
        """Of the answered sets with positions (lanes, Q, slots), over the scale's square: (lanes, n, Q)."""
        sites = (self.real >= 0).to(row) @ (x >= 0).to(row).transpose(1, 2)
        cells = (self.rows * self.choice.unsqueeze(1)) @ row.transpose(1, 2)
        trust = TRUST**2 * self.hopes.unsqueeze(2) * hopes.unsqueeze(1)
        return trust + SITE**2 * sites + cells + PAIR**2 * sites * (sites - 1) / 2
