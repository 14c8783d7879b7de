"""What attacks for the least distortion share: each value's room, the nearest success, balls of a lane's own radius.

All functions are batched by row over flat changes (n, d), in the units of the sample; radii are float32 (n,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advgym.agents.shared.common import choose

FAR = 1e6  # beyond any box: `apply` clamps it to the box's end
TINY = 1e-12
DUAL = {"linf": 1.0, "l2": 2.0, "l1": torch.inf, "l0": torch.inf}  # the norm of gradients that is dual (l0: as l1)


class Least:
    """The nearest success of each lane so far, over an environment whose Fields are added to the sample.

    Attributes:
        low, high: float32 (n, d), how far each value may change before it meets the box.
        best: the nearest success (n, *shape), the clean sample without one; distance: its, inf without one.
        norm: of the threat model.
    """

    def __init__(self, env, norm: str = "") -> None:
        self.env, self.norm = env, norm or env.threat.norm
        null = env.threat.null()
        self.low, self.high = room(env, null)
        self.best, self.shape = null, null.shape
        self.distance = torch.full((len(null),), torch.inf, device=null.device)

    def ask(self, delta: Tensor, loss: Callable[[dict], Tensor], *, grad: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """(whether the goal is reached, loss (n,), its gradient (n, d)) at flat changes (n, d)."""
        p = delta.view(self.shape)
        obs, *_ = self.env.step(p.requires_grad_() if grad else p)
        self.keep(obs, p.detach())
        f = loss(obs)
        g = torch.autograd.grad(f.sum(), p)[0].flatten(1) if grad else torch.zeros_like(delta)
        return obs["success"], f.detach(), torch.nan_to_num(g)

    def keep(self, obs: dict, p: Tensor) -> None:
        """Enter what was answered at p (n, *shape)."""
        better = obs["success"] & obs["evaluated"] & (obs["distance"] < self.distance)
        self.best = choose(better, p, self.best)
        self.distance = torch.where(better, obs["distance"], self.distance)

    def inward(self, delta: Tensor, g: Tensor) -> Tensor:
        """The part of a direction of ascent that the box lets delta follow."""
        held = ((delta >= self.high) & (g > 0)) | ((delta <= self.low) & (g < 0))
        return torch.where(held, 0.0, g)

    @property
    def found(self) -> Tensor:
        """Bool (n,): a success is known."""
        return self.distance < torch.inf

    def clip(self, delta: Tensor) -> Tensor:
        """Within the box."""
        return torch.minimum(torch.maximum(delta, self.low), self.high)


class Search:
    """Each lane's weight c of the goal beside the distance (Carlini and Wagner 2017).

    It falls by a success and rises by a failure, by ten until both are known, then to their geometric mean.
    """

    def __init__(self, c: Tensor) -> None:
        self.c, self.low, self.high = c, torch.zeros_like(c), torch.full_like(c, torch.inf)

    def tell(self, found: Tensor) -> None:
        """Whether each lane met the goal with its c."""
        self.high = torch.where(found, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(found, self.low, torch.maximum(self.low, self.c))
        between = torch.where(self.low > 0, (self.low * self.high).sqrt(), self.c / 10)
        self.c = torch.where(self.high < torch.inf, between, self.c * 10)


def room(env, null: Tensor) -> tuple[Tensor, Tensor]:
    """How far each value may fall and rise, (n, d): to the box's ends; where inputs are no arrays, the ball's."""
    clean = env.threat.apply(null)
    if isinstance(clean, Tensor) and clean.shape == null.shape:
        low, high = env.threat.apply(null - FAR) - clean, env.threat.apply(null + FAR) - clean
    elif env.threat.norm == "linf":
        low, high = env.threat.project(null - FAR), env.threat.project(null + FAR)
    else:
        reach = env.threat.reach.unsqueeze(1).expand(-1, null[0].numel())
        low, high = -reach, reach
    return low.flatten(1), high.flatten(1)


def objective(obs: dict) -> Tensor:
    """The task's own, above 0 exactly on success; the surrogate where that has no slope (an error rate)."""
    value, other = obs["objective"], obs["surrogate"]
    return other if other.requires_grad and not value.requires_grad else value


def size(norm: str, delta: Tensor) -> Tensor:
    """The norm of each row, (n,)."""
    if norm == "l0":
        return (delta != 0).sum(1).to(delta.dtype)
    return torch.linalg.vector_norm(delta, {"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1)


def linear_distance(norm: str, f: Tensor, g: Tensor) -> Tensor:
    """How far the zero of a linear function of value f (n,) and gradient g (n, d) is, (n,)."""
    return f.abs() / torch.linalg.vector_norm(g, DUAL[norm], dim=1).clamp_min(TINY)


def onto_ball(norm: str, delta: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The nearest point of each row's own ball, within the box (l2: scaled, then clamped)."""
    from advgym.core.norms import nearest_l0, nearest_l1

    if norm == "l0":
        return nearest_l0(delta, low, high, radius)
    if norm == "l1":
        return nearest_l1(delta, low, high, radius).to(delta.dtype)
    r = radius.unsqueeze(1)
    if norm == "linf":
        delta = torch.minimum(torch.maximum(delta, -r), r)
    else:
        delta = delta * (r / torch.linalg.vector_norm(delta, dim=1, keepdim=True).clamp_min(TINY)).clamp_max(1.0)
    return torch.minimum(torch.maximum(delta, low), high)


def onto_plane(norm: str, w: Tensor, gap: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The least change v in the box with <w, v> = gap, or the box's corner that comes nearest to that, (n, d).

    Values move together until the box holds them; what is gained by then is piecewise linear in one number per row (the
    step for linf, its share of w for l2), or takes the values one after another, the largest of w first (l1). Its
    corners are sorted (Croce and Hein 2020, appendix).

    Args:
        gap: (n,), of any sign; low, high: (n, d), the room, low <= 0 <= high.
    """
    sign = torch.where(gap < 0, -1.0, 1.0).unsqueeze(1)
    w, need = w * sign, gap.abs().unsqueeze(1)
    up = w > 0
    room, slope = torch.where(up, high, -low).clamp_min(0), w.abs()
    if norm == "l1":
        order = slope.argsort(dim=1, descending=True, stable=True)
        s, r = slope.gather(1, order), room.gather(1, order)
        before = (s * r).cumsum(1) - s * r
        part = torch.minimum(((need - before) / s.clamp_min(TINY)).clamp_min(0), r)
        move = torch.zeros_like(part).scatter(1, order, part)
    else:
        pace = torch.ones_like(slope) if norm == "linf" else slope  # of a value, by the row's number
        corner = torch.where(slope > 0, room / pace.clamp_min(TINY), 0.0)
        at, order = corner.sort(1)
        rate = (slope * pace).gather(1, order)
        left = rate.flip(1).cumsum(1).flip(1)  # of those not yet held, at the start of each stretch
        width = torch.diff(at, dim=1, prepend=torch.zeros_like(at[:, :1]))
        gained = (left * width).cumsum(1)  # at each corner
        i = (gained < need).sum(1, keepdim=True).clamp_max(w.shape[1] - 1)
        start = at.gather(1, i) - width.gather(1, i)
        done = gained.gather(1, i) - left.gather(1, i) * width.gather(1, i)
        number = start + (need - done) / left.gather(1, i).clamp_min(TINY)
        move = torch.minimum(number.clamp_min(0) * pace, room)
        move = torch.where(slope > 0, move, 0.0)
    return torch.where(up, move, -move)


def unit(g: Tensor, p: float = 2.0) -> Tensor:
    """Each row over its norm."""
    return g / torch.linalg.vector_norm(g, p, dim=1, keepdim=True).clamp_min(TINY)
