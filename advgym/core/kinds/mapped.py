"""Fields that are not added: a real tensor theta of the task's own shape, and a map from (sample, theta) to an input.

A task says how theta is rendered, how large it is, and what it may hold; all zeros are the clean sample.
Sizes are float: a perturbation counts up to `SLACK` times its radius, `project` stays a hair inside.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from advgym.core import norms, rng
from advgym.core.batch import Look, hash_rows, pick
from advgym.core.field import FieldBatch

SLACK = 1 + 1e-5  # of the radius: a measure is float32, and rounds with the rows beside it
HALVINGS = 14  # of the way to a point, where its size is no norm


class MappedBatch(FieldBatch):
    """B samples x (B, [M,] *image) under perturbations theta (B, *shape); subclasses override what is below `render`.

    Args:
        x: float32, already canonical; with M members each row has M inputs of its own.
        shape: of theta.
        radius: float (B,) or a number, in the units of `measure`.
        norm: a name for the measure; "linf" and "l2" mean those norms of theta itself.
        most: the largest value of an entry of theta, float (B,) or a number; None for the radius.
        levels: the lattice of the input, or None for floats.
        members: M, or None where x has no axis for them.
    """

    shown = "x shape norm lattice low high radius reach size every levels image most members"
    homogeneous = True  # measure(t theta) = t measure(theta) for t > 0: `project` scales

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, shape: tuple[int, ...], *, radius: Tensor | float,
        norm: str = "linf", most: Tensor | float | None = None, levels: int | None = None, low: float = 0.0,
        high: float = 1.0, members: int | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.labels, self.x, self.shape = ids, labels, x, tuple(shape)
        self.image = tuple(x.shape[1:] if members is None else x.shape[2:])
        self.members = 1 if members is None else members
        self.norm, self.levels, self.low, self.high = norm, levels, low, high
        self.lattice, self.support = None, None  # of theta
        self.radius = self.reach = torch.as_tensor(radius, dtype=torch.float32).to(x.device).expand(len(x))
        most = self.radius if most is None else torch.as_tensor(most, dtype=torch.float32).to(x.device).expand(len(x))
        self.most = most
        self.size = math.prod(self.shape)
        self.every = torch.ones(len(x), dtype=torch.bool, device=x.device)

    # -- what a task says of its map -------------------------------------------------------------------------
    def render(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        """The inputs (n, [M,] *image) of theta (n, *shape), differentiable; exactly the clean ones where theta is 0.

        Neither clamped to the box nor rounded: `inputs` does both.
        """
        raise NotImplementedError

    def measure(self, theta: Tensor, rows: Tensor | None) -> Tensor:
        """How large theta is, float32 (n,), differentiable; 0 for zeros."""
        return norms.size(self.norm, theta.reshape(len(theta), self.size))

    def unit(self, g: Tensor, rows: Tensor | None) -> Tensor:
        """The step of size 1 along which a linear function of gradient g (n, *shape) rises fastest, or nearly so."""
        flat = g.reshape(len(g), self.size)
        return norms.steepest("l2" if self.norm == "l2" else "linf", flat).view_as(g)

    def words(self, row: int, theta: Tensor) -> str:
        """Theta (*shape) of one row in a line."""
        return f"{float(self.measure(theta.unsqueeze(0), torch.tensor([row], device=theta.device))):.3g}"

    # -- the contract ----------------------------------------------------------------------------------------
    def typical(self) -> float:
        """The mean change of an input's values under random perturbations of the first sample: a noise's size."""
        first = torch.zeros(4, dtype=torch.int64, device=self.x.device)
        theta = self.random(0, first, torch.arange(4, device=self.x.device))
        with torch.no_grad():
            return float((self.inputs(theta, first) - self.inputs(theta * 0, first)).abs().mean())

    def widened(self, factor: float) -> MappedBatch:
        """The same samples with `factor` times the radius."""
        wide = self.radius * factor
        return self.like(radius=wide, reach=wide, most=self.most * factor)

    def beyond(self) -> MappedBatch:
        """The same samples with eight times the radius."""
        return self.widened(8.0)

    def null(self) -> Tensor:
        """Zeros (B, *shape)."""
        return torch.zeros(len(self), *self.shape, device=self.x.device)

    def look(self, p: Tensor, rows: Tensor | None = None, *, finite: bool = False) -> Look:
        """See `Batch.look`; the form is theta itself."""
        d = p.detach()
        flat = d.reshape(len(d), self.size)
        real = pick(self.every, rows) if finite else flat.abs().amax(1) < torch.inf  # False for NaN, too
        with torch.no_grad():
            safe = d if finite else torch.where(real.view(-1, *[1] * len(self.shape)), d, 0.0)
            distance = self.measure(safe, rows)
            valid = real & (distance <= pick(self.radius, rows) * SLACK + norms.TOLERANCE)
            valid &= safe.reshape(len(d), self.size).abs().amax(1) <= self._top(rows) * SLACK + norms.TOLERANCE
        bits = (flat + 0.0).contiguous().view(torch.int32).to(torch.int64)  # -0 is 0
        return Look(p, real, valid, distance, hash_rows(bits), flat.abs().amax(1))

    def _top(self, rows: Tensor | None) -> Tensor:
        return pick(self.most, rows)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The rendered inputs (n * M, *image) in the box and on the lattice, straight-through."""
        y = self.render(form, rows).reshape(-1, *self.image)
        with torch.no_grad():
            z = y.clamp(self.low, self.high)
            if self.levels:
                z = torch.round(z * self.levels) / self.levels
        return z + (y - y.detach()) if y.requires_grad else z

    def clean(self, rows: Tensor | None) -> Tensor:
        """The clean inputs, (n, M, *image)."""
        x = pick(self.x, rows)
        return x.view(len(x), self.members, *self.image)

    def raw_distance(self, x: Any, rows: Tensor) -> Tensor | None:
        """None: an input does not tell which theta made it."""
        return None

    def proposal(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """Theta is its own form."""
        return form

    def distance(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """The measure of theta, float32 (n,); differentiable."""
        return self.measure(p, rows)

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """A valid perturbation near p: entries clamped, then the whole drawn towards 0 as far as its size asks."""
        wide = [1] * len(self.shape)
        top = self._top(rows).view(-1, *wide)
        p = torch.nan_to_num(p, nan=0.0, posinf=torch.inf, neginf=-torch.inf).clamp(-top, top)
        if self.norm == "linf" and type(self).measure is MappedBatch.measure:
            radius = pick(self.radius, rows).view(-1, *wide)
            return p.clamp(-radius, radius)
        with torch.no_grad():
            radius = pick(self.radius, rows)
            found = self.measure(p, rows)
            if self.homogeneous:
                share = radius * (1 - 1e-6) / found.clamp_min(1e-12)
            else:
                share = self._share(p, radius * (1 - 1e-3), rows, found)
            share = torch.where(found <= radius, 1.0, share.clamp_max(1.0))
        return p * share.view(-1, *wide)

    def _share(self, p: Tensor, radius: Tensor, rows: Tensor | None, found: Tensor) -> Tensor:
        """The largest t in [0, 1] found by halving at which t p has at most the size `radius`."""
        low, high = torch.zeros_like(radius), torch.ones_like(radius)
        if not bool((found > radius).any()):
            return high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fine = self.measure(p * middle.view(-1, *[1] * len(self.shape)), rows) <= radius
            low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
        return low

    def random(self, seed: int, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """Uniform entries, projected."""
        keys = pick(self.ids, rows) if keys is None else keys
        top = torch.minimum(self._top(rows), pick(self.radius, rows)) if self.norm == "linf" else self._top(rows)
        u = rng.uniform(seed, keys, self.shape, 15) * 2 - 1
        return self.project(u * top.view(-1, *[1] * len(self.shape)), rows)

    def steepest(self, g: Tensor, rows: Tensor | None = None, p: Tensor | None = None) -> Tensor:
        """See `unit`."""
        return self.unit(g, rows)
