"""One waveform for many recordings: added to all of them, or played before each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from advgym.core.batch import pick
from advgym.core.field import FieldBatch
from advgym.envs.speech.constraints import budgets
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.perturb.clips import before_padding, loudness


class SharedBatch(FieldBatch):
    """B bundles of M recordings; a perturbation (samples,) is added to each of them inside its own length.

    Args:
        labels: int64 (B, M, ...).
        waves: float32 (B, M, samples), canonical.
        lengths: int64 (B, M).
        constraint: norm ("linf" or "l2") and eps.
        rate: samples per second.
    """

    shown = "waves lengths members rate"

    def __init__(
        self, ids: Tensor, labels: Tensor, waves: Tensor, lengths: Tensor, constraint: Mapping[str, Any], rate: int,
        wide: int | None = None,
    ) -> None:  # fmt: skip
        samples = waves.shape[2]
        inside = before_padding(samples, lengths.amax(1)) if wide is None else None
        silence = torch.zeros(len(ids), wide or samples, device=waves.device)
        super().__init__(
            ids, labels, silence, radius=budgets.radius(silence, constraint), norm=constraint["norm"],
            lattice=data.LEVELS, low=-1.0, high=(data.LEVELS - 1) / data.LEVELS, support=inside,
        )  # fmt: skip
        self.waves, self.lengths, self.members, self.rate = waves, lengths, waves.shape[1], rate

    def widened(self, factor: float) -> SharedBatch:
        return self.like(**vars(super().widened(factor)))

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """Every member with the perturbation on it, (n * M, samples), kept in the box."""
        waves, lengths = pick(self.waves, rows), pick(self.lengths, rows)
        samples = waves.shape[2]
        inside = before_padding(samples, lengths.flatten()).view_as(waves)
        out = (waves + torch.where(inside, form.unsqueeze(1), 0.0)).clamp(self.low, self.high)
        return out.flatten(0, 1)

    def raw_distance(self, x: Any, rows: Tensor) -> Tensor | None:
        """Of each member's input from that member, in the ball's norm."""
        clean = self._clean(rows)
        if not isinstance(x, Tensor) or x.shape != clean.shape:
            return None
        flat = x.detach() - clean
        return flat.abs().amax(1) if self.norm == "linf" else torch.linalg.vector_norm(flat, dim=1)

    def _clean(self, rows: Tensor) -> Tensor:
        """The clean input of each of n * M rows, whose lanes these are: the members of a lane follow each other."""
        member = torch.arange(len(rows), device=rows.device) % self.members
        return self.waves[rows, member]

    def view(self) -> dict[str, Tensor]:
        """The members' mean loudness over time, (B, 64)."""
        n, m, samples = self.waves.shape
        return {"envelope": loudness(self.waves.view(-1, samples)).view(n, m, -1).mean(1)}

    def pairs(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(clean, perturbed, lengths) of every member of every row."""
        heard = self.inputs(form, rows).detach()
        return self.inputs(torch.zeros_like(form), rows), heard, pick(self.lengths, rows).flatten()


class PrependBatch(SharedBatch):
    """B bundles of M recordings; a perturbation (wide,) is a sound that is played before each of them.

    The clean input is that much silence before each clip.
    """

    def inputs(self, form: Tensor, rows: Tensor | None = None) -> Tensor:
        """The sound before every member, (n * M, wide + samples)."""
        waves = pick(self.waves, rows)
        front = form.unsqueeze(1).expand(-1, waves.shape[1], -1)
        return torch.cat([front, waves], 2).flatten(0, 1)

    def _clean(self, rows: Tensor) -> Tensor:
        waves = super()._clean(rows)
        return torch.cat([waves.new_zeros(len(waves), self.x.shape[1]), waves], 1)

    def raw_distance(self, x: Any, rows: Tensor) -> Tensor | None:
        """Of the part before the clip; infinite where the clip itself is another one."""
        found = super().raw_distance(x, rows)
        if found is None:
            return None
        wide = self.x.shape[1]
        same = (x.detach()[:, wide:] - self._clean(rows)[:, wide:]).abs().amax(1) <= 1e-6
        return torch.where(same, found, torch.inf)

    def pairs(self, form: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        clean, heard, lengths = super().pairs(form, rows)
        return clean, heard, lengths + self.x.shape[1]
