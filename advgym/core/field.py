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

from advgym.core.batch import Batch, Look, hash_rows, pick
from advgym.errors import DataError

NORMS = ("linf", "l2")
TOLERANCE = 1e-6


class FieldBatch(Batch):
    """B clean samples x with perturbations delta of the same shape; the victim sees x + delta.

    Args:
        x: float32 (B, *shape), already canonical (on the lattice when there is one).
        radius: float (B,) or a number: the ball's radius in the units of x. Per sample.
        norm: "linf" or "l2".
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
            steps = exact * lattice * (1 + TOLERANCE) + TOLERANCE
            # Integer limits: the largest level change (linf), or the largest sum of squared changes (l2).
            self.limit = steps.floor().float() if norm == "linf" else (steps * steps).floor()
            if norm == "linf":
                radius = (self.limit / lattice).float()
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
        flat = change.view(change.shape[0], self.size)
        if self.norm == "linf":
            size = exact = flat.abs().amax(1)
        else:
            exact = flat.double().square().sum(1)
            size = exact.sqrt().float()
        if self.lattice:
            return exact <= pick(self.limit, rows), size / self.lattice
        reach = pick(self.radius, rows).double() + TOLERANCE
        return (exact.double() <= (reach if self.norm == "linf" else reach * reach)), size

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
        return flat.abs().amax(1) if self.norm == "linf" else torch.linalg.vector_norm(flat, dim=1)

    def proposal(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The canonical change of x."""
        return form - pick(self.x, rows)

    # -- the pure functions of `env.threat` ------------------------------------------------------------------
    def distance(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Distance in the constraint's norm, float32 (n,); differentiable in p."""
        form = self.look(p, rows).form
        flat = (form - pick(self.x, rows)).reshape(len(p), self.size)
        return flat.abs().amax(1) if self.norm == "linf" else torch.linalg.vector_norm(flat, dim=1)

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """A perturbation in the ball and the box, always valid: linf the nearest, l2 clamped then scaled. NaN to 0."""
        p = torch.nan_to_num(p, nan=0.0, posinf=self.high - self.low, neginf=self.low - self.high)
        p = p.clamp(pick(self.floor, rows), pick(self.ceiling, rows))
        if self.norm == "linf":
            return p
        wide = pick(self.radius, rows).view(-1, *[1] * len(self.shape))
        # In float64, and a hair inside: rounding of many coordinates would leave the ball.
        norm = torch.linalg.vector_norm(p.reshape(len(p), self.size), dim=1, dtype=torch.float64).view_as(wide)
        p = p * (wide * (1 - 3e-7) / norm.clamp_min(1e-12)).clamp_max(1.0).to(p.dtype)
        return p if self.lattice is None else self._land(p, rows)

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
        """A random point of the ball and box per row: uniform per coordinate (linf), uniform in the ball (l2)."""
        from advgym.core import rng

        keys = pick(self.ids, rows) if keys is None else keys
        radius = pick(self.radius, rows).view(-1, *[1] * len(self.shape))
        if self.norm == "linf":
            return self.project((rng.uniform(seed, keys, self.shape, 11) * 2 - 1) * radius, rows)
        direction = self.steepest(rng.normal(seed, keys, self.shape, 12), rows)
        length = rng.uniform(seed, keys, (), 13).view_as(radius) ** (1.0 / self.size)
        return self.project(direction * radius * length, rows)

    def steepest(self, g: Tensor, rows: Tensor | None = None) -> Tensor:
        """The unit step of the constraint's norm along which a linear function with gradient g rises fastest."""
        if self.norm == "linf":
            return g.sign()
        norm = torch.linalg.vector_norm(g.reshape(len(g), self.size), dim=1)
        unit: Tensor = g / norm.clamp_min(1e-12).view(-1, *[1] * len(self.shape))
        return unit

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
