"""Additive Fields: a real tensor added to the clean sample, on a lattice, in a norm ball.

The canonical form is what storage would leave of the input: 8-bit pixels, 16-bit PCM. Lattice balls are compared as
integers; float balls in float64 with a tolerance of 1e-6. Checks are in positive form, so NaN fails them.
"""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgym.core import norms
from advgym.core.batch import Batch, Look, hash_rows, pick
from advgym.core.norms import NORMS, TOLERANCE
from advgym.errors import DataError

__all__ = ["NORMS", "TOLERANCE", "FieldBatch"]


class FieldBatch(Batch):
    """B clean samples x with perturbations delta of the same shape; the victim sees x + delta.

    Args:
        x: float32 (B, *shape), already canonical (on the lattice when there is one).
        radius: float (B,) or a number: the ball's radius in the units of x (l0: how many values). Per sample.
        norm: "linf", "l2", "l1" or "l0".
        lattice: levels per unit (255 for pixels in [0, 1], 32768 for PCM in [-1, 1)), or None for floats.
        low, high: the box of x.
        support: bool (B, *shape) or None; outside it delta is ignored (padding of a waveform).
    """

    shown = "x shape norm lattice low high support level limit radius reach size every floor ceiling"

    kind = "field"

    def __init__(
        self,
        ids: Tensor,
        labels: Tensor,
        x: Tensor,
        *,
        radius: Tensor | float,
        norm: str = "linf",
        lattice: int | None = None,
        low: float = 0.0,
        high: float = 1.0,
        support: Tensor | None = None,
    ) -> None:
        self.ids, self.labels, self.x = ids, labels, x
        self.shape = tuple(x.shape[1:])
        self.norm, self.lattice, self.low, self.high, self.support = norm, lattice, low, high, support
        # float64 until the limit is taken: k / lattice in float32 can fall short of k steps.
        exact = torch.as_tensor(radius, dtype=torch.float64).to(x.device).expand(len(x))
        radius = exact.float()
        if lattice:
            self.level = torch.round(x * lattice)  # integers, exact in float32 up to 2**24
        limit = norms.whole_limit(norm, exact, lattice)
        if limit is not None:
            self.limit = limit
            if norm == "linf":
                radius = (limit / (lattice or 1)).float()
            elif norm == "l0":
                radius = limit
        self.radius = self.reach = radius
        self.size = math.prod(self.shape)
        self.every = torch.ones(len(x), dtype=torch.bool, device=x.device)  # rows, where all are real
        wide = radius.view(-1, *[1] * len(self.shape))
        # What `project` clamps to: the box, and for linf the ball.
        self.floor, self.ceiling = low - x, high - x
        if norm == "linf":
            self.floor, self.ceiling = torch.maximum(self.floor, -wide), torch.minimum(self.ceiling, wide)
        if support is not None:
            self.floor, self.ceiling = self.floor * support, self.ceiling * support

    def widened(self, factor: float) -> FieldBatch:
        """The same samples in a ball of `factor` times the radius."""
        return FieldBatch(
            self.ids, self.labels, self.x, radius=self.radius * factor, norm=self.norm, lattice=self.lattice,
            low=self.low, high=self.high, support=self.support,
        )  # fmt: skip

    def typical(self) -> float:
        """The change of each value of an input when all of them share the first sample's radius: a noise's size."""
        return norms.per_value(self.norm, float(self.radius[0]), self.size, self.high - self.low)

    def null(self) -> Tensor:
        """Zeros like x."""
        return torch.zeros_like(self.x)

    def _canonical(self, p: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """(canonical input, canonical change in lattice steps or units), both (n, *shape)."""
        x = pick(self.x, rows)
        if self.support is not None:
            p = torch.where(pick(self.support, rows), p, 0.0)
        if self.lattice is None:
            y = (x + p).clamp_(self.low, self.high)
            return y, y - x
        scale = float(self.lattice)
        level = (x + p).mul_(scale).round_().clamp_(math.ceil(self.low * scale), math.floor(self.high * scale))
        return level / scale, level - pick(self.level, rows)

    def _measure(self, change: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """(inside the ball, distance in the units of x) of a canonical change."""
        exact, size = norms.exact(self.norm, change.view(change.shape[0], self.size))
        if self.norm == "l0":
            return exact <= pick(self.limit, rows), size
        if self.lattice:
            return exact <= pick(self.limit, rows), size / self.lattice
        reach = pick(self.radius, rows).double() + TOLERANCE
        return (exact.double() <= (reach * reach if self.norm == "l2" else reach)), size

    def look(self, p: Tensor, rows: Tensor | None = None, *, finite: bool = False) -> Look:
        """See `Batch.look`; the form is the canonical input itself, straight-through in p.

        Args:
            finite: p is known to be, having been projected.
        """
        d = p.detach()
        y, change = self._canonical(d, rows)
        valid, distance = self._measure(change, rows)
        flat = change.view(d.shape[0], self.size)
        whole = flat.to(torch.int64) if self.lattice else flat.contiguous().view(torch.int32).to(torch.int64)
        form = y + (p - d) if p.requires_grad else y  # p - d is exactly 0, however large p is
        if finite:
            real = pick(self.every, rows)
        else:
            real = d.abs().reshape(d.shape[0], self.size).amax(1) < torch.inf  # False for NaN, too
            valid, distance = real & valid, torch.where(real, distance, 0.0)
        return Look(form, real, valid, distance, hash_rows(whole), distance)

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The canonical form of a Field is the input itself."""
        return form

    def raw_distance(self, x: Any, rows: Tensor) -> Tensor | None:
        """In the ball's norm, of the inputs as they come: nothing is rounded."""
        if not isinstance(x, Tensor) or x.shape[1:] != self.x.shape[1:]:
            return None
        flat = (x.detach() - self.x[rows]).reshape(len(x), self.size)
        if self.norm == "l0":
            flat = torch.where(flat.abs() > TOLERANCE, flat, 0.0)  # a float's noise is no change
        return norms.size(self.norm, flat)

    def proposal(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The canonical change of x."""
        return form - pick(self.x, rows)

    # -- the pure functions of `env.threat` ------------------------------------------------------------------
    def distance(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Distance in the constraint's norm, float32 (n,); differentiable in p (l0: with the gradient of l1)."""
        form = self.look(p, rows).form
        return norms.size(self.norm, (form - pick(self.x, rows)).reshape(len(p), self.size))

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """A perturbation in the ball and the box, always valid; NaN is 0.

        The nearest one for linf, l1 and l0 (before it lands on a lattice); for l2 clamped to the box, then scaled.
        """
        p = torch.nan_to_num(p, nan=0.0, posinf=self.high - self.low, neginf=self.low - self.high)
        floor, ceiling = pick(self.floor, rows), pick(self.ceiling, rows)
        if self.norm in ("l1", "l0"):
            return self._sparse(p, floor, ceiling, rows)
        p = p.clamp(floor, ceiling)
        if self.norm == "linf":
            return p
        wide = pick(self.radius, rows).view(-1, *[1] * len(self.shape))
        # In float64, and a hair inside: rounding of many coordinates would leave the ball.
        norm = torch.linalg.vector_norm(p.reshape(len(p), self.size), dim=1, dtype=torch.float64).view_as(wide)
        p = p * (wide * (1 - 3e-7) / norm.clamp_min(1e-12)).clamp_max(1.0).to(p.dtype)
        return p if self.lattice is None else self._land(p, rows)

    def _sparse(self, p: Tensor, floor: Tensor, ceiling: Tensor, rows: Tensor | None) -> Tensor:
        """As `project`, in l1 or l0."""
        flat, floor, ceiling = (t.reshape(len(p), self.size) for t in (p, floor, ceiling))
        if self.norm == "l0":
            return norms.nearest_l0(flat, floor, ceiling, pick(self.limit, rows)).view_as(p)
        q = norms.nearest_l1(flat, floor, ceiling, pick(self.radius, rows)).to(p.dtype)
        change = self._canonical(q.detach().view_as(p), rows)[1].reshape(len(p), self.size)
        if self.lattice:
            excess = norms.exact("l1", change)[0] - pick(self.limit, rows)
            return norms.land(q, change, excess, self.lattice).view_as(p)
        # What adding to x has rounded out of a float ball: the smallest changes go.
        size, order = change.double().abs().sort(1, descending=True)
        within = size.cumsum(1) <= pick(self.radius, rows).double().unsqueeze(1) + TOLERANCE
        return torch.where(torch.zeros_like(within).scatter(1, order, within), q, 0.0).view_as(p)

    def _land(self, p: Tensor, rows: Tensor | None) -> Tensor:
        """Shrink p until its rounding is inside the ball too; after eight tries round towards the clean sample."""
        for _ in range(8):
            _, change = self._canonical(p.detach(), rows)
            inside, distance = self._measure(change, rows)
            if bool(inside.all()):
                return p
            shrink = torch.where(inside, 1.0, (pick(self.radius, rows) / distance.clamp_min(1e-12)) * 0.999)
            p = p * shrink.view(-1, *[1] * len(self.shape))
        scale = float(self.lattice or 1)
        safe = torch.trunc(p * scale + 1e-3 * torch.sign(p)) / scale
        return torch.where(inside.view(-1, *[1] * len(self.shape)), p, safe)

    def random(self, seed: int, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """A random point of the ball and box per row: uniform per coordinate (linf), uniform in the ball (l2).

        For l1 and l0 values drawn at random share the radius, each within the room that the box leaves it.
        """
        from advgym.core import rng

        keys = pick(self.ids, rows) if keys is None else keys
        radius = pick(self.radius, rows).view(-1, *[1] * len(self.shape))
        if self.norm == "linf":
            return self.project((rng.uniform(seed, keys, self.shape, 11) * 2 - 1) * radius, rows)
        if self.norm in ("l1", "l0"):
            u = rng.uniform(seed, keys, (3, self.size), 14)
            floor, ceiling = (pick(t, rows).reshape(len(keys), self.size) for t in (self.floor, self.ceiling))
            step = 1 / self.lattice if self.lattice else 0.0
            p = norms.scattered(self.norm, u, floor, ceiling, pick(self.radius, rows), step)
            return self.project(p.view(len(keys), *self.shape), rows)
        direction = self.steepest(rng.normal(seed, keys, self.shape, 12), rows)
        length = rng.uniform(seed, keys, (), 13).view_as(radius) ** (1.0 / self.size)
        return self.project(direction * radius * length, rows)

    def steepest(self, g: Tensor, rows: Tensor | None = None, p: Tensor | None = None) -> Tensor:
        """The unit step of the constraint's norm along which a linear function with gradient g rises fastest.

        Args:
            p: where the step is taken from, which in l1 and l0 tells what the box holds fast; None for the clean x.
        """
        flat = g.reshape(len(g), self.size)
        if self.norm in ("linf", "l2"):
            return norms.steepest(self.norm, flat).view_as(g)
        p = torch.zeros_like(g) if p is None else p
        below, above = p - pick(self.floor, rows), pick(self.ceiling, rows) - p
        return norms.steepest(self.norm, flat, below.reshape(flat.shape), above.reshape(flat.shape)).view_as(g)

    # -- storage ---------------------------------------------------------------------------------------------
    def dump(self, form: Tensor, row: int) -> dict[str, Any]:
        """Level changes (or float32 changes) as zlib-packed little-endian integers in base64."""
        change = form - self.x[row]
        if self.lattice:
            array = torch.round(change * self.lattice).to(torch.int32).cpu().numpy().astype("<i4")
        else:
            array = change.detach().to(torch.float32).cpu().numpy().astype("<f4")
        packed = base64.b64encode(zlib.compress(array.tobytes(), 6)).decode("ascii")
        return {"field": packed, "dtype": array.dtype.str, "shape": list(self.shape), "lattice": self.lattice}

    def load(self, stored: list[Any]) -> Tensor:
        """Inverse of `dump`; sizes are checked before anything is unpacked."""
        out = np.zeros((len(self), *self.shape), np.float32)
        for i, entry in enumerate(stored):
            if entry is None:
                continue
            try:
                dtype = np.dtype("<i4" if self.lattice else "<f4")
                limit = self.size * dtype.itemsize
                unpack = zlib.decompressobj()
                raw = unpack.decompress(base64.b64decode(entry["field"], validate=True), limit + 1)
                what = (entry["dtype"], tuple(entry["shape"]), entry["lattice"])
                whole = unpack.eof and not unpack.unused_data
                if not whole or len(raw) != limit or what != (dtype.str, self.shape, self.lattice):
                    raise ValueError(f"want shape {self.shape} on lattice {self.lattice}")
                out[i] = np.frombuffer(raw, dtype).reshape(self.shape)
            except (KeyError, TypeError, ValueError, zlib.error) as error:
                raise DataError(f"stored perturbation {i} is not a Field of this task: {error}") from None
        delta = torch.from_numpy(out).to(self.x.device)
        return delta / self.lattice if self.lattice else delta
