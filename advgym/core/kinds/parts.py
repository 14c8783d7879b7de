"""Samples of several parts, each with a radius, a lattice and a box of its own: one Field over all of them.

Theta is in units of each part's radius: entry i of part k changes the sample by radius_k theta_i, so the ball is that
of radius 1 in L-infinity whatever the parts are measured in, and any attack on Fields plays it. A part that is closed
has the radius 0: nothing that is proposed there reaches the victim.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.kinds.mapped import MappedBatch


class Part(NamedTuple):
    """One of the parts of a sample.

    Attributes:
        name, shape: of it; radius: in its own units, 0 where it is closed.
        low, high: its box; levels: of its lattice per unit, 0 for floats.
    """

    name: str
    shape: tuple[int, ...]
    radius: float
    low: float
    high: float
    levels: int

    @property
    def size(self) -> int:
        """Entries."""
        return math.prod(self.shape)

    @property
    def reach(self) -> float:
        """The radius in whole steps of the lattice: rounding then leaves nothing outside the ball."""
        return math.floor(self.radius * self.levels + 1e-9) / self.levels if self.levels else self.radius


def split(x: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Each part (n, *shape) of flat samples (n, D)."""
    parts = x.split([math.prod(shape) for shape in shapes], 1)  # type: ignore[no-untyped-call]
    return [p.reshape(len(x), *shape) for p, shape in zip(parts, shapes, strict=True)]


class PartsBatch(MappedBatch):
    """B samples x (B, D), all parts flat and one after the other; theta is float32 (B, D).

    Args:
        parts: in order.
    """

    shown = "parts scale floor ceiling step"

    def __init__(self, ids: Tensor, labels: Tensor, x: Tensor, parts: list[Part]) -> None:
        super().__init__(ids, labels, x, tuple(x.shape[1:]), radius=1.0)
        self.parts: list[Any] = [tuple(p) for p in parts]

        def wide(values: list[float]) -> Tensor:
            per = torch.tensor([p.size for p in parts])
            return torch.tensor(values).repeat_interleave(per).to(x.device)

        self.scale = wide([p.reach for p in parts])
        self.floor, self.ceiling = wide([p.low for p in parts]), wide([p.high for p in parts])
        self.step = wide([1 / p.levels if p.levels else 0.0 for p in parts])

    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        return pick(self.x, rows) + self.scale * theta

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The flat inputs (n, D), each part in its box and on its lattice, straight-through."""
        y = self.render(form, rows)
        with torch.no_grad():
            z = torch.minimum(torch.maximum(y, self.floor), self.ceiling)
            on = torch.round(z / self.step.clamp_min(1e-12)) * self.step
            z = torch.where(self.step > 0, on, z)
        return z + (y - y.detach()) if y.requires_grad else z

    def sizes(self, theta: Tensor) -> dict[str, Tensor]:
        """How far each part goes, float32 (n,), as a share of its own radius; 0 for closed ones."""
        parts = [Part(*p) for p in self.parts]
        found = split(theta.detach(), [p.shape for p in parts])
        return {p.name: v.flatten(1).abs().amax(1) * bool(p.reach) for p, v in zip(parts, found, strict=True)}

    def words(self, row: int, theta: Tensor) -> str:
        """In a line."""
        radius = {p[0]: Part(*p).reach for p in self.parts}
        told: dict[str, Any] = {k: float(v[0]) * radius[k] for k, v in self.sizes(theta.unsqueeze(0)).items()}
        return ", ".join(f"{name} by {size:.3g}" for name, size in told.items())
