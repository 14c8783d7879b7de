"""Projected ascent with momentum, every lane at a step of its own run: what `apgd` and its relatives share."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from advgym.agents.shared.once import wide

RHO = 0.75  # share of rising steps below which a step size is halved
SCHEDULES = ("halving", "cosine", "linear", "constant")


def marks(steps: int) -> list[int]:
    """The checkpoints of APGD in a run of so many steps: p grows by .22, then by .03 less each time, at least .06."""
    p, gap, found = 0.22, 0.22, []
    while p < 1:
        found.append(math.ceil(p * steps - 1e-9))
        gap = max(gap - 0.03, 0.06)
        p += gap
    return found


def factors(schedule: str, steps: int, device: torch.device) -> Tensor:
    """Step sizes of a run relative to its first, (steps,)."""
    t = torch.arange(steps, device=device) / steps
    if schedule == "cosine":
        return (1 + torch.cos(math.pi * t)) / 2
    return 1 - t if schedule == "linear" else torch.ones_like(t)


class Ascent:
    """The state of APGD (Croce & Hein 2020, algorithm 1) in n lanes, each at its own step t of its own run.

    Args:
        eta: float32 (n,), the first step's size.
        steps: of a run.
        schedule: halving at checkpoints as published, or a table of factors.
        alpha: share of the gradient step; the rest is momentum.
    """

    def __init__(self, env, eta: Tensor, steps: int, schedule: str = "halving", alpha: float = 0.75) -> None:
        self.threat, self.steps, self.alpha, self.first = env.threat, steps, alpha, eta
        n, device = len(eta), eta.device
        self.halving = schedule == "halving"
        self.table = factors(schedule, steps, device)
        at = [0, *marks(steps)]
        self.mark = torch.zeros(steps + 1, device=device)  # the length of the stretch that ends here, 0 for no mark
        for before, now in pairwise(at):
            if now > before:
                self.mark[now] = now - before
        self.t = torch.zeros(n, dtype=torch.int64, device=device)
        self.eta, self.eta_mark = eta.clone(), eta.clone()
        low = torch.full((n,), -torch.inf, device=device)
        self.f, self.f_best, self.f_mark, self.rises = low, low.clone(), low.clone(), torch.zeros(n, device=device)
        self.x = self.best = self.g_best = env.threat.null()

    def restart(self, which: Tensor) -> None:
        """Begin a new run in some lanes."""
        self.t = torch.where(which, 0, self.t)

    def step(self, x: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """The next point of each lane, after loss f (n,) and gradient g (n, *shape) at x."""
        new = self.t == 0
        first = wide(new, x)
        old = torch.where(first, x, self.x)
        self.eta, self.eta_mark = torch.where(new, self.first, self.eta), torch.where(new, self.first, self.eta_mark)
        self.rises = torch.where(new, 0.0, self.rises + (f > self.f))
        better = new | (f > self.f_best)
        self.best = torch.where(wide(better, x), x, self.best)
        self.g_best = torch.where(wide(better, x), g, self.g_best)
        self.f_best = torch.where(better, f, self.f_best)
        self.f_mark = torch.where(new, f, self.f_mark)
        if self.halving:
            x, g = self._checkpoint(x, g)
        eta = self.eta * self.table[self.t]
        a = torch.where(first, 1.0, self.alpha)
        z = self.threat.project(x + wide(eta, x) * self.threat.steepest(g))
        out = self.threat.project(x + a * (z - x) + (1 - a) * (x - old))
        self.x, self.f, self.t = x, f, self.t + 1
        return out

    def _checkpoint(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        stretch = self.mark[self.t]
        here = stretch > 0
        idle = (self.eta == self.eta_mark) & (self.f_best <= self.f_mark)
        halve = here & ((self.rises < RHO * stretch) | idle)
        self.eta_mark = torch.where(here, self.eta, self.eta_mark)
        self.f_mark = torch.where(here, self.f_best, self.f_mark)
        self.rises = torch.where(here, 0.0, self.rises)
        self.eta = torch.where(halve, self.eta / 2, self.eta)
        return torch.where(wide(halve, x), self.best, x), torch.where(wide(halve, x), self.g_best, g)
