"""The norms of additive Fields: sizes, the nearest point of a ball within a box, the steepest step, rounding.

Everything is batched by row over flat changes (n, d). "l0" counts changed values; its radius is a whole number of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NORMS = ("linf", "l2", "l1", "l0")
TOLERANCE = 1e-6
INSIDE = 1 - 3e-7  # a hair: rounding of many coordinates would leave the ball
SPARSE = 0.01  # of the coordinates, at least one, that a steepest step of l1 or l0 moves (SLIDE: Tramer & Boneh 2019)


def size(norm: str, flat: Tensor) -> Tensor:
    """The norm of each row, float32 (n,); differentiable, l0 with the gradient of l1, its convex companion."""
    if norm == "linf":
        return flat.abs().amax(1)
    if norm == "l2":
        length: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return length
    if norm == "l1":
        return flat.abs().sum(1)
    count = (flat.detach() != 0).sum(1).to(flat.dtype)
    if not flat.requires_grad:
        return count
    slope = flat.abs().sum(1)
    return count + (slope - slope.detach())


def exact(norm: str, flat: Tensor) -> tuple[Tensor, Tensor]:
    """(what is compared with the limit, the norm float32) of each row, without error where entries are whole numbers.

    Compared are the largest change, the sum of squares (l2) or of sizes (l1) in float64, or the count (l0).
    """
    if norm == "linf":
        most = flat.abs().amax(1)
        return most, most
    if norm == "l2":
        total = flat.double().square().sum(1)
        return total, total.sqrt().float()
    if norm == "l1":
        total = flat.double().abs().sum(1)
        return total, total.float()
    count = (flat != 0).sum(1).float()
    return count, count


def whole_limit(norm: str, radius: Tensor, lattice: int | None) -> Tensor | None:
    """The largest value of `exact` in lattice steps that lies in the ball: a whole number; None where nothing is whole.

    Args:
        radius: float64 (B,).
    """
    if norm == "l0":
        return (radius + TOLERANCE).floor().float()
    if not lattice:
        return None
    steps = radius * lattice * (1 + TOLERANCE) + TOLERANCE
    if norm == "linf":
        return steps.floor().float()
    return (steps * steps).floor() if norm == "l2" else steps.floor()


def largest(norm: str, count: int, span: float) -> float:
    """The radius that holds every change of `count` values within a box of width `span`."""
    return {"linf": span, "l2": span * math.sqrt(count), "l1": span * count, "l0": float(count)}[norm]


def per_value(norm: str, radius: float, count: int, span: float = 1.0) -> float:
    """The change of each of `count` values whose whole has the norm `radius`; l0: its mean, at the box's width."""
    return radius / {"linf": 1.0, "l2": math.sqrt(count), "l1": float(count), "l0": count / span}[norm]


def nearest_l1(v: Tensor, floor: Tensor, ceiling: Tensor, radius: Tensor) -> Tensor:
    """The nearest point of the l1 ball within the box [floor, ceiling] (around 0) to each row of v (n, d).

    Duchi et al. 2008 found it for the ball, Croce & Hein 2021 ("Mind the box") within a box: entries are
    soft-thresholded by one number per row and clamped. The size that is left is a piecewise linear, falling function
    of that number, whose corners are sorted.
    """
    v = v.double()
    room = torch.where(v > 0, ceiling.double(), -floor.double())
    height = v.abs()
    # One entry's share falls with slope -1 from height - room, where the box lets go of it, to height, where it is 0.
    corners, order = torch.cat([(height - room).clamp_min(0), height], 1).sort(1)
    slope = torch.cat([torch.full_like(height, -1.0), torch.ones_like(height)], 1)
    slope = torch.where(torch.cat([room > 0, room > 0], 1), slope, 0.0).gather(1, order).cumsum(1)
    start = torch.minimum(height, room).sum(1, keepdim=True)
    steps = slope[:, :-1] * (corners[:, 1:] - corners[:, :-1])
    total = start + torch.cat([torch.zeros_like(start), steps.cumsum(1)], 1)  # the size at each corner
    want = radius.double().unsqueeze(1) * INSIDE
    at = ((total > want).sum(1, keepdim=True) - 1).clamp_min(0)  # the last corner that is outside the ball
    by = (total.gather(1, at) - want) / -slope.gather(1, at).clamp_max(-1e-12)
    cut = torch.where(start > want, corners.gather(1, at) + by.clamp_min(0), 0.0)
    p = torch.minimum((height - cut).clamp_min(0), room) * v.sign()
    share = want / p.abs().sum(1, keepdim=True).clamp_min(1e-300)
    return p * share.clamp_max(1.0)  # what rounding of huge v left over


def nearest_l0(v: Tensor, floor: Tensor, ceiling: Tensor, most: Tensor) -> Tensor:
    """The nearest point with at most `most` (n,) changed values within the box to each row of v (n, d)."""
    v = v.clamp(-1e18, 1e18)
    p = torch.minimum(torch.maximum(v, floor), ceiling)
    gain = p * (2 * v - p)  # v**2 - (v - p)**2: what keeping an entry saves
    return torch.where(first(gain, most), p, 0.0)


def first(merit: Tensor, most: Tensor) -> Tensor:
    """Bool (n, d): the `most` (n,) entries of largest merit in each row, the earlier one of two that are equal."""
    order = merit.argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(merit.shape[1], device=merit.device)
    taken = rank < most.unsqueeze(1)
    return torch.zeros_like(taken).scatter(1, order, taken)


def steepest(norm: str, g: Tensor, below: Tensor | None = None, above: Tensor | None = None) -> Tensor:
    """The unit step of the norm along which a linear function of gradient g (n, d) rises fastest.

    For l1 the largest entries share it alike, for l0 each of them is moved by 1 (`SPARSE`); those that the box
    holds fast in their direction are left out.

    Args:
        below, above: float32 (n, d), the room there is on either side; of l1 and l0.
    """
    if norm == "linf":
        return g.sign()
    if norm == "l2":
        unit: Tensor = g / torch.linalg.vector_norm(g, dim=1).clamp_min(1e-12).unsqueeze(1)
        return unit
    assert below is not None and above is not None
    free = torch.where(g > 0, above, below) > TOLERANCE
    merit = torch.where(free, g.abs(), 0.0)
    many = max(1, math.ceil(SPARSE * g.shape[1]))
    value, index = merit.topk(many, 1)
    on = (value > 0).to(g.dtype)
    share = on / on.sum(1, keepdim=True).clamp_min(1) if norm == "l1" else on
    return torch.zeros_like(g).scatter(1, index, share) * g.sign()


def scattered(norm: str, u: Tensor, floor: Tensor, ceiling: Tensor, radius: Tensor, step: float) -> Tensor:
    """Random changes (n, d) of as many values as the radius holds (l0), or holds steps (l1), from uniforms (n, 3, d).

    Args:
        step: of the lattice, 0 for none; each value that has room moves by half a step at least.
    """
    pick, side, size = u.unbind(1)
    room = torch.maximum(ceiling, -floor)
    many = radius if norm == "l0" else radius / step if step else torch.full_like(radius, u.shape[2])
    on = first(torch.where(room > max(step - TOLERANCE, TOLERANCE), pick, -1.0), many) & (room > 0)
    up = side * (ceiling - floor) + floor > 0  # a side is taken as often as it has room
    if norm == "l0":
        amount = torch.maximum(size * torch.where(up, ceiling, -floor), torch.full_like(size, step))
    else:
        amount = -torch.log1p(-size) * on
        amount = amount / amount.sum(1, keepdim=True).clamp_min(1e-12) * radius.unsqueeze(1)
    return torch.where(on, torch.where(up, amount, -amount), 0.0)


def land(p: Tensor, change: Tensor, excess: Tensor, lattice: int) -> Tensor:
    """P (n, d) with some entries that the lattice rounds away from 0 moved so that it rounds them towards it.

    Args:
        change: the whole steps that p is rounded to; excess: (n,) so many entries at least are one step too far out.
    """
    steps = p.detach().abs() * lattice
    up = change.abs() > steps
    # Those that rounding moved furthest come first; the entry is left just short of the middle between two steps.
    moved = torch.where(up, change.abs() - steps, -1.0)
    back = first(moved, excess.clamp_min(0)) & up
    return torch.where(back, (change.abs() - 0.51) / lattice * change.sign(), p)
