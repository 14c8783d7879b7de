"""Recordings with a waveform added to them: 16-bit samples, inside the clip's real length, in a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from advgym.core import rng
from advgym.core.batch import Batch, Look, pick
from advgym.core.field import FieldBatch
from advgym.envs.speech.constraints import budgets, masking
from advgym.envs.speech.data import digits as data

BINS = 64  # points of the envelope that a policy sees


def before_padding(samples: int, length: Tensor) -> Tensor:
    """Bool (n, samples): inside clips of so many samples."""
    return torch.arange(samples, device=length.device) < length.unsqueeze(1)


def loudness(x: Tensor) -> Tensor:
    """log10 of the mean power in each of 64 parts of clips (n, samples), floored at 1e-6: (n, 64)."""
    power = F.adaptive_avg_pool1d(x.square().unsqueeze(1), BINS).squeeze(1)
    return torch.log10(power + 1e-6)


class ClipBatch(FieldBatch):
    """B recordings (B, samples) in [-1, 1) on the 16-bit lattice; padding cannot be attacked.

    Args:
        x: float32 (B, samples), canonical.
        length: int64 (B,): samples before the padding.
        constraint: norm, eps, snr, dbx: see `budgets.radius`.
        rate: samples per second.
    """

    shown = "length rate"

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, length: Tensor, constraint: Mapping[str, Any],
        rate: int = data.RATE,
    ) -> None:  # fmt: skip
        super().__init__(
            ids, labels, x, radius=budgets.radius(x, constraint), norm=budgets.BALL[constraint["norm"]],
            lattice=data.LEVELS, low=-1.0, high=(data.LEVELS - 1) / data.LEVELS,
            support=before_padding(x.shape[1], length),
        )  # fmt: skip
        self.length, self.rate = length, rate

    def view(self) -> dict[str, Tensor]:
        """The clip's loudness over time, (B, 64)."""
        return {"envelope": loudness(self.x)}

    def pairs(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(clean clips, perturbed clips, their lengths) of every row and member, for what measures and shows them."""
        return pick(self.x, rows), self.inputs(form, rows).detach(), pick(self.length, rows)


class MaskedBatch(ClipBatch):
    """Recordings whose budget is what their own sound hides: eps dB of mean excess over the masking threshold.

    A step of the threat model's `steepest` has the gradient's phases at the power of the threshold, and `reach` of it
    lies near the ball: a step length relative to `reach` means the same as with other norms.
    """

    def __init__(
        self, ids: Tensor, labels: Tensor, x: Tensor, length: Tensor, constraint: Mapping[str, Any],
        rate: int = data.RATE,
    ) -> None:  # fmt: skip
        super().__init__(ids, labels, x, length, constraint, rate)
        self.norm = "mask"

    @property
    def threshold(self) -> Tensor:
        """Of every clip, made when it is first asked for."""
        if "_masks" not in self.__dict__:
            self.__dict__["_masks"] = masking.threshold_db(self.x, self.rate)
        found: Tensor = self.__dict__["_masks"]
        return found

    def put(self, lanes: Tensor, other: Batch) -> Batch:
        twin = super().put(lanes, other)
        twin.__dict__.pop("_masks", None)
        return twin

    def widened(self, factor: float) -> MaskedBatch:
        wide = self.radius * factor
        return self.like(radius=wide, reach=wide)

    def excess(self, change: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mask excess in dB of changes (n, samples) in units of full scale, float32 (n,); differentiable."""
        return masking.excess_db(change, pick(self.threshold, rows), pick(self.length, rows), self.rate)

    def _measure(self, change: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        if not bool(change.any()):  # as of every clean sample: no mask is needed
            return torch.ones_like(pick(self.every, rows)), torch.zeros_like(pick(self.radius, rows))
        found = self.excess(change / data.LEVELS, rows)
        return found.double() <= pick(self.radius, rows).double() * (1 + 1e-5) + 1e-5, found

    def look(self, p: Tensor, rows: Tensor | None = None, *, finite: bool = False) -> Look:
        """As of every Field; a change below the mask has distance 0 and is one all the same."""
        look = super().look(p, rows, finite=finite)
        change = (look.form.detach() - pick(self.x, rows)).abs().amax(1)
        return look._replace(change=torch.where(look.real, change, 0.0))

    def raw_distance(self, x: Any, rows: Tensor) -> Tensor | None:
        if not isinstance(x, Tensor) or x.shape[1:] != self.x.shape[1:]:
            return None
        return self.excess(x.detach() - self.x[rows], rows)

    def distance(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mask excess in dB, float32 (n,); differentiable in p, with a finite gradient at 0."""
        return self.excess(super().look(p, rows).form - pick(self.x, rows), rows)

    def project(self, p: Tensor, rows: Tensor | None = None) -> Tensor:
        """Clamped to the box, then made quieter as a whole until what storage leaves of it is inside; always valid."""
        p = torch.nan_to_num(p, nan=0.0, posinf=2.0, neginf=-2.0)
        p = p.clamp(pick(self.floor, rows), pick(self.ceiling, rows))
        threshold, length, eps = (pick(t, rows) for t in (self.threshold, self.length, self.radius))
        inside = self._measure(self._canonical(p.detach(), rows)[1], rows)[0]
        if bool(inside.all()):
            return p
        over = masking.power_db(p.detach(), self.rate) - threshold
        scale = masking.shrink_to(over, eps, length, self.rate)
        for _ in range(8):
            part = torch.where(inside, 1.0, scale).unsqueeze(1)
            found = self._measure(self._canonical(p.detach() * part, rows)[1], rows)[0]
            if bool(found.all()):
                return p * part
            scale = torch.where(found, scale, scale * 0.97)
        return torch.where(found.unsqueeze(1), p * part, 0.0)

    def steepest(self, g: Tensor, rows: Tensor | None = None, p: Tensor | None = None) -> Tensor:
        """The gradient's phases at the threshold's power, over `reach`: then `reach` of it lies near the ball."""
        unit = masking.shaped(masking.spectrum(g, self.rate), pick(self.threshold, rows), g.shape[1], self.rate)
        lift = torch.pow(10.0, pick(self.radius, rows) / 20).unsqueeze(1)
        return unit * lift / pick(self.reach, rows).unsqueeze(1)

    def random(self, seed: int, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """Noise in the shape of the threshold, as loud as the budget allows."""
        keys = pick(self.ids, rows) if keys is None else keys
        noise = rng.normal(seed, keys, self.shape, 14)
        return self.project(2 * self.steepest(noise, rows) * pick(self.reach, rows).unsqueeze(1), rows)


def batch_of(
    ids: Tensor, labels: Tensor, x: Tensor, length: Tensor, constraint: Mapping[str, Any], rate: int
) -> ClipBatch:
    """The batch of a constraint's norm."""
    kind = MaskedBatch if constraint["norm"] == "mask" else ClipBatch
    return kind(ids, labels, x, length, constraint, rate)
