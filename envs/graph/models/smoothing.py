"""Sparsity-aware randomised smoothing and its certificate (Bojchevski, Gasteiger & Guennemann, 2020).

Every bit of the smoothed part of a graph that is 1 is dropped with probability p_del, every 0 is set with probability
p_add, so a sparse graph stays sparse. The smoothed model answers with the class of most votes over such draws. Where
that class has probability p, no graph that differs by r_add additions and r_del deletions of those bits gives it less
than `worst_share(p, ...)`; above one half no other class can win.

The wrapper `smoothing` is another: any domain's own random variation, with no certificate. The vote is the same.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core import rng
from advgym.core.batch import Batch
from advgym.core.kinds import certificates
from advgym.core.victim import Victim
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.propagation import whole_targets
from advgym.errors import AdvgymError
from advgym.lib.tallies import log_shares, lower_bounds, settles

OVER = ("pairs", "own", "cells")
UNITS = {"pairs": "edits", "own": "edges of the target", "cells": "features of the target"}  # of what is certified
BITS = 1 << 23  # random numbers held at once
ROWS = 1 << 12  # rows of one forward of the inner model


class Smoothed(nn.Module):
    """Votes of an inner model over keyed draws; scores are log shares, with the mean log-probability's gradient.

    Args:
        inner: answers `GraphRows`.
        p_add, p_del: in [0, 1], below 1 in sum.
        draws: of an answer.
        over: which bits are drawn and certified: all "pairs" of the graph, the target's "own" pairs (attacks that flip
            edges of the target alone), or the target's features, its "cells" (which have to be binary).
    """

    takes_rows = True

    def __init__(
        self, inner: nn.Module, *, p_add: float = 0.01, p_del: float = 0.6, draws: int = 64, over: str = "own"
    ) -> None:
        super().__init__()
        if over not in OVER:
            raise AdvgymError(f"over is one of {', '.join(OVER)}, not {over!r}")
        if not (0 <= p_add <= 1 and 0 <= p_del <= 1 and p_add + p_del < 1):
            raise AdvgymError(f"p_add and p_del are in [0, 1] and below 1 in sum, not {p_add} and {p_del}")
        if not 1 <= draws < 1 << 20:
            raise AdvgymError(f"draws is at least 1, not {draws}")
        self.inner, self.p_add, self.p_del, self.draws, self.over = inner, p_add, p_del, draws, over

    def forward(self, rows: GraphRows, keys: Tensor) -> Tensor:
        """Log shares (n, C), smoothed by half a vote."""
        votes, soft = self.votes(rows, keys, self.draws)
        return log_shares(votes, self.draws) + soft - soft.detach()

    def votes(self, rows: GraphRows, keys: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """(votes float (n, C), mean log-probabilities (n, C)) over `draws` draws keyed by int64 (n,)."""
        n = len(rows)
        lane = torch.arange(n, device=rows.target.device)
        votes: Tensor | float = 0.0
        soft: Tensor | float = 0.0
        for some in torch.arange(draws, device=lane.device).split(max(1, ROWS // max(n, 1))):
            each = rng.mix(keys.unsqueeze(0) * 2**20 + some.unsqueeze(1)).flatten()
            scores = self._ask(self.vary(rows.take(lane.repeat(len(some))), each)).view(len(some), n, -1)
            votes = votes + F.one_hot(scores.detach().argmax(2), scores.shape[2]).sum(0).to(scores.dtype)
            soft = soft + torch.log_softmax(scores, 2).sum(0) / draws
        assert isinstance(votes, Tensor) and isinstance(soft, Tensor)
        return votes, soft

    def certificate(
        self, batch: Batch, *, seed: int = 0, pick: int = 200, draws: int = 2000, alpha: float = 0.001
    ) -> certificates.Certificate:
        """See `advgym.core.kinds.certificates`: the most flips, of whichever kind, that move no majority."""
        certificates.check_plain(batch, "sparsity-aware smoothing")
        rows = batch.inputs(batch.null())
        found = certify(self, rows, seed=seed, pick=pick, draws=draws, alpha=alpha)
        most = found.radius.shape[1]
        add, drop = torch.meshgrid(torch.arange(most), torch.arange(most), indexing="ij")
        # r flips are certified where every (r_add, r_del) of that sum is.
        fine = torch.stack([(found.radius | (add + drop > r)).flatten(1).all(1) for r in range(most)], 1)
        radius = torch.where(found.label >= 0, fine.long().cumprod(1).sum(1) - 1, 0)
        return certificates.Certificate(found.label, radius.double(), UNITS[self.over])

    @torch.no_grad()
    def settled(self, rows: GraphRows, keys: Tensor, *, draws: int = 2000, alpha: float = 0.001) -> Tensor:
        """The class of most votes where a two-sided binomial test tells it from the next, else -1."""
        top, label = self.votes(rows, keys, draws)[0].topk(2, 1)
        return torch.where(settles(top[:, 0], top[:, 1], alpha), label[:, 0], -1)

    def _ask(self, rows: GraphRows) -> Tensor:
        """The inner model's scores; draws over all pairs flip so many that whole graphs are the shorter way."""
        whole = self.over == "pairs" and hasattr(self.inner, "scores")
        scores: Tensor = whole_targets(self.inner, rows) if whole else self.inner(rows)
        return scores

    def vary(self, rows: GraphRows, keys: Tensor) -> GraphRows:
        """The rows with their bits redrawn; keyed by int64 (n,)."""
        if self.over == "cells":
            lane = torch.arange(len(rows), device=keys.device)
            row, feature = self._drawn(rows._row_features(lane, rows.target), keys)
            return rows.flip_cells(row, rows.target[row], feature)
        size, device = rows.graph.size, keys.device
        parts = []
        step = max(1, BITS // (size if self.over == "own" else size * size // 2))
        for run in torch.arange(len(rows), device=device).split(step):
            some = rows.take(run)
            if self.over == "own":
                target = some.target.unsqueeze(1)
                a, b = target.expand(-1, size), torch.arange(size, device=device).expand(len(run), -1)
            else:
                a, b = (v.expand(len(run), -1) for v in torch.triu_indices(size, size, 1, device=device))
            row, at = self._drawn(_present(some, a, b, own=self.over == "own"), keys[run])
            a, b = a[row, at], b[row, at]
            parts.append((run[row[a != b]], a[a != b], b[a != b]))
        row, a, b = (torch.cat(v) for v in zip(*parts, strict=True))
        return rows.flip_more(row, a, b)

    def _drawn(self, present: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(row, place) of the bits (n, m) that a draw turns."""
        bits = rng.bits(0, keys, (present.shape[1],), 47)
        add, drop = (int(p * 2.0**53) << 10 for p in (self.p_add, self.p_del))  # of 2^63
        limit = torch.where(present, min(drop, 2**63 - 1), min(add, 2**63 - 1))
        row, place = (bits < limit).nonzero(as_tuple=True)
        return row, place


def _present(rows: GraphRows, a: Tensor, b: Tensor, *, own: bool) -> Tensor:
    """Whether the pairs (n, m) are edges of the perturbed graphs; the target's own, or all in the order of triu."""
    size = rows.graph.size
    out = rows.graph.has(a, b)
    i, j, d = rows.changes(torch.float32)
    row, e = (d.abs() > 0.5).nonzero(as_tuple=True)
    i, j = torch.minimum(i, j)[row, e], torch.maximum(i, j)[row, e]
    if own:
        at = (i == rows.target[row]) | (j == rows.target[row])
        row, i, j = row[at], i[at], j[at]
        place = torch.where(i == rows.target[row], j, i)
    else:
        place = i * size - i * (i + 1) // 2 + j - i - 1
    return out.index_put((row, place), ~out[row, place])


# -- the certificate ---------------------------------------------------------------------------------------------------
def worst_share(share: float, p_add: float, p_del: float, r_add: int, r_del: int) -> float:
    """The least probability of a class at any input with r_add bits set and r_del bits dropped, given `share` here.

    Neyman and Pearson: the model that loses most puts the class where the ratio of the two inputs' likelihoods is
    largest. The ratio depends on the differing bits alone, of which `_regions` has the probabilities.
    """
    here, there = _regions(p_add, p_del, r_add, r_del)
    left, worst = float(share), 0.0
    for p, q in sorted(zip(here, there, strict=True), key=lambda r: r[1] / r[0] if r[0] > 0 else math.inf):
        if p <= 0:
            break
        taken = min(p, left)
        worst += q * taken / p
        left -= taken
        if left <= 0:
            break
    return worst


def _regions(p_add: float, p_del: float, r_add: int, r_del: int) -> tuple[list[float], list[float]]:
    """Probabilities (here, there) that i of the added bits are drawn as 1 and j of the dropped ones as 0."""
    here, there = [], []
    for i in range(r_add + 1):
        for j in range(r_del + 1):
            here.append(_binomial(r_add, i, p_add) * _binomial(r_del, j, p_del))
            there.append(_binomial(r_add, i, 1 - p_del) * _binomial(r_del, j, 1 - p_add))
    return here, there


def _binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def certified_radius(share: float, p_add: float, p_del: float, most: int = 8) -> Tensor:
    """Where no change of (r_add, r_del) bits, nor a smaller one, moves the majority: bool (most + 1, most + 1)."""
    grid = torch.tensor(
        [[worst_share(share, p_add, p_del, a, d) > 0.5 for d in range(most + 1)] for a in range(most + 1)]
    )
    return grid.long().cumprod(0).cumprod(1).bool()


def lower_bound(count: int, draws: int, alpha: float) -> float:
    """`lower_bounds` of one class."""
    return float(lower_bounds(torch.tensor(count), draws, alpha))


class Certificate(NamedTuple):
    """What is certified of each row.

    Attributes:
        label: int64 (n,) the smoothed class, -1 where the draws do not settle one.
        share: float (n,) lower bound of its probability.
        radius: bool (n, R + 1, R + 1), see `certified_radius`; all False where there is no label.
    """

    label: Tensor
    share: Tensor
    radius: Tensor

    def pairs(self, i: int) -> list[tuple[int, int]]:
        """The largest (r_add, r_del) of row i: none of them lies inside another."""
        grid = self.radius[i]
        found = [(a, int(row.sum()) - 1) for a, row in enumerate(grid) if bool(row.any())]
        return [p for k, p in enumerate(found) if k + 1 == len(found) or found[k + 1][1] < p[1]]


@torch.no_grad()
def certify(
    model: Smoothed, rows: GraphRows, *, seed: int = 0, pick: int = 200, draws: int = 2000, alpha: float = 0.001,
    most: int = 8,
) -> Certificate:  # fmt: skip
    """Certify rows: a class from `pick` draws, its probability from `draws` others (Cohen, Rosenfeld & Kolter, 2019).

    Each row's certificate is wrong with probability at most alpha, over the draws.
    """
    keys = rng.bits(seed, rows.target * 2**20 + torch.arange(len(rows), device=rows.target.device), (2,), 53)
    label = model.votes(rows, keys[:, 0], pick)[0].argmax(1)
    count = model.votes(rows, keys[:, 1], draws)[0].gather(1, label.unsqueeze(1)).squeeze(1)
    share = lower_bounds(count, draws, alpha).tolist()
    radius = torch.stack([certified_radius(s, model.p_add, model.p_del, most) for s in share])
    settled = torch.tensor([s > 0.5 for s in share])
    return Certificate(torch.where(settled, label.cpu(), -1), torch.tensor(share, dtype=torch.float64), radius)


def smoothed(
    name: str, victim: Any, *, p_add: float = 0.01, p_del: float = 0.6, draws: int = 64, over: str = "own",
    dataset: str | None = None,
) -> Victim:  # fmt: skip
    """A keyed victim that votes over draws of another one (a `Victim`, or the name of a row of victims).

    Args:
        dataset: what a victim by name is trained on, in place of its row's.
    """
    if isinstance(victim, str):
        from advgym.core.task import load_victim

        victim = load_victim(victim, **({} if dataset is None else {"dataset": dataset}))
    if victim.module is None or victim.keyed:
        raise AdvgymError(f"victim {victim.name!r} is no module without randomness of its own: it cannot be smoothed")
    model = Smoothed(victim.module, p_add=p_add, p_del=p_del, draws=draws, over=over)
    access = "gradients" if victim.access == "gradients" else "scores"
    card = {**victim.card, "smoothing": {"p_add": p_add, "p_del": p_del, "draws": draws, "over": over}}
    return Victim(model, name=name, access=access, keyed=True, draws=1, card=card)
